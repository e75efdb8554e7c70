"""How much landmarks tremble."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics.per_frame import PerSeenFrameMean


def jitter(landmarks, size: float = 512.0):
    """Mean length of the landmarks' second difference in time.

    It is 0 for a face that stands or moves evenly. A face that speaks has a jitter of its own:
    compare a prediction's with the truth's.

    Args:
        landmarks: Consecutive frames `(frames, points, 2)` in [0, 1] of the image; at least 3.
        size: Image size in pixels at which jitter is stated.

    Returns:
        Float32 `(frames - 2,)`: the mean over the points of `|x[t+1] - 2 x[t] + x[t-1]|`, in pixels
        a frame squared; NaN where a landmark is NaN (the detector failed).

    Raises:
        VPGCError: for another shape or fewer than 3 frames.

    Example:

    ```python
    jitter(found_landmarks, size=512)
    ```
    """
    landmarks = ops.cast(ops.convert_to_tensor(landmarks), "float32")
    if len(landmarks.shape) != 3 or (landmarks.shape[0] or 3) < 3:
        raise VPGCError(
            "Jitter is measured on landmarks (frames, points, 2) of 3 or more consecutive frames; "
            f"received {tuple(landmarks.shape)}."
        )
    second = landmarks[2:] - 2.0 * landmarks[1:-1] + landmarks[:-2]
    return ops.mean(ops.sqrt(ops.sum(ops.square(second), axis=-1)), axis=-1) * size


@keras.saving.register_keras_serializable("keras_vpgc")
class Jitter(PerSeenFrameMean):
    """Mean of `jitter` of the predicted landmarks; what holds a NaN is counted apart.

    Each update is a stretch of consecutive frames; nothing is measured between two updates.

    Args:
        size: Image size in pixels at which jitter is stated.
        name: Name of the metric.
        dtype: Dtype of the state.

    Call arguments:
        y_true: Not used; `None`, or anything that `compile` passes.
        y_pred: Landmarks `(frames, points, 2)` in [0, 1].
        sample_weight: `(frames - 2,)`, or `None`.

    Attributes:
        failures: Number of values left out since a landmark was NaN.

    Example:

    ```python
    metric = Jitter(size=512)
    metric.update_state(None, found_landmarks)
    metric.result()
    ```
    """

    def __init__(self, size=512.0, name="jitter", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.size = float(size)

    def per_frame(self, y_true, y_pred):
        return jitter(y_pred, self.size)

    def get_config(self):
        return {**super().get_config(), "size": self.size}
