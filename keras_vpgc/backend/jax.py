"""Gradients, custom steps, compiled inference and arrays on the device on JAX."""

import contextlib
import functools
import gc
import os
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_vpgc import assets
from keras_vpgc.backend import jax_programs

# Compiled programs are kept up to that size in all.
KEPT_BYTES = 4 * 2**30

# The scopes of the steps that are being traced, with the variables they carry.
_steps: list = []


def _current(variable):
    for scope, _ in reversed(_steps):
        value = scope.get_current_value(variable)
        if value is not None:
            return value
    return variable.value


def vjp(function, variables):
    """Run `function()` and get the map from output cotangents to the variables' gradients.

    Args:
        function: Takes nothing, returns a flat tuple of float tensors.
        variables: List of Keras variables.

    Returns:
        Pair of the outputs and `pullback(cotangents) -> list of gradients`.
    """
    chosen = {id(v) for v in variables}
    others = [v for _, known in _steps[-1:] for v in known if id(v) not in chosen]

    def pure(values):
        mapping = [(v, _current(v)) for v in others] + list(zip(variables, values, strict=True))
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with scope:
            outputs = function()
        # Random states and the like may have moved.
        return outputs, [scope.get_current_value(v) for v in others]

    outputs, pull, moved = jax.vjp(pure, [_current(v) for v in variables], has_aux=True)
    for variable, value in zip(others, moved, strict=True):
        variable.assign(value)
    return outputs, lambda cotangents: pull(tuple(cotangents))[0]


def value_and_grad(function, tensors):
    """Value of a scalar function of tensors, and its gradients.

    Args:
        function: Takes the tensors, returns `(scalar, aux)`.
        tensors: List of float tensors.

    Returns:
        `(scalar, aux, gradients)`.
    """
    arguments = tuple(range(len(tensors)))
    (value, aux), grads = jax.value_and_grad(function, argnums=arguments, has_aux=True)(*tensors)
    return value, aux, list(grads)


def train_step(model, function, state, data):
    """`model.train_step` out of a stateful `function(data) -> logs`."""
    _keep_compiled()
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return _stateless(variables, function, state, data)


def record_steps(model):
    """Let the `fit` of a compiled model run its steps as `train_step` does: Keras compiles them."""
    _keep_compiled()


def noise(shape, number):
    """Standard normal noise, float32, within a training step.

    Args:
        shape: Its shape.
        number: Integer variable; the same one draws the same noise.
    """
    key = jax.random.key(jnp.asarray(number.value, "int32"))
    return jax.random.normal(key, tuple(shape), "float32")


def release_steps(model):
    """Give back the memory of a model's recorded step: there is none."""


def test_step(model, function, state, data):
    """`model.test_step` out of a stateful `function(data) -> logs`."""
    variables = (model.trainable_variables, model.non_trainable_variables, model.metrics_variables)
    return _stateless(variables, function, state, data)


def _stateless(variables, function, state, data):
    mapping = [
        pair
        for group, values in zip(variables, state, strict=True)
        for pair in zip(group, values, strict=True)
    ]
    scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
    _steps.append((scope, [v for v, _ in mapping]))
    try:
        with scope:
            logs = function(data)
    finally:
        _steps.pop()
    return logs, tuple([scope.get_current_value(v) for v in group] for group in variables)


def compiled(model):
    """A fast `inputs -> outputs` for inference; the weights are taken now.

    Args:
        model: A built Keras model.

    Returns:
        A function of a numpy array (or list of them), compiled once a shape.
    """
    _keep_compiled()
    weights = (
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
    )

    def function(weights, inputs):
        return model.stateless_call(*weights, inputs, training=False)[0]

    places = {device for x in jax.tree.leaves(weights) for device in x.devices()}
    if keras.distribution.distribution() is not None or places - {jax.local_devices()[0]}:
        # Weights that a training on several devices left there.
        call = jax.jit(function)
        return lambda inputs: call(weights, inputs)
    programs: dict = {}

    def frozen(inputs):
        leaves, structure = jax.tree.flatten(inputs)
        key = structure, tuple((x.shape, str(x.dtype)) for x in leaves)
        if key not in programs:
            programs[key] = jax_programs.freeze(function, weights, inputs)
        constants, program = programs[key]
        return program(constants, inputs)

    return frozen


@functools.cache
def _keep_compiled():
    """Keep what XLA compiles for an accelerator, where the user has not chosen a place for it.

    The programs of a training take minutes to compile, most of a short run.
    """
    if jax.default_backend() == "cpu" or jax.config.jax_compilation_cache_dir:
        return
    keep_compiled(assets.cache_folder() / "xla")


def keep_compiled(folder):
    """Keep compiled programs in a folder; the oldest go where they exceed `KEPT_BYTES`.

    Args:
        folder: The folder, which need not exist. If it cannot be written nothing is kept.
    """
    folder = Path(folder)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        size = 0
        for file in files:
            size += file.stat().st_size
            if size > KEPT_BYTES:
                file.unlink()
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))


def full_precision():
    """A scope in which products and convolutions of float32 are computed in float32.

    GPUs round their factors to 10 bits else (TF32), which moves SSIM by as much as 0.006.
    """
    return jax.default_matmul_precision("float32")


def jit_by_default() -> bool:
    """Compile training steps unless the user says otherwise?"""
    return True


def adam_class():
    """`keras.optimizers.Adam`, or what stands for it: the class to derive from."""
    return keras.optimizers.Adam


def move_towards(averages, variables, share):
    """Move variables a part of the way towards others of the same shapes.

    Args:
        averages: Keras variables to move.
        variables: Where to.
        share: Scalar tensor in [0, 1].
    """
    for average, variable in zip(averages, variables, strict=True):
        average.assign(average + share * (variable - average))


def swap(first, second):
    """Exchange the values of two lists of Keras variables."""
    for a, b in zip(first, second, strict=True):
        old_a, old_b = a.value, b.value
        a.assign(old_b)
        b.assign(old_a)


def average_gradients(grads):
    """Gradients of the whole batch, where an optimiser gets those of this device's part.

    On JAX a step sees the whole batch, whatever the devices it lies on.
    """
    return grads


def mean_over_devices(tensors):
    """Mean of each tensor over the devices, on all of them."""
    return tensors


def share(grads):
    """Gradients as an optimiser wants them that adds up those of all devices."""
    return grads


def device_count() -> int:
    """Number of devices that a training may use."""
    return jax.local_device_count()


def device_names() -> list[str]:
    """Names of the devices that models may compute on, the quickest kind alone.

    Example:

    ```python
    device_names()  # ["NVIDIA H100 80GB HBM3"], or ["CPU"]
    ```
    """
    cpu = jax.default_backend() == "cpu"
    return ["CPU"] if cpu else [device.device_kind for device in jax.local_devices()]


def process() -> tuple[int, int]:
    """This process's number and how many train along, within `distributed`."""
    return 0, 1


def one_process_a_device() -> bool:
    """Does a training on several devices take as many processes?"""
    return False


def launched() -> int:
    """Number of processes that were started together to train along."""
    return 1


@contextlib.contextmanager
def distributed(count):
    """A scope in which models that are built in it are trained by several devices.

    Args:
        count: Number of devices; `fit` divides each batch among them.
    """
    if count == 1:
        yield
        return
    before = keras.distribution.distribution()
    devices = keras.distribution.list_devices()[:count]
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def accumulates_on_devices() -> bool:
    """Can gradients be accumulated on several devices?"""
    return True


def agree(number):
    """The first process's number, in all of them."""
    return number


def wait():
    """Wait until all processes are here."""


def out_of_memory(error) -> bool:
    """Does an exception say that memory was too small?"""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def after_out_of_memory(model):
    """Make a model usable whose step ran out of memory; its weights may be lost then."""
    gc.collect()
    optimizer = model.optimizer.variables if model.optimizer else []
    for variable in [*model.variables, *optimizer]:
        # The step had been given its value for good.
        if variable._value is None or variable._value.is_deleted():
            variable.assign(jax.numpy.zeros(variable.shape, variable.dtype))


def to_device(array):
    """Copy an array to where the models compute.

    Args:
        array: Numpy array of a type of at most 32 bits, a `numpy.memmap` too.

    Returns:
        Tensor of the same shape and type; on each device, within `distributed`.
    """
    return jax.device_put(array, _sharding())


def _sharding(*axes):
    """How arrays lie on the devices of a `keras.distribution`, `None` without one."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    mesh = distribution.device_mesh.backend_mesh
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def to_host(array):
    """Begin to copy an array to the host.

    Args:
        array: What a model computes; it need not be done yet.

    Returns:
        A function without arguments that waits for it and returns the numpy array.
    """
    array.copy_to_host_async()
    return lambda: np.asarray(array)


def half_by_default() -> bool:
    """Is bfloat16 what the device is quick in?"""
    if jax.default_backend() != "gpu":
        return jax.default_backend() == "tpu"
    # Other makers' have no such number.
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return capability.split(".")[0].isdigit() and int(capability.split(".")[0]) >= 8


def take(array, indices):
    """Some rows of a tensor, picked where it lies.

    Args:
        array: Tensor `(n, ...)`, see `to_device`.
        indices: Ints in [0, n) of any shape, numpy or tensor.

    Returns:
        Tensor `(*indices.shape, ...)`.
    """
    return jax.numpy.take(array, indices, axis=0, mode="clip")


def free_memory():
    """Bytes of the accelerator's memory that are still free; `None` where there is none."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else None


def keeps_device_batches() -> bool:
    """Do batches that lie on the accelerator already reach a step of `fit` as they are?"""
    return True


def jitted(function):
    """A pure function, compiled once a shape of its arguments.

    Args:
        function: Takes and returns tensors, numpy arrays or structures of them.

    Returns:
        A function of the same arguments. Within `distributed` its results, whose first axis is
        the batch, are divided among the devices.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return jax.jit(function)
    return jax.jit(function, out_shardings=_sharding(distribution.batch_dim_name))


def group_norm(x, gamma, beta, groups, epsilon, silu):
    """Group normalisation: statistics in one pass, and for the backward pass only `x` is kept.

    See the PyTorch backend.
    """
    gamma, beta = (v.value.astype("float32") for v in (gamma, beta))
    return _normalised(x, gamma, beta, groups, epsilon, silu)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalised(x, gamma, beta, groups, epsilon, silu):
    return _normalise(x, gamma, beta, groups, epsilon, silu)[0]


def _inner(x):
    """The axes between batch and channels."""
    return tuple(range(1, x.ndim - 1))


def _like(values, x):
    """Values of each image and channel beside a feature map."""
    return values.reshape(values.shape[0], *(1,) * (x.ndim - 2), values.shape[1])


def _grouped(values, groups):
    """Means over the channels of each group, for each channel; `(batch, channels)`."""
    batch, channels = values.shape
    means = values.reshape(batch, groups, channels // groups).mean(-1)
    return jnp.repeat(means, channels // groups, axis=-1)


def _normalise(x, gamma, beta, groups, epsilon, silu):
    # Differences from some value of the channel: the squares' mean would lose small variances.
    first = jax.lax.stop_gradient(x[(slice(None), *(slice(1),) * (x.ndim - 2))].astype("float32"))
    off = x.astype("float32") - first
    plain, squared = jnp.mean(off, _inner(x)), jnp.mean(jnp.square(off), _inner(x))
    means = first.reshape(plain.shape) + plain
    mean = _grouped(means, groups)
    within = squared - jnp.square(plain) + jnp.square(means - mean)
    rate = jax.lax.rsqrt(jnp.maximum(_grouped(within, groups), 0.0) + epsilon)
    z = (x.astype("float32") - _like(mean, x)) * _like(rate * gamma, x) + beta
    return (jax.nn.silu(z) if silu else z).astype(x.dtype), mean, rate


def _normalise_forward(x, gamma, beta, groups, epsilon, silu):
    y, mean, rate = _normalise(x, gamma, beta, groups, epsilon, silu)
    return y, (x, gamma, beta, mean, rate)


def _normalise_backward(groups, epsilon, silu, kept, gradient):
    x, gamma, beta, mean, rate = kept
    values = (x.astype("float32") - _like(mean, x)) * _like(rate, x)
    dz = gradient.astype("float32")
    if silu:
        z = values * gamma + beta
        s = jax.nn.sigmoid(z)
        dz = dz * s * (1 + z * (1 - s))
    plain, scaled = (jnp.sum(v, _inner(x)) for v in (dz, dz * values))
    count = x.size // max(1, x.shape[0] * x.shape[-1])
    first, second = (_grouped(v * gamma / count, groups) for v in (plain, scaled))
    dx = _like(rate, x) * (dz * gamma - _like(first, x) - values * _like(second, x))
    return dx.astype(x.dtype), scaled.sum(0), plain.sum(0)


_normalised.defvjp(_normalise_forward, _normalise_backward)


def draw_lines(start, end, height, width, line_width, dtype):
    """There is no kernel here: `None`. See the PyTorch backend."""
    return None


def fuses() -> bool:
    """Is a long sum or minimum that is written out one kernel, quicker than a loop?"""
    return jax.default_backend() != "cpu"


def kept(x):
    """A tensor that is computed once, however many read it, where the compiler might not."""
    return jax.lax.optimization_barrier(x)


def attend(queries, keys, dtype):
    """The soft index by cuDNN's fused attention, on a GPU in half precision; else `None`.

    See the PyTorch backend.
    """
    lengths = queries.shape[1], keys.shape[1]
    half = dtype in ("bfloat16", "float16")
    unit = 64 * _device_total()
    if jax.default_backend() != "gpu" or not half or any(n is None or n % unit for n in lengths):
        return None
    if not _attends(dtype, keys.shape[-1]):
        return None
    return _attend_divided(queries, keys, dtype, "cudnn")


def _device_total() -> int:
    """Number of devices that a batch is divided among."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.device_mesh.backend_mesh.size


def _attend_divided(queries, keys, dtype, implementation):
    """`_attend`, on each device for the queries of its images: cuDNN's cannot be divided by XLA."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return _attend(queries, keys, dtype, implementation)
    # The queries of a position are those of the first image, then of the second, and so on.
    parts = jax.sharding.PartitionSpec(None, distribution.batch_dim_name)
    return jax.shard_map(
        lambda queries, keys: _attend(queries, keys, dtype, implementation),
        mesh=distribution.device_mesh.backend_mesh,
        in_specs=(parts, jax.sharding.PartitionSpec()),
        out_specs=parts,
        check_vma=False,
    )(queries, keys)


def _attend(queries, keys, dtype, implementation):
    """`softmax(Q K^T) K`; lengths are filled up to multiples of 8, which cuDNN wants."""
    width = -keys.shape[-1] % 8
    queries, keys = (
        jnp.pad(x, ((0, 0), (0, 0), (0, width))).astype(dtype)[:, :, None] for x in (queries, keys)
    )
    found = jax.nn.dot_product_attention(
        queries, keys, keys, scale=1.0, implementation=implementation
    )
    return found[:, :, 0, : found.shape[-1] - width].astype("float32")


@functools.cache
def _attends(dtype, length) -> bool:
    """Does cuDNN's fused attention work here, its gradient too? If not, one sentence why."""

    def loss(x, implementation):
        return jnp.sum(jnp.square(_attend(x, x, dtype, implementation)))

    try:
        with jax.ensure_compile_time_eval():
            x = jnp.cos(jnp.arange(64.0 * length)).reshape(1, 64, length)
            found, wanted = (
                jax.jit(jax.grad(loss), static_argnums=1)(x, way) for way in ("cudnn", "xla")
            )
            off = float(jnp.abs(found - wanted).max() / jnp.abs(wanted).max())
        if not off < 0.1:
            raise RuntimeError(f"its gradient is off by {off:.1e}")
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            "cuDNN's fused attention does not work on this GPU, so the soft index runs in chunks, "
            f"several times slower: {reason}",
            stacklevel=2,
        )
        return False
    return True


def on_host():
    """A scope in which layers and operations compute by the processor, in this thread."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to use the accelerator alone
        return contextlib.nullcontext()


def write_export(model, kind, path, metadata):
    """JAX writes no such file: `keras_vpgc.export` asks another backend."""
    raise NotImplementedError(kind)


def read_export(kind, path):
    """JAX reads no such file: `keras_vpgc.export` asks another backend."""
    raise NotImplementedError(kind)
