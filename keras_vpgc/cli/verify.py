"""`vpgc verify`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.answer import Answer, Json


def command(
    file: Annotated[
        Path, typer.Argument(help="A video, a PNG file or a folder of them, whoever made it.")
    ],
    trusted: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate authorities that you trust.")
    ] = None,
    invisible_mark: Annotated[
        bool, typer.Option(help="Look for the invisible mark: decodes up to 300 frames.")
    ] = True,
    json: Json = False,
):
    """Say what a video tells of being synthetic.

    It looks at metadata, C2PA manifest and invisible mark.

    Exit code 0: it says that it is synthetic, and nothing it carries is broken. 3: nothing says so.
    4: its manifest does not fit the file, which was changed since. 1: it cannot be read.

    Example: vpgc verify out.mp4
    """
    with Answer(json) as answer:
        from keras_vpgc.reenactment.verification import verify

        found = verify(file, trusted, invisible_mark)
        answer.give(**found.as_dict())
        answer.say("\n".join(found.sentences))
    raise typer.Exit(found.exit_code)
