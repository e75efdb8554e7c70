"""`vpgc reenact`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder or a puppet.keras.")],
    driving: Annotated[Path, typer.Option(help="A video, or a folder of contour images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The video to write.")],
    retargeting: Annotated[
        str,
        typer.Option(
            help="auto, none (same person, same camera), relative or absolute (another person)."
        ),
    ] = "auto",
    start: Annotated[int, typer.Option(min=0, help="First frame to use.")] = 0,
    stop: Annotated[int | None, typer.Option(min=1, help="Frame before which to stop.")] = None,
    side_by_side: Annotated[bool, typer.Option(help="Show the driving face too.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames computed at once.")] = 8,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
    tracker_model: Annotated[Path | None, typer.Option(help="face_landmarker.task.")] = None,
):
    """Drive a puppet by a video.

    Example: vpgc reenact runs/me --driving friend.mp4 -o out.mp4
    """
    from keras_vpgc.reenactment import reenact

    path = reenact(
        run,
        driving,
        output,
        retargeting=retargeting,
        start=start,
        stop=stop,
        side_by_side=side_by_side,
        batch_size=batch_size,
        overwrite=overwrite,
        tracker_model=tracker_model,
    )
    typer.echo(f"{path} is ready.")
