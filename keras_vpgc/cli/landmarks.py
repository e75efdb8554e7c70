"""`vpgc landmarks`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.reenact import warnings_in_one_line


def command(
    run: Annotated[Path, typer.Argument(help="A run folder or a puppet.keras.")],
    driving: Annotated[Path, typer.Option(help="A video.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz file to write.")],
    retargeting: Annotated[
        str, typer.Option(help="auto, none, relative or absolute; see vpgc reenact.")
    ] = "auto",
    neutral: Annotated[
        float | None,
        typer.Option(min=0, help="Second at which the driving face is at rest; default: chosen."),
    ] = None,
    motion: Annotated[
        float, typer.Option(min=0, max=1, help="Strength of the head motion, 0 is still.")
    ] = 1.0,
    guard: Annotated[
        str,
        typer.Option(help="Poses that the puppet has not seen: warn, clamp (bring back) or off."),
    ] = "warn",
    start: Annotated[
        str | None, typer.Option(help="Where to begin, in seconds or H:M:S of the driving video.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Where to stop, in seconds or H:M:S of the driving video.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
    tracker_model: Annotated[Path | None, typer.Option(help="face_landmarker.task.")] = None,
):
    """Write the landmarks by which a video drives a puppet, for an exported one.

    Example: vpgc landmarks runs/me --driving friend.mp4 -o drive.npz
    """
    from keras_vpgc.data.shots import parse_time
    from keras_vpgc.reenactment.landmark_file import write_landmarks

    with warnings_in_one_line():
        count = write_landmarks(
            run,
            driving,
            output,
            retargeting=retargeting,
            neutral=neutral,
            motion=motion,
            guard=guard,
            start=None if start is None else parse_time(start),
            end=None if end is None else parse_time(end),
            overwrite=overwrite,
            tracker_model=tracker_model,
        )
    typer.echo(f"{output} is ready: landmarks of {count} frames.")
