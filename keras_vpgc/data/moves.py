"""Frames that are enlarged, turned and shifted at random, and their landmarks with them."""

from typing import NamedTuple

import numpy as np
from keras import ops


class Moves(NamedTuple):
    """How each image of a batch is moved, about its middle.

    Attributes:
        factors: Float32 `(b,)`, by how much it is enlarged.
        angles: Float32 `(b,)`, by how much it is turned, in radians, clockwise as one sees it.
        shifts: Float32 `(b, 2)`, by how many pixels it is shifted to the right and down.
    """

    factors: np.ndarray
    angles: np.ndarray
    shifts: np.ndarray

    def part(self, chosen):
        """The moves of some of the images."""
        return Moves(*(x[chosen] for x in self))

    def moved(self):
        """Is an image moved at all? Bool `(b,)`."""
        still = (self.factors == 1) & (self.angles == 0)
        return ~(still & (self.shifts[:, 0] == 0) & (self.shifts[:, 1] == 0))

    def sources(self, size, math=np):
        """Where the pixels of an image come from.

        Args:
            size: Side of the images in pixels.
            math: `numpy`, or `keras.ops` for tensors.

        Returns:
            Two float32 `(b, size, size)`: columns and rows, 0 for the middle of the first.
        """
        parts = (self.factors, self.angles, self.shifts[:, 0], self.shifts[:, 1])
        factors, angles, right, down = (math.reshape(x, (-1, 1, 1)) for x in parts)
        middle = (size - 1) / 2
        place = math.arange(size, dtype="float32") - middle
        x, y = place[None, None, :] - right, place[None, :, None] - down
        cos, sin = math.cos(angles) / factors, math.sin(angles) / factors
        return middle + cos * x + sin * y, middle + cos * y - sin * x


def draw_moves(rng, count, jitter, size, share=1.0) -> Moves:
    """Moves of images at random.

    Args:
        rng: A numpy generator.
        count: Number of images.
        jitter: Factors lie between `1 - jitter` and `1 + jitter`, angles within `2 * jitter`
            radians (11 degrees for 0.1), shifts within `jitter / 2` of the side.
        size: Side of the images in pixels.
        share: Which part of them is moved, each by chance; the others stay as they are.

    Example:

    ```python
    move(images, draw_moves(np.random.default_rng(0), len(images), 0.1, images.shape[1]))
    ```
    """
    drawn = jitter * rng.uniform(-1, 1, (count, 4)).astype("float32")
    if share < 1:
        drawn[rng.uniform(size=count) >= share] = 0
    return Moves(1 + drawn[:, 0], 2 * drawn[:, 1], drawn[:, 2:] * size / 2)


def move_landmarks(landmarks, moves, size):
    """Landmarks `(b, t, points, 2)` in [0, 1], moved as `move` moves images of that size."""
    factors, angles = (x[:, None, None] for x in moves[:2])
    x, y = np.moveaxis(landmarks - 0.5, -1, 0)
    cos, sin = np.cos(angles) * factors, np.sin(angles) * factors
    turned = np.stack([cos * x - sin * y, cos * y + sin * x], axis=-1)
    return 0.5 + turned + moves.shifts[:, None, None] / size


def move(images, moves):
    """Images `(b, s, s, 3)` of uint8, moved, the border repeated.

    Cubic: a linear interpolation takes half of the finest detail, which a network then learns.
    """
    import cv2

    middle = np.full(2, (images.shape[1] - 1) / 2)
    how = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REPLICATE}
    moved = []
    for image, factor, angle, shift in zip(images, *moves, strict=True):
        cos, sin = factor * np.cos(angle), factor * np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        matrix = np.column_stack([turn, middle - turn @ middle + shift])
        moved.append(cv2.warpAffine(image, matrix, image.shape[1::-1], **how))
    return np.stack(moved)


def move_on_device(images, moves):
    """`move` of a tensor."""
    size = images.shape[1]
    x, y = moves.sources(size, ops)
    pixels = ops.reshape(images, (-1, size * size, 3))
    (left, across), (top, down) = (_taps(v) for v in (x, y))
    moved = 0.0
    for j in range(4):
        row = ops.clip(top + (j - 1), 0, size - 1) * size
        for i in range(4):
            place = row + ops.clip(left + (i - 1), 0, size - 1)
            place = ops.reshape(place, (-1, size * size, 1))
            found = ops.take_along_axis(pixels, place, axis=1)
            weight = ops.reshape(across[i] * down[j], (-1, size * size, 1))
            moved = moved + weight * ops.cast(found, "float32")
    moved = ops.round(ops.clip(moved, 0, 255))
    return ops.reshape(ops.cast(moved, "uint8"), (-1, size, size, 3))


def _taps(place, a=-0.75):
    """The pixel before each place, and the weights of that before it, it, and the two behind.

    Those of a cubic convolution (Keys, 1981), with OpenCV's `a`.
    """
    first = ops.floor(place)
    part = place - first
    far = [a * (((d - 5) * d + 8) * d - 4) for d in (part + 1, 2 - part)]
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (part, 1 - part)]
    return ops.cast(first, "int32"), [far[0], near[0], near[1], far[1]]
