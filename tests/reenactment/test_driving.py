"""Times, sound and gaps of the driving clip; jobs that are stopped."""

import os
import signal
import subprocess
import sys
import time
import warnings

import av
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.sound import add_sound
from keras_vpgc.data.video import VideoWriter, frame_times, probe, read_frames
from keras_vpgc.reenactment import Provenance, Puppet, reenact
from keras_vpgc.reenactment.driving import driving_landmarks, fading, hold
from keras_vpgc.reenactment.landmark_file import write_landmarks
from tests.data.test_sound import RATE, speaking

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def varying(clip, tmp_path_factory):
    """A clip of a face, of frames that last differently, with a click at one second."""
    folder = tmp_path_factory.mktemp("varying")
    times = np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.07], 40)) - 0.02
    times -= times[0]
    with VideoWriter(folder / "silent.mp4", 25, times=times) as video:
        for frame in list(read_frames(clip))[:40]:
            video.write(frame)
    assert add_sound(folder / "silent.mp4", speaking(folder / "s.mkv"), folder / "v.mp4")
    return folder / "v.mp4"


@pytest.fixture(scope="module")
def gap(clip, tmp_path_factory):
    """60 frames of a face, away in the 20 from 0.6 s on, with a click at one second."""
    folder = tmp_path_factory.mktemp("gap")
    with VideoWriter(folder / "silent.mp4", 25) as video:
        for k, frame in enumerate(read_frames(clip, 0, 60)):
            video.write(np.zeros_like(frame) if 15 <= k < 35 else frame)
    assert add_sound(folder / "silent.mp4", speaking(folder / "s.mkv"), folder / "g.mp4")
    return folder / "g.mp4"


@pytest.fixture(scope="module")
def puppet(run):
    return Puppet.load(run)


def heard(path):
    """Seconds and values of the samples."""
    with av.open(str(path)) as container:
        frames = [(x.time, x.to_ndarray()) for x in container.decode(audio=0)]
    samples = np.concatenate([x for _, x in frames], axis=1)[0]
    return frames[0][0] + np.arange(len(samples)) / RATE, samples


def click(path):
    times, samples = heard(path)
    return times[np.abs(samples).argmax()]


def test_times_and_sound_are_the_driving_clips(puppet, varying, tmp_path):
    path = reenact(puppet, varying, tmp_path / "out.mp4", progress=False)
    np.testing.assert_allclose(frame_times(path), frame_times(varying), atol=1e-4)
    assert probe(path).duration == pytest.approx(probe(varying).duration, abs=2e-3)
    assert click(path) == pytest.approx(1, abs=2e-3)
    assert [x.name for x in tmp_path.iterdir()] == ["out.mp4"]
    # A part: both begin where it does.
    path = reenact(puppet, varying, tmp_path / "part.mp4", start=0.5, progress=False)
    times = frame_times(varying)
    first = np.flatnonzero(times >= 0.5)[0]
    np.testing.assert_allclose(frame_times(path), times[first:] - times[first], atol=1e-4)
    assert click(path) == pytest.approx(1 - times[first], abs=2e-3)
    path = reenact(puppet, varying, tmp_path / "mute.mp4", end=0.5, sound=False, progress=False)
    assert not probe(path).has_sound


def test_frames_without_a_face(puppet, gap, tmp_path, monkeypatch):
    """Held, faded or left out: what is seen and heard."""
    driven = []

    def spy(landmarks, *args, batches=puppet.batches, **settings):
        driven.append(landmarks)
        return batches(landmarks, *args, **settings)

    monkeypatch.setattr(puppet, "batches", spy)
    with pytest.warns(UserWarning, match=r"no face in \d+ of 60 frames, the first at 0.60 s"):
        held = reenact(puppet, gap, tmp_path / "hold.mp4", progress=False)
    with pytest.warns(UserWarning, match="goes dark"):
        faded = reenact(puppet, gap, tmp_path / "fade.mp4", missing="fade", progress=False)
    with pytest.warns(UserWarning, match="left out"):
        reenact(puppet, gap, tmp_path / "skip.mp4", missing="skip", progress=False)
    held, faded = (np.stack(list(read_frames(x))).astype(int) for x in (held, faded))
    assert len(held) == len(faded) == 60
    # The last pose stands still, then goes over to the next one.
    assert (driven[0][15:25] == driven[0][14]).all()
    steps = np.abs(np.diff(driven[0][24:36], axis=0)).max(axis=(1, 2))
    whole = np.abs(driven[0][35] - driven[0][14]).max()
    assert 0 < steps.max() < 0.4 * whole and np.abs(held[21] - held[18]).mean() < 1
    assert faded[24].mean() < 0.4 * held[24].mean()
    assert np.abs(faded[5] - held[5]).mean() < 2
    count = len(list(read_frames(tmp_path / "skip.mp4")))
    assert 38 <= count <= 42
    # The click at 1 s lies in the 0.8 s that are left out of two of sound.
    times, samples = heard(tmp_path / "skip.mp4")
    assert times[-1] == pytest.approx(1.2, abs=0.05)
    assert np.abs(samples).max() < 0.1 * np.abs(heard(tmp_path / "hold.mp4")[1]).max()
    assert click(tmp_path / "hold.mp4") == pytest.approx(1, abs=2e-3)
    with pytest.raises(VPGCError, match="no way 'sleep' with frames without a face"):
        reenact(puppet, gap, tmp_path / "n.mp4", missing="sleep", progress=False)


def test_hold_and_fade_by_definition():
    times = np.arange(8) * 0.2
    valid = np.array([0, 1, 1, 0, 0, 0, 1, 0], bool)
    landmarks = np.arange(8.0)[:, None, None] * np.ones((8, 2, 2))
    found = hold(landmarks, valid, times)[:, 0, 0]
    np.testing.assert_allclose(found[[0, 1, 2, 6, 7]], [1, 1, 2, 6, 6])
    # 0.4 s before the face is back the glide begins: a smooth step of one half at 0.2 s.
    np.testing.assert_allclose(found[3:6], [2, 2, 4], atol=1e-6)
    np.testing.assert_allclose(fading(valid, times), [0.6, 1, 1, 0.6, 0.2, 0.6, 1, 0.6])


def test_landmark_file_drives(puppet, portrait, tmp_path):
    landmarks = portrait.landmarks[5:25]
    np.savez(tmp_path / "d.npz", landmarks=landmarks, frame_rate=30.0)
    path = reenact(
        puppet, tmp_path / "d.npz", tmp_path / "o.mp4", side_by_side=True, progress=False
    )
    assert probe(path).frame_rate == pytest.approx(30)
    frames = np.stack(list(read_frames(path))).astype(int)
    assert np.abs(frames[:, :, 64:] - puppet.drive(landmarks)).mean() < 6
    np.save(tmp_path / "d.npy", landmarks)
    path = reenact(
        puppet, tmp_path / "d.npy", tmp_path / "p.mp4", start=0.2, end=0.4, progress=False
    )
    assert probe(path).frame_rate == pytest.approx(25) and len(frame_times(path)) == 5
    landmarks = landmarks.copy()
    landmarks[3, 7] = np.nan
    np.savez(tmp_path / "nan.npz", landmarks=landmarks)
    np.savez(tmp_path / "far.npz", landmarks=portrait.landmarks * 512)
    np.savez(tmp_path / "other.npz", points=landmarks)
    np.savez(tmp_path / "rate.npz", landmarks=landmarks, frame_rate=0)
    np.savez(tmp_path / "words.npz", landmarks=np.array(["a", "b"]))
    (tmp_path / "text.npz").write_text("hello")
    for name, words in (
        ("nan.npz", "landmarks of frame 3 are not finite"),
        ("far.npz", "far outside of the crop"),
        ("other.npz", "holds no landmarks that can be read"),
        ("text.npz", "holds no landmarks that can be read"),
        ("rate.npz", "gives 0 frames a second"),
        ("words.npz", "of type <U1: give numbers"),
        ("none.npz", "There is no file .*none.npz"),
    ):
        with pytest.raises(VPGCError, match=words):
            reenact(puppet, tmp_path / name, tmp_path / "n.mp4", progress=False)
    with pytest.raises(VPGCError, match="file of landmarks, which cannot be retargeted"):
        reenact(puppet, tmp_path / "d.npz", tmp_path / "n.mp4", motion=0.5, progress=False)
    assert not list(tmp_path.glob("n.mp4*"))


@pytest.mark.slow
def test_killed_job_goes_on_to_the_same_file(run, puppet, gap, tmp_path, monkeypatch):
    """Killed by the system in the middle of its third part; the frames are not tracked again."""
    script = (
        "import sys, time\n"
        "import importlib\n"
        "module = importlib.import_module('keras_vpgc.reenactment.reenact')\n"
        "from keras_vpgc.data.video_parts import VideoParts\n"
        "module.PART_FRAMES = 16\n"
        "write = VideoParts.write\n"
        "def slow(self, frame):\n"
        "    write(self, frame)\n"
        "    if self.done == 40:\n"
        "        time.sleep(600)\n"
        "VideoParts.write = slow\n"
        "from keras_vpgc.reenactment import Provenance\n"
        "off = Provenance(enabled=False)\n"
        f"settings = {{'batch_size': 4, 'progress': False, 'provenance': off}}\n"
        f"module.reenact({str(run)!r}, {str(gap)!r}, 'out.mp4', **settings)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    parts = tmp_path / "out.mp4.parts"
    until = time.monotonic() + 600
    while not (parts / "part-0000016.mp4").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.mp4").exists()
    assert (parts / "part-0000016.mp4").exists() and not (parts / "part-0000032.mp4").exists()
    module = sys.modules["keras_vpgc.reenactment.reenact"]
    monkeypatch.setattr(module, "PART_FRAMES", 16)
    # A manifest holds its time.
    off = Provenance(enabled=False)
    settings = {"batch_size": 4, "progress": False, "provenance": off}
    with pytest.raises(VPGCError, match=r"unfinished job that cannot go on \(other motion\)"):
        reenact(puppet, gap, tmp_path / "out.mp4", motion=0.5, **settings)
    written = (parts / "part-0000000.mp4").stat().st_mtime_ns
    monkeypatch.setattr(
        "keras_vpgc.data.tracking.parallel.run",
        lambda job, settings, tasks, *rest: [pytest.fail("tracked again") for _ in tasks],
    )
    seen = []
    replace = os.replace

    def note(source, target):
        if str(target) == str(tmp_path / "out.mp4"):
            seen.append((parts / "part-0000000.mp4").stat().st_mtime_ns)
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", note)
    reenact(puppet, gap, tmp_path / "out.mp4", **settings)
    assert seen == [written]
    monkeypatch.undo()
    monkeypatch.setattr(module, "PART_FRAMES", 16)
    reenact(puppet, gap, tmp_path / "once.mp4", **settings)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "once.mp4").read_bytes()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["once.mp4", "out.mp4"]


def test_one_output_takes_one_job(puppet, clip, tmp_path):
    """The second of two equal jobs is refused, and touches nothing; a dead one holds nothing."""
    target = tmp_path / "out" / "o.mp4"
    holder = (
        "import sys, time\n"
        "from keras_vpgc.data.video_parts import only_job\n"
        f"with only_job({str(target)!r}):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_VPGC_WORKER": "1"},
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(VPGCError, match="o.mp4 is being made by another process: wait"):
            reenact(puppet, clip, target, end=0.4, progress=False)
        assert [x.name for x in target.parent.iterdir()] == [".o.mp4.lock"]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    reenact(puppet, clip, target, end=0.4, progress=False)
    assert [x.name for x in target.parent.iterdir()] == ["o.mp4"]


def test_full_disk_keeps_what_is_done(puppet, varying, tmp_path, monkeypatch):
    module = sys.modules["keras_vpgc.reenactment.reenact"]
    monkeypatch.setattr(module, "PART_FRAMES", 16)

    def full(self, frame, write=module.VideoParts.write):
        if self.done == 36:
            raise VPGCError("There is no space left.")
        write(self, frame)

    monkeypatch.setattr(module.VideoParts, "write", full)
    with (
        pytest.warns(UserWarning, match="can be played in .*out.mp4.parts; the same call goes on"),
        pytest.raises(VPGCError, match="no space left"),
    ):
        reenact(puppet, varying, tmp_path / "out.mp4", progress=False)
    shown = [len(list(read_frames(x))) for x in sorted(tmp_path.glob("*/part*.mp4"))]
    assert shown == [16, 16, 4]


def test_tracking_is_found_again(puppet, clip, tmp_path):
    first, _, _ = driving_landmarks(puppet, clip, end=0.4, folder=tmp_path, progress=False)
    assert list(tmp_path.iterdir())
    again, _, _ = driving_landmarks(puppet, clip, end=0.4, folder=tmp_path, progress=False)
    np.testing.assert_array_equal(first, again)


def test_corrected_settings_find_the_tracking(puppet, clip, tmp_path, monkeypatch):
    """What is refused, or stopped, after the tracking does not track again."""
    module = sys.modules["keras_vpgc.reenactment.driving"]
    monkeypatch.setattr(
        module,
        "make_compositor",
        lambda *args, **settings: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    settings = {"end": 0.4, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        reenact(puppet, clip, tmp_path / "o.mp4", paste_back="crop", **settings)
    monkeypatch.setattr(
        "keras_vpgc.data.tracking.parallel.run",
        lambda job, settings, tasks, *rest: [pytest.fail("tracked again") for _ in tasks],
    )
    reenact(puppet, clip, tmp_path / "o.mp4", motion=0.5, **settings)
    assert [x.name for x in tmp_path.iterdir()] == ["o.mp4"]


@pytest.mark.slow
def test_landmarks_written_drive_as_the_video_does(puppet, gap, varying, tmp_path):
    for name, clip in (("gap", gap), ("varying", varying)):
        file = tmp_path / f"{name}.npz"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_landmarks(puppet, clip, file, retargeting="relative", progress=False)
            by_file = reenact(puppet, file, tmp_path / f"{name}f.mp4", progress=False)
            by_clip = reenact(
                puppet, clip, tmp_path / f"{name}c.mp4", retargeting="relative", progress=False
            )
        np.testing.assert_allclose(frame_times(by_file), frame_times(by_clip), atol=1e-4)
        one, two = (np.stack(list(read_frames(x))).astype(int) for x in (by_file, by_clip))
        assert np.abs(one - two).mean() < 0.5
    np.savez(tmp_path / "o.npz", landmarks=np.zeros((3, 68, 2)), landmark_set="ibug-68-iris")
    np.savez(tmp_path / "t.npz", landmarks=np.zeros((3, 68, 2)), times=[0, 2, 1])
    for name, words in (("o", "holds the landmark set ibug-68-iris"), ("t", "no rising second")):
        with pytest.raises(VPGCError, match=words):
            reenact(puppet, tmp_path / f"{name}.npz", tmp_path / "n.mp4", progress=False)
