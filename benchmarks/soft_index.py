"""Time and memory of the soft index, one row for each implementation and precision.

KERAS_BACKEND=torch python benchmarks/soft_index.py --batch 4
KERAS_BACKEND=jax python benchmarks/soft_index.py --tiny      # whether it works; no measurement

Calls from device to device at the paper's size: 16x16 cells, 64 pieces, 4096 keys of length 4.
`forward` is the layer alone, `training` a step of the codes by `train_on_batch`. "peak MiB" is the
device's peak on a GPU, else the process's above its start. "off" is the mean distance from float64,
by NumPy, as a share of the mean size. Each row has its own process.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np

from benchmarks import clock
from keras_vpgc import backend
from keras_vpgc.layers import GridCodebook, SoftIndex
from keras_vpgc.layers.soft_index import window_cells

IMPLEMENTATIONS = ("direct", "chunked", "attention", "auto")
TEMPERATURE, WINDOW = 0.09, 4


def inputs(options):
    """Features and codes, as they are at the start of a training."""
    rng = np.random.default_rng(0)
    cells, codes = (4, 16) if options.tiny else (16, 256)
    features = rng.normal(size=(options.batch, cells, cells, 256)).astype("float32") * 0.3
    return features, rng.normal(size=(cells, cells, codes, 4)).astype("float32") * 0.3


def build(options, implementation, precision):
    """A model of the layer that holds its codes."""
    features, codes = inputs(options)
    given = keras.Input(batch_shape=features.shape)
    codebook = GridCodebook(codes.shape[:2], codes.shape[2], dtype=precision)
    layer = SoftIndex(
        WINDOW, temperature=TEMPERATURE, implementation=implementation, dtype=precision
    )
    model = keras.Model(given, layer([given, codebook(given)]))
    codebook.codes.assign(codes)
    return model, features


def reference(features, codes, position):
    """What one position is by Eq. 4 and 5, in float64."""
    cells = codes.shape[0]
    window = window_cells((cells, cells), WINDOW)[position]
    keys = codes.reshape(cells * cells, -1, 4)[window].reshape(-1, 4).astype("float64")
    queries = features.reshape(len(features), cells * cells, -1, 4)[:, position]
    found = queries.astype("float64") @ keys.T / TEMPERATURE
    weights = np.exp(found - found.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ keys).reshape(len(features), -1)


def measure(options, implementation, precision, which):
    """A row's cells."""
    model, features = build(options, implementation, precision)
    placed = keras.ops.convert_to_tensor(features)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock.clear()
    forward = backend.compiled(model)
    found = keras.ops.convert_to_numpy(keras.ops.cast(forward(placed), "float32"))
    _, codes = inputs(options)
    off, size = [], []
    for position in (0, codes.shape[0] ** 2 // 2):
        wanted = reference(features, codes, position)
        one = found.reshape(len(features), codes.shape[0] ** 2, -1)[:, position]
        off.append(np.abs(one - wanted).mean())
        size.append(np.abs(wanted).mean())
    call = lambda: forward(placed)  # noqa: E731
    if which == "training":
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=backend.jit_by_default())
        backend.record_steps(model)
        target = keras.ops.zeros(placed.shape)
        call = lambda: model.train_on_batch(placed, target)  # noqa: E731
    for _ in range(options.warm_up):
        result = call()
    clock.synchronise(result)
    times = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        for _ in range(options.steps):
            result = call()
        clock.synchronise(result)
        times.append((time.perf_counter() - began) / options.steps)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    middle, low, high = clock.quartiles(times)
    memory = f"{peak:.0f}" if _device().startswith("CPU") else clock.peak()
    share = np.mean(off) / np.mean(size)
    return [f"{middle:.2f}", f"{low:.2f} to {high:.2f}", memory, f"{share:.1e}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5, help="trials of a row")
    parser.add_argument("--steps", type=int, default=1, help="calls of a trial before a wait")
    parser.add_argument("--warm-up", type=int, default=4, help="calls before the trials")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["mixed_bfloat16", "float32"],
        choices=["mixed_bfloat16", "float32"],
    )
    parser.add_argument("--rows", nargs="+", default=IMPLEMENTATIONS, choices=IMPLEMENTATIONS)
    parser.add_argument("--tiny", action="store_true", help="a trial on a CPU, of 4x4 cells")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.batch, options.repeats, options.warm_up = 1, 2, 2
    if options.one:
        cells = measure(options, *options.one)
        print("| " + " | ".join([*options.one, *cells]) + " |")
        return
    print(f"{keras.backend.backend()}, {_device()}, batch {options.batch}\n")
    print("| implementation | precision | pass | ms | quartiles | peak MiB | off |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for which in ("forward", "training"):
        for precision in options.precision:
            for implementation in options.rows:
                # A process's peak never falls.
                command = [sys.executable, __file__, *_shared(options)]
                command += ["--one", implementation, precision, which]
                subprocess.run(command, check=True)


def _device():
    return "CPU" if keras.backend.backend() == "tensorflow" else clock.device_name()


def _shared(options):
    """The options that a row's process needs."""
    pairs = {"--batch": options.batch, "--repeats": options.repeats}
    pairs |= {"--steps": options.steps, "--warm-up": options.warm_up}
    words = [str(word) for pair in pairs.items() for word in pair]
    return [*words, *(["--tiny"] if options.tiny else [])]


if __name__ == "__main__":
    main()
