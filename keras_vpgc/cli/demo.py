"""`vpgc demo`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where everything goes.")] = Path(
        "vpgc_demo"
    ),
    video: Annotated[Path | None, typer.Option(help="Your own video of one person.")] = None,
    preset: Annotated[str | None, typer.Option(help="Another preset than the demo's.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Training time at most.")] = 7.0,
):
    """The whole way on a real clip within ten minutes: prepare, train, drive, score.

    Example: vpgc demo
    """
    from keras_vpgc.demo import demo

    result = demo(output, video, preset=preset, minutes=minutes)
    typer.echo(result["table"])
    better = "beats" if result["beats_mean_frame"] else "does not beat"
    typer.echo(f"On the unseen frames the puppet {better} the mean training frame.")
    folder = output / "run" / "evaluation"
    typer.echo(f"Look at {folder / 'report.html'}; driven.mp4 (truth | driven) lies beside it.")
