"""`vpgc profile`."""

from pathlib import Path
from typing import Annotated

import typer


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
):
    """Say where the work and the time of a puppet go, block by block.

    Example: vpgc profile vpgc_512_lite --set window_size=2
    """
    import keras

    from keras_vpgc.cli.train import split_settings
    from keras_vpgc.config import resolve
    from keras_vpgc.errors import VPGCError
    from keras_vpgc.models import PortraitReenactor, presets
    from keras_vpgc.models.autoencoder import TRAINING_ARGUMENTS
    from keras_vpgc.models.profile import exponentials, profile, table
    from keras_vpgc.reenactment import Puppet

    if Path(puppet).exists():
        if set_:
            raise VPGCError(f"{puppet} is trained: only a preset's settings can be changed.")
        model = Puppet.load(puppet, precision="float32").model
    elif puppet in presets.names():
        _, network = split_settings(set_ or [])
        settings = resolve(puppet, network).network
        settings = {k: v for k, v in settings.items() if k not in TRAINING_ARGUMENTS}
        model = PortraitReenactor.from_preset(puppet, **settings)
    else:
        raise VPGCError(
            f"There is no preset and no file {puppet!r}: give a run folder, a puppet.keras, or one "
            f"of {', '.join(presets.names())}."
        )
    blocks = profile(model, repeats)
    typer.echo(table(blocks))
    taken = exponentials(model)
    if taken:
        typer.echo(f"The soft index takes {taken / 1e6:.1f} million exponentials besides.")
    if repeats:
        typer.echo(
            f"Milliseconds: one image by {keras.backend.backend()}, the fastest of {repeats} calls "
            "of each block alone; an exported puppet runs faster on a processor."
        )
