"""`vpgc evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options as shared
from keras_vpgc.cli.answer import Answer, Json
from keras_vpgc.errors import VPGCError

# What says something to each way of scoring; the rest is refused, not ignored.
DRIVING = {
    *("driving", "target", "output", "retargeting", "neutral", "motion", "guard", "start", "end"),
    *("identity", "prediction", "truth", "workers", "tracker_model"),
}
VIDEOS = {
    *("prediction", "truth", "output", "size", "crop", "align", "landmarks", "lpips", "workers"),
    "tracker_model",
}
RUN = {"portrait", "part", "landmarks", "lpips", "batch_size", "tracker_model"}
WAYS = {
    "driven run": ({*DRIVING, "batch_size"}, "With RUN --driving"),
    "driven video": ({*DRIVING, "align"}, "With --prediction --driving"),
    "videos": (VIDEOS, "For two videos"),
    "run": ({*RUN, "prediction", "truth", "output"}, "For the held-out frames of a run"),
}


def command(
    context: typer.Context,
    run: Annotated[Path | None, typer.Argument(help="A run folder.")] = None,
    prediction: Annotated[
        Path | None, typer.Option(help="A predicted video of any system, instead of a run.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The true video for it.")] = None,
    driving: Annotated[
        Path | None,
        typer.Option(help="The video that drives the run or drove the predicted one: no truth."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            help="With --driving: portrait folder or video of the person shown; default: a run's."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the scores of two videos, or of driving."),
    ] = None,
    retargeting: Annotated[
        str, typer.Option(help="Driving a run: auto, none, relative or absolute.")
    ] = "auto",
    neutral: Annotated[
        float | None, typer.Option(min=0, help="Driving a run: second of the face at rest.")
    ] = None,
    motion: Annotated[
        float, typer.Option(min=0, max=1, help="Driving a run: strength of the head motion.")
    ] = 1.0,
    guard: Annotated[str, typer.Option(help="Driving a run: warn, clamp or off.")] = "warn",
    start: Annotated[
        str | None, typer.Option(help="Driving a run: where to begin, seconds or H:M:S.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Driving a run: where to stop, seconds or H:M:S.")
    ] = None,
    identity: Annotated[
        bool, typer.Option(help="With --driving: whose face is it, by a face embedding?")
    ] = True,
    size: Annotated[
        int, typer.Option(help="Two videos: side of the face's square, and of landmark distances.")
    ] = 512,
    crop: Annotated[str, typer.Option(help="Two videos: face, full or both.")] = "both",
    align: Annotated[
        bool, typer.Option("--align", help="Two videos: align another length, rate or size.")
    ] = False,
    portrait: Annotated[
        Path | None, typer.Option(help="The portrait folder of a run, if it was moved.")
    ] = None,
    part: Annotated[str, typer.Option(help="test or validation part of a run.")] = "test",
    landmarks: Annotated[bool, typer.Option(help="Detect landmarks, for F-LMD.")] = True,
    lpips: Annotated[
        str | None,
        typer.Option(help="alex, vgg or none; default: alex for two videos, none for a run."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames of a run computed at once.")] = 8,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that track two videos.")
    ] = None,
    tracker_model: shared.TrackerModel = None,
    json: Json = False,
):
    """Score a puppet, or any predicted video.

    A puppet is scored on its held-out frames, a predicted video against the true one, and a driven
    face against its driver.

    Example: vpgc evaluate runs/me

    Example: vpgc evaluate --prediction driven.mp4 --truth truth.mp4 -o scores

    Example: vpgc evaluate runs/me --driving friend.mp4

    Example: vpgc evaluate --prediction theirs.mp4 --driving friend.mp4 --target data/me -o scores
    """
    options = {"retargeting": retargeting, "neutral": neutral, "motion": motion, "guard": guard}
    way = "run" if run else "videos"
    if driving:
        way = "driven run" if run else "driven video"
    with Answer(json) as answer:
        _check_given(context, way)
        if driving is not None:
            _cross(
                answer,
                driving,
                prediction,
                run,
                truth,
                output,
                **options,
                start=start,
                end=end,
                target=target,
                align=align,
                identity=identity,
                batch_size=batch_size,
                workers=workers,
                tracker_model=tracker_model,
            )
            return
        videos = prediction is not None or truth is not None
        if videos == (run is not None) or (prediction is None) != (truth is None):
            raise VPGCError(
                "Either a run folder or two videos are scored: give RUN, or --prediction and "
                "--truth."
            )
        if run is None:
            from keras_vpgc.evaluation.pair import evaluate_pair

            result = evaluate_pair(
                prediction,
                truth,
                output,
                size=size,
                crop=crop,
                align=align,
                lpips=network(lpips),
                landmarks=landmarks,
                workers=workers,
                tracker_model=tracker_model,
            )
            say(result, output, answer)
            return
        if output is not None:
            raise VPGCError(f"A run's scores go to {run / 'evaluation'}: leave out --output.")
        from keras_vpgc.evaluation.run import evaluate_run

        result = evaluate_run(
            run,
            portrait=portrait,
            part=part,
            landmarks=landmarks,
            lpips=network(lpips or "none"),
            batch_size=batch_size,
            tracker_model=tracker_model,
        )
        answer.give(folder=run / "evaluation")
        answer.give(**{k: v for k, v in result.items() if k != "table"})
        answer.say(result["table"])
        answer.say(f"Look at {run / 'evaluation' / 'report.html'}; all numbers are beside it.")


def _check_given(context, way):
    known, title = WAYS[way]
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in ("run", "json", *known) and source and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            fits = [title[0].lower() + title[1:] for known, title in WAYS.values() if name in known]
            raise VPGCError(
                f"{title} {option} says nothing: leave it out (it is used {' or '.join(fits)})."
            )


def _cross(answer, driving, prediction, run, truth, output, *, start, end, **options):
    from keras_vpgc.cli.reenact import warnings_in_one_line
    from keras_vpgc.data.shots import parse_time
    from keras_vpgc.evaluation.cross import evaluate_cross

    if truth is not None or (prediction is None) == (run is None):
        raise VPGCError(
            "With --driving there is no truth: give RUN, or --prediction, and leave out --truth."
        )
    with warnings_in_one_line():
        result = evaluate_cross(
            driving,
            prediction,
            run=run,
            output=output,
            start=None if start is None else parse_time(start),
            end=None if end is None else parse_time(end),
            **options,
        )
    say(result, result["folder"], answer)


def network(lpips: str | None) -> str | None:
    """The network of LPIPS by what was asked for."""
    return None if lpips == "none" else lpips or "alex"


def say(result: dict, output: Path | None, answer: Answer) -> None:
    """Say table and notes; a `VPGCError` at the end for what was not scored to its end."""
    left_out = ("table", "per_frame")
    answer.give(folder=output)
    answer.give(**{k: v for k, v in result.items() if k not in left_out})
    answer.say(result["table"])
    for note in result["notes"]:
        answer.say(note)
    if output is not None:
        answer.say(f"Look at {output / 'report.html'}; all numbers are beside it.")
    if result.get("failures"):
        names = ", ".join(result["failures"])
        kept = "were shown" if output is None else f"are in {output}"
        raise VPGCError(
            f"Not scored to the end: {names}, see above; all other scores {kept}, and the same "
            "command scores again."
        )
