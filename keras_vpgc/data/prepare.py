"""From a video to a portrait folder."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import video
from keras_vpgc.data.portrait import SCHEMA_VERSION, Portrait
from keras_vpgc.data.tracking import FaceTracker, Track, track_video
from keras_vpgc.errors import VPGCError

SIZES = (64, 128, 256, 512)
MIN_FRAMES = 30
# Mean absolute difference, of 255, under which a frame repeats the one before.
REPEATED = 0.02


def split(count: int, frame_rate: float, test_frames: int | None = None) -> dict[str, list[int]]:
    """Cut a clip into train, 1 s gap, validation, 1 s gap, test, in the order of time.

    Args:
        count: Number of frames.
        frame_rate: Frames a second; the gaps keep neighbours of test frames out of the training.
        test_frames: Length of the trailing test part; default a fifth, at most 1000.

    Returns:
        Dict of `[first, last + 1]` for each part. Validation is 5% of the rest, at least 100
        frames where there are enough; a clip under 20 s gets shorter gaps.

    Raises:
        VPGCError: if the test part leaves too little to train on.

    Example:

    ```python
    split(4998, 25)["test"]  # [3998, 4998]
    ```
    """
    test = min(1000, round(count / 5)) if test_frames is None else int(test_frames)
    if test < 1 or count - test < MIN_FRAMES // 2:
        raise VPGCError(
            f"A test part of {test} frames does not fit a clip of {count}: choose fewer, or record "
            "more."
        )
    gap = min(round(frame_rate), count // 20)
    rest = count - test
    validation = min(max(round(0.05 * rest), 100), rest // 10)
    train = rest - validation - 2 * gap
    return {
        "train": [0, train],
        "validation": [train + gap, train + gap + validation],
        "test": [count - test, count],
    }


def prepare(
    source,
    output,
    *,
    crop: crops.Crop | str | None = None,
    size: int | None = None,
    test_frames: int | None = None,
    start: int = 0,
    stop: int | None = None,
    overwrite: bool = False,
    tracker_model=None,
    progress: bool = True,
) -> Portrait:
    """Track the face, cut one square crop out of every frame and split the clip.

    The work is done in `.OUTPUT.partial` beside the target and renamed at the end: a stopped run
    leaves no half-written portrait, and the same call again goes on where it was.

    Args:
        source: The video file.
        output: The portrait folder to make.
        crop: A `Crop` or `"X,Y,SIZE"` in source pixels; default: chosen from the whole track.
        size: Side of the stored frames; default: 64, 128, 256 or 512, whatever is nearest to the
            crop.
        test_frames: Length of the test part, see `split`.
        start: First frame of the source to use.
        stop: Frame of the source before which to stop.
        overwrite: Replace an existing portrait of another source or with other settings?
        tracker_model: Path of the face landmarker's model, see `keras_vpgc.assets`.
        progress: Show progress bars?

    Returns:
        The `Portrait`.

    Raises:
        VPGCError: for a file that is no video, a video without a face or too short, a crop outside
            of the picture, or an output that exists.

    Example:

    ```python
    portrait = prepare("me.mp4", "data/me")
    ```
    """
    source, output = Path(source), Path(output)
    info = video.probe(source)
    if isinstance(crop, str):
        crop = crops.parse(crop)
    if crop is not None:
        crops.check(crop, info.width, info.height)
    if size is not None and size < 16:
        raise VPGCError(f"A size of {size} pixels is too small: choose 64 or more.")
    settings = {
        "source": source.name,
        "source_sha256": assets.sha256(source),
        "crop_asked": vars(crop) if crop else None,
        "size_asked": size,
        "test_frames_asked": test_frames,
        "range_asked": [start, stop],
    }
    if output.exists() and not overwrite:
        if (output / "portrait.json").is_file():
            existing = Portrait(output)
            if existing.info["settings"] == settings:
                return existing
        if not output.is_dir() or any(output.iterdir()):
            raise VPGCError(
                f"{output} exists and holds something else: choose another folder, or --overwrite."
            )

    work = output.with_name(f".{output.name}.partial")
    stamp = work / "settings.json"
    if work.exists() and (not stamp.exists() or json.loads(stamp.read_text()) != settings):
        shutil.rmtree(work)
    (work / "frames").mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps(settings))
    try:
        portrait_info, tracking = _work(
            source,
            work,
            info,
            settings,
            crop,
            size,
            test_frames,
            start,
            stop,
            tracker_model,
            progress,
        )
    except VPGCError:
        # The input is at fault: nothing here would help another run.
        shutil.rmtree(work)
        raise
    np.savez_compressed(work / "tracking.npz", **tracking)
    shutil.rmtree(work / "tracking", ignore_errors=True)
    stamp.unlink()
    (work / "portrait.json").write_text(json.dumps(portrait_info, indent=1))
    if output.exists():
        old = output.with_name(f".{output.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(output, old)
        os.replace(work, output)
        shutil.rmtree(old)
    else:
        os.replace(work, output)
    return Portrait(output)


def _work(
    source, work, info, settings, crop, size, test_frames, start, stop, tracker_model, progress
):
    total = (min(stop, info.frame_count) if stop else info.frame_count) - start
    with FaceTracker(tracker_model) as tracker, _bar(total, "tracking", progress) as bar:
        track = track_video(source, tracker, work / "tracking", start, stop, bar.update)
        tracker_name = f"{tracker.name} {tracker.version}"
    count, faces = len(track.valid), int(track.valid.sum())
    if not faces:
        raise VPGCError(
            f"No face was found in any of the {count} frames of {source}: use a video in which one "
            "person faces the camera."
        )
    if faces < MIN_FRAMES:
        raise VPGCError(
            f"Only {faces} of the {count} frames of {source} show a face: {MIN_FRAMES} are the "
            "least, and some minutes are better."
        )
    parts = split(count, info.frame_rate, test_frames)
    crop = crop or crops.choose_crop(track.points, track.valid, info.width, info.height)
    size = size or min(SIZES, key=lambda s: abs(np.log(s / crop.size)))
    repeated = _write_frames(source, work / "frames", crop, size, start, count, progress)
    portrait_info = {
        "schema_version": SCHEMA_VERSION,
        "source": settings["source"],
        "source_sha256": settings["source_sha256"],
        "source_size": [info.width, info.height],
        "source_range": [start, start + count],
        "frame_rate": info.frame_rate,
        "frame_count": count,
        "crop": vars(crop),
        "size": size,
        "tracker": tracker_name,
        "landmark_set": "mediapipe-478",
        "split": parts,
        "frames_without_face": count - faces,
        "frames_repeated": int(repeated.sum()),
        "settings": settings,
    }
    tracking = {**vars(track), "repeated": repeated}
    tracking["points"] = crops.to_crop(track.points, crop)
    return portrait_info, tracking


def _write_frames(source, folder, crop, size, start, count, progress):
    import cv2

    repeated = np.zeros(count, bool)
    before = None
    with _bar(count, "cropping", progress) as bar:
        for i, frame in enumerate(video.read_frames(source, start, start + count)):
            image = crops.apply(frame, crop, size)
            if before is not None:
                repeated[i] = cv2.norm(image, before, cv2.NORM_L1) < REPEATED * image.size
            before = image
            file = folder / f"{i:06d}.png"
            if not file.exists():
                partial = folder / f".{i:06d}.png"
                ok = cv2.imwrite(
                    str(partial),
                    cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                    [cv2.IMWRITE_PNG_COMPRESSION, 1],
                )
                if not ok:
                    raise OSError(f"{partial} could not be written: is the disk full?")
                os.replace(partial, file)
            bar.update(1)
    return repeated


@contextlib.contextmanager
def _bar(total, name, progress):
    from tqdm.auto import tqdm

    with tqdm(total=total or None, desc=name, unit="frame", disable=not progress) as bar:
        yield bar


def track_clip(source, *, start=0, stop=None, tracker_model=None, progress=True) -> Track:
    """Track a driving video without keeping anything on disk.

    Args:
        source: The video file.
        start, stop: Range of frames.
        tracker_model: Path of the face landmarker's model.
        progress: Show a progress bar?

    Returns:
        A `Track` in source pixels.

    Raises:
        VPGCError: for a file that is no video, or a video without a face.
    """
    info = video.probe(source)
    total = (min(stop, info.frame_count) if stop else info.frame_count) - start
    with FaceTracker(tracker_model) as tracker, _bar(total, "tracking", progress) as bar:
        track = track_video(source, tracker, None, start, stop, bar.update)
    if not track.valid.any():
        raise VPGCError(
            f"No face was found in any of the {len(track.valid)} frames of {source}: use a video "
            "in which one person faces the camera."
        )
    return track
