"""Distance between images in the feature space of a fixed network."""

from pathlib import Path

import keras
from keras import ops

from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class PerceptualLoss(keras.losses.Loss):
    """Mean absolute difference of a fixed network's feature maps.

    Args:
        features: A `keras.Model` from images in [-1, 1] to a list of feature maps. It is frozen.
        layer_weights: One weight a map, or `None` for equal weights.
        **kwargs: Arguments of `keras.losses.Loss`.

    Call arguments:
        y_true, y_pred: Images `(batch, h, w, 3)` in [-1, 1].

    Returns:
        The weighted sum over the maps of the mean absolute difference.

    Raises:
        VPGCError: if the numbers of weights and of feature maps differ.

    Example:

    ```python
    vgg = keras.applications.VGG19(include_top=False)
    maps = [vgg.get_layer(name).output for name in ("block1_conv1", "block2_conv1")]
    loss = PerceptualLoss(keras.Model(vgg.inputs, maps))
    ```

    References:
        Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
        ECCV 2016.
    """

    def __init__(self, features, layer_weights=None, name="perceptual", **kwargs):
        super().__init__(name=name, **kwargs)
        features.trainable = False
        self.features = features
        maps = len(features.outputs)
        self.layer_weights = list(layer_weights or [1.0 / maps] * maps)
        if len(self.layer_weights) != maps:
            raise VPGCError(
                f"PerceptualLoss has {len(self.layer_weights)} layer_weights for {maps} feature "
                "maps: give one each."
            )

    def call(self, y_true, y_pred):
        total = 0.0
        pairs = zip(self._maps(y_true), self._maps(y_pred), self.layer_weights, strict=True)
        for true, predicted, weight in pairs:
            total += weight * ops.mean(ops.abs(ops.stop_gradient(true) - predicted))
        return total

    def _maps(self, images):
        maps = self.features(images, training=False)
        maps = maps if isinstance(maps, (list, tuple)) else [maps]
        return [ops.cast(x, "float32") for x in maps]

    def get_config(self):
        return {
            **super().get_config(),
            "features": keras.saving.serialize_keras_object(self.features),
            "layer_weights": self.layer_weights,
        }

    @classmethod
    def from_config(cls, config):
        features = keras.saving.deserialize_keras_object(config.pop("features"))
        return cls(features, **config)


# Layers of VGG19 and their weights, as pix2pixHD has them.
VGG19_LAYERS = {
    "block1_conv1": 1 / 32,
    "block2_conv1": 1 / 16,
    "block3_conv1": 1 / 8,
    "block4_conv1": 1 / 4,
    "block5_conv1": 1.0,
}
# Mean colour of ImageNet in the order red, green, blue: what Keras' VGG19 was trained about.
VGG19_MEAN = (123.68, 116.779, 103.939)


def vgg19_perceptual(weights="imagenet", **kwargs) -> PerceptualLoss:
    """The sum over five layers of VGG19 that pix2pixHD minimises, on Keras' VGG19.

    relu1_1 to relu5_1 with the weights 1/32, 1/16, 1/8, 1/4 and 1. Keras' network takes colours of
    0 to 255 about their mean, so its features, and with them the loss, are larger than those of
    networks that take colours of deviation 1: weigh it by what it logs.

    Args:
        weights: `"imagenet"`, fetched by Keras; the path of such a file without top (`.h5` or
            `.weights.h5`); or `None` for untrained features.
        **kwargs: Arguments of `PerceptualLoss`.

    Returns:
        A `PerceptualLoss` for images in [-1, 1], at least 16x16 pixels.

    Raises:
        VPGCError: if the weights cannot be fetched or read.

    Example:

    ```python
    trainer = CodebookTrainer(autoencoder, perceptual=vgg19_perceptual())
    ```

    References:
        Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
        GANs" (pix2pixHD), CVPR 2018; Simonyan and Zisserman, ICLR 2015.
    """
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise VPGCError(f"There is no file {weights} with weights of VGG19: check the path.")
    try:
        vgg = keras.applications.VGG19(
            include_top=False,
            weights=weights if weights is None else str(weights),
            input_shape=(None, None, 3),
        )
    # Keras raises bare exceptions where a fetch fails, and any kind where a file does not fit.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        if weights == "imagenet":
            raise VPGCError(
                f"The weights of VGG19 could not be fetched ({reason}): give weights= the path of "
                "Keras' vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5, or take "
                "LPIPSLoss('vgg') instead."
            ) from error
        raise VPGCError(
            f"{weights} cannot be read as weights of VGG19 without top ({reason}): give the file "
            "that Keras offers."
        ) from error
    image = keras.Input((None, None, 3), name="image", dtype="float32")
    offsets = [127.5 - mean for mean in VGG19_MEAN]
    centred = keras.layers.Rescaling(127.5, offsets, dtype="float32")(image)
    blue_first = ops.flip(centred, axis=-1)
    maps = keras.Model(vgg.input, [vgg.get_layer(name).output for name in VGG19_LAYERS])
    network = keras.Model(image, maps(blue_first), name="vgg19_features")
    return PerceptualLoss(network, list(VGG19_LAYERS.values()), **kwargs)
