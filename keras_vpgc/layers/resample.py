"""Halving and doubling the resolution of a feature map."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.layers.pixel_shuffle_conv import PixelShuffleConv2D, pixel_shuffle


@keras.saving.register_keras_serializable("keras_vpgc")
class Downsample(keras.layers.Layer):
    """A 3x3 convolution with stride 2.

    Args:
        filters: Number of output channels, or `None` to keep the input's.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`, h and w even.

    Output shape:
        `(batch, h / 2, w / 2, filters)`.

    Example:

    ```python
    Downsample()(keras.random.normal((1, 32, 32, 64)))  # (1, 16, 16, 64)
    ```
    """

    def __init__(self, filters=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = None if filters is None else int(filters)

    def build(self, input_shape):
        self.conv = keras.layers.Conv2D(
            self.filters or input_shape[-1],
            3,
            strides=2,
            padding="same",
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build(input_shape)

    def call(self, inputs):
        return self.conv(inputs)

    def compute_output_shape(self, input_shape):
        batch, h, w, channels = input_shape
        return (batch, -(-h // 2), -(-w // 2), self.filters or channels)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("keras_vpgc")
class Upsample(keras.layers.Layer):
    """Nearest-neighbour doubling and a 3x3 convolution, or a 1x1 convolution and a pixel shuffle.

    Args:
        filters: Number of output channels, or `None` to keep the input's.
        shortcut: Add the input with its channels spread over the four pixels of each cell (each
            channel repeated to make up the number): a path without weights along which detail
            reaches the image from the first step on.
        shuffle: Give each position's four pixels by a 1x1 convolution at the input's size
            (`PixelShuffleConv2D`), a ninth of the work, instead of a 3x3 one at the result's. The
            shortcut is a part of its kernel then, from which the training begins.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`.

    Output shape:
        `(batch, 2 * h, 2 * w, filters)`.

    Example:

    ```python
    Upsample()(keras.random.normal((1, 16, 16, 64)))  # (1, 32, 32, 64)
    ```

    References:
        The shortcut: Chen et al., "Deep Compression Autoencoder for Efficient High-Resolution
        Diffusion Models", ICLR 2025, Sec. 3.2.
    """

    def __init__(self, filters=None, shortcut=False, shuffle=False, **kwargs):
        super().__init__(**kwargs)
        self.filters = None if filters is None else int(filters)
        self.shortcut = bool(shortcut)
        self.shuffle = bool(shuffle)

    def build(self, input_shape):
        batch, h, w, channels = input_shape
        filters = self.filters or channels
        if self.shortcut and 4 * filters % channels:
            raise VPGCError(
                f"A shortcut cannot spread {channels} channels over four pixels of {filters}: "
                "choose filters of which four are a multiple of the input's channels."
            )
        options = {"dtype": self.dtype_policy, "name": "conv"}
        if self.shuffle:
            self.conv = PixelShuffleConv2D(filters, 1, 2, **options)
            self.conv.build(input_shape)
            if self.shortcut:
                spread = np.eye(channels, dtype="float32").repeat(4 * filters // channels, axis=1)
                self.conv.kernel.assign_add(spread[None, None])
            return
        self.conv = keras.layers.Conv2D(filters, 3, padding="same", **options)
        self.conv.build((batch, None, None, channels))

    def call(self, inputs):
        _, h, w, channels = inputs.shape
        if self.shuffle:
            return self.conv(inputs)
        # One copy, where Keras's layer makes two, in float32.
        larger = ops.broadcast_to(
            inputs[:, :, None, :, None], (ops.shape(inputs)[0], h, 2, w, 2, channels)
        )
        outputs = self.conv(ops.reshape(larger, (-1, 2 * h, 2 * w, channels)))
        if not self.shortcut:
            return outputs
        filters = outputs.shape[-1]
        return outputs + pixel_shuffle(ops.repeat(inputs, 4 * filters // channels, axis=-1), 2)

    def compute_output_shape(self, input_shape):
        batch, h, w, channels = input_shape
        return (batch, 2 * h, 2 * w, self.filters or channels)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "shortcut": self.shortcut,
            "shuffle": self.shuffle,
        }
