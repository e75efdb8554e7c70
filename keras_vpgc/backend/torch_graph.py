"""Steps and models as one recorded graph on PyTorch, without Keras in between.

Keras walks its layers at every call, which costs the host more than a GPU takes for the work, and
`torch.compile` specialises on every one of them. So a function is recorded once for each shape of
its inputs, by `make_fx`: a plain graph of ATen operations that reads and writes the variables where
they lie. On a GPU a CUDA graph replays it; Inductor may compile it before.
"""

import contextlib
import os
import warnings
import weakref
from unittest import mock

import torch
from torch.utils import _pytree as pytree

from keras_vpgc.backend import torch_passes
from keras_vpgc.errors import VPGCError

MODES = ("off", "trace", "graph", "compile")
# Calls that are run before a CUDA graph is captured: libraries choose their kernels in them.
WARM_UP = 2

_captured: weakref.WeakSet = weakref.WeakSet()


def release_captured():
    """Let go of all CUDA graphs: those that hold messages between processes outlive no group."""
    for graph in list(_captured):
        # Where the GPU has failed, that failure is what there is to say.
        with contextlib.suppress(RuntimeError):
            graph.release()


def mode() -> str:
    """How functions run: the environment variable `KERAS_VPGC_TORCH`, or what suits the device.

    `"off"`: as Keras does; `"trace"`: the recorded graph, operation by operation; `"graph"`:
    replayed by a CUDA graph; `"compile"`: that, compiled by Inductor before, which takes minutes
    for a step of training. Default: `"graph"` on a GPU, else `"off"`.
    """
    chosen = os.environ.get("KERAS_VPGC_TORCH", "").strip().lower()
    if chosen in MODES:
        return chosen
    if chosen:
        warnings.warn(
            f"KERAS_VPGC_TORCH={chosen!r} is unknown: choose one of {', '.join(MODES)}.",
            stacklevel=2,
        )
    return "graph" if torch.cuda.is_available() else "off"


class Recorded:
    """A function of tensors, recorded at its first call for each shape and replayed from then on.

    The first call computes as it records, so that a step of training counts. What cannot be
    recorded is run as it is, with one warning that says so.

    Args:
        function: Takes a structure of tensors and returns one; it may change variables, but must
            not ask for values of tensors (one that does by `.numpy()` on the host gets the first
            call's for ever).
        mode: One of `MODES`.
        what: What a warning calls it.
        state: Gives the tensors that the function changes: they are put back where recording
            breaks off, before the function is run as it is.
        frozen: Compute what depends on the weights alone only once, and record anew where they
            have changed? For functions that change none.
        add_bias: Gives the operator for `torch_passes.join_biases`, or `None`; asked before a
            recording of inputs on a GPU.
    """

    def __init__(
        self,
        function,
        mode: str,
        what: str,
        state=lambda: (),
        frozen: bool = False,
        add_bias=lambda: None,
    ):
        self.function, self.mode, self.what, self.state = function, mode, what, state
        self.frozen, self.add_bias = frozen, add_bias
        self._graphs: dict = {}

    def __call__(self, *inputs):
        flat, spec = pytree.tree_flatten(inputs)
        if self.mode == "off":
            return self.function(*inputs)
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        # What is no tensor, such as None, is part of the recording.
        fixed = [None if isinstance(x, torch.Tensor) else (x,) for x in flat]
        key = (spec, repr(fixed), tuple((x.shape, x.dtype, x.device) for x in tensors))
        graph = self._graphs.get(key)
        if graph is not None and not graph.stale():
            return graph(tensors)
        # Its memory is needed.
        del graph
        self._graphs.pop(key, None)

        def function(*tensors):
            rest = iter(tensors)
            whole = [next(rest) if x is None else x[0] for x in fixed]
            return self.function(*pytree.tree_unflatten(whole, spec))

        gpu = any(x.is_cuda for x in tensors)
        graph = _Graph(self.mode, self.what, self.frozen, self.add_bias() if gpu else None)
        state = list(self.state())
        before = [x.detach().clone() for x in state]
        try:
            outputs = graph.record(function, tensors)
        except (VPGCError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            with torch.no_grad():
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
            del graph, before
            self._give_up(error)
            return self.function(*inputs)
        self._graphs[key] = graph
        return outputs

    def _give_up(self, error):
        self.mode = "off"
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            f"{self.what} could not be recorded as one graph and runs layer by layer, several "
            f"times slower: {reason}",
            stacklevel=3,
        )


class _Graph:
    """One recording: traced, then compiled, then captured, as its calls go on."""

    def __init__(self, mode, what, frozen, add_bias):
        self.mode, self.what, self.frozen, self.add_bias = mode, what, frozen, add_bias
        self.calls = 0
        self.replay = None
        self.weights: list = []

    def stale(self):
        """Have weights changed since what depends on them was computed?"""
        return any(x._version != version for x, version in self.weights)

    def record(self, function, tensors):
        """Run the function and keep what it did."""
        # Takes a second to import.
        from torch.fx.experimental import proxy_tensor

        found = {}

        def flattened(*tensors):
            found["values"], found["spec"] = pytree.tree_flatten(function(*tensors))
            return found["values"]

        with contextlib.ExitStack() as settings:
            settings.enter_context(torch.no_grad())
            # Else a branch on a variable, which is no input, would be taken for a constant one.
            settings.enter_context(mock.patch.object(proxy_tensor, "CONSTANT_NUMEL_LIMIT", -1))
            if self.mode != "compile":
                # Half of the time goes into a fake tensor for each value, which nobody reads.
                fake = mock.patch.object(proxy_tensor, "extract_val", lambda *_, **__: None)
                settings.enter_context(fake)
            traced = proxy_tensor.make_fx(flattened)(*tensors)
            values = [x.detach().clone() for x in found["values"]]
        _fold_constants(traced)
        torch_passes.drop_copies(traced)
        if self.add_bias is not None:
            torch_passes.join_biases(traced, self.add_bias)
        if self.frozen:
            self.weights = [(x, x._version) for x in torch_passes.freeze(traced)]
        self.run, self.spec = traced, found["spec"]
        return pytree.tree_unflatten(values, self.spec)

    @torch.no_grad()
    def __call__(self, flat):
        self.calls += 1
        if self.replay is not None:
            for place, value in zip(self.inputs, flat, strict=True):
                place.copy_(value, non_blocking=True)
            self.replay.replay()
            # The next replay writes over them.
            return pytree.tree_unflatten([x.clone() for x in self.outputs], self.spec)
        if self.calls == 1 and self.mode == "compile":
            self._compile()
        try:
            outputs = self.run(*flat)
        except Exception as error:
            if self.mode != "compile" or isinstance(error, torch.OutOfMemoryError):
                raise
            self._plainly(error)
            outputs = self.run(*flat)
        if self.calls == WARM_UP and self.mode != "trace" and flat[0].is_cuda:
            self._capture(flat)
        return pytree.tree_unflatten(outputs, self.spec)

    def _compile(self):
        self.traced = self.run
        self.run = torch.compile(self.traced, fullgraph=True, dynamic=False)

    def _plainly(self, error):
        self.run, self.mode = self.traced, "graph"
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            f"{self.what} could not be compiled and runs slower, uncompiled: {reason}", stacklevel=4
        )

    def _capture(self, flat):
        """Capture a CUDA graph; it is replayed from the next call on."""
        self.inputs = [x.clone() for x in flat]
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            # Other threads may make batches meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.outputs = list(self.run(*self.inputs))
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().split("\n")[0]
            warnings.warn(
                f"{self.what} could not be captured as a CUDA graph and runs slower: {reason}",
                stacklevel=4,
            )
            self.mode = "trace"
            return
        self.replay = graph
        _captured.add(self)

    def release(self):
        """Let go of the CUDA graph; calls run operation by operation from now on."""
        if self.replay is not None:
            torch.cuda.synchronize()
            self.replay.reset()
        self.replay, self.mode, self.inputs, self.outputs = None, "trace", [], []


def _fold_constants(traced):
    """Compute once what depends on constants alone.

    Numbers become tensors of the host that each call would copy to the device anew, for which
    a CUDA graph cannot be captured.
    """
    lifted = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
    # Variables are got by name too, and change: only what was lifted from numbers is constant.
    constants: dict = {}
    for node in list(traced.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in lifted and node.args[0].op == "get_attr":
            value = getattr(traced, node.args[0].target).clone()
        elif node.target is torch.ops.aten._to_copy.default and node.args[0] in constants:
            value = node.target(constants[node.args[0]], *node.args[1:], **node.kwargs)
        else:
            continue
        if any(torch_passes.writes(user) for user in node.users):
            continue
        name = f"folded_constant_{len(constants)}"
        traced.register_buffer(name, value)
        with traced.graph.inserting_before(node):
            folded = traced.graph.get_attr(name)
        node.replace_all_uses_with(folded)
        traced.graph.erase_node(node)
        constants[folded] = value
    traced.recompile()
