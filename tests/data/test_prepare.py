import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import Portrait, prepare
from keras_vpgc.data.landmark_sets import eye_opening, mouth_opening
from keras_vpgc.data.prepare import split
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.data.video import VideoWriter, read_frames

pytestmark = pytest.mark.once


def test_split_has_gaps_of_a_second_and_the_test_part_last():
    parts = split(4998, 25)
    assert parts == {"train": [0, 3748], "validation": [3773, 3973], "test": [3998, 4998]}
    # A short clip gets a fifth and shorter gaps.
    parts = split(100, 25)
    assert parts["test"] == [80, 100]
    assert parts["train"][1] < parts["validation"][0] < parts["validation"][1] < 80
    assert split(4998, 25, 250)["test"] == [4748, 4998]
    with pytest.raises(VPGCError, match="test part of 90 frames does not fit a clip of 100"):
        split(100, 25, 90)


def test_portrait_folder_describes_itself(portrait, clip):
    info = json.loads((portrait.path / "portrait.json").read_text())
    assert info["source"] == clip.name and len(info["source_sha256"]) == 64
    assert info["frame_count"] == len(portrait) == 75
    assert info["frame_rate"] == 25
    assert info["frames_without_face"] == 0
    assert "mediapipe" in info["tracker"] and info["landmark_set"] == "mediapipe-478"
    assert {x.name for x in portrait.path.iterdir()} == {"portrait.json", "frames", "tracking.npz"}
    assert len(list((portrait.path / "frames").iterdir())) == 75
    assert not list(portrait.path.parent.glob(".*"))


def test_tracked_landmarks_are_the_true_ones(portrait, clip):
    """The animated portrait's landmarks are known: crop, scale and order must be right."""
    truth = np.load(clip.with_suffix(".npz"))["landmarks"]
    crop = portrait.info["crop"]
    truth = (truth * 256 - [crop["x"], crop["y"]]) / crop["size"]
    distance = np.linalg.norm(portrait.landmarks - truth, axis=-1)
    face = np.ptp(truth[..., 1], axis=1).mean()
    assert np.median(distance) / face < 0.03
    a, b = mouth_opening(portrait.landmarks), mouth_opening(truth)
    assert np.corrcoef(a, b)[0, 1] > 0.9
    shut = eye_opening(truth).mean(1)
    assert np.corrcoef(eye_opening(portrait.landmarks).mean(1), shut)[0, 1] > 0.7


def test_frames_are_the_crop_of_the_video(portrait, clip):
    crop = {k: int(v) for k, v in portrait.info["crop"].items()}
    source = list(read_frames(clip))[40]
    cut = source[crop["y"] : crop["y"] + crop["size"], crop["x"] : crop["x"] + crop["size"]]
    wanted = cv2.resize(cut, (64, 64), interpolation=cv2.INTER_AREA)
    found = portrait.frames([40])[0]
    assert np.abs(found.astype(int) - wanted).mean() < 1
    assert portrait.frames([1, 2], size=32).shape == (2, 32, 32, 3)
    # The face is in the middle and fills about half.
    face = portrait.landmarks[portrait.indices("train")]
    assert np.abs(face.mean((0, 1)) - 0.5).max() < 0.15
    assert 0.3 < np.ptp(face[..., 1], axis=1).mean() < 0.7


def test_prepared_portrait_is_used_again_and_others_are_kept(portrait, clip, tmp_path):
    before = (portrait.path / "portrait.json").stat().st_mtime_ns
    prepare(clip, portrait.path, size=64, progress=False)
    assert (portrait.path / "portrait.json").stat().st_mtime_ns == before
    with pytest.raises(VPGCError, match="holds something else"):
        prepare(clip, portrait.path, size=32, progress=False)
    assert (portrait.path / "portrait.json").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(VPGCError, match="holds something else"):
        prepare(clip, tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_chosen_crop_and_range(clip, tmp_path):
    portrait = prepare(
        clip, tmp_path / "p", crop="20,10,200", size=64, start=5, stop=55, progress=False
    )
    assert portrait.info["crop"] == {"x": 20, "y": 10, "size": 200}
    assert len(portrait) == 50 and portrait.info["source_range"] == [5, 55]
    source = list(read_frames(clip, 5, 6))[0][10:210, 20:220]
    wanted = cv2.resize(source, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(portrait.frames([0])[0].astype(int) - wanted).mean() < 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"crop": "200,0,100"}, "leaves the picture of 256x256 pixels"),
        ({"crop": "1,2"}, "three numbers X,Y,SIZE"),
        ({"size": 4}, "too small"),
        ({"test_frames": 70}, "does not fit a clip of 75"),
        ({"stop": 20}, "Only 20 of the 20 frames"),
    ],
)
def test_bad_settings_leave_nothing(settings, message, clip, tmp_path):
    with pytest.raises(VPGCError, match=message):
        prepare(clip, tmp_path / "p", progress=False, **settings)
    assert not list(tmp_path.iterdir())


def test_video_without_a_face_leaves_nothing(tmp_path, rng):
    source = tmp_path / "wall.mp4"
    wall = cv2.GaussianBlur(rng.integers(0, 256, size=(120, 160, 3), dtype="uint8"), (0, 0), 9)
    with VideoWriter(source, 25) as video:
        for _ in range(40):
            video.write(wall)
    with pytest.raises(VPGCError, match="No face was found in any of the 40 frames of .*wall.mp4"):
        prepare(source, tmp_path / "p", progress=False)
    assert [x.name for x in tmp_path.iterdir()] == ["wall.mp4"]


def test_repeated_frames_are_not_trained_on(tmp_path):
    from examples.animated_portrait import animate

    with VideoWriter(tmp_path / "doubled.mp4", 50, crf=1) as video:
        for frame, _ in animate(40, 128):
            video.write(frame)
            video.write(frame)
    portrait = prepare(tmp_path / "doubled.mp4", tmp_path / "p", progress=False)
    train = portrait.indices("train")
    first, last = portrait.info["split"]["train"]
    assert len(train) <= 0.6 * (last - first)
    assert (train % 2 == 0).mean() > 0.9


def test_killed_preparation_goes_on_and_gives_the_same(clip, portrait, tmp_path, monkeypatch):
    """Killed while frames are written: no portrait is there; the same call finishes it."""
    code = (
        "import sys; from keras_vpgc.data import prepare\n"
        "prepare(sys.argv[1], sys.argv[2], size=64, progress=False)"
    )
    target = tmp_path / "p"
    process = subprocess.Popen([sys.executable, "-c", code, str(clip), str(target)])
    frames = tmp_path / ".p.partial" / "frames"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if frames.is_dir() and any(frames.iterdir()):
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert list((tmp_path / ".p.partial" / "tracking").glob("[0-9]*.npz"))

    def refuse(self, frames):
        raise AssertionError("the track that was there is made again")

    monkeypatch.setattr(FaceTracker, "track", refuse)
    again = prepare(clip, target, size=64, progress=False)
    np.testing.assert_array_equal(again.points, portrait.points)
    np.testing.assert_array_equal(again.frames(), portrait.frames())
    assert not list(tmp_path.glob(".*"))


def test_damaged_portraits_are_named(portrait, tmp_path):
    import shutil

    with pytest.raises(VPGCError, match="no portrait folder"):
        Portrait(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(portrait.path, copy)
    info = json.loads((copy / "portrait.json").read_text())
    (copy / "frames" / "000007.png").write_bytes(b"")
    with pytest.raises(VPGCError, match="000007.png is missing or damaged"):
        Portrait(copy).frames()
    (copy / "portrait.json").write_text(json.dumps({**info, "schema_version": 7}))
    with pytest.raises(VPGCError, match="schema version 7 but this keras_vpgc reads 1"):
        Portrait(copy)
    (copy / "portrait.json").write_text("{")
    with pytest.raises(VPGCError, match="damaged"):
        Portrait(copy)
    with pytest.raises(VPGCError, match="no part 'training'"):
        portrait.indices("training")


def test_real_clip_without_a_face(test_data, tmp_path):
    with pytest.raises(VPGCError, match="No face was found in any of the 95 frames"):
        prepare(test_data / "hard" / "no_face.mp4", tmp_path / "p", progress=False)
    assert not list(tmp_path.iterdir())


def test_real_clip_whose_face_leaves(test_data, tmp_path):
    portrait = prepare(
        test_data / "hard" / "noface_face.mov", tmp_path / "p", size=64, progress=False
    )
    missing = portrait.info["frames_without_face"]
    assert 0 < missing < len(portrait)
    # Frames without a face are never trained on or scored, and have a neighbour's landmarks.
    for part in ("train", "validation", "test"):
        assert portrait.valid[portrait.indices(part)].all()
    assert np.isfinite(portrait.landmarks).all()


def test_real_footage(test_data, tmp_path):
    portrait = prepare(test_data / "franck.webm", tmp_path / "p", stop=60, progress=False)
    assert portrait.info["frames_without_face"] == 0
    face = portrait.landmarks
    # The eyes are above the mouth, his right eye is on the left, all lies in the crop.
    assert (face[:, 36:48, 1].mean(1) < face[:, 48:, 1].mean(1) - 0.1).all()
    assert (face[:, 36, 0] < face[:, 45, 0] - 0.1).all()
    assert 0 < face.min() and face.max() < 1
