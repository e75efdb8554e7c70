"""From landmarks to pixels: the package beside its twin in plain PyTorch.

KERAS_BACKEND=torch python benchmarks/inference.py
KERAS_BACKEND=jax python benchmarks/inference.py --batch 1 --precision mixed_bfloat16
KERAS_BACKEND=torch python benchmarks/inference.py --rows twin-graph --parts none
KERAS_BACKEND=torch python benchmarks/inference.py --tiny      # whether it works; no measurement

The first table's calls take float32 landmarks of consecutive frames from the host and give uint8
RGB on the host, as `Puppet` does it; frames/s are those of calls one after
the other for a twin, for the package those of its stream, which begins a call before the last one's
result is there. Rows are those of `training.py`; in bfloat16 a twin keeps its weights so. Before
a twin is timed its images are compared with the package's in float32. "start" is
what the first calls took beyond p50; "off", on PyTorch, how far the pixels are in the mean from the
package's in float32, of 255. The second table's calls, for the rows of `--parts`, are those of
parts of the network, from device to device, several before a wait.

The peak of memory is that of the row on PyTorch, that of the process so far on JAX. The last
columns are the shares of the time that the products would take at the machine's matrix rate, and
the bytes at its copy rate.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# A twin may want memory beside JAX.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np
from keras import ops

from benchmarks import clock, counting
from keras_vpgc import backend
from keras_vpgc.models import PortraitReenactor
from keras_vpgc.reenactment.contours import overlapped, window_model

RATES = ("TFLOP/s", "of matrix rate", "of copy rate")
COLUMNS = (
    "row",
    "precision",
    "batch",
    "p50 ms",
    "p99 ms",
    "start s",
    "peak MiB",
    "frames/s",
    "off",
)
PARTS = ("heatmap", "encoder", "head", "index", "decoder")


def twin_function(function, precision, compiled):
    """A twin's method under a precision, without gradients."""
    import torch

    gpu = torch.cuda.is_available()
    cast = precision == "mixed_bfloat16"

    def run(*inputs):
        scope = torch.autocast("cuda" if gpu else "cpu", torch.bfloat16, enabled=cast)
        with torch.no_grad(), scope:
            return function(*inputs)

    return torch.compile(run, dynamic=False) if compiled else run


class Benchmark:
    """The network, its inputs and the machine's rates of one run."""

    def __init__(self, options):
        self.options = options
        model = self.build("float32")
        self.context, self.size = model.context, model.image_size
        self.points = model.heatmap.num_points
        self.map_shape = model.encoder.output_shape[1:]
        self.codes = ops.convert_to_numpy(model.codebook.codes)
        self.work = counting.count(model)
        # Drawing has no products; what it gives is written.
        self.works = {"heatmap": counting.Work(values=self.size**2)}
        for part in ("encoder", "head", "decoder"):
            self.works[part] = counting.count(getattr(model, part))
        self.works["index"] = counting.count(self.package_parts(model)["index"])
        self.rates = counting.rates(options.tiny)
        self.references: dict[int, np.ndarray] = {}

    def build(self, precision, output="uint8"):
        """A new reenactor of the same weights each time."""
        keras.utils.set_random_seed(0)
        return PortraitReenactor.from_preset(self.options.preset, dtype=precision, output=output)

    def landmarks(self, count):
        """Random landmarks of consecutive frames."""
        rng = np.random.default_rng(0)
        return rng.uniform(0.1, 0.9, size=(count, self.points, 2)).astype("float32")

    def head(self):
        """What is the same for all rows."""
        rates = self.rates
        clock.say(
            f"{clock.backend()}, {clock.device_name()}, {self.options.preset}; "
            f"{self.work.flops / 1e9:.1f} GFLOP an image",
            f"matrix rate {rates['bfloat16'] / 1e12:.1f} TFLOP/s (bfloat16), "
            f"{rates['float32'] / 1e12:.1f} (float32 as convolutions have it); copy rate "
            f"{rates['copy'] / 1e9:.0f} GB/s read and written",
        )

    def shares(self, work, batch, precision, seconds):
        """The columns of `RATES`."""
        work = work.times(batch)
        flops = {clock.dtype_of(precision): work.flops}
        products, copies = counting.floor(flops, work.bytes(precision), self.rates)
        return [
            f"{work.flops / seconds / 1e12:.2f}",
            f"{100 * products / seconds:.0f}%",
            f"{100 * copies / seconds:.0f}%",
        ]

    def latencies(self, call, precision, batch, twin, stream=None):
        """A row's cells out of a call of the host's landmarks; of a stream of them its rate."""
        landmarks = self.landmarks(batch + self.context - 1)
        warm_up = self.options.warm_up
        began = time.perf_counter()
        for _ in range(warm_up):
            call(landmarks)
        start = time.perf_counter() - began
        times = []
        for _ in range(self.options.calls):
            began = time.perf_counter()
            images = call(landmarks)
            times.append(time.perf_counter() - began)
        half, most = np.percentile(times, [50, 99])
        took = np.sum(times)
        if stream is not None:
            began = time.perf_counter()
            for _ in stream((i, landmarks) for i in range(self.options.calls)):
                pass
            took = time.perf_counter() - began
        return [
            f"{1000 * half:.2f}",
            f"{1000 * most:.2f}",
            f"{max(0.0, start - warm_up * half):.1f}",
            clock.peak(twin),
            f"{batch * self.options.calls / took:.1f}",
            self.distance(images, batch),
            *self.shares(self.work, batch, precision, half),
        ]

    def reference(self, batch):
        """What the package gives in float32."""
        with clock.full_precision():
            clock.package_mode("package-off")
            images = backend.compiled(window_model(self.build("float32")))(
                self.landmarks(batch + self.context - 1)
            )
            return ops.convert_to_numpy(images).astype("int16")

    def distance(self, images, batch):
        """A row's mean distance from the reference."""
        if clock.backend() != "torch":
            return "-"
        if batch not in self.references:
            self.references[batch] = self.reference(batch)
        return f"{np.abs(self.references[batch] - images).mean():.3f}"

    def package(self, row, precision, batch):
        """A row of the package."""
        clock.package_mode(row)
        compiled = backend.compiled(window_model(self.build(precision)))
        clock.clear()
        call = lambda x: backend.to_host(compiled(x))()  # noqa: E731
        stream = lambda batches: overlapped(lambda x: backend.to_host(compiled(x)), batches)  # noqa: E731
        return self.latencies(call, precision, batch, False, stream)

    def build_twin(self, precision, nhwc):
        """The twin where it is to compute."""
        import torch

        from benchmarks import twin_layers, twins

        twin = twins.Reenactor(self.build("float32"))
        if precision == "mixed_bfloat16":
            twin_layers.halve(twin)
        layout = torch.channels_last if nhwc else torch.contiguous_format
        return twin.to("cuda" if torch.cuda.is_available() else "cpu").to(memory_format=layout)

    def twin(self, row, precision, batch):
        """A row of the twin."""
        import torch

        compiled, graph, nhwc = clock.plan_of(row)
        if compiled:
            # What was compiled for another row counts towards a limit.
            torch._dynamo.reset()
        twin = self.build_twin(precision, nhwc)
        clock.clear()
        run = twin_function(twin.frames, precision, compiled)
        gpu = torch.cuda.is_available()
        frames = torch.from_numpy(self.landmarks(batch + self.context - 1))
        place = frames.to(twin.codes.device)
        # The host's side of both copies lies where the GPU can reach it.
        images = torch.empty(batch, self.size, self.size, 3, dtype=torch.uint8, pin_memory=gpu)
        frames = frames.pin_memory() if gpu else frames
        began = time.perf_counter()
        replay = clock.captured(lambda: run(place)) if graph else lambda: run(place)
        start = time.perf_counter() - began

        def call(landmarks):
            frames.copy_(torch.from_numpy(landmarks))
            place.copy_(frames, non_blocking=True)
            images.copy_(replay(), non_blocking=True)
            clock.synchronise()
            return images.numpy()

        cells = self.latencies(call, precision, batch, twin=True)
        return [*cells[:2], f"{float(cells[2]) + start:.1f}", *cells[3:]]

    def inputs(self, batch):
        """Random inputs of each part, NHWC, of the host."""
        rng = np.random.default_rng(0)
        features = rng.normal(size=(batch, *self.map_shape)).astype("float32")
        heatmaps = rng.uniform(size=(batch, self.size, self.size, self.context)).astype("float32")
        return {
            "heatmap": [self.landmarks(batch + self.context - 1)],
            "encoder": [heatmaps],
            "head": [features, self.codes],
            "index": [features, self.codes],
            "decoder": [features],
        }

    def package_parts(self, model):
        """Keras models of the parts."""
        landmarks = keras.Input(model.input_shape[2:])
        drawn = model.heatmap(ops.expand_dims(landmarks, 1))[..., 0]
        features = keras.Input(self.map_shape)
        codes = keras.Input(batch_shape=self.codes.shape)
        index = keras.Model([features, codes], model.soft_index([features, codes]))
        return {
            "heatmap": keras.Model(landmarks, drawn),
            "encoder": model.encoder,
            "head": model.head,
            "index": index,
            "decoder": model.decoder,
        }

    def package_part(self, row, precision, batch, part):
        """A row of a part of the package."""
        clock.package_mode(row)
        model = self.package_parts(self.build(precision))[part]
        inputs = [ops.convert_to_tensor(x) for x in self.inputs(batch)[part]]
        compiled = backend.compiled(model)
        argument = inputs if len(inputs) > 1 else inputs[0]
        return self.part_cells(lambda: compiled(argument), part, precision, batch)

    def twin_part(self, row, precision, batch, part):
        """A row of a part of the twin."""
        import torch

        from benchmarks import twins

        compiled, graph, nhwc = clock.plan_of(row)
        if compiled:
            torch._dynamo.reset()
        twin = self.build_twin(precision, nhwc)
        device = twin.codes.device
        layout = torch.channels_last if nhwc else torch.contiguous_format
        arrays = self.inputs(batch)[part]
        if part == "heatmap":
            inputs = [torch.from_numpy(arrays[0]).to(device)]
        else:
            inputs = [twins.nchw(arrays[0]).to(device).contiguous(memory_format=layout)]
            inputs += [torch.from_numpy(np.array(x)).to(device) for x in arrays[1:]]
        run = twin_function(getattr(twin, part), precision, compiled)
        call = lambda: run(*inputs)  # noqa: E731
        call = clock.captured(call) if graph else call
        return self.part_cells(call, part, precision, batch)

    def part_cells(self, call, part, precision, batch):
        """A part's cells out of a call from device to device."""
        for _ in range(self.options.warm_up):
            clock.synchronise(call())
        times, repeats = [], self.options.steps
        for _ in range(max(2, self.options.calls // 10)):
            began = time.perf_counter()
            for _ in range(repeats):
                result = call()
            clock.synchronise(result)
            times.append((time.perf_counter() - began) / repeats)
        middle, low, high = clock.quartiles(times)
        count = batch + self.context - 1 if part == "heatmap" else batch
        # Both are in float32 whatever the policy.
        precision = "float32" if part in ("heatmap", "index") else precision
        cells = [f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
        return cells + self.shares(self.works[part], count, precision, middle / 1000)

    def check(self):
        """Compare the twin with the package in float32."""
        import torch

        from benchmarks import twins

        with clock.full_precision():
            clock.package_mode("package-off")
            twin = self.build_twin("float32", False)
            landmarks = self.landmarks(2 * self.context).reshape(2, self.context, -1, 2)
            whole = backend.compiled(self.build("float32", "float"))(landmarks)
            device = twin.codes.device
            with torch.no_grad():
                found = twins.nhwc(twin(torch.from_numpy(landmarks).to(device)))
                value = twins.compare("images", ops.convert_to_numpy(whole), found)
                frames = self.landmarks(self.context + 1)
                pixels = twin.frames(torch.from_numpy(frames).to(device)).cpu().numpy()
            off = int(np.abs(self.reference(2) - pixels).max())
        if off > 1:
            raise RuntimeError(f"pixels: the twin is off by {off} of 255.")
        clock.say(f"the twin in float32: images differ by {value:.1e}, pixels by {off} of 255")


def default_rows(tiny):
    """What is measured unless `--rows` says otherwise, and of which the parts are."""
    if clock.backend() != "torch":
        return ["package"], ["package"]
    if tiny or not clock.has_gpu():
        rows = ["package-off", "package-trace", "twin-eager", "twin-eager-nhwc"]
        return rows, ["package-off", "twin-eager"]
    plans = ("eager", "graph", "compile", "compile-graph")
    twins = [f"twin-{plan}{layout}" for plan in plans for layout in ("", "-nhwc")]
    return ["package-off", "package-graph", *twins], ["package-graph", "twin-graph"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="vpgc_512")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["mixed_bfloat16", "float32"],
        choices=["mixed_bfloat16", "float32"],
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--calls", type=int, default=100, help="calls of a row")
    parser.add_argument("--steps", type=int, default=5, help="calls of a part before a wait")
    parser.add_argument("--warm-up", type=int, default=5, help="calls before these")
    parser.add_argument("--rows", nargs="*", help="rows to measure, see above")
    parser.add_argument("--parts", nargs="*", help="rows whose parts to measure, or none")
    parser.add_argument("--no-check", action="store_true", help="time twins without comparing")
    parser.add_argument("--tiny", action="store_true", help="a trial on a CPU, of vpgc_tiny")
    options = parser.parse_args()
    if options.tiny:
        options.preset, options.batch, options.warm_up = "vpgc_tiny", [1], 2
        options.calls, options.steps = 3, 1
    rows, parts = default_rows(options.tiny)
    rows = rows if options.rows is None else options.rows
    parts = parts if options.parts is None else [x for x in options.parts if x != "none"]
    clock.check_rows([*rows, *parts])
    benchmark = Benchmark(options)
    benchmark.head()
    if any(row.startswith("twin") for row in [*rows, *parts]) and not options.no_check:
        benchmark.check()
    cases = [(precision, batch) for precision in options.precision for batch in options.batch]
    if rows:
        table = clock.Table((*COLUMNS, *RATES))
        table.head()
    for precision, batch in cases:
        for row in rows:
            measure = benchmark.twin if row.startswith("twin") else benchmark.package
            name = (row, precision, str(batch))
            table.attempt(name, lambda m=measure, r=row, p=precision, b=batch: m(r, p, b))
    if parts:
        clock.say("")
        table = clock.Table(("row", "precision", "batch", "part", "ms", "quartiles", *RATES))
        table.head()
    for precision, batch in cases:
        for row in parts:
            twin = row.startswith("twin")
            measure = benchmark.twin_part if twin else benchmark.package_part
            for part in PARTS:
                name = (row, precision, str(batch), part)
                table.attempt(
                    name,
                    lambda m=measure, r=row, p=precision, b=batch, x=part: m(r, p, b, x),
                )


if __name__ == "__main__":
    main()
