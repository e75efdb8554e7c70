import numpy as np
import pytest

from examples.animated_portrait import LANDMARKS
from keras_vpgc.data.landmark_sets import (
    CONTOURS_68,
    MEDIAPIPE_TO_68,
    eye_opening,
    mouth_opening,
)

pytestmark = pytest.mark.once


def test_places_are_68_different_points_of_the_mesh():
    assert len(set(MEDIAPIPE_TO_68.tolist())) == 68
    assert MEDIAPIPE_TO_68.min() >= 0 and MEDIAPIPE_TO_68.max() < 478


def test_contours_use_every_landmark_and_close_eyes_and_lips():
    used = {i for indices, _ in CONTOURS_68 for i in indices}
    assert used == set(range(68))
    closed = {tuple(indices) for indices, is_closed in CONTOURS_68 if is_closed}
    assert tuple(range(36, 42)) in closed and tuple(range(60, 68)) in closed


def test_openings_of_eyes_and_mouth():
    face = LANDMARKS[None].copy()
    shut = face.copy()
    shut[:, [37, 38, 43, 44]] = shut[:, [41, 40, 47, 46]]
    shut[:, [61, 62, 63]] = shut[:, [67, 66, 65]]
    assert eye_opening(face).shape == (1, 2)
    assert (eye_opening(face) > 0.12).all() and np.abs(eye_opening(shut)).max() < 1e-9
    assert mouth_opening(face)[0] > 0.1 and mouth_opening(shut)[0] < 1e-9
