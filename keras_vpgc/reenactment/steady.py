"""Landmarks that come live, made steady: the filter, and what is shown where there is no face."""

import numpy as np

from keras_vpgc.data.smoothing import OneEuro
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment.driving import MISSING

FILTERS = ("one-euro", "off")
# Seconds in which a face that is lost comes to rest.
FADE = 1.0
# Seconds in which the landmarks glide to a face that is back, or over to a new calibration.
GLIDE = 0.3
# Seconds without a face after which the filter knows nothing.
FORGET = 0.5


class Steady:
    """Filters landmarks and bridges the time without a face, without ever looking ahead.

    Args:
        rest: Float `(p, 2)`, the puppet's landmarks at rest: shown before the first face.
        filter: `"one-euro"`, `"off"`, or a `keras_vpgc.data.smoothing.OneEuro` of one's own.
        missing: Where there is no face, `"hold"` the last landmarks; `"fade"` from them to the
            puppet at rest within a second; or `"skip"` such frames.

    Raises:
        VPGCError: for another filter, or another way with frames without a face.

    Example:

    ```python
    steady = Steady(rest_landmarks(puppet), "one-euro", "fade")
    for landmarks, second in live:  # None where there is no face
        shown = steady(landmarks, second)
    ```
    """

    def __init__(self, rest, filter: str | OneEuro = "off", missing: str = "hold"):
        if not isinstance(filter, OneEuro) and filter not in FILTERS:
            raise VPGCError(
                f"There is no filter {filter!r}: choose one of {', '.join(FILTERS)}, or give a "
                "OneEuro."
            )
        if missing not in MISSING:
            raise VPGCError(
                f"There is no way {missing!r} with frames without a face: choose one of "
                f"{', '.join(MISSING)}."
            )
        self.rest = np.asarray(rest, "float32")
        self.missing = missing
        if isinstance(filter, OneEuro):
            self.filter: OneEuro | None = filter
            self.filter.reset()
        else:
            self.filter = OneEuro() if filter == "one-euro" else None
        self._shown: np.ndarray | None = None
        self._face: np.ndarray | None = None
        self._seen = 0.0
        self._lost = False
        self._offset, self._from = np.zeros_like(self.rest), -np.inf

    def __call__(self, landmarks, second: float, jump=0.0):
        """The next frame.

        Args:
            landmarks: Float `(p, 2)`, or `None` for no face.
            second: Time of the frame.
            jump: By how much the landmarks are elsewhere than the same face was before, because of
                a new calibration.

        Returns:
            Float32 `(p, 2)`, or `None` for a frame to skip.
        """
        if landmarks is None:
            self._lost = True
            if self.missing == "skip":
                return None
            if self._face is None:
                self._shown = self.rest
            elif self.missing == "fade":
                share = _smooth((second - self._seen) / FADE)
                self._shown = self._face + np.float32(share) * (self.rest - self._face)
            return self._shown
        landmarks = np.asarray(landmarks, "float32")
        left = self._left(second)
        if self.filter is not None:
            if self._lost and second - self._seen > FORGET:
                self.filter.reset()
            self.filter.value = self.filter.value + jump
            landmarks = self.filter(landmarks, second).astype("float32")
        if self._lost and self._shown is not None:
            self._glide(self._shown - landmarks, second)
        elif np.any(jump):
            self._glide(left - np.asarray(jump, "float32"), second)
        self._lost, self._seen = False, second
        self._face = self._shown = landmarks + self._left(second)
        return self._shown

    def _glide(self, offset, second):
        self._offset, self._from = offset, second

    def _left(self, second):
        """What is left of the way."""
        share = 1 - _smooth((second - self._from) / GLIDE)
        return self._offset * np.float32(share) if share > 0 else np.zeros_like(self.rest)


def _smooth(share):
    """From 0 to 1 with level ends."""
    share = float(np.clip(share, 0, 1))
    return share * share * (3 - 2 * share)
