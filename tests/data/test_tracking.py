import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.tracking import FaceTracker, Track, track_video

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def tracker():
    with FaceTracker() as opened:
        yield opened


def astronaut():
    from skimage import data

    return data.astronaut()


def test_face_is_found_in_source_pixels(tracker):
    track = tracker.track([astronaut()])
    assert track.points.shape == (1, 478, 3) and track.valid.tolist() == [True]
    # The astronaut's face, known from scikit-image's own documentation of the picture.
    assert np.abs(track.points[0, :, :2].mean(0) - [222, 122]).max() < 15
    assert track.blendshapes.shape == (1, 52)
    assert 0 <= track.blendshapes.min() and track.blendshapes.max() <= 1
    np.testing.assert_allclose(track.matrices[0, 3], [0, 0, 0, 1], atol=1e-6)


def test_frames_do_not_depend_on_each_other(tracker):
    frame = astronaut()
    blank = np.full_like(frame, 128)
    first = tracker.track([frame])
    later = tracker.track([blank, frame, frame])
    assert later.valid.tolist() == [False, True, True]
    assert np.isnan(later.points[0]).all()
    np.testing.assert_array_equal(later.points[1], first.points[0])
    np.testing.assert_array_equal(later.points[2], first.points[0])


def test_the_largest_of_two_faces_is_taken(tracker):
    face = cv2.resize(astronaut()[:230, 110:340], (300, 300))
    small = cv2.resize(face, (150, 150))
    picture = np.full((300, 500, 3), 200, "uint8")
    picture[:, :300] = face
    picture[:150, 350:] = small
    for frame, left in ((picture, True), (picture[:, ::-1], False)):
        middle = tracker.track([np.ascontiguousarray(frame)]).points[0, :, 0].mean()
        assert (middle < 250) == left


def test_stopped_tracking_goes_on_part_by_part(tracker, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vpgc.data.tracking.PART_FRAMES", 20)
    whole = track_video(clip, tracker, tmp_path / "parts", stop=50)
    assert len(whole.valid) == 50
    assert len(list((tmp_path / "parts").glob("*.npz"))) == 3
    (tmp_path / "parts" / "00002.npz").unlink()
    (tmp_path / "parts" / "00001.npz").unlink()
    done = []
    again = track_video(clip, tracker, tmp_path / "parts", stop=50, progress=done.append)
    assert done == [20, 20, 10]
    np.testing.assert_array_equal(again.points, whole.points)


def test_empty_tracks_join():
    assert len(Track.join([Track.empty(2), Track.empty(3)]).valid) == 5
    assert len(Track.join([]).valid) == 0


def test_model_file_that_is_not_there(tmp_path):
    with pytest.raises(VPGCError, match="face.task was given as face_landmarker.task"):
        FaceTracker(tmp_path / "face.task")
