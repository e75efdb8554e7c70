import numpy as np
import pytest
from skimage.transform import PiecewiseAffineTransform, warp

from examples.animated_portrait import animate
from keras_vpgc.evaluation import warp_frames

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def two():
    """Two frames of a moving face, and their landmarks in [0, 1]."""
    found = list(animate(40, 128))
    frames, landmarks = zip(*(found[i] for i in (3, 30)), strict=True)
    return np.stack(frames), np.stack(landmarks)


def test_warp_is_that_of_scikit_image(two):
    frames, landmarks = two
    found = warp_frames(frames[:1], landmarks[:1], landmarks[1:])[0]
    steps = np.linspace(0, 1, 5)
    border = [(x, y) for x in steps for y in steps if x in (0, 1) or y in (0, 1)]
    source, target = (np.concatenate([x, border]) * 127 for x in landmarks)
    transform = PiecewiseAffineTransform.from_estimate(target, source)
    wanted = warp(frames[0], transform, order=1, mode="edge") * 255
    assert np.abs(found - wanted).mean() < 1.0


def test_warped_face_is_nearer_to_the_target(two):
    frames, landmarks = two
    warped = warp_frames(frames[:1], landmarks[:1], landmarks[1:])[0]
    before, after = (np.abs(x.astype(float) - frames[1]).mean() for x in (frames[0], warped))
    assert after < 0.8 * before


def test_the_same_landmarks_and_those_outside_leave_the_frame(two):
    frames, landmarks = two
    np.testing.assert_allclose(warp_frames(frames, landmarks, landmarks), frames, atol=1)
    far = landmarks + 0.6
    np.testing.assert_allclose(warp_frames(frames, far, far), frames, atol=1)
