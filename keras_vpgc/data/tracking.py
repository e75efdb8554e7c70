"""Face landmarks, frame by frame."""

import contextlib
import importlib.metadata
import importlib.util
import mmap
import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import parallel, video
from keras_vpgc.data.mediapipe_task import MediaPipeTask
from keras_vpgc.errors import missing_extra

NUM_POINTS = 478
NUM_BLENDSHAPES = 52
# Frames that are tracked at a time, whatever the number of workers: the files are the same.
CHUNK_FRAMES = 250
MAX_FACES = 4
# Longer side in pixels of what the tracker sees. It looks at a face in 256x256 pixels and at the
# whole picture in less, so that more costs time and shows it nothing.
MAX_SIDE = 3840
# A face is looked for in no smaller picture.
MIN_SIDE = 64
# Of two faces that cover each other by more than this part, one is an echo of the other.
MAX_OVERLAP = 0.5
# Longer side of the picture in which repeated frames are looked for; cuts in a quarter of it.
SMALL = 256


@dataclass
class Track:
    """What is known of one person in each frame of a clip.

    Attributes:
        points: Float32 `(n, 478, 3)`, source pixels (depth scaled like x), NaN where not valid.
        blendshapes: Float32 `(n, 52)` in [0, 1], NaN where not valid.
        matrices: Float32 `(n, 4, 4)`, head poses of MediaPipe's face geometry in centimetres.
        confidence: Float32 `(n,)` in [0, 1], see `keras_vpgc.data.shots.confidence`; 0 without a
            face.
        interpolated: Bool `(n,)`, filled from the frames around.
        valid: Bool `(n,)`, seen or interpolated.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    matrices: np.ndarray
    confidence: np.ndarray
    interpolated: np.ndarray
    valid: np.ndarray

    @classmethod
    def empty(cls, count: int, folder=None) -> "Track":
        """A track of `count` frames without a face; the points in a file of a folder, if given."""
        shape = count, NUM_POINTS, 3
        points = np.empty(shape, "float32") if folder is None else on_disk(shape, folder)
        points[:] = np.nan
        return cls(
            points,
            np.full((count, NUM_BLENDSHAPES), np.nan, "float32"),
            np.full((count, 4, 4), np.nan, "float32"),
            np.zeros(count, "float32"),
            np.zeros(count, bool),
            np.zeros(count, bool),
        )

    @classmethod
    def join(cls, parts: "list[Track]") -> "Track":
        """One track out of consecutive ones."""
        if not parts:
            return cls.empty(0)
        return cls(*(np.concatenate([vars(p)[k] for p in parts]) for k in vars(parts[0])))

    def forget(self, frames) -> None:
        """Take back what is known of some frames: a mask or an index array."""
        for field in fields(self):
            values = getattr(self, field.name)
            values[frames] = np.nan if values.ndim > 1 else 0

    def __getitem__(self, frames) -> "Track":
        """The track of some frames: a slice, an index array or a mask."""
        return Track(*(getattr(self, field.name)[frames] for field in fields(self)))


@dataclass
class Faces:
    """All faces of a clip, and how each frame differs from the one before.

    Attributes:
        frame: Int `(k,)`, the frame that shows each face, ascending.
        points, blendshapes, matrices: `(k, ...)`, as in `Track`.
        cut: Float32 `(n,)`, mean absolute difference of grey thumbnails whose longer side is 64
            pixels, of 255; 0 for the first frame.
        change: Float32 `(n,)`, the same in the 1% of the picture that changed most, in squares of
            8 pixels of a grey picture whose longer side is 256 pixels.
    """

    frame: np.ndarray
    points: np.ndarray
    blendshapes: np.ndarray
    matrices: np.ndarray
    cut: np.ndarray
    change: np.ndarray

    def __len__(self):
        """Number of frames."""
        return len(self.cut)

    @classmethod
    def read(cls, files) -> "Faces":
        """The faces of a clip, from the files of its consecutive chunks; the first that is short
        is the last. Points lie on disk, beside the first file."""
        parts: list[dict] = []
        for file in files:
            with np.load(file) as stored:
                parts.append({name: stored[name] for name in stored.files if name != "points"})
            if len(parts[-1]["cut"]) < CHUNK_FRAMES:
                break
        starts = np.cumsum([0] + [len(part["cut"]) for part in parts])
        for part, start in zip(parts, starts, strict=False):
            part["frame"] = part["frame"] + start
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        points = on_disk((len(joined["frame"]), NUM_POINTS, 3), Path(files[0]).parent)
        first = 0
        for file, part in zip(files, parts, strict=False):
            with np.load(file) as stored:
                points[first : first + len(part["frame"])] = stored["points"]
            first += len(part["frame"])
        return cls(points=points, **joined)

    def track(self, chosen, folder=None) -> Track:
        """The track of one person.

        Args:
            chosen: Int `(n,)`, the person's face in each frame, -1 for none.
            folder: Where the points lie, in a file without a name, instead of in memory.

        Returns:
            A `Track`; every face that is there has confidence 1.
        """
        chosen = np.asarray(chosen)
        track = Track.empty(len(chosen), folder)
        seen = chosen >= 0
        for first in range(0, len(chosen), CHUNK_FRAMES):
            part = slice(first, first + CHUNK_FRAMES)
            track.points[part][seen[part]] = self.points[chosen[part][seen[part]]]
        track.blendshapes[seen] = self.blendshapes[chosen[seen]]
        track.matrices[seen] = self.matrices[chosen[seen]]
        track.confidence[seen] = 1
        track.valid[:] = seen
        return track


def on_disk(shape, folder) -> np.ndarray:
    """A float32 array in a file that has no name and goes with the array.

    What is not in use of it the system takes out of memory where that is scarce.

    Args:
        shape: Its shape.
        folder: Where the file lies.

    Returns:
        The array, of zeros.

    Raises:
        OSError: if there is no space.
    """
    size = 4 * int(np.prod(shape))
    if not size:
        return np.zeros(shape, "float32")
    with tempfile.TemporaryFile(dir=folder) as file:
        # Written, for a hole in a file that finds no space later ends the process.
        for first in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - first)))
        file.flush()
        return np.frombuffer(mmap.mmap(file.fileno(), size), "float32").reshape(shape)


class FaceTracker(MediaPipeTask):
    """MediaPipe's Face Landmarker. Use it in a `with`: it must be closed.

    It looks at each frame alone, so a frame's result does not depend on what came before.

    Args:
        model: Path of `face_landmarker.task`, or `None` to find it by `keras_vpgc.assets`.

    Raises:
        VPGCError: if MediaPipe or its model file is missing, or that is no such model.

    Example:

    ```python
    with FaceTracker() as tracker:
        track = tracker.track([frame])  # one uint8 RGB frame
    ```
    """

    name = "mediapipe-face-landmarker"

    def __init__(self, model=None):
        super().__init__(
            "FaceLandmarker",
            "face_landmarker",
            "the face landmarker's model",
            model,
            num_faces=MAX_FACES,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )

    def detect(self, frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All faces of a frame, at most four, the largest first.

        Args:
            frame: uint8 RGB `(h, w, 3)`; one larger than 3840 pixels is looked at in that size.

        Returns:
            Points `(k, 478, 3)` in the frame's pixels, blendshapes `(k, 52)` and matrices
            `(k, 4, 4)`, float32.
        """
        height, width = frame.shape[:2]
        found = self.look(_reduced(frame), "detect")
        size = np.array([width, height, width], "float32")
        points = [
            np.array([[p.x, p.y, p.z] for p in face], "float32") * size
            for face in found.face_landmarks
        ]
        kept: list[int] = []
        for k in sorted(range(len(points)), key=lambda k: -np.ptp(points[k][:, 1])):
            if all(_overlap(points[k], points[other]) < MAX_OVERLAP for other in kept):
                kept.append(k)
        shapes = [[b.score for b in found.face_blendshapes[k]] for k in kept]
        matrices = [found.facial_transformation_matrixes[k] for k in kept]
        return (
            np.array([points[k] for k in kept], "float32").reshape(-1, NUM_POINTS, 3),
            np.array(shapes, "float32").reshape(-1, NUM_BLENDSHAPES),
            np.array(matrices, "float32").reshape(-1, 4, 4),
        )

    def track(self, frames) -> Track:
        """Landmarks of frames.

        Args:
            frames: Sequence of uint8 RGB `(h, w, 3)`.

        Returns:
            A `Track`; of several faces the largest.
        """
        result = Track.empty(len(frames))
        for i, frame in enumerate(frames):
            points, blendshapes, matrices = self.detect(frame)
            if len(points):
                result.points[i] = points[0]
                result.blendshapes[i] = blendshapes[0]
                result.matrices[i] = matrices[0]
                result.confidence[i] = 1
                result.valid[i] = True
        return result


def _reduced(frame):
    height, width = frame.shape[:2]
    if max(height, width) <= MAX_SIDE:
        return frame
    import cv2

    scale = MAX_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _overlap(a, b):
    """Area that the boxes of two faces share, over that of the smaller."""
    low = np.maximum(a[:, :2].min(0), b[:, :2].min(0))
    high = np.minimum(a[:, :2].max(0), b[:, :2].max(0))
    area = min(np.ptp(a[:, :2], axis=0).prod(), np.ptp(b[:, :2], axis=0).prod())
    return float(np.clip(high - low, 0, None).prod() / max(area, 1e-9))


class _Difference:
    """Measures how frames differ from the one before, see `Faces`."""

    def __init__(self):
        self.before = None

    def __call__(self, frame):
        import cv2

        height, width = frame.shape[:2]
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        scale = SMALL / max(height, width)
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype("float32")
        before, self.before = self.before, small
        if before is None:
            return 0.0, 0.0
        blocks = cv2.boxFilter(cv2.absdiff(small, before), -1, (8, 8))
        thumbnail = (max(1, size[0] // 4), max(1, size[1] // 4))
        cut = cv2.absdiff(
            cv2.resize(small, thumbnail, interpolation=cv2.INTER_AREA),
            cv2.resize(before, thumbnail, interpolation=cv2.INTER_AREA),
        )
        return float(cut.mean()), float(np.percentile(blocks[::4, ::4], 99))


@contextlib.contextmanager
def chunk_tracker(source: str, model: str):
    """The job of `keras_vpgc.data.parallel` that tracks a chunk of a video into a file.

    Args:
        source: The video file.
        model: Path of `face_landmarker.task`.

    Yields:
        A function of a task `{"start", "stop", "file"}` and a progress callable.
    """
    with FaceTracker(model) as tracker:
        yield lambda task, progress: _track_chunk(tracker, source, task, progress)


def _track_chunk(tracker, source, task, progress):
    start, stop = task["start"], task["stop"]
    first = max(0, start - 1)
    difference = _Difference()
    frame_of, points, blendshapes, matrices, differences = [], [], [], [], []
    unsaid = 0
    for number, frame in enumerate(video.read_frames(source, first, stop), first):
        measured = difference(frame)
        if number < start:
            continue
        differences.append(measured)
        found = tracker.detect(frame)
        frame_of.extend([number - start] * len(found[0]))
        for values, kept in zip(found, (points, blendshapes, matrices), strict=True):
            kept.append(values)
        unsaid += 1
        if unsaid == 10:
            progress(unsaid)
            unsaid = 0
    progress(unsaid)
    cut, change = np.array(differences, "float32").reshape(-1, 2).T
    file = Path(task["file"])
    # Named after the process: two runs on one folder do not write into each other's file.
    partial = file.with_name(f".{file.stem}.{os.getpid()}.npz")
    try:
        np.savez(
            partial,
            frame=np.array(frame_of, "int64"),
            points=np.concatenate([*points, np.empty((0, NUM_POINTS, 3), "float32")]),
            blendshapes=np.concatenate([*blendshapes, np.empty((0, NUM_BLENDSHAPES), "float32")]),
            matrices=np.concatenate([*matrices, np.empty((0, 4, 4), "float32")]),
            cut=cut,
            change=change,
        )
        os.replace(partial, file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def track_faces(
    source,
    folder,
    start: int,
    stop: int,
    *,
    tracker_model=None,
    workers: int = 1,
    progress=lambda count: None,
) -> Faces:
    """Find all faces in a range of frames, in chunks of 250 and in several processes.

    Chunks that a stopped run left in `folder` are used again. The result does not depend on the
    number of processes.

    Args:
        source: The video file.
        folder: Where the chunks are written.
        start: Number of the first frame.
        stop: Number of the frame before which to stop.
        tracker_model: Path of `face_landmarker.task`, or `None`.
        workers: Number of processes.
        progress: Is told of every few frames done.

    Returns:
        The `Faces`; fewer frames than asked for if the file cannot be decoded to its end.

    Raises:
        VPGCError: if MediaPipe or its model file is missing, or a process died.
        OSError: if a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = str(assets.find("face_landmarker", tracker_model))
    tasks, files = [], []
    for first in range(start, stop, CHUNK_FRAMES):
        last = min(first + CHUNK_FRAMES, stop)
        files.append(folder / f"{first:07d}.npz")
        if files[-1].exists():
            progress(last - first)
        else:
            tasks.append({"start": first, "stop": last, "file": str(files[-1])})
    settings = {"source": str(source), "model": model}
    parallel.run("keras_vpgc.data.tracking:chunk_tracker", settings, tasks, workers, progress)
    return Faces.read(files)


def tracker_name() -> str:
    """Name and version of the tracker, without loading it.

    Raises:
        VPGCError: if MediaPipe is missing.
    """
    if importlib.util.find_spec("mediapipe") is None:
        raise missing_extra("mediapipe", "landmarks")
    return f"{FaceTracker.name} {importlib.metadata.version('mediapipe')}"
