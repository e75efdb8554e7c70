import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import tracking, video
from keras_vpgc.data.prepare import refine
from keras_vpgc.data.tracking import Faces, FaceTracker, Track, track_faces

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


def test_all_faces_are_found_and_echoes_are_none(tracker):
    face = astronaut()[:230, 110:340]
    picture = np.full((480, 480, 3), 200, "uint8")
    corners = [(0, 0), (240, 0), (0, 240), (240, 240)]
    for k, (x, y) in enumerate(corners):
        size = 240 - 15 * k
        picture[y : y + size, x : x + size] = cv2.resize(face, (size, size))
    points, blendshapes, matrices = tracker.detect(picture)
    assert points.shape == (4, 478, 3)
    assert blendshapes.shape == (4, 52) and matrices.shape == (4, 4, 4)
    middles = points[..., :2].mean(axis=1)  # the largest first
    assert (240 * (middles // 240)).astype(int).tolist() == [list(corner) for corner in corners]
    empty = tracker.detect(np.full((100, 100, 3), 90, "uint8"))
    assert [x.shape for x in empty] == [(0, 478, 3), (0, 52), (0, 4, 4)]


def test_huge_pictures_are_looked_at_smaller_in_their_own_pixels(tracker, monkeypatch):
    frame = cv2.resize(astronaut()[:230, 110:340], (700, 700), interpolation=cv2.INTER_CUBIC)
    whole = tracker.detect(frame)[0][0]
    monkeypatch.setattr("keras_vpgc.data.tracking.MAX_SIDE", 500)
    reduced = tracker.detect(frame)[0][0]
    distance = np.linalg.norm((whole - reduced)[:, :2], axis=1).mean()
    assert 0 < distance < 0.01 * np.ptp(whole[:, 1])


def test_any_number_of_workers_and_a_stop_in_between_give_the_same(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vpgc.data.tracking.CHUNK_FRAMES", 12)
    told = []
    two = track_faces(clip, tmp_path / "two", 3, 33, workers=2, progress=told.append)
    assert len(two) == 30 == sum(told) and two.frame.tolist() == list(range(30))
    assert sorted(x.name for x in (tmp_path / "two").iterdir()) == [
        "0000003.npz", "0000015.npz", "0000027.npz",
    ]  # fmt: skip
    one = track_faces(clip, tmp_path / "one", 3, 33, workers=1)
    monkeypatch.setattr("keras_vpgc.data.tracking.CHUNK_FRAMES", 100)
    whole = track_faces(clip, tmp_path / "whole", 3, 33, workers=1)
    for other in (one, whole):
        for name in vars(two):
            np.testing.assert_array_equal(getattr(two, name), getattr(other, name))
    # One part is lost; the others are not made again.
    monkeypatch.setattr("keras_vpgc.data.tracking.CHUNK_FRAMES", 12)
    (tmp_path / "two" / "0000015.npz").unlink()
    seen = []
    read = video.read_frames
    monkeypatch.setattr(
        video, "read_frames", lambda path, a, b: seen.append((a, b)) or read(path, a, b)
    )
    again = track_faces(clip, tmp_path / "two", 3, 33, workers=1)
    assert seen == [(14, 27)]
    np.testing.assert_array_equal(again.points, whole.points)


def test_differences_tell_cuts_and_repeats(tmp_path, clip):
    frames = list(video.read_frames(clip, 0, 12))
    order = [*frames[:4], frames[3], *frames[4:6], *(255 - frame for frame in frames[6:])]
    with video.VideoWriter(tmp_path / "v.mp4", 25, crf=1) as writer:
        for frame in order:
            writer.write(frame)
    faces = track_faces(tmp_path / "v.mp4", tmp_path / "parts", 0, len(order))
    assert faces.cut.argmax() == 7 and faces.cut[7] > 60 > 10 > np.delete(faces.cut, 7).max()
    assert faces.change[1:].argmin() == 3 and faces.cut[0] == faces.change[0] == 0


def test_track_of_a_chosen_face():
    points = np.arange(3 * 478 * 3, dtype="float32").reshape(3, 478, 3)
    faces = Faces(
        np.array([0, 0, 2]),
        points,
        np.zeros((3, 52), "float32"),
        np.zeros((3, 4, 4), "float32"),
        *np.zeros((2, 3), "float32"),
    )
    track = faces.track([1, -1, 2])
    assert track.valid.tolist() == [True, False, True] and track.confidence.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(track.points[[0, 2]], points[1:])
    assert np.isnan(track.points[1]).all()
    assert track[1:].valid.tolist() == [False, True]


def test_points_of_a_long_clip_are_read_and_refined_on_disk(tmp_path, monkeypatch):
    """Memory holds neither all faces nor the track: two and a half chunks, a face in each frame."""
    monkeypatch.setattr(tracking, "CHUNK_FRAMES", 400)
    rng = np.random.default_rng(0)
    face = rng.uniform(50, 150, (478, 3))
    points = (face + rng.normal(0, 0.2, (1000, 478, 3))).astype("float32")
    others = {
        "blendshapes": np.zeros((1000, 52), "float32"),
        "matrices": np.tile(np.eye(4, dtype="float32"), (1000, 1, 1)),
    }
    files = [tmp_path / f"{first}.npz" for first in (0, 400, 800)]
    for file, first in zip(files, (0, 400, 800), strict=True):
        part = slice(first, first + 400)
        count = len(points[part])
        np.savez(
            file,
            frame=np.arange(count),
            points=points[part],
            **{name: values[part] for name, values in others.items()},
            cut=np.zeros(count, "float32"),
            change=np.zeros(count, "float32"),
        )
    whole = Track(points, *others.values(), np.ones(1000, "float32"), *np.zeros((2, 1000), bool))
    whole.valid[:] = True
    times = np.arange(1000) / 25
    wanted, _ = refine(whole, times, 200, 200)
    tracemalloc.start()
    try:
        faces = Faces.read(files)
        track = faces.track(np.arange(1000), tmp_path)
        refine(track, times, 200, 200, in_place=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(faces) == 1000 and faces.frame.tolist() == list(range(1000))
    np.testing.assert_array_equal(track.points, wanted.points)
    assert np.abs(track.points - points).max() > 0.1  # smoothed
    assert peak < points.nbytes + 400 * 5736  # and not several times as much
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_tracker_does_not_wait_for_tensorflow():
    """MediaPipe alone would import it; it must be importable afterwards all the same."""
    code = (
        "import os; os.environ['KERAS_VPGC_WORKER'] = '1'\n"
        "import sys; from keras_vpgc.data.tracking import FaceTracker\n"
        "FaceTracker().__exit__(); print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False"], result.stderr


def test_empty_tracks_join():
    assert len(Track.join([Track.empty(2), Track.empty(3)]).valid) == 5
    assert len(Track.join([]).valid) == 0


def test_model_file_that_is_not_there(tmp_path):
    with pytest.raises(VPGCError, match="face.task was given as face_landmarker.task"):
        FaceTracker(tmp_path / "face.task")
