"""What the metrics share: a value for each frame, then the mean."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError


class PerFrameMean(keras.metrics.Metric):
    """Mean over frames of `per_frame(y_true, y_pred) -> (batch,)`, whatever the batches."""

    def __init__(self, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def per_frame(self, y_true, y_pred):
        """Float `(batch,)`."""
        raise NotImplementedError("PerFrameMean is a base: give per_frame in a subclass.")

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.cast(self.per_frame(y_true, y_pred), self.dtype)
        weights = ops.ones_like(values)
        if sample_weight is not None:
            weights = ops.broadcast_to(ops.cast(sample_weight, self.dtype), ops.shape(values))
        # A frame of weight 0 does not count, were it infinite.
        values = ops.where(weights > 0, values * weights, 0.0)
        self.total.assign_add(ops.sum(values))
        self.count.assign_add(ops.sum(weights))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)


class PerSeenFrameMean(PerFrameMean):
    """A `PerFrameMean` of values that are NaN where the detector failed: these are counted apart.

    Attributes:
        failures: Number of values left out since they were NaN.
    """

    def __init__(self, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.failures = self.add_variable((), "zeros", name="failures")

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.cast(self.per_frame(y_true, y_pred), self.dtype)
        known = ops.cast(ops.logical_not(ops.isnan(values)), self.dtype)
        self.failures.assign_add(ops.sum(1.0 - known))
        weights = known
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, self.dtype)
        self.total.assign_add(ops.sum(ops.where(known > 0, values, 0.0) * weights))
        self.count.assign_add(ops.sum(weights))


def check_images(y_true, y_pred):
    """Both as float32; a `VPGCError` if they are not images of one shape."""
    y_true, y_pred = (ops.cast(ops.convert_to_tensor(x), "float32") for x in (y_true, y_pred))
    if len(y_true.shape) != 4 or tuple(y_true.shape[1:]) != tuple(y_pred.shape[1:]):
        raise VPGCError(
            "Two batches of images (batch, height, width, channels) of one size are compared; "
            f"received {tuple(y_true.shape)} and {tuple(y_pred.shape)}."
        )
    return y_true, y_pred
