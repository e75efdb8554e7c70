"""The frames of compared videos, as they are scored and shown."""

import contextlib
import functools

import numpy as np

from keras_vpgc.data import crop as crops
from keras_vpgc.data.crop import Crop
from keras_vpgc.evaluation.clips import FLOOR, TRUTH
from keras_vpgc.evaluation.scorer import batch_frames


class Pictures:
    """The frames that were compared, cut out of their videos.

    Args:
        true: The truth's `Clip`.
        clips: Name -> `Clip`.
        places: Name, and `"floor"` for the truth -> numbers of the frames that are compared.
        face: Square of the face in pixels of the truth, or `None`.
        size: Side in pixels at which it is scored.
    """

    def __init__(self, true, clips, places, face, size):
        self.true, self.clips, self.places, self.face, self.size = true, clips, places, face, size

    def cut(self, frame, region) -> np.ndarray:
        """A region, `"face"` or `"full"`, of a frame."""
        import cv2

        wanted = self.true.info.width, self.true.info.height
        height, width = frame.shape[:2]
        if (width, height) != wanted:
            method = cv2.INTER_AREA if width > 1.5 * wanted[0] else cv2.INTER_CUBIC
            frame = cv2.resize(frame, wanted, interpolation=method)
        return frame if region == "full" else crops.apply(frame, self.face, self.size)

    def square(self, region) -> Crop:
        """The region in parts of the picture's longer side; its side is what is 1 in landmarks."""
        if region == "full":
            return Crop(0.0, 0.0, 1.0)
        longer = max(self.true.info.width, self.true.info.height)
        return Crop(self.face.x / longer, self.face.y / longer, self.face.size / longer)

    def batch(self, regions) -> int:
        """How many frames are scored at once."""
        sides = {
            "face": (self.size, self.size),
            "full": (self.true.info.height, self.true.info.width),
        }
        return min(batch_frames(*sides[region]) for region in regions)

    @contextlib.contextmanager
    def streams(self, failed=lambda name, place, error: None, names=None, places=slice(None)):
        """Iterators of whole frames, the truth's first; see `Clip.frames`.

        Args:
            failed: Is told name, place and error.
            names: Those of the systems; default: all.
            places: Rising places of the frames; default: all.
        """
        with contextlib.ExitStack() as stack:
            streams = []
            chosen = [(TRUTH, self.true, FLOOR)]
            names = self.clips if names is None else names
            chosen += [(name, self.clips[name], name) for name in names]
            for name, clip, key in chosen:
                said = functools.partial(failed, name)
                streams.append(clip.frames(self.places[key][places], said))
                stack.callback(streams[-1].close)
            yield streams

    def pairs(self, name, places, region):
        """Truth and prediction at a few rising places, each read alone."""
        for place in places:
            with self.streams(names=[name], places=slice(place, place + 1)) as streams:
                yield tuple(self.cut(next(stream), region) for stream in streams)
