"""The direct mapping from landmarks to images that the paper argues against."""

import keras

from keras_vpgc import layers
from keras_vpgc.errors import VPGCError
from keras_vpgc.models.autoencoder import (
    PresetModel,
    build_decoder,
    build_encoder,
    check_blocks,
    grid_of,
)


@keras.saving.register_keras_serializable("keras_vpgc")
class DirectMapping(PresetModel):
    """Landmarks -> heatmaps -> encoder -> decoder -> image, without codebook and priors.

    A baseline: the driver's encoder and the autoencoder's decoder as in `PortraitReenactor`, of
    the same sizes, joined without anything between them, to be trained on images in one stage as
    pix2pixHD is (`keras_vpgc.training.DirectTrainer`). Saved, it is a puppet file like any other.

    Args:
        image_size: Height and width of the image, in pixels.
        context: Number of neighbouring frames that the network sees.
        heatmap_size, base_channels, multipliers: See `PortraitAutoencoder` and `PortraitDriver`.
        stride, driver_base_channels: See `PortraitAutoencoder` and `PortraitDriver`.
        driver_multipliers: See `PortraitAutoencoder` and `PortraitDriver`.
        driver_stride, num_blocks, block: See `PortraitAutoencoder` and `PortraitDriver`.
        latent_dim: See `PortraitAutoencoder` and `PortraitDriver`.
        norm_groups, attention_sizes, shortcuts: See `PortraitAutoencoder` and `PortraitDriver`.
        line_width, landmark_set, output, metadata: See `PortraitReenactor`.
        dtype: Dtype policy of the layers.
        name: Name of the model.

    Input shape:
        Landmarks `(batch, context, points, 2)`, float32, x to the right and y down, in [0, 1];
        68 or 78 points.

    Output shape:
        `(batch, image_size, image_size, 3)`, float32 in [-1, 1] (not clipped) or uint8.

    Raises:
        VPGCError: for sizes that do not fit together.

    Example:

    ```python
    model = DirectMapping.from_preset("vpgc_128")
    images = model(landmark_windows)  # (b, 7, 68, 2) -> (b, 128, 128, 3)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 1 and 2; Wang et al., "High-Resolution Image Synthesis and
        Semantic Manipulation with Conditional GANs" (pix2pixHD), CVPR 2018.
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
        line_width=None,
        landmark_set="ibug-68",
        output="float",
        metadata=None,
        dtype=None,
        name="direct_mapping",
    ):
        arguments = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        dtype = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype
        policy = dtype or keras.config.dtype_policy()
        if output not in ("float", "uint8"):
            raise VPGCError(f"output must be 'float' or 'uint8'; received {output!r}.")
        check_blocks(block, base_channels, multipliers, norm_groups)
        check_blocks(block, driver_base_channels, driver_multipliers, norm_groups)
        grid = grid_of(image_size, multipliers, stride)
        size = heatmap_size or image_size
        if grid_of(size, driver_multipliers, driver_stride) != grid:
            raise VPGCError(
                f"multipliers {tuple(multipliers)} and driver_multipliers "
                f"{tuple(driver_multipliers)} (with driver_stride={driver_stride}) must make the "
                "image equally small."
            )
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
        image = decoder(encoder(heatmap(landmarks)))
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
        self.decoder = decoder
