"""Small changes to exported ONNX files, each for the sake of a runtime's time, none for its result.

What they gain was measured on the whole of `vpgc_512_lite`, see `docs/results.md`.
"""

import numpy as np

TO_FIRST = (0, 3, 1, 2)


def apply(path) -> None:
    """Change a file in place.

    Args:
        path: An ONNX file by `keras_vpgc.backend.write_export`.
    """
    import onnx_ir

    model = onnx_ir.load(path)
    round_at_once(model.graph)
    hold_shortcuts(model.graph)
    model.graph.sort()
    onnx_ir.save(model, path)


def round_at_once(graph) -> int:
    """Clipping to [0, 255], rounding and the cast to uint8 as one pass over the pixels.

    `QuantizeLinear` of scale 1 does all three, and rounds halves to even as `Round` does.

    Args:
        graph: An `onnx_ir.Graph`.

    Returns:
        How many were found.
    """
    import onnx_ir

    found = 0
    for cast in list(graph):
        rounding = _producer(cast, "Cast", "Round")
        clip = rounding and _producer(rounding, "Round", "Clip")
        if not clip or [_number(x) for x in clip.inputs[1:]] != [0.0, 255.0]:
            continue
        if cast.attributes["to"].as_int() != onnx_ir.DataType.UINT8:
            continue
        if any(len(node.outputs[0].uses()) > 1 for node in (clip, rounding)):
            continue
        one = _constant(graph, np.float32(1.0), "pixel_scale")
        zero = _constant(graph, np.uint8(0), "pixel_zero")
        node = onnx_ir.node("QuantizeLinear", [clip.inputs[0], one, zero], name=f"{cast.name}_q")
        node.outputs[0].name = f"{cast.outputs[0].name}_q"
        _replace(graph, cast, node)
        graph.remove([rounding, clip], safe=True)
        found += 1
    return found


def hold_shortcuts(graph) -> int:
    """Let maps that a block reads twice, in a convolution and as its shortcut, come from a pooling.

    ONNX Runtime lays out what convolutions and poolings give in blocks of channels, and adds two
    such maps inside of the convolution behind. Maps that were spread over pixels have not that
    layout: a pooling of single pixels, which changes nothing, gives it to them once, instead of
    at each of their readers. Others leave it out.

    Args:
        graph: An `onnx_ir.Graph`.

    Returns:
        How many were found.
    """
    import onnx_ir

    found = 0
    for turn in list(graph):
        if turn.op_type != "Transpose" or tuple(turn.attributes["perm"].as_ints()) != TO_FIRST:
            continue
        maps = turn.outputs[0]
        if not {"Conv", "Add"} <= {user.op_type for user, _ in maps.uses()}:
            continue
        node = onnx_ir.node("MaxPool", [maps], {"kernel_shape": [1, 1]}, name=f"{turn.name}_held")
        node.outputs[0].name = f"{maps.name}_held"
        node.outputs[0].shape, node.outputs[0].type = maps.shape, maps.type
        for user, place in maps.uses():
            user.replace_input_with(place, node.outputs[0])
        node.replace_input_with(0, maps)
        graph.insert_after(turn, node)
        found += 1
    return found


def _producer(node, kind, before):
    """What gives the first input of a node of a kind, if it is of another."""
    if node.op_type != kind or node.inputs[0] is None:
        return None
    source = node.inputs[0].producer()
    return source if source is not None and source.op_type == before else None


def _number(value):
    """A constant's number, or `None`."""
    import onnx_ir

    tensor = None if value is None else onnx_ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size != 1 else float(tensor.numpy().reshape(()))


def _constant(graph, number, name):
    """A new constant of a graph."""
    import onnx_ir

    if name in graph.initializers:
        return graph.initializers[name]
    tensor = onnx_ir.tensor(number, name=name)
    value = onnx_ir.Value(
        name=name, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _replace(graph, old, new):
    """Put a node in another's place; outputs of the graph keep their names."""
    import onnx_ir

    new.outputs[0].shape, new.outputs[0].type = old.outputs[0].shape, old.outputs[0].type
    onnx_ir.convenience.replace_nodes_and_values(graph, old, [old], [new], old.outputs, new.outputs)
