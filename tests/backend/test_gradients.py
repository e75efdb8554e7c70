"""`vjp` and `value_and_grad` against derivatives written out by hand."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from tests.layers.layer_case import to_numpy


def test_value_and_grad_of_tensors(rng):
    x, y = (rng.normal(size=(3, 2)).astype("float32") for _ in range(2))

    def function(x, y):
        return ops.sum(x * x * y), {"double": 2 * x}

    value, aux, grads = backend.value_and_grad(
        function, [ops.convert_to_tensor(x), ops.convert_to_tensor(y)]
    )
    np.testing.assert_allclose(to_numpy(value), (x * x * y).sum(), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(aux["double"]), 2 * x)
    np.testing.assert_allclose(to_numpy(grads[0]), 2 * x * y, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(grads[1]), x * x, rtol=1e-5)


def test_value_and_grad_of_an_unused_tensor_is_zero(rng):
    x, y = (ops.convert_to_tensor(rng.normal(size=3).astype("float32")) for _ in range(2))
    _, _, grads = backend.value_and_grad(lambda a, b: (ops.sum(a), ()), [x, y])
    np.testing.assert_array_equal(to_numpy(grads[1]), np.zeros(3))


def test_vjp_pulls_cotangents_of_several_outputs_back(rng):
    layer = keras.layers.Dense(2, use_bias=True)
    x = rng.normal(size=(4, 3)).astype("float32")
    layer(x)
    unused = keras.Variable(np.ones(2, "float32"))
    kernel, bias = (to_numpy(v) for v in layer.weights)

    def function():
        y = layer(x)
        return y, ops.sum(ops.square(y))

    (y, total), pullback = backend.vjp(function, [*layer.trainable_variables, unused])
    np.testing.assert_allclose(to_numpy(y), x @ kernel + bias, atol=1e-5)
    cotangent = rng.normal(size=y.shape).astype("float32")
    grads = pullback((ops.convert_to_tensor(cotangent), 3.0 * ops.ones_like(total)))
    upstream = cotangent + 6.0 * (x @ kernel + bias)
    np.testing.assert_allclose(to_numpy(grads[0]), x.T @ upstream, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(to_numpy(grads[1]), upstream.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(to_numpy(grads[2]), np.zeros(2))


def test_compiled_inference_is_the_model(rng):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
    x = rng.normal(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(to_numpy(backend.compiled(model)(x)), to_numpy(model(x)), atol=1e-6)
