"""Options that several commands have."""

import inspect
from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("onnx", "openvino", "litert", "saved_model", "torch")
# The same as `keras_vpgc.models.presets.names()`, without Keras: a shell that completes waits.
PRESETS = ("paper_512", "vpgc_512", "vpgc_512_lite", "vpgc_256", "vpgc_128", "vpgc_tiny")


def words(*known: str):
    """What a shell may complete an option's value to."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def help_of(command) -> str:
    """The docstring of a command with its examples below, a line each."""
    paragraphs = inspect.cleandoc(command.__doc__).split("\n\n")
    texts = [x for x in paragraphs if not x.startswith("Example: ")]
    examples = [
        "  " + " ".join(x.removeprefix("Example: ").split())
        for x in paragraphs
        if x.startswith("Example: ")
    ]
    # The sign keeps click from joining the lines.
    return "\n\n".join([*texts, "\n".join(["\b", "Examples:", *examples])])


presets = words(*PRESETS)

Run = Annotated[Path, typer.Argument(help="A run folder, a puppet.keras, or hf://OWNER/NAME.")]
Driven = Annotated[
    Path,
    typer.Argument(help="A run folder, puppet.keras, exported .onnx, or hf://OWNER/NAME."),
]
Retargeting = Annotated[
    str,
    typer.Option(
        help="auto, none (same person, same camera), relative or absolute (another person).",
        autocompletion=words("auto", "none", "relative", "absolute"),
    ),
]
Neutral = Annotated[
    float | None,
    typer.Option(
        min=0, help="Second of a driving video at which the face is at rest; default: chosen."
    ),
]
Motion = Annotated[
    float, typer.Option(min=0, max=1, help="Strength of the head motion, 0 is still.")
]
Guard = Annotated[
    str,
    typer.Option(
        help="Poses that the puppet has not seen: warn, clamp (bring back) or off.",
        autocompletion=words("warn", "clamp", "off"),
    ),
]
Start = Annotated[
    str | None, typer.Option(help="Where to begin, in seconds or H:M:S of the driving video.")
]
End = Annotated[
    str | None, typer.Option(help="Where to stop, in seconds or H:M:S of the driving video.")
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto (bfloat16 on a GPU), float32 or bfloat16.",
        autocompletion=words("auto", "float32", "bfloat16"),
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="What runs an exported .onnx: onnxruntime (default) or openvino.",
        autocompletion=words("onnxruntime", "openvino"),
    ),
]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing output.")]
TrackerModel = Annotated[Path | None, typer.Option(help="face_landmarker.task.")]
Certificate = Annotated[
    Path | None,
    typer.Option(help="Your C2PA certificate chain, PEM (or KERAS_VPGC_CERTIFICATE)."),
]
Key = Annotated[Path | None, typer.Option(help="Its private key, PEM (or KERAS_VPGC_KEY).")]
