"""Training and a model on PyTorch, written to a file: `python -m tests.backend.recorded OUT`.

Run by `test_recorded` with and without recording, always by the backend torch.
"""

import sys
import warnings

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.backend import torch_graph
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder, PortraitDriver
from keras_vpgc.training import CodebookTrainer, fit_driver, fit_driver_on_images, schedule

# Recording takes a while for each operation: few layers, on the grid of 16x16 cells.
SHARED = {"image_size": 32, "latent_dim": 16, "norm_groups": 4}
SMALL = {**SHARED, "base_channels": 8, "multipliers": (1, 1)}
DRIVER = {**SHARED, "driver_base_channels": 8, "driver_multipliers": (1, 1)}


def main(target):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(8, 32, 32, 3), dtype="uint8")
    weights = rng.uniform(0.5, 2, size=(8, 32, 32, 1)).astype("float32")
    landmarks = rng.uniform(size=(8, 68, 2)).astype("float32")
    result = {}
    keras.utils.set_random_seed(1)
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", **SMALL)
    discriminator = PatchDiscriminator(32, 2, 2, discriminator_channels=4, feature_maps=True)
    # Steps 2 and 3 have the discriminator too.
    settings = {"feature_matching_weight": 10.0, "adversarial_start": 2}
    trainer = CodebookTrainer(autoencoder, discriminator, **settings)
    trainer.compile(learning_rate=schedule(1e-3, 8, warmup_steps=3), average=0.9)
    logs = trainer.fit(images, weights, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    for name, values in logs.items():
        result[f"log/{name}"] = np.array(values)
    driver = PortraitDriver.from_preset("vpgc_tiny", **DRIVER, transformer_blocks=1)
    features = rng.normal(size=(8, 16, 16, 16)).astype("float32")
    same = {"steps": 4, "batch_size": 2, "verbose": 0, "average": 0.9}
    first = fit_driver(
        driver, landmarks, features, np.arange(8), temporal_weight=0.5,
        learning_rate=schedule(1e-3, 4), **same,
    )  # fmt: skip
    second = fit_driver_on_images(
        driver, autoencoder, landmarks, images, features, np.arange(8), train_decoder=True, **same
    )
    for stage, rows in (("driver", first), ("joint", second)):
        for name, value in rows[-1].items():
            result[f"log/{stage}/{name}"] = np.array(value)
    for i, variable in enumerate((*trainer.variables, *driver.variables)):
        result[f"weight/{i}"] = keras.ops.convert_to_numpy(variable)
    # Two batches an update: those steps are not alike.
    trainer.compile(learning_rate=1e-3, accumulate=2)
    trainer.fit(images, batch_size=2, shuffle=False, verbose=0)
    # Compiled again, another loss is another step.
    features = rng.normal(size=(2, 16, 16, 16)).astype("float32")
    heatmaps = rng.uniform(size=(2, 32, 32, 7)).astype("float32")
    for loss in ("mae", "mse"):
        driver.compile(keras.optimizers.SGD(0.1), loss)
        backend.record_steps(driver)
        history = driver.fit(heatmaps, features, epochs=2, shuffle=False, verbose=0).history
        result[f"log/again/{loss}"] = np.array(history["loss"])
    for i, variable in enumerate((*trainer.variables, *driver.variables)):
        result[f"weight/again/{i}"] = keras.ops.convert_to_numpy(variable)
    call = backend.compiled(autoencoder)
    pictures = images.astype("float32") / 127.5 - 1
    # Recorded and played again, for two shapes.
    for name, batch in (("a", pictures[:2]), ("b", pictures[2:4]), ("c", pictures[:3])):
        result[f"image/{name}"] = keras.ops.convert_to_numpy(call(batch))

    def asks(x):
        return x + 1 if float(x.sum()) > 0 else x - 1

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        function = torch_graph.Recorded(asks, torch_graph.mode(), "This function")
        tensor = keras.ops.ones((2,))
        counter = keras.Variable([0.0])

        def counts(x):
            counter.assign_add([1.0])
            return asks(x)

        once = torch_graph.Recorded(
            counts, torch_graph.mode(), "This function", lambda: [counter.value]
        )
        once(tensor)
        result["counted"] = keras.ops.convert_to_numpy(counter)
        constant = torch_graph.Recorded(
            lambda x: (2 * x, keras.ops.convert_to_tensor(3.0)), torch_graph.mode(), "A constant"
        )
        for _ in range(2):
            result["constant"] = keras.ops.convert_to_numpy(constant(tensor)[1])
        result["asks"] = np.stack(
            [keras.ops.convert_to_numpy(function(x)) for x in (tensor, -tensor)]
        )
    messages = [str(w.message) for w in said]
    result["warnings"] = np.array([x for x in messages if x.startswith("This function")])
    np.savez(target, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
