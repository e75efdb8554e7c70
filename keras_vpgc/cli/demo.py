"""`vpgc demo`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where everything goes.")] = Path(
        "vpgc_demo"
    ),
    video: Annotated[Path | None, typer.Option(help="Your own video of one person.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Another preset than the demo's.", autocompletion=options.presets),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Training time at most.")] = 7.0,
    json: Json = False,
):
    """Try the whole way on a real clip within ten minutes.

    It prepares the clip, trains both stages, drives the frames that the puppet has not seen, and
    scores them.

    Example: vpgc demo
    """
    with Answer(json) as answer:
        from keras_vpgc.demo import demo

        result = demo(output, video, preset=preset, minutes=minutes)
        table = result.pop("table")
        answer.give(output=output, **result)
        answer.say(table)
        better = "beats" if result["beats_mean_frame"] else "does not beat"
        answer.say(f"On the unseen frames the puppet {better} the mean training frame.")
        folder = output / "run" / "evaluation"
        answer.say(f"Look at {folder / 'report.html'}; driven.mp4 (truth | driven) lies beside it.")
