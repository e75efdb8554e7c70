"""Face, eyes and mouth apart: what scores of whole frames hide, and people look at first."""

from typing import Any

import numpy as np

from keras_vpgc.data.landmark_sets import eye_opening, mouth_opening
from keras_vpgc.evaluation.motion import correlation_row
from keras_vpgc.evaluation.scorer import Scorer
from keras_vpgc.metrics.blinks import BLINK, LONGEST_BLINK, OPEN, TOGETHER, blink_agreement

# Which of the 68 landmarks; width of the crop over the median width of these; height over width.
CROPS = {
    "face": (slice(0, 68), 1.0, 1.1),
    "eyes": (slice(36, 48), 1.3, 0.4),
    "mouth": (slice(48, 68), 1.5, 0.8),
}
# SSIM's window needs that many pixels.
SMALLEST = 12
# Smaller crops are enlarged for LPIPS until their shorter side is that.
LPIPS_SIDE = 64
# Openings that change less than that (standard deviation) are the detector's noise.
MOVES = {"eyes": 0.005, "mouth": 0.005}


def crop_sizes(landmarks, size: float) -> dict[str, tuple[int, int]]:
    """Height and width in pixels of the crops around face, eyes and mouth, one for a whole clip.

    Args:
        landmarks: Float `(n, 68, 2)`, the truth's, in parts of `size`; NaN where no face was found.
        size: What is 1 in the landmarks, in pixels.

    Returns:
        `"face"`, `"eyes"` (both in one crop) and `"mouth"` -> height and width; empty if no frame
        shows a face. The width is the median width of the jaw, 1.3 times the median distance of
        the outer corners of the eyes and 1.5 times that of the corners of the mouth, the height
        1.1, 0.4 and 0.8 of it: hair and shoulders stay out of the face, brows and chin out of eyes
        and mouth, and an open mouth is in.

    Example:

    ```python
    crop_sizes(portrait.landmarks, 512)["mouth"]  # (130, 162)
    ```
    """
    landmarks = np.asarray(landmarks, "float64")
    known = np.isfinite(landmarks).all((1, 2))
    sizes = {}
    for name, (points, wide, high) in CROPS.items() if known.any() else ():
        width = wide * size * float(np.median(np.ptp(landmarks[known][:, points, 0], axis=1)))
        sizes[name] = max(SMALLEST, round(high * width)), max(SMALLEST, round(width))
    return sizes


class CropScorer:
    """PSNR, SSIM and LPIPS of crops around the truth's face, eyes and mouth; numbers are kept.

    The crops have one size for the clip, see `crop_sizes`, and follow the truth's landmarks by
    whole pixels, so that nothing is resampled.

    Args:
        landmarks: Float `(n, 68, 2)`, the truth's, in parts of `size`, one for each frame that will
            be scored; NaN where no face was found.
        size: What is 1 in the landmarks, in pixels.
        features: Those of LPIPS, see `keras_vpgc.evaluation.scorer.Features`, or `None`.

    Example:

    ```python
    scorer = CropScorer(landmarks, 512)
    for truth, prediction in batches:
        scorer.update(truth, prediction)  # uint8 (batch, h, w, 3), from the first frame on
    scorer.scores()["mouth_psnr"]
    ```
    """

    def __init__(self, landmarks, size: float, features=None):
        self.landmarks = np.asarray(landmarks, "float64")
        self.size, self.features = size, features
        self.sizes = crop_sizes(self.landmarks, size)
        self._scorers = {name: Scorer(features) for name in self.sizes}

    def update(self, truth, prediction, keep: int | None = None) -> None:
        """Score pictures that follow those of the call before.

        Args:
            truth: uint8 `(batch, h, w, 3)`.
            prediction: The same.
            keep: Number of pictures that count; those after them only fill the batch.
        """
        for name, scorer in self._scorers.items():
            first = len(scorer)
            kept = len(truth) if keep is None else keep
            places = self._corners(name, first, kept, truth.shape[1:3])
            # Pictures that only fill the batch are cut as the last one.
            places += places[-1:] * (len(truth) - kept)
            true, predicted = (self._cut(x, places, name) for x in (truth, prediction))
            maps = [None, None]
            if self.features is not None:
                maps = [self.features(_enlarged(x)) for x in (true, predicted)]
            scorer.update(true, predicted, keep, *maps)

    def scores(self) -> dict[str, np.ndarray]:
        """Float `(n,)` each: `face_psnr`, `face_ssim`, `face_lpips`, the same of eyes and mouth.

        NaN where the truth shows no face; empty if it never does.
        """
        missing = ~np.isfinite(self.landmarks).all((1, 2))
        found = {}
        for name, scorer in self._scorers.items():
            for key, values in scorer.scores().items():
                values = np.asarray(values, "float64").copy()
                values[missing[: len(values)]] = np.nan
                found[f"{name}_{key}"] = values
        return found

    def _corners(self, name, first, count, shape):
        """Top and left of each crop; in the middle of the picture where there is no face."""
        sides = np.minimum(self.sizes[name], shape)
        points = self.landmarks[first : first + count, CROPS[name][0]] * self.size
        middle = (points.min(1) + points.max(1))[:, ::-1] / 2
        middle = np.where(np.isfinite(middle), middle, np.array(shape) / 2)
        corners = np.rint(middle - sides / 2).astype(int)
        return list(np.clip(corners, 0, np.array(shape) - sides))

    def _cut(self, pictures, corners, name):
        height, width = np.minimum(self.sizes[name], pictures.shape[1:3])
        pairs = zip(pictures, corners, strict=True)
        return np.stack([x[top : top + height, left : left + width] for x, (top, left) in pairs])


def _enlarged(crops):
    import cv2

    height, width = crops.shape[1:3]
    scale = LPIPS_SIDE / min(height, width)
    if scale <= 1:
        return crops
    size = round(width * scale), round(height * scale)
    return np.stack([cv2.resize(x, size, interpolation=cv2.INTER_CUBIC) for x in crops])


def describe_crops(sizes: dict) -> dict[str, Any]:
    """What a protocol says of crops.

    Args:
        sizes: See `crop_sizes`.

    Returns:
        JSON-able dict.
    """
    boxes = {name: {"width": width, "height": height} for name, (height, width) in sizes.items()}
    place = "around the middle of the truth's landmarks of each frame, by whole pixels"
    lpips = f"crops enlarged to {LPIPS_SIDE} pixels of their shorter side where they are smaller"
    return {**boxes, "place": place, "lpips": lpips}


# What a protocol says of the openings and blinks.
OPENINGS = {
    "eyes": "height of the eyes over their width, mean of both",
    "mouth": "distance of the inner lips over the mouth's width",
    "open": f"percentile {OPEN} of the clip's own opening of each eye",
    "blink": f"runs of frames in which the eyes have lost {BLINK:g} of that or more and open "
    f"again within {LONGEST_BLINK:g} s",
    "same_blink": f"most closed frames at most {TOGETHER:g} s apart, one to one",
}


def openings(landmarks) -> dict[str, np.ndarray]:
    """How far eyes and mouth are open, over time.

    Args:
        landmarks: Float `(n, 68, 2)` in any unit with square pixels, NaN where no face was found.

    Returns:
        `"eyes"` and `"mouth"` -> float64 `(n,)`: height of the eyes over their width (mean of
        both; about 0.3 open, below 0.15 closed) and distance of the inner lips over the mouth's
        width (0 closed); NaN where no face was found.
    """
    return {"eyes": eye_opening(landmarks).mean(1), "mouth": mouth_opening(landmarks)}


def eyes_and_mouth(
    true, predicted, times, frame_rate: float, level: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Do eyes and mouth open and close when the true ones do, and as far?

    Args:
        true: Float `(n, 68, 2)`, the truth's landmarks, NaN where no face was found.
        predicted: The same of the prediction.
        times: Float `(n,)`, seconds.
        frame_rate: Frames a second: intervals are by stretches of one second.
        level, seed: See `keras_vpgc.evaluation.bootstrap_correlation`.

    Returns:
        JSON-able dict: `eyes` and `mouth`, each with `correlation` (Pearson's of the openings,
        over the frames that show both faces; `None` where the true one does not move), `interval`
        and `ratio` (the prediction's standard deviation over the truth's: below 1 it moves less);
        and `blinks`, see `keras_vpgc.metrics.blink_agreement`.

    Example:

    ```python
    eyes_and_mouth(true, found, portrait.times[held], 25)["mouth"]["correlation"]
    ```

    References:
        Soukupová and Čech, "Real-Time Eye Blink Detection using Facial Landmarks", CVWW 2016 (the
        opening of an eye by six landmarks, there the eye aspect ratio).
    """
    block = max(1, round(frame_rate))
    one, other = openings(true), openings(predicted)
    found: dict[str, Any] = {
        name: correlation_row(one[name], other[name], least, block, level, seed)
        for name, least in MOVES.items()
    }
    found["blinks"] = blink_agreement(eye_opening(true), eye_opening(predicted), times)
    return found


ROWS = (
    ("eyes", "correlation", "eye opening: correlation with the truth ↑"),
    ("eyes", "ratio", "eye opening: motion over the truth's"),
    ("mouth", "correlation", "mouth opening: correlation with the truth ↑"),
    ("mouth", "ratio", "mouth opening: motion over the truth's"),
    ("blinks", "recall", "blinks of the truth that are there ↑"),
    ("blinks", "precision", "blinks that the truth has too ↑"),
)


def agreement_cells(rows: dict[str, dict]) -> dict[str, dict[str, tuple[str, str]]]:
    """What tables of the agreement of eyes and mouth show.

    Args:
        rows: Name -> what `eyes_and_mouth` returns.

    Returns:
        Title of a row -> name -> the value, and its interval or counts, as text.
    """
    table: dict[str, dict[str, tuple[str, str]]] = {}
    for part, key, title in ROWS if rows else ():
        table[title] = {}
        for name, row in rows.items():
            value, beside = row[part][key], ""
            if part == "blinks":
                whole = row[part]["true" if key == "recall" else "predicted"]
                beside = f"{row[part]['matched']} of {whole}"
            elif key == "correlation" and row[part]["interval"]:
                low, high = row[part]["interval"]
                beside = f"[{low:.2f}, {high:.2f}]"
            table[title][name] = ("-" if value is None else f"{value:.2f}", beside)
    return table


def agreement_table(rows: dict[str, dict]) -> str:
    """The agreement of eyes and mouth as Markdown, one column a system.

    Args:
        rows: Name -> what `eyes_and_mouth` returns.

    Returns:
        The table, empty without a system.
    """
    if not rows:
        return ""
    lines = ["| eyes and mouth | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for title, cells in agreement_cells(rows).items():
        texts = [" ".join(filter(None, cell)) for cell in cells.values()]
        lines.append(f"| {title} | " + " | ".join(texts) + " |")
    return "\n".join(lines)
