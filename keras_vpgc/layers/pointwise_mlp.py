"""A small MLP applied to every position of a feature map."""

import keras

from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class PointwiseMLP(keras.layers.Layer):
    """`depth` dense layers over the channels, with ReLU between them.

    The MLPs of VPGC's Eq. 6 and 7; used alone it is their counterpart without the concatenated
    prior (the baseline of Tab. 5).

    Args:
        units: Width of every layer, or `None` to keep the depth of the input.
        depth: Number of dense layers, at least 1. The last one is linear.
        **kwargs: Keras layer arguments.

    Call arguments:
        features: Tensor `(..., d)`.

    Output shape:
        `(..., units)`.

    Example:

    ```python
    PointwiseMLP(256, depth=3)(keras.random.normal((1, 16, 16, 260)))  # (1, 16, 16, 256)
    ```
    """

    def __init__(self, units=None, depth=3, **kwargs):
        super().__init__(**kwargs)
        if int(depth) < 1:
            raise VPGCError(f"An MLP needs a depth of at least 1; received {depth}.")
        self.units = None if units is None else int(units)
        self.depth = int(depth)

    def build(self, input_shape):
        units = self.units or input_shape[-1]
        self.dense = []
        shape = tuple(input_shape)
        for i in range(self.depth):
            layer = keras.layers.Dense(
                units,
                activation="relu" if i + 1 < self.depth else None,
                dtype=self.dtype_policy,
                name=f"dense_{i}",
            )
            layer.build(shape)
            shape = (*shape[:-1], units)
            self.dense.append(layer)

    def call(self, features):
        for layer in self.dense:
            features = layer(features)
        return features

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units or input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "units": self.units, "depth": self.depth}
