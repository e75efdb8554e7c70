"""Callbacks of the training recipes.

Those with `get_state` and `set_state` go on where a killed run stopped: a `Checkpoint` keeps what
they know. `on_train_batch_end` of all of them may run in Keras's callback thread (`async_safe`), so
that a GPU need not wait for it; what must happen at its very step is in `on_train_batch_begin`.
"""

import contextlib
import csv
import io
import math
import os
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError, missing_extra
from keras_vpgc.training.optimizer import averaged, parts


class TimeLimit(keras.callbacks.Callback):
    """Stops `fit` after some time, at the end of a step.

    Args:
        seconds: Time since the start of `fit`; what a killed run had used counts.

    Attributes:
        reached: Whether the limit ended the training.

    Example:

    ```python
    trainer.fit(batches, callbacks=[TimeLimit(600)])
    ```
    """

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds
        self.reached = False
        self.used = 0.0

    def on_train_begin(self, logs=None):
        self.began = time.monotonic() - self.used

    def on_train_batch_begin(self, batch, logs=None):
        # Processes that train along stop at the same step.
        if backend.agree(time.monotonic() - self.began > self.seconds):
            self.reached = True
            self.model.stop_training = True

    def get_state(self):
        return {"used": time.monotonic() - self.began}

    def set_state(self, state):
        self.used = state["used"]


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends the training as soon as a loss is not a finite number.

    Args:
        stage: Name of the stage for the message.
        steps_per_epoch: Steps of an epoch.
        kept: The checkpoint's file, which the message names if it exists.

    Raises:
        VPGCError: naming the step and the loss. It comes from `fit`, before anything is saved.

    Example:

    ```python
    trainer.fit(batches, callbacks=[StopOnNonFinite("Stage 1")])
    ```
    """

    async_safe = True

    def __init__(self, stage: str = "Training", steps_per_epoch: int = 0, kept=None):
        super().__init__()
        self.stage, self.steps_per_epoch, self.kept = stage, steps_per_epoch, kept

    def on_epoch_begin(self, epoch, logs=None):
        self.step = epoch * self.steps_per_epoch

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self._check(logs, f"at step {self.step}")

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, f"in the validation after step {self.step}")

    def _check(self, logs, where):
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                self.model.stop_training = True
                good = ""
                if self.kept is not None and Path(self.kept).exists():
                    good = f" ({self.kept} is the last good checkpoint)"
                raise VPGCError(
                    f"{self.stage} stopped {where} because {name} is {value}{good}: train with a "
                    "lower learning_rate, or with precision=float32."
                )


class MeanLogs(keras.callbacks.Callback):
    """Makes the logs of each epoch the mean over the processes that train along."""

    def on_epoch_end(self, epoch, logs=None):
        if logs:
            values = keras.ops.convert_to_tensor([float(v) for v in logs.values()])
            (means,) = backend.mean_over_devices([values])
            logs.update(zip(logs, means.tolist(), strict=True))


class AveragedValidation(keras.callbacks.Callback):
    """Lets `fit` validate with the averages that `AveragingAdam` keeps."""

    def on_test_begin(self, logs=None):
        self._swap()

    def on_test_end(self, logs=None):
        self._swap()

    def _swap(self):
        for optimizer in parts(self.model.optimizer):
            if getattr(optimizer, "average", None) is not None:
                optimizer.swap()


class CsvLog(keras.callbacks.Callback):
    """Writes the logs of each epoch to a CSV file.

    Args:
        file: Path of the file. It is written anew each time, so a run that goes on after a kill
            has no line twice. `None` for `rows` alone.
        steps_per_epoch: For the column `step`.

    Attributes:
        rows: The lines so far, a list of dicts.
    """

    def __init__(self, file, steps_per_epoch: int = 1):
        super().__init__()
        self.file, self.steps_per_epoch = file and Path(file), steps_per_epoch
        self.rows: list[dict] = []

    def on_train_begin(self, logs=None):
        self._last = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        row = {"epoch": epoch, "step": (epoch + 1) * self.steps_per_epoch}
        row["seconds"] = round(now - self._last, 3)
        self._last = now
        self.rows.append({**row, **{k: float(v) for k, v in (logs or {}).items()}})
        if self.file is None:
            return
        text = io.StringIO()
        # A term that joins later adds its column.
        names = list(dict.fromkeys(k for x in self.rows for k in x))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        partial = self.file.with_name(f".{self.file.name}")
        try:
            partial.write_text(text.getvalue())
            os.replace(partial, self.file)
        finally:
            partial.unlink(missing_ok=True)

    def get_state(self):
        return {"rows": self.rows}

    def set_state(self, state):
        self.rows = state["rows"]


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the logs of each epoch, and pictures, for TensorBoard (by tensorboardX).

    Args:
        folder: Folder of the event files.
        name: Prefix of the curves' names.
        steps_per_epoch: Steps of an epoch.

    Raises:
        VPGCError: if tensorboardX is not installed.
    """

    def __init__(self, folder, name: str, steps_per_epoch: int = 1):
        super().__init__()
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise missing_extra("tensorboardX", "logs") from None
        self.name, self.steps_per_epoch = name, steps_per_epoch
        self.writer = SummaryWriter(str(folder))

    def on_epoch_end(self, epoch, logs=None):
        for key, value in (logs or {}).items():
            self.writer.add_scalar(f"{self.name}/{key}", value, (epoch + 1) * self.steps_per_epoch)
        self.writer.flush()

    def picture(self, step: int, image):
        """Add a picture, uint8 `(h, w, 3)`."""
        self.writer.add_image(f"{self.name}/preview", image, step, dataformats="HWC")

    def on_train_end(self, logs=None):
        # What it can no longer write is not what the training is for.
        with contextlib.suppress(OSError):
            self.writer.close()


class WandbLog(keras.callbacks.Callback):
    """Sends the logs of each epoch to Weights & Biases.

    Args:
        project: Name of the project.
        folder: The run folder; its name is the run's, so a run that goes on stays one.
        name: Prefix of the curves' names.
        steps_per_epoch: Steps of an epoch.
        config: What is recorded as the run's settings.

    Raises:
        VPGCError: if wandb is not installed.
    """

    def __init__(self, project, folder, name, steps_per_epoch=1, config=None):
        super().__init__()
        try:
            import wandb
        except ImportError:
            raise VPGCError("wandb is needed for this: pip install wandb.") from None
        self.name, self.steps_per_epoch = name, steps_per_epoch
        folder = Path(folder)
        self.run = wandb.init(
            project=project, dir=str(folder), id=folder.name, resume="allow", config=config
        )

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.steps_per_epoch
        values = {f"{self.name}/{k}": float(v) for k, v in (logs or {}).items()}
        self.run.log({f"{self.name}/step": step, **values})

    def on_train_end(self, logs=None):
        self.run.finish()


class Previews(keras.callbacks.Callback):
    """Writes pictures of validation frames while it trains.

    Args:
        draw: Takes nothing and returns uint8 `(h, w, 3)`; called after each epoch, with the
            averages of the weights in place where the optimiser keeps them.
        folder: Gets `{name}_{step:06d}.png`.
        name: See there.
        steps_per_epoch: Steps of an epoch.
        boards: Loggers with a method `picture(step, image)`.
    """

    def __init__(self, draw, folder, name: str, steps_per_epoch: int = 1, boards=()):
        super().__init__()
        self.draw, self.folder, self.name = draw, Path(folder), name
        self.steps_per_epoch, self.boards = steps_per_epoch, list(boards)

    def on_epoch_end(self, epoch, logs=None):
        import cv2

        step = (epoch + 1) * self.steps_per_epoch
        with averaged(*parts(self.model.optimizer)):
            image = self.draw()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{self.name}_{step:06d}.png"
        # Not by `imwrite`, which does not tell why it fails.
        file.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1])
        for board in self.boards:
            board.picture(step, image)


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights that validated best, and ends a training that no longer gets better.

    Args:
        save: Called without arguments when the weights are the best so far, with the averages in
            place where the optimiser keeps them.
        monitor: The log to make small.
        patience: Epochs without a better one after which the training ends, or `None`.

    Attributes:
        best: The smallest value so far.
        best_epoch: Its epoch.
        stopped: Whether `patience` ended the training.
    """

    def __init__(self, save, monitor: str = "val_loss", patience: int | None = None):
        super().__init__()
        self.save, self.monitor, self.patience = save, monitor, patience
        self.best, self.best_epoch, self.stopped = math.inf, -1, False

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        if value < self.best:
            self.best, self.best_epoch = float(value), epoch
            with averaged(*parts(self.model.optimizer)):
                self.save()
        elif self.patience is not None and epoch - self.best_epoch >= self.patience:
            self.stopped = True
            self.model.stop_training = True

    def get_state(self):
        return {"best": self.best, "best_epoch": self.best_epoch}

    def set_state(self, state):
        self.best, self.best_epoch = state["best"], state["best_epoch"]


class Progress(keras.callbacks.Callback):
    """Shows where a stage is and when it will be done.

    The time left is that of the steps left, at the median of the last ones, and of the validations,
    previews and checkpoints left, as long as the last; what compiles does not count. Nothing is
    promised before some steps are done.

    Args:
        steps: Steps of the whole stage.
        steps_per_epoch: Steps between two validations.
        bar: Show a bar (for a terminal); else a line after each epoch.
        shown: The logs to show, those that there are.
    """

    async_safe = True

    def __init__(
        self,
        steps: int,
        steps_per_epoch: int,
        bar: bool = True,
        shown=("loss", "l1", "psnr", "val_loss", "val_psnr"),
    ):
        super().__init__()
        self.steps, self.steps_per_epoch, self.step = steps, steps_per_epoch, 0
        self.bar, self.shown = bar, shown
        self.times: list[float] = []
        self.pauses: list[float] = []
        self._bar = None

    def on_train_begin(self, logs=None):
        self._began = self._last = time.monotonic()
        if self.bar:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self.steps,
                unit="step",
                file=sys.stdout,
                bar_format="{n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}",
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._last = time.monotonic()
        self.step = epoch * self.steps_per_epoch
        if self._bar is not None and self._bar.n < self.step:
            # Goes on after a kill: these steps took none of this bar's time.
            self._bar.initial = self._bar.n = self.step

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        # The first step of a `fit` compiles, and that of an epoch may wait for its data.
        if batch:
            self.times = [*self.times[-50:], now - self._last]
        self._last = now
        self.step += 1
        if self._bar is not None:
            self._bar.set_postfix_str(self._text(logs), refresh=False)
            self._bar.update()

        self._paused = now

    def on_epoch_end(self, epoch, logs=None):
        # This callback is the last, so validation, previews and checkpoint are over.
        self.pauses.append(time.monotonic() - self._paused)
        if self._bar is None:
            seconds = time.monotonic() - self._began
            print(f"{self.step}/{self.steps} {seconds:.0f} s, {self._text(logs)}", flush=True)

    def on_train_end(self, logs=None):
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds that the stage still needs, or `None`."""
        if len(self.times) < 3:
            return None
        steps = self.steps - self.step
        # The first pause compiles.
        pause = self.pauses[-1] if len(self.pauses) > 1 else 0.0
        return steps * statistics.median(self.times) + steps / self.steps_per_epoch * pause

    def _text(self, logs):
        found = [(k, logs[k]) for k in self.shown if k in (logs or {})]
        text = ", ".join(f"{k} {v:.4g}" for k, v in found)
        left = self.seconds_left
        if left is None or not left:
            return text
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return f"about {clock} left, {text}"
