"""Gradients, custom steps and compiled inference on TensorFlow."""

import tensorflow as tf


def vjp(function, variables):
    """Run `function()` and get the map from output cotangents to the variables' gradients.

    Args:
        function: Takes nothing, returns a flat tuple of float tensors.
        variables: List of Keras variables.

    Returns:
        Pair of the outputs and `pullback(cotangents) -> list of gradients`.
    """
    values = [v.value for v in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        outputs = function()

    def pullback(cotangents):
        return tape.gradient(
            list(outputs),
            values,
            output_gradients=list(cotangents),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    return outputs, pullback


def value_and_grad(function, tensors):
    """Value of a scalar function of tensors, and its gradients.

    Args:
        function: Takes the tensors, returns `(scalar, aux)`.
        tensors: List of float tensors.

    Returns:
        `(scalar, aux, gradients)`.
    """
    tensors = [tf.convert_to_tensor(x) for x in tensors]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value, aux = function(*tensors)
    grads = tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return value, aux, grads


def train_step(model, function, data):
    """`model.train_step` out of a stateful `function(data) -> logs`."""
    return function(data)


def test_step(model, function, data):
    """`model.test_step` out of a stateful `function(data) -> logs`."""
    return function(data)


def compiled(model):
    """A fast `inputs -> outputs` for inference.

    Args:
        model: A built Keras model.

    Returns:
        A function of a numpy array (or list of them), compiled once a shape.
    """
    return tf.function(lambda inputs: model(inputs, training=False), jit_compile=jit_by_default())


def jit_by_default() -> bool:
    """Compile by XLA? On a CPU that takes a minute and gains nothing (`docs/results.md`)."""
    return bool(tf.config.list_physical_devices("GPU"))
