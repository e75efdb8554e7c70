"""The verbs of `vpgc` in one application."""

from typing import Annotated

import typer

from keras_vpgc.cli import (
    compare,
    demo,
    evaluate,
    export,
    inspect,
    landmarks,
    live,
    prepare,
    reenact,
    studio,
    study,
    train,
    verify,
)
from keras_vpgc.version import __version__

app = typer.Typer(
    help="Learn a puppet of a person from a video, and drive it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


def _version(value: bool):
    if value:
        typer.echo(f"keras_vpgc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
):
    """Learn a puppet of a person from a video, and drive it.

    The backend is KERAS_BACKEND (jax, torch or tensorflow).
    """


for module in (
    prepare,
    inspect,
    train,
    reenact,
    live,
    landmarks,
    verify,
    evaluate,
    compare,
    export,
    demo,
    studio,
):
    app.command(name=module.__name__.rsplit(".", 1)[-1])(module.command)
app.add_typer(study.app, name="study")
