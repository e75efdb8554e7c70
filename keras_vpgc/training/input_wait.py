"""How much of the training time goes by waiting for the next batch."""

import time

import keras

from keras_vpgc.errors import VPGCError


class InputWait(keras.callbacks.Callback):
    """Logs `input_wait`: the share of an epoch's time in which a step waits for its batch, 0 to 1.

    A step waits from the end of the step before, or from the moment at which its batch is asked
    for if that is later, until the dataset has made the batch; one that was made ahead is not
    waited for. Keras calls `on_train_batch_end` when the step's logs are known, that is when the
    accelerator is done with the step, and where all callbacks allow it on a thread of its own. So
    what counts is the time in which the accelerator has nothing to do for want of a batch, whether
    steps are asynchronous or not. (On PyTorch, where such a thread waits for all that is queued
    by then, asynchronous steps give a little less than the truth.)

    The share is the sum of these waits over the time from the epoch's begin to the end of its
    last step, without validation. The first step of `fit`, which compiles, is left out if the
    epoch has another. Not counted is what comes after the dataset: the copy to the accelerator of
    a batch made in the host's memory. One step an execution is assumed, as by default.

    Args:
        dataset: A `keras.utils.PyDataset`, such as `FrameBatches`.
        clock: Function that gives seconds.

    Attributes:
        batches: The dataset to give to `fit`; it notes when each batch is asked for and made.

    Raises:
        VPGCError: for another dataset, or one with several of Keras's workers.

    Example:

    ```python
    wait = InputWait(batches)
    # Callbacks that write the logs come after it.
    callbacks = [wait, keras.callbacks.CSVLogger("log.csv")]
    trainer.fit(wait.batches, shuffle=False, callbacks=callbacks)
    ```
    """

    # Keras need not finish each step for it.
    async_safe = True

    def __init__(self, dataset, clock=time.perf_counter):
        super().__init__()
        if not isinstance(dataset, keras.utils.PyDataset):
            raise VPGCError(
                f"Waiting cannot be measured on a {type(dataset).__name__}: give a "
                "keras.utils.PyDataset such as FrameBatches."
            )
        if dataset.workers > 1 or dataset.use_multiprocessing:
            # Keras's queue may hold batches from before `fit`, so none knows which comes when.
            raise VPGCError(
                "Waiting cannot be measured on batches of several workers of Keras: give the "
                "dataset workers=1 (FrameBatches and the like make batches ahead by prefetch=2)."
            )
        self.batches, self.clock = _Timed(dataset, clock), clock

    def on_train_begin(self, logs=None):
        self.compiles = True

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.times = []
        self.began, self.ends = self.clock(), {}

    def on_train_batch_end(self, batch, logs=None):
        self.ends[batch] = self.clock()

    def on_epoch_end(self, epoch, logs=None):
        ends = [self.began, *(self.ends[i] for i in sorted(self.ends))]
        first = int(self.compiles and len(ends) > 2)
        self.compiles = False
        times = zip(ends[:-1], self.batches.times, strict=False)
        waits = [max(0.0, made - max(end, asked)) for end, (asked, made) in times]
        if logs is not None:
            logs["input_wait"] = sum(waits[first:]) / max(ends[-1] - ends[first], 1e-9)


class _Timed(keras.utils.PyDataset):
    """A dataset that notes when each batch is asked for and made, in the order of asking."""

    def __init__(self, dataset, clock):
        super().__init__()
        self.dataset, self.clock, self.times = dataset, clock, []

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        asked = self.clock()
        batch = self.dataset[index]
        self.times.append((asked, self.clock()))
        return batch

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()
