"""Clips of a study: which there are, and all encoded alike."""

import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from keras_vpgc.data.video import BT709
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.clips import SAME_SHAPE, Clip

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
SOUND_RATE, SOUND_BITS = 48000, 96000
# One setting for all: what a clip looks like must not depend on who is encoded.
CRF, PRESET = 18, "medium"
# Browsers show no more; slow motion would only make the page large.
MOST_FRAMES_A_SECOND = 60


def find_clips(systems: dict, references=None) -> tuple[list[str], dict[str, list[Path]]]:
    """The clips that all systems have.

    Args:
        systems: Name -> a folder of videos, a video, or a list of videos.
        references: The same once more, or `None`.

    Returns:
        Names of the clips, and name of the system -> files in that order; the references are under
        the empty name.

    Raises:
        VPGCError: if a system lacks a clip that another has, folders and files are mixed, or a
            folder holds no video.

    Example:

    ```python
    find_clips({"ours": "ours", "theirs": "theirs"})  # two folders with may.mp4 and obama.mp4
    ```
    """
    groups = {name: _files(name, value) for name, value in systems.items()}
    if references is not None:
        groups[""] = _files("", references)
    first, (names, _) = next(iter(groups.items()))
    for other, (found, files) in groups.items():
        if (names is None) != (found is None):
            raise VPGCError(
                f"{_title(first)} and {_title(other)} cannot be matched, one being a folder and "
                "the other single videos: give folders, or videos, for all."
            )
        if names is None:
            if len(files) != len(groups[first][1]):
                raise VPGCError(
                    f"{_title(other)} has {len(files)} clips and {_title(first)} "
                    f"{len(groups[first][1])}: give the same clips, in the same order, for all."
                )
            continue
        for a, b, has, lacks in ((names, found, first, other), (found, names, other, first)):
            if missing := sorted(set(a) - set(b)):
                raise VPGCError(
                    f"{_title(lacks)} has no clip {missing[0]!r} and {_title(has)} has: every "
                    "system needs the same clips, under the same file names without the ending."
                )
    if names is None:
        names = [str(i + 1) for i in range(len(groups[first][1]))]
    return names, {name: files for name, (_, files) in groups.items()}


def _title(name):
    return f"The system {name!r}" if name else "The reference"


def _files(name, value):
    """Names, sorted, and files of a folder; `None` and the files where single videos are given."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not values:
        raise VPGCError(f"{_title(name)} has no video: give one.")
    paths = [Path(x) for x in values]
    if not any(path.is_dir() for path in paths):
        return None, paths
    if len(paths) > 1:
        raise VPGCError(
            f"{_title(name)} is given as a folder and more: give one folder, or videos."
        )
    files = sorted(x for x in paths[0].iterdir() if x.suffix.lower() in SUFFIXES)
    files = [x for x in files if not x.name.startswith(".")]
    if not files:
        raise VPGCError(f"{paths[0]} holds no video: put one in for each clip.")
    names = [x.stem for x in files]
    for one, two in zip(names, names[1:], strict=False):
        if one == two:
            raise VPGCError(f"{paths[0]} holds two videos called {one!r}: remove one.")
    return names, files


@dataclass(frozen=True)
class Box:
    """The picture that all clips are put into, in pixels; even, as H.264 wants it."""

    width: int
    height: int

    @classmethod
    def around(cls, clips: list[Clip], size: int) -> "Box":
        """The smallest that holds all, each scaled to a longer side of `size`."""
        shapes = [(clip.info.width, clip.info.height) for clip in clips]
        sides = [
            max(2, 2 * round(max(shape[axis] / max(shape) for shape in shapes) * size / 2))
            for axis in (0, 1)
        ]
        return cls(*sides)

    def fit(self, frame: np.ndarray) -> np.ndarray:
        """A frame scaled into the middle, uint8 RGB; what is left over is black."""
        height, width = frame.shape[:2]
        scale = min(self.width / width, self.height / height)
        # A picture that almost fills the box does: a line of black would tell who it is.
        sides = [
            side if abs(side - n * scale) < SAME_SHAPE * side else max(1, round(n * scale))
            for n, side in ((width, self.width), (height, self.height))
        ]
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        if (width, height) != tuple(sides):
            frame = cv2.resize(frame, sides, interpolation=method)
        if sides == [self.width, self.height]:
            return frame
        picture = np.zeros((self.height, self.width, 3), "uint8")
        top, left = (self.height - sides[1]) // 2, (self.width - sides[0]) // 2
        picture[top : top + sides[1], left : left + sides[0]] = frame
        return picture


def duration(clip: Clip) -> float:
    """Seconds from the first frame to the end of the last."""
    return float(clip.times[-1]) + 1 / clip.info.frame_rate


def encode(clip: Clip, box: Box, seconds: float, sound: np.ndarray | None) -> bytes:
    """The first seconds of a clip as MP4 (H.264, AAC), without metadata.

    Args:
        clip: The video.
        box: Size of the picture.
        seconds: Length.
        sound: float32 `(2, n)` at 48 kHz, or `None`.

    Returns:
        The file's bytes.

    Raises:
        VPGCError: if one of the frames cannot be decoded.
    """
    import av

    from keras_vpgc.data.video import lost_frames, resample

    limit = Fraction(min(clip.info.frame_rate, MOST_FRAMES_A_SECOND)).limit_denominator(1001)
    count = max(1, math.floor(seconds * limit + 1e-6))
    numbers = resample(clip.times, float(limit))
    # Rounded time stamps may leave the last tick without a frame.
    numbers = numbers[np.minimum(np.arange(count), len(numbers) - 1)]
    lost = np.intersect1d(lost_frames(clip.path), numbers)
    if len(lost):
        raise VPGCError(
            f"{clip.path} is damaged: {len(lost)} of the frames to be shown cannot be decoded, the "
            f"first is {lost[0]}; give a whole file, or fewer --seconds."
        )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=limit)
        stream.width, stream.height, stream.pix_fmt = box.width, box.height, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = av.video.reformatter.ColorRange.MPEG
        stream.options = {"crf": str(CRF), "preset": PRESET, "flags": "+bitexact"}
        voice = None
        if sound is not None:
            voice = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
            voice.bit_rate, voice.options = SOUND_BITS, {"flags": "+bitexact"}
        for frame in clip.frames(numbers):
            image = av.VideoFrame.from_ndarray(box.fit(frame), format="rgb24")
            image = image.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range="MPEG")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
        if voice is not None and sound is not None:
            for place in range(0, sound.shape[1], 1024):
                piece = np.ascontiguousarray(sound[:, place : place + 1024])
                part = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
                part.rate, part.pts, part.time_base = SOUND_RATE, place, Fraction(1, SOUND_RATE)
                container.mux(voice.encode(part))
            container.mux(voice.encode())
    return buffer.getvalue()
