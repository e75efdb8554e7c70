"""`vpgc landmarks`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.reenact import warnings_in_one_line


def command(
    run: options.Run,
    driving: Annotated[Path, typer.Option(help="A video.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz file to write.")],
    retargeting: options.Retargeting = "auto",
    neutral: options.Neutral = None,
    motion: options.Motion = 1.0,
    guard: options.Guard = "warn",
    start: options.Start = None,
    end: options.End = None,
    overwrite: options.Overwrite = False,
    tracker_model: options.TrackerModel = None,
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
