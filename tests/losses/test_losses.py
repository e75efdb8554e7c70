import keras
import numpy as np
import pytest
from keras import ops

from keras_vpgc import VPGCError, backend
from keras_vpgc.losses import (
    PerceptualLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    gradient_penalty,
    vgg19_perceptual,
)
from keras_vpgc.models import PatchDiscriminator
from tests.layers.layer_case import compiled, to_numpy


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


def test_gradient_penalty_is_the_mean_squared_change_of_the_logits(rng):
    shapes = (2, 4, 4, 1), (2, 2, 2, 1)
    clean, noisy = ([rng.normal(size=x).astype("float32") for x in shapes] for _ in range(2))
    wanted = np.mean([np.mean((a - b) ** 2) for a, b in zip(clean, noisy, strict=True)])
    maps = ([ops.convert_to_tensor(x) for x in some] for some in (clean, noisy))
    assert float(to_numpy(gradient_penalty(*maps))) == pytest.approx(wanted, rel=1e-5)


def test_feature_matching_is_the_mean_over_scales_and_layers(rng):
    discriminator = PatchDiscriminator(16, 2, 1, discriminator_channels=4, feature_maps=True)
    x, y = (rng.uniform(-1, 1, size=(2, 16, 16, 3)).astype("float32") for _ in range(2))
    real, fake, found = compiled(
        lambda x, y: (
            discriminator(x),
            discriminator(y),
            feature_matching_loss(discriminator(x), discriminator(y)),
        )
    )(x, y)
    assert [len(scale) for scale in real] == [3, 3]
    pairs = [
        (a, b) for r, f in zip(real, fake, strict=True) for a, b in zip(r[:2], f[:2], strict=True)
    ]
    wanted = np.mean([np.abs(to_numpy(a) - to_numpy(b)).mean() for a, b in pairs])
    assert float(to_numpy(found)) == pytest.approx(wanted, rel=1e-5)

    # The logits do not count, and the real images' maps get no gradient.
    maps = [rng.normal(size=(2, 4, 4, 3)).astype("float32") for _ in range(4)]
    _, _, gradients = backend.value_and_grad(
        lambda a, b, c, d: (feature_matching_loss([[a, b]], [[c, d]]) + ops.sum(a + b + d), ()),
        [ops.convert_to_tensor(x) for x in maps],
    )
    real_map, real_logits, fake_map, fake_logits = (to_numpy(x) for x in gradients)
    for untouched in (real_map, real_logits, fake_logits):
        np.testing.assert_array_equal(untouched, 1)
    np.testing.assert_allclose(fake_map, np.sign(maps[2] - maps[0]) / maps[0].size, rtol=1e-5)


def test_feature_matching_needs_feature_maps(rng):
    with pytest.raises(VPGCError, match="logits alone: build the discriminator with feature_maps"):
        feature_matching_loss(maps(rng), maps(rng))
    with pytest.raises(
        VPGCError, match=r"\[2, 2\] maps of real and \[2\] of generated images: tak"
    ):
        feature_matching_loss([maps(rng)] * 2, [maps(rng)])


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


@pytest.fixture
def narrow_vgg19(monkeypatch):
    """In the place of Keras' VGG19: its layers' names with few channels, and no network to ask."""
    image = x = keras.Input((None, None, 3))
    for i in range(1, 6):
        x = keras.layers.Conv2D(2 + i, 3, padding="same", name=f"block{i}_conv1")(x)
    narrow = keras.Model(image, x)

    def vgg19(include_top, weights, input_shape):
        assert not include_top
        if weights == "imagenet":
            raise Exception("URL fetch failure on somewhere: None -- no route")
        made = keras.models.clone_model(narrow)
        if weights is not None:
            made.load_weights(weights)
        return made

    monkeypatch.setattr(keras.applications, "VGG19", vgg19)
    return narrow


def check_vgg19(rng):
    loss = vgg19_perceptual(weights=None)
    x, y = (rng.uniform(-1, 1, size=(1, 16, 16, 3)).astype("float32") for _ in range(2))
    vgg = loss.features.layers[-1]
    names = [f"block{i}_conv1" for i in range(1, 6)]
    maps = keras.Model(vgg.input, [vgg.get_layer(name).output for name in names])
    a, b = (maps(keras.applications.vgg19.preprocess_input((z + 1) * 127.5)) for z in (x, y))
    wanted = sum(
        w * np.abs(to_numpy(p) - to_numpy(q)).mean()
        for w, p, q in zip([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1], a, b, strict=True)
    )
    assert float(to_numpy(loss(x, y))) == pytest.approx(wanted, rel=1e-4)
    assert not loss.features.trainable_weights
    again = PerceptualLoss.from_config(loss.get_config())
    again.features.set_weights(loss.features.get_weights())
    assert float(to_numpy(again(x, y))) == pytest.approx(wanted, rel=1e-4)


def test_vgg19_sum_is_that_of_the_layers_on_what_keras_preprocesses(rng, narrow_vgg19):
    check_vgg19(rng)


@pytest.mark.once
def test_vgg19_sum_on_the_whole_network(rng):
    check_vgg19(rng)


@pytest.mark.once
def test_vgg19_takes_a_file_of_weights(tmp_path, narrow_vgg19):
    narrow_vgg19.save_weights(tmp_path / "vgg.weights.h5")
    loss = vgg19_perceptual(tmp_path / "vgg.weights.h5")
    for one, other in zip(loss.features.get_weights(), narrow_vgg19.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(VPGCError, match="could not be fetched .URL fetch failure.*give weights="):
        vgg19_perceptual()
    with pytest.raises(VPGCError, match="no file .*nowhere.h5 with weights of VGG19"):
        vgg19_perceptual(tmp_path / "nowhere.h5")
    (tmp_path / "bad.weights.h5").write_bytes(b"no weights")
    with pytest.raises(VPGCError, match="bad.weights.h5 cannot be read as weights of VGG19"):
        vgg19_perceptual(tmp_path / "bad.weights.h5")
