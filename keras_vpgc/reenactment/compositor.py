"""What a viewer sees: the puppet's picture in a full frame, before another background."""

import itertools
import os
import warnings
from collections.abc import Iterator

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import landmark_sets, video
from keras_vpgc.data.crop import Crop, to_crop
from keras_vpgc.data.portrait import fill
from keras_vpgc.data.prepare import frame_range
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment.background import Background, parse_background
from keras_vpgc.reenactment.paste_back import (
    PasteBack,
    key_frames,
    match,
    place_crop,
    place_face,
)

PLACES = ("none", "auto", "crop", "face")
# Frames that are read at once where a video runs backwards, and the gap from which it is quicker to
# seek than to decode what lies between.
BLOCK, SEEK = 32, 300


class Compositor:
    """Makes the frames that are written out of the puppet's pictures.

    Use it in a `with` where there is a background. See `make_compositor`.

    Args:
        image_size: Side of the puppet's pictures in pixels.
        paste: A `PasteBack`, or `None` to leave the picture by itself.
        source: The video that is pasted into.
        numbers: Int `(n,)`, which of its frames belongs to each picture.
        driven: Float `(n, 68, 2)`, landmarks that drive the puppet, in [0, 1] of its picture.
        seen: Float `(n, 68, 2)`, landmarks of the frames' own face in pixels, or `None`.
        background: A `Background`, or `None`.

    Attributes:
        size: Width and height of the frames in pixels.
        channels: 3, or 4 with alpha.
        warm_up: How many pictures before the first one `see` must be shown, for a result that does
            not depend on where a job was begun.
    """

    def __init__(
        self,
        image_size: int,
        paste: PasteBack | None = None,
        source=None,
        numbers=None,
        driven=None,
        seen=None,
        background: Background | None = None,
    ):
        self.paste, self.source, self.numbers = paste, source, numbers
        self.driven, self.seen, self.background = driven, seen, background
        self.size = paste.frame_size if paste is not None else (image_size, image_size)
        self.channels = background.channels if background is not None else 3
        self.warm_up = background.warm_up if background is not None else 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """End what must be ended."""
        if self.background is not None:
            self.background.close()

    def source_frames(self, pictures=None) -> Iterator[np.ndarray | None]:
        """The frames that pictures are pasted into.

        Args:
            pictures: Int `(m,)`, their numbers; default: all of them, from 0 on.

        Yields:
            uint8 RGB `(height, width, 3)`, or `None` where nothing is pasted into.
        """
        if self.paste is None:
            yield from itertools.repeat(None)
        else:
            wanted = self.numbers if pictures is None else self.numbers[pictures]
            yield from frames_at(self.source, wanted)

    def frame(self, number: int, image, source_frame=None) -> np.ndarray:
        """The frame to write.

        With a background, frames must come one after the other.

        Args:
            number: Number of the picture, from 0.
            image: uint8 RGB `(s, s, 3)`, the puppet's.
            source_frame: What `source_frames` gave for this number.

        Returns:
            uint8 `(height, width, 3)`, or 4 channels with alpha.
        """
        full = self._full(number, image, source_frame)
        return full if self.background is None else self.background(full)

    def see(self, number: int, image, source_frame=None) -> None:
        """Take in a picture that is not written, see `warm_up`."""
        if self.background is not None:
            self.background.see(self._full(number, image, source_frame))

    def _full(self, number, image, source_frame):
        if self.paste is None:
            return image
        seen = None if self.seen is None else self.seen[number]
        return self.paste(number, image, source_frame, self.driven[number], seen)


def make_compositor(
    puppet,
    driving,
    landmarks,
    track,
    *,
    start: float | None = None,
    end: float | None = None,
    place: str = "none",
    into=None,
    into_start: float = 0.0,
    feather: float | None = None,
    blend: str | None = None,
    match_colours: bool = True,
    background: str | os.PathLike | None = None,
    segmenter_model=None,
) -> Compositor:
    """Plan how the puppet's pictures become frames.

    Colours and rims are matched on some frames of the clip, one a second, which the puppet renders
    for that. All plans depend on the arguments alone.

    Args:
        puppet: A `Puppet`.
        driving: The driving video.
        landmarks: Float `(n, 68, 2)` (78 with irises), see
            `keras_vpgc.reenactment.driving.driving_landmarks`.
        track: The driving clip's `Track` of n frames.
        start, end: The part of the driving video, as for `driving_landmarks`.
        place: `"none"`: the picture by itself; `"crop"`: the puppet's own crop, for its own person
            before the same camera; `"face"`: the driving face is covered; `"auto"`: crop where
            `into` is given or the landmarks are those of the driving clip as they are, else face.
        into: A video to paste into instead of the driving one: the puppet's own source, or one of
            the same camera. Where it is shorter than the driving part it runs backwards and
            forwards again.
        into_start: Second of `into` that belongs to the first driving frame.
        feather, blend: See `PasteBack`.
        match_colours: Match colours and rims?
        background: See `Background`; `None` leaves it.
        segmenter_model: See `keras_vpgc.data.person.PersonSegmenter`.

    Returns:
        A `Compositor`.

    Raises:
        VPGCError: for settings that do not fit each other or the videos.

    Example:

    ```python
    landmarks, track, _ = driving_landmarks(puppet, "friend.mp4")
    with make_compositor(puppet, "friend.mp4", landmarks, track, place="auto") as compositor:
        sources = compositor.source_frames()
        for k, (image, source) in enumerate(zip(puppet.drive(landmarks), sources)):
            writer.write(compositor.frame(k, image, source))
    ```
    """
    check_composition(place, into, background, into_start, segmenter_model)
    paste = source = numbers = seen = None
    landmarks = np.asarray(landmarks, "float32")
    driven = landmarks[:, :68]
    if place != "none":
        first, _ = frame_range(driving, start, end)
        times = video.frame_times(driving)[first : first + len(landmarks)]
        crop = Crop(**puppet.metadata["crop"])
        if place == "auto":
            own = into is not None or _as_they_are(landmarks, track, puppet, crop)
            place = "crop" if own else "face"
        if into is None:
            source, numbers = driving, first + np.arange(len(landmarks))
        else:
            source, numbers = into, _numbers(into, times - times[0] + into_start)
            if assets.sha256(into) != puppet.metadata["source_sha256"]:
                warnings.warn(
                    f"{into} is not the video that the puppet was made from: its crop fits only if "
                    "the camera is the same.",
                    stacklevel=2,
                )
        info = video.probe(source)
        if place == "crop":
            placement = place_crop(crop, len(landmarks))
            keys = key_frames(len(landmarks), times)
        else:
            seen = fill(landmark_sets.landmarks(track.points), track.valid)
            placement = place_face(driven, seen, track.valid, times)
            known = np.flatnonzero(track.valid)
            keys = known[key_frames(len(known), times[known])]
        paste = PasteBack(
            placement,
            puppet.size,
            (info.width, info.height),
            region=place,
            feather=feather,
            blend=blend,
        )
        if match_colours:
            images = puppet.drive_frames(landmarks, keys)
            frames = frames_at(source, numbers[keys])
            paste.colour, paste.rim = match(
                (
                    paste.compared(k, image, frame, driven[k], None if seen is None else seen[k])
                    for k, image, frame in zip(keys, images, frames, strict=True)
                ),
                keys,
                times,
            )
    behind = None if background is None else Background(background, segmenter_model)
    return Compositor(puppet.size, paste, source, numbers, driven, seen, behind)


def check_composition(
    place: str,
    into=None,
    background: str | os.PathLike | None = None,
    into_start: float = 0.0,
    segmenter_model=None,
) -> None:
    """Refuse settings that do not fit each other, before the work.

    Args:
        place, into, background, into_start, segmenter_model: See `make_compositor`.

    Raises:
        VPGCError: for a place or background that there is not, a video that cannot be read or has
            no such second, or a segmenter that is not there.
    """
    if place not in PLACES:
        raise VPGCError(f"There is no place {place!r}: choose one of {', '.join(PLACES)}.")
    if into is not None:
        if place in ("none", "face"):
            raise VPGCError(
                f"The puppet is put into {into} at its own crop: choose the place 'crop' or 'auto' "
                f"for that, not {place!r}."
            )
        video.probe(into)
        _numbers(into, np.array([into_start]))
    elif into_start:
        raise VPGCError(
            "A second at which to begin belongs to a video to paste into: give that, or leave the "
            "second out."
        )
    if background is not None:
        parse_background(background)
        assets.find("selfie_segmentation", segmenter_model)


def _as_they_are(landmarks, track, puppet, crop):
    """Do the landmarks show the driving person before the puppet's own camera?"""
    own = landmark_sets.landmarks(track.points, puppet.landmark_set)
    own = to_crop(fill(own, track.valid), crop)
    if own.shape != landmarks.shape:
        return False
    return np.abs(own - landmarks)[track.valid].max() < 1e-4


def _numbers(path, wanted):
    """Which frame of a video is shown at some times, where it runs to and fro."""
    times = video.frame_times(path)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    length = times[-1] + step
    if not 0 <= wanted[0] < length:
        raise VPGCError(
            f"{path} lasts {length:.2f} s and has no frame at second {wanted[0]:g}: choose another "
            "place to begin."
        )
    there = np.mod(wanted, 2 * length)
    there = np.where(there < length, there, 2 * length - there - step)
    # Files round their times, some to milliseconds.
    return np.clip(np.searchsorted(times, there + 0.25 * step, "right") - 1, 0, len(times) - 1)


def frames_at(path, numbers) -> Iterator[np.ndarray]:
    """Frames of a video in any order, in little memory.

    Args:
        path: The video file.
        numbers: Int `(n,)`; runs forwards and backwards are read as such.

    Yields:
        uint8 RGB `(height, width, 3)` for each number.

    Example:

    ```python
    list(frames_at("me.mp4", [0, 1, 2, 1, 0]))
    ```
    """
    numbers = [int(n) for n in numbers]
    place = 0
    while place < len(numbers):
        stop = place + 1
        if stop < len(numbers) and numbers[stop] < numbers[place]:
            while (
                stop < len(numbers) and stop - place < BLOCK and numbers[stop] < numbers[stop - 1]
            ):
                stop += 1
            low = numbers[stop - 1]
            block = list(video.read_frames(path, low, numbers[place] + 1))
            yield from (block[min(n - low, len(block) - 1)] for n in numbers[place:stop])
        else:
            while stop < len(numbers) and 0 <= numbers[stop] - numbers[stop - 1] < SEEK:
                stop += 1
            reader = video.read_frames(path, numbers[place], numbers[stop - 1] + 1)
            shown, frame = numbers[place] - 1, None
            for n in numbers[place:stop]:
                while shown < n:
                    # A file that was cut off shows its last frame on.
                    frame = next(reader, frame)
                    shown += 1
                if frame is None:
                    raise VPGCError(f"{path} ends before frame {n}: it was cut off.")
                yield frame
        place = stop
