"""What every layer must do, tried on one layer at a time."""

import keras
import numpy as np

POLICIES = ("float32", "mixed_bfloat16")


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))


def compiled(function):
    """The function of tensors, compiled on JAX: there each new operation costs a compilation."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def check_layer(build, inputs, tmp_path, output_dtype=None, tolerance=0.05):
    """Build, call, dtype policies, shape inference, config round trip, saving and loading.

    `build(**kwargs)` makes the layer; `inputs` is an array or a list of arrays.
    """
    several = isinstance(inputs, list)
    shapes = [x.shape for x in inputs] if several else inputs.shape
    outputs = {}
    weights = None
    for policy in POLICIES:
        layer = build(dtype=policy)
        output = layer(inputs)
        if weights is None:
            weights = layer.get_weights()
        layer.set_weights(weights)
        output = layer(inputs)
        assert tuple(output.shape) == tuple(layer.compute_output_shape(shapes))
        wanted = output_dtype or layer.compute_dtype
        assert keras.backend.standardize_dtype(output.dtype) == wanted
        assert all(v.dtype == "float32" for v in layer.weights)
        spec = keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, "float32"), inputs)
        spec = layer.compute_output_spec(spec)
        assert tuple(spec.shape) == tuple(output.shape)
        assert keras.backend.standardize_dtype(spec.dtype) == wanted
        outputs[policy] = to_numpy(output)
        assert np.isfinite(outputs[policy]).all()
    scale = np.abs(outputs["float32"]).max() + 1e-6
    difference = np.abs(outputs["float32"] - outputs["mixed_bfloat16"])
    assert difference.mean() <= tolerance * scale

    layer = build(name="the_layer")
    layer(inputs)
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    arguments = inputs if several else [inputs]
    symbols = [keras.Input(batch_shape=x.shape, dtype="float32") for x in arguments]
    model = keras.Model(symbols, layer(symbols if several else symbols[0]))
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(to_numpy(model(arguments)), to_numpy(loaded(arguments)))
    return layer
