"""The driver's motion on the target's face: shape, pose and expression apart."""

from dataclasses import dataclass

import numpy as np

from keras_vpgc.data.landmark_sets import RIGID_POINTS
from keras_vpgc.errors import VPGCError


@dataclass
class HeadTrack:
    """A face track taken apart: `points = scale * (shape + expression) @ rotation^T + translation`.

    Attributes:
        rotation: `(n, 3, 3)`.
        scale: `(n,)`.
        translation: `(n, 3)`, in the points' unit.
        shape: `(p, 3)`, the person's neutral face in head coordinates, size 1, centred.
        expression: `(n, p, 3)`, offsets from it.
    """

    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    expression: np.ndarray


def _similarity(source, target):
    """Best `scale, rotation, translation` from `(p, 3)` to `(n, p, 3)` (Umeyama, 1991)."""
    middle, middles = source.mean(0), target.mean(1)
    a, b = source - middle, target - middles[:, None]
    u, s, vt = np.linalg.svd(np.einsum("npi,pj->nij", b, a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None, :]) @ vt
    scale = (s * sign).sum(1) / (a**2).sum()
    translation = middles - scale[:, None] * np.einsum("nij,j->ni", rotation, middle)
    return scale, rotation, translation


def fit_head(points, rounds: int = 5) -> HeadTrack:
    """Take a track apart into the person's shape, head pose and expression.

    Pose comes from points that move with the skull, the shape is the median over the clip in head
    coordinates; both are found in turn. Depth is the tracker's (scaled orthography).

    Args:
        points: Float `(n, 478, 3)`, one unit for x, y and depth, no NaN.
        rounds: Number of turns.

    Returns:
        A `HeadTrack`; putting it together gives the points back exactly.

    Raises:
        VPGCError: for another shape.

    References:
        Umeyama, "Least-squares estimation of transformation parameters", PAMI 1991;
        Wang et al., SIGGRAPH 2023, Sec. 3.1 (shape, pose, expression).
    """
    points = np.asarray(points, "float64")
    if points.ndim != 3 or points.shape[1:] != (478, 3) or not len(points):
        raise VPGCError(f"fit_head reads points (n, 478, 3); received {points.shape}.")
    rigid = RIGID_POINTS
    shape = points[len(points) // 2]
    for _ in range(rounds):
        shape = shape - shape[rigid].mean(0)
        shape = shape / np.sqrt((shape[rigid] ** 2).mean())
        scale, rotation, translation = _similarity(shape[rigid], points[:, rigid])
        head = _to_head(points, scale, rotation, translation)
        shape = np.median(head, axis=0)
    scale, rotation, translation = _similarity(shape[rigid], points[:, rigid])
    head = _to_head(points, scale, rotation, translation)
    return HeadTrack(rotation, scale, translation, shape, head - shape)


def _to_head(points, scale, rotation, translation):
    local = (points - translation[:, None]) / scale[:, None, None]
    return np.einsum("npi,nij->npj", local, rotation)


def rebuild(track: HeadTrack) -> np.ndarray:
    """Points `(n, p, 3)` of a `HeadTrack`."""
    local = track.shape + track.expression
    turned = np.einsum("npj,nij->npi", local, track.rotation)
    return track.scale[:, None, None] * turned + track.translation[:, None]


def neutral_pose(track: HeadTrack) -> dict[str, list]:
    """The clip's middle pose, as JSON: median scale and translation, mean rotation."""
    u, _, vt = np.linalg.svd(track.rotation.mean(0))
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return {
        "scale": float(np.median(track.scale)),
        "translation": np.median(track.translation, axis=0).tolist(),
        "rotation": rotation.tolist(),
    }


def retarget(driving: HeadTrack, shape, pose: dict, mode: str = "relative") -> np.ndarray:
    """The driving clip's pose and expression on the target's shape.

    Args:
        driving: `fit_head` of the driving clip.
        shape: The target's shape `(p, 3)`.
        pose: The target's `neutral_pose`.
        mode: `"relative"`: the driving head's motion about its own middle pose, added to the
            target's middle pose; `"absolute"`: the driving head's own orientation and place, at
            the target's size.

    Returns:
        Float32 `(n, p, 3)` in the target's crop.

    Raises:
        VPGCError: for an unknown mode.

    Example:

    ```python
    points = retarget(fit_head(driving_points), metadata["shape"], metadata["pose"])
    ```
    """
    if mode not in ("relative", "absolute"):
        raise VPGCError(f"There is no retargeting mode {mode!r}: choose 'relative' or 'absolute'.")
    own = neutral_pose(driving)
    # A driving person nearer to the camera moves over more pixels.
    size = pose["scale"] / own["scale"]
    scale = driving.scale * size
    rotation, translation = driving.rotation, driving.translation
    if mode == "relative":
        turn = np.array(pose["rotation"]) @ np.array(own["rotation"]).T
        rotation = turn @ rotation
        moved = (translation - np.array(own["translation"])) * size
        translation = np.array(pose["translation"]) + moved
    track = HeadTrack(
        rotation, scale, translation, np.asarray(shape, "float64"), driving.expression
    )
    return rebuild(track).astype("float32")
