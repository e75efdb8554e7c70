import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.evaluation import bootstrap_interval

pytestmark = pytest.mark.once


def correlated(rng, count, keep=0.9):
    """A series whose neighbours are alike, of mean 0."""
    values = np.zeros(count)
    values[0] = rng.normal() / np.sqrt(1 - keep**2)
    for i in range(1, count):
        values[i] = keep * values[i - 1] + rng.normal()
    return values


def test_interval_holds_the_mean_of_correlated_frames_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits, naive = 0, 0
    for _ in range(200):
        values = correlated(rng, 1000)
        low, high = bootstrap_interval(values, block=50, resamples=300)
        hits += low < 0 < high
        low, high = bootstrap_interval(values, block=1, resamples=300)
        naive += low < 0 < high
    # Single frames claim far too much.
    assert 0.86 < hits / 200 <= 0.99
    assert naive / 200 < 0.6


def test_of_single_frames_it_is_the_ordinary_interval(rng):
    values = 5 + rng.normal(size=4000)
    low, high = bootstrap_interval(values, block=1)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    narrow = bootstrap_interval(values, 0.5, block=1)
    assert low < narrow[0] < narrow[1] < high


def test_it_is_that_of_a_plain_loop(rng):
    values = rng.normal(size=83) + 100
    values[[5, 40]] = np.nan, np.inf
    draws = np.random.default_rng(3).integers(0, 83, size=(50, 9))
    means = []
    for starts in draws:
        # A stretch goes on at the beginning.
        drawn = np.concatenate([np.roll(values, -s)[:10] for s in starts])[:83]
        means.append(drawn[np.isfinite(drawn)].mean())
    found = bootstrap_interval(values, seed=3, block=10, resamples=50)
    np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), rtol=1e-9)
    assert found == bootstrap_interval(values, seed=3, block=10, resamples=50)


def test_interval_of_a_short_clip_lies_about_its_mean():
    """Frames at the ends count as much as those between."""
    values = np.r_[np.zeros(20), np.ones(40), np.zeros(20)]
    low, high = bootstrap_interval(values, block=25)
    assert low < 0.5 < high
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.06)


def test_what_is_too_short_to_tell():
    assert bootstrap_interval(np.ones(49), block=25) is None
    assert bootstrap_interval(np.full(99, np.nan), block=25) is None
    assert bootstrap_interval(np.ones(50), block=25) == (1.0, 1.0)
    with pytest.raises(VPGCError, match="level of 95"):
        bootstrap_interval(np.ones(50), 95)
    with pytest.raises(VPGCError, match="block = 0"):
        bootstrap_interval(np.ones(50), block=0)
