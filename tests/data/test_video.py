import errno
import os
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import video
from keras_vpgc.data.video import (
    VideoWriter,
    frame_times,
    metadata_of,
    open_container,
    probe,
    read_frames,
    resample,
)

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


@pytest.mark.parametrize("moment", ["write", "end", "rename"])
def test_a_full_disk_is_named_and_leaves_nothing(moment, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "hidden")

    class Full:
        """A container that has no space left."""

        def __init__(self, real):
            self.real = real
            self.muxed = 0

        def add_stream(self, *args, **kwargs):
            return self.real.add_stream(*args, **kwargs)

        def mux(self, packets):
            self.muxed += 1
            if moment == "write":
                full()
            self.real.mux(packets)

        def close(self):
            self.real.close()
            if moment == "end":
                full()

    (tmp_path / "a.mp4").write_bytes(b"mine")
    real = av.open
    monkeypatch.setattr(av, "open", lambda *args: Full(real(*args)))
    if moment == "rename":
        monkeypatch.setattr(video.os, "replace", full)
    with pytest.raises(VPGCError, match="no space left for .*/a.mp4: make some"):
        with VideoWriter(tmp_path / "a.mp4", 25, overwrite=True) as writer:
            writer.write(ramp(1)[0])
    assert [x.name for x in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"


def test_targets_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    for name, words in (
        ("b", "b is no name for a video .* such as .*/b.mp4"),
        ("b.txt", "b.txt is no name for a video .* such as .*/b.mp4"),
        ("x.gif", "end in .mp4, .mkv or .mov"),
        ("x.webm", "end in .mp4, .mkv or .mov"),
        ("x.png", "end in .mp4, .mkv or .mov"),
        ("folder.mp4", "folder.mp4 is a folder: give a file"),
        ("file/b.mp4", "file/b.mp4 cannot be written .*file is a file"),
    ):
        for overwrite in (False, True):
            with pytest.raises(VPGCError, match=words) as error:
                VideoWriter(tmp_path / name, 25, overwrite=overwrite)
            assert "--overwrite" not in str(error.value)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["file", "folder.mp4"]
    for name in ("new/folder/a.MP4", "a.mkv", "a.mov"):
        with VideoWriter(tmp_path / name, 25) as writer:
            writer.write(ramp(1)[0])
        assert len(frame_times(tmp_path / name)) == 1


def test_existing_video_is_kept_unless_asked(clip):
    before = clip.read_bytes()
    with pytest.raises(VPGCError, match="exists: choose another name"):
        VideoWriter(clip, 25)
    assert clip.read_bytes() == before
    with VideoWriter(clip, 25, overwrite=True) as video:
        video.write(ramp(1)[0])
    assert clip.read_bytes() != before


def barcode(number, height=48, width=64):
    """A picture with a stripe for each bit of a number, and a shade of colour."""
    bits = np.repeat(number >> np.arange(8) & 1, -(-width // 8))[:width]
    frame = np.where(bits[None, :, None], 200, 40) + [0, 10, 20]
    return np.repeat(frame, height, 0).astype("uint8")


def number_of(frame):
    middle = frame[len(frame) // 2, :, 1]
    stripe = -(-len(middle) // 8)
    centres = np.arange(8) * stripe + (len(middle) - 7 * stripe) // 2
    return int(((middle[np.minimum(centres, len(middle) - 1)] > 125) << np.arange(8)).sum())


def encode(path, frames, codec="libx264", pix_fmt="yuv420p", pts=None, time_base=None, **options):
    """Encode pictures, 25 a second or at chosen times; `rotation` and `muxer` are no options."""
    rotation, muxer = options.pop("rotation", None), options.pop("muxer", {})
    with av.open(str(path), "w", container_options=muxer) as container:
        options = {key.replace("_", "-"): str(value) for key, value in options.items()}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if time_base:
            stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if pts is not None:
                picture.pts, picture.time_base = pts[i], time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def numbered(count, height=48, width=64):
    return [barcode(i, height, width) for i in range(count)]


def opencv_frames(path):
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return frames


B_FRAMES = {"g": 12, "bf": 3}
QUICK = {"deadline": "realtime", "cpu_used": 8, "g": 12}
X265 = "log-level=none:keyint=12:pools=none:"
FORMATS = {
    "vp8.webm": ("vp8", "libvpx", "yuv420p", {**QUICK, "auto_alt_ref": 1, "lag_in_frames": 16}),
    "vp9.webm": ("vp9", "libvpx-vp9", "yuv420p", QUICK),
    "h264.mp4": ("h264", "libx264", "yuv420p", B_FRAMES),
    "h264.mov": ("h264", "libx264", "yuvj420p", B_FRAMES),
    "h264.mkv": ("h264", "libx264", "yuv420p", {"g": 12, "intra_refresh": 1, "bf": 0}),
    "h264.ts": ("h264", "libx264", "yuv420p", {**B_FRAMES, "x264_params": "open-gop=1:keyint=12"}),
    "h264.avi": ("h264", "libx264", "yuv420p", B_FRAMES),
    "h264.h264": ("h264", "libx264", "yuv420p", B_FRAMES),
    "h264_10.mp4": ("h264", "libx264", "yuv420p10le", B_FRAMES),
    "hevc.mp4": ("hevc", "libx265", "yuv420p", {"x265_params": X265 + "open-gop=1"}),
    "hevc_10.mov": ("hevc", "libx265", "yuv420p10le", {"x265_params": X265}),
    "hevc.ts": ("hevc", "libx265", "yuv420p", {"x265_params": X265}),
    "gray.mp4": ("hevc", "libx265", "gray", {"x265_params": X265}),
    "av1.mp4": ("av1", "libsvtav1", "yuv420p", {"preset": 12, "g": 12}),
    "av1_10.webm": ("av1", "libsvtav1", "yuv420p10le", {"preset": 12, "g": 12}),
    "mpeg4.avi": ("mpeg4", "mpeg4", "yuv420p", {"g": 12, "bf": 2}),
    "mpeg2.mpg": ("mpeg2video", "mpeg2video", "yuv420p", {"g": 12, "bf": 2}),
    "mjpeg.avi": ("mjpeg", "mjpeg", "yuvj420p", {}),
    "prores.mov": ("prores", "prores_ks", "yuv422p10le", {}),
    "gray.mkv": ("ffv1", "ffv1", "gray", {"g": 12}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_any_format_gives_the_frames_and_any_range_of_them(name, tmp_path):
    codec, encoder, pixels, options = FORMATS[name]
    if encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no {encoder}")
    source = numbered(40, 64, 64)
    path = encode(tmp_path / name, source, encoder, pixels, **options)
    info = probe(path)
    assert (info.codec, info.pixel_format, info.frame_rate) == (codec, pixels, 25)
    assert (info.width, info.height, info.frame_count) == (64, 64, 40)
    assert (info.rotation, info.variable_rate, info.has_sound) == (0, False, False)
    assert info.duration == pytest.approx(1.6)
    np.testing.assert_allclose(frame_times(path), np.arange(40) / 25, atol=1e-9)

    frames = list(read_frames(path))
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert all(f.dtype == "uint8" and f.flags.c_contiguous for f in frames)
    for start, stop in [(1, 3), (11, 14), (12, 13), (23, 40), (39, 50), (7, 7), (40, None)]:
        found = list(read_frames(path, start, stop))
        np.testing.assert_array_equal(found, frames[start:stop] or np.zeros(0))

    if pixels.startswith("gray"):
        source = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[..., None] for f in source]
    assert np.abs(np.array(frames, int) - source).mean() < 8
    if codec != "av1":  # OpenCV does not decode it
        expected = opencv_frames(path)
        assert len(expected) == 40
        assert np.abs(np.array(frames, int) - expected).mean() < 2


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mov"])
def test_a_range_is_reached_by_seeking(name, tmp_path, monkeypatch):
    path = encode(tmp_path / name, numbered(120), **B_FRAMES)
    probe(path)
    decoded, decode = [], video._decode

    def counted(packets, stream):
        for frame in decode(packets, stream):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video, "_decode", counted)
    assert [number_of(f) for f in read_frames(path, 100, 103)] == [100, 101, 102]
    assert len(decoded) <= 2 * 12 + 3


def test_odd_and_extreme_sizes(tmp_path):
    path = encode(tmp_path / "odd.webm", numbered(8, 47, 67), "libvpx-vp9", **QUICK)
    assert (probe(path).width, probe(path).height) == (67, 47)
    frames = list(read_frames(path))
    assert [number_of(f) for f in frames] == list(range(8))
    assert np.abs(np.array(frames, int) - opencv_frames(path)).max() <= 3

    tiny = encode(tmp_path / "tiny.mp4", [np.full((4, 4, 3), g, "uint8") for g in (50, 200)])
    assert probe(tiny).width == 4
    np.testing.assert_allclose([f.mean() for f in read_frames(tiny)], [50, 200], atol=3)

    wall = np.full((4320, 7680, 3), 90, "uint8")
    big = encode(tmp_path / "8k.avi", [wall, wall], "mjpeg", "yuvj420p")
    assert (probe(big).width, probe(big).height) == (7680, 4320)
    frame = next(read_frames(big, 1))
    assert frame.shape == wall.shape and abs(frame[::100, ::100].mean() - 90) < 2


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_rotation_is_applied(name, mirrored, tmp_path):
    picture = np.full((48, 64, 3), 40, "uint8")
    picture[:16, :32], picture[-16:, -16:], picture[:16, -16:] = 220, 160, 100
    for turns in range(4):
        rotation = (90 * turns, mirrored)
        path = encode(tmp_path / name, [picture] * 3, crf=5, rotation=rotation)
        expected = np.rot90(picture, turns)  # counterclockwise, then mirrored
        expected = expected[:, ::-1] if mirrored else expected
        info, frames = probe(path), list(read_frames(path))
        assert (info.height, info.width) == expected.shape[:2]
        assert info.rotation == 90 * (turns if mirrored else -turns % 4)
        assert frames[0].shape == expected.shape
        assert np.abs(frames[0].astype(int) - expected).mean() < 3
        if not mirrored:  # OpenCV cannot
            np.testing.assert_array_equal(frames, opencv_frames(path))


def test_pixels_that_are_not_square_become_so(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in numbered(3, 48, 48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    assert (probe(tmp_path / "a.mp4").width, probe(tmp_path / "a.mp4").height) == (64, 48)
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert frames[0].shape == (48, 64, 3)
    assert [number_of(f) for f in frames] == [0, 1, 2]


def from_yuv(y, u, v, red, blue, full):
    """RGB by the definition of BT.601 and BT.709, from 8-bit codes."""
    low, luma, chroma = (0, 255, 255) if full else (16, 219, 224)
    y, u, v = (y - low) / luma, (u - 128) / chroma, (v - 128) / chroma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(255 * np.array([r, g, b]), 0, 255)


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


@pytest.mark.parametrize(
    "tag, full, height, pixels, weights",
    [
        (5, False, 48, "yuv420p", BT601),
        (6, False, 720, "yuv420p", BT601),
        (1, False, 48, "yuv420p", BT709),
        (1, True, 48, "yuv420p", BT709),
        (1, False, 48, "yuv420p10le", BT709),
        (6, True, 48, "yuv444p", BT601),
        (2, False, 48, "yuv420p", BT601),
        (2, False, 604, "yuv420p", BT601),
        (2, False, 720, "yuv420p", BT709),
    ],
)
def test_colours_follow_the_matrix_of_the_file(tag, full, height, pixels, weights, tmp_path):
    codes = [(120, 100, 160), (180, 120, 140), (60, 150, 110)]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, height, pixels
        context = stream.codec_context
        context.colorspace, context.color_range = tag, 2 if full else 1
        for yuv in codes:
            frame = av.VideoFrame(64, height, pixels)
            frame.colorspace, frame.color_range = tag, 2 if full else 1
            for plane, code in zip(frame.planes, yuv, strict=True):
                deep = pixels.endswith("10le")
                values = np.full(plane.buffer_size // (1 + deep), code * (4 if deep else 1))
                plane.update(values.astype("<u2" if deep else "uint8").tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for frame, yuv in zip(read_frames(tmp_path / "a.mkv"), codes, strict=True):
        expected = from_yuv(*yuv, *weights, full)
        assert np.abs(frame.reshape(-1, 3) - expected).max() < 2.5


@pytest.mark.parametrize("height", [48, 720])
def test_written_colours_come_back(height, tmp_path):
    skin = np.full((height, 64, 3), (200, 150, 120), "uint8")
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for _ in range(3):
            writer.write(skin)
    for frames in (read_frames(tmp_path / "a.mp4"), opencv_frames(tmp_path / "a.mp4")):
        for frame in frames:
            assert np.abs(frame.astype(int) - skin).max() <= 3
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, limited


def test_variable_rate_keeps_its_times(tmp_path):
    steps = np.random.default_rng(0).integers(20, 60, 39)
    pts = np.concatenate([[0], np.cumsum(steps)])
    pts[20:] += 400  # a pause
    for name in ("a.mp4", "a.mkv"):
        path = encode(
            tmp_path / name, numbered(40), pts=pts.tolist(), time_base=Fraction(1, 1000), **B_FRAMES
        )
        info = probe(path)
        assert info.variable_rate and info.frame_count == 40
        assert info.frame_rate == pytest.approx(39 / (pts[-1] / 1000), rel=0.006)
        np.testing.assert_allclose(frame_times(path), pts / 1000, atol=1e-3)
        for start in (19, 20, 21, 35):
            assert number_of(next(read_frames(path, start))) == start


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times_start_from_the_first_frame(name, tmp_path):
    pts = list(range(1000, 1040))
    path = encode(tmp_path / name, numbered(40), pts=pts, time_base=Fraction(1, 25), **B_FRAMES)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 30
    np.testing.assert_allclose(frame_times(path), np.arange(40) / 25, atol=1e-3)
    assert [number_of(f) for f in read_frames(path, 13, 16)] == [13, 14, 15]


def test_frames_that_an_edit_list_cuts_off_are_not_there(tmp_path):
    pts = list(range(-10, 30))
    path = encode(tmp_path / "a.mp4", numbered(40), pts=pts, time_base=Fraction(1, 25), **B_FRAMES)
    with av.open(str(path)) as container:
        assert any(p.is_discard for p in container.demux(video=0))
    assert probe(path).frame_count == 30
    np.testing.assert_allclose(frame_times(path), np.arange(30) / 25)
    assert [number_of(f) for f in read_frames(path)] == list(range(10, 40))
    assert [number_of(f) for f in read_frames(path, 1, 4)] == [11, 12, 13]
    assert [number_of(f) for f in read_frames(path, 20, 22)] == [30, 31]


def test_vp8_frames_that_are_only_referred_to_are_not_shown(tmp_path):
    path = encode(tmp_path / "a.webm", numbered(40), "libvpx", **QUICK)
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [p for p in source.demux(video=0) if p.size]
        for i, packet in enumerate(packets):
            data = bytearray(bytes(packet))
            if i == 20:
                data[0] &= ~16  # show_frame, RFC 6386, 9.1
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            target.mux(copy)
    shown = [i for i in range(40) if i != 20]
    assert probe(tmp_path / "b.webm").frame_count == 39
    np.testing.assert_allclose(frame_times(tmp_path / "b.webm"), np.array(shown) / 25)
    assert [number_of(f) for f in read_frames(tmp_path / "b.webm")] == shown
    assert [number_of(f) for f in read_frames(tmp_path / "b.webm", 30, 32)] == [31, 32]


def test_joined_streams_whose_time_starts_again(tmp_path):
    first = encode(tmp_path / "a.ts", numbered(20), **B_FRAMES)
    bigger = encode(tmp_path / "b.ts", numbered(20, 96, 128), **B_FRAMES)
    turned = encode(tmp_path / "c.ts", numbered(20, 64, 48), **B_FRAMES)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + bigger.read_bytes())
    np.testing.assert_allclose(frame_times(joined), np.arange(40) / 25, atol=1e-9)
    assert [number_of(f) for f in read_frames(joined)] == 2 * list(range(20))
    assert [number_of(f) for f in read_frames(joined, 25, 27)] == [5, 6]
    assert {f.shape for f in read_frames(joined)} == {(48, 64, 3)}
    joined.write_bytes(first.read_bytes() + turned.read_bytes())
    with pytest.raises(VPGCError, match="changes from 64x48 to 48x64 at frame 20"):
        list(read_frames(joined))


@pytest.mark.parametrize("name", ["vp9.webm", "h264.mkv", "av1.mp4", "h264.ts", "mjpeg.avi"])
def test_broken_frames_do_not_shift_the_others(name, tmp_path):
    _, encoder, pixels, options = FORMATS[name]
    if encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no {encoder}")
    path = encode(tmp_path / name, numbered(60, 64, 64), encoder, pixels, **options)
    whole = list(read_frames(path))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data, lost = bytearray(path.read_bytes()), bytes(packets[27])
    place = data.find(lost[4:-4]) if name != "h264.ts" else packets[27].pos + 188
    assert place > 0
    size = len(lost) - 8
    if name == "mjpeg.avi":  # whole chunks are lost
        place, size = packets[27].pos, packets[30].pos - packets[27].pos
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    frames = list(read_frames(path))
    assert len(frames) == probe(path).frame_count
    good = [i for i, f in enumerate(frames) if np.array_equal(f, whole[i])]
    assert set(range(20)) <= set(good) and len(good) < 60
    if len(frames) == 60:
        assert set(range(48, 60)) <= set(good)
    for start in range(0, len(frames), 7):
        np.testing.assert_array_equal(
            list(read_frames(path, start, start + 7)), frames[start : start + 7]
        )


@pytest.mark.parametrize("name", ["vp9.webm", "h264.mp4", "hevc.ts"])
def test_a_file_that_was_cut_off_gives_what_is_there(name, tmp_path):
    _, encoder, pixels, options = FORMATS[name]
    muxer = {"movflags": "faststart"} if name == "h264.mp4" else {}
    path = encode(tmp_path / name, numbered(60), encoder, pixels, muxer=muxer, **options)
    whole = list(read_frames(path))
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    frames = list(read_frames(path))
    assert 8 < len(frames) <= probe(path).frame_count < 60
    # The very last may be half a frame.
    np.testing.assert_array_equal(frames[:-1], whole[: len(frames) - 1])


def test_frames_that_all_have_the_same_time_are_spread_by_the_rate(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = numbered(1)[0].shape[:2]
        frames = [av.VideoFrame.from_ndarray(picture, "rgb24") for picture in numbered(8)]
        for frame in (*frames, None):
            for packet in stream.encode(frame):
                packet.pts = packet.dts = 0
                container.mux(packet)
    np.testing.assert_allclose(frame_times(path), np.arange(8) / 25)
    assert len(list(read_frames(path, 3))) == 5


def test_a_recording_that_begins_amid_things_starts_with_its_first_whole_frame(tmp_path):
    path = encode(tmp_path / "a.ts", numbered(60), **B_FRAMES)
    whole = list(read_frames(path))
    with av.open(str(path)) as container:
        place = [p.pos for p in container.demux(video=0) if p.size][5]
    path.write_bytes(path.read_bytes()[place:])
    frames = list(read_frames(path))
    assert probe(path).frame_count == len(frames) == len(frame_times(path))
    first = number_of(frames[0])
    assert 5 <= first <= 12
    np.testing.assert_array_equal(frames[12 - first :], whole[12:])
    for start in (0, 1, 20):
        np.testing.assert_array_equal(list(read_frames(path, start, start + 3)), frames[start:][:3])


def test_resampling_shows_the_last_frame_that_has_appeared():
    assert resample([0, 0.04, 0.08], 50).tolist() == [0, 0, 1, 1, 2, 2]
    assert resample(np.arange(50) / 50, 25).tolist() == list(range(0, 50, 2))
    assert resample(np.round(np.arange(90) / 30, 3), 30).tolist() == list(range(90))
    assert resample([0.0], 30).tolist() == [0]
    times = np.concatenate([[0], np.cumsum(np.random.default_rng(1).uniform(0.01, 0.2, 50))])
    found = resample(times, 60)
    for k, number in enumerate(found):
        assert number == max(i for i, t in enumerate(times) if t <= k / 60 + 1e-3)
    assert len(found) == pytest.approx(60 * (times[-1] + np.median(np.diff(times))), abs=1)
    with pytest.raises(VPGCError, match="A rate of 0 frames a second"):
        resample(times, 0)
    with pytest.raises(VPGCError, match="no frame times"):
        resample([], 25)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(5))
    assert probe(path).frame_count == 5
    encode(path, numbered(7, 32, 32))
    assert (probe(path).frame_count, probe(path).width) == (7, 32)


def test_a_name_may_look_like_an_address(tmp_path, monkeypatch):
    encode(tmp_path / "take.mp4", numbered(5)).rename(tmp_path / "day1:take.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe("day1:take.mp4").frame_count == 5


def test_negative_numbers_are_refused(clip):
    with pytest.raises(VPGCError, match="start = -1 is no frame"):
        next(read_frames(clip, -1))
    with pytest.raises(VPGCError, match="stop = -5 is no frame"):
        next(read_frames(clip, 0, -5))


def write_sound(path, codec, cover=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        if cover:
            picture = container.add_stream("mjpeg", rate=25)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 22050), "float32"), format="fltp", layout="mono"
        )
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
        if cover:
            frame = av.VideoFrame.from_ndarray(barcode(1), format="rgb24")
            container.mux(picture.encode(frame))
            container.mux(picture.encode())
    return path


def test_sound_is_noticed(tmp_path):
    path = tmp_path / "both.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height = 64, 48
        stream = container.add_stream("aac", rate=44100)
        for frame in numbered(10):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(picture.encode())
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 22050), "float32"), format="fltp", layout="mono"
        )
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert probe(path).has_sound and probe(path).frame_count == 10
    assert [number_of(f) for f in read_frames(path)] == list(range(10))


def bad_files(folder, clip):
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:600])
    cv2.imwrite(str(folder / "still.png"), np.zeros((40, 40, 3), "uint8"))
    (folder / "folder.mp4").mkdir()
    (folder / "notes.txt").write_text("no video\n" * 100)
    data = clip.read_bytes()
    (folder / "unknown.mp4").write_bytes(data.replace(b"avc1", b"zzz1"))
    where = data.index(b"mdat") + 4
    (folder / "blank.mp4").write_bytes(data[:where] + bytes(len(data) - where))
    write_sound(folder / "sound.m4a", "aac")
    write_sound(folder / "cover.mp3", "libmp3lame", cover=True)
    encode(folder / "one.mp4", numbered(1))
    return {
        "notes.txt": "cannot be read as a video",
        "unknown.mp4": "in a format that PyAV cannot decode",
        "blank.mp4": "cannot be read as a video|no frame that can be decoded",
        "sound.m4a": "sound but no picture",
        "cover.mp3": "sound but no picture",
        "one.mp4": "a single picture",
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


CLIPS = {
    "franck.webm": (360, 288, 25, 4998, False),
    "obama.mov": (256, 256, 25, 1169, False),
    "expressive_woman_480.mp4": (480, 480, 30, 1008, False),
    "talking_man_604.mp4": (604, 604, 25, 463, False),
    "hard/WolfgangLanger_Pexels.mp4": (640, 360, 24000 / 1001, 472, False),
    "hard/face_noface.mov": (960, 540, 26.398, 169, True),
    "hard/noface_face.mov": (960, 540, 26.495, 169, True),
    "hard/no_face.mp4": (960, 540, 24, 95, False),
}


@pytest.mark.parametrize("name", CLIPS)
def test_real_footage_is_what_opencv_sees(name, test_data):
    width, height, rate, count, variable = CLIPS[name]
    path = test_data / name
    info = probe(path)
    assert (info.width, info.height, info.frame_count) == (width, height, count)
    assert info.frame_rate == pytest.approx(rate, rel=1e-4)
    assert info.variable_rate == variable
    assert len(frame_times(path)) == count
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    wanted = {0, 1, 47, 63, 64}  # some on both sides of a key frame
    expected = {}
    for i in range(max(wanted) + 1):
        _, frame = capture.read()
        if i in wanted:
            expected[i] = frame[..., ::-1]
    for i, frame in expected.items():
        found = next(read_frames(path, i, i + 1))
        assert np.abs(found.astype(int) - frame).max() <= 2
    last = list(read_frames(path, count - 2))
    assert len(last) == 2


def test_a_picture_is_no_video(test_data):
    with pytest.raises(VPGCError, match="multi_face.jpg is a single picture"):
        probe(test_data / "hard/multi_face.jpg")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_metadata_are_written(tmp_path, suffix):
    wanted = {"title": "Me", "comment": "ü, 100%", "anything": "else"}
    with VideoWriter(tmp_path / f"a{suffix}", 25, metadata=wanted) as video:
        for frame in ramp(3):
            video.write(frame)
    with av.open(str(video.path)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert found.items() >= wanted.items()


def test_whole_file_is_finished_before_it_gets_its_name(tmp_path):
    target, seen = tmp_path / "a.mp4", []

    def finish(path):
        seen.append((probe(path).frame_count, target.exists()))
        path.write_bytes(b"changed")

    with VideoWriter(target, 25, finish=finish) as video:
        for frame in ramp(3):
            video.write(frame)
    assert seen == [(3, False)] and target.read_bytes() == b"changed"

    def fail(path):
        raise VPGCError("no")

    with pytest.raises(VPGCError, match="no"):
        with VideoWriter(tmp_path / "b.mp4", 25, finish=fail) as video:
            video.write(ramp(1)[0])
    assert [x.name for x in tmp_path.iterdir()] == ["a.mp4"]


def test_metadata_that_are_no_text_do_no_harm(tmp_path):
    with VideoWriter(tmp_path / "a.mkv", 25, metadata={"title": "A title of somebody"}) as video:
        for _ in range(3):
            video.write(np.zeros((64, 64, 3), "uint8"))
    file = tmp_path / "a.mkv"
    found = file.read_bytes()
    assert b"A title of" in found
    file.write_bytes(found.replace(b"A title of", b"A \xe9\xff\xc3\x28e of"))
    assert probe(file).frame_count == 3
    with open_container(file) as container:
        told = {key.lower(): value for key, value in metadata_of(container).items()}
    assert told["title"].encode() and told["title"].endswith("of somebody")
