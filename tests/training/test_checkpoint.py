import errno
import io
import json
import zipfile

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.training import AveragingAdam, Checkpoint
from keras_vpgc.training.checkpoint import read_variables, write_variables
from tests.layers.layer_case import to_numpy


def network(units=2):
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units), keras.layers.Dropout(0.5, seed=1)]
    )
    model.compile(AveragingAdam(0.01, average=0.9), "mse")
    return model


def values(model):
    optimizer = model.optimizer.variables
    return [to_numpy(v).copy() for v in [*model.variables, *optimizer]]


def test_training_in_two_goes_is_training_in_one(tmp_path, rng):
    """Dropout's random state and Adam's moments and averages included."""
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    once = network()
    Checkpoint(tmp_path / "other.npz").restore(once)
    once.fit(x, y, epochs=4, **fit)

    first = network()
    checkpoint = Checkpoint(tmp_path / "a" / "c.npz", every_seconds=0)
    assert checkpoint.restore(first) == 0
    first.fit(x, y, epochs=2, callbacks=[checkpoint], **fit)
    second = network()
    # What a killed process leaves: no `on_train_end`.
    with zipfile.ZipFile(tmp_path / "a" / "c.npz") as archive:
        assert json.loads(archive.read("state.json"))["state"]["epoch"] == 2
    checkpoint = Checkpoint(tmp_path / "a" / "c.npz", every_seconds=0)
    assert checkpoint.restore(second) == 2
    second.fit(x, y, epochs=4, initial_epoch=2, callbacks=[checkpoint], **fit)
    for a, b in zip(values(once), values(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.load(tmp_path / "a" / "c.npz")["00000"].shape == (3, 2)


@pytest.mark.once
def test_checkpoint_of_another_network_changes_nothing(tmp_path):
    write_variables(tmp_path / "c.npz", network().variables)
    other = network(units=3)
    before = [to_numpy(v).copy() for v in other.variables]
    with pytest.raises(VPGCError, match="c.npz is of another network.*sequential.*kernel"):
        read_variables(tmp_path / "c.npz", other.variables)
    with pytest.raises(VPGCError, match="it has . variables where this one has 1"):
        read_variables(tmp_path / "c.npz", other.variables[:1])
    for a, b in zip(before, other.variables, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))


@pytest.mark.once
@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "version"])
def test_damaged_checkpoint_is_noticed(damage, tmp_path):
    file = tmp_path / "c.npz"
    model = network()
    write_variables(file, model.variables)
    whole = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(whole[:-100])
    elif damage == "flipped":
        place = whole.index(b"\x93NUMPY") + 130
        whole[place] ^= 255
        file.write_bytes(whole)
    elif damage == "text":
        file.write_text("no archive")
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("state.json", json.dumps({"schema_version": 99, "names": []}))
    message = "schema version 99" if damage == "version" else "c.npz is damaged: delete it"
    with pytest.raises(VPGCError, match=message):
        read_variables(file, model.variables)


class FullDisk(io.FileIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.once
def test_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    file = tmp_path / "c.npz"
    model = network()
    write_variables(file, model.variables, {"epoch": 1})
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.io, "open", lambda path, mode: FullDisk(path, "w"))
        with pytest.raises(VPGCError, match="The disk is full, so .*c.npz could not be saved"):
            write_variables(file, model.variables, {"epoch": 2})
    assert file.read_bytes() == before
    assert [x.name for x in tmp_path.iterdir()] == ["c.npz"]


@pytest.mark.once
def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    file = tmp_path / "c.npz"
    model = network()
    write_variables(file, model.variables)
    before = file.read_bytes()
    model.variables[1].assign([np.nan, 0.0])
    with pytest.raises(VPGCError, match="bias is not finite any more and is not saved"):
        write_variables(file, model.variables)
    assert file.read_bytes() == before
