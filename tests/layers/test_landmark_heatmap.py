"""The drawing of landmarks against OpenCV's and against its definition."""

import numpy as np
import pytest

from examples.animated_portrait import LANDMARKS
from keras_vpgc import VPGCError
from keras_vpgc.layers import LandmarkHeatmap
from keras_vpgc.layers.landmark_heatmap import CONTOURS
from tests.layers.layer_case import to_numpy

# OpenCV draws lines of thickness 8 k as 8 k + 1 pixels wide (measured): on a canvas of 8 times the
# size that is k + 1/8 pixels of the picture.
FINE = 8


def with_irises(face, gaze):
    """Irises of a fifth of the eye's width in the middle of the eyes, moved by `gaze`."""
    points = [face]
    for corner, other in ((36, 39), (42, 45)):
        radius = np.linalg.norm(face[other] - face[corner]) / 5
        centre = (face[corner] + face[other]) / 2 + gaze
        points.append(centre[None])
        points.append(centre + radius * np.array([[1, 0], [0, -1], [-1, 0], [0, 1]]))
    return np.concatenate(points)


def faces(rng, count):
    """The example's face turned, scaled, moved (some over the edge) and with an expression."""
    result = []
    for _ in range(count):
        turn, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.7, 1.8)
        rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        face = with_irises(LANDMARKS, rng.uniform(-0.01, 0.01, size=2))
        face = face + rng.normal(size=face.shape) * 0.004
        result.append((face - 0.5) @ rotation.T + 0.5 + rng.uniform(-0.2, 0.2, size=2))
    return np.stack(result).astype("float32")


def opencv(landmarks, size, line_width):
    """Coverage of the pixels by OpenCV's lines, and the width that these have."""
    cv2 = pytest.importorskip("cv2")
    canvas = np.zeros((size * FINE, size * FINE), "uint8")
    for indices, closed in CONTOURS["ibug-68-iris"]:
        # OpenCV counts from the middle of the first pixel, in 1/16 here.
        line = np.rint((landmarks[list(indices)] * size * FINE - 0.5) * 16).astype("int32")
        cv2.polylines(canvas, [line], closed, 255, line_width * FINE, cv2.LINE_8, 4)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / 255.0


def beside(mask):
    """Pixels of a mask and their eight neighbours."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any(
        [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0
    )


@pytest.mark.parametrize("size, line_width", [(512, 2), (128, 1)])
def test_agrees_with_opencv_to_within_antialiasing(size, line_width, rng):
    anywhere = rng.uniform(-0.2, 1.2, size=(1, 78, 2)).astype("float32")
    landmarks = np.concatenate([faces(rng, 4), anywhere])
    layer = LandmarkHeatmap(size, line_width + 1 / FINE, "ibug-68-iris")
    found = to_numpy(layer(landmarks[None]))[0]
    for i, points in enumerate(landmarks):
        ours, theirs = found[..., i], opencv(points, size, line_width)
        difference = np.abs(ours - theirs)
        drawn = (ours > 0) | (theirs > 0)
        assert drawn.sum() > 200
        assert difference[drawn].mean() < 0.06
        # Half a pixel is covered twice where lines cross; a distance knows one line only.
        assert difference.max() < 0.6
        assert not ((ours > 0.5) & ~beside(theirs > 0.5)).any()
        assert not ((theirs > 0.5) & ~beside(ours > 0.5)).any()


@pytest.mark.parametrize("size, width", [(512, 2), (256, 1), (128, 1)])
def test_lines_are_2_pixels_at_512_in_proportion_and_not_below_1(size, width):
    layer = LandmarkHeatmap(size, contours=[([0, 1], False)])
    across = np.array([[[[-1, 0.4], [2, 0.4]]]], "float32")
    column = to_numpy(layer(across))[0, :, size // 2, 0]
    assert column.sum() == pytest.approx(width, abs=1e-3)
    assert (column @ (np.arange(size) + 0.5)) / width == pytest.approx(0.4 * size, abs=0.3)


def test_measures_the_distance_to_a_line():
    layer = LandmarkHeatmap(8, line_width=2, contours=[([0, 1], False)])
    # From (2, 4) to (6, 4) in pixels: pixel centres lie 0.5, 1.5, ... from it.
    landmarks = np.array([[[[0.25, 0.5], [0.75, 0.5]]]], "float32")
    found = to_numpy(layer(landmarks))[0, :, :, 0]
    np.testing.assert_allclose(found[:, 4], [0, 0, 0, 1, 1, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[4, 1], 1.5 - np.hypot(0.5, 0.5), atol=1e-5)


def test_value_is_the_clipped_distance_in_float64(rng):
    """Every pixel of a picture that is not square, by the textbook's distance to a segment."""
    height, width = 24, 40
    points = rng.uniform(-0.3, 1.3, size=(3, 5, 2))
    contours = (((0, 1, 2), True), ((3, 4), False))
    found = to_numpy(LandmarkHeatmap((height, width), 1.5, contours)(points[None].astype("f4")))
    segments = [(0, 1), (1, 2), (2, 0), (3, 4)]
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    for frame in range(3):
        pixels = points[frame] * [width, height]
        distances = []
        for a, b in segments:
            along = pixels[b] - pixels[a]
            part = np.clip((centres - pixels[a]) @ along / (along @ along), 0, 1)
            distances.append(np.linalg.norm(centres - pixels[a] - part[..., None] * along, axis=-1))
        wanted = np.clip(1.25 - np.min(distances, axis=0), 0, 1)
        np.testing.assert_allclose(found[0, ..., frame], wanted, atol=1e-4)


def test_survives_equal_points():
    found = to_numpy(LandmarkHeatmap(16, 3)(np.full((1, 1, 68, 2), 0.5, "float32")))[0, ..., 0]
    # The one point left is a dot.
    y, x = np.mgrid[:16, :16] + 0.5
    wanted = np.clip(2 - np.hypot(x - 8, y - 8), 0, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_irises_are_added_to_the_contours_of_68(rng):
    points = faces(rng, 2)
    with_iris = to_numpy(LandmarkHeatmap(64, contours="ibug-68-iris")(points[None]))
    without = to_numpy(LandmarkHeatmap(64)(points[None, :, :68]))
    irises = to_numpy(LandmarkHeatmap(64, contours=CONTOURS["ibug-68-iris"][-2:])(points[None]))
    np.testing.assert_array_equal(with_iris, np.maximum(without, irises))
    assert (with_iris != without).any()


@pytest.mark.parametrize("shape", [(1, 68, 2), (1, 1, 68, 3), (1, 1, 60, 2)])
def test_refuses_other_shapes(shape):
    with pytest.raises(VPGCError, match="68, 2"):
        LandmarkHeatmap(16)(np.zeros(shape, "float32"))


def test_refuses_unknown_sets_and_nothing_to_draw():
    with pytest.raises(VPGCError, match="no landmark set 'ibug-98': choose one of ibug-68, ibug"):
        LandmarkHeatmap(16, contours="ibug-98")
    with pytest.raises(VPGCError, match="78, 2"):
        LandmarkHeatmap(16, contours="ibug-68-iris")(np.zeros((1, 1, 68, 2), "float32"))
    with pytest.raises(VPGCError, match="at least one contour"):
        LandmarkHeatmap(16, contours=[([0], False)])
