"""New poses and expressions of a person, out of what its clip holds."""

from dataclasses import replace

import numpy as np

from keras_vpgc.data import landmark_sets
from keras_vpgc.data.coverage import clamp, seen_range
from keras_vpgc.data.crop import Crop, from_crop, to_crop
from keras_vpgc.data.portrait import Portrait, fill
from keras_vpgc.data.retarget import angles, fit_head, fit_pose, from_angles, project
from keras_vpgc.errors import VPGCError


class SeenPoses:
    """Landmarks without end of a person in poses and expressions that its clip holds the parts of.

    A window of consecutive frames is mixed from four of the clip: angles and place of the head of
    two, offsets of the face of two others, each pair by a random share. Mixtures lie between what
    was seen; `keras_vpgc.data.coverage.clamp` brings back what leaves the seen range nevertheless.

    Args:
        portrait: A `Portrait`.
        offsets: Int `(t,)`, the frames of a window, relative to the one that is shown.
        landmark_set: Of the result.
        part: The part of the portrait that the frames are from.

    Raises:
        VPGCError: if the part has no frame.

    Example:

    ```python
    poses = SeenPoses(Portrait("data/me"), offsets=range(-3, 4))
    landmarks = poses.sample(8, np.random.default_rng(0))  # (8, 7, 68, 2)
    ```
    """

    def __init__(self, portrait: Portrait, offsets, landmark_set="ibug-68", part="train"):
        frames = portrait.indices(part)
        if not len(frames):
            raise VPGCError(f"{portrait.path} has no frame in its {part} part: record more.")
        size = portrait.info["source_size"]
        self.crop, self.landmark_set = Crop(**portrait.info["crop"]), landmark_set
        points = from_crop(fill(portrait.points, portrait.valid), self.crop)
        known = fit_head(points[frames], *size)
        self.seen = seen_range(known)
        windows = np.clip(frames[:, None] + np.asarray(offsets), 0, len(points) - 1)
        used, places = np.unique(windows, return_inverse=True)
        self.windows = places.reshape(windows.shape)
        self.head = fit_pose(points[used], known.shape, *size)
        self.turn = angles(self.head.rotation)

    def sample(self, count: int, rng) -> np.ndarray:
        """Windows of landmarks.

        Args:
            count: How many.
            rng: A `numpy.random.Generator`.

        Returns:
            Float32 `(count, t, points, 2)` in [0, 1] of the portrait's crop.
        """
        first, second, third, fourth = self.windows[
            rng.integers(len(self.windows), size=(4, count))
        ]
        share, other = rng.uniform(size=(2, count, 1, 1))
        head = self.head
        turn = (1 - share) * self.turn[first] + share * self.turn[second]
        place = (1 - share) * head.translation[first] + share * head.translation[second]
        other = other[..., None]
        face = (1 - other) * head.expression[third] + other * head.expression[fourth]
        frames = first.size
        mixed = replace(
            head,
            rotation=from_angles(turn.reshape(frames, 3)),
            translation=place.reshape(frames, 3),
            scale=head.scale[first.ravel()],
            expression=face.reshape(frames, *face.shape[2:]),
        )
        mixed, _ = clamp(mixed, self.seen)
        points = to_crop(project(mixed)[..., :2], self.crop)
        points = landmark_sets.landmarks(points, self.landmark_set)
        return points.reshape(count, -1, *points.shape[1:])
