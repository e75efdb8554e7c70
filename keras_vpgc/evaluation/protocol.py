"""Scoring predicted frames against true ones."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.bootstrap import bootstrap_interval
from keras_vpgc.evaluation.eyes_and_mouth import CROPS, CropScorer
from keras_vpgc.evaluation.scorer import Features, Scorer
from keras_vpgc.metrics import MOUTH_POINTS, landmark_distance

LANDMARK_SCORES: dict[str, dict[str, Any]] = {
    "landmark_distance": {},
    "landmark_distance_centered": {"centered": True},
    "mouth_distance": {"points": MOUTH_POINTS},
    "mouth_distance_centered": {"centered": True, "points": MOUTH_POINTS},
}


def evaluate_frames(
    prediction,
    truth,
    *,
    predicted_landmarks=None,
    true_landmarks=None,
    landmark_size: float = 512,
    lpips: str | Features | None = None,
    batch_size: int = 16,
) -> dict[str, np.ndarray]:
    """Per-frame scores of a prediction.

    Args:
        prediction: uint8 `(n, s, s, 3)`, or an iterable of n frames, of which only a batch is held
            at a time.
        truth: The same.
        predicted_landmarks: Float `(n, 68, 2)` in [0, 1] found in the prediction, NaN where the
            detector failed; or `None`.
        true_landmarks: The same for the truth.
        landmark_size: Image size in pixels at which landmark distances are stated.
        lpips: Network of LPIPS, `"alex"` (as papers report it) or `"vgg"`, or its `Features`, which
            several calls may share; `None` for no LPIPS.
        batch_size: Frames scored at once.

    Returns:
        Dict of float `(n,)`: `psnr` (dB, infinite for identical frames), `ssim`, with a network
        `lpips`, and with landmarks `landmark_distance` and `mouth_distance` (the 20 points of the
        lips), each also `_centered` (pixels, NaN where the detector failed). With the truth's
        landmarks also `psnr`, `ssim` and `lpips` of the crops `eyes_` and `mouth_`, see
        `keras_vpgc.evaluation.eyes_and_mouth.CropScorer`.

    Raises:
        VPGCError: if numbers or sizes of the frames differ, or for an unknown network.

    Example:

    ```python
    scores = evaluate_frames(driven, truth, lpips="alex")
    scores["psnr"].mean()
    ```
    """
    shapes = [getattr(x, "shape", None) for x in (prediction, truth)]
    if None not in shapes and shapes[0] != shapes[1]:
        raise VPGCError(
            f"The prediction has the shape {shapes[0]} but the truth {shapes[1]}: frames, "
            "size and colours must agree."
        )
    features = Features(lpips) if isinstance(lpips, str) else lpips
    scorer = Scorer(features)
    crops = None
    count = 0
    predicted_batches = _batches(prediction, batch_size)
    for true in _batches(truth, batch_size):
        predicted = next(predicted_batches, true[:0])
        if predicted.shape != true.shape:
            raise VPGCError(
                f"From frame {count} on the prediction has the shape {predicted.shape} but the "
                f"truth {true.shape}: frames, size and colours must agree."
            )
        if crops is None and true_landmarks is not None:
            crops = CropScorer(true_landmarks, true.shape[2], features)
        count += len(true)
        missing = (batch_size - len(true)) if count > len(true) else 0
        if missing:  # another shape would be compiled for
            true, predicted = (
                np.concatenate([x, np.repeat(x[-1:], missing, 0)]) for x in (true, predicted)
            )
        scorer.update(true, predicted, batch_size - missing)
        if crops is not None:
            crops.update(true, predicted, len(true) - missing)
    if len(next(predicted_batches, ())):
        raise VPGCError(f"The truth has {count} frames and the prediction more: give as many.")
    result = scorer.scores()
    if crops is not None:
        result.update(crops.scores())
    if predicted_landmarks is not None and true_landmarks is not None:
        result.update(landmark_scores(true_landmarks, predicted_landmarks, landmark_size))
    return result


def landmark_scores(true_landmarks, predicted_landmarks, size: float) -> dict[str, np.ndarray]:
    """Distances of landmarks in each frame.

    Args:
        true_landmarks: Float `(n, 68, 2)` in [0, 1], NaN where the detector failed.
        predicted_landmarks: The same.
        size: Image size in pixels at which they are stated.

    Returns:
        Dict of float `(n,)`, pixels, NaN where the detector failed: `landmark_distance`,
        `mouth_distance` and the same `_centered`.
    """
    return {
        name: keras.ops.convert_to_numpy(
            landmark_distance(true_landmarks, predicted_landmarks, size, **arguments)
        )
        for name, arguments in LANDMARK_SCORES.items()
    }


def _batches(frames: Iterable, size: int) -> Iterator[np.ndarray]:
    if hasattr(frames, "shape"):
        for start in range(0, len(frames), size):  # type: ignore[arg-type]
            yield frames[start : start + size]  # type: ignore[index]
        return
    frames = iter(frames)
    while batch := list(itertools.islice(frames, size)):
        yield np.stack(batch)


def summary(
    scores: dict[str, np.ndarray], frame_rate: float = 25.0, level: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Means of per-frame scores with their intervals; what has no value is left out and counted.

    Args:
        scores: What `evaluate_frames` returns.
        frame_rate: Frames a second: the intervals are by stretches of one second.
        level: See `bootstrap_interval`.
        seed: See there.

    Returns:
        JSON-able dict of means (without those that no frame has); `frames`; `intervals`, the lower
        and upper end of each mean, `null` where the clip is too short to tell; `left_out`, for each
        score the number of frames without a value (no face was found, it cannot be decoded, or
        PSNR is infinite since the frames are identical); and, with landmarks, `detector_failures`.
        PSNR is infinite only where all frames that have one are identical.

    Example:

    ```python
    row = summary(scores, frame_rate=25)
    row["psnr"], row["intervals"]["psnr"], row["left_out"]["psnr"]
    ```
    """
    result: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    left_out: dict[str, int] = {}
    block = max(1, round(frame_rate))
    for name, values in scores.items():
        values = np.asarray(values, "float64")
        known = np.isfinite(values)
        left_out[name] = int((~known).sum())
        if known.any():
            result[name] = float(values[known].mean())
            interval = bootstrap_interval(values, level, seed, block=block)
            intervals[name] = None if interval is None else list(interval)
        elif np.isinf(values).any():
            result[name] = float(values[np.isinf(values)][0])
            intervals[name], left_out[name] = None, int(np.isnan(values).sum())
    result["frames"] = len(scores["psnr"] if "psnr" in scores else next(iter(scores.values())))
    if "landmark_distance" in scores:
        result["detector_failures"] = left_out["landmark_distance"]
    return {**result, "intervals": intervals, "left_out": left_out}


def jsonable(value):
    """Numbers that JSON lacks as text: infinity becomes `"inf"`.

    Args:
        value: Nested dicts and lists.

    Returns:
        The same with `"inf"` and `"-inf"` for infinite numbers.
    """
    if isinstance(value, dict):
        return {key: jsonable(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(x) for x in value]
    if isinstance(value, float) and np.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def find_landmarks(frames, tracker, size: int | None = 256) -> np.ndarray:
    """68 landmarks of square frames.

    Args:
        frames: uint8 `(n, s, s, 3)`.
        tracker: A `keras_vpgc.data.tracking.FaceTracker`.
        size: Frames smaller than this are enlarged for the detector.

    Returns:
        Float32 `(n, 68, 2)` in [0, 1], NaN where no face was found.
    """
    import cv2

    result = np.full((len(frames), 68, 2), np.nan, "float32")
    for i, frame in enumerate(frames):
        if size and frame.shape[0] < size:
            frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC)
        track = tracker.track([frame])
        if track.valid[0]:
            result[i] = track.points[0, MEDIAPIPE_TO_68, :2] / frame.shape[0]
    return result


COLUMNS = (
    ("psnr", "PSNR (dB) ↑", ".2f"),
    ("ssim", "SSIM ↑", ".3f"),
    ("lpips", "LPIPS ↓", ".3f"),
    ("landmark_distance", "F-LMD (px) ↓", ".2f"),
    ("landmark_distance_centered", "F-LMD centred (px) ↓", ".2f"),
)
# The layout of the paper's Tab. 1.
PAPER_COLUMNS = COLUMNS[:4]
# Of the crops around face, eyes and mouth.
CROP_COLUMNS = tuple(
    (f"{part}_{key}", f"{part} {title}", form) for part in CROPS for key, title, form in COLUMNS[:3]
)
ALL_COLUMNS = (
    *COLUMNS,
    *CROP_COLUMNS,
    ("mouth_distance", "mouth LMD (px) ↓", ".2f"),
    ("mouth_distance_centered", "mouth LMD centred (px) ↓", ".2f"),
    ("head_pose_error", "head pose error (°) ↓", ".2f"),
    ("expression_error", "expression error ↓", ".4f"),
    ("flicker", "flicker (of 255) ↓", ".2f"),
    ("jitter", "jitter (px)", ".2f"),
    ("true_jitter", "truth's jitter (px)", ".2f"),
    ("sharpness", "sharpness", ".1f"),
    ("true_sharpness", "truth's sharpness", ".1f"),
)

# Those named below single frames.
CAPTIONS = tuple(key for key, _, _ in ALL_COLUMNS if key not in {k for k, _, _ in CROP_COLUMNS})


def table(rows: dict[str, dict], columns=COLUMNS) -> str:
    """A Markdown table of summaries, one row a system.

    Args:
        rows: Name -> what `summary` returns.
        columns: Tuples of a score, its title and its format.

    Returns:
        The table; scores that a row lacks are shown as a dash, those of no row not at all.
    """
    shown = [c for c in columns if any(c[0] in row for row in rows.values())]
    lines = [
        "| | " + " | ".join(title for _, title, _ in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for name, row in rows.items():
        cells = [format(row[key], form) if key in row else "-" for key, _, form in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval_table(rows: dict[str, dict]) -> str:
    """A Markdown table of summaries with intervals, one row a score.

    Args:
        rows: Name of the column -> what `summary` returns.

    Returns:
        The table: mean, interval and, if any, the number of frames left out.
    """
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for key, title, form in ALL_COLUMNS:
        if not any(key in row for row in rows.values()):
            continue
        cells = []
        for row in rows.values():
            if key not in row:
                cells.append("-")
                continue
            cell = format(row[key], form)
            if interval := row["intervals"].get(key):
                cell += f" [{interval[0]:{form}}, {interval[1]:{form}}]"
            if left_out := row["left_out"].get(key):
                cell += f" ({left_out} left out)"
            cells.append(cell)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
