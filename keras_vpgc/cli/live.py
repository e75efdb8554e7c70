"""`vpgc live`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json
from keras_vpgc.cli.reenact import warnings_in_one_line


def command(
    run: options.Driven,
    camera: Annotated[
        str | None, typer.Option(help="Number of the camera, or the address of one; default: 0.")
    ] = None,
    driving: Annotated[
        Path | None,
        typer.Option(
            help="Instead, at its own pace: a video, a .npz or .npy of landmarks, or a folder of "
            "contour images."
        ),
    ] = None,
    window: Annotated[
        bool | None,
        typer.Option("--window/--no-window", help="Preview; default: if there is a display."),
    ] = None,
    record: Annotated[Path | None, typer.Option(help="A video to record.")] = None,
    virtual_camera: Annotated[
        bool, typer.Option(help="Give the images to other programs as a camera.")
    ] = False,
    side_by_side: Annotated[bool, typer.Option(help="Show the driving picture beside.")] = False,
    every_frame: Annotated[
        bool, typer.Option(help="Drop no frame of a driving video; as fast as it goes.")
    ] = False,
    sound: Annotated[
        bool, typer.Option(help="Give recordings the driving video's sound (a camera's has none).")
    ] = True,
    retargeting: options.Retargeting = "auto",
    motion: options.Motion = 1.0,
    neutral: options.Neutral = None,
    guard: options.Guard = "warn",
    calibration: Annotated[
        int, typer.Option(min=1, help="Good frames that tell the driver's shape and neutral pose.")
    ] = 25,
    filter: Annotated[str, typer.Option(help="Of the landmarks: one-euro or off.")] = "one-euro",
    lookahead: Annotated[
        int | None,
        typer.Option(min=0, help="Frames to wait for: smoother, later. Default: 0 live, else all."),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            help="Frames without a face: hold the last pose, fade to the puppet at rest, or skip."
        ),
    ] = "hold",
    start: options.Start = None,
    end: options.End = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trackers at once.")] = None,
    precision: options.Precision = "auto",
    engine: options.Engine = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing recording.")] = False,
    tracker_model: options.TrackerModel = None,
    provenance: Annotated[
        bool, typer.Option(help="Say in a recording that it is synthetic: metadata and manifest.")
    ] = True,
    mark: Annotated[
        str | None,
        typer.Option(
            help="Words to draw in a corner of recordings and of the virtual camera, such as "
            "synthetic."
        ),
    ] = None,
    invisible_mark: Annotated[
        bool,
        typer.Option("--invisible-mark", help="Hide a mark there that vpgc verify finds."),
    ] = False,
    certificate: options.Certificate = None,
    key: options.Key = None,
    json: Json = False,
):
    """Drive a puppet by a camera, in a window.

    Keys: q quits, n takes the face of now as neutral, s shows the driving picture beside, r
    records, h helps.

    Example: vpgc live runs/me --record me.mp4
    """
    from keras_vpgc.data.shots import parse_time

    with Answer(json) as answer, warnings_in_one_line():
        if driving is None and not (start is None and end is None):
            from keras_vpgc.errors import VPGCError

            raise VPGCError("Only a driving video has a start and an end: leave them out.")
        from keras_vpgc.reenactment.live import live
        from keras_vpgc.reenactment.provenance import Provenance

        stats = live(
            run,
            camera=camera,
            driving=driving,
            window=window,
            record=record,
            virtual_camera=virtual_camera,
            side_by_side=side_by_side,
            every_frame=every_frame,
            sound=sound,
            precision=precision,
            engine=engine,
            overwrite=overwrite,
            provenance=Provenance(
                enabled=provenance,
                mark=mark,
                invisible=invisible_mark,
                certificate=certificate,
                key=key,
            ),
            say=lambda line: typer.echo(line, err=line.count("\n") == 0),
            retargeting=retargeting,
            motion=motion,
            neutral=neutral,
            guard=guard,
            calibration=calibration,
            filter=filter,
            lookahead=lookahead,
            missing=missing,
            workers=workers,
            start=None if start is None else parse_time(start),
            end=None if end is None else parse_time(end),
            tracker_model=tracker_model,
        )
        answer.give(**stats)
        answer.say(str(stats))
