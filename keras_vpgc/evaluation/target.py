"""What the target's own frames say of its face: identity and sharpness to compare with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vpgc.data import crop as crops
from keras_vpgc.data import landmark_sets, tracking, video
from keras_vpgc.data.portrait import Portrait
from keras_vpgc.data.tracking import Track
from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics import align_face

# Frames that are looked at, evenly picked: of those that tell who it is, and of the others.
GALLERY, HELD_OUT = 100, 60
# Frames this much larger than the result's are not reduced: sampling anew costs more sharpness.
NEARLY = 1.25
# Of a video the last fifth is held out.
HELD_OUT_PART = 0.2


@dataclass
class Target:
    """Frames of the person whom a result shall show.

    Attributes:
        name: Of the file or folder.
        gallery: uint8 `(n, s, s, 3)` around the face; of a portrait those of its training part.
        held_out: The same of other frames, of a portrait those of its test part; it may be empty.
        landmarks: Float32 `(n, 68, 2)` in [0, 1] of the gallery's frames.
        held_out_landmarks: The same of the others.
    """

    name: str
    gallery: np.ndarray
    held_out: np.ndarray
    landmarks: np.ndarray
    held_out_landmarks: np.ndarray

    def describe(self) -> dict:
        """Its name, numbers of frames and side in pixels."""
        return {
            "name": self.name,
            "gallery_frames": len(self.gallery),
            "held_out_frames": len(self.held_out),
            "side": self.gallery.shape[1],
        }

    def chips(self) -> tuple[np.ndarray, np.ndarray]:
        """Aligned faces of the gallery and of the held-out frames, see `align_face`."""
        return (
            aligned(self.gallery, self.landmarks),
            aligned(self.held_out, self.held_out_landmarks),
        )


def aligned(frames, landmarks) -> np.ndarray:
    """Faces as `FaceEmbedding` wants them.

    Args:
        frames: uint8 `(n, s, s, 3)`.
        landmarks: Float `(n, 68, 2)` in [0, 1].

    Returns:
        uint8 `(n, 150, 150, 3)`.
    """
    pairs = zip(frames, landmarks, strict=True)
    chips = [align_face(frame, points * len(frame) - 0.5) for frame, points in pairs]
    return np.stack(chips) if chips else np.empty((0, 150, 150, 3), "uint8")


def check_target(path) -> None:
    """Refuse what can be no target, before the work.

    Args:
        path: A portrait folder, or a video that shows the person.

    Raises:
        VPGCError: if it is neither.
    """
    path = Path(path)
    if not path.exists():
        raise VPGCError(f"There is no target {path}: check the path.")
    if path.is_dir():
        Portrait(path)
    else:
        video.probe(path)


def open_target(path, side: int, tracker_model=None) -> Target:
    """The target's frames, at the resolution of the result: larger ones are reduced to it.

    Args:
        path: A portrait folder, or a video that shows the person.
        side: Side in pixels of the result's square around its face.
        tracker_model: Path of `face_landmarker.task`.

    Returns:
        A `Target`.

    Raises:
        VPGCError: if it cannot be read, or shows no face.

    Example:

    ```python
    chips, others = open_target("data/me", side=256).chips()
    ```
    """
    path = Path(path)
    if path.is_dir():
        return _of_portrait(Portrait(path), side)
    return _of_video(path, side, tracker_model)


def _of_portrait(portrait, side):
    parts = [_evenly(portrait.indices("train"), GALLERY)]
    parts.append(_evenly(portrait.indices("test"), HELD_OUT))
    frames = [portrait.frames(part, _reduced(portrait.size, side)) for part in parts]
    return Target(portrait.path.name, *frames, *(portrait.landmarks[part] for part in parts))


def _of_video(path, side, tracker_model):
    info = video.probe(path)
    count = len(video.frame_times(path))
    last = round((1 - HELD_OUT_PART) * count)
    parts = _evenly(np.arange(last), GALLERY), _evenly(np.arange(last, count), HELD_OUT)
    picked = np.concatenate(parts)
    # Two passes: whole frames are not kept.
    with tracking.FaceTracker(tracker_model) as tracker:
        track = Track.join([tracker.track([frame]) for frame in _frames(path, picked)])
    seen = track.valid
    if not seen[: len(parts[0])].any():
        raise VPGCError(
            f"No face was found in {path}, the target: give a video or portrait folder that shows "
            "the person."
        )
    square = crops.choose_crop(track.points, seen, info.width, info.height)
    size = _reduced(int(square.size), side)
    frames = [crops.apply(frame, square, size) for frame in _frames(path, picked)]
    points = crops.to_crop(landmark_sets.landmarks(track.points), square)
    # A file that was cut off has less than it announces.
    first = np.arange(len(seen)) < len(parts[0])
    groups = [np.flatnonzero(seen & group) for group in (first, ~first)]
    images = [
        np.stack([frames[i] for i in group])
        if len(group)
        else np.empty((0, size, size, 3), "uint8")
        for group in groups
    ]
    return Target(path.name, *images, *(points[group] for group in groups))


def _reduced(size, side):
    return side if size > NEARLY * side else size


def _frames(path, numbers):
    wanted = set(numbers.tolist())
    for number, frame in enumerate(video.read_frames(path, 0, int(numbers[-1]) + 1)):
        if number in wanted:
            yield frame


def _evenly(numbers, most):
    picked = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return numbers[picked]
