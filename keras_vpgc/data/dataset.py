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
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Returns of `[i]`:
        Tuple of one uint8 array `(batch_size, s, s, 3)`.

    Raises:
        VPGCError: if a batch is larger than the data.

    Example:

    ```python
    batches = FrameBatches(images, 4, steps=100, augmentation=keras.layers.RandomBrightness(0.1))
    trainer.fit(batches, epochs=10)
    ```
    """

    def __init__(self, images, batch_size, steps, seed=0, augmentation=None, start=0, **kwargs):
        super().__init__(len(images), batch_size, steps, seed, start, **kwargs)
        self.images = images
        self.augmentation = augmentation

    def __getitem__(self, index):
        images = self.images[self.chosen(index)]
        if self.augmentation is not None:
            images = augment(self.augmentation, images)
        return (images,)


class DriverBatches(_Shuffled):
    """Shuffled pairs of heatmaps and features, for stage 2.

    Args:
        heatmaps: uint8 `(n, s, s)`, one drawing for each frame of the clip.
        neighbours: Int `(m, context)`, the frames seen with each training example.
        features: Float `(m, h, w, d)`, what the frozen encoder gives for the true images.
        batch_size, steps, seed, start: As for `FrameBatches`.

    Returns of `[i]`:
        Pair of float32 heatmaps `(batch_size, s, s, context)` in [0, 1] and float32 features.
    """

    def __init__(
        self, heatmaps, neighbours, features, batch_size, steps, seed=0, start=0, **kwargs
    ):
        super().__init__(len(features), batch_size, steps, seed, start, **kwargs)
        self.heatmaps, self.neighbours, self.features = heatmaps, neighbours, features

    def __getitem__(self, index):
        chosen = self.chosen(index)
        return (
            stack_context(self.heatmaps, self.neighbours[chosen]),
            self.features[chosen].astype("float32"),
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
