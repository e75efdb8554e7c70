"""Reading and writing video files."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc.errors import VPGCError, missing_extra


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself: size in pixels, frames a second, number of frames, sound."""

    width: int
    height: int
    frame_rate: float
    frame_count: int


def _cv2():
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("opencv", "video") from error
    return cv2


def _open(path):
    path = Path(path)
    if not path.exists():
        raise VPGCError(f"There is no file {path}: check the path.")
    if path.is_dir():
        raise VPGCError(f"{path} is a folder: give a video file.")
    if path.stat().st_size == 0:
        raise VPGCError(f"{path} is empty (0 bytes): copy or record it again.")
    cv2 = _cv2()
    with _quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise VPGCError(
            f"{path} cannot be read as a video: it is another kind of file, or was cut off while "
            "being written or copied."
        )
    return capture


@contextlib.contextmanager
def _quiet():
    """Keep the decoder's own messages off the terminal; ours says what matters."""
    saved = os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def probe(path) -> VideoInfo:
    """Size, rate and length of a video.

    Args:
        path: The video file.

    Returns:
        A `VideoInfo`; the number of frames is what the container says, 0 if it does not know.

    Raises:
        VPGCError: for a missing, empty, truncated or non-video file.

    Example:

    ```python
    probe("me.mp4").frame_rate  # 25.0
    ```
    """
    cv2 = _cv2()
    capture = _open(path)
    try:
        ok, frame = capture.read()
        if not ok:
            raise VPGCError(f"{path} holds no frame that can be decoded: record or copy it again.")
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # A still picture opens as a video of one frame.
        if count <= 1 and not capture.read()[0]:
            raise VPGCError(f"{path} is a single picture: give a video of some minutes.")
        height, width = frame.shape[:2]
        return VideoInfo(width, height, float(rate) if rate > 0 else 25.0, max(count, 0))
    finally:
        capture.release()


def read_frames(path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames of a video in order, one at a time.

    Args:
        path: The video file.
        start: Number of the first frame.
        stop: Number of the frame before which to stop, or `None` for the end.

    Yields:
        uint8 RGB `(height, width, 3)`; rotation that the file asks for is applied.

    Raises:
        VPGCError: for a missing, empty, truncated or non-video file.
    """
    cv2 = _cv2()
    capture = _open(path)
    try:
        index = 0
        while stop is None or index < stop:
            # Seeking is inexact in many files; skipping is cheap.
            if index < start:
                if not capture.grab():
                    break
            else:
                ok, frame = capture.read()
                if not ok:
                    break
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            index += 1
        if index == 0:
            raise VPGCError(f"{path} holds no frame that can be decoded: record or copy it again.")
    finally:
        capture.release()


class VideoWriter:
    """Writes RGB frames as H.264, under a temporary name until it is whole.

    Args:
        path: Target, such as `out.mp4`.
        frame_rate: Frames a second.
        crf: Quality, 0 (lossless) to 51; 18 is visually close to lossless.
        overwrite: Replace an existing file?

    Raises:
        VPGCError: if the target exists and `overwrite` is false, or a frame has another size.

    Example:

    ```python
    with VideoWriter("out.mp4", 25) as video:
        for frame in frames:
            video.write(frame)  # uint8 (h, w, 3)
    ```
    """

    def __init__(self, path, frame_rate: float, crf: int = 18, overwrite: bool = False):
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise missing_extra("PyAV", "video") from error
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise VPGCError(f"{self.path} exists: choose another name, or --overwrite.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.frame_rate, self.crf = frame_rate, crf
        self.partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        self.container: Any = None
        self.size: Any = None

    def __enter__(self):
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB `(height, width, 3)`."""
        from fractions import Fraction

        import av

        if self.container is None:
            self.size = frame.shape[:2]
            self.container = av.open(str(self.partial), "w")
            rate = Fraction(self.frame_rate).limit_denominator(1001)
            self.stream = self.container.add_stream("libx264", rate=rate)
            # yuv420p, which every player knows, wants even sizes.
            self.stream.height, self.stream.width = (n + n % 2 for n in self.size)
            self.stream.pix_fmt = "yuv420p"
            self.stream.options = {"crf": str(self.crf), "preset": "medium"}
        if frame.shape[:2] != self.size:
            raise VPGCError(
                f"A frame of {frame.shape[1]}x{frame.shape[0]} cannot follow frames of "
                f"{self.size[1]}x{self.size[0]} in {self.path}."
            )
        odd = [(0, n % 2) for n in self.size]
        if any(after for _, after in odd):
            frame = np.pad(frame, (*odd, (0, 0)), mode="edge")
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self.container.mux(self.stream.encode(image))

    def __exit__(self, kind, error, trace):
        if self.container is not None:
            if kind is None:
                self.container.mux(self.stream.encode())
            self.container.close()
            if kind is None:
                os.replace(self.partial, self.path)
            else:
                self.partial.unlink(missing_ok=True)
        elif kind is None:
            raise VPGCError(f"No frame was written to {self.path}: there is nothing to show.")
