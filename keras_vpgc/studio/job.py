"""The process of one job: `python -P job.py FOLDER NUMBER`.

It holds the job's lock as long as it lives, so that a studio which starts anew knows of it, and
says at the end how it ended. A process that was killed says nothing, which tells just that.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main(folder: str, number: str) -> None:
    """Run the command of a job in this process."""
    from filelock import FileLock

    base = Path(folder) / number
    with FileLock(f"{base}.lock"):
        # It ran already, and the studio could not note that it had begun.
        if Path(f"{base}.result").exists():
            return
        # A parent in the background may have switched it off.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        job = json.loads(base.with_suffix(".json").read_text())
        sys.argv = ["vpgc", *job["arguments"]]
        code: int | str | None = 1
        try:
            from keras_vpgc.cli import main as vpgc

            vpgc()
            code = 0
        except KeyboardInterrupt:
            code = 130
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            partial = Path(f"{base}.result.partial")
            partial.write_text(json.dumps({"code": code if isinstance(code, int) else 1}))
            os.replace(partial, f"{base}.result")


if __name__ == "__main__":
    main(*sys.argv[1:])
