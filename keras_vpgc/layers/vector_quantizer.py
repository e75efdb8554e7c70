"""The vanilla codebook: one orderless list of codes (VPGC, Sec. 3.1)."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class VectorQuantizer(keras.layers.Layer):
    """Replaces every feature vector by its nearest code of one shared list.

    The baseline of the paper's Tab. 4: `N = 1024` codes of length `d = 256`, nearest by L2
    (Eq. 1), straight-through to the features.

    Args:
        num_codes: `N`.
        code_dim: `d`, or `None` to take the depth of the features.
        initializer: Initialiser of the codes. Default: uniform in `[-1 / N, 1 / N]`, as in VQGAN.
        **kwargs: Keras layer arguments.

    Call arguments:
        features: Tensor `(batch, h, w, d)`.

    Output shape:
        That of the features, in the layer's compute dtype.

    Raises:
        VPGCError: if the depth of the features is not `code_dim`.

    Example:

    ```python
    quantizer = VectorQuantizer(num_codes=1024)
    quantized = quantizer(features)        # (batch, h, w, d)
    indices = quantizer.encode(features)   # (batch, h, w), int32
    ```

    References:
        van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017;
        Wang et al., SIGGRAPH 2023, Eq. 1.
    """

    def __init__(self, num_codes=1024, code_dim=None, initializer=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.num_codes = int(num_codes)
        if self.num_codes < 1:
            raise VPGCError(f"num_codes must be at least 1; received {num_codes}.")
        self.code_dim = None if code_dim is None else int(code_dim)
        if initializer is None:
            bound = 1.0 / self.num_codes
            initializer = keras.initializers.RandomUniform(-bound, bound)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        depth = input_shape[-1]
        if self.code_dim is None:
            self.code_dim = depth
        if depth != self.code_dim:
            raise VPGCError(
                f"VectorQuantizer has codes of length {self.code_dim} but features of depth "
                f"{depth}: the two must be equal."
            )
        self.codes = self.add_weight(
            name="codes",
            shape=(self.num_codes, self.code_dim),
            initializer=self.initializer,
            dtype="float32",
            autocast=False,
        )

    def encode(self, features):
        """Index of the nearest code of each feature vector.

        Args:
            features: Tensor `(batch, h, w, d)`.

        Returns:
            Int32 tensor `(batch, h, w)`.
        """
        if not self.built:
            self.build(features.shape)
        codes = ops.convert_to_tensor(self.codes)
        features = ops.stop_gradient(ops.cast(features, "float32"))
        distance = ops.sum(ops.square(codes), axis=-1) - 2.0 * ops.matmul(
            features, ops.transpose(codes)
        )
        return ops.cast(ops.argmin(distance, axis=-1), "int32")

    def call(self, features):
        exact = ops.cast(features, "float32")
        found = ops.take(ops.convert_to_tensor(self.codes), self.encode(exact), axis=0)
        found = found + (exact - ops.stop_gradient(exact))
        return ops.cast(found, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_dim": self.code_dim,
            "initializer": keras.initializers.serialize(self.initializer),
        }
