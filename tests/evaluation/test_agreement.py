import itertools

import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.evaluation import crossed_interval, krippendorff_alpha

pytestmark = pytest.mark.once

_ = np.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C: four observers.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


def by_pairs(ratings):
    """The definition written out: differences within units over those of all ratings."""
    ratings = np.asarray(ratings, "float64")
    units = [[v for v in column if v == v] for column in ratings.T]
    units = [unit for unit in units if len(unit) > 1]
    pool = [v for unit in units for v in unit]

    def difference(a, b):
        a, b = min(a, b), max(a, b)
        between = sum(a <= v <= b for v in pool)
        return (between - (pool.count(a) + pool.count(b)) / 2) ** 2

    observed = sum(
        difference(a, b) / (len(unit) - 1)
        for unit in units
        for a, b in itertools.permutations(unit, 2)
    ) / len(pool)
    pairs = list(itertools.permutations(pool, 2))
    return 1 - observed / (sum(difference(a, b) for a, b in pairs) / len(pairs))


def test_published_example_of_ordinal_data_with_missing_values():
    assert krippendorff_alpha(OBSERVERS) == pytest.approx(0.815, abs=5e-4)


def test_is_the_definition_written_out(rng):
    for _round in range(10):
        truth = rng.integers(1, 6, size=12)
        ratings = np.clip(truth + rng.integers(-1, 2, size=(5, 12)), 1, 5).astype("float64")
        ratings[rng.random(ratings.shape) < 0.3] = np.nan
        assert krippendorff_alpha(ratings) == pytest.approx(by_pairs(ratings), abs=1e-12)


def test_ends_of_the_scale(rng):
    assert krippendorff_alpha([[1, 2, 5]] * 3) == 1
    assert krippendorff_alpha([[1, 5], [5, 1]]) < 0
    assert abs(krippendorff_alpha(rng.integers(1, 6, size=(20, 400)))) < 0.02
    # Only the order of the values counts.
    assert krippendorff_alpha(np.exp(OBSERVERS)) == pytest.approx(krippendorff_alpha(OBSERVERS))
    assert krippendorff_alpha([[3, 3], [3, 3]]) is None
    assert krippendorff_alpha([[3, np.nan], [np.nan, 4]]) is None
    with pytest.raises(VPGCError, match="raters x units"):
        krippendorff_alpha([1, 2])


def test_crossed_interval_holds_the_mean_over_other_raters_and_clips():
    rng = np.random.default_rng(1)
    hits, single = 0, 0
    for _round in range(200):
        raters, clips = rng.normal(size=(15, 1)), rng.normal(size=(1, 12))
        values = raters + clips + 0.5 * rng.normal(size=(15, 12))
        low, high = crossed_interval(values, resamples=300)
        hits += low < 0 < high
        # As if every rating were another person's of another clip.
        error = 1.96 * values.std() / np.sqrt(values.size)
        single += abs(values.mean()) < error
    assert 0.88 < hits / 200 <= 0.99
    assert single / 200 < 0.6


def test_crossed_interval_of_what_is_missing(rng):
    values = rng.integers(1, 6, size=(6, 4)).astype("float64")
    whole = crossed_interval(values)
    assert whole[0] < values.mean() < whole[1]
    values[0, 1:] = np.nan
    low, high = crossed_interval(values)
    assert low < np.nanmean(values) < high
    assert crossed_interval(values[:1]) is None
    # One clip: raters alone.
    low, high = crossed_interval(values[:, :1])
    assert low < values[:, 0].mean() < high
    assert crossed_interval(np.full((3, 2), 4.0)) == (4, 4)
    for bad in ({"level": 1}, {"resamples": 0}):
        with pytest.raises(VPGCError):
            crossed_interval(values, **bad)
    with pytest.raises(VPGCError, match="raters x clips"):
        crossed_interval([1.0, 2.0])
