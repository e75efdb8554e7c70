import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.evaluation import (
    evaluate_frames,
    find_landmarks,
    mean_frame,
    nearest_frames,
    summary,
    table,
)

pytestmark = pytest.mark.once


def test_mean_frame(rng):
    frames = rng.integers(0, 256, size=(7, 4, 4, 3), dtype="uint8")
    np.testing.assert_array_equal(mean_frame(frames), np.rint(frames.astype(float).mean(0)))


def test_nearest_frames_by_mean_point_distance(rng):
    train, test = rng.uniform(size=(30, 68, 2)), rng.uniform(size=(9, 68, 2))
    distance = np.linalg.norm(test[:, None] - train[None], axis=-1).mean(-1)
    np.testing.assert_array_equal(nearest_frames(train, test, chunk=4), distance.argmin(1))


def test_scores_of_each_frame_and_their_means(rng):
    truth = rng.integers(0, 256, size=(5, 16, 16, 3), dtype="uint8")
    prediction = np.clip(truth.astype(int) + rng.integers(-20, 21, truth.shape), 0, 255)
    prediction = prediction.astype("uint8")
    landmarks = rng.uniform(size=(5, 68, 2))
    found = landmarks + [0.1, 0.0]
    found[2] = np.nan
    scores = evaluate_frames(
        prediction,
        truth,
        predicted_landmarks=found,
        true_landmarks=landmarks,
        landmark_size=100,
        batch_size=2,
    )
    error = ((prediction.astype(float) - truth) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(scores["psnr"], 10 * np.log10(255**2 / error), rtol=1e-5)
    row = summary(scores)
    assert row["frames"] == 5 and row["detector_failures"] == 1
    assert row["landmark_distance"] == pytest.approx(10, rel=1e-4)
    assert row["landmark_distance_centered"] == pytest.approx(0, abs=1e-3)
    with pytest.raises(VPGCError, match="prediction has the shape"):
        evaluate_frames(prediction[:4], truth)


def test_table_shows_a_dash_for_what_is_missing():
    text = table({"a": {"psnr": 20.126, "ssim": 0.5, "landmark_distance": 3.0}, "b": {"psnr": 9}})
    lines = text.splitlines()
    assert lines[0].startswith("| | PSNR (dB)") and "F-LMD (px)" in lines[0]
    assert lines[2] == "| a | 20.13 | 0.500 | 3.00 |"
    assert lines[3] == "| b | 9.00 | - | - |"


def test_landmarks_of_small_frames_are_found(portrait):
    from keras_vpgc.data.tracking import FaceTracker

    frames = portrait.frames(np.arange(3))
    frames = np.concatenate([frames, np.full_like(frames[:1], 128)])
    with FaceTracker() as tracker:
        found = find_landmarks(frames, tracker)
    assert np.isnan(found[3]).all()
    assert np.abs(found[:3] - portrait.landmarks[:3]).mean() < 0.02
