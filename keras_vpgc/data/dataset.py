"""Batches for `fit`, out of arrays in memory."""

import keras
import numpy as np

from keras_vpgc.errors import VPGCError

CONTEXT_MODES = ("centered", "causal")


def context_indices(count: int, context: int, mode: str = "centered") -> np.ndarray:
    """The neighbouring frames that the driver sees with each frame.

    Args:
        count: Number of frames of the clip.
        context: Number of frames seen at once.
        mode: `"centered"`: t-3..t+3 for 7; `"causal"`: t-6..t.

    Returns:
        Int array `(count, context)`; beyond the ends the first or last frame is repeated.

    Raises:
        VPGCError: for an unknown mode, or an even centred context.

    Example:

    ```python
    context_indices(4, 3)  # [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    ```
    """
    if mode not in CONTEXT_MODES:
        raise VPGCError(f"There is no context mode {mode!r}: choose 'centered' or 'causal'.")
    if context < 1 or (mode == "centered" and context % 2 == 0):
        raise VPGCError(f"A {mode} context of {context} frames has no middle: choose an odd one.")
    first = -(context // 2) if mode == "centered" else 1 - context
    neighbours = np.arange(count)[:, None] + np.arange(first, first + context)
    return np.clip(neighbours, 0, count - 1)


def check_batch(batch_size: int, count: int):
    """Refuse a batch that is larger than the data."""
    if batch_size > count:
        raise VPGCError(
            f"A batch of {batch_size} frames is larger than the training part of {count} frames: "
            "choose a smaller batch size or record more."
        )


class _Shuffled(keras.utils.PyDataset):
    """Seeded batches without end: batch `i` of the run is the same whenever it is asked for."""

    def __init__(self, count, batch_size, steps, seed, start=0, **kwargs):
        super().__init__(**kwargs)
        check_batch(batch_size, count)
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed
        self.done = start

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.done += self.steps

    def chosen(self, index):
        """Frame numbers of a batch: every frame once before any comes again."""
        position = (self.done + index) * self.batch_size + np.arange(self.batch_size)
        rounds, places = np.divmod(position, self.count)
        orders = {r: np.random.default_rng((self.seed, r)).permutation(self.count) for r in rounds}
        return np.array([orders[r][p] for r, p in zip(rounds, places, strict=True)])


# How much a pixel of each region counts, a pixel elsewhere counting 1.
REGION_WEIGHTS = {"face": 2.0, "eyes": 6.0, "mouth": 6.0}
_REGIONS = {"face": slice(0, 68), "eyes": slice(36, 48), "mouth": slice(48, 68)}


def weigh_regions(landmarks, size: int, weights=None) -> np.ndarray:
    """How much each pixel counts: more in the boxes of face, eyes and mouth.

    Args:
        landmarks: Float `(n, points, 2)` in [0, 1], the first 68 in iBUG's order.
        size: Side of the images in pixels.
        weights: Dict with any of `"face"`, `"eyes"` and `"mouth"`; default `REGION_WEIGHTS`.

    Returns:
        Float32 `(n, size, size)`; each image's mean is 1.

    Raises:
        VPGCError: for an unknown region.

    Example:

    ```python
    weigh_regions(portrait.landmarks[:4], 128, {"mouth": 8.0})
    ```
    """
    weights = REGION_WEIGHTS if weights is None else weights
    result = np.ones((len(landmarks), size, size), "float32")
    for name, weight in weights.items():
        if name not in _REGIONS:
            raise VPGCError(
                f"There is no region {name!r} to weigh: choose of {', '.join(_REGIONS)}."
            )
        points = np.asarray(landmarks)[:, _REGIONS[name]] * size
        # Lids and lips reach beyond their landmarks.
        margin = 0.025 * size
        low = np.clip(points.min(1) - margin, 0, size).astype(int)
        high = np.clip(np.ceil(points.max(1) + margin), 0, size).astype(int)
        for image, (x, y), (right, bottom) in zip(result, low, high, strict=True):
            box = image[y:bottom, x:right]
            np.maximum(box, weight, out=box)
    return result / result.mean(axis=(1, 2), keepdims=True)


class FrameBatches(_Shuffled):
    """Shuffled batches of images, for stage 1.

    Args:
        images: uint8 `(n, s, s, 3)`.
        batch_size: Images a batch.
        steps: Batches an epoch of `fit`.
        seed: The order's seed.
        augmentation: A Keras (or keras-cv) preprocessing layer, or any callable, on float32 RGB
            batches in [0, 255]; called with `training=True`. Default: none.
        start: Number of batches already trained on, to go on with the same order.
        landmarks: Float `(n, points, 2)` of the images, to weigh regions; default: none.
        region_weights: See `weigh_regions`. An augmentation that moves the face moves it out of
            its regions.
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Returns of `[i]`:
        Tuple of a uint8 array `(batch_size, s, s, 3)` and, with landmarks, the weights of its
        pixels, float32 `(batch_size, s, s, 1)`.

    Raises:
        VPGCError: if a batch is larger than the data.

    Example:

    ```python
    batches = FrameBatches(images, 4, steps=100, augmentation=keras.layers.RandomBrightness(0.1))
    trainer.fit(batches, epochs=10)
    ```
    """

    def __init__(
        self,
        images,
        batch_size,
        steps,
        seed=0,
        augmentation=None,
        start=0,
        landmarks=None,
        region_weights=None,
        **kwargs,
    ):
        super().__init__(len(images), batch_size, steps, seed, start, **kwargs)
        self.images = images
        self.augmentation = augmentation
        self.landmarks, self.region_weights = landmarks, region_weights

    def __getitem__(self, index):
        chosen = self.chosen(index)
        images = self.images[chosen]
        if self.augmentation is not None:
            images = augment(self.augmentation, images)
        if self.landmarks is None:
            return (images,)
        weights = weigh_regions(self.landmarks[chosen], images.shape[1], self.region_weights)
        return images, weights[..., None]


class DriverBatches(_Shuffled):
    """Shuffled pairs of heatmaps and features, for stage 2.

    Args:
        heatmaps: uint8 `(n, s, s)`, one drawing for each frame of the clip.
        neighbours: Int `(m, context)`, the frames seen with each training example.
        features: Float `(m, h, w, d)`, what the frozen encoder gives for the true images.
        batch_size, steps, seed, start: As for `FrameBatches`.
        scale_jitter: Each example's drawings are enlarged about their middle by a factor drawn
            between `1 - scale_jitter` and `1 + scale_jitter`, the same for all of its neighbours.

    Returns of `[i]`:
        Pair of float32 heatmaps `(batch_size, s, s, context)` in [0, 1] and float32 features.
    """

    def __init__(
        self,
        heatmaps,
        neighbours,
        features,
        batch_size,
        steps,
        seed=0,
        start=0,
        scale_jitter=0.0,
        **kwargs,
    ):
        super().__init__(len(features), batch_size, steps, seed, start, **kwargs)
        self.heatmaps, self.neighbours, self.features = heatmaps, neighbours, features
        self.scale_jitter = scale_jitter

    def __getitem__(self, index):
        chosen = self.chosen(index)
        return self.inputs(index, chosen), self.features[chosen].astype("float32")

    def inputs(self, index, chosen):
        """Heatmaps of the chosen examples, the driver's input."""
        heatmaps = self.heatmaps[self.neighbours[chosen]]
        if self.scale_jitter:
            rng = np.random.default_rng((self.seed, self.done + index, 1))
            factors = rng.uniform(1 - self.scale_jitter, 1 + self.scale_jitter, len(chosen))
            heatmaps = np.stack([_enlarge(h, f) for h, f in zip(heatmaps, factors, strict=True)])
        return np.moveaxis(heatmaps, 1, -1).astype("float32") / 255.0


def _enlarge(drawings, factor):
    """uint8 `(t, s, s)` drawings enlarged about the middle of their lines."""
    import cv2

    rows, columns = (np.flatnonzero(drawings.max(axis=(0, axis))) for axis in (2, 1))
    if not len(rows):
        return drawings
    middle = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2
    matrix = np.column_stack([factor * np.eye(2), (1 - factor) * middle])
    return np.stack([cv2.warpAffine(d, matrix, d.shape[::-1]) for d in drawings])


class DriverImageBatches(DriverBatches):
    """`DriverBatches` with the true images and the weights of their pixels.

    Args:
        heatmaps, neighbours, features, batch_size, steps, seed, start, scale_jitter: As for
            `DriverBatches`.
        images: uint8 `(m, s, s, 3)`.
        landmarks: Float `(m, points, 2)` of the images.
        region_weights: See `weigh_regions`.

    Returns of `[i]`:
        Heatmaps, the pair of features and images (float32 in [-1, 1]), and the pair of weights
        `(b, 1, 1)` and `(b, s, s)`.
    """

    def __init__(self, *args, images, landmarks, region_weights=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.images, self.landmarks, self.region_weights = images, landmarks, region_weights

    def __getitem__(self, index):
        chosen = self.chosen(index)
        images = self.images[chosen].astype("float32") / 127.5 - 1.0
        weights = weigh_regions(self.landmarks[chosen], images.shape[1], self.region_weights)
        return (
            self.inputs(index, chosen),
            (self.features[chosen].astype("float32"), images),
            (np.ones((len(chosen), 1, 1), "float32"), weights),
        )


def stack_context(heatmaps, neighbours):
    """uint8 `(n, s, s)` drawings and int `(b, t)` -> float32 `(b, s, s, t)` in [0, 1]."""
    return np.moveaxis(heatmaps[neighbours], 1, -1).astype("float32") / 255.0


def augment(augmentation, images):
    """Apply a preprocessing layer to uint8 images.

    Args:
        augmentation: See `FrameBatches`. keras-cv layers compute in TensorFlow whatever the
            backend; the result comes back as numpy.
        images: uint8 `(b, s, s, 3)`.

    Returns:
        uint8 `(b, s, s, 3)`.

    Raises:
        VPGCError: if the layer changes the images' shape.
    """
    images = np.ascontiguousarray(images)
    try:
        result = augmentation(images.astype("float32"), training=True)
    except TypeError as error:
        if "training" not in str(error):
            raise
        result = augmentation(images.astype("float32"))
    if hasattr(result, "detach"):
        result = result.detach().cpu()
    result = np.asarray(result)
    if result.shape != images.shape:
        raise VPGCError(
            f"The augmentation turned images of shape {images.shape} into {result.shape}: it must "
            "keep the shape."
        )
    return np.clip(np.rint(result), 0, 255).astype("uint8")
