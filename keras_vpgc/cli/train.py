"""`vpgc train`."""

from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    portrait: Annotated[Path, typer.Argument(help="A portrait folder, by vpgc prepare.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The run folder.")],
    preset: Annotated[
        str, typer.Option(help="paper_512, vpgc_512, vpgc_512_lite, vpgc_256, vpgc_128, vpgc_tiny.")
    ] = "vpgc_256",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of stage 1.")] = None,
    driver_steps: Annotated[int | None, typer.Option(min=1, help="Steps of stage 2.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames a step, stage 1.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, mixed_bfloat16 or mixed_float16.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, as KEY=VALUE (JSON); may be repeated."),
    ] = None,
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs that divide each batch among them.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of weights and data order.")] = 0,
):
    """Train the codebook and the driver: portrait folder -> run folder with puppet.keras.

    Example: vpgc train data/me -o runs/me --preset vpgc_256 --set learning_rate=1e-4
    """
    from keras_vpgc.cli.reenact import warnings_in_one_line
    from keras_vpgc.training.recipes import train_puppet

    recipe, network = split_settings(set_ or [])
    for key, value in (
        ("steps", steps),
        ("driver_steps", driver_steps),
        ("batch_size", batch_size),
        ("precision", precision),
    ):
        if value is not None:
            recipe[key] = value
    with warnings_in_one_line():
        train_puppet(
            portrait, output, preset, network=network, recipe=recipe, seed=seed, devices=devices
        )
    typer.echo(f"{output / 'puppet.keras'} is ready: vpgc reenact {output} --driving VIDEO -o OUT")
    typer.echo(f"Fill in {output / 'MODEL_CARD.md'}: who is shown, and that they agreed.")


def split_settings(settings: list[str]) -> tuple[dict, dict]:
    """`KEY=VALUE` texts as overrides of the recipe and of the network."""
    import json

    from keras_vpgc.config import Recipe
    from keras_vpgc.errors import VPGCError

    recipe: dict[str, Any] = {}
    network: dict[str, Any] = {}
    for setting in settings:
        key, mark, text = setting.partition("=")
        if not mark:
            raise VPGCError(f"A setting is KEY=VALUE, such as learning_rate=1e-4; not {setting!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        (recipe if key in Recipe.model_fields else network)[key] = value
    return recipe, network
