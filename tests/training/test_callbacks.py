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


def events_of(folder):
    """Steps and names of all that TensorBoard's event files of a folder hold."""
    from tensorboardX.proto.event_pb2 import Event

    tags = set()
    for file in folder.iterdir():
        content = file.read_bytes()
        while content:
            # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            tags |= {(event.step, value.tag) for value in event.summary.value}
            content = content[16 + length :]
    return tags


@pytest.mark.once
def test_logs_previews_and_events_of_a_stage(tmp_path):
    drawn = []

    def draw():
        drawn.append(1)
        return np.full((8, 12, 3), [250, 0, 0], "uint8")

    rows = stage(tmp_path).fit(network(average=0.5), Batches(), draw=draw, validation_data=HELD)
    with open(tmp_path / "logs" / "codebook.csv") as file:
        lines = list(csv.DictReader(file))
    assert [int(x["step"]) for x in lines] == [2, 4, 6, 8]
    assert [float(x["val_loss"]) for x in lines] == pytest.approx([r["val_loss"] for r in rows])
    names = sorted(x.name for x in (tmp_path / "previews").iterdir())
    assert names == [f"codebook_{step:06d}.png" for step in (2, 4, 6, 8)]
    import cv2

    assert (cv2.imread(str(tmp_path / "previews" / names[0]))[0, 0] == [0, 0, 250]).all()
    tags = events_of(tmp_path / "logs" / "tensorboard")
    assert {(8, "codebook/val_loss"), (8, "codebook/preview"), (2, "codebook/loss")} <= tags


@pytest.mark.once
def test_weights_and_biases_gets_the_logs_of_one_run(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values):
            calls.append(values)

        def finish(self):
            calls.append("finish")

    def init(**settings):
        calls.append(settings)
        return Run()

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    stage(tmp_path, steps=4, wandb="faces", config={"seed": 3}).fit(network(), Batches())
    settings, first, second, last = calls
    assert settings["project"] == "faces" and settings["id"] == tmp_path.name
    assert settings["resume"] == "allow" and settings["config"] == {"seed": 3}
    assert [x["codebook/step"] for x in (first, second)] == [2, 4]
    assert np.isfinite(second["codebook/loss"]) and last == "finish"
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(VPGCError, match="wandb is needed for this: pip install wandb"):
        stage(tmp_path / "b", wandb="faces").fit(network(), Batches())


@pytest.mark.once
def test_time_left_is_that_of_the_steps_and_validations_left(monkeypatch, capsys):
    from keras_vpgc.training import callbacks

    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    progress = Progress(steps=40, steps_per_epoch=10, bar=False)
    progress.on_train_begin()
    for epoch in range(2):
        progress.on_epoch_begin(epoch)
        for batch in range(10):
            # A compilation of a minute, then steps of two seconds and one that was held up.
            now[0] += 60.0 if batch == 0 else 9.0 if batch == 5 else 2.0
            progress.on_train_batch_end(batch, {"loss": 0.5})
            if epoch == 0 and batch < 2:
                assert progress.seconds_left is None
        now[0] += 90.0 if epoch == 0 else 30.0
        progress.on_epoch_end(epoch, {"loss": 0.5, "val_loss": 0.25, "other": 1.0})
    assert progress.seconds_left == pytest.approx(20 * 2.0 + 2 * 30.0)
    assert "20/40 290 s, about 1:40 left, loss 0.5, val_loss 0.25" in capsys.readouterr().out


class Greedy(keras.Sequential):
    """Has memory for batches of a few examples."""

    def train_step(self, *args):
        if keras.tree.flatten(args[-1])[0].shape[0] > self.most:
            raise MemoryError
        return super().train_step(*args)


@pytest.mark.parametrize("most, said", [(1, "batch_size=1 .with accumulate=4"), (0, "no smaller")])
def test_too_little_memory_says_what_fits(tmp_path, most, said):
    model = Greedy([keras.Input((3,)), keras.layers.Dense(1)])
    model.most = most
    model.compile("adam", "mse", run_eagerly=True)
    with pytest.raises(VPGCError, match=f"too small for Stage 1 with batches of 4.*{said}"):
        stage(tmp_path).fit(model, Batches())


def test_memory_errors_of_the_backend_are_known():
    from keras_vpgc import backend

    errors = {
        "jax": RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
        # As Keras quotes it.
        "torch": RuntimeError("Exception ...\n\nCUDA out of memory. Tried to allocate 8.00 GiB."),
    }
    if keras.backend.backend() == "torch":
        assert backend.out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        errors["tensorflow"] = tf.errors.ResourceExhaustedError(None, None, "OOM")
    assert backend.out_of_memory(errors[keras.backend.backend()])
    assert not backend.out_of_memory(RuntimeError("shapes differ"))
