"""Marks in the picture: words that all see, and a pattern that only a program finds."""

import dataclasses
import functools
import hashlib
import math

import numpy as np

from keras_vpgc.errors import VPGCError, import_cv2

# Of the part of the picture under the words' letters.
SHADE = 0.4
# The hidden pattern is one of cosines with so many half waves over the picture, whatever its size.
GRID, LOWEST, HIGHEST = 128, 6, 62
CODE = b"keras_vpgc invisible mark 1"
# Root mean square of the pattern in grey levels, before the picture's activity scales it.
STRENGTH = 1.5
FALSE_POSITIVES = 1e-6
# Frames that are looked at; of a long video stretches spread over it.
STRETCHES, STRETCH = 10, 30


def draw_mark(image: np.ndarray, text: str) -> np.ndarray:
    """Words in the lower right corner: white on a darkened ground, legible on any picture.

    Letters are about 9 pixels high, and more from 256 pixels on; wide words shrink to fit. On a
    person who is cut out the letters are opaque and the ground darkens whatever will be behind it.

    Args:
        image: uint8 RGB `(height, width, 3)`, or with straight alpha `(height, width, 4)`.
        text: A word or a few.

    Returns:
        A copy, marked.

    Example:

    ```python
    marked = draw_mark(frame, "synthetic")
    ```
    """
    cv2 = import_cv2()
    image = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = max(0.35, min(height, width) / 640)
    text = " ".join(text.split())
    (wide, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1.0, 0.9 * width / max(1, wide))
    thickness = max(1, round(scale))
    (wide, high), below = cv2.getTextSize(text, font, scale, thickness)
    gap = max(1, round(high / 3))
    left, top = max(0, width - wide - 3 * gap), max(0, height - high - below - 3 * gap)
    ground = image[top : height - gap, left : width - gap]
    place = (left + gap, min(height - 1, top + gap + high))
    if image.shape[2] == 4:
        letters = np.zeros((height, width), "uint8")
        cv2.putText(letters, text, place, font, scale, 255, thickness, cv2.LINE_AA)
        ground[:] = _over(ground, 0, 1 - SHADE)
        return _over(image, 255, letters / 255)
    ground[:] = np.rint(ground * SHADE)
    cv2.putText(image, text, place, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return image


def _over(image, grey, cover):
    """A grey that covers a part of each pixel, over a picture with straight alpha.

    References:
        Porter and Duff, Compositing digital images, SIGGRAPH 1984.
    """
    cover = np.broadcast_to(np.asarray(cover, "float32"), image.shape[:2])[..., None]
    under = (1 - cover) * image[..., 3:] / 255
    alpha = cover + under
    colour = (cover * grey + under * image[..., :3]) / np.maximum(alpha, 1e-6)
    covered = np.rint(np.concatenate([colour, 255 * alpha], axis=-1)).astype("uint8")
    return np.where(cover > 0, covered, image)


@dataclasses.dataclass(frozen=True)
class Detection:
    """What `InvisibleMark.detect` found.

    Attributes:
        found: Is the mark there?
        correlation: Of the picture with the mark's signs, in standard deviations of those of
            pictures without.
        threshold: The correlation from which it counts as found.
    """

    found: bool
    correlation: float
    threshold: float


class InvisibleMark:
    """A spread-spectrum mark in brightness: one bit, "made by keras_vpgc".

    Embedding adds to every frame the same sum of cosines with signs that only depend on a fixed
    code; detection correlates the mean of many frames, relative to how much the picture varies
    around each pixel, with these signs. The pattern scales with the picture, so that the mark
    outlives compression and scaling. It does not outlive cropping, turning or mirroring, and fades
    below 128 pixels. The code is public: who knows it can remove the mark, or put it on another
    video. It is a label that does not fall off by itself, not a proof.

    For a picture made without knowledge of the code the correlation is a weighted sum of random
    signs, so that by Hoeffding's inequality it exceeds z with a probability of at most
    `exp(-z^2 / 2)`.

    Example:

    ```python
    marked = [InvisibleMark().embed(frame) for frame in frames]
    InvisibleMark().detect(marked).found  # True
    ```

    References:
        - Cox et al., Secure spread spectrum watermarking for multimedia, IEEE Transactions on Image
          Processing, 1997.
        - Hoeffding, Probability inequalities for sums of bounded random variables, JASA 1963.
    """

    def __init__(self, strength: float = STRENGTH):
        """
        Args:
            strength: Root mean square of the pattern in grey levels where the picture is neither
                flat nor busy; half of it in flat parts, up to twice in busy ones.
        """
        self.strength = strength

    def embed(self, image: np.ndarray) -> np.ndarray:
        """A marked copy of a frame.

        Args:
            image: uint8 RGB `(height, width, 3)`, or with straight alpha `(height, width, 4)`,
                which stays as it is.

        Returns:
            uint8 of the same shape.
        """
        if image.shape[2] == 4:
            return np.dstack([self.embed(image[..., :3]), image[..., 3]])
        cv2 = import_cv2()
        pattern = _pattern(*image.shape[:2])
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype("float32")
        side = max(3, round(min(grey.shape) / 24) | 1)
        mean = cv2.blur(grey, (side, side))
        spread = np.sqrt(np.maximum(cv2.blur(grey * grey, (side, side)) - mean * mean, 0))
        # The eye misses more where there is more to see.
        added = self.strength * np.clip(0.5 + spread / 12, 0.5, 2) * pattern
        return np.clip(np.rint(image + added[..., None]), 0, 255).astype("uint8")

    def detect(self, frames) -> Detection:
        """Look for the mark.

        Args:
            frames: Iterable of uint8 RGB `(height, width, 3)` of one size; the more, the surer.

        Returns:
            A `Detection`; false in at most one of a million videos without the mark.
        """
        cv2 = import_cv2()
        total, count = np.zeros((GRID, GRID), "float32"), 0
        for frame in frames:
            grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
            total += cv2.resize(grey.astype("float32"), (GRID, GRID), interpolation=cv2.INTER_AREA)
            count += 1
        threshold = math.sqrt(-2 * math.log(FALSE_POSITIVES))
        if not count:
            return Detection(False, 0.0, threshold)
        # Edges would drown the pattern: each pixel counts relative to what is around it.
        detail = total / count
        detail = detail - cv2.blur(detail, (9, 9))
        # Of an even ground rounding may leave less than 0.
        spread = np.sqrt(np.maximum(cv2.blur(detail * detail, (9, 9)), 0))
        waves = cv2.dct(np.clip(detail / (spread + 0.5), -2.5, 2.5))
        band, radius = _band()
        values = np.empty(len(radius))
        for r in range(LOWEST, HIGHEST + 1):
            near = np.abs(radius - r) <= 2
            usual = np.median(np.abs(waves[band][near])) / 0.6745
            here = radius == r
            values[here] = np.clip(waves[band][here] / (usual + 1e-6), -4, 4)
        size = float(np.sqrt((values**2).sum()))
        correlation = float(values @ _signs()) / size if size > 0 else 0.0
        return Detection(correlation >= threshold, correlation, threshold)


def sampled_frames(path):
    """Frames of a video for `InvisibleMark.detect`: all of a short one, stretches of a long one.

    Args:
        path: A video file, or a list of the PNG files of one.

    Yields:
        uint8 RGB `(height, width, 3)`, without alpha.

    Raises:
        VPGCError: for a file that cannot be read.
    """
    if isinstance(path, list):
        count, read = len(path), functools.partial(_read_pictures, path)
    else:
        from keras_vpgc.data.video import probe, read_frames

        count, read = probe(path).frame_count, functools.partial(read_frames, path)
    if count <= STRETCHES * STRETCH:
        yield from read()
        return
    for start in np.linspace(0, count - STRETCH, STRETCHES).astype(int).tolist():
        yield from read(start, start + STRETCH)


def _read_pictures(files, start=0, stop=None):
    cv2 = import_cv2()
    for file in files[start:stop]:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise VPGCError(f"{file} cannot be read as a picture: copy or make it again.")
        yield image


@functools.cache
def _band():
    """Which of the cosines carry the mark, and their frequency in half waves, whole numbers."""
    radius = np.hypot(*np.meshgrid(np.arange(GRID), np.arange(GRID)))
    band = (radius >= LOWEST) & (radius < HIGHEST + 1)
    return band, radius[band].astype(int)


@functools.cache
def _signs():
    """A sign for each cosine, by SHA-256 in counter mode: the same for ever, on every machine."""
    count = int(_band()[0].sum())
    digests = [
        hashlib.sha256(CODE + block.to_bytes(4, "big")).digest()
        for block in range(-(-count // 256))
    ]
    bits = np.unpackbits(np.frombuffer(b"".join(digests), "uint8"))[:count]
    return bits * 2.0 - 1.0


@functools.lru_cache(maxsize=4)
def _pattern(height, width):
    """The mark for a size of picture, float32 `(height, width)`, mean square 1."""
    cv2 = import_cv2()
    signs = np.zeros((GRID, GRID), "float32")
    signs[_band()[0]] = _signs()
    # OpenCV transforms even sizes alone.
    waves = np.zeros((height + height % 2, width + width % 2), "float32")
    rows, columns = min(GRID, len(waves)), min(GRID, waves.shape[1])
    waves[:rows, :columns] = signs[:rows, :columns]
    pattern = cv2.idct(waves)[:height, :width]
    return pattern / max(1e-6, float(pattern.std()))
