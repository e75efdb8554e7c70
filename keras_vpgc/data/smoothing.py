"""Tracks without jitter: filters for recorded clips and for live use, and the measure of jitter."""

import math

import numpy as np

from keras_vpgc.data.landmark_sets import RIGID_POINTS

# Standard deviation in time of the offline filter, in seconds.
WINDOW = 0.06
# Standard deviation in place, in units of each point's own noise.
RANGE = 3.5
# Half width of the low-pass filter that tells still parts, in seconds, and the speed below which a
# head is still, in face heights a second.
STILL_WINDOW, STILL_SPEED = 0.2, 0.05
# Points of which temporary copies over the whole clip are held.
BLOCK = 16


def noise_of(points) -> np.ndarray:
    """How much each point trembles.

    The second difference of white noise of deviation s has deviation s sqrt(6) on each axis. Its
    lower quartile over the clip is taken, which true motion hardly reaches.

    Args:
        points: Float `(n, p, 2 or 3)`, NaN where unknown.

    Returns:
        Float `(p,)`: standard deviation of x and of y, in the points' unit.
    """
    noise = np.zeros(points.shape[1])
    for block in _blocks(points):
        second = _second_difference(points[:, block])
        second = second[np.isfinite(second).all(axis=1)]
        if len(second):
            noise[block] = np.percentile(second, 25, axis=0)
    # Length of a normal vector in the plane: the quartile of Rayleigh's distribution.
    return noise / math.sqrt(6 * -2 * math.log(0.75))


def _blocks(points):
    """Some points at a time, so that no copies of a long track are held."""
    return [slice(first, first + BLOCK) for first in range(0, points.shape[1], BLOCK)]


def _second_difference(points):
    """Lengths `(n - 2, p)` in the picture."""
    return np.linalg.norm(np.diff(points[..., :2].astype("float64"), 2, axis=0), axis=-1)


def smooth(points, valid, times, out=None) -> np.ndarray:
    """Take the tremble out of a recorded track, without lag and without flattening blinks.

    A bilateral filter in time: a point becomes the mean of itself and the same point in the frames
    around, weighted by how near these are in time (Gaussian of 0.06 s) and in the picture (Gaussian
    of 3.5 times the point's own noise). A lid that closes or a lip that leaps is far away from
    its neighbours and keeps its place; symmetric weights do not lag. Frames that are not valid take
    no part.

    Args:
        points: Float `(n, p, 3)`, any unit.
        valid: Bool `(n,)`.
        times: Float `(n,)`, seconds.
        out: Where the result goes, `points` itself if that is wanted; default: a new array.

    Returns:
        Float32 `(n, p, 3)`, NaN where not valid.

    Example:

    ```python
    track.points = smooth(track.points, track.valid, times)
    ```

    References:
        Tomasi and Manduchi, "Bilateral filtering for gray and color images", ICCV 1998.
    """
    times, valid = np.asarray(times, "float64"), np.asarray(valid)
    result = np.empty(points.shape, "float32") if out is None else out
    for block in _blocks(points):
        known = np.where(valid[:, None, None], points[:, block], np.nan).astype("float32")
        result[:, block] = _smooth(known, valid, times)
    return result


def _smooth(points, valid, times):
    count = len(points)
    spread = np.maximum(RANGE * noise_of(points), 1e-9).astype("float32")
    step = float(np.median(np.diff(times))) if count > 1 else 1.0
    total = points.copy()
    weights = np.ones(points.shape[:2], "float32")
    for offset in range(1, 1 + math.ceil(2 * WINDOW / max(step, 1e-3))):
        early, late = slice(0, max(count - offset, 0)), slice(offset, count)
        near = np.exp(-0.5 * ((times[late] - times[early]) / WINDOW) ** 2)
        near = (near * valid[early] * valid[late]).astype("float32")
        away = np.square(points[late, :, :2] - points[early, :, :2]).sum(-1) / spread**2
        weight = near[:, None] * np.exp(-0.5 * away)
        weight[near == 0] = 0  # NaN where not valid
        for here, there in ((early, late), (late, early)):
            total[here] += weight[..., None] * np.nan_to_num(points[there])
            weights[here] += weight
    return total / weights[..., None]


class OneEuro:
    """Causal filter for live use: strong on a still face, quick on one that moves.

    The first-order low-pass filter `y += a (x - y)`, `a = 1 / (1 + 1 / (2 pi f dt))`, whose cut-off
    `f = min_cutoff + beta |dx/dt|` rises with the speed, itself low-passed at `speed_cutoff`.

    Args:
        min_cutoff: Hz; lower takes more jitter out of a still face.
        beta: Hz for each unit a second; higher lags less. The defaults are for landmarks in [0, 1]
            of a crop.
        speed_cutoff: Hz.

    Example:

    ```python
    steady = OneEuro()
    for points, time in live:
        points = steady(points, time)
    ```

    References:
        Casiez, Roussel and Vogel, "1 € filter: a simple speed-based low-pass filter for noisy input
        in interactive systems", CHI 2012.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 120.0, speed_cutoff: float = 1.0):
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self.reset()

    def reset(self) -> None:
        """Forget the past, as after a cut."""
        self.time: float | None = None
        self.value = self.speed = np.zeros(())

    def __call__(self, value, time: float) -> np.ndarray:
        """Filter the next value.

        Args:
            value: Float array of any one shape.
            time: Seconds, later than the last; a value of the same time changes nothing.

        Returns:
            Float64 array of the same shape.
        """
        value = np.asarray(value, "float64")
        if self.time is None:
            self.time, self.value, self.speed = time, value, np.zeros_like(value)
        elif time > self.time:
            step = time - self.time
            speed = (value - self.value) / step
            self.speed = self.speed + _share(self.speed_cutoff, step) * (speed - self.speed)
            cutoff = self.min_cutoff + self.beta * np.abs(self.speed)
            self.value = self.value + _share(cutoff, step) * (value - self.value)
            self.time = time
        return self.value


def _share(cutoff, step):
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step))


def still_frames(points, valid, times) -> np.ndarray:
    """In which frames does the head hardly move?

    The mean of the points that move with the skull is averaged over 0.4 s; the head is still where
    that moves by less than 0.05 face heights a second.

    Args:
        points: Float `(n, 478, 3)`, any unit, NaN where not valid.
        valid: Bool `(n,)`.
        times: Float `(n,)`, seconds, rising.

    Returns:
        Bool `(n,)`; false where the window holds a frame that is not valid.
    """
    times = np.asarray(times, "float64")
    still = np.zeros(len(times), bool)
    if len(times) < 3 or not np.any(valid):
        return still
    height = face_height(points, valid)
    half = max(1, round(STILL_WINDOW / float(np.median(np.diff(times)))))
    if len(times) < 2 * half + 3:
        return still
    middle = points[:, RIGID_POINTS, :2].astype("float64").mean(axis=1) / height
    mean = np.lib.stride_tricks.sliding_window_view(middle, 2 * half + 1, axis=0).mean(-1)
    speed = np.linalg.norm(np.gradient(mean, times[half : len(times) - half], axis=0), axis=1)
    still[half : len(times) - half] = speed < STILL_SPEED  # false for NaN
    return still


def face_height(points, valid) -> float:
    """Median height of the face over the valid frames."""
    return float(np.median(np.ptp(points[..., 1], axis=1)[np.asarray(valid)].astype("float64")))


def jitter(points, still, height: float) -> float | None:
    """How much landmarks tremble: the mean length of their second difference on still parts.

    Args:
        points: Float `(n, p, 2 or 3)`; depth takes no part.
        still: Bool `(n,)`, see `still_frames`.
        height: Height of the face in the points' unit.

    Returns:
        Thousandths of the face's height a frame squared, or `None` without three still frames on
        end.

    Example:

    ```python
    jitter(track.points, still_frames(track.points, track.valid, times), 161.0)  # 4.2
    ```
    """
    still = np.asarray(still)
    inner = still[:-2] & still[1:-1] & still[2:]
    if not inner.any():
        return None
    total = sum(_second_difference(points[:, block])[inner].sum() for block in _blocks(points))
    return float(1000 * total / (inner.sum() * points.shape[1] * height))


def fill_gaps(track, times, longest: float):
    """Fill short gaps of a track from the frames around.

    Points, blendshapes and matrices run straight from the last frame before the gap to the first
    after it; a matrix is then made orthonormal again, which over such times is the same as turning
    evenly.

    Args:
        track: A `keras_vpgc.data.tracking.Track`, changed in place.
        times: Float `(n,)`, seconds.
        longest: Seconds between two frames with the face over which a gap is filled.

    Returns:
        The track; filled frames are `interpolated` and `valid`, their confidence is the lower of
        the two ends'.
    """
    known = np.flatnonzero(track.valid)
    for before, after in zip(known[:-1], known[1:], strict=True):
        # A frame that is rounded to the millisecond does not make a gap longer.
        if after - before < 2 or times[after] - times[before] > longest + 1e-3:
            continue
        gap = np.arange(before + 1, after)
        share = (times[gap] - times[before]) / (times[after] - times[before])
        for values in (track.points, track.blendshapes, track.matrices):
            part = share.reshape(-1, *[1] * (values.ndim - 1))
            values[gap] = (1 - part) * values[before] + part * values[after]
        u, _, vt = np.linalg.svd(track.matrices[gap, :3, :3].astype("float64"))
        track.matrices[gap, :3, :3] = u @ vt
        track.confidence[gap] = min(track.confidence[before], track.confidence[after])
        track.interpolated[gap] = track.valid[gap] = True
    return track
