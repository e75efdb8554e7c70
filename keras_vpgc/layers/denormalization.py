"""From standard scores to features."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class Denormalization(keras.layers.Layer):
    """`y = x * deviation + mean` with fixed statistics: a network before it works in unit scale.

    Every place of the feature map has its own mean, so that before it has learned anything a
    network that ends with this layer gives the mean features; the deviation is one number. On
    real footage the driver's error after equal steps fell by 28% (`docs/results.md`). Until
    `adapt` is called the layer passes its input on.

    Args:
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, ...)`.

    Output shape:
        That of the input.

    Example:

    ```python
    layer = Denormalization()
    layer.adapt(features)  # (n, 16, 16, 256)
    ```
    """

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        options = {"trainable": False, "dtype": "float32", "autocast": False}
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", **options)
        self.deviation = self.add_weight(name="deviation", shape=(), initializer="ones", **options)

    def call(self, inputs):
        outputs = ops.cast(inputs, "float32") * self.deviation + self.mean
        return ops.cast(outputs, self.compute_dtype)

    def adapt(self, values):
        """Take the statistics of examples.

        Args:
            values: Array `(n, ...)`.

        Raises:
            VPGCError: for another shape than the layer's.
        """
        if not self.built:
            self.build(values.shape)
        if tuple(values.shape[1:]) != tuple(self.mean.shape):
            raise VPGCError(
                f"The layer has the shape {tuple(self.mean.shape)} but the examples "
                f"{tuple(values.shape[1:])}: both must come from the same model."
            )
        mean = np.mean(values, axis=0, dtype="float64")
        squares = [np.square(x - mean).mean() for x in values]
        self.mean.assign(mean.astype("float32"))
        self.deviation.assign(max(float(np.sqrt(np.mean(squares))), 1e-6))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
