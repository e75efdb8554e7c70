"""Batches for `fit`, out of arrays."""

import contextlib
import inspect
import threading

import keras
import numpy as np

from keras_vpgc.data.sampling import resample
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
    """Seeded batches without end: batch `i` of the run is the same whenever it is asked for.

    Args:
        count: Number of examples.
        batch_size: Examples a batch, of all shards together.
        steps: Batches an epoch of `fit`. Give `shuffle=False` to `fit`, or it deals the batches of
            an epoch in an order that no seed repeats.
        seed: Seed of order and augmentation.
        start: Number of batches already trained on, to go on with the same ones.
        sampling: Float `(count,)`, how often each example comes, see
            `keras_vpgc.data.sampling.rare_frame_weights`. Of each `count` examples drawn, one
            comes as often as its share of the weights says, rounded up or down. Default: every
            example once.
        shard: Pair of this process's rank and the number of processes that share each batch; each
            gets its contiguous part. Default: all.
        partners: Int `(count,)`: each example drawn is followed by this one. Default: none.
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Raises:
        VPGCError: if a batch is larger than the data or cannot be divided, or weights do not fit.
    """

    def __init__(
        self,
        count,
        batch_size,
        steps,
        seed,
        start=0,
        sampling=None,
        shard=None,
        partners=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_batch(batch_size, count)
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed
        self.done = start
        self.sampling = None if sampling is None else _check_sampling(sampling, count)
        self.rank, ranks = _check_shard(shard)
        self.partners, together = partners, 1 if partners is None else 2
        if batch_size % (together * ranks):
            parts = " and ".join(
                ["pairs of frames"] * (together > 1) + [f"{ranks} processes"] * (ranks > 1)
            )
            raise VPGCError(
                f"A batch of {batch_size} frames cannot be divided into {parts}: choose a batch "
                f"size that is a multiple of {together * ranks}."
            )
        self.together, self.part = together, batch_size // together // ranks
        self.draws = self.part * ranks
        self._within = False

    def __len__(self):
        return self.steps

    def on_epoch_begin(self):
        self._within = True

    def on_epoch_end(self):
        # `fit` calls this once more, before its first epoch.
        if self._within:
            self.done += self.steps
        self._within = False

    def __getitem__(self, index):
        return self.make(self.done + index)

    def make(self, batch):
        """Batch number `batch` of the run, counted from 0."""
        raise NotImplementedError

    def own(self, values):
        """This shard's part of one value for each draw, the same for both of a pair."""
        values = values[self.rank * self.part : (self.rank + 1) * self.part]
        return np.repeat(values, self.together)

    def chosen(self, batch):
        """Numbers of a batch's examples: every one once before any comes again, or by weight."""
        position = batch * self.draws + self.rank * self.part + np.arange(self.part)
        rounds, places = np.divmod(position, self.count)
        orders = {r: self._order(r) for r in np.unique(rounds)}
        chosen = np.array([orders[r][p] for r, p in zip(rounds, places, strict=True)])
        if self.partners is None:
            return chosen
        return np.stack([chosen, self.partners[chosen]], axis=1).ravel()

    def _order(self, turn):
        rng = np.random.default_rng((self.seed, turn))
        if self.sampling is None:
            return rng.permutation(self.count)
        return rng.permutation(resample(self.sampling, rng))


def _check_sampling(sampling, count):
    sampling = np.asarray(sampling, "float64")
    if sampling.shape != (count,):
        raise VPGCError(
            f"Sampling weights of shape {sampling.shape} do not belong to {count} frames: give one "
            "weight a frame."
        )
    if not (np.isfinite(sampling).all() and (sampling >= 0).all() and sampling.sum() > 0):
        raise VPGCError(
            "Sampling weights must be finite, not negative and not all zero: choose others."
        )
    return sampling


def _check_shard(shard):
    rank, ranks = shard or (0, 1)
    if not 0 <= rank < ranks:
        raise VPGCError(
            f"There is no shard {rank} of {ranks}: give (rank, count) with a rank from 0 to "
            "count - 1."
        )
    return rank, ranks


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
        images: uint8 `(n, s, s, 3)`; a `numpy.memmap` serves where they exceed the memory.
        batch_size: Images a batch, of all shards together.
        steps: Batches an epoch of `fit`.
        seed: Seed of the order and of the augmentation.
        augmentation: A Keras (or keras-cv) preprocessing layer, or any callable, on float32 RGB
            batches in [0, 255]; called with `training=True`. Default: none. See `augment` for
            what makes it repeatable.
        start: Number of batches already trained on, to go on with the same order.
        landmarks: Float `(n, points, 2)` of the images, to weigh regions; default: none.
        region_weights: See `weigh_regions`. An augmentation that moves the face moves it out of
            its regions.
        sampling: Float `(n,)`, how often each image comes, see
            `keras_vpgc.data.sampling.rare_frame_weights`; default: all alike.
        shard: `(rank, count)` for data-parallel training: each process gets its contiguous part
            of every batch; default: all.
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Batch `i` of the run depends on `seed` and `i` alone, its augmentation too, so that a run that
    goes on at `start=i` sees what the whole run would have seen. Give `shuffle=False` to `fit`,
    which else deals the batches of an epoch in an order of its own.

    Returns of `[i]`:
        Tuple of a uint8 array `(batch_size, s, s, 3)` and, with landmarks, the weights of its
        pixels, float32 `(batch_size, s, s, 1)`.

    Raises:
        VPGCError: if a batch is larger than the data or cannot be divided among the shards, or
            the sampling weights do not fit.

    Example:

    ```python
    batches = FrameBatches(images, 4, steps=100, augmentation=keras.layers.RandomBrightness(0.1))
    trainer.fit(batches, epochs=10, shuffle=False)
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

    def make(self, batch):
        chosen = self.chosen(batch)
        images = np.asarray(self.images[chosen])
        if self.augmentation is not None:
            images = augment(self.augmentation, images, (self.seed, batch, self.rank))
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
        pairs: Is each example followed by the next frame of the clip, for a loss on what changes
            between two frames? A batch is then `t0, t0 + 1, t1, t1 + 1, ...`; where `t + 1` is no
            training example `t - 1` follows, and `t` itself where neither is. Both are enlarged
            alike.
        indices: Int `(m,)`, the frame numbers of the training examples; needed for `pairs`.
        **kwargs: `sampling` and `shard` as for `FrameBatches`, and arguments of
            `keras.utils.PyDataset`.

    Returns of `[i]`:
        Pair of float32 heatmaps `(batch_size, s, s, context)` in [0, 1] and float32 features.

    Raises:
        VPGCError: as `FrameBatches`; for pairs without `indices`, or an odd batch.

    Example:

    ```python
    batches = DriverBatches(
        heatmaps, context_indices(len(heatmaps), 7)[train], features, 8, 100, pairs=True,
        indices=train,
    )
    ```
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
        pairs=False,
        indices=None,
        **kwargs,
    ):
        partners = _next_frames(indices, len(features)) if pairs else None
        super().__init__(len(features), batch_size, steps, seed, start, partners=partners, **kwargs)
        self.heatmaps, self.neighbours, self.features = heatmaps, neighbours, features
        self.scale_jitter = scale_jitter

    def make(self, batch):
        chosen = self.chosen(batch)
        return self.inputs(batch, chosen), np.asarray(self.features[chosen], "float32")

    def inputs(self, batch, chosen):
        """Heatmaps of the chosen examples, the driver's input."""
        if not self.scale_jitter:
            return stack_context(self.heatmaps, self.neighbours[chosen])
        heatmaps = self.heatmaps[self.neighbours[chosen]]
        factors = self.factors(batch)
        heatmaps = np.stack([_enlarge(h, f) for h, f in zip(heatmaps, factors, strict=True)])
        return np.moveaxis(heatmaps, 1, -1).astype("float32") / 255.0

    def factors(self, batch):
        """By how much each example's drawings are enlarged."""
        rng = np.random.default_rng((self.seed, batch, 1))
        low, high = 1 - self.scale_jitter, 1 + self.scale_jitter
        return self.own(rng.uniform(low, high, self.draws))


def _next_frames(indices, count):
    """Which example follows each: that of the next frame, else of the one before, else itself."""
    if indices is None or len(indices) != count:
        given = "none" if indices is None else len(indices)
        raise VPGCError(
            f"Pairs of frames need the frame numbers of all {count} training examples; received "
            f"{given}: give them as indices."
        )
    frames = [int(frame) for frame in indices]
    place = {frame: i for i, frame in enumerate(frames)}
    return np.array([place.get(f + 1, place.get(f - 1, i)) for i, f in enumerate(frames)])


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
        *args: `heatmaps`, `neighbours`, `features`, `batch_size`, `steps`, `seed`, `start` and
            `scale_jitter` as for `DriverBatches`.
        images: uint8 `(m, s, s, 3)`.
        landmarks: Float `(m, points, 2)` of the images.
        region_weights: See `weigh_regions`.
        **kwargs: As for `DriverBatches`.

    Returns of `[i]`:
        Heatmaps, the pair of features and images (float32 in [-1, 1]), and the pair of weights
        `(b, 1, 1)` and `(b, s, s)`.
    """

    def __init__(self, *args, images, landmarks, region_weights=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.images, self.landmarks, self.region_weights = images, landmarks, region_weights

    def make(self, batch):
        chosen = self.chosen(batch)
        images = np.asarray(self.images[chosen], "float32") / 127.5 - 1.0
        weights = weigh_regions(self.landmarks[chosen], images.shape[1], self.region_weights)
        return (
            self.inputs(batch, chosen),
            (np.asarray(self.features[chosen], "float32"), images),
            (np.ones((len(chosen), 1, 1), "float32"), weights),
        )


def stack_context(heatmaps, neighbours):
    """uint8 `(n, s, s)` drawings and int `(b, t)` -> float32 `(b, s, s, t)` in [0, 1]."""
    return np.moveaxis(heatmaps[neighbours], 1, -1).astype("float32") / 255.0


def augment(augmentation, images, seed=None):
    """Apply a preprocessing layer to uint8 images.

    Args:
        augmentation: See `FrameBatches`. keras-cv layers compute in TensorFlow whatever the
            backend; the result comes back as numpy.
        images: uint8 `(b, s, s, 3)`.
        seed: Tuple of non-negative ints that alone decides what a layer draws: the states of all
            its `keras.random.SeedGenerator`s are derived from it, for this call and in this
            thread only; for keras-cv layers TensorFlow's global seed and their generators are
            set. Any other callable is given `seed`, an int below 2**32, if it has an argument of
            that name, and else draws what it likes. Default: the layer's own course.

    Returns:
        uint8 `(b, s, s, 3)`.

    Raises:
        VPGCError: if the layer changes the images' shape.
    """
    images = np.ascontiguousarray(images)
    with _seeded(augmentation, seed) as keywords:
        try:
            result = augmentation(images.astype("float32"), training=True, **keywords)
        except TypeError as error:
            if "training" not in str(error):
                raise
            result = augmentation(images.astype("float32"), **keywords)
    if hasattr(result, "detach"):
        result = result.detach().cpu()
    result = np.asarray(result)
    if result.shape != images.shape:
        raise VPGCError(
            f"The augmentation turned images of shape {images.shape} into {result.shape}: it must "
            "keep the shape."
        )
    return np.clip(np.rint(result), 0, 255).astype("uint8")


# TensorFlow has one global seed, and batches may be made in several threads.
_TENSORFLOW_SEED = threading.Lock()


@contextlib.contextmanager
def _seeded(augmentation, seed):
    """Let an augmentation draw from a seed; gives keyword arguments for its call."""
    if seed is None:
        yield {}
        return
    sequence = np.random.SeedSequence(seed)
    if not isinstance(augmentation, keras.layers.Layer):
        number = int(sequence.generate_state(1)[0])
        yield {"seed": number} if _takes_seed(augmentation) else {}
        return
    with contextlib.ExitStack() as stack:
        states = [v for v in augmentation.variables if v.name == "seed_generator_state"]
        # Seeds are int32 on some backends.
        numbers = sequence.generate_state(2 * len(states)).reshape(-1, 2) >> 1
        scope = keras.StatelessScope(list(zip(states, numbers, strict=True)))
        foreign = [x for x in augmentation._flatten_layers() if _is_keras_cv(x)]
        if foreign:
            import tensorflow as tf

            stack.enter_context(_TENSORFLOW_SEED)
            number = int(sequence.generate_state(1)[0])
            tf.random.set_seed(number)
            for place, layer in enumerate(foreign):
                if hasattr(layer, "_random_generator"):
                    layer._random_generator.reset_from_seed(number + place)
        stack.enter_context(scope)
        yield {}


def _takes_seed(function):
    try:
        return "seed" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins tell nothing
        return False


def _is_keras_cv(layer):
    return any(c.__module__.startswith("keras_cv.") for c in type(layer).__mro__)
