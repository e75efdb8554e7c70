"""Where a stream's pictures come from: a camera, or a video played at its own pace."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_vpgc.data import video
from keras_vpgc.data.prepare import frame_range
from keras_vpgc.errors import VPGCError, import_cv2

# A clip that is played and falls behind by more seconds than this goes on from there.
MAX_LAG = 0.5
# Pictures that a camera may fail to give, one after the other, before it counts as gone.
MAX_FAILURES = 10


class Camera:
    """A camera of this machine, or a network camera, by OpenCV.

    Args:
        number: Number of the camera, 0 for the first; or the address of a stream.
        width: Pixels to ask the camera for; it may give others.
        height: Pixels to ask the camera for.
        frame_rate: Frames a second to ask the camera for.

    Attributes:
        live: True: what nobody takes in time is lost.
        frame_rate: Frames a second as the camera states them; 30 where it does not.
        waited: Seconds that the last picture was waited for, decoding not counted.

    Raises:
        VPGCError: if OpenCV is missing or there is no such camera.

    Example:

    ```python
    with Camera(0) as camera:
        for picture, second in camera:  # uint8 RGB (h, w, 3), seconds from the first picture
            ...
    ```
    """

    live = True

    def __init__(
        self,
        number: int | str = 0,
        width: int | None = None,
        height: int | None = None,
        frame_rate: float | None = None,
    ):
        cv2 = import_cv2()
        self.name = f"Camera {number}"
        self.waited = 0.0
        with video.quiet():
            self._capture = cv2.VideoCapture(int(number) if str(number).isdigit() else number)
            opened = self._capture.isOpened()
        if not opened:
            raise VPGCError(
                f"{self.name} cannot be opened: connect it, end other programs that use it, or "
                "choose another."
            )
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, width),
            (cv2.CAP_PROP_FRAME_HEIGHT, height),
            (cv2.CAP_PROP_FPS, frame_rate),
            # A driver's queue of old pictures is latency; not all let it be shortened.
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        ):
            if value is not None:
                self._capture.set(setting, value)
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = float(stated) if 1 <= stated <= 1000 else 30.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Let other programs have it."""
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Pictures as they come.

        Raises:
            VPGCError: if the camera gives no more of them.
        """
        cv2 = import_cv2()
        count, failures, first = 0, 0, None
        while True:
            began = time.perf_counter()
            grabbed = self._capture.grab()
            now = time.perf_counter()
            self.waited = now - began
            whole, picture = self._capture.retrieve() if grabbed else (False, None)
            if not whole:
                failures += 1
                if failures < MAX_FAILURES and self._capture.isOpened():
                    time.sleep(0.01)
                    continue
                raise VPGCError(
                    f"{self.name} gives no more pictures after {count}: check its cable and "
                    "whether another program has taken it, and start again."
                )
            failures = 0
            first = now if first is None else first
            count += 1
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), now - first


class Clip:
    """A video file as a source, all frames or as a camera would give them.

    Args:
        path: The video file.
        start: Where to begin, in seconds.
        end: Where to stop, in seconds.
        live: Give each frame at its own time, by the time stamps of the file, and no sooner; who
            comes late finds the newest.

    Attributes:
        live: As given.
        frame_rate: Frames a second, on average.
        waited: Seconds that the last frame was waited for, decoding not counted.
        edges: Float64 `(n + 1,)`: when each frame of the part appears and the last one ends, in
            seconds of the file.

    Raises:
        VPGCError: for a file that is no video, or times that hold no frame.

    Example:

    ```python
    for picture, second in Clip("friend.mp4", end=10):
        ...
    ```
    """

    def __init__(self, path, start: float | None = None, end: float | None = None, live=False):
        self.path, self.live = path, live
        self.name = str(path)
        self.waited = 0.0
        info = video.probe(path)
        self.frame_rate = info.frame_rate
        self.range = first, stop = frame_range(path, start, end)
        times = video.frame_times(path)
        self.edges = np.append(times, max(info.duration, times[-1]))[first : stop + 1]

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Frames, uint8 RGB `(h, w, 3)`, and their seconds from the first."""
        times = self.edges[:-1] - self.edges[0]
        yield from paced(self, video.read_frames(self.path, *self.range), times)


def paced(source, pictures, times) -> Iterator[tuple[Any, float]]:
    """Pictures with their seconds; where the source is live, each at its own time.

    Args:
        source: Its attribute `live` is read, and `waited` set.
        pictures: Iterable.
        times: Seconds of the pictures.

    Yields:
        Pairs of a picture and its second.
    """
    begin = None
    for picture, second in zip(pictures, np.asarray(times).tolist(), strict=False):
        source.waited = 0.0
        if source.live:
            now = time.perf_counter()
            begin = now - second if begin is None else begin
            early = begin + second - now
            if early > 0:
                time.sleep(early)
                source.waited = time.perf_counter() - now
            elif early < -MAX_LAG:
                begin = now - second
        yield picture, second
