"""Faces of whole clips."""

import tempfile

import numpy as np

from keras_vpgc.data import parallel, tracking
from keras_vpgc.data.tracking import Track
from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.progress import progress_bar


class Follower:
    """Tracks the faces of whole clips in several processes."""

    def __init__(self, workers, model, progress):
        if workers is not None and workers < 1:
            raise VPGCError(f"workers = {workers} is impossible: give 1 or more.")
        self.workers = workers or parallel.default_workers()
        self.model, self.progress = model, progress

    def __call__(self, clip, title, near=None, span=None) -> Track:
        """A face in each frame of a clip: the largest, or the nearest to another track's.

        Args:
            clip: A `Clip`.
            title: Of the progress bar.
            near: `(track, numbers)`: a track of the truth in parts of the picture's longer side,
                and the clip's frames that belong to it, which are then those of the result.
            span: First frame and the one before which to stop; default: all.

        Returns:
            A `Track` in parts of the picture's longer side.
        """
        start, stop = span or (0, len(clip.times))
        count = stop - start
        with (
            tempfile.TemporaryDirectory() as folder,
            writing(folder),
            progress_bar(count, title, show=self.progress) as bar,
        ):
            faces = tracking.track_faces(
                clip.path,
                folder,
                start,
                stop,
                tracker_model=self.model,
                workers=self.workers,
                progress=bar.update,
            )
        faces.points = faces.points / np.float32(max(clip.info.width, clip.info.height))
        numbers = np.arange(count) if near is None else near[1]
        first = np.searchsorted(faces.frame, numbers)
        last = np.searchsorted(faces.frame, numbers, side="right")
        # The tracker gives a frame's faces by their size.
        chosen = np.where((last > first) & ~np.isin(numbers + start, clip.lost), first, -1)
        if near is not None:
            for i in np.flatnonzero((chosen >= 0) & (last - first > 1) & near[0].valid):
                apart = faces.points[first[i] : last[i], :, :2] - near[0].points[i, :, :2]
                chosen[i] += int(np.linalg.norm(apart, axis=-1).mean(1).argmin())
        return faces.track(chosen)
