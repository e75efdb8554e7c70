"""One square crop for a whole clip."""

from dataclasses import dataclass

import numpy as np

from keras_vpgc.errors import VPGCError


@dataclass(frozen=True)
class Crop:
    """A square of the source picture: left and top edge and side, in pixels."""

    x: float
    y: float
    size: float


def parse(text: str) -> Crop:
    """A crop from `"X,Y,SIZE"` in source pixels.

    Raises:
        VPGCError: if the text is anything else.

    Example:

    ```python
    parse("36,0,288")  # Crop(x=36.0, y=0.0, size=288.0)
    ```
    """
    try:
        x, y, size = (float(part) for part in text.split(","))
        if size <= 0:
            raise ValueError
    except ValueError:
        raise VPGCError(
            f"A crop is three numbers X,Y,SIZE in source pixels, such as 36,0,288; received "
            f"{text!r}."
        ) from None
    return Crop(x, y, size)


def check(crop: Crop, width: int, height: int) -> Crop:
    """Refuse a crop that leaves the picture."""
    inside = crop.x >= 0 and crop.y >= 0
    if not inside or crop.x + crop.size > width or crop.y + crop.size > height:
        raise VPGCError(
            f"The crop {crop.x:g},{crop.y:g},{crop.size:g} leaves the picture of {width}x{height} "
            "pixels: choose one inside."
        )
    return crop


def choose_crop(points, valid, width: int, height: int) -> Crop:
    """A fixed crop that holds head, hair and shoulders in all frames.

    The face's edges are taken from the whole track at their 2nd and 98th percentile, so that a
    few wrong frames do not count; the face then fills about 55% of the height.

    Args:
        points: Float `(n, p, 2 or 3)`, source pixels.
        valid: Bool `(n,)`, frames with a face.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        A `Crop` inside the picture, in whole pixels.
    """
    xy = np.asarray(points)[np.asarray(valid), :, :2]
    left, top = np.percentile(xy.min(axis=1), 2, axis=0)
    right, bottom = np.percentile(xy.max(axis=1), 98, axis=0)
    side = min(1.8 * max(bottom - top, right - left), width, height)
    # More room above (hair) than a face's own box has, and below for the shoulders.
    x = (left + right) / 2 - side / 2
    y = (top + bottom) / 2 - side / 2
    side = int(side)
    x = int(round(np.clip(x, 0, width - side)))
    y = int(round(np.clip(y, 0, height - side)))
    return Crop(float(x), float(y), float(side))


def apply(frame, crop: Crop, size: int) -> np.ndarray:
    """Cut the crop out of a frame and scale it.

    Args:
        frame: uint8 `(h, w, 3)`.
        crop: A `Crop`; beyond the picture its edge is repeated.
        size: Side of the result in pixels.

    Returns:
        uint8 `(size, size, 3)`.
    """
    import cv2

    x, y, side = (int(round(v)) for v in (crop.x, crop.y, crop.size))
    height, width = frame.shape[:2]
    before = (max(0, -y), max(0, -x))
    after = (max(0, y + side - height), max(0, x + side - width))
    if any(before) or any(after):
        margins = ((before[0], after[0]), (before[1], after[1]), (0, 0))
        frame = np.pad(frame, margins, mode="edge")
        x, y = x + before[1], y + before[0]
    frame = frame[y : y + side, x : x + side]
    if side == size:
        return np.ascontiguousarray(frame)
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(frame, (size, size), interpolation=method)


def to_crop(points, crop: Crop) -> np.ndarray:
    """Points from source pixels to [0, 1] of the crop; a depth is divided by the side too."""
    points = np.asarray(points, "float32")
    origin = np.array([crop.x, crop.y, 0.0][: points.shape[-1]], "float32")
    return (points - origin) / np.float32(crop.size)


def from_crop(points, crop: Crop) -> np.ndarray:
    """The inverse of `to_crop`."""
    points = np.asarray(points, "float32")
    origin = np.array([crop.x, crop.y, 0.0][: points.shape[-1]], "float32")
    return points * np.float32(crop.size) + origin
