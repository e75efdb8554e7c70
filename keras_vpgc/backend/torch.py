"""Gradients, custom steps, compiled inference and arrays on the device on PyTorch."""

import contextlib
import functools
import gc
import os
import warnings

import keras
import numpy as np
import torch

from keras_vpgc.backend import torch_graph


def vjp(function, variables):
    """Run `function()` and get the map from output cotangents to the variables' gradients.

    Args:
        function: Takes nothing, returns a flat tuple of float tensors.
        variables: List of Keras variables.

    Returns:
        Pair of the outputs and `pullback(cotangents) -> list of gradients`.
    """
    values = [v.value for v in variables]
    with torch.enable_grad():
        outputs = function()

    def pullback(cotangents):
        pairs = [
            (out, torch.as_tensor(cot, dtype=out.dtype, device=out.device).expand_as(out))
            for out, cot in zip(outputs, cotangents, strict=True)
            if out.requires_grad
        ]
        grads = torch.autograd.grad(
            [out for out, _ in pairs], values, [cot for _, cot in pairs], allow_unused=True
        )
        return [_or_zeros(g, v) for g, v in zip(grads, values, strict=True)]

    return tuple(out.detach() for out in outputs), pullback


def value_and_grad(function, tensors):
    """Value of a scalar function of tensors, and its gradients.

    Args:
        function: Takes the tensors, returns `(scalar, aux)`.
        tensors: List of float tensors.

    Returns:
        `(scalar, aux, gradients)`.
    """
    tensors = [torch.as_tensor(x).detach().requires_grad_() for x in tensors]
    with torch.enable_grad():
        value, aux = function(*tensors)
    grads = torch.autograd.grad(value, tensors, allow_unused=True)
    grads = [_or_zeros(g, x) for g, x in zip(grads, tensors, strict=True)]
    return value.detach(), aux, grads


def _or_zeros(grad, like):
    return torch.zeros_like(like) if grad is None else grad


def train_step(model, function, data):
    """`model.train_step` out of a stateful `function(data) -> logs`.

    Recorded as one graph where `torch_graph.mode` says so; `model.phase`, if there, tells steps
    of different kinds apart. Steps that accumulate gradients, which are not alike, are not
    recorded.
    """
    optimizer, mode = model.optimizer, torch_graph.mode()
    if mode == "off" or _accumulates(optimizer):
        # Gradients are asked for by `vjp`; all else, the optimisers too, works on values.
        with torch.no_grad():
            return function(data)
    key = (getattr(model, "phase", None), mode)
    recorded = model.__dict__.get("_recorded_step")
    # An optimiser of another `compile` has other variables.
    if recorded is None or recorded[0] != key or recorded[1] is not optimizer:
        release_steps(model)  # its memory is needed

        def state():
            variables = [*model.variables, *optimizer.variables, *model.metrics_variables]
            return [v.value for v in variables]

        step = torch_graph.Recorded(
            function, mode, "The training step", state, add_bias=_bias_kernel
        )
        model.__dict__["_recorded_step"] = recorded = (key, optimizer, step)
    return recorded[2](_tensors(data))


def _accumulates(optimizer):
    several = getattr(optimizer, "optimizers", [optimizer])
    return any(x.gradient_accumulation_steps for x in several)


def noise(shape, number):
    """Standard normal noise, float32, within a training step; `number` seeds none here.

    A recorded step draws anew each time by PyTorch's own generator alone.
    """
    return torch.randn(tuple(shape), device=_device())


def release_steps(model):
    """Give back the memory of a model's recorded step, which keeps what one needs at once."""
    if model.__dict__.pop("_recorded_step", None) is not None:
        gc.collect()


def record_steps(model):
    """Let the `fit` of a compiled model run its steps as `train_step` does.

    Args:
        model: A model with Keras's own `train_step`, compiled.
    """
    if torch_graph.mode() == "off":
        return
    release_steps(model)

    def step(data):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        variables = model.trainable_variables
        with torch.enable_grad():
            predicted = model(x, training=True)
            loss = model.compute_loss(x, y, predicted, weights, training=True)
        tracker = next(metric for metric in model.metrics if metric.name == "loss")
        tracker.update_state(loss.detach(), sample_weight=keras.tree.flatten(x)[0].shape[0])
        values = [v.value for v in variables]
        scaled = model.optimizer.scale_loss(loss)
        grads = torch.autograd.grad(scaled, values, allow_unused=True)
        grads = [_or_zeros(g, v) for g, v in zip(grads, values, strict=True)]
        model.optimizer.apply(grads, variables)
        return model.compute_metrics(x, y, predicted, sample_weight=weights)

    model.train_step = lambda data: train_step(model, step, data)


def _tensors(data):
    return keras.tree.map_structure(
        lambda x: None if x is None else keras.ops.convert_to_tensor(x), data
    )


def test_step(model, function, data):
    """`model.test_step` out of a stateful `function(data) -> logs`."""
    with torch.no_grad():
        return function(data)


def compiled(model):
    """An `inputs -> outputs` for inference.

    Args:
        model: A built Keras model.

    Returns:
        A function of a numpy array (or list of them), recorded once a shape, and again where the
        weights have changed.
    """
    recorded = torch_graph.Recorded(
        lambda inputs: model(inputs, training=False),
        torch_graph.mode(),
        f"The model {model.name}",
        frozen=True,
        add_bias=_bias_kernel,
    )

    def call(inputs):
        with torch.no_grad():
            return recorded(_tensors(inputs))

    return call


@contextlib.contextmanager
def full_precision():
    """A scope in which products and convolutions of float32 are computed in float32.

    GPUs round their factors to 10 bits else (TF32), which moves SSIM by as much as 0.006.
    """
    try:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        # Someone set the new names, beside which the old ones are refused.
        both = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        chosen = [x.fp32_precision for x in both]
        try:
            for place in both:
                place.fp32_precision = "ieee"
            yield
        finally:
            for place, value in zip(both, chosen, strict=True):
                place.fp32_precision = value
        return
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def jit_by_default() -> bool:
    """Compile training steps? PyTorch's compiler fails on such a step on a CPU."""
    return False


def adam_class():
    """`keras.optimizers.Adam`, or what stands for it: the class to derive from.

    Keras gives its users another class on PyTorch, which updates all variables at once; a class
    derived from the public one would update them one by one, four times as slowly.
    """
    with keras.device("cpu"):
        return type(keras.optimizers.Adam())


@torch.no_grad()
def move_towards(averages, variables, share):
    """Move variables a part of the way towards others of the same shapes.

    Args:
        averages: Keras variables to move.
        variables: Where to.
        share: Scalar tensor in [0, 1].
    """
    targets = [x.value for x in averages]
    steps = torch._foreach_sub([x.value for x in variables], targets)
    torch._foreach_mul_(steps, torch.as_tensor(share, device=targets[0].device))
    torch._foreach_add_(targets, steps)


@torch.no_grad()
def swap(first, second):
    """Exchange the values of two lists of Keras variables."""
    for a, b in zip(first, second, strict=True):
        old = a.value.detach().clone()
        a.assign(b.value)
        b.assign(old)


def _group():
    """Are there other processes that train along?"""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def average_gradients(grads):
    """Gradients of the whole batch, where an optimiser gets those of this device's part.

    Under `torchrun` each process computes those of its part.
    """
    return mean_over_devices(grads)


def mean_over_devices(tensors):
    """Mean of each tensor over the devices, on all of them."""
    if not _group():
        return tensors
    from torch.distributed import _functional_collectives as functional

    # All in one message: a model has hundreds of small tensors.
    flat = torch.cat([x.detach().reshape(-1).float() for x in tensors])
    # The form of it that can be recorded.
    summed = functional.wait_tensor(
        functional.all_reduce(flat, "sum", torch.distributed.group.WORLD)
    )
    pieces = (summed / torch.distributed.get_world_size()).split([x.numel() for x in tensors])
    return [p.reshape(x.shape).to(x.dtype) for p, x in zip(pieces, tensors, strict=True)]


def share(grads):
    """Gradients as an optimiser wants them that adds up those of all devices."""
    return grads


def device_count() -> int:
    """Number of devices that a training may use; without GPUs, of processor cores."""
    return torch.cuda.device_count() or os.cpu_count() or 1


def device_names() -> list[str]:
    """Names of the devices that models may compute on, the quickest kind alone.

    Example:

    ```python
    device_names()  # ["NVIDIA H100 80GB HBM3"], or ["CPU"]
    ```
    """
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["Apple GPU (MPS)"] if torch.backends.mps.is_available() else ["CPU"]


def process() -> tuple[int, int]:
    """This process's number and how many train along, within `distributed`."""
    if not _group():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def one_process_a_device() -> bool:
    """Does a training on several devices take as many processes?"""
    return True


def launched() -> int:
    """Number of processes that were started together to train along, as `torchrun` says it."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextlib.contextmanager
def distributed(count):
    """A scope in which the processes that train along average their gradients.

    Args:
        count: Number of processes, as `launched` says.
    """
    if count == 1 or _group():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.distributed.init_process_group(backend)
    try:
        yield
    finally:
        # NCCL waits for ever for a graph that holds one of its messages.
        torch_graph.release_captured()
        torch.distributed.destroy_process_group()


def accumulates_on_devices() -> bool:
    """Can gradients be accumulated on several devices?"""
    return True


def agree(number):
    """The first process's number, in all of them."""
    if not _group():
        return number
    tensor = torch.tensor(float(number), dtype=torch.float64, device=_device())
    torch.distributed.broadcast(tensor, 0)
    return type(number)(tensor.item())


def wait():
    """Wait until all processes are here."""
    if _group():
        torch.distributed.barrier()


def out_of_memory(error) -> bool:
    """Does an exception say that memory was too small?"""
    # Keras raises another exception that quotes PyTorch's.
    said = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "CUDA out of memory" in said or "can't allocate memory" in said
    )


def after_out_of_memory(model):
    """Make a model usable whose step ran out of memory; its weights may be lost then."""
    release_steps(model)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def to_device(array):
    """Copy an array to where the models compute.

    Args:
        array: Numpy array of a type of at most 32 bits, a `numpy.memmap` too.

    Returns:
        Tensor of the same shape and type.
    """
    with warnings.catch_warnings():
        # Of arrays that cannot be written, which nobody does here.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array)).to(_device())


def _device():
    return keras.ops.zeros(()).device


def to_host(array):
    """Begin to copy a tensor to the host; see the JAX backend."""
    if not array.is_cuda:
        return lambda: keras.ops.convert_to_numpy(array)
    place = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
    place.copy_(array, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait():
        done.synchronize()
        # Page-locked memory is scarce, and results may be kept.
        return place.numpy().copy()

    return wait


def half_by_default() -> bool:
    """Is bfloat16 what the device is quick in?"""
    return _device().type == "cuda" and torch.cuda.get_device_capability()[0] >= 8


def take(array, indices):
    """Some rows of a tensor, picked where it lies.

    Args:
        array: Tensor `(n, ...)`, see `to_device`.
        indices: Ints in [0, n) of any shape, numpy or tensor.

    Returns:
        Tensor `(*indices.shape, ...)`.
    """
    # Not to wait for the work that is queued on the device.
    return array[torch.as_tensor(indices).long().to(array.device, non_blocking=True)]


def free_memory():
    """Bytes of the accelerator's memory that are still free; `None` where there is none."""
    device = _device()
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def keeps_device_batches() -> bool:
    """Do batches that lie on the accelerator already reach a step of `fit` as they are?"""
    return True


def jitted(function):
    """A pure function, run without gradients.

    Args:
        function: Takes and returns tensors, numpy arrays or structures of them.

    Returns:
        A function of the same arguments.
    """
    return torch.no_grad()(function)


# What runs instead of each kernel, for the sentence that says so.
_KERNELS = {
    "group_norm": "normalisations run",
    "draw_lines": "drawings of landmarks run",
    "add_bias": "biases are added",
}


@functools.cache
def _kernel(name):
    """A kernel that has just been seen to work on this GPU, or `None`, with one sentence why."""
    lost = f"{_KERNELS[name]} by PyTorch's own operations, several times slower"
    try:
        from keras_vpgc.backend import triton_kernels
    except ImportError:
        warnings.warn(f"Triton is missing, so {lost}: pip install triton.", stacklevel=3)
        return None
    try:
        with torch.enable_grad():
            triton_kernels.CHECKS[name](_device())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            f"The kernel {name} does not work on this GPU, so {lost}: {reason}", stacklevel=3
        )
        return None
    return getattr(triton_kernels, name)


def _on_gpu(x):
    return x.is_cuda


def _bias_kernel():
    """The operator that joins biases in recorded graphs; checks all kernels before a recording."""
    found = {name: _kernel(name) for name in _KERNELS}
    return found["add_bias"] and torch.ops.keras_vpgc.add_bias.default


def group_norm(x, gamma, beta, groups, epsilon, silu):
    """Group normalisation by a kernel, where there is one.

    Args:
        x: Tensor `(batch, ..., channels)`.
        gamma, beta: Keras variables `(channels,)`.
        groups, epsilon, silu: See `keras_vpgc.layers.GroupNormalization`.

    Returns:
        Tensor of the shape and type of `x`, or `None`: the caller does it by itself.
    """
    kernel = _kernel("group_norm") if _on_gpu(x) else None
    if kernel is None and torch.compiler.is_exporting() and x.ndim == 4 and not silu:
        # Runtimes have this as one operator, over maps as their convolutions have them.
        first = x.float().permute(0, 3, 1, 2)
        done = torch.nn.functional.group_norm(first, groups, gamma.value, beta.value, epsilon)
        return done.permute(0, 2, 3, 1).to(x.dtype)
    if kernel is None:
        return None
    return kernel(x, gamma.value, beta.value, groups, epsilon, silu)


def draw_lines(start, end, height, width, line_width, dtype):
    """Antialiased lines by a kernel, where there is one; see `LandmarkHeatmap`.

    Args:
        start, end: Float32 `(batch, frames, segments, 2)`, x and y in pixels.
        height, width: Size of a drawing.
        line_width: In pixels.
        dtype: Name of the drawings' type.

    Returns:
        Tensor `(batch, frames, height, width)`, or `None`: the caller does it by itself, where
        gradients are wanted too, which the kernel does not have.
    """
    wanted = torch.is_grad_enabled() and (start.requires_grad or end.requires_grad)
    kernel = _kernel("draw_lines") if _on_gpu(start) and not wanted else None
    if kernel is None:
        return None
    ends = torch.cat([start, end], dim=-1)
    drawn = kernel(ends.flatten(0, 1), height, width, line_width, getattr(torch, dtype))
    return drawn.unflatten(0, ends.shape[:2])


def fuses() -> bool:
    """Is a long sum or minimum that is written out one kernel, quicker than a loop?"""
    return False


def kept(x):
    """A tensor that is computed once, however many read it, where the compiler might not."""
    return x


def attend(queries, keys, dtype):
    """`softmax(Q K^T) K` by a fused kernel in half precision, where there is one.

    Args:
        queries: Float32 `(positions, q, length)`.
        keys: Float32 `(positions, k, length)`.
        dtype: Name of the type to compute in.

    Returns:
        Float32 tensor like the queries, or `None`: the caller does it by itself.
    """
    if not _on_gpu(queries) or dtype not in ("bfloat16", "float16"):
        return None
    # The kernels want lengths that are multiples of 8.
    width = -keys.shape[-1] % 8
    queries, keys = (
        torch.nn.functional.pad(x.to(getattr(torch, dtype)), (0, width))[:, None]
        for x in (queries, keys)
    )
    found = torch.nn.functional.scaled_dot_product_attention(queries, keys, keys, scale=1.0)
    return found[:, 0, :, : found.shape[-1] - width].float()


def on_host():
    """A scope in which layers and operations compute by the processor, in this thread."""
    return keras.device("cpu")


def write_export(model, kind, path, metadata):
    """Write a model for another runtime, with any number of inputs in a batch.

    Args:
        model: A Keras model of one input and one output.
        kind: `"onnx"` or `"torch"`.
        path: The file to write.
        metadata: JSON text that the file holds, as `keras_vpgc`.
    """
    from keras_vpgc.backend import torch_export

    torch_export.write(model, kind, path, metadata)


def read_export(kind, path):
    """Read a file of `write_export` by PyTorch alone.

    Args:
        kind: `"torch"`.
        path: The file.

    Returns:
        A function of a numpy array that returns one.
    """
    from keras_vpgc.backend import torch_export

    return torch_export.read(path)
