"""`vpgc push`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.answer import Answer, Json


def command(
    run: Annotated[Path, typer.Argument(help="A run folder; its MODEL_CARD.md is filled in.")],
    place: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.", metavar="OWNER/NAME")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it, if it is made now.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="What changed.")] = None,
    json: Json = False,
):
    """Put a puppet on the Hugging Face Hub, with its model card.

    Only puppet.keras and the card go there. HF_ENDPOINT names another server than huggingface.co.

    Example: vpgc push runs/me me/my-puppet
    """
    with Answer(json) as answer:
        from keras_vpgc.hub import push

        address = push(run, place, public=public, message=message)
        answer.give(address=address, path=f"hf://{place.removeprefix('hf://')}")
        answer.say(f"{address} holds the puppet: hf://{place.removeprefix('hf://')}.")
