"""`vpgc pull`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    place: Annotated[
        str,
        typer.Argument(help="OWNER/NAME on the Hub, or OWNER/NAME@REVISION.", metavar="OWNER/NAME"),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for it.")],
    overwrite: options.Overwrite = False,
    json: Json = False,
):
    """Fetch a puppet from the Hugging Face Hub into a folder.

    reenact, live, landmarks and export also take hf://OWNER/NAME itself.

    Example: vpgc pull me/my-puppet -o runs/shared
    """
    with Answer(json) as answer:
        from keras_vpgc.hub import CARD, pull

        folder = pull(place, output, overwrite)
        card = folder / CARD if (folder / CARD).exists() else None
        answer.give(folder=folder, puppet=folder / "puppet.keras", card=card)
        advice = f"read {card} before you use it" if card else "it came without a model card"
        answer.say(f"{folder / 'puppet.keras'} is ready: {advice}.")
