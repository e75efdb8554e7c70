import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError, backend
from keras_vpgc.data import DriverBatches, FrameBatches, context_indices
from keras_vpgc.data.dataset import DriverImageBatches, LandmarkBatches, augment, weigh_regions
from keras_vpgc.data.moves import move_landmarks
from keras_vpgc.data.portrait import fill
from keras_vpgc.layers import LandmarkHeatmap
from tests.layers.layer_case import to_numpy


def test_context_is_centred_or_causal_and_repeats_the_ends():
    assert context_indices(4, 3).tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert context_indices(4, 3, "causal").tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
    ]
    assert context_indices(3, 1).tolist() == [[0], [1], [2]]
    with pytest.raises(VPGCError, match="context of 4 frames has no middle"):
        context_indices(4, 4)
    with pytest.raises(VPGCError, match="no context mode 'both'"):
        context_indices(4, 3, "both")


def numbered(count):
    return np.broadcast_to(
        np.arange(count, dtype="uint8")[:, None, None, None], (count, 8, 8, 3)
    ).copy()


def seen(batches, epochs):
    found = []
    for _ in range(epochs):
        batches.on_epoch_begin()
        for i in range(len(batches)):
            found.append(batches[i][0][:, 0, 0, 0].tolist())
        batches.on_epoch_end()
    return found


def test_every_frame_comes_once_before_any_comes_again():
    batches = FrameBatches(numbered(10), 4, steps=5, seed=3)
    flat = sum(seen(batches, 2), [])
    for start in range(0, 40, 10):
        assert sorted(flat[start : start + 10]) == list(range(10))
    assert flat[:10] != flat[10:20]


def test_order_is_seeded_and_goes_on_from_a_step():
    whole = seen(FrameBatches(numbered(10), 4, steps=6, seed=3), 1)
    assert whole == seen(FrameBatches(numbered(10), 4, steps=3, seed=3), 2)
    assert whole != seen(FrameBatches(numbered(10), 4, steps=6, seed=4), 1)
    assert whole[2:] == seen(FrameBatches(numbered(10), 4, steps=4, seed=3, start=2), 1)


def test_batch_larger_than_the_data():
    with pytest.raises(VPGCError, match="batch of 11 frames is larger than the training part"):
        FrameBatches(numbered(10), 11, steps=1)


def test_driver_batches_stack_the_neighbours_as_channels(rng):
    heatmaps = rng.integers(0, 256, size=(6, 8, 8), dtype="uint8")
    neighbours = context_indices(6, 3)[[1, 4]]
    features = rng.normal(size=(2, 2, 2, 3)).astype("float16")
    x, y = DriverBatches(heatmaps, neighbours, features, 2, steps=1, seed=0)[0]
    assert x.shape == (2, 8, 8, 3) and x.dtype == y.dtype == np.float32
    for row, target in zip(x, y, strict=True):
        place = [i for i in (0, 1) if np.allclose(features[i], target)][0]
        frame = (1, 4)[place]
        wanted = np.stack([heatmaps[frame + k] for k in (-1, 0, 1)], -1) / 255
        np.testing.assert_allclose(row, wanted, atol=1e-6)


def test_augmentation_is_any_layer_that_keeps_the_shape(rng):
    images = rng.integers(0, 256, size=(2, 8, 8, 3), dtype="uint8")
    brighter = augment(keras.layers.RandomBrightness((0.5, 0.5), value_range=(0, 255)), images)
    assert brighter.dtype == np.uint8
    wanted = np.clip(images + 127.5, 0, 255)
    assert np.abs(brighter - wanted).max() <= 1
    assert (augment(lambda x: 255 - x, images) == 255 - images).all()
    with pytest.raises(VPGCError, match="must keep the shape"):
        augment(lambda x: x[:, :4], images)


@pytest.mark.once
def test_frames_without_a_face_get_the_nearest_ones_values():
    values = np.array([9.0, 1.0, 9.0, 9.0, 9.0, 5.0, 9.0])
    valid = np.array([False, True, False, False, False, True, False])
    assert fill(values, valid).tolist() == [1, 1, 1, 1, 5, 5, 5]


def face(x, y):
    """68 points in one place, eyes a little above and the mouth below it."""
    points = np.full((68, 2), [x, y])
    points[0:17:16] += [[-0.2, 0], [0.2, 0]]
    points[36:48] -= [0, 0.1]
    points[48:68] += [0, 0.1]
    return points


def test_pixels_of_eyes_and_mouth_weigh_more():
    weights = weigh_regions(np.stack([face(0.5, 0.5), face(0.2, 0.5)]), 40)
    np.testing.assert_allclose(weights.mean(axis=(1, 2)), 1, rtol=1e-5)
    first = weights[0] / weights[0, 0, 0]
    assert first[16, 20] == pytest.approx(6) and first[24, 20] == pytest.approx(6)
    assert first[20, 14] == pytest.approx(2) and first[30, 20] == pytest.approx(1)
    assert np.argmax(weights[1].max(axis=0)) < 10
    flat = weigh_regions(face(0.5, 0.5)[None], 40, {})
    np.testing.assert_array_equal(flat, np.ones((1, 40, 40)))
    with pytest.raises(VPGCError, match="no region 'nose'"):
        weigh_regions(face(0.5, 0.5)[None], 40, {"nose": 2.0})


def test_weights_go_with_their_images(rng):
    landmarks = np.stack([face(x, 0.5) for x in (0.2, 0.5, 0.8)])
    images = np.zeros((3, 40, 40, 3), "uint8")
    images[:] = np.arange(3)[:, None, None, None]
    x, weights = FrameBatches(images, 3, steps=1, landmarks=landmarks)[0]
    assert weights.shape == (3, 40, 40, 1)
    for image, weight in zip(x, weights, strict=True):
        wanted = weigh_regions(landmarks[image[0, 0, :1]], 40)[0]
        np.testing.assert_array_equal(weight[..., 0], wanted)


def test_scale_jitter_enlarges_drawings_about_their_middle(rng):
    heatmaps = np.zeros((4, 64, 64), "uint8")
    heatmaps[:, 20:41, 10:31] = 255  # the middle of each is at (20, 30)
    arguments = (heatmaps, context_indices(4, 3), np.zeros((4, 2, 2, 3)), 4)
    x, _ = DriverBatches(*arguments, steps=2, scale_jitter=0.3)[0]
    again, _ = DriverBatches(*arguments, steps=2, scale_jitter=0.3)[0]
    other, _ = DriverBatches(*arguments, steps=2, scale_jitter=0.3)[1]
    np.testing.assert_array_equal(x, again)
    assert (x != other).any()
    sizes = []
    for example in x:
        assert (example == example[..., :1]).all()  # all neighbours alike
        rows, columns = (np.flatnonzero(example[..., 0].max(axis=a) > 0.5) for a in (1, 0))
        assert abs(rows.mean() - 30) <= 0.5 and abs(columns.mean() - 20) <= 0.5
        sizes.append(len(rows))
        assert 21 * 0.7 - 1 <= len(rows) <= 21 * 1.3 + 1
    assert len(set(sizes)) > 1


def test_jitter_moves_frames_and_their_regions_together():
    images = np.full((4, 64, 64, 3), 60, "uint8")
    landmarks = np.stack([face(0.5, 0.5)] * 4)
    weights = weigh_regions(landmarks, 64, {"face": 3.0})[0]
    images[:, weights > weights.min()] = 250
    settings = {"landmarks": landmarks, "region_weights": {"face": 3.0}, "jitter": 0.3}

    def batch(number, **more):
        return [to_numpy(x) for x in FrameBatches(images, 4, 2, **settings, **more)[number]]

    found, weights = batch(0)
    sizes, middles = [], []
    for image, weight in zip(found, weights[..., 0], strict=True):
        bright, inside = image[..., 0] > 155, weight > weight.min()
        assert abs(weight.mean() - 1) < 1e-5
        assert (bright != inside).sum() <= 2 * (bright.any(0).sum() + bright.any(1).sum())
        sizes.append(np.sqrt(bright.sum() / (images[0, ..., 0] > 155).sum()))
        middles.append(np.argwhere(bright).mean(0) - 31.5)
        assert (image[[0, -1]] == 60).all()  # repeated beyond the border, not black
    assert np.ptp(sizes) > 0.1 and 0.65 < min(sizes) and max(sizes) < 1.35
    middles = np.array(middles)
    assert (np.ptp(middles, axis=0) > 1).all() and abs(middles).max() <= 0.3 / 2 * 64 + 1
    assert abs(middles[:, 0] - middles[:, 1]).max() > 1  # along x and y each
    for again, whole in zip(batch(0), (found, weights), strict=True):
        np.testing.assert_array_equal(again, whole)
    np.testing.assert_array_equal(batch(0, shard=(1, 2))[0], found[2:])
    assert (batch(1)[0] != found).any()


def batches_of(batches):
    return [[to_numpy(x) for x in batches[i]] for i in range(len(batches))]


def test_jitter_moves_landmarks_with_their_frames():
    landmarks = np.stack([face(0.5, 0.5)] * 4)
    batches = LandmarkBatches(
        landmarks, context_indices(4, 3), np.zeros((4, 64, 64, 3), "uint8"), 4, 3,
        region_landmarks=landmarks, region_weights={"face": 3.0}, jitter=0.3,
    )  # fmt: skip
    windows, _, weights = (np.concatenate(x) for x in zip(*batches_of(batches), strict=True))
    assert windows.shape == (12, 3, 68, 2) and (windows == windows[:, :1]).all()
    moved = np.abs(windows[:, 0] - landmarks[0]).max((1, 2)) > 1e-5
    assert 2 < moved.sum() < 10
    for window, weight, off in zip(windows, weights[..., 0], moved, strict=True):
        # Nothing but the head counts where it was moved.
        assert (weight == 0).any() == off
        middles = np.argwhere(weight > 0.99 * weight.max()).mean(0)[::-1] + 0.5
        # The box has a margin, which is enlarged with it, and whole pixels. Its corners are there.
        ends = np.argmin(landmarks[0].sum(1)), np.argmax(landmarks[0].sum(1))
        np.testing.assert_allclose(middles, 64 * window[0][list(ends)].mean(0), atol=1.5)
    assert np.ptp(windows[:, 0, :, 0].max(1)) > 0.02


def test_image_batches_hold_features_images_and_weights(rng):
    images = rng.integers(0, 256, size=(3, 16, 16, 3), dtype="uint8")
    batches = DriverImageBatches(
        np.zeros((3, 16, 16), "uint8"), context_indices(3, 1), np.arange(3)[:, None, None, None],
        3, 1, images=images, landmarks=np.stack([face(0.5, 0.5)] * 3), indices=np.arange(3),
        region_weights={"face": 3.0},
    )  # fmt: skip
    (heatmaps, features), targets, weights = batches[0]
    assert heatmaps.shape == (3, 16, 16, 1)
    order = features.ravel().astype(int)
    np.testing.assert_array_equal(targets, images[order])
    assert weights.shape == (3, 16, 16, 1) and weights.max() / weights.min() == pytest.approx(3)


def test_moved_image_batches_draw_the_moved_landmarks_and_weigh_the_head_alone():
    size = 64
    landmarks = np.stack([face(x, 0.5) for x in (0.4, 0.45, 0.5, 0.55)]).astype("float32")
    images = np.full((4, size, size, 3), 60, "uint8")
    heads = []
    for image, points in zip(images, size * landmarks, strict=True):
        first, last = points.min(0), points.max(0)
        width, height = last - first
        # The head: to the chin, and above and beside the landmarks.
        rows = slice(max(0, int(first[1] - 0.9 * height)), int(np.ceil(last[1])))
        columns = slice(int(first[0] - 0.35 * width), int(np.ceil(last[0] + 0.35 * width)))
        image[rows, columns] = 250
        heads.append((image[..., 0] > 155).sum())
    layer = LandmarkHeatmap(size, 2.0, dtype="float32")
    batches = DriverImageBatches(
        np.zeros((4, size, size), "uint8"), context_indices(4, 1), np.zeros((4, 1, 1, 2)), 4, 6,
        images=images, landmarks=landmarks, indices=np.arange(4), jitter=0.15, draw=layer,
    )  # fmt: skip
    counts = [0, 0]
    for i in range(6):
        (heatmaps, _), moved, weights = batches[i]
        chosen = batches.chosen(i)
        windows, moves = batches.moved(i, chosen)
        np.testing.assert_array_equal(
            windows, move_landmarks(landmarks[chosen][:, None], moves, 64)
        )
        np.testing.assert_allclose(to_numpy(heatmaps), to_numpy(layer(windows)), atol=1e-5)
        for number, image, weight, off in zip(
            chosen, to_numpy(moved), to_numpy(weights)[..., 0], moves.moved(), strict=True
        ):
            counts[int(off)] += 1
            assert np.array_equal(image, images[number]) == (not off)
            assert (weight == 0).any() == off
            if off:
                wrong = (image[..., 0] > 155) != (weight > 0)
                assert wrong.sum() < 0.06 * heads[number]
    assert min(counts) > 4
    # A run that goes on sees the same.
    np.testing.assert_array_equal(to_numpy(batches.make(3)[1]), to_numpy(batches[3][1]))


@pytest.mark.once
def test_weighted_frames_come_more_often_in_an_order_of_the_seed():
    weights = np.array([3.0] + [7 / 9] * 9)
    settings = {"steps": 10, "seed": 3, "sampling": weights}
    flat = sum(seen(FrameBatches(numbered(10), 4, **settings), 1), [])
    for start in range(0, 40, 10):
        counts = np.bincount(flat[start : start + 10], minlength=10)
        assert counts[0] == 3 and (counts[1:] <= 1).all()
    assert flat[:10] != sorted(flat[:10])
    assert flat[12:] == sum(seen(FrameBatches(numbered(10), 4, start=3, **settings), 1), [])[:28]
    alike = {**settings, "sampling": np.ones(10)}
    assert sorted(sum(seen(FrameBatches(numbered(10), 5, **alike), 1), [])[:10]) == list(range(10))


@pytest.mark.once
@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones(9), r"shape \(9,\) do not belong to 10 frames"),
        (np.zeros(10), "not all zero"),
        (np.full(10, np.nan), "must be finite"),
    ],
)
def test_sampling_weights_that_do_not_fit(weights, message):
    with pytest.raises(VPGCError, match=message):
        FrameBatches(numbered(10), 4, 1, sampling=weights)


@pytest.mark.once
def test_shards_divide_each_batch_among_them():
    settings = {"steps": 3, "seed": 5}
    whole = seen(FrameBatches(numbered(10), 6, **settings), 1)
    parts = [seen(FrameBatches(numbered(10), 6, shard=(r, 3), **settings), 1) for r in range(3)]
    assert whole == [sum(three, []) for three in zip(*parts, strict=True)]
    with pytest.raises(VPGCError, match="batch of 4 frames cannot be divided into 3 processes"):
        FrameBatches(numbered(10), 4, 1, shard=(0, 3))
    with pytest.raises(VPGCError, match="no shard 3 of 3"):
        FrameBatches(numbered(10), 6, 1, shard=(3, 3))


@pytest.mark.once
def test_shards_move_their_frames_as_the_whole_does(rng):
    images = rng.integers(0, 256, (10, 16, 16, 3), dtype="uint8")
    landmarks = rng.uniform(0.2, 0.8, (10, 68, 2))
    settings = {"landmarks": landmarks, "region_weights": {"face": 3.0}, "jitter": 0.3}
    whole = FrameBatches(images, 6, 2, **settings)[1]
    parts = [FrameBatches(images, 6, 2, shard=(r, 3), **settings)[1] for r in range(3)]
    for all_of_it, *its_parts in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(its_parts), all_of_it)


def paired(batch_size, shard=None, **settings):
    """Batches whose features are the numbers of their frames; 4, 5 and 8 are no examples."""
    indices = np.array([0, 1, 2, 3, 6, 7, 9])
    return DriverBatches(
        np.zeros((10, 8, 8), "uint8"), context_indices(10, 1)[indices],
        indices[:, None, None, None], batch_size, steps=4, pairs=True, indices=indices,
        shard=shard, **settings,
    )  # fmt: skip


@pytest.mark.once
def test_pairs_are_neighbours_in_the_clip():
    follows = {0: 1, 1: 2, 2: 3, 3: 2, 6: 7, 7: 6, 9: 9}
    drawn = []
    for i in range(4):
        frames = paired(4)[i][1].ravel().astype(int)
        assert frames.shape == (4,)
        for first, second in frames.reshape(-1, 2):
            assert follows[first] == second
            drawn.append(first)
    assert sorted(drawn[:7]) == sorted(follows)
    parts = [paired(4, shard=(r, 2))[1][1].ravel().tolist() for r in range(2)]
    assert sum(parts, []) == paired(4)[1][1].ravel().tolist()
    factors = paired(4, scale_jitter=0.2).factors(0)
    assert factors[0] == factors[1] != factors[2] == factors[3]
    np.testing.assert_array_equal(paired(4, scale_jitter=0.2, shard=(1, 2)).factors(0), factors[2:])


@pytest.mark.once
def test_pairs_that_cannot_be_made():
    with pytest.raises(VPGCError, match="batch of 3 frames cannot be divided into pairs of frames"):
        paired(3)
    with pytest.raises(VPGCError, match="pairs of frames and 2 processes.*multiple of 4"):
        paired(6, shard=(0, 2))
    with pytest.raises(VPGCError, match="numbers of all 3 training examples; received none"):
        DriverBatches(np.zeros((3, 8, 8)), None, np.zeros((3, 2, 2, 1)), 2, 1, pairs=True)


def keras_cv_layers():
    import keras_cv

    return keras_cv.layers.RandomAugmentationPipeline(
        [keras_cv.layers.RandomBrightness(0.3), keras_cv.layers.RandomContrast((0, 255), 0.4)], 1
    )


AUGMENTATIONS = {
    "layer": lambda: keras.layers.RandomBrightness(0.5),
    "pipeline": lambda: keras.layers.Pipeline(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomContrast(0.5)]
    ),
    "keras-cv": keras_cv_layers,
    "callable with a seed": lambda: (
        lambda x, seed: x + np.random.default_rng(seed).uniform(-40, 40, size=(len(x), 1, 1, 1))
    ),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_of_a_batch_is_the_same_whenever_it_is_asked_for(name, rng):
    images = rng.integers(60, 200, size=(6, 8, 8, 3), dtype="uint8")

    def batches(seed=1, **settings):
        return FrameBatches(images, 4, 9, seed, AUGMENTATIONS[name](), **settings)

    run = batches()
    whole = [run[i][0] for i in range(5)]
    np.testing.assert_array_equal(batches()[4][0], whole[4])
    np.testing.assert_array_equal(batches(start=3)[1][0], whole[4])
    np.testing.assert_array_equal(run[1][0], whole[1])
    # Round 1 of another seed holds other images; the same images are drawn anew each time.
    assert (augment(run.augmentation, images, (1, 0)) != images).any()
    draws = [augment(run.augmentation, images, s).tolist() for s in [(1, 0), (1, 1), (2, 0)]]
    assert draws[0] != draws[1] != draws[2] != draws[0]


def test_worker_threads_and_fit_see_the_same_augmentation(rng):
    from concurrent.futures import ThreadPoolExecutor

    images = rng.integers(60, 200, size=(6, 8, 8, 3), dtype="uint8")
    run = FrameBatches(images, 4, 8, augmentation=AUGMENTATIONS["pipeline"]())
    wanted = [run[i][0] for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: run[i][0], range(8)))
    np.testing.assert_array_equal(found, wanted)


class Losses(keras.callbacks.Callback):
    """The loss of each step; Keras logs the mean over the epoch so far."""

    def on_train_begin(self, logs=None):
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.sums = [*(self.sums if batch else [0]), logs["loss"] * (batch + 1)]
        self.found.append(self.sums[-1] - self.sums[-2])


def fed(batches, epochs):
    """The mean of each batch that `fit` was given, as its step's loss."""
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1.0)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.compile("sgd", lambda true, predicted: predicted, run_eagerly=True)
    losses = Losses()
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[losses])
    return losses.found


class WithTargets(FrameBatches):
    def make(self, batch):
        (images,) = super().make(batch)
        return images, np.zeros((len(images), 3), "float32")


@pytest.mark.parametrize(
    "settings", [{}, {"prefetch": 2}, {"cache": "device"}], ids=["plain", "prefetch", "device"]
)
def test_fit_goes_through_the_batches_in_order(settings, rng):
    images = rng.integers(60, 200, size=(6, 8, 8, 3), dtype="uint8")
    layer = AUGMENTATIONS["layer"]()
    batches = WithTargets(images, 4, 3, augmentation=layer, **settings)
    wanted = [FrameBatches(images, 4, 6, augmentation=layer)[i][0].mean() for i in range(6)]
    np.testing.assert_allclose(fed(batches, 2), wanted, rtol=1e-4)
    assert batches.done == 6
    # A second `fit`, or a run that goes on in another process.
    np.testing.assert_allclose(
        fed(WithTargets(images, 4, 2, start=4), 1), fed(WithTargets(images, 4, 3), 2)[4:], rtol=1e-4
    )


@pytest.mark.once
def test_prefetched_batches_are_the_same_in_any_order(rng):
    images = rng.integers(0, 256, size=(9, 8, 8, 3), dtype="uint8")
    plain, ahead = (FrameBatches(images, 4, 9, prefetch=n) for n in (0, 3))
    for i in (0, 1, 2, 7, 8, 3, 3, 4):
        np.testing.assert_array_equal(ahead[i][0], plain[i][0])


# On TensorFlow the device is the host, see `FrameBatches`.
DEVICE = "device" if keras.backend.backend() != "tensorflow" else "host"


def same(found, wanted, atol=1e-6):
    found, wanted = (keras.tree.flatten(x) for x in (found, wanted))
    for a, b in zip(found, wanted, strict=True):
        assert DEVICE == "host" or not isinstance(a, np.ndarray)
        a = keras.ops.convert_to_numpy(a)
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5)


def nearly(weights, wanted):
    """The same weights but for a pixel at the border of a region."""
    off = ~np.isclose(to_numpy(weights), wanted, rtol=1e-2)
    assert off.sum() <= 2 * len(off)


@pytest.mark.parametrize("augmentation", [None, "layer", "pipeline"])
def test_frames_on_the_device_are_those_of_the_host(augmentation, rng):
    images = rng.integers(0, 256, size=(5, 16, 16, 3), dtype="uint8")
    landmarks = np.stack([face(x, 0.5) for x in (-0.1, 0.2, 0.5, 0.8, 1.1)])
    layer = AUGMENTATIONS[augmentation]() if augmentation else None

    def batches(cache):
        return FrameBatches(
            images, 4, 9, augmentation=layer, landmarks=landmarks, cache=cache, start=2
        )

    assert batches("device").cache == DEVICE
    # A rounded half may fall either way.
    same(batches("device")[1], batches("host")[1], atol=1 if augmentation else 1e-6)
    (alone,) = FrameBatches(images, 4, 9, cache="device")[1]
    np.testing.assert_array_equal(to_numpy(alone), FrameBatches(images, 4, 9)[1][0])
    with pytest.raises(VPGCError, match="no cache 'disk'"):
        batches("disk")


def drawings(count, size):
    """Smooth drawings, one of them empty."""
    place = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)
    middles = np.linspace(0.3, 0.6, count)[:, None] * size
    distance = np.linalg.norm(place[None] - middles[:, None, None], axis=-1)
    result = np.rint(255 * np.exp(-(((distance - 8) / 4) ** 2))).astype("uint8")
    result[result < 30] = 0
    result[0] = 0
    return result


@pytest.mark.parametrize("jitter", [0.0, 0.25])
def test_driver_batches_on_the_device_are_those_of_the_host(jitter, rng):
    features = rng.normal(size=(4, 2, 2, 3)).astype("float16")
    arguments = (drawings(6, 48), context_indices(6, 3)[[0, 1, 3, 5]], features, 4, 2, 7)

    def batches(cache):
        return DriverBatches(*arguments, scale_jitter=jitter, cache=cache)

    assert batches("device").cache == DEVICE
    # OpenCV's coordinates are multiples of 1/32 pixel, its results of 1/255.
    same(batches("device")[1], batches("host")[1], atol=0.03 if jitter else 1e-6)


def test_moved_frames_on_the_device_are_those_of_the_host():
    # Not black at the border, which is repeated.
    images = 255 - np.stack([drawings(6, 48)] * 3, -1)
    landmarks = np.stack([face(x, 0.5) for x in (0.2, 0.3, 0.5, 0.6, 0.7, 0.8)])

    def batches(cache):
        return FrameBatches(images, 4, 2, landmarks=landmarks, jitter=0.2, cache=cache)

    assert batches("device").cache == DEVICE
    (device, weights), (host, wanted) = batches("device")[1], batches("host")[1]
    # OpenCV's coordinates are multiples of 1/32 pixel.
    np.testing.assert_allclose(to_numpy(device).astype(int), host.astype(int), atol=8)
    nearly(weights, wanted)


def test_image_batches_on_the_device_are_those_of_the_host(rng):
    arguments = (drawings(3, 16), context_indices(3, 1), rng.normal(size=(3, 1, 1, 2)), 2, 2)
    data = {
        "images": rng.integers(0, 256, size=(3, 16, 16, 3), dtype="uint8"),
        "landmarks": np.stack([face(x, 0.5) for x in (0.2, 0.5, 0.8)]),
        "indices": np.arange(3),
    }
    device, host = (DriverImageBatches(*arguments, cache=c, **data) for c in ("device", "host"))
    assert device.cache == DEVICE
    same(device[1], host[1])
    data |= {"images": 255 - np.stack([drawings(3, 16)] * 3, -1), "jitter": 0.2}
    data |= {"draw": LandmarkHeatmap(16, 1.0, dtype="float32"), "scale_jitter": 0.1}
    device, host = (DriverImageBatches(*arguments, cache=c, **data) for c in ("device", "host"))
    for i in range(4):
        (inputs, image, weights), (wanted, true, wanted_weights) = device[i], host[i]
        same(inputs, wanted, atol=1e-4)
        # OpenCV's coordinates are multiples of 1/32 pixel.
        np.testing.assert_allclose(to_numpy(image).astype(int), true.astype(int), atol=8)
        nearly(weights, wanted_weights)


@pytest.mark.once
def test_arrays_go_to_the_device_if_they_leave_room_there(monkeypatch):
    images = numbered(10)
    monkeypatch.setattr(backend, "keeps_device_batches", lambda: True)
    for free, cache in ((None, "host"), (images.nbytes * 2, "host"), (images.nbytes * 3, "device")):
        monkeypatch.setattr(backend, "free_memory", lambda free=free: free)
        assert FrameBatches(images, 4, 1).cache == cache
    assert FrameBatches(images, 4, 1, augmentation=lambda x: x).cache == "host"
    assert FrameBatches(images, 4, 1, augmentation=keras.layers.RandomFlip()).cache == "device"


def test_a_callable_augments_frames_of_the_device_in_numpy(rng):
    images = rng.integers(0, 256, size=(4, 8, 8, 3), dtype="uint8")
    found = FrameBatches(images, 4, 1, augmentation=np.negative, cache="device")[0][0]
    assert isinstance(found, np.ndarray) and not found.any()


@pytest.mark.once
def test_images_may_be_a_file_larger_than_the_memory(tmp_path, rng):
    images = rng.integers(0, 256, size=(5, 16, 16, 3), dtype="uint8")
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    landmarks = np.stack([face(x, 0.5) for x in (0.2, 0.3, 0.5, 0.7, 0.8)])
    heatmaps, neighbours = drawings(5, 16), context_indices(5, 3)
    features = rng.normal(size=(5, 1, 1, 2))

    def batches(images):
        settings = {"landmarks": landmarks}
        layer = keras.layers.RandomFlip()
        yield FrameBatches(images, 3, 2, augmentation=layer, prefetch=1, **settings)
        yield FrameBatches(images, 3, 2, cache="device", **settings)
        settings["indices"] = np.arange(5)
        yield DriverImageBatches(heatmaps, neighbours, features, 3, 2, images=images, **settings)

    for found, wanted in zip(batches(mapped), batches(images), strict=True):
        for a, b in zip(*(keras.tree.flatten(x[1]) for x in (found, wanted)), strict=True):
            assert not isinstance(a, np.memmap) or a.base is None
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
