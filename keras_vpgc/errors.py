"""Bad input, said in one sentence."""

import contextlib
import errno
import tempfile
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)
ELSEWHERE = "choose another place"
AGAIN = "make some and run the same command again"
# Bytes that must fit for a place to count as one that can be written.
TRIAL_BYTES = 2**20


class VPGCError(ValueError):
    """Bad input: one sentence that names the thing and the way out.

    The command `vpgc` prints it without a traceback and exits with 1.
    """


class NoFaceError(VPGCError):
    """A video in which there is no face to be used."""


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


def import_cv2():
    """OpenCV, which is optional.

    Returns:
        The module `cv2`.

    Raises:
        VPGCError: if it is not installed.

    Example:

    ```python
    cv2 = import_cv2()
    ```
    """
    try:
        import cv2
    except ImportError:
        raise missing_extra("opencv-contrib-python", "video") from None
    return cv2


@contextlib.contextmanager
def writing(target, instead: str = ELSEWHERE, full: str = AGAIN):
    """Full disks and read-only places in a sentence that names the target.

    Args:
        target: What is written, as the user knows it.
        instead: What to do where it cannot be.
        full: What to do where there is no space.

    Raises:
        VPGCError: for an error of the system that the user can mend; others go on.

    Example:

    ```python
    with writing("out.txt"):
        Path("out.txt").write_text("words")
    ```
    """
    try:
        yield
    except Exception as error:
        # FFmpeg's errors have numbers too, but not all are an OSError.
        number = getattr(error, "errno", None)
        if number in FULL:
            raise VPGCError(f"There is no space left for {target}: {full}.") from error
        if number in REFUSED:
            reason = getattr(error, "strerror", None) or "it is no place for a file"
            raise VPGCError(f"{target} cannot be written ({reason}): {instead}.") from error
        raise


def check_writable(target, instead: str = ELSEWHERE) -> None:
    """Refuse a place that cannot be written, before the work; leaves nothing there.

    Args:
        target: A file or folder to be made; its parents need not exist.
        instead: What to do where it cannot be.

    Raises:
        VPGCError: if it is read-only or full, or a file is where a folder must be.

    Example:

    ```python
    check_writable("out/me.mp4")
    ```
    """
    target = Path(target)
    with writing(target, instead):
        folder = target if target.is_dir() else target.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
