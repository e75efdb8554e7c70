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


def test_a_recording_follows_the_weights(torch):
    from keras_vpgc.backend.torch_graph import Recorded

    weight = torch.nn.Parameter(torch.ones(3))
    calls = []

    def function(x):
        calls.append(1)
        return x * weight.to(torch.bfloat16) + weight

    recorded = Recorded(function, "trace", "It", frozen=True)
    x = torch.ones(3)
    with torch.no_grad():
        assert [recorded(x).tolist() for _ in range(3)] == [[2] * 3] * 3
        assert len(calls) == 1
        weight.mul_(4)
        assert [recorded(x).tolist() for _ in range(3)] == [[8] * 3] * 3
        assert len(calls) == 2
        (graph,) = recorded._graphs.values()
    assert count(graph.run, torch.ops.aten._to_copy.default) == 0


def test_what_is_written_later_is_not_frozen(torch):
    from keras_vpgc.backend.torch_passes import freeze

    weight = torch.ones(3)

    def function(x):
        double = weight * 2
        double.add_(x)
        return double.clone(), weight + 1

    traced = record(torch, function, torch.ones(3))
    freeze(traced)
    for _ in range(3):
        written, own = traced(torch.ones(3))
        assert written.tolist() == [3] * 3 and own.tolist() == [2] * 3
        # What the caller gets is his own.
        own.zero_()


def test_a_copy_that_takes_its_layout_from_another_stays(torch):
    from keras_vpgc.backend.torch_passes import drop_copies

    def function(x):
        y = (x * 2).contiguous(memory_format=torch.channels_last).clone()
        z = x + 1
        twice = torch.ops.aten._unsafe_view(z, z.shape)
        before = z.clone()
        twice.add_(1)
        return y.permute(0, 2, 3, 1).view(-1, 4), before, z, z.clone()

    x = torch.randn(2, 4, 3, 3)
    traced = record(torch, function, x)
    drop_copies(traced)
    for one, other in zip(traced(x), function(x), strict=True):
        np.testing.assert_array_equal(one, other)
    *_, first, second = traced(x)
    assert first.data_ptr() != second.data_ptr()


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
