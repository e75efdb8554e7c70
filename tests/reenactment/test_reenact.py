import errno
import importlib
import os
import warnings

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.video import probe, read_frames
from keras_vpgc.reenactment import Puppet, reenact
from keras_vpgc.training import draw

driving_module = importlib.import_module("keras_vpgc.reenactment.driving")
pytestmark = pytest.mark.once


def test_own_video_drives_the_puppet(run, portrait, clip, tmp_path):
    target = tmp_path / "out.mp4"
    path = reenact(run, clip, target, start=0.4, end=0.8, side_by_side=True, progress=False)
    frames = list(read_frames(path))
    assert len(frames) == 10 and frames[0].shape == (64, 128, 3)
    # Left the driving face in the portrait's crop, right what the puppet makes of its landmarks.
    truth = portrait.frames(np.arange(10, 20))
    left = np.stack([f[:, :64] for f in frames]).astype(int)
    assert np.abs(left - truth).mean() < 6
    driven = Puppet.load(run).drive(portrait.landmarks[10:20])
    right = np.stack([f[:, 64:] for f in frames]).astype(int)
    assert np.abs(right - driven).mean() < 6


def test_folder_of_contour_images_drives_the_puppet(run, portrait, tmp_path):
    drawings = draw(portrait.landmarks[:12], 64)
    folder = tmp_path / "drawn"
    folder.mkdir()
    for i, drawing in enumerate(drawings):
        cv2.imwrite(str(folder / f"{i}.png"), drawing)
    target = tmp_path / "out.mp4"
    reenact(run, folder, target, start=0.04, end=0.36, side_by_side=True, progress=False)
    assert probe(target).frame_rate == pytest.approx(portrait.frame_rate)
    frames = np.stack(list(read_frames(target))).astype(int)
    assert frames.shape == (8, 64, 128, 3)
    # Left the drawing, right what the puppet makes of it (as video, so not to the level).
    assert np.abs(frames[:, :, :64] - drawings[1:9, ..., None]).mean() < 8
    driven = Puppet.load(run).drive(portrait.landmarks[1:9])
    assert np.abs(frames[:, :, 64:] - driven).mean() < 6
    for arguments, message in (
        ({"retargeting": "relative"}, "contour images, which cannot be retargeted"),
        ({"motion": 0.5}, "contour images, which cannot be retargeted"),
        ({"start": 20}, "holds 12 contour images, 0.48 s at the puppet's rate, none of them"),
    ):
        with pytest.raises(VPGCError, match=message):
            reenact(run, folder, tmp_path / "new.mp4", progress=False, **arguments)
    with pytest.raises(VPGCError, match="holds no PNG or JPEG file"):
        reenact(run, run, tmp_path / "new.mp4", progress=False)
    assert not (tmp_path / "new.mp4").exists()


def test_existing_output_and_bad_driver_change_nothing(run, clip, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"mine")
    with pytest.raises(VPGCError, match="out.mp4 exists"):
        reenact(run, clip, target, progress=False)
    assert target.read_bytes() == b"mine"
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VPGCError, match="text.mp4 cannot be read as a video"):
        reenact(run, tmp_path / "text.mp4", tmp_path / "new.mp4", progress=False)
    assert not (tmp_path / "new.mp4").exists()


def test_precisions_that_cannot_be(run, clip, tmp_path):
    target = tmp_path / "new.mp4"
    with pytest.raises(VPGCError, match="no precision 'half'"):
        reenact(run, clip, target, precision="half", progress=False)
    with pytest.raises(VPGCError, match="has its precision already"):
        reenact(Puppet.load(run), clip, target, precision="float32", progress=False)
    assert not target.exists()


def test_bad_output_is_named_before_the_tracking(run, clip, tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the driving video was tracked")

    monkeypatch.setattr(driving_module, "track_clip", never)
    (tmp_path / "file").write_text("mine")
    for name, words in (
        ("b.txt", "b.txt is no name for a video"),
        ("b", "is no name for a video"),
        (".", "is a folder: give a file"),
        ("file/a.mp4", "cannot be written"),
    ):
        with pytest.raises(VPGCError, match=words):
            reenact(run, clip, tmp_path / name, overwrite=True, progress=False)
    with pytest.raises(VPGCError, match="astronaut.mp4 is the driving video itself"):
        reenact(run, clip, clip, overwrite=True, progress=False)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("keras_vpgc.errors.tempfile.TemporaryFile", full)
    with pytest.raises(VPGCError, match="no space left for .*new/a.mp4: make some and run"):
        reenact(run, clip, tmp_path / "new" / "a.mp4", progress=False)
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_neutral_second_and_motion(run, portrait, clip, tmp_path):
    """The driver at rest in the given second is the puppet at rest."""
    found = {}
    for motion in (0.0, 1.0):
        path = tmp_path / f"{motion}.mp4"
        settings = {"neutral": 0.2, "motion": motion, "guard": "off"}
        reenact(run, clip, path, end=0.4, progress=False, **settings)
        found[motion] = np.stack(list(read_frames(path))).astype(int)
    assert (found[0.0] != found[1.0]).any()
    for neutral in (0.4, -0.5):
        with pytest.raises(VPGCError, match=f"Second {neutral} is not in the part of .*astronaut"):
            reenact(run, clip, tmp_path / "n.mp4", end=0.4, neutral=neutral, progress=False)
    with pytest.raises(VPGCError, match="no guard 'loud'"):
        reenact(run, clip, tmp_path / "n.mp4", guard="loud", progress=False)
    assert not (tmp_path / "n.mp4").exists()


def test_driver_without_a_face(test_data, run, tmp_path):
    source = test_data / "hard" / "no_face.mp4"
    with pytest.raises(VPGCError, match="No face was found in any of the 95 frames"):
        reenact(run, source, tmp_path / "new.mp4", progress=False)
    assert not list(tmp_path.iterdir())


def test_another_person_drives_the_puppet(test_data, run, tmp_path):
    """A real driver of another size and rate: every frame is there and a face is in view."""
    source = test_data / "talking_man_604.mp4"
    path = reenact(run, source, tmp_path / "new.mp4", end=0.48, progress=False)
    assert len(list(read_frames(path))) == 12


def test_command_says_a_warning_in_one_line(monkeypatch, capsys):
    import keras_vpgc.reenactment
    from keras_vpgc.cli.reenact import command

    def warn(*args, **settings):
        warnings.warn(f"yaw reaches 40, {settings['motion']}", stacklevel=2)
        return "out.mp4"

    monkeypatch.setattr(keras_vpgc.reenactment, "reenact", warn)
    command("run", "friend.mp4", "out.mp4", motion=0.5)
    assert capsys.readouterr() == ("out.mp4 is ready.\n", "vpgc: yaw reaches 40, 0.5\n")
