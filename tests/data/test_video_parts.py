"""A video in parts is the same file however often it was stopped."""

import av
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.video import VideoWriter, frame_times, probe, read_frames
from keras_vpgc.data.video_parts import VideoParts

pytestmark = pytest.mark.once

COUNT, LENGTH = 25, 8


def pictures(count=COUNT):
    y, x = np.mgrid[:48, :64]
    return [np.stack([4 * x, 4 * y + k, y * 0 + 9 * k], -1).astype("uint8") for k in range(count)]


def parts(folder, times=None, settings=None, **more):
    return VideoParts(folder, settings or {"who": "me"}, COUNT, LENGTH, 25, times, **more)


def write(folder, target, stops=(), times=None):
    """Written with stops after so many frames each."""
    frames = pictures()
    for stop in (*stops, COUNT):
        with parts(folder, times) as video:
            for frame in frames[video.done : stop]:
                video.write(frame)
            if stop == COUNT:
                video.join(target, None if times is None else 0.5)
    return target.read_bytes()


@pytest.mark.parametrize("varying", [False, True])
def test_same_file_with_and_without_stops(tmp_path, varying):
    times = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.09, COUNT)) if varying else None
    times = times - times[0] if varying else None
    once = write(tmp_path / "a", tmp_path / "a.mp4", times=times)
    assert write(tmp_path / "b", tmp_path / "b.mp4", (3, 11, 16, 24), times) == once
    found = np.stack(list(read_frames(tmp_path / "a.mp4"))).astype(int)
    assert np.abs(found - pictures()).mean() < 4
    expected = np.arange(COUNT) / 25 if times is None else times
    np.testing.assert_allclose(frame_times(tmp_path / "a.mp4"), expected, atol=2e-5)
    lasts = 0.04 if times is None else 0.5
    assert probe(tmp_path / "a.mp4").duration == pytest.approx(expected[-1] + lasts, abs=1e-4)
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = sum(packet.is_keyframe for packet in container.demux(video=0))
    assert keys == 4
    # In another container too, to its milliseconds.
    with parts(tmp_path / "a", times) as video:
        video.join(tmp_path / "a.mkv")
        video.remove()
    np.testing.assert_allclose(frame_times(tmp_path / "a.mkv"), expected, atol=1e-3)
    assert not (tmp_path / "a").exists()


def test_what_is_written_can_be_played(tmp_path):
    with pytest.raises(KeyboardInterrupt), parts(tmp_path / "p") as video:
        for frame in pictures()[:12]:
            video.write(frame)
        with pytest.raises(VPGCError, match="holds 12 of 25 frames: run the same command again"):
            video.join(tmp_path / "a.mp4")
        raise KeyboardInterrupt
    shown = {file.name: len(list(read_frames(file))) for file in tmp_path.glob("p/*.mp4")}
    assert shown == {"part-0000000.mp4": 8, "part-0000008.partial.mp4": 4}
    # Its frames may depend on what would have followed: that part begins again.
    with parts(tmp_path / "p") as video:
        assert video.done == 8


def test_fragments_can_be_played_before_the_end(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 25, part=True)
    noise = np.random.default_rng(0).integers(0, 255, (150, 64, 64, 3), "uint8")
    for frame in noise:
        writer.write(frame)
    # As a process that is killed leaves it.
    copied = tmp_path / "copy.mp4"
    copied.write_bytes((tmp_path / "a.partial.mp4").read_bytes())
    assert len(list(read_frames(copied))) > 25
    writer.keep()


def test_other_jobs_are_refused(tmp_path):
    with parts(tmp_path / "p", settings={"motion": 1, "guard": "off"}) as video:
        for frame in pictures()[:LENGTH]:
            video.write(frame)
    with pytest.raises(
        VPGCError, match=r"unfinished job that cannot go on \(other guard, motion\)"
    ):
        parts(tmp_path / "p", settings={"motion": 0.5, "guard": "warn"})
    assert parts(tmp_path / "p", settings={"motion": 1, "guard": "off"}).done == LENGTH
    assert parts(tmp_path / "p", settings={"motion": 0.5}, overwrite=True).done == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(VPGCError, match="mine is where the job is kept but holds other files"):
        parts(tmp_path / "mine")
    # What has not done anything yet is replaced; a part or a damaged job is not.
    assert parts(tmp_path / "p", settings={"motion": 0.2}).done == 0
    with parts(tmp_path / "p") as video:
        for frame in pictures()[:LENGTH]:
            video.write(frame)
    (tmp_path / "p" / "job.json").write_text("{")
    with pytest.raises(VPGCError, match="it is damaged"):
        parts(tmp_path / "p")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(VPGCError, match="file is where the job is kept but is a file"):
        parts(tmp_path / "file")


def test_only_the_jobs_own_files_are_removed(tmp_path):
    with parts(tmp_path / "p") as video:
        for frame in pictures():
            video.write(frame)
        (tmp_path / "p" / "diary.txt").write_text("dear")
        video.join(tmp_path / "p" / "joined.mp4")
        video.remove()
    assert [x.name for x in (tmp_path / "p").iterdir()] == ["diary.txt"]


def test_parts_say_what_the_whole_says(tmp_path):
    said = {"title": "Synthetic"}
    with parts(tmp_path / "p", metadata=said) as video:
        for frame in pictures():
            video.write(frame)
        video.join(tmp_path / "a.mp4")
    for file in (tmp_path / "a.mp4", *(tmp_path / "p").glob("*.mp4")):
        with av.open(str(file)) as container:
            assert container.metadata.items() >= said.items()


def test_frames_beyond_the_times_are_refused(tmp_path):
    with (
        pytest.raises(VPGCError, match="was given 2 times but more frames"),
        VideoWriter(tmp_path / "a.mp4", 25, times=[0, 0.1]) as video,
    ):
        for frame in pictures(3):
            video.write(frame)
    assert not list(tmp_path.iterdir())
    with parts(tmp_path / "p") as video, pytest.raises(VPGCError, match="25 frames: there is one"):
        for frame in pictures(COUNT + 1):
            video.write(frame)
