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
from keras_vpgc.losses.lpips import LPIPSDistance
from keras_vpgc.metrics import psnr
from tests.layers.layer_case import to_numpy

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


def test_pictures_that_are_none_are_named(rng):
    truth = rng.uniform(0, 255, (5, 16, 16, 3)).astype("float32")
    broken = truth.copy()
    broken[3, 2, 2, 0] = np.nan
    with pytest.raises(VPGCError, match="Frame 3 of the prediction holds NaN"):
        evaluate_frames(broken, truth, batch_size=2)
    with pytest.raises(VPGCError, match="Frame 3 of the truth holds NaN"):
        evaluate_frames(truth, broken, batch_size=2)
    grey = truth[..., :1]
    with pytest.raises(VPGCError, match="truth has pictures of shape .16, 16, 1.: give RGB"):
        evaluate_frames(grey, grey)


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


def test_streams_score_as_arrays_do(rng):
    truth, prediction = rng.integers(0, 256, size=(2, 7, 32, 32, 3), dtype="uint8")
    whole = evaluate_frames(prediction, truth, lpips="alex", batch_size=3)
    held = []

    def stream(frames):
        for frame in frames:
            held.append(1)
            yield frame

    parts = evaluate_frames(iter(prediction), stream(truth), lpips="alex", batch_size=3)
    np.testing.assert_allclose(whole["psnr"], to_numpy(psnr(truth, prediction)), rtol=1e-5)
    wanted = to_numpy(LPIPSDistance("alex")(truth[5:], prediction[5:]))
    np.testing.assert_allclose(whole["lpips"][5:], wanted, rtol=1e-4)
    assert set(whole) == set(parts) == {"psnr", "ssim", "lpips"} and len(held) == 7
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(VPGCError, match="The truth has 6 frames and the prediction more"):
        evaluate_frames(iter(prediction), iter(truth[:6]), batch_size=3)
    with pytest.raises(VPGCError, match="From frame 3 on the prediction has the shape"):
        evaluate_frames(iter(prediction[:5]), iter(truth), batch_size=3)
    with pytest.raises(VPGCError, match="no network 'squeeze'"):
        evaluate_frames(prediction, truth, lpips="squeeze")


def test_summary_counts_what_it_leaves_out():
    wave = np.sin(np.arange(200) / 9)
    level = 30 + wave
    level[3] = np.inf
    distance = 2 + wave
    distance[:20] = np.nan
    row = summary({"psnr": level, "ssim": wave, "landmark_distance": distance}, frame_rate=10)
    assert row["psnr"] == pytest.approx(np.delete(level, 3).mean())
    assert row["left_out"] == {"psnr": 1, "ssim": 0, "landmark_distance": 20}
    assert row["detector_failures"] == 20 and row["frames"] == 200
    for name in ("psnr", "ssim", "landmark_distance"):
        low, high = row["intervals"][name]
        assert low < row[name] < high
    row = summary({"psnr": np.full(9, np.inf), "landmark_distance": np.full(9, np.nan)})
    assert row["psnr"] == np.inf and row["left_out"]["psnr"] == 0
    assert row["intervals"] == {"psnr": None} and "landmark_distance" not in row
    assert row["left_out"]["landmark_distance"] == row["detector_failures"] == 9
    # Identical, as far as there are frames.
    row = summary({"psnr": np.array([np.nan, np.inf, np.inf])})
    assert row["psnr"] == np.inf and row["left_out"]["psnr"] == 1
