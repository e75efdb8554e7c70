"""The models of both stages, functional inside, with presets."""

from keras_vpgc.models import presets
from keras_vpgc.models.autoencoder import PortraitAutoencoder
from keras_vpgc.models.direct_mapping import DirectMapping
from keras_vpgc.models.discriminator import PatchDiscriminator
from keras_vpgc.models.driver import PortraitDriver
from keras_vpgc.models.reenactor import PortraitReenactor

__all__ = [
    "DirectMapping",
    "PatchDiscriminator",
    "PortraitAutoencoder",
    "PortraitDriver",
    "PortraitReenactor",
    "presets",
]
