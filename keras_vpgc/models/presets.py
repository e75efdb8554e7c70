"""Named settings: the network and the recipe that trains it.

`network` holds the arguments of the model classes, `recipe` those of the training
(`keras_vpgc.training.recipes`). Sizes follow VPGC's Sec. 4 and, where it is silent, the public
code of its authors (`docs/results.md` tells what was measured).
"""

import copy

from keras_vpgc.errors import VPGCError

# The codes start as N(0, s) and the softmax has the temperature s^2: near the identity at any
# scale, and s near the spread that the encoder gives the features anyway.
_TUNED = {"code_scale": 0.3, "temperature": 0.09, "vq_scale": 0.25}

# What the puppet beside its baselines was trained by, see `docs/results.md`: most of stage 2 sees
# images, at the highest rate. Frames are moved in both stages: else a clip of some hundred frames
# is learnt by heart, and a head that was not recorded at a place is shown pixels away from it.
# The latter needs MediaPipe's segmenter.
_ON_IMAGES = {
    "learning_rate": 4e-4,
    "driver_learning_rate": 5e-4,
    "driver_batch_size": 4,
    "joint_rate": 1.0,
    "warmup_steps": 100,
    "average": 0.995,
    "rare_frames": 0.5,
    "adversarial_weight": 0.1,
    "feature_matching_weight": 10.0,
    "frame_jitter": 0.1,
    "joint_jitter": 0.1,
}

PRESETS: dict[str, dict] = {
    "paper_512": {
        "description": "The paper's letter at 512x512.",
        "network": {
            "image_size": 512,
            "base_channels": 64,
            "driver_base_channels": 64,
            "multipliers": (1, 1, 2, 2, 4, 8),
            "driver_multipliers": (1, 1, 2, 2, 4, 4),
            "latent_dim": 256,
            "codes_per_cell": 256,
            "code_scale": 1.0,
            "temperature": 1.0,
            "vq_scale": 1.0,
        },
        "recipe": {
            "learning_rate": 5e-5,
            "code_rate": 1.0,
            "driver_learning_rate": 5e-5,
            "schedule": "constant",
            "batch_size": 4,
            "steps": 11_000,
            "driver_steps": 11_000,
            "adversarial_start": 10_000,
            "region_weights": None,
        },
    },
    "vpgc_512": {
        "description": "512x512, the tuned recipe.",
        "network": {
            "image_size": 512,
            "base_channels": 64,
            "driver_base_channels": 64,
            "multipliers": (1, 1, 2, 2, 4, 8),
            "driver_multipliers": (1, 1, 2, 2, 4, 4),
            "latent_dim": 256,
            "codes_per_cell": 256,
            **_TUNED,
        },
        "recipe": {**_ON_IMAGES, "steps": 12_000, "driver_steps": 500, "joint_steps": 4_000},
    },
    "vpgc_512_lite": {
        "description": "512x512 in real time on two CPU cores.",
        "network": {
            "image_size": 512,
            "heatmap_size": 64,
            "context": 3,
            "base_channels": 48,
            "multipliers": (1, 2, 4, 4),
            "stride": 4,
            "driver_base_channels": 32,
            "driver_multipliers": (1, 2, 4),
            "driver_stride": 1,
            "num_blocks": 2,
            "block": "separable",
            "shortcuts": True,
            "latent_dim": 128,
            "codes_per_cell": 32,
            "window_size": 3,
            "norm_groups": 8,
            "transformer_mlp_units": 256,
            **_TUNED,
        },
        # Large steps, as for other small networks; twice as large ones diverge.
        "recipe": {
            **_ON_IMAGES,
            "steps": 10_000,
            "driver_steps": 1_500,
            "joint_steps": 8_500,
            "learning_rate": 1e-3,
            "driver_learning_rate": 1e-3,
            "joint_rate": 0.5,
            "context_mode": "causal",
        },
    },
    "vpgc_256": {
        "description": "256x256, for smaller footage.",
        "network": {
            "image_size": 256,
            "base_channels": 64,
            "driver_base_channels": 64,
            "multipliers": (1, 1, 2, 2, 4),
            "driver_multipliers": (1, 1, 2, 2, 4),
            "latent_dim": 256,
            "codes_per_cell": 256,
            **_TUNED,
        },
        "recipe": {**_ON_IMAGES, "steps": 5_000, "driver_steps": 500, "joint_steps": 6_000},
    },
    "vpgc_128": {
        "description": "128x128, for experiments on a CPU.",
        "network": {
            "image_size": 128,
            "base_channels": 32,
            "driver_base_channels": 16,
            "num_blocks": 1,
            "multipliers": (1, 2, 2, 4),
            "driver_multipliers": (2, 2, 4),
            "driver_stride": 2,
            "shortcuts": True,
            "latent_dim": 128,
            "codes_per_cell": 64,
            "norm_groups": 8,
            **_TUNED,
        },
        # Half an hour on two CPU cores; more steps go on improving it.
        "recipe": {
            "batch_size": 2,
            "steps": 900,
            "driver_batch_size": 4,
            "driver_steps": 3000,
            "driver_image_steps": 700,
            "learning_rate": 1e-3,
            "driver_learning_rate": 2e-3,
            "adversarial": None,
            "perceptual": None,
        },
    },
    "vpgc_tiny": {
        "description": "64x64, for tests and a first try.",
        "network": {
            "image_size": 64,
            "base_channels": 16,
            "driver_base_channels": 16,
            "num_blocks": 1,
            "multipliers": (1, 2, 2),
            "driver_multipliers": (1, 2, 2),
            "shortcuts": True,
            "latent_dim": 32,
            "codes_per_cell": 16,
            "norm_groups": 4,
            "transformer_mlp_units": 128,
            **_TUNED,
        },
        "recipe": {
            "batch_size": 2,
            "steps": 360,
            "driver_batch_size": 4,
            "driver_steps": 360,
            "driver_image_steps": 120,
            "learning_rate": 2e-3,
            "driver_learning_rate": 1e-3,
            "adversarial": None,
            "perceptual": None,
        },
    },
}

RECIPE_DEFAULTS = {
    "batch_size": 4,
    "steps": 10_000,
    "driver_steps": 10_000,
    "learning_rate": 2e-4,
    "code_rate": 10.0,
    "discriminator_rate": 1.0,
    "driver_learning_rate": 2e-4,
    "driver_batch_size": 8,
    "schedule": "cosine",
    "warmup_steps": 0,
    "average": None,
    "accumulate": 1,
    "l1_weight": 1.0,
    "perceptual": "lpips-vgg",
    "perceptual_weight": 1.0,
    "feature_weight": 10.0,
    "temporal_weight": 0.0,
    "driver_image_steps": 0,
    "driver_image_weight": 30.0,
    "joint_steps": 0,
    "region_weights": {"face": 2.0, "eyes": 6.0, "mouth": 6.0},
    "scale_jitter": 0.0,
    "rare_frames": 0.0,
    "adversarial": "hinge",
    "adversarial_weight": 0.8,
    "adaptive": True,
    "feature_matching_weight": 0.0,
    "adversarial_start": None,
}


def names() -> list[str]:
    """The names of all presets, the largest first."""
    return list(PRESETS)


def get(name: str) -> dict:
    """A preset's settings.

    Args:
        name: A name out of `names()`.

    Returns:
        A new dict with `name`, `description`, `network` and `recipe` (complete, with defaults).

    Raises:
        VPGCError: for an unknown name.

    Example:

    ```python
    get("vpgc_tiny")["network"]["image_size"]  # 64
    ```
    """
    if name not in PRESETS:
        raise VPGCError(f"There is no preset {name!r}: choose one of {', '.join(PRESETS)}.")
    preset = copy.deepcopy(PRESETS[name])
    return {"name": name, **preset, "recipe": {**RECIPE_DEFAULTS, **preset["recipe"]}}


def arguments(name: str, accepted, overrides: dict) -> dict:
    """The constructor arguments of one model class out of a preset.

    Args:
        name: Name of the preset.
        accepted: Argument names of the class; the preset's other settings are for other classes.
        overrides: The caller's arguments; they win.

    Returns:
        A dict of arguments.
    """
    network = get(name)["network"]
    return {**{key: value for key, value in network.items() if key in accepted}, **overrides}
