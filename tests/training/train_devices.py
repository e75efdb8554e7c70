"""Trains on several devices: `python -m tests.training.train_devices part|whole OUT COUNT...`.

`part` trains stage 1 and the driver for some steps; `whole` is `train_puppet` on the portrait whose
folder is in the environment variable PORTRAIT. `test_devices` runs it.
"""

import os
import sys
import warnings

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.data.dataset import DriverBatches, FrameBatches, context_indices
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder, PortraitDriver
from keras_vpgc.training import CodebookTrainer, Stage
from keras_vpgc.training.fit_driver import FeatureLoss, encode
from keras_vpgc.training.optimizer import adam
from keras_vpgc.training.recipes import train_puppet
from tests.training.train_run import AUTOENCODER, NETWORK, RECIPE

# Without the discriminator, whose answers let rounding grow over dozens of steps, and with small
# steps at the end.
WHOLE = {
    "joint_rate": 0.1,
    "joint_feature_weight": 10.0,
    "batch_size": 4,
    "driver_batch_size": 4,
    "accumulate": 1,
    "adversarial": None,
    "feature_matching_weight": 0.0,
    # Moved frames add to that; that shards move theirs as the whole does is tested with the data.
    "frame_jitter": 0.0,
    "joint_jitter": 0.0,
}


def optimizer(**settings):
    # Adam's usual epsilon makes full steps of gradients that are nothing but rounding.
    return adam(1e-2, epsilon=1e-2, average=0.9, **settings)


def count_recordings():
    """A list that grows by each recording of PyTorch's; one that fails is an error."""
    from keras_vpgc.backend import torch_graph

    warnings.filterwarnings("error", message=".*could not be recorded")
    found, record = [], torch_graph._Graph.record

    def counted(graph, *arguments):
        outputs = record(graph, *arguments)
        found.append(graph.what)
        return outputs

    torch_graph._Graph.record = counted
    return found


def part(folder, count):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(10, 32, 32, 3), dtype="uint8")
    heatmaps = rng.integers(0, 256, size=(10, 32, 32), dtype="uint8")
    landmarks = rng.uniform(size=(10, 68, 2))
    run = os.path.join(folder, str(count))

    def fit(name, model, batches, **kwargs):
        settings = {"tensorboard": False, "checkpoint_seconds": 0, "verbose": 0}
        stage = Stage(run, name, name, 4, steps_per_epoch=2, **settings)
        rows = stage.fit(model, batches, **kwargs)
        return {f"{name}/{k}": [row[k] for row in rows] for k in rows[0]}

    with backend.distributed(count):
        tensorflow = keras.backend.backend() == "tensorflow"
        # TensorFlow accumulates on one device only, and takes far longer to trace than to run.
        accumulate = 1 if tensorflow else int(os.environ.get("ACCUMULATE", 2))
        eager = tensorflow and count == 1
        recordings = count_recordings() if os.environ.get("KERAS_VPGC_TORCH") == "trace" else None
        shared = {"shard": backend.process(), "prefetch": 1}
        trainer = CodebookTrainer(
            PortraitAutoencoder.from_preset("vpgc_tiny", **AUTOENCODER),
            PatchDiscriminator(32, 2, 2, discriminator_channels=4, feature_maps=True),
            feature_matching_weight=1.0,
        )
        trainer.compile(*(optimizer(accumulate=accumulate) for _ in range(3)), run_eagerly=eager)
        batches = FrameBatches(images, 4, 2, 7, landmarks=landmarks, **shared)
        held = {"validation_data": (images[:6],), "validation_batch_size": 4}
        logs = fit("codebook", trainer, batches, **held)
        network = {k: v for k, v in NETWORK.items() if k not in ("base_channels", "multipliers")}
        driver = PortraitDriver.from_preset("vpgc_tiny", **network)
        features = encode(trainer.autoencoder, images, dtype="float32")
        driver.adapt(features)
        driver.compile(optimizer(), FeatureLoss(0.5), run_eagerly=eager)
        backend.record_steps(driver)
        neighbours = context_indices(10, driver.input_shape[-1])
        pairs = {"pairs": True, "indices": np.arange(10), "scale_jitter": 0.05}
        batches = DriverBatches(heatmaps, neighbours, features, 4, 2, **pairs, **shared)
        logs |= fit("driver", driver, batches)
        # Both trainings' steps, and the encoder.
        assert recordings is None or len(recordings) >= 3, recordings
        if backend.process()[0] == 0:
            weights = [*trainer.autoencoder.weights, *trainer.discriminator.weights]
            weights = [*weights, *driver.weights]
            values = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(weights)}
            ours = {k: v for k, v in logs.items() if "seconds" not in k and "wait" not in k}
            np.savez(os.path.join(run, "end.npz"), **values, **ours)


def main(what, out, *counts):
    for count in map(int, counts):
        if what == "part":
            part(out, count)
        else:
            train_puppet(
                os.environ["PORTRAIT"],
                os.path.join(out, str(count)),
                "vpgc_tiny",
                network=NETWORK,
                recipe={**RECIPE, **WHOLE},
                devices=count,
            )


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        device = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(device, two)
    main(*sys.argv[1:])
