"""Typed, validated configuration of a training run."""

import difflib
from typing import Any, Literal

from keras_vpgc.errors import VPGCError, missing_extra
from keras_vpgc.models import presets

try:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
except ImportError as error:
    raise missing_extra("pydantic", "cli") from error


Method = Literal["vpgc", "direct", "distill"]

# The paper's Tab. 5: what the driver knows besides its own features, by one setting.
DRIVER_VARIANTS = {
    "baseline": {"texture_prior": False, "global_context": False},
    "texture": {"texture_prior": True, "global_context": False},
    "full": {"texture_prior": True, "global_context": True},
}


class Recipe(BaseModel):
    """How a preset is trained. Every field can be overridden.

    Attributes:
        batch_size: Frames a step of stage 1.
        steps: Steps of stage 1.
        driver_steps: Steps of stage 2.
        learning_rate: Adam's rate of encoder and decoder.
        code_rate: The codes' rate, as a factor.
        discriminator_rate: The discriminator's rate, as a factor.
        driver_learning_rate: Adam's rate of the driver.
        driver_batch_size: Frames a step of stage 2.
        schedule: `"cosine"` decay over the steps, or `"constant"`.
        warmup_steps: Steps in which each stage's rates rise from 0.
        average: Keep averages of the weights, each step keeping that share of the old ones, and
            validate and end with them; `None` for none. See `AveragingAdam`.
        accumulate: Batches of one update; the steps count batches.
        l1_weight, perceptual_weight: Weights of the losses.
        perceptual: `"lpips-vgg"`, `"lpips-alex"`, `"vgg19"` (pix2pixHD's sum), or `None`.
        feature_weight: lambda of Eq. 8.
        temporal_weight: Weight of the driver's temporal term, see `FeatureLoss`.
        driver_image_steps: Steps of stage 2 after these, in which the driver also learns from the
            images, see `keras_vpgc.training.fit_driver_on_images`; at half the rate.
        driver_image_weight: Weight of the image term then.
        region_weights: How much more than others pixels of `"face"`, `"eyes"` and `"mouth"` count
            in L1 and in the image term; `None` for all alike.
        joint_steps: Steps at the very end in which driver and decoder learn from the images
            together, through the frozen codes, with the adversarial loss if there is one.
        joint_rate: The highest rate then, as a share of the driver's.
        joint_feature_weight: lambda of Eq. 8 then.
        joint_adversarial_start: When it begins then, as a share of these steps; 1 for never.
        true_share: Of a puppet that another one teaches: the share of the frames that are true ones
            in the joint steps; the others show new poses, as the teacher shows them.
        frame_jitter: Up to which part frames are enlarged, turned and shifted at random in stage 1,
            see `FrameBatches`.
        joint_jitter: The same in the joint steps, and for a direct mapping: half of the frames are
            moved, their landmarks with them: the head is, before the rest of the frame, see
            `keras_vpgc.data.person.before_backdrop`. That needs MediaPipe's segmenter; where it
            finds no person, whole frames are moved and heads alone judged. A puppet that another
            one teaches sees other new poses instead.
        scale_jitter: Up to which part the drawn contours are enlarged or shrunk at random.
        rare_frames: How much more often closed eyes, open mouths and rare poses are seen: 0 for
            all frames alike, see `keras_vpgc.data.sampling`.
        adversarial: `"hinge"`, `"lsgan"`, or `None` for none.
        adversarial_weight, adaptive, feature_matching_weight, adaptive_matching, gradient_penalty:
            See `CodebookTrainer`.
        adversarial_start: Step at which it begins; `None` for half of the steps.
        precision: Keras dtype policy of the training, or `"auto"`: mixed_bfloat16 where the device
            is quick in it (NVIDIA GPUs since Ampere, TPUs), else float32; a run goes on with what
            it began with. The puppet is float32 anyway.
        context_mode: `"centered"` or `"causal"` neighbours for the driver.
        time_limit: Seconds after which a stage stops early, or `None`.
        patience: Validations without a better one after which a stage stops, or `None`.
        keep: `"last"` or `"best"` (by validation): the weights that a stage ends with.
        checkpoint_seconds: How often a checkpoint may be saved, at the end of an epoch.
        previews: Write pictures of validation frames while it trains?
        codebook_pictures: Write pictures of the codebook's use too (stage 1), and its perplexity
            into the logs? See `keras_vpgc.training.CodebookPictures`.
        tensorboard: Write event files for TensorBoard, where tensorboardX is installed?
        wandb: Project at Weights & Biases, or `None`.
    """

    model_config = ConfigDict(extra="forbid")

    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    driver_steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    code_rate: float = Field(gt=0)
    discriminator_rate: float = Field(gt=0)
    driver_learning_rate: float = Field(gt=0)
    driver_batch_size: int = Field(ge=1)
    schedule: Literal["cosine", "constant"]
    warmup_steps: int = Field(ge=0)
    average: float | None = Field(gt=0, lt=1)
    accumulate: int = Field(ge=1)
    l1_weight: float = Field(ge=0)
    perceptual: Literal["lpips-vgg", "lpips-alex", "vgg19"] | None
    perceptual_weight: float = Field(ge=0)
    feature_weight: float = Field(gt=0)
    temporal_weight: float = Field(ge=0)
    driver_image_steps: int = Field(ge=0)
    driver_image_weight: float = Field(gt=0)
    joint_steps: int = Field(ge=0)
    joint_rate: float = Field(default=0.5, gt=0)
    joint_feature_weight: float = Field(default=0.0, ge=0)
    joint_adversarial_start: float = Field(default=0.5, ge=0, le=1)
    true_share: float = Field(default=0.5, ge=0, le=1)
    region_weights: dict[Literal["face", "eyes", "mouth"], float] | None
    frame_jitter: float = Field(default=0.0, ge=0, lt=1)
    joint_jitter: float = Field(default=0.0, ge=0, lt=1)
    scale_jitter: float = Field(ge=0, lt=1)
    rare_frames: float = Field(ge=0)
    adversarial: Literal["hinge", "lsgan"] | None
    adversarial_weight: float = Field(ge=0)
    adaptive: bool
    feature_matching_weight: float = Field(ge=0)
    adaptive_matching: bool = True
    gradient_penalty: float = Field(default=0.0, ge=0)
    adversarial_start: int | None = Field(ge=0)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    context_mode: Literal["centered", "causal"] = "centered"
    time_limit: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)
    keep: Literal["last", "best"] = "last"
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    previews: bool = True
    codebook_pictures: bool = False
    tensorboard: bool = True
    wandb: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value, info):
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("It is neither true nor false")
        return value

    @field_validator("joint_jitter")
    @classmethod
    def _no_features_of_moved_frames(cls, value, info):
        if value and info.data.get("joint_feature_weight"):
            raise ValueError(
                "Features of moved frames are not known: set this or joint_feature_weight to 0"
            )
        return value


class TrainConfig(BaseModel):
    """One training run: the preset and what differs from it.

    Attributes:
        preset: Name of a preset.
        method: `"vpgc"`; the baseline `"direct"`, see `keras_vpgc.models.DirectMapping`; or
            `"distill"`, see `keras_vpgc.training.recipes.distill_puppet`.
        teacher: SHA-256 of the puppet that taught this one, or `None`.
        network: Arguments of the model classes.
        recipe: The resolved `Recipe`.
        seed: Seed of weights and data order.
    """

    model_config = ConfigDict(extra="forbid")

    preset: str
    method: Method = "vpgc"
    teacher: str | None = None
    network: dict[str, Any]
    recipe: Recipe
    seed: int = 0


def resolve(
    preset: str,
    network: dict | None = None,
    recipe: dict | None = None,
    seed: int = 0,
    method: Method = "vpgc",
    teacher: str | None = None,
) -> TrainConfig:
    """A preset with overrides, checked.

    Args:
        preset: Name of a preset.
        network: Overrides of the model classes' arguments; `driver_variant` stands for the two
            that the paper's Tab. 5 compares: `"baseline"`, `"texture"` (with the texture prior) or
            `"full"` (with the global context too).
        recipe: Overrides of the recipe.
        seed: Seed of weights and data order.
        method, teacher: See `TrainConfig`.

    Returns:
        A complete `TrainConfig`.

    Raises:
        VPGCError: for an unknown preset or key (the nearest known one is named) or a value out of
            range.

    Example:

    ```python
    resolve("vpgc_128", recipe={"steps": 500}).recipe.learning_rate  # 0.001
    ```
    """
    import inspect

    from keras_vpgc.models import PortraitAutoencoder, PortraitReenactor
    from keras_vpgc.models.autoencoder import TRAINING_ARGUMENTS

    settings = presets.get(preset)
    if (method == "distill") != (teacher is not None):
        raise VPGCError("Only a run can teach: distil a puppet by vpgc distill or distill_puppet.")
    network = expand_variant(network or {})
    parameters = {
        **inspect.signature(PortraitAutoencoder.__init__).parameters,
        **inspect.signature(PortraitReenactor.__init__).parameters,
    }
    known = set(inspect.signature(PortraitReenactor.__init__).parameters) - {"self", "metadata"}
    known |= {*TRAINING_ARGUMENTS, "driver_variant"}
    fields = set(Recipe.model_fields)
    for given, allowed, what in ((network, known, "network"), (recipe, fields, "recipe")):
        for key in given or {}:
            if key in allowed:
                continue
            if key in known | fields:
                own = "recipe" if key in fields else "network"
                raise VPGCError(f"{key} is a setting of the {own}, not of the {what}: move it.")
            hint = nearest(key, known | fields, "see config.py.")
            raise VPGCError(f"There is no {what} setting {key!r}: {hint}")
    for key, value in network.items():
        default = parameters[key].default if key in parameters else None
        if value is not None or default is not None:
            _check_type(key, value, settings["network"].get(key, default))
    try:
        return TrainConfig(
            preset=preset,
            method=method,
            teacher=teacher,
            network={**settings["network"], **network},
            recipe=Recipe(**{**settings["recipe"], **(recipe or {})}),
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"])
        reason = first["msg"].removeprefix("Value error, ").lower()
        raise VPGCError(f"The setting {place} cannot be {first['input']!r}: {reason}.") from None


def nearest(key: str, known, otherwise: str) -> str:
    """What a misspelt key may have meant, for the end of a sentence.

    Args:
        key: The key given.
        known: All keys that there are.
        otherwise: What to say where none is near.

    Returns:
        A question, or `otherwise`.

    Example:

    ```python
    nearest("step", ["steps", "seed"], "see the list.")  # "did you mean 'steps'?"
    ```
    """
    near = difflib.get_close_matches(key, known, 1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def _check_type(key, value, default):
    """Refuse a value of another kind than the default's, where that has one."""
    kinds = {
        bool: ("true or false", lambda x: isinstance(x, bool)),
        int: ("a whole number", lambda x: isinstance(x, int) and not isinstance(x, bool)),
        float: ("a number", lambda x: isinstance(x, (int, float)) and not isinstance(x, bool)),
        str: ("a word", lambda x: isinstance(x, str)),
        tuple: (
            "a list of whole numbers, such as [1, 2]",
            lambda x: isinstance(x, (tuple, list)) and all(isinstance(i, int) for i in x),
        ),
    }
    name, fits = kinds.get(tuple if isinstance(default, list) else type(default), ("", None))
    if fits is not None and not fits(value):
        raise VPGCError(f"The setting {key} cannot be {value!r}: give {name}.")


def expand_variant(network: dict) -> dict:
    """Settings of a network with what `driver_variant` stands for in its place.

    Args:
        network: Arguments of the model classes, perhaps with `driver_variant`.

    Returns:
        The same, or a new dict without it.

    Raises:
        VPGCError: for an unknown variant, or one beside what it stands for.

    Example:

    ```python
    expand_variant({"driver_variant": "full"})  # {"texture_prior": True, "global_context": True}
    ```
    """
    if "driver_variant" not in network:
        return network
    rest = {k: v for k, v in network.items() if k != "driver_variant"}
    variant = network["driver_variant"]
    if not isinstance(variant, str) or variant not in DRIVER_VARIANTS:
        raise VPGCError(
            f"There is no driver variant {variant!r}: choose one of {', '.join(DRIVER_VARIANTS)}."
        )
    twice = set(rest) & set(DRIVER_VARIANTS[variant])
    if twice:
        raise VPGCError(
            f"driver_variant={variant} already says {' and '.join(sorted(twice))}: leave one out."
        )
    return {**rest, **DRIVER_VARIANTS[variant]}
