"""Peak signal-to-noise ratio."""

import keras
from keras import ops

from keras_vpgc.metrics.per_frame import PerFrameMean, check_images


def psnr(y_true, y_pred, max_value: float = 255.0):
    """Peak signal-to-noise ratio of each image.

    Args:
        y_true: Images `(batch, h, w, c)` in [0, max_value], uint8 or float.
        y_pred: The same.
        max_value: The data range, 255 or 1; 2 for images in [-1, 1].

    Returns:
        Float32 `(batch,)` in dB: `10 log10(max_value^2 / mean squared error)`; infinite for
        identical images.

    Raises:
        VPGCError: if the shapes differ.

    Example:

    ```python
    psnr(truth, prediction, max_value=255)
    ```
    """
    y_true, y_pred = check_images(y_true, y_pred)
    error = ops.mean(ops.square(y_true - y_pred), axis=(1, 2, 3))
    return -10.0 * ops.log10(error / max_value**2)


@keras.saving.register_keras_serializable("keras_vpgc")
class PSNR(PerFrameMean):
    """Mean over all frames of `psnr`: each frame first, then the mean.

    One identical pair makes the mean infinite.

    Args:
        max_value: The data range.
        name: Name of the metric.
        dtype: Dtype of the state.

    Example:

    ```python
    metric = PSNR(max_value=255)
    metric.update_state(truth, prediction)
    metric.result()
    ```
    """

    def __init__(self, max_value=255.0, name="psnr", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.max_value = float(max_value)

    def per_frame(self, y_true, y_pred):
        return psnr(y_true, y_pred, self.max_value)

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value}
