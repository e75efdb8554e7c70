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
    if not 0 < level < 1:
        raise VPGCError(f"A level of {level:g} is impossible: give one between 0 and 1.")
    if block < 1 or resamples < 1:
        raise VPGCError(f"block = {block} and resamples = {resamples} must both be 1 or more.")
    values = np.asarray(values, "float64")
    known = np.isfinite(values)
    count = len(values)
    if count < 2 * block or not known.any():
        return None
    # Sums of stretches by running sums, about the mean so that these stay exact.
    middle = values[known].mean()
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(np.concatenate([x, x[:block]]))])
        for x in (np.where(known, values - middle, 0), known)
    )
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, count, size=(resamples, -(-count // block)))
    lengths = np.full(starts.shape[1], block)
    lengths[-1] = count - block * (len(lengths) - 1)
    total = (sums[starts + lengths] - sums[starts]).sum(axis=1)
    weight = (counts[starts + lengths] - counts[starts]).sum(axis=1)
    means = total[weight > 0] / weight[weight > 0]
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2]) + middle
    return float(low), float(high)


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
