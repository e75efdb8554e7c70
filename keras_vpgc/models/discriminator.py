"""The multi-scale patch discriminator of the adversarial loss."""

import keras

from keras_vpgc import layers
from keras_vpgc.models.autoencoder import PresetModel


@keras.saving.register_keras_serializable("keras_vpgc")
class PatchDiscriminator(PresetModel):
    """Judges overlapping patches of an image at several scales.

    At each scale a stack of 4x4 convolutions with stride 2 and leaky ReLU ends in a map of logits;
    the next scale sees the image averaged down by 2. There is no batch normalisation: batches are
    of 4 frames of one video.

    Args:
        image_size: Height and width of the image, in pixels.
        num_scales: Number of scales.
        num_layers: Convolutions with stride 2 at a scale.
        discriminator_channels: Channels of the first one; doubled at each, up to 8 times.
        feature_maps: Also return the inner feature maps (for feature matching).
        dtype: Dtype policy; the logits are float32.
        name: Name of the model.

    Input shape:
        `(batch, image_size, image_size, 3)`, float in [-1, 1].

    Output shape:
        List of logits `(batch, h_i, w_i, 1)`, one a scale; with `feature_maps` a list of lists,
        the logits last in each.

    Example:

    ```python
    logits = PatchDiscriminator(image_size=128)(images)  # two maps of logits
    ```

    References:
        Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
        GANs" (pix2pixHD), CVPR 2018.
    """

    def __init__(
        self,
        image_size=512,
        num_scales=2,
        num_layers=3,
        discriminator_channels=64,
        feature_maps=False,
        dtype=None,
        name="discriminator",
    ):
        arguments = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        dtype = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype
        policy = dtype or keras.config.dtype_policy()
        image = keras.Input((image_size, image_size, 3), name="image", dtype="float32")
        outputs = []
        x = image
        for scale in range(num_scales):
            if scale:
                # No padding: Keras counts it on PyTorch and leaves it out elsewhere.
                x = keras.layers.AveragePooling2D(
                    2, name=f"discriminator_{scale}_half", dtype=policy
                )(x)
            features = []
            y = x
            for i in range(num_layers + 1):
                y = keras.layers.Conv2D(
                    discriminator_channels * min(2**i, 8),
                    4,
                    strides=2 if i < num_layers else 1,
                    padding="same",
                    name=f"discriminator_{scale}_{i}",
                    dtype=policy,
                )(y)
                if i:
                    # One group is a layer normalisation: no statistics across a batch.
                    y = layers.GroupNormalization(
                        1, name=f"discriminator_{scale}_{i}_norm", dtype=policy
                    )(y)
                y = keras.layers.LeakyReLU(
                    0.2, name=f"discriminator_{scale}_{i}_relu", dtype=policy
                )(y)
                features.append(y)
            logits = keras.layers.Conv2D(
                1, 4, padding="same", name=f"discriminator_{scale}_last", dtype="float32"
            )(y)
            outputs.append([*features, logits] if feature_maps else logits)
        super().__init__(inputs=image, outputs=outputs, name=name)
        arguments["dtype"] = policy.name
        self._arguments = arguments

    def call(self, inputs, training=None, mask=None):
        outputs = super().call(inputs, training=training, mask=mask)
        # Keras takes a list of one for what is in it.
        return [outputs] if self._arguments["num_scales"] == 1 else outputs
