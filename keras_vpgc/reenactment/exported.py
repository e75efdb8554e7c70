"""A puppet that was exported: driven by ONNX Runtime or OpenVINO, without its Keras model."""

import functools
import json
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc.assets import sha256
from keras_vpgc.data.parallel import default_workers
from keras_vpgc.errors import VPGCError, missing_extra
from keras_vpgc.export.graph import VERSION
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.version import PUPPET_SCHEMA_VERSION

ENGINES = ("onnxruntime", "openvino")
# More threads than this wait for each other longer than they compute.
MAX_THREADS = 8
# Without any of these, ONNX Runtime adds products of int8 in int16, where they may overflow.
VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


class ExportedPuppet(Puppet):
    """A puppet of `vpgc export` (ONNX, from landmarks), driven as any other.

    A single frame is computed by all threads, those of a batch beside each other by one thread
    each, which takes the least processor time for a frame.

    Args:
        path: The `.onnx` file.
        precision: `"auto"`: float32 by ONNX Runtime, and by OpenVINO bfloat16 where the processor
            has instructions for it, but for the drawing of the landmarks; `"float32"`; or
            `"bfloat16"`, by OpenVINO alone: where the processor lacks the instructions a warning
            says so, and float32 is taken.
        engine: `"onnxruntime"` or `"openvino"`.
        threads: Threads of the network; default: one a core, with OpenVINO one less, at most 8.

    Attributes:
        metadata: The puppet's own, see `Puppet`.
        description: What else the file says of itself, see `keras_vpgc.export.graph.describe`.
        sha256: Checksum of the file.

    Raises:
        VPGCError: if the file is missing, damaged, of another version or no exported puppet, takes
            drawings, or the engine is missing, too old or cannot compute in that precision.

    Example:

    ```python
    puppet = keras_vpgc.load("lite.onnx")
    frames = puppet.drive(landmarks)  # (n, 68, 2) in [0, 1] -> uint8 (n, s, s, 3)
    ```
    """

    def __init__(
        self,
        path,
        precision: str = "auto",
        engine: str = "onnxruntime",
        threads: int | None = None,
    ):
        path = Path(path)
        if engine not in ENGINES:
            raise VPGCError(f"There is no engine {engine!r}: choose one of {', '.join(ENGINES)}.")
        if threads is not None and threads < 1:
            raise VPGCError(f"{threads} threads compute nothing: give 1 or more.")
        if not path.is_file():
            raise VPGCError(f"There is no exported puppet {path}: check the path.")
        if engine == "onnxruntime" and precision == "bfloat16":
            raise VPGCError(
                "ONNX Runtime computes in float32 on processors: choose the engine openvino for "
                "bfloat16, or leave the precision out."
            )
        cores = min(default_workers(), MAX_THREADS)
        self._at_once = threads or cores
        # OpenVINO's threads hold the processor while they wait: tracking and encoding get a core.
        threads = threads or max(1, cores - (engine == "openvino"))
        start = _onnx_runtime if engine == "onnxruntime" else _openvino
        self._start = functools.partial(start, path)
        self._run, text, self._computes_in = self._start(precision, threads, 1)
        self._crew: ThreadPoolExecutor | None = None
        self.description = _described(path, text)
        self.metadata = self.description["metadata"]
        self.sha256 = sha256(path)
        self._engine = engine
        instructions = _instructions()
        if self.description.get("precision") == "int8" and instructions and not VNNI & instructions:
            warnings.warn(
                f"This processor has no instructions for int8 (VNNI), in which {path} is: it takes "
                "longer than in float32, and pixels may be off by more than the export "
                "said; export the puppet in float32 for this processor.",
                stacklevel=3,
            )

    @property
    def model(self) -> Any:
        """There is none."""
        raise VPGCError(
            "An exported puppet has no Keras model: give the run or the puppet.keras for this."
        )

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""
        return self.description["size"]

    @property
    def context(self) -> int:
        """Number of frames that the puppet sees for one image."""
        return self.description["context"]

    @property
    def num_points(self) -> int:
        """Number of landmarks of a frame."""
        return self.description["input"]["shape"][2]

    @property
    def landmark_set(self) -> str:
        """Name of the landmark set."""
        return self.description["landmark_set"]

    @property
    def computes_in(self) -> str:
        """Name of the precision."""
        return self._computes_in

    @property
    def runtime(self) -> str:
        """Name of what computes."""
        return self._engine

    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return str(self.sha256)

    def drawn_model(self):
        """There is none: the file draws the landmarks by itself."""
        raise VPGCError(
            "An exported puppet is driven by landmarks, not by contour images: give the run or the "
            "puppet.keras for these."
        )

    def begin(self, landmarks):
        """Begin the images of consecutive frames; see `Puppet.begin`."""
        landmarks = np.asarray(landmarks, "float32")
        starts = range(len(landmarks) - self.context + 1)
        windows = [np.ascontiguousarray(landmarks[None, k : k + self.context]) for k in starts]
        if len(windows) == 1 or self._at_once == 1:
            images = [self._image(self._run, w) for w in windows]
            return lambda: np.concatenate(images)
        if self._crew is None:
            self._beside, _, _ = self._start(self._computes_in, 1, self._at_once)
            self._crew = ThreadPoolExecutor(self._at_once, "network")
        waiting = [self._crew.submit(self._image, self._beside, w) for w in windows]
        return lambda: np.concatenate([x.result() for x in waiting])

    @staticmethod
    def _image(run, window):
        image = run(window)
        if image.dtype != np.uint8:
            image = np.rint((image + 1.0) * 127.5).clip(0, 255).astype("uint8")
        return image


def _instructions() -> frozenset[str]:
    """Names of the instructions of an x86 processor; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def _onnx_runtime(path, precision, threads, beside):
    """A function of one window, the file's metadata, and the name of the precision.

    Of `beside` threads each may call the function, and each call takes `threads` more.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("onnxruntime", "export") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Tracking and encoding want the processor as well: threads without work must not hold it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise _unreadable(path, onnxruntime, error) from error
    text = session.get_modelmeta().custom_metadata_map.get("keras_vpgc")
    entry = session.get_inputs()[0].name
    return lambda window: session.run(None, {entry: window})[0], text, "float32"


# At a process's first call OpenVINO prepares itself for numpy; of two threads that do so at once
# each may wait for ever for what the other holds (2026.4).
_OPENVINO_BEGINS = threading.Lock()


def _openvino(path, precision, threads, beside):
    """See `_onnx_runtime`."""
    try:
        import openvino
    except ImportError:
        raise missing_extra("openvino", "export") from None
    core = openvino.Core()
    half = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not half:
        warnings.warn(
            "This processor has no instructions for bfloat16: the puppet computes in float32.",
            stacklevel=4,
        )
    half = half and precision != "float32"
    settings = {
        "INFERENCE_NUM_THREADS": threads * beside,
        "NUM_STREAMS": beside,
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
    }
    try:
        model = core.read_model(path)
    except Exception as error:
        raise _unreadable(path, openvino, error) from error
    notes = model.get_rt_info()
    notes = notes["framework"] if "framework" in notes else {}
    text = notes["keras_vpgc"].astype(str) if "keras_vpgc" in notes else None
    # Before anything of another file is taken apart.
    _described(path, text)
    drawing = None
    if half:
        # Places of points in bfloat16 would be off by a quarter of a pixel.
        drawing = _split_off_drawing(core.read_model(path), model)
        plain = {**settings, "INFERENCE_PRECISION_HINT": "f32"}
        drawing = core.compile_model(drawing, "CPU", plain)
        # Its fused attention gives zeros in bfloat16 where keys are as short as codes.
        settings["SNIPPETS_MODE"] = "DISABLE"
    network = core.compile_model(model, "CPU", settings)
    requests, tried = threading.local(), threading.Event()

    def run(window):
        if tried.is_set():
            return infer(window)
        with _OPENVINO_BEGINS:
            image = infer(window)
            tried.set()
            return image

    def infer(window):
        if not hasattr(requests, "network"):
            requests.network = network.create_infer_request()
            requests.draw = None if drawing is None else drawing.create_infer_request()
        inputs = {0: window}
        if requests.draw is not None:
            inputs[1] = requests.draw.infer(inputs, share_inputs=True)[0]
        return np.array(requests.network.infer(inputs, share_inputs=True)[0])

    return run, text, "bfloat16" if half else "float32"


def _split_off_drawing(drawing, rest):
    """Two copies of a network: of the first what draws remains, of the second what is behind."""
    import openvino
    from openvino import opset13

    def drawn(model):
        operators = model.get_ordered_ops()
        return next(x for x in operators if "Convolution" in x.get_type_name()).input_value(0)

    found = drawn(rest)
    entry = opset13.parameter(found.get_partial_shape(), np.float32, name="drawings")
    for reader in found.get_target_inputs():
        reader.replace_source_output(entry.output(0))
    # The landmarks stay an input: they may tell the size of the batch.
    rest.add_parameters([entry])
    rest.validate_nodes_and_infer_types()
    return openvino.Model([drawn(drawing)], drawing.get_parameters(), "drawing")


# What runtimes say of a file that is newer than they are.
_TOO_NEW = re.compile(r"IR version|opset|No Op registered|NOT_IMPLEMENTED|not supported")


def _unreadable(path, runtime, error):
    """What to say of a file that a runtime does not open."""
    if _TOO_NEW.search(str(error)):
        name = runtime.__name__
        return VPGCError(
            f"{name} {runtime.__version__} is too old for {path}: pip install --upgrade {name}."
        )
    return VPGCError(
        f"{path} cannot be read as an ONNX file: it is damaged or another kind of file; copy it "
        "again, or export the puppet again."
    )


def _described(path, text) -> dict:
    """What a file says of itself, or a `VPGCError` if it is none to be driven."""
    if text is None:
        raise VPGCError(f"{path} is an ONNX file but no exported puppet: give one of vpgc export.")
    about = json.loads(text)
    schema = about.get("metadata", {}).get("schema_version")
    if (about.get("version"), schema) != (VERSION, PUPPET_SCHEMA_VERSION):
        raise VPGCError(
            f"{path} was exported by another version of keras_vpgc ({about.get('generator')}): "
            "export the puppet again by this one."
        )
    if about["input"]["name"] != "landmarks":
        raise VPGCError(
            f"{path} takes drawings: export the puppet with --input landmarks to drive it."
        )
    return about
