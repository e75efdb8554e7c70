"""Stage 1: the portrait autoencoder around the codebook (VPGC, Sec. 3.1 and 3.2)."""

import inspect

import keras

from keras_vpgc import layers
from keras_vpgc.errors import VPGCError
from keras_vpgc.models import presets

CODEBOOKS = ("grid", "vanilla", "split", "none")
BLOCKS = ("residual", "separable")
# Largest feature maps that separable blocks normalise: on larger ones that takes longer than
# their convolutions.
NORMALIZED_SIZE = 32
# Pixels along a cell that the encoder's shortcut sees at most. A step of Adam moves every weight by
# the same amount, whatever its input: a kernel of 64x64 pixels swings its output by several times
# the features' spread at each step, and the codes never catch up (`docs/results.md`).
SHORTCUT_CELL = 8
# What tells only the training how the codes move: a puppet has no such arguments.
TRAINING_ARGUMENTS = (
    "codebook_weight",
    "commitment_weight",
    "vq_scale",
    "ema_decay",
    "revive_after",
    "kmeans_start",
)


def grid_of(image_size: int, multipliers, stride: int = 1) -> int:
    """Cells along one side of the feature map: the image halved once between two levels.

    Args:
        image_size: Height and width of the image in pixels.
        multipliers: Channel multipliers, one a level.
        stride: Stride of the first convolution.

    Returns:
        The number of cells.

    Raises:
        VPGCError: if the image cannot be halved that often.

    Example:

    ```python
    grid_of(512, (1, 1, 2, 2, 4, 8))  # 16
    ```
    """
    factor = stride * 2 ** (len(multipliers) - 1)
    if image_size % factor or image_size < factor:
        first = f"divided by {stride} and " if stride > 1 else ""
        raise VPGCError(
            f"An image of {image_size} pixels cannot be {first}halved {len(multipliers) - 1} "
            f"times: choose an image_size that is a multiple of {factor}, or fewer multipliers."
        )
    return image_size // factor


def check_blocks(block, base_channels, multipliers, norm_groups):
    """Refuse a block that there is not, and channels that the normalisation cannot group."""
    if block not in BLOCKS:
        raise VPGCError(f"There is no block {block!r}: choose one of {', '.join(BLOCKS)}.")
    for channels in {base_channels * m for m in multipliers}:
        if channels % norm_groups:
            raise VPGCError(
                f"{channels} channels (base_channels {base_channels} times a multiplier of "
                f"{tuple(multipliers)}) cannot be split into norm_groups={norm_groups} groups."
            )


def build_encoder(
    image_size,
    channels,
    base_channels,
    multipliers,
    num_blocks,
    latent_dim,
    norm_groups,
    attention_sizes,
    dtype,
    name="encoder",
    stride=1,
    shortcut=False,
    block="residual",
):
    """The convolutional encoder, image `(b, s, s, channels)` -> features `(b, h, h, latent_dim)`.

    `stride`: the first convolution's (its kernel grows with it). `shortcut`: add one convolution
    from the image straight to the features, over a cell and half a cell around it; of an image
    that has more than `SHORTCUT_CELL` pixels along a cell, from its means.

    A functional model; every layer's name begins with `name`, so that variable paths tell the
    parts of a larger model apart.
    """
    options = {"dtype": dtype}
    inputs = keras.Input((image_size, image_size, channels), name=f"{name}_input", dtype="float32")
    x = keras.layers.Conv2D(
        base_channels, 3 * stride, stride, padding="same", name=f"{name}_first", **options
    )(inputs)
    for level, multiplier in enumerate(multipliers):
        for place in range(num_blocks):
            filters = base_channels * multiplier
            x = _block(x, block, filters, norm_groups, f"{name}_{level}_{place}", options)
            if x.shape[1] in attention_sizes:
                x = layers.SpatialAttention(
                    norm_groups, name=f"{name}_{level}_{place}_attention", **options
                )(x)
        if level + 1 < len(multipliers):
            x = layers.Downsample(name=f"{name}_{level}_down", **options)(x)
    x = _middle(x, block, norm_groups, name, options)
    x = _activation(x, block, norm_groups, name, options)
    x = keras.layers.Conv2D(latent_dim, 3, padding="same", name=f"{name}_last", **options)(x)
    if shortcut:
        cell = image_size // grid_of(image_size, multipliers, stride)
        straight = inputs
        factor = next(f for f in range(1, cell + 1) if cell % f == 0 and cell // f <= SHORTCUT_CELL)
        if factor > 1:
            pooled = keras.layers.AveragePooling2D(factor, name=f"{name}_pooled", **options)
            straight, cell = pooled(straight), cell // factor
        straight = keras.layers.Conv2D(
            latent_dim, 2 * cell, cell, padding="same", name=f"{name}_shortcut", **options
        )(straight)
        x = keras.layers.Add(name=f"{name}_sum", **options)([x, straight])
    return keras.Model(inputs, x, name=name)


def build_decoder(
    grid,
    base_channels,
    multipliers,
    num_blocks,
    latent_dim,
    norm_groups,
    attention_sizes,
    dtype,
    name="decoder",
    shortcut=False,
    block="residual",
    stride=1,
):
    """The encoder's mirror, features `(b, h, h, latent_dim)` -> image `(b, s, s, 3)` in float32.

    `stride`: the last convolution gives so many pixels a side for each of its positions.
    """
    options = {"dtype": dtype}
    inputs = keras.Input((grid, grid, latent_dim), name=f"{name}_input", dtype="float32")
    x = keras.layers.Conv2D(
        base_channels * multipliers[-1], 3, padding="same", name=f"{name}_first", **options
    )(inputs)
    x = _middle(x, block, norm_groups, name, options)
    for level in reversed(range(len(multipliers))):
        for place in range(num_blocks):
            filters = base_channels * multipliers[level]
            x = _block(x, block, filters, norm_groups, f"{name}_{level}_{place}", options)
            if x.shape[1] in attention_sizes:
                x = layers.SpatialAttention(
                    norm_groups, name=f"{name}_{level}_{place}_attention", **options
                )(x)
        if level:
            # Of a light decoder the channels shrink before the map grows, not after.
            filters = base_channels * multipliers[level - 1] if block == "separable" else None
            x = layers.Upsample(
                filters,
                shortcut=shortcut,
                shuffle=block == "separable",
                name=f"{name}_{level}_up",
                **options,
            )(x)
    x = _activation(x, block, norm_groups, name, options)
    options = {"name": f"{name}_last", "dtype": "float32"}
    if stride == 1:
        x = keras.layers.Conv2D(3, 3, padding="same", **options)(x)
    else:
        x = layers.PixelShuffleConv2D(3, 3, stride, **options)(x)
    return keras.Model(inputs, x, name=name)


def _block(x, kind, filters, norm_groups, name, options):
    """A block of a kind behind `x`, of `filters` channels (`None`: its own)."""
    if kind == "residual":
        return layers.ResidualBlock(filters, norm_groups, name=name, **options)(x)
    groups = norm_groups if x.shape[1] <= NORMALIZED_SIZE else None
    return layers.SeparableBlock(filters, groups, name=name, **options)(x)


def _activation(x, kind, norm_groups, name, options):
    """What comes between the last block and the last convolution."""
    if kind == "separable" and x.shape[1] > NORMALIZED_SIZE:
        return keras.layers.ReLU(name=f"{name}_relu", **options)(x)
    norm = layers.GroupNormalization(norm_groups, activation="silu", name=f"{name}_norm", **options)
    return norm(x)


def _middle(x, kind, norm_groups, name, options):
    x = _block(x, kind, None, norm_groups, f"{name}_middle_0", options)
    x = layers.SpatialAttention(norm_groups, name=f"{name}_middle_attention", **options)(x)
    return _block(x, kind, None, norm_groups, f"{name}_middle_1", options)


def build_quantizer(
    codebook,
    grid,
    codes_per_cell,
    code_dim,
    code_scale,
    window_size,
    mode,
    temperature,
    implementation,
    num_codes,
    dtype,
    ema_decay=None,
    revive_after=None,
):
    """The codebook layer, and the layer that reads it (`None` where it answers by itself)."""
    check_codebook(codebook)
    options = {"name": "codebook", "dtype": dtype}
    if codebook == "vanilla":
        averages = {"ema_decay": ema_decay, "revive_after": revive_after}
        return layers.VectorQuantizer(num_codes, **averages, **options), None
    if codebook == "none":
        return keras.layers.Identity(**options), None
    options["initializer"] = keras.initializers.RandomNormal(stddev=code_scale)
    if codebook == "split":
        # The same codes in every cell: a window of one sees them all.
        window_size, codes = 1, layers.SharedCodebook(num_codes, code_dim, **options)
    else:
        codes = layers.GridCodebook((grid, grid), codes_per_cell, code_dim, **options)
    index = layers.SoftIndex(
        window_size, mode, temperature, implementation, name="soft_index", dtype=dtype
    )
    return codes, index


def check_codebook(codebook):
    """Refuse a codebook that there is not."""
    if codebook not in CODEBOOKS:
        raise VPGCError(f"There is no codebook {codebook!r}: choose one of {', '.join(CODEBOOKS)}.")


class PresetModel(keras.Model):
    """What the models share: presets, and a config made of the constructor's arguments."""

    @classmethod
    def from_preset(cls, preset: str, **overrides):
        """An untrained model with a preset's network.

        Args:
            preset: `"paper_512"`, `"vpgc_512"`, `"vpgc_512_lite"`, `"vpgc_256"`, `"vpgc_128"` or
                `"vpgc_tiny"`.
            **overrides: Arguments of the class; they win over the preset's.

        Returns:
            The model, with random weights.
        """
        accepted = inspect.signature(cls.__init__).parameters
        return cls(**presets.arguments(preset, accepted, overrides))

    def get_config(self):
        return dict(self._arguments)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


@keras.saving.register_keras_serializable("keras_vpgc")
class PortraitAutoencoder(PresetModel):
    """Image -> encoder -> codebook -> decoder -> image.

    A functional model. It holds L_VQ by a `CommitmentLoss` layer, so `compile("adam", "mae")` and
    `fit(images, images)` train it; `keras_vpgc.training.CodebookTrainer` adds the paper's other
    losses. `encoder`, `codebook`, `soft_index` (`None` for the vanilla codebook and for none) and
    `decoder` are attributes.

    Args:
        image_size: Height and width of the image, in pixels.
        base_channels: Channels of the first level.
        multipliers: Channel multiplier of each level; the image is halved between two levels.
        stride: Stride of the encoder's first convolution, whose kernel is three times as wide, and
            pixels a side that the decoder's last one gives for each of its positions
            (`PixelShuffleConv2D`): 4 leaves out the two largest levels, where most of the time
            goes.
        num_blocks: Blocks of a level.
        block: `"residual"`, two 3x3 convolutions with group normalisation; or `"separable"`, see
            `SeparableBlock`: two ninths of the work, normalised on small maps alone.
        latent_dim: `d`, depth of the features Z.
        norm_groups: Groups of the group normalisation.
        attention_sizes: Feature-map sizes at which the residual blocks are followed by attention.
        shortcuts: Give detail a short way: one convolution from the image (where it has more than 8
            pixels along a cell, from means of them) to the features, and `Upsample`'s shortcut.
            Without them the first thousand steps go into it (measured in `docs/results.md`); the
            paper has none.
        codebook: `"grid"`; `"vanilla"`, one list of codes as long as a feature vector; `"split"`,
            one list of short codes that all cells share; or `"none"`: the features go straight to
            the decoder.
        codes_per_cell: `K_c`.
        code_dim: `d_c`; must divide `latent_dim`.
        code_scale: Standard deviation of the codes at the start.
        window_size: `r` of the receptive window, at most the grid's size.
        mode: `"soft"` or `"hard"` index (`"grid"` and `"split"`).
        temperature: Softmax temperature of the soft index.
        implementation: See `SoftIndex`.
        num_codes: `N` of `"vanilla"` and `"split"`.
        codebook_weight: Weight of L_VQ's codebook term.
        commitment_weight: beta, weight of L_VQ's commitment term.
        vq_scale: Multiplies L_VQ.
        ema_decay: The vanilla codebook's codes are moving averages of the features, see
            `VectorQuantizer`; L_VQ has no codebook term then.
        revive_after: Steps after which an unused one of them is replaced, see there.
        kmeans_start: Begin the training with codes that are the k-means of features (vanilla
            only)? The recipes do so by `adapt`; before a plain `fit`, call it.
        dtype: Dtype policy of the layers; codes, losses and the last convolution are float32.
        name: Name of the model.

    Input shape:
        `(batch, image_size, image_size, 3)`, float in [-1, 1].

    Output shape:
        The same, float32, not clipped.

    Raises:
        VPGCError: for sizes that do not fit together.

    Example:

    ```python
    autoencoder = PortraitAutoencoder.from_preset("vpgc_128")
    autoencoder.compile("adam", "mae")
    autoencoder.fit(images, images, batch_size=4)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 3.1, 3.2.
    """

    def __init__(
        self,
        image_size=512,
        base_channels=64,
        multipliers=(1, 1, 2, 2, 4, 8),
        stride=1,
        num_blocks=2,
        block="residual",
        latent_dim=256,
        norm_groups=32,
        attention_sizes=(16,),
        shortcuts=False,
        codebook="grid",
        codes_per_cell=256,
        code_dim=4,
        code_scale=1.0,
        window_size=4,
        mode="soft",
        temperature=1.0,
        implementation="auto",
        num_codes=1024,
        codebook_weight=1.0,
        commitment_weight=0.25,
        vq_scale=1.0,
        ema_decay=None,
        revive_after=None,
        kmeans_start=False,
        dtype=None,
        name="portrait_autoencoder",
    ):
        arguments = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        dtype = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype
        policy = dtype or keras.config.dtype_policy()
        check_blocks(block, base_channels, multipliers, norm_groups)
        check_codebook(codebook)
        for key in ("ema_decay", "revive_after", "kmeans_start"):
            if codebook != "vanilla" and arguments[key] not in (None, False):
                raise VPGCError(
                    f"{key} belongs to the vanilla codebook and this one is {codebook!r}: leave it "
                    "out, or choose codebook='vanilla'."
                )
        grid = grid_of(image_size, multipliers, stride)
        shared = (base_channels, multipliers, num_blocks, latent_dim, norm_groups, attention_sizes)
        kind = {"stride": stride, "shortcut": shortcuts, "block": block}
        encoder = build_encoder(image_size, 3, *shared, policy, **kind)
        decoder = build_decoder(grid, *shared, policy, **kind)
        codebook_layer, soft_index = build_quantizer(
            codebook,
            grid,
            codes_per_cell,
            code_dim,
            code_scale,
            window_size,
            mode,
            temperature,
            implementation,
            num_codes,
            policy,
            ema_decay,
            revive_after,
        )
        commitment = layers.CommitmentLoss(
            # Moving averages follow the features without it.
            codebook_weight if ema_decay is None else 0.0,
            commitment_weight,
            vq_scale,
            straight_through=codebook == "vanilla" or mode == "hard",
            name="commitment_loss",
            dtype=policy,
        )

        image = keras.Input((image_size, image_size, 3), name="image", dtype="float32")
        features = encoder(image)
        if soft_index is None:
            quantized = codebook_layer(features)
        else:
            quantized = soft_index([features, codebook_layer(features)])
        super().__init__(
            inputs=image, outputs=decoder(commitment([features, quantized])), name=name
        )
        arguments["dtype"] = policy.name
        self._arguments = arguments
        self.grid_size = (grid, grid)
        self.image_size = image_size
        self.encoder = encoder
        self.codebook = codebook_layer
        self.soft_index = soft_index
        self.commitment = commitment
        self.decoder = decoder

    def adapt(self, images, batch_size: int = 8, seed: int = 0):
        """Begin with vanilla codes that are the k-means of the features of some images.

        Args:
            images: uint8 `(n, s, s, 3)`, with at least `num_codes` cells in all.
            batch_size: Images encoded at once.
            seed: See `VectorQuantizer.adapt`.

        Raises:
            VPGCError: if the codebook is another one, or the images are too few.
        """
        if not hasattr(self.codebook, "adapt"):
            raise VPGCError(
                "Only a vanilla codebook begins with the k-means of features: choose "
                "codebook='vanilla', or leave kmeans_start out."
            )
        images = images.astype("float32") / 127.5 - 1.0
        features = self.encoder.predict(images, batch_size, verbose=0)
        self.codebook.adapt(features, seed=seed)
