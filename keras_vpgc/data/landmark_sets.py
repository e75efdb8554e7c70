"""Which of the tracker's points are the face contours."""

from dataclasses import dataclass

import numpy as np

from keras_vpgc.errors import VPGCError
from keras_vpgc.layers.landmark_heatmap import CONTOURS, CONTOURS_68

# MediaPipe's face mesh (478 points) at the 68 places of the iBUG scheme. The mesh's numbering is
# that of MediaPipe's canonical face model (mediapipe/modules/face_geometry/data, Apache-2.0); the
# places were chosen on it by hand as the mesh vertices on jaw, brows, nose, lids and lips.
MEDIAPIPE_TO_68 = np.array(
    # jaw, from the person's right ear over the chin, as evenly as the mesh has points: no vertex
    # of the jaw left out is farther than 1.3 mm from the line (canonical face)
    [127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356]
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

# The irises that the 478 points add to the mesh, right then left: the centre, then the rim from
# the side of the person's left over the top.
MEDIAPIPE_IRISES = np.arange(468, 478, dtype="int32")


@dataclass(frozen=True)
class LandmarkSet:
    """The landmarks that drive a puppet.

    Attributes:
        indices: Int `(points,)`, their places among MediaPipe's 478 points.
        contours: The lines drawn through them, see `LandmarkHeatmap`.
    """

    indices: np.ndarray
    contours: tuple[tuple[tuple[int, ...], bool], ...]

    @property
    def num_points(self) -> int:
        """Number of landmarks."""
        return len(self.indices)


LANDMARK_SETS = {
    "ibug-68": LandmarkSet(MEDIAPIPE_TO_68, CONTOURS["ibug-68"]),
    "ibug-68-iris": LandmarkSet(
        np.concatenate([MEDIAPIPE_TO_68, MEDIAPIPE_IRISES]), CONTOURS["ibug-68-iris"]
    ),
}

# Points of the mesh that move with the skull rather than with the expression: forehead, temples,
# nose bridge and the inner and outer corners of the eyes.
RIGID_POINTS = np.array(
    [10, 67, 109, 338, 297, 103, 332, 54, 284, 21, 251, 162, 389, 127, 356]
    + [168, 6, 197, 195, 5, 33, 133, 362, 263],
    dtype="int32",
)


def landmarks(points, name: str = "ibug-68") -> np.ndarray:
    """A set's landmarks out of the tracker's points.

    Args:
        points: Float `(..., 478, 2 or 3)`.
        name: `"ibug-68"`, or `"ibug-68-iris"` with the irises: 78 points, of which the first 68
            are those of `"ibug-68"`.

    Returns:
        Float32 `(..., 68 or 78, 2)`, x and y in the points' unit.

    Raises:
        VPGCError: for an unknown set or another number of points.

    Example:

    ```python
    frames = puppet.drive(landmarks(portrait.points, "ibug-68-iris"))
    ```
    """
    if name not in LANDMARK_SETS:
        raise VPGCError(
            f"There is no landmark set {name!r}: choose one of {', '.join(LANDMARK_SETS)}."
        )
    points = np.asarray(points, "float32")
    if points.ndim < 2 or points.shape[-2] != 478 or points.shape[-1] not in (2, 3):
        raise VPGCError(
            f"Landmarks are chosen from points (..., 478, 3) of the tracker; received "
            f"{points.shape}."
        )
    return points[..., LANDMARK_SETS[name].indices, :2]


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


__all__ = [
    "CONTOURS_68",
    "LANDMARK_SETS",
    "MEDIAPIPE_TO_68",
    "RIGID_POINTS",
    "LandmarkSet",
    "eye_opening",
    "landmarks",
    "mouth_opening",
]
