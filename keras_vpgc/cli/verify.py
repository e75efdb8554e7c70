"""`vpgc verify`."""

from pathlib import Path
from typing import Annotated

import typer


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
    json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
):
    """Say what a video tells of being synthetic: metadata, C2PA manifest, invisible mark.

    Exit code 0: it says that it is synthetic, and nothing it carries is broken. 3: nothing says so.
    4: its manifest does not fit the file, which was changed since. 1: it cannot be read.

    Example: vpgc verify out.mp4
    """
    from keras_vpgc.reenactment.verification import verify

    found = verify(file, trusted, invisible_mark)
    if json:
        import json as writer

        typer.echo(writer.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        typer.echo("\n".join(found.sentences))
    raise typer.Exit(found.exit_code)
