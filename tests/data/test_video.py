import av
import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.video import VideoWriter, probe, read_frames

pytestmark = pytest.mark.once


def ramp(count, height=48, width=64):
    """Frames that tell their number by their brightness."""
    return [np.full((height, width, 3), 20 + 5 * i, "uint8") for i in range(count)]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "ramp.mp4"
    with VideoWriter(path, 24) as video:
        for frame in ramp(30):
            video.write(frame)
    return path


def test_written_video_is_h264_and_comes_back(clip):
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.frames, float(stream.average_rate)) == (30, 24)
    info = probe(clip)
    assert (info.width, info.height, info.frame_rate, info.frame_count) == (64, 48, 24, 30)
    found = [frame.mean() for frame in read_frames(clip)]
    np.testing.assert_allclose(found, [f.mean() for f in ramp(30)], atol=2)


def test_colours_are_rgb(tmp_path):
    red = np.zeros((32, 32, 3), "uint8")
    red[..., 0] = 220
    with VideoWriter(tmp_path / "red.mp4", 25) as video:
        for _ in range(3):
            video.write(red)
    frame = next(read_frames(tmp_path / "red.mp4"))
    assert frame[..., 0].mean() > 180 and frame[..., 1:].mean() < 40


def test_range_of_frames(clip):
    found = [frame.mean() for frame in read_frames(clip, 10, 13)]
    np.testing.assert_allclose(found, [70, 75, 80], atol=2)


def test_odd_sizes_are_filled_up(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", 25) as video:
        for frame in ramp(3, 33, 47):
            video.write(frame)
    assert next(read_frames(tmp_path / "odd.mp4")).shape == (34, 48, 3)


def test_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(VPGCError, match="10x10 cannot follow frames of 64x48"):
        with VideoWriter(tmp_path / "a.mp4", 25) as video:
            video.write(ramp(1)[0])
            video.write(np.zeros((10, 10, 3), "uint8"))
    with pytest.raises(VPGCError, match="No frame was written"):
        with VideoWriter(tmp_path / "b.mp4", 25):
            pass
    assert not list(tmp_path.iterdir())


def test_existing_video_is_kept_unless_asked(clip):
    before = clip.read_bytes()
    with pytest.raises(VPGCError, match="exists: choose another name"):
        VideoWriter(clip, 25)
    assert clip.read_bytes() == before
    with VideoWriter(clip, 25, overwrite=True) as video:
        video.write(ramp(1)[0])
    assert clip.read_bytes() != before


def bad_files(folder, clip):
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:600])
    cv2.imwrite(str(folder / "still.png"), np.zeros((40, 40, 3), "uint8"))
    (folder / "folder.mp4").mkdir()
    return {
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read as a video",
        "cut.mp4": "cannot be read as a video|no frame that can be decoded",
        "still.png": "a single picture",
        "folder.mp4": "is a folder",
        "missing.mp4": "There is no file",
    }


def test_what_is_no_video_is_named(tmp_path, clip):
    for name, message in bad_files(tmp_path, clip).items():
        with pytest.raises(VPGCError, match=message) as error:
            probe(tmp_path / name)
        assert name in str(error.value)


def test_other_containers_and_real_footage(test_data):
    franck = probe(test_data / "franck.webm")
    assert (franck.width, franck.height, franck.frame_rate) == (360, 288, 25)
    assert abs(franck.frame_count - 4998) <= 2
    obama = list(read_frames(test_data / "obama.mov", 0, 3))
    assert [f.shape for f in obama] == [(256, 256, 3)] * 3
