"""Bad input, said in one sentence."""


class VPGCError(ValueError):
    """Bad input: one sentence that names the thing and the way out.

    The command `vpgc` prints it without a traceback and exits with 1.
    """


def missing_extra(package: str, extra: str) -> VPGCError:
    """The error for an optional package that is not installed.

    Args:
        package: Name of the missing package.
        extra: The extra of keras_vpgc that brings it.

    Returns:
        A `VPGCError` with the line to install it.

    Example:

    ```python
    raise missing_extra("mediapipe", "landmarks")
    ```
    """
    return VPGCError(f'{package} is needed for this: pip install "keras_vpgc[{extra}]".')
