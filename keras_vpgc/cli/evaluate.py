"""`vpgc evaluate`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    portrait: Annotated[
        Path | None, typer.Option(help="The portrait folder, if it was moved.")
    ] = None,
    part: Annotated[str, typer.Option(help="test or validation.")] = "test",
    landmarks: Annotated[bool, typer.Option(help="Detect landmarks, for F-LMD.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames computed at once.")] = 8,
    tracker_model: Annotated[Path | None, typer.Option(help="face_landmarker.task.")] = None,
):
    """Drive the puppet by its held-out frames and score the result.

    Example: vpgc evaluate runs/me
    """
    from keras_vpgc.evaluation.run import evaluate_run

    result = evaluate_run(
        run,
        portrait=portrait,
        part=part,
        landmarks=landmarks,
        batch_size=batch_size,
        tracker_model=tracker_model,
    )
    typer.echo(result["table"])
    typer.echo(f"Frames, video and numbers are in {run / 'evaluation'}.")
