import keras
import numpy as np
import pytest
from keras import ops

from keras_vpgc import VPGCError, backend
from keras_vpgc.models import DirectMapping, PatchDiscriminator
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.training import DirectTrainer
from keras_vpgc.training.recipes import read_run, train_puppet
from tests.layers.layer_case import to_numpy

pytestmark = pytest.mark.once
# What takes long is compiling each level.
SMALL = {"image_size": 32, "multipliers": (1, 2), "driver_multipliers": (1, 2)}


@pytest.fixture
def batch(rng):
    landmarks = rng.uniform(0.2, 0.8, size=(2, 7, 68, 2)).astype("float32")
    return landmarks, rng.integers(0, 256, size=(2, 32, 32, 3), dtype="uint8")


def test_step_is_the_gradient_of_the_weighted_l1(batch, rng):
    landmarks, images = batch
    weights = rng.uniform(0.5, 2.0, size=(2, 32, 32, 1)).astype("float32")
    model = DirectMapping.from_preset("vpgc_tiny", **SMALL)
    trainer = DirectTrainer(model)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0))
    true = ops.convert_to_tensor(images.astype("float32") / 127.5 - 1.0)
    shares = ops.convert_to_tensor(weights)

    def loss():
        return (ops.mean(shares * ops.abs(model(landmarks, training=True) - true)),)

    variables = model.trainable_variables
    (value,), pullback = backend.vjp(loss, variables)
    wanted = [to_numpy(g) for g in pullback((ops.ones_like(value),))]
    before = [to_numpy(v) for v in variables]
    logs = trainer.fit(landmarks, images, sample_weight=weights, batch_size=2, verbose=0).history
    assert logs["loss"][0] == pytest.approx(float(to_numpy(value)), rel=1e-4)
    for v, old, grad in zip(variables, before, wanted, strict=True):
        np.testing.assert_allclose(old - to_numpy(v), grad, rtol=1e-2, atol=2e-4, err_msg=v.path)


def test_discriminator_joins_with_feature_matching(batch):
    model = DirectMapping.from_preset("vpgc_tiny", **SMALL)
    discriminator = PatchDiscriminator(32, discriminator_channels=8, feature_maps=True)
    trainer = DirectTrainer(model, discriminator, feature_matching_weight=10.0)
    trainer.compile()
    logs = trainer.fit(*batch, batch_size=2, verbose=0).history
    assert {"adversarial", "discriminator", "lambda", "matching"} <= set(logs)
    assert "vq" not in logs


def test_run_of_the_direct_mapping_is_a_puppet(portrait, tmp_path):
    recipe = {"steps": 2, "adversarial": "hinge", "adversarial_start": 1}
    arguments = (portrait, tmp_path / "r", "vpgc_tiny")
    model = train_puppet(*arguments, recipe=recipe, method="direct", verbose=0)
    assert {x.name for x in (tmp_path / "r").iterdir()} >= {"run.json", "puppet.keras", "logs"}
    assert not (tmp_path / "r" / "autoencoder.keras").exists()
    assert read_run(tmp_path / "r")["config"]["method"] == "direct"
    puppet = Puppet.load(tmp_path / "r")
    driven = puppet.drive(portrait.landmarks[:3])
    assert driven.shape == (3, 64, 64, 3)
    windows = np.stack([portrait.landmarks[[0, 0, 0, 0, 1, 2, 3]]]).astype("float32")
    wanted = np.clip((to_numpy(model(windows))[0] + 1) * 127.5, 0, 255)
    again = puppet.drive(portrait.landmarks[:7])[0]
    assert np.abs(again - wanted).max() < 1.1
    # The puppet's own way is another run.
    with pytest.raises(VPGCError, match=r"other settings \(method differs\)"):
        train_puppet(*arguments, recipe=recipe, verbose=0)


def test_encoder_and_decoder_must_fit():
    with pytest.raises(VPGCError, match="must make the image equally small"):
        DirectMapping.from_preset("vpgc_tiny", driver_multipliers=(1, 2))
