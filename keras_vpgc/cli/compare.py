"""`vpgc compare`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json
from keras_vpgc.errors import VPGCError


def command(
    systems: Annotated[
        list[str], typer.Argument(help="NAME=VIDEO for each system.", metavar="NAME=VIDEO...")
    ],
    truth: Annotated[Path, typer.Option(help="The true video.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for table and scores.")
    ] = None,
    size: Annotated[
        int, typer.Option(help="Side of the face's square, and of landmark distances.")
    ] = 512,
    crop: Annotated[str, typer.Option(help="face, full or both.")] = "both",
    align: Annotated[
        bool, typer.Option("--align", help="Align another length, rate or size.")
    ] = False,
    landmarks: Annotated[bool, typer.Option(help="Detect landmarks, for F-LMD.")] = True,
    lpips: Annotated[str, typer.Option(help="alex, vgg or none.")] = "alex",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that track.")] = None,
    tracker_model: options.TrackerModel = None,
    json: Json = False,
):
    """Score several systems' videos against one truth.

    Example: vpgc compare --truth truth.mp4 ours=a.mp4 theirs=b.mp4 -o scores
    """
    from keras_vpgc.cli.evaluate import network, say

    with Answer(json) as answer:
        from keras_vpgc.evaluation.compare import compare

        files: dict[str, str] = {}
        for text in systems:
            name, equals, file = text.partition("=")
            if not equals or not name or not file:
                raise VPGCError(
                    f"A system is given as NAME=VIDEO, such as ours=a.mp4; received {text!r}."
                )
            if name in files:
                raise VPGCError(f"Two systems are called {name!r}: give each its own name.")
            files[name] = file
        result = compare(
            files,
            truth,
            output,
            size=size,
            crop=crop,
            align=align,
            lpips=network(lpips),
            landmarks=landmarks,
            workers=workers,
            tracker_model=tracker_model,
        )
        say(result, output, answer)
