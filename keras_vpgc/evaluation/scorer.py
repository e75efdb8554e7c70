"""Scores of pictures that come batch by batch."""

import keras
import numpy as np

from keras_vpgc.errors import VPGCError
from keras_vpgc.losses.lpips import check_net
from keras_vpgc.metrics import LPIPS, flicker, psnr, sharpness, ssim

IMAGE_SCORES = ("psnr", "ssim")
# What tells a video from single pictures; the truth's own sharpness is what to compare with.
VIDEO_SCORES = ("flicker", "sharpness", "true_sharpness")
# Pictures of that many pixels in all are scored at once, so that memory stays flat.
BATCH_PIXELS = 2_000_000


class Scorer:
    """Per-frame scores of consecutive pictures; only numbers are kept.

    Args:
        lpips: `"alex"`, `"vgg"`, an `LPIPS` metric whose network several scorers share, or `None`.
        video: Also measure flicker and sharpness?

    Raises:
        VPGCError: for an unknown network, or if its weights cannot be had.

    Example:

    ```python
    scorer = Scorer(lpips="alex")
    for truth, prediction in batches:
        scorer.update(truth, prediction)  # uint8 (batch, h, w, 3)
    scorer.scores()["psnr"]
    ```
    """

    def __init__(self, lpips: str | LPIPS | None = None, video: bool = False):
        self.lpips = LPIPS(check_net(lpips)) if isinstance(lpips, str) else lpips
        self.video = video
        names = [*IMAGE_SCORES, *(["lpips"] if lpips else []), *(VIDEO_SCORES if video else [])]
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, truth, prediction) -> None:
        """Score uint8 pictures `(batch, h, w, 3)`, which follow those of the call before."""
        self._add("psnr", psnr(truth, prediction, 255.0))
        self._add("ssim", ssim(truth, prediction, 255.0))
        if self.lpips is not None:
            self._add("lpips", self.lpips.per_frame(truth, prediction))
        if not self.video:
            return
        self._add("sharpness", sharpness(prediction))
        self._add("true_sharpness", sharpness(truth))
        true, predicted = truth, prediction
        if self._before is not None:
            true = np.concatenate([self._before[0], true])
            predicted = np.concatenate([self._before[1], predicted])
        if len(true) > 1:
            self._add("flicker", flicker(true, predicted))
        self._before = truth[-1:].copy(), prediction[-1:].copy()

    def scores(self) -> dict[str, np.ndarray]:
        """Float `(n,)` of each score, `(n - 1,)` of `flicker`, which lies between frames."""
        return {
            name: np.concatenate(parts) if parts else np.zeros(0, "float32")
            for name, parts in self._parts.items()
        }

    def _add(self, name, values):
        values = keras.ops.convert_to_numpy(values)
        if np.isnan(values).any():
            raise VPGCError(f"The score {name} is not a number: the pictures hold no numbers.")
        self._parts[name].append(values)


def batch_frames(height: int, width: int, most: int = 16) -> int:
    """How many pictures of a size are scored at once."""
    return int(np.clip(BATCH_PIXELS // (height * width), 1, most))
