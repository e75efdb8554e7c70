"""How far raters agree."""

import numpy as np

from keras_vpgc.errors import VPGCError


def krippendorff_alpha(ratings) -> float | None:
    """Krippendorff's alpha of ordinal ratings, some of which may be missing.

    `alpha = 1 - D_o / D_e`, by the coincidences `o_ck` of values within units: each ordered pair of
    ratings of a unit with `m` ratings counts `1 / (m - 1)`, and units with fewer than two ratings
    count nothing. With `n_c = sum_k o_ck`, `n = sum_c n_c` and the ordinal difference
    `d_ck = sum_{g=c..k} n_g - (n_c + n_k) / 2`,
    `alpha = 1 - (n - 1) sum o_ck d_ck^2 / sum n_c n_k d_ck^2`.

    Args:
        ratings: `(raters, units)`, numbers whose order alone counts; NaN where there is none.

    Returns:
        1 for full agreement, about 0 for chance, below for less; `None` where no unit has two
        ratings or all are alike, of which nothing can be told.

    Raises:
        VPGCError: for an array that is not two-dimensional.

    Example:

    ```python
    krippendorff_alpha([[1, 2, 3, 4], [1, 2, 4, np.nan]])
    ```

    References:
        Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, sections C and E.
    """
    ratings = np.asarray(ratings, "float64")
    if ratings.ndim != 2:
        raise VPGCError(f"Ratings of shape {ratings.shape} are no table: give raters x units.")
    values = np.unique(ratings[np.isfinite(ratings)])
    # How often each unit got each value.
    counts = (ratings[:, :, None] == values).sum(axis=0).astype("float64")
    counts = counts[counts.sum(axis=1) >= 2]
    weight = 1 / (counts.sum(axis=1, keepdims=True) - 1)
    coincidences = (counts * weight).T @ counts - np.diag((counts * weight).sum(axis=0))
    totals = coincidences.sum(axis=1)
    n = totals.sum()
    # Differences of the middles of the values' ranks are those sums.
    middles = np.cumsum(totals) - totals / 2
    difference = np.subtract.outer(middles, middles) ** 2
    expected = totals @ difference @ totals
    if not expected > 0:
        return None
    return float(1 - (n - 1) * (coincidences * difference).sum() / expected)
