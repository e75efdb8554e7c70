import cv2
import numpy as np
import pytest
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from keras_vpgc.evaluation.eyes_and_mouth import (
    CropScorer,
    agreement_cells,
    agreement_table,
    crop_sizes,
    describe_crops,
    eyes_and_mouth,
    openings,
)
from keras_vpgc.evaluation.protocol import evaluate_frames, interval_table, summary

pytestmark = pytest.mark.once
SIZE, RATE = 96, 25


def faces(count=200, eyes=None, mouth=None, shift=0.0):
    """Landmarks of a face whose openings are known; `shift` moves it across."""
    points = np.full((count, 68, 2), 0.5)
    for first, x in ((36, 0.3), (42, 0.55)):
        eye = np.array([[0, 0], [1, -1], [2, -1], [3, 0], [2, 1], [1, 1]]) * [0.05, 1]
        height = 0.15 * np.broadcast_to(0.3 if eyes is None else eyes, count) / 2
        points[:, first : first + 6] = eye * np.stack([np.ones(count), height], 1)[:, None]
        points[:, first : first + 6] += [x, 0.4]
    gap = 0.2 * np.broadcast_to(0.1 if mouth is None else mouth, count)
    points[:, 48], points[:, 54] = [0.4, 0.7], [0.6, 0.7]
    points[:, 49:54] = points[:, 55:68] = [0.5, 0.7]
    points[:, 62, 1], points[:, 66, 1] = 0.7 - gap / 2, 0.7 + gap / 2
    points[..., 0] += np.broadcast_to(shift, count)[:, None]
    return points


def pictures(rng, count):
    small = rng.integers(0, 256, (count, 24, 24, 3), dtype="uint8")
    return np.stack([cv2.resize(x, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for x in small])


def test_crops_have_one_size_and_follow_the_face(rng):
    shift = np.linspace(-0.1, 0.1, 5)
    points = faces(5, shift=shift)
    sizes = crop_sizes(points, SIZE)
    # The eyes are 0.4 wide together, the mouth 0.2, the face as much as the widest of its points.
    width, wide = round(1.3 * 0.4 * SIZE), round(1.5 * 0.2 * SIZE)
    face = np.ptp(points[0, :, 0]) * SIZE
    wanted = {"eyes": (round(0.4 * 1.3 * 0.4 * SIZE), width), "mouth": (23, wide)}
    assert sizes == {"face": (round(1.1 * face), round(face)), **wanted}
    truth = pictures(rng, 5)
    prediction = np.clip(truth + rng.normal(0, 12, truth.shape), 0, 255).astype("uint8")
    scorer = CropScorer(points, SIZE)
    scorer.update(truth[:3], prediction[:3])
    # What only fills the batch does not count.
    scorer.update(truth[[3, 4, 4]], prediction[[3, 4, 4]], keep=2)
    scores = scorer.scores()
    assert set(scores) == {f"{x}_{y}" for x in ("face", "eyes", "mouth") for y in ("psnr", "ssim")}
    for i in range(5):
        height, wide = sizes["mouth"]
        left = round(SIZE * (0.5 + shift[i]) - wide / 2)
        top = round(SIZE * 0.7 - height / 2)
        box = slice(top, top + height), slice(left, left + wide)
        one, other = truth[i][box], prediction[i][box]
        wanted = peak_signal_noise_ratio(one, other, data_range=255)
        assert scores["mouth_psnr"][i] == pytest.approx(wanted, abs=1e-3)
        wanted = structural_similarity(
            one, other, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        # skimage's border is left out of its mean; ours has windows inside the crop alone.
        assert scores["mouth_ssim"][i] == pytest.approx(wanted, abs=2e-3)


def test_a_dead_mouth_shows_in_the_mouth_alone(rng):
    truth, points = pictures(rng, 4), faces(4)
    points[2] = np.nan  # no face was found
    prediction = truth.copy()
    prediction[:, 60:75, 40:56] = 128
    scores = evaluate_frames(
        prediction, truth, predicted_landmarks=points, true_landmarks=points, batch_size=3
    )
    assert np.isinf(scores["eyes_psnr"][[0, 1, 3]]).all()
    np.testing.assert_allclose(scores["eyes_ssim"][[0, 1, 3]], 1, atol=1e-6)
    assert (scores["mouth_psnr"][[0, 1, 3]] < scores["psnr"][[0, 1, 3]] - 5).all()
    crops = ("face_", "eyes_", "mouth_p")
    assert all(np.isnan(scores[key][2]) for key in scores if key.startswith(crops))
    row = summary(scores)
    assert row["eyes_psnr"] == np.inf and row["left_out"]["mouth_psnr"] == 1
    assert f"| mouth PSNR (dB) ↑ | {row['mouth_psnr']:.2f} (1 left out) |" in interval_table(
        {"a": row}
    )


def test_without_any_face_there_are_no_crops(rng):
    truth = pictures(rng, 2)
    nowhere = np.full((2, 68, 2), np.nan)
    scores = evaluate_frames(truth, truth, true_landmarks=nowhere)
    assert set(scores) == {"psnr", "ssim"}
    assert crop_sizes(nowhere, SIZE) == {} and describe_crops({})["place"]


def test_crops_at_the_edge_stay_inside(rng):
    truth = pictures(rng, 2)
    scores = evaluate_frames(255 - truth, truth, true_landmarks=faces(2, shift=0.45))
    assert np.isfinite(scores["mouth_psnr"]).all() and np.isfinite(scores["eyes_psnr"]).all()


def test_lpips_sees_crops_that_are_too_small_for_it(rng):
    seen = []

    class Features:
        heads = [np.ones(3, "float32")]

        def __call__(self, x):
            seen.append(x.shape[1:3])
            return [x.astype("float32") / 255]

    truth, points = pictures(rng, 2), faces(2)
    scorer = CropScorer(points, SIZE, Features())
    scorer.update(truth, 255 - truth)
    assert set(scorer.scores()) >= {"eyes_lpips", "mouth_lpips"}
    assert {min(shape) for shape in seen} == {64}
    ratio = {name: width / height for name, (height, width) in scorer.sizes.items()}
    assert {round(w / h, 1) for h, w in seen} == {round(x, 1) for x in ratio.values()}


def test_openings_are_those_of_the_face(rng):
    eyes, mouth = rng.uniform(0.05, 0.4, 9), rng.uniform(0, 0.5, 9)
    found = openings(faces(9, eyes, mouth))
    np.testing.assert_allclose(found["eyes"], eyes, rtol=1e-6)
    np.testing.assert_allclose(found["mouth"], mouth, rtol=1e-6, atol=1e-8)


def test_agreement_is_pearsons_and_tells_a_mouth_that_moves_less(rng):
    times = np.arange(200) / RATE
    mouth = 0.2 + 0.15 * np.sin(3 * times)
    eyes = np.full(200, 0.3)
    for middle in (40, 90, 160):
        eyes[middle - 1 : middle + 2] = 0.05
    late = np.roll(mouth, 3) * 0.4 + rng.normal(0, 0.01, 200)
    half = 0.3 - (0.3 - eyes) * 0.5
    true, found = faces(200, eyes, mouth), faces(200, half, late, shift=0.05)
    found[10:20] = np.nan
    row = eyes_and_mouth(true, found, times, RATE)
    known = np.r_[0:10, 20:200]
    assert row["mouth"]["correlation"] == pytest.approx(pearsonr(mouth[known], late[known])[0])
    assert row["mouth"]["ratio"] == pytest.approx(late[known].std() / mouth[known].std())
    low, high = row["mouth"]["interval"]
    assert low < row["mouth"]["correlation"] < high
    # Eyes that close half of the way correlate fully and blink never.
    assert row["eyes"]["correlation"] == pytest.approx(1)
    assert row["eyes"]["ratio"] == pytest.approx(0.5)
    assert row["blinks"] == {
        "true": 3, "predicted": 0, "matched": 0, "recall": 0.0, "precision": None
    }  # fmt: skip
    still = eyes_and_mouth(faces(200), found, times, RATE)
    assert still["mouth"]["correlation"] is None and still["blinks"]["recall"] is None
    text = agreement_table({"driven": row, "still": still})
    assert "| blinks of the truth that are there ↑ | 0.00 0 of 3 | - 0 of 0 |" in text
    cells = agreement_cells({"driven": row})
    assert cells["eye opening: motion over the truth's"]["driven"] == ("0.50", "")
    assert agreement_table({}) == "" and agreement_cells({}) == {}
