"""Trains tiny models with everything on: `python -m tests.training.train_run WHAT RUN ...`.

WHAT is `stage`: stage 1 alone; `both`: a whole run of `train_puppet` on the portrait whose folder
is in the environment variable PORTRAIT; or `distill`: a run taught by that in the environment
variable TEACHER. `test_resume` kills it.
"""

import os
import sys

import keras
import numpy as np

from keras_vpgc.data.dataset import FrameBatches
from keras_vpgc.models import PatchDiscriminator, PortraitAutoencoder
from keras_vpgc.training import CodebookTrainer, Stage, schedule
from keras_vpgc.training.recipes import distill_puppet, train_puppet
from tests.training.test_distill import LIGHT

AUTOENCODER = {
    "image_size": 32,
    "base_channels": 8,
    "multipliers": (1, 2),
    "latent_dim": 16,
    "codes_per_cell": 8,
}
NETWORK = {
    **AUTOENCODER,
    "driver_base_channels": 8,
    "driver_multipliers": (1, 2),
    "transformer_blocks": 1,
    "transformer_mlp_units": 32,
}
RECIPE = {
    "steps": 60,
    "driver_steps": 60,
    "driver_image_steps": 40,
    "joint_steps": 40,
    "average": 0.95,
    "warmup_steps": 5,
    "accumulate": 2,
    "adversarial": "hinge",
    # In the midst of an epoch.
    "adversarial_start": 27,
    "feature_matching_weight": 1.0,
    "rare_frames": 0.5,
    "temporal_weight": 0.5,
    "frame_jitter": 0.1,
    "joint_jitter": 0.1,
    "scale_jitter": 0.05,
    "checkpoint_seconds": 0,
    "previews": False,
    "tensorboard": False,
}

LESSON = {
    "steps": 2,
    "driver_steps": 2,
    "driver_image_steps": 0,
    "joint_steps": 60,
    "average": 0.95,
    "context_mode": "causal",
    "checkpoint_seconds": 0,
    "previews": False,
    "tensorboard": False,
}


def train_stage(run, augmentation):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(20, 32, 32, 3), dtype="uint8")
    batches = FrameBatches(
        images, 2, 3, 7, augmentation, sampling=rng.uniform(0.5, 2.0, 20), prefetch=1
    )
    trainer = CodebookTrainer(
        PortraitAutoencoder.from_preset("vpgc_tiny", **AUTOENCODER),
        PatchDiscriminator(32, discriminator_channels=4, feature_maps=True),
        feature_matching_weight=1.0,
    )
    trainer.compile(
        learning_rate=schedule(1e-3, 15, warmup_steps=4),
        average=0.9,
        accumulate=2,
        # TensorFlow takes far longer to trace a step than to run it.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    stage = Stage(run, "codebook", "Stage 1", 15, steps_per_epoch=3, checkpoint_seconds=0)
    stage.fit(trainer, batches)
    values = [keras.ops.convert_to_numpy(v) for v in trainer.autoencoder.weights]
    np.savez(os.path.join(run, "end.npz"), *values)


def main(what, runs):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    augmentation = keras.layers.RandomBrightness(0.1, value_range=(0, 255), seed=1)
    for run in runs:
        if what == "stage":
            train_stage(run, augmentation)
        elif what == "distill":
            distill_puppet(os.environ["TEACHER"], run, "vpgc_tiny", network=LIGHT, recipe=LESSON)
        else:
            train_puppet(
                os.environ["PORTRAIT"],
                run,
                "vpgc_tiny",
                network=NETWORK,
                recipe=RECIPE,
                augmentation=augmentation,
            )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
