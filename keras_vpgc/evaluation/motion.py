"""How well one face's motion follows another's, where no frame is the true one."""

from typing import Any

import numpy as np

from keras_vpgc.data import landmark_sets
from keras_vpgc.data.coverage import pose_angles
from keras_vpgc.data.crop import Crop, to_crop
from keras_vpgc.data.tracking import Track
from keras_vpgc.evaluation.bootstrap import bootstrap_correlation
from keras_vpgc.metrics import expression_error, head_pose_error, jitter

# The 52 blendshapes of MediaPipe's Face Landmarker, in its order (Apache-2.0).
_SIDES = ("Left", "Right")
BLENDSHAPES = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp"),
    *(f"browOuterUp{side}" for side in _SIDES),
    "cheekPuff",
    *(f"cheekSquint{side}" for side in _SIDES),
    *(f"eye{what}{side}" for what in ("Blink", "LookDown", "LookIn", "LookOut") for side in _SIDES),
    *(f"eye{what}{side}" for what in ("LookUp", "Squint", "Wide") for side in _SIDES),
    *("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *(f"mouth{what}{side}" for what in ("Dimple", "Frown") for side in _SIDES),
    *("mouthFunnel", "mouthLeft"),
    *(f"mouth{what}{side}" for what in ("LowerDown", "Press") for side in _SIDES),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper"),
    *("mouthShrugLower", "mouthShrugUpper"),
    *(f"mouth{what}{side}" for what in ("Smile", "Stretch", "UpperUp") for side in _SIDES),
    *("noseSneerLeft", "noseSneerRight"),
)
BLINKS = [BLENDSHAPES.index("eyeBlinkLeft"), BLENDSHAPES.index("eyeBlinkRight")]
# A signal that changes less in the driving clip (standard deviation) is the detector's noise.
MOVES = {"yaw": 0.3, "pitch": 0.3, "roll": 0.3, "mouth": 0.005, "blink": 0.02}
BLENDSHAPE_MOVES = 0.02


def motion_scores(
    driving: Track, result: Track, squares: tuple[Crop, Crop], size: int = 512
) -> dict[str, np.ndarray]:
    """Scores of a result's motion against the clip that drove it, frame by frame.

    Args:
        driving: Track of the driving clip.
        result: Track of the result, of as many frames.
        squares: A `Crop` around the face in each, in the tracks' unit.
        size: Side in pixels of these squares at which jitter is stated.

    Returns:
        Dict of float `(n,)`, NaN where a face was not found:

        - `head_pose_error`: angle between the two heads' orientations, degrees.
        - `head_motion_error`: the same of each head's turn away from its own mean orientation over
          the frames that show both faces; a retargeted head keeps its own rest.
        - `expression_error`: mean absolute difference of the 52 blendshapes.
        - `expression_change_error`: the same of their change against each clip's own median.
        - `expression_agreement`: cosine of these two changes, -1 to 1: is it the same expression,
          whatever its strength?
        - `jitter`: that of the result, `(n - 2,)`, see `keras_vpgc.metrics.jitter`.

    Example:

    ```python
    scores = motion_scores(driving, result, (Crop(0, 0, 1), Crop(0, 0, 1)))
    np.nanmean(scores["head_motion_error"])
    ```

    References:
        Ha et al., "MarioNETte: Few-shot Face Reenactment Preserving Identity of Unseen Targets",
        AAAI 2020, scores the same three things: identity (CSIM), head pose (PRMSE, by Euler
        angles; here by the one angle between orientations) and expression (AUCON, by action units;
        here by blendshapes).
    """
    known = driving.valid & result.valid
    turns = [_turns(track.matrices, known) for track in (driving, result)]
    changes = [
        track.blendshapes - _over(np.median, track.blendshapes, known)
        for track in (driving, result)
    ]
    lengths = [np.linalg.norm(change.astype("float64"), axis=1) for change in changes]
    with np.errstate(invalid="ignore", divide="ignore"):
        product = np.einsum("nk,nk->n", *(change.astype("float64") for change in changes))
        # Where a face is at its median there is no direction.
        agreement = np.where(
            np.minimum(*lengths) > 1e-6, product / np.prod(lengths, axis=0), np.nan
        )
    scores = {
        "head_pose_error": head_pose_error(driving.matrices, result.matrices),
        "head_motion_error": head_pose_error(*turns),
        "expression_error": expression_error(driving.blendshapes, result.blendshapes),
        "expression_change_error": expression_error(*changes),
        "expression_agreement": agreement,
    }
    if len(known) > 2:
        import keras

        points = to_crop(landmark_sets.landmarks(result.points), squares[1])
        scores["jitter"] = keras.ops.convert_to_numpy(jitter(points, size))
    return scores


def signals(track: Track) -> dict[str, np.ndarray]:
    """What moves in a face, over time.

    Args:
        track: A `Track`.

    Returns:
        Dict of float `(n,)`, NaN where no face was found: `yaw`, `pitch`, `roll` in degrees (see
        `keras_vpgc.data.retarget.angles`), `mouth` (opening, the mouth's width being 1) and `blink`
        (closing of the eyes, mean of the two blendshapes `eyeBlink`).
    """
    turns = pose_angles(track.matrices)
    points = landmark_sets.landmarks(track.points)
    return {
        **dict(zip(("yaw", "pitch", "roll"), turns.T, strict=True)),
        "mouth": landmark_sets.mouth_opening(points),
        "blink": track.blendshapes[:, BLINKS].astype("float64").mean(1),
    }


def correlations(
    driving: Track, result: Track, frame_rate: float, level: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Does the result move when the driving clip moves, and as far?

    Args:
        driving: Track of the driving clip.
        result: Track of the result, of as many frames.
        frame_rate: Frames a second: intervals are by stretches of one second.
        level, seed: See `keras_vpgc.evaluation.bootstrap_correlation`.

    Returns:
        JSON-able dict. For `yaw`, `pitch`, `roll`, `mouth`, `blink` (see `signals`) and
        `expression` a dict of `correlation` (Pearson's, over the frames that show both faces;
        `None` where one does not move), `interval`, and `ratio`, the result's standard deviation
        over the driving clip's. `expression` is the mean over the blendshapes that move in the
        driving clip (standard deviation of 0.02 or more; 0 for one that the result does not move),
        which `blendshapes` lists each with its correlation.

    Example:

    ```python
    correlations(driving, result, 25)["mouth"]["correlation"]
    ```
    """
    known = driving.valid & result.valid
    found: dict[str, Any] = {}
    block = max(1, round(frame_rate))
    one, other = signals(driving), signals(result)

    def moved(values):
        return float(values[known].std()) if known.any() else 0.0

    for name, least in MOVES.items():
        a, b = (np.where(known, x[name], np.nan) for x in (one, other))
        found[name] = correlation_row(a, b, least, block, level, seed)
    shapes = [track.blendshapes.astype("float64") for track in (driving, result)]
    spreads = [np.array([moved(column) for column in x.T]) for x in shapes]
    moving = np.flatnonzero(spreads[0] >= BLENDSHAPE_MOVES)
    each = {BLENDSHAPES[i]: _correlation(*(x[known, i] for x in shapes)) or 0.0 for i in moving}
    row: dict[str, Any] = {"correlation": None, "interval": None, "ratio": None}
    if each and spreads[1][moving].any():
        row["correlation"] = float(np.mean(list(each.values())))
        row["ratio"] = float(np.mean(spreads[1][moving] / spreads[0][moving]))
        a, b = (np.where(known[:, None], x[:, moving], np.nan) for x in shapes)
        row["interval"] = bootstrap_correlation(a, b, level, seed, block=block)
    found["expression"] = row
    found["blendshapes"] = each
    return found


def correlation_row(
    true, found, least: float, block: int, level: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Does a signal move when another does, and as far?

    Args:
        true: Float `(n,)`, in the order of time, NaN where a frame has no value.
        found: The same of the result.
        least: Standard deviation below which `true` does not move, but for noise.
        block, level, seed: See `keras_vpgc.evaluation.bootstrap_correlation`.

    Returns:
        JSON-able dict of `correlation` (Pearson's, over the frames that have both; `None` where
        one does not move), `interval` and `ratio`, the standard deviation over that of `true`.
    """
    row: dict[str, Any] = {"correlation": None, "interval": None, "ratio": None}
    known = np.isfinite(true) & np.isfinite(found)
    spreads = [float(x[known].std()) if known.any() else 0.0 for x in (true, found)]
    if spreads[0] >= least:
        row["ratio"] = spreads[1] / spreads[0]
        row["correlation"] = _correlation(true[known], found[known])
        if row["correlation"] is not None:
            row["interval"] = bootstrap_correlation(true, found, level, seed, block=block)
            if row["interval"] is not None:
                row["interval"] = list(row["interval"])
    return row


def still_face(track: Track) -> Track:
    """A face that never moves: the mean orientation and the median of all else.

    Args:
        track: A `Track`; frames without a face stay without.

    Returns:
        A `Track` of as many frames.
    """
    count, valid = len(track.valid), track.valid
    matrices = np.tile(np.eye(4, dtype="float32"), (count, 1, 1))
    if valid.any():
        matrices[:, :3, :3] = _mean_rotation(track.matrices[valid])
    middle = (_over(np.median, x, valid) for x in (track.points, track.blendshapes))
    points, shapes = (np.repeat(x[None], count, 0).astype("float32") for x in middle)
    for values in (points, shapes, matrices):
        values[~valid] = np.nan
    return Track(points, shapes, matrices, track.confidence, np.zeros(count, bool), valid.copy())


def _turns(matrices, known):
    """Rotations since the mean one, in the head's own axes."""
    result = np.full((len(matrices), 3, 3), np.nan)
    if known.any():
        mean = _mean_rotation(matrices[known])
        result[known] = mean.T @ matrices[known, :3, :3].astype("float64")
    return result


def _mean_rotation(matrices):
    """The rotation nearest to the matrices' mean (chordal mean, Hartley et al. 2013, Sec. 5.3)."""
    u, _, vt = np.linalg.svd(matrices[:, :3, :3].astype("float64").mean(0))
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def _over(middle, values, known):
    if not known.any():
        return np.full(values.shape[1:], np.nan)
    return middle(values[known].astype("float64"), axis=0)


def _correlation(x, y):
    if not len(x) or not np.ptp(x) or not np.ptp(y):
        return None
    return float(np.corrcoef(x, y)[0, 1])
