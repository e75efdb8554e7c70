"""The codebooks that the grid is compared with."""

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError, layers
from tests.layers.layer_case import to_numpy


def test_moving_averages_are_their_definition(rng):
    """van den Oord et al., A.1, with sums of its own, in float64."""
    decay, start = 0.8, rng.normal(size=(6, 4)).astype("float32")
    layer = layers.VectorQuantizer(6, ema_decay=decay)
    layer.build((None, 3, 3, 4))
    layer.codes.assign(start)
    codes, sizes, sums = start.astype("float64"), np.zeros(6), np.zeros((6, 4))
    chosen = np.zeros(6, bool)
    for _ in range(6):
        x = rng.normal(size=(2, 3, 3, 4)).astype("float32")
        # What is quantised is what the codes were before.
        nearest = ((x[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
        np.testing.assert_allclose(to_numpy(layer(x, training=True)), codes[nearest], atol=1e-5)
        flat, hits = x.reshape(-1, 4).astype("float64"), np.eye(6)[nearest.ravel()]
        sizes = decay * sizes + (1 - decay) * hits.sum(0)
        sums = decay * sums + (1 - decay) * hits.T @ flat
        chosen |= hits.any(0)
        codes[chosen] = (sums / np.maximum(sizes, 1e-30)[:, None])[chosen]
    np.testing.assert_allclose(to_numpy(layer.codes), codes, atol=1e-5)
    assert np.abs(codes - start).max() > 0.1
    assert not layer.trainable_weights


def test_moving_averages_rest_outside_of_training(rng):
    layer = layers.VectorQuantizer(6, ema_decay=0.5, revive_after=1)
    x = rng.normal(size=(2, 3, 3, 4)).astype("float32")
    layer(x)
    before = to_numpy(layer.codes)
    layer(x, training=False)
    layer.trainable = False
    layer(x, training=True)
    np.testing.assert_array_equal(to_numpy(layer.codes), before)
    layer.trainable = True
    layer(x, training=True)
    assert np.abs(to_numpy(layer.codes) - before).max() > 0.1


@pytest.mark.parametrize("revive_after, least, most", [(None, 1, 2), (3, 28, 32)])
def test_dead_codes_come_alive(revive_after, least, most, rng):
    """All codes but one begin far from all features."""
    layer = layers.VectorQuantizer(32, ema_decay=0.9, revive_after=revive_after)
    layer.build((None, 4, 4, 4))
    start = np.full((32, 4), 50.0) + np.arange(32)[:, None]
    start[0] = 0
    layer.codes.assign(start)
    for _ in range(12):
        layer(rng.normal(size=(8, 4, 4, 4)).astype("float32"), training=True)
    seen = to_numpy(layer.encode(rng.normal(size=(8, 4, 4, 4)).astype("float32")))
    assert least <= len(np.unique(seen)) <= most


def test_k_means_starts_among_the_features(rng):
    centres = 10 * rng.normal(size=(5, 4))
    features = (centres[rng.integers(5, size=400)] + 0.01 * rng.normal(size=(400, 4))).reshape(
        4, 10, 10, 4
    )
    layer = layers.VectorQuantizer(40)
    layer.adapt(features.astype("float32"))
    away = np.linalg.norm(to_numpy(layer.codes)[:, None] - centres, axis=-1)
    assert (away.min(1) < 0.1).all()
    assert set(away.argmin(1)) == set(range(5))
    # A list as long as the clusters finds their means.
    few = layers.VectorQuantizer(1)
    few.adapt(features)
    np.testing.assert_allclose(to_numpy(few.codes)[0], features.mean((0, 1, 2)), atol=1e-4)
    with pytest.raises(VPGCError, match="4 features are too few for the k-means of 40 codes"):
        layer.adapt(features[:1, :2, :2])


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_split_codes_are_a_direct_definition(mode, rng):
    x = rng.normal(size=(2, 3, 5, 8)).astype("float32")
    shared = layers.SharedCodebook(7, 4)
    index = layers.SoftIndex(1, mode, temperature=0.5)
    found = to_numpy(index([x, shared(x)]))
    codes = to_numpy(shared.codes).astype("float64")
    pieces = x.reshape(2, 3, 5, 2, 4).astype("float64")
    if mode == "soft":
        weights = np.exp(pieces @ codes.T / 0.5)
        wanted = weights / weights.sum(-1, keepdims=True) @ codes
    else:
        wanted = codes[((pieces[..., None, :] - codes) ** 2).sum(-1).argmin(-1)]
    np.testing.assert_allclose(found, wanted.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_index_tells_its_codes(mode, rng):
    """Against a loop over positions and pieces; the windows at the borders are moved inside."""
    x = rng.normal(size=(2, 4, 5, 8)).astype("float32")
    codes = rng.normal(size=(4, 5, 3, 4)).astype("float32")
    layer = layers.SoftIndex(2, mode)
    layer([x, codes])
    found = to_numpy(layer.encode([x, codes]))
    for b, u, v, piece in np.ndindex(2, 4, 5, 2):
        query, (top, left) = x[b, u, v, 4 * piece : 4 * piece + 4], (min(u, 2), min(v, 3))
        score = codes @ query if mode == "soft" else -((codes - query) ** 2).sum(-1)
        seen = np.full(score.shape, -np.inf)
        window = slice(top, top + 2), slice(left, left + 2)
        seen[window] = score[window]
        assert found[b, u, v, piece] == seen.argmax()


@pytest.mark.once
@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: layers.VectorQuantizer(ema_decay=1.0), "ema_decay must lie between 0 and 1"),
        (lambda: layers.VectorQuantizer(ema_decay="a"), "ema_decay must lie between 0 and 1"),
        (lambda: layers.VectorQuantizer(revive_after=9), "give ema_decay too"),
        (
            lambda: layers.VectorQuantizer(ema_decay=0.9, revive_after=0.5),
            "revive_after must be a whole number of steps",
        ),
        (lambda: layers.SharedCodebook(0), "positive num_codes"),
        (
            lambda: layers.SharedCodebook(5, 3)(keras.ops.zeros((1, 2, 2, 4))),
            "depth of 4 cannot be split into codes of length 3",
        ),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(VPGCError, match=message):
        build()
