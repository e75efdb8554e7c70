"""`vpgc prepare`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    video: Annotated[Path, typer.Argument(help="A video of one person.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The portrait folder to make.")],
    crop: Annotated[
        str | None, typer.Option(help="X,Y,SIZE in source pixels; default: chosen by the face.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the stored frames.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Frames a second; default: the source's own frames.")
    ] = None,
    person: Annotated[
        int | None,
        typer.Option(min=1, help="Which person, 1 being in most frames; default: who is alone."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Where to begin, in seconds or H:M:S of the source.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Where to stop, in seconds or H:M:S of the source.")
    ] = None,
    max_gap: Annotated[
        float, typer.Option(min=0, help="Seconds without the face that are filled in.")
    ] = 0.5,
    test_frames: Annotated[
        int | None, typer.Option(help="Length of the held-out part at the end.")
    ] = None,
    test_blocks: Annotated[
        int, typer.Option(min=1, help="Spread the held-out part over that many stretches.")
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes; default: one a core.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing portrait.")] = False,
    tracker_model: options.TrackerModel = None,
    json: Json = False,
):
    """Track the face, crop and split a video: a portrait folder.

    Example: vpgc prepare me.mp4 -o data/me
    """
    from keras_vpgc.cli.inspect import say
    from keras_vpgc.data.shots import parse_time

    with Answer(json) as answer:
        from keras_vpgc.data import prepare
        from keras_vpgc.data.coverage import inspect

        portrait = prepare(
            video,
            output,
            crop=crop,
            size=size,
            rate=rate,
            person=person,
            start=None if start is None else parse_time(start),
            end=None if end is None else parse_time(end),
            max_gap=max_gap,
            test_frames=test_frames,
            test_blocks=test_blocks,
            workers=workers,
            overwrite=overwrite,
            tracker_model=tracker_model,
        )
        report = portrait.info["report"]
        split = {part: len(portrait.indices(part)) for part in portrait.info["split"]}
        parts = ", ".join(f"{part} {count}" for part, count in split.items())
        frames, jitter = report["frames"], report["jitter"]
        answer.say(
            f"{output}: {len(portrait)} frames of {portrait.size}x{portrait.size} at "
            f"{portrait.frame_rate:g} a second ({parts}); {frames['without_face']} without a face, "
            f"{frames['interpolated']} interpolated, {frames['repeated']} repeated."
        )
        if jitter["before"] is not None:
            answer.say(
                f"Jitter {jitter['before']:.2f} before smoothing, {jitter['after']:.2f} after "
                f"(thousandths of the face's height)."
            )
        for note in report["notes"]:
            answer.say(note)
        coverage = inspect(portrait)
        answer.give(
            portrait=output,
            frames=len(portrait),
            size=portrait.size,
            frame_rate=portrait.frame_rate,
            split=split,
            report=report,
            advice=coverage["advice"],
        )
        say(coverage, answer)
        answer.say(f"Look at {output / 'landmarks.png'} and {output / 'coverage.html'}.")
