"""The HDTF corpus: its annotation files, its videos and the clips in them."""

import difflib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np

from keras_vpgc.data import crop as crops
from keras_vpgc.data import video
from keras_vpgc.data.crop import Crop
from keras_vpgc.errors import VPGCError

VIDEO_SUFFIXES = ("", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".mpg", ".ts")
# Times are annotated in whole seconds, so an end may lie up to one beyond the last frame.
SLACK = 1.0
# A crop that is scaled to another resolution may lie this many pixels outside by rounding.
ROUNDING = 2


@dataclass(frozen=True)
class Clip:
    """One annotated stretch of one video of the corpus.

    Attributes:
        name: The clip's name in the corpus, such as `"Radio11_1"`.
        video: Name of its video, such as `"Radio11"`.
        subset: `"RD"`, `"WDA"` or `"WRA"`.
        index: Number of the clip in its video.
        url: Address of the video, or `None` where none is annotated.
        start, end: Seconds in the video, or `None` where no times are annotated.
        crop: Crop in pixels of a picture of `resolution` lines, or `None` where none is annotated.
        ratio: By what HDTF widens the face's square to that crop; for the record only.
        resolution: Lines of the video that was annotated (1080, 720, ...), or `None`.
    """

    name: str
    video: str
    subset: str
    index: int
    url: str | None = None
    start: float | None = None
    end: float | None = None
    crop: Crop | None = None
    ratio: float | None = None
    resolution: int | None = None


@dataclass(frozen=True)
class Cut:
    """Where a clip lies in a video file: what `prepare` is told.

    Attributes:
        source: The video file.
        start, end: Seconds; an `end` of `None` is the file's end.
        crop: Crop in the file's pixels, or `None` to let the face decide.
    """

    source: Path
    start: float
    end: float | None
    crop: Crop | None


def read_annotations(folder, subset: str | None = None) -> list[Clip]:
    """The clips of the corpus' annotation files.

    The files are those of `HDTF_dataset/` in the corpus' repository, one set for each subset, with
    one line a video or clip and blanks between the fields:

    | file | line |
    |---|---|
    | `RD_video_url.txt` | `Radio11 https://www.youtube.com/watch?v=...` |
    | `RD_annotion_time.txt` | `Radio11.mp4 00:30-01:00 01:30-02:30` |
    | `RD_resolution.txt` | `Radio11.mp4 720` |
    | `RD_crop_wh.txt` | `Radio11_1.mp4 557 478 0 478` (left, width, top, height) |
    | `RD_crop_ratio.txt` | `Radio11_1.mp4 1.2` |

    The corpus has videos without times and clips without a crop; they are returned as they are,
    and `locate` says what is missing.

    Args:
        folder: The folder of the annotation files.
        subset: Read this subset alone; default: all that are there.

    Returns:
        A `Clip` for each pair of times, in the files' order, then one for each video without times.

    Raises:
        VPGCError: if the folder, the subset or a needed file is missing, or a line is malformed.

    Example:

    ```python
    clips = read_annotations("HDTF/HDTF_dataset", "RD")
    clips[3].name, clips[3].start, clips[3].crop  # "Radio11_1", 90.0, Crop(557, 0, 478)
    ```

    References:
        Zhang et al., "Flow-guided One-shot Talking Face Generation with a High-resolution
        Audio-visual Dataset", CVPR 2021; the files: github.com/MRzzm/HDTF.
    """
    folder = Path(folder)
    found = sorted({f.name.rsplit("_", 2)[0] for f in folder.glob("*_annotion_time.txt")})
    if not found:
        raise VPGCError(
            f"{folder} holds no *_annotion_time.txt: give the folder HDTF_dataset of the corpus' "
            "repository."
        )
    if subset is not None and subset not in found:
        raise VPGCError(f"There is no subset {subset!r} in {folder}: choose {' or '.join(found)}.")
    clips: list[Clip] = []
    for one in [subset] if subset else found:
        clips += _read_subset(folder, one)
    return clips


def _read_subset(folder, subset):
    urls = _read(folder / f"{subset}_video_url.txt", _url)
    times = _read(folder / f"{subset}_annotion_time.txt", _times)
    resolutions = _read(folder / f"{subset}_resolution.txt", _resolution)
    squares = _read(folder / f"{subset}_crop_wh.txt", _crop)
    ratios = _read(folder / f"{subset}_crop_ratio.txt", _ratio)
    clips = []
    for name in [*times, *(name for name in urls if name not in times)]:
        whole = Clip(
            name, name, subset, 0, url=urls.get(name), resolution=resolutions.get(name) or None
        )
        segments = times.get(name, [])
        if not segments:
            clips.append(whole)
        for index, (start, end) in enumerate(segments):
            part = f"{name}_{index}"
            known = {"crop": squares.get(part), "ratio": ratios.get(part)}
            settings = {**vars(whole), "name": part, "index": index, "start": start, "end": end}
            clips.append(Clip(**{**settings, **known}))
    return clips


def _read(file, parse):
    """Name -> parsed fields; a file that is missing annotates nothing."""
    if not file.is_file():
        return {}
    result = {}
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        name, *fields = line.split() or [""]
        if not name:
            continue
        try:
            result[name.removesuffix(".mp4")] = parse(fields)
        except (ValueError, IndexError):
            raise VPGCError(
                f"Line {number} of {file} is not as in the corpus ({line.strip()[:80]!r}): take "
                "the file from the corpus' repository again."
            ) from None
    return result


def _url(fields):
    (url,) = fields
    if urlparse(url).scheme not in ("http", "https"):
        raise ValueError
    return url


def _times(fields):
    pairs = [field.split("-") for field in fields]
    return [(_seconds(start), _seconds(end)) for start, end in pairs]


def _seconds(text):
    """`MM:SS` or `HH:MM:SS`; seconds may have a fraction."""
    *larger, seconds = text.split(":")
    if not larger:
        raise ValueError
    result = float(seconds)
    for power, part in enumerate(reversed(larger), 1):
        result += int(part) * 60**power
    return result


def _resolution(fields):
    (lines,) = fields
    return int(lines)


def _crop(fields):
    left, width, top, height = (float(x) for x in fields)
    if width != height or width <= 0:
        raise ValueError
    return Crop(left, top, width)


def _ratio(fields):
    (ratio,) = fields
    return float(ratio)


def select(clips: list[Clip], only: Iterable[str]) -> list[Clip]:
    """The clips that are asked for by name.

    Args:
        clips: As from `read_annotations`.
        only: Names of clips or videos: `"Radio11_1"`, or `"Radio11"` for all clips of it. None at
            all means every clip.

    Returns:
        The chosen clips, in the corpus' order.

    Raises:
        VPGCError: for a name that is not there (the nearest one is named).

    Example:

    ```python
    select(read_annotations("HDTF/HDTF_dataset"), ["Radio11"])
    ```
    """
    only = list(only)
    names = {clip.name for clip in clips} | {clip.video for clip in clips}
    for name in only:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "see *_annotion_time.txt."
            raise VPGCError(f"The annotations hold no clip or video {name}: {hint}")
    return [c for c in clips if not only or c.name in only or c.video in only]


def find_video(clip: Clip, folders) -> tuple[Path, bool] | None:
    """The file of a clip among those that the user has.

    Accepted names, with any usual video suffix or none, in any letter case, in subfolders too:
    the whole video as `Radio11`, `RD_Radio11`, its YouTube identifier, or `Title [identifier]` as
    yt-dlp names it; the clip already cut as `Radio11_1`, `Radio11_001` or with the subset before
    it. A whole video is preferred.

    Args:
        clip: A `Clip`.
        folders: Folders to look in, in this order.

    Returns:
        The file and whether it is the whole video, or `None`.

    Example:

    ```python
    path, whole = find_video(clip, ["downloads"])
    ```
    """
    before, name = rf"(?:{re.escape(clip.subset)}[_-])?", re.escape(clip.video)
    patterns = [
        (re.compile(before + name, re.IGNORECASE), True),
        (re.compile(rf"{before}{name}[_-]0*{clip.index}", re.IGNORECASE), False),
    ]
    identifier = _identifier(clip.url)
    if identifier:
        known = re.escape(identifier)  # letter case tells two of them apart
        patterns.insert(1, (re.compile(rf"{known}|.*\[{known}\]"), True))
    files = [
        file
        for folder in folders
        for file in sorted(Path(folder).rglob("*"))
        if file.suffix.lower() in VIDEO_SUFFIXES
        and file.is_file()
        # A name that begins with a dot is a file being written.
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    for pattern, whole in patterns:
        for file in files:
            if pattern.fullmatch(file.stem if file.suffix else file.name):
                return file, whole
    return None


def _identifier(url):
    if url is None:
        return None
    address = urlparse(url)
    return parse_qs(address.query).get("v", [address.path.rsplit("/", 1)[-1]])[0]


def fetch(clip: Clip, folder, resolution: int | None = None) -> Path:
    """Download a clip's whole video by the user's own yt-dlp.

    Without ffmpeg, which yt-dlp needs to join them, the picture comes without the sound. What a
    stopped download left is continued.

    Args:
        clip: A `Clip`.
        folder: Where `VIDEO.mp4` (or `.webm`, `.mkv`) is put once it is whole.
        resolution: Lines of the video, the next smaller if the site has not this one; default:
            as annotated, or the best.

    Returns:
        The file.

    Raises:
        VPGCError: if there is no address, yt-dlp is not installed, or the download fails, as for
            a video that was taken off the site.

    Example:

    ```python
    path = fetch(clip, "downloads")
    ```
    """
    folder = Path(folder)
    elsewhere = f"put a {clip.video}.mp4 that you have into the folder of videos"
    if clip.url is None:
        raise VPGCError(f"{clip.video} has no line in {clip.subset}_video_url.txt: {elsewhere}.")
    if shutil.which("yt-dlp"):
        command = ["yt-dlp"]
    elif importlib.util.find_spec("yt_dlp"):
        command = [sys.executable, "-m", "yt_dlp"]
    else:
        raise VPGCError(
            f"{clip.video} is not among your videos and yt-dlp is not installed: install it (pip "
            f"install yt-dlp), or {elsewhere}."
        )
    work = folder / f".{clip.video}.partial"
    work.mkdir(parents=True, exist_ok=True)
    command += ["--ignore-config", "--no-playlist", "--no-progress"]
    command += ["-f", "bv*+ba/b" if shutil.which("ffmpeg") else "bv*/b"]
    lines = resolution or clip.resolution
    if lines:
        command += ["-S", f"res:{lines}"]
    command += ["-o", str(work / "video.%(ext)s"), "--", clip.url]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    files = [f for f in work.glob("video.*") if f.suffix.lower() in VIDEO_SUFFIXES]
    if result.returncode or len(files) != 1:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        said = said or result.stderr.splitlines()[-1:] or ["nothing"]
        reason = said[-1].removeprefix("ERROR:").split(" (caused by ")[0].strip().rstrip(".")
        if not any(work.iterdir()):
            work.rmdir()
        raise VPGCError(
            f"{clip.video} could not be fetched from {clip.url}, yt-dlp says '{reason}': "
            f"{elsewhere}, or leave it out."
        )
    target = folder / f"{clip.video}{files[0].suffix}"
    os.replace(files[0], target)
    shutil.rmtree(work)
    return target


def locate(clip: Clip, source, whole: bool = True, tracked: bool = False) -> Cut:
    """Where a clip lies in a file: its times and its crop, checked.

    The annotated crop is scaled where the file has another resolution than the annotated one. A
    file that was already cut is used from end to end; if it is square too, it was cropped.

    Args:
        clip: A `Clip`.
        source: Its video file.
        whole: Is it the whole video, or already cut? See `find_video`.
        tracked: Let the face choose the crop instead of the annotation.

    Returns:
        A `Cut`.

    Raises:
        VPGCError: if times or crop are not annotated, do not fit the file, or the file is no video.

    Example:

    ```python
    cut = locate(clip, "downloads/Radio11.mp4")
    prepare(cut.source, "data/Radio11_1", crop=cut.crop, start=cut.start, end=cut.end)
    ```
    """
    info = video.probe(source)
    start, end = _place(clip, source, info) if whole else (0.0, None)
    if tracked:
        crop = None
    elif not whole and info.width == info.height:
        crop = Crop(0.0, 0.0, float(info.width))
    else:
        crop = _scaled_crop(clip, source, info)
    return Cut(Path(source), start, end, crop)


def _place(clip, source, info):
    start, end = clip.start, clip.end
    if start is None or end is None:
        raise VPGCError(
            f"{clip.video} has no times in {clip.subset}_annotion_time.txt: leave it out, or "
            "prepare it by vpgc prepare."
        )
    times = f"{start:g} to {end:g} s"
    if end <= start:
        raise VPGCError(f"{clip.name} ends before it begins ({times}): correct the annotation.")
    if end > info.duration + SLACK:
        raise VPGCError(
            f"{clip.name} lies at {times} but {source} ends at {info.duration:.1f} s: it is "
            "another version of the video, or was cut off while being fetched."
        )
    return start, (None if end >= info.duration else end)


def _scaled_crop(clip, source, info):
    lacks = "crop" if clip.crop is None else "resolution" if clip.resolution is None else None
    if lacks:
        raise VPGCError(
            f"{clip.name} has no {lacks} in {clip.subset}_{'crop_wh' if lacks == 'crop' else lacks}"
            ".txt: let the face choose the crop (--crop tracked)."
        )
    scale = min(info.width, info.height) / clip.resolution
    size = round(clip.crop.size * scale)
    x, y = round(clip.crop.x * scale), round(clip.crop.y * scale)
    beyond = max(x + size - info.width, y + size - info.height, -x, -y)
    if beyond > ROUNDING:
        raise VPGCError(
            f"The crop of {clip.name} ({clip.crop.x:g},{clip.crop.y:g},{clip.crop.size:g} at "
            f"{clip.resolution} lines) leaves the picture of {info.width}x{info.height} in "
            f"{source} by {beyond} pixels: let the face choose it (--crop tracked)."
        )
    size = min(size, info.width, info.height)
    x = min(max(x, 0), info.width - size)
    y = min(max(y, 0), info.height - size)
    return Crop(float(x), float(y), float(size))


def preview(cut: Cut, size: int = 256) -> np.ndarray:
    """What lies in the crop at the cut's beginning, middle and end, to look at before training.

    Args:
        cut: As from `locate`; without a crop the whole pictures are shown.
        size: Height in pixels.

    Returns:
        uint8 RGB `(size, 3 * width, 3)`.

    Raises:
        VPGCError: if the file cannot be decoded there.

    Example:

    ```python
    image = preview(locate(clip, path))
    ```
    """
    import cv2

    times = video.frame_times(cut.source)
    end = np.inf if cut.end is None else cut.end
    first = min(int(np.searchsorted(times, cut.start)), len(times) - 1)
    last = max(first, int(np.searchsorted(times, end)) - 1)
    tiles = []
    for number in (first, (first + last) // 2, last):
        frame = next(iter(video.read_frames(cut.source, number, number + 1)), None)
        if frame is None:
            raise VPGCError(
                f"{cut.source} cannot be decoded at {times[number]:.1f} s: it was cut off while "
                "being fetched."
            )
        if cut.crop is not None:
            tiles.append(crops.apply(frame, cut.crop, size))
        else:
            width = round(frame.shape[1] * size / frame.shape[0])
            tiles.append(cv2.resize(frame, (width, size), interpolation=cv2.INTER_AREA))
    return np.concatenate(tiles, axis=1)
