"""`vpgc landmarks`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json
from keras_vpgc.cli.reenact import warnings_in_one_line


def command(
    run: options.Driven,
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
    json: Json = False,
):
    """Write the landmarks of a driving video, for exported puppets.

    Example: vpgc landmarks runs/me --driving friend.mp4 -o drive.npz
    """
    from keras_vpgc.data.shots import parse_time

    with Answer(json) as answer, warnings_in_one_line():
        from keras_vpgc.reenactment.landmark_file import write_landmarks

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
        answer.give(file=output, frames=count)
        answer.say(f"{output} is ready: landmarks of {count} frames.")
