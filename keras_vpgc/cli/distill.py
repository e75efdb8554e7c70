"""`vpgc distill`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a trained puppet, the teacher.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The new run folder.")],
    preset: Annotated[
        str, typer.Option(help="The preset of the new puppet.", autocompletion=options.presets)
    ] = "vpgc_512_lite",
    portrait: Annotated[
        Path | None,
        typer.Option(help="The portrait folder of both; default: where it was for the teacher."),
    ] = None,
    stage_1: Annotated[
        Path | None,
        typer.Option(
            "--stage-1",
            help="A run of this portrait with the same network, the stage 1 of which is taken.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as KEY=VALUE (JSON); may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and data order.")] = 0,
    json: Json = False,
):
    """Train a smaller puppet that a trained one teaches.

    Example: vpgc distill runs/me -o runs/me_lite --preset vpgc_512_lite
    """
    from keras_vpgc.cli.reenact import warnings_in_one_line
    from keras_vpgc.cli.train import split_settings

    with Answer(json) as answer, warnings_in_one_line():
        from keras_vpgc.training.recipes import distill_puppet

        recipe, network = split_settings(set_ or [])
        distill_puppet(
            run, output, preset,
            portrait=portrait, stage_1=stage_1, network=network, recipe=recipe, seed=seed,
        )  # fmt: skip
        answer.give(run=output, puppet=output / "puppet.keras", teacher=run)
        answer.say(
            f"{output / 'puppet.keras'} is ready: vpgc reenact {output} --driving VIDEO -o OUT"
        )
