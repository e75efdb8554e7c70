"""From the models' value range to pixels."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vpgc")
class ToUint8(keras.layers.Layer):
    """Rounds images in [-1, 1] to uint8 pixels in [0, 255].

    Call arguments:
        images: Float tensor, any shape; values outside [-1, 1] are clipped.

    Output shape:
        That of the input, uint8.

    Example:

    ```python
    ToUint8()(keras.ops.array([[-1.0, 0.0, 1.0]]))  # [[0, 128, 255]]
    ```
    """

    def call(self, images):
        # float16 and bfloat16 have no room for 256 levels in [-1, 1].
        images = ops.cast(images, "float32")
        return ops.cast(ops.round(ops.clip((images + 1.0) * 127.5, 0.0, 255.0)), "uint8")

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, dtype="uint8")
