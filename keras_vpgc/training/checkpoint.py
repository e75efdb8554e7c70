"""A training that was killed goes on exactly where its last checkpoint was."""

import contextlib
import errno
import json
import os
import time
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_vpgc.errors import VPGCError

CHECKPOINT_SCHEMA_VERSION = 1


def write_variables(file, variables, state=None):
    """Write Keras variables to a file, whole or not at all.

    Args:
        file: Path of the file, a zip of `.npy` arrays (numpy reads it as `.npz`).
        variables: Keras variables, in an order that their reader has too.
        state: JSON-able dict to keep with them.

    Raises:
        VPGCError: if a variable is not finite, or the disk is full; what was there stays.

    Example:

    ```python
    write_variables("best.npz", model.variables, {"epoch": 3})
    ```
    """
    file = Path(file)
    names = [v.path for v in variables]
    partial = file.with_name(f".{file.name}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for place, variable in enumerate(variables):
                # One at a time: the whole would be in memory twice.
                value = np.asarray(keras.ops.convert_to_numpy(variable))
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    raise VPGCError(
                        f"{variable.path} is not finite any more and is not saved; {file.name} "
                        "keeps the last good weights: train with a lower learning_rate."
                    )
                with archive.open(f"{place:05d}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
            content = {
                "schema_version": CHECKPOINT_SCHEMA_VERSION,
                "names": names,
                "state": state or {},
            }
            archive.writestr("state.json", json.dumps(content))
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, file)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        before = "; the checkpoint before it is still good" if file.exists() else ""
        raise VPGCError(
            f"The disk is full, so {file} could not be saved{before}: free some space and run the "
            "same command again."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def read_variables(file, variables) -> dict:
    """Give variables the values that `write_variables` wrote.

    Args:
        file: Path of the file.
        variables: The variables, in the same order.

    Returns:
        The state.

    Raises:
        VPGCError: if the file is damaged, of another schema version, or of other variables;
            nothing is changed then.
    """
    file = Path(file)
    try:
        with zipfile.ZipFile(file) as archive:
            content = json.loads(archive.read("state.json"))
            version = content["schema_version"]
            if version != CHECKPOINT_SCHEMA_VERSION:
                raise VPGCError(
                    f"{file} has schema version {version} but this keras_vpgc reads "
                    f"{CHECKPOINT_SCHEMA_VERSION}: train again into a new folder."
                )
            values = []
            for place in range(len(content["names"])):
                with archive.open(f"{place:05d}.npy") as entry:
                    values.append(np.lib.format.read_array(entry, allow_pickle=False))
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        if isinstance(error, VPGCError):
            raise
        raise VPGCError(
            f"{file} is damaged: delete it, and the same command trains this stage again."
        ) from error
    shapes = [tuple(v.shape) for v in variables]
    found = [x.shape for x in values]
    if shapes != found:
        place = next(
            (i for i, (a, b) in enumerate(zip(shapes, found, strict=False)) if a != b),
            min(len(shapes), len(found)),
        )
        name = content["names"][place] if place < len(found) else "nothing"
        raise VPGCError(
            f"{file} is of another network (it has {len(found)} variables where this one has "
            f"{len(shapes)}, the first that differs is {name}): choose the preset and settings "
            "that it was trained with, or another folder."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return content["state"]


class Checkpoint(keras.callbacks.Callback):
    """Keeps all that a training needs to go on: weights, optimisers, averages, random states.

    It saves at the end of an epoch, whole or not at all, so the run may be killed at any moment.
    Batches and augmentation are functions of seed and step (`keras_vpgc.data.dataset`), so a
    training that goes on sees what one that was never killed sees.

    Args:
        file: Path of the checkpoint.
        callbacks: Callbacks with `get_state` and `set_state` that go on too.
        every_seconds: Save at most that often; at the end in any case.
        writes: Save at all? Of several processes that train along one does.

    Attributes:
        epoch: Number of epochs done.
        finished: Whether the training came to its end.

    Example:

    ```python
    checkpoint = Checkpoint("run/checkpoints/codebook.npz")
    trainer.compile()
    first = checkpoint.restore(trainer)  # 0 if there is none
    trainer.fit(batches, epochs=10, initial_epoch=first, callbacks=[checkpoint])
    ```
    """

    def __init__(self, file, callbacks=(), every_seconds: float = 60.0, writes: bool = True):
        super().__init__()
        self.file = Path(file)
        self.callbacks = [x for x in callbacks if hasattr(x, "get_state")]
        self.every_seconds, self.writes = every_seconds, writes
        self.epoch, self.finished = 0, False
        self._saved = 0.0
        self._variables: list = []

    def restore(self, model, weights=None) -> int:
        """Go on from the file, if there is one.

        Args:
            model: The compiled model; its optimiser is built here.
            weights: The variables to keep, default all of the model's.

        Returns:
            Number of epochs done.

        Raises:
            VPGCError: see `read_variables`.
        """
        model.optimizer.build(model.trainable_variables)
        if weights is None:
            weights = [*model.trainable_variables, *model.non_trainable_variables]
        self._variables = [*weights, *model.optimizer.variables]
        self._saved = time.monotonic()
        if self.file.exists():
            state = read_variables(self.file, self._variables)
            self.epoch, self.finished = state["epoch"], state["finished"]
            for callback, known in zip(self.callbacks, state["callbacks"], strict=True):
                callback.set_state(known)
        return self.epoch

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        if time.monotonic() - self._saved >= self.every_seconds:
            self.save()

    def on_train_end(self, logs=None):
        self.finished = True
        self.save()

    def save(self):
        """Save now."""
        if not self.writes:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "epoch": self.epoch,
            "finished": self.finished,
            "callbacks": [x.get_state() for x in self.callbacks],
        }
        write_variables(self.file, self._variables, state)
        self._saved = time.monotonic()
