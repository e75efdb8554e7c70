import numpy as np
import pytest

from examples.animated_portrait import animate, write
from keras_vpgc.data.landmark_sets import eye_opening, mouth_opening
from keras_vpgc.data.video import probe

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def ten_seconds():
    frames, landmarks = zip(*animate(250, size=128), strict=True)
    return np.stack(frames), np.stack(landmarks)


def test_head_turns_mouth_opens_and_eyes_blink(ten_seconds):
    frames, landmarks = ten_seconds
    assert frames.shape == (250, 128, 128, 3) and frames.dtype == np.uint8
    assert landmarks.shape == (250, 68, 2)
    assert 0 < landmarks.min() and landmarks.max() < 1
    # Yaw: the nose's tip moves against the middle of the face.
    yaw = landmarks[:, 30, 0] - landmarks[:, [0, 16], 0].mean(1)
    assert np.ptp(yaw) > 0.03
    mouth, eyes = mouth_opening(landmarks), eye_opening(landmarks).mean(1)
    assert mouth.min() < 0.05 and mouth.max() > 0.3
    blinks = np.flatnonzero(np.diff((eyes < 0.1).astype(int)) == 1)
    assert 2 <= len(blinks) <= 5
    # The background stands still.
    assert frames[:, 8:40, :6].astype(float).std(0).max() < 4


def test_picture_shows_what_the_landmarks_say(ten_seconds):
    frames, landmarks = ten_seconds
    inside = []
    for frame, points in zip(frames, landmarks, strict=True):
        x, y = np.rint(points[[62, 66]].mean(0) * 128 - 0.5).astype(int)
        inside.append(frame[y - 1 : y + 2, x - 1 : x + 2].mean())
    opening = mouth_opening(landmarks)
    wide, shut = opening > np.quantile(opening, 0.95), opening < np.quantile(opening, 0.3)
    assert np.mean(np.array(inside)[wide]) < np.mean(np.array(inside)[shut]) - 40


def test_seed_decides_and_length_does_not(ten_seconds):
    frames, landmarks = ten_seconds
    again, points = zip(*animate(5, size=128), strict=True)
    np.testing.assert_array_equal(frames[:5], again)
    np.testing.assert_array_equal(landmarks[:5], points)
    other, _ = zip(*animate(5, size=128, seed=1), strict=True)
    assert (np.stack(other) != frames[:5]).any()


def test_clip_and_its_landmarks_are_written(tmp_path):
    landmarks = write(tmp_path / "a.mp4", seconds=0.4, size=96)
    assert probe(tmp_path / "a.mp4").frame_count == len(landmarks) == 10
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["landmarks"], landmarks)
