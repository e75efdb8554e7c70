import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError, layers
from keras_vpgc.models import (
    PatchDiscriminator,
    PortraitAutoencoder,
    PortraitDriver,
    PortraitReenactor,
    presets,
)
from tests.layers.layer_case import to_numpy

# TensorFlow takes far longer to trace a step than to run it.
EAGER = keras.backend.backend() == "tensorflow"


def images_of(rng, count=2, size=64):
    return rng.uniform(-1, 1, size=(count, size, size, 3)).astype("float32")


def landmarks_of(rng, count=2, context=7):
    return rng.uniform(0.2, 0.8, size=(count, context, 68, 2)).astype("float32")


def codebooks(model):
    kinds = (layers.GridCodebook, layers.VectorQuantizer, layers.SharedCodebook)
    return [x for x in model._flatten_layers() if isinstance(x, kinds)]


def puppet(**settings):
    """Untrained, with weights that make the output depend on everything."""
    grid = settings.get("codebook", "grid") == "grid"
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", **settings)
    driver = PortraitDriver.from_preset(
        "vpgc_tiny",
        texture_prior=grid,
        codes=autoencoder.codebook.codes if grid else None,
    )
    return autoencoder, driver, PortraitReenactor.from_models(autoencoder, driver)


# Parameters in millions of the whole autoencoder: the sizes that facts and README speak of.
SIZES = {
    "paper_512": 58.2,
    "vpgc_512": 58.2,
    "vpgc_512_lite": 4.2,
    "vpgc_256": 18.6,
    "vpgc_128": 3.0,
    "vpgc_tiny": 0.26,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("vpgc_512_lite", "vpgc_tiny") else pytest.mark.once)
        for name in presets.names()
    ],
)
def test_every_preset_has_its_grid_and_size(name):
    settings = presets.get(name)["network"]
    model = PortraitAutoencoder.from_preset(name)
    size = settings["image_size"]
    assert model.output_shape == (None, size, size, 3)
    assert model.grid_size == (16, 16)
    assert model.codebook.codes.shape == (16, 16, settings["codes_per_cell"], 4)
    assert model.count_params() / 1e6 == pytest.approx(SIZES[name], rel=0.2)


def test_preset_is_overridden_by_keyword():
    model = PortraitAutoencoder.from_preset("vpgc_tiny", codes_per_cell=5, window_size=3)
    assert model.codebook.codes.shape == (16, 16, 5, 4)
    assert model.soft_index.window_size == 3
    with pytest.raises(VPGCError, match="no preset 'vpgc_9'.*vpgc_tiny"):
        PortraitAutoencoder.from_preset("vpgc_9")


def test_autoencoder_is_its_parts_one_after_another(rng):
    model = PortraitAutoencoder.from_preset("vpgc_tiny")
    x = images_of(rng)
    z = model.encoder(x)
    assert tuple(z.shape) == (2, 16, 16, 32)
    wanted = model.decoder(model.soft_index([z, model.codebook(z)]))
    np.testing.assert_allclose(to_numpy(model(x)), to_numpy(wanted), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"mode": "hard"}, marks=pytest.mark.once),
        pytest.param({"codebook": "vanilla"}, marks=pytest.mark.slow_on("tensorflow", "jax")),
        pytest.param(
            {"codebook": "vanilla", "ema_decay": 0.9, "revive_after": 3}, marks=pytest.mark.once
        ),
    ],
    ids=["soft", "hard", "vanilla", "averages"],
)
def test_autoencoder_trains_by_plain_fit_and_comes_back(settings, rng, tmp_path):
    model = PortraitAutoencoder.from_preset("vpgc_tiny", num_codes=32, **settings)
    x = np.repeat(images_of(rng, 1)[:, :1, :1], 64, 1).repeat(64, 2).repeat(2, 0)
    codes = to_numpy(model.codebook.weights[0])
    model.compile(keras.optimizers.Adam(2e-3), "mae", run_eagerly=EAGER)
    history = model.fit(x, x, batch_size=2, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
    assert np.abs(to_numpy(model.codebook.weights[0]) - codes).max() > 1e-4
    # What fit minimises holds L_VQ too.
    total = model.evaluate(x, x, verbose=0)
    l1 = np.abs(to_numpy(model(x)) - x).mean()
    assert total - l1 == pytest.approx(float(to_numpy(sum(model.losses))), rel=1e-2, abs=1e-5)
    assert total > l1
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"texture_prior": False}, marks=pytest.mark.once),
        pytest.param({"global_context": False}, marks=pytest.mark.once),
        pytest.param({"context": 1}, marks=pytest.mark.once),
    ],
    ids=["full", "no prior", "no context", "one frame"],
)
def test_driver_trains_by_plain_fit_and_comes_back(settings, rng, tmp_path):
    codes = rng.normal(size=(16, 16, 16, 4)).astype("float32")
    # Compiling takes as long for each block.
    small = {"transformer_blocks": 1, **settings}
    driver = PortraitDriver.from_preset("vpgc_tiny", codes=codes, **small)
    context = settings.get("context", 7)
    heatmaps = rng.uniform(size=(4, 64, 64, context)).astype("float32")
    features = rng.normal(size=(4, 16, 16, 32)).astype("float32")
    driver.compile(keras.optimizers.Adam(1e-3), "mae", run_eagerly=EAGER)
    history = driver.fit(heatmaps, features, batch_size=4, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert len(codebooks(driver)) == int(settings.get("texture_prior", True))
    if driver.codebook:
        np.testing.assert_array_equal(to_numpy(driver.codebook.codes), codes)
    driver.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras", compile=False)
    np.testing.assert_allclose(to_numpy(loaded(heatmaps)), to_numpy(driver(heatmaps)), atol=1e-6)


def test_priors_add_their_inputs_and_nothing_else():
    def driver(**settings):
        return PortraitDriver.from_preset("vpgc_tiny", **settings).head.count_params()

    # One kernel each has 4 (code length) and 32 (features) rows of 32 more.
    assert driver() - driver(texture_prior=False) == 4 * 32
    assert driver() - driver(global_context=False) == 32 * 32


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"mode": "hard"}, marks=pytest.mark.once),
        {"codebook": "vanilla"},
        pytest.param(
            {"codebook": "vanilla", "ema_decay": 0.9, "revive_after": 9}, marks=pytest.mark.once
        ),
        pytest.param({"codebook": "split"}, marks=pytest.mark.once),
        pytest.param({"codebook": "none"}, marks=pytest.mark.once),
    ],
    ids=["soft", "hard", "vanilla", "averages", "split", "none"],
)
def test_puppet_is_driver_codebook_decoder(settings, rng):
    autoencoder, driver, reenactor = puppet(num_codes=32, **settings)
    x = landmarks_of(rng)
    features = driver(layers.LandmarkHeatmap(64)(x))
    quantized = autoencoder.codebook(features)
    if autoencoder.soft_index is not None:
        quantized = autoencoder.soft_index([features, quantized])
    wanted = to_numpy(autoencoder.decoder(quantized))
    np.testing.assert_allclose(to_numpy(reenactor(x)), wanted, atol=1e-5)
    assert len(codebooks(reenactor)) == (settings.get("codebook") != "none")
    # No image goes in, no image encoder or loss stays in.
    assert not [w for w in reenactor.weights if w.path.startswith("encoder")]
    assert not reenactor.losses


def test_without_codebook_features_go_straight_to_the_decoder(rng):
    model = PortraitAutoencoder.from_preset("vpgc_tiny", codebook="none")
    x = images_of(rng)
    wanted = to_numpy(model.decoder(model.encoder(x)))
    np.testing.assert_allclose(to_numpy(model(x)), wanted, atol=1e-5)
    assert not model.codebook.weights and not float(to_numpy(sum(model.losses)))
    with pytest.raises(VPGCError, match="Only a vanilla codebook begins with the k-means"):
        model.adapt(np.zeros((1, 64, 64, 3), "uint8"))


@pytest.mark.once
def test_puppet_file_loads_in_a_fresh_process(rng, tmp_path):
    _, _, reenactor = puppet()
    metadata = {"frame_rate": 25.0, "shape": [[0.5, 1.0, 2.0]], "name": "Ä"}
    reenactor = PortraitReenactor.from_config({**reenactor.get_config(), "metadata": metadata})
    x = landmarks_of(rng)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", to_numpy(reenactor(x)))
    reenactor.save(tmp_path / "puppet.keras")
    code = """if True:
        import sys, keras, numpy as np, keras_vpgc
        folder = sys.argv[1] + "/"
        model = keras.saving.load_model(folder + "puppet.keras")
        assert model.metadata == {"frame_rate": 25.0, "shape": [[0.5, 1.0, 2.0]], "name": "Ä"}
        assert not model.compiled
        kinds = (keras_vpgc.layers.GridCodebook, keras_vpgc.layers.VectorQuantizer)
        assert len([x for x in model._flatten_layers() if isinstance(x, kinds)]) == 1
        found = keras.ops.convert_to_numpy(model(np.load(folder + "x.npy")))
        np.testing.assert_allclose(found, np.load(folder + "y.npy"), atol=1e-5)
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.slow_on("tensorflow", "jax")
def test_puppet_with_irises_comes_back_and_looks_at_them(rng, tmp_path):
    autoencoder, driver, plain = puppet()
    reenactor = PortraitReenactor.from_models(autoencoder, driver, landmark_set="ibug-68-iris")
    assert plain.input_shape == (None, 7, 68, 2) and plain.landmark_set == "ibug-68"
    assert reenactor.input_shape == (None, 7, 78, 2)
    assert PortraitReenactor.from_config(reenactor.get_config()).get_config() == (
        reenactor.get_config()
    )
    x = rng.uniform(0.2, 0.8, size=(1, 7, 78, 2)).astype("float32")
    found = to_numpy(reenactor(x))
    features = driver(layers.LandmarkHeatmap(64, contours="ibug-68-iris")(x))
    codes = autoencoder.codebook(features)
    wanted = autoencoder.decoder(autoencoder.soft_index([features, codes]))
    np.testing.assert_allclose(found, to_numpy(wanted), atol=1e-4)
    assert np.abs(found - to_numpy(plain(x[:, :, :68]))).max() > 1e-3
    reenactor.save(tmp_path / "p.keras")
    loaded = keras.saving.load_model(tmp_path / "p.keras")
    assert loaded.landmark_set == "ibug-68-iris"
    np.testing.assert_allclose(to_numpy(loaded(x)), found, atol=1e-5)
    with pytest.raises(VPGCError, match="no landmark set 'ibug-98'"):
        PortraitReenactor.from_models(autoencoder, driver, landmark_set="ibug-98")


def test_puppet_in_uint8_is_the_rounded_float(rng):
    autoencoder, driver, reenactor = puppet()
    exact = PortraitReenactor.from_models(autoencoder, driver, output="uint8")
    x = landmarks_of(rng)
    found = keras.ops.convert_to_numpy(exact(x))
    assert found.dtype == np.uint8
    wanted = np.clip((to_numpy(reenactor(x)) + 1) * 127.5, 0, 255)
    assert np.abs(found - wanted).max() <= 0.51


def test_mixed_precision_keeps_images_float32_and_the_puppet_too(rng):
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", dtype="mixed_bfloat16")
    driver = PortraitDriver.from_preset(
        "vpgc_tiny", codes=autoencoder.codebook.codes, dtype="mixed_bfloat16"
    )
    x = images_of(rng)
    assert keras.backend.standardize_dtype(autoencoder(x).dtype) == "float32"
    half = autoencoder.encoder.get_layer("encoder_0_0")
    assert half.compute_dtype == "bfloat16"
    exact = PortraitAutoencoder.from_preset("vpgc_tiny")
    exact.set_weights(autoencoder.get_weights())
    assert np.abs(to_numpy(exact(x)) - to_numpy(autoencoder(x))).mean() < 0.02
    reenactor = PortraitReenactor.from_models(autoencoder, driver)
    assert {x.compute_dtype for x in reenactor._flatten_layers()} == {"float32"}


def test_discriminator_judges_patches_at_each_scale(rng):
    x = images_of(rng)
    logits = PatchDiscriminator(64, discriminator_channels=8)(x)
    assert [tuple(y.shape) for y in logits] == [(2, 8, 8, 1), (2, 4, 4, 1)]
    model = PatchDiscriminator(64, 3, 2, 8, feature_maps=True)
    maps = model(x)
    assert [[tuple(y.shape) for y in scale][-1] for scale in maps] == [
        (2, 16, 16, 1),
        (2, 8, 8, 1),
        (2, 4, 4, 1),
    ]
    assert [len(scale) for scale in maps] == [4, 4, 4]
    # One scale is a list of one, as any other number is.
    (one,) = PatchDiscriminator(32, 1, 2, 4)(x[:, :32, :32])
    assert tuple(one.shape) == (2, 8, 8, 1)
    (one,) = PatchDiscriminator(32, 1, 2, 4, feature_maps=True)(x[:, :32, :32])
    assert [tuple(y.shape)[1:] for y in one] == [(16, 16, 4), (8, 8, 8), (8, 8, 16), (8, 8, 1)]


def test_a_patch_is_judged_without_what_is_far_from_it(rng):
    # One layer without normalisation sees the nearest pixels only.
    model = PatchDiscriminator(64, 1, 1, 4)
    sub = keras.Model(model.inputs, model.layers[1].output)
    x = images_of(rng, 1)
    changed = x.copy()
    changed[:, 48:, 48:] = 0.0
    difference = np.abs(to_numpy(sub(x)) - to_numpy(sub(changed))).max((0, 3))
    assert difference[:23, :23].max() == 0 and difference[26:, 26:].min() > 0


def test_shortcut_carries_the_image_to_the_features(rng):
    """With the deep way silenced the encoder is one convolution of the image."""
    model = PortraitAutoencoder.from_preset("vpgc_tiny", shortcuts=True)
    deep = model.encoder.get_layer("encoder_last")
    deep.set_weights([np.zeros_like(w) for w in deep.get_weights()])
    straight = model.encoder.get_layer("encoder_shortcut")
    assert straight.kernel.shape == (8, 8, 3, 32)
    x = images_of(rng, 1)
    found = to_numpy(model.encoder(x))
    # The cell (5, 7) lies at rows 20..23 and columns 28..31; the kernel sees 2 pixels more around.
    patch = x[0, 18:26, 26:34]
    wanted = np.einsum("ijc,ijcd->d", patch, to_numpy(straight.kernel)) + to_numpy(straight.bias)
    np.testing.assert_allclose(found[0, 5, 7], wanted, atol=1e-5)


def test_shortcut_sees_the_means_of_large_cells(rng):
    """A kernel over every pixel of a large cell would move the features too far at each step."""
    settings = {"image_size": 192, "multipliers": (1, 2), "stride": 6, "shortcuts": True}
    model = PortraitAutoencoder.from_preset("vpgc_tiny", **settings)
    deep = model.encoder.get_layer("encoder_last")
    deep.set_weights([np.zeros_like(w) for w in deep.get_weights()])
    straight = model.encoder.get_layer("encoder_shortcut")
    # Cells of twelve pixels: six means, and three more on each side.
    assert straight.kernel.shape == (12, 12, 3, 32)
    x = rng.uniform(-1, 1, (1, 192, 192, 3)).astype("float32")
    found = to_numpy(model.encoder(x))
    patch = x[0, 12 * 5 - 6 : 12 * 6 + 6, 12 * 7 - 6 : 12 * 8 + 6]
    means = patch.reshape(12, 2, 12, 2, 3).mean((1, 3))
    wanted = np.einsum("ijc,ijcd->d", means, to_numpy(straight.kernel)) + to_numpy(straight.bias)
    np.testing.assert_allclose(found[0, 5, 7], wanted, atol=1e-5)


def test_driver_may_begin_at_half_the_resolution(rng):
    settings = {"driver_stride": 2, "driver_multipliers": (2, 2)}
    driver = PortraitDriver.from_preset("vpgc_tiny", **settings)
    assert driver.output_shape == (None, 16, 16, 32)
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", shortcuts=True)
    driver.codebook.set_weights(autoencoder.codebook.get_weights())
    reenactor = PortraitReenactor.from_models(autoencoder, driver)
    x = landmarks_of(rng)
    features = driver(layers.LandmarkHeatmap(64)(x))
    quantized = autoencoder.soft_index([features, autoencoder.codebook(features)])
    wanted = to_numpy(autoencoder.decoder(quantized))
    np.testing.assert_allclose(to_numpy(reenactor(x)), wanted, atol=1e-5)
    with pytest.raises(VPGCError, match="60 pixels cannot be divided by 8 and halved 1 times"):
        PortraitDriver.from_preset(
            "vpgc_tiny", image_size=60, driver_stride=8, driver_multipliers=(2, 2)
        )


BAD = [
    (dict(image_size=102), "102 pixels cannot be halved 2 times.*multiple of 4"),
    (dict(latent_dim=30), "depth of 30 cannot be split into codes of length 4"),
    (dict(window_size=17), "window of 17 cells does not fit a grid of 16x16"),
    (dict(norm_groups=5), "norm_groups=5"),
    (dict(codebook="round"), "no codebook 'round': choose one of grid, vanilla, split, none"),
    (dict(ema_decay=0.9), "ema_decay belongs to the vanilla codebook and this one is 'grid'"),
    (dict(kmeans_start=True, codebook="none"), "kmeans_start belongs to .* 'none'"),
    (dict(mode="softer"), "mode 'soft' and 'hard'"),
]


@pytest.mark.parametrize("settings, message", BAD, ids=[list(x[0])[0] for x in BAD])
def test_autoencoder_says_what_does_not_fit(settings, message):
    with pytest.raises(VPGCError, match=message):
        PortraitAutoencoder.from_preset("vpgc_tiny", **settings)


def test_driver_says_so_too():
    with pytest.raises(VPGCError, match="multiple of 4"):
        PortraitDriver.from_preset("vpgc_tiny", image_size=102)


def test_models_of_two_presets_do_not_join(rng):
    autoencoder, driver, _ = puppet()
    other = PortraitDriver.from_preset("vpgc_tiny", latent_dim=64)
    with pytest.raises(VPGCError, match="features 16x16x32 but the driver .* features 16x16x64"):
        PortraitReenactor.from_models(autoencoder, other)
    with pytest.raises(VPGCError, match="codes have the shape"):
        PortraitDriver.from_preset("vpgc_tiny", codes=np.zeros((16, 16, 8, 4)))
    for codebook in ("vanilla", "split", "none"):
        with pytest.raises(VPGCError, match=f"{codebook}.*texture_prior=False"):
            PortraitReenactor.from_preset("vpgc_tiny", codebook=codebook)
    with pytest.raises(VPGCError, match="'float' or 'uint8'"):
        PortraitReenactor.from_models(autoencoder, driver, output="int")
