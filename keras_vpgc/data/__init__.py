"""Video to portrait folder to batches."""

import os

# See keras_vpgc/__init__.py.
if "KERAS_VPGC_WORKER" not in os.environ:
    from keras_vpgc.data.crop import Crop
    from keras_vpgc.data.dataset import DriverBatches, FrameBatches, context_indices
    from keras_vpgc.data.portrait import Portrait
    from keras_vpgc.data.prepare import prepare

__all__ = [
    "Crop",
    "DriverBatches",
    "FrameBatches",
    "Portrait",
    "context_indices",
    "prepare",
]
