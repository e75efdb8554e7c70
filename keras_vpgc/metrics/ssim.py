"""Structural similarity."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics.per_frame import PerFrameMean, check_images

WINDOW, SIGMA = 11, 1.5


def ssim(y_true, y_pred, max_value: float = 255.0):
    """Structural similarity of each image.

    Window 11x11 gaussian with sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03, each channel
    alone, mean over the positions where the whole window lies inside. Equal to
    `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, channel_axis=-1, data_range=max_value)`.

    Args:
        y_true: Images `(batch, h, w, c)` in [0, max_value], uint8 or float; h, w >= 11.
        y_pred: The same.
        max_value: The data range.

    Returns:
        Float32 `(batch,)`, 1 for identical images.

    Raises:
        VPGCError: if the shapes differ or the images are smaller than the window.

    Example:

    ```python
    ssim(truth, prediction, max_value=255)
    ```

    References:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
        IEEE TIP 2004.
    """
    y_true, y_pred = check_images(y_true, y_pred)
    height, width, channels = y_true.shape[1:]
    if min(height, width) < WINDOW:
        raise VPGCError(
            f"SSIM's window is {WINDOW}x{WINDOW} pixels but the images are {width}x{height}: "
            "compare larger images."
        )
    # In [0, 1]: float32 keeps the differences of squares better there.
    x, y = y_true / max_value, y_pred / max_value
    offsets = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    kernel = (kernel / kernel.sum()).astype("float32")
    # Moments about a common value: variances are small differences otherwise.
    center = ops.mean(0.5 * (x + y), axis=(1, 2), keepdims=True)
    x, y = x - center, y - center

    # By products: a convolution of one channel takes XLA five times as long on a CPU.
    rows, columns = _band(kernel, height), _band(kernel, width).T

    def blur(image):
        return ops.matmul(ops.matmul(rows, ops.transpose(image, (0, 3, 1, 2))), columns)

    with backend.full_precision():
        mean_x, mean_y = blur(x), blur(y)
        var_x = blur(x * x) - ops.square(mean_x)
        var_y = blur(y * y) - ops.square(mean_y)
        cov = blur(x * y) - mean_x * mean_y
    center = ops.reshape(center, (-1, channels, 1, 1))
    mean_x, mean_y = mean_x + center, mean_y + center
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (ops.square(mean_x) + ops.square(mean_y) + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return ops.mean(luminance * structure, axis=(1, 2, 3))


def _band(kernel, size):
    """The matrix `(size - 10, size)` that blurs a column where the whole window lies inside."""
    inside = size - WINDOW + 1
    band = np.zeros((inside, size), "float32")
    for offset, weight in enumerate(kernel):
        band[np.arange(inside), np.arange(inside) + offset] = weight
    return band


@keras.saving.register_keras_serializable("keras_vpgc")
class SSIM(PerFrameMean):
    """Mean over all frames of `ssim`: each frame first, then the mean.

    Args:
        max_value: The data range.
        name: Name of the metric.
        dtype: Dtype of the state.

    Example:

    ```python
    metric = SSIM(max_value=255)
    metric.update_state(truth, prediction)
    metric.result()
    ```
    """

    def __init__(self, max_value=255.0, name="ssim", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.max_value = float(max_value)

    def per_frame(self, y_true, y_pred):
        return ssim(y_true, y_pred, self.max_value)

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value}
