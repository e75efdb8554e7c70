"""What is said of the codebook, against definitions written out."""

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc import visualization as see
from keras_vpgc.models import (
    DirectMapping,
    PortraitAutoencoder,
    PortraitDriver,
    PortraitReenactor,
)
from keras_vpgc.visualization import CodebookView
from tests.models.test_models import landmarks_of

pytestmark = pytest.mark.once
SMALL = {"image_size": 32, "multipliers": (1, 2), "codes_per_cell": 3, "latent_dim": 8}
SMALL |= {"base_channels": 4, "norm_groups": 2, "attention_sizes": (), "shortcuts": False}


@pytest.fixture(autouse=True)
def untraced(eager_tensorflow):
    """These nets run once each."""


def small(**settings):
    """Few numbers, with codes wide enough to tell the windows' entries apart."""
    return PortraitAutoencoder.from_preset("vpgc_tiny", **{**SMALL, **settings})


def images_of(rng, count=2, size=32):
    return rng.integers(0, 256, size=(count, size, size, 3), dtype="uint8")


def reference_weights(view, features):
    """M of each position by loops, float64 `(n, pieces, r, r, K)`, and its window's start."""
    h, w = view.grid_size
    r, index = view.window, view.model.soft_index
    found, starts = {}, {}
    for u in range(h):
        for v in range(w):
            top = int(np.clip(u - (r - 1) // 2, 0, h - r))
            left = int(np.clip(v - (r - 1) // 2, 0, w - r))
            keys = view.codes[top : top + r, left : left + r].astype("float64")
            pieces = features[:, u, v].reshape(len(features), view.pieces, view.code_dim)
            if index.mode == "soft":
                score = np.einsum("npc,ijkc->npijk", pieces, keys) / index.temperature
                score = np.exp(score - score.max(axis=(2, 3, 4), keepdims=True))
                score /= score.sum(axis=(2, 3, 4), keepdims=True)
            else:
                gap = pieces[:, :, None, None, None] - keys
                gap = (gap**2).sum(-1).reshape(*pieces.shape[:2], -1)
                score = np.eye(gap.shape[-1])[gap.argmin(-1)]
                score = score.reshape(*pieces.shape[:2], r, r, -1)
            found[u, v], starts[u, v] = score, (top, left)
    return found, starts


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_usage_counts_what_the_index_reads(rng, mode):
    model = small(mode=mode, code_scale=0.5, window_size=3)
    view, images = CodebookView(model), images_of(rng)
    features = view.features(images)
    np.testing.assert_allclose(
        features, model.encoder.predict(images / 127.5 - 1.0, verbose=0), atol=1e-5
    )
    weights, starts = reference_weights(view, features)
    whole, chosen = np.zeros((16, 16, 3)), np.zeros((16, 16, 3), int)
    for place, score in weights.items():
        top, left = starts[place]
        whole[top : top + 3, left : left + 3] += score.sum(axis=(0, 1))
        for best in score.reshape(len(images) * view.pieces, -1).argmax(1):
            row, column, code = np.unravel_index(best, (3, 3, 3))
            chosen[top + row, left + column, code] += 1
    usage = view.usage(images)
    np.testing.assert_allclose(usage.weights, whole, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(usage.chosen, chosen)
    assert usage.weights.sum() == pytest.approx(2 * 256 * view.pieces, rel=1e-4)
    np.testing.assert_allclose(
        view.weights_at(features, (0, 7)), weights[0, 7].reshape(2, view.pieces, 9, 3), atol=1e-4
    )
    code = (5, 6, 1)
    light = np.zeros((2, 16, 16))
    for place, score in weights.items():
        top, left = starts[place]
        if 0 <= 5 - top < 3 and 0 <= 6 - left < 3:
            light[(slice(None), *place)] = score[:, :, 5 - top, 6 - left, 1].mean(axis=1)
    np.testing.assert_allclose(view.light_up(features, code), light, atol=1e-4)


def test_what_is_read_and_decoded_is_the_models_own(rng):
    model = small()
    view, images = CodebookView(model), images_of(rng)
    found = view.decode(view.quantize(view.features(images)))
    wanted = (np.clip(model.predict(images / 127.5 - 1.0, verbose=0), -1, 1) + 1) * 127.5
    assert np.abs(found - wanted).max() < 0.51


def test_perplexity_is_the_number_of_codes_in_use():
    weights = np.zeros((2, 1, 4))
    weights[0, 0] = 5.0
    weights[1, 0, :2] = 10.0
    usage = see.CodeUsage(weights, (weights > 0).astype(int), shared=False)
    np.testing.assert_allclose(usage.perplexity[:, 0], [4, 2])
    np.testing.assert_allclose(usage.used[:, 0], [1, 0.5])
    # Half of all weight in four codes, half in two.
    assert usage.total_perplexity == pytest.approx(2 * np.sqrt(4 * 2))
    assert usage.total_used == 0.75
    shared = see.CodeUsage(weights, (weights > 0).astype(int), shared=True)
    assert shared.total_perplexity == pytest.approx(
        np.exp(-2 * (0.375 * np.log(0.375) + 0.125 * np.log(0.125)))
    )
    assert see.CodeUsage(np.zeros((1, 1, 4)), np.zeros((1, 1, 4)), False).perplexity[0, 0] == 0


def test_the_list_that_all_cells_share(rng):
    vanilla = small(codebook="vanilla", num_codes=5)
    view, images = CodebookView(vanilla), images_of(rng)
    usage = view.usage(images)
    features = view.features(images)
    index = keras.ops.convert_to_numpy(vanilla.codebook.encode(features))
    counts = np.stack([(index == k).sum(axis=0) for k in range(5)], axis=-1)
    np.testing.assert_array_equal(usage.chosen, counts)
    np.testing.assert_allclose(usage.weights, counts)
    np.testing.assert_array_equal(view.light_up(features, 3), index == 3)
    with pytest.raises(VPGCError, match="Only a grid codebook has a texture prior"):
        view.prior()
    split = CodebookView(small(codebook="split", num_codes=5))
    assert split.usage(images).weights.sum() == pytest.approx(2 * 256 * 2, rel=1e-4)


def test_texture_prior_is_the_mean_code(rng):
    view = CodebookView(small())
    codes = keras.ops.convert_to_numpy(view.model.codebook.codes)
    np.testing.assert_allclose(view.prior(), codes.mean(2), atol=1e-6)


def test_a_puppet_is_looked_into_by_landmarks(rng):
    autoencoder = small()
    driver = PortraitDriver.from_preset(
        "vpgc_tiny",
        **{k: v for k, v in SMALL.items() if k in ("image_size", "latent_dim", "norm_groups")},
        driver_multipliers=(1, 2), driver_base_channels=4, attention_sizes=(), codes_per_cell=3,
        transformer_heads=1, transformer_blocks=1, transformer_mlp_units=8, context=1,
        codes=autoencoder.codebook.codes,
    )  # fmt: skip
    model = PortraitReenactor.from_models(autoencoder, driver)
    view, landmarks = CodebookView(model), landmarks_of(rng, context=1)
    images = view.decode(view.quantize(view.features(landmarks)))
    wanted = (np.clip(model.predict(landmarks, verbose=0), -1, 1) + 1) * 127.5
    assert np.abs(images - wanted).max() < 0.51
    assert view.usage(landmarks).weights.sum() == pytest.approx(2 * 256 * view.pieces, rel=1e-4)


def test_what_cannot_be_looked_into(rng):
    for model in (small(codebook="none"), DirectMapping.from_preset("vpgc_tiny")):
        with pytest.raises(VPGCError, match="no codebook to look into"):
            CodebookView(model)
    view = CodebookView(small())
    with pytest.raises(VPGCError, match=r"takes inputs of shape \(n, 32, 32, 3\); received"):
        view.features(np.zeros((1, 64, 64, 3), "uint8"))
    with pytest.raises(VPGCError, match=r"\(1.2, 0.5\) lies outside"):
        view.cell_of((1.2, 0.5))
    assert view.cell_of((1, 0)) == (0, 15)
