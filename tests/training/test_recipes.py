import csv
import errno
import hashlib
import json
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.config import expand_variant, resolve
from keras_vpgc.data import context_indices
from keras_vpgc.data.coverage import clamp
from keras_vpgc.data.crop import Crop, from_crop
from keras_vpgc.data.landmark_sets import landmarks
from keras_vpgc.data.portrait import fill
from keras_vpgc.data.retarget import fit_head
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.losses import LPIPSDistance
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.training.callbacks import TimeLimit
from keras_vpgc.training.recipes import (
    codebook_is_trained,
    puppet_is_trained,
    read_run,
    train_codebook,
    train_driver,
    train_puppet,
)
from tests.layers.layer_case import to_numpy


def test_run_folder_holds_what_the_design_says(run, portrait):
    assert {x.name for x in run.iterdir()} == {
        "MODEL_CARD.md",
        "config.yaml",
        "run.json",
        "autoencoder.keras",
        "driver.keras",
        "puppet.keras",
        "logs",
    }
    info = read_run(run)
    assert info["config"]["recipe"]["steps"] == 2
    assert info["backend"] == keras.backend.backend()
    puppet = keras.saving.load_model(run / "puppet.keras")
    autoencoder = keras.saving.load_model(run / "autoencoder.keras")
    driver = keras.saving.load_model(run / "driver.keras")
    codes = to_numpy(autoencoder.codebook.codes)
    np.testing.assert_array_equal(to_numpy(puppet.codebook.codes), codes)
    np.testing.assert_array_equal(to_numpy(driver.codebook.codes), codes)
    metadata = puppet.metadata
    assert metadata["schema_version"] == 2
    assert metadata["crop"] == portrait.info["crop"]
    assert np.array(metadata["shape"]).shape == (478, 3)
    # The guard finds nothing unseen in the frames trained on.
    points = from_crop(portrait.points[portrait.indices("train")], Crop(**metadata["crop"]))
    head = fit_head(points, *portrait.info["source_size"])
    assert clamp(head, metadata["seen"])[1]["share"] < 0.05


def test_trained_run_is_not_trained_again(run, portrait):
    before = {x.name: x.stat().st_mtime_ns for x in run.iterdir()}
    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 2}
    network = {"shortcuts": False}
    train_puppet(portrait, run, "vpgc_tiny", network=network, recipe=recipe, verbose=0)
    assert {x.name: x.stat().st_mtime_ns for x in run.iterdir()} == before
    with pytest.raises(VPGCError, match=r"other settings \(steps differs\)"):
        train_puppet(portrait, run, "vpgc_tiny", recipe={"steps": 3}, verbose=0)


@pytest.mark.once
def test_stopped_run_goes_on_with_the_next_stage(portrait, tmp_path, monkeypatch):
    from keras_vpgc.training import recipes

    recipe = {"steps": 1, "driver_steps": 1, "driver_image_steps": 1}

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "_fit_stage_2", killed)
        with pytest.raises(KeyboardInterrupt):
            train_puppet(portrait, tmp_path / "r", "vpgc_tiny", recipe=recipe, verbose=0)
    stage_1 = (tmp_path / "r" / "autoencoder.keras").stat().st_mtime_ns
    train_puppet(portrait, tmp_path / "r", "vpgc_tiny", recipe=recipe, verbose=0)
    assert (tmp_path / "r" / "puppet.keras").exists()
    assert (tmp_path / "r" / "autoencoder.keras").stat().st_mtime_ns == stage_1
    assert not list((tmp_path / "r").glob(".*"))


# Their steps are tested with the trainer, their puppets with the models, both with the ablation.
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    "settings, shapes",
    [
        ({"codebook": "vanilla"}, [(32, 32)]),
        (
            {"codebook": "vanilla", "ema_decay": 0.9, "revive_after": 1, "kmeans_start": True},
            [(32, 32)],
        ),
        ({"codebook": "split"}, [(32, 4)]),
        ({"codebook": "none"}, []),
    ],
    ids=["vanilla", "fair vanilla", "split", "none"],
)
def test_puppet_without_a_grid_is_trained_saved_and_driven(settings, shapes, portrait, tmp_path):
    recipe = {
        "steps": 2,
        "driver_steps": 1,
        "driver_image_steps": 1,
        "joint_steps": 1,
        "adversarial": "lsgan",
        "adversarial_start": 0,
        "average": 0.9,
        "previews": False,
    }
    run = tmp_path / "r"
    network = {"num_codes": 32, **settings}
    puppet = train_puppet(portrait, run, "vpgc_tiny", network=network, recipe=recipe, verbose=0)
    assert puppet.get_config()["texture_prior"] is False
    assert [tuple(w.shape) for w in puppet.codebook.weights] == shapes
    driven = Puppet.load(run).drive(portrait.landmarks[:9])
    assert driven.shape == (9, 64, 64, 3) and driven.std() > 1
    autoencoder = keras.saving.load_model(run / "autoencoder.keras", compile=False)
    # The puppet has the codes of stage 1, which stay as they are in stage 2.
    for a, b in zip(puppet.codebook.weights, autoencoder.codebook.weights, strict=False):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.once
def test_fair_vanilla_codes_start_among_the_features_of_the_training_frames(portrait, tmp_path):
    network = {"codebook": "vanilla", "num_codes": 64, "kmeans_start": True}
    recipe = {"steps": 1, "learning_rate": 1e-9, "previews": False}
    trained = train_codebook(
        portrait, tmp_path / "r", "vpgc_tiny", network=network, recipe=recipe, verbose=0
    )
    images = portrait.frames(portrait.indices("train"), 64).astype("float32") / 127.5 - 1
    features = to_numpy(trained.encoder(images)).reshape(-1, 32)
    codes = to_numpy(trained.codebook.codes)
    away = np.sqrt(((features[:, None, :] - codes[None]) ** 2).sum(-1))
    # Each feature is far nearer to a code than to the mean, and no code is away from them all.
    spread = np.linalg.norm(features - features.mean(0), axis=-1)
    assert away.min(1).mean() < 0.7 * spread.mean()
    assert away.min(0).max() < spread.max()


@pytest.mark.once
def test_moving_averages_on_several_devices_are_refused(portrait, tmp_path):
    from keras_vpgc.training import recipes

    config = resolve("vpgc_tiny", {"codebook": "vanilla", "ema_decay": 0.9})
    with pytest.raises(VPGCError, match="train on one, or leave ema_decay out"):
        recipes._train(portrait, tmp_path / "r", config, None, None, 2, 0)
    assert not (tmp_path / "r").exists()


@pytest.mark.once
def test_stage_1_alone_is_where_a_whole_run_goes_on(portrait, tmp_path):
    recipe = {"steps": 2, "driver_steps": 1, "driver_image_steps": 1, "previews": False}
    settings = {"recipe": recipe, "verbose": 0}
    run = tmp_path / "r"
    assert not codebook_is_trained(portrait, run, "vpgc_tiny", recipe=recipe)
    first = train_codebook(portrait, run, "vpgc_tiny", **settings)
    assert codebook_is_trained(portrait, run, "vpgc_tiny", recipe=recipe)
    assert not (run / "puppet.keras").exists() and not (run / "checkpoints").exists()
    written = (run / "autoencoder.keras").stat().st_mtime_ns
    again = train_codebook(portrait, run, "vpgc_tiny", **settings)
    puppet = train_puppet(portrait, run, "vpgc_tiny", **settings)
    assert (run / "autoencoder.keras").stat().st_mtime_ns == written
    for model in (again, puppet):
        np.testing.assert_array_equal(
            to_numpy(model.codebook.codes), to_numpy(first.codebook.codes)
        )
    with pytest.raises(VPGCError, match="steps differs"):
        codebook_is_trained(portrait, run, "vpgc_tiny", recipe={**recipe, "steps": 3})


@pytest.mark.once
@pytest.mark.slow
def test_drivers_behind_the_stage_1_of_another_run(portrait, tmp_path):
    recipe = {"steps": 1, "driver_steps": 2, "driver_image_steps": 2, "previews": False}
    settings = {"recipe": recipe, "verbose": 0, "seed": 3}
    other = tmp_path / "other"
    behind = {**settings, "stage_1": other}
    run = tmp_path / "r"
    with pytest.raises(VPGCError, match="no run folder"):
        train_driver(portrait, run, "vpgc_tiny", **behind)
    train_codebook(portrait, other, "vpgc_tiny", **{**settings, "recipe": {"steps": 1}})
    with pytest.raises(VPGCError, match=r"another network \(codes_per_cell differs\)"):
        train_driver(portrait, run, "vpgc_tiny", network={"codes_per_cell": 8}, **behind)
    assert not run.exists()
    seen = []

    def stages(name, steps, drive):
        seen.append((name, steps, drive(portrait.indices("validation")[:3])))
        return {"steps_per_epoch": 1}

    network = {"driver_variant": "baseline"}
    train_driver(portrait, run, "vpgc_tiny", network=network, stages=stages, **behind)
    assert [x[:2] for x in seen] == [("driver", 2), ("driver_on_images", 2)]
    assert puppet_is_trained(portrait, run, "vpgc_tiny", network=network, recipe=recipe, seed=3)
    taken = (other / "autoencoder.keras").read_bytes()
    assert (run / "autoencoder.keras").read_bytes() == taken
    origin = {"run": str(other.resolve()), "sha256": hashlib.sha256(taken).hexdigest()}
    assert read_run(run)["stage_1"] == origin and "stage_1" not in read_run(other)
    for name in ("driver", "driver_on_images"):
        assert len((run / "logs" / f"{name}.csv").read_text().splitlines()) == 3
    # The driver that is seen as the second stage begins, by the puppet's way: its first stage
    # changed it, its decoder is stage 1's.
    before, after = (x[2].astype(int) for x in seen)
    assert before.shape == (3, 64, 64, 3) and np.abs(before - after).max() > 0
    written = (run / "puppet.keras").stat().st_mtime_ns
    train_driver(portrait, run, "vpgc_tiny", network=network, **behind)
    assert (run / "puppet.keras").stat().st_mtime_ns == written
    another = tmp_path / "another"
    train_codebook(portrait, another, "vpgc_tiny", **{**settings, "recipe": {"steps": 2}})
    with pytest.raises(VPGCError, match="began with another stage 1 than that of .*another"):
        train_driver(portrait, run, "vpgc_tiny", network=network, **{**behind, "stage_1": another})


@pytest.mark.once
def test_training_warns_before_it_begins_and_once(portrait, tmp_path, monkeypatch):
    from keras_vpgc.data import Portrait
    from keras_vpgc.data.coverage import inspect
    from keras_vpgc.training import recipes

    copy = Portrait(shutil.copytree(portrait.path, tmp_path / "p"))
    inspect(copy)
    run = tmp_path / "r"

    def killed(*args, **kwargs):
        assert not run.exists() or (run / "run.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "_fit_codebook", killed)
    with (
        pytest.warns(UserWarning, match="hardly shows closed eyes .frames: 0, blinks: 1, in 3 s"),
        pytest.raises(KeyboardInterrupt),
    ):
        train_puppet(copy, run, "vpgc_tiny", verbose=0)
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
        warnings.simplefilter("error", UserWarning)
        train_puppet(copy, run, "vpgc_tiny", verbose=0)  # it goes on


@pytest.mark.once
@pytest.mark.parametrize(
    "variant, prior, context",
    [
        ("baseline", False, False),
        # A training each: what these mean is tested below.
        pytest.param("texture", True, False, marks=pytest.mark.slow),
        pytest.param("full", True, True, marks=pytest.mark.slow),
    ],
)
def test_driver_variants_of_the_papers_table_5(portrait, tmp_path, variant, prior, context):
    recipe = {"steps": 1, "driver_steps": 1, "driver_image_steps": 1, "previews": False}
    network = {"driver_variant": variant}
    puppet = train_puppet(
        portrait, tmp_path / "r", "vpgc_tiny", network=network, recipe=recipe, verbose=0
    )
    config = puppet.get_config()
    assert (config["texture_prior"], config["global_context"]) == (prior, context)


@pytest.mark.once
def test_driver_variants_are_two_settings():
    found = {name: expand_variant({"driver_variant": name}) for name in ("texture", "full")}
    assert found == {
        "texture": {"texture_prior": True, "global_context": False},
        "full": {"texture_prior": True, "global_context": True},
    }


@pytest.mark.once
@pytest.mark.parametrize("library", ["keras", pytest.param("keras-cv", marks=pytest.mark.slow)])
def test_training_takes_an_augmentation(library, portrait, tmp_path, eager_tensorflow):
    if library == "keras":
        layer = keras.layers.RandomBrightness(0.2, value_range=(0, 255), seed=1)
    else:
        import keras_cv

        layer = keras_cv.layers.RandomHue(0.5, value_range=(0, 255), seed=1)
    seen = []

    def augmentation(images, training):
        result = layer(images, training=training)
        seen.append((np.asarray(images), np.asarray(keras.ops.convert_to_numpy(result))))
        return result

    recipe = {"steps": 2, "driver_steps": 1, "driver_image_steps": 0}
    train_puppet(
        portrait, tmp_path / "r", "vpgc_tiny", recipe=recipe, augmentation=augmentation, verbose=0
    )
    assert len(seen) >= 2
    assert all(np.abs(a - b).max() > 1 for a, b in seen)
    assert (tmp_path / "r" / "puppet.keras").exists()


@pytest.mark.once
def test_time_limit_ends_a_stage(portrait, tmp_path):
    recipe = {"steps": 10_000, "driver_steps": 10_000, "time_limit": 0.01}
    train_puppet(portrait, tmp_path / "r", "vpgc_tiny", recipe=recipe, verbose=0)
    assert (tmp_path / "r" / "puppet.keras").exists()
    pictures = {x.name.rsplit("_", 1)[0] for x in (tmp_path / "r" / "previews").iterdir()}
    assert pictures == {"codebook", "driver", "driver_on_images"}


@pytest.mark.once
def test_time_limit_says_that_it_was_reached():
    limit = TimeLimit(0.0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mae")
    model.fit(np.ones((8, 1)), np.ones((8, 1)), 1, epochs=5, callbacks=[limit], verbose=0)
    assert limit.reached
    assert int(model.optimizer.iterations.numpy()) == 1


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(preset="vpgc_12"), "no preset 'vpgc_12'"),
        (dict(preset="vpgc_tiny", recipe={"stepz": 3}), "no recipe setting 'stepz'.*'steps'"),
        (dict(preset="vpgc_tiny", network={"code_dims": 3}), "'code_dims'.*'code_dim'"),
        (dict(preset="vpgc_tiny", recipe={"steps": 0}), "recipe.steps|steps cannot be 0"),
        (dict(preset="vpgc_tiny", recipe={"precision": "half"}), "precision cannot be 'half'"),
        (dict(preset="vpgc_tiny", network={"driver_variant": "none"}), "no driver variant 'none'"),
        (dict(preset="vpgc_tiny", network={"driver_variant": [1]}), "no driver variant .1."),
        (
            dict(preset="vpgc_tiny", network={"codes_per_cell": "abc"}),
            "codes_per_cell cannot be 'abc': give a whole number",
        ),
        (
            dict(preset="vpgc_tiny", network={"multipliers": 7}),
            "multipliers cannot be 7: give a list of whole numbers",
        ),
        (dict(preset="vpgc_tiny", network={"multipliers": None}), "multipliers cannot be None"),
        (
            dict(preset="vpgc_tiny", network={"driver_variant": "full", "texture_prior": False}),
            "driver_variant=full already says texture_prior",
        ),
        (
            dict(preset="vpgc_512", recipe={"joint_feature_weight": 1.0}),
            "joint_jitter cannot be 0.1: features of moved frames are not known",
        ),
    ],
)
def test_settings_are_checked_before_anything_starts(arguments, message):
    with pytest.raises(VPGCError, match=message):
        resolve(**arguments)


@pytest.mark.once
def test_settings_that_do_not_fit_leave_nothing_behind(portrait, tmp_path):
    for network, message in (
        ({"window_size": 17}, "window of 17 cells"),
        ({"code_dim": 5}, "cannot be split into codes of length 5"),
        ({"multipliers": [1, 2]}, "features 32x32x32 but the driver"),
    ):
        with pytest.raises(VPGCError, match=message):
            train_puppet(portrait, tmp_path / "r", "vpgc_tiny", network=network, verbose=0)
        assert not (tmp_path / "r").exists()


@pytest.mark.once
def test_run_of_another_schema_version(run, tmp_path):
    info = json.loads((run / "run.json").read_text())
    info["schema_version"] = 99
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(VPGCError, match="schema version 99 but this keras_vpgc reads 1"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(VPGCError, match="is damaged"):
        read_run(tmp_path)
    with pytest.raises(VPGCError, match="no run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.once
@pytest.mark.parametrize(
    "landmark_set, points, context, mode",
    [
        ("ibug-68-iris", 78, 1, "centered"),
        pytest.param("ibug-68", 68, 2, "causal", marks=pytest.mark.slow),
    ],
    ids=["irises, single frame", "causal"],
)
def test_landmark_set_and_context_reach_the_puppet(
    landmark_set, points, context, mode, portrait, tmp_path
):
    run = tmp_path / "run"
    network = {"landmark_set": landmark_set, "context": context}
    recipe = {"steps": 1, "driver_steps": 1, "driver_image_steps": 0, "context_mode": mode}
    train_puppet(portrait, run, "vpgc_tiny", network=network, recipe=recipe, verbose=0)
    driver = keras.saving.load_model(run / "driver.keras")
    assert driver.input_shape == (None, 64, 64, context)
    puppet = keras_vpgc.load(run)
    assert puppet.model.input_shape == (None, context, points, 2)
    assert puppet.metadata["landmark_set"] == landmark_set
    assert puppet.metadata["context_mode"] == mode
    clip = landmarks(fill(portrait.points, portrait.valid), landmark_set)[:6]
    driven = puppet.drive(clip, batch_size=4)
    windows = clip[context_indices(6, context, mode)]
    wanted = np.clip((to_numpy(puppet.model(windows)) + 1) * 127.5, 0, 255)
    assert np.abs(driven - wanted).max() <= 0.55
    changed = clip.copy()
    changed[4:] += 0.1
    same = (driven == puppet.drive(changed, batch_size=4)).all(axis=(1, 2, 3))
    assert same.tolist() == [True] * 4 + [False] * 2
    with pytest.raises(VPGCError, match=rf"shape \(frames, {points}, 2\); received"):
        puppet.drive(np.zeros((3, 60, 2)))
    rows = evaluate_run(run, landmarks=False, progress=False)["rows"]
    assert np.isfinite(rows["driven"]["psnr"])


@pytest.mark.once
def test_context_without_a_middle_is_refused_before_anything_is_trained(portrait, tmp_path):
    with pytest.raises(VPGCError, match="context of 4 frames has no middle"):
        train_puppet(portrait, tmp_path / "run", "vpgc_tiny", network={"context": 4}, verbose=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_portrait_that_cannot_be_trained_on_is_refused_before_anything_is_written(
    portrait, tmp_path
):
    folder = tmp_path / "run"
    with pytest.raises(VPGCError, match=r"frames of 64x64 pixels, but vpgc_128 makes 128x128"):
        train_puppet(portrait, folder, "vpgc_128", verbose=0)
    copy = tmp_path / "portrait"
    shutil.copytree(portrait.path, copy)
    info = json.loads((copy / "portrait.json").read_text())
    info["split"]["validation"] = [[50, 50]]
    (copy / "portrait.json").write_text(json.dumps(info))
    with pytest.raises(VPGCError, match="too short to be split: its validation part has no frame"):
        train_puppet(copy, folder, "vpgc_tiny", verbose=0)
    with pytest.raises(VPGCError, match="A batch of 999 frames is larger than the training part"):
        train_puppet(portrait, folder, "vpgc_tiny", recipe={"batch_size": 999}, verbose=0)
    assert not folder.exists()


@pytest.mark.once
def test_a_run_of_a_former_version_is_known(run, portrait, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    info = json.loads((copy / "run.json").read_text())
    for key in ("joint_rate", "joint_feature_weight", "frame_jitter", "joint_jitter"):
        del info["config"]["recipe"][key]
    (copy / "run.json").write_text(json.dumps(info))
    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 2}
    network = {"shortcuts": False}
    train_puppet(portrait, copy, "vpgc_tiny", network=network, recipe=recipe, verbose=0)
    # It had a joint phase at a rate that was not to be chosen.
    info["config"]["recipe"]["joint_steps"] = 2
    (copy / "run.json").write_text(json.dumps(info))
    recipe["joint_steps"] = 2
    settings = {"network": network, "verbose": 0}
    with pytest.raises(VPGCError, match="joint_rate differs"):
        train_puppet(portrait, copy, "vpgc_tiny", recipe=recipe, **settings)
    recipe |= {"joint_rate": 0.1, "joint_feature_weight": 10.0}
    train_puppet(portrait, copy, "vpgc_tiny", recipe=recipe, **settings)


@pytest.mark.once
def test_portrait_that_changed_since_the_run_began_is_noticed(run, portrait, tmp_path):
    copy = tmp_path / "portrait"
    shutil.copytree(portrait.path, copy)
    with open(copy / "tracking.npz", "ab") as file:
        file.write(b"x")
    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 2}
    network = {"shortcuts": False}
    with pytest.raises(VPGCError, match="changed since it began .tracking_sha256 differs"):
        train_puppet(copy, run, "vpgc_tiny", network=network, recipe=recipe, verbose=0)


LPIPS = [("lpips-alex", "alex"), pytest.param("lpips-vgg", "vgg", marks=pytest.mark.slow)]


@pytest.mark.once
@pytest.mark.parametrize("name, kind", LPIPS)
def test_recipe_names_its_perceptual_loss(name, kind, portrait, tmp_path):
    recipe = {"steps": 1, "driver_steps": 1, "driver_image_steps": 0, "perceptual": name}
    train_puppet(portrait, tmp_path / "r", "vpgc_tiny", recipe=recipe, verbose=0)
    with open(tmp_path / "r" / "logs" / "codebook.csv") as file:
        (row,) = csv.DictReader(file)
    portrait_frames = portrait.frames(portrait.indices("validation"), 64)
    autoencoder = keras.saving.load_model(tmp_path / "r" / "autoencoder.keras")
    x = portrait_frames.astype("float32") / 127.5 - 1
    picked = np.linspace(0, len(x) - 1, min(32, len(x))).astype(int)
    distance = LPIPSDistance(kind)(x[picked], to_numpy(autoencoder(x[picked])))
    assert float(row["val_perceptual"]) == pytest.approx(to_numpy(distance).mean(), rel=1e-2)


@pytest.mark.once
def test_run_folders_that_are_none(portrait, tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(VPGCError, match="holds something else than a run: choose another folder"):
        train_puppet(portrait, folder, "vpgc_tiny", verbose=0)
    assert [x.name for x in folder.iterdir()] == ["notes.txt"]
    (folder / "run.json").write_text('{"schema_version": 1}')
    with pytest.raises(VPGCError, match="run.json is damaged: train again"):
        train_puppet(portrait, folder, "vpgc_tiny", verbose=0)


@pytest.mark.once
def test_full_disk_at_the_beginning_leaves_a_folder_that_can_begin(portrait, tmp_path, monkeypatch):
    folder, write = tmp_path / "r", Path.write_text

    def full(self, *args, **kwargs):
        if self.name == ".run.json":
            write(self, "")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(VPGCError, match="no space left for .*r: make some"):
        train_puppet(portrait, folder, "vpgc_tiny", verbose=0)
    monkeypatch.undo()
    assert not list(folder.iterdir())
    recipe = {"steps": 1, "driver_steps": 1, "driver_image_steps": 0, "previews": False}
    train_puppet(portrait, folder, "vpgc_tiny", recipe=recipe, verbose=0)


@pytest.mark.once
def test_damaged_models_of_a_run_are_named(run, portrait, tmp_path):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    (copy / "puppet.keras").write_bytes(b"no zip")
    config = json.loads((copy / "run.json").read_text())["config"]
    with pytest.raises(VPGCError, match="puppet.keras is damaged: delete it, and the same command"):
        train_puppet(
            portrait, copy, "vpgc_tiny", network={"shortcuts": False}, recipe=config["recipe"]
        )


def test_precision_is_what_the_device_is_quick_in(monkeypatch):
    from keras_vpgc.training import recipes

    recipe = resolve("vpgc_256").recipe
    assert recipe.precision == "auto"
    for quick, policy in ((False, "float32"), (True, "mixed_bfloat16")):
        monkeypatch.setattr(recipes.backend, "half_by_default", lambda quick=quick: quick)
        assert recipes.training_policy("auto") == policy
        assert recipes.training_policy("float32") == "float32"
        autoencoder, driver = recipes._build_models(resolve("vpgc_tiny"))
        for model in (autoencoder.encoder, driver):
            assert policy in {layer.dtype_policy.name for layer in model._flatten_layers()}
            others = {"float32", "mixed_bfloat16"} - {policy}
            convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
            assert not others & {x.dtype_policy.name for x in convolutions}
