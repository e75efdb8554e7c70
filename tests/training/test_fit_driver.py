from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from keras_vpgc import VPGCError, backend
from keras_vpgc.layers import LandmarkHeatmap
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder, PortraitDriver
from keras_vpgc.training import DriverTrainer, draw, encode, fit_driver, fit_driver_on_images
from tests.layers.layer_case import to_numpy

# Two levels and one block: what takes long is compiling each.
SMALL = {"image_size": 32, "driver_multipliers": (1, 2), "transformer_blocks": 1}


def test_encode_gives_the_encoders_features(rng):
    model = PortraitAutoencoder.from_preset("vpgc_tiny")
    images = rng.integers(0, 256, size=(5, 64, 64, 3), dtype="uint8")
    # A last batch of another size must not matter.
    found = encode(model, images, batch_size=2, dtype="float32")
    wanted = to_numpy(model.encoder(images / np.float32(127.5) - 1))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name, points", [("ibug-68", 68), ("ibug-68-iris", 78)])
def test_draw_gives_the_heatmap_layers_picture(name, points, rng):
    landmarks = rng.uniform(size=(5, points, 2)).astype("float32")
    found = draw(landmarks, 32, batch_size=2, contours=name)
    wanted = to_numpy(LandmarkHeatmap(32, contours=name)(landmarks[:, None]))[..., 0]
    assert found.dtype == np.uint8
    assert np.abs(found / 255 - wanted).max() <= 0.502 / 255 + 1e-4


@pytest.mark.slow
@pytest.mark.once
def test_driver_learns_features_that_follow_the_landmarks(rng):
    """Landmarks that only shift, features that follow the shift: the driver must find it."""
    face = rng.uniform(0.3, 0.7, size=(68, 2))
    # None in the middle, where a rounding decides what is right.
    shift = np.concatenate([np.linspace(-0.15, -0.05, 12), np.linspace(0.05, 0.15, 12)])
    landmarks = np.stack([face + [s, 0] for s in shift]).astype("float32")
    features = np.broadcast_to(np.sign(shift)[:, None, None, None] * 0.5, (24, 16, 16, 32)).astype(
        "float32"
    )
    indices = rng.permutation(24)[:18]
    held_out = np.setdiff1d(np.arange(24), indices)
    driver = PortraitDriver.from_preset("vpgc_tiny")
    history = fit_driver(
        driver,
        landmarks,
        features[indices],
        indices,
        (features[held_out], held_out),
        steps=90,
        batch_size=6,
        learning_rate=2e-3,
        steps_per_epoch=30,
        verbose=0,
    )
    # 10 * L1 (Eq. 8) starts at 5; knowing nothing of the landmarks it would stay there.
    assert history[-1]["val_loss"] < 1.5
    assert len(history) == 3


def test_features_and_frames_must_belong_together():
    driver = PortraitDriver.from_preset("vpgc_tiny")
    with pytest.raises(VPGCError, match="3 features for 2 frames"):
        fit_driver(driver, np.zeros((9, 68, 2)), np.zeros((3, 16, 16, 32)), np.arange(2))


def test_loss_is_eq_8(rng, eager_tensorflow):
    driver = PortraitDriver.from_preset("vpgc_tiny", **SMALL)
    landmarks = rng.uniform(size=(4, 68, 2)).astype("float32")
    features = rng.normal(size=(4, 16, 16, 32)).astype("float32")
    fit_driver(
        driver, landmarks, features, np.arange(4), steps=1, batch_size=4, learning_rate=0.0,
        verbose=0,
    )  # fmt: skip
    heatmaps = draw(landmarks, 32)[[[0, 0, 0, 0, 1, 2, 3]]]
    heatmaps = np.moveaxis(heatmaps, 1, -1).astype("float32") / 255
    loss = driver.evaluate(heatmaps, features[:1], verbose=0)
    wanted = 10 * np.abs(to_numpy(driver(heatmaps)) - features[:1]).mean()
    assert loss == pytest.approx(wanted, rel=1e-4)
    assert keras.backend.standardize_dtype(driver(heatmaps).dtype) == "float32"


@pytest.mark.slow_on("tensorflow", "jax")
@pytest.mark.parametrize(
    "settings",
    [{}, pytest.param({"codebook": "vanilla", "num_codes": 16}, marks=pytest.mark.once)],
    ids=["grid", "vanilla"],
)
def test_driver_learns_from_images_through_the_frozen_decoder(settings, rng, eager_tensorflow):
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", **settings)
    driver = PortraitDriver.from_preset("vpgc_tiny", texture_prior=not settings)
    if driver.codebook is not None:
        driver.codebook.set_weights(autoencoder.codebook.get_weights())
    images = np.full((4, 64, 64, 3), 200, "uint8")
    landmarks = rng.uniform(size=(4, 68, 2)).astype("float32")
    features = encode(autoencoder, images)
    before = [w.copy() for w in autoencoder.get_weights()]
    history = fit_driver_on_images(
        driver, autoencoder, landmarks, images, features, np.arange(4), steps=12,
        steps_per_epoch=4, batch_size=2, learning_rate=1e-3, feature_weight=0.001, verbose=0,
    )  # fmt: skip
    if not settings:  # the untrained codes of the vanilla codebook are all but equal
        assert history[-1]["loss"] < history[0]["loss"]
    for old, new in zip(before, autoencoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert set(history[-1]) == {"loss", "l1", "psnr", "features"}
    assert autoencoder.trainable_variables and autoencoder.decoder.trainable
    given = landmarks, images, features, np.arange(4)
    with pytest.raises(VPGCError, match="3 images and 4 features for 4 frames"):
        fit_driver_on_images(driver, autoencoder, landmarks, images[:3], features, np.arange(4))
    with pytest.raises(VPGCError, match="moved frames are not known: set feature_weight=0"):
        fit_driver_on_images(driver, autoencoder, *given, jitter=0.1)


@pytest.mark.once
def test_feature_matching_apart_counts_as_other_errors_of_images_do(rng):
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", image_size=32, multipliers=(1, 2))
    driver = PortraitDriver.from_preset("vpgc_tiny", codes=autoencoder.codebook.codes, **SMALL)
    images = rng.integers(0, 256, size=(2, 32, 32, 3), dtype="uint8")
    discriminator = PatchDiscriminator(32, 2, 2, discriminator_channels=4, feature_maps=True)
    adversarial = {"feature_matching_weight": 0.5, "adaptive_matching": False}
    (row,) = fit_driver_on_images(
        driver, autoencoder, rng.uniform(size=(2, 68, 2)).astype("float32"), images,
        encode(autoencoder, images), np.arange(2), steps=1, batch_size=2, learning_rate=0.0,
        image_weight=30.0, train_decoder=True, discriminator=discriminator,
        adversarial=adversarial, verbose=0,
    )  # fmt: skip
    compared = 30 * (row["l1"] + 0.5 * row["matching"])
    wanted = row["features"] + compared + row["lambda"] * row["adversarial"]
    assert row["loss"] == pytest.approx(wanted, rel=1e-4)
    # What was given is as it was.
    assert adversarial == {"feature_matching_weight": 0.5, "adaptive_matching": False}


def parts(rng):
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", image_size=32, multipliers=(1, 2))
    driver = PortraitDriver.from_preset("vpgc_tiny", codes=autoencoder.codebook.codes, **SMALL)
    heatmaps = rng.uniform(size=(2, 32, 32, 7)).astype("float32")
    features = rng.normal(size=(2, 16, 16, 32)).astype("float32")
    images = rng.integers(0, 256, size=(2, 32, 32, 3), dtype="uint8")
    return autoencoder, driver, heatmaps, features, images


def test_step_of_driver_and_decoder_is_the_gradient_of_their_loss(rng):
    autoencoder, driver, heatmaps, features, images = parts(rng)
    weights = rng.uniform(0.5, 2.0, size=(2, 32, 32, 1)).astype("float32")
    trainer = DriverTrainer(
        driver, autoencoder, train_decoder=True, feature_weight=10.0, l1_weight=30.0
    )
    eager = keras.backend.backend() == "tensorflow"
    trainer.compile(optimizer=keras.optimizers.SGD(0.01), run_eagerly=eager)
    variables = [*driver.trainable_variables, *autoencoder.decoder.trainable_variables]
    true = ops.convert_to_tensor(images.astype("float32") / 127.5 - 1.0)
    given = [ops.convert_to_tensor(x) for x in (heatmaps, features, weights)]

    def loss():
        found = driver(given[0], training=True)
        image = autoencoder.decoder(autoencoder.soft_index([found, autoencoder.codebook(found)]))
        error = ops.mean(ops.abs(found - given[1]))
        return (10.0 * error + 30.0 * ops.mean(given[2] * ops.abs(image - true)),)

    (value,), pullback = backend.vjp(loss, variables)
    wanted = [to_numpy(g) for g in pullback((ops.ones_like(value),))]
    before = [to_numpy(v) for v in variables]
    codes = to_numpy(autoencoder.codebook.codes)
    logs = trainer.fit(
        (heatmaps, features), images, sample_weight=weights, batch_size=2, verbose=0
    ).history
    assert logs["loss"][0] == pytest.approx(float(to_numpy(value)), rel=1e-4)
    size = np.sqrt(np.mean([np.mean(g**2) for g in wanted]))
    for v, old, grad in zip(variables, before, wanted, strict=True):
        found = (old - to_numpy(v)) / 0.01
        assert np.abs(found - grad).max() <= 0.02 * max(size, np.abs(grad).max()), v.path
    np.testing.assert_array_equal(to_numpy(autoencoder.codebook.codes), codes)


class Canvas(keras.layers.Layer):
    """Shows the picture that is its weight, whatever comes in."""

    def build(self, shape):
        self.picture = self.add_weight(shape=(32, 32, 3), initializer="zeros")

    def call(self, x):
        return self.picture + 0.0 * ops.mean(x, axis=(1, 2, 3), keepdims=True)


def test_pixels_that_weigh_nothing_are_not_judged_by_any_loss(rng, eager_tensorflow):
    autoencoder, driver, heatmaps, features, images = parts(rng)
    inputs = keras.Input((16, 16, 32))
    canvas = Canvas()
    decoder = keras.Model(inputs, canvas(inputs))
    trainer = DriverTrainer(
        driver,
        SimpleNamespace(
            decoder=decoder, codebook=autoencoder.codebook, soft_index=autoencoder.soft_index
        ),
        PatchDiscriminator(32, discriminator_channels=4, feature_maps=True),
        lambda true, predicted: ops.mean(ops.square(true - predicted)),
        train_decoder=True,
        adaptive=False,
        feature_matching_weight=1.0,
    )
    eager = keras.backend.backend() == "tensorflow"
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=eager)
    weights = np.ones((2, 32, 32, 1), "float32")
    weights[:, :10] = weights[:, :, 20:] = 0.0
    trainer.fit((heatmaps, features), images, sample_weight=weights, batch_size=2, verbose=0)
    changed = to_numpy(canvas.picture) != 0
    assert changed[10:, :20].mean() > 0.99
    assert not changed[:10].any() and not changed[:, 20:].any()


@pytest.mark.once
def test_adversarial_loss_joins_driver_and_decoder(rng):
    autoencoder, driver, heatmaps, features, images = parts(rng)
    discriminator = PatchDiscriminator(32, discriminator_channels=4)
    trainer = DriverTrainer(driver, autoencoder, discriminator, train_decoder=True)
    trainer.compile(run_eagerly=keras.backend.backend() == "tensorflow")
    before = [to_numpy(v) for v in discriminator.weights]
    logs = trainer.fit((heatmaps, features), images, batch_size=2, verbose=0).history
    assert {"features", "adversarial", "discriminator", "lambda"} <= set(logs)
    assert any((to_numpy(v) != x).any() for v, x in zip(discriminator.weights, before, strict=True))
    with pytest.raises(VPGCError, match="set train_decoder=True"):
        DriverTrainer(driver, autoencoder, discriminator)
