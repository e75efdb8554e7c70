"""One list of short codes for all cells: the grid codebook without its grid."""

import keras

from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class SharedCodebook(keras.layers.Layer):
    """Short codes that every cell of the feature map shares.

    What lies between the paper's vanilla codebook, one code for a whole feature vector, and its
    grid: each piece of a feature vector is replaced on its own, but by the same codes everywhere.
    `SoftIndex(window_size=1)` reads them, softly or hard, as it reads those of `GridCodebook`.

    Args:
        num_codes: `N`, the number of codes.
        code_dim: `d_c`, the length of one code. The depth of the features must be a multiple.
        initializer: Initialiser of the codes. Default: normal with standard deviation 1.
        **kwargs: Keras layer arguments.

    Call arguments:
        features: Tensor `(batch, h, w, d)`; only its grid counts.

    Output shape:
        `(h, w, num_codes, code_dim)`, the same codes in every cell, float32 under every policy.

    Raises:
        VPGCError: if `d` is not a multiple of `code_dim`, or a number is not positive.

    Example:

    ```python
    codes = SharedCodebook(num_codes=1024, code_dim=4)(features)
    z_hat = SoftIndex(window_size=1)([features, codes])
    ```

    References:
        Product quantisation with one shared list: Jegou et al., TPAMI 2011; see also Wang et al.,
        SIGGRAPH 2023, Sec. 3.2, for the grid that it lacks.
    """

    def __init__(self, num_codes=1024, code_dim=4, initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.num_codes, self.code_dim = int(num_codes), int(code_dim)
        if min(self.num_codes, self.code_dim) < 1:
            raise VPGCError(
                "SharedCodebook needs a positive num_codes and code_dim; received "
                f"num_codes={num_codes}, code_dim={code_dim}."
            )
        if initializer is None:
            initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        self._check(input_shape)
        self.codes = self.add_weight(
            name="codes",
            shape=(self.num_codes, self.code_dim),
            initializer=self.initializer,
            dtype="float32",
            autocast=False,
        )

    def call(self, features):
        self._check(features.shape)
        codes = keras.ops.convert_to_tensor(self.codes)
        return keras.ops.broadcast_to(codes, self.compute_output_shape(features.shape))

    def _check(self, shape):
        if shape[3] % self.code_dim:
            raise VPGCError(
                f"A feature depth of {shape[3]} cannot be split into codes of length "
                f"{self.code_dim}: choose a depth that is a multiple of the code length."
            )

    def compute_output_shape(self, input_shape):
        return (*input_shape[1:3], self.num_codes, self.code_dim)

    def compute_output_spec(self, features):
        return keras.KerasTensor(self.compute_output_shape(features.shape), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_dim": self.code_dim,
            "initializer": keras.initializers.serialize(self.initializer),
        }
