import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import DriverBatches, FrameBatches, context_indices
from keras_vpgc.data.dataset import augment
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
