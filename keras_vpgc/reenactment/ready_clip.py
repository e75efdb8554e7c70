"""Landmarks or drawings of a clip as a stream's source: what needs no tracking."""

from collections.abc import Iterator

import numpy as np

from keras_vpgc.data.capture import paced
from keras_vpgc.reenactment.driving import contours_between, is_drawn, landmarks_between
from keras_vpgc.visualization import draw_landmarks


class ReadyClip:
    """A file of landmarks, or a folder of contour images at the puppet's rate.

    Args:
        puppet: The `Puppet` that it drives.
        path: See `keras_vpgc.reenactment.driving.by_landmarks` and `by_contours`.
        start: Where to begin, in seconds.
        end: Where to stop, in seconds.
        live: Give each frame at its own time?

    Attributes:
        live: As given.
        frame_rate: Frames a second.
        waited: Seconds that the last frame was waited for.
        drawn: Are the frames drawings?
        frames: Landmarks float32 `(n, p, 2)`, or drawings uint8 `(n, s, s)`.

    Raises:
        VPGCError: for files that are none of these, or times that hold no frame.

    Example:

    ```python
    with puppet.stream(ReadyClip(puppet, "drive.npz")) as stream:
        ...
    ```
    """

    def __init__(self, puppet, path, start=None, end=None, live=False):
        self.path, self.live, self.waited = path, live, 0.0
        self.drawn = is_drawn(path)
        self._size = puppet.size
        if self.drawn:
            self.frames = contours_between(puppet, path, start, end)
            self.frame_rate = float(puppet.metadata["frame_rate"])
            self._times = np.arange(len(self.frames)) / self.frame_rate
        else:
            self.frames, self._times, self.frame_rate, _ = landmarks_between(
                puppet, path, start, end
            )

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Pictures of the frames, uint8 RGB `(s, s, 3)`, and their seconds from the first."""
        yield from paced(self, map(self._picture, self.frames), self._times)

    def _picture(self, frame):
        if self.drawn:
            return np.stack([frame] * 3, axis=-1)
        return draw_landmarks(np.zeros((self._size, self._size, 3), "uint8"), frame)
