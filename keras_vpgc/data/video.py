"""Reading and writing video files."""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc.errors import VPGCError, check_writable, missing_extra, writing

TRIAL_FRAMES = 16  # decoded to see whether time stamps of packets can be trusted
# Containers of what is written; others cannot hold H.264, or are no video.
TARGETS = (".mp4", ".mkv", ".mov")
TICK = Fraction(1, 90000)  # of a second, the unit of times of a rate that varies
BT709, UNSPECIFIED = 1, 2  # codes of ITU-T H.273 for a colour matrix


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as known before all its frames are decoded.

    Attributes:
        width, height: Pixels as displayed: the rotation and the shape of the pixels that the file
            asks for are applied.
        frame_rate: Frames a second, on average.
        frame_count: Number of frames that the packets announce; broken ones among them.
        duration: Seconds from the start of the first frame to the end of the last.
        rotation: Degrees clockwise by which the stored picture is turned: 0, 90, 180 or 270.
        variable_rate: Do some frames last a quarter longer or shorter than is usual in the file?
        has_sound: Is there a sound track?
        codec: Name such as `h264`, `hevc`, `vp9`, `av1`.
        pixel_format: Name such as `yuv420p`, `yuv420p10le`, `gray`.
    """

    width: int
    height: int
    frame_rate: float
    frame_count: int
    duration: float
    rotation: int
    variable_rate: bool
    has_sound: bool
    codec: str
    pixel_format: str


@dataclass(frozen=True)
class _Index:
    """Where the frames of a file are.

    `times` are seconds, in display order; `pts` the same in the stream's units, or `None` where
    frames cannot be told apart by them and must be counted from the beginning; `keys` the dts and
    the place in the file of the key frame of a pts. Pictures of `stored_size` are scaled to `size`
    and then turned by `matrix`.
    """

    info: VideoInfo
    times: np.ndarray
    pts: np.ndarray | None
    keys: dict[int, tuple[int | None, int | None]]
    stored_size: tuple[int, int]
    size: tuple[int, int]
    matrix: tuple[int, int, int, int]


def _av():
    try:
        import av
    except ImportError as error:
        raise missing_extra("PyAV", "video") from error
    return av


def _check_file(path):
    path = Path(path)
    if not path.exists():
        raise VPGCError(f"There is no file {path}: check the path.")
    if path.is_dir():
        raise VPGCError(f"{path} is a folder: give a video file.")
    if path.stat().st_size == 0:
        raise VPGCError(f"{path} is empty (0 bytes): copy or record it again.")
    return path


def open_container(path, **options):
    """PyAV's container of a file that is read.

    Args:
        path: The file.
        **options: Of `av.open`.

    Returns:
        An `av.container.InputContainer`, a context manager.

    Raises:
        VPGCError: if PyAV is missing.
        av.FFmpegError: if FFmpeg cannot open it.

    Example:

    ```python
    with open_container("me.mp4") as container:
        print(container.streams)
    ```
    """
    av = _av()
    # PyAV before 19 refuses metadata that is not UTF-8 unless told to bear it.
    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "replace"
    # An absolute path, or FFmpeg takes "a:b.mp4" for a protocol.
    return av.open(os.path.abspath(path), **options)


def metadata_of(container) -> dict[str, str]:
    """What a file says of itself; bytes that are not UTF-8 become the sign for that.

    Args:
        container: That of `open_container`.

    Returns:
        A dict such as `{"title": "Me"}`.
    """

    def text(value):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    return {text(key): text(value) for key, value in container.metadata.items()}


@contextlib.contextmanager
def _open(path):
    """The opened container and its picture stream."""
    av = _av()
    unreadable = VPGCError(
        f"{path} cannot be read as a video: it is another kind of file, or was cut off while "
        "being written or copied."
    )
    try:
        container = open_container(path)
    except PermissionError as error:
        raise VPGCError(f"{path} may not be read: change its permissions.") from error
    except av.FFmpegError as error:
        raise unreadable from error
    with container:
        if container.format.name == "tty":  # any text is art to FFmpeg
            raise unreadable
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            if container.streams.audio:
                raise VPGCError(
                    f"{path} holds sound but no picture: give the video, not its sound alone."
                )
            raise VPGCError(f"{path} holds no picture: give a video file.")
        decodable = [s for s in streams if s.codec_context is not None]
        if not decodable:
            raise VPGCError(
                f"{path} is in a format that PyAV cannot decode: convert it to H.264 first."
            )
        # Depth maps and previews that some cameras add are smaller.
        stream = max(decodable, key=lambda s: s.codec_context.width * s.codec_context.height)
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all
        yield container, stream


@contextlib.contextmanager
def quiet():
    """Keep other libraries' own messages off the terminal; ours says what matters."""
    saved = os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _packets(container, stream):
    """The packets that can be read; a file that was cut off ends early."""
    packets = container.demux(stream)
    with contextlib.suppress(_av().FFmpegError):
        for packet in packets:
            if packet.size:
                yield packet


def _decode(packets, stream):
    """The frames that can be decoded, in display order."""
    broken = _av().FFmpegError
    for packet in packets:
        try:
            frames = stream.decode(packet)
        except broken:
            continue
        yield from frames
    with contextlib.suppress(broken):
        yield from stream.decode(None)


def _index(path) -> _Index:
    path = _check_file(path)
    stat = path.stat()
    return _scan(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _scan(path, size, changed) -> _Index:
    """Read all packets and decode the first frames; `size` and `changed` only key the cache."""
    with _open(path) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        shown: list[tuple[int | None, int]] = []
        keys = {}

        def noted():
            for packet in _packets(container, stream):
                if packet.is_keyframe and packet.pts is not None:
                    keys[packet.pts] = packet.dts, packet.pos
                # Edit lists cut frames off, and VP8 has frames that are only referred to.
                hidden = codec == "vp8" and not memoryview(packet)[0] & 16
                if not packet.is_discard and not hidden:
                    shown.append((packet.pts, packet.duration or 0))
                yield packet

        packets = noted()
        stream.thread_type = "AUTO"
        first = list(itertools.islice(_decode(packets, stream), TRIAL_FRAMES))
        for _ in packets:
            pass
        if not first:
            raise VPGCError(f"{path} holds no frame that can be decoded: record or copy it again.")
        rates = [r for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r]
        has_sound = bool(container.streams.audio)
        time_base, aspect = stream.time_base, stream.sample_aspect_ratio or 1

    rate = float(rates[0]) if rates else 25.0
    trial = [frame.pts for frame in first]
    times, pts, last = _times(path, shown, trial, time_base, rate)
    first = first[0]
    if len(times) > 1 and times[-1] > 0:
        mean = (len(times) - 1) / times[-1]
        # What the container says is exact, but it may lie.
        rate = next((float(r) for r in rates if abs(float(r) / mean - 1) < 0.005), float(mean))
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 1 / rate
    variable = bool((abs(steps - usual) > usual / 4 + 1.01 * float(time_base)).any())

    matrix = a, b, c, d = _display_matrix(first)
    if a * d < b * c:  # mirrored
        a, b = -a, -b
    # Less than a hundredth is a matter of rounding the size.
    width = first.width if abs(aspect - 1) < 0.01 else round(first.width * aspect)
    turned = abs(b) > abs(a)
    info = VideoInfo(
        width=first.height if turned else width,
        height=width if turned else first.height,
        frame_rate=rate,
        frame_count=len(times),
        duration=float(times[-1]) + (last or usual),
        rotation=90 * round(math.degrees(math.atan2(b, a)) / 90) % 360,
        variable_rate=variable,
        has_sound=has_sound,
        codec=codec,
        pixel_format=first.format.name,
    )
    stored = first.width, first.height
    return _Index(info, times, pts, keys, stored, (width, first.height), matrix)


def _times(path, shown, trial, time_base, rate):
    """Seconds of the frames; their pts, if these can be trusted; seconds that the last one lasts.

    Args:
        path: The video file.
        shown: pts, or `None`, and duration of all packets that hold a frame to be shown.
        trial: pts of the first decoded frames.
        time_base: Seconds of a unit of pts.
        rate: Frames a second where nothing else is known.
    """
    stamps = [pts for pts, _ in shown]
    if stamps.count(None) == len(stamps):  # a bare stream
        return np.arange(len(stamps)) / rate, None, None
    last = None
    known = None not in stamps and None not in trial and len(set(stamps)) == len(stamps)
    if known:
        stamps.sort()
        last = dict(shown)[stamps[-1]] * float(time_base)
        known = stamps[: len(trial)] == trial
    if not known:
        # Packets may lack pts, carry them in the wrong order, hold half a frame or a broken one.
        with _open(path) as (container, stream):
            stream.thread_type = "AUTO"
            stamps = [frame.pts for frame in _decode(_packets(container, stream), stream)]
        known = None not in stamps and all(a < b for a, b in itertools.pairwise(stamps))
        second = 1 / float(time_base)
        shift, following = 0.0, 0.0
        for i, stamp in enumerate(stamps):
            if stamp is None:
                stamp = following - shift
            elif i and stamp + shift < following - second / 2:  # joined files start again
                shift = following - stamp
            stamps[i] = stamp + shift
            following = stamps[i] + second / rate
        stamps.sort()
        if len(stamps) > 1 and not np.median(np.diff(stamps)):  # most frames at the same time
            return np.arange(len(stamps)) / rate, None, None
    pts = np.array(stamps, "int64") if known else None
    times = np.array(stamps, "float64") - stamps[0]
    return times * time_base.numerator / time_base.denominator, pts, last


def _display_matrix(frame) -> tuple[int, int, int, int]:
    """`a, b, c, d` of `x' = a x + c y`, `y' = b x + d y`, by which the file wants to be shown."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data
        data = None
    if data is not None:
        a, b, _, c, d = np.frombuffer(data, "<i4")[:5].tolist()
        return a, b, c, d
    turn = round(-frame.rotation / 90) % 4
    cos, sin = (1, 0, -1, 0)[turn], (0, 1, 0, -1)[turn]
    return cos, sin, -sin, cos


def probe(path) -> VideoInfo:
    """Size, rate, length and kind of a video.

    All packets are read but only the first frames decoded, except where the packets carry no usable
    time stamps; the result is kept until the file changes.

    Args:
        path: The video file.

    Returns:
        A `VideoInfo`.

    Raises:
        VPGCError: for a missing, empty, truncated or non-video file, or a single picture.

    Example:

    ```python
    probe("me.mp4").frame_rate  # 25.0
    ```
    """
    info = _index(path).info
    # A still picture opens as a video of one frame.
    if info.frame_count == 1:
        raise VPGCError(
            f"{path} is a single picture: give a video, of some minutes for a portrait, of any "
            "length to drive one."
        )
    return info


def frame_times(path) -> np.ndarray:
    """When each frame is shown.

    The time stamps of the packets are read without decoding where they can be trusted, else those
    of the decoded frames; where there are none, frames are counted at the rate of the file.

    Args:
        path: The video file.

    Returns:
        float64 `(frame_count,)`, seconds from the first frame, never falling, in the order in
        which `read_frames` yields the frames.

    Raises:
        VPGCError: for a missing, empty, truncated or non-video file.

    Example:

    ```python
    np.diff(frame_times("phone.mov")).max()  # the longest pause between two frames
    ```
    """
    return _index(path).times.copy()


def resample(times, rate: float) -> np.ndarray:
    """Which frame is on the screen at each tick of a clock.

    Args:
        times: `(n,)`, seconds at which the frames appear, from 0, never falling; see `frame_times`.
        rate: Ticks a second.

    Returns:
        int `(m,)`: for each time `k / rate` the number of the last frame that has appeared. The
        last frame is taken to last as long as frames do in the median.

    Raises:
        VPGCError: if the rate is not above 0 or there are no times.

    Example:

    ```python
    resample([0, 0.04, 0.08], 50)  # array([0, 0, 1, 1, 2, 2])
    ```
    """
    times = np.asarray(times, "float64")
    if not rate > 0 or not math.isfinite(rate):
        raise VPGCError(f"A rate of {rate} frames a second is impossible: give one above 0.")
    if not len(times):
        raise VPGCError("There are no frame times to resample: give those of a video.")
    end = times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 1 / rate)
    # Some containers round to milliseconds.
    slack = min(1e-3, 0.25 / rate)
    ticks = np.arange(max(1, math.ceil((end - slack) * rate))) / rate
    return np.searchsorted(times, ticks + slack, side="right") - 1


def read_frames(path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames of a video in display order, one at a time.

    Reading starts at the key frame before `start` and goes on by time stamps, so that the frames
    of any range are those that reading from the beginning gives; a file without usable time stamps
    is read from the beginning. A broken frame is replaced by the last good one, as players do, so
    that numbers stay true; a file that was cut off ends with its last frame that can be decoded.

    Colours follow the matrix and range that the file states; without a statement BT.709 is taken
    from 720 lines on and BT.601 below, as browsers do. High dynamic range is not tone-mapped.

    Args:
        path: The video file.
        start: Number of the first frame.
        stop: Number of the frame before which to stop, or `None` for the end.

    Yields:
        uint8 RGB `(height, width, 3)`; rotation that the file asks for is applied.

    Raises:
        VPGCError: for a missing, empty, truncated or non-video file, a negative number, or a
            picture whose shape changes on the way.

    Example:

    ```python
    for frame in read_frames("me.mp4", 100, 200):
        ...
    ```

    References:
        - ITU-R BT.601-7, BT.709-6, ITU-T H.273 (the colour matrices and their codes).
    """
    for name, number in (("start", start), ("stop", stop)):
        if number is not None and number < 0:
            raise VPGCError(f"{name} = {number} is no frame: frames are numbered from 0.")
    index = _index(path)
    convert = _converter(path, index)
    wanted, before = start, None
    for number, frame in _numbered(path, index, start):
        if number >= wanted:
            before = before or frame
            for n in range(wanted, min(number, stop or number)):
                yield convert(before, n)
            if stop is not None and number >= stop:
                return
            yield convert(frame, number)
            wanted = number + 1
            if wanted == stop:
                return
        before = frame


def lost_frames(path) -> np.ndarray:
    """Which frames cannot be decoded: where `read_frames` shows the one before, or ends.

    All frames are decoded once, without their colours. What a decoder conceals in a damaged frame
    it does not tell.

    Args:
        path: The video file.

    Returns:
        int `(k,)`: their numbers, rising.

    Raises:
        VPGCError: for a missing, empty, truncated or non-video file, or a picture whose shape
            changes on the way.

    Example:

    ```python
    lost_frames("copied.mp4")  # array([], dtype=int64)
    ```
    """
    index = _index(path)
    lost = np.ones(len(index.times), bool)
    for number, frame in _numbered(path, index, 0):
        _check_shape(path, index, frame, number)
        if number < len(lost):
            lost[number] = frame.is_corrupt
    return np.flatnonzero(lost)


def _numbered(path, index, start):
    """Decoded frames with their numbers, from one at or before `start`."""
    if index.pts is not None and start >= len(index.pts):
        return
    for timestamp in _seeks(index, start):
        with _open(path) as (container, stream):
            stream.thread_type = "AUTO"
            if timestamp is None:
                packets = _packets(container, stream)
            else:
                packets = _from_key(container, stream, timestamp, index, start)
            frames = _decode(packets, stream)
            if index.pts is None:
                yield from enumerate(frames)
                return
            first = next(frames, None)
            if timestamp is not None:
                if first is None or first.pts not in index.pts or first.pts > index.pts[start]:
                    continue
            for frame in itertools.chain([first], frames):
                yield int(np.searchsorted(index.pts, frame.pts)), frame
            return


def _seeks(index, start):
    """Time stamps to seek, the best first; `None` is the beginning."""
    if index.pts is not None:
        keys = sorted(pts for pts in index.keys if pts <= index.pts[start])
        if len(keys) > 1:
            # Some containers seek by dts, and some miss the key frame.
            wanted = keys[-1], index.keys[keys[-1]][0], index.keys[keys[-2]][0]
            yield from dict.fromkeys(t for t in wanted if t is not None)
    yield None


def _from_key(container, stream, timestamp, index, start):
    """Packets from a key frame at or before `start`; none if seeking led elsewhere."""
    try:
        container.seek(timestamp, stream=stream)
    except _av().FFmpegError:
        return
    packets = _packets(container, stream)
    key = next((packet for packet in packets if packet.is_keyframe), None)
    # Where packets were lost, some containers count wrongly after a seek: the place must fit too.
    if key is None or index.keys.get(key.pts, (None, -1))[1] != key.pos:
        return
    if key.pts <= index.pts[start]:
        yield key
        yield from packets


def _converter(path, index):
    """A function from decoded frames to upright RGB arrays."""
    from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

    reformatter = VideoReformatter()
    quick = Interpolation.BILINEAR
    # Deep pictures have no quick way that is worth two grey levels.
    exact = quick | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    a, b, c, d = index.matrix
    turned = abs(b) > abs(a)
    x, y = (c, b) if turned else (a, d)
    flip = (slice(None, None, -1 if y < 0 else None), slice(None, None, -1 if x < 0 else None))

    def convert(frame, number):
        _check_shape(path, index, frame, number)
        guess = frame.height >= 720 and frame.colorspace == UNSPECIFIED and not frame.format.is_rgb
        image = reformatter.reformat(
            frame,
            *index.size,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if guess else None,
            interpolation=exact if frame.format.components[0].bits > 8 else quick,
            threads=1,
        ).to_ndarray()
        if turned:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[flip])

    return convert


def _check_shape(path, index, frame, number):
    size, old = (frame.width, frame.height), index.stored_size
    if abs(size[0] * old[1] / (size[1] * old[0]) - 1) > 0.02:
        raise VPGCError(
            f"The picture of {path} changes from {old[0]}x{old[1]} to {size[0]}x{size[1]} "
            f"at frame {number}: cut the video there."
        )


def check_target(path, overwrite: bool = False) -> None:
    """Refuse a target that `VideoWriter` could not write, before the work.

    Args:
        path: Target, such as `out.mp4`.
        overwrite: Replace an existing file?

    Raises:
        VPGCError: if the name is none of a video that can be written or that of a folder, the
            target exists and `overwrite` is false, there is no encoder, or the place is read-only
            or full.

    Example:

    ```python
    check_target("out.mp4")
    ```
    """
    path = Path(path)
    if path.is_dir():
        raise VPGCError(f"{path} is a folder: give a file for the video, such as {path}/out.mp4.")
    if path.suffix.lower() not in TARGETS:
        raise VPGCError(
            f"{path} is no name for a video that can be written: let it end in .mp4, .mkv or .mov, "
            f"such as {path.with_suffix('.mp4')}."
        )
    if path.exists() and not overwrite:
        raise VPGCError(f"{path} exists: choose another name, or --overwrite.")
    av = _av()
    if "libx264" not in av.codecs_available:
        raise VPGCError(
            f"This PyAV ({av.__version__}) has no encoder for H.264, libx264: install the one of "
            "PyPI by pip install --force-reinstall av."
        )
    check_writable(path)


def open_target(path, metadata: dict[str, str], fragmented: bool = False):
    """A container to write, by PyAV, with metadata.

    Args:
        path: The file, .mp4, .mkv or .mov.
        metadata: Names of any kind and their texts; empty for none.
        fragmented: Can it be played as far as it is written? For MP4 and MOV.

    Returns:
        `av.container.OutputContainer`.
    """
    flags = []
    options = {}
    if Path(path).suffix.lower() in (".mp4", ".mov"):
        if metadata:
            # They know few names of their own; as tags of QuickTime all are kept.
            flags.append("use_metadata_tags")
        if fragmented:
            flags += ["frag_keyframe", "empty_moov"]
            options["frag_duration"] = "1000000"  # microseconds
        if flags:
            options["movflags"] = "+".join(flags)
    container = _av().open(str(path), "w", **({"container_options": options} if options else {}))
    if metadata:
        container.metadata.update(metadata)
    return container


class PictureStream:
    """Encodes frames for a container: their times, colours and even sizes.

    Args:
        container: What `open_target` gave.
        codec: FFmpeg's name of the encoder.
        size: Height and width of the frames.
        frame_rate: Frames a second.
        times: See `VideoWriter`.
        pixels: Pixel format; one without alpha takes RGB, others RGB with alpha.
        options: The encoder's.
    """

    def __init__(
        self, container, codec, size, frame_rate, times=None, pixels="yuv420p", options=None
    ):
        rate = Fraction(frame_rate).limit_denominator(1001)
        self._times, self._count, self._size = times, 0, size
        self._time_base = 1 / rate if times is None else TICK
        self._stream = container.add_stream(codec, rate=rate)
        self._stream.time_base = self._stream.codec_context.time_base = self._time_base
        # 4:2:0, which every player knows, wants even sizes.
        self._stream.height, self._stream.width = (n + n % 2 for n in size)
        self._stream.pix_fmt = pixels
        # Untagged colours are guessed by each player in its own way.
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = _av().video.reformatter.ColorRange.MPEG
        self._stream.options = options or {}

    def encode(self, frame):
        """Packets of the next frame, uint8 `(height, width, 3 or 4)`."""
        odd = [(0, n % 2) for n in self._size]
        if any(after for _, after in odd):
            frame = np.pad(frame, (*odd, (0, 0)), mode="edge")
        kind = "rgb24" if frame.shape[-1] == 3 else "rgba"
        image = (
            _av()
            .VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=kind)
            .reformat(format=self._stream.pix_fmt, dst_colorspace=BT709, dst_color_range="MPEG")
        )
        image.time_base, place = self._time_base, self._count
        image.pts = place if self._times is None else round(self._times[place] / TICK)
        self._count += 1
        return self._stream.encode(image)

    def flush(self):
        """The packets that are left."""
        return self._stream.encode()


def check_count(path, count, times) -> None:
    """Refuse a frame beyond the times that were given."""
    if times is not None and count >= len(times):
        raise VPGCError(f"{path} was given {len(times)} times but more frames.")


class VideoWriter:
    """Writes RGB frames as H.264, under a temporary name until it is whole.

    Args:
        path: Target, such as `out.mp4`.
        frame_rate: Frames a second.
        crf: Quality, 0 (lossless) to 51; 17 is visually close to lossless.
        overwrite: Replace an existing file?
        times: Seconds from the first frame at which each frame appears, where their rate varies
            (kept to 1/90000 s; Matroska keeps milliseconds); default: evenly.
        part: Is this a part of a longer video? An MP4 then that can be played as far as it is
            written, at any moment, and is the same bytes for the same frames.
        metadata: What the file says of itself, such as `{"title": "Me"}`.
        finish: Called with the path of the whole file before it gets its name; may change it.
        preset: x264's, `"ultrafast"` to `"placebo"`. Against `"medium"` the default takes half the
            processor time, for 7% more bytes and 0.3 dB less of 42 dB.
        straight: Keep frames in the order in which they are shown? An MP4 says only of the frame
            that is kept last how long it lasts.

    Raises:
        VPGCError: see `check_target`; or if a frame has another size, there are more frames than
            times, or the disk is full.

    Example:

    ```python
    with VideoWriter("out.mp4", 25) as video:
        for frame in frames:
            video.write(frame)  # uint8 (h, w, 3)
    ```
    """

    def __init__(
        self,
        path,
        frame_rate: float,
        crf: int = 17,
        overwrite: bool = False,
        times=None,
        part: bool = False,
        metadata: dict[str, str] | None = None,
        finish: Callable[[Path], None] | None = None,
        preset: str = "veryfast",
        straight: bool = False,
    ):
        self.path = Path(path)
        check_target(self.path, overwrite)
        self.frame_rate, self.crf, self.preset = frame_rate, crf, preset
        self.times, self.part, self.straight = times, part, straight
        self.metadata, self.finish = metadata or {}, finish
        self.count = 0
        hidden = "" if part else "."
        self.partial = self.path.with_name(f"{hidden}{self.path.stem}.partial{self.path.suffix}")
        self.container: Any = None
        self.size: Any = None

    def __enter__(self):
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB `(height, width, 3)`."""
        if self.container is None:
            self.size = frame.shape[:2]
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.container = open_target(self.partial, self.metadata, self.part)
            options = {"crf": str(self.crf), "preset": self.preset}
            if self.part:
                # This search of x264 reads memory that nothing was written to, and what it finds
                # moves its choices; without it the file is 15% to 30% larger.
                options["x264-params"] = "no-mbtree=1"
            if self.straight:
                options["bf"] = "0"
            self.stream = PictureStream(
                self.container, "libx264", self.size, self.frame_rate, self.times, options=options
            )
        if frame.shape[:2] != self.size:
            raise VPGCError(
                f"A frame of {frame.shape[1]}x{frame.shape[0]} cannot follow frames of "
                f"{self.size[1]}x{self.size[0]} in {self.path}."
            )
        check_count(self.path, self.count, self.times)
        self.count += 1
        with writing(self.path):
            self.container.mux(self.stream.encode(frame))

    def keep(self) -> None:
        """Stop, and leave what is written so far under its temporary name, to be played."""
        if self.container is not None:
            with contextlib.suppress(Exception):
                self.container.mux(self.stream.flush())
            with contextlib.suppress(Exception):
                self.container.close()
            self.container = None

    def __exit__(self, kind, error, trace):
        if self.container is None:
            if kind is None:
                raise VPGCError(f"No frame was written to {self.path}: there is nothing to show.")
            return
        try:
            if kind is None:
                with writing(self.path):
                    self.container.mux(self.stream.flush())
                    self.container.close()
                    if self.finish is not None:
                        self.finish(self.partial)
                    os.replace(self.partial, self.path)
        finally:
            # What went wrong first is what is said; closing twice does nothing.
            with contextlib.suppress(Exception):
                self.container.close()
            self.partial.unlink(missing_ok=True)
