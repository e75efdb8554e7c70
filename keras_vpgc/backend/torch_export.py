"""Models as files that ONNX's runtimes or PyTorch run without Keras."""

import math

import torch

# What a file of each kind names the metadata that it holds.
METADATA = "keras_vpgc"
BATCH = "batch"


class _Forward(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(inputs, training=False)


@torch.no_grad()
def write(model, kind, path, metadata):
    """See `keras_vpgc.backend.torch.write_export`."""
    (inputs,) = model.inputs
    example = torch.zeros((2, *inputs.shape[1:]), dtype=getattr(torch, inputs.dtype))
    program = torch.export.export(
        _Forward(model).eval(),
        (example,),
        dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
        strict=False,
    )
    _drop_idle(program)
    _take_quick_operators(program)
    _keep_channels_first(program)
    if kind == "torch":
        torch.export.save(program, path, extra_files={METADATA: metadata})
        return
    names = {"input_names": [inputs.name], "output_names": model.output_names}
    exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    _name_batch(exported.model)
    exported.model.metadata_props[METADATA] = metadata
    exported.save(path)


def read(path):
    """See `keras_vpgc.backend.torch.read_export`."""
    module = torch.export.load(path).module()

    def call(inputs):
        with torch.no_grad():
            return module(torch.from_numpy(inputs)).numpy()

    return call


def _drop_idle(program):
    """Take out what changes nothing, which is most of what Keras's operations leave behind.

    Squeezes of axes longer than 1 would be an error in ONNX.
    """
    aten = torch.ops.aten
    conversions = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.contiguous.default)
    for node in reversed(list(program.graph.nodes)):
        # Where in whose files an operation was written is nobody's business, and half of a file.
        node.meta.pop("stack_trace", None)
        if node.target is aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
        elif node.target in conversions or node.target is aten.squeeze.dim:
            before, after = node.args[0].meta["val"], node.meta["val"]
            if before.dtype == after.dtype and before.shape == after.shape:
                node.replace_all_uses_with(node.args[0])
                program.graph.erase_node(node)
    program.graph_module.recompile()


def _make(graph, target, arguments):
    """A new node, that knows what it gives."""
    node = graph.call_function(target, arguments)
    values = [x.meta["val"] if isinstance(x, torch.fx.Node) else x for x in arguments]
    node.meta["val"] = target(*values)
    return node


def _take_quick_operators(program):
    """Squares as products, and products by weights of any number of axes as those of matrices.

    ONNX Runtime takes the general power for `Pow`, and turns its arguments about for `Einsum`.
    """
    aten = torch.ops.aten
    graph = program.graph
    for node in list(graph.nodes):
        with graph.inserting_before(node):
            power = node.target is aten.pow.Tensor_Scalar and node.args[1] == 2
            if power or node.target is aten.square.default:
                found = _make(graph, aten.mul.Tensor, (node.args[0], node.args[0]))
            elif node.target is aten.einsum.default:
                found = _as_matrices(graph, *node.args[:2])
            else:
                continue
        if found is not None:
            node.replace_all_uses_with(found)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _as_matrices(graph, equation, operands):
    """`abc,cde->abde` and the like as a product of matrices, or `None` for other equations."""
    aten = torch.ops.aten
    terms, _, result = equation.replace(" ", "").partition("->")
    first, _, second = terms.partition(",")
    inner = [axis for axis in first if axis in second]
    kept, new = first[: -len(inner) or None], second[len(inner) :]
    shapes = [tuple(x.meta["val"].shape) for x in operands]
    plain = len(operands) == 2 and first == kept + "".join(inner) and result == kept + new
    # What has a number of its own in each batch comes first.
    sizes = [*shapes[0][1:], *shapes[1]] if plain else [None]
    if (
        not inner
        or second[: len(inner)] != "".join(inner)
        or any(type(n) is not int for n in sizes)
    ):
        return None
    x, weights = operands
    middle, outer = len(inner), shapes[1][len(inner) :]
    size = math.prod(shapes[1][:middle])
    if middle > 1:
        x = _make(graph, aten.reshape.default, (x, [-1, *shapes[0][1:-middle], size]))
    if len(shapes[1]) > 2:
        weights = _make(graph, aten.reshape.default, (weights, [size, math.prod(outer)]))
    x = _make(graph, aten.matmul.default, (x, weights))
    if len(outer) > 1:
        x = _make(graph, aten.reshape.default, (x, [-1, *shapes[0][1 : len(kept)], *outer]))
    return x


TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def _keep_channels_first(program):
    """Leave maps as convolutions have them, channels first, from one to the next.

    Keras turns each map back after a convolution, adds the bias and the shortcut there, and turns
    it again for the next; runtimes then neither join these sums to the convolutions nor keep the
    layout that they compute in.
    """
    aten = torch.ops.aten
    graph = program.graph

    def turned(node, order):
        return (
            isinstance(node, torch.fx.Node)
            and node.target is aten.permute.default
            and list(node.args[1]) == order
        )

    def make(target, arguments):
        return _make(graph, target, arguments)

    def first(node):
        """The map with its channels first, if that costs nothing."""
        if turned(node, TO_LAST):
            return node.args[0]
        return next((user for user in node.users if turned(user, TO_FIRST)), None)

    def bias_of(node):
        """The bias that is added along the last axis, if this is one."""
        reshaped = isinstance(node, torch.fx.Node) and node.target is aten.reshape.default
        if reshaped and list(node.args[1][:-1]) == [1, 1, 1] and node.args[0].meta["val"].ndim == 1:
            return node.args[0]
        return None

    def replace(node):
        if turned(node, TO_FIRST) and turned(node.args[0], TO_LAST):
            return node.args[0].args[0]
        if node.target is aten.relu.default and turned(node.args[0], TO_LAST):
            return make(aten.relu.default, (node.args[0].args[0],)), TO_LAST
        if node.target is not aten.add.Tensor or not turned(node.args[0], TO_LAST):
            return None
        (one, other), inner = node.args[:2], node.args[0].args[0]
        bias = bias_of(other)
        if bias is not None and inner.target is aten.conv2d.default and len(inner.users) == 1:
            more = inner.args[3:] if len(inner.args) > 3 else ()
            if len(inner.args) < 3 or inner.args[2] is None:
                return make(aten.conv2d.default, (*inner.args[:2], bias, *more)), TO_LAST
        if not isinstance(other, torch.fx.Node) or other.meta["val"].shape != one.meta["val"].shape:
            return None
        straight = first(other)
        # What is used must have been computed by then.
        order = {x: i for i, x in enumerate(graph.nodes)}
        if straight is None or order[straight] > order[node]:
            return None
        return make(aten.add.Tensor, (inner, straight)), TO_LAST

    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        with graph.inserting_before(node):
            found = replace(node)
            if isinstance(found, tuple):
                found = make(aten.permute.default, found)
        if found is not None:
            node.replace_all_uses_with(found)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _name_batch(model):
    """Call the axis of unknown length by its name, where the exporter has a symbol like `s32`.

    What the exporter notes of the program beside nodes and values goes.
    """
    import onnx_ir

    (inputs,) = model.graph.inputs
    symbol = inputs.shape[0]
    values = [*model.graph.inputs, *(x for node in model.graph for x in node.outputs)]
    for item in (*model.graph, *values):
        item.metadata_props.clear()
    for value in values:
        if value.shape is not None and symbol in list(value.shape):
            named = [onnx_ir.SymbolicDim(BATCH) if n == symbol else n for n in value.shape]
            value.shape = onnx_ir.Shape(named)
