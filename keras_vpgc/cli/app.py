"""The verbs of `vpgc` in one application."""

from typing import Annotated

import typer

from keras_vpgc.cli import (
    compare,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    inspect,
    landmarks,
    live,
    prepare,
    profile,
    pull,
    push,
    reenact,
    studio,
    study,
    train,
    verify,
)
from keras_vpgc.cli.options import help_of
from keras_vpgc.version import __version__

# The signs keep click from joining the lines.
EPILOG = """\b
Examples:
  vpgc demo
  vpgc prepare me.mp4 -o data/me
  vpgc train data/me -o runs/me --preset vpgc_256
  vpgc reenact runs/me --driving friend.mp4 -o out.mp4

\b
Exit codes:
  0    done
  1    bad input, or a failure: one sentence on stderr says what and the way out
  2    wrong usage, such as an option that there is not
  3    verify: nothing says that it is synthetic; doctor: something is lacking
  4    verify: the file is not what was signed
  130  stopped by Ctrl-C
"""

app = typer.Typer(
    help="Learn a puppet of a person from a video, and drive it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
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

    The backend is KERAS_BACKEND (jax, torch or tensorflow). Most commands go on where they were
    stopped, and give one JSON object with --json.
    """


for module in (
    prepare,
    inspect,
    train,
    distill,
    reenact,
    live,
    landmarks,
    verify,
    evaluate,
    compare,
    export,
    profile,
    push,
    pull,
    demo,
    doctor,
    studio,
):
    name = module.__name__.rsplit(".", 1)[-1]
    app.command(name, help=help_of(module.command))(module.command)
app.add_typer(study.app, name="study")
