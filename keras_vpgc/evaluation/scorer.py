"""Scores of pictures that come batch by batch."""

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError
from keras_vpgc.losses.lpips import NETS, check_net, feature_distance
from keras_vpgc.metrics import LPIPS, flicker, psnr, sharpness, ssim

IMAGE_SCORES = ("psnr", "ssim")
# What tells a video from single pictures; the truth's own sharpness is what to compare with.
VIDEO_SCORES = ("flicker", "sharpness", "true_sharpness")
# Pictures of that many pixels in all are scored at once, so that memory stays flat.
BATCH_PIXELS = 2_000_000


class Features:
    """The maps that LPIPS compares: each picture goes through the network once.

    Args:
        net: `"alex"` or `"vgg"`.

    Raises:
        VPGCError: for an unknown network, or if its weights cannot be had.
    """

    def __init__(self, net: str):
        distance = LPIPS(check_net(net)).distance
        self.net, self.smallest = net, NETS[net][1]
        self.heads, self._network = distance.heads, backend.compiled(distance.network)

    def __call__(self, pictures) -> list:
        """Feature maps of uint8 pictures `(batch, h, w, 3)`."""
        if min(pictures.shape[1:3]) < self.smallest:
            raise VPGCError(
                f"LPIPS ({self.net}) needs pictures of {self.smallest}x{self.smallest} pixels and "
                f"these are {pictures.shape[2]}x{pictures.shape[1]}: score larger ones, or leave "
                "LPIPS out."
            )
        with backend.full_precision():
            return list(self._network(pictures.astype("float32") / 127.5 - 1.0))


class Scorer:
    """Per-frame scores of consecutive pictures; only numbers are kept.

    Args:
        features: Those of LPIPS, which several scorers may share, or `None` for no LPIPS.
        video: Also measure flicker and sharpness?

    Raises:
        VPGCError: see `update`.

    Example:

    ```python
    scorer = Scorer(Features("alex"))
    for truth, prediction in batches:
        scorer.update(truth, prediction)  # uint8 (batch, h, w, 3)
    scorer.scores()["psnr"]
    ```
    """

    def __init__(self, features: Features | None = None, video: bool = False):
        self.features = features
        self.video = video
        names = [*IMAGE_SCORES, *(["lpips"] if features else []), *(VIDEO_SCORES if video else [])]
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self):
        """Number of pictures so far."""
        return sum(map(len, self._parts["psnr"]))

    def update(self, truth, prediction, keep=None, true_maps=None, maps=None) -> None:
        """Score pictures that follow those of the call before.

        Args:
            truth: uint8 `(batch, h, w, 3)`.
            prediction: The same.
            keep: Number of pictures that count; those after them only fill the batch.
            true_maps: The truth's features, if they are known.
            maps: The prediction's.

        Raises:
            VPGCError: for pictures of other colours than RGB, or that hold NaN.
        """
        for name, pictures in (("truth", truth), ("prediction", prediction)):
            _check_pictures(name, pictures[:keep], len(self))
        self._add("psnr", psnr(truth, prediction, 255.0), keep)
        self._add("ssim", ssim(truth, prediction, 255.0), keep)
        if self.features is not None:
            true_maps = true_maps or self.features(truth)
            maps = maps or self.features(prediction)
            values = feature_distance(true_maps, maps, self.features.heads)
            self._add("lpips", values, keep)
        if not self.video:
            return
        self._add("sharpness", sharpness(prediction), keep)
        self._add("true_sharpness", sharpness(truth), keep)
        # The first picture follows itself, so that all batches are of one shape; see `scores`.
        before = self._before or (truth[:1], prediction[:1])
        true, predicted = before[0], before[1]
        true, predicted = np.concatenate([true, truth]), np.concatenate([predicted, prediction])
        changes = flicker(true, predicted)
        self._add("flicker", changes, keep)
        self._before = truth[-1:].copy(), prediction[-1:].copy()

    def scores(self) -> dict[str, np.ndarray]:
        """Float `(n,)` of each score, `(n - 1,)` of `flicker`, which lies between frames."""
        return {
            name: (np.concatenate(parts) if parts else np.zeros(0))[name == "flicker" :]
            for name, parts in self._parts.items()
        }

    def _add(self, name, values, keep):
        self._parts[name].append(keras.ops.convert_to_numpy(values)[:keep])


def _check_pictures(name, pictures, before):
    if pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise VPGCError(
            f"The {name} has pictures of shape {pictures.shape[1:]}: give RGB, (height, width, 3); "
            "grey ones as three equal channels."
        )
    if pictures.dtype.kind == "f" and not np.isfinite(pictures).all():
        bad = np.flatnonzero(~np.isfinite(pictures).all((1, 2, 3)))
        raise VPGCError(
            f"Frame {before + bad[0]} of the {name} holds NaN or infinite values: leave such "
            "frames out, or mend what made them."
        )


def batch_frames(height: int, width: int, most: int = 16) -> int:
    """How many pictures of a size are scored at once."""
    return int(np.clip(BATCH_PIXELS // (height * width), 1, most))
