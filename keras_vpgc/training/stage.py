"""One stage of a run: `fit` with logs, previews, checkpoints, and the way on after a kill."""

import importlib.util
import math
from pathlib import Path

import keras

from keras_vpgc import backend
from keras_vpgc.errors import FULL, VPGCError
from keras_vpgc.training.callbacks import (
    AveragedValidation,
    CsvLog,
    KeepBest,
    MeanLogs,
    Previews,
    Progress,
    StopOnNonFinite,
    TensorBoardLog,
    TimeLimit,
    WandbLog,
)
from keras_vpgc.training.checkpoint import Checkpoint, read_variables, write_variables
from keras_vpgc.training.input_wait import InputWait
from keras_vpgc.training.optimizer import parts


class Stage:
    """Fits a model in a run folder, in such a way that the same call goes on after a kill.

    Args:
        run: The run folder. Gets `logs/{name}.csv`, `logs/tensorboard`, `previews/` and, until
            `clear`, `checkpoints/{name}.npz` and `checkpoints/{name}_best.npz`.
        name: Name of the stage's files.
        title: What messages call it.
        steps: Number of steps; rounded up to whole epochs.
        steps_per_epoch: Steps between two validations; default: ten in a run, at least 20 and at
            most 500 apart.
        verbose: 0, 1 (a bar) or 2 (a line after each validation).
        time_limit: Seconds after which it ends early, or `None`.
        patience: Validations without a better one after which it ends, or `None`.
        keep: `"last"` or `"best"`: which weights the model has in the end. Both are averages where
            the optimiser keeps them.
        checkpoint_seconds: A checkpoint is saved at most that often.
        previews: Write pictures?
        tensorboard: Write event files for TensorBoard, where tensorboardX is installed?
        wandb: Project at Weights & Biases, or `None`.
        config: What W&B records as settings.
        callbacks: More callbacks, before those of `fit`.

    Example:

    ```python
    stage = Stage("runs/me", "codebook", "Stage 1", steps=1000)
    stage.fit(trainer, batches, validation_data=(images,))
    ```
    """

    def __init__(
        self,
        run,
        name: str,
        title: str,
        steps: int,
        *,
        steps_per_epoch: int | None = None,
        verbose: int = 2,
        time_limit: float | None = None,
        patience: int | None = None,
        keep: str = "last",
        checkpoint_seconds: float = 60.0,
        previews: bool = True,
        tensorboard: bool = True,
        wandb: str | None = None,
        config: dict | None = None,
        callbacks=(),
    ):
        self.run, self.name, self.title = Path(run), name, title
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch or min(steps, max(20, min(500, steps // 10)))
        self.verbose, self.time_limit = verbose, time_limit
        self.patience, self.keep = patience, keep
        self.checkpoint_seconds = checkpoint_seconds
        self.previews, self.tensorboard, self.wandb = previews, tensorboard, wandb
        self.config = config
        self.callbacks = list(callbacks)

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return math.ceil(self.steps / self.steps_per_epoch)

    @property
    def _best_file(self):
        return self.run / "checkpoints" / f"{self.name}_best.npz"

    def fit(self, model, batches, *, weights=None, draw=None, callbacks=(), **kwargs):
        """`model.fit(batches, **kwargs)`, or what is left of it.

        Args:
            model: A compiled model.
            batches: Data of `keras_vpgc.data.dataset`.
            weights: The variables that this stage changes; default all of the model's.
            draw: See `Previews`; `None` for no pictures.
            callbacks: More callbacks; those with `get_state` and `set_state` go on too.
            **kwargs: Arguments of `fit`.

        Returns:
            The logs of all epochs, a list of dicts.

        Raises:
            VPGCError: for a loss that is not finite, too little memory, a full disk, or a
                checkpoint that does not fit.
        """
        if weights is None:
            weights = [*model.trainable_variables, *model.non_trainable_variables]
        logs = self.run / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        per_epoch = self.steps_per_epoch
        rank, processes = backend.process()
        csv = CsvLog(None if rank else logs / f"{self.name}.csv", per_epoch)
        best = KeepBest(lambda: self._save_best(weights), patience=self.patience)
        limit = [TimeLimit(self.time_limit)] if self.time_limit else []
        checkpoint = Checkpoint(
            self.run / "checkpoints" / f"{self.name}.npz",
            [csv, best, *limit, *callbacks],
            self.checkpoint_seconds,
            writes=rank == 0,
        )
        epoch = checkpoint.restore(model, weights)
        if not checkpoint.finished:
            boards = []
            if self.tensorboard and not rank and importlib.util.find_spec("tensorboardX"):
                boards.append(TensorBoardLog(logs / "tensorboard", self.name, per_epoch))
            if self.wandb and not rank:
                boards.append(WandbLog(self.wandb, self.run, self.name, per_epoch, self.config))
            wait = InputWait(batches)
            callbacks = [
                _Position(batches),
                *([MeanLogs()] if processes > 1 else []),
                wait,
                *self.callbacks,
                *callbacks,
                StopOnNonFinite(self.title, per_epoch, checkpoint.file),
                AveragedValidation(),
                *limit,
                csv,
                *boards,
            ]
            if draw is not None and self.previews and not rank:
                pictures = [x for x in boards if hasattr(x, "picture")]
                callbacks.append(
                    Previews(draw, self.run / "previews", self.name, per_epoch, pictures)
                )
            if kwargs.get("validation_data") is not None and self._wants_best:
                callbacks.append(best)
            callbacks.append(checkpoint)
            if self.verbose:
                if epoch:
                    print(f"{self.title} goes on at step {epoch * per_epoch}.", flush=True)
                steps = self.epochs * per_epoch
                callbacks.append(Progress(steps, per_epoch, self.verbose == 1))
            try:
                model.fit(
                    wait.batches,
                    epochs=self.epochs,
                    initial_epoch=epoch,
                    callbacks=callbacks,
                    verbose=0,
                    # The order is the data's own; Keras would shuffle it once more.
                    shuffle=False,
                    **kwargs,
                )
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise VPGCError(
                        f"The disk of {self.run} is full, so {self.title} stopped: free some space "
                        "and run the same command again, which goes on from the last checkpoint."
                    ) from error
                if not backend.out_of_memory(error):
                    raise
                fits = False
            else:
                fits = True
            finally:
                backend.release_steps(model)
            # Not in the `except`, whose traceback holds what the step had made.
            if not fits:
                raise VPGCError(self._memory(model, batches))
        backend.wait()
        if self.keep == "best" and self._best_file.exists():
            read_variables(self._best_file, weights)
        else:
            for optimizer in parts(model.optimizer):
                if getattr(optimizer, "average", None) is not None:
                    optimizer.swap()
        return csv.rows

    @property
    def _wants_best(self):
        return self.keep == "best" or self.patience is not None

    def _save_best(self, weights):
        if backend.process()[0]:
            return
        self._best_file.parent.mkdir(parents=True, exist_ok=True)
        write_variables(self._best_file, weights)

    def _memory(self, model, batches):
        size = batches.batch_size
        if self.verbose:
            print("The memory is too small; smaller batches are tried.", flush=True)
        text = f"The memory is too small for {self.title} with batches of {size} frames"
        fits = _batch_that_fits(model, batches) if backend.process()[1] == 1 else None
        if fits:
            text += (
                f"; a step of {fits} was tried and fits: set {self._batch_key}={fits} (with "
                f"accumulate={-(-size // fits)} an update still sees as many frames), or try "
                "precision=mixed_bfloat16"
            )
        elif fits == 0:
            text += (
                ", and no smaller batch was found that fits: try precision=mixed_bfloat16 or a "
                "smaller preset"
            )
        else:
            text += f": try {self._batch_key}={size // 2} or precision=mixed_bfloat16"
        return f"{text}; the last checkpoint is kept."

    @property
    def _batch_key(self):
        return "batch_size" if self.name in ("codebook", "direct") else "driver_batch_size"

    def clear(self):
        """Delete the stage's checkpoints, once its result is saved elsewhere."""
        if backend.process()[0]:
            return
        for file in (self.run / "checkpoints" / f"{self.name}.npz", self._best_file):
            file.unlink(missing_ok=True)


def _batch_that_fits(model, batches):
    """The largest batch, of halves of the one that did not fit, of which a step fits, or 0."""
    whole = batches[0]
    if hasattr(model, "switch_adversarial"):
        # What joins later needs its memory too.
        model.switch_adversarial(model.discriminator is not None)
    size = batches.batch_size // 2
    while size:
        backend.after_out_of_memory(model)
        part = keras.tree.map_structure(lambda x: x[:size], whole)  # noqa: B023
        x, y, weights = keras.utils.unpack_x_y_sample_weight(part)
        try:
            model.train_on_batch(x, y, weights)
            return size
        except Exception as error:
            if not backend.out_of_memory(error):
                raise
        size //= 2
    return 0


class _Position(keras.callbacks.Callback):
    """Tells the data which epoch is next: Keras also ends epochs that it never began."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.done = epoch * len(self.batches)
