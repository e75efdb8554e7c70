import numpy as np
import pytest

from examples.animated_portrait import LANDMARKS
from keras_vpgc import VPGCError
from keras_vpgc.data.canonical import canonical_head
from keras_vpgc.data.landmark_sets import (
    CONTOURS_68,
    LANDMARK_SETS,
    MEDIAPIPE_TO_68,
    eye_opening,
    landmarks,
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


def test_irises_follow_the_68_points_and_are_mediapipes_own_rings():
    vision = pytest.importorskip("mediapipe").tasks.vision
    iris = LANDMARK_SETS["ibug-68-iris"]
    assert iris.num_points == 78 and LANDMARK_SETS["ibug-68"].num_points == 68
    np.testing.assert_array_equal(iris.indices[:68], MEDIAPIPE_TO_68)
    assert iris.contours[: len(CONTOURS_68)] == CONTOURS_68
    connections = vision.FaceLandmarksConnections
    known = (connections.FACE_LANDMARKS_RIGHT_IRIS, connections.FACE_LANDMARKS_LEFT_IRIS)
    for (ring, closed), lines in zip(iris.contours[-2:], known, strict=True):
        assert closed
        ends = iris.indices[list(ring)].tolist()
        found = {frozenset(pair) for pair in zip(ends, ends[1:] + ends[:1], strict=True)}
        assert found == {frozenset((line.start, line.end)) for line in lines}
        # The centre comes before its rim.
        assert iris.indices[ring[0] - 1] == min(ends) - 1


def test_jaw_follows_mediapipes_own_outline():
    """Its chin is round: no point of the outline is farther than 1.5 mm from the line."""
    vision = pytest.importorskip("mediapipe").tasks.vision
    vertices = canonical_head()[0][:, :2]
    lines = vision.FaceLandmarksConnections.FACE_LANDMARKS_FACE_OVAL
    oval = {x for line in lines for x in (line.start, line.end)}
    jaw = vertices[MEDIAPIPE_TO_68[:17]]
    below = [i for i in oval if vertices[i, 1] > jaw[0, 1]]
    assert set(MEDIAPIPE_TO_68[:17]) <= oval and len(below) > 17
    for point in vertices[below]:
        edges = np.diff(jaw, axis=0)
        along = ((point - jaw[:-1]) * edges).sum(1) / (edges**2).sum(1)
        nearest = jaw[:-1] + np.clip(along, 0, 1)[:, None] * edges
        assert np.linalg.norm(nearest - point, axis=1).min() < 0.15


def test_landmarks_are_chosen_by_the_name_of_a_set(rng):
    points = rng.uniform(size=(2, 3, 478, 3))
    found = landmarks(points, "ibug-68-iris")
    assert found.shape == (2, 3, 78, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[..., :68, :], points[..., MEDIAPIPE_TO_68, :2], rtol=1e-6)
    np.testing.assert_allclose(found[..., 68:, :], points[..., 468:478, :2], rtol=1e-6)
    np.testing.assert_array_equal(landmarks(points), found[..., :68, :])
    with pytest.raises(VPGCError, match="no landmark set 'dlib': choose one of ibug-68, ibug"):
        landmarks(points, "dlib")
    with pytest.raises(VPGCError, match=r"received \(468, 3\)"):
        landmarks(np.zeros((468, 3)), "ibug-68-iris")


def test_irises_lie_in_real_eyes(test_data):
    """Each iris is in its own eye and about as wide as a third to a half of it."""
    from keras_vpgc.data.prepare import track_clip

    track = track_clip(test_data / "talking_man_604.mp4", end=0.12, progress=False)
    for face in landmarks(track.points, "ibug-68-iris"):
        for first, centre in ((36, 68), (42, 73)):
            eye, rim = face[first : first + 6], face[centre + 1 : centre + 5]
            assert eye[:, 0].min() < face[centre, 0] < eye[:, 0].max()
            np.testing.assert_allclose(rim.mean(0), face[centre], atol=1.5)
            assert 0.3 < np.ptp(rim[:, 0]) / np.ptp(eye[:, 0]) < 0.6
