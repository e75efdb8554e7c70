import keras
import numpy as np
import pytest

from keras_vpgc.training import AveragingAdam, averaged, schedule
from keras_vpgc.training.optimizer import Scaled, adam
from tests.layers.layer_case import to_numpy


def line(optimizer, eager=False):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse", run_eagerly=eager, jit_compile=False)
    return model


@pytest.fixture
def data(rng):
    return rng.normal(size=(12, 3)).astype("float32"), rng.normal(size=(12, 2)).astype("float32")


def weights(model):
    return [to_numpy(v).copy() for v in model.trainable_variables]


class Record(keras.callbacks.Callback):
    """Weights after each epoch, here a step."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            self.seen = [weights(self.model)]

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(weights(self.model))


def test_averages_by_their_definition_across_fits(data):
    """The second `fit` goes on: Keras's own averages fail there on JAX."""
    optimizer = AveragingAdam(0.05, average=0.8)
    model = line(optimizer)
    record = Record()
    model.fit(*data, batch_size=12, epochs=6, verbose=0, shuffle=False, callbacks=[record])
    seen = record.seen
    model.fit(*data, batch_size=12, epochs=3, verbose=0, shuffle=False, callbacks=[record])
    seen = [*seen, *record.seen[1:]]
    wanted = seen[1]
    for step, values in enumerate(seen[2:], 2):
        keep = min(0.8, (1 + step) / (10 + step))
        wanted = [keep * a + (1 - keep) * v for a, v in zip(wanted, values, strict=True)]
    with averaged(optimizer):
        found = weights(model)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # Outside of it the model has its own weights again.
    for a, b in zip(weights(model), seen[-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(wanted[0] - seen[-1][0]).max() > 1e-3


@pytest.mark.parametrize("average", [None, 0.9])
def test_two_accumulated_batches_are_one_of_twice_the_size(data, average):
    whole = line(AveragingAdam(0.05, average=average))
    halves = line(AveragingAdam(0.05, average=average, accumulate=2))
    whole.fit(*data, batch_size=12, epochs=3, shuffle=False, verbose=0)
    halves.fit(*data, batch_size=6, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(weights(whole), weights(halves), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.once
def test_warm_up_and_decay():
    cosine = schedule(1e-3, 110, warmup_steps=10)
    found = [float(to_numpy(cosine(step))) for step in (0, 5, 10, 60, 110, 500)]
    wanted = [0, 5e-4, 1e-3, 1e-3 * (0.02 + 0.98 / 2), 2e-5, 2e-5]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    constant = schedule(1e-3, 100, "constant", 10)
    found = [float(to_numpy(constant(step))) for step in (0, 5, 10, 99)]
    np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 1e-3], rtol=1e-5)
    assert schedule(1e-3, 100, "constant") == 1e-3
    assert float(to_numpy(schedule(1e-3, 100)(0))) == pytest.approx(1e-3)


def test_scaled_schedule_and_optimiser_are_saved_whole():
    optimizer = adam(schedule(1e-3, 100, warmup_steps=10), 10.0, average=0.99, accumulate=2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert (again.average, again.accumulate) == (0.99, 2)
    rate = Scaled.from_config(Scaled(schedule(1e-3, 100, warmup_steps=10), 10.0).get_config())
    assert float(to_numpy(rate(5))) == pytest.approx(5e-3)
    again.build(line("sgd").trainable_variables)
    assert float(to_numpy(again.learning_rate)) == 0.0
