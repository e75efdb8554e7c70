"""What any puppet has to beat."""

import numpy as np

from keras_vpgc.errors import missing_extra


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


def warp_frames(frames, landmarks, targets) -> np.ndarray:
    """Move the faces of frames to other landmarks: piecewise affine, over Delaunay's triangles.

    With the nearest training frames it is what a puppet without any learning would show. The
    picture's border stays where it is.

    Args:
        frames: uint8 `(n, s, s, 3)`.
        landmarks: Float `(n, p, 2)` in [0, 1], those of the frames.
        targets: Float `(n, p, 2)`, where they shall be.

    Returns:
        uint8 `(n, s, s, 3)`.

    Raises:
        VPGCError: if scipy is not installed.

    Example:

    ```python
    near = nearest_frames(train_landmarks, test_landmarks)
    warp_frames(train_frames[near], train_landmarks[near], test_landmarks)
    ```

    References:
        As `skimage.transform.PiecewiseAffineTransform`, by OpenCV's sampling.
    """
    import cv2

    try:
        from scipy.spatial import Delaunay
    except ImportError:
        raise missing_extra("scipy", "demo") from None

    frames = np.asarray(frames)
    result = np.empty_like(frames)
    size = frames.shape[1]
    steps = np.linspace(0.0, 1.0, 5)
    border = [(x, y) for x in steps for y in steps if x in (0, 1) or y in (0, 1)]
    rows, columns = np.mgrid[:size, :size]
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype("float64")
    for i, frame in enumerate(frames):
        # Landmarks beyond the picture are its border's matter.
        source = np.concatenate([np.clip(landmarks[i], 0.0, 1.0), border]) * (size - 1)
        target = np.concatenate([np.clip(targets[i], 0.0, 1.0), border]) * (size - 1)
        mesh = Delaunay(target)
        triangle = mesh.find_simplex(pixels, tol=1e-6)
        # A triangle's map takes its corners in the target to those in the source.
        corners = mesh.simplices[triangle]
        inverse = mesh.transform[triangle]
        weights = np.einsum("nij,nj->ni", inverse[:, :2], pixels - inverse[:, 2])
        weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], axis=1)
        places = np.einsum("ni,nij->nj", weights, source[corners]).astype("float32")
        places = places.reshape(size, size, 2)
        result[i] = cv2.remap(
            frame, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return result
