"""`vpgc study make` and `vpgc study read`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.answer import Answer, Json
from keras_vpgc.cli.options import help_of
from keras_vpgc.errors import VPGCError

app = typer.Typer(
    help="Opinion scores: make the page, and read the answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


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
    json: Json = False,
):
    """Write a page on which people rate clips, and its key.

    Nothing in study.html tells the raters whose a clip is.

    Example: vpgc study make ours=a.mp4 theirs=b.mp4 --reference driving.mp4 -o study

    Example: vpgc study make ours=out/ours theirs=out/theirs --repeats 3 -o study
    """
    with Answer(json) as answer:
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
        answer.give(**result)
        for note in result["notes"]:
            answer.say(note)
        answer.say(
            f"{result['page']} holds {result['clips']} clips in {result['bytes'] / 1e6:.1f} MB, "
            f"about {result['minutes']} min for a rater: send it out, and {result['key'].name} to "
            "nobody."
        )
        answer.say(f"When the answers are back: vpgc study read {output} answers-*.json")


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
    json: Json = False,
):
    """Opinion scores with intervals, and how far the raters agree.

    Example: vpgc study read study answers-*.json
    """
    with Answer(json) as answer:
        from keras_vpgc.evaluation.study import read_study

        folder = output or (study if study.is_dir() else study.parent)
        result = read_study(answers, study, folder, minimum=minimum)
        answer.give(folder=folder)
        answer.give(**{k: v for k, v in result.items() if k != "table"})
        answer.say(result["table"])
        for note in result["notes"]:
            answer.say(note)
        answer.say(f"All numbers are in {folder / 'study.json'}.")


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


for command in (make, read):
    app.command(help=help_of(command))(command)
