"""Adam as both stages use it, its averages, and its schedules."""

import contextlib
import math
import types

import keras
from keras import ops

from keras_vpgc import backend


@keras.saving.register_keras_serializable("keras_vpgc")
class AveragingAdam(backend.adam_class()):  # type: ignore[misc]
    """Adam that also keeps an exponential moving average of the weights.

    The average begins as the weights after the first step; after step `n` it moves by
    `1 - min(average, (1 + n) / (10 + n))` towards them: short runs are not held back by their
    start. The weights are never overwritten; `averaged` puts the averages in their place for a
    while.

    Args:
        average: Share of the old average that a step keeps, such as 0.999, or `None` for none.
        accumulate: Batches whose gradients are averaged before one update; a batch is a step of the
            schedule all the same.
        **kwargs: Arguments of `keras.optimizers.Adam`.

    Example:

    ```python
    optimizer = AveragingAdam(2e-4, average=0.999)
    model.compile(optimizer, "mae")
    model.fit(x, y)
    with averaged(optimizer):
        model.evaluate(x, y)
    ```

    References:
        Keras's own `use_ema` overwrites the weights at the end of `fit`. The start is that of
        `tf.train.ExponentialMovingAverage(num_updates=n)`.
    """

    def __init__(self, *args, average=None, accumulate=1, **kwargs):
        if accumulate > 1:
            kwargs["gradient_accumulation_steps"] = accumulate
        super().__init__(*args, **kwargs)
        self.average = average
        self.accumulate = accumulate

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        # In a box: Keras would take a list of variables for the optimiser's own.
        self._averaged = types.SimpleNamespace(variables=list(variables))
        self._averages = []
        if self.average is None:
            return
        for variable in variables:
            average = self.add_variable(
                variable.shape,
                dtype="float32",
                aggregation="only_first_replica",
                name="average",
            )
            self._averages.append(average)

    def apply(self, grads, trainable_variables=None):
        super().apply(backend.average_gradients(grads), trainable_variables)
        if self.average is None:
            return
        step = ops.cast(self.iterations, "float32")
        keep = ops.minimum(self.average, (1.0 + step) / (10.0 + step)) * ops.cast(
            step > 1, "float32"
        )
        # Batches between two updates move it as well, by the root: together by as much.
        backend.move_towards(
            self._averages, self._averaged.variables, 1.0 - keep ** (1 / self.accumulate)
        )

    def swap(self):
        """Exchange the weights and their averages."""
        if self.average is not None and int(ops.convert_to_numpy(self.iterations)):
            backend.swap(self._averaged.variables, self._averages)

    def get_config(self):
        config = super().get_config()
        del config["gradient_accumulation_steps"]
        return {**config, "average": self.average, "accumulate": self.accumulate}


@contextlib.contextmanager
def averaged(*optimizers):
    """Within it the models have the averages of their weights, where these optimisers keep them."""
    chosen = [x for x in optimizers if isinstance(x, AveragingAdam) and x.built]
    for optimizer in chosen:
        optimizer.swap()
    try:
        yield
    finally:
        for optimizer in chosen:
            optimizer.swap()


def parts(optimizer) -> list:
    """The optimisers that an optimiser is made of."""
    inner = getattr(optimizer, "optimizers", None)
    return [optimizer] if inner is None else list(inner)


@keras.saving.register_keras_serializable("keras_vpgc")
class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a factor.

    Args:
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`.
        factor: See above.
    """

    def __init__(self, schedule, factor):
        super().__init__()
        self.schedule, self.factor = schedule, float(factor)

    def __call__(self, step):
        return self.factor * self.schedule(step)

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


@keras.saving.register_keras_serializable("keras_vpgc")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises from 0, then falls along a cosine.

    What `keras.optimizers.schedules.CosineDecay` gives, without its branches: these make PyTorch
    wait for the GPU at each step, and cannot be traced.

    Args:
        rate: The highest rate.
        steps: Steps after the warm-up until `last` is reached; it stays from there on.
        last: What is left of the rate then, as a share.
        warmup_steps: Steps in which it rises.

    Example:

    ```python
    float(WarmupCosine(1e-3, 100, 0.02, warmup_steps=10)(5))  # 0.0005
    ```
    """

    def __init__(self, rate, steps, last=0.0, warmup_steps=0):
        super().__init__()
        self.rate, self.last = float(rate), float(last)
        self.steps, self.warmup_steps = int(steps), int(warmup_steps)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        part = ops.clip((step - self.warmup_steps) / self.steps, 0.0, 1.0)
        share = self.last + (1.0 - self.last) * 0.5 * (1.0 + ops.cos(math.pi * part))
        if self.warmup_steps:
            share = ops.where(step < self.warmup_steps, step / self.warmup_steps, share)
        return self.rate * share

    def get_config(self):
        names = ("rate", "steps", "last", "warmup_steps")
        return {name: getattr(self, name) for name in names}


def adam(learning_rate, factor=1.0, **kwargs):
    """`AveragingAdam` with betas 0.5 and 0.9 at `factor` times a rate or a schedule."""
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = learning_rate if factor == 1 else Scaled(learning_rate, factor)
    else:
        rate = learning_rate * factor
    return AveragingAdam(rate, beta_1=0.5, beta_2=0.9, **kwargs)


def schedule(rate: float, steps: int, kind: str = "cosine", warmup_steps: int = 0):
    """A learning rate over a stage.

    Args:
        rate: The highest rate.
        steps: Steps of the stage.
        kind: `"cosine"`: down to 2% of the rate at the end; `"constant"`.
        warmup_steps: Steps in which it rises from 0.

    Returns:
        A rate or a Keras schedule.

    Example:

    ```python
    float(schedule(1e-3, 100, warmup_steps=10)(5))  # 0.0005
    ```
    """
    warmup_steps = max(0, min(warmup_steps, steps - 1))
    last = 0.02 if kind == "cosine" else 1.0
    if last == 1 and not warmup_steps:
        return rate
    return WarmupCosine(rate, steps - warmup_steps, last, warmup_steps)
