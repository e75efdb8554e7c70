import math

import numpy as np
import pytest

from keras_vpgc.data.smoothing import (
    OneEuro,
    fill_gaps,
    jitter,
    noise_of,
    smooth,
    still_frames,
)
from keras_vpgc.data.tracking import Track

pytestmark = pytest.mark.once

NOISE = 0.4


def talking_head(rng, count=200, rate=25.0):
    """478 points that tremble, hold still for the first half and then wander; point 0 blinks."""
    times = np.arange(count) / rate
    face = rng.uniform(0, 160, size=(478, 3))
    path = np.where(times < times[count // 2], 0, 60 * np.sin(2 * (times - times[count // 2])))
    true = np.repeat(face[None], count, axis=0)
    true[..., 0] += path[:, None]
    for middle in (30, 70, 130):
        for offset, drop in ((-2, 3), (-1, 9), (0, 12), (1, 8), (2, 2)):
            true[middle + offset, 0, 1] += drop
    return true, (true + rng.normal(scale=NOISE, size=true.shape)).astype("float32"), times


def test_noise_is_measured_through_motion(rng):
    _, points, _ = talking_head(rng)
    assert abs(np.median(noise_of(points)) / NOISE - 1) < 0.1


def test_smoothing_takes_tremble_out_and_leaves_blinks_and_motion(rng):
    true, points, times = talking_head(rng)
    valid = np.ones(len(points), bool)
    found = smooth(points, valid, times)
    still = still_frames(points, valid, times)
    before, after = jitter(points, still, 160.0), jitter(found, still, 160.0)
    assert after < 0.6 * before
    # Nearer to the truth in every half, and without lag while the head moves.
    for part in (slice(5, 95), slice(105, 195)):
        assert (
            np.square(found[part] - true[part]).mean() < np.square(points[part] - true[part]).mean()
        )
    shift = (found - true)[105:195, :, 0].mean(axis=1)
    speed = np.gradient(true[:, 1, 0])[105:195]
    assert abs(np.polyfit(speed, shift, 1)[0]) < 0.02  # frames of lag
    for middle in (30, 70, 130):
        assert abs(found[middle, 0, 1] - points[middle, 0, 1]) < 0.07 * 12


def test_smoothing_does_not_reach_over_invalid_frames(rng):
    _, points, times = (part[:40] for part in talking_head(rng))
    valid = np.ones(40, bool)
    valid[10:13] = False
    points[~valid] = np.nan
    found = smooth(points, valid, times)
    assert np.isnan(found[~valid]).all() and np.isfinite(found[valid]).all()
    junk = points.copy()
    junk[~valid] = 1e6
    np.testing.assert_array_equal(smooth(junk, valid, times), found)
    one = smooth(points[:1], valid[:1], times[:1])
    np.testing.assert_array_equal(one, points[:1])


def test_one_euro_is_the_published_filter(rng):
    """Casiez et al., CHI 2012, algorithm 1, a number at a time."""
    times = np.cumsum(rng.uniform(0.01, 0.05, size=60))
    values = np.cumsum(rng.normal(size=(60, 2, 3)), axis=0)
    steady = OneEuro(min_cutoff=0.7, beta=0.3, speed_cutoff=1.2)
    found = np.stack([steady(value, time) for value, time in zip(values, times, strict=True)])

    def alpha(cutoff, step):
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / step)

    for place in np.ndindex(2, 3):
        x, dx = values[(0, *place)], 0.0
        for i in range(1, 60):
            step, raw = times[i] - times[i - 1], values[(i, *place)]
            a = alpha(1.2, step)
            dx = a * (raw - x) / step + (1 - a) * dx
            a = alpha(0.7 + 0.3 * abs(dx), step)
            x = a * raw + (1 - a) * x
            assert abs(found[(i, *place)] - x) < 1e-9
    # The same time again changes nothing; after a cut it starts anew.
    np.testing.assert_array_equal(steady(values[0], times[-1]), found[-1])
    steady.reset()
    np.testing.assert_array_equal(steady(values[0], 0.0), values[0])


def test_one_euro_steadies_a_still_face_and_follows_a_quick_one(rng):
    times = np.arange(100) / 25
    step = np.where(times < 2, 0.2, 0.5)
    noisy = step + rng.normal(scale=4e-4, size=100)
    steady = OneEuro()
    found = np.array([float(steady(value, time)) for value, time in zip(noisy, times, strict=True)])
    assert np.diff(found[5:50], 2).std() < 0.6 * np.diff(noisy[5:50], 2).std()
    assert abs(found[52] - 0.5) < 0.02  # two frames after the leap


def test_still_frames_and_jitter_are_what_they_say():
    times = np.arange(100) / 25
    face = np.random.default_rng(0).uniform(0, 1, size=(478, 3))
    face[0], face[1] = [0.5, 0, 0], [0.5, 1, 0]  # one unit high
    points = np.repeat(face[None], 100, axis=0)
    points[50:, :, 0] += np.linspace(0, 1, 50)[:, None]  # half a height a second
    still = still_frames(points, np.ones(100, bool), times)
    assert still[10:44].all() and not still[56:90].any()
    points[::2, :, 1] += 0.001  # up and down by one thousandth: second difference of two
    assert abs(jitter(points, still, 1.0) - 2) < 1e-6
    assert jitter(points, np.zeros(100, bool), 1.0) is None
    assert not still_frames(points[:2], np.ones(2, bool), times[:2]).any()


def rotation(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_short_gaps_are_filled_by_time_and_long_ones_are_not(rng):
    times = np.array([0, 0.1, 0.2, 0.35, 0.4, 0.5, 1.2, 1.3])
    track = Track.empty(8)
    for i, angle in ((0, 0.0), (1, 0.1), (4, 0.5), (5, 0.5), (7, 0.6)):
        track.points[i] = i
        track.blendshapes[i] = i / 10
        track.matrices[i] = np.eye(4)
        track.matrices[i, :3, :3] = rotation(angle)
        track.matrices[i, 0, 3] = i
        track.confidence[i] = 0.9
        track.valid[i] = True
    track.confidence[4] = 0.6
    fill_gaps(track, times, 0.5)
    assert track.interpolated.tolist() == [False, False, True, True, False, False, False, False]
    assert track.valid.tolist() == [True] * 6 + [False, True]
    # A third and five sixths of the way from 1 to 4.
    np.testing.assert_allclose(track.points[2], 2, atol=1e-5)
    np.testing.assert_allclose(track.points[3], 3.5, atol=1e-5)
    np.testing.assert_allclose(track.blendshapes[3], 0.35, atol=1e-6)
    np.testing.assert_allclose(track.matrices[2, 0, 3], 2, atol=1e-5)
    for i, share in ((2, 1 / 3), (3, 5 / 6)):
        turned = track.matrices[i, :3, :3]
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(turned, rotation(0.1 + 0.4 * share), atol=5e-3)
    assert track.confidence[2] == pytest.approx(0.6)
    assert np.isnan(track.points[6]).all() and track.confidence[6] == 0
