"""Measuring on a device: times, memory, CUDA graphs, and the rows of a table."""

import contextlib
import gc
import os
import sys
import time
import traceback

import keras
import numpy as np


def backend() -> str:
    """The Keras backend's name."""
    return keras.backend.backend()


def has_gpu() -> bool:
    """Is there a GPU for the backend?"""
    if backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import torch

    return torch.cuda.is_available()


def device_name() -> str:
    """What computes, in words."""
    if not has_gpu():
        return f"CPU, {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
    if backend() == "jax":
        import jax

        return jax.local_devices()[0].device_kind
    import torch

    return torch.cuda.get_device_name()


def synchronise(result=None):
    """Wait until everything that was asked for is done; for JAX, until `result` is there."""
    if backend() == "jax" and result is not None:
        import jax

        # Other things than JAX's arrays are ready.
        jax.block_until_ready(result)
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def clear():
    """Give back what is no longer used, and count the peak of memory from here."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def peak(twin=False) -> str:
    """Peak of the device's memory in MiB, "-" where it is not known.

    PyTorch counts from the last `clear`; JAX from the start of the process.
    """
    value = None
    if backend() == "jax" and not twin:
        import jax

        value = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    elif has_torch_gpu():
        import torch

        value = torch.cuda.max_memory_allocated()
    return "-" if value is None else f"{value / 2**20:.0f}"


def has_torch_gpu() -> bool:
    """Is there a GPU for PyTorch?"""
    if "torch" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available()


def product(side, dtype):
    """A call that multiplies square matrices, and what waits for it."""
    if backend() == "jax":
        import jax
        import jax.numpy as jnp

        # Numbers of all sizes: a GPU is quicker, and cooler, with ones.
        a = jax.random.normal(jax.random.key(0), (side, side), jnp.float32).astype(dtype)
        multiply = jax.jit(lambda x: x @ x)
        return lambda: multiply(a), synchronise
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(side, side, device=device).to(getattr(torch, dtype))

    def call():
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        out = a @ a
        torch.set_float32_matmul_precision(before)
        return out

    return call, synchronise


def copy(numbers):
    """A call that copies float32 numbers on the device, and what waits for it."""
    if backend() == "jax":
        import jax
        import jax.numpy as jnp

        a = jnp.ones(numbers, "float32")
        # XLA would leave out a plain copy.
        other = jax.jit(lambda x: x + 1)
        return lambda: other(a), synchronise
    import torch

    a = torch.ones(numbers, device="cuda" if torch.cuda.is_available() else "cpu")
    target = torch.empty_like(a)
    return lambda: target.copy_(a), synchronise


@contextlib.contextmanager
def full_precision():
    """A scope in which the package and the twin compute float32 in float32."""
    import torch

    from keras_vpgc import backend as package

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with package.full_precision():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def quartiles(times):
    """Median and quartiles of seconds, in milliseconds."""
    low, middle, high = 1000 * np.percentile(times, [25, 50, 75])
    return middle, low, high


def captured(call, warm_up=3):
    """A call recorded as a CUDA graph.

    Args:
        call: Takes nothing, reads and writes tensors that stay where they are.
        warm_up: Calls before: libraries choose their kernels and compilers compile in them.

    Returns:
        A function that replays it and returns what the recorded call returned.
    """
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = call()

    def replay():
        graph.replay()
        return outputs

    return replay


def dtype_of(precision) -> str:
    """The type that products are computed in under a Keras precision, as `rates` names it."""
    return "bfloat16" if precision == "mixed_bfloat16" else "float32"


def check_rows(rows):
    """Refuse names of rows that say nothing, before anything is measured."""
    for row in rows:
        kind, *parts = row.split("-")
        known = {"twin": ("eager", "compile", "graph", "nhwc")}
        known["package"] = ("off", "trace", "graph", "compile") if backend() == "torch" else ()
        for part in parts:
            if part not in known.get(kind, ()):
                raise SystemExit(f"There is no row {row}: {part} says nothing to {kind} here.")
        if kind not in known:
            raise SystemExit(f"There is no row {row}: rows begin with package or twin.")


def plan_of(row) -> tuple[bool, bool, bool]:
    """What a twin's row asks for: compiled, as a CUDA graph, channels last."""
    parts = row.split("-")[1:]
    return "compile" in parts, "graph" in parts, "nhwc" in parts


def package_mode(row):
    """Choose how the package runs by the row's name, `package` or `package-MODE` on PyTorch."""
    os.environ["KERAS_VPGC_TORCH"] = row.partition("-")[2]


class Table:
    """Rows that are printed as soon as they are measured."""

    def __init__(self, columns):
        self.columns = columns

    def head(self):
        """Print the first two lines."""
        # What is there by now stays: it need not be looked through after every row.
        gc.collect()
        gc.freeze()
        print("| " + " | ".join(self.columns) + " |")
        print("|" + "---|" * len(self.columns), flush=True)

    def row(self, cells):
        """Print one row."""
        print("| " + " | ".join(str(x) for x in cells) + " |", flush=True)

    def attempt(self, name, measure):
        """Print what `measure()` returns, or the row's error; the other rows go on."""
        clear()
        began = time.perf_counter()
        try:
            self.row([*name, *measure()])
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:160].replace("|", "/")
            self.row([*name, f"failed: {type(error).__name__}: {reason}"])
            traceback.print_exc()
        clear()
        print(f"row {' '.join(name)}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def say(*lines):
    """Print lines around a table at once."""
    print(*lines, sep="\n", flush=True)
