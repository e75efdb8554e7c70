import csv

import cv2
import keras
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

import keras_vpgc
from examples import ablation_priors
from keras_vpgc import VPGCError
from keras_vpgc.config import resolve
from keras_vpgc.evaluation import ablation_priors as module
from keras_vpgc.evaluation.ablation import run_of
from keras_vpgc.evaluation.ablation_priors import (
    DrivenPoints,
    driver_variants,
    run_driver_ablation,
)
from keras_vpgc.evaluation.held_out import drive_part
from keras_vpgc.training.recipes import _build_models
from tests.layers.layer_case import to_numpy

pytestmark = pytest.mark.once

SETTINGS = {
    "variants": ["w P", "full"],
    "seeds": [3],
    "points": 3,
    "recipe": {"steps": 2, "driver_steps": 3, "driver_image_steps": 2, "tensorboard": False},
    "lpips": None,
    "landmarks": False,
    "verbose": 0,
}
# Three points for five steps: two of the first stage, one of the second.
STEPS = ["2", "4", "6"]


@pytest.fixture(scope="module")
def folder(portrait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors") / "a"
    settings = {**SETTINGS, "landmarks": True, "test": True}
    ablation_priors.main(portrait, folder, "vpgc_tiny", **settings)
    return folder


def rows_of(file):
    return list(csv.DictReader(file.open()))


def mean_psnr(truth, frames):
    pairs = zip(truth, frames, strict=True)
    return np.mean([peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs])


def test_files_hold_what_the_drivers_show(folder, portrait):
    rows = rows_of(folder / "ablation.csv")
    assert [(r["variant"], r["step"]) for r in rows] == [
        (name, step) for name in ("w P", "full") for step in STEPS
    ]
    pictures = {x.name for x in folder.glob("*.png")}
    assert pictures >= {"mouth.png", "eyes.png", "psnr_iterations.png", "mouth_psnr_seconds.png"}
    assert all(cv2.imread(str(folder / name)).std() > 5 for name in pictures)
    tested = rows_of(folder / "test.csv")
    assert [row["variant"] for row in tested] == ["w P", "full"]
    stage_1 = (run_of(folder / "stage_1", "codebook", 3) / "autoencoder.keras").read_bytes()
    for row, end, test in zip(tested, rows[2::3], tested, strict=True):
        run = run_of(folder, row["variant"], 3)
        assert (run / "autoencoder.keras").read_bytes() == stage_1
        puppet = keras_vpgc.load(run)
        for part, found in (("validation", end), ("test", test)):
            truth = portrait.frames(portrait.indices(part), 64)
            psnr = mean_psnr(truth, drive_part(puppet, portrait, part))
            assert float(found["psnr"]) == pytest.approx(psnr, abs=0.01)
        assert end["lpips"] == "" and float(end["mouth_psnr"]) > 0
        kept = cv2.imread(str(run / "points" / "driver_on_images_000002_mouth.png"))
        assert kept.shape == (64, 64, 3)
    text = (folder / "ablation.md").read_text()
    assert "After 6 iterations" in text and f"| {float(rows[5]['psnr']):.2f} |" in text
    difference = float(rows[2]["psnr"]) - float(rows[5]["psnr"])
    assert f"| w P | {difference:+.2f} ({int(difference < 0)} of 1) |" in text
    assert f"| w P | 1 | {float(tested[0]['psnr']):.2f} |" in text.split("All test frames")[1]


def test_going_on_trains_and_tests_only_what_is_missing(folder, portrait, monkeypatch, capsys):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    before = {x: (folder / x).read_text() for x in ("ablation.csv", "test.csv")}
    settings = {**SETTINGS, "landmarks": True, "test": True}
    monkeypatch.setattr(module, "train_codebook", killed)
    monkeypatch.setattr(module, "train_driver", killed)
    monkeypatch.setattr(module, "drive_part", killed)
    run_driver_ablation(str(portrait.path), str(folder), "vpgc_tiny", **settings)
    assert before == {x: (folder / x).read_text() for x in before}
    with pytest.raises(KeyboardInterrupt):
        run_driver_ablation(portrait, folder, "vpgc_tiny", **{**settings, "seeds": [3, 4]})
    with pytest.raises(VPGCError, match="scored at other iterations than every 1"):
        run_driver_ablation(portrait, folder, "vpgc_tiny", **{**settings, "points": 5})
    with pytest.raises(VPGCError, match="was scored without LPIPS"):
        monkeypatch.setattr(module, "Features", lambda net: lambda pictures: [])
        run_driver_ablation(portrait, folder, "vpgc_tiny", **{**settings, "lpips": "alex"})


@pytest.mark.slow
def test_killed_run_ends_as_one_that_was_never_killed(folder, portrait, tmp_path, monkeypatch):
    end = DrivenPoints.on_epoch_end

    def killed(self, epoch, logs=None):
        if self.name == "driver_on_images":
            raise KeyboardInterrupt
        end(self, epoch, logs)

    # Behind the stage 1 that is there.
    settings = {**SETTINGS, "variants": ["full"], "stage_1": folder / "stage_1"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DrivenPoints, "on_epoch_end", killed)
        run_driver_ablation(portrait, tmp_path / "a", "vpgc_tiny", **settings)
    rows = run_driver_ablation(portrait, tmp_path / "a", "vpgc_tiny", **settings)["rows"]
    wanted = rows_of(folder / "ablation.csv")[3:]
    assert [str(row["step"]) for row in rows] == STEPS
    for row, whole in zip(rows, wanted, strict=True):
        assert row["psnr"] == pytest.approx(float(whole["psnr"]), abs=1e-3)
    assert not (tmp_path / "a" / "stage_1").exists()


def test_variants_differ_in_one_thing_and_begin_alike():
    found = driver_variants("vpgc_tiny")
    weights = {}
    for name, settings in found.items():
        keras.utils.set_random_seed(5)
        config = resolve("vpgc_tiny", settings)
        weights[name] = _build_models(config)[1]
    config = {name: driver.get_config() for name, driver in weights.items()}
    for name, key, value in (
        ("baseline", "texture_prior", False),
        ("w P", "global_context", False),
        ("no transformer", "transformer_blocks", 0),
        ("one frame", "context", 1),
    ):
        changed = {k for k in config["full"] if config[name][k] != config["full"][k]}
        assert key in changed and config[name][key] == value
        assert changed == ({"texture_prior", "global_context"} if name == "baseline" else {key})
    assert weights["no codes"].codebook is None and config["no codes"]["global_context"]
    # The heatmaps' encoder begins with the same weights.
    whole = [to_numpy(v) for v in weights["full"].encoder.weights]
    for name in ("baseline", "w P", "no transformer"):
        for a, b in zip(whole, weights[name].encoder.weights, strict=True):
            np.testing.assert_array_equal(a, to_numpy(b))


def test_settings_are_checked_before_anything_starts(portrait, tmp_path):
    run = tmp_path / "a"
    with pytest.raises(VPGCError, match="no variant 'round': choose among baseline, w P, full"):
        run_driver_ablation(portrait, run, "vpgc_tiny", variants=["round"])
    with pytest.raises(VPGCError, match="differ in texture_prior: leave that out"):
        run_driver_ablation(portrait, run, "vpgc_tiny", network={"texture_prior": False})
    with pytest.raises(VPGCError, match="at least one point"):
        run_driver_ablation(portrait, run, "vpgc_tiny", points=0)
    assert not run.exists()


def test_command_line(portrait):
    words = ["data/me", "out", "vpgc_256", "--seeds", "4", "--set", "joint_steps=0"]
    found = ablation_priors.arguments([*words, "--set", "window_size=3", "--test", "--no-lpips"])
    assert found["recipe"] == {"joint_steps": 0} and found["network"] == {"window_size": 3}
    assert (found["seeds"], found["test"], found["lpips"]) == ([4], True, None)
    tiny = ablation_priors.arguments(["data/me", "--tiny"])
    assert tiny["preset"] == "vpgc_tiny" and tiny["recipe"]["steps"] == 4
