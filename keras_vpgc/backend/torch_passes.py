"""Making a recorded graph smaller: copies that nobody needs, and what never changes."""

import torch

aten = torch.ops.aten
# Nodes that are copied for nothing, most of them by Keras's convolutions, or are only other views.
COPIES = (aten.clone.default, aten.contiguous.default)
# Views that their schemas do not tell of.
UNDECLARED = [aten._unsafe_view.default]
if torch.distributed.is_available():
    UNDECLARED.append(torch.ops._c10d_functional.wait_tensor.default)
RANDOM = torch.Tag.nondeterministic_seeded


def schema_of(node):
    """A node's schema, or `None` of what is no operator."""
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def writes(node) -> bool:
    """Does a node change one of its arguments?"""
    schema = schema_of(node)
    return schema is not None and schema.is_mutable


def _is_view(node):
    """Does a node show its first argument's memory?"""
    schema = schema_of(node)
    if schema is None:
        return node.op == "call_function"  # such as getitem
    if node.target in UNDECLARED:
        return True
    return any(x.alias_info is not None for x in schema.returns)


class _Memory:
    """Which nodes share memory, and which memory is written to."""

    def __init__(self, traced):
        self.roots = {}
        self.written = set()
        storages = {}
        for node in traced.graph.nodes:
            root = node
            value = getattr(traced, node.target, None) if node.op == "get_attr" else None
            if isinstance(value, torch.Tensor):
                # A variable has a node for each time that it is read.
                root = storages.setdefault(value.untyped_storage()._cdata, node)
            if node.op == "call_function" and _is_view(node) and node.all_input_nodes:
                root = self.roots[node.all_input_nodes[0]]
            self.roots[node] = root
            if writes(node):
                # Any argument may be the one.
                self.written |= {self.roots[x] for x in node.all_input_nodes}

    def fixed(self, node) -> bool:
        """Is a node's memory its graph's own, and never written to?"""
        root = self.roots[node]
        return root.op == "call_function" and root not in self.written


def _is_output(node):
    """Does the caller get a node's memory? What he gets must be his own."""
    return any(user.op == "output" for user in node.users)


def _layout(node):
    found = node.meta.get("tensor_meta")
    return None if found is None else (found.shape, found.stride, found.dtype)


def drop_copies(traced):
    """Leave out copies that change neither values nor layout.

    Keras's convolution copies a channels-last tensor into channels-first and back.

    Args:
        traced: A `GraphModule` of `make_fx`; it is changed.
    """
    memory = _Memory(traced)
    for node in list(traced.graph.nodes):
        if node.target not in COPIES or not memory.fixed(node) or _is_output(node):
            continue
        source = node.args[0]
        if node.kwargs.get("memory_format") in (None, torch.preserve_format):
            # It takes the layout of what it copies.
            continue
        while source.target in COPIES and memory.fixed(source):
            source = source.args[0]
        if not memory.fixed(source):
            continue
        node.args = (source, *node.args[1:])
        if _layout(node) is not None and _layout(node) == _layout(source):
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    # Backwards: what only a copy that is gone has used.
    for node in reversed(list(traced.graph.nodes)):
        if node.target in COPIES and not node.users:
            traced.graph.erase_node(node)
    traced.recompile()


@torch.no_grad()
def freeze(traced):
    """Compute once what depends on weights alone, which are taken as they are now.

    Args:
        traced: A `GraphModule` of `make_fx` that changes no weight; it is changed.

    Returns:
        The weights that it read.
    """
    graph = traced.graph
    known, memory = {}, _Memory(traced)
    for node in graph.nodes:
        if node.op == "get_attr" and memory.roots[node] not in memory.written:
            value = getattr(traced, node.target, None)
            if isinstance(value, torch.Tensor):
                known[node] = value
            continue
        inputs = node.all_input_nodes
        if node.op != "call_function" or not inputs or any(x not in known for x in inputs):
            continue
        if memory.roots[node] in memory.written or _is_output(node):
            continue
        schema = schema_of(node)
        if writes(node) or (schema is not None and RANDOM in node.target.tags):
            continue
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        known[node] = node.target(*args, **kwargs)
    count = 0
    for node in list(graph.nodes):
        kept = node in known and node.op != "get_attr" and isinstance(known[node], torch.Tensor)
        # Only where the rest of the graph begins.
        if not kept or all(user in known for user in node.users):
            continue
        name = f"frozen_{count}"
        count += 1
        traced.register_buffer(name, known[node])
        with graph.inserting_before(node):
            frozen = graph.get_attr(name)
        for user in list(node.users):
            if user not in known:
                user.replace_input_with(node, frozen)
    weights = [value for node, value in known.items() if node.op == "get_attr"]
    for node in reversed(list(graph.nodes)):
        if node in known and not node.users:
            graph.erase_node(node)
    traced.recompile()
    return weights


def join_biases(traced, add_bias):
    """Add a convolution's bias, what is added next, and ReLU, in one pass through memory.

    Args:
        traced: A `GraphModule` of `make_fx`; it is changed.
        add_bias: The operator that does it, see `triton_kernels.add_bias`.
    """
    graph = traced.graph
    for node in list(graph.nodes):
        if node.target is not aten.add.Tensor or node.kwargs:
            continue
        x, bias = node.args
        if not (_is_result(x) and _is_bias(bias, x)):
            continue
        last, other, relu = node, None, False
        user = next(iter(node.users)) if len(node.users) == 1 else None
        if user is not None and user.target is aten.relu.default:
            last, relu = user, True
        elif user is not None and user.target is aten.add.Tensor and not user.kwargs:
            (rest,) = [a for a in user.args if a is not node] or [None]
            if isinstance(rest, torch.fx.Node) and _layout(rest) == _layout(node):
                last, other = user, rest
        with graph.inserting_before(last):
            joined = graph.call_function(add_bias, (x, bias, other, relu))
        joined.meta = dict(last.meta)
        last.replace_all_uses_with(joined)
        graph.erase_node(last)
        if last is not node:
            graph.erase_node(node)
    traced.recompile()


def _is_result(node):
    """Is a node a convolution's result with its channels behind, used once?"""
    if not isinstance(node, torch.fx.Node) or node.target is not aten.permute.default:
        return False
    found = node.meta.get("tensor_meta")
    return (
        len(node.users) == 1
        and node.args[0].target is aten.convolution.default
        and len(node.args[0].users) == 1
        and found is not None
        and tuple(found.stride) == _contiguous(found.shape)
    )


def _is_bias(node, x):
    """Is a node one number for each channel of another?"""
    if not isinstance(node, torch.fx.Node):
        return False
    found, whole = node.meta.get("tensor_meta"), x.meta["tensor_meta"]
    if found is None or found.dtype != whole.dtype or not len(found.shape):
        return False
    return found.shape[-1] == found.shape.numel() == whole.shape[-1]


def _contiguous(shape):
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides)
