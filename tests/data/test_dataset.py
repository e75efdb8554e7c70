import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import DriverBatches, FrameBatches, context_indices
from keras_vpgc.data.dataset import DriverImageBatches, augment, weigh_regions
from keras_vpgc.data.portrait import fill


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


def test_image_batches_hold_features_images_and_weights(rng):
    images = rng.integers(0, 256, size=(3, 16, 16, 3), dtype="uint8")
    batches = DriverImageBatches(
        np.zeros((3, 16, 16), "uint8"), context_indices(3, 1), np.arange(3)[:, None, None, None],
        3, 1, images=images, landmarks=np.stack([face(0.5, 0.5)] * 3), region_weights={"face": 3.0},
    )  # fmt: skip
    heatmaps, (features, targets), (ones, weights) = batches[0]
    assert heatmaps.shape == (3, 16, 16, 1) and (ones == 1).all()
    order = features.ravel().astype(int)
    np.testing.assert_allclose(targets, images[order] / 127.5 - 1, atol=1e-6)
    assert weights.shape == (3, 16, 16) and weights.max() / weights.min() == pytest.approx(3)
