"""From a puppet to a file that runs without Keras."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from keras_vpgc.data.portrait import Portrait
from keras_vpgc.errors import VPGCError, check_writable, writing
from keras_vpgc.export import formats
from keras_vpgc.export.graph import INPUTS, PIXELS
from keras_vpgc.hub import is_hub_path, parse
from keras_vpgc.reenactment.puppet import puppet_file
from keras_vpgc.training.recipes import read_run

PRECISIONS = ("float32", "int8")
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Export:
    """An exported puppet.

    Attributes:
        path: The file, a folder for a SavedModel.
        files: All that was written, `path` last.
        description: What the file says of itself, see `keras_vpgc.export.graph.describe`.
        largest: Largest difference of a pixel from Keras's, in grey levels.
        mean: Mean difference of the pixels, in grey levels.
        windows: Number of images that were compared.
        int8: Of an int8 file, how far its pixels are from float32's: `mean` and `largest` in grey
            levels over `images`; `largest` and `mean` above are those of float32. Else `None`.
    """

    path: Path
    files: list[Path]
    description: dict
    largest: float
    mean: float
    windows: int
    int8: dict | None = None


def export_puppet(
    puppet,
    output=None,
    format: str = "onnx",
    *,
    inputs: str = "landmarks",
    pixels: str = "uint8",
    precision: str = "float32",
    portrait=None,
    overwrite: bool = False,
) -> Export:
    """Export a puppet to a file that runs without Keras.

    A process under the backend that can write the format does the work, on the processor, so any
    backend may call; the file is run by its own runtime on the puppet's face at rest and on random
    landmarks, in batches of several sizes, and gets its name if no pixel differs from Keras's by
    more than one grey level.

    Args:
        puppet: A run folder, a `puppet.keras`, or a `Puppet`.
        output: The file to write; default: `puppet` beside the puppet, with the format's ending. A
            SavedModel is a folder; OpenVINO's weights (.bin) and LiteRT's metadata (.json) lie
            beside the file.
        format: `"onnx"`, `"openvino"`, `"litert"`, `"saved_model"` or `"torch"`.
        inputs: `"landmarks"`, windows of consecutive frames `(batch, context, points, 2)` in
            [0, 1] of the puppet's crop; or `"heatmaps"`, their drawings `(batch, s, s, context)`
            in [0, 1].
        pixels: `"uint8"` RGB, or `"float"` in [-1, 1].
        precision: `"float32"`, or `"int8"` for ONNX from landmarks: convolutions in 8 bits, whose
            file is half as large; how far its pixels are from float32's is told, not refused.
        portrait: The portrait folder whose landmarks int8 is calibrated on; default: the one that
            the run was trained on, if it is still there, else made-up heads.
        overwrite: Replace what exists?

    Returns:
        An `Export`.

    Raises:
        VPGCError: for an unknown format, input, precision or type of pixels, a puppet or portrait
            that cannot be read, an output that exists or cannot be written, a backend or package
            that is missing, or a file that does not do what Keras does: nothing is written then.

    Example:

    ```python
    export_puppet("runs/me", "me.onnx").largest  # 1.0
    ```
    """
    for name, value, known in (
        ("input", inputs, INPUTS),
        ("type of pixels", pixels, PIXELS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise VPGCError(f"There is no {name} {value!r}: choose one of {', '.join(known)}.")
    if precision == "int8" and (format, inputs) != ("onnx", "landmarks"):
        raise VPGCError(
            "Only ONNX from landmarks is written in int8: leave the format and the input out, or "
            "choose the precision float32."
        )
    if portrait is not None and precision != "int8":
        raise VPGCError(
            "A portrait calibrates int8 alone: choose that precision, or leave the portrait out."
        )
    if portrait is not None:
        Portrait(portrait)  # is it one?
    chosen = formats.find(format)
    given = isinstance(puppet, str | os.PathLike)
    file = puppet_file(puppet) if given else None
    output = _target(puppet if given else None, output, chosen)
    _check_target(output, chosen, overwrite)
    check_writable(output)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with writing(output):
            if not given:
                file = folder / "puppet.keras"
                puppet.model.save(file)
            target = folder / output.name
            answer = _in_process(
                chosen.backend,
                {
                    "puppet": str(file),
                    "format": format,
                    "target": str(target),
                    "inputs": inputs,
                    "pixels": pixels,
                    "precision": precision,
                    "portrait": _portrait(puppet if given else None, portrait, precision),
                },
            )
            written = chosen.files(target)
            files = chosen.files(output)
            for old, new in zip(written, files, strict=True):
                if new.is_dir():  # a folder is not replaced by a rename
                    os.replace(new, folder / "before")
                os.replace(old, new)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    answer.pop("batches")
    return Export(output, files, **answer)


def _portrait(run, portrait, precision):
    """The portrait to calibrate on, as text, or `None`."""
    if precision != "int8":
        return None
    if portrait is None and run is not None and (Path(run) / "run.json").is_file():
        portrait = read_run(run)["portrait"]
        # It may have been moved since.
        portrait = portrait if (Path(portrait) / "portrait.json").is_file() else None
    return None if portrait is None else str(Path(portrait).absolute())


def _target(puppet, output, chosen):
    if output is not None:
        return Path(output)
    if puppet is None:
        raise VPGCError("A Puppet has no place of its own: give an output.")
    if is_hub_path(puppet):
        raise VPGCError(f"{parse(puppet)} is no place for files of yours: give an output.")
    source = Path(puppet)
    base = source / "puppet" if source.is_dir() else source.with_suffix("")
    return base.with_suffix(chosen.suffix) if chosen.suffix else base.with_name("saved_model")


def _check_target(output, chosen, overwrite):
    if chosen.suffix and output.suffix != chosen.suffix:
        raise VPGCError(
            f"{output} is no name for this format: let it end in {chosen.suffix}, such as "
            f"{output.with_suffix(chosen.suffix)}."
        )
    for file in chosen.files(output):
        if not file.exists():
            continue
        if not overwrite:
            raise VPGCError(f"{file} exists: choose another name, or --overwrite.")
        # What is replaced must be of the kind that is written.
        if file.is_dir() and (chosen.suffix or not (file / "saved_model.pb").exists()):
            raise VPGCError(f"{file} is a folder of other things: choose another name.")
        if file.is_file() and not chosen.suffix:
            raise VPGCError(f"{file} is a file, and a SavedModel a folder: choose another name.")


def _in_process(backend, request):
    """Ask a process under another backend; see `keras_vpgc.export.worker`."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        # Graphs of plain operations, which kernels of a GPU are not.
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_TORCH_DEVICE": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The same package as here, wherever it was imported from.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "keras_vpgc.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        )
        try:
            line = _ask(process, request)
            if not line:
                process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # of what was never read
                    pipe.close()
        if not line:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise VPGCError(
                f"The process that exports ended by itself (exit code {process.returncode}: too "
                f"little memory?), so nothing was written: {lines[-1] if lines else 'no word'}"
            )
    answer = json.loads(line)
    if "done" in answer:
        return answer["done"]
    if answer["error"] == "input":
        raise VPGCError(answer["text"])
    if answer["error"] == "system":
        raise OSError(answer["errno"], answer["text"], answer["file"])
    raise RuntimeError(f"The export failed:\n{answer['text']}")


def _ask(process, request):
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return process.stdout.readline()
    except BrokenPipeError:
        return ""
