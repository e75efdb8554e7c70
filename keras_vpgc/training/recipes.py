"""Both stages in one call: from a portrait folder to a puppet."""

import contextlib
import datetime
import errno
import importlib.util
import inspect
import json
import os
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.assets import sha256
from keras_vpgc.config import Method, TrainConfig, resolve
from keras_vpgc.data import landmark_sets
from keras_vpgc.data.coverage import seen_range, training_warnings
from keras_vpgc.data.crop import Crop, from_crop
from keras_vpgc.data.dataset import (
    FrameBatches,
    LandmarkBatches,
    TeacherBatches,
    check_batch,
    context_indices,
    stack_context,
)
from keras_vpgc.data.person import find_backdrop, find_people, trust_faces
from keras_vpgc.data.portrait import Portrait, fill
from keras_vpgc.data.retarget import fit_head, neutral_pose
from keras_vpgc.data.sampling import rare_frame_weights
from keras_vpgc.data.seen_poses import SeenPoses
from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.experiment import NAME as SETTINGS
from keras_vpgc.experiment import write_experiment
from keras_vpgc.losses import LPIPSLoss, vgg19_perceptual
from keras_vpgc.models import (
    DirectMapping,
    PatchDiscriminator,
    PortraitAutoencoder,
    PortraitDriver,
    PortraitReenactor,
)
from keras_vpgc.progress import progress_bar
from keras_vpgc.training.codebook_pictures import CodebookPictures
from keras_vpgc.training.codebook_trainer import CodebookTrainer
from keras_vpgc.training.devices import check_division, resolve_devices, train_in_processes
from keras_vpgc.training.direct_trainer import DirectTrainer
from keras_vpgc.training.fit_driver import draw, encode, fit_driver, fit_driver_on_images
from keras_vpgc.training.model_card import NAME as MODEL_CARD
from keras_vpgc.training.model_card import write_model_card
from keras_vpgc.training.optimizer import adam, schedule
from keras_vpgc.training.stage import Stage
from keras_vpgc.training.teacher import Teacher, fit_to_teacher
from keras_vpgc.version import PUPPET_SCHEMA_VERSION, __version__
from keras_vpgc.visualization.sheets import contact_sheet

RUN_SCHEMA_VERSION = 1
PARTIAL_RUN = ".run.json"
# The masks of the person, in a run folder until the run is done.
PEOPLE = "people.npz"
VALIDATION_FRAMES = 32
# Features for each code of which k-means makes the codes.
START_FEATURES = 16
# Share of the frames in which the segmenter must find the face, or it is not asked.
FACES_FOUND = 0.9
# Frames that are driven at once to be looked at.
DRIVEN_AT_ONCE = 8
# Batches made ahead.
PREFETCH = 2
# Those that a run may go on with in another way.
STAGE_FREE_SETTINGS = ("time_limit", "checkpoint_seconds", "previews", "tensorboard", "wandb")
FREE_SETTINGS = (*STAGE_FREE_SETTINGS, "codebook_pictures")
STAGE_SETTINGS = ("patience", "keep", *STAGE_FREE_SETTINGS)


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
            f"{run} is no run folder (there is no run.json): give the folder that vpgc train made."
        )
    try:
        info = json.loads(file.read_text())
        version = info["schema_version"]
        if version == RUN_SCHEMA_VERSION:
            for key in ("portrait", "portrait_identity", "config"):
                info[key]
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
    devices: int = 1,
    method: Method = "vpgc",
    verbose="auto",
):
    """Train both stages and save the puppet.

    A run that was stopped or killed at any moment goes on by the same call, from its last
    checkpoint; its end is that of a run that was never stopped. Before a run begins, it warns of
    what the portrait's coverage report shows to be missing: closed eyes, or poses.

    Args:
        portrait: A `Portrait` or the path of its folder.
        run: The run folder; gets `run.json`, `config.yaml` (all settings, for `vpgc train
            --config`), `autoencoder.keras`, `driver.keras`, `puppet.keras`, `MODEL_CARD.md`,
            `logs/` and `previews/`; and `checkpoints/` until it is done.
        preset: Name of a preset.
        network: Overrides of the model classes' arguments.
        recipe: Overrides of the recipe, see `keras_vpgc.config.Recipe`.
        seed: Seed of weights and data order.
        augmentation: See `FrameBatches` (stage 1).
        perceptual: See `CodebookTrainer`; default: what the recipe names.
        devices: Number of GPUs (or, without any, of the backend's CPU devices) that divide each
            batch among them; weights and losses are those of one device, but for the
            augmentation's draws. A run may go on with another number. On PyTorch each device is
            a process: they are started here, or by `torchrun --nproc-per-node N SCRIPT`, which a
            script with an `augmentation` or a `perceptual` of its own needs.
        method: `"vpgc"`, or `"direct"` for the baseline `keras_vpgc.models.DirectMapping`, which
            has one stage of `steps` batches and no `autoencoder.keras` and `driver.keras`.
        verbose: As in `fit`; "auto": a bar in a terminal, a line an epoch elsewhere.

    Returns:
        The `PortraitReenactor` or `DirectMapping`, as saved.

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
    config = resolve(preset, network, recipe, seed, method)
    devices = resolve_devices(devices)
    check_division(devices, config.recipe)
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    if devices > backend.launched() and backend.one_process_a_device():
        if augmentation is not None or perceptual is not None:
            raise VPGCError(
                "On PyTorch each device is a process, and an augmentation or a perceptual loss "
                "cannot be sent to them: start your script by torchrun --nproc-per-node "
                f"{devices}, and leave devices out."
            )
        job = {"portrait": str(portrait.path), "run": str(run), "preset": preset, "seed": seed}
        job |= {"network": network, "recipe": recipe, "devices": devices, "verbose": verbose}
        job |= {"method": method}
        train_in_processes(devices, job)
        return _load(run / "puppet.keras")
    with backend.distributed(devices):
        verbose = verbose if _writes() else 0
        return _train(portrait, run, config, augmentation, perceptual, devices, verbose)


def train_codebook(
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
    steps_per_epoch: int | None = None,
    callbacks=(),
):
    """Train stage 1 alone, on one device: `train_puppet` goes on from there in the same folder.

    Args:
        portrait, run, preset, network, recipe, seed, augmentation, perceptual, verbose: See
            `train_puppet`.
        steps_per_epoch: See `Stage`.
        callbacks: See `Stage.fit`.

    Returns:
        The trained `PortraitAutoencoder`, as saved.

    Raises:
        VPGCError: see `train_puppet`.

    Example:

    ```python
    autoencoder = train_codebook("data/me", "runs/me", "vpgc_128", recipe={"steps": 300})
    ```
    """
    if not isinstance(portrait, Portrait):
        portrait = Portrait(portrait)
    config = resolve(preset, network, recipe, seed)
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    stage_1 = {"steps_per_epoch": steps_per_epoch, "callbacks": callbacks}
    with backend.distributed(1):
        return _train(portrait, Path(run), config, augmentation, perceptual, 1, verbose, stage_1)


def train_driver(
    portrait,
    run,
    preset: str = "vpgc_256",
    *,
    stage_1,
    network: dict | None = None,
    recipe: dict | None = None,
    seed: int = 0,
    perceptual=None,
    verbose="auto",
    stages=None,
):
    """Train stage 2 alone, on one device, behind the stage 1 of another run.

    So several drivers can be trained behind one codebook. The other run stays as it is: its
    `autoencoder.keras` is copied, and `run.json` tells whose it was (`stage_1`: `run`, `sha256`).

    Args:
        portrait, run, preset, network, recipe, seed, perceptual, verbose: See `train_puppet`.
        stage_1: The run folder whose stage 1 is taken.
        stages: Takes name and steps of a stage that begins, and a function that drives frames as
            the driver is then (int numbers `(n,)` -> uint8 `(n, s, s, 3)`); returns arguments of
            `Stage`, such as `steps_per_epoch` and `callbacks`. `None` for none.

    Returns:
        The `PortraitReenactor`, as saved.

    Raises:
        VPGCError: see `train_puppet`; or if `stage_1` holds none, one of another portrait or
            network, or another one than the run began with.

    Example:

    ```python
    train_codebook("data/me", "runs/codebook", "vpgc_128")
    for variant in ("baseline", "full"):
        train_driver("data/me", f"runs/{variant}", "vpgc_128", stage_1="runs/codebook",
                     network={"driver_variant": variant})
    ```
    """
    if not isinstance(portrait, Portrait):
        portrait = Portrait(portrait)
    config = resolve(preset, network, recipe, seed)
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    given = {"stage_1_of": Path(stage_1), "stages": stages}
    with backend.distributed(1):
        return _train(portrait, Path(run), config, None, perceptual, 1, verbose, **given)


def distill_puppet(
    teacher,
    run,
    preset: str = "vpgc_512_lite",
    *,
    portrait=None,
    stage_1=None,
    network: dict | None = None,
    recipe: dict | None = None,
    seed: int = 0,
    perceptual=None,
    verbose="auto",
):
    """Train a smaller puppet that a trained one teaches, on one device.

    Stage 1 and the driver learn from the clip as in `train_puppet`. In the joint steps the trained
    puppet is the teacher: some of the frames are the clip's (`true_share`), all others show new
    mixtures of the clip's poses and expressions as the teacher shows them, and the driver's
    features are to tell those of the teacher (by a linear map). A run that was stopped goes on by
    the same call.

    Args:
        teacher: The run folder of the trained puppet.
        run, preset, network, recipe, seed, perceptual, verbose: See `train_puppet`.
        portrait: The `Portrait` that it was trained on, or its folder; default: where it was then.
        stage_1: A run folder whose stage 1 is taken, as in `train_driver`: that of the same small
            puppet trained from scratch, say, for no teacher has a say in it. Default: train one.

    Returns:
        The `PortraitReenactor`, as saved.

    Raises:
        VPGCError: see `train_puppet` and `train_driver`; or for a teacher without a trained driver,
            of another portrait, or of other images, landmarks or another grid than the student's.

    Example:

    ```python
    distill_puppet("runs/me", "runs/me_lite")
    ```

    References:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Romero et al.,
        "FitNets", ICLR 2015.
    """
    teacher = Path(teacher)
    info = read_run(teacher)
    if info["config"].get("method") == "direct":
        raise VPGCError(
            f"{teacher} is a direct mapping, which has no driver to learn from: give the run of a "
            "puppet."
        )
    if not all((teacher / f"{x}.keras").exists() for x in ("puppet", "driver")):
        raise VPGCError(
            f"The driver of {teacher} is not trained, so that it cannot teach: finish it by "
            "vpgc train first."
        )
    if portrait is None:
        portrait = info["portrait"]
        if not Path(portrait).is_dir():
            raise VPGCError(
                f"The portrait of {teacher} is not at {portrait} any more: give its new place "
                "by --portrait."
            )
    if not isinstance(portrait, Portrait):
        portrait = Portrait(portrait)
    changed = _differs(info["portrait_identity"], portrait_identity(portrait))
    if changed:
        raise VPGCError(
            f"{teacher} was trained on another portrait than {portrait.path} ({changed} differs): "
            "give the one that it was trained on."
        )
    file = teacher / "puppet.keras"
    config = resolve(preset, network, recipe, seed, "distill", sha256(file))
    if not config.recipe.joint_steps:
        raise VPGCError(
            f"{preset} has no joint steps, in which a teacher teaches: give joint_steps, such as "
            "2000."
        )
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    with backend.distributed(1):
        given = {"teacher": _load(file), "stage_1_of": stage_1 and Path(stage_1)}
        return _train(portrait, Path(run), config, None, perceptual, 1, verbose, **given)


def puppet_is_trained(
    portrait,
    run,
    preset: str = "vpgc_256",
    *,
    network: dict | None = None,
    recipe: dict | None = None,
    seed: int = 0,
) -> bool:
    """Are both stages of a run done?

    Args:
        portrait, run, preset, network, recipe, seed: See `train_puppet`.

    Returns:
        True if `train_puppet` and `train_driver` have nothing left to do.

    Raises:
        VPGCError: if the folder holds something else than such a run.
    """
    config = resolve(preset, network, recipe, seed)
    begun = _check_run(Path(run), config, portrait, portrait_identity(portrait))
    return begun and all((Path(run) / f"{x}.keras").exists() for x in ("puppet", "driver"))


def codebook_is_trained(
    portrait,
    run,
    preset: str = "vpgc_256",
    *,
    network: dict | None = None,
    recipe: dict | None = None,
    seed: int = 0,
) -> bool:
    """Is stage 1 of a run done?

    Args:
        portrait, run, preset, network, recipe, seed: See `train_puppet`.

    Returns:
        True if `train_codebook` has nothing left to do.

    Raises:
        VPGCError: if the folder holds something else than such a run.
    """
    config = resolve(preset, network, recipe, seed)
    begun = _check_run(Path(run), config, portrait, portrait_identity(portrait))
    return begun and (Path(run) / "autoencoder.keras").exists()


def _train(
    portrait,
    run,
    config,
    augmentation,
    perceptual,
    devices,
    verbose,
    stage_1=None,
    stage_1_of=None,
    stages=None,
    teacher=None,
):
    """`train_puppet`; with `stage_1`, how `train_codebook` does that stage, no more than it.

    With `stage_1_of` and `stages` it is `train_driver`, with a `teacher` (the model)
    `distill_puppet`.
    """
    config = _with_precision(config, run)
    seed = config.seed
    # What does not fit shows here, before anything is written.
    keras.utils.set_random_seed(seed)
    direct = config.method == "direct"
    if direct:
        mapping = _build_direct(config)
    else:
        autoencoder, driver = _build_models(config)
        mapping = _join(autoencoder, driver, config)
    if teacher is not None:
        teacher = Teacher(teacher, mapping, config.recipe.context_mode)
    context_indices(1, mapping.context, config.recipe.context_mode)
    if devices > 1 and config.network.get("ema_decay") is not None:
        raise VPGCError(
            "Codes that are moving averages follow the features of one device: train on one, or "
            "leave ema_decay out."
        )
    _check_portrait(portrait, config)
    if perceptual is None:
        perceptual = _perceptual(config.recipe.perceptual)
    identity = portrait_identity(portrait)
    begun = _check_run(run, config, portrait, identity)
    file, puppet_file, driver_file = (
        run / f"{name}.keras" for name in ("autoencoder", "puppet", "driver")
    )
    done, stage_1_done = puppet_file.exists(), file.exists()
    if stage_1 is not None and stage_1_done:
        return _load(file)
    if stage_1_of is not None:
        _check_stage_1(stage_1_of, file, autoencoder, identity)
    if stage_1 is None and done and (direct or driver_file.exists()):
        if _writes() and not (run / MODEL_CARD).exists():
            write_model_card(run, portrait)
        return _load(puppet_file)
    # Before the training, so that what is missing shows at once.
    metadata = puppet_metadata(portrait, config)
    data = _Data(portrait, config, devices)
    moves_heads = config.recipe.joint_jitter and (direct or config.recipe.joint_steps)
    if moves_heads and stage_1 is None and teacher is None:
        data.prepare_backdrop(run, begun, verbose)
    if _writes() and not begun:
        for text in training_warnings(portrait, config.recipe.rare_frames):
            warnings.warn(text, stacklevel=3)
    # Of several processes the first writes, once all have looked.
    backend.wait()
    if _writes() and not begun:
        _begin_run(run, config, portrait, identity, devices, stage_1_of)
    if _writes():
        data.keep_people(run)
    if _writes() and not (run / SETTINGS).exists():
        write_experiment(run / SETTINGS, config, portrait=str(portrait.path), devices=devices)
    backend.wait()
    if stage_1_of is not None and not stage_1_done:
        _copy(stage_1_of / file.name, file)
        stage_1_done = True
    done_stages: list[Stage] = []

    def stage(name, title, steps, **settings):
        done_stages.append(_stage(run, config, name, title, steps, verbose, **settings))
        return done_stages[-1]

    if direct:
        _fit_direct(mapping, data, config, stage, augmentation, perceptual)
        reenactor = _build_direct(config, metadata)
        reenactor.set_weights(mapping.get_weights())
        _save(reenactor, puppet_file)
        _clear(run, done_stages)
        if _writes():
            write_model_card(run, portrait)
        return reenactor
    if stage_1_done:
        autoencoder = _load(file)
    else:
        _fit_codebook(autoencoder, data, config, stage, augmentation, perceptual, **(stage_1 or {}))
        _save(autoencoder, file)
        done_stages.pop().clear()
    if stage_1 is not None:
        _clear(run, done_stages)
        return autoencoder
    lesson = None
    if teacher is not None:
        poses = SeenPoses(portrait, teacher.offsets, _landmark_set(config))
        lesson = teacher, poses.sample
    _fit_stage_2(autoencoder, driver, data, config, stage, perceptual, stages, lesson)

    reenactor = _join(autoencoder, driver, config, metadata)
    _save(reenactor, puppet_file)
    # Last: that there is a driver says that all is done.
    _save(driver, driver_file)
    _clear(run, done_stages)
    if _writes():
        write_model_card(run, portrait)
    return reenactor


def _check_stage_1(other, file, autoencoder, identity):
    """Can a run have the stage 1 of another one? A `VPGCError` if not."""
    source = other / file.name
    info = read_run(other)
    if not source.exists():
        raise VPGCError(f"Stage 1 of {other} is not done: train it to its end first.")
    changed = _differs(info["portrait_identity"], identity)
    if changed:
        raise VPGCError(
            f"{other} was trained on another portrait ({changed} differs): take the stage 1 of a "
            "run of this one."
        )
    # As JSON, for which a tuple is a list.
    trained, wanted = (
        {k: json.dumps(v) for k, v in x.get_config().items() if k not in ("dtype", "name")}
        for x in (_load(source), autoencoder)
    )
    changed = _differs(trained, wanted)
    if changed:
        raise VPGCError(
            f"The stage 1 of {other} is of another network ({changed} differs): take one of these "
            "settings."
        )
    if file.exists() and sha256(file) != sha256(source):
        raise VPGCError(
            f"{file.parent} began with another stage 1 than that of {other}: go on with that one, "
            "or choose another folder for the run."
        )


def _copy(source, file):
    partial = file.with_name(f".partial.{file.name}")
    with writing(file.parent):
        try:
            shutil.copyfile(source, partial)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)


def _clear(run, stages):
    for done in stages:
        done.clear()
    (run / PEOPLE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (run / "checkpoints").rmdir()


class _Data:
    """The frames of a portrait that a run trains on and looks at."""

    def __init__(self, portrait, config, devices=1):
        size = config.network["image_size"]
        recipe = config.recipe
        self.train, held = (portrait.indices(part) for part in ("train", "validation"))
        # Each batch is divided among the devices, the last too.
        unit = devices * (2 if recipe.temporal_weight else 1)
        count = min(VALIDATION_FRAMES, len(held)) // unit * unit
        if not count:
            raise VPGCError(
                f"{portrait.path} has {len(held)} validation frames, too few to divide them among "
                f"{devices} devices: record more, or train on fewer devices."
            )
        picked = np.linspace(0, len(held) - 1, count).astype(int)
        if recipe.temporal_weight:
            # Pairs of frames one after the other, as the temporal term wants them.
            picked = np.linspace(0, max(0, len(held) - 2), count // 2).astype(int)
            picked = np.stack([picked, picked + 1], axis=1).ravel()
        self.held = held[picked]
        self.shown = np.linspace(0, count - 1, min(-(-6 // devices) * devices, count)).astype(int)
        self.images = portrait.frames(self.train, size)
        self.held_images = portrait.frames(self.held, size)
        points = fill(portrait.points, portrait.valid)
        self.landmarks = landmark_sets.landmarks(points, _landmark_set(config))
        self.sampling = None
        if recipe.rare_frames:
            self.sampling = rare_frame_weights(portrait.landmarks[self.train], recipe.rare_frames)
        self.people = self.backdrop = None

    def prepare_backdrop(self, run, begun, verbose):
        """Find what heads are moved before; a run that was begun goes on with the same masks."""
        people = None
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
            people = np.load(run / PEOPLE)["people"]
        if people is None or len(people) != len(self.images):
            bar = progress_bar(
                len(self.images), "finding the person", show=bool(verbose) and _writes()
            )
            try:
                with bar:
                    people = find_people(self.images, seen=bar.update)
            except VPGCError as error:
                if begun:
                    raise
                raise VPGCError(
                    f"{str(error).rstrip('.')}; or train with joint_jitter=0, which needs no "
                    "segmenter."
                ) from error
        self.people = people
        trusted, found = trust_faces(people, self.landmarks[self.train])
        if found.mean() >= FACES_FOUND:
            self.backdrop = find_backdrop(self.images, trusted)
        elif _writes() and not begun:
            warnings.warn(
                f"MediaPipe's segmenter finds no person in {(~found).sum()} of {len(found)} "
                "frames: heads are moved with what is around them, and the background may follow "
                "the head; joint_jitter=0 moves none.",
                stacklevel=4,
            )

    def keep_people(self, run):
        """Keep the masks for a run that goes on."""
        if self.people is None or (run / PEOPLE).exists():
            return
        partial = run / f".{PEOPLE}"
        with writing(run):
            np.savez_compressed(partial, people=self.people)
            os.replace(partial, run / PEOPLE)


def _check_portrait(portrait, config):
    recipe, size = config.recipe, config.network["image_size"]
    count = len(portrait.indices("train"))
    for batch in (recipe.batch_size, recipe.driver_batch_size):
        check_batch(batch, count)
    if not len(portrait.indices("validation")):
        raise VPGCError(
            f"{portrait.path} is too short to be split: its validation part has no frame; record "
            "more, at least ten seconds."
        )
    if portrait.size < size:
        raise VPGCError(
            f"{portrait.path} holds frames of {portrait.size}x{portrait.size} pixels, but "
            f"{config.preset} makes {size}x{size}: prepare the video with --size {size}, or choose "
            "a smaller preset."
        )


def _perceptual(name):
    if name is None:
        return None
    if name == "vgg19":
        return vgg19_perceptual()
    return LPIPSLoss(name.removeprefix("lpips-"))


def _stage(run, config, name, title, steps, verbose, **settings):
    recipe = config.recipe
    return Stage(
        run,
        name,
        title,
        steps,
        verbose=verbose,
        config=config.model_dump(mode="json"),
        **{key: getattr(recipe, key) for key in STAGE_SETTINGS},
        **settings,
    )


def _writes():
    """Is this the process that writes?"""
    return backend.process()[0] == 0


def portrait_identity(portrait) -> dict:
    """What tells a portrait from another one, or from what it was before a change."""
    identity = {k: portrait.info[k] for k in ("source_sha256", "crop", "size", "split")}
    return {**identity, "tracking_sha256": sha256(portrait.path / "tracking.npz")}


def _check_run(run, config, portrait, identity) -> bool:
    """Has this run been begun? A `VPGCError` if its folder holds something else."""
    if run.exists() and not run.is_dir():
        raise VPGCError(f"{run} is a file: give a folder for the run.")
    if not run.is_dir() or not {x.name for x in run.iterdir()} - {PARTIAL_RUN}:
        return False
    if not (run / "run.json").is_file():
        raise VPGCError(f"{run} holds something else than a run: choose another folder for it.")
    info = read_run(run)
    changed = _differs(info["portrait_identity"], identity)
    if changed:
        raise VPGCError(
            f"{run} holds a run of another portrait, or {portrait.path} changed since it began "
            f"({changed} differs): choose another folder for the run."
        )
    wanted = config.model_dump(mode="json")
    if config.recipe.precision == "auto":
        wanted["recipe"]["precision"] = info["config"]["recipe"]["precision"]
    changed = _differs(_that_matters(info["config"]), _that_matters(wanted))
    if changed:
        raise VPGCError(
            f"{run} holds a run with other settings ({changed} differs): choose another folder "
            "for the run, or the settings that it began with."
        )
    return True


def _begin_run(run, config, portrait, identity, devices, stage_1_of=None):
    partial = run / PARTIAL_RUN
    origin = {}
    if stage_1_of is not None:
        file = stage_1_of / "autoencoder.keras"
        origin = {"stage_1": {"run": str(stage_1_of.resolve()), "sha256": sha256(file)}}
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(
                json.dumps(
                    {
                        "schema_version": RUN_SCHEMA_VERSION,
                        "keras_vpgc": __version__,
                        "keras": keras.__version__,
                        "backend": keras.backend.backend(),
                        "began": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                        "devices": devices,
                        "portrait": str(portrait.path.resolve()),
                        "portrait_identity": identity,
                        "config": config.model_dump(mode="json"),
                        **origin,
                    },
                    indent=1,
                )
            )
            os.replace(partial, run / "run.json")
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()


def _load(file):
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception as error:
        raise VPGCError(
            f"{file} is damaged: delete it, and the same command makes it again."
        ) from error


def _that_matters(config):
    """The settings that decide what comes out."""
    # What runs of former versions did not know.
    recipe = {
        "joint_rate": 0.1,
        "joint_feature_weight": config["recipe"]["feature_weight"],
        "frame_jitter": 0.0,
        "joint_jitter": 0.0,
        "adaptive_matching": True,
        "gradient_penalty": 0.0,
        **config["recipe"],
    }
    recipe = {k: v for k, v in recipe.items() if k not in FREE_SETTINGS}
    rest = {"seed": config["seed"], "method": config.get("method", "vpgc")}
    if not recipe["joint_steps"] and rest["method"] != "direct":
        recipe = {k: v for k, v in recipe.items() if not k.startswith("joint_")}
    rest["teacher"] = config.get("teacher")
    if rest["teacher"] is None:
        recipe = {k: v for k, v in recipe.items() if k != "true_share"}
    # The first that differs is named: what decides which others matter comes first.
    return {"preset": config["preset"], **rest, **recipe, **config["network"]}


def _differs(old, new):
    """The first key in which two dicts differ, or `None`."""
    return next((k for k in {**old, **new} if old.get(k) != new.get(k)), None)


def training_policy(precision: str) -> str:
    """The Keras dtype policy that a recipe's precision means on this device.

    Args:
        precision: See `keras_vpgc.config.Recipe`.

    Returns:
        `precision`, or for `"auto"` `"mixed_bfloat16"` or `"float32"`.

    Example:

    ```python
    training_policy("auto")  # "float32" on a CPU
    ```
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if backend.half_by_default() else "float32"


def _with_precision(config, run):
    """The same with the run's precision in place of `"auto"`, or with this device's."""
    if config.recipe.precision != "auto":
        return config
    precision = training_policy("auto")
    if (run / "run.json").is_file():
        precision = read_run(run)["config"]["recipe"]["precision"]
    recipe = config.recipe.model_copy(update={"precision": precision})
    return config.model_copy(update={"recipe": recipe})


def _build_models(config: TrainConfig):
    network = {**config.network, "dtype": training_policy(config.recipe.precision)}
    if network.get("codebook", "grid") != "grid":
        network["texture_prior"] = False
    models = []
    for cls in (PortraitAutoencoder, PortraitDriver):
        accepted = inspect.signature(cls.__init__).parameters
        models.append(cls(**{k: v for k, v in network.items() if k in accepted}))
    return models


def _build_direct(config: TrainConfig, metadata=None):
    # With metadata it is what is saved.
    dtype = training_policy(config.recipe.precision) if metadata is None else "float32"
    network = {**config.network, "dtype": dtype, "metadata": metadata}
    accepted = inspect.signature(DirectMapping.__init__).parameters
    return DirectMapping(**{k: v for k, v in network.items() if k in accepted})


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
    if _writes():
        _write(model, file)
    backend.wait()


def _write(model, file):
    # The name decides the format, so the temporary one ends in .keras too.
    partial = file.with_name(f".partial.{file.name}")
    # Without optimiser and losses: what is saved is for use, on any backend.
    compiled, model.compiled = model.compiled, False
    try:
        model.save(partial)
        os.replace(partial, file)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise VPGCError(
            f"The disk is full, so {file} could not be saved; the checkpoints are still good: free "
            "some space and run the same command again."
        ) from error
    finally:
        model.compiled = compiled
        partial.unlink(missing_ok=True)


def _fit_codebook(
    autoencoder,
    data,
    config,
    make_stage,
    augmentation,
    perceptual,
    steps_per_epoch=None,
    callbacks=(),
):
    recipe = config.recipe
    stage = make_stage(
        "codebook", "Stage 1, the codebook", recipe.steps, steps_per_epoch=steps_per_epoch
    )
    if config.network.get("kmeans_start"):
        _start_codes(autoencoder, data.images, config.seed)
    trainer = _image_trainer(CodebookTrainer, autoencoder, stage, config, perceptual)
    batches = FrameBatches(
        data.images,
        landmarks=data.landmarks[data.train] if recipe.region_weights else None,
        **_frame_settings(data, config, stage, augmentation),
    )
    shown = data.held_images[data.shown]
    if recipe.codebook_pictures and _writes() and hasattr(autoencoder.codebook, "codes"):
        board = recipe.tensorboard and importlib.util.find_spec("tensorboardX")
        stage.callbacks.append(
            CodebookPictures(
                shown,
                stage.run / "logs" / "tensorboard" if board else None,
                stage.run / "previews" if recipe.previews else None,
                steps_per_epoch=stage.steps_per_epoch,
            )
        )
    stage.fit(
        trainer,
        batches,
        draw=lambda: _sheet(shown, trainer.predict_on_batch(shown), "reconstructed"),
        validation_data=(data.held_images,),
        validation_batch_size=recipe.batch_size,
        callbacks=callbacks,
    )


def _start_codes(autoencoder, images, seed):
    """Begin with codes that are the k-means of training frames, the same whenever it is asked."""
    cells = autoencoder.grid_size[0] * autoencoder.grid_size[1]
    codes = autoencoder.get_config()["num_codes"]
    count = min(len(images), -(-START_FEATURES * codes // cells))
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    autoencoder.adapt(images[chosen], seed=seed)


def _frame_settings(data, config, stage, augmentation):
    """How the frames of a stage on images are dealt."""
    return {
        "batch_size": config.recipe.batch_size,
        "steps": stage.steps_per_epoch,
        "seed": config.seed,
        "augmentation": augmentation,
        "jitter": config.recipe.frame_jitter,
        "sampling": data.sampling,
        "prefetch": PREFETCH,
        "shard": backend.process(),
        "region_weights": config.recipe.region_weights or {},
    }


def _fit_direct(mapping, data, config, make_stage, augmentation, perceptual):
    recipe = config.recipe
    stage = make_stage("direct", "The direct mapping", recipe.steps)
    trainer = _image_trainer(DirectTrainer, mapping, stage, config, perceptual)
    neighbours = context_indices(len(data.landmarks), mapping.context, recipe.context_mode)
    settings = _frame_settings(data, config, stage, augmentation)
    batches = LandmarkBatches(
        data.landmarks,
        neighbours[data.train],
        data.images,
        region_landmarks=data.landmarks[data.train],
        backdrop=data.backdrop,
        **{**settings, "jitter": recipe.joint_jitter},
    )
    held = data.landmarks[neighbours[data.held]].astype("float32")
    true, shown = data.held_images[data.shown], held[data.shown]
    stage.fit(
        trainer,
        batches,
        draw=lambda: _sheet(true, trainer.predict_on_batch(shown), "driven"),
        validation_data=(held, data.held_images),
        validation_batch_size=recipe.batch_size,
    )


def _image_trainer(cls, model, stage, config, perceptual):
    """A compiled trainer of images by the recipe."""
    recipe = config.recipe
    start = recipe.adversarial_start
    start = recipe.steps // 2 if start is None else start
    discriminator, adversarial = _adversary(stage, config, start, recipe.learning_rate)
    optimizer = adversarial.pop("discriminator_optimizer")
    trainer = cls(
        model,
        discriminator,
        perceptual,
        recipe.l1_weight,
        recipe.perceptual_weight,
        **adversarial,
    )
    trainer.compile(
        learning_rate=_rate(recipe.learning_rate, recipe.steps, recipe),
        code_rate=recipe.code_rate,
        discriminator_optimizer=optimizer,
        average=recipe.average,
        accumulate=recipe.accumulate,
    )
    _announce(stage, recipe.batch_size)
    return trainer


def _adversary(stage, config, start, rate):
    """The recipe's discriminator (or `None`) for a stage, and how it is trained."""
    recipe = config.recipe
    discriminator = None
    if recipe.adversarial:
        # The same one in a run that goes on, which has drawn fewer weights before.
        keras.utils.set_random_seed(config.seed)
        discriminator = PatchDiscriminator(
            config.network["image_size"],
            feature_maps=recipe.feature_matching_weight > 0,
            dtype=training_policy(recipe.precision),
        )
        if stage.verbose and start < stage.steps:
            print(f"The discriminator joins at step {start}; steps take longer from there.")
    return discriminator, {
        "adversarial": recipe.adversarial or "hinge",
        "adversarial_weight": recipe.adversarial_weight,
        "adversarial_start": start,
        "adaptive": recipe.adaptive,
        "feature_matching_weight": recipe.feature_matching_weight,
        "adaptive_matching": recipe.adaptive_matching,
        "gradient_penalty": recipe.gradient_penalty,
        # Its schedule begins when it joins.
        "discriminator_optimizer": adam(
            _rate(rate * recipe.discriminator_rate, max(1, stage.steps - start), recipe),
            accumulate=recipe.accumulate,
        ),
    }


def _fit_stage_2(
    autoencoder, driver, data, config, make_stage, perceptual, stages=None, lesson=None
):
    recipe = config.recipe
    if driver.codebook is not None:
        driver.codebook.set_weights(autoencoder.codebook.get_weights())
    features = encode(autoencoder, data.images)
    held_features = encode(autoencoder, data.held_images)
    heatmaps = draw(
        data.landmarks,
        driver.heatmap_size,
        config.network.get("line_width"),
        contours=_landmark_set(config),
    )
    shown = data.shown
    neighbours = context_indices(len(heatmaps), driver.input_shape[-1], recipe.context_mode)
    inputs = stack_context(heatmaps, neighbours[data.held[shown]])
    image = driver.outputs[0]
    codes = (driver.codebook or autoencoder.codebook)(image)
    if autoencoder.soft_index is not None:
        codes = autoencoder.soft_index([image, codes])
    whole = keras.Model(driver.input, autoencoder.decoder(codes))

    def preview():
        return _sheet(data.held_images[shown], whole.predict_on_batch(inputs), "driven")

    def drive(frames):
        found = []
        for start in range(0, len(frames), DRIVEN_AT_ONCE):
            # Numbers that only fill the last batch: one compiled shape serves all.
            numbers = np.resize(frames[start : start + DRIVEN_AT_ONCE], DRIVEN_AT_ONCE)
            found.append(whole.predict_on_batch(stack_context(heatmaps, neighbours[numbers])))
        return _pictures(np.concatenate(found)[: len(frames)])

    def begin(name, title, steps):
        stage = make_stage(name, title, steps, **(stages(name, steps, drive) if stages else {}))
        _announce(stage, recipe.driver_batch_size)
        return stage

    shared = {
        "heatmaps": heatmaps,
        "mode": recipe.context_mode,
        "batch_size": recipe.driver_batch_size,
        "feature_weight": recipe.feature_weight,
        "scale_jitter": recipe.scale_jitter,
        "sampling": data.sampling,
        "average": recipe.average,
        "accumulate": recipe.accumulate,
        "seed": config.seed,
        "preview": preview,
    }
    fit_driver(
        driver,
        data.landmarks,
        features,
        data.train,
        (held_features, data.held),
        temporal_weight=recipe.temporal_weight,
        learning_rate=_rate(recipe.driver_learning_rate, recipe.driver_steps, recipe),
        stage=begin("driver", "Stage 2, the driver", recipe.driver_steps),
        **shared,
    )
    rate = recipe.driver_learning_rate
    for name, title, steps, highest in (
        ("driver_on_images", "Stage 2, on images", recipe.driver_image_steps, rate / 2),
        ("joint", "Stage 2, driver and decoder", recipe.joint_steps, rate * recipe.joint_rate),
    ):
        if not steps:
            continue
        stage = begin(name, title, steps)
        more = {"train_decoder": name == "joint"}
        if name == "joint":
            more["feature_weight"] = recipe.joint_feature_weight
            more |= {"jitter": recipe.joint_jitter, "backdrop": data.backdrop}
        if name == "joint" and recipe.adversarial:
            start = round(steps * recipe.joint_adversarial_start)
            more["discriminator"], more["adversarial"] = _adversary(stage, config, start, highest)
        if name == "joint" and lesson is not None:
            _learn(
                driver, autoencoder, data, config, stage, lesson, highest, preview, perceptual, more
            )
            continue
        fit_driver_on_images(
            driver,
            autoencoder,
            data.landmarks,
            data.images,
            features,
            data.train,
            (data.held_images, held_features, data.held),
            learning_rate=_rate(highest, steps, recipe),
            image_weight=recipe.driver_image_weight,
            perceptual=perceptual,
            perceptual_weight=recipe.perceptual_weight,
            region_weights=recipe.region_weights or {},
            line_width=config.network.get("line_width"),
            landmark_set=_landmark_set(config),
            stage=stage,
            **{**shared, **more},
        )


def _learn(
    driver, autoencoder, data, config, stage, lesson, highest, preview, perceptual, adversary
):
    """The joint steps of a puppet that another one teaches."""
    recipe = config.recipe
    teacher, poses = lesson
    shared = {"poses": poses, "offsets": teacher.offsets, "teach": teacher.teach}
    regions = recipe.region_weights or {}
    batches = TeacherBatches(
        data.landmarks,
        data.train,
        data.images,
        batch_size=recipe.driver_batch_size,
        steps=stage.steps_per_epoch,
        seed=config.seed,
        true_share=recipe.true_share,
        region_weights=regions,
        sampling=data.sampling,
        **shared,
    )
    count = len(data.held)
    held = TeacherBatches(
        data.landmarks,
        data.held,
        data.held_images,
        batch_size=count,
        steps=1,
        true_share=1.0,
        region_weights=regions,
        **shared,
    )
    fit_to_teacher(
        driver,
        autoencoder,
        teacher,
        batches,
        held[0],
        stage,
        preview=preview,
        compile={
            "learning_rate": _rate(highest, stage.steps, recipe),
            "average": recipe.average,
            "accumulate": recipe.accumulate,
        },
        feature_weight=recipe.feature_weight,
        image_weight=recipe.driver_image_weight,
        perceptual=perceptual,
        perceptual_weight=recipe.perceptual_weight,
        discriminator=adversary.get("discriminator"),
        adversarial=adversary.get("adversarial"),
    )


def _rate(rate, steps, recipe):
    return schedule(rate, steps, recipe.schedule, recipe.warmup_steps)


def _announce(stage, batch_size):
    if stage.verbose:
        print(f"{stage.title}: {stage.steps} steps of {batch_size} frames.", flush=True)


def _sheet(true, predicted, label):
    # With several devices TensorFlow predicts a batch once on each.
    predicted = _pictures(predicted[: len(true)])
    return contact_sheet([true, predicted], ["true", label], len(true), true.shape[1])


def _pictures(images):
    """Images in [-1, 1] as uint8."""
    return np.clip(np.rint((np.asarray(images) + 1) * 127.5), 0, 255).astype("uint8")


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
