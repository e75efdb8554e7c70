"""What any puppet has to beat."""

import numpy as np


def mean_frame(frames) -> np.ndarray:
    """The mean of the training frames: what a puppet that ignores its driver would show.

    Args:
        frames: uint8 `(n, s, s, 3)`.

    Returns:
        uint8 `(s, s, 3)`.
    """
    total = np.zeros(frames.shape[1:], "float64")
    for frame in frames:
        total += frame
    return np.rint(total / len(frames)).astype("uint8")


def nearest_frames(train_landmarks, test_landmarks, chunk: int = 64) -> np.ndarray:
    """For each test frame the training frame with the nearest landmarks.

    Args:
        train_landmarks: Float `(n, 68, 2)`.
        test_landmarks: Float `(m, 68, 2)`.
        chunk: Test frames compared at once.

    Returns:
        Int `(m,)`: places in `train_landmarks`, nearest by the mean distance of the points.
    """
    train = np.asarray(train_landmarks, "float32")
    nearest = []
    for start in range(0, len(test_landmarks), chunk):
        part = np.asarray(test_landmarks[start : start + chunk], "float32")
        distance = np.zeros((len(part), len(train)), "float32")
        for point in range(train.shape[1]):
            difference = part[:, None, point] - train[None, :, point]
            distance += np.sqrt((difference**2).sum(-1))
        nearest.append(distance.argmin(1))
    return np.concatenate(nearest)
