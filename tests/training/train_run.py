"""Trains tiny runs with all of stage 1 on, or all of both stages.

`python -m tests.training.train_run stage-1|both PORTRAIT RUN [RUN ...]`. `test_resume` kills it.
"""

import sys

import keras

from keras_vpgc.training.recipes import train_puppet

NETWORK = {
    "image_size": 32,
    "base_channels": 8,
    "driver_base_channels": 8,
    "multipliers": (1, 2),
    "driver_multipliers": (1, 2),
    "latent_dim": 16,
    "codes_per_cell": 8,
    "transformer_blocks": 1,
    "transformer_mlp_units": 32,
}
RECIPE = {
    "steps": 40,
    "driver_steps": 20,
    "driver_image_steps": 0,
    "average": 0.95,
    "warmup_steps": 5,
    "accumulate": 2,
    "adversarial": "hinge",
    # In the midst of an epoch.
    "adversarial_start": 27,
    "feature_matching_weight": 1.0,
    "rare_frames": 0.5,
    "temporal_weight": 0.5,
    "scale_jitter": 0.05,
    "checkpoint_seconds": 0,
    "previews": False,
    "tensorboard": False,
}
BOTH = {"driver_steps": 60, "driver_image_steps": 40, "joint_steps": 40}


def main(what, portrait, runs):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    augmentation = keras.layers.RandomBrightness(0.1, value_range=(0, 255), seed=1)
    recipe = {**RECIPE, **(BOTH if what == "both" else {})}
    for run in runs:
        train_puppet(
            portrait, run, "vpgc_tiny", network=NETWORK, recipe=recipe, augmentation=augmentation
        )


if __name__ == "__main__":
    main(*sys.argv[1:3], sys.argv[3:])
