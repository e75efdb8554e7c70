"""Models as files that ONNX's runtimes or PyTorch run without Keras."""

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
