"""One summary of the whole frame at every position (VPGC, Eq. 7)."""

import keras
from keras import ops

from keras_vpgc.layers.pointwise_mlp import PointwiseMLP


@keras.saving.register_keras_serializable("keras_vpgc")
class GlobalContext(keras.layers.Layer):
    """Joins the spatial mean of the features to every position and mixes both by an MLP.

    `F_g = mean over (u, v) of F`; `F_hat = MLP(F (+) F_g)`. It tells places that no landmark
    describes (hair, collar) which frame they belong to.

    Args:
        units: Width of the MLP, or `None` for the depth of the features.
        depth: Number of its dense layers.
        **kwargs: Keras layer arguments.

    Call arguments:
        features: Tensor `(batch, h, w, d)`.

    Output shape:
        `(batch, h, w, units)`.

    Example:

    ```python
    GlobalContext()(keras.random.normal((2, 16, 16, 256)))  # (2, 16, 16, 256)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 7.
    """

    def __init__(self, units=None, depth=3, **kwargs):
        super().__init__(**kwargs)
        self.units = None if units is None else int(units)
        self.depth = int(depth)

    def build(self, input_shape):
        depth = input_shape[-1]
        self.mlp = PointwiseMLP(
            self.units or depth, self.depth, dtype=self.dtype_policy, name="mlp"
        )
        self.mlp.build((*input_shape[:-1], 2 * depth))

    def call(self, features):
        context = ops.mean(features, axis=(1, 2), keepdims=True)
        context = ops.broadcast_to(context, ops.shape(features))
        return self.mlp(ops.concatenate([features, context], axis=-1))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units or input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "units": self.units, "depth": self.depth}
