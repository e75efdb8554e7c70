"""What one backend computes, written to a file: `python -m tests.backend.one_backend IN OUT`.

Run by `test_across_backends` once under each backend.
"""

import sys

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder
from keras_vpgc.training import CodebookTrainer


def numbered_weights(model):
    """The same weights on every backend."""
    rng = np.random.default_rng(5)
    for variable in model.weights:
        if not variable.path.endswith(("gamma", "beta", "bias", "codes")):
            fan = np.prod(variable.shape[:-1])
            variable.assign(rng.normal(size=variable.shape) / np.sqrt(fan))
        elif variable.path.endswith("codes"):
            variable.assign(0.3 * rng.normal(size=variable.shape))


def main(source, target):
    with np.load(source) as given:
        images, landmarks = given["images"], given["landmarks"]
        puppet_file = str(given["puppet"])
    result = {}

    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny")
    discriminator = PatchDiscriminator(64, discriminator_channels=8)
    numbered_weights(autoencoder)
    numbered_weights(discriminator)
    variables = autoencoder.trainable_variables

    truth = keras.ops.convert_to_tensor(images)

    def loss():
        error = autoencoder(truth, training=True) - truth
        return (keras.ops.mean(keras.ops.square(error)) + sum(autoencoder.losses),)

    (value,), pullback = backend.vjp(loss, variables)
    grads = pullback((keras.ops.ones_like(value),))
    for variable, grad in zip(variables, grads, strict=True):
        result[f"grad/{variable.path}"] = keras.ops.convert_to_numpy(grad)

    trainer = CodebookTrainer(autoencoder, discriminator)
    rate = keras.optimizers.SGD(0.01)
    # TensorFlow takes far longer to trace a step than to run it.
    eager = keras.backend.backend() == "tensorflow"
    rates = rate, keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01)
    trainer.compile(*rates, run_eagerly=eager)
    logs = trainer.fit(images, batch_size=len(images), shuffle=False, verbose=0).history
    for name, values in logs.items():
        result[f"log/{name}"] = np.array(values)
    for variable in (*autoencoder.weights, *discriminator.weights):
        result[f"weight/{variable.path}"] = keras.ops.convert_to_numpy(variable)

    model = keras.saving.load_model(puppet_file)
    result["image"] = keras.ops.convert_to_numpy(model(landmarks))
    np.savez(target, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
