"""What training minimises. L_VQ is the layer `keras_vpgc.layers.CommitmentLoss`."""

from keras_vpgc.losses.adversarial import discriminator_loss, generator_loss
from keras_vpgc.losses.perceptual import PerceptualLoss

__all__ = ["PerceptualLoss", "discriminator_loss", "generator_loss"]
