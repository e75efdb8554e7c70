import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.sampling import rare_frame_weights, resample

pytestmark = pytest.mark.once


def faces(count, rng):
    """Faces that look ahead with open eyes and a closed mouth, and tremble a little."""
    points = np.zeros((68, 2))
    points[0:17] = np.stack([np.linspace(0.2, 0.8, 17), np.full(17, 0.5)], -1)
    points[17:27] = [0.5, 0.35]
    points[27:36] = [0.5, 0.55]
    for first, x in ((36, 0.35), (42, 0.65)):
        points[first : first + 6, 0] = x + np.array([-3, -1, 1, 3, 1, -1]) * 0.02
        points[first : first + 6, 1] = 0.4 + np.array([0, -1, -1, 0, 1, 1]) * 0.02
    points[48:68] = [0.5, 0.7]
    points[[48, 54], 0] = 0.4, 0.6
    return points + rng.normal(size=(count, 68, 2)) * 5e-4


def rarely(landmarks, what):
    """Give the first tenth of the frames a rare look, more or less of it."""
    some = landmarks[: len(landmarks) // 10]
    amount = np.linspace(0.5, 1, len(some))[:, None]
    if what.endswith("closed"):
        lids = [37, 38, 40, 41] + [43, 44, 46, 47] * (what == "eyes closed")
        some[:, lids, 1] += amount * (0.4 - some[:, lids, 1])
    elif what == "mouth open":
        some[:, [66], 1] += 0.1 * amount
    elif what == "smile":
        some[:, [48], 0] -= 0.05 * amount
    elif what == "yaw":
        some[:, 27:36, 0] += 0.08 * amount
    elif what == "pitch":
        some[:, [0, 16], 1] -= 0.08 * amount
    elif what == "roll":
        c, s = np.cos(0.3 * amount), np.sin(0.3 * amount)
        x, y = some[..., 0] - 0.5, some[..., 1] - 0.5
        some[:] = np.stack([c * x - s * y, s * x + c * y], -1) + 0.5


LOOKS = ["eyes closed", "one eye closed", "mouth open", "smile", "yaw", "pitch", "roll"]


@pytest.mark.parametrize("what", LOOKS)
def test_a_rare_look_comes_more_often(what, rng):
    landmarks = faces(500, rng)
    rarely(landmarks, what)
    weights = rare_frame_weights(landmarks, strength=0.5)
    assert weights.mean() == pytest.approx(1)
    assert np.median(weights[:50]) > 1.5 * np.median(weights[50:])
    weak, stronger = (rare_frame_weights(landmarks, s)[:50].mean() for s in (0.1, 0.2))
    assert 1 < weak < stronger < weights[:50].mean()


def test_strength_and_ratio_limit_the_weights(rng):
    landmarks = faces(300, rng)
    landmarks[7, 36:48] += 3.0  # a landmark that jumps
    np.testing.assert_array_equal(rare_frame_weights(landmarks, strength=0), np.ones(300))
    weights = rare_frame_weights(landmarks, strength=1.0, ratio=3.0)
    assert weights.max() / np.median(weights) <= 3.0 + 1e-9
    assert np.median(weights) / weights.min() <= 3.0 + 1e-9
    np.testing.assert_array_equal(rare_frame_weights(landmarks[:1]), [1.0])
    still = np.repeat(landmarks[:1], 50, axis=0)
    np.testing.assert_allclose(rare_frame_weights(still), np.ones(50))


def test_a_given_pose_counts_instead_of_the_landmarks(rng):
    landmarks = np.repeat(faces(1, rng), 200, axis=0)
    pose = rng.normal(size=(200, 3))
    pose[:10, 1] = np.linspace(20, 40, 10)
    weights = rare_frame_weights(landmarks, pose=pose)
    assert weights[:10].min() > np.median(weights)
    with pytest.raises(VPGCError, match="yaw, pitch and roll of each of 200 frames"):
        rare_frame_weights(landmarks, pose=pose[:3])


def test_what_cannot_be_weighed(rng):
    landmarks = faces(5, rng)
    with pytest.raises(VPGCError, match=r"landmarks \(frames, 68, 2\); received \(5, 20, 2\)"):
        rare_frame_weights(landmarks[:, :20])
    with pytest.raises(VPGCError, match="strength of -1"):
        rare_frame_weights(landmarks, strength=-1)
    landmarks[3, 40] = np.nan
    with pytest.raises(VPGCError, match="frame 3 are not finite"):
        rare_frame_weights(landmarks)


def test_resampling_rounds_each_share_up_or_down(rng):
    weights = rng.uniform(0, 4, size=40)
    weights[5] = weights[-1] = 0
    share = weights * 40 / weights.sum()
    total = np.zeros(40)
    for seed in range(200):
        drawn = resample(weights, np.random.default_rng(seed))
        counts = np.bincount(drawn, minlength=40)
        assert len(drawn) == 40
        assert (counts >= np.floor(share)).all() and (counts <= np.ceil(share)).all()
        total += counts
    np.testing.assert_allclose(total / 200, share, atol=0.15)
    assert resample(np.ones(7), rng).tolist() == list(range(7))
