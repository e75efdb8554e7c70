"""Gradients, custom steps, compiled inference and arrays on the device on TensorFlow."""

import contextlib
import gc
import tempfile
from pathlib import Path

import keras
import tensorflow as tf


def vjp(function, variables):
    """Run `function()` and get the map from output cotangents to the variables' gradients.

    Args:
        function: Takes nothing, returns a flat tuple of float tensors.
        variables: List of Keras variables.

    Returns:
        Pair of the outputs and `pullback(cotangents) -> list of gradients`.
    """
    values = [v.value for v in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        outputs = function()

    def pullback(cotangents):
        return tape.gradient(
            list(outputs),
            values,
            output_gradients=list(cotangents),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    return outputs, pullback


def value_and_grad(function, tensors):
    """Value of a scalar function of tensors, and its gradients.

    Args:
        function: Takes the tensors, returns `(scalar, aux)`.
        tensors: List of float tensors.

    Returns:
        `(scalar, aux, gradients)`.
    """
    tensors = [tf.convert_to_tensor(x) for x in tensors]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value, aux = function(*tensors)
    grads = tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return value, aux, grads


def train_step(model, function, data):
    """`model.train_step` out of a stateful `function(data) -> logs`."""
    return function(data)


def record_steps(model):
    """Let the `fit` of a compiled model run its steps as `train_step` does: Keras compiles them."""


def noise(shape, number):
    """Standard normal noise, float32, within a training step; see the JAX backend."""
    return tf.random.stateless_normal(shape, [tf.cast(number.value, "int32"), 0])


def release_steps(model):
    """Give back the memory of a model's recorded step: there is none."""


def test_step(model, function, data):
    """`model.test_step` out of a stateful `function(data) -> logs`."""
    return function(data)


def compiled(model):
    """A fast `inputs -> outputs` for inference.

    Args:
        model: A built Keras model.

    Returns:
        A function of a numpy array (or list of them), compiled once a shape.
    """
    return tf.function(lambda inputs: model(inputs, training=False), jit_compile=jit_by_default())


@contextlib.contextmanager
def full_precision():
    """A scope in which products and convolutions of float32 are computed in float32.

    GPUs round their factors to 10 bits else (TF32), which moves SSIM by as much as 0.006.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def jit_by_default() -> bool:
    """Compile by XLA? On a CPU that takes a minute and gains nothing (`docs/results.md`)."""
    # Devices that exchange gradients do so outside of what XLA compiles.
    return bool(tf.config.list_physical_devices("GPU")) and _replicas() == 1


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
        average.assign(average.value + share * (variable.value - average.value))


def swap(first, second):
    """Exchange the values of two lists of Keras variables."""
    for a, b in zip(first, second, strict=True):
        old_a, old_b = tf.identity(a.value), tf.identity(b.value)
        a.assign(old_b)
        b.assign(old_a)


def _replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync


def average_gradients(grads):
    """Gradients of the whole batch, where an optimiser gets those of this device's part.

    On TensorFlow Keras adds up those of all devices itself.
    """
    return grads


def mean_over_devices(tensors):
    """Mean of each tensor over the devices, on all of them."""
    if _replicas() == 1:
        return tensors
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tensors)


def share(grads):
    """Gradients as an optimiser wants them that adds up those of all devices."""
    count = _replicas()
    return grads if count == 1 else [g / count for g in grads]


def _devices():
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


def device_count() -> int:
    """Number of devices that a training may use."""
    return len(_devices())


def device_names() -> list[str]:
    """Names of the devices that models may compute on, the quickest kind alone.

    Example:

    ```python
    device_names()  # ["NVIDIA H100 80GB HBM3"], or ["CPU"]
    ```
    """
    found = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU")
    details = [tf.config.experimental.get_device_details(device) for device in found]
    names = [x.get("device_name", device.name) for x, device in zip(details, found, strict=True)]
    return names or ["CPU"]


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
    with tf.distribute.MirroredStrategy([d.name for d in _devices()[:count]]).scope():
        yield


def accumulates_on_devices() -> bool:
    """Can gradients be accumulated on several devices? Keras's way cannot be mirrored."""
    return False


def agree(number):
    """The first process's number, in all of them."""
    return number


def wait():
    """Wait until all processes are here."""


def out_of_memory(error) -> bool:
    """Does an exception say that memory was too small?"""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def after_out_of_memory(model):
    """Make a model usable whose step ran out of memory; its weights may be lost then."""
    gc.collect()


def to_device(array):
    """Copy an array to where the models compute.

    Args:
        array: Numpy array of a type of at most 32 bits, a `numpy.memmap` too.

    Returns:
        Tensor of the same shape and type.
    """
    return tf.convert_to_tensor(array)


def to_host(array):
    """Begin to copy an array to the host; see the JAX backend."""
    return array.numpy


def half_by_default() -> bool:
    """Is bfloat16 what the device is quick in?"""
    devices = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(devices[0]) if devices else {}
    return details.get("compute_capability", (0, 0))[0] >= 8


def take(array, indices):
    """Some rows of a tensor, picked where it lies.

    Args:
        array: Tensor `(n, ...)`, see `to_device`.
        indices: Ints in [0, n) of any shape, numpy or tensor.

    Returns:
        Tensor `(*indices.shape, ...)`.
    """
    return tf.gather(array, indices)


def free_memory():
    """Bytes of the accelerator's memory that are still free; `None`, as TensorFlow hides it."""
    return None


def keeps_device_batches() -> bool:
    """Do batches that lie on the accelerator already reach a step of `fit` as they are?

    No: Keras feeds TensorFlow by `tf.data`, from the host's memory.
    """
    return False


def jitted(function):
    """A pure function, as it is.

    Args:
        function: Takes and returns tensors, numpy arrays or structures of them.

    Returns:
        A function of the same arguments.
    """
    return function


def group_norm(x, gamma, beta, groups, epsilon, silu):
    """There is no kernel here: `None`. See the PyTorch backend."""
    return None


def draw_lines(start, end, height, width, line_width, dtype):
    """There is no kernel here: `None`. See the PyTorch backend."""
    return None


def fuses() -> bool:
    """Is a long sum or minimum that is written out one kernel, quicker than a loop?"""
    return False


def kept(x):
    """A tensor that is computed once, however many read it, where the compiler might not."""
    return x


def attend(queries, keys, dtype):
    """There is no kernel here: `None`. See the PyTorch backend."""
    return None


def on_host():
    """A scope in which layers and operations compute by the processor, in this thread."""
    return tf.device("CPU:0")


def write_export(model, kind, path, metadata):
    """Write a model for another runtime, with any number of inputs in a batch.

    Args:
        model: A Keras model of one input and one output.
        kind: `"saved_model"` or `"litert"`.
        path: The folder or file to write.
        metadata: JSON text that a SavedModel holds, as `assets.extra/keras_vpgc.json`. A LiteRT
            file has no place for it.
    """
    if kind == "litert":
        with tempfile.TemporaryDirectory() as folder:
            _write_saved_model(model, folder)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            # None of TensorFlow's own operations, which the plain runtime does not have.
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            Path(path).write_bytes(converter.convert())
        return
    _write_saved_model(model, path)
    extra = Path(path) / "assets.extra"
    extra.mkdir()
    (extra / "keras_vpgc.json").write_text(metadata, encoding="utf-8")


def _write_saved_model(model, folder):
    """Names of input and output are those of the model's; one signature, `serving_default`."""
    (inputs,), (output_name,) = model.inputs, model.output_names
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda batch: {output_name: model(batch, training=False)},
        input_signature=[tf.TensorSpec(inputs.shape, inputs.dtype, name=inputs.name)],
    )
    archive.write_out(str(folder), verbose=False)


def read_export(kind, path):
    """Read a file of `write_export` by TensorFlow alone.

    Args:
        kind: `"saved_model"`.
        path: The folder.

    Returns:
        A function of a numpy array that returns one.
    """
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    def call(inputs, loaded=loaded):  # what is not kept loses its variables
        (outputs,) = signature(**{name: tf.constant(inputs)}).values()
        return outputs.numpy()

    return call
