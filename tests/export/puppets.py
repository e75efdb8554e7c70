"""Puppets of random weights to be exported."""

from keras_vpgc.models import PortraitReenactor


def build(metadata):
    """A puppet of few layers, whose number is what takes time, with random weights."""
    return PortraitReenactor(
        image_size=32, context=3, base_channels=8, multipliers=(1, 2), driver_base_channels=8,
        driver_multipliers=(1, 2), num_blocks=1, latent_dim=16, norm_groups=4,
        attention_sizes=(16,), codes_per_cell=8, transformer_blocks=1, transformer_heads=2,
        transformer_mlp_units=16, metadata={**metadata, "size": 32}, dtype="float32",
    )  # fmt: skip


def build_light(metadata):
    """The same of separable blocks, with a pixel shuffle at its end."""
    config = build({**metadata, "context_mode": "causal"}).get_config()
    light = {"block": "separable", "stride": 2, "heatmap_size": 16, "shortcuts": True}
    light |= {"multipliers": (1, 2), "driver_multipliers": (1, 2), "image_size": 32}
    light |= {"attention_sizes": ()}
    return PortraitReenactor.from_config({**config, **light})
