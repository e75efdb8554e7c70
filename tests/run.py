"""The whole test suite, once under each backend, each in its own process.

python tests/run.py                    # everything but `slow`
python tests/run.py --backends jax     # one backend
python tests/run.py -- -k soft_index   # what follows goes to pytest
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BACKENDS = ("torch", "tensorflow", "jax")
# Tracing and compiling, most of the time, use one core each.
WORKERS = ("-n", str(min(os.cpu_count() or 1, 4)), "--dist", "worksteal")
SLOWEST = ("--durations", "20", "--durations-min", "5")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
# Tests that do not depend on the backend run under the first one alone.
ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    failed = []
    # Workers and the processes that tests start compile the same steps on JAX.
    cache, made = tempfile.TemporaryDirectory(), tempfile.TemporaryDirectory()
    shared = {**ONE_THREAD, "JAX_COMPILATION_CACHE_DIR": cache.name}
    # What the fixtures make for all of them.
    shared["KERAS_VPGC_TEST_SHARED"] = made.name
    # Outside of steps each operation of each shape is compiled for itself, in less than a second.
    shared["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    for place, backend in enumerate(options.backends):
        chosen = "not slow" if place == 0 else "not slow and not once"
        print(f"== {backend}: {chosen}", flush=True)
        began = time.monotonic()
        given = ["-m", chosen, *WORKERS, *SLOWEST, *options.pytest]
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-q", *given],
            cwd=ROOT,
            env={**os.environ, **shared, "KERAS_BACKEND": backend},
        )
        print(f"== {backend}: {time.monotonic() - began:.0f} s", flush=True)
        # 5: nothing was selected, which a -k may bring about.
        if code not in (0, 5):
            failed.append(backend)
    if failed:
        sys.exit(f"The tests failed on {', '.join(failed)}.")
    print(f"The tests passed on {', '.join(options.backends)}.")


if __name__ == "__main__":
    main()
