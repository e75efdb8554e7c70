"""Callbacks of the training recipes."""

import time

import keras


class TimeLimit(keras.callbacks.Callback):
    """Stops `fit` after some time, at the end of a step.

    Args:
        seconds: Time since the start of `fit`.

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

    def on_train_begin(self, logs=None):
        self.began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.began > self.seconds:
            self.reached = True
            self.model.stop_training = True
