import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.landmark_sets import eye_opening
from keras_vpgc.metrics import blink_agreement, eye_closure, find_blinks

pytestmark = pytest.mark.once
RATE = 25


def opening_of(count, blinks, depth=0.9, least=0.3):
    """Both eyes of a clip, open by `least`, with blinks of five frames around these frames."""
    frames = np.arange(count)
    shut = np.zeros(count)
    for middle in blinks:
        shut = np.maximum(shut, depth * np.clip(1 - np.abs(frames - middle) / 3, 0, 1))
    return least * (1 - shut)[:, None] * [1.0, 1.1]


def test_closure_is_what_is_lost_of_the_usual_opening(rng):
    opening = rng.uniform(0.05, 0.35, (101, 2))
    wanted = np.zeros(101)
    for eye in range(2):
        # The 75th percentile of 101 values is the 76th in order.
        whole = np.sort(opening[:, eye])[75]
        wanted += np.clip((whole - opening[:, eye]) / whole, 0, 1) / 2
    np.testing.assert_allclose(eye_closure(opening), wanted, rtol=1e-12)
    opening = np.insert(opening, [0, 50], np.nan, axis=0)
    found = eye_closure(opening)
    assert np.isnan(found[[0, 51]]).all()
    np.testing.assert_allclose(np.delete(found, [0, 51]), wanted, rtol=1e-12)
    assert np.isnan(eye_closure(np.full((3, 2), np.nan))).all()
    with pytest.raises(VPGCError, match="frames x eyes"):
        eye_closure(opening[:, 0])


def test_blinks_are_short_runs_of_closed_eyes():
    closure = np.zeros(200)
    closure[0:3] = 1  # the clip begins in it
    closure[20:24] = [0.5, 0.7, 0.9, 0.6]
    closure[40] = 0.49  # half is wanted
    closure[60:80] = 1  # 0.8 s: no blink
    closure[100:104] = [0.6, np.nan, 0.8, 0.8]
    closure[198:] = 1
    times = 3 + np.arange(200) / RATE
    assert find_blinks(closure, times) == [(20, 23, 22), (100, 103, 102)]
    # A gap in time after it is no opening that was seen soon.
    times[24:] += 2
    assert find_blinks(closure, times) == [(100, 103, 102)]
    assert find_blinks(np.full(9, np.nan), times[:9]) == []


def test_blinks_agree_within_a_fifth_of_a_second_one_to_one():
    times = np.arange(300) / RATE
    true = opening_of(300, [50, 100, 150, 200])
    found = opening_of(300, [55, 106, 150, 250, 270])  # 0.2 s late, 0.24 s late, right, two false
    row = blink_agreement(true, found, times)
    assert row == {"true": 4, "predicted": 5, "matched": 2, "recall": 0.5, "precision": 0.4}
    assert blink_agreement(true, true, times)["recall"] == 1
    # Two for one count once.
    double = opening_of(300, [148, 154])
    assert blink_agreement(opening_of(300, [151]), double, times)["matched"] == 1


def test_eyes_that_stay_half_open_do_not_blink():
    times = np.arange(200) / RATE
    true = opening_of(200, [50, 100, 150])
    row = blink_agreement(true, opening_of(200, [50, 100, 150], depth=0.45), times)
    assert (row["predicted"], row["recall"], row["precision"]) == (0, 0.0, None)
    # Eyes that are wider all the time blink all the same.
    assert blink_agreement(true, 1.5 * true, times)["recall"] == 1
    still = blink_agreement(np.full((200, 2), 0.3), true, times)
    assert (still["recall"], still["precision"]) == (None, 0.0)


def test_what_is_not_seen_is_not_missed():
    times = np.arange(200) / RATE
    true, found = opening_of(200, [50, 150]), opening_of(200, [50])
    found[145:156] = np.nan
    assert blink_agreement(true, found, times)["true"] == 1


def test_openings_of_landmarks_are_read():
    points = np.zeros((1, 68, 2))
    for first, height in ((36, 0.3), (42, 0.1)):
        points[0, first : first + 6] = [[0, 0], [1, -1], [2, -1], [3, 0], [2, 1], [1, 1]]
        points[0, first : first + 6, 1] *= height * 3 / 2
    np.testing.assert_allclose(eye_opening(points), [[0.3, 0.1]], rtol=1e-6)
