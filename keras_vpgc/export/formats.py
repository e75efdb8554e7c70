"""The formats, and who writes and runs them."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError, missing_extra


@dataclass(frozen=True)
class Format:
    """A format of exported puppets.

    Attributes:
        runtime: What runs such a file, in words.
        backend: The Keras backend that writes it.
        suffix: The file's ending; empty where it is a folder.
        beside: Endings of the files that lie beside it.
        packages: Modules that writing and checking need, with their names on the package registry.
    """

    runtime: str
    backend: str
    suffix: str
    beside: tuple[str, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()

    def files(self, path) -> list[Path]:
        """All that an export to `path` writes, the file itself last."""
        path = Path(path)
        return [*(path.with_suffix(suffix) for suffix in self.beside), path]


_ONNX = (("onnxscript", "onnxscript"), ("onnxruntime", "onnxruntime"))

FORMATS = {
    "onnx": Format("ONNX Runtime", "torch", ".onnx", packages=_ONNX),
    # By way of ONNX: OpenVINO's own reading of PyTorch's programs does not know all operators.
    "openvino": Format(
        "OpenVINO", "torch", ".xml", (".bin",), (_ONNX[0], ("openvino", "openvino"))
    ),
    "litert": Format(
        "LiteRT", "tensorflow", ".tflite", (".json",), (("ai_edge_litert", "ai-edge-litert"),)
    ),
    "saved_model": Format("TensorFlow", "tensorflow", ""),
    "torch": Format("PyTorch", "torch", ".pt2"),
}
BACKENDS = {"torch": "PyTorch", "tensorflow": "TensorFlow"}


def find(name: str) -> Format:
    """The format of a name, if it can be written here.

    Args:
        name: A key of `FORMATS`.

    Returns:
        The `Format`.

    Raises:
        VPGCError: for another name, or where a package is missing.

    Example:

    ```python
    find("onnx").suffix  # ".onnx"
    ```
    """
    if name not in FORMATS:
        raise VPGCError(f"There is no format {name!r}: choose one of {', '.join(FORMATS)}.")
    chosen = FORMATS[name]
    if importlib.util.find_spec(chosen.backend) is None:
        raise VPGCError(
            f"The format {name!r} is written by {BACKENDS[chosen.backend]}, which is not installed "
            f'here, whatever backend trained the puppet: pip install "keras_vpgc[{chosen.backend}]"'
            "."
        )
    for module, package in chosen.packages:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(package, "export")
    return chosen


def write(name: str, model, path, metadata: str) -> None:
    """Write a model; see `find` for what must be there.

    Args:
        name: A key of `FORMATS`.
        model: Keras model of one input and one output, under the format's backend.
        path: The file.
        metadata: JSON text that goes into the file, or beside it.
    """
    path = Path(path)
    if name == "openvino":
        import openvino

        onnx = path.with_suffix(".onnx")
        _write_onnx(model, onnx, metadata)
        # Not by `convert_model`, which reports its use to the publisher.
        converted = openvino.Core().read_model(onnx)
        converted.set_rt_info(metadata, ["keras_vpgc"])
        openvino.save_model(converted, path, compress_to_fp16=False)
        del converted  # it reads the weights from the file
        onnx.unlink()
        return
    if name == "onnx":
        _write_onnx(model, path, metadata)
        return
    backend.write_export(model, name, path, metadata)
    if name == "litert":
        path.with_suffix(".json").write_text(metadata, encoding="utf-8")


def _write_onnx(model, path, metadata):
    from keras_vpgc.export import onnx_passes

    backend.write_export(model, "onnx", path, metadata)
    onnx_passes.apply(path)


def read(name: str, path):
    """Open an exported file by its own runtime, on the processor and in float32.

    Args:
        name: A key of `FORMATS`.
        path: The file.

    Returns:
        A function from a numpy array `(batch, ...)` to one `(batch, s, s, 3)`.
    """
    if name == "onnx":
        return _read_onnx(path)
    if name == "openvino":
        return _read_openvino(path)
    if name == "litert":
        return _read_litert(path)
    return backend.read_export(name, path)


def _read_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (inputs,) = session.get_inputs()
    return lambda batch: session.run(None, {inputs.name: batch})[0]


def _read_openvino(path):
    import openvino

    # Its default is bfloat16 where the processor has it.
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0]


def _read_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()

    def call(batch):
        interpreter.resize_tensor_input(inputs["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(inputs["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(outputs["index"])

    return call
