"""Change from frame to frame that the truth does not have."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics.per_frame import PerFrameMean, check_images


def flicker(y_true, y_pred, max_value: float = 255.0):
    """How much the prediction's change from frame to frame differs from the truth's.

    A constant error, such as another colour of the wall, does not count; one that comes and goes
    does.

    Args:
        y_true: Consecutive frames `(frames, h, w, c)` in [0, max_value], uint8 or float; at least
            2. `None` where there is no truth: the prediction's plain change is given, which is
            flicker where the head is still (see `still_pairs`) and motion elsewhere.
        y_pred: The same.
        max_value: The data range.

    Returns:
        Float32 `(frames - 1,)` in [0, 255], whatever the data range: the mean over pixels and
        colours of `|(P[t+1] - P[t]) - (T[t+1] - T[t])|`.

    Raises:
        VPGCError: if the shapes differ, or for fewer than 2 frames.

    Example:

    ```python
    flicker(truth, prediction)
    flicker(None, prediction)[still_pairs(landmarks)]
    ```
    """
    true, predicted = check_images(y_pred if y_true is None else y_true, y_pred)
    if (predicted.shape[0] or 2) < 2:
        raise VPGCError("Flicker is measured between consecutive frames: give 2 or more.")
    error = predicted if y_true is None else predicted - true
    change = ops.abs(error[1:] - error[:-1])
    return ops.mean(change, axis=(1, 2, 3)) * (255.0 / max_value)


def still_pairs(landmarks, size: float = 512.0, limit: float = 1.0) -> np.ndarray:
    """Between which frames does the face stand still?

    Args:
        landmarks: Float `(frames, points, 2)` in [0, 1], NaN where the detector failed.
        size: Image size in pixels at which the limit is stated.
        limit: Mean motion of the landmarks in pixels a frame below which a face is still.

    Returns:
        Bool `(frames - 1,)`, false where a landmark is NaN.

    Example:

    ```python
    still_pairs(landmarks, size=512, limit=0.5).sum()
    ```
    """
    motion = np.diff(np.asarray(landmarks, "float64"), axis=0)
    return np.linalg.norm(motion, axis=-1).mean(-1) * size < limit


@keras.saving.register_keras_serializable("keras_vpgc")
class Flicker(PerFrameMean):
    """Mean over pairs of neighbouring frames of `flicker`.

    Each update is a stretch of consecutive frames; nothing is measured between two updates.

    Args:
        max_value: The data range.
        name: Name of the metric.
        dtype: Dtype of the state.

    Call arguments:
        y_true, y_pred: See `flicker`.
        sample_weight: `(frames - 1,)`, or `None`.

    Example:

    ```python
    metric = Flicker(max_value=255)
    metric.update_state(truth, prediction)
    metric.result()
    ```
    """

    def __init__(self, max_value=255.0, name="flicker", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.max_value = float(max_value)

    def per_frame(self, y_true, y_pred):
        return flicker(y_true, y_pred, self.max_value)

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value}
