import numpy as np
import pytest
from scipy import ndimage

from keras_vpgc.data.moves import Moves, draw_moves, move, move_landmarks, move_on_device
from tests.layers.layer_case import to_numpy

MOVES = Moves(
    np.array([1.0, 1.1, 0.9, 1.0], "float32"),
    np.array([0.0, 0.2, -0.15, np.pi / 2], "float32"),
    np.array([[0.0, 0.0], [4.5, -3.0], [-2.25, 6.0], [0.0, 0.0]], "float32"),
)


def picture(rng, size=64):
    """Noise with detail of a pixel and a half."""
    image = ndimage.gaussian_filter(rng.normal(size=(size, size)), 0.8)
    image = np.clip(128 + 40 * image / image.std(), 0, 255).round().astype("uint8")
    return np.stack([image, 255 - image, image // 2], -1)


@pytest.mark.parametrize("function", [move, move_on_device])
def test_images_are_enlarged_turned_and_shifted(function, rng):
    image = picture(rng)
    moved = to_numpy(function(np.stack([image] * 4), MOVES))
    np.testing.assert_array_equal(moved[0], image)
    # A quarter, clockwise as one sees it.
    np.testing.assert_allclose(moved[3].astype(int), np.rot90(image, -1), atol=1)
    rows, columns = np.mgrid[:64, :64] - 31.5
    for found, factor, angle, shift in zip(moved, *MOVES, strict=True):
        x, y = columns - shift[0], rows - shift[1]
        back = np.linalg.inv(
            factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        )
        place = 31.5 + np.stack([back[1, 0] * x + back[1, 1] * y, back[0, 0] * x + back[0, 1] * y])
        wanted, linear = (
            ndimage.map_coordinates(image[..., 0].astype("float64"), place, order=o, mode="nearest")
            for o in (3, 1)
        )
        off = np.abs(found[..., 0] - np.clip(wanted, 0, 255)).mean()
        # Of a finer interpolation than a linear one, which takes half of the detail.
        assert off < max(0.5, 0.5 * np.abs(linear - wanted).mean())


def test_device_and_host_move_alike(rng):
    images = np.stack([picture(rng) for _ in range(4)])
    found = to_numpy(move_on_device(images, MOVES)).astype(int)
    # OpenCV's coordinates are multiples of 1/32 pixel.
    assert np.abs(found - move(images, MOVES)).mean() < 1.5


@pytest.mark.once
def test_landmarks_move_with_their_image():
    points = np.array([[0.3, 0.4], [0.5, 0.5], [0.62, 0.7]])
    image = np.zeros((128, 128, 3), "uint8")
    shown = []
    for x, y in points:
        bright = image.copy()
        bright[int(y * 128) - 2 : int(y * 128) + 3, int(x * 128) - 2 : int(x * 128) + 3] = 255
        places = []
        for part in move(np.stack([bright] * 4), MOVES):
            places.append((np.argwhere(part[..., 0] > 100).mean(0)[::-1] + 0.5) / 128)
        shown.append(places)
    drawn = (np.floor(points * 128) + 0.5) / 128
    found = move_landmarks(np.tile(drawn, (4, 1, 1, 1)), MOVES, 128)
    assert found.shape == (4, 1, 3, 2)
    np.testing.assert_allclose(found[:, 0], np.moveaxis(shown, 0, 1), atol=0.6 / 128)


@pytest.mark.once
def test_moves_are_drawn_within_their_bounds():
    moves = draw_moves(np.random.default_rng(0), 400, 0.1, 512, share=0.5)
    assert 150 < moves.moved().sum() < 250
    still = moves.part(~moves.moved())
    assert (still.factors == 1).all() and not still.angles.any() and not still.shifts.any()
    for values, bound in ((moves.factors - 1, 0.1), (moves.angles, 0.2), (moves.shifts, 25.6)):
        assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
        assert abs(values.mean()) < 0.2 * bound
    assert draw_moves(np.random.default_rng(0), 400, 0.1, 512).moved().all()
