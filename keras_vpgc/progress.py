"""Progress: a bar where it can be redrawn, lines where it cannot."""

import sys

# Seconds between two lines of a log.
LINE_SECONDS = 30.0


def progress_bar(total: int, title: str, unit: str = "frame", show: bool = True, initial: int = 0):
    """A bar in terminals and notebooks; in files and pipes a line now and then.

    Args:
        total: Number of units.
        title: What is done.
        unit: Name of a unit.
        show: Show anything?
        initial: Units that were done before.

    Returns:
        A `tqdm` bar, a context manager with `update(count)`; it writes to the standard error.

    Example:

    ```python
    with progress_bar(100, "driving") as bar:
        bar.update(50)
    ```
    """
    from tqdm.auto import tqdm

    settings = {"total": total, "desc": title, "unit": unit, "initial": initial}
    if show and not redraws():
        settings |= {
            "file": _Lines(sys.stderr),
            "mininterval": LINE_SECONDS,
            "maxinterval": LINE_SECONDS,
            "ncols": 80,
            "ascii": True,
            "bar_format": "{desc}: {n_fmt}/{total_fmt} {unit}s, {elapsed}, {remaining} left",
        }
    return tqdm(disable=not show, **settings)


def redraws() -> bool:
    """Is the standard error a terminal, or a notebook's, where a bar can be drawn again?"""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    notebook = shell is not None and "IPKernelApp" in shell.config
    return notebook or sys.stderr.isatty()


class _Lines:
    """A file that gets whole lines where a terminal's cursor would be put back."""

    def __init__(self, file):
        self.file, self.last = file, ""

    def write(self, text):
        line = text.strip("\r\n ")
        # The end of a bar shows the last state again.
        if line and line != self.last:
            self.last = line
            self.file.write(f"{line}\n")

    def flush(self):
        self.file.flush()
