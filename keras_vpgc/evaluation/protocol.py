"""Scoring predicted frames against true ones."""

import keras
import numpy as np

from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68
from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics import landmark_distance, psnr, ssim


def evaluate_frames(
    prediction,
    truth,
    *,
    predicted_landmarks=None,
    true_landmarks=None,
    landmark_size: int = 512,
    batch_size: int = 16,
) -> dict[str, np.ndarray]:
    """Per-frame scores of a prediction.

    Args:
        prediction: uint8 `(n, s, s, 3)`.
        truth: uint8 `(n, s, s, 3)`.
        predicted_landmarks: Float `(n, 68, 2)` in [0, 1] found in the prediction, NaN where the
            detector failed; or `None`.
        true_landmarks: The same for the truth.
        landmark_size: Image size in pixels at which landmark distances are stated.
        batch_size: Frames scored at once.

    Returns:
        Dict of float `(n,)`: `psnr` (dB), `ssim`, and with landmarks `landmark_distance` and
        `landmark_distance_centered` (pixels, NaN where the detector failed).

    Raises:
        VPGCError: if numbers or sizes of the frames differ.

    Example:

    ```python
    scores = evaluate_frames(driven, truth)
    scores["psnr"].mean()
    ```
    """
    if prediction.shape != truth.shape:
        raise VPGCError(
            f"The prediction has the shape {prediction.shape} but the truth {truth.shape}: frames, "
            "size and colours must agree."
        )
    scores: dict[str, list] = {"psnr": [], "ssim": []}
    for start in range(0, len(truth), batch_size):
        pair = truth[start : start + batch_size], prediction[start : start + batch_size]
        for name, function in (("psnr", psnr), ("ssim", ssim)):
            scores[name].append(keras.ops.convert_to_numpy(function(*pair, 255.0)))
    result = {name: np.concatenate(parts) for name, parts in scores.items()}
    if predicted_landmarks is not None and true_landmarks is not None:
        for name, centered in (
            ("landmark_distance", False),
            ("landmark_distance_centered", True),
        ):
            result[name] = keras.ops.convert_to_numpy(
                landmark_distance(true_landmarks, predicted_landmarks, landmark_size, centered)
            )
    return result


def summary(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Means of per-frame scores; failures of the detector are left out and counted.

    Args:
        scores: What `evaluate_frames` returns.

    Returns:
        JSON-able dict of means (without those that no frame has), `frames` and, with landmarks,
        `detector_failures`.
    """
    result: dict[str, float] = {
        name: float(np.nanmean(v)) for name, v in scores.items() if not np.isnan(v).all()
    }
    result["frames"] = len(scores["psnr"])
    if "landmark_distance" in scores:
        result["detector_failures"] = int(np.isnan(scores["landmark_distance"]).sum())
    return result


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
    ("landmark_distance", "F-LMD (px) ↓", ".2f"),
    ("landmark_distance_centered", "F-LMD centred (px) ↓", ".2f"),
)


def table(rows: dict[str, dict]) -> str:
    """A Markdown table of summaries, one row a system.

    Args:
        rows: Name -> what `summary` returns.

    Returns:
        The table; scores that a row lacks are shown as a dash.
    """
    shown = [c for c in COLUMNS if any(c[0] in row for row in rows.values())]
    lines = [
        "| | " + " | ".join(title for _, title, _ in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for name, row in rows.items():
        cells = [format(row[key], form) if key in row else "-" for key, _, form in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
