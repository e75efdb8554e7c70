"""A puppet without a GPU: its exported file under ONNX Runtime and OpenVINO, and Keras beside them.

KERAS_BACKEND=torch python benchmarks/lite.py                       # vpgc_512_lite, untrained
KERAS_BACKEND=torch python benchmarks/lite.py runs/me --portrait data/me
KERAS_BACKEND=torch python benchmarks/lite.py --file me.onnx --rows ort-all ov-f32
KERAS_BACKEND=torch python benchmarks/lite.py --tiny         # whether it works, no measurement

A call takes one window of landmarks from the host and gives its uint8 image there. Rows:
`ort-all` (ONNX Runtime with all its graph optimisations, which lay maps out in blocks of channels),
`ort-extended` (without that layout), `ort-passive` (threads that wait asleep), `ov-f32` and
`ov-bf16` (OpenVINO, which takes bfloat16 unless told otherwise), `ort-int8` and `ov-int8`
(convolutions quantised to 8 bits by ONNX Runtime's static quantisation, calibrated on landmarks of
`--portrait` or on made-up heads), and `keras`, on the backend of `KERAS_BACKEND`.

"least" and "median" are wall-clock milliseconds; other work on the machine makes them longer. "CPU"
is the processor time of the fastest call, of all threads, which other work hardly moves: of a row
of one thread it is the time of a call on an idle core. "off": mean distance of the pixels from
`ort-all`, of 255.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import clock

ROWS = ("ort-all", "ort-extended", "ort-passive", "ov-f32", "ov-bf16", "ort-int8", "ov-int8")
COLUMNS = ("row", "threads", "least ms", "median ms", "CPU ms", "frames/s", "off")
CALIBRATION = 24


def write(puppet, path, **network):
    """Export a preset's untrained puppet (`network`: what differs), or a trained one.

    Returns the Keras model.
    """
    import keras

    from keras_vpgc.export import formats, graph
    from keras_vpgc.models import PortraitReenactor, presets
    from keras_vpgc.reenactment import Puppet

    if puppet in presets.names():
        keras.utils.set_random_seed(0)
        model = PortraitReenactor.from_preset(puppet, **network)
    else:
        model = Puppet.load(puppet, precision="float32").model
    formats.write("onnx", graph.export_model(model), path, "{}")
    return model


def landmark_windows(shape, portrait, count):
    """Windows of landmarks of a portrait, or of heads that turn and talk at random."""
    context, points = shape
    if portrait:
        from keras_vpgc.data import Portrait
        from keras_vpgc.data.dataset import context_indices

        known = Portrait(portrait)
        train = known.indices("train")
        chosen = train[np.linspace(0, len(train) - 1, count).astype(int)]
        return known.landmarks[context_indices(len(known), context, "causal")[chosen]]
    rng = np.random.default_rng(0)
    rest = rng.uniform(0.2, 0.8, (points, 2))
    moved = (
        rest + rng.normal(0, 0.03, (count, 1, 1, 2)) + rng.normal(0, 0.01, (count, 1, points, 2))
    )
    return np.broadcast_to(moved, (count, context, points, 2)).astype("float32")


def onnx_runtime(path, row, threads):
    """A function of a window by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if row == "ort-extended":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if row == "ort-passive":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: session.run(None, {name: window})[0]


def openvino(path, row, threads):
    """The same by OpenVINO."""
    import openvino as ov

    precision = "bf16" if row == "ov-bf16" else "f32"
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda window: request.infer({0: window}, share_inputs=True)[0]


def keras_model(model):
    """The same by Keras."""
    import keras

    from keras_vpgc import backend
    from keras_vpgc.layers import ToUint8

    call = backend.compiled(keras.Model(model.input, ToUint8(dtype="float32")(model.output)))
    return lambda window: backend.to_host(call(window))()


def measure(call, windows, calls):
    """Least and median wall time, processor time of the fastest call, and the images."""
    for window in windows[:3]:
        call(window[None])
    walls, cpus = [], []
    for i in range(calls):
        window = np.ascontiguousarray(windows[i % len(windows)][None])
        wall, cpu = time.perf_counter(), time.process_time()
        call(window)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    images = np.concatenate([np.array(call(w[None])) for w in windows[:4]]).astype("int16")
    return 1000 * min(walls), 1000 * np.median(walls), 1000 * min(cpus), images


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("puppet", nargs="?", default="vpgc_512_lite", help="preset, run or file")
    parser.add_argument("--file", help="an ONNX file that vpgc export wrote, instead")
    parser.add_argument("--portrait", help="landmarks to calibrate on and to drive by")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "keras"], default=[*ROWS, "keras"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--tiny", action="store_true", help="a trial, of vpgc_tiny")
    options = parser.parse_args()
    if options.tiny:
        options.puppet, options.calls, options.threads = "vpgc_tiny", 2, [1]
    with tempfile.TemporaryDirectory() as folder:
        path, model = options.file, None
        if path is None:
            path = f"{folder}/puppet.onnx"
            model = write(options.puppet, path)
        report(options, path, model, folder)


def report(options, path, model, folder):
    import onnxruntime

    from keras_vpgc.export import int8

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[1:3]
    del session
    windows = landmark_windows(shape, options.portrait, CALIBRATION)
    clock.say(
        f"{options.file or options.puppet}: {os.path.getsize(path) / 1e6:.1f} MB; load average "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    files = {"float": path}
    if any(row.endswith("int8") for row in options.rows):
        files["int8"] = f"{folder}/int8.onnx"
        shutil.copy(path, files["int8"])
        int8.quantise(files["int8"], windows)
        clock.say(f"int8: {os.path.getsize(files['int8']) / 1e6:.1f} MB")
    reference = measure(onnx_runtime(path, "ort-all", 1), windows, 1)[3]
    table = clock.Table(COLUMNS)
    table.head()
    for row in options.rows:
        if row == "keras" and model is None:
            continue
        for threads in options.threads if row != "keras" else ["-"]:

            def cells(row=row, threads=threads):
                file = files["int8" if row.endswith("int8") else "float"]
                if row == "keras":
                    call = keras_model(model)
                else:
                    call = (onnx_runtime if row.startswith("ort") else openvino)(file, row, threads)
                least, median, cpu, images = measure(call, windows, options.calls)
                off = np.abs(images - reference).mean()
                times = (f"{x:.1f}" for x in (least, median, cpu))
                return [*times, f"{1000 / least:.1f}", f"{off:.3f}"]

            name = f"keras ({clock.backend()})" if row == "keras" else row
            table.attempt((name, str(threads)), cells)


if __name__ == "__main__":
    main()
