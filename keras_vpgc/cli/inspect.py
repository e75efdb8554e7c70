"""`vpgc inspect`."""

from pathlib import Path
from typing import Annotated

import typer


def command(portrait: Annotated[Path, typer.Argument(help="A portrait folder.")]):
    """Say what a clip holds and what to record: writes coverage.html and coverage.json.

    Example: vpgc inspect data/me
    """
    from keras_vpgc.data import Portrait
    from keras_vpgc.data.coverage import inspect

    say(inspect(Portrait(portrait)))
    typer.echo(f"Open {portrait / 'coverage.html'} in a browser.")


def say(result: dict):
    """Print the advice of a coverage report."""
    for item in result["advice"]:
        typer.echo(f"- {item['text']}")
    if not result["advice"]:
        typer.echo("Nothing is missing.")
