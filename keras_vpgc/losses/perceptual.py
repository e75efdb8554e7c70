"""Distance between images in the feature space of a fixed network."""

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
