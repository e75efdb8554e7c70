import json

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from keras_vpgc import VPGCError
from keras_vpgc.evaluation.compare import compare
from keras_vpgc.evaluation.pair import evaluate_pair
from tests.evaluation.videos import frames_of, write, write_exact

pytestmark = pytest.mark.once

QUICK = {"progress": False, "workers": 1, "lpips": None}
PICTURES = {**QUICK, "landmarks": False}


@pytest.fixture(scope="module")
def frames(clip):
    return frames_of(clip, 60, 128)


@pytest.fixture(scope="module")
def truth(frames, tmp_path_factory):
    return write_exact(tmp_path_factory.mktemp("truth") / "truth.mkv", frames)


def test_identical_videos(truth, tmp_path):
    result = evaluate_pair(truth, truth, tmp_path / "s", size=64, **{**QUICK, "lpips": "alex"})
    assert set(result["scores"]) == {"face", "full"}
    for region, row in result["scores"].items():
        assert row["psnr"] == "inf" and row["ssim"] == pytest.approx(1, abs=1e-6)
        for name in ("lpips", "landmark_distance", "mouth_distance_centered", "flicker"):
            assert row[name] == pytest.approx(0, abs=1e-6)
        assert row["head_pose_error"] == pytest.approx(0, abs=1e-4) and row["frames"] == 60
        assert row["jitter"] == row["true_jitter"] > 0
        # The truth a frame late is close, and not the same.
        floor = result["floor"][region]
        assert 25 < floor["psnr"] < 45 and floor["frames"] == 59
        assert 0.05 < floor["landmark_distance"] < 3 and 0 < floor["lpips"] < 0.1
        low, high = floor["intervals"]["psnr"]
        assert low <= floor["psnr"] <= high
    stored = json.loads((tmp_path / "s" / "evaluation.json").read_text())
    assert stored == json.loads(json.dumps(result))
    protocol = stored["protocol"]
    assert protocol["data_range"] == 255 and protocol["lpips"]["net"] == "alex"
    assert protocol["landmarks"]["detector"].startswith("mediapipe")
    assert protocol["systems"]["prediction"]["alignment"] == "frame by frame"
    assert protocol["interval"]["block_frames"] == 25 and protocol["regions"]["face"]["crop"]
    # Eyes and mouth move as the truth's do, and those of the floor a frame late.
    agreement = stored["eyes_and_mouth"]
    assert set(agreement) == {"prediction", "floor"}
    assert agreement["prediction"]["mouth"]["correlation"] == pytest.approx(1)
    assert agreement["prediction"]["mouth"]["ratio"] == pytest.approx(1)
    assert 0.3 < agreement["floor"]["mouth"]["correlation"] < 1
    assert result["scores"]["face"]["mouth_psnr"] == "inf"
    assert (
        result["floor"]["face"]["mouth_psnr"] < 45 and "mouth_psnr" not in result["floor"]["full"]
    )
    assert protocol["crops"]["region"] == "face" and protocol["crops"]["eyes"]["width"] > 12
    assert cv2.imread(str(tmp_path / "s" / "eyes_and_mouth.png")).std() > 5
    assert "Eye opening" in (tmp_path / "s" / "report.html").read_text()
    assert "| PSNR (dB) ↑ | inf |" in (tmp_path / "s" / "evaluation.md").read_text()
    with np.load(tmp_path / "s" / "scores.npz") as scores:
        assert np.isinf(scores["face/prediction/psnr"]).all()
        np.testing.assert_array_equal(scores["frames/prediction"], np.arange(60))
        np.testing.assert_array_equal(scores["mouth/truth"], scores["mouth/prediction"])


def test_scores_are_scikit_images_on_the_stated_crop(truth, frames, tmp_path, rng):
    noisy = [
        np.clip(x + rng.normal(0, 12, x.shape), 0, 255).round().astype("uint8") for x in frames[:12]
    ]
    short = write_exact(tmp_path / "short.mkv", frames[:12])
    other = write_exact(tmp_path / "noisy.mkv", noisy)
    result = evaluate_pair(other, short, size=64, **QUICK)
    square = result["protocol"]["regions"]["face"]["crop"]
    x, y, side = (int(square[key]) for key in ("x", "y", "size"))

    def face(image):
        image = image[y : y + side, x : x + side]
        method = cv2.INTER_AREA if side > 96 else cv2.INTER_CUBIC
        return cv2.resize(image, (64, 64), interpolation=method)

    for region, cut in (("full", lambda image: image), ("face", face)):
        pairs = [(cut(a), cut(b)) for a, b in zip(frames[:12], noisy, strict=True)]
        wanted = np.mean([peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs])
        assert result["scores"][region]["psnr"] == pytest.approx(wanted, rel=1e-5)
        wanted = np.mean(
            [
                structural_similarity(
                    a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                    channel_axis=-1, data_range=255,
                )
                for a, b in pairs
            ]
        )  # fmt: skip
        assert result["scores"][region]["ssim"] == pytest.approx(wanted, abs=1e-5)
    # Less than two seconds: no interval is claimed.
    assert result["scores"]["full"]["intervals"]["psnr"] is None


def blurred(frame, strength):
    return cv2.GaussianBlur(frame, (0, 0), strength)


def noisy(frame, strength):
    noise = np.random.default_rng(int(frame.sum())).normal(0, 5 * strength, frame.shape)
    return np.clip(frame + noise, 0, 255).round().astype("uint8")


def shifted(frame, strength):
    return np.roll(frame, 2 * strength, axis=1)


@pytest.mark.slow
def test_stronger_distortions_score_worse(truth, frames, tmp_path):
    kinds = {"blur": blurred, "noise": noisy, "shift": shifted}
    count = 10
    short = write_exact(tmp_path / "short.mkv", frames[:count])
    systems = {}
    for kind, distort in kinds.items():
        for strength in (1, 2, 3):
            path = tmp_path / f"{kind}{strength}.mkv"
            systems[f"{kind} {strength}"] = write_exact(
                path, [distort(frame, strength) for frame in frames[:count]]
            )
    rows = compare(systems, short, crop="full", size=128, **{**QUICK, "lpips": "alex"})["scores"]
    rows = rows["full"]

    def falls(kind, name):
        values = [rows[f"{kind} {strength}"][name] for strength in (1, 2, 3)]
        return values[0] > values[1] > values[2]

    def rises(kind, name):
        values = [rows[f"{kind} {strength}"][name] for strength in (1, 2, 3)]
        return values[0] < values[1] < values[2]

    for kind in kinds:
        assert falls(kind, "psnr") and falls(kind, "ssim") and rises(kind, "lpips")
    assert falls("blur", "sharpness") and rises("noise", "sharpness")
    assert rises("noise", "flicker") and rises("blur", "flicker")
    assert rises("shift", "landmark_distance") and rises("shift", "mouth_distance")
    for strength in (1, 2, 3):
        row = rows[f"shift {strength}"]
        # A shift of 2 pixels of 128, found to a fraction of one.
        assert row["landmark_distance"] == pytest.approx(2 * strength, abs=0.7)
        assert row["landmark_distance_centered"] < 0.7
        assert row["sharpness"] == pytest.approx(row["true_sharpness"], rel=0.2)


def test_frames_without_a_face_are_counted(frames, tmp_path):
    short = write_exact(tmp_path / "truth.mkv", frames[:12])
    gone = [np.full_like(x, 90) if i in (3, 4) else x for i, x in enumerate(frames[:12])]
    other = write_exact(tmp_path / "gone.mkv", gone)
    result = evaluate_pair(other, short, crop="face", size=64, **QUICK)
    assert result["frames_without_face"] == {"truth": 0, "prediction": 2}
    row = result["scores"]["face"]
    # The pictures of the two frames count, and the other ten are the same.
    assert row["frames"] == 12 and row["detector_failures"] == 2
    assert row["left_out"]["landmark_distance"] == row["left_out"]["expression_error"] == 2
    assert row["left_out"]["psnr"] == 10 and row["left_out"]["ssim"] == 0
    assert row["landmark_distance"] == pytest.approx(0, abs=1e-5)
    assert any("10 of 12 frames of prediction (face) are identical" in x for x in result["notes"])
    assert any("No face was found in 2 of 12 frames of prediction" in x for x in result["notes"])
    with pytest.raises(VPGCError, match="No face was found in .*gone.mkv, the truth"):
        evaluate_pair(other, write_exact(tmp_path / "gone.mkv", gone[3:4] * 12), **QUICK)


def test_other_sizes_are_scaled_to_the_truths(truth, frames, tmp_path):
    large = [cv2.resize(x, (256, 256), interpolation=cv2.INTER_CUBIC) for x in frames]
    path = write_exact(tmp_path / "large.mkv", large)
    with pytest.raises(VPGCError, match="256x256 and .*truth.mkv of 128x128: .* by --align"):
        evaluate_pair(path, truth, **PICTURES)
    result = evaluate_pair(path, truth, align=True, **PICTURES)
    back = [cv2.resize(x, (128, 128), interpolation=cv2.INTER_AREA) for x in large]
    wanted = [peak_signal_noise_ratio(a, b) for a, b in zip(frames, back, strict=True)]
    assert result["scores"]["full"]["psnr"] == pytest.approx(np.mean(wanted), rel=1e-5)
    assert any("are 256x256 and were scaled to the truth's 128x128" in x for x in result["notes"])
    wide = write_exact(tmp_path / "wide.mkv", [x[:64] for x in frames])
    with pytest.raises(VPGCError, match="128x64 and .* of 128x128: their shapes differ"):
        evaluate_pair(wide, truth, **PICTURES)


@pytest.mark.parametrize("kind", ["gray", "gray10le"])
def test_grey_videos_are_taken_as_rgb(truth, frames, kind, tmp_path):
    grey = write_exact(tmp_path / "grey.mkv", frames, kind=kind)
    row = evaluate_pair(grey, truth, **PICTURES)["scores"]["full"]
    luma = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2) for x in frames]
    wanted = [peak_signal_noise_ratio(a, b) for a, b in zip(frames, luma, strict=True)]
    assert row["psnr"] == pytest.approx(np.mean(wanted), abs=0.1)


def test_other_lengths_are_refused_or_cut(truth, frames, tmp_path):
    short = write_exact(tmp_path / "short.mkv", frames[:50])
    with pytest.raises(VPGCError, match="short.mkv has 50 frames and .*truth.mkv 60.*--align"):
        evaluate_pair(short, truth, **PICTURES)
    result = evaluate_pair(short, truth, align=True, **PICTURES)
    assert result["frames"] == 50 and result["scores"]["full"]["psnr"] == "inf"
    assert any("the first 50 were scored" in x for x in result["notes"])
    # The other way round, and with a system that has all frames.
    result = compare({"a": short, "b": truth}, truth, align=True, **PICTURES)
    assert {row["frames"] for row in result["scores"]["full"].values()} == {50}


def test_other_rates_are_aligned_by_time(truth, frames, tmp_path):
    half = write_exact(tmp_path / "half.mkv", frames[::2], rate=12.5)
    with pytest.raises(VPGCError, match=r"12.5 frames a second \(30 .* 25 \(60 .* by --align"):
        evaluate_pair(half, truth, tmp_path / "s", **PICTURES)
    result = evaluate_pair(half, truth, tmp_path / "s", align=True, **PICTURES)
    assert result["protocol"]["systems"]["prediction"]["alignment"] == "nearest in time"
    with np.load(tmp_path / "s" / "scores.npz") as scores:
        numbers = scores["frames/prediction"]
        exact = np.isinf(scores["full/prediction/psnr"])
    assert len(numbers) == 60 and exact[::2].all() and not exact[1::2].any()
    np.testing.assert_array_equal(numbers[::2], np.arange(30))
    assert any("12.5 frames a second and the truth 25" in x for x in result["notes"])
    fast = write_exact(tmp_path / "fast.mkv", frames[::2], rate=25.5)
    with pytest.raises(VPGCError, match=r"30 in 1.18 s\) and .* \(60 in 2.40 s"):
        evaluate_pair(fast, truth, **PICTURES)
    result = evaluate_pair(fast, truth, align=True, **PICTURES)
    assert any("lasts 1.18 s and the truth 2.40 s" in x for x in result["notes"])


def test_bad_input_is_said_before_anything_is_written(truth, clip, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no video")
    target = tmp_path / "s"
    for path, words in (
        (tmp_path / "gone.mp4", "There is no file"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "notes.txt", "cannot be read as a video"),
    ):
        for pair in ((path, truth), (truth, path)):
            with pytest.raises(VPGCError, match=words):
                evaluate_pair(*pair, target, **PICTURES)
    for options, words in (
        ({"crop": "mouth"}, "no region 'mouth'"),
        ({"crop": "face"}, "found by landmarks"),
        ({"size": 8}, "size of 8 pixels"),
        ({"lpips": "squeeze"}, "no network 'squeeze'"),
    ):
        with pytest.raises(VPGCError, match=words):
            evaluate_pair(truth, truth, target, **{**PICTURES, **options})
    with pytest.raises(VPGCError, match="cannot be called 'floor'"):
        compare({"floor": truth}, truth, target, **PICTURES)
    with pytest.raises(VPGCError, match="no system"):
        compare({}, truth, target, **PICTURES)
    with pytest.raises(VPGCError, match="is a file"):
        evaluate_pair(truth, truth, tmp_path / "notes.txt", **PICTURES)
    assert not target.exists()


def test_table_of_systems(truth, frames, tmp_path):
    soft = write(tmp_path / "soft.mp4", [blurred(x, 2) for x in frames])
    good = write(tmp_path / "good.mp4", frames)
    result = compare({"soft": soft, "good": good}, truth, tmp_path / "s", **PICTURES)
    lines = result["table"].splitlines()
    assert lines[0].startswith("Full picture at 128x128 pixels, 60 frames")
    assert lines[2].startswith("| | PSNR (dB) ↑ | SSIM ↑ |")
    assert [line.split("|")[1].strip() for line in lines[4:7]] == ["soft", "good", "floor"]
    row = result["scores"]["full"]
    assert row["good"]["psnr"] > row["soft"]["psnr"]
    assert json.loads((tmp_path / "s" / "comparison.json").read_text())["scores"]["full"] == row
    assert result["table"] in (tmp_path / "s" / "comparison.md").read_text()


def test_face_region_is_the_one_that_prepare_would_cut(clip, portrait):
    result = evaluate_pair(clip, clip, crop="face", size=64, **QUICK)
    found, wanted = result["protocol"]["regions"]["face"]["crop"], portrait.info["crop"]
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=3)


def test_real_footage(test_data, tmp_path):
    """A talking man: a softer and a trembling copy are told apart by the scores meant for it."""
    frames = frames_of(test_data / "talking_man_604.mp4", 12, 256)
    truth = write_exact(tmp_path / "truth.mkv", frames)
    soft = write_exact(tmp_path / "soft.mkv", [blurred(x, 1.5) for x in frames])
    moved = [np.roll(x, 2 * (i % 2), axis=0) for i, x in enumerate(frames)]
    trembling = write_exact(tmp_path / "trembling.mkv", moved)
    systems = {"soft": soft, "trembling": trembling}
    rows = compare(systems, truth, crop="face", size=128, **QUICK)["scores"]["face"]
    assert rows["soft"]["sharpness"] < 0.5 * rows["soft"]["true_sharpness"]
    assert rows["trembling"]["sharpness"] > 0.9 * rows["trembling"]["true_sharpness"]
    assert rows["trembling"]["jitter"] > 2 * rows["soft"]["jitter"]
    assert rows["trembling"]["flicker"] > 2 * rows["soft"]["flicker"]
    assert rows["soft"]["landmark_distance"] < rows["trembling"]["landmark_distance"]
