"""Which of two systems is better, judged on the same frames."""

import itertools

import numpy as np

from keras_vpgc.evaluation.bootstrap import bootstrap_interval
from keras_vpgc.evaluation.protocol import ALL_COLUMNS

# Scores of which it is known what is better: whether a higher value is.
HIGHER_IS_BETTER = {
    key: "↑" in title for key, title, _ in ALL_COLUMNS if "↑" in title or "↓" in title
}


def paired_differences(
    scores: dict, frame_rate: float = 25.0, level: float = 0.95, seed: int = 0
) -> list[dict]:
    """Mean differences between systems over the frames that both have a score of.

    What makes a frame hard makes it so for all systems: their differences vary less from frame to
    frame than the scores do, so that the interval of the difference tells systems apart whose own
    intervals overlap.

    Args:
        scores: Name -> score -> float `(n,)`, in the order of time, NaN or infinite where there is
            none.
        frame_rate: Frames a second: the intervals are by stretches of one second.
        level: See `bootstrap_interval`; of each interval alone.
        seed: See there.

    Returns:
        For each pair of systems, in the order of their names in `scores`: `first`, `second`, and
        `scores`: for each score of which it is known what is better, `difference` (first less
        second), `interval` (`None`: too short to tell), `frames` (that both have), `better` (a
        name, or `None` where the interval is missing or holds 0) and `words`.

    Example:

    ```python
    paired_differences({"ours": scores, "theirs": others})[0]["scores"]["psnr"]["words"]
    # "ours is better by 0.41 [0.22, 0.60]: the interval excludes 0"
    ```
    """
    block = max(1, round(frame_rate))
    found = []
    for first, second in itertools.combinations(scores, 2):
        rows = {}
        for key, higher in HIGHER_IS_BETTER.items():
            if key not in scores[first] or key not in scores[second]:
                continue
            a, b = (np.asarray(scores[name][key], "float64") for name in (first, second))
            known = np.isfinite(a) & np.isfinite(b)
            if not known.any():
                continue
            difference = np.full(len(a), np.nan)
            difference[known] = a[known] - b[known]
            mean = float(difference[known].mean())
            interval = bootstrap_interval(difference, level, seed, block=block)
            better = None
            if interval is not None and not interval[0] <= 0 <= interval[1]:
                better = first if (mean > 0) == higher else second
            rows[key] = {
                "difference": mean,
                "interval": None if interval is None else list(interval),
                "frames": int(known.sum()),
                "better": better,
                "words": _words(first, second, mean, interval, better, higher),
            }
        found.append({"first": first, "second": second, "scores": rows})
    return found


def _words(first, second, mean, interval, better, higher):
    if mean == 0:
        return f"{first} and {second} are equal"
    if interval is None:
        ahead = first if (mean > 0) == higher else second
        return f"{ahead} is ahead by {abs(mean):.3g}: the clip is too short for an interval"
    # Rounding to fixed places would show limits near 0 as 0.
    low, high = interval
    if better is None:
        return (
            f"not told apart: {first} less {second} is {mean:.3g} [{low:.3g}, {high:.3g}], and "
            "the interval holds 0"
        )
    low, high = sorted(map(abs, interval))
    return f"{better} is better by {abs(mean):.3g} [{low:.3g}, {high:.3g}]: the interval excludes 0"


def paired_table(pairs: list[dict]) -> str:
    """The differences as Markdown, one row a pair and score.

    Args:
        pairs: What `paired_differences` returns.

    Returns:
        The table, empty for a single system.
    """
    titles = {key: title for key, title, _ in ALL_COLUMNS}
    lines = []
    for pair in pairs:
        for key, row in pair["scores"].items():
            name = f"{pair['first']} - {pair['second']}"
            lines.append(f"| {name} | {titles[key]} | {row['words']} | {row['frames']} |")
    if not lines:
        return ""
    return "\n".join(["| pair | score | difference | frames |", "|---|---|---|---|", *lines])
