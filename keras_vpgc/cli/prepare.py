"""`vpgc prepare`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    video: Annotated[Path, typer.Argument(help="A video of one person.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The portrait folder to make.")],
    crop: Annotated[
        str | None, typer.Option(help="X,Y,SIZE in source pixels; default: chosen by the face.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the stored frames.")] = None,
    test_frames: Annotated[
        int | None, typer.Option(help="Length of the held-out part at the end.")
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame to use.")] = 0,
    stop: Annotated[int | None, typer.Option(min=1, help="Frame before which to stop.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing portrait.")] = False,
    tracker_model: Annotated[Path | None, typer.Option(help="face_landmarker.task.")] = None,
):
    """Track the face, crop and split a video: VIDEO -> portrait folder.

    Example: vpgc prepare me.mp4 -o data/me
    """
    from keras_vpgc.data import prepare

    portrait = prepare(
        video,
        output,
        crop=crop,
        size=size,
        test_frames=test_frames,
        start=start,
        stop=stop,
        overwrite=overwrite,
        tracker_model=tracker_model,
    )
    parts = ", ".join(f"{part} {len(portrait.indices(part))}" for part in portrait.info["split"])
    typer.echo(
        f"{output}: {len(portrait)} frames of {portrait.size}x{portrait.size} ({parts}), "
        f"{portrait.info['frames_without_face']} without a face, "
        f"{portrait.info['frames_repeated']} repeated."
    )
