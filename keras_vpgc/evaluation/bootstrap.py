"""How far a mean may be off: over frames of a clip, or over raters and clips."""

import numpy as np

from keras_vpgc.errors import VPGCError


def bootstrap_interval(
    values, level: float = 0.95, seed: int = 0, *, block: int = 25, resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile interval of a mean over frames, by the circular block bootstrap.

    Neighbouring frames are alike, so that drawing single frames would make the interval far too
    narrow: stretches of `block` frames, which may begin anywhere, are drawn and joined to the
    length of the clip. Those that reach its end go on at its beginning, so that all frames come
    equally often: else the first and last would count less, and short clips' intervals would lie
    beside their means. It tells what other frames of this clip might give, not other clips.

    Args:
        values: Float `(n,)`, in the order of time; NaN or infinite where a frame has no value.
        level: Part of the resampled means that the interval holds.
        seed: Seed of the draws.
        block: Frames of a stretch: those of one second.
        resamples: Number of draws.

    Returns:
        Lower and upper end, or `None` for less than two stretches: too short to tell.

    Raises:
        VPGCError: for a level outside of (0, 1), a block or number of draws below 1.

    Example:

    ```python
    bootstrap_interval(scores["psnr"], block=25)  # (30.9, 31.6)
    ```

    References:
        Politis and Romano, "A Circular Block-Resampling Procedure for Stationary Data", in
        "Exploring the Limits of Bootstrap", 1992, after Künsch, Annals of Statistics 17(3), 1989.
    """
    _check(level, block, resamples)
    values = np.asarray(values, "float64")
    known = np.isfinite(values)
    if len(values) < 2 * block or not known.any():
        return None
    # Sums of stretches by running sums, about the mean so that these stay exact.
    middle = values[known].mean()
    columns = np.stack([np.where(known, values - middle, 0), known], axis=1)
    total, weight = _resampled_sums(columns, seed, block, resamples).T
    means = total[weight > 0] / weight[weight > 0]
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2]) + middle
    return float(low), float(high)


def bootstrap_correlation(
    x, y, level: float = 0.95, seed: int = 0, *, block: int = 25, resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile interval of a correlation over time, by the circular block bootstrap.

    Pairs of values are drawn as `bootstrap_interval` draws values.

    Args:
        x: Float `(n,)`, or `(n, k)` for the mean of the correlations of k columns; in the order of
            time, NaN where a frame has no value.
        y: The same.
        level, seed, block, resamples: See `bootstrap_interval`.

    Returns:
        Lower and upper end of Pearson's correlation, or `None` for less than two stretches, or
        where x or y does not change.

    Raises:
        VPGCError: for arrays of two shapes, a level outside of (0, 1), a block or number of draws
            below 1.

    Example:

    ```python
    bootstrap_correlation(driving_mouth, result_mouth, block=25)  # (0.81, 0.93)
    ```

    References:
        See `bootstrap_interval`.
    """
    _check(level, block, resamples)
    x, y = (np.asarray(values, "float64") for values in (x, y))
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise VPGCError(
            "Two arrays (n,) or (n, k) of one shape are correlated; received "
            f"{x.shape} and {y.shape}."
        )
    if len(x) < 2 * block:
        return None
    found = []
    for a, b in zip(x.reshape(len(x), -1).T, y.reshape(len(y), -1).T, strict=True):
        known = np.isfinite(a) & np.isfinite(b)
        if not known.any() or not np.ptp(a[known]) or not np.ptp(b[known]):
            return None
        a, b = (np.where(known, v - v[known].mean(), 0) / v[known].std() for v in (a, b))
        columns = np.stack([known, a, b, a * a, b * b, a * b], axis=1)
        n, *sums = _resampled_sums(columns, seed, block, resamples).T
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b, aa, bb, ab = (v / n for v in sums)
            found.append((ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b)))
    means = np.mean(found, axis=0)
    means = means[np.isfinite(means)]
    if not len(means):
        return None
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _check(level, block, resamples):
    if not 0 < level < 1:
        raise VPGCError(f"A level of {level:g} is impossible: give one between 0 and 1.")
    if block < 1 or resamples < 1:
        raise VPGCError(f"block = {block} and resamples = {resamples} must both be 1 or more.")


def _resampled_sums(columns, seed, block, resamples):
    """Sums `(resamples, k)` of columns `(n, k)` over stretches that may begin anywhere."""
    count = len(columns)
    running = np.concatenate([columns, columns[:block]]).cumsum(0, dtype="float64")
    running = np.concatenate([np.zeros((1, columns.shape[1])), running])
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, count, size=(resamples, -(-count // block)))
    lengths = np.full(starts.shape[1], block)
    lengths[-1] = count - block * (len(lengths) - 1)
    return np.stack([(c[starts + lengths] - c[starts]).sum(axis=1) for c in running.T], axis=1)


def crossed_interval(
    values, level: float = 0.95, seed: int = 0, *, resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile interval of a mean over raters and clips, by the two-way bootstrap.

    Ratings by one person are alike, and so are those of one clip. Raters and clips are therefore
    drawn independently, both with replacement, and a rating counts as often as its rater times its
    clip were drawn. The interval tells what other raters and other clips like these might give; it
    is rather too wide than too narrow, but with a handful of either a rough one. With one clip only
    raters are drawn: then it tells nothing of other clips.

    Args:
        values: Float `(raters, clips)`; NaN where there is no rating.
        level: Part of the resampled means that the interval holds.
        seed: Seed of the draws: equal seeds draw equally for arrays of one shape.
        resamples: Number of draws.

    Returns:
        Lower and upper end, or `None` for less than two raters: too few to tell.

    Raises:
        VPGCError: for another shape, a level outside of (0, 1) or a number of draws below 1.

    Example:

    ```python
    crossed_interval([[4, 5, 3], [5, 5, 4], [3, 4, np.nan]])
    ```

    References:
        Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007; McCullagh,
        "Resampling and exchangeable arrays", Bernoulli 6(2), 2000.
    """
    if not 0 < level < 1:
        raise VPGCError(f"A level of {level:g} is impossible: give one between 0 and 1.")
    if resamples < 1:
        raise VPGCError(f"resamples = {resamples} must be 1 or more.")
    values = np.asarray(values, "float64")
    if values.ndim != 2:
        raise VPGCError(f"Values of shape {values.shape} are no table: give raters x clips.")
    known = np.isfinite(values)
    if known.any(axis=1).sum() < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) for n in values.shape]
    total, weight = (
        np.einsum("br,rc,bc->b", drawn[0], x, drawn[1], optimize=True)
        for x in (np.where(known, values, 0), known.astype("float64"))
    )
    means = total[weight > 0] / weight[weight > 0]
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
