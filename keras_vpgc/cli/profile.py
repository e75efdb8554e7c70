"""`vpgc profile`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli.answer import Answer, Json


def command(
    puppet: Annotated[
        str, typer.Argument(help="A preset, a run folder or a puppet.keras.", metavar="PUPPET")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of a preset's network, as KEY=VALUE (JSON)."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=0, help="Calls of a block of which the fastest counts; 0: none.")
    ] = 10,
    json: Json = False,
):
    """Say where the work and the time of a puppet go, block by block.

    Example: vpgc profile vpgc_512_lite --set window_size=2
    """
    with Answer(json) as answer:
        import keras

        from keras_vpgc.models.profile import exponentials, profile, table

        model = _model(puppet, set_ or [])
        blocks = profile(model, repeats)
        taken = exponentials(model)
        rows = [
            {
                "part": block.part,
                "name": block.name,
                "shape": block.shape,
                "gflop": block.work.flops / 1e9,
                "parameters": block.parameters,
                "milliseconds": block.milliseconds,
            }
            for block in blocks
        ]
        answer.give(puppet=puppet, blocks=rows, exponentials=taken)
        answer.say(table(blocks))
        if taken:
            answer.say(f"The soft index takes {taken / 1e6:.1f} million exponentials besides.")
        if repeats:
            answer.say(
                f"Milliseconds: one image by {keras.backend.backend()}, the fastest of {repeats} "
                "calls of each block alone; an exported puppet runs faster on a processor."
            )


def _model(puppet, settings):
    """The model of a file, a run folder or a preset."""
    from keras_vpgc.cli.train import split_settings
    from keras_vpgc.config import resolve
    from keras_vpgc.errors import VPGCError
    from keras_vpgc.models import PortraitReenactor, presets
    from keras_vpgc.models.autoencoder import TRAINING_ARGUMENTS
    from keras_vpgc.reenactment import Puppet

    if Path(puppet).exists():
        if settings:
            raise VPGCError(f"{puppet} is trained: only a preset's settings can be changed.")
        return Puppet.load(puppet, precision="float32").model
    if puppet not in presets.names():
        raise VPGCError(
            f"There is no preset and no file {puppet!r}: give a run folder, a puppet.keras, or one "
            f"of {', '.join(presets.names())}."
        )
    _, network = split_settings(settings)
    network = resolve(puppet, network).network
    network = {k: v for k, v in network.items() if k not in TRAINING_ARGUMENTS}
    return PortraitReenactor.from_preset(puppet, **network)
