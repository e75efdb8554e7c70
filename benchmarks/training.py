"""A training step of stage 1: the package beside its twin in plain PyTorch.

KERAS_BACKEND=torch python benchmarks/training.py
KERAS_BACKEND=jax python benchmarks/training.py
KERAS_BACKEND=torch python benchmarks/training.py --rows package-graph twin-compile-graph-nhwc
KERAS_BACKEND=torch python benchmarks/training.py --tiny       # whether it works; no measurement

All losses (L1, LPIPS of VGG16, L_VQ, hinge with the adaptive weight) and both optimisers, on random
frames that go from the host to the device at each step. Rows: `package` (on PyTorch `package-off`,
`-graph`, `-compile` and `-trace`, see `KERAS_VPGC_TORCH`) and `twin-` followed by any of `eager`,
`compile` (torch.compile), `graph` (the whole step as one CUDA graph) and `nhwc` (channels last),
such as `twin-compile-graph-nhwc`. Before a twin is timed its outputs and losses are compared with
the package's in float32.

A trial is some steps and one wait; the table gives the median of the trials with their quartiles.
"start" is what the first steps took beyond that: tracing, compiling, choosing kernels (compilers
keep what they compiled: a second row may start sooner). The peak of memory is that of the row on
PyTorch, that of the process so far on JAX. L1, the mean of the last trial, shows that the rows have
done the same. The last columns are the shares of the step that the products would take at the
machine's matrix rate, and the bytes at its copy rate.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# A twin may want memory beside JAX.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np

from benchmarks import clock, counting
from keras_vpgc.errors import VPGCError
from keras_vpgc.losses import LPIPSLoss
from keras_vpgc.losses.lpips import NETS
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder
from keras_vpgc.training.codebook_trainer import CodebookTrainer

COLUMNS = (
    "row",
    "precision",
    "batch",
    "ms/step",
    "quartiles",
    "start s",
    "peak MiB",
    "frames/s",
    "L1",
    "TFLOP/s",
    "of matrix rate",
    "of copy rate",
)


class Same(keras.utils.PyDataset):
    """One batch over and over."""

    def __init__(self, pixels, steps):
        super().__init__()
        self.pixels, self.steps = pixels, steps

    def __len__(self):
        return self.steps

    def __getitem__(self, place):
        # As a tuple: Keras would take a lone array's first axis for something else.
        return (self.pixels,)


class Trials(keras.callbacks.Callback):
    """Seconds of a step, for each epoch."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.times = steps, []

    def on_epoch_begin(self, epoch, logs=None):
        clock.synchronise()
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        # The logs are numbers by now, for which the last step had to be done.
        clock.synchronise()
        self.times.append((time.perf_counter() - self.began) / self.steps)


def lpips_weights(choice, folder):
    """Path for `LPIPSLoss`, `None` for the asset; random weights where that cannot be had."""
    if choice not in ("auto", "random"):
        return choice
    if choice == "auto":
        try:
            LPIPSLoss("vgg")
            return None
        except VPGCError as error:
            clock.say(f"LPIPS has random weights: {error}")
    rng, arrays, inputs = np.random.default_rng(0), {}, 3
    widths = [
        n for n, depth in zip(NETS["vgg"][0], (2, 2, 3, 3, 3), strict=True) for _ in range(depth)
    ]
    for place, width in enumerate(widths):
        kernel = rng.normal(size=(3, 3, inputs, width)) * (2 / (9 * inputs)) ** 0.5
        arrays[f"VGG16_0/Conv_{place}/kernel"] = kernel.astype("float32")
        arrays[f"VGG16_0/Conv_{place}/bias"] = np.zeros(width, "float32")
        inputs = width
    for place, width in enumerate(NETS["vgg"][0]):
        heads = np.full((1, 1, width, 1), 0.1, "float32")
        arrays[f"NetLinLayer_{place}/Conv_0/kernel"] = heads
    path = Path(folder) / "lpips.npz"
    np.savez(path, **arrays)
    return str(path)


class Benchmark:
    """The networks, the batch and the machine's rates of one run."""

    def __init__(self, options):
        self.options, self.matching = options, options.matching
        self.folder = tempfile.TemporaryDirectory()
        self.weights = lpips_weights(options.lpips, self.folder.name)
        autoencoder, discriminator, lpips = self.build("float32")
        size = autoencoder.image_size
        shape = (options.batch, size, size, 3)
        self.pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype="uint8")
        self.works = (
            counting.count(autoencoder),
            counting.count(discriminator),
            counting.count(lpips.distance.network, size),
        )
        self.rates = counting.rates(options.tiny)

    def build(self, precision, lpips="float32"):
        """New models of the same weights each time, and LPIPS in a precision of its own."""
        keras.utils.set_random_seed(0)
        shared = {"dtype": precision}
        return (
            PortraitAutoencoder.from_preset(self.options.preset, **shared),
            PatchDiscriminator.from_preset(
                self.options.preset, feature_maps=self.matching > 0, **shared
            ),
            LPIPSLoss("vgg", self.weights, lpips),
        )

    def head(self):
        """What is the same for all rows."""
        flops = counting.image_step(*self.works, self.options.batch, self.matching)
        rates = self.rates
        clock.say(
            f"{clock.backend()}, {clock.device_name()}, {self.options.preset}; "
            f"{sum(flops.values()) / 1e12:.3f} TFLOP a step, {flops['lpips'] / 1e12:.3f} of them "
            f"in LPIPS ({self.options.lpips_precision})",
            f"matrix rate {rates['bfloat16'] / 1e12:.1f} TFLOP/s (bfloat16), "
            f"{rates['float32'] / 1e12:.1f} (float32 as convolutions have it); copy rate "
            f"{rates['copy'] / 1e9:.0f} GB/s read and written",
        )

    def cells(self, precision, times, start, peak, l1):
        """A row's numbers."""
        batch = self.options.batch
        step, low, high = clock.quartiles(times)
        parts = counting.image_step(*self.works, batch, self.matching)
        flops = {clock.dtype_of(self.options.lpips_precision): parts["lpips"]}
        dtype = clock.dtype_of(precision)
        flops[dtype] = flops.get(dtype, 0) + parts["network"]
        moved = counting.image_step_bytes(
            *self.works, batch, self.matching, precision, self.options.lpips_precision
        )
        products, copies = counting.floor(flops, moved, self.rates)
        return [
            f"{step:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{max(0.0, start - self.options.warm_up * step / 1000):.1f}",
            peak,
            f"{1000 * batch / step:.1f}",
            f"{l1:.4f}",
            f"{sum(flops.values()) / step / 1e9:.1f}",
            f"{100000 * products / step:.0f}%",
            f"{100000 * copies / step:.0f}%",
        ]

    def trainer(self, *models):
        """A trainer of the package all of whose losses are on."""
        trainer = CodebookTrainer(*models, feature_matching_weight=self.matching)
        trainer.compile()
        trainer.switch_adversarial(True)
        return trainer

    def package(self, row, precision):
        """A row of the package, by `fit`."""
        clock.package_mode(row)
        autoencoder, discriminator, lpips = self.build(precision, self.options.lpips_precision)
        trainer = self.trainer(autoencoder, discriminator, lpips)
        clock.clear()
        began = time.perf_counter()
        trainer.fit(Same(self.pixels, self.options.warm_up), verbose=0)
        clock.synchronise()
        start = time.perf_counter() - began
        trials = Trials(self.options.steps)
        data = Same(self.pixels, self.options.steps)
        epochs = self.options.repeats
        history = trainer.fit(data, epochs=epochs, verbose=0, callbacks=[trials]).history
        return self.cells(precision, trials.times, start, clock.peak(), history["l1"][-1])

    def twin_step(self, precision, lpips_precision, compiled=False, nhwc=False):
        """The twin's step, with the weights that `build` gives."""
        import torch

        from benchmarks import twins
        from benchmarks.twin_training import Stage1

        autoencoder, discriminator, lpips = self.build("float32")
        parts = (
            twins.Autoencoder(autoencoder),
            twins.Discriminator(discriminator),
            twins.LPIPS(lpips.distance),
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        layout = torch.channels_last if nhwc else torch.contiguous_format
        parts = [x.to(device).to(memory_format=layout) for x in parts]
        return Stage1(*parts, precision, lpips_precision, compiled, matching_weight=self.matching)

    def twin(self, row, precision):
        """A row of the twin."""
        import torch

        compiled, graph, nhwc = clock.plan_of(row)
        if compiled:
            # What was compiled for another row counts towards a limit.
            torch._dynamo.reset()
        step = self.twin_step(precision, self.options.lpips_precision, compiled, nhwc)
        gpu = step.device.type == "cuda"
        pixels = torch.from_numpy(self.pixels)
        pixels = pixels.pin_memory() if gpu else pixels
        place = pixels.to(step.device)
        clock.clear()
        began = time.perf_counter()
        if graph:
            # One call less than the others: the recording is not run.
            run = clock.captured(lambda: step(place), self.options.warm_up - 1)
        else:
            run = lambda: step(place)  # noqa: E731
            for _ in range(self.options.warm_up - 1):
                run()
        run()
        clock.synchronise()
        start = time.perf_counter() - began
        times = []
        for _ in range(self.options.repeats):
            found = []
            began = time.perf_counter()
            for _ in range(self.options.steps):
                place.copy_(pixels, non_blocking=True)
                # The next step of a graph writes over what this one found.
                found.append(run()["l1"].clone())
            clock.synchronise()
            times.append((time.perf_counter() - began) / self.options.steps)
        l1 = float(torch.stack(found).mean())
        return self.cells(precision, times, start, clock.peak(twin=True), l1)

    def check(self):
        """Compare the twin with the package in float32; on PyTorch a whole step's losses too."""
        import torch

        from benchmarks import twins

        with clock.full_precision():
            step = self.twin_step("float32", "float32")
            models = self.build("float32")
            pixels = self.pixels[:2]
            images = pixels.astype("float32") / 127.5 - 1.0
            own = twins.nchw(images).to(step.device)
            found = []
            with torch.no_grad():
                made = keras.ops.convert_to_numpy(models[0](images))
                found.append(twins.compare("autoencoder", made, twins.nhwc(step.autoencoder(own))))
                pairs = zip(models[1](images), step.discriminator(own), strict=True)
                for one, other in pairs:
                    one = keras.ops.convert_to_numpy(one[-1] if self.matching else one)
                    found.append(twins.compare("discriminator", one, twins.nhwc(other)))
                one = keras.ops.convert_to_numpy(models[2].distance(images, made))
                other = step.lpips(own, twins.nchw(made).to(step.device)).cpu().numpy()
                found.append(twins.compare("LPIPS", one, other))
            if clock.backend() == "torch":
                clock.package_mode("package-off")
                trainer = self.trainer(*models)
                one = trainer.train_on_batch(pixels, return_dict=True)
                other = step(torch.from_numpy(pixels).to(step.device))
                for name, value in other.items():
                    # The weight is a quotient of small sums.
                    limit = 1e-3 if name == "lambda" else 1e-4
                    found.append(twins.compare(name, float(one[name]), float(value), limit))
        clock.say(f"the twin in float32: outputs and losses differ by {max(found):.1e} at most")


def default_rows(tiny):
    """What is measured unless `--rows` says otherwise."""
    if clock.backend() != "torch":
        return ["package"]
    if tiny or not clock.has_gpu():
        return ["package-off", "package-trace", "twin-eager", "twin-eager-nhwc"]
    plans = ("eager", "graph", "compile", "compile-graph")
    twins = [f"twin-{plan}{layout}" for plan in plans for layout in ("", "-nhwc")]
    return ["package-off", "package-graph", *twins]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="vpgc_512")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["mixed_bfloat16", "float32"],
        choices=["mixed_bfloat16", "float32"],
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7, help="trials of a row")
    parser.add_argument("--steps", type=int, default=10, help="steps of a trial")
    parser.add_argument("--warm-up", type=int, default=5, help="steps before the trials")
    parser.add_argument("--rows", nargs="+", help="rows to measure, see above")
    parser.add_argument("--lpips", default="auto", help="auto, random, or a file of weights")
    parser.add_argument(
        "--lpips-precision",
        default="float32",
        choices=["mixed_bfloat16", "float32"],
        help="as the recipes have it: float32",
    )
    parser.add_argument(
        "--matching", type=float, default=0.0, help="weight of feature matching; default: off"
    )
    parser.add_argument("--no-check", action="store_true", help="time twins without comparing")
    parser.add_argument("--tiny", action="store_true", help="a trial on a CPU, of vpgc_tiny")
    options = parser.parse_args()
    if options.tiny:
        options.preset, options.batch, options.warm_up = "vpgc_tiny", 1, 1
        options.repeats, options.steps = 2, 1
        options.lpips = "random" if options.lpips == "auto" else options.lpips
    rows = options.rows or default_rows(options.tiny)
    clock.check_rows(rows)
    benchmark = Benchmark(options)
    benchmark.head()
    if any(row.startswith("twin") for row in rows) and not options.no_check:
        benchmark.check()
    table = clock.Table(COLUMNS)
    table.head()
    for precision in options.precision:
        for row in rows:
            measure = benchmark.twin if row.startswith("twin") else benchmark.package
            name = (row, precision, str(options.batch))
            table.attempt(name, lambda m=measure, r=row, p=precision: m(r, p))


if __name__ == "__main__":
    main()
