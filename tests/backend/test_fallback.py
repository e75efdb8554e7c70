"""Where a kernel does not work: one sentence, and the plain way."""

import warnings

import pytest

pytestmark = pytest.mark.once


@pytest.fixture
def backend():
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    from keras_vpgc.backend import torch as backend

    backend._kernel.cache_clear()
    yield backend
    backend._kernel.cache_clear()


def test_a_kernel_that_cannot_be_compiled(backend, monkeypatch):
    from keras_vpgc.backend import triton_kernels

    def check(device):
        raise RuntimeError("ptxas fatal: no such chip\nmore lines")

    monkeypatch.setitem(triton_kernels.CHECKS, "group_norm", check)
    with pytest.warns(UserWarning) as said:
        assert backend._kernel("group_norm") is None
        # Said once.
        assert backend._kernel("group_norm") is None
    assert [str(x.message) for x in said] == [
        "The kernel group_norm does not work on this GPU, so normalisations run by PyTorch's own "
        "operations, several times slower: ptxas fatal: no such chip"
    ]


def test_a_kernel_that_is_wrong(backend, monkeypatch):
    from keras_vpgc.backend import triton_kernels

    monkeypatch.setattr(triton_kernels, "draw_lines", lambda ends, *a: ends.new_zeros(1, 5, 8))
    with pytest.warns(UserWarning, match="draw_lines does not work .* the drawing is off by 1.0e"):
        assert backend._kernel("draw_lines") is None


def test_a_kernel_that_works_says_nothing(backend, monkeypatch):
    from keras_vpgc.backend import triton_kernels

    monkeypatch.setitem(triton_kernels.CHECKS, "add_bias", lambda device: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend._kernel("add_bias") is triton_kernels.add_bias


def test_without_triton(backend, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "keras_vpgc.backend.triton_kernels", None)
    monkeypatch.delattr(sys.modules["keras_vpgc.backend"], "triton_kernels", raising=False)
    with pytest.warns(UserWarning, match="Triton is missing, so biases are added by PyTorch's own"):
        assert backend._kernel("add_bias") is None
