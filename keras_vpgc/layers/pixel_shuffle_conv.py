"""A convolution that gives several pixels for each position."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError


def pixel_shuffle(maps, factor: int):
    """Channels of each position spread over `factor x factor` pixels.

    Args:
        maps: Tensor `(batch, h, w, factor^2 * c)`; channels of the pixels in row-major order.
        factor: Pixels a side for each position.

    Returns:
        Tensor `(batch, factor * h, factor * w, c)`.
    """
    _, h, w, channels = maps.shape
    channels //= factor**2
    maps = ops.reshape(maps, (-1, h, w, factor, factor * channels))
    maps = ops.transpose(maps, (0, 1, 3, 2, 4))
    return ops.reshape(maps, (-1, factor * h, factor * w, channels))


@keras.saving.register_keras_serializable("keras_vpgc")
class PixelShuffleConv2D(keras.layers.Conv2D):
    """A convolution of stride 1 whose channels become `factor x factor` pixels.

    The last factors of two of a decoder for the price of a small map. The kernels of the pixels of
    one position start equal, so that an untrained layer shows no grid.

    Args:
        filters: Channels of the result.
        kernel_size: As for `keras.layers.Conv2D`.
        factor: Pixels a side for each position, at least 1.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`.

    Output shape:
        `(batch, factor * h, factor * w, filters)`.

    Raises:
        VPGCError: for a factor below 1.

    Example:

    ```python
    PixelShuffleConv2D(3, 3, 4)(keras.random.normal((1, 128, 128, 48)))  # (1, 512, 512, 3)
    ```

    References:
        Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        Convolutional Neural Network", CVPR 2016; Aitken et al., "Checkerboard artifact free
        sub-pixel convolution", 2017 (the start).
    """

    def __init__(self, filters, kernel_size, factor, **kwargs):
        if int(factor) < 1:
            raise VPGCError(f"factor must be at least 1; received {factor}.")
        self.factor = int(factor)
        self.pixel_filters = int(filters)
        # Exported graphs round before pixels change places: bytes are moved quicker than floats.
        # The values are in [0, 255] then, see `keras_vpgc.export`.
        self.rounded = False
        for fixed in ("strides", "padding"):
            kwargs.pop(fixed, None)
        super().__init__(self.pixel_filters * self.factor**2, kernel_size, padding="same", **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        first = self.kernel[..., : self.pixel_filters]
        self.kernel.assign(ops.tile(first, (1, 1, 1, self.factor**2)))

    def call(self, inputs):
        maps = super().call(inputs)
        if self.rounded:
            maps = ops.cast(ops.round(ops.clip(maps, 0.0, 255.0)), "uint8")
        return pixel_shuffle(maps, self.factor)

    def compute_output_shape(self, input_shape):
        batch, h, w, _ = input_shape
        return (batch, h and self.factor * h, w and self.factor * w, self.pixel_filters)

    def get_config(self):
        config = super().get_config()
        for fixed in ("strides", "padding"):
            config.pop(fixed)
        return {**config, "filters": self.pixel_filters, "factor": self.factor}
