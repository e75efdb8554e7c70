"""The position-aware grid of codes (VPGC, Sec. 3.2)."""

import keras

from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class GridCodebook(keras.layers.Layer):
    """A grid of codes: every cell `(u, v)` of the feature map owns `codes_per_cell` short codes.

    The layer owns the codes and hands them to the layers that read them (`SoftIndex`,
    `TexturePrior`). Its argument only ties the codebook to a feature map of the right size; the
    values of the features are not used. A saved model may hold one such layer, at its top level:
    sub-models that need the codes take them as an input.

    Args:
        grid_size: Pair `(h, w)`, the spatial size of the feature map.
        codes_per_cell: `K_c`, the number of codes of one cell.
        code_dim: `d_c`, the length of one code. The depth of the features must be a multiple.
        initializer: Initialiser of the codes. Default: normal with standard deviation 1.
        **kwargs: Keras layer arguments (`name`, `trainable`, `dtype`).

    Call arguments:
        features: Tensor `(batch, h, w, d)`.

    Output shape:
        `(h, w, codes_per_cell, code_dim)`, without a batch axis, float32 under every policy.

    Raises:
        VPGCError: if the features' grid is not `grid_size`, or `d` is not a multiple of `code_dim`.

    Example:

    ```python
    features = keras.Input((16, 16, 256))
    codes = GridCodebook(grid_size=(16, 16), codes_per_cell=256, code_dim=4)(features)
    z_hat = SoftIndex(window_size=4)([features, codes])
    ```

    References:
        Wang et al., "Efficient Video Portrait Reenactment via Grid-based Codebook",
        SIGGRAPH 2023, Sec. 3.2.
    """

    def __init__(
        self,
        grid_size=(16, 16),
        codes_per_cell=256,
        code_dim=4,
        initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(grid_size, int):
            grid_size = (grid_size, grid_size)
        self.grid_size = tuple(int(n) for n in grid_size)
        self.codes_per_cell = int(codes_per_cell)
        self.code_dim = int(code_dim)
        if len(self.grid_size) != 2 or min(*self.grid_size, codes_per_cell, code_dim) < 1:
            raise VPGCError(
                "GridCodebook needs a grid_size of two positive integers and positive "
                f"codes_per_cell and code_dim; received grid_size={grid_size}, "
                f"codes_per_cell={codes_per_cell}, code_dim={code_dim}."
            )
        if initializer is None:
            initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        self._check(input_shape)
        # The softmax of the soft index and the codes' small updates need float32.
        self.codes = self.add_weight(
            name="codes",
            shape=(*self.grid_size, self.codes_per_cell, self.code_dim),
            initializer=self.initializer,
            dtype="float32",
            autocast=False,
        )

    def call(self, features):
        self._check(features.shape)
        return keras.ops.convert_to_tensor(self.codes)

    def _check(self, shape):
        if len(shape) != 4:
            raise VPGCError(
                "GridCodebook reads features (batch, height, width, depth); received a tensor of "
                f"shape {tuple(shape)}."
            )
        grid = tuple(shape[1:3])
        if None not in grid and grid != self.grid_size:
            raise VPGCError(
                f"The codebook's grid is {self.grid_size[0]}x{self.grid_size[1]} but the features' "
                f"is {grid[0]}x{grid[1]}: give GridCodebook grid_size={grid}, or an image size "
                "that fits."
            )
        if shape[3] is not None and shape[3] % self.code_dim:
            raise VPGCError(
                f"A feature depth of {shape[3]} cannot be split into codes of length "
                f"{self.code_dim}: choose a depth that is a multiple of code_dim."
            )

    def compute_output_shape(self, input_shape):
        return (*self.grid_size, self.codes_per_cell, self.code_dim)

    def compute_output_spec(self, features):
        return keras.KerasTensor(self.compute_output_shape(features.shape), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "grid_size": self.grid_size,
            "codes_per_cell": self.codes_per_cell,
            "code_dim": self.code_dim,
            "initializer": keras.initializers.serialize(self.initializer),
        }
