"""Which frames come more often in training: the rare ones."""

import numpy as np

from keras_vpgc.data.landmark_sets import eye_opening, mouth_opening
from keras_vpgc.errors import VPGCError


def rare_frame_weights(
    landmarks, strength: float = 0.5, ratio: float = 4.0, pose=None
) -> np.ndarray:
    """How often each frame should come, so that rare poses and closed eyes are seen enough.

    Of each frame are measured: the opening of each eye, the opening and the width of the mouth,
    yaw, pitch and roll. The density of each measure is estimated from the distance between its
    nearest 2% of frames; a frame is as rare as its rarest measure, and weighs

    `clip((rarity / median rarity) ** strength, 1 / ratio, ratio)`,

    divided by the mean of all. So a landmark that jumps once cannot weigh more than `ratio`.

    Args:
        landmarks: Float `(n, points, 2)`, the first 68 in iBUG's order, any unit with square
            pixels.
        strength: 0: all frames alike; 1: as if every value were equally frequent.
        ratio: Greatest weight, and inverse of the smallest, of the median frame's; at least 1.
        pose: Float `(n, 3)`: yaw, pitch and roll in degrees, see
            `keras_vpgc.data.retarget.angles`; default: read off the landmarks.

    Returns:
        Float64 `(n,)` with mean 1, for `sampling=` of `FrameBatches` and `DriverBatches`.

    Raises:
        VPGCError: for other shapes, values that are not finite, a negative strength or a ratio
            below 1.

    Example:

    ```python
    weights = rare_frame_weights(portrait.landmarks[train], strength=0.5)
    batches = FrameBatches(images, 4, steps=100, sampling=weights)
    ```
    """
    landmarks = np.asarray(landmarks, "float64")
    if landmarks.ndim != 3 or landmarks.shape[1] < 68 or landmarks.shape[2] != 2:
        raise VPGCError(
            f"Rare frames are found from landmarks (frames, 68, 2); received {landmarks.shape}."
        )
    if strength < 0 or ratio < 1:
        raise VPGCError(
            f"A strength of {strength} and a ratio of {ratio} do not favour rare frames: choose a "
            "strength of at least 0 and a ratio of at least 1."
        )
    pose = _pose(landmarks) if pose is None else np.asarray(pose, "float64")
    if pose.shape != (len(landmarks), 3):
        raise VPGCError(
            f"Poses must be yaw, pitch and roll of each of {len(landmarks)} frames; received "
            f"{pose.shape}."
        )
    eyes = landmarks[:, 36:48].reshape(-1, 2, 6, 2).mean(2)
    distance = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)
    width = np.linalg.norm(landmarks[:, 54] - landmarks[:, 48], axis=-1) / (distance + 1e-9)
    mouth = np.column_stack([mouth_opening(landmarks), width])
    measures = np.column_stack([eye_opening(landmarks), mouth, pose])
    bad = ~np.isfinite(measures).all(1)
    if bad.any():
        raise VPGCError(
            f"The landmarks or the pose of frame {int(np.argmax(bad))} are not finite: fill them "
            "from their neighbours or leave the frame out."
        )
    if len(measures) < 3:
        return np.ones(len(measures))
    rarity = np.max([_rarity(values) for values in measures.T], axis=0)
    weights = np.clip((rarity / np.median(rarity)) ** strength, 1 / ratio, ratio)
    return weights / weights.mean()


def _rarity(values):
    """The median frame's density over each frame's, by the nearest 2% of frames."""
    order = np.argsort(values, kind="stable")
    near = max(2, len(values) // 50)
    first = np.clip(np.arange(len(values)) - near // 2, 0, len(values) - 1 - near)
    sorted_values = values[order]
    # Differences far below the spread are noise, or equal values.
    spread = sorted_values[first + near] - sorted_values[first] + 1e-3 * values.std() + 1e-9
    rarity = np.empty(len(values))
    rarity[order] = spread / np.median(spread)
    return rarity


def _pose(points):
    """What varies with yaw, pitch and roll `(n, 3)`; no degrees, but as good for a density."""
    right, left = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    across = left - right
    across /= np.linalg.norm(across, axis=-1, keepdims=True) + 1e-9
    down = np.stack([-across[:, 1], across[:, 0]], -1)
    ears = (points[:, 0] + points[:, 16]) / 2
    width = np.linalg.norm(points[:, 16] - points[:, 0], axis=-1) + 1e-9

    def along(vector, axis):
        return (vector * axis).sum(-1) / width

    # The tip of the nose lies before, the ears behind the eyes.
    yaw = along(points[:, 30] - ears, across)
    pitch = along((right + left) / 2 - ears, down)
    return np.stack([yaw, pitch, np.arctan2(across[:, 1], across[:, 0])], -1)


def resample(weights, rng) -> np.ndarray:
    """Frame numbers in which each comes as often as its weight says, as nearly as possible.

    Low-variance systematic resampling: of `n` draws a frame that should come `x` times comes
    `floor(x)` or `ceil(x)` times.

    Args:
        weights: Float `(n,)`, not negative.
        rng: A `numpy.random.Generator`, asked for one number.

    Returns:
        Int `(n,)`, sorted.

    Example:

    ```python
    resample([3.0, 0.5, 0.5], np.random.default_rng(0))  # [0, 0, 1] or [0, 0, 2]
    ```

    References:
        Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models",
        JCGS 1996 (systematic resampling).
    """
    weights = np.asarray(weights, "float64")
    ends = np.cumsum(weights) * (len(weights) / weights.sum())
    drawn = np.searchsorted(ends, np.arange(len(weights)) + rng.random(), side="right")
    # The last end may be rounded to below n, and what weighs nothing must not come.
    return np.minimum(drawn, np.flatnonzero(weights)[-1])
