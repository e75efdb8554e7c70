"""Retargeting frame by frame: what `Puppet.landmarks_of` does for a clip, without its future."""

from dataclasses import dataclass, replace

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import coverage
from keras_vpgc.data.crop import Crop, to_crop
from keras_vpgc.data.landmark_sets import RIGID_POINTS
from keras_vpgc.data.retarget import (
    Camera,
    HeadTrack,
    fit_head,
    fit_pose,
    neutral_frame,
    project,
    retarget,
)
from keras_vpgc.errors import VPGCError

MODES = ("none", "relative", "absolute")
# Good frames out of which the driver's shape and neutral pose are found: a second of a camera.
CALIBRATION_FRAMES = 25
# A neutral pose that was asked for is the mean of so many frames, which evens out the tremble.
NEUTRAL_FRAMES = 5
# Points that move with the skull lie off the person's shape by less than this part of their size;
# as `keras_vpgc.data.shots.confidence` has it, where a confidence of 0.5 is taken.
MAX_MISFIT = 0.175
# Part of a face's points that must lie in the picture.
MIN_INSIDE = 0.7
# Frames after which the guard may warn.
GUARD_FRAMES = 100
# A face is the same person's if it has moved by less than this part of its height, and another's
# is taken after so many seconds without it.
MAX_STEP, MAX_ABSENCE = 0.5, 0.5


@dataclass(frozen=True)
class Calibration:
    """What is known of the driving person: the face's shape, and pose and expression at rest.

    Attributes:
        shape: `(478, 3)`, see `keras_vpgc.data.retarget.HeadTrack`.
        rotation: `(3, 3)`.
        translation: `(3,)`.
        expression: `(478, 3)`.
    """

    shape: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray

    @classmethod
    def of(cls, head: HeadTrack, neutral=None) -> "Calibration":
        """The calibration by a track.

        Args:
            head: `fit_head` of some frames.
            neutral: Number of the frame at rest, or a slice of them, whose mean is taken; default:
                `keras_vpgc.data.retarget.neutral_frame`.

        Returns:
            A `Calibration`.
        """
        if neutral is None:
            neutral = neutral_frame(head)
        if not isinstance(neutral, slice):
            neutral = slice(neutral, neutral + 1)
        # The rotation nearest to the mean of the matrices.
        u, _, vt = np.linalg.svd(head.rotation[neutral].mean(0))
        return cls(
            head.shape,
            u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt,
            head.translation[neutral].mean(0),
            head.expression[neutral].mean(0, dtype="float64"),
        )


class LiveRetargeting:
    """From the tracker's points of one frame to a puppet's landmarks.

    The driver's shape and neutral pose come from the first good frames: provisionally from the
    first, again when 2, 4, 8 and so on are there, and for good after `calibration` of them, where
    the most neutral one is chosen as for a clip. `calibrate` begins anew with the pose of now.

    Args:
        puppet: A `Puppet`.
        mode: `"none"`, `"relative"` or `"absolute"`: see `Puppet.landmarks_of`.
        motion: Strength of the head motion, 0 (still) to 1 (as driven).
        guard: `"warn"`, `"clamp"` or `"off"`, see `Puppet.landmarks_of_head`; a warning is kept in
            `warning`.
        calibration: Number of good frames, or a ready `Calibration`.
        tracker_model: Path of the face landmarker's model.

    Attributes:
        calibration: The `Calibration` so far, or `None`.
        calibrating: Do more frames take part?
        warning: What the guard says, or `None`.

    Raises:
        VPGCError: for an unknown mode, or settings that say nothing to it.

    Example:

    ```python
    live = LiveRetargeting(puppet, "relative", guard="clamp")
    landmarks, _ = live(tracker.track([picture]).points[0], (1280, 720))
    ```
    """

    def __init__(
        self,
        puppet,
        mode: str = "relative",
        *,
        motion: float = 1.0,
        guard: str = "warn",
        calibration: "int | Calibration" = CALIBRATION_FRAMES,
        tracker_model=None,
    ):
        if mode not in MODES:
            raise VPGCError(f"There is no retargeting {mode!r}: choose one of {', '.join(MODES)}.")
        if not 0 <= motion <= 1:
            raise VPGCError(
                f"The strength of head motion is {motion:g}: choose one from 0 (still) to 1 (as "
                "driven)."
            )
        if mode == "none" and motion != 1:
            raise VPGCError(
                "Retargeting 'none' takes the landmarks as they are, without a strength of motion: "
                "choose 'relative' or 'absolute' for that."
            )
        if isinstance(calibration, int) and calibration < 1:
            raise VPGCError(f"A calibration of {calibration} frames is none: choose 1 or more.")
        self.mode, self.motion, self.guard = mode, motion, guard
        self.puppet = puppet
        self.calibration = calibration if isinstance(calibration, Calibration) else None
        self.frames = CALIBRATION_FRAMES if self.calibration else int(calibration)  # type: ignore
        # Looked up once: its checksum takes longer than a frame's retargeting.
        self.model = str(assets.find("face_landmarker", tracker_model))
        self.warning: str | None = None
        metadata = puppet.metadata
        self._crop = Crop(**metadata["crop"])
        self._shape = np.array(metadata["shape"], "float64")
        pose = metadata["pose"]
        self._pose = pose | {k: np.array(pose[k]) for k in ("rotation", "translation")}
        self._pose["expression"] = np.array(pose["expression"], "float64")
        self._guard = coverage.Guard(metadata["seen"])
        self._samples: list[np.ndarray] = []
        self._chosen = False
        self._done = self.calibration is not None

    @property
    def calibrating(self) -> bool:
        """Do more frames take part in the calibration?"""
        return self.mode != "none" and not self._done

    def calibrate(self) -> None:
        """Take the driver anew: the pose and the expression of now are neutral."""
        self._samples, self._chosen, self._done = [], True, False

    def __call__(self, points, size: tuple[int, int]):
        """Landmarks of a frame.

        Args:
            points: Float `(478, 3)` in source pixels.
            size: Width and height of the picture.

        Returns:
            Float32 `(68, 2)` (78 with irises) in the puppet's crop, and the change that a new
            calibration brought to them (0 without one); `None` and 0 for points that are no
            face's.
        """
        points = np.asarray(points, "float64")
        if not _usable(points, size):
            return None, 0.0
        if self.mode == "none":
            found = to_crop(points[None], self._crop)
            return self.puppet._chosen(found)[0], 0.0
        before = self.calibration
        if not self._done:
            self._collect(points, size)
        head = self._fit(points, size, self.calibration)
        skull = head.shape[RIGID_POINTS]
        width = np.sqrt(np.square(skull - skull.mean(0)).sum(1).mean())
        misfit = np.sqrt(np.square(head.expression[0, RIGID_POINTS]).sum(1).mean())
        if misfit > MAX_MISFIT * width:
            return None, 0.0
        landmarks = self._driven(head, self.calibration, count=True)
        if before is None or before is self.calibration:
            return landmarks, 0.0
        return landmarks, landmarks - self._driven(self._fit(points, size, before), before)

    def _collect(self, points, size):
        count = len(self._samples) + 1
        self._samples.append(points)
        self._done = count >= self.frames
        # A power of two, or the end.
        if count & (count - 1) == 0 or self._done:
            head = fit_head(np.stack(self._samples), *size, model=self.model)
            self.calibration = Calibration.of(
                head, slice(0, NEUTRAL_FRAMES) if self._chosen else None
            )
        if self._done:
            self._samples = []

    def _fit(self, points, size, calibration):
        return fit_pose(points[None], calibration.shape, *size, model=self.model)

    def _driven(self, head, calibration, count=False):
        rest = replace(
            head,
            rotation=calibration.rotation[None],
            translation=calibration.translation[None],
            expression=calibration.expression[None],
        )
        driven = retarget(head, self._shape, self._pose, self.mode, rest, self.motion)
        if self.guard == "clamp":
            driven = self._guard(driven)
        elif self.guard == "warn" and count:
            self._guard(driven)
            self.judge(GUARD_FRAMES)
        return _landmarks(self.puppet, driven)[0]

    def judge(self, least: int = 1) -> None:
        """Warn if many of the frames so far have left what the puppet has seen.

        Args:
            least: Number of frames under which nothing is said.
        """
        if self.guard == "warn" and self.warning is None and self._guard.frames >= max(1, least):
            self.warning = self._guard.report()["warning"]


def rest_landmarks(puppet) -> np.ndarray:
    """A puppet's own landmarks at rest.

    Args:
        puppet: A `Puppet`.

    Returns:
        Float32 `(68, 2)` (78 with irises) in its crop.

    Example:

    ```python
    image = puppet.drive(rest_landmarks(puppet)[None])[0]
    ```
    """
    pose = puppet.metadata["pose"]
    head = HeadTrack(
        np.array([pose["rotation"]]),
        np.array([pose["translation"]]),
        np.ones(1),
        np.array(puppet.metadata["shape"], "float64"),
        np.array([pose["expression"]]),
        Camera(**pose["camera"]),
    )
    return _landmarks(puppet, head)[0]


def _landmarks(puppet, head):
    """Landmarks in the puppet's crop, as `Puppet.landmarks_of_head` has them."""
    found = to_crop(project(head)[..., :2], Crop(**puppet.metadata["crop"]))
    return puppet._chosen(found) if found.shape[1] == 478 else found


class SamePerson:
    """Which face of a frame is the driver's: the one nearest to where the driver was."""

    def __init__(self):
        self._before: np.ndarray | None = None
        self._time = 0.0

    def __call__(self, faces, second: float):
        """Choose.

        Args:
            faces: `(k, p, 3)`, the largest first.
            second: Time of the frame.

        Returns:
            `(p, 3)`, or `None`. After half a second without the driver the largest face counts.
        """
        if not len(faces):
            return None
        if self._before is None or second - self._time > MAX_ABSENCE:
            best = faces[0]
        else:
            step = np.linalg.norm(
                faces[:, RIGID_POINTS, :2].mean(1) - self._before[RIGID_POINTS, :2].mean(0), axis=-1
            )
            best = faces[np.argmin(step)]
            if step.min() > MAX_STEP * np.ptp(self._before[:, 1]):
                return None
        self._before, self._time = best, second
        return best


def _usable(points, size):
    if not np.isfinite(points).all() or np.ptp(points[:, :2], axis=0).min() <= 0:
        return False
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= np.array(size))).all(1)
    return inside.mean() >= MIN_INSIDE
