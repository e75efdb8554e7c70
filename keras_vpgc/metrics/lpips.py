"""Learned perceptual image patch similarity."""

import keras
from keras import ops

from keras_vpgc import backend
from keras_vpgc.losses.lpips import LPIPSDistance
from keras_vpgc.metrics.per_frame import PerFrameMean


@keras.saving.register_keras_serializable("keras_vpgc")
class LPIPS(PerFrameMean):
    """Mean over all frames of the LPIPS distance; lower is more alike.

    Images are float in [-1, 1], as the models make them, or uint8. Papers report it with AlexNet
    (`net="alex"`), on whole frames at their own size.

    Args:
        net: `"alex"` or `"vgg"`.
        path: Own copy of the weights, see `keras_vpgc.losses.LPIPSDistance`.
        name: Name of the metric.
        dtype: Dtype of the state.

    Raises:
        VPGCError: if the weights cannot be had, or the images' shapes do not fit.

    Example:

    ```python
    metric = LPIPS()
    metric.update_state(truth, prediction)
    metric.result()
    ```

    References:
        Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        CVPR 2018.
    """

    def __init__(self, net="alex", path=None, name="lpips", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.distance = LPIPSDistance(net, path)

    def per_frame(self, y_true, y_pred):
        # No gradient is wanted: PyTorch would keep every map for it.
        with backend.full_precision():
            return self.distance(y_true, ops.stop_gradient(ops.convert_to_tensor(y_pred)))

    def get_config(self):
        return {**super().get_config(), "net": self.distance.net, "path": self.distance.path}
