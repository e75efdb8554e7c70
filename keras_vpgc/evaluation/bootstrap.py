"""How far a mean over frames may be off."""

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
