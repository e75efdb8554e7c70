"""The driver's motion on the target's face: shape, pose and expression apart."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from keras_vpgc.data.canonical import NUM_VERTICES, canonical_head
from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68, eye_opening, mouth_opening
from keras_vpgc.errors import VPGCError

MODES = ("relative", "absolute")
# Vertical field of view that MediaPipe's face geometry assumes, degrees
# (face_landmarker_graph.cc and its tests, Apache-2.0).
FIELD_OF_VIEW = 63.0
# The shape needs no more frames than these, evenly picked.
SHAPE_FRAMES = 1500
ROUNDS = 5
CHUNK = 250
# Of the 68 points those that stay with the skull: nose, corners of the eyes, ends of the jaw.
RIGID_68 = np.array([0, 16, *range(27, 36), 36, 39, 42, 45])
# Points across the gap between the lids and between the lips: upper, lower, by number of points.
# The mesh's are read off MediaPipe's canonical face model (Apache-2.0), the others iBUG's.
LIDS = {
    478: (
        [246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398],
        [7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382],
    ),
    68: ([37, 38, 43, 44], [41, 40, 47, 46]),
}
LIPS = {
    478: ([191, 80, 81, 82, 13, 312, 311, 310, 415], [95, 88, 178, 87, 14, 317, 402, 318, 324]),
    68: ([61, 62, 63], [67, 66, 65]),
}


@dataclass(frozen=True)
class Camera:
    """How points before the camera come onto the picture.

    Attributes:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        kind: `"perspective"`: points in centimetres, x right, y down, z away from the camera;
            `"orthographic"`: x and y are pixels already.
        fov: Vertical field of view in degrees (perspective).
    """

    width: float
    height: float
    kind: str = "perspective"
    fov: float = FIELD_OF_VIEW

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 0.5 * self.height / np.tan(np.radians(0.5 * self.fov))

    def project(self, points) -> np.ndarray:
        """Pixels `(..., 2)` of points `(..., 3)`."""
        points = np.asarray(points)
        if self.kind == "orthographic":
            return points[..., :2]
        middle = [0.5 * self.width, 0.5 * self.height]
        return self.focal * points[..., :2] / points[..., 2:] + middle


@dataclass
class HeadTrack:
    """A face track taken apart.

    `points before the camera = scale * (shape + expression) @ rotation^T + translation`.

    Attributes:
        rotation: `(n, 3, 3)`, from head coordinates (x to the image's right, y down, z away from
            the camera for a head that faces it) to the camera's.
        translation: `(n, 3)`, of the head's origin.
        scale: `(n,)`. One throughout for a perspective head: a picture cannot tell a small near
            head from a large far one, so every head has the canonical one's size and `translation`
            alone says how near it is.
        shape: `(p, 3)`, the person's face, one for the clip, in head coordinates (centimetres).
        expression: `(n, p, 3)`, offsets from it.
        camera: The `Camera`.
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    camera: Camera

    def __len__(self):
        return len(self.rotation)

    def __getitem__(self, frames) -> "HeadTrack":
        """The head in some frames: a slice, an index array or a mask."""
        names = ("rotation", "translation", "scale", "expression")
        return replace(self, **{name: getattr(self, name)[frames] for name in names})


def _similarity(source, target, weights=None):
    """Best `scale (n,), rotation, translation` from `(p, 3)` to `(n, p, 3)` (Umeyama, 1991)."""
    weights = np.ones(len(source)) if weights is None else weights
    weights = (weights / weights.sum())[:, None]
    middle, middles = (weights * source).sum(0), (weights * target).sum(1)
    a, b = source - middle, target - middles[:, None]
    u, s, vt = np.linalg.svd(np.einsum("npi,pj->nij", b, weights * a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None, :]) @ vt
    scale = (s * sign).sum(1) / (weights * a**2).sum()
    translation = middles - scale[:, None] * np.einsum("nij,j->ni", rotation, middle)
    return scale, rotation, translation


def metric_landmarks(points, width: float, height: float, model=None):
    """Screen landmarks in centimetres before the camera, as MediaPipe's face geometry has them.

    The size of the canonical head decides how far away the face is; depth within the face is the
    tracker's. Points beyond the canonical head's 468 (irises) are carried along.

    Args:
        points: Float `(n, 478, 3)`: source pixels, depth in pixels too.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        model: See `canonical_head`.

    Returns:
        Metric points `(n, 478, 3)`, rotation `(n, 3, 3)`, translation `(n, 3)` and scale `(n,)` of
        the canonical head in them. Axes: x right, y down, z away from the camera; MediaPipe's
        matrices have y up and z towards the viewer.

    References:
        `ScreenToMetricSpaceConverter` in geometry_pipeline.cc of MediaPipe
        (mediapipe/tasks/cc/vision/face_geometry/libs, Apache-2.0).
    """
    head, weights = canonical_head(model)
    used = np.flatnonzero(weights)
    head, weights = head[used], weights[used]
    # On a plane one centimetre before the camera.
    points = (points - np.array([0.5 * width, 0.5 * height, 0.0])) / Camera(width, height).focal
    points[..., 2] += 1.0 - points[:, :NUM_VERTICES, 2].mean(1, keepdims=True)
    # Only after a first size is known can points be moved along their rays.
    first, _, _ = _similarity(head, points[:, used], weights)
    points[..., :2] *= points[..., 2:]
    points /= first[:, None, None]
    second, _, _ = _similarity(head, points[:, used], weights)
    points /= second[:, None, None]
    scale, rotation, translation = _similarity(head, points[:, used], weights)
    return points, rotation, translation, scale


def fit_head(points, width: float, height: float, model=None) -> HeadTrack:
    """Take a track apart into the person's shape, head pose and expression.

    Each frame's metric landmarks are laid onto the person's shape by weighted Procrustes analysis
    on points that do not move with the expression; the shape is the median over the clip in head
    coordinates; both are found in turn, from the canonical head on. The shape has the canonical
    head's place, axes and size.

    Args:
        points: Float `(n, 478, 3)`: source pixels, depth in pixels too, no NaN.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        model: Path of `face_landmarker.task`, which holds the canonical head.

    Returns:
        A perspective `HeadTrack`; `project` gives the pixels back.

    Raises:
        VPGCError: for another shape, NaN, or points that all lie in one place.

    Example:

    ```python
    head = fit_head(track.points[track.valid], info.width, info.height)
    yaw, pitch, roll = angles(head.rotation).T
    ```

    References:
        Umeyama, "Least-squares estimation of transformation parameters", PAMI 1991;
        Wang et al., SIGGRAPH 2023, Sec. 3.1 (shape, pose, expression).
    """
    points = np.asarray(points)
    _check_points(points)
    return fit_pose(points, fit_shape(points, width, height, model), width, height, model)


def _check_points(points, first=0):
    """Refuse what is no track; `first` is the number of the first frame, as the sentence has it."""
    if points.ndim != 3 or points.shape[1:] != (478, 3) or not len(points):
        raise VPGCError(
            f"fit_head reads points (frames, 478, 3) of at least one frame; received "
            f"{points.shape}."
        )
    bad = ~np.isfinite(points).all((1, 2)) | (np.ptp(points[..., :2], axis=1).min(1) <= 0)
    if bad.any():
        raise VPGCError(
            f"The points of frame {first + int(np.argmax(bad))} are not finite or all in one "
            "place: fill them from their neighbours or leave the frame out."
        )


def fit_shape(points, width: float, height: float, model=None) -> np.ndarray:
    """The shape alone of `fit_head`, whose pose and expressions `fit_pose` then gives in pieces.

    Args:
        points: Float `(n, 478, 3)`, as for `fit_head`; at most 1500 of the frames are looked at.
        width, height, model: See `fit_head`.

    Returns:
        Float64 `(478, 3)`, in head coordinates.

    Example:

    ```python
    shape = fit_shape(points, 1280, 720)
    heads = [fit_pose(points[k : k + 250], shape, 1280, 720) for k in range(0, len(points), 250)]
    ```
    """
    canonical, weights = canonical_head(model)
    used = np.flatnonzero(weights)
    canonical, weights = canonical[used], weights[used]

    sample, *pose = metric_landmarks(points[_shape_frames(len(points))], width, height, model)
    for _ in range(ROUNDS):
        shape = np.median(_to_head(sample, *pose), axis=0)
        scale, rotation, translation = _similarity(canonical, shape[None, used], weights)
        shape = _to_head(shape[None], rotation, translation, scale)[0]
        scale, rotation, translation = _similarity(shape[used], sample[:, used], weights)
        pose = [rotation, translation, scale]
    return shape


def _shape_frames(count):
    return np.unique(np.linspace(0, count - 1, SHAPE_FRAMES).astype(int))


def fit_pose(points, shape, width: float, height: float, model=None) -> HeadTrack:
    """`fit_head` for a person whose shape is known: each frame by itself, so it serves live too.

    Args:
        points: Float `(n, 478, 3)`: source pixels, depth in pixels too, no NaN.
        shape: `(478, 3)`, of a `HeadTrack` that `fit_head` gave.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        model: Path of `face_landmarker.task`. Without it the file is looked for and its checksum
            computed at each call.

    Returns:
        A perspective `HeadTrack` of that shape.

    Example:

    ```python
    known = fit_head(first_points, 1280, 720)
    now = fit_pose(points[None], known.shape, 1280, 720)  # a track of one frame
    ```
    """
    _, weights = canonical_head(model)
    used = np.flatnonzero(weights)
    weights = weights[used]
    parts = []
    for first in range(0, len(points), CHUNK):
        metric, *_ = metric_landmarks(points[first : first + CHUNK], width, height, model)
        scale, _, _ = _similarity(shape[used], metric[:, used], weights)
        # Along the rays nothing changes in the picture: each frame at the one size of the person.
        metric /= scale[:, None, None]
        scale, rotation, translation = _similarity(shape[used], metric[:, used], weights)
        offsets = _to_head(metric, rotation, translation, scale) - shape
        parts.append((rotation, translation, scale, offsets.astype("float32")))
    rotation, translation, scale, expression = (np.concatenate(p) for p in zip(*parts, strict=True))
    return HeadTrack(rotation, translation, scale, shape, expression, Camera(width, height))


class LongHead:
    """`fit_head` of a long clip: its frames are fitted when a slice of them is asked for.

    So a clip of any length needs the memory of a slice beyond that of its points.

    Args:
        points: Float `(m, 478, 3)`: source pixels, depth in pixels too.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        model: See `fit_head`.
        frames: Int `(n,)`, which of the points are those of each frame of the clip; these must be
            finite. Default: all, in their order.

    Raises:
        VPGCError: as `fit_head`, some of it only when the frames are asked for.

    Example:

    ```python
    head = LongHead(track.points, 1280, 720)
    for driven in retarget_pieces(head, target.shape, neutral_pose(target)):
        landmarks = project(driven)
    ```
    """

    def __init__(self, points, width: float, height: float, model=None, frames=None):
        self.points, self.size, self.model = points, (width, height), model
        self.frames = np.arange(len(points)) if frames is None else np.asarray(frames)
        sample = points[self.frames[_shape_frames(len(self))]] if len(self) else points[:0]
        _check_points(sample)
        self.shape = fit_shape(sample, width, height, model)

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, frames: slice) -> HeadTrack:
        """The head in a slice of the frames."""
        points = self.points[self.frames[frames]]
        _check_points(points, range(len(self))[frames].start)
        return fit_pose(points, self.shape, *self.size, model=self.model)


def _to_head(points, rotation, translation, scale):
    local = (points - translation[:, None]) / scale[:, None, None]
    return np.einsum("npi,nij->npj", local, rotation)


def rebuild(head: HeadTrack) -> np.ndarray:
    """Points `(n, p, 3)` of a `HeadTrack` before its camera."""
    turned = np.einsum("npj,nij->npi", head.shape + head.expression, head.rotation)
    return head.scale[:, None, None] * turned + head.translation[:, None]


def project(head: HeadTrack) -> np.ndarray:
    """Landmarks `(n, p, 3)` of a `HeadTrack` as the tracker gives them: pixels, depth in pixels.

    The depth's origin is the mean of the face, as `fit_head` needs it.
    """
    points = rebuild(head)
    depth = points[..., 2:]
    middle = depth[:, :NUM_VERTICES].mean(1, keepdims=True)
    if head.camera.kind == "perspective":
        depth = head.camera.focal * (depth / middle - 1.0)
    else:
        depth = depth - middle
    return np.concatenate([head.camera.project(points), depth], axis=-1)


def angles(rotation) -> np.ndarray:
    """Head rotations as angles.

    Args:
        rotation: `(..., 3, 3)`.

    Returns:
        `(..., 3)` degrees: yaw (positive: the person turns to the image's right), pitch (positive:
        down), roll (positive: clockwise in the image).
    """
    r = np.asarray(rotation)
    yaw = np.arctan2(-r[..., 0, 2], r[..., 2, 2])
    pitch = np.arcsin(np.clip(-r[..., 1, 2], -1, 1))
    roll = np.arctan2(r[..., 1, 0], r[..., 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], -1))


def from_angles(degrees) -> np.ndarray:
    """The inverse of `angles`: degrees `(..., 3)` to rotations `(..., 3, 3)`."""
    yaw, pitch, roll = np.moveaxis(np.radians(np.asarray(degrees, "float64")), -1, 0)

    def turn(angle, i, j):
        r = np.zeros((*angle.shape, 3, 3))
        r[..., range(3), range(3)] = 1.0
        r[..., i, i] = r[..., j, j] = np.cos(angle)
        r[..., j, i] = np.sin(angle)
        r[..., i, j] = -np.sin(angle)
        return r

    return turn(yaw, 0, 2) @ turn(pitch, 1, 2) @ turn(roll, 0, 1)


def _power(rotation, strength: float):
    """Rotations `(n, 3, 3)` about the same axis by `strength` times the angle (slerp from none)."""
    odd = 0.5 * (rotation - np.swapaxes(rotation, -1, -2))
    axis = np.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], -1)
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, 0.5 * (np.trace(rotation, axis1=-2, axis2=-1) - 1))[..., None, None]
    cross = odd / np.maximum(sine, 1e-12)[..., None, None]
    turn = strength * angle
    return np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross


def neutral_frame(head: HeadTrack | Iterable[HeadTrack]) -> int:
    """The frame that shows the person most neutral.

    Among the frames with open eyes (at least 0.9 of the median opening) and a closed mouth (an
    opening of at most 0.03 of the mouth's width, or of the clip's twentieth with the least) the one
    whose pose and expression are nearest to the clip's middle: the sum of its angle to the mean
    rotation and of the mean size of its expression offsets, each over its median, is least. Where
    no frame has both, all frames compete.

    Args:
        head: A `HeadTrack` of 478 or 68 points, or consecutive pieces of one.

    Returns:
        Number of the frame.
    """
    signals = []
    for piece in [head] if isinstance(head, HeadTrack) else head:
        face = (piece.shape + piece.expression)[..., :2]
        face = face[:, MEDIAPIPE_TO_68] if face.shape[1] == 478 else face
        size = np.linalg.norm(piece.expression, axis=-1).mean(1)
        signals.append((eye_opening(face).mean(1), mouth_opening(face), size, piece.rotation))
    eyes, mouth, size, rotation = (np.concatenate(x) for x in zip(*signals, strict=True))
    usable = (eyes >= 0.9 * np.median(eyes)) & (mouth <= max(0.03, np.percentile(mouth, 5)))
    u, _, vt = np.linalg.svd(rotation.mean(0))
    middle = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    cosine = 0.5 * (np.einsum("nij,ij->n", rotation, middle) - 1)
    cost = np.zeros(len(rotation))
    for term in (np.arccos(np.clip(cosine, -1, 1)), size):
        cost += term / (np.median(term) or 1.0)
    return int(np.argmin(np.where(usable | ~usable.any(), cost, np.inf)))


def neutral_pose(head: HeadTrack, frame: int | None = None) -> dict:
    """Pose and expression of a person at rest, as JSON, for `retarget`.

    Args:
        head: The person's `HeadTrack`.
        frame: Number of a frame; default `neutral_frame`.

    Returns:
        Dict of `frame`, `rotation` `(3, 3)`, `translation` `(3,)`, `expression` `(p, 3)` and
        `camera`.
    """
    frame = neutral_frame(head) if frame is None else frame
    return {
        "frame": int(frame),
        "rotation": np.round(head.rotation[frame], 8).tolist(),
        "translation": np.round(head.translation[frame], 6).tolist(),
        "expression": np.round(np.asarray(head.expression[frame], "float64"), 5).tolist(),
        "camera": vars(head.camera).copy(),
    }


def check_motion(motion: float) -> None:
    """Refuse a strength of head motion outside of [0, 1]."""
    if not 0 <= motion <= 1:
        raise VPGCError(
            f"The strength of head motion is {motion:g}: choose one from 0 (still) to 1 (as "
            "driven)."
        )


def _check_mode(mode):
    if mode not in MODES:
        raise VPGCError(f"There is no retargeting mode {mode!r}: choose 'relative' or 'absolute'.")


def retarget(
    driving: HeadTrack,
    shape,
    pose: dict,
    mode: str = "relative",
    neutral: int | HeadTrack | None = None,
    motion: float = 1.0,
) -> HeadTrack:
    """The driving clip's pose and expression on the target's shape.

    Expression offsets are scaled by the ratio of the faces' sizes (root mean square distance of
    the shape's points from their middle). Where that would leave a gap in closed eyes, or lips that
    cross, the shape matters: the lids' gap keeps its ratio to the one at rest, and lips cross no
    more than the driver's.

    Args:
        driving: `fit_head` of the driving clip; or one of 68 points before an orthographic camera,
            as FLAME trackers give: the shape's rigid points are then laid onto the target's to
            have the same axes and centimetres, and its size in the picture tells the distance.
        shape: The target's shape, `(478, 3)` or `(68, 3)`.
        pose: The target's `neutral_pose`.
        mode: `"relative"`: head motion and expression since the driver's neutral frame, in that
            head's own axes and centimetres, added to the target's neutral pose and expression;
            `"absolute"`: the driver's own orientation, direction from the camera and expression;
            the distance is scaled so that the neutral frame has the target's size.
        neutral: The driver's neutral frame, its number, or the frame itself as a `HeadTrack` of one
            frame and the same shape; default `neutral_frame`.
        motion: Strength of the head motion away from the neutral frame, 0 (the head is still)
            to 1 (as driven); the rotation's angle and the translation are multiplied by it.

    Returns:
        A `HeadTrack` with the target's shape before the target's camera, of 68 points if the
        driving one or the shape has 68.

    Raises:
        VPGCError: for an unknown mode, a strength outside of [0, 1], a neutral frame that the clip
            does not have, or another number of points.

    Example:

    ```python
    target = fit_head(target_points, 640, 480)
    driven = retarget(fit_head(points, 1280, 720), target.shape, neutral_pose(target))
    landmarks = project(driven)  # pixels of the target's video
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 3.1: the driver's shape replaced by the target's.
    """
    _check_mode(mode)
    check_motion(motion)
    target, driving = _like(driving, shape)
    if isinstance(neutral, HeadTrack):
        still = _like(neutral, shape)[1]
    else:
        still = _neutral(driving, neutral)
    shape, rest = target, np.asarray(pose["expression"], "float64")
    rest = rest[MEDIAPIPE_TO_68] if len(rest) == 478 and len(shape) == 68 else rest

    own, place = still.rotation[0], still.translation[0]
    turn = _power(own.T @ driving.rotation, motion)
    moved = motion * (driving.translation - place)
    larger = _size(shape) / _size(driving.shape)
    expression = driving.expression * larger
    middle = np.array(pose["translation"])
    if mode == "relative":
        rotation = np.array(pose["rotation"])
        translation = middle + moved @ (rotation @ own.T).T
        rotation = rotation @ turn
        offset = still.expression[0]
        expression = rest + (expression - offset * larger)
    else:
        rotation = own @ turn
        translation = (place + moved) * (middle[2] / place[2])
        rest = offset = np.zeros_like(shape)
    _keep_gaps(expression, shape, rest, driving, driving.shape + offset)
    return HeadTrack(
        rotation, translation, np.ones(len(turn)), shape, expression, Camera(**pose["camera"])
    )


def retarget_pieces(
    driving: HeadTrack | LongHead,
    shape,
    pose: dict,
    mode: str = "relative",
    neutral: int | None = None,
    motion: float = 1.0,
) -> Iterator[HeadTrack]:
    """`retarget` of a long clip, some frames at a time, in flat memory.

    Args:
        driving: A `HeadTrack`, or a `LongHead`, which is not whole in memory either.
        shape, pose, mode, neutral, motion: See `retarget`.

    Yields:
        `HeadTrack`s of consecutive frames, 250 but for the last.

    Raises:
        VPGCError: see `retarget`.

    Example:

    ```python
    for driven in retarget_pieces(LongHead(points, 1280, 720), target.shape, pose):
        landmarks.append(project(driven)[..., :2])
    ```
    """
    _check_mode(mode)
    starts = range(0, len(driving), CHUNK)
    if neutral is None:
        parts = (driving[first : first + CHUNK] for first in starts)
        neutral = neutral_frame(_like(part, shape)[1] for part in parts)
    rest = _neutral(driving, neutral)
    for first in starts:
        part = driving[first : first + CHUNK]
        yield retarget(part, shape, pose, mode, rest, motion)


def _neutral(driving, neutral):
    """The driver's neutral frame as a track of one frame."""
    if neutral is None:
        neutral = neutral_frame(driving)
    if not 0 <= neutral < len(driving):
        raise VPGCError(
            f"The neutral frame {neutral} is not in the driving clip of {len(driving)} frames: "
            "choose another."
        )
    return driving[neutral : neutral + 1]


def _like(driving, shape):
    """A target's shape and a driving head that have the same points, axes and unit."""
    shape = np.asarray(shape, "float64")
    if len(shape) == 478 and len(driving.shape) == 68:
        shape = shape[MEDIAPIPE_TO_68]
    elif len(shape) == 68 and len(driving.shape) == 478:
        driving = _only_68(driving)
    if len(shape) != len(driving.shape):
        raise VPGCError(
            f"A driving head of {len(driving.shape)} points does not fit a target of {len(shape)}: "
            "both are of 478 or 68 points."
        )
    if driving.camera.kind == "orthographic":
        driving = _to_perspective(driving, shape)
    return shape, driving


def _keep_gaps(expression, shape, rest, driving, driving_rest):
    """Change the lids' and lips' offsets, in place, so that what closes for the driver closes."""

    def gap(points, pairs):
        return points[..., pairs[1], 1] - points[..., pairs[0], 1]

    own, moved, count = driving.shape + driving.expression, shape + expression, len(shape)
    lids, lips = LIDS[count], LIPS[count]
    at_rest = np.maximum(gap(driving_rest, lids), 1e-3)
    for pairs, wanted in (
        (lids, gap(own, lids) / at_rest * gap(shape + rest, lids)),
        (lips, np.maximum(gap(moved, lips), np.minimum(gap(own, lips), 0.0))),
    ):
        change = 0.5 * (wanted - gap(moved, pairs))
        expression[:, pairs[0], 1] -= change
        expression[:, pairs[1], 1] += change


def _size(shape):
    return np.sqrt(((shape - shape.mean(0)) ** 2).sum(-1).mean())


def _only_68(head):
    return replace(
        head,
        shape=head.shape[MEDIAPIPE_TO_68],
        expression=head.expression[:, MEDIAPIPE_TO_68],
    )


def _to_perspective(head, shape):
    """An orthographic head of 68 points in the axes and the size of another shape."""
    if len(shape) != 68:
        raise VPGCError(
            f"An orthographic head has 68 points; received one of {len(shape)}: give a perspective "
            "one."
        )
    scale, rotation, origin = _similarity(head.shape[RIGID_68], shape[None, RIGID_68])
    axes = scale[0] * rotation[0].T
    turned = head.rotation @ rotation[0].T
    size = head.scale / scale[0]  # pixels a centimetre
    xy = (head.translation - size[:, None] * (turned @ origin[0]))[:, :2]
    camera = Camera(head.camera.width, head.camera.height)
    xy = (xy - [0.5 * camera.width, 0.5 * camera.height]) / size[:, None]
    translation = np.concatenate([xy, camera.focal / size[:, None]], axis=1)
    own = head.shape @ axes + origin[0]
    return HeadTrack(turned, translation, np.ones(len(size)), own, head.expression @ axes, camera)
