"""Drawing face landmarks as contours inside the model."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
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
# The landmark sets that the layer can draw: the second adds right and left iris, each a centre
# (68, 73) and four points of the rim in order. The rim alone is drawn; it holds the centre.
CONTOURS = {
    "ibug-68": CONTOURS_68,
    "ibug-68-iris": (*CONTOURS_68, (_run(69, 72), True), (_run(74, 77), True)),
}

# Segments of a group where the loop over them is written out.
SEGMENTS_AT_ONCE = 9


@keras.saving.register_keras_serializable("keras_vpgc")
class LandmarkHeatmap(keras.layers.Layer):
    """Draws the landmarks' contours as antialiased lines, one channel a frame.

    A pixel's value is `clip(line_width / 2 + 1/2 - distance, 0, 1)`, `distance` being that from
    its centre to the nearest contour in pixels. The minimum over the contours runs on in a loop:
    neither memory nor the time to compile grow with the number of segments.

    Args:
        size: Height and width of the heatmap in pixels, one number or a pair.
        line_width: Width of the lines in pixels. Default: 2 pixels at 512, in proportion, and not
            below 1.
        contours: A landmark set, `"ibug-68"` or `"ibug-68-iris"` (68 points, then centre and four
            rim points of right and left iris), or a sequence of `(indices, closed)`.
        **kwargs: Keras layer arguments.

    Call arguments:
        landmarks: Tensor `(batch, frames, points, 2)`, x to the right and y down, in [0, 1] of
            the crop. Points outside draw what reaches inside.

    Output shape:
        `(batch, height, width, frames)`, values in [0, 1].

    Raises:
        VPGCError: if the landmarks' shape is another, too few points for the contours, or an
            unknown landmark set.

    Example:

    ```python
    heatmap = LandmarkHeatmap(512)(landmarks)  # (1, 7, 68, 2) -> (1, 512, 512, 7)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Sec. 3.1; lines instead of dots as in Lu et al., "Live Speech
        Portraits", SIGGRAPH Asia 2021.
    """

    def __init__(self, size=512, line_width=None, contours="ibug-68", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = (int(size),) * 2 if np.ndim(size) == 0 else tuple(int(n) for n in size)
        self.line_width = None if line_width is None else float(line_width)
        self.contours = contours
        if isinstance(contours, str):
            if contours not in CONTOURS:
                raise VPGCError(
                    f"There is no landmark set {contours!r}: choose one of {', '.join(CONTOURS)}."
                )
            contours = CONTOURS[contours]
        segments = []
        for indices, closed in contours:
            indices = list(indices)
            ends = indices[1:] + indices[:1] if closed else indices[1:]
            segments += zip(indices, ends, strict=False)
        self._segments = np.array(segments, dtype="int32").reshape(-1, 2)
        # Exported graphs hold no loops, see `keras_vpgc.export`.
        self.unrolled = False
        if not len(self._segments):
            raise VPGCError("LandmarkHeatmap needs at least one contour of two points.")

    @property
    def num_points(self) -> int:
        """Number of landmarks that the contours need."""
        return int(self._segments.max()) + 1

    def call(self, landmarks):
        self._check(landmarks.shape)
        height, width = self.size
        points = ops.cast(landmarks, "float32") * ops.convert_to_tensor([width, height], "float32")
        start = ops.take(points, self._segments[:, 0], axis=2)
        end = ops.take(points, self._segments[:, 1], axis=2)
        line_width = self.line_width or max(1.0, 2.0 * min(self.size) / 512)
        drawn = backend.draw_lines(start, end, height, width, line_width, self.compute_dtype)
        if drawn is not None:
            return ops.transpose(drawn, (0, 2, 3, 1))
        length = ops.sqrt(ops.sum(ops.square(end - start), axis=-1))
        # A contour may have two equal points: then any direction will do.
        equal = length < 1e-3
        unit_x = ops.where(equal, 1.0, (end - start)[..., 0] / ops.maximum(length, 1e-3))
        unit_y = ops.where(equal, 0.0, (end - start)[..., 1] / ops.maximum(length, 1e-3))
        unit_x, unit_y, half = unit_x[..., None], unit_y[..., None], length[..., None] / 2
        # From the middle of each segment, in pixels: (batch, frames, segments, width or height).
        # Distances along and across it are sums of a row and a column.
        middle = (start + end) / 2
        from_x = ops.arange(width, dtype="float32") + 0.5 - middle[..., 0, None]
        from_y = ops.arange(height, dtype="float32") + 0.5 - middle[..., 1, None]
        parts = (from_x * unit_x, from_y * unit_y, from_y * unit_x, from_x * unit_y, half)

        def squared(segment):
            return _squared(*(ops.take(part, segment, axis=2) for part in parts))

        if self.unrolled:
            nearest = _nearest_in_groups(parts)
        elif backend.fuses():
            # What reads the drawing would draw it anew for each of its windows.
            nearest = backend.kept(_nearest_in_groups(parts))
        else:
            nearest = ops.fori_loop(
                1, len(self._segments), lambda i, least: ops.minimum(least, squared(i)), squared(0)
            )
        value = ops.clip(line_width / 2 + 0.5 - ops.sqrt(nearest), 0.0, 1.0)
        # Frames came before rows and columns so far, which keeps the inner loops long.
        return ops.cast(ops.transpose(value, (0, 2, 3, 1)), self.compute_dtype)

    def _check(self, shape):
        points = self.num_points
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


def _squared(along_x, along_y, across_y, across_x, half):
    """Squared distances to segments; (..., width or height) -> (..., height, width)."""
    along = ops.abs(along_x[..., None, :] + along_y[..., :, None])
    across = across_y[..., :, None] - across_x[..., None, :]
    return ops.square(ops.relu(along - half[..., None])) + ops.square(across)


def _nearest_in_groups(parts):
    """The minimum over all segments in few operations, and in the memory of a few channels."""
    nearest = None
    for first in range(0, parts[0].shape[2], SEGMENTS_AT_ONCE):
        group = (part[:, :, first : first + SEGMENTS_AT_ONCE] for part in parts)
        least = ops.min(_squared(*group), axis=2)
        nearest = least if nearest is None else ops.minimum(nearest, least)
    return nearest
