"""`vpgc studio`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.answer import Answer, Json


def command(
    workspace: Annotated[
        Path, typer.Argument(help="The folder for videos, portraits, runs and results.")
    ] = Path("vpgc_studio"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Largest upload.")] = 2000,
    max_minutes: Annotated[float, typer.Option(min=0.1, help="Longest upload.")] = 30.0,
    json: Json = False,
):
    """Prepare, train, drive and compare in the browser.

    Example: vpgc studio
    """
    with Answer(json) as answer:
        from keras_vpgc.studio.launch import serve
        from keras_vpgc.studio.workspace import Limits

        serve(workspace, port=port, browser=browser, limits=Limits(max_megabytes, max_minutes))
        answer.give(workspace=workspace, port=port)
