"""`vpgc train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    portrait: Annotated[
        Path | None,
        typer.Argument(help="A portrait folder, by vpgc prepare; default: the config's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The run folder; default: the config's run."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of an experiment; other options override what it says."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(options.PRESETS[:-1])} or {options.PRESETS[-1]}; default: vpgc_256.",
            autocompletion=options.presets,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of stage 1.")] = None,
    driver_steps: Annotated[int | None, typer.Option(min=1, help="Steps of stage 2.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames a step, stage 1.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="auto (bfloat16 on GPUs that are quick in it), float32, mixed_bfloat16 or "
            "mixed_float16.",
            autocompletion=options.words("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, as KEY=VALUE (JSON); may be repeated."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="GPUs that divide each batch among them; default: 1.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights and data order; default: 0.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all settings, print them as YAML, and end.")
    ] = False,
    json: Json = False,
):
    """Train codebook and driver: a run folder with puppet.keras.

    The run's config.yaml holds all settings, for another run by --config.

    Example: vpgc train data/me -o runs/me --preset vpgc_256 --set learning_rate=1e-4

    Example: vpgc train data/me -o runs/me --config examples/configs/paper_512.yaml
    """
    from keras_vpgc.cli.reenact import warnings_in_one_line
    from keras_vpgc.errors import VPGCError

    with Answer(json) as answer, warnings_in_one_line():
        from keras_vpgc.experiment import Experiment, as_yaml, read_experiment

        recipe, network = split_settings(set_ or [])
        flags = {
            "steps": steps,
            "driver_steps": driver_steps,
            "batch_size": batch_size,
            "precision": precision,
        }
        recipe |= {key: value for key, value in flags.items() if value is not None}
        experiment = Experiment() if config is None else read_experiment(config)
        experiment = experiment.override(
            network=network,
            recipe=recipe,
            portrait=None if portrait is None else str(portrait),
            run=None if output is None else str(output),
            preset=preset,
            seed=seed,
            devices=devices,
        )
        resolved = experiment.resolved()
        answer.give(config=resolved.model_dump(mode="json"))
        if dry_run:
            places = {key: getattr(experiment, key) for key in ("portrait", "run", "devices")}
            answer.say(as_yaml(resolved, **places).rstrip())
            return
        if experiment.portrait is None:
            raise VPGCError("There is no portrait to train on: give its folder, by vpgc prepare.")
        if experiment.run is None:
            raise VPGCError("There is no folder for the run: give one by -o.")
        run = Path(experiment.run)
        from keras_vpgc.training.recipes import train_puppet

        train_puppet(
            experiment.portrait,
            run,
            experiment.preset,
            network=experiment.network,
            recipe=experiment.recipe,
            seed=experiment.seed,
            devices=experiment.devices,
            method=experiment.method,
        )
        answer.give(run=run, puppet=run / "puppet.keras", portrait=experiment.portrait)
        answer.say(f"{run / 'puppet.keras'} is ready: vpgc reenact {run} --driving VIDEO -o OUT")
        answer.say(f"Fill in {run / 'MODEL_CARD.md'}: who is shown, and that they agreed.")


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
