"""PyTorch's kernels for GPUs, run by Triton's interpreter, against float64 and the layers."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    target = tmp_path_factory.mktemp("kernels") / "found.npz"
    env = {**os.environ, "TRITON_INTERPRET": "1", "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-m", "tests.backend.kernels", target], check=True, env=env)
    with np.load(target) as stored:
        return dict(stored)


def reference(x, gamma, beta, out, groups, silu):
    """Group normalisation and its gradients as they are defined, in float64."""
    b, h, w, c = x.shape
    split = (b, h * w, groups, c // groups)
    mean = x.reshape(split).mean((1, 3), keepdims=True)
    rate = 1 / np.sqrt(x.reshape(split).var((1, 3), keepdims=True) + 1e-6)
    values = ((x.reshape(split) - mean) * rate).reshape(x.shape)
    z = values * gamma + beta
    gate = 1 / (1 + np.exp(-z))
    dz = out * (gate * (1 + z * (1 - gate)) if silu else 1.0)
    direct = (dz * gamma).reshape(split)
    share = (direct * values.reshape(split)).mean((1, 3), keepdims=True)
    inner = direct - direct.mean((1, 3), keepdims=True) - values.reshape(split) * share
    sums = dz * values
    return {
        "y": z * gate if silu else z,
        "dx": (rate * inner).reshape(x.shape),
        "dgamma": sums.sum((0, 1, 2)),
        "dbeta": dz.sum((0, 1, 2)),
    }


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("case", range(4))
def test_group_norm(found, case, silu):
    name = f"{case}/{int(silu)}"
    inputs = [found[f"{name}/{key}"] for key in ("x", "gamma", "beta", "out")]
    for key, wanted in reference(*inputs, int(found[f"{name}/groups"]), silu).items():
        off = np.abs(found[f"{name}/{key}"] - wanted).max() / np.abs(wanted).max()
        # Inputs of about 50 have a step of 4e-6 in float32.
        assert off < 2e-5, (key, off)


def test_lines(found):
    assert found["drawn/layer"].max() == 1 and (found["drawn/layer"] > 0).mean() > 0.1
    np.testing.assert_allclose(found["drawn/kernel"], found["drawn/layer"], atol=2e-4)


def test_layers_take_them(found):
    for name, limit in (("norm", 1e-5), ("lines", 2e-4), ("moved", 0)):
        plain, kernel = (found[f"layer/{name}/{way}"] for way in ("plain", "kernel"))
        assert np.abs(plain).max() > 0.5
        np.testing.assert_allclose(kernel, plain, atol=limit, err_msg=name)
    # Not the plain way twice.
    assert (found["layer/norm/plain"] != found["layer/norm/kernel"]).any()
    assert (found["layer/lines/plain"] != found["layer/lines/kernel"]).any()
    assert found["empty"].tolist() == [0, 4, 4, 8] * 2


def test_sums(found):
    x, bias, other = (found[f"sum/{name}"] for name in ("x", "bias", "other"))
    np.testing.assert_allclose(found["sum/plain"], x + bias, rtol=1e-6)
    np.testing.assert_allclose(found["sum/relu"], np.maximum(x + bias, 0), rtol=1e-6)
    np.testing.assert_allclose(found["sum/both"], x + bias + other, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["sum/half"], x + bias + other, rtol=0.02, atol=0.03)


def test_biases_are_joined_in_a_recorded_graph(found):
    np.testing.assert_allclose(found["joined/graph"], found["joined/model"], atol=1e-5)
    assert found["joined/count"] == 6
    # Two in each of the four normalisations, none beside a convolution.
    assert found["joined/left"] == 8


def test_recorded_as_operators(found):
    names = ["keras_vpgc.group_norm.default", "keras_vpgc.group_norm_backward.default"]
    assert found["nodes"].tolist() == names
