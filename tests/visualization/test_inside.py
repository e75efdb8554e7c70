"""The figures show the numbers."""

import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc import visualization as see
from keras_vpgc.models import PortraitAutoencoder
from tests.models.test_models import landmarks_of, puppet

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def view():
    model = PortraitAutoencoder.from_preset("vpgc_tiny", shortcuts=False)
    return see.CodebookView(model)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, size=(2, 64, 64, 3), dtype="uint8")


def maps(figure):
    return [image.get_array() for axes in figure.axes for image in axes.images]


def test_usage(view, images):
    usage = view.usage(images)
    figure = see.plot_usage(view, images)
    used, perplexity = maps(figure)[:2]
    np.testing.assert_allclose(used, 100 * usage.used)
    np.testing.assert_allclose(perplexity, usage.perplexity)
    curve = figure.axes[2].lines[0].get_ydata()
    assert len(curve) == 16 * 16 * 16 and curve[-1] == pytest.approx(1)
    assert f"perplexity {usage.total_perplexity:.0f}" in figure.axes[2].get_title()


def test_attention_of_a_clicked_place(view, images):
    figure = see.plot_attention(view, images, [(0.99, 0.01), (0.5, 0.5)])
    (weights,) = view.weights_at(view.features(images[:1]), (0, 15))
    _, over, window, pieces = maps(figure)[:4]
    np.testing.assert_allclose(window, weights.sum(2).mean(0).reshape(4, 4))
    np.testing.assert_allclose(pieces, weights.sum(2))
    # The window at the corner lies inside of the grid.
    assert over[:4, 12:].sum() == pytest.approx(1, abs=1e-5) and over[4:].sum() == 0
    assert figure.axes[0].get_title() == "cell 0,15"
    with pytest.raises(VPGCError, match="outside of the picture"):
        see.plot_attention(view, images, [(-0.1, 0.5)])


def test_traversal_changes_the_place_and_shows_by_how_much(view, images):
    figure = see.plot_traversal(view, images, (0.3, 0.6), piece=-1, count=5)
    shown = maps(figure)
    original, walked, change = shown[0], shown[1:6], shown[6:11]
    for picture, gap in zip(walked, change, strict=True):
        wanted = np.abs(picture.astype(float) - original).mean(2)
        np.testing.assert_allclose(gap, wanted)
        assert gap.max() > 0
    assert "cell 9,4, all pieces" in figure.get_suptitle()
    # One piece of eight changes less than all of them.
    one = maps(see.plot_traversal(view, images, (0.3, 0.6), count=5))[6:11]
    assert 0 < np.mean(one) < np.mean(change)
    with pytest.raises(VPGCError, match="no piece 8: give one of 0 to 7"):
        see.plot_traversal(view, images, piece=8)


def test_texture_prior(view):
    shown = maps(see.plot_texture_prior(view))
    prior = view.prior()
    np.testing.assert_array_equal(shown[0], view.decode(np.tile(prior, 8)[None])[0])
    for number in range(4):
        np.testing.assert_allclose(shown[2 + number], prior[..., number])


def test_cell_error(view, images):
    figure = see.plot_cell_error(view, images)
    found = view.decode(view.quantize(view.features(images)))
    error = maps(figure)[2]
    wanted = np.abs(found[:, 8:12, 20:24].astype(float) - images[:, 8:12, 20:24]).mean()
    assert error[2, 5] == pytest.approx(wanted, rel=1e-5)
    model = puppet()[2]
    landmarks = landmarks_of(np.random.default_rng(0))
    with pytest.raises(VPGCError, match="needs the true pictures"):
        see.plot_cell_error(model, landmarks)
    assert len(maps(see.plot_cell_error(model, landmarks, images))) == 4


def test_codes_light_up_in_different_windows(view, images):
    figure = see.plot_code_maps(view, images, count=4)
    titles = [axes.get_title() for axes in figure.axes[:4]]
    cells = [tuple(map(int, t.split()[1].rstrip(",").split(","))) for t in titles]
    for i, (row, column) in enumerate(cells):
        light = maps(figure)[2 * i + 1]
        # At the border a window of 4 reaches 3 cells away.
        assert light.max() > 0
        assert not light[: max(0, row - 3)].any() and not light[row + 4 :].any()
        assert all(max(abs(row - r), abs(column - c)) >= 4 for r, c in cells[:i])


def test_picture_of_a_figure(view, images):
    picture = see.picture_of(see.plot_usage(view, images))
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and np.ptp(picture) == 255
