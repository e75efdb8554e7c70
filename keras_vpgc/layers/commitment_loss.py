"""The vector-quantisation loss as a layer (VPGC, Eq. 2)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vpgc")
class CommitmentLoss(keras.layers.Layer):
    """Adds L_VQ to the model's losses and passes the quantised features on.

    `L_VQ = scale * (codebook_weight * mean((sg[Z] - Z_q)^2)
                     + commitment_weight * mean((sg[Z_q] - Z)^2))`, `sg` = stop gradient.

    Since it calls `add_loss`, a model with this layer trains it under a plain `compile`/`fit`;
    a custom train step adds `sum(model.losses)`. For soft indexing `Z_q` is `Z_hat`.

    Args:
        codebook_weight: Weight of the term that pulls the codes to the features.
        commitment_weight: beta, the weight of the term that pulls the features to the codes.
        scale: Multiplies the sum.
        straight_through: Set it behind a hard index. Then the quantised features carry the
            features' gradient (`SoftIndex(mode="hard")` and `VectorQuantizer` do that), which is
            kept out of the codebook term, and the codes learn from L_VQ alone.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: List of features Z and quantised features Z_q, both `(batch, h, w, d)`.

    Output shape:
        That of Z_q, with its values.

    Example:

    ```python
    z_hat = SoftIndex()([z, codes])
    z_hat = CommitmentLoss(commitment_weight=0.25)([z, z_hat])
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 2; van den Oord et al., NeurIPS 2017, Eq. 3 (beta).
    """

    def __init__(
        self,
        codebook_weight=1.0,
        commitment_weight=0.25,
        scale=1.0,
        straight_through=False,
        **kwargs,
    ):
        # Squares of small differences want float32, whatever the policy.
        super().__init__(autocast=False, **kwargs)
        self.codebook_weight = float(codebook_weight)
        self.commitment_weight = float(commitment_weight)
        self.scale = float(scale)
        self.straight_through = bool(straight_through)

    def call(self, inputs):
        features, quantized = (ops.cast(x, "float32") for x in inputs)
        fixed = ops.stop_gradient(features)
        codes = quantized
        if self.straight_through:
            # The value of Z_q with the codes' gradient alone ...
            codes = quantized - (features - fixed)
            # ... and with the features' gradient alone.
            quantized = features + ops.stop_gradient(quantized - features)
        codebook = ops.mean(ops.square(fixed - codes))
        commitment = ops.mean(ops.square(ops.stop_gradient(codes) - features))
        self.add_loss(
            self.scale * (self.codebook_weight * codebook + self.commitment_weight * commitment)
        )
        return ops.cast(quantized, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1])

    def get_config(self):
        return {
            **super().get_config(),
            "codebook_weight": self.codebook_weight,
            "commitment_weight": self.commitment_weight,
            "scale": self.scale,
            "straight_through": self.straight_through,
        }
