"""`vpgc inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.answer import Answer, Json


def command(
    portrait: Annotated[Path, typer.Argument(help="A portrait folder, by vpgc prepare.")],
    json: Json = False,
):
    """Say what a clip holds and what to record: coverage.html.

    Example: vpgc inspect data/me
    """
    with Answer(json) as answer:
        from keras_vpgc.data import Portrait
        from keras_vpgc.data.coverage import inspect

        result = inspect(Portrait(portrait))
        answer.give(portrait=portrait, **result)
        say(result, answer)
        answer.say(f"Open {portrait / 'coverage.html'} in a browser.")


def say(result: dict, answer: Answer) -> None:
    """Say the advice of a coverage report."""
    for item in result["advice"]:
        answer.say(f"- {item['text']}")
    if not result["advice"]:
        answer.say("Nothing is missing.")
