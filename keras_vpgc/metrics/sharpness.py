"""Sharpness without a reference."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.metrics.per_frame import PerFrameMean, check_images

# Luma of ITU-R BT.601.
LUMINANCE = (0.299, 0.587, 0.114)


def sharpness(images, max_value: float = 255.0, size: int | None = None):
    """Variance of the Laplacian of each image's luminance; a blurred image has less.

    Noise is sharp too, and the value depends on the image's size: compare it with the truth's, at
    the same size.

    Args:
        images: `(batch, h, w, 3)` in [0, max_value], uint8 or float; h, w >= 3.
        max_value: The data range.
        size: Side in pixels to which the images are scaled (bilinear, antialiased) before, so that
            images of several sizes can be compared; default: as they are.

    Returns:
        Float32 `(batch,)`, 0 or more, in grey levels of 255 squared: the variance, over the
        positions inside, of `x[i-1,j] + x[i+1,j] + x[i,j-1] + x[i,j+1] - 4 x[i,j]` where
        `x = 0.299 R + 0.587 G + 0.114 B`.

    Raises:
        VPGCError: for another shape.

    Example:

    ```python
    sharpness(prediction) / sharpness(truth)
    ```

    References:
        Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study",
        ICPR 2000.
    """
    _, images = check_images(images, images)
    if size is not None:
        images = ops.image.resize(images, (size, size), antialias=True, data_format="channels_last")
    grey = ops.sum(images * (np.array(LUMINANCE, "float32") * (255.0 / max_value)), axis=-1)
    inside = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return ops.var(around - 4.0 * inside, axis=(1, 2))


@keras.saving.register_keras_serializable("keras_vpgc")
class Sharpness(PerFrameMean):
    """Mean over all frames of the prediction's `sharpness`.

    Args:
        max_value: The data range.
        size: Side in pixels to which the images are scaled before.
        name: Name of the metric.
        dtype: Dtype of the state.

    Call arguments:
        y_true: Not used; `None`, or anything that `compile` passes.
        y_pred: Images `(batch, h, w, 3)`.

    Example:

    ```python
    metric = Sharpness(size=256)
    metric.update_state(None, prediction)
    metric.result()
    ```
    """

    def __init__(self, max_value=255.0, size=None, name="sharpness", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.max_value = float(max_value)
        self.size = size

    def per_frame(self, y_true, y_pred):
        return sharpness(y_pred, self.max_value, self.size)

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value, "size": self.size}
