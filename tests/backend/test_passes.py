"""What is left out of recorded graphs on PyTorch, and what must not be."""

import numpy as np
import pytest

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def record(torch, function, *inputs):
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        return make_fx(function)(*inputs)


def count(traced, target):
    return sum(node.target is target for node in traced.graph.nodes)


def test_copies_there_and_back_are_left_out(torch):
    from keras_vpgc.backend.torch_passes import drop_copies

    def function(x):
        x = (x * 2).permute(0, 3, 1, 2).contiguous()
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.relu(x).permute(0, 2, 3, 1)

    x = torch.randn(2, 6, 5, 4)
    traced = record(torch, function, x)
    clone = torch.ops.aten.clone.default
    assert count(traced, clone) == 2
    drop_copies(traced)
    assert count(traced, clone) == 0
    np.testing.assert_array_equal(traced(x), function(x))


def test_copies_of_what_is_written_to_stay(torch):
    from keras_vpgc.backend.torch_passes import drop_copies

    variable, clone = torch.zeros(3), torch.ops.aten.clone.default

    def function(x):
        old = variable.clone()
        y = x + 1
        before = y.clone()
        y.view(-1).add_(1)
        written = (x * 3).clone()
        written.mul_(2)
        variable.add_(x)
        return old, before, y, written

    x = torch.ones(3)
    traced = record(torch, function, x)
    drop_copies(traced)
    assert count(traced, clone) >= 2
    variable.zero_()
    found = [v.tolist() for v in traced(x)]
    assert found == [[0] * 3, [2] * 3, [3] * 3, [6] * 3]
    assert variable.tolist() == [1] * 3


def test_a_copy_into_another_layout_stays(torch):
    from keras_vpgc.backend.torch_passes import drop_copies

    def function(x):
        return (x * 2).permute(1, 0).contiguous()

    x = torch.randn(3, 4)
    traced = record(torch, function, x)
    drop_copies(traced)
    found = traced(x)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found, function(x))


def test_what_depends_on_weights_alone_is_computed_once(torch):
    from keras_vpgc.backend.torch_passes import freeze

    weight = torch.nn.Parameter(torch.randn(4, 4))

    def function(x):
        return x @ weight.to(torch.bfloat16).float().T + torch.rand(4) * 0

    x = torch.randn(2, 4)
    traced = record(torch, function, x)
    wanted = function(x).detach()
    freeze(traced)
    assert count(traced, torch.ops.aten._to_copy.default) == 0
    np.testing.assert_array_equal(traced(x), wanted)
    with torch.no_grad():
        weight.zero_()
    # The weight is taken as it was.
    np.testing.assert_array_equal(traced(x), wanted)


def test_written_weights_are_not_frozen(torch):
    from keras_vpgc.backend.torch_passes import freeze

    weight = torch.ones(3)

    def function(x):
        double = weight * 2
        weight.add_(1)
        return x * double

    traced = record(torch, function, torch.ones(3))
    freeze(traced)
    weight.fill_(1)
    assert [traced(torch.ones(3)).tolist() for _ in range(3)] == [[2] * 3, [4] * 3, [6] * 3]
