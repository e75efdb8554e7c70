"""The command `vpgc`."""

import errno
import os
import sys


def main():
    """Entry point: bad input ends in one sentence and exit code 1, without a traceback."""
    # Logs of the libraries' own start-up say nothing of the user's work.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "2")
    from keras_vpgc.errors import VPGCError, missing_extra

    try:
        try:
            from keras_vpgc.cli.app import app
        except ModuleNotFoundError as error:
            if error.name in ("typer", "pydantic", "tqdm", "yaml"):
                raise missing_extra(error.name, "cli") from error
            raise
        app()
    except VPGCError as error:
        print(f"vpgc: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == 130:  # typer's word for a KeyboardInterrupt
            print("vpgc: stopped; the same command goes on from here.", file=sys.stderr)
        raise
    except OSError as error:
        print(f"vpgc: {sentence(error)}", file=sys.stderr)
        sys.exit(1)


def sentence(error: OSError) -> str:
    """The last resort, where nothing nearer to the work said what is wrong."""
    from keras_vpgc.errors import FULL

    name = error.filename or ""
    # Libraries raise them with nothing but words.
    words = str(error.strerror or error).strip().splitlines()
    reason = words[0].rstrip(".:") if words else type(error).__name__
    if error.errno in FULL or any("No space left" in line for line in words):
        place = f" for {name}" if name else " on the disk"
        return f"There is no space left{place}: make some and run the same command again."
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        place = name or "A file"
        return f"{place} cannot be read or written ({reason}): choose another place."
    if name:
        return f"{name}: {reason}."
    return (
        f"A file could not be read or written ({reason}): check that files and disk are in order, "
        "and run the same command again."
    )
