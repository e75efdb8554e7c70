"""Codes that move without a gradient: in compiled steps, and after a kill."""

import keras
import numpy as np
import pytest

from keras_vpgc import layers
from keras_vpgc.training import AveragingAdam, Checkpoint
from tests.layers.layer_case import to_numpy


def network():
    keras.utils.set_random_seed(4)
    inputs = keras.Input((3, 3, 4))
    features = keras.layers.Dense(4)(inputs)
    quantizer = layers.VectorQuantizer(12, ema_decay=0.8, revive_after=2)
    model = keras.Model(inputs, quantizer(features))
    model.compile(AveragingAdam(0.01), "mse")
    return model, quantizer


def values(model):
    return [to_numpy(v).copy() for v in [*model.variables, *model.optimizer.variables]]


def test_codes_that_follow_go_on_as_if_never_stopped(tmp_path, rng):
    x = rng.normal(size=(8, 3, 3, 4)).astype("float32")
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    once, quantizer = network()
    start = to_numpy(quantizer.codes).copy()
    Checkpoint(tmp_path / "other.npz").restore(once)
    once.fit(x, x, epochs=4, **fit)
    # They have moved, and those that nobody chose were brought to life.
    assert np.abs(to_numpy(quantizer.codes) - start).max(1).min() > 0.1
    assert len(np.unique(to_numpy(quantizer.encode(once.layers[1](x))))) > 6

    first, _ = network()
    checkpoint = Checkpoint(tmp_path / "c.npz", every_seconds=0)
    checkpoint.restore(first)
    first.fit(x, x, epochs=2, callbacks=[checkpoint], **fit)
    second, _ = network()
    checkpoint = Checkpoint(tmp_path / "c.npz", every_seconds=0)
    assert checkpoint.restore(second) == 2
    second.fit(x, x, epochs=4, initial_epoch=2, callbacks=[checkpoint], **fit)
    for a, b in zip(values(once), values(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch records steps")
@pytest.mark.filterwarnings("error:.*could not be recorded")
def test_moving_codes_are_recorded(rng):
    import torch

    from keras_vpgc.backend.torch_graph import Recorded

    batches = rng.normal(size=(5, 2, 3, 3, 4)).astype("float32")
    codes = []
    for mode in ("off", "trace"):
        keras.utils.set_random_seed(4)
        quantizer = layers.VectorQuantizer(12, ema_decay=0.8, revive_after=2)
        quantizer.build((None, 3, 3, 4))
        step = Recorded(lambda x, layer=quantizer: layer(x, training=True), mode, "The step")
        with torch.no_grad():
            for batch in batches:
                step(torch.from_numpy(batch))
        codes.append(to_numpy(quantizer.codes))
    np.testing.assert_allclose(codes[1], codes[0], atol=1e-6)
