"""The parts of light puppets: separable blocks, pixel shuffle, small heatmaps."""

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError, layers
from keras_vpgc.models import (
    DirectMapping,
    PortraitAutoencoder,
    PortraitDriver,
    PortraitReenactor,
    presets,
)
from keras_vpgc.models.autoencoder import NORMALIZED_SIZE
from keras_vpgc.models.work import count
from tests.layers.layer_case import to_numpy

LIGHT = {"multipliers": (1, 2), "stride": 2, "block": "separable"}
DRIVER = {"block": "separable", "heatmap_size": 32, "driver_multipliers": (1, 2), "context": 3}


def test_light_puppet_is_its_parts_and_comes_back(rng, tmp_path):
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", **LIGHT)
    assert autoencoder.grid_size == (16, 16)
    assert autoencoder.output_shape == (None, 64, 64, 3)
    driver = PortraitDriver.from_preset("vpgc_tiny", codes=autoencoder.codebook.codes, **DRIVER)
    assert driver.input_shape == (None, 32, 32, 3)
    reenactor = PortraitReenactor.from_models(autoencoder, driver)
    x = rng.uniform(0.2, 0.8, size=(2, 3, 68, 2)).astype("float32")
    features = driver(layers.LandmarkHeatmap(32)(x))
    quantized = autoencoder.soft_index([features, autoencoder.codebook(features)])
    wanted = to_numpy(autoencoder.decoder(quantized))
    found = to_numpy(reenactor(x))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    reenactor.save(tmp_path / "p.keras")
    loaded = keras.saving.load_model(tmp_path / "p.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), found, atol=1e-5)
    images = rng.uniform(-1, 1, size=(1, 64, 64, 3)).astype("float32")
    autoencoder.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    np.testing.assert_allclose(to_numpy(loaded(images)), to_numpy(autoencoder(images)), atol=1e-5)


@pytest.mark.slow_on("tensorflow", "jax")
def test_light_autoencoder_learns_by_plain_fit(rng):
    model = PortraitAutoencoder.from_preset("vpgc_tiny", **LIGHT)
    x = rng.uniform(-1, 1, size=(2, 4, 4, 3)).astype("float32").repeat(16, 1).repeat(16, 2)
    eager = keras.backend.backend() == "tensorflow"
    model.compile(keras.optimizers.Adam(2e-3), "mae", run_eagerly=eager)
    loss = model.fit(x, x, batch_size=2, epochs=10, verbose=0).history["loss"]
    assert loss[-1] < 0.7 * loss[0]


@pytest.mark.once
def test_lite_preset_keeps_the_papers_parts_within_five_gflop():
    settings = presets.get("vpgc_512_lite")["network"]
    assert settings.get("texture_prior", True) and settings.get("global_context", True)
    model = PortraitReenactor.from_preset("vpgc_512_lite")
    assert model.output_shape == (None, 512, 512, 3)
    assert isinstance(model.codebook, layers.GridCodebook) and model.soft_index.mode == "soft"
    kinds = {type(x).__name__ for x in model.head.layers}
    assert {"TexturePrior", "GlobalContext", "TransformerBlock"} <= kinds
    assert count(model).flops <= 5e9
    # What a puppet takes on the disk is its weights.
    assert 4 * model.count_params() <= 20e6
    for layer in model.decoder.layers:
        if isinstance(layer, layers.SeparableBlock):
            assert (layer.norm is None) == (layer.output.shape[1] > NORMALIZED_SIZE)


@pytest.mark.once
def test_direct_mapping_may_be_light_too(rng):
    model = DirectMapping.from_preset("vpgc_tiny", **{**LIGHT, **DRIVER})
    x = rng.uniform(0.2, 0.8, size=(1, 3, 68, 2)).astype("float32")
    assert tuple(model(x).shape) == (1, 64, 64, 3)


@pytest.mark.once
def test_what_does_not_fit_is_said():
    with pytest.raises(VPGCError, match="no block 'heavy': choose one of residual, separable"):
        PortraitAutoencoder.from_preset("vpgc_tiny", block="heavy")
    with pytest.raises(VPGCError, match="64 pixels cannot be divided by 3 and halved 2 times"):
        PortraitAutoencoder.from_preset("vpgc_tiny", stride=3)
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", **LIGHT)
    driver = PortraitDriver.from_preset("vpgc_tiny", heatmap_size=16)
    with pytest.raises(VPGCError, match="features 16x16x32 but the driver .* 4x4x32"):
        PortraitReenactor.from_models(autoencoder, driver)
