"""Telling the driver what the person looks like at each place (VPGC, Eq. 6)."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.layers.pointwise_mlp import PointwiseMLP


@keras.saving.register_keras_serializable("keras_vpgc")
class TexturePrior(keras.layers.Layer):
    """Joins the mean code of each cell to the driving features and mixes both by an MLP.

    `P(u, v) = mean(G(u, v))` over the `K_c` codes of the cell; `F = MLP(Z^l (+) P)`, `(+)` =
    concatenation of channels.

    Args:
        units: Width of the MLP, or `None` for the depth of the features.
        depth: Number of its dense layers.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: List of features `(batch, h, w, d)` and codes `(h, w, K_c, d_c)`.

    Output shape:
        `(batch, h, w, units)`.

    Raises:
        VPGCError: if the grids of features and codes differ.

    Example:

    ```python
    prior = TexturePrior()([features, codes])  # (batch, 16, 16, 256)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 6.
    """

    def __init__(self, units=None, depth=3, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.units = None if units is None else int(units)
        self.depth = int(depth)

    def build(self, input_shape):
        features, codes = input_shape
        if tuple(features[1:3]) != tuple(codes[:2]):
            raise VPGCError(
                f"The features' grid is {features[1]}x{features[2]} but the codes' is "
                f"{codes[0]}x{codes[1]}: both must come from the same model."
            )
        self.mlp = PointwiseMLP(
            self.units or features[3], self.depth, dtype=self.dtype_policy, name="mlp"
        )
        self.mlp.build((*features[:3], features[3] + codes[3]))

    def call(self, inputs):
        features, codes = inputs
        prior = ops.cast(ops.mean(codes, axis=2), self.compute_dtype)
        features = ops.cast(features, self.compute_dtype)
        prior = ops.broadcast_to(
            prior[None], (ops.shape(features)[0], *features.shape[1:3], prior.shape[-1])
        )
        return self.mlp(ops.concatenate([features, prior], axis=-1))

    def compute_output_shape(self, input_shape):
        features, _ = input_shape
        return (*features[:3], self.units or features[3])

    def get_config(self):
        return {**super().get_config(), "units": self.units, "depth": self.depth}
