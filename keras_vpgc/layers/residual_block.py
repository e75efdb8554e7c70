"""The convolutional building block of encoder and decoder."""

import keras

from keras_vpgc.layers.group_normalization import GroupNormalization


@keras.saving.register_keras_serializable("keras_vpgc")
class ResidualBlock(keras.layers.Layer):
    """GroupNorm, SiLU, 3x3 convolution, twice, beside a shortcut.

    Args:
        filters: Number of output channels, or `None` to keep the input's. Where it differs from
            the input's, the shortcut is a 1x1 convolution.
        groups: Groups of the normalisation; must divide both numbers of channels.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`.

    Output shape:
        `(batch, h, w, filters)`.

    Example:

    ```python
    ResidualBlock(128)(keras.random.normal((1, 32, 32, 64)))  # (1, 32, 32, 128)
    ```

    References:
        Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021.
    """

    def __init__(self, filters=None, groups=32, **kwargs):
        super().__init__(**kwargs)
        self.filters = None if filters is None else int(filters)
        self.groups = int(groups)

    def build(self, input_shape):
        channels = input_shape[-1]
        filters = self.filters or channels
        policy = {"dtype": self.dtype_policy}
        inner = (*input_shape[:-1], filters)
        self.norm_1 = GroupNormalization(self.groups, activation="silu", name="norm_1", **policy)
        self.norm_1.build(input_shape)
        self.conv_1 = keras.layers.Conv2D(filters, 3, padding="same", name="conv_1", **policy)
        self.conv_1.build(input_shape)
        self.norm_2 = GroupNormalization(self.groups, activation="silu", name="norm_2", **policy)
        self.norm_2.build(inner)
        self.conv_2 = keras.layers.Conv2D(filters, 3, padding="same", name="conv_2", **policy)
        self.conv_2.build(inner)
        self.shortcut = None
        if filters != channels:
            self.shortcut = keras.layers.Conv2D(filters, 1, name="shortcut", **policy)
            self.shortcut.build(input_shape)

    def call(self, inputs):
        x = self.conv_1(self.norm_1(inputs))
        x = self.conv_2(self.norm_2(x))
        return x + (inputs if self.shortcut is None else self.shortcut(inputs))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters or input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "groups": self.groups}
