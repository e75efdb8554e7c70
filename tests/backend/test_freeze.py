"""What depends on weights alone is computed once on JAX, and the rest is what it was."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.once


@pytest.fixture
def programs():
    from keras_vpgc.backend import jax_programs

    return jax_programs


def test_results_are_those_of_the_function(programs, rng):
    weights = {"kernel": rng.normal(size=(3, 3, 4, 8)), "bias": rng.normal(size=8), "unused": 1.0}
    weights = jax.tree.map(lambda x: jax.numpy.asarray(x, "float32"), weights)
    x = rng.normal(size=(2, 9, 9, 4)).astype("float32")

    def function(weights, inputs):
        kernel = weights["kernel"].astype("bfloat16")
        found = jax.lax.conv_general_dilated(
            inputs["x"].astype("bfloat16"), kernel, (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        # An output that is a weight, one that is an input, and one of nothing.
        moved = jax.nn.relu(found + weights["bias"].astype("bfloat16"))
        return moved, weights["bias"] * 2, inputs["x"], jax.numpy.arange(3)

    constants, program = programs.freeze(function, weights, {"x": x})
    for found, wanted in zip(
        program(constants, {"x": x}), jax.jit(function)(weights, {"x": x}), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    # The cast kernel, twice the bias, and the cast bias; not the bias of each pixel.
    assert sorted(c.size for c in constants) == [8, 8, 288]
    assert {str(c.dtype) for c in constants} == {"bfloat16", "float32"}


def test_windows_of_codes_are_computed_once(programs):
    """A soft index's keys are sixteen times the codes: they are not gathered at each call."""
    cells = np.array([[0, 1], [1, 2]])

    def function(weights, inputs):
        keys = jax.numpy.take(weights[0], cells, axis=0)
        return jax.numpy.einsum("wkc,bc->bwk", keys, inputs)

    codes = [jax.numpy.arange(12.0).reshape(3, 4)]
    constants, program = programs.freeze(function, codes, np.ones((5, 4), "float32"))
    assert [c.shape for c in constants] == [(2, 2, 4)]
    x = np.full((5, 4), 2.0, "float32")
    np.testing.assert_allclose(program(constants, x)[0], codes[0][cells].sum(-1) * 2.0)
