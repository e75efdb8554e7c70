"""Video files that are compared: what belongs together, and what can be read of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import video
from keras_vpgc.errors import VPGCError

# Containers round time stamps: rates that differ by less are one rate. With the same number of
# frames it may be 24 beside 23.976, too.
SAME_RATE, SAME_RATE_AND_COUNT = 5e-4, 5e-3
# Pictures whose sides differ by more than this in proportion would be distorted.
SAME_SHAPE = 0.02
# What a system cannot be called.
FLOOR, TRUTH = "floor", "truth"
# More stretches of frames than this are not written out.
SPANS = 8


@dataclass(frozen=True)
class Clip:
    """A video file.

    Attributes:
        path: The file.
        info: What `keras_vpgc.data.video.probe` tells of it.
        times: Float `(n,)`, seconds of its frames.
        lost: Int `(k,)`, numbers of the frames that cannot be decoded.
    """

    path: Path
    info: video.VideoInfo
    times: np.ndarray
    lost: np.ndarray

    @classmethod
    def open(cls, path) -> "Clip":
        """Look at a file; a `VPGCError` if it is missing, empty or no video."""
        nothing = np.zeros(0, int)
        return cls(Path(path), video.probe(path), video.frame_times(path), nothing)

    def decoded(self) -> "Clip":
        """The clip with its lost frames, for which all are decoded once."""
        return Clip(self.path, self.info, self.times, video.lost_frames(self.path))

    @property
    def size(self) -> str:
        """Width and height in words."""
        return f"{self.info.width}x{self.info.height}"

    def describe(self) -> dict:
        """What a protocol states of the file."""
        return {
            "file": self.path.name,
            "sha256": assets.sha256(self.path),
            "width": self.info.width,
            "height": self.info.height,
            "frames": len(self.times),
            "frame_rate": self.info.frame_rate,
        }

    def frames(
        self, numbers, failed: Callable[[int, Exception], object] = lambda place, error: None
    ) -> Iterator[np.ndarray]:
        """Frames by their numbers; one that cannot be read is the last before it that could be.

        Args:
            numbers: Int `(n,)`, never falling; a number may come again.
            failed: Is told the place in `numbers` from which on the file could not be read, and
                why.

        Yields:
            n frames, uint8 `(height, width, 3)`.
        """
        numbers = np.asarray(numbers)
        place = 0
        last = np.zeros((self.info.height, self.info.width, 3), "uint8")
        start, stop = int(numbers[0]), int(numbers[-1]) + 1
        try:
            for number, frame in enumerate(video.read_frames(self.path, start, stop), start):
                last = frame
                while place < len(numbers) and numbers[place] == number:
                    yield frame
                    place += 1
        except (VPGCError, OSError) as error:
            failed(place, error)
        while place < len(numbers):
            yield last
            place += 1


def open_all(systems: dict, truth, align: bool, smallest: int, notes: list[str]):
    """Open videos, refuse those that cannot be compared, and find frames that belong together.

    Args:
        systems: Name -> predicted video file.
        truth: The true one.
        align: See `score_videos`.
        smallest: Least side in pixels in which a face is found, or 0.
        notes: Sentences are added.

    Returns:
        The truth's `Clip`; name -> `Clip`; name, and `FLOOR` for the truth -> numbers of the frames
        that are compared; name -> how these were chosen, in words.

    Raises:
        VPGCError: see `score_videos`.
    """
    true = Clip.open(truth)
    clips = {name: Clip.open(path) for name, path in systems.items()}
    for clip in (true, *clips.values()):
        if min(clip.info.width, clip.info.height) < smallest:
            raise VPGCError(
                f"{clip.path} shows pictures of {clip.size} pixels: a face can be found in "
                f"{smallest}x{smallest} at least, so leave out the landmarks by "
                "--no-landmarks."
            )
    for name, clip in clips.items():
        _check_shape(clip, true)
        if clip.size != true.size:
            if not align:
                raise VPGCError(
                    f"{clip.path} shows pictures of {clip.size} and {true.path} of {true.size}: "
                    "give videos of one size, or scale them to the truth's by --align."
                )
            notes.append(
                f"The frames of {name} are {clip.size} and were scaled to the truth's {true.size}."
            )
    pairs = {name: align_frames(clip, true, align, notes, name) for name, clip in clips.items()}
    common = min(len(shown) for shown, _, _ in pairs.values())
    places = {name: numbers[:common] for name, (_, numbers, _) in pairs.items()}
    places[FLOOR] = next(iter(pairs.values()))[0][:common]
    if common < 3:
        raise VPGCError(f"Only {common} frames of {true.path} can be scored: give longer videos.")
    true = true.decoded()
    clips = {name: clip.decoded() for name, clip in clips.items()}
    return true, clips, places, {name: how for name, (_, _, how) in pairs.items()}


def _check_shape(clip, true):
    shapes = [x.info.width / x.info.height for x in (clip, true)]
    if abs(shapes[0] / shapes[1] - 1) > SAME_SHAPE:
        raise VPGCError(
            f"{clip.path} shows pictures of {clip.size} and {true.path} of {true.size}: their "
            "shapes differ, so cut the same part out of both first."
        )


def align_frames(clip, true, align, notes, name, reference="the truth"):
    """Numbers of the true and the predicted frames that belong together, and how.

    Args:
        clip: The predicted `Clip`.
        true: The true one.
        align: See `score_videos`.
        notes: Sentences are added.
        name: What these call the prediction.
        reference: What they call the truth.
    """
    counts = len(true.times), len(clip.times)
    rates = true.info.frame_rate, clip.info.frame_rate
    apart = abs(rates[0] / rates[1] - 1)
    if apart < SAME_RATE or (counts[0] == counts[1] and apart < SAME_RATE_AND_COUNT):
        common = min(counts)
        if counts[0] != counts[1]:
            if not align:
                raise VPGCError(
                    f"{clip.path} has {counts[1]} frames and {true.path} {counts[0]}: give videos "
                    f"of one length, or score the first {common} by --align."
                )
            notes.append(
                f"{name} has {counts[1]} frames and {reference} {counts[0]}: the first {common} "
                "were scored."
            )
        return np.arange(common), np.arange(common), "frame by frame"
    seconds = [x.times[-1] + 1 / x.info.frame_rate for x in (true, clip)]
    if not align:
        raise VPGCError(
            f"{clip.path} has {rates[1]:g} frames a second ({counts[1]} in {seconds[1]:.2f} s) and "
            f"{true.path} {rates[0]:g} ({counts[0]} in {seconds[0]:.2f} s): give videos of one "
            "rate, or compare each true frame with the nearest in time by --align."
        )
    if abs(seconds[0] - seconds[1]) > 1 / min(rates) + 1e-3:
        notes.append(
            f"{name} lasts {seconds[1]:.2f} s and {reference} {seconds[0]:.2f} s: the first "
            f"{min(seconds):.2f} s were scored."
        )
        shown = np.flatnonzero(true.times < min(seconds) - 1e-3)
    else:
        shown = np.arange(counts[0])
    middles = 0.5 * (clip.times[1:] + clip.times[:-1])
    nearest = np.searchsorted(middles, true.times[shown])
    repeated = len(nearest) - len(np.unique(nearest))
    notes.append(
        f"{name} has {rates[1]:g} frames a second and {reference} {rates[0]:g}: each frame of "
        f"{reference} was compared with the nearest in time; {repeated} of {name} came again."
    )
    return shown, nearest, "nearest in time"


def spans(numbers) -> str:
    """Numbers in words, stretches joined: `[3, 4, 5, 9]` -> `"3-5, 9"`."""
    numbers = np.unique(numbers)
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    words = [f"{x[0]}-{x[-1]}" if len(x) > 1 else f"{x[0]}" for x in parts if len(x)]
    more = len(words) - SPANS
    return ", ".join(words[:SPANS]) + (f" and {more} more stretches" if more > 0 else "")
