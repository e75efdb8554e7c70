"""Folders of the Nerface data set: images with their own split."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import shots, tracking
from keras_vpgc.data.portrait import PARTS, SCHEMA_VERSION, Portrait
from keras_vpgc.data.prepare import (
    MAX_GAP,
    MIN_FRAMES,
    SIZES,
    _existing,
    _write_sheet,
    refine,
)
from keras_vpgc.data.tracking import FaceTracker, Track
from keras_vpgc.errors import VPGCError, missing_extra, writing
from keras_vpgc.progress import progress_bar

FILES = dict(zip(PARTS, ("transforms_train", "transforms_val", "transforms_test"), strict=True))
# Neighbouring images of a part in the order of time differ by less than this, of what two of its
# images differ that are taken at random; of a part so short that the two are alike nothing is said.
SHUFFLED = 0.7
SHORT = 10


def is_nerface(path) -> bool:
    """Is this a Nerface folder?

    Example:

    ```python
    is_nerface("nerface_dataset/person_1")  # True
    ```
    """
    return (Path(path) / f"{FILES['train']}.json").is_file()


def import_nerface(
    folder,
    output,
    *,
    crop: crops.Crop | str | None = None,
    size: int | None = None,
    rate: float | None = None,
    max_gap: float = MAX_GAP,
    overwrite: bool = False,
    tracker_model=None,
    progress: bool = True,
) -> Portrait:
    """A Nerface folder as a portrait folder, with the folder's own split.

    The images that `transforms_train.json`, `transforms_val.json` and `transforms_test.json` name
    (`file_path`, with or without a suffix) become the parts train, validation and test, in this
    order. Poses, expressions and boxes in the files are not used: the face is tracked as in every
    other portrait.

    Nerface's own script shuffles the training images and keeps their order in `index_map.npy`;
    the driver sees neighbouring frames, so they are put back in order by it. A part that is not in
    the order of time is neither smoothed nor are its gaps filled, and
    `portrait.info["report"]["notes"]` says so.

    Args:
        folder: The Nerface folder.
        output: The portrait folder to make.
        crop: A `Crop` or `"X,Y,SIZE"` in pixels; default: the whole of square images, as published
            scores have it, and otherwise chosen by the face.
        size: Side of the stored frames; default: 64, 128, 256 or 512, whatever is nearest.
        rate: Frames a second, which the folder does not tell; default: 25.
        max_gap: See `keras_vpgc.data.prepare`.
        overwrite: Replace another portrait?
        tracker_model: Path of the face landmarker's model, see `keras_vpgc.assets`.
        progress: Show progress bars?

    Returns:
        The `Portrait`.

    Raises:
        VPGCError: for a folder that lacks files or images, images of several sizes or without a
            face, an output that exists or cannot be written, or a full disk.

    Example:

    ```python
    portrait = import_nerface("nerface_dataset/person_1", "data/person_1")
    portrait.indices("test")
    ```

    References:
        Gafni et al., "Dynamic Neural Radiance Fields for Monocular 4D Facial Avatar
        Reconstruction", CVPR 2021; the format: github.com/gafniguy/4D-Facial-Avatars.
    """
    folder, output = Path(folder), Path(output)
    images, split = _images(folder)
    height, width = _read(images[0]).shape[:2]
    if isinstance(crop, str):
        crop = crops.parse(crop)
    if crop is not None:
        crops.check(crop, width, height)
    elif width == height:
        crop = crops.Crop(0.0, 0.0, float(width))
    rate = 25.0 if rate is None else float(rate)
    if not 0 < rate < float("inf"):
        raise VPGCError(f"rate = {rate:g} is impossible: give frames a second above 0.")
    settings = {
        "source_sha256": _digest(folder, images),
        "tracker": tracking.tracker_name(),
        "model_sha256": assets.sha256(assets.find("face_landmarker", tracker_model)),
        "source": folder.resolve().name,
        "crop": vars(crop) if crop else None,
        "size": size,
        "rate": rate,
        "max_gap": max_gap,
    }
    if output.exists() and (existing := _existing(output, settings, overwrite)):
        return existing

    raw, change = _track(images, split, (height, width), tracker_model, progress)
    _check_faces(raw, split, folder)
    times = np.arange(len(images)) / rate
    parts, notes = [], []
    facts: dict[str, dict | None] = {}
    for part, (first, last) in split.items():
        track = raw[first:last]
        if not _in_order(track):
            facts[part] = None
            if last - first >= SHORT:
                notes.append(
                    f"The {part} images are not in the order of time, and there is no "
                    "index_map.npy that puts them back: train with a single frame of context "
                    "(--set context=1)."
                )
        else:
            track, facts[part] = refine(track, times[first:last], width, height, max_gap)
        parts.append(track)
    track = Track.join(parts)
    seen = track.valid & ~track.interpolated
    crop = crop or crops.choose_crop(track.points, seen, width, height)
    size = size or min(SIZES, key=lambda s: abs(np.log(s / crop.size)))
    arrays = {
        **vars(track),
        "points": crops.to_crop(track.points, crop),
        "repeated": np.concatenate([shots.find_repeated(c) for c in change]),
        "times": times,
        "source_frames": np.arange(len(images)),
    }
    info = {
        "schema_version": SCHEMA_VERSION,
        "source": settings["source"],
        "source_sha256": settings["source_sha256"],
        "source_size": [width, height],
        "source_range": [0, len(images)],
        "frame_rate": rate,
        "frame_count": len(images),
        "crop": vars(crop),
        "size": size,
        "tracker": settings["tracker"],
        "landmark_set": "mediapipe-478",
        "split": {part: [place] for part, place in split.items()},
        "report": {
            "tracker": settings["tracker"],
            "seconds": round(len(images) / rate, 3),
            "frames": {
                "used": len(images),
                "repeated": int(arrays["repeated"].sum()),
                "interpolated": int(track.interpolated.sum()),
                "without_face": int((~track.valid).sum()),
                "low_confidence": sum(f["low_confidence"] for f in facts.values() if f),
            },
            "jitter": (facts["train"] or {}).get("jitter", {"before": None, "after": None}),
            "notes": notes,
        },
        "settings": settings,
    }
    work = output.with_name(f".{output.name}.partial")
    with writing(output):
        shutil.rmtree(work, ignore_errors=True)
        (work / "frames").mkdir(parents=True)
        with progress_bar(len(images), "cropping", show=progress) as bar:
            for number, file in enumerate(images):
                image = crops.apply(_read(file), crop, size)
                crops._write_png(image, [work / "frames" / f"{number:06d}.png"])
                bar.update(1)
        np.savez_compressed(work / "tracking.npz", **arrays)
        (work / "portrait.json").write_text(json.dumps(info, indent=1))
        _write_sheet(Portrait(work))
        old = output.with_name(f".{output.name}.old")
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(output, old)
        os.replace(work, output)
        shutil.rmtree(old, ignore_errors=True)
    return Portrait(output)


def _track(images, split, shape, tracker_model, progress):
    """The `Track` of all images, and for each part how its images differ from the one before."""
    parts, change = [], []
    with (
        FaceTracker(tracker_model) as tracker,
        progress_bar(len(images), "tracking", show=progress) as bar,
    ):
        for first, last in split.values():
            difference = tracking._Difference()
            change.append([])
            for file in images[first:last]:
                frame = _read(file, shape)
                parts.append(tracker.track([frame]))
                change[-1].append(difference(frame)[1])
                bar.update(1)
    return Track.join(parts), change


def _images(folder):
    """Image files in the order train, validation, test, and the split."""
    files: list[Path] = []
    split = {}
    for part, name in FILES.items():
        listed = _listed(folder, name)
        if part == "train":
            listed = [listed[i] for i in _order(folder, len(listed))]
        split[part] = [len(files), len(files) + len(listed)]
        files += listed
    return files, split


def _listed(folder, name):
    file = folder / f"{name}.json"
    if not file.is_file():
        raise VPGCError(
            f"{folder} is no whole Nerface folder: {file.name} is missing; there must be "
            "transforms_train.json, transforms_val.json and transforms_test.json."
        )
    try:
        named = [str(frame["file_path"]) for frame in json.loads(file.read_text())["frames"]]
    except (ValueError, KeyError, TypeError):
        raise VPGCError(
            f"{file} is damaged: it must hold a list 'frames' with a 'file_path' each."
        ) from None
    if not named:
        raise VPGCError(f"{file} names no images: copy the folder again.")
    found = [_image(folder, path) for path in named]
    lost = [path for path, image in zip(named, found, strict=True) if image is None]
    if lost:
        raise VPGCError(
            f"{len(lost)} of the {len(named)} images of {file} are missing, the first is "
            f"{lost[0]}: copy the folder again."
        )
    return found


def _image(folder, path):
    for suffix in (".png", "", ".jpg"):
        file = folder / f"{path}{suffix}"
        if file.is_file():
            return file
    return None


def _order(folder, count):
    """Training images in the order of time; without `index_map.npy` as they are listed."""
    file = folder / "index_map.npy"
    if not file.is_file():
        return range(count)
    try:
        # A row for each frame of the video: its number, and its place in the training part or -1.
        order = np.load(file, allow_pickle=False)[:, 1].astype(int)
        order = order[order >= 0]
        if not np.array_equal(np.sort(order), np.arange(count)):
            raise ValueError
    except (ValueError, IndexError):
        raise VPGCError(
            f"{file} does not fit the {count} images of transforms_train.json: copy the folder "
            "again, or delete the file."
        ) from None
    return order


def _digest(folder, images):
    digest = hashlib.sha256()
    for file in [*(folder / f"{name}.json" for name in FILES.values()), *images]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(file, shape=None):
    """uint8 RGB `(h, w, 3)`; transparency is dropped."""
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("opencv", "video") from error
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise VPGCError(f"{file} is no image that can be read: copy the folder again.")
    if shape is not None and image.shape[:2] != shape:
        raise VPGCError(
            f"{file} has {image.shape[1]}x{image.shape[0]} pixels but the first image has "
            f"{shape[1]}x{shape[0]}: all images of a folder must have one size."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_faces(track, split, folder):
    for part, (first, last) in split.items():
        faces = int(track.valid[first:last].sum())
        least = MIN_FRAMES if part == "train" else 1
        if faces < least:
            raise VPGCError(
                f"Only {faces} of the {last - first} {part} images of {folder} show a face: "
                f"{least} are the least."
            )


def _in_order(track):
    """Do the images of a part follow each other in time, as far as the face's motion tells?"""
    points = track.points[track.valid, :, :2]
    if len(points) < SHORT:
        return False
    shuffled = np.random.default_rng(0).permutation(len(points))

    def step(p):
        return np.linalg.norm(np.diff(p, axis=0), axis=-1).mean()

    return step(points) < SHUFFLED * step(points[shuffled])
