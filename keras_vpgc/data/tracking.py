"""Face landmarks, frame by frame."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import video
from keras_vpgc.errors import missing_extra

NUM_POINTS = 478
NUM_BLENDSHAPES = 52
PART_FRAMES = 250


@dataclass
class Track:
    """What was seen in each frame of a clip.

    Attributes:
        points: Float32 `(n, 478, 3)`, source pixels (depth scaled like x), NaN without a face.
        blendshapes: Float32 `(n, 52)` in [0, 1], NaN without a face.
        matrices: Float32 `(n, 4, 4)`, head poses of MediaPipe's face geometry in centimetres.
        valid: Bool `(n,)`.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    matrices: np.ndarray
    valid: np.ndarray

    @classmethod
    def empty(cls, count: int) -> "Track":
        """A track of `count` frames without a face."""
        return cls(
            np.full((count, NUM_POINTS, 3), np.nan, "float32"),
            np.full((count, NUM_BLENDSHAPES), np.nan, "float32"),
            np.full((count, 4, 4), np.nan, "float32"),
            np.zeros(count, bool),
        )

    @classmethod
    def join(cls, parts: "list[Track]") -> "Track":
        """One track out of consecutive ones."""
        if not parts:
            return cls.empty(0)
        return cls(*(np.concatenate([vars(p)[k] for p in parts]) for k in vars(parts[0])))


class FaceTracker:
    """MediaPipe's Face Landmarker. Use it in a `with`: it must be closed.

    It looks at each frame alone, so a frame's result does not depend on what came before.

    Args:
        model: Path of `face_landmarker.task`, or `None` to find it by `keras_vpgc.assets`.

    Raises:
        VPGCError: if MediaPipe or its model file is missing.

    Example:

    ```python
    with FaceTracker() as tracker:
        track = tracker.track([frame])  # one uint8 RGB frame
    ```
    """

    name = "mediapipe-face-landmarker"

    def __init__(self, model=None):
        # MediaPipe's C++ log speaks of its own build, not of the user's video.
        os.environ.setdefault("GLOG_minloglevel", "2")
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise missing_extra("mediapipe", "landmarks") from error
        path = assets.find("face_landmarker", model)
        self.version = mediapipe.__version__
        self._mediapipe = mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=2,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with video._quiet():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        self._first = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._landmarker.close()

    def track(self, frames) -> Track:
        """Landmarks of frames.

        Args:
            frames: Sequence of uint8 RGB `(h, w, 3)`.

        Returns:
            A `Track`; of several faces the largest.
        """
        result = Track.empty(len(frames))
        for i, frame in enumerate(frames):
            found = self._detect(frame)
            if not found.face_landmarks:
                continue
            size = np.array([frame.shape[1], frame.shape[0], frame.shape[1]], "float32")
            faces = [
                np.array([[p.x, p.y, p.z] for p in face], "float32") * size
                for face in found.face_landmarks
            ]
            best = int(np.argmax([np.ptp(face[:, 1]) for face in faces]))
            result.points[i] = faces[best]
            result.blendshapes[i] = [b.score for b in found.face_blendshapes[best]]
            result.matrices[i] = found.facial_transformation_matrixes[best]
            result.valid[i] = True
        return result

    def _detect(self, frame):
        mp = self._mediapipe
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        if self._first:
            self._first = False
            with video._quiet():
                return self._landmarker.detect(image)
        return self._landmarker.detect(image)


def track_video(path, tracker: FaceTracker, folder, start=0, stop=None, progress=None) -> Track:
    """Track a video, part by part; what a stopped run left in `folder` is used again.

    Args:
        path: The video file.
        tracker: A `FaceTracker`.
        folder: Where the parts are kept, or `None` to keep nothing.
        start: First frame.
        stop: Frame before which to stop.
        progress: Optional callable that is told the number of frames just done.

    Returns:
        The `Track` of all frames.
    """
    parts: list[Track] = []
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        while (file := folder / f"{len(parts):05d}.npz").exists():
            with np.load(file) as stored:
                parts.append(Track(**stored))
            if progress:
                progress(len(parts[-1].valid))
    if parts and len(parts[-1].valid) < PART_FRAMES:
        return Track.join(parts)  # only the last part is short

    frames: list[np.ndarray] = []

    def finish():
        part = tracker.track(frames)
        if folder is not None:
            partial = folder / f".{len(parts):05d}.npz"
            np.savez(partial, **vars(part))
            os.replace(partial, folder / f"{len(parts):05d}.npz")
        parts.append(part)
        if progress:
            progress(len(frames))
        frames.clear()

    done = PART_FRAMES * len(parts)
    for frame in video.read_frames(path, start + done, stop):
        frames.append(frame)
        if len(frames) == PART_FRAMES:
            finish()
    if frames or not parts:
        finish()
    return Track.join(parts)
