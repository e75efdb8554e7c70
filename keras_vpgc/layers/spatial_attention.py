"""Self-attention between all positions of a feature map."""

import keras
from keras import ops

from keras_vpgc.layers.group_normalization import GroupNormalization


@keras.saving.register_keras_serializable("keras_vpgc")
class SpatialAttention(keras.layers.Layer):
    """GroupNorm and self-attention over the positions, added to the input.

    Args:
        groups: Groups of the normalisation; must divide the number of channels.
        num_heads: Heads of the attention; must divide the number of channels.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`.

    Output shape:
        That of the input.

    Example:

    ```python
    SpatialAttention()(keras.random.normal((1, 16, 16, 256)))  # (1, 16, 16, 256)
    ```

    References:
        Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021.
    """

    def __init__(self, groups=32, num_heads=1, **kwargs):
        super().__init__(**kwargs)
        self.groups = int(groups)
        self.num_heads = int(num_heads)

    def build(self, input_shape):
        channels = input_shape[-1]
        policy = {"dtype": self.dtype_policy}
        self.norm = GroupNormalization(self.groups, name="norm", **policy)
        self.norm.build(input_shape)
        self.qkv = keras.layers.Dense(3 * channels, name="qkv", **policy)
        self.qkv.build(input_shape)
        self.projection = keras.layers.Dense(channels, name="projection", **policy)
        self.projection.build(input_shape)

    def call(self, inputs):
        h, w, channels = inputs.shape[1:]
        qkv = ops.reshape(
            self.qkv(self.norm(inputs)), (-1, h * w, 3, self.num_heads, channels // self.num_heads)
        )
        x = ops.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return inputs + self.projection(ops.reshape(x, (-1, h, w, channels)))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "groups": self.groups, "num_heads": self.num_heads}
