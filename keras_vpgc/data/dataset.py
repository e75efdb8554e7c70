"""Batches for `fit`, out of arrays."""

import contextlib
import inspect
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from keras_vpgc.data.moves import draw_moves, move, move_landmarks, move_on_device
from keras_vpgc.data.person import Backdrop, HeadPlaces, before_backdrop
from keras_vpgc.data.sampling import resample
from keras_vpgc.errors import VPGCError

CONTEXT_MODES = ("centered", "causal")
CACHES = ("auto", "host", "device")
# Of the accelerator's free memory; the rest is for the network and its gradients.
DEVICE_SHARE = 0.4


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


class ShuffledBatches(keras.utils.PyDataset):
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
        prefetch: Number of batches made ahead in as many threads. Unlike the `workers` of Keras
            it never changes which batch comes when.
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
        prefetch=0,
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
        self._within, self._asked = False, 0
        self._pool = ThreadPoolExecutor(prefetch) if prefetch else None
        self.prefetch, self._ahead = prefetch, dict[int, Future]()
        self._lock = threading.Lock()
        self.cache, self.arrays = "host", None

    def __len__(self):
        return self.steps

    def on_epoch_begin(self):
        self._within = True

    def on_epoch_end(self):
        # Before its first epoch `fit` may look at a batch or two, and calls this in any case.
        if self._within and (self._asked >= self.steps or self.use_multiprocessing):
            self.done += self.steps
        self._within, self._asked = False, 0

    def __getitem__(self, index):
        batch = self.done + index
        with self._lock:
            self._asked += 1
        if self._pool is None:
            return self.make(batch)
        with self._lock:
            for i in [i for i in self._ahead if not batch <= i <= batch + self.prefetch]:
                self._ahead.pop(i).cancel()
            for i in range(batch, batch + self.prefetch + 1):
                if i not in self._ahead:
                    self._ahead[i] = self._pool.submit(self.make, i)
            wanted = self._ahead.pop(batch)
        return wanted.result()

    def make(self, batch):
        """Batch number `batch` of the run, counted from 0."""
        raise NotImplementedError

    def keep(self, cache, arrays, suits=True):
        """Decide where the arrays lie during training.

        Args:
            cache: See `FrameBatches`.
            arrays: Dict of numpy arrays with `count` rows, or for each frame one.
            suits: Should `"auto"` consider the device at all?
        """
        if cache not in CACHES:
            raise VPGCError(f"There is no cache {cache!r}: choose 'auto', 'host' or 'device'.")
        if cache == "auto":
            free = backend.free_memory() if suits else None
            size = sum(a.nbytes for a in arrays.values())
            cache = "device" if free and size <= DEVICE_SHARE * free else "host"
        if cache == "device" and backend.keeps_device_batches():
            self.cache = "device"
            self.arrays = {name: backend.to_device(a) for name, a in arrays.items()}
            self.gather = backend.jitted(self.pick)

    def pick(self, arrays, chosen, *more):
        """A batch out of arrays on the device."""
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
# How far the head with its hair reaches beyond the landmarks: to each side in widths of these, and
# upwards in heights from brows to chin.
_HEAD = (0.35, 0.9)
# Of the same height: where the mouth is, below which shoulders may be beside the jaw, and how far
# the neck reaches below the chin; of the width: how far the jaw reaches beyond its landmarks.
_MOUTH, _NECK, _JAW = 0.65, 0.25, 0.05


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
    return _Regions(landmarks, size, weights).weigh()


class _Regions:
    """The boxes of face, eyes and mouth of each image, found once.

    Attributes:
        boxes: Int32 `(n, regions, 4)`: left, top, right and bottom in pixels, the latter two
            exclusive. The last three are head, jaw and neck, which have no weight of their own.
    """

    def __init__(self, landmarks, size, weights):
        weights = REGION_WEIGHTS if weights is None else weights
        for name in weights:
            if name not in _REGIONS:
                raise VPGCError(
                    f"There is no region {name!r} to weigh: choose of {', '.join(_REGIONS)}."
                )
        self.size, self.values = size, list(weights.values())
        self.boxes = np.zeros((len(landmarks), len(weights) + 3, 4), "int32")
        # Lids and lips reach beyond their landmarks.
        margin = np.tile(0.025 * size * np.array([-1, -1, 1, 1]), (len(landmarks), 1))
        for place, name in enumerate([*weights, "face"]):
            points = np.asarray(landmarks)[:, _REGIONS[name]] * size
            box = np.concatenate([points.min(1), points.max(1)], axis=1)
            if place < len(weights):
                self._put(place, box + margin)
        width, height, none = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1], np.zeros(len(box))
        side, jaw = _HEAD[0] * width, _JAW * width
        self._put(-3, box + np.stack([-side, -_HEAD[1] * height, side, none], axis=1))
        self._put(-2, box + np.stack([-jaw, _MOUTH * height, jaw, none], axis=1))
        self._put(-1, box + np.stack([-jaw, height, jaw, _NECK * height], axis=1))

    def _put(self, place, box):
        self.boxes[:, place, :2] = np.clip(box[:, :2], 0, self.size)
        self.boxes[:, place, 2:] = np.clip(np.ceil(box[:, 2:]), 0, self.size)

    def weigh(self, chosen=slice(None), moves=None):
        """See `weigh_regions`; of images that are moved, see `keras_vpgc.data.moves`."""
        boxes = self.boxes[chosen]
        if moves is not None:
            return self.weigh_anew(boxes, moves, np)
        result = np.ones((len(boxes), self.size, self.size), "float32")
        for image, regions in zip(result, boxes, strict=True):
            for (x, y, right, bottom), weight in zip(regions[:-3], self.values, strict=True):
                box = image[y:bottom, x:right]
                np.maximum(box, weight, out=box)
        return result / result.mean(axis=(1, 2), keepdims=True)

    def weigh_anew(self, boxes, moves=None, math=ops):
        """The same out of boxes, on the device as well."""
        result = math.ones((len(boxes), self.size, self.size), dtype="float32")
        places = self._places(moves, math)
        for i, weight in enumerate(self.values):
            within = _within(boxes[:, i], *places)
            result = math.where(within, math.maximum(result, weight), result)
        return result / math.mean(result, axis=(1, 2), keepdims=True)

    def move_heads(self, images, boxes, moves, backdrop, math=np):
        """Images with moved heads, see `keras_vpgc.data.person.before_backdrop`, and weights."""
        moved = (move if math is np else move_on_device)(images, moves)
        weights = self.weigh_anew(boxes, moves, math)
        if backdrop is None:
            head = _within(boxes[:, -3], *self._places(moves, math))
            still = math.reshape(math.logical_not(moves.moved()), (-1, 1, 1))
            return moved, math.where(still | head, weights, 0.0)[..., None]
        places = self._heads(boxes, moves, math)
        shown, weights = before_backdrop(moved, images, weights, places, moves, backdrop, math)
        return shown, weights[..., None]

    def _heads(self, boxes, moves, math):
        """`HeadPlaces` of images that are moved."""
        head, jaw, neck = (boxes[:, place] for place in (-3, -2, -1))
        x, y = self._places(moves, math)
        box = _within(head, x, y)
        core = box & ((y + 0.5 < jaw[:, 1, None, None]) | _within(jaw, x, y))
        # A head that the picture cuts off goes on beyond it.
        beyond = _within(head, *(math.clip(v, 0.0, self.size - 1.0) for v in (x, y)))
        near = beyond | _within(neck, x, y)
        return HeadPlaces(core, near, _within(head, *self._places(None, math)))

    def _places(self, moves, math):
        """Where the pixels come from: columns and rows."""
        if moves is not None:
            return moves.sources(self.size, math)
        place = math.arange(self.size, dtype="float32")
        return place[None, None, :], place[None, :, None]


def _within(boxes, x, y):
    """Which pixels lie in boxes `(b, 4)`."""
    left, top, right, bottom = (boxes[:, j, None, None] for j in range(4))
    beside = (x + 0.5 > left) & (x + 0.5 < right)
    return beside & (y + 0.5 > top) & (y + 0.5 < bottom)


class FrameBatches(ShuffledBatches):
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
        jitter: Each image is enlarged and turned about its middle and shifted at random, and its
            regions with it, see `keras_vpgc.data.moves.draw_moves`; pixels at the border are
            repeated. 0 for none.
        sampling: Float `(n,)`, how often each image comes, see
            `keras_vpgc.data.sampling.rare_frame_weights`; default: all alike.
        shard: `(rank, count)` for data-parallel training: each process gets its contiguous part
            of every batch; default: all.
        prefetch: Number of batches made ahead in as many threads; default 0. Unlike Keras's
            `workers` it never changes which batch comes when.
        cache: Where the images lie. `"device"`: once for all in the accelerator's memory, so that
            a step sends indices alone; a Keras layer augments them there. `"host"`: in the host's
            memory, where a Keras layer without weights computes too, so as not to wait for the
            step. `"auto"`: on an accelerator if they take at most 40% of its free memory and the
            augmentation is a Keras layer or none, else on the host. Of several devices each
            keeps all of them. On TensorFlow always the host, as `fit` reads from there by
            `tf.data`. The attribute `cache` says which it became.
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Batch `i` of the run depends on `seed` and `i` alone, its augmentation too, so that a run that
    goes on at `start=i` sees what the whole run would have seen. Give `shuffle=False` to `fit`,
    which else deals the batches of an epoch in an order of its own.

    Returns of `[i]`:
        Tuple of a uint8 array `(b, s, s, 3)` and, with landmarks, the weights of its pixels,
        float32 `(b, s, s, 1)`; `b` is `batch_size`, or this shard's part of it. Tensors of the
        backend where the images lie on the device.

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
        cache="auto",
        jitter=0.0,
        **kwargs,
    ):
        super().__init__(len(images), batch_size, steps, seed, start, **kwargs)
        self.images, self.jitter = images, jitter
        self.augmentation = augmentation
        self.regions = None
        arrays = {"images": images}
        if landmarks is not None:
            self.regions = _Regions(landmarks, images.shape[1], region_weights)
            arrays["boxes"] = self.regions.boxes
        self.keep(cache, arrays, augmentation is None or _computes_in_keras(augmentation))

    # Which part of the images is moved?
    share = 1.0

    def make(self, batch):
        chosen, moves = self.chosen(batch), self.moves(batch)
        if self.cache == "device":
            images, *weights = self.gather(self.arrays, chosen, moves)
        else:
            images, *weights = self.show(np.asarray(self.images[chosen]), chosen, moves)
        if self.augmentation is not None:
            images = augment(self.augmentation, images, (self.seed, batch, self.rank))
        return (images, *weights)

    def moves(self, batch):
        """How this shard's images of a batch are moved, or `None`."""
        if not self.jitter:
            return None
        return _draw_moves(self, batch, self.share)

    def show(self, images, chosen, moves):
        """Images, moved, and the weights of their pixels."""
        if moves is not None:
            images = move(images, moves)
        if self.regions is None:
            return (images,)
        return images, self.regions.weigh(chosen, moves)[..., None]

    def pick(self, arrays, chosen, moves):
        images = backend.take(arrays["images"], chosen)
        if moves is not None:
            images = move_on_device(images, moves)
        if self.regions is None:
            return (images,)
        boxes = backend.take(arrays["boxes"], chosen)
        return images, self.regions.weigh_anew(boxes, moves)[..., None]


def _draw_moves(batches, batch, share):
    """The moves of a shard's part of a batch."""
    rng = np.random.default_rng((batches.seed, batch, 2))
    moves = draw_moves(rng, batches.draws, batches.jitter, batches.images.shape[1], share)
    return moves.part(slice(batches.rank * batches.part, (batches.rank + 1) * batches.part))


class LandmarkBatches(FrameBatches):
    """`FrameBatches` with the landmarks that the images are to be made from.

    Args:
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        neighbours: Int `(m, context)`, the frames seen with each image.
        images: uint8 `(m, s, s, 3)`.
        *args, **kwargs: As for `FrameBatches`; `region_landmarks` stands for its `landmarks`, and
            `jitter`, which needs them, moves images as it does for `DriverImageBatches`.
        backdrop: See there.

    Returns of `[i]`:
        Landmarks, float32 `(b, context, points, 2)`, images and, with `region_landmarks`, the
        weights of their pixels.
    """

    share = 0.5

    def __init__(
        self, landmarks, neighbours, images, *args, region_landmarks=None, backdrop=None, **kwargs
    ):
        self.windows = np.asarray(landmarks, "float32")[neighbours]
        self.backdrop = backdrop
        super().__init__(images, *args, landmarks=region_landmarks, **kwargs)

    def make(self, batch):
        windows, moves = self.windows[self.chosen(batch)], self.moves(batch)
        if moves is not None:
            windows = move_landmarks(windows, moves, self.images.shape[1])
        return (windows, *super().make(batch))

    def keep(self, cache, arrays, suits=True):
        super().keep(cache, {**arrays, **_arrays_of(self.backdrop)}, suits)

    def show(self, images, chosen, moves):
        if moves is None:
            return super().show(images, chosen, moves)
        backdrop = None if self.backdrop is None else self.backdrop.part(chosen)
        return self.regions.move_heads(images, self.regions.boxes[chosen], moves, backdrop)

    def pick(self, arrays, chosen, moves):
        if moves is None:
            return super().pick(arrays, chosen, moves)
        images, boxes = (backend.take(arrays[x], chosen) for x in ("images", "boxes"))
        return self.regions.move_heads(images, boxes, moves, _backdrop_of(arrays, chosen), ops)


def _arrays_of(backdrop):
    return {} if backdrop is None else {f"backdrop_{k}": v for k, v in backdrop._asdict().items()}


def _backdrop_of(arrays, chosen):
    """The backdrop of some frames, out of arrays on the device; or `None`."""
    if "backdrop_people" not in arrays:
        return None
    people = backend.take(arrays["backdrop_people"], chosen)
    return Backdrop(arrays["backdrop_plate"], arrays["backdrop_known"], people)


class DriverBatches(ShuffledBatches):
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
        cache: Where heatmaps and features lie, see `FrameBatches`. On the device the drawings are
            enlarged in floats rather than in steps of 1/32 of a pixel.
        **kwargs: `sampling`, `shard` and `prefetch` as for `FrameBatches`, and arguments of
            `keras.utils.PyDataset`.

    Returns of `[i]`:
        Pair of float32 heatmaps `(b, s, s, context)` in [0, 1] and float32 features, `b` as for
        `FrameBatches`.

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
        cache="auto",
        **kwargs,
    ):
        partners = _next_frames(indices, len(features)) if pairs else None
        super().__init__(len(features), batch_size, steps, seed, start, partners=partners, **kwargs)
        self.heatmaps, self.neighbours, self.features = heatmaps, neighbours, features
        self.scale_jitter = scale_jitter
        self.keep(cache, self.cached())
        if self.cache == "device" and scale_jitter:
            self.middles = _middles(heatmaps, neighbours)

    def cached(self):
        """What the device may keep."""
        features = self.features
        if features.dtype == "float64":
            features = features.astype("float32")
        return {"heatmaps": self.heatmaps, "features": features}

    def make(self, batch):
        chosen = self.chosen(batch)
        if self.cache == "device":
            return self.gather(self.arrays, chosen, *self.drawn(batch, chosen))
        return self.inputs(batch, chosen), np.asarray(self.features[chosen], "float32")

    def drawn(self, batch, chosen):
        """What `pick` needs besides the chosen examples: neighbours, and how to enlarge them."""
        if not self.scale_jitter:
            return (self.neighbours[chosen],)
        factors = self.factors(batch).astype("float32")
        return self.neighbours[chosen], factors, self.middles[chosen]

    def pick(self, arrays, chosen, neighbours, factors=None, middles=None):
        heatmaps = ops.moveaxis(backend.take(arrays["heatmaps"], neighbours), 1, -1)
        heatmaps = ops.cast(heatmaps, "float32") / 255.0
        if factors is not None:
            heatmaps = _enlarge_on_device(heatmaps, factors, middles)
        return heatmaps, ops.cast(backend.take(arrays["features"], chosen), "float32")

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


def _middles(heatmaps, neighbours):
    """The middle x and y of what each example's drawings show, float32 `(m, 2)`."""
    ends = []
    for axis in (1, 2):
        drawn = heatmaps.any(axis=axis)
        first, last = drawn.argmax(1), drawn.shape[1] - 1 - drawn[:, ::-1].argmax(1)
        # Where nothing is drawn there is nothing to enlarge.
        first = np.where(drawn.any(1), first, drawn.shape[1])
        ends.append(first[neighbours].min(1) + np.where(drawn.any(1), last, 0)[neighbours].max(1))
    return np.stack(ends, -1).astype("float32") / 2


def _enlarge_on_device(drawings, factors, middles):
    """`_enlarge` of a tensor `(b, s, s, t)`."""
    place = ops.arange(drawings.shape[1], dtype="float32")
    factors, middles = ops.convert_to_tensor(factors), ops.convert_to_tensor(middles)
    middles = middles[..., None]
    return _resample_on_device(drawings, middles + (place - middles) / factors[:, None, None])


def _resample_on_device(images, source):
    """Tensors `(b, s, s, c)`, bilinear, along columns, then rows; nothing beyond the border.

    Args:
        images: Float tensor.
        source: Float `(b, 2, s)`: where the pixels of each column and of each row come from.
    """
    place = ops.arange(images.shape[1], dtype="float32")
    columns, rows = (
        ops.maximum(1.0 - ops.abs(source[:, axis, :, None] - place), 0.0) for axis in (0, 1)
    )
    images = ops.einsum("byi,bijt->byjt", rows, images)
    return ops.einsum("bxj,byjt->byxt", columns, images)


class DriverImageBatches(DriverBatches):
    """`DriverBatches` with the true images and the weights of their pixels.

    Args:
        *args: `heatmaps`, `neighbours`, `features`, `batch_size`, `steps`, `seed`, `start` and
            `scale_jitter` as for `DriverBatches`.
        images: uint8 `(m, s, s, 3)`.
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        indices: Int `(m,)`, the frame numbers of the training examples.
        region_weights: See `weigh_regions`.
        jitter: Half of the examples, drawn at random, are moved as by `FrameBatches`, landmarks
            and image alike; of the image the head alone, as background and body do not move as it
            does, see `keras_vpgc.data.person.before_backdrop`. What is not known of such a picture
            weighs 0. 0 for none.
        backdrop: With jitter, a `keras_vpgc.data.person.Backdrop` of the training frames. Without
            one the whole image is moved, and nothing but the head's box weighs anything.
        draw: With jitter, the layer that draws landmarks `(b, context, points, 2)`, a
            `keras_vpgc.layers.LandmarkHeatmap`.
        **kwargs: As for `DriverBatches`.

    Returns of `[i]`:
        The pair of heatmaps and features (of moved examples: as if they were not), images (uint8)
        and their weights `(b, s, s, 1)`.
    """

    def __init__(
        self,
        *args,
        images,
        landmarks,
        indices,
        region_weights=None,
        jitter=0.0,
        backdrop=None,
        draw=None,
        **kwargs,
    ):
        self.images, self.jitter = images, jitter
        self.backdrop = backdrop if jitter else None
        self.landmarks = np.asarray(landmarks, "float32")
        self.regions = _Regions(self.landmarks[indices], images.shape[1], region_weights)
        if jitter:
            self.draw_on_device = draw
            self.draw = backend.jitted(draw)
        super().__init__(*args, **kwargs)

    def cached(self):
        arrays = {**super().cached(), "images": self.images, "boxes": self.regions.boxes}
        arrays |= _arrays_of(self.backdrop)
        if self.jitter:
            del arrays["heatmaps"]  # They are drawn anew.
        return arrays

    def make(self, batch):
        if self.cache == "device":
            return super().make(batch)
        chosen = self.chosen(batch)
        features = np.asarray(self.features[chosen], "float32")
        images = np.asarray(self.images[chosen])
        if not self.jitter:
            weights = self.regions.weigh(chosen)
            return (self.inputs(batch, chosen), features), images, weights[..., None]
        windows, moves = self.moved(batch, chosen)
        heatmaps = ops.convert_to_numpy(self.draw(ops.convert_to_tensor(windows)))
        backdrop = None if self.backdrop is None else self.backdrop.part(chosen)
        boxes = self.regions.boxes[chosen]
        return (heatmaps, features), *self.regions.move_heads(images, boxes, moves, backdrop)

    def moved(self, batch, chosen):
        """Landmarks of the examples, and how they are moved."""
        windows = self.landmarks[self.neighbours[chosen]]
        if self.scale_jitter:
            middles = (windows.min((1, 2)) + windows.max((1, 2)))[:, None, None] / 2
            factors = self.factors(batch).astype("float32")[:, None, None, None]
            windows = middles + (windows - middles) * factors
        moves = _draw_moves(self, batch, LandmarkBatches.share)
        return move_landmarks(windows, moves, self.images.shape[1]), moves

    def drawn(self, batch, chosen):
        return self.moved(batch, chosen) if self.jitter else super().drawn(batch, chosen)

    def pick(self, arrays, chosen, *more):
        images = backend.take(arrays["images"], chosen)
        boxes = backend.take(arrays["boxes"], chosen)
        if not self.jitter:
            weights = self.regions.weigh_anew(boxes)
            return super().pick(arrays, chosen, *more), images, weights[..., None]
        windows, moves = more
        heatmaps = self.draw_on_device(ops.convert_to_tensor(windows))
        features = ops.cast(backend.take(arrays["features"], chosen), "float32")
        backdrop = _backdrop_of(arrays, chosen)
        return (heatmaps, features), *self.regions.move_heads(images, boxes, moves, backdrop, ops)


class TeacherBatches(ShuffledBatches):
    """What a trained puppet shows for true and for new landmarks, to teach another one.

    Args:
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        indices: Int `(m,)`, the training frames.
        images: uint8 `(m, s, s, 3)`, the training frames.
        poses: Gives new windows of landmarks, see `keras_vpgc.data.seen_poses.SeenPoses.sample`.
        offsets: Int `(t,)`, the frames of a window relative to the one that is shown.
        teach: Function of float32 `(b, t, points, 2)` that gives the teacher's features and
            images, float in [-1, 1], and the heatmaps that the student reads.
        batch_size, steps, seed, start: As for `FrameBatches`.
        true_share: Share of the examples that are frames of the clip, with the true image. The
            others are new, with the teacher's.
        region_weights: See `weigh_regions`.
        **kwargs: `sampling` as for `FrameBatches`, and arguments of `keras.utils.PyDataset`.

    Returns of `[i]`:
        The pair of heatmaps and the teacher's features, images (float in [-1, 1]) and the weights
        of their pixels `(b, s, s, 1)`.
    """

    def __init__(
        self,
        landmarks,
        indices,
        images,
        poses,
        offsets,
        teach,
        batch_size,
        steps,
        seed=0,
        start=0,
        true_share=0.5,
        region_weights=None,
        **kwargs,
    ):
        super().__init__(len(indices), batch_size, steps, seed, start, **kwargs)
        windows = np.clip(indices[:, None] + np.asarray(offsets), 0, len(landmarks) - 1)
        self.landmarks, self.windows, self.images = landmarks, windows, images
        self.poses, self.teach, self.true_share = poses, teach, true_share
        self.shown = int(np.flatnonzero(np.asarray(offsets) == 0)[0])
        self.region_weights = region_weights

    def make(self, batch):
        rng = np.random.default_rng((self.seed, batch, 2))
        chosen = self.chosen(batch)
        landmarks = self.landmarks[self.windows[chosen]].astype("float32")
        new = rng.uniform(size=len(chosen)) >= self.true_share
        if new.any():
            landmarks[new] = self.poses(int(new.sum()), rng)
        features, images, heatmaps = self.teach(landmarks)
        true = self.images[chosen].astype("float32") / 127.5 - 1.0
        images = np.where(new[:, None, None, None], np.clip(images, -1.0, 1.0), true)
        weights = weigh_regions(landmarks[:, self.shown], images.shape[1], self.region_weights)
        return (heatmaps, features), images, weights[..., None]


def stack_context(heatmaps, neighbours):
    """uint8 `(n, s, s)` drawings and int `(b, t)` -> float32 `(b, s, s, t)` in [0, 1]."""
    return np.moveaxis(heatmaps[neighbours], 1, -1).astype("float32") / 255.0


def augment(augmentation, images, seed=None):
    """Apply a preprocessing layer to uint8 images.

    Args:
        augmentation: See `FrameBatches`. keras-cv layers compute in TensorFlow whatever the
            backend; the result comes back as numpy.
        images: uint8 `(b, s, s, 3)`; for a Keras layer a tensor too, which it changes where that
            lies.
        seed: Tuple of non-negative ints that alone decides what a layer draws: the states of all
            its `keras.random.SeedGenerator`s are derived from it, for this call and in this
            thread only; for keras-cv layers TensorFlow's global seed and their generators are
            set. Any other callable is given `seed`, an int below 2**32, if it has an argument of
            that name, and else draws what it likes. Default: the layer's own course.

    Returns:
        uint8 `(b, s, s, 3)`: numpy, or a tensor if a Keras layer was given one.

    Raises:
        VPGCError: if the layer changes the images' shape.
    """
    on_device = not isinstance(images, np.ndarray) and _computes_in_keras(augmentation)
    if on_device:
        floats = ops.cast(images, "float32")
    else:
        images = np.ascontiguousarray(ops.convert_to_numpy(images))
        floats = images.astype("float32")
    with _seeded(augmentation, seed, on_device) as keywords:
        try:
            result = augmentation(floats, training=True, **keywords)
        except TypeError as error:
            if "training" not in str(error):
                raise
            result = augmentation(floats, **keywords)
    if not on_device:
        if hasattr(result, "detach"):
            result = result.detach().cpu()
        result = np.asarray(result)
    if result.shape != images.shape:
        raise VPGCError(
            f"The augmentation turned images of shape {images.shape} into {result.shape}: it must "
            "keep the shape."
        )
    if on_device:
        return ops.cast(ops.clip(ops.round(result), 0, 255), "uint8")
    return np.clip(np.rint(result), 0, 255).astype("uint8")


# TensorFlow has one global seed, and batches may be made in several threads.
_TENSORFLOW_SEED = threading.Lock()


@contextlib.contextmanager
def _seeded(augmentation, seed, on_device):
    """Let an augmentation draw from a seed; gives keyword arguments for its call."""
    if seed is None:
        yield {}
        return
    sequence = np.random.SeedSequence(seed)
    number = int(sequence.generate_state(1)[0])
    if not isinstance(augmentation, keras.layers.Layer):
        yield {"seed": number} if _takes_seed(augmentation) else {}
        return
    variables = augmentation.variables
    states = [v for v in variables if v.name == "seed_generator_state"]
    # Seeds are int32 on some backends.
    numbers = sequence.generate_state(2 * len(states)).reshape(-1, 2) >> 1
    with contextlib.ExitStack() as stack:
        if not on_device and len(states) == len(variables):
            stack.enter_context(backend.on_host())
        if not _computes_in_keras(augmentation):
            import tensorflow as tf

            stack.enter_context(_TENSORFLOW_SEED)
            tf.random.set_seed(number)
            for place, layer in enumerate(augmentation._flatten_layers()):
                if isinstance(getattr(layer, "_random_generator", None), tf.random.Generator):
                    layer._random_generator.reset_from_seed(number + place)
        stack.enter_context(keras.StatelessScope(list(zip(states, numbers, strict=True))))
        yield {}


def _takes_seed(function):
    try:
        return "seed" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins tell nothing
        return False


def _computes_in_keras(augmentation):
    """Is this a layer of Keras alone, without any of keras-cv's?"""
    return isinstance(augmentation, keras.layers.Layer) and not any(
        c.__module__.startswith("keras_cv.")
        for layer in augmentation._flatten_layers()
        for c in type(layer).__mro__
    )
