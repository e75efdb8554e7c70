import json
import shutil

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.assets import sha256
from keras_vpgc.data.coverage import out_of_range, seen_range
from keras_vpgc.data.crop import Crop, from_crop
from keras_vpgc.data.dataset import TeacherBatches
from keras_vpgc.data.retarget import fit_head
from keras_vpgc.data.seen_poses import SeenPoses
from keras_vpgc.models import PortraitAutoencoder, PortraitDriver, PortraitReenactor
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.training.recipes import distill_puppet, read_run
from keras_vpgc.training.teacher import DistillationTrainer, Teacher
from tests.layers.layer_case import to_numpy

LIGHT = {
    "base_channels": 8, "multipliers": [1, 2], "stride": 2, "block": "separable",
    "heatmap_size": 32, "driver_base_channels": 8, "driver_multipliers": [1, 2], "context": 3,
    "latent_dim": 16, "codes_per_cell": 4, "window_size": 2, "transformer_blocks": 1,
    "transformer_mlp_units": 16,
}  # fmt: skip
RECIPE = {
    "steps": 2, "driver_steps": 2, "driver_image_steps": 0, "joint_steps": 4, "previews": False,
    "context_mode": "causal", "tensorboard": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def poses(portrait):
    return SeenPoses(portrait, [-2, -1, 0, 1])


@pytest.mark.once
def test_new_poses_stay_within_the_seen_range_and_are_not_the_old_ones(portrait, poses):
    windows = poses.sample(40, np.random.default_rng(0))
    assert windows.shape == (40, 4, 68, 2) and windows.dtype == np.float32
    known = portrait.landmarks[portrait.indices("train")]
    nearest = [np.abs(known - w[2]).mean(axis=(1, 2)).min() for w in windows]
    assert np.median(nearest) > 1e-4
    # As one that sees the whole head judges them.
    full = SeenPoses(portrait, [0], "ibug-68")
    size = portrait.info["source_size"]
    train = from_crop(portrait.points[portrait.indices("train")], Crop(**portrait.info["crop"]))
    seen = seen_range(fit_head(train, *size))
    assert full.seen == seen
    low, high = known.min(axis=(0, 1)), known.max(axis=(0, 1))
    assert (windows > low - 0.02).all() and (windows < high + 0.02).all()
    assert out_of_range(full.head, seen)["share"] < 0.2


@pytest.mark.once
def test_new_poses_move_as_clips_do(portrait, poses):
    windows = poses.sample(40, np.random.default_rng(0))
    clip = portrait.landmarks[portrait.indices("train")]
    step = np.abs(np.diff(windows, axis=1)).mean()
    assert step < 3 * np.abs(np.diff(clip, axis=0)).mean()
    again = poses.sample(40, np.random.default_rng(0))
    np.testing.assert_array_equal(windows, again)


@pytest.mark.once
def test_batches_hold_true_frames_and_what_the_teacher_shows(run, portrait, poses):
    teacher = Puppet.load(run, precision="float32").model
    student = PortraitReenactor.from_preset("vpgc_tiny", **LIGHT)
    guide = Teacher(teacher, student, "causal")
    assert guide.offsets.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    train = portrait.indices("train")
    shared = {
        "offsets": guide.offsets, "teach": guide.teach, "batch_size": 4, "steps": 2,
        "poses": SeenPoses(portrait, guide.offsets).sample, "images": portrait.frames(train),
    }  # fmt: skip
    batches = TeacherBatches(portrait.landmarks, train, true_share=0.5, **shared)
    new = np.random.default_rng((0, 0, 2)).uniform(size=4) >= 0.5
    assert new.any() and not new.all()
    (heatmaps, features), images, weights = batches[0]
    assert heatmaps.shape == (4, 32, 32, 3) and features.shape == (4, 16, 16, 32)
    assert weights.shape == (4, 64, 64, 1)
    chosen = batches.chosen(0)
    true = portrait.frames(train[chosen]) / 127.5 - 1
    np.testing.assert_allclose(images[~new], true[~new], atol=1e-5)
    # The others are the teacher's own, of landmarks that are no frame's.
    assert (np.abs(images[new] - true[new]).mean(axis=(1, 2, 3)) > 0.01).all()
    window = portrait.landmarks[np.clip(train[chosen][:, None] + guide.offsets, 0, None)]
    wanted = to_numpy(teacher(window[~new].astype("float32")))
    found, shown, _ = guide.teach(window.astype("float32"))
    np.testing.assert_allclose(shown[~new], wanted, atol=1e-4)
    np.testing.assert_allclose(found[~new], features[~new], atol=1e-4)
    wanted = to_numpy(student.heatmap(window[:, 1:4].astype("float32")))
    np.testing.assert_allclose(heatmaps[~new], wanted[~new], atol=1e-5)


@pytest.mark.once
def test_student_learns_and_the_run_is_a_puppet(run, portrait, tmp_path, eager_tensorflow):
    out = tmp_path / "light"
    arguments = {"network": LIGHT, "recipe": RECIPE, "verbose": 0}
    model = distill_puppet(run, out, "vpgc_tiny", **arguments)
    puppet = Puppet.load(out)
    assert puppet.drive(portrait.landmarks[:2]).shape == (2, 64, 64, 3)
    config = read_run(out)["config"]
    assert config["method"] == "distill"
    assert config["teacher"] == sha256(run / "puppet.keras")
    assert f"taught it (SHA-256 `{config['teacher']}`)" in (out / "MODEL_CARD.md").read_text()
    log = (out / "logs" / "joint.csv").read_text().splitlines()
    assert "features" in log[0] and len(log) > 1
    # It is done: the same call gives it back.
    again = distill_puppet(run, out, "vpgc_tiny", **arguments)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    # Another one behind the same stage 1.
    arguments["recipe"] = {**RECIPE, "joint_steps": 1}
    distill_puppet(run, tmp_path / "second", "vpgc_tiny", stage_1=out, **arguments)
    codebooks = [sha256(x / "autoencoder.keras") for x in (out, tmp_path / "second")]
    assert codebooks[0] == codebooks[1]
    assert not (tmp_path / "second" / "logs" / "codebook.csv").exists()


@pytest.mark.slow_on("tensorflow", "jax")
@pytest.mark.slow
def test_lesson_moves_the_student_towards_the_teacher(run, portrait):
    autoencoder, driver = (_light(cls) for cls in (PortraitAutoencoder, PortraitDriver))
    student = PortraitReenactor.from_models(autoencoder, driver)
    guide = Teacher(Puppet.load(run, precision="float32").model, student)
    train = portrait.indices("train")
    batches = TeacherBatches(
        portrait.landmarks,
        train,
        portrait.frames(train),
        SeenPoses(portrait, guide.offsets).sample,
        guide.offsets,
        guide.teach,
        batch_size=4,
        steps=12,
        true_share=0.0,
    )
    autoencoder.trainable = False
    autoencoder.decoder.trainable = True
    trainer = DistillationTrainer(driver, autoencoder, depth=guide.depth, l1_weight=30.0)
    trainer.compile(learning_rate=2e-3, run_eagerly=keras.backend.backend() == "tensorflow")
    codes = to_numpy(autoencoder.codebook.codes)
    inputs, images, weights = batches[0]

    def score():
        settings = {"sample_weight": weights, "verbose": 0, "return_dict": True}
        return trainer.evaluate(inputs, images, 4, **settings)

    before = score()
    trainer.fit(batches, epochs=1, shuffle=False, verbose=0)
    after = score()
    assert after["features"] < 0.9 * before["features"] and after["l1"] < 0.9 * before["l1"]
    np.testing.assert_array_equal(to_numpy(autoencoder.codebook.codes), codes)


def _light(cls):
    accepted = cls.from_preset("vpgc_tiny").get_config()
    return cls.from_preset("vpgc_tiny", **{k: v for k, v in LIGHT.items() if k in accepted})


@pytest.mark.once
def test_what_cannot_teach_is_refused_before_anything_is_written(run, portrait, tmp_path):
    out = tmp_path / "out"

    def refused(words, teacher=run, **settings):
        settings = {"network": LIGHT, "recipe": RECIPE, **settings}
        with pytest.raises(VPGCError, match=words):
            distill_puppet(teacher, out, "vpgc_tiny", verbose=0, **settings)
        assert not out.exists()

    copy = tmp_path / "undriven"
    shutil.copytree(run, copy)
    (copy / "driver.keras").unlink()
    refused("driver of .*undriven is not trained.*vpgc train", copy)
    info = json.loads((copy / "run.json").read_text())
    info["config"]["method"] = "direct"
    (copy / "run.json").write_text(json.dumps(info))
    refused("direct mapping, which has no driver", copy)
    info["config"]["method"], info["portrait"] = "vpgc", str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(info))
    shutil.copy(run / "driver.keras", copy)
    refused("portrait of .* is not at .*gone", copy)
    refused("no run folder", tmp_path)
    refused("joint_steps", recipe={**RECIPE, "joint_steps": 0})
    refused("stage 1 of .* is of another network", stage_1=run)
    refused(
        "images of 64 pixels but the one that learns images of 32",
        network={**LIGHT, "image_size": 32, "heatmap_size": 16, "multipliers": [1], "stride": 2,
                 "driver_multipliers": [1]},
    )  # fmt: skip
