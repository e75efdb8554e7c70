"""How long it takes until something happens: imports, help, completion, in fresh processes.

python benchmarks/start.py                  # every backend that is installed
python benchmarks/start.py --backends jax --repeats 9

`import keras_vpgc` is what it adds to Keras; processor time is that of the process, which other
work on the machine does not change much.
"""

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

IMPORT = """
import json, time
began = time.perf_counter(), time.process_time()
import keras
middle = time.perf_counter(), time.process_time()
import keras_vpgc
end = time.perf_counter(), time.process_time()
print("\\n" + json.dumps([b - a for p in ((began, middle), (middle, end)) for a, b in zip(*p)]))
"""


def imports(backend):
    """Seconds and processor seconds of `import keras`, and of `import keras_vpgc` after it."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    return json.loads(result.stdout.splitlines()[-1])


def command(*arguments, **environment):
    """Seconds and processor seconds of the command."""
    program = shutil.which("vpgc")
    if program is None:
        raise SystemExit("There is no command vpgc: install the package.")
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([program, *arguments], capture_output=True, env={**os.environ, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backends", nargs="+", default=["jax", "torch", "tensorflow"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| | median s | processor s |\n|---|---|---|")

    def row(name, found):
        wall, used = (statistics.median(x) for x in zip(*found, strict=True))
        print(f"| {name} | {wall:.2f} | {used:.2f} |", flush=True)

    for backend in options.backends:
        if importlib.util.find_spec(backend) is None:
            continue
        found = [imports(backend) for _ in range(options.repeats)]
        row(f"import keras, {backend}", [x[:2] for x in found])
        row(f"import keras_vpgc after it, {backend}", [x[2:] for x in found])
    row("vpgc --help", [command("--help") for _ in range(options.repeats)])
    row("vpgc train --help", [command("train", "--help") for _ in range(options.repeats)])
    shell = {"_VPGC_COMPLETE": "complete_bash", "COMP_WORDS": "vpgc train --preset vpgc_"}
    row("completing", [command(**shell, COMP_CWORD="3") for _ in range(options.repeats)])


if __name__ == "__main__":
    main()
