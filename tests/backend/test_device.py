"""Arrays where the models compute."""

import keras
import numpy as np

from keras_vpgc import backend
from tests.layers.layer_case import to_numpy


def test_rows_are_taken_by_indices_of_any_shape(rng):
    for dtype in ("uint8", "int32", "float16", "float32"):
        array = (100 * rng.uniform(size=(7, 3, 2))).astype(dtype)
        tensor = backend.to_device(array)
        for indices in (np.array([6, 0, 0]), np.array([[1, 2], [3, 4]])):
            found = backend.take(tensor, indices)
            assert keras.backend.standardize_dtype(found.dtype) == dtype
            np.testing.assert_array_equal(to_numpy(found), array[indices])


def test_devices_have_names():
    names = backend.device_names()
    assert names and all(isinstance(name, str) and name for name in names)
    if backend.free_memory() is None:
        assert names == ["CPU"]


def test_free_memory_is_that_of_an_accelerator():
    free = backend.free_memory()
    assert free is None or free > 0


def test_jitted_functions_take_arrays_and_structures_of_them(rng):
    array = rng.normal(size=(5, 2)).astype("float32")

    def function(arrays, indices, nothing=None):
        assert nothing is None
        return {"twice": 2 * backend.take(arrays["a"], indices)}, keras.ops.ones((len(indices),))

    found = backend.jitted(function)({"a": backend.to_device(array)}, np.array([3, 1]))
    np.testing.assert_allclose(to_numpy(found[0]["twice"]), 2 * array[[3, 1]])
    np.testing.assert_array_equal(to_numpy(found[1]), [1, 1])


def test_products_are_exact_in_their_scope():
    """A GPU's shortcuts cannot be seen on a processor: what is asked for is."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        def asked():
            square = jax.numpy.ones((4, 4))
            return "HIGHEST" in jax.jit(lambda x: x @ x).lower(square).as_text()

    elif name == "torch":
        import torch

        torch.set_float32_matmul_precision("high")

        def asked():
            precision = torch.get_float32_matmul_precision()
            return precision == "highest" and not torch.backends.cudnn.allow_tf32

    else:
        import tensorflow as tf

        def asked():
            return not tf.config.experimental.tensor_float_32_execution_enabled()

    try:
        assert not asked()
        with backend.full_precision():
            assert asked()
        assert not asked()
    finally:
        if name == "torch":
            torch.set_float32_matmul_precision("highest")


def test_layers_compute_by_the_processor_in_its_scope(rng):
    images = rng.uniform(0, 255, size=(2, 8, 8, 3)).astype("float32")
    with backend.on_host():
        found = keras.layers.RandomBrightness((0.5, 0.5))(images, training=True)
    np.testing.assert_allclose(to_numpy(found), np.clip(images + 127.5, 0, 255), rtol=1e-5)
