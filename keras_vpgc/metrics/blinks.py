"""Blinks: when eyes close, and whether they do so when the true ones do."""

from typing import Any

import numpy as np

from keras_vpgc.errors import VPGCError

# An eye that has lost this part of its opening is in a blink, if it opens again this soon (s).
BLINK = 0.5
LONGEST_BLINK = 0.6
# Open is this percentile of a clip's opening: eyes are closed or narrowed in less than a quarter.
OPEN = 75
# Blinks whose deepest frames lie at most this far apart (s) are the same.
TOGETHER = 0.2


def eye_closure(opening) -> np.ndarray:
    """Part of their opening that eyes have lost, against the clip's own open eyes.

    Args:
        opening: Float `(n, eyes)`, see `keras_vpgc.data.landmark_sets.eye_opening`; NaN where no
            face was found.

    Returns:
        Float64 `(n,)`: 0 open to 1 closed, the mean of the eyes; NaN where the opening is. Open is
        the 75th percentile of each eye.

    Raises:
        VPGCError: for an array of another shape.

    Example:

    ```python
    eye_closure(eye_opening(landmarks))
    ```
    """
    opening = np.asarray(opening, "float64")
    if opening.ndim != 2:
        raise VPGCError(f"Openings of shape {opening.shape} are no table: give frames x eyes.")
    known = np.isfinite(opening).all(1)
    result = np.full(len(opening), np.nan)
    if known.any():
        whole = np.maximum(np.percentile(opening[known], OPEN, axis=0), 1e-9)
        result[known] = np.clip(1 - opening[known] / whole, 0, 1).mean(1)
    return result


def find_blinks(closure, times) -> list[tuple[int, int, int]]:
    """Blinks: runs of frames in which the eyes lose half of their opening and open again.

    Args:
        closure: Float `(n,)`, see `eye_closure`; frames with NaN are passed over.
        times: Float `(n,)`, rising, seconds.

    Returns:
        First, last and most closed frame of each run that ends within 0.6 s; a run at an end of
        the clip is none, as it may be half a blink, or longer than it looks.

    Example:

    ```python
    find_blinks(eye_closure(eye_opening(landmarks)), np.arange(len(landmarks)) / 25)
    ```
    """
    closure, times = (np.asarray(x, "float64") for x in (closure, times))
    known = np.flatnonzero(np.isfinite(closure))
    shut = np.concatenate([[False], closure[known] >= BLINK, [False]])
    starts, ends = np.flatnonzero(np.diff(shut.astype(int))).reshape(-1, 2).T
    found = []
    for start, end in zip(starts, ends, strict=True):
        if start == 0 or end == len(known):
            continue
        run = known[start:end]
        if times[known[end]] - times[run[0]] <= LONGEST_BLINK:
            deepest = run[np.argmax(closure[run])]
            found.append((int(run[0]), int(run[-1]), int(deepest)))
    return found


def blink_agreement(true, predicted, times) -> dict[str, Any]:
    """Are there blinks where the true eyes blink, and only there?

    Args:
        true: Float `(n, eyes)`, opening of the true eyes, NaN where no face was found.
        predicted: The same of the predicted ones.
        times: Float `(n,)`, seconds.

    Returns:
        JSON-able dict: `true` and `predicted`, numbers of blinks; `matched`, how many of these are
        the same (their most closed frames at most 0.2 s apart, one to one); `recall`, matched of
        the true ones, and `precision`, matched of the predicted ones, `None` where there are none.

    Example:

    ```python
    blink_agreement(eye_opening(true), eye_opening(found), times)["recall"]
    ```
    """
    times = np.asarray(times, "float64")
    true, predicted = (np.asarray(x, "float64") for x in (true, predicted))
    # Of frames that show both faces: what cannot be seen is not missed.
    known = np.isfinite(true).all(1) & np.isfinite(predicted).all(1)
    moments = []
    for opening in (true, predicted):
        closure = eye_closure(np.where(known[:, None], opening, np.nan))
        moments.append([times[deepest] for _, _, deepest in find_blinks(closure, times)])
    matched, i, j = 0, 0, 0
    # In the order of time this finds as many pairs as there can be.
    while i < len(moments[0]) and j < len(moments[1]):
        apart = moments[0][i] - moments[1][j]
        if abs(apart) <= TOGETHER + 1e-9:
            matched, i, j = matched + 1, i + 1, j + 1
        elif apart < 0:
            i += 1
        else:
            j += 1
    counts = [len(x) for x in moments]
    return {
        "true": counts[0],
        "predicted": counts[1],
        "matched": matched,
        "recall": matched / counts[0] if counts[0] else None,
        "precision": matched / counts[1] if counts[1] else None,
    }
