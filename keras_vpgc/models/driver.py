"""Stage 2: from landmark heatmaps to features (VPGC, Sec. 3.3)."""

import keras
import numpy as np

from keras_vpgc import layers
from keras_vpgc.errors import VPGCError
from keras_vpgc.models.autoencoder import PresetModel, build_encoder, check_blocks, grid_of


def build_head(
    grid,
    latent_dim,
    codes_shape,
    texture_prior,
    global_context,
    mlp_depth,
    transformer_blocks,
    transformer_heads,
    transformer_mlp_units,
    dtype,
    name="driver_head",
):
    """Priors and transformer, `[Z^l, codes]` -> `F_hat_t`; without texture prior `Z^l` alone.

    Without a prior the same MLP works without the concatenation (the baseline of Tab. 5).
    """
    options = {"dtype": dtype}
    features = keras.Input((grid, grid, latent_dim), name=f"{name}_features", dtype="float32")
    inputs = features
    if texture_prior:
        codes = keras.Input(batch_shape=codes_shape, name=f"{name}_codes", dtype="float32")
        inputs = [features, codes]
        x = layers.TexturePrior(latent_dim, mlp_depth, name=f"{name}_prior", **options)(inputs)
    else:
        x = layers.PointwiseMLP(latent_dim, mlp_depth, name=f"{name}_mlp_0", **options)(features)
    if global_context:
        x = layers.GlobalContext(latent_dim, mlp_depth, name=f"{name}_context", **options)(x)
    else:
        x = layers.PointwiseMLP(latent_dim, mlp_depth, name=f"{name}_mlp_1", **options)(x)
    x = keras.layers.Reshape((grid * grid, latent_dim), name=f"{name}_tokens", **options)(x)
    x = layers.PositionEmbedding(name=f"{name}_positions", **options)(x)
    for block in range(transformer_blocks):
        x = layers.TransformerBlock(
            transformer_heads, transformer_mlp_units, name=f"{name}_block_{block}", **options
        )(x)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm", **options)(x)
    x = keras.layers.Dense(latent_dim, name=f"{name}_last", dtype="float32")(x)
    x = keras.layers.Reshape((grid, grid, latent_dim), name=f"{name}_map", dtype="float32")(x)
    x = layers.Denormalization(name=f"{name}_scale", dtype="float32")(x)
    return keras.Model(inputs, x, name=name)


@keras.saving.register_keras_serializable("keras_vpgc")
class PortraitDriver(PresetModel):
    """Landmark heatmaps -> encoder -> texture prior -> global context -> transformer -> features.

    The output is to equal the features Z that the frozen encoder of stage 1 gives for the true
    image (Eq. 8): plain `compile(optimizer, "mae")` and `fit(heatmaps, Z)` train it. The codes
    are a frozen copy of the stage-1 codebook. `encoder` and `head` are attributes.

    Args:
        codes: The trained codes `(h, w, K_c, d_c)`, or `None` for zeros until weights are loaded.
        image_size: Height and width of the image, in pixels.
        heatmap_size: Those of the heatmaps, which are drawn at that size; `None` for the image's.
        context: Number of neighbouring frames, the heatmaps' channels.
        driver_base_channels: Channels of the encoder's first level.
        driver_multipliers: Channel multiplier of each level.
        driver_stride: Stride of the encoder's first convolution, whose kernel is three times as
            wide; 2 leaves out the level of full resolution, where most of the time goes.
        num_blocks: Blocks of a level.
        block: See `PortraitAutoencoder`.
        latent_dim: `d`, depth of the features.
        norm_groups: Groups of the group normalisation.
        attention_sizes: Feature-map sizes with attention.
        codes_per_cell: `K_c`.
        code_dim: `d_c`.
        texture_prior: Use Eq. 6's prior?
        global_context: Use Eq. 7's context?
        mlp_depth: Dense layers of each MLP.
        transformer_blocks: Number of transformer blocks.
        transformer_heads: Attention heads of a block.
        transformer_mlp_units: Hidden width of a block's MLP.
        dtype: Dtype policy of the layers.
        name: Name of the model.

    Input shape:
        `(batch, heatmap_size, heatmap_size, context)`, values in [0, 1].

    Output shape:
        `(batch, h, w, latent_dim)`, float32.

    Raises:
        VPGCError: for sizes that do not fit together.

    Example:

    ```python
    driver = PortraitDriver.from_preset("vpgc_128", codes=autoencoder.codebook.codes)
    driver.compile("adam", "mae")
    driver.fit(heatmaps, autoencoder.encoder.predict(images))
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 3.3, Eq. 6 to 8.
    """

    def __init__(
        self,
        codes=None,
        image_size=512,
        heatmap_size=None,
        context=7,
        driver_base_channels=64,
        driver_multipliers=(1, 1, 2, 2, 4, 4),
        driver_stride=1,
        num_blocks=2,
        block="residual",
        latent_dim=256,
        norm_groups=32,
        attention_sizes=(16,),
        codes_per_cell=256,
        code_dim=4,
        texture_prior=True,
        global_context=True,
        mlp_depth=3,
        transformer_blocks=3,
        transformer_heads=4,
        transformer_mlp_units=512,
        dtype=None,
        name="portrait_driver",
    ):
        arguments = {
            key: value
            for key, value in locals().items()
            if key not in ("self", "__class__", "codes")
        }
        dtype = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype
        policy = dtype or keras.config.dtype_policy()
        check_blocks(block, driver_base_channels, driver_multipliers, norm_groups)
        size = heatmap_size or image_size
        grid = grid_of(size, driver_multipliers, driver_stride)
        encoder = build_encoder(
            size,
            context,
            driver_base_channels,
            driver_multipliers,
            num_blocks,
            latent_dim,
            norm_groups,
            attention_sizes,
            policy,
            name="driver_encoder",
            stride=driver_stride,
            block=block,
        )
        codes_shape = (grid, grid, codes_per_cell, code_dim)
        head = build_head(
            grid,
            latent_dim,
            codes_shape,
            texture_prior,
            global_context,
            mlp_depth,
            transformer_blocks,
            transformer_heads,
            transformer_mlp_units,
            policy,
        )
        heatmaps = keras.Input((size, size, context), name="heatmaps", dtype="float32")
        features = encoder(heatmaps)
        codebook = None
        if texture_prior:
            codebook = layers.GridCodebook(
                (grid, grid),
                codes_per_cell,
                code_dim,
                initializer="zeros",
                trainable=False,
                name="codebook",
                dtype=policy,
            )
            features = [features, codebook(features)]
        super().__init__(inputs=heatmaps, outputs=head(features), name=name)
        arguments["dtype"] = policy.name
        self._arguments = arguments
        self.grid_size = (grid, grid)
        self.image_size = image_size
        self.heatmap_size = size
        self.encoder = encoder
        self.codebook = codebook
        self.head = head
        if codes is not None and codebook is not None:
            codes = np.asarray(keras.ops.convert_to_numpy(codes), dtype="float32")
            if codes.shape != codes_shape:
                raise VPGCError(
                    f"The codes have the shape {codes.shape} but this driver's are {codes_shape}: "
                    "build both models from the same preset."
                )
            codebook.codes.assign(codes)

    def adapt(self, features):
        """Take the scale of the output from examples, before training.

        Args:
            features: Float `(n, h, w, latent_dim)`, what is to be predicted.
        """
        self.head.layers[-1].adapt(features)
