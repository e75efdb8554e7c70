"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="A run folder or a puppet.keras.")]
Retargeting = Annotated[
    str,
    typer.Option(
        help="auto, none (same person, same camera), relative or absolute (another person)."
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
    typer.Option(help="Poses that the puppet has not seen: warn, clamp (bring back) or off."),
]
Start = Annotated[
    str | None, typer.Option(help="Where to begin, in seconds or H:M:S of the driving video.")
]
End = Annotated[
    str | None, typer.Option(help="Where to stop, in seconds or H:M:S of the driving video.")
]
Precision = Annotated[str, typer.Option(help="auto (bfloat16 on a GPU), float32 or bfloat16.")]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing output.")]
TrackerModel = Annotated[Path | None, typer.Option(help="face_landmarker.task.")]
Certificate = Annotated[
    Path | None,
    typer.Option(help="Your C2PA certificate chain, PEM (or KERAS_VPGC_CERTIFICATE)."),
]
Key = Annotated[Path | None, typer.Option(help="Its private key, PEM (or KERAS_VPGC_KEY).")]
