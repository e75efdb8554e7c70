import csv

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.training.input_wait import InputWait


class Clock:
    """Time that goes by only when told to."""

    now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


class Batches(keras.utils.PyDataset):
    def __init__(self, clock, seconds, **kwargs):
        super().__init__(**kwargs)
        self.clock, self.seconds, self.begun, self.ended = clock, seconds, 0, 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.clock.work(self.seconds)
        return np.full((2, 3), index, "float32"), np.zeros((2, 1), "float32")

    def on_epoch_begin(self):
        self.begun += 1

    def on_epoch_end(self):
        self.ended += 1


class Step(keras.callbacks.Callback):
    """What the accelerator does in a step, told by the callback before `InputWait`."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def on_train_batch_end(self, batch, logs=None):
        self.clock.work(self.seconds)


@pytest.mark.parametrize("making, step, share", [(0.05, 0.02, 5 / 7), (0.0, 0.02, 0.0)])
def test_share_of_the_time_in_which_a_step_waits(making, step, share, tmp_path):
    clock = Clock()
    batches = Batches(clock, making)
    wait = InputWait(batches, clock)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks = [Step(clock, step), wait, keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))]
    history = model.fit(wait.batches, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    found = history.history["input_wait"]
    if keras.backend.backend() == "tensorflow":  # makes batches ahead, in a thread of its own
        assert all(0 <= value <= share for value in found)
    else:
        np.testing.assert_allclose(found, share, rtol=1e-6)
    with open(tmp_path / "log.csv") as file:
        assert [float(row["input_wait"]) for row in csv.DictReader(file)] == found
    # Keras may look at a batch before, to build.
    assert 3 <= batches.begun <= batches.ended


@pytest.mark.once
def test_batches_made_ahead_are_not_waited_for():
    clock = Clock()
    wait = InputWait(Batches(clock, 0.1), clock)
    wait.on_train_begin()
    wait.on_epoch_begin(0)
    for i in range(2):  # made from 0.0 to 0.2
        wait.batches[i]
    clock.now = 1.0
    wait.on_train_batch_end(0)
    clock.now = 2.0
    wait.on_train_batch_end(1)
    clock.now = 2.5  # what other callbacks take is no waiting
    wait.batches[2]  # until 2.6
    clock.now = 3.0
    wait.on_train_batch_end(2)
    logs = {}
    wait.on_epoch_end(0, logs)
    # Of the two seconds after the first step, which compiles.
    assert logs["input_wait"] == pytest.approx(0.1 / 2.0)
    wait.on_epoch_begin(1)
    wait.batches[0]  # until 3.1
    clock.now = 4.0
    wait.on_train_batch_end(0)
    wait.on_epoch_end(1, logs)
    assert logs["input_wait"] == pytest.approx(0.1)


@pytest.mark.once
def test_datasets_whose_waiting_cannot_be_measured():
    with pytest.raises(VPGCError, match="cannot be measured on a list"):
        InputWait([1, 2])
    with pytest.raises(VPGCError, match="several workers"):
        InputWait(Batches(Clock(), 0.0, workers=2))
