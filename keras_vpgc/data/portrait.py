"""The portrait folder: what `prepare` writes and everything else reads."""

import json
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68
from keras_vpgc.errors import VPGCError

SCHEMA_VERSION = 3
PARTS = ("train", "validation", "test")


class Portrait:
    """A prepared clip of one person.

    The folder holds `portrait.json` (source, crop, rate, split, report), `frames/000000.png` and so
    on, `tracking.npz` and `landmarks.png` to look at.

    Args:
        path: The folder.

    Attributes:
        info: What `portrait.json` says. A point `u` of the crop is the source's pixel
            `(crop.x, crop.y) + u * crop.size`.
        points: Float32 `(n, 478, 3)`, smoothed, x right and y down in [0, 1] of the crop, depth in
            the same unit; NaN where not valid.
        blendshapes, matrices: Float32 `(n, 52)` and `(n, 4, 4)`, as tracked.
        valid: Bool `(n,)`: the face was seen, or is interpolated.
        interpolated: Bool `(n,)`: the face is filled in from the frames around.
        confidence: Float32 `(n,)` in [0, 1], see `keras_vpgc.data.shots.confidence`.
        repeated: Bool `(n,)`: the picture is that of the frame before.
        times: Float64 `(n,)`: seconds from the source's first frame.
        source_frames: Int `(n,)`: number of the source's frame.

    Raises:
        VPGCError: if it is no portrait folder, of another schema version, or incomplete.

    Example:

    ```python
    portrait = Portrait("data/me")
    images = portrait.frames(portrait.indices("train"), size=128)  # uint8 (n, 128, 128, 3)
    landmarks = portrait.landmarks  # float32 (n, 68, 2) in [0, 1]
    ```
    """

    def __init__(self, path):
        self.path = Path(path)
        file = self.path / "portrait.json"
        if not file.is_file():
            raise VPGCError(
                f"{self.path} is no portrait folder (there is no portrait.json): make one by "
                f"vpgc prepare VIDEO -o {self.path}."
            )
        try:
            self.info = json.loads(file.read_text())
            version = self.info["schema_version"]
            if version == SCHEMA_VERSION:
                for key in ("frame_count", "size", "frame_rate", "split", "crop", "source_sha256"):
                    self.info[key]
        except (ValueError, KeyError, TypeError):
            raise VPGCError(f"{file} is damaged: prepare the video again.") from None
        if version != SCHEMA_VERSION:
            raise VPGCError(
                f"{self.path} has schema version {version} but this keras_vpgc reads "
                f"{SCHEMA_VERSION}: prepare the video again, or install the matching version."
            )
        tracking = self.path / "tracking.npz"
        if not tracking.is_file() or not self._file(len(self) - 1).is_file():
            raise VPGCError(f"{self.path} lacks frames or tracking.npz: prepare the video again.")
        try:
            with np.load(tracking) as stored:
                self.points = stored["points"]
                self.blendshapes = stored["blendshapes"]
                self.matrices = stored["matrices"]
                self.valid = stored["valid"]
                self.interpolated = stored["interpolated"]
                self.confidence = stored["confidence"]
                self.repeated = stored["repeated"]
                self.times = stored["times"]
                self.source_frames = stored["source_frames"]
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError):
            raise VPGCError(f"{tracking} is damaged: prepare the video again.") from None

    def __len__(self):
        return self.info["frame_count"]

    @property
    def size(self) -> int:
        """Side of the stored frames in pixels."""
        return self.info["size"]

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.info["frame_rate"]

    @property
    def landmarks(self) -> np.ndarray:
        """Float32 `(n, 68, 2)` in [0, 1]; a frame without a face has its nearest neighbour's."""
        return fill(self.points, self.valid)[:, MEDIAPIPE_TO_68, :2]

    def indices(self, part: str) -> np.ndarray:
        """Frame numbers of a part of the clip.

        Args:
            part: `"train"` (without repeated frames), `"validation"` or `"test"`. Frames in which
                the face was not seen are left out, interpolated ones too: their landmarks serve
                their neighbours as context, but what the picture shows there is unknown.

        Returns:
            Int array.
        """
        usable = self.valid & ~self.interpolated
        if part == "train":
            usable &= ~self.repeated
        frames = [np.arange(first, last) for first, last in self.ranges(part)]
        return np.concatenate([x[usable[x]] for x in frames])

    def ranges(self, part: str) -> list[list[int]]:
        """The stretches of the clip that a part is made of.

        Args:
            part: `"train"`, `"validation"` or `"test"`.

        Returns:
            List of `[first, last + 1]`.
        """
        if part not in PARTS:
            raise VPGCError(f"There is no part {part!r}: choose one of {', '.join(PARTS)}.")
        return self.info["split"][part]

    def frames(self, indices=None, size: int | None = None) -> np.ndarray:
        """Images.

        Args:
            indices: Frame numbers; default all.
            size: Side in pixels; default as stored.

        Returns:
            uint8 RGB `(n, size, size, 3)`.

        Raises:
            VPGCError: if a frame's file is missing or damaged.
        """
        import cv2

        indices = np.arange(len(self)) if indices is None else np.asarray(indices)
        size = size or self.size
        result = np.empty((len(indices), size, size, 3), "uint8")
        method = cv2.INTER_AREA if size < self.size else cv2.INTER_CUBIC

        def read(place):
            file = self._file(indices[place])
            image = cv2.imread(str(file))
            if image is None:
                raise VPGCError(f"{file} is missing or damaged: prepare the video again.")
            if image.shape[0] != size:
                image = cv2.resize(image, (size, size), interpolation=method)
            result[place] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

        with ThreadPoolExecutor() as pool:
            list(pool.map(read, range(len(indices))))
        return result

    def _file(self, index):
        return self.path / "frames" / f"{index:06d}.png"


def fill(values, valid) -> np.ndarray:
    """Give frames without a face the values of the nearest frame that has one.

    Args:
        values: Array `(n, ...)`.
        valid: Bool `(n,)`, at least one true.

    Returns:
        Array `(n, ...)`.
    """
    return values[nearest_valid(valid)]


def nearest_valid(valid) -> np.ndarray:
    """For each frame the nearest that has a face, itself where it has one.

    Args:
        valid: Bool `(n,)`, at least one true.

    Returns:
        Int `(n,)`.
    """
    known = np.flatnonzero(valid)
    places = np.searchsorted(known, np.arange(len(valid)))
    before, after = known[np.maximum(places - 1, 0)], known[np.minimum(places, len(known) - 1)]
    frame = np.arange(len(valid))
    return np.where(np.abs(frame - before) <= np.abs(after - frame), before, after)
