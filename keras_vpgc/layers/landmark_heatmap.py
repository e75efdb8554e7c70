"""Drawing face landmarks as contours inside the model."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.errors import VPGCError


def _run(first, last):
    return tuple(range(first, last + 1))


# The face contours of the 68 points, each with "is it closed?"
# (iBUG order: Sagonas et al., "300 Faces in-the-Wild Challenge", ICCVW 2013).
CONTOURS_68: tuple[tuple[tuple[int, ...], bool], ...] = (
    (_run(0, 16), False),  # jaw
    (_run(17, 21), False),  # right brow
    (_run(22, 26), False),  # left brow
    (_run(27, 30), False),  # nose bridge
    (_run(31, 35), False),  # nose base
    (_run(36, 41), True),  # right eye
    (_run(42, 47), True),  # left eye
    (_run(48, 59), True),  # outer lips
    (_run(60, 67), True),  # inner lips
)


@keras.saving.register_keras_serializable("keras_vpgc")
class LandmarkHeatmap(keras.layers.Layer):
    """Draws the landmarks' contours as antialiased lines, one channel a frame.

    A pixel's value is `clip(line_width / 2 + 1/2 - distance, 0, 1)`, `distance` being that from
    its centre to the nearest contour in pixels. The minimum over the contours runs on: memory does
    not grow with the number of segments.

    Args:
        size: Height and width of the heatmap in pixels, one number or a pair.
        line_width: Width of the lines in pixels. Default: 2 pixels at 512, in proportion, and not
            below 1.
        contours: Sequence of `(indices, closed)`. Default: the face contours of 68 points.
        **kwargs: Keras layer arguments.

    Call arguments:
        landmarks: Tensor `(batch, frames, points, 2)`, x to the right and y down, in [0, 1] of
            the crop. Points outside draw what reaches inside.

    Output shape:
        `(batch, height, width, frames)`, values in [0, 1].

    Raises:
        VPGCError: if the landmarks' shape is another, or too few points for the contours.

    Example:

    ```python
    heatmap = LandmarkHeatmap(512)(landmarks)  # (1, 7, 68, 2) -> (1, 512, 512, 7)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 3.1; lines instead of dots as in Lu et al., "Live Speech
        Portraits", SIGGRAPH Asia 2021.
    """

    def __init__(self, size=512, line_width=None, contours=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = (int(size),) * 2 if np.ndim(size) == 0 else tuple(int(n) for n in size)
        self.line_width = None if line_width is None else float(line_width)
        self.contours = contours
        segments = []
        for indices, closed in CONTOURS_68 if contours is None else contours:
            indices = list(indices)
            ends = indices[1:] + indices[:1] if closed else indices[1:]
            segments += zip(indices, ends, strict=False)
        self._segments = np.array(segments, dtype="int32").reshape(-1, 2)
        if not len(self._segments):
            raise VPGCError("LandmarkHeatmap needs at least one contour of two points.")

    def call(self, landmarks):
        self._check(landmarks.shape)
        height, width = self.size
        # Pixel units; (batch, 1, 1, frames, points, 2) would be large: keep x and y apart.
        points = ops.cast(landmarks, "float32") * ops.convert_to_tensor([width, height], "float32")
        x = ops.reshape(ops.arange(width, dtype="float32") + 0.5, (1, 1, width, 1))
        y = ops.reshape(ops.arange(height, dtype="float32") + 0.5, (1, height, 1, 1))
        nearest = None
        for first, last in self._segments:
            start = points[:, :, first][:, None, None]
            along = points[:, :, last][:, None, None] - start
            along_x, along_y = along[..., 0], along[..., 1]
            from_x, from_y = x - start[..., 0], y - start[..., 1]
            # A contour may have two equal points: then the distance is that to the point.
            scale = 1.0 / ops.maximum(ops.square(along_x) + ops.square(along_y), 1e-6)
            part = ops.clip((from_x * along_x + from_y * along_y) * scale, 0.0, 1.0)
            squared = ops.square(from_x - part * along_x) + ops.square(from_y - part * along_y)
            nearest = squared if nearest is None else ops.minimum(nearest, squared)
        line_width = self.line_width or max(1.0, 2.0 * min(self.size) / 512)
        value = ops.clip(line_width / 2 + 0.5 - ops.sqrt(nearest), 0.0, 1.0)
        return ops.cast(value, self.compute_dtype)

    def _check(self, shape):
        points = int(self._segments.max()) + 1
        if len(shape) != 4 or shape[3] != 2 or (shape[2] is not None and shape[2] < points):
            raise VPGCError(
                f"Landmarks must have the shape (batch, frames, {points}, 2), x and y in [0, 1] "
                f"of the crop; received {tuple(shape)}."
            )

    def compute_output_shape(self, input_shape):
        self._check(input_shape)
        return (input_shape[0], *self.size, input_shape[1])

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "line_width": self.line_width,
            "contours": self.contours,
        }
