"""One block of a vision transformer."""

import keras


@keras.saving.register_keras_serializable("keras_vpgc")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm multi-head self-attention and MLP, each beside a shortcut.

    Args:
        num_heads: Number of attention heads; must divide the depth of the tokens.
        mlp_units: Width of the MLP's hidden layer.
        **kwargs: Keras layer arguments.

    Call arguments:
        tokens: Tensor `(batch, n, d)`.

    Output shape:
        That of the input.

    Example:

    ```python
    TransformerBlock(num_heads=4)(keras.random.normal((1, 256, 256)))  # (1, 256, 256)
    ```

    References:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
    """

    def __init__(self, num_heads=4, mlp_units=512, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = int(num_heads)
        self.mlp_units = int(mlp_units)

    def build(self, input_shape):
        depth = input_shape[-1]
        policy = {"dtype": self.dtype_policy}
        self.norm_1 = keras.layers.LayerNormalization(epsilon=1e-6, name="norm_1", **policy)
        self.norm_1.build(input_shape)
        self.attention = keras.layers.MultiHeadAttention(
            self.num_heads, depth // self.num_heads, name="attention", **policy
        )
        self.attention.build(input_shape, input_shape)
        self.norm_2 = keras.layers.LayerNormalization(epsilon=1e-6, name="norm_2", **policy)
        self.norm_2.build(input_shape)
        self.hidden = keras.layers.Dense(self.mlp_units, activation="gelu", name="hidden", **policy)
        self.hidden.build(input_shape)
        self.output_dense = keras.layers.Dense(depth, name="output_dense", **policy)
        self.output_dense.build((*input_shape[:-1], self.mlp_units))

    def call(self, tokens):
        x = self.norm_1(tokens)
        tokens = tokens + self.attention(x, x)
        return tokens + self.output_dense(self.hidden(self.norm_2(tokens)))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_units": self.mlp_units,
        }
