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
)
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder
from keras_vpgc.training import CodebookTrainer
from tests.layers.layer_case import to_numpy

# TensorFlow takes far longer to trace a step than to run it: most tests run it eagerly there.
EAGER = keras.backend.backend() == "tensorflow"
# Two levels of the network instead of three: what takes long is compiling each.
SIZE = 32
SMALL = {"image_size": SIZE, "multipliers": (1, 2)}


def build(discriminator=True, compile=None, autoencoder=None, eager=EAGER, **settings):
    keras.utils.set_random_seed(2)
    trainer = CodebookTrainer(
        PortraitAutoencoder.from_preset("vpgc_tiny", **{**SMALL, **(autoencoder or {})}),
        PatchDiscriminator(
            SIZE,
            2,
            2,
            discriminator_channels=8,
            feature_maps=settings.get("feature_matching_weight", 0) > 0,
        )
        if discriminator
        else None,
        **settings,
    )
    trainer.compile(**(compile or {}), run_eagerly=eager)
    return trainer


def sgd(*rates):
    names = ("optimizer", "code_optimizer", "discriminator_optimizer")
    return {name: keras.optimizers.SGD(rate) for name, rate in zip(names, rates, strict=False)}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, size=(4, SIZE, SIZE, 3), dtype="uint8")


def values(model):
    return {v.path: to_numpy(v) for v in model.weights}


def changed(before, after):
    return {k for k in before if np.abs(before[k] - after[k]).max() > 0}


def direct(loss, variables):
    (value,), pullback = backend.vjp(lambda: (loss(),), variables)
    return float(to_numpy(value)), [to_numpy(g) for g in pullback((ops.ones_like(value),))]


@pytest.mark.parametrize(
    ("kind", "matching", "apart"),
    [
        ("hinge", 0.0, False),
        pytest.param("lsgan", 0.0, False, marks=pytest.mark.once),
        pytest.param("hinge", 3.0, False, marks=pytest.mark.once),
        pytest.param("hinge", 3.0, True, marks=pytest.mark.once),
    ],
)
def test_step_is_the_gradient_of_the_papers_loss(images, kind, matching, apart):
    """One SGD step against two plain backward passes, lambda included."""
    # In graphs oneDNN takes other convolutions than outside, on some processors so different ones
    # that gradients differ by a hundredth; `test_across_backends` compares a step in a graph.
    trainer = build(
        compile=sgd(1.0, 1.0, 1.0), adversarial=kind,
        feature_matching_weight=matching, adaptive_matching=not apart,
    )  # fmt: skip
    model, discriminator = trainer.autoencoder, trainer.discriminator
    x = ops.convert_to_tensor(images.astype("float32") / 127.5 - 1.0)
    last = model.decoder.layers[-1].kernel

    def logits(images):
        return [maps[-1] if matching else maps for maps in discriminator(images)]

    def matched(fakes):
        if not matching:
            return 0.0
        return matching * feature_matching_loss(discriminator(x), discriminator(fakes))

    def fixed():
        fakes = model(x, training=True)
        return ops.mean(ops.abs(fakes - x)) + (matched(fakes) if apart else 0.0)

    def adversarial():
        fakes = model(x, training=True)
        return generator_loss(logits(fakes), kind) + (0.0 if apart else matched(fakes))

    values_and_grads = [direct(loss, [last]) for loss in (fixed, adversarial)]
    norms = [np.linalg.norm(grads[0]) for _, grads in values_and_grads]
    weight = 0.8 * np.clip(norms[0] / (norms[1] + 1e-4), 0, 1e4)

    def total():
        return fixed() + sum(model.losses) + weight * adversarial()

    def judged():
        fakes = ops.stop_gradient(model(x))
        return discriminator_loss(logits(x), logits(fakes), kind)

    wanted_loss, wanted = direct(total, model.trainable_variables)
    wanted_judged, wanted_discriminator = direct(judged, discriminator.trainable_variables)
    before = values(model) | values(discriminator)
    logs = trainer.fit(images, batch_size=4, shuffle=False, verbose=0).history
    after = values(model) | values(discriminator)

    assert logs["lambda"][0] == pytest.approx(weight, rel=1e-3)
    # What processors' rounding leaves of lambda is allowed above.
    wanted_loss += (logs["lambda"][0] - weight) * values_and_grads[1][0]
    assert logs["loss"][0] == pytest.approx(wanted_loss, rel=1e-4)
    assert logs["discriminator"][0] == pytest.approx(wanted_judged, rel=1e-4)
    variables = model.trainable_variables + discriminator.trainable_variables
    for v, grad in zip(variables, wanted + wanted_discriminator, strict=True):
        found = before[v.path] - after[v.path]
        np.testing.assert_allclose(found, grad, rtol=1e-2, atol=2e-4, err_msg=v.path)


@pytest.mark.once
def test_constant_lambda(images):
    trainer = build(adaptive=False, adversarial_weight=0.125)
    logs = trainer.fit(images, batch_size=4, verbose=0).history
    assert logs["lambda"][0] == pytest.approx(0.125)


@pytest.mark.slow_on("tensorflow", "jax")
def test_gradient_penalty_sees_other_noise_at_each_step(images, rng):
    trainer = build(compile={"learning_rate": 0.0}, gradient_penalty=10.0)
    logs = trainer.fit(images, batch_size=4, epochs=3, shuffle=False, verbose=0).history
    # Nothing is learnt, so all else is as it was.
    assert len(set(logs["penalty"])) == 3
    assert logs["discriminator"][0] == pytest.approx(logs["discriminator"][2], rel=1e-4)
    x = images.astype("float32") / 127.5 - 1.0
    noisy = x + rng.normal(0, 0.05, size=x.shape).astype("float32")
    logits = [trainer.discriminator(ops.convert_to_tensor(i)) for i in (x, noisy)]
    wanted = float(to_numpy(gradient_penalty(*logits)))
    assert np.mean(logs["penalty"]) == pytest.approx(wanted, rel=0.5)


@pytest.mark.slow
@pytest.mark.once
def test_gradient_penalty_flattens_the_discriminator(images):
    ends = []
    for weight in (1e-6, 1e4):
        trainer = build(compile={"learning_rate": 1e-3}, gradient_penalty=weight)
        logs = trainer.fit(images, batch_size=4, epochs=15, shuffle=False, verbose=0).history
        ends.append(logs["penalty"][-1])
    assert ends[1] < 0.5 * ends[0]


def test_each_part_has_its_own_optimiser(images):
    trainer = build(compile=sgd(0.0, 0.1, 0.0))
    before = values(trainer)
    trainer.fit(images, batch_size=2, verbose=0)
    assert {p.rsplit("/", 1)[-1] for p in changed(before, values(trainer))} >= {"codes"}
    moved = {p for p in changed(before, values(trainer)) if "codes" not in p}
    assert not [p for p in moved if p.startswith(("encoder", "decoder", "discriminator_"))]

    trainer = build(compile=sgd(0.0, 0.0, 0.1))
    before = values(trainer.discriminator), values(trainer.autoencoder)
    trainer.fit(images, batch_size=2, verbose=0)
    assert changed(before[0], values(trainer.discriminator))
    assert not changed(before[1], values(trainer.autoencoder))


@pytest.mark.slow_on("tensorflow")
def test_discriminator_joins_at_its_step_across_fits(images):
    trainer = build(adversarial_start=3, eager=False)
    before = values(trainer.discriminator)
    logs = trainer.fit(images, batch_size=2, epochs=1, verbose=0).history
    assert "lambda" not in logs
    assert not changed(before, values(trainer.discriminator))
    # Steps 2 and 3: the second of them is past the start.
    logs = trainer.fit(images, batch_size=2, epochs=1, verbose=0).history
    assert "lambda" in logs
    assert changed(before, values(trainer.discriminator))
    assert int(trainer.optimizer.iterations.numpy()) == 4


@pytest.mark.once
def test_no_step_asks_for_the_model(images, monkeypatch):
    """On JAX, Keras then gives all variables their values, for milliseconds in which GPUs wait."""
    trainer = build(adversarial_start=100)
    asked = []
    model = keras.callbacks.Callback.model

    def counted(callback):
        asked.append(callback)
        return model.fget(callback)

    monkeypatch.setattr(keras.callbacks.Callback, "model", property(counted))
    trainer.fit(images, batch_size=4, verbose=0)
    once = len(asked)
    trainer.fit(np.concatenate([images] * 3), batch_size=4, verbose=0)
    assert len(asked) == 2 * once


@pytest.mark.slow_on("tensorflow")
def test_adam_state_goes_on_in_a_second_fit(images):
    """Two fits are one: the optimisers' moments are carried over on every backend."""
    x = images[:2]
    once, twice = (build(discriminator=False) for _ in range(2))
    once.fit(x, batch_size=2, epochs=4, shuffle=False, verbose=0)
    twice.fit(x, batch_size=2, epochs=2, shuffle=False, verbose=0)
    twice.fit(x, batch_size=2, epochs=2, shuffle=False, verbose=0)
    a, b = values(once.autoencoder), values(twice.autoencoder)
    for path in a:
        np.testing.assert_allclose(a[path], b[path], atol=2e-5, err_msg=path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"mode": "hard"}, marks=pytest.mark.once),
        pytest.param({"codebook": "vanilla"}, marks=pytest.mark.slow_on("tensorflow", "jax")),
        pytest.param(
            {"codebook": "vanilla", "ema_decay": 0.9, "revive_after": 3},
            marks=pytest.mark.slow_on("tensorflow", "jax"),
        ),
        pytest.param({"codebook": "split"}, marks=pytest.mark.once),
    ],
    ids=["soft", "hard", "vanilla", "averages", "split"],
)
def test_loss_falls_and_codes_move(images, settings):
    trainer = build(
        discriminator=False,
        autoencoder={"num_codes": 32, **settings},
        compile={"learning_rate": 1e-3},
    )
    codes = to_numpy(trainer.autoencoder.codebook.weights[0])
    smooth = np.full_like(images, 200)
    smooth[:, : SIZE // 2] = 60
    history = trainer.fit(smooth, batch_size=2, epochs=6, verbose=0).history["l1"]
    assert history[-1] < 0.7 * history[0]
    assert np.abs(to_numpy(trainer.autoencoder.codebook.weights[0]) - codes).max() > 1e-4


def test_perceptual_term_joins_the_loss(images):
    x = keras.Input((SIZE, SIZE, 3))
    features = keras.Model(x, [keras.layers.Conv2D(4, 3, strides=4)(x)])
    trainer = build(
        discriminator=False,
        perceptual=PerceptualLoss(features),
        perceptual_weight=0.5,
        l1_weight=2.0,
        compile=sgd(0.0, 0.0),
    )
    logs = trainer.fit(images, batch_size=4, verbose=0).history
    wanted = 2.0 * logs["l1"][0] + 0.5 * logs["perceptual"][0] + logs["vq"][0]
    assert logs["loss"][0] == pytest.approx(wanted, rel=1e-5)
    assert logs["perceptual"][0] > 0


def test_evaluate_and_psnr(images):
    trainer = build(discriminator=False)
    logs = trainer.evaluate(images, batch_size=2, verbose=0, return_dict=True)
    y = np.clip(trainer.predict(images, verbose=0), -1, 1)
    x = images / 127.5 - 1.0
    psnr = 10 * np.log10(4 / ((x - y) ** 2).mean((1, 2, 3)))
    assert logs["psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
    # Floats in [-1, 1] are the same images.
    again = trainer.evaluate(x.astype("float32"), batch_size=2, verbose=0, return_dict=True)
    assert again["loss"] == pytest.approx(logs["loss"], rel=1e-5)


def test_trained_models_are_saved_without_their_trainer(images, tmp_path):
    trainer = build()
    trainer.fit(images, batch_size=2, verbose=0)
    trainer.autoencoder.save(tmp_path / "a.keras")
    trainer.discriminator.save(tmp_path / "d.keras")
    x = images.astype("float32") / 127.5 - 1.0
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert not loaded.compiled
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(trainer(images)), atol=1e-5)
    judged = keras.saving.load_model(tmp_path / "d.keras")(x)
    np.testing.assert_allclose(
        to_numpy(judged[0]), to_numpy(trainer.discriminator(x)[0]), atol=1e-5
    )


def test_mixed_precision_trains(images):
    trainer = build(autoencoder={"dtype": "mixed_bfloat16"})
    logs = trainer.fit(images, batch_size=2, epochs=2, verbose=0).history
    assert all(np.isfinite(v).all() for v in logs.values())
    assert all(v.dtype == "float32" for v in trainer.trainable_variables)


def test_unknown_adversarial_loss():
    with pytest.raises(VPGCError, match="no adversarial loss 'wgan'"):
        build(adversarial="wgan")


@pytest.mark.once
def test_weights_of_pixels_enter_l1(images, rng):
    trainer = build(discriminator=False)
    weights = rng.uniform(0.5, 4.0, size=(4, SIZE, SIZE, 1)).astype("float32")
    logs = trainer.evaluate(images, weights, batch_size=4, verbose=0, return_dict=True)
    x = images / 127.5 - 1.0
    error = np.abs(to_numpy(trainer.autoencoder(x.astype("float32"))) - x)
    assert logs["l1"] == pytest.approx((weights * error).mean(), rel=1e-4)
    plain = trainer.evaluate(images, batch_size=4, verbose=0, return_dict=True)
    assert plain["l1"] == pytest.approx(error.mean(), rel=1e-4)
    before = values(trainer.autoencoder)
    trainer.fit(images, weights, batch_size=4, verbose=0)
    assert changed(before, values(trainer.autoencoder))
