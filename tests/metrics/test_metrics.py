import keras
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from keras_vpgc import VPGCError
from keras_vpgc.metrics import PSNR, SSIM, LandmarkDistance, landmark_distance, psnr, ssim
from tests.layers.layer_case import to_numpy


@pytest.fixture
def pair(rng):
    x = rng.integers(0, 256, size=(3, 40, 56, 3)).astype("float64")
    for axis in (1, 2):
        x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / 3
    y = np.clip(x + rng.normal(size=x.shape) * [[[[5]]], [[[15]]], [[[40]]]], 0, 255)
    return np.rint(x).astype("uint8"), np.rint(y).astype("uint8")


def test_psnr_is_scikit_images(pair):
    wanted = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(*pair, strict=True)]
    np.testing.assert_allclose(to_numpy(psnr(*pair)), wanted, rtol=1e-5)
    halves = [x.astype("float32") / 255 for x in pair]
    np.testing.assert_allclose(to_numpy(psnr(*halves, max_value=1)), wanted, rtol=1e-4)
    assert np.isinf(to_numpy(psnr(pair[0], pair[0]))).all()


def test_ssim_is_scikit_images(pair):
    wanted = [
        structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1,
            data_range=255,
        )
        for a, b in zip(*pair, strict=True)
    ]
    np.testing.assert_allclose(to_numpy(ssim(*pair)), wanted, atol=2e-5)
    np.testing.assert_allclose(to_numpy(ssim(pair[0], pair[0])), 1.0, atol=1e-6)


def test_ssim_of_flat_pictures_is_exact():
    x = np.full((1, 16, 16, 3), 200, "uint8")
    y = np.full((1, 16, 16, 3), 201, "uint8")
    wanted = structural_similarity(
        x[0],
        y[0],
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        data_range=255,
    )
    assert to_numpy(ssim(x, y))[0] == pytest.approx(wanted, abs=1e-5)


def test_landmark_distance_by_its_definition(rng):
    x, y = (rng.uniform(size=(4, 68, 2)) for _ in range(2))
    raw = np.linalg.norm(x - y, axis=-1).mean(-1) * 512
    centred = (x - x.mean(1, keepdims=True)) - (y - y.mean(1, keepdims=True))
    centred = np.linalg.norm(centred, axis=-1).mean(-1) * 512
    np.testing.assert_allclose(to_numpy(landmark_distance(x, y)), raw, rtol=1e-5)
    found = to_numpy(landmark_distance(x, y, centered=True))
    np.testing.assert_allclose(found, centred, rtol=1e-5)
    # A shift alone is no distance once centred.
    np.testing.assert_allclose(to_numpy(landmark_distance(x, x + 0.1, centered=True)), 0, atol=1e-3)


@pytest.mark.parametrize("kind, function", [(PSNR, psnr), (SSIM, ssim)])
def test_metrics_are_means_over_frames_whatever_the_batches(kind, function, pair):
    metric = kind(max_value=255)
    metric.update_state(pair[0][:2], pair[1][:2])
    metric.update_state(pair[0][2:], pair[1][2:])
    wanted = to_numpy(function(*pair)).mean()
    assert float(to_numpy(metric.result())) == pytest.approx(wanted, rel=1e-5)
    metric.reset_state()
    metric.update_state(*pair, sample_weight=np.array([0.0, 1.0, 0.0]))
    one = to_numpy(function(*pair))[1]
    assert float(to_numpy(metric.result())) == pytest.approx(one, rel=1e-5)
    assert kind.from_config(metric.get_config()).get_config() == metric.get_config()


def test_frames_without_landmarks_are_left_out_and_counted(rng):
    x, y = (rng.uniform(size=(4, 68, 2)).astype("float32") for _ in range(2))
    y[1, 5] = np.nan
    metric = LandmarkDistance(size=100)
    metric.update_state(x, y)
    kept = [0, 2, 3]
    wanted = np.linalg.norm(x[kept] - y[kept], axis=-1).mean() * 100
    assert float(to_numpy(metric.result())) == pytest.approx(wanted, rel=1e-5)
    assert float(to_numpy(metric.failures)) == 1


def test_metrics_in_compile(pair):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Identity()])
    model.compile(loss="mse", metrics=[PSNR(), SSIM()])
    y, x = (p.astype("float32") for p in pair)
    logs = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    assert logs["psnr"] == pytest.approx(to_numpy(psnr(*pair)).mean(), rel=1e-4)
    assert logs["ssim"] == pytest.approx(to_numpy(ssim(*pair)).mean(), abs=1e-4)


def test_what_cannot_be_compared():
    with pytest.raises(VPGCError, match="images .* of one size"):
        psnr(np.zeros((1, 16, 16, 3)), np.zeros((1, 16, 17, 3)))
    with pytest.raises(VPGCError, match="window is 11x11 pixels but the images are 16x8"):
        ssim(np.zeros((1, 8, 16, 3)), np.zeros((1, 8, 16, 3)))
    with pytest.raises(VPGCError, match="landmarks"):
        landmark_distance(np.zeros((1, 68, 2)), np.zeros((1, 67, 2)))
