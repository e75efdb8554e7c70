import csv
import sys
import types

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.training import AveragingAdam, Stage
from keras_vpgc.training.callbacks import Progress, StopOnNonFinite
from tests.layers.layer_case import to_numpy


class Batches(keras.utils.PyDataset):
    """What a `Stage` wants of its data: a length, a batch size and the steps done."""

    batch_size = 4

    def __init__(self, steps=2, bad_step=None):
        super().__init__()
        self.steps, self.bad_step, self.done = steps, bad_step, 0

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        step = self.done + index
        rng = np.random.default_rng(step)
        x = rng.normal(size=(4, 3)).astype("float32")
        y = x.sum(axis=1, keepdims=True)
        return x, np.full_like(y, np.nan) if step == self.bad_step else y

    def on_epoch_end(self):
        self.done += self.steps


def network(**settings):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(AveragingAdam(0.05, **settings), "mse", jit_compile=False)
    return model


def stage(folder, steps=8, **settings):
    settings = {"steps_per_epoch": 2, "verbose": 0, "checkpoint_seconds": 0, **settings}
    return Stage(folder, "codebook", "Stage 1", steps, **settings)


HELD = (np.eye(3, dtype="float32"), np.ones((3, 1), "float32"))


def test_loss_that_is_not_finite_ends_the_stage_and_keeps_the_last_good_checkpoint(tmp_path):
    model = network()
    with pytest.raises(VPGCError, match=r"Stage 1 stopped at step 6 because loss is nan \(.*npz"):
        stage(tmp_path).fit(model, Batches(bad_step=5), validation_data=HELD)
    # The same again goes on after the last good epoch, and only what follows is new.
    again = network()
    rows = stage(tmp_path).fit(again, Batches(), validation_data=HELD)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    wanted = network()
    stage(tmp_path / "other").fit(wanted, Batches(), validation_data=HELD)
    for a, b in zip(again.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-6)


@pytest.mark.once
def test_message_without_a_checkpoint():
    guard = StopOnNonFinite()
    guard.set_model(network())
    guard.on_epoch_begin(0)
    with pytest.raises(VPGCError, match="Training stopped at step 1 because vq is inf: train with"):
        guard.on_train_batch_end(0, {"loss": 1.0, "vq": np.inf})


@pytest.mark.once
def test_logs_previews_and_events_of_a_stage(tmp_path):
    from tensorboard_reader import read_events  # noqa: F401  (placeholder)


def test_best_weights_are_kept_and_patience_ends_the_stage(tmp_path):
    model = network()
    seen = []

    class Away(Batches):
        """Fits the held-out data first, then leads away from it."""

        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x, y if self.done + index < 30 else y + 100

    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"])
    )
    rows = stage(tmp_path, steps=200, patience=3, keep="best").fit(
        model, Away(), validation_data=HELD, callbacks=[watch]
    )
    losses = [row["val_loss"] for row in rows]
    best = int(np.argmin(losses))
    assert len(rows) == best + 4 < 100
    found = model.evaluate(*HELD, verbose=0)
    assert found == pytest.approx(losses[best], rel=1e-5)
