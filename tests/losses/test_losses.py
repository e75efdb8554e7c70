import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.losses import PerceptualLoss, discriminator_loss, generator_loss
from tests.layers.layer_case import to_numpy


def maps(rng):
    return [rng.normal(size=(2, n, n, 1)).astype("float32") * 2 for n in (4, 2)]


def test_hinge_and_least_squares_by_their_definition(rng):
    real, fake = maps(rng), maps(rng)
    hinge = [
        0.5 * (np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean())
        for r, f in zip(real, fake, strict=True)
    ]
    squares = [
        0.5 * (((r - 1) ** 2).mean() + (f**2).mean()) for r, f in zip(real, fake, strict=True)
    ]
    for kind, wanted in (("hinge", hinge), ("lsgan", squares)):
        found = float(to_numpy(discriminator_loss(real, fake, kind)))
        assert found == pytest.approx(np.mean(wanted), rel=1e-5)
    assert float(to_numpy(generator_loss(fake, "hinge"))) == pytest.approx(
        np.mean([-f.mean() for f in fake]), rel=1e-5
    )
    assert float(to_numpy(generator_loss(fake, "lsgan"))) == pytest.approx(
        np.mean([((f - 1) ** 2).mean() for f in fake]), rel=1e-5
    )
    with pytest.raises(VPGCError, match="no adversarial loss 'wgan': choose one of hinge, lsgan"):
        generator_loss(fake, "wgan")


def feature_network():
    x = keras.Input((8, 8, 3))
    a = keras.layers.Conv2D(4, 3, activation="relu", name="a")(x)
    b = keras.layers.Conv2D(2, 3, strides=2, name="b")(a)
    return keras.Model(x, [a, b])


def test_perceptual_loss_is_the_weighted_distance_of_the_maps(rng, tmp_path):
    features = feature_network()
    loss = PerceptualLoss(features, [0.25, 2.0])
    x, y = (rng.uniform(-1, 1, size=(2, 8, 8, 3)).astype("float32") for _ in range(2))
    wanted = sum(
        w * np.abs(to_numpy(a) - to_numpy(b)).mean()
        for w, a, b in zip([0.25, 2.0], features(x), features(y), strict=True)
    )
    assert float(to_numpy(loss(x, y))) == pytest.approx(wanted, rel=1e-5)
    assert not features.trainable_weights
    again = PerceptualLoss.from_config(loss.get_config())
    again.features.set_weights(features.get_weights())
    assert float(to_numpy(again(x, y))) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(VPGCError, match="3 layer_weights for 2 feature maps"):
        PerceptualLoss(feature_network(), [1, 1, 1])
