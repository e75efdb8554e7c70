"""Distance between face landmarks (F-LMD)."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics.per_frame import PerFrameMean


def landmark_distance(y_true, y_pred, size: float = 512.0, centered: bool = False):
    """Mean distance of the landmarks of each frame.

    Args:
        y_true: Landmarks `(batch, points, 2)` in [0, 1] of the image.
        y_pred: The same.
        size: Image size in pixels at which distances are stated.
        centered: Remove each frame's mean from both, so that only the face's form counts?

    Returns:
        Float32 `(batch,)` in pixels; NaN where a landmark is NaN (the detector failed).

    Raises:
        VPGCError: if the shapes differ.

    Example:

    ```python
    landmark_distance(true_landmarks, found_landmarks, size=512)
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
    if centered:
        difference = difference - ops.mean(difference, axis=1, keepdims=True)
    return ops.mean(ops.sqrt(ops.sum(ops.square(difference), axis=-1)), axis=-1) * size


@keras.saving.register_keras_serializable("keras_vpgc")
class LandmarkDistance(PerFrameMean):
    """Mean over all frames of `landmark_distance`; frames with NaN are counted apart.

    Args:
        size: Image size in pixels at which distances are stated.
        centered: Remove each frame's mean from both?
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

    def __init__(self, size=512.0, centered=False, name="landmark_distance", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.size = float(size)
        self.centered = bool(centered)
        self.failures = self.add_variable((), "zeros", name="failures")

    def per_frame(self, y_true, y_pred):
        return landmark_distance(y_true, y_pred, self.size, self.centered)

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.cast(self.per_frame(y_true, y_pred), self.dtype)
        known = ops.cast(ops.logical_not(ops.isnan(values)), self.dtype)
        self.failures.assign_add(ops.sum(1.0 - known))
        weights = known
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, self.dtype)
        self.total.assign_add(ops.sum(ops.where(known > 0, values, 0.0) * weights))
        self.count.assign_add(ops.sum(weights))

    def get_config(self):
        return {**super().get_config(), "size": self.size, "centered": self.centered}
