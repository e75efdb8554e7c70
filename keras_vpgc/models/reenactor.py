"""The puppet's network: from landmarks to the image."""

import keras

from keras_vpgc import layers
from keras_vpgc.errors import VPGCError
from keras_vpgc.models.autoencoder import (
    TRAINING_ARGUMENTS,
    PresetModel,
    build_decoder,
    build_encoder,
    build_quantizer,
    check_blocks,
    check_codebook,
    grid_of,
)
from keras_vpgc.models.driver import PortraitDriver, build_head


@keras.saving.register_keras_serializable("keras_vpgc")
class PortraitReenactor(PresetModel):
    """Landmarks -> heatmaps -> driver -> codebook -> decoder -> image.

    A flat functional model of the trained parts of `PortraitAutoencoder` and `PortraitDriver`
    with one codebook layer. Saved, it is the puppet file. Build it by `from_models`.

    Args:
        image_size: Height and width of the image, in pixels.
        heatmap_size: See `PortraitDriver`.
        context: Number of neighbouring frames that the driver sees.
        base_channels, multipliers, stride: See `PortraitAutoencoder` and `PortraitDriver`.
        driver_base_channels, driver_multipliers: See `PortraitAutoencoder` and `PortraitDriver`.
        driver_stride, num_blocks, block: See `PortraitAutoencoder` and `PortraitDriver`.
        latent_dim, norm_groups: See `PortraitAutoencoder` and `PortraitDriver`.
        attention_sizes, shortcuts: See `PortraitAutoencoder` and `PortraitDriver`.
        codebook, codes_per_cell, code_dim, code_scale, window_size: See `PortraitAutoencoder`.
        mode, temperature, implementation, num_codes: See `PortraitAutoencoder`.
        texture_prior, global_context, mlp_depth, transformer_blocks: See `PortraitDriver`.
        transformer_heads, transformer_mlp_units: See `PortraitDriver`.
        line_width: Width of the heatmaps' lines in pixels, see `LandmarkHeatmap`.
        landmark_set: `"ibug-68"`, or `"ibug-68-iris"` with the irises (78 points).
        output: `"float"` in [-1, 1] or `"uint8"`.
        metadata: JSON-able dict that travels with the model.
        dtype: Dtype policy of the layers.
        name: Name of the model.

    Input shape:
        Landmarks `(batch, context, points, 2)`, float32, x to the right and y down, in [0, 1];
        68 or 78 points.

    Output shape:
        `(batch, image_size, image_size, 3)`, float32 in [-1, 1] (not clipped) or uint8.

    Example:

    ```python
    reenactor = PortraitReenactor.from_models(autoencoder, driver, metadata={"frame_rate": 25})
    reenactor.save("puppet.keras")
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 3.3.
    """

    def __init__(
        self,
        image_size=512,
        heatmap_size=None,
        context=7,
        base_channels=64,
        multipliers=(1, 1, 2, 2, 4, 8),
        stride=1,
        driver_base_channels=64,
        driver_multipliers=(1, 1, 2, 2, 4, 4),
        driver_stride=1,
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
        texture_prior=True,
        global_context=True,
        mlp_depth=3,
        transformer_blocks=3,
        transformer_heads=4,
        transformer_mlp_units=512,
        line_width=None,
        landmark_set="ibug-68",
        output="float",
        metadata=None,
        dtype=None,
        name="portrait_reenactor",
    ):
        arguments = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        dtype = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype
        policy = dtype or keras.config.dtype_policy()
        if output not in ("float", "uint8"):
            raise VPGCError(f"output must be 'float' or 'uint8'; received {output!r}.")
        check_codebook(codebook)
        if texture_prior and codebook != "grid":
            raise VPGCError(
                f"The codebook {codebook!r} has no grid to take a texture prior from: give the "
                "driver texture_prior=False."
            )
        check_blocks(block, base_channels, multipliers, norm_groups)
        check_blocks(block, driver_base_channels, driver_multipliers, norm_groups)
        grid = grid_of(image_size, multipliers, stride)
        size = heatmap_size or image_size
        blocks = (num_blocks, latent_dim, norm_groups, attention_sizes, policy)
        heatmap = layers.LandmarkHeatmap(
            size, line_width, landmark_set, name="heatmap", dtype=policy
        )
        encoder = build_encoder(
            size,
            context,
            driver_base_channels,
            driver_multipliers,
            *blocks,
            name="driver_encoder",
            stride=driver_stride,
            block=block,
        )
        head = build_head(
            grid,
            latent_dim,
            (grid, grid, codes_per_cell, code_dim),
            texture_prior,
            global_context,
            mlp_depth,
            transformer_blocks,
            transformer_heads,
            transformer_mlp_units,
            policy,
        )
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
        )
        decoder = build_decoder(
            grid,
            base_channels,
            multipliers,
            *blocks,
            shortcut=shortcuts,
            block=block,
            stride=stride,
        )

        landmarks = keras.Input((context, heatmap.num_points, 2), name="landmarks", dtype="float32")
        features = encoder(heatmap(landmarks))
        if soft_index is None:
            quantized = codebook_layer(head(features))
        else:
            codes = codebook_layer(features)
            features = head([features, codes] if texture_prior else features)
            quantized = soft_index([features, codes])
        image = decoder(quantized)
        if output == "uint8":
            image = layers.ToUint8(name="to_uint8")(image)
        super().__init__(inputs=landmarks, outputs=image, name=name)
        arguments["dtype"] = policy.name
        arguments["metadata"] = dict(metadata or {})
        self._arguments = arguments
        self.image_size = image_size
        self.context = context
        self.landmark_set = landmark_set
        self.metadata = arguments["metadata"]
        self.heatmap = heatmap
        self.encoder = encoder
        self.head = head
        self.codebook = codebook_layer
        self.soft_index = soft_index
        self.decoder = decoder

    @classmethod
    def from_models(cls, autoencoder, driver: PortraitDriver, **overrides):
        """Join the trained parts; the weights are copied.

        Args:
            autoencoder: A trained `PortraitAutoencoder`.
            driver: A `PortraitDriver` trained on its features.
            **overrides: `output`, `metadata`, `line_width`, `landmark_set`, `implementation`,
                `name`.

        Returns:
            A `PortraitReenactor` of dtype policy float32.

        Raises:
            VPGCError: if the two do not fit.
        """
        _check_pair(autoencoder, driver)
        first, second = autoencoder.get_config(), driver.get_config()
        config = {**first, **second, "dtype": "float32", "name": "portrait_reenactor", **overrides}
        for key in TRAINING_ARGUMENTS:
            config.pop(key)
        model = cls(**config)
        model.encoder.set_weights(driver.encoder.get_weights())
        model.head.set_weights(driver.head.get_weights())
        if model.codebook.weights:
            # Not what only the training needs.
            model.codebook.codes.assign(autoencoder.codebook.codes)
        model.decoder.set_weights(autoencoder.decoder.get_weights())
        return model


def _check_pair(autoencoder, driver):
    """Refuse an autoencoder and a driver whose features have different shapes."""
    first, second = autoencoder.decoder.input_shape, driver.output_shape
    if autoencoder.image_size != driver.image_size or first != second:
        sizes = [
            f"{x.image_size} pixels and features {h}x{w}x{d}"
            for x, (_, h, w, d) in ((autoencoder, first), (driver, second))
        ]
        raise VPGCError(
            f"The autoencoder has {sizes[0]} but the driver {sizes[1]}: give both one image_size "
            "and latent_dim, and multipliers and driver_multipliers (with driver_stride) that make "
            "the image equally small."
        )
