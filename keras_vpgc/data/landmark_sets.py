"""Which of the tracker's points are the face contours."""

import numpy as np

from keras_vpgc.layers.landmark_heatmap import CONTOURS_68

# MediaPipe's face mesh (478 points) at the 68 places of the iBUG scheme. The mesh's numbering is
# that of MediaPipe's canonical face model (mediapipe/modules/face_geometry/data, Apache-2.0); the
# places were chosen on it by hand as the mesh vertices on jaw, brows, nose, lids and lips.
MEDIAPIPE_TO_68 = np.array(
    # jaw, from the person's right ear over the chin
    [127, 234, 93, 132, 58, 172, 136, 150, 152, 379, 365, 397, 288, 361, 323, 454, 356]
    # brows, right then left
    + [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
    # nose bridge and base
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]
    # eyes, right then left
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
    # outer and inner lips
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]
    + [78, 82, 13, 312, 308, 317, 14, 87],
    dtype="int32",
)

# Points of the mesh that move with the skull rather than with the expression: forehead, temples,
# nose bridge and the inner and outer corners of the eyes.
RIGID_POINTS = np.array(
    [10, 67, 109, 338, 297, 103, 332, 54, 284, 21, 251, 162, 389, 127, 356]
    + [168, 6, 197, 195, 5, 33, 133, 362, 263],
    dtype="int32",
)


def eye_opening(points) -> np.ndarray:
    """Height of the eyes over their width.

    Args:
        points: Float `(n, 68, 2)`, any unit with square pixels.

    Returns:
        Float `(n, 2)`: right and left eye; about 0.3 open, below 0.15 closed.
    """
    points = np.asarray(points, "float64")

    def one(first):
        p = points[:, first : first + 6]
        height = np.linalg.norm(p[:, 1] - p[:, 5], axis=-1)
        height += np.linalg.norm(p[:, 2] - p[:, 4], axis=-1)
        return height / (2 * np.linalg.norm(p[:, 0] - p[:, 3], axis=-1) + 1e-9)

    return np.stack([one(36), one(42)], axis=-1)


def mouth_opening(points) -> np.ndarray:
    """Distance of the inner lips over the mouth's width.

    Args:
        points: Float `(n, 68, 2)`, any unit with square pixels.

    Returns:
        Float `(n,)`; 0 closed.
    """
    points = np.asarray(points, "float64")
    height = np.linalg.norm(points[:, 62] - points[:, 66], axis=-1)
    return height / (np.linalg.norm(points[:, 48] - points[:, 54], axis=-1) + 1e-9)


__all__ = ["CONTOURS_68", "MEDIAPIPE_TO_68", "RIGID_POINTS", "eye_opening", "mouth_opening"]
