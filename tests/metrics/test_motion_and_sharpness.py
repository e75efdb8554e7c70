import cv2
import numpy as np
import pytest
from scipy.ndimage import convolve
from scipy.spatial.transform import Rotation

from keras_vpgc import VPGCError
from keras_vpgc.metrics import (
    MOUTH_POINTS,
    Flicker,
    Jitter,
    LandmarkDistance,
    Sharpness,
    expression_error,
    flicker,
    head_pose_error,
    jitter,
    landmark_distance,
    sharpness,
    still_pairs,
)
from tests.layers.layer_case import to_numpy


@pytest.fixture
def frames(rng):
    x = rng.integers(0, 256, size=(4, 30, 42, 3)).astype("float32")
    return np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in x]).round().astype("uint8")


def test_mouth_distance_takes_the_lips_alone(rng):
    x, y = (rng.uniform(size=(4, 68, 2)) for _ in range(2))
    difference = (x - y)[:, 48:68]
    found = to_numpy(landmark_distance(x, y, points=MOUTH_POINTS))
    np.testing.assert_allclose(found, np.linalg.norm(difference, axis=-1).mean(-1) * 512, rtol=1e-5)
    difference = difference - difference.mean(1, keepdims=True)
    found = to_numpy(landmark_distance(x, y, centered=True, points=MOUTH_POINTS))
    np.testing.assert_allclose(found, np.linalg.norm(difference, axis=-1).mean(-1) * 512, rtol=1e-5)
    y[1, 0] = np.nan  # not a point of the mouth
    metric = LandmarkDistance(points=MOUTH_POINTS)
    metric.update_state(x, y)
    assert float(to_numpy(metric.failures)) == 0
    assert LandmarkDistance.from_config(metric.get_config()).points == list(MOUTH_POINTS)
    with pytest.raises(VPGCError, match="there are 20 landmarks"):
        landmark_distance(x[:, :20], y[:, :20], points=MOUTH_POINTS)


def test_jitter_is_the_mean_second_difference(rng):
    x = rng.uniform(size=(7, 68, 2))
    wanted = np.linalg.norm(np.diff(x, n=2, axis=0), axis=-1).mean(-1) * 256
    np.testing.assert_allclose(to_numpy(jitter(x, 256)), wanted, rtol=1e-4)
    even = x[:1] + np.arange(7)[:, None, None] * [0.01, -0.02]
    np.testing.assert_allclose(to_numpy(jitter(even)), 0, atol=1e-3)
    x[6, 3] = np.nan
    metric = Jitter(size=256)
    metric.update_state(None, x)
    assert float(to_numpy(metric.result())) == pytest.approx(wanted[:4].mean(), rel=1e-4)
    assert float(to_numpy(metric.failures)) == 1
    assert Jitter.from_config(metric.get_config()).get_config() == metric.get_config()
    with pytest.raises(VPGCError, match="3 or more consecutive frames"):
        jitter(x[:2])


def test_flicker_is_change_that_the_truth_lacks(frames, rng):
    other = rng.integers(0, 256, frames.shape).astype("uint8")
    change = np.diff(other.astype(float), axis=0) - np.diff(frames.astype(float), axis=0)
    wanted = np.abs(change).mean((1, 2, 3))
    np.testing.assert_allclose(to_numpy(flicker(frames, other)), wanted, rtol=1e-5)
    halves = [x.astype("float32") / 255 for x in (frames, other)]
    np.testing.assert_allclose(to_numpy(flicker(*halves, max_value=1)), wanted, rtol=1e-4)
    plain = np.abs(np.diff(other.astype(float), axis=0)).mean((1, 2, 3))
    np.testing.assert_allclose(to_numpy(flicker(None, other)), plain, rtol=1e-5)
    # A constant error is none.
    dark = frames // 2
    np.testing.assert_allclose(to_numpy(flicker(dark, dark + 9)), 0, atol=1e-4)
    metric = Flicker()
    metric.update_state(frames, other)
    assert float(to_numpy(metric.result())) == pytest.approx(wanted.mean(), rel=1e-5)
    assert Flicker.from_config(metric.get_config()).get_config() == metric.get_config()
    with pytest.raises(VPGCError, match="2 or more"):
        flicker(frames[:1], other[:1])


def test_still_pairs():
    x = np.zeros((5, 68, 2))
    x[2:] += 0.01
    x[4, 0] = np.nan
    np.testing.assert_array_equal(still_pairs(x, 512), [True, False, True, False])


def test_sharpness_is_the_variance_of_the_laplacian(frames):
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    grey = frames.astype(float) @ [0.299, 0.587, 0.114]
    wanted = [convolve(x, kernel)[1:-1, 1:-1].var() for x in grey]
    np.testing.assert_allclose(to_numpy(sharpness(frames)), wanted, rtol=1e-3)
    ones = frames.astype("float32") / 255
    np.testing.assert_allclose(to_numpy(sharpness(ones, max_value=1)), wanted, rtol=1e-3)
    assert np.all(to_numpy(sharpness(frames, size=15)) != to_numpy(sharpness(frames)))
    metric = Sharpness(size=20)
    metric.update_state(None, frames)
    wanted = to_numpy(sharpness(frames, size=20)).mean()
    assert float(to_numpy(metric.result())) == pytest.approx(wanted, rel=1e-5)
    assert Sharpness.from_config(metric.get_config()).get_config() == metric.get_config()


@pytest.mark.once
def test_head_pose_error_is_the_angle_between(rng):
    one, other = (Rotation.random(6, rng=np.random.default_rng(i)) for i in (0, 1))
    wanted = np.degrees((one * other.inv()).magnitude())
    matrices = [np.tile(np.eye(4), (6, 1, 1)) for _ in range(2)]
    for matrix, turn, scale in zip(matrices, (one, other), (1.0, 1.7), strict=True):
        matrix[:, :3, :3] = scale * turn.as_matrix()
    np.testing.assert_allclose(head_pose_error(*matrices), wanted, rtol=1e-9)
    little = Rotation.from_euler("y", 0.001, degrees=True).as_matrix()[None]
    np.testing.assert_allclose(head_pose_error(np.eye(3)[None], little), 0.001, rtol=1e-6)
    half = Rotation.from_euler("x", 180, degrees=True).as_matrix()[None]
    np.testing.assert_allclose(head_pose_error(np.eye(3)[None], half), 180, rtol=1e-6)
    matrices[0][2, 0, 0] = np.nan
    found = head_pose_error(*matrices)
    np.testing.assert_array_equal(np.isnan(found), np.arange(6) == 2)
    with pytest.raises(VPGCError, match="matrices"):
        head_pose_error(np.eye(4), np.eye(4))


@pytest.mark.once
def test_expression_error(rng):
    x, y = rng.uniform(size=(2, 5, 52))
    np.testing.assert_allclose(expression_error(x, y), np.abs(x - y).sum(1) / 52)
    with pytest.raises(VPGCError, match="blendshapes"):
        expression_error(x, y[:4])
