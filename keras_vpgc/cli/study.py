"""`vpgc study make` and `vpgc study read`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.errors import VPGCError

app = typer.Typer(
    help="Opinion scores: a page on which people rate videos, and what they say.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def make(
    systems: Annotated[
        list[str],
        typer.Argument(
            help="NAME=VIDEO, once for each clip, or NAME=FOLDER with a video for each clip.",
            metavar="NAME=VIDEO...",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The study's folder.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="The true or driving video, shown beside; once for each clip, or a folder."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Longer side of the picture.")] = 512,
    seconds: Annotated[float, typer.Option(help="Length of a clip at most.")] = 10,
    sound: Annotated[
        str, typer.Option(help="auto (the reference's, else their own), own, reference or none.")
    ] = "auto",
    repeats: Annotated[int, typer.Option(help="Clips that each rater gets twice.")] = 0,
    contact: Annotated[
        str, typer.Option(help="A sentence for the raters: who asks, whom to write to.")
    ] = "",
    max_megabytes: Annotated[float, typer.Option(help="How large the page may become.")] = 150,
):
    """Write study.html, which people rate clips on without knowing whose they are, and its key.

    Example: vpgc study make ours=a.mp4 theirs=b.mp4 --reference driving.mp4 -o study

    Example: vpgc study make ours=out/ours theirs=out/theirs --repeats 3 -o study
    """
    from keras_vpgc.evaluation.study import make_study

    result = make_study(
        grouped(systems),
        output,
        references=reference or None,
        size=size,
        seconds=seconds,
        sound=sound,
        repeats=repeats,
        contact=contact,
        max_megabytes=max_megabytes,
    )
    for note in result["notes"]:
        typer.echo(note)
    typer.echo(
        f"{result['page']} holds {result['clips']} clips in {result['bytes'] / 1e6:.1f} MB, about "
        f"{result['minutes']} min for a rater: send it out, and {result['key'].name} to nobody."
    )
    typer.echo(f"When the answers are back: vpgc study read {output} answers-*.json")


@app.command()
def read(
    study: Annotated[Path, typer.Argument(help="The study's folder, with its key.")],
    answers: Annotated[list[Path], typer.Argument(help="The files that raters sent back.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for study.json; default: the study's."),
    ] = None,
    minimum: Annotated[
        float, typer.Option(help="Part of the items below which an incomplete file is left out.")
    ] = 0.5,
):
    """Opinion scores with intervals, and how far the raters agree.

    Example: vpgc study read study answers-*.json
    """
    from keras_vpgc.evaluation.study import read_study

    folder = output or (study if study.is_dir() else study.parent)
    result = read_study(answers, study, folder, minimum=minimum)
    typer.echo(result["table"])
    for note in result["notes"]:
        typer.echo(note)
    typer.echo(f"All numbers are in {folder / 'study.json'}.")


def grouped(systems: list[str]) -> dict[str, list[str]]:
    """`NAME=VIDEO` texts as name -> videos, in the order given."""
    files: dict[str, list[str]] = {}
    for text in systems:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise VPGCError(
                f"A system is given as NAME=VIDEO or NAME=FOLDER, such as ours=a.mp4; received "
                f"{text!r}."
            )
        files.setdefault(name, []).append(file)
    return files
