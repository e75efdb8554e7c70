"""Driving by drawings: a puppet's network from the heatmaps on, and folders of contour images."""

import collections
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.errors import VPGCError, missing_extra
from keras_vpgc.layers import ToUint8

SUFFIXES = (".png", ".jpg", ".jpeg")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
# Grey levels that are taken for the ground, and, from white on, for a line.
PLAIN = 48
# Share of other pixels, the soft edges of lines, from which an image is no drawing: ours have 0.6%
# (512 pixels a side) to 9% (32), 11% as a JPEG of quality 20; photographs 58% and more.
MOST_BETWEEN = 0.25


class _Windows(keras.layers.Layer):
    """Consecutive drawings `(n + context - 1, s, s)` -> heatmaps with context `(n, s, s, context)`.

    Channel k of a window is its frame k.
    """

    def __init__(self, context):
        super().__init__(dtype="float32")
        self.context = context

    def call(self, drawn):
        count = ops.shape(drawn)[0] - self.context + 1
        return ops.stack([drawn[k : k + count] for k in range(self.context)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:], self.context)


def window_model(model, drawings: bool = False) -> keras.Model:
    """A reenactor that reads consecutive frames and draws each of them once.

    `PortraitReenactor` itself takes every frame with its neighbours, so a clip's frame is drawn
    in as many windows as the context is long. The weights are shared.

    Args:
        model: A `PortraitReenactor`.
        drawings: Read the heatmaps instead of the landmarks?

    Returns:
        Keras model from `n + context - 1` consecutive frames, float32 landmarks `(points, 2)` or
        uint8 drawings `(s, s)`, to the uint8 RGB images `(n, s, s, 3)`.

    Example:

    ```python
    images = window_model(puppet.model)(landmarks)  # (14, 68, 2) -> (8, s, s, 3) for context 7
    ```
    """
    size, _ = model.heatmap.size
    if drawings:
        inputs = keras.Input((size, size), name="drawings", dtype="uint8")
        drawn = ops.cast(inputs, "float32") / 255.0
    else:
        inputs = keras.Input(model.input_shape[2:], name="landmarks", dtype="float32")
        drawn = model.heatmap(ops.expand_dims(inputs, 1))[..., 0]
    from_heatmaps = keras.Model(model.heatmap.output, model.output)
    images = from_heatmaps(_Windows(model.context)(drawn))
    if model.output.dtype != "uint8":
        images = ToUint8(dtype="float32")(images)
    return keras.Model(inputs, images)


def stream_windows(
    begin,
    frames,
    context: int,
    mode: str = "centered",
    batch_size: int = 8,
    progress=None,
    start: int = 0,
) -> Iterator[np.ndarray]:
    """Images of a clip by a `window_model`, batch by batch.

    Args:
        begin: Begins a batch of consecutive frames, see `Puppet.begin`.
        frames: Array `(n, ...)`, landmarks or drawings of consecutive frames.
        context: Number of frames that the puppet sees at once.
        mode: See `context_indices`.
        batch_size: Images computed at once.
        progress: Optional callable that is told the number of images just done.
        start: Number of the first image wanted; those before it are context alone.

    Yields:
        uint8 RGB `(b, s, s, 3)`.
    """
    neighbours = context_indices(len(frames), context, mode)[start:]
    batch_size = max(1, min(batch_size, len(frames)))

    def batches():
        for place in range(0, len(neighbours), batch_size):
            windows = neighbours[place : place + batch_size]
            # Windows that follow each other share all but their last frame. One compiled shape
            # serves the last batch too.
            chosen = np.concatenate([windows[0], windows[1:, -1]])
            chosen = np.pad(chosen, (0, batch_size - len(windows)), "edge")
            yield len(windows), frames[chosen]

    for count, images in overlapped(begin, batches()):
        if progress:
            progress(count)
        yield images[:count]


def overlapped(begin, batches, depth: int = 2):
    """Results on the host, while the device goes on with the next.

    Args:
        begin: Begins a call, and returns a function that waits for its result as a numpy array.
        batches: Iterable of pairs of something and an input.
        depth: How many calls are ahead of the result that is waited for.

    Yields:
        Pairs of that something and a numpy array.
    """
    waiting: collections.deque = collections.deque()
    for key, batch in batches:
        waiting.append((key, begin(batch)))
        if len(waiting) >= depth:
            key, wait = waiting.popleft()
            yield key, wait()
    for key, wait in waiting:
        yield key, wait()


def drive_contours(
    puppet, contours, batch_size: int = 8, progress=None, start: int = 0
) -> Iterator[np.ndarray]:
    """Frames of the person in the poses of ready-made contour images.

    Args:
        puppet: A `Puppet`.
        contours: A folder, see `read_contours`, or uint8 `(n, s, s)` of the size of the puppet's
            heatmaps, bright lines on black, consecutive frames.
        batch_size: Frames computed at once.
        progress: Optional callable that is told the number of frames just done.
        start: Number of the first frame wanted; those before it are context alone.

    Returns:
        Iterator of uint8 RGB `(b, s, s, 3)`.

    Raises:
        VPGCError: for drawings of another size or type, or a folder that cannot be read.

    Example:

    ```python
    for frames in drive_contours(keras_vpgc.load("runs/me"), "contours/"):
        ...
    ```
    """
    model = puppet.drawn_model()
    size, _ = model.heatmap.size
    if isinstance(contours, str | Path):
        contours = read_contours(contours, size, model.heatmap.line_width)
    contours = np.asarray(contours)
    if contours.dtype != np.uint8 or contours.shape[1:] != (size, size):
        raise VPGCError(
            f"This puppet is driven by drawings of type uint8 and shape (frames, {size}, {size}); "
            f"received {contours.dtype} {contours.shape}."
        )
    mode = puppet.metadata.get("context_mode", "centered")
    return stream_windows(
        begin_of_drawings(model), contours, model.context, mode, batch_size, progress, start
    )


def begin_of_drawings(model):
    """`Puppet.begin` for drawings instead of landmarks.

    Args:
        model: The puppet's Keras model.

    Returns:
        A function of uint8 drawings `(n + context - 1, s, s)`, of consecutive frames, that begins
        their images and returns a function that waits for uint8 `(n, size, size, 3)`.
    """
    call = backend.compiled(window_model(model, drawings=True))
    return lambda drawings: backend.to_host(call(drawings))


def read_contours(folder, size: int, line_width: float | None = None) -> np.ndarray:
    """A folder of contour images, as a puppet's heatmaps.

    PNG and JPEG files in natural order of their names (2 before 10), square and of one size.
    Colour becomes grey; dark lines on a bright ground are inverted, with a warning. Lines are
    taken to be as wide as `LandmarkHeatmap` draws them at the images' size; before the images are
    made smaller they are widened, where needed, to end as wide as it draws them at `size`.

    Args:
        folder: The folder.
        size: Side of the result in pixels.
        line_width: The puppet's own width of lines, see `LandmarkHeatmap`.

    Returns:
        uint8 `(n, size, size)`, bright lines on black; the whole clip in memory.

    Raises:
        VPGCError: for a folder that is missing or holds no such image, an image that cannot be
            read, is no drawing, is not square, or differs in size from the first.

    Example:

    ```python
    drawings = read_contours("contours/", size=512)
    ```
    """
    try:
        import cv2
    except ImportError:
        raise missing_extra("opencv-contrib-python", "video") from None

    folder = Path(folder)
    if not folder.is_dir():
        raise VPGCError(f"There is no folder {folder} of contour images: check the path.")
    files = contour_files(folder)
    if not files:
        raise VPGCError(
            f"{folder} holds no PNG or JPEG file: give a folder with a contour image a frame."
        )

    def read(file):
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise VPGCError(f"{file} cannot be read as an image: it is damaged or another format.")
        _check_drawing(file, image)
        if image.shape[0] != image.shape[1]:
            raise VPGCError(
                f"{file} has {image.shape[1]}x{image.shape[0]} pixels: contour images must be "
                "square."
            )
        return image

    first = read(files[0])
    side = len(first)
    wanted = (line_width or max(1.0, size / 256)) * side / size
    # Pixels that the lines lack on either side, on a canvas of twice the size.
    lacking = round(wanted - max(1.0, side / 256))
    result = np.empty((len(files), size, size), "uint8")
    inverted = np.zeros(len(files), "bool")

    def put(place):
        image = read(files[place])
        if len(image) != side:
            raise VPGCError(
                f"{files[place]} has {len(image)} pixels a side but {files[0].name} has {side}: "
                "contour images of one clip must have one size."
            )
        # Lines cover less than half of a drawing.
        inverted[place] = np.median(image) > 127
        if inverted[place]:
            image = 255 - image
        if side > size:
            if lacking > 0:
                image = cv2.resize(image, (2 * side, 2 * side), interpolation=cv2.INTER_LINEAR)
                disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * lacking + 1,) * 2)
                image = cv2.dilate(image, disk)
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        elif side < size:
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        result[place] = image

    with ThreadPoolExecutor() as pool:
        list(pool.map(put, range(len(files))))
    if inverted.any():
        warnings.warn(
            f"{int(inverted.sum())} of the {len(files)} contour images in {folder} show dark lines "
            "on a bright ground; they are inverted.",
            stacklevel=2,
        )
    return result


def _check_drawing(file, image):
    """Refuse a grey image whose pixels are often neither ground nor line."""
    share = float(((image >= PLAIN) & (image <= 255 - PLAIN)).mean())
    if share > MOST_BETWEEN:
        videos = sorted(f for f in file.parent.iterdir() if f.suffix.lower() in VIDEOS)
        instead = f"such as {videos[0]}" if videos else "which is tracked"
        raise VPGCError(
            f"{file} is no contour image: {share:.0%} of its pixels are neither black nor white "
            f"({MOST_BETWEEN:.0%} are the most of lines on a plain ground); drive by a folder that "
            f"holds contour images only, or by a video, {instead}."
        )


def contour_files(folder) -> list[Path]:
    """The images of a folder, by natural order of their names: 2 before 10."""

    def key(file):
        parts = re.split(r"(\d+)", file.name.lower())
        return [(int(p), "") if p.isdigit() else (-1, p) for p in parts], file.name

    files = (f for f in Path(folder).iterdir() if f.suffix.lower() in SUFFIXES)
    # Hidden files are other programs' notes, not frames.
    return sorted((f for f in files if f.is_file() and not f.name.startswith(".")), key=key)
