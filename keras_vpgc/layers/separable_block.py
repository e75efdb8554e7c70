"""The light building block of encoder and decoder."""

import keras

from keras_vpgc.errors import VPGCError
from keras_vpgc.layers.group_normalization import GroupNormalization


@keras.saving.register_keras_serializable("keras_vpgc")
class SeparableBlock(keras.layers.Layer):
    """Depthwise 3x3 convolution, 1x1 to more channels, ReLU, 1x1 back, beside a shortcut.

    With `expansion=2` it takes two ninths of the operations of `ResidualBlock`. Group
    normalisation in front is an option: it reads the whole map twice for its statistics, which on
    large maps takes longer than the convolutions. The branch starts small, next to the identity.

    Args:
        filters: Number of output channels, or `None` to keep the input's. Where it differs from
            the input's, the shortcut is a 1x1 convolution.
        groups: Groups of the normalisation, or `None` for none; must divide the input's channels.
        expansion: Channels between the 1x1 convolutions, as a multiple of the output's.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`.

    Output shape:
        `(batch, h, w, filters)`.

    Raises:
        VPGCError: for an expansion below 1.

    Example:

    ```python
    SeparableBlock(128)(keras.random.normal((1, 32, 32, 64)))  # (1, 32, 32, 128)
    ```

    References:
        Sandler et al., "MobileNetV2", CVPR 2018, and Liu et al., "A ConvNet for the 2020s", CVPR
        2022 (the block); Lim et al., "Enhanced Deep Residual Networks for Single Image
        Super-Resolution", CVPRW 2017 (no normalisation, small branches).
    """

    def __init__(self, filters=None, groups=None, expansion=2, **kwargs):
        super().__init__(**kwargs)
        self.filters = None if filters is None else int(filters)
        self.groups = None if groups is None else int(groups)
        self.expansion = int(expansion)
        if self.expansion < 1:
            raise VPGCError(f"expansion must be at least 1; received {expansion}.")

    def build(self, input_shape):
        channels = input_shape[-1]
        filters = self.filters or channels
        inner = self.expansion * filters
        policy = {"dtype": self.dtype_policy}
        self.norm = None
        if self.groups is not None:
            self.norm = GroupNormalization(self.groups, name="norm", **policy)
            self.norm.build(input_shape)
        self.depthwise = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise", **policy)
        self.depthwise.build(input_shape)
        self.expand = keras.layers.Conv2D(inner, 1, activation="relu", name="expand", **policy)
        self.expand.build(input_shape)
        small = keras.initializers.VarianceScaling(0.1, "fan_in", "truncated_normal")
        self.project = keras.layers.Conv2D(
            filters, 1, kernel_initializer=small, name="project", **policy
        )
        self.project.build((*input_shape[:-1], inner))
        self.shortcut = None
        if filters != channels:
            self.shortcut = keras.layers.Conv2D(filters, 1, name="shortcut", **policy)
            self.shortcut.build(input_shape)

    def call(self, inputs):
        x = inputs if self.norm is None else self.norm(inputs)
        x = self.project(self.expand(self.depthwise(x)))
        return x + (inputs if self.shortcut is None else self.shortcut(inputs))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "groups": self.groups,
            "expansion": self.expansion,
        }
