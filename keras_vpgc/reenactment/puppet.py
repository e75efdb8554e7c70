"""The puppet: a model of one person, ready to be driven."""

import hashlib
import json
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_vpgc import backend, hub
from keras_vpgc.assets import sha256
from keras_vpgc.data import coverage, landmark_sets
from keras_vpgc.data.crop import Crop, to_crop
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.data.portrait import nearest_valid
from keras_vpgc.data.retarget import (
    CHUNK,
    HeadTrack,
    LongHead,
    check_motion,
    project,
    retarget_pieces,
)
from keras_vpgc.errors import VPGCError
from keras_vpgc.models import DirectMapping, PortraitReenactor
from keras_vpgc.reenactment.contours import overlapped, stream_windows, window_model
from keras_vpgc.version import PUPPET_SCHEMA_VERSION as SCHEMA_VERSION

RETARGETING = ("auto", "none", "relative", "absolute")
PRECISIONS = ("auto", "float32", "bfloat16")
GUARDS = ("warn", "clamp", "off")


class Puppet:
    """A trained `PortraitReenactor` with what it takes to drive it.

    The model is compiled once for each batch size; what depends on the weights alone is computed
    once. A batch is begun before the one before it is waited for.

    Args:
        model: The `PortraitReenactor`, or a baseline's `DirectMapping`.
        precision: `"float32"`, as evaluation has it; `"bfloat16"` for convolutions and products,
            which moves pixels by about a grey level in the mean; `"auto"`: bfloat16 where the
            device is quick in it (NVIDIA GPUs since Ampere, TPUs).

    Attributes:
        model: The Keras model, of that precision.
        metadata: Dict that travels with it: preset, frame rate, crop and checksum of the source,
            the person's shape, neutral pose and expression, what poses and expressions it has
            seen, tracker and landmark set.
        sha256: Checksum of the file that it was loaded from, or `None`.

    Example:

    ```python
    puppet = keras_vpgc.load("runs/me")
    frames = puppet.drive(landmarks)  # (n, 68, 2) in [0, 1] -> uint8 (n, s, s, 3)
    ```
    """

    sha256: str | None = None

    def __init__(self, model: PortraitReenactor | DirectMapping, precision: str = "auto"):
        _check_precision(precision)
        half = precision == "bfloat16" or (precision == "auto" and backend.half_by_default())
        self.model = in_precision(model, "mixed_bfloat16" if half else "float32")
        self.metadata = self.model.metadata
        self._call = backend.compiled(window_model(self.model))

    @classmethod
    def load(cls, path, precision: str = "auto", engine: str | None = None) -> "Puppet":
        """Load a `puppet.keras`, or the one in a run folder or on the Hub; or an exported puppet.

        Args:
            path: File, folder, or place on the Hub, see `puppet_file`; or a `.onnx` file of
                `vpgc export`.
            precision: See the class, and for an exported puppet `ExportedPuppet`.
            engine: What runs an exported puppet: `"onnxruntime"` (default) or `"openvino"`.

        Returns:
            A `Puppet`, for an exported one an `ExportedPuppet`.

        Raises:
            VPGCError: if there is none, it is of another schema version, or an engine is given
                for what is not exported.
        """
        _check_precision(precision)
        if Path(path).suffix == ".onnx" and not hub.is_hub_path(path):
            from keras_vpgc.reenactment.exported import ExportedPuppet

            return ExportedPuppet(path, precision, engine or "onnxruntime")
        if engine is not None:
            raise VPGCError(
                f"An engine runs exported puppets, and {path} is none: export it by vpgc export "
                "and give the .onnx file, or leave the engine out."
            )
        path = puppet_file(path)
        model = load_model(path)
        if not isinstance(model, (PortraitReenactor, DirectMapping)):
            raise VPGCError(
                f"{path} holds a {type(model).__name__}, not a puppet: give the puppet.keras of a "
                "run."
            )
        version = model.metadata.get("schema_version")
        if version != SCHEMA_VERSION:
            raise VPGCError(
                f"{path} has schema version {version} but this keras_vpgc reads {SCHEMA_VERSION}: "
                "train again, or install the matching version."
            )
        puppet = cls(model, precision)
        puppet.sha256 = sha256(path)
        return puppet

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""
        return self.model.image_size

    @property
    def context(self) -> int:
        """Number of frames that the puppet sees for one image."""
        return self.model.context

    @property
    def num_points(self) -> int:
        """Number of landmarks of a frame."""
        return self.model.heatmap.num_points

    @property
    def landmark_set(self) -> str:
        """Name of the landmark set."""
        return self.model.landmark_set

    @property
    def computes_in(self) -> str:
        """Name of the precision."""
        return str(self.model.get_config()["dtype"])

    @property
    def runtime(self) -> str:
        """Name of what computes."""
        return keras.backend.backend()

    def fingerprint(self) -> str:
        """SHA-256 of settings and weights."""
        digest = hashlib.sha256(json.dumps(self.model.get_config(), sort_keys=True).encode())
        for weight in self.model.get_weights():
            digest.update(np.ascontiguousarray(weight, "float32").tobytes())
        return digest.hexdigest()

    def drawn_model(self) -> keras.Model:
        """The Keras model, for who drives by drawings instead of landmarks."""
        return self.model

    def begin(self, landmarks):
        """Begin the images of consecutive frames, without waiting for them.

        Args:
            landmarks: Float32 `(n + context - 1, points, 2)`, those around the frames too.

        Returns:
            A function without arguments that waits for uint8 `(n, size, size, 3)`.
        """
        return backend.to_host(self._call(landmarks))

    def drive(self, landmarks, batch_size: int = 8, progress=None) -> np.ndarray:
        """Frames of the person in the poses of the landmarks.

        Args:
            landmarks: Float `(n, 68, 2)` (78 with irises) in [0, 1] of the puppet's crop,
                consecutive frames.
            batch_size: Frames computed at once.
            progress: Optional callable that is told the number of frames just done.

        Returns:
            uint8 RGB `(n, size, size, 3)`.

        Raises:
            VPGCError: for landmarks of another shape, NaN, or far outside.
        """
        frames = list(self.batches(landmarks, batch_size, progress))
        return np.concatenate(frames) if frames else np.empty((0, self.size, self.size, 3), "uint8")

    def batches(self, landmarks, batch_size: int = 8, progress=None, start: int = 0):
        """`drive`, batch by batch from frame `start` on: yields uint8 `(b, size, size, 3)`."""
        landmarks = check_landmarks(landmarks, self.num_points)
        mode = self.metadata.get("context_mode", "centered")
        yield from stream_windows(
            self.begin, landmarks, self.context, mode, batch_size, progress, start
        )

    def drive_frames(self, landmarks, numbers):
        """Some frames of `drive`, one by one, without those between.

        Args:
            landmarks: See `drive`.
            numbers: Int `(m,)`, which frames.

        Yields:
            uint8 RGB `(size, size, 3)` for each number.
        """
        landmarks = check_landmarks(landmarks, self.num_points)
        mode = self.metadata.get("context_mode", "centered")
        windows = context_indices(len(landmarks), self.context, mode)[np.asarray(numbers, int)]
        batches = ((1, landmarks[window]) for window in windows)
        for _, images in overlapped(self.begin, batches):
            yield images[0]

    def stream(self, source=None, **settings):
        """Drive the puppet frame by frame, without the clip's future.

        Args:
            source: A camera, a video or your own pictures; `None` to push landmarks.
            **settings: See `keras_vpgc.reenactment.stream.Stream`.

        Returns:
            A `keras_vpgc.reenactment.stream.Stream`.

        Raises:
            VPGCError: see there.

        Example:

        ```python
        with puppet.stream(source=0) as stream:  # the first camera
            for frame in stream:
                show(frame.image)  # uint8 (s, s, 3)
        print(stream.stats())
        ```
        """
        from keras_vpgc.reenactment.stream import Stream

        return Stream(self, source, **settings)

    def landmarks_of(
        self,
        track,
        size: tuple[int, int],
        source_sha256: str | None = None,
        retargeting: str = "auto",
        *,
        neutral: int | None = None,
        motion: float = 1.0,
        guard: str = "warn",
        tracker_model=None,
    ) -> np.ndarray:
        """Landmarks in the puppet's crop, from the track of a driving clip.

        Args:
            track: A `keras_vpgc.data.tracking.Track` in source pixels.
            size: Width and height of the driving video in pixels.
            source_sha256: Checksum of the driving file.
            retargeting: `"none"`: the same person before the same camera, only the crop is
                applied; `"relative"` or `"absolute"`: see `keras_vpgc.data.retarget`; `"auto"`:
                none for the clip that the puppet was trained on as it is, else relative.
            neutral, motion, guard: See `landmarks_of_head`.
            tracker_model: Path of the face landmarker's model.

        Returns:
            Float32 `(n, 68, 2)`, or 78 points with irises: the puppet's landmark set.

        Raises:
            VPGCError: for an unknown mode or guard, or settings that say nothing to `"none"`.
        """
        check_retargeting(retargeting, neutral, motion)
        check_guard(guard)
        as_it_is = neutral is None and motion == 1
        if retargeting == "auto":
            own = source_sha256 == self.metadata["source_sha256"]
            retargeting = "none" if own and as_it_is else "relative"
        frames = nearest_valid(track.valid)
        if retargeting == "none":
            crop = Crop(**self.metadata["crop"])
            starts = range(0, len(frames), CHUNK)
            parts = (track.points[frames[k : k + CHUNK]] for k in starts)
            return np.concatenate([self._chosen(to_crop(part, crop)) for part in parts])
        head = LongHead(track.points, *size, model=tracker_model, frames=frames)
        return self.landmarks_of_head(
            head, retargeting, neutral=neutral, motion=motion, guard=guard
        )

    def landmarks_of_head(
        self,
        head: HeadTrack | LongHead,
        mode: str = "relative",
        *,
        neutral: int | None = None,
        motion: float = 1.0,
        guard: str = "warn",
    ) -> np.ndarray:
        """Landmarks in the puppet's crop, from another head's pose and expression.

        Args:
            head: A `keras_vpgc.data.retarget.HeadTrack` of 478 or 68 points, or a `LongHead`.
            mode: `"relative"` or `"absolute"`: see `keras_vpgc.data.retarget`.
            neutral: Number of the frame in which the driver looks neutral; default: chosen.
            motion: Strength of the head motion, 0 (still) to 1 (as driven).
            guard: What to do where pose or expression leave what the puppet has seen: `"warn"`,
                `"clamp"` (bring them back) or `"off"`.

        Returns:
            Float32 `(n, 68, 2)`.

        Raises:
            VPGCError: see `keras_vpgc.data.retarget.retarget`.

        Example:

        ```python
        landmarks = puppet.landmarks_of_head(fit_head(points, 1280, 720), motion=0.5)
        frames = puppet.drive(landmarks)
        ```
        """
        check_guard(guard)
        watch = None if guard == "off" else coverage.Guard(self.metadata["seen"])
        shape, pose = self.metadata["shape"], self.metadata["pose"]
        crop = Crop(**self.metadata["crop"])
        found = []
        for driven in retarget_pieces(head, shape, pose, mode, neutral, motion):
            limited = driven if watch is None else watch(driven)
            landmarks = to_crop(project(limited if guard == "clamp" else driven)[..., :2], crop)
            found.append(self._chosen(landmarks) if landmarks.shape[1] == 478 else landmarks)
        if guard == "warn" and watch is not None:
            warning = watch.report()["warning"]
            if warning:
                warnings.warn(warning, stacklevel=2)
        return np.concatenate(found)

    def _chosen(self, points):
        """The puppet's landmark set of all of the tracker's points."""
        return landmark_sets.landmarks(points, self.landmark_set)


def puppet_file(path) -> Path:
    """The `puppet.keras` that a path means, or a `VPGCError`.

    Args:
        path: A file, a run folder, or `hf://OWNER/NAME`, see `keras_vpgc.hub`.

    Returns:
        The file.
    """
    if hub.is_hub_path(path):
        path = hub.fetch(path)
    path = Path(path)
    if path.is_dir():
        if not (path / "puppet.keras").exists():
            raise VPGCError(
                f"{path} holds no puppet.keras: finish the training by vpgc train, or give the "
                "file itself."
            )
        path = path / "puppet.keras"
    if not path.is_file():
        raise VPGCError(f"There is no puppet {path}: check the path.")
    return path


def load_model(path) -> keras.Model:
    """A saved Keras model, or a `VPGCError` in place of what Keras says of damaged files."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except PermissionError:
        raise
    except Exception as error:
        raise VPGCError(
            f"{path} cannot be loaded as a Keras model: it is damaged, another kind of file, or of "
            "another version; copy it again, or train again into a new folder."
        ) from error
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        # Integers, such as the state of a seed, are always numbers; bfloat16 is no float to numpy.
        if values.dtype.kind not in "iub" and not np.isfinite(values.astype("float32")).all():
            raise VPGCError(
                f"{path} holds weights that are NaN or infinite ({weight.path}), so that it shows "
                "no picture: its training went wrong; train again into a new folder."
            )
    return model


def _check_precision(precision):
    if precision not in PRECISIONS:
        raise VPGCError(
            f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}."
        )


def in_precision(model, policy):
    """The model itself, or one of the same weights that computes by another policy."""
    config = model.get_config()
    if config["dtype"] == policy:
        return model
    other = type(model).from_config({**config, "dtype": policy})
    other.set_weights(model.get_weights())
    return other


def check_retargeting(retargeting, neutral=None, motion: float = 1.0) -> None:
    """Refuse a retargeting that there is not, and settings that do not go with it."""
    if retargeting not in RETARGETING:
        raise VPGCError(
            f"There is no retargeting {retargeting!r}: choose one of {', '.join(RETARGETING)}."
        )
    check_motion(motion)
    if retargeting == "none" and not (neutral is None and motion == 1):
        raise VPGCError(
            "Retargeting 'none' takes the landmarks as they are, without a neutral frame or a "
            "strength of motion: choose 'relative' or 'absolute' for these."
        )


def check_guard(guard) -> None:
    """Refuse a guard that there is not."""
    if guard not in GUARDS:
        raise VPGCError(f"There is no guard {guard!r}: choose one of {', '.join(GUARDS)}.")


def check_landmarks(landmarks, points: int = 68, first: int = 0) -> np.ndarray:
    """Landmarks as float32 `(n, points, 2)`, or a `VPGCError` that says what is wrong with them.

    `first` is the number of the first frame, as the sentence has it.
    """
    landmarks = np.asarray(landmarks, dtype="float32")
    if landmarks.ndim != 3 or landmarks.shape[1:] != (points, 2):
        raise VPGCError(
            f"This puppet is driven by landmarks of shape (frames, {points}, 2); received "
            f"{landmarks.shape}."
        )
    bad = ~np.isfinite(landmarks).all(axis=(1, 2))
    if bad.any():
        raise VPGCError(
            f"The landmarks of frame {first + int(np.argmax(bad))} are not finite: leave such "
            "frames out or fill them from their neighbours."
        )
    far = (np.abs(landmarks - 0.5) > 1.5).any(axis=(1, 2))
    if far.any():
        frame = int(np.argmax(far))
        raise VPGCError(
            f"The landmarks of frame {first + frame} reach {np.abs(landmarks[frame]).max():.4g}, "
            "far outside of the crop's [0, 1]: divide pixels by the crop's size."
        )
    return landmarks
