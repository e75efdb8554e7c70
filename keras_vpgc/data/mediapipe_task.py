"""MediaPipe's tasks on single pictures."""

import contextlib
import os
import sys

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import video
from keras_vpgc.errors import VPGCError, missing_extra


class MediaPipeTask:
    """A task of MediaPipe that looks at each picture alone. Use it in a `with`: it must be closed.

    Args:
        task: Name of the task, such as `"FaceLandmarker"`.
        asset: Name of its model in `keras_vpgc.assets`.
        what: What the model is, in words.
        model: Path of the model, or `None` to find it by `keras_vpgc.assets`.
        **options: Of the task.

    Raises:
        VPGCError: if MediaPipe or its model file is missing, or that is no such model.

    Example:

    ```python
    with MediaPipeTask("FaceLandmarker", "face_landmarker", "the landmarker's model") as task:
        found = task.look(frame, "detect")
    ```
    """

    def __init__(self, task: str, asset: str, what: str, model=None, **options):
        # MediaPipe's C++ log speaks of its own build, not of the user's video.
        os.environ.setdefault("GLOG_minloglevel", "2")
        self._mediapipe = _mediapipe()
        from mediapipe.tasks.python import BaseOptions, vision

        path = assets.find(asset, model)
        self.version = self._mediapipe.__version__
        settings = getattr(vision, f"{task}Options")(
            base_options=BaseOptions(model_asset_path=str(path)),
            running_mode=vision.RunningMode.IMAGE,
            **options,
        )
        try:
            with video.quiet():
                self._task = getattr(vision, task).create_from_options(settings)
        except (RuntimeError, ValueError) as error:
            raise VPGCError(
                f"{path} is not {what}: give the path of {assets.ASSETS[asset].filename}, or leave "
                "it out to have it fetched."
            ) from error
        self._first = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """End it; MediaPipe wants that said."""
        self._task.close()

    def look(self, frame, method: str):
        """What the task finds in a picture.

        Args:
            frame: uint8 RGB `(h, w, 3)`.
            method: The task's own method, such as `"detect"`.

        Returns:
            MediaPipe's result.
        """
        mp = self._mediapipe
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        first, self._first = self._first, False
        with video.quiet() if first else contextlib.nullcontext():
            return getattr(self._task, method)(image)


def _mediapipe():
    """Import MediaPipe, without TensorFlow.

    It asks TensorFlow, where that is installed, for a decorator of its documentation, and would
    make everybody wait many seconds for it.
    """
    block = "tensorflow" not in sys.modules
    if block:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        import mediapipe
        import mediapipe.tasks.python
    except ImportError as error:
        raise missing_extra("mediapipe", "landmarks") from error
    finally:
        if block:
            del sys.modules["tensorflow"]
    return mediapipe
