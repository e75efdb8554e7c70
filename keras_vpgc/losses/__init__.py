"""What training minimises. L_VQ is the layer `keras_vpgc.layers.CommitmentLoss`."""

from keras_vpgc.losses.adversarial import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    gradient_penalty,
)
from keras_vpgc.losses.lpips import LPIPSDistance, LPIPSLoss
from keras_vpgc.losses.perceptual import PerceptualLoss, vgg19_perceptual

__all__ = [
    "LPIPSDistance",
    "LPIPSLoss",
    "PerceptualLoss",
    "discriminator_loss",
    "feature_matching_loss",
    "generator_loss",
    "gradient_penalty",
    "vgg19_perceptual",
]
