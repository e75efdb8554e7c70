"""The command `vpgc`."""

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
            if error.name in ("typer", "pydantic", "tqdm"):
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
        if error.errno is None:
            raise
        print(f"vpgc: {error.filename or 'a file'}: {error.strerror}.", file=sys.stderr)
        sys.exit(1)
