"""`vpgc reenact`."""

import contextlib
import warnings
from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    run: options.Driven,
    driving: Annotated[
        Path,
        typer.Option(help="A video, a .npz or .npy of landmarks, or a folder of contour images."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The video to write.")],
    retargeting: options.Retargeting = "auto",
    neutral: options.Neutral = None,
    motion: options.Motion = 1.0,
    guard: options.Guard = "warn",
    missing: Annotated[
        str,
        typer.Option(
            help="Frames without a face: hold the last pose, fade to black, or skip.",
            autocompletion=options.words("hold", "fade", "skip"),
        ),
    ] = "hold",
    start: options.Start = None,
    end: options.End = None,
    side_by_side: Annotated[bool, typer.Option(help="Show the driving face too.")] = False,
    paste_back: Annotated[
        str,
        typer.Option(
            help="Into full frames: crop (own person, same camera), face (over the driving face), "
            "auto or none.",
            autocompletion=options.words("none", "auto", "crop", "face"),
        ),
    ] = "none",
    paste_into: Annotated[
        Path | None,
        typer.Option(help="A video to paste into instead, such as the puppet's own source."),
    ] = None,
    paste_into_start: Annotated[
        float, typer.Option(min=0, help="Second of it that belongs to the first driving frame.")
    ] = 0.0,
    background: Annotated[
        str | None,
        typer.Option(
            help="green, blue, white, black, #rrggbb, a picture's path, or alpha.",
            autocompletion=options.words("green", "blue", "white", "black", "alpha"),
        ),
    ] = None,
    sound: Annotated[bool, typer.Option(help="Give the result the driving video's sound.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames computed at once.")] = 8,
    precision: options.Precision = "auto",
    engine: options.Engine = None,
    overwrite: options.Overwrite = False,
    tracker_model: options.TrackerModel = None,
    provenance: Annotated[
        bool,
        typer.Option(help="Say in the file that it is synthetic: metadata and a C2PA manifest."),
    ] = True,
    mark: Annotated[
        str | None, typer.Option(help="Words to draw in a corner, such as synthetic.")
    ] = None,
    invisible_mark: Annotated[
        bool, typer.Option("--invisible-mark", help="Hide a mark that vpgc verify finds.")
    ] = False,
    certificate: options.Certificate = None,
    key: options.Key = None,
    json: Json = False,
):
    """Drive a puppet by a video.

    A job that was stopped goes on by the same command.

    Example: vpgc reenact runs/me --driving friend.mp4 -o out.mp4
    """
    from keras_vpgc.data.shots import parse_time

    with Answer(json) as answer, warnings_in_one_line():
        from keras_vpgc.reenactment import Provenance, reenact

        path = reenact(
            run,
            driving,
            output,
            retargeting=retargeting,
            neutral=neutral,
            motion=motion,
            guard=guard,
            missing=missing,
            start=None if start is None else parse_time(start),
            end=None if end is None else parse_time(end),
            side_by_side=side_by_side,
            paste_back=paste_back,
            paste_into=paste_into,
            paste_into_start=paste_into_start,
            background=background,
            sound=sound,
            batch_size=batch_size,
            precision=precision,
            engine=engine,
            overwrite=overwrite,
            tracker_model=tracker_model,
            provenance=Provenance(
                enabled=provenance,
                mark=mark,
                invisible=invisible_mark,
                certificate=certificate,
                key=key,
            ),
        )
        answer.give(file=path, synthetic=provenance)
        answer.say(f"{path} is ready.")


@contextlib.contextmanager
def warnings_in_one_line():
    """Say the user's warnings as the command says all else."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def one_line(message, category, *place):
            if category is UserWarning:
                typer.echo(f"vpgc: {message}", err=True)
            else:
                shown(message, category, *place)

        warnings.showwarning = one_line
        yield
