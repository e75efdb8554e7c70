"""Distance between face landmarks (F-LMD)."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics.per_frame import PerSeenFrameMean

# The outer and inner lips among the 68 points of the iBUG scheme.
MOUTH_POINTS = tuple(range(48, 68))


def landmark_distance(
    y_true, y_pred, size: float = 512.0, centered: bool = False, points: Sequence[int] | None = None
):
    """Mean distance of the landmarks of each frame.

    Args:
        y_true: Landmarks `(batch, points, 2)` in [0, 1] of the image.
        y_pred: The same.
        size: Image size in pixels at which distances are stated.
        centered: Remove each frame's mean from both, so that only the face's form counts?
        points: Places of the landmarks that count, such as `MOUTH_POINTS` (the lips among 68);
            default: all. With `centered` their own mean is removed.

    Returns:
        Float32 `(batch,)` in pixels; NaN where a landmark is NaN (the detector failed).

    Raises:
        VPGCError: if the shapes differ, or a point does not exist.

    Example:

    ```python
    landmark_distance(true_landmarks, found_landmarks, size=512)
    landmark_distance(true_landmarks, found_landmarks, points=MOUTH_POINTS)
    ```

    References:
        Chen et al., "Hierarchical Cross-Modal Talking Face Generation with Dynamic Pixel-Wise
        Loss", CVPR 2019 (LMD; its code centres each frame).
    """
    y_true, y_pred = (ops.cast(ops.convert_to_tensor(x), "float32") for x in (y_true, y_pred))
    if len(y_true.shape) != 3 or tuple(y_true.shape[1:]) != tuple(y_pred.shape[1:]):
        raise VPGCError(
            "Two batches of landmarks (batch, points, 2) are compared; received "
            f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}."
        )
    difference = y_true - y_pred
    if points is not None:
        if not len(points) or max(points) >= y_true.shape[1] or min(points) < 0:
            raise VPGCError(
                f"Points {list(points)} are asked for and there are {y_true.shape[1]} landmarks: "
                f"choose among 0 to {y_true.shape[1] - 1}."
            )
        difference = ops.take(difference, list(points), axis=1)
    if centered:
        difference = difference - ops.mean(difference, axis=1, keepdims=True)
    return ops.mean(ops.sqrt(ops.sum(ops.square(difference), axis=-1)), axis=-1) * size


@keras.saving.register_keras_serializable("keras_vpgc")
class LandmarkDistance(PerSeenFrameMean):
    """Mean over all frames of `landmark_distance`; frames with NaN are counted apart.

    Args:
        size: Image size in pixels at which distances are stated.
        centered: Remove each frame's mean from both?
        points: Places of the landmarks that count, such as `MOUTH_POINTS`; default: all.
        name: Name of the metric.
        dtype: Dtype of the state.

    Attributes:
        failures: Number of frames left out since a landmark was NaN.

    Example:

    ```python
    metric = LandmarkDistance(size=512)
    metric.update_state(true_landmarks, found_landmarks)
    metric.result(), metric.failures
    ```
    """

    def __init__(
        self, size=512.0, centered=False, points=None, name="landmark_distance", dtype=None
    ):
        super().__init__(name=name, dtype=dtype)
        self.size = float(size)
        self.centered = bool(centered)
        self.points = None if points is None else [int(point) for point in points]

    def per_frame(self, y_true, y_pred):
        return landmark_distance(y_true, y_pred, self.size, self.centered, self.points)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "centered": self.centered,
            "points": self.points,
        }
