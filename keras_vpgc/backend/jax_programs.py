"""Programs for inference on JAX that find their weights as they want them."""

import contextlib
import warnings

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.experimental.layout import Format, Layout
from jax.extend import core

# On a GPU the host hands over nearly all of a program at once, as CUDA graphs; by itself XLA leaves
# convolutions out and the host, which launches hundreds of kernels, bounds a single frame.
GPU_OPTIONS = {
    "xla_gpu_graph_min_graph_size": 1,
    "xla_gpu_enable_command_buffer": (
        "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONVOLUTION"
    ),
}


def freeze(function, weights, inputs):
    """Compile a function, computing what depends on its weights alone once and now.

    Casts to half precision, windows of codes and the like are not computed at each call then, and
    what is left lies in memory as the program wants it.

    Args:
        function: Pure, of weights and inputs.
        weights: Structure of JAX arrays.
        inputs: Structure of arrays, numpy or JAX; their shapes and types count.

    Returns:
        Pair of constants and `program(constants, inputs)`.
    """
    leaves, structure = jax.tree.flatten(weights)
    closed, shape = jax.make_jaxpr(function, return_shape=True)(weights, inputs)
    before, after = _split(closed, len(leaves))
    results = jax.tree.structure(shape)

    def program(constants, inputs):
        found = core.jaxpr_as_fun(after)(*constants, *jax.tree.leaves(inputs))
        return jax.tree.unflatten(results, found)

    prepare = core.jaxpr_as_fun(before)
    kinds = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in before.out_avals]
    # None stands for the layout that arrays have anyway.
    layouts = ([Format(Layout.AUTO)] * len(kinds), None)
    compiled = _compile(jax.jit(program, in_shardings=layouts).lower(kinds, inputs))
    formats = compiled.input_formats[0][0]
    # All at once: each would be a program of its own.
    constants = jax.jit(lambda leaves: prepare(*leaves), out_shardings=formats)(leaves)
    return constants, compiled


def _compile(lowered):
    """A compiled program, by `GPU_OPTIONS` on a GPU; one sentence where XLA refuses them."""
    if jax.default_backend() != "gpu":
        return lowered.compile()
    try:
        with _not_kept():
            return lowered.compile(compiler_options=GPU_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        compiled = lowered.compile()  # Whatever else is wrong is wrong here too.
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            "XLA does not take the options that hand a program to the GPU at once, so the host may "
            f"bound single frames: {reason}",
            stacklevel=4,
        )
        return compiled


@contextlib.contextmanager
def _not_kept():
    """A scope in which no compiled program is read from a folder or written to it.

    A program whose convolutions are in CUDA graphs works in the process that has tried out their
    algorithms. One that another process had kept, or whose algorithms it had, ended at its first
    call in cuDNN's status 5003 (JAX 0.11.2, H200).
    """
    kept = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # Which remembers whether there is one.
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", kept)
        compilation_cache.reset_cache()


def _split(closed, count):
    """Divide a program into what depends on its first `count` inputs alone, and the rest.

    Returns:
        Two closed jaxprs: of the first inputs, giving constants; of constants and the others.
    """
    jaxpr = closed.jaxpr
    fixed = set(jaxpr.invars[:count])
    moving = set(jaxpr.invars[count:])
    first, then = [], []
    for equation in jaxpr.eqns:
        given = {x for x in equation.invars if not isinstance(x, core.Literal)}
        if given & moving or equation.effects:
            moving.update(equation.outvars)
            then.append(equation)
        elif not given & fixed:
            # Of numbers alone, such as positions: XLA computes them once in either.
            first.append(equation)
            then.append(equation)
        elif equation.primitive.name == "broadcast_in_dim":
            # A bias for each pixel is quicker made than read.
            moving.update(equation.outvars)
            then.append(equation)
        else:
            fixed.update(equation.outvars)
            first.append(equation)
    wanted = [x for equation in then for x in equation.invars] + list(jaxpr.outvars)
    # A dict, for the order.
    kept = list({x: None for x in wanted if not isinstance(x, core.Literal) and x in fixed})
    shared = {"constvars": jaxpr.constvars}
    before = core.Jaxpr(invars=jaxpr.invars[:count], outvars=kept, eqns=first, **shared)
    after = core.Jaxpr(
        invars=[*kept, *jaxpr.invars[count:]],
        outvars=jaxpr.outvars,
        eqns=then,
        effects=jaxpr.effects,
        **shared,
    )
    return tuple(core.ClosedJaxpr(x, closed.consts) for x in (before, after))
