"""Learned positions for the tokens of a transformer."""

import keras


@keras.saving.register_keras_serializable("keras_vpgc")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector to every token.

    Args:
        initializer: Initialiser of the vectors. Default: normal, standard deviation 0.02.
        **kwargs: Keras layer arguments.

    Call arguments:
        tokens: Tensor `(batch, n, d)`.

    Output shape:
        That of the input.

    Example:

    ```python
    PositionEmbedding()(keras.random.normal((1, 256, 64)))  # (1, 256, 64)
    ```
    """

    def __init__(self, initializer=None, **kwargs):
        super().__init__(**kwargs)
        if initializer is None:
            initializer = keras.initializers.RandomNormal(stddev=0.02)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        self.positions = self.add_weight(
            name="positions", shape=tuple(input_shape[1:]), initializer=self.initializer
        )

    def call(self, tokens):
        return tokens + self.positions

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": keras.initializers.serialize(self.initializer),
        }
