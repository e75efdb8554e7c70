"""Both stages in one call: from a portrait folder to a puppet."""

import datetime
import inspect
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

from keras_vpgc.config import Recipe, TrainConfig, resolve
from keras_vpgc.data import landmark_sets
from keras_vpgc.data.coverage import seen_range
from keras_vpgc.data.crop import Crop, from_crop
from keras_vpgc.data.dataset import FrameBatches, check_batch, context_indices
from keras_vpgc.data.portrait import Portrait, fill
from keras_vpgc.data.retarget import fit_head, neutral_pose
from keras_vpgc.errors import VPGCError
from keras_vpgc.models import (
    PatchDiscriminator,
    PortraitAutoencoder,
    PortraitDriver,
    PortraitReenactor,
)
from keras_vpgc.training.callbacks import TimeLimit
from keras_vpgc.training.codebook_trainer import CodebookTrainer
from keras_vpgc.training.fit_driver import draw, encode, fit_driver, fit_driver_on_images
from keras_vpgc.version import PUPPET_SCHEMA_VERSION, __version__

RUN_SCHEMA_VERSION = 1
VALIDATION_FRAMES = 32


def read_run(run) -> dict:
    """The settings of a run folder.

    Args:
        run: The folder.

    Returns:
        The content of `run.json`.

    Raises:
        VPGCError: if it is no run folder or of another schema version.
    """
    file = Path(run) / "run.json"
    if not file.is_file():
        raise VPGCError(
            f"{run} is no run folder (there is no run.json): make one by vpgc train PORTRAIT -o "
            f"{run}."
        )
    try:
        info = json.loads(file.read_text())
        version = info["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise VPGCError(f"{file} is damaged: train again into a new folder.") from None
    if version != RUN_SCHEMA_VERSION:
        raise VPGCError(
            f"{run} has schema version {version} but this keras_vpgc reads {RUN_SCHEMA_VERSION}: "
            "train again, or install the matching version."
        )
    return info


def train_puppet(
    portrait,
    run,
    preset: str = "vpgc_256",
    *,
    network: dict | None = None,
    recipe: dict | None = None,
    seed: int = 0,
    augmentation=None,
    perceptual=None,
    verbose="auto",
):
    """Train both stages and save the puppet.

    A stage whose model is already in the run folder is not trained again, so a stopped run goes
    on with the next stage.

    Args:
        portrait: A `Portrait` or the path of its folder.
        run: The run folder; gets `run.json`, `autoencoder.keras`, `driver.keras`, `puppet.keras`
            and `logs/`.
        preset: Name of a preset.
        network: Overrides of the model classes' arguments.
        recipe: Overrides of the recipe, see `keras_vpgc.config.Recipe`.
        seed: Seed of weights and data order.
        augmentation: See `FrameBatches` (stage 1).
        perceptual: See `CodebookTrainer`; default none.
        verbose: As in `fit`; "auto": a bar in a terminal, a line an epoch elsewhere.

    Returns:
        The `PortraitReenactor`, as saved.

    Raises:
        VPGCError: for settings that do not fit, or a run folder of another portrait or settings.

    Example:

    ```python
    train_puppet("data/me", "runs/me", preset="vpgc_128")
    ```
    """
    if not isinstance(portrait, Portrait):
        portrait = Portrait(portrait)
    run = Path(run)
    config = resolve(preset, network, recipe, seed)
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    # What does not fit shows here, before anything is written.
    keras.utils.set_random_seed(seed)
    autoencoder, driver = _build_models(config)
    _join(autoencoder, driver, config)
    context_indices(1, driver.input_shape[-1], config.recipe.context_mode)
    for size in (config.recipe.batch_size, config.recipe.driver_batch_size):
        check_batch(size, len(portrait.indices("train")))
    _start_run(run, config, portrait)

    puppet_file = run / "puppet.keras"
    if puppet_file.exists():
        return keras.saving.load_model(puppet_file, compile=False)
    # Before the training, so that what is missing shows at once.
    metadata = puppet_metadata(portrait, config)
    train, validation = (portrait.indices(part) for part in ("train", "validation"))
    validation = validation[np.linspace(0, len(validation) - 1, VALIDATION_FRAMES).astype(int)]
    size = config.network["image_size"]
    images = portrait.frames(train, size)
    validation_images = portrait.frames(validation, size)

    file = run / "autoencoder.keras"
    if file.exists():
        autoencoder = keras.saving.load_model(file, compile=False)
    else:
        _fit_codebook(
            autoencoder,
            images,
            portrait.landmarks[train],
            validation_images,
            config,
            run,
            augmentation,
            perceptual,
            verbose,
        )
        _save(autoencoder, file)

    file = run / "driver.keras"
    if file.exists():
        driver = keras.saving.load_model(file, compile=False)
    else:
        _fit_stage_2(
            autoencoder,
            driver,
            portrait,
            (images, train),
            (validation_images, validation),
            config,
            run,
            verbose,
        )
        _save(driver, file)

    reenactor = _join(autoencoder, driver, config, metadata)
    _save(reenactor, puppet_file)
    return reenactor


def _start_run(run, config, portrait):
    wanted = config.model_dump(mode="json")
    identity = {k: portrait.info[k] for k in ("source_sha256", "crop", "size", "split")}
    if run.exists() and not run.is_dir():
        raise VPGCError(f"{run} is a file: give a folder for the run.")
    if run.is_dir() and any(run.iterdir()):
        info = read_run(run)
        if info["config"] != wanted or info["portrait_identity"] != identity:
            raise VPGCError(
                f"{run} holds a run of another portrait or with other settings: choose another "
                "folder for the run."
            )
        return
    run.mkdir(parents=True, exist_ok=True)
    partial = run / ".run.json"
    partial.write_text(
        json.dumps(
            {
                "schema_version": RUN_SCHEMA_VERSION,
                "keras_vpgc": __version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "began": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                "portrait": str(portrait.path.resolve()),
                "portrait_identity": identity,
                "config": wanted,
            },
            indent=1,
        )
    )
    os.replace(partial, run / "run.json")


def _build_models(config: TrainConfig):
    network = {**config.network, "dtype": config.recipe.precision}
    if network.get("codebook", "grid") == "vanilla":
        network["texture_prior"] = False
    models = []
    for cls in (PortraitAutoencoder, PortraitDriver):
        accepted = inspect.signature(cls.__init__).parameters
        models.append(cls(**{k: v for k, v in network.items() if k in accepted}))
    return models


def _join(autoencoder, driver, config, metadata=None):
    return PortraitReenactor.from_models(
        autoencoder,
        driver,
        line_width=config.network.get("line_width"),
        landmark_set=_landmark_set(config),
        output=config.network.get("output", "float"),
        metadata=metadata,
    )


def _landmark_set(config):
    return config.network.get("landmark_set", "ibug-68")


def _save(model, file):
    # The name decides the format, so the temporary one ends in .keras too.
    partial = file.with_name(f".partial.{file.name}")
    model.save(partial)
    os.replace(partial, file)


def _rate(rate: float, steps: int, recipe: Recipe):
    if recipe.schedule == "constant":
        return rate
    return keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.02)


def _callbacks(run, name, recipe):
    (run / "logs").mkdir(exist_ok=True)
    callbacks = [keras.callbacks.CSVLogger(str(run / "logs" / f"{name}.csv"))]
    if recipe.time_limit:
        callbacks.append(TimeLimit(recipe.time_limit))
    return callbacks


def _fit_codebook(
    autoencoder,
    images,
    landmarks,
    validation_images,
    config,
    run,
    augmentation,
    perceptual,
    verbose,
):
    recipe = config.recipe
    discriminator = None
    if recipe.adversarial:
        discriminator = PatchDiscriminator(config.network["image_size"], dtype=recipe.precision)
    start = recipe.adversarial_start
    trainer = CodebookTrainer(
        autoencoder,
        discriminator,
        perceptual,
        recipe.l1_weight,
        recipe.perceptual_weight,
        recipe.adversarial or "hinge",
        recipe.adversarial_weight,
        recipe.steps // 2 if start is None else start,
    )
    trainer.compile(
        learning_rate=_rate(recipe.learning_rate, recipe.steps, recipe),
        code_rate=recipe.code_rate,
        discriminator_rate=recipe.discriminator_rate,
    )
    epoch = _epoch(recipe.steps)
    batches = FrameBatches(
        images,
        recipe.batch_size,
        epoch,
        config.seed,
        augmentation,
        landmarks=landmarks if recipe.region_weights else None,
        region_weights=recipe.region_weights,
    )
    if verbose:
        print(f"Stage 1, the codebook: {recipe.steps} steps of {recipe.batch_size} frames.")
    trainer.fit(
        batches,
        validation_data=(validation_images,),
        validation_batch_size=recipe.batch_size,
        epochs=-(-recipe.steps // epoch),
        callbacks=_callbacks(run, "codebook", recipe),
        verbose=verbose,
    )


def _fit_stage_2(autoencoder, driver, portrait, training, validation, config, run, verbose):
    recipe = config.recipe
    if driver.codebook is not None:
        driver.codebook.set_weights(autoencoder.codebook.get_weights())
    (images, train), (validation_images, validation_indices) = training, validation
    if verbose:
        print(f"Stage 2, the driver: {recipe.driver_steps} steps of {recipe.driver_batch_size}.")
    points = fill(portrait.points, portrait.valid)
    landmarks = landmark_sets.landmarks(points, _landmark_set(config))
    features = encode(autoencoder, images)
    line_width = config.network.get("line_width")
    shared = {
        "heatmaps": draw(landmarks, driver.image_size, line_width, contours=_landmark_set(config)),
        "mode": recipe.context_mode,
        "line_width": line_width,
        "landmark_set": _landmark_set(config),
        "batch_size": recipe.driver_batch_size,
        "feature_weight": recipe.feature_weight,
        "scale_jitter": recipe.scale_jitter,
        "seed": config.seed,
        "verbose": verbose,
    }
    fit_driver(
        driver,
        landmarks,
        features,
        train,
        (encode(autoencoder, validation_images), validation_indices),
        steps=recipe.driver_steps,
        learning_rate=_rate(recipe.driver_learning_rate, recipe.driver_steps, recipe),
        steps_per_epoch=_epoch(recipe.driver_steps),
        callbacks=_callbacks(run, "driver", recipe),
        **shared,
    )
    if not recipe.driver_image_steps:
        return
    if verbose:
        print(f"Stage 2, on images: {recipe.driver_image_steps} steps.")
    fit_driver_on_images(
        driver,
        autoencoder,
        landmarks,
        images,
        features,
        train,
        steps=recipe.driver_image_steps,
        learning_rate=_rate(recipe.driver_learning_rate / 2, recipe.driver_image_steps, recipe),
        image_weight=recipe.driver_image_weight,
        region_weights=recipe.region_weights or {},
        steps_per_epoch=_epoch(recipe.driver_image_steps),
        callbacks=_callbacks(run, "driver_on_images", recipe),
        **shared,
    )


def _epoch(steps):
    """Steps between two validations: ten in a run, at least 20 steps and at most 500 apart."""
    return min(steps, max(20, min(500, steps // 10)))


def puppet_metadata(portrait: Portrait, config: TrainConfig) -> dict:
    """What travels with a puppet: see `keras_vpgc.reenactment.Puppet`.

    Args:
        portrait: The `Portrait` trained on.
        config: The resolved configuration.

    Returns:
        JSON-able dict.
    """
    train = portrait.indices("train")
    points = from_crop(portrait.points[train], Crop(**portrait.info["crop"]))
    head = fit_head(points, *portrait.info["source_size"])
    return {
        "schema_version": PUPPET_SCHEMA_VERSION,
        "keras_vpgc": __version__,
        "preset": config.preset,
        "source": portrait.info["source"],
        "source_sha256": portrait.info["source_sha256"],
        "crop": portrait.info["crop"],
        "frame_rate": portrait.frame_rate,
        "size": config.network["image_size"],
        "context_mode": config.recipe.context_mode,
        "tracker": portrait.info["tracker"],
        "landmark_set": _landmark_set(config),
        # Centimetres in head coordinates, the pose's camera is the source's: see data/retarget.py.
        "shape": np.round(head.shape, 5).tolist(),
        "pose": neutral_pose(head),
        "seen": seen_range(head),
    }
