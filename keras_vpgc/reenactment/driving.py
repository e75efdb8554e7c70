"""What drives a puppet: a video, a file of landmarks, or a folder of contour images."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import video
from keras_vpgc.data.overlap import ahead
from keras_vpgc.data.prepare import check_number, frame_range, track_clip
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment.background import Background
from keras_vpgc.reenactment.compositor import Compositor, frames_at, make_compositor
from keras_vpgc.reenactment.contours import contour_files, drive_contours, read_contours
from keras_vpgc.reenactment.puppet import Puppet, check_landmarks
from keras_vpgc.visualization import draw_landmarks

LANDMARK_FILES = (".npz", ".npy")
MISSING = ("hold", "fade", "skip")
GLIDE = 0.4  # seconds in which a held pose goes over to the one of the face that is back
FADE = 0.5  # seconds in which the picture goes dark, or comes back


@dataclass
class Drive:
    """The frames to be rendered, and what goes with them.

    Attributes:
        count: Number of frames.
        images: From the number of a frame to the puppet's images from there on, batch by batch.
        rate: Frames a second.
        beside: From the number of a frame to the pictures that show what drives, from there on.
        times: Seconds at which the frames appear, from 0; `None` for an even rate.
        last: Seconds that the last frame lasts.
        light: Float `(count,)`, the brightness of each frame in [0, 1].
        source: The video that is heard, or `None`.
        spans: Pairs of seconds of the source that are shown.
        compositor: What puts the images into full frames or before another background, or `None`.
        numbers: Int `(count,)`, the compositor's numbers of the frames.
    """

    count: int
    images: Callable[[int], Iterator[np.ndarray]]
    rate: float
    beside: Callable[[int], Iterator[np.ndarray]]
    times: np.ndarray | None = None
    last: float | None = None
    light: np.ndarray | None = None
    source: Path | None = None
    spans: list[tuple[float, float]] | None = None
    compositor: Compositor | None = None
    numbers: np.ndarray | None = None


def by_video(
    puppet: Puppet,
    driving,
    *,
    missing: str = "hold",
    batch_size: int = 8,
    composition: dict | None = None,
    folder=None,
    **settings,
) -> Drive:
    """What a video of a face drives.

    Args:
        puppet: A `Puppet`.
        driving: The driving video.
        missing, batch_size: See `keras_vpgc.reenactment.reenact`.
        composition: Settings of `make_compositor`; default: the images by themselves.
        folder: Where the tracking is kept, so that a stopped job goes on; default: nowhere.
        settings: See `driving_landmarks`.

    Returns:
        A `Drive`.

    Raises:
        VPGCError: see `driving_landmarks`.

    Example:

    ```python
    drive = by_video(puppet, "friend.mp4", retargeting="relative")
    ```
    """
    info = video.probe(driving)
    landmarks, track, sha256 = driving_landmarks(puppet, driving, folder=folder, **settings)
    first, _ = frame_range(driving, settings.get("start"), settings.get("end"))
    stop = first + len(landmarks)
    times = video.frame_times(driving)
    # The first frame of the puppet's own video may be dropped by `start`.
    ends = np.append(times[1:], max(info.duration, times[-1]))[first:stop]
    times = times[first:stop]
    if puppet.metadata["source_sha256"] == sha256:
        crop = crops.Crop(**puppet.metadata["crop"])
    else:
        crop = crops.choose_crop(track.points, track.valid, info.width, info.height)
    kept = np.ones(len(landmarks), bool)
    light = None
    if not track.valid.all():
        if missing == "skip":
            kept = track.valid.copy()
        else:
            landmarks = hold(landmarks, track.valid, times)
    compositor = None
    if composition:
        part: dict[str, Any] = {name: settings.get(name) for name in ("start", "end")}
        compositor = make_compositor(puppet, driving, landmarks, track, **part, **composition)
    if not track.valid.all():
        # A face that is put over another has no place where that is not.
        paste = None if compositor is None else compositor.paste
        over = paste is not None and paste.region == "face"
        say_missing(driving, track.valid, times, "over" if over and missing != "skip" else missing)
        if missing == "fade" and not over:
            light = fading(track.valid, times)
    numbers = np.flatnonzero(kept)
    landmarks, lasting = landmarks[kept], (ends - times)[kept]
    shown = np.cumsum(lasting) - lasting

    def beside(start):
        for frame in ahead(frames_at(driving, first + numbers[start:])):
            if compositor is None or compositor.paste is None:
                frame = crops.apply(frame, crop, puppet.size)
            yield frame

    return Drive(
        count=len(landmarks),
        images=lambda start: puppet.batches(landmarks, batch_size, start=start),
        rate=info.frame_rate,
        beside=beside,
        times=shown if info.variable_rate else None,
        last=float(lasting[-1]) if info.variable_rate else None,
        light=light,
        source=Path(driving) if info.has_sound else None,
        spans=_spans(times, ends, kept),
        compositor=compositor,
        numbers=numbers,
    )


def by_landmarks(
    puppet: Puppet, file, start=None, end=None, batch_size: int = 8, background=None
) -> Drive:
    """What a file of landmarks drives.

    Args:
        puppet: A `Puppet`.
        file: `.npz` of `landmarks`, float `(n, 68, 2)` (78 with irises) in [0, 1] of the puppet's
            crop, and `frame_rate`, frames a second, default the puppet's; with `times`, seconds
            `(n,)`, where the rate varies, and `landmark_set`, its name, if known. Or `.npy` of
            the landmarks alone.
        start, end: Seconds between which they drive.
        batch_size: Frames computed at once.
        background: See `keras_vpgc.reenactment.background.Background`, or `None`.

    Returns:
        A `Drive`.

    Raises:
        VPGCError: for a file that is none of these, landmarks that the puppet cannot be driven by,
            or a part without frames.

    Example:

    ```python
    np.savez("drive.npz", landmarks=landmarks, frame_rate=25.0)
    drive = by_landmarks(puppet, "drive.npz")
    ```
    """
    chosen, times, rate, even = landmarks_between(puppet, file, start, end)

    def beside(start):
        dark = np.zeros((puppet.size, puppet.size, 3), "uint8")
        return (draw_landmarks(dark, frame) for frame in chosen[start:])

    return Drive(
        count=len(chosen),
        images=lambda start: puppet.batches(chosen, batch_size, start=start),
        rate=rate,
        beside=beside,
        times=None if even else times,
        **_before(puppet, background, len(chosen)),
    )


def landmarks_between(puppet: Puppet, file, start=None, end=None):
    """The landmarks of a file that drive a puppet between two seconds.

    Args:
        puppet, file, start, end: See `by_landmarks`.

    Returns:
        Landmarks float32 `(n, p, 2)`; their seconds from the first, `(n,)`; frames a second; and
        whether that rate is an even one.

    Raises:
        VPGCError: see `by_landmarks`.

    Example:

    ```python
    landmarks, times, _, _ = landmarks_between(puppet, "drive.npz", end=2)
    ```
    """
    stored = read_landmarks(file)
    wanted = puppet.landmark_set
    if stored.landmark_set not in (None, wanted):
        raise VPGCError(
            f"{file} holds the landmark set {stored.landmark_set} but the puppet is driven by "
            f"{wanted}: write it again by vpgc landmarks for this puppet."
        )
    rate = stored.rate or puppet.metadata["frame_rate"]
    chosen = check_landmarks(stored.landmarks, puppet.num_points)
    times = np.arange(len(chosen)) / rate if stored.times is None else stored.times
    part = _part(times, start, end, f"{file} holds {len(chosen)} frames of landmarks")
    return chosen[part], times[part] - times[part][0], rate, stored.times is None


def by_contours(
    puppet: Puppet, folder, start=None, end=None, batch_size: int = 8, background=None
) -> Drive:
    """What a folder of contour images drives, a frame each at the puppet's rate.

    Args:
        puppet: A `Puppet`.
        folder: See `keras_vpgc.reenactment.contours.read_contours`.
        start, end: Seconds between which they drive.
        batch_size: Frames computed at once.
        background: See `keras_vpgc.reenactment.background.Background`, or `None`.

    Returns:
        A `Drive`.

    Raises:
        VPGCError: see `read_contours`; or for a part without frames.

    Example:

    ```python
    drive = by_contours(puppet, "contours/")
    ```
    """
    rate, chosen = puppet.metadata["frame_rate"], contours_between(puppet, folder, start, end)
    return Drive(
        count=len(chosen),
        images=lambda start: drive_contours(puppet, chosen, batch_size, start=start),
        rate=rate,
        beside=lambda start: (np.stack([x] * 3, axis=-1) for x in chosen[start:]),
        **_before(puppet, background, len(chosen)),
    )


def contours_between(puppet: Puppet, folder, start=None, end=None) -> np.ndarray:
    """The contour images of a folder that drive a puppet between two seconds.

    Args:
        puppet, folder, start, end: See `by_contours`.

    Returns:
        uint8 `(n, s, s)`.

    Raises:
        VPGCError: see `by_contours`.

    Example:

    ```python
    drawings = contours_between(puppet, "contours/", end=2)
    ```
    """
    rate = puppet.metadata["frame_rate"]
    heatmap = puppet.drawn_model().heatmap
    contours = read_contours(folder, heatmap.size[0], heatmap.line_width)
    part = _part(
        np.arange(len(contours)) / rate,
        start,
        end,
        f"{folder} holds {len(contours)} contour images, {len(contours) / rate:.2f} s at the "
        "puppet's rate",
    )
    return contours[part]


def is_drawn(driving) -> bool:
    """Is it a folder, of contour images?"""
    return Path(driving).is_dir()


def is_stored(driving) -> bool:
    """Is it a file of landmarks, by its name?"""
    return Path(driving).suffix.lower() in LANDMARK_FILES and not is_drawn(driving)


def check_free(driving, retargeting="auto", neutral=None, motion: float = 1.0) -> None:
    """Refuse to retarget landmarks and contour images, which are the puppet's own already."""
    if retargeting not in ("auto", "none") or neutral is not None or motion != 1:
        what = "folder of contour images" if is_drawn(driving) else "file of landmarks"
        raise VPGCError(
            f"{driving} is a {what}, which cannot be retargeted: leave retargeting, neutral and "
            "motion out."
        )


def checksum(driving) -> str:
    """SHA-256 of what drives: of a file, or of the names and checksums of a folder's images."""
    if not is_drawn(driving):
        return assets.sha256(driving)
    names = [(file.name, assets.sha256(file)) for file in contour_files(driving)]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def driving_landmarks(
    puppet: Puppet,
    driving,
    *,
    retargeting: str = "auto",
    neutral: float | None = None,
    motion: float = 1.0,
    guard: str = "warn",
    start: float | None = None,
    end: float | None = None,
    workers: int | None = None,
    tracker_model=None,
    folder=None,
    progress: bool = True,
):
    """Landmarks by which a video drives a puppet.

    Args:
        puppet: A `Puppet`.
        driving: The driving video.
        retargeting, neutral, motion, guard, start, end, tracker_model, progress: See `reenact`.
        workers: Processes that track; default: one a core.
        folder: Where the tracking is kept, so that a stopped one goes on; default: nowhere.

    Returns:
        Landmarks float32 `(n, 68, 2)` (78 with irises) in the puppet's crop, one entry for each
        frame of `keras_vpgc.data.prepare.frame_range(driving, start, end)`; the clip's `Track`; and
        the file's SHA-256.

    Raises:
        VPGCError: see `reenact`.

    Example:

    ```python
    landmarks, track, _ = driving_landmarks(puppet, "friend.mp4", retargeting="relative")
    frames = puppet.drive(landmarks)
    ```
    """
    info = video.probe(driving)
    rest = rest_frame(driving, neutral, start, end)
    track = track_clip(
        driving,
        start=start,
        end=end,
        workers=workers,
        tracker_model=tracker_model,
        folder=folder,
        progress=progress,
    )
    sha256 = assets.sha256(driving)
    landmarks = puppet.landmarks_of(
        track,
        (info.width, info.height),
        sha256,
        retargeting,
        neutral=rest,
        motion=motion,
        guard=guard,
        tracker_model=tracker_model,
    )
    return landmarks, track, sha256


def rest_frame(driving, neutral, start=None, end=None) -> int | None:
    """The frame of a second, counted from the part that drives.

    Args:
        driving: The driving video.
        neutral: Second of the video, or `None`.
        start, end: Seconds between which it drives.

    Returns:
        Number of the frame, or `None`.

    Raises:
        VPGCError: for a file that is no video, a part without frames, or a second outside of it.

    Example:

    ```python
    rest_frame("friend.mp4", neutral=2.0, start=1.0)  # 25
    ```
    """
    first, stop = frame_range(driving, start, end)
    if neutral is None:
        return None
    rest = int(np.searchsorted(video.frame_times(driving), neutral, "right")) - 1 - first
    if not 0 <= rest < stop - first:
        raise VPGCError(
            f"Second {neutral:g} is not in the part of {driving} that drives: choose another "
            "--neutral."
        )
    return rest


@dataclass
class StoredLandmarks:
    """What a file of landmarks holds.

    Attributes:
        landmarks: Array as it is stored.
        rate: Frames a second, if known.
        times: Seconds of the frames from the first on, where the rate varies.
        landmark_set: Name of the set, if known.
    """

    landmarks: np.ndarray
    rate: float | None = None
    times: np.ndarray | None = None
    landmark_set: str | None = None


def read_landmarks(file) -> StoredLandmarks:
    """What a `.npz` or `.npy` file holds of landmarks.

    Args:
        file: See `by_landmarks`.

    Returns:
        `StoredLandmarks`.

    Raises:
        VPGCError: for a file that is missing or none of these, or a rate or times that are none.

    Example:

    ```python
    read_landmarks("drive.npz").rate  # 25.0
    ```
    """
    file = Path(file)
    try:
        # Nothing is unpickled.
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            stored = StoredLandmarks(content)
        else:
            with content:
                stored = StoredLandmarks(content["landmarks"])
                if "frame_rate" in content.files:
                    stored.rate = float(content["frame_rate"])
                if "times" in content.files:
                    stored.times = content["times"].astype("float64")
                if "landmark_set" in content.files:
                    stored.landmark_set = str(content["landmark_set"])
    except FileNotFoundError:
        raise VPGCError(f"There is no file {file}: check the path.") from None
    except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise VPGCError(
            f"{file} holds no landmarks that can be read: save them by np.savez(file, "
            "landmarks=..., frame_rate=...)."
        ) from error
    if stored.rate is not None and not 0 < stored.rate < 1000:
        raise VPGCError(f"{file} gives {stored.rate:g} frames a second: give a frame_rate above 0.")
    if stored.landmarks.dtype.kind not in "fiu":
        raise VPGCError(f"{file} holds landmarks of type {stored.landmarks.dtype}: give numbers.")
    times = stored.times
    if times is not None and (
        times.shape != stored.landmarks.shape[:1]
        or not np.isfinite(times).all()
        or (np.diff(times) <= 0).any()
    ):
        raise VPGCError(
            f"{file} gives times that are no rising second for each frame: leave them out, or give "
            "those of the driving video."
        )
    return stored


def hold(landmarks, valid, times) -> np.ndarray:
    """Hold the last pose where there is no face, and glide to the one that comes back.

    Args:
        landmarks: Float `(n, p, 2)`; those of frames without a face are not read.
        valid: Bool `(n,)`, at least one true.
        times: Seconds `(n,)`.

    Returns:
        Float32 `(n, p, 2)`. Before the first face it is that face's pose.

    Example:

    ```python
    landmarks = hold(landmarks, track.valid, frame_times("friend.mp4"))
    ```
    """
    known = np.flatnonzero(valid)
    frame = np.arange(len(valid))
    places = np.searchsorted(known, frame, "right")
    before = known[np.maximum(places - 1, 0)]
    after = known[np.minimum(places, len(known) - 1)]
    after = np.where(valid, frame, after)
    # At the end there is nothing to glide to.
    left = np.where(after > frame, times[after] - times, np.inf)
    gap = np.maximum(times[after] - times[before], 1e-9)
    share = np.clip(1 - left / np.minimum(GLIDE, gap), 0, 1)
    result = np.array(landmarks, "float32")
    lost = np.flatnonzero(~np.asarray(valid))
    share = (share * share * (3 - 2 * share))[lost, None, None]
    result[lost] = (1 - share) * result[before[lost]] + share * result[after[lost]]
    return result


def fading(valid, times) -> np.ndarray:
    """Brightness by the time to the nearest frame with a face: 1 there, 0 from half a second on.

    Args:
        valid: Bool `(n,)`, at least one true.
        times: Seconds `(n,)`.

    Returns:
        Float64 `(n,)` in [0, 1].

    Example:

    ```python
    light = fading(track.valid, frame_times("friend.mp4"))
    ```
    """
    times = np.asarray(times, "float64")
    known = times[np.asarray(valid)]
    places = np.searchsorted(known, times)
    before, after = known[np.maximum(places - 1, 0)], known[np.minimum(places, len(known) - 1)]
    distance = np.minimum(np.abs(times - before), np.abs(after - times))
    return np.clip(1 - distance / FADE, 0, 1)


def _before(puppet, background, count):
    """What a `Drive` holds of a background."""
    if background is None:
        return {}
    return {
        "compositor": Compositor(puppet.size, background=Background(background)),
        "numbers": np.arange(count),
    }


def _part(times, start, end, what):
    """The frames between two seconds."""
    check_number("start", start, "seconds")
    check_number("end", end, "seconds")
    first = 0 if start is None else int(np.searchsorted(times, start - 1e-6))
    stop = len(times) if end is None else int(np.searchsorted(times, end - 1e-6))
    if first >= stop:
        raise VPGCError(
            f"{what}, none of them in the part asked for: choose another --start or --end."
        )
    return slice(first, stop)


def _spans(times, ends, kept):
    """Runs of frames that are kept, as pairs of seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(int), [0]])))
    return [(float(times[a]), float(ends[b - 1])) for a, b in edges.reshape(-1, 2)]


def say_missing(driving, valid, times, missing) -> None:
    """Warn of frames without a face, and say what is done with them."""
    lost = np.flatnonzero(~valid)
    done = {
        "hold": "the last pose is held there; --missing fade or skip does otherwise",
        "fade": "the picture goes dark there",
        "skip": "these are left out",
        "over": "there is nothing to put the puppet over there, and they are shown as they are",
    }[missing]
    warnings.warn(
        f"{driving} shows no face in {len(lost)} of {len(valid)} frames, the first at "
        f"{times[lost[0]]:.2f} s: {done}.",
        stacklevel=3,
    )
