"""Steps of stage 1 and of the driver a second, on one device and on several.

KERAS_BACKEND=jax python benchmarks/devices.py --preset vpgc_256 --batch 8 --devices 1 2
KERAS_BACKEND=torch torchrun --nproc-per-node 2 benchmarks/devices.py --devices 2

The batch is the whole one, divided among the devices; frames are random. Stage 1 has L1 and L_VQ,
with `--losses all` also LPIPS (random weights take as long) and the discriminator.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np

from benchmarks.training import lpips_weights
from keras_vpgc import backend
from keras_vpgc.config import resolve
from keras_vpgc.data.dataset import DriverBatches, FrameBatches, context_indices
from keras_vpgc.losses import LPIPSLoss
from keras_vpgc.models import PatchDiscriminator
from keras_vpgc.training.codebook_trainer import CodebookTrainer
from keras_vpgc.training.fit_driver import FeatureLoss
from keras_vpgc.training.optimizer import adam
from keras_vpgc.training.recipes import _build_models


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch after the first."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(time.perf_counter() - self.began)


def losses(which, preset, precision):
    """Discriminator and perceptual loss of a trainer."""
    if which == "few":
        return None, None
    with tempfile.TemporaryDirectory() as folder:
        perceptual = LPIPSLoss("vgg", lpips_weights("random", folder))
    return PatchDiscriminator.from_preset(preset, dtype=precision), perceptual


def measure(preset, batch, steps, precision, which, stages, count):
    rng = np.random.default_rng(0)
    with backend.distributed(count):
        keras.utils.set_random_seed(0)
        autoencoder, driver = _build_models(resolve(preset, recipe={"precision": precision}))
        size, frames = autoencoder.input_shape[1], 4 * batch
        shared = {"shard": backend.process(), "prefetch": 2}
        images = rng.integers(0, 256, size=(frames, size, size, 3), dtype="uint8")
        trainer = CodebookTrainer(autoencoder, *losses(which, preset, precision))
        trainer.compile()
        trainer.switch_adversarial(which == "all")
        trials = [("stage 1", trainer, FrameBatches(images, batch, steps, **shared))]
        heatmaps = rng.integers(0, 256, size=(frames, size, size), dtype="uint8")
        features = rng.normal(size=(frames, *driver.output_shape[1:])).astype("float16")
        driver.compile(adam(1e-4), FeatureLoss(), jit_compile=backend.jit_by_default())
        backend.record_steps(driver)
        neighbours = context_indices(frames, driver.input_shape[-1])
        batches = DriverBatches(heatmaps, neighbours, features, batch, steps, **shared)
        trials.append(("driver", driver, batches))
        for name, model, data in trials:
            if name.replace(" ", "-") not in stages:
                continue
            clock = Clock()
            model.fit(data, epochs=4, shuffle=False, verbose=0, callbacks=[clock])
            if backend.process()[0] == 0:
                step = min(clock.times[1:]) / steps
                print(
                    f"| {keras.backend.backend()} | {preset} | {precision} | {name} | {count} "
                    f"| {batch} | {1000 * step:.1f} | {batch / step:.1f} |",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="vpgc_256")
    parser.add_argument("--batch", type=int, default=8, help="frames of all devices together")
    parser.add_argument("--steps", type=int, default=20, help="steps of each of three trials")
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--losses", default="few", choices=["few", "all"])
    parser.add_argument(
        "--stages", nargs="+", default=["stage-1", "driver"], choices=["stage-1", "driver"]
    )
    options = parser.parse_args()
    if backend.launched() in (1, options.devices[0]):
        print("| backend | preset | precision | | devices | batch | ms/step | frames/s |")
        print("|---|---|---|---|---|---|---|---|")
    for count in options.devices:
        measure(
            options.preset,
            options.batch,
            options.steps,
            options.precision,
            options.losses,
            options.stages,
            count,
        )


if __name__ == "__main__":
    main()
