"""Folders of the Nerface data set: images with their own split."""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np

from keras_vpgc.data import crop as crops
from keras_vpgc.data.portrait import PARTS, SCHEMA_VERSION, Portrait
from keras_vpgc.data.prepare import MIN_FRAMES, REPEATED, SIZES
from keras_vpgc.data.tracking import FaceTracker, Track
from keras_vpgc.errors import VPGCError, missing_extra

FILES = dict(zip(PARTS, ("transforms_train", "transforms_val", "transforms_test"), strict=True))
# A shuffled part moves this many times more from image to image than the test part, which is in
# the order of time.
SHUFFLED = 3.0
BATCH = 50


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
    frame_rate: float = 25.0,
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
    the driver sees neighbouring frames, so they are put back in order by it. Without it a warning
    says so if they turn out to be shuffled.

    Args:
        folder: The Nerface folder.
        output: The portrait folder to make.
        crop: A `Crop` or `"X,Y,SIZE"` in pixels; default: the whole of square images, as published
            scores have it, and otherwise chosen by the face.
        size: Side of the stored frames; default: 64, 128, 256 or 512, whatever is nearest.
        frame_rate: Frames a second; the folder does not tell.
        overwrite: Replace another portrait?
        tracker_model: Path of the face landmarker's model, see `keras_vpgc.assets`.
        progress: Show progress bars?

    Returns:
        The `Portrait`.

    Raises:
        VPGCError: for a folder that lacks files or images, images of several sizes or without a
            face, or an output that exists.

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
    images, split, ordered = _images(folder)
    height, width = _read(images[0]).shape[:2]
    if isinstance(crop, str):
        crop = crops.parse(crop)
    if crop is not None:
        crops.check(crop, width, height)
    elif width == height:
        crop = crops.Crop(0.0, 0.0, float(width))
    settings = {
        "source": folder.resolve().name,
        "source_sha256": _digest(folder, images),
        "crop_asked": vars(crop) if crop else None,
        "size_asked": size,
        "frame_rate_asked": frame_rate,
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

    from tqdm.auto import tqdm

    parts = []
    with (
        FaceTracker(tracker_model) as tracker,
        tqdm(total=len(images), desc="tracking", unit="frame", disable=not progress) as bar,
    ):
        name = f"{tracker.name} {tracker.version}"
        for first in range(0, len(images), BATCH):
            frames = [_read(file, (height, width)) for file in images[first : first + BATCH]]
            parts.append(tracker.track(frames))
            bar.update(len(frames))
    track = Track.join(parts)
    _check_faces(track, split, folder)
    if not ordered and _shuffled(track, split):
        warnings.warn(
            f"The training images of {folder} are not in the order of time and there is no "
            "index_map.npy to put them back: train with a single frame of context "
            "(--set context=1).",
            stacklevel=2,
        )
    crop = crop or crops.choose_crop(track.points, track.valid, width, height)
    size = size or min(SIZES, key=lambda s: abs(np.log(s / crop.size)))

    work = output.with_name(f".{output.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    (work / "frames").mkdir(parents=True)
    repeated = _write_frames(images, work / "frames", crop, size, tqdm, progress)
    info = {
        "schema_version": SCHEMA_VERSION,
        "source": settings["source"],
        "source_sha256": settings["source_sha256"],
        "source_size": [width, height],
        "frame_rate": frame_rate,
        "frame_count": len(images),
        "crop": vars(crop),
        "size": size,
        "tracker": name,
        "landmark_set": "mediapipe-478",
        "split": split,
        "frames_without_face": int((~track.valid).sum()),
        "frames_repeated": int(repeated.sum()),
        "settings": settings,
    }
    tracking = {**vars(track), "repeated": repeated, "points": crops.to_crop(track.points, crop)}
    np.savez_compressed(work / "tracking.npz", **tracking)
    (work / "portrait.json").write_text(json.dumps(info, indent=1))
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        os.replace(output, old)
    os.replace(work, output)
    shutil.rmtree(old, ignore_errors=True)
    return Portrait(output)


def _images(folder):
    """Image files in the order train, validation, test; the split; is the order that of time?"""
    files: list[Path] = []
    split = {}
    ordered = False
    for part, name in FILES.items():
        listed = _listed(folder, name)
        if part == "train":
            order = _order(folder, len(listed))
            ordered = order is not None
            listed = [listed[i] for i in order] if ordered else listed
        split[part] = [len(files), len(files) + len(listed)]
        files += listed
    return files, split, ordered


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
    """Training images in the order of time, or `None` without `index_map.npy`."""
    file = folder / "index_map.npy"
    if not file.is_file():
        return None
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


def _shuffled(track, split):
    def step(part):
        points = track.points[slice(*split[part])]
        points = points[track.valid[slice(*split[part])], :, :2]
        return np.linalg.norm(np.diff(points, axis=0), axis=-1).mean() if len(points) > 1 else 0.0

    return step("train") > SHUFFLED * step("test") > 0


def _write_frames(images, folder, crop, size, tqdm, progress):
    import cv2

    repeated = np.zeros(len(images), bool)
    before = None
    bar = tqdm(images, desc="cropping", unit="frame", disable=not progress)
    for i, file in enumerate(bar):
        image = crops.apply(_read(file), crop, size)
        if before is not None:
            repeated[i] = cv2.norm(image, before, cv2.NORM_L1) < REPEATED * image.size
        before = image
        target = folder / f"{i:06d}.png"
        if not cv2.imwrite(str(target), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{target} could not be written: is the disk full?")
    return repeated
