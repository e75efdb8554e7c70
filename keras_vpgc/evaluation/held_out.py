"""What puppets and baselines show of a portrait's held-out part."""

from collections.abc import Iterator

import numpy as np

from keras_vpgc.data import landmark_sets
from keras_vpgc.data.portrait import fill
from keras_vpgc.evaluation.baselines import mean_frame, nearest_frames, warp_frames
from keras_vpgc.evaluation.protocol import find_landmarks
from keras_vpgc.progress import progress_bar

NEAREST, WARPED = "nearest training frame", "nearest frame, warped"
MEAN = "mean training frame"
UNTRAINED = (NEAREST, WARPED, MEAN)
PARTS = ("test", "validation")


def drive_part(puppet, portrait, part: str, batch_size: int = 8, progress=None) -> np.ndarray:
    """A puppet's frames for the usable frames of a part of a portrait.

    Args:
        puppet: A `Puppet`.
        portrait: A `Portrait`.
        part: See `Portrait.indices`.
        batch_size: Frames computed at once.
        progress: Optional callable that is told the number of frames just done.

    Returns:
        uint8 `(n, s, s, 3)`, one for each of `portrait.indices(part)`.
    """
    # The driver sees neighbouring frames: drive whole stretches, keep the frames with a face.
    held = portrait.indices(part)
    points = fill(portrait.points, portrait.valid)
    driving = landmark_sets.landmarks(points, puppet.model.landmark_set)
    stretches = [np.arange(*ends) for ends in portrait.ranges(part)]
    return np.concatenate(
        [
            puppet.drive(driving[x], batch_size, progress)[np.isin(x, held)]
            for x in stretches
            if len(x)
        ]
    )


def untrained(portrait, part: str, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """The baselines without training: name and frames, uint8 `(n, size, size, 3)`, one by one.

    Args:
        portrait: A `Portrait`.
        part: The part whose landmarks are followed.
        size: Side of the frames in pixels.
    """
    held, train, clip = portrait.indices(part), portrait.indices("train"), portrait.landmarks
    train_frames = portrait.frames(train, size)
    nearest = nearest_frames(clip[train], clip[held])
    yield NEAREST, train_frames[nearest]
    warped = warp_frames(train_frames[nearest], clip[train][nearest], clip[held])
    yield WARPED, warped
    yield MEAN, np.broadcast_to(mean_frame(train_frames), (len(held), size, size, 3))


def landmarks_of(name: str, frames, tracker, progress: bool = True) -> np.ndarray:
    """`find_landmarks` of a system's frames, with a bar.

    Args:
        name: What the bar calls it.
        frames: uint8 `(n, s, s, 3)`.
        tracker: A `keras_vpgc.data.tracking.FaceTracker`.
        progress: Show it?

    Returns:
        Float32 `(n, 68, 2)` in [0, 1], NaN where no face was found.
    """
    parts, title = [], f"landmarks of {name}"
    with progress_bar(len(frames), title, show=progress) as bar:
        for start in range(0, len(frames), 50):
            parts.append(find_landmarks(frames[start : start + 50], tracker))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)
