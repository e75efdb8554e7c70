"""Changes to ONNX files that change no result."""

import numpy as np
import pytest

pytestmark = pytest.mark.once


def saved(path, nodes, inputs, outputs, constants):
    from onnx import TensorProto, checker, helper, numpy_helper, save

    kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    ends = [
        [helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in values]
        for values in (inputs, outputs)
    ]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([helper.make_node(*n, **a) for n, a in nodes], "g", *ends, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    save(model, path)


def changed(path, feed):
    """Operators and results before and after."""
    import onnx
    import onnxruntime

    from keras_vpgc.export import onnx_passes

    def look():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        return kinds, [x.name for x in session.get_outputs()], session.run(None, feed)

    before = look()
    onnx_passes.apply(path)
    after = look()
    assert before[1] == after[1]
    for a, b in zip(before[2], after[2], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return before[0], after[0]


def test_pixels_are_rounded_in_one_pass(tmp_path):
    nodes = [
        (("Clip", ["x", "low", "high"], ["a"]), {}),
        (("Round", ["a"], ["b"]), {}),
        (("Cast", ["b"], ["y"]), {"to": 2}),
    ]
    ends = [("x", "float32", [1000])], [("y", "uint8", [1000])]
    limits = {"low": np.float32(0), "high": np.float32(255)}
    saved(tmp_path / "a.onnx", nodes, *ends, limits)
    # Halves are rounded to even.
    x = np.append(np.arange(-20, 280, 0.5), np.linspace(-9, 300, 400)).astype("float32")
    assert changed(tmp_path / "a.onnx", {"x": x})[1] == ["QuantizeLinear"]
    # Of other limits it is left as it is.
    saved(tmp_path / "b.onnx", nodes, *ends, {**limits, "high": np.float32(200)})
    before, after = changed(tmp_path / "b.onnx", {"x": x})
    assert before == after


def test_shortcuts_are_held_where_convolutions_read_them_too(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        (("Transpose", ["x"], ["a"]), {"perm": [0, 3, 1, 2]}),
        (("Conv", ["a", "w"], ["b"]), {"pads": [1, 1, 1, 1]}),
        (("Add", ["a", "b"], ["y"]), {}),
    ]
    ends = [("x", "float32", [2, 8, 8, 16])], [("y", "float32", [2, 16, 8, 8])]
    held = {"w": rng.normal(0, 0.1, (16, 16, 3, 3)).astype("float32")}
    saved(tmp_path / "a.onnx", nodes, *ends, held)
    import onnx
    import onnxruntime

    from keras_vpgc.export import onnx_passes

    feed = {"x": rng.normal(size=(2, 8, 8, 16)).astype("float32")}
    path = tmp_path / "a.onnx"
    wanted = onnxruntime.InferenceSession(path).run(None, feed)[0]
    onnx_passes.apply(path)
    assert [n.op_type for n in onnx.load(path).graph.node] == [
        "Transpose", "MaxPool", "Conv", "Add",
    ]  # fmt: skip
    np.testing.assert_allclose(onnxruntime.InferenceSession(path).run(None, feed)[0], wanted,
                               atol=1e-5)  # fmt: skip
    # What a convolution alone reads stays.
    saved(tmp_path / "b.onnx", nodes[:2], ends[0], [("b", "float32", [2, 16, 8, 8])], held)
    before, after = changed(tmp_path / "b.onnx", feed)
    assert before == after
