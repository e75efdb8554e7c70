"""Time and memory of the soft index, one row for each implementation.

KERAS_BACKEND=torch python benchmarks/soft_index.py --batch 4
"""

import argparse
import resource
import subprocess
import sys
import time

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.layers import GridCodebook, SoftIndex

IMPLEMENTATIONS = ("direct", "chunked", "attention")


def measure(implementation, batch, backward, repeats):
    """Median milliseconds of a call, after a warm-up, and the peak of memory above the start."""
    rng = np.random.default_rng(0)
    features = keras.ops.convert_to_tensor(rng.normal(size=(batch, 16, 16, 256)).astype("float32"))
    inputs = keras.Input(batch_shape=features.shape)
    codes = GridCodebook()(inputs)
    model = keras.Model(
        inputs, SoftIndex(temperature=0.09, implementation=implementation)([inputs, codes])
    )
    if backward:
        call = _gradients(model, features)
    else:
        forward = backend.compiled(model)
        call = lambda: keras.ops.convert_to_numpy(forward(features))  # noqa: E731
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(np.median(times[1:])), (peak - start) / 1024


def _gradients(model, features):
    """A training step of the codes: forward and backward."""
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=backend.jit_by_default())
    target = np.zeros(model.output_shape, "float32")
    x = keras.ops.convert_to_numpy(features)
    return lambda: model.train_on_batch(x, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("IMPLEMENTATION", "PASS"), help="internal")
    options = parser.parse_args()
    if options.one:
        implementation, which = options.one
        ms, mib = measure(implementation, options.batch, which == "training", options.repeats)
        print(f"| {implementation} | {which} | {ms:.0f} | {mib:.0f} |")
        return
    print(f"{keras.backend.backend()}, 16x16 cells, 64 pieces, 4096 keys, batch {options.batch}\n")
    print("| implementation | pass | ms | peak MiB |\n|---|---|---|---|", flush=True)
    for which in ("forward", "training"):
        for implementation in IMPLEMENTATIONS:
            # Each in its own process: a process's peak never falls.
            command = [sys.executable, __file__, "--one", implementation, which]
            sizes = ["--batch", str(options.batch), "--repeats", str(options.repeats)]
            subprocess.run([*command, *sizes], check=True)


if __name__ == "__main__":
    main()
