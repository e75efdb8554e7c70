import csv
import types

import keras
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from examples import ablation_codebook
from keras_vpgc import VPGCError
from keras_vpgc.evaluation import ablation
from keras_vpgc.evaluation.ablation import (
    ScoredPoints,
    ablation_table,
    codebook_variants,
    codes_used,
    run_ablation,
    run_of,
)
from keras_vpgc.models import PortraitAutoencoder
from keras_vpgc.visualization.ablation_plots import face_boxes
from tests.layers.layer_case import to_numpy

pytestmark = pytest.mark.once

SETTINGS = {
    "variants": ["fair vanilla", "none"],
    "seeds": [3],
    "points": 2,
    "recipe": {"steps": 3, "tensorboard": False},
    "lpips": None,
    "verbose": 0,
}


@pytest.fixture(scope="module")
def folder(portrait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation") / "a"
    ablation_codebook.main(portrait, folder, "vpgc_tiny", **SETTINGS)
    return folder


def test_files_hold_what_the_runs_saw(folder, portrait):
    import cv2

    rows = list(csv.DictReader((folder / "ablation.csv").open()))
    assert [(r["variant"], r["seed"], r["step"]) for r in rows] == [
        (name, "3", step) for name in ("fair vanilla", "none") for step in ("2", "4")
    ]
    pictures = {f"{s}_{x}.png" for s in ("psnr", "ssim", "live_codes")
                for x in ("iterations", "seconds")}  # fmt: skip
    assert {x.name for x in folder.iterdir() if x.is_file()} == {
        *pictures, "faces.png", "ablation.csv", "ablation.md"
    }  # fmt: skip
    for name in ("faces.png", *pictures):
        assert cv2.imread(str(folder / name)).std() > 5
    truth = portrait.frames(portrait.indices("validation"), 64)
    for row in rows[1::2]:
        run = run_of(folder, row["variant"], 3)
        model = keras.saving.load_model(run / "autoencoder.keras", compile=False)
        image = to_numpy(model(truth.astype("float32") / 127.5 - 1))
        image = np.clip(np.rint((image + 1) * 127.5), 0, 255).astype("uint8")
        psnr = [peak_signal_noise_ratio(*x, data_range=255) for x in zip(truth, image, strict=True)]
        assert float(row["psnr"]) == pytest.approx(np.mean(psnr), abs=0.01)
        kept = cv2.imread(str(run / "points" / "000004.png"))[..., ::-1].astype(int)
        assert min(np.abs(kept - x).max() for x in image) <= 1
        assert row["lpips"] == ""
        if row["variant"] == "none":
            assert row["live_codes"] == ""
        else:
            numbers = to_numpy(model.codebook.encode(model.encoder(truth / 127.5 - 1)))
            assert int(row["live_codes"]) == pytest.approx(len(np.unique(numbers)), abs=1)
    text = (folder / "ablation.md").read_text()
    assert "After 4 iterations" in text and f"| {float(rows[3]['psnr']):.2f} |" in text


def test_command_line():
    words = ["data/me", "out", "vpgc_256", "--variants", "hard grid", "none", "--seeds", "4"]
    words += ["--set", "steps=7", "--set", "window_size=3", "--part", "test", "--no-lpips"]
    assert ablation_codebook.arguments(words) == {
        "portrait": "data/me", "folder": "out", "preset": "vpgc_256", "seeds": [4],
        "variants": ["hard grid", "none"], "recipe": {"steps": 7}, "network": {"window_size": 3},
        "part": "test", "lpips": None,
    }  # fmt: skip
    # What is not given is what `main` and `run_ablation` have.
    assert set(ablation_codebook.arguments([])) == {"portrait", "folder", "preset"}


def test_going_on_trains_only_what_is_missing(folder, portrait, monkeypatch, capsys):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    before = (folder / "ablation.csv").read_text()
    monkeypatch.setattr(ablation, "train_codebook", killed)
    ablation_codebook.main(str(portrait.path), str(folder), "vpgc_tiny", **SETTINGS)
    assert (folder / "ablation.csv").read_text() == before
    assert "| fair vanilla | 1 |" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        run_ablation(portrait, folder, "vpgc_tiny", **{**SETTINGS, "seeds": [3, 4]})
    with pytest.raises(VPGCError, match="scored at other iterations than every 1"):
        run_ablation(portrait, folder, "vpgc_tiny", **{**SETTINGS, "points": 3})
    with pytest.raises(VPGCError, match="steps differs"):
        run_ablation(portrait, folder, "vpgc_tiny", **{**SETTINGS, "recipe": {"steps": 5}})
    with pytest.raises(VPGCError, match="was scored on validation frames"):
        run_ablation(portrait, folder, "vpgc_tiny", **SETTINGS, part="test")
    with pytest.raises(VPGCError, match="no part 'train' to score"):
        run_ablation(portrait, folder, "vpgc_tiny", **SETTINGS, part="train")
    with pytest.raises(VPGCError, match="was scored without LPIPS"):
        monkeypatch.setattr(ablation, "Features", lambda net: lambda pictures: [])
        run_ablation(portrait, folder, "vpgc_tiny", **{**SETTINGS, "lpips": "alex"})
    with pytest.raises(VPGCError, match="no variant 'round': choose among vanilla, fair"):
        run_ablation(portrait, folder, "vpgc_tiny", variants=["round"])


@pytest.mark.slow
def test_killed_run_ends_as_one_that_was_never_killed(folder, portrait, tmp_path, monkeypatch):
    end = ScoredPoints.on_epoch_end

    def killed(self, epoch, logs=None):
        if epoch:
            raise KeyboardInterrupt
        end(self, epoch, logs)

    settings = {**SETTINGS, "variants": ["fair vanilla"]}
    settings["recipe"] = {**SETTINGS["recipe"], "checkpoint_seconds": 0}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ScoredPoints, "on_epoch_end", killed)
        run_ablation(portrait, tmp_path / "a", "vpgc_tiny", **settings)
    with pytest.raises(VPGCError, match="was scored on validation frames"):
        run_ablation(portrait, tmp_path / "a", "vpgc_tiny", **settings, part="test")
    rows = run_ablation(portrait, tmp_path / "a", "vpgc_tiny", **settings)["rows"]
    wanted = list(csv.DictReader((folder / "ablation.csv").open()))[:2]
    assert [row["step"] for row in rows] == [2, 4]
    for row, whole in zip(rows, wanted, strict=True):
        assert row["psnr"] == pytest.approx(float(whole["psnr"]), abs=1e-3)


def test_variants_differ_in_one_thing_and_begin_alike():
    found = codebook_variants("vpgc_256")
    # The paper's numbers, and as many codes as the window holds.
    assert found["vanilla"]["num_codes"] == found["fair vanilla"]["num_codes"] == 1024
    assert found["split"]["num_codes"] == 4096
    # 16x16 cells, though its first convolution makes the map a fourth: 256 of 128 numbers.
    assert codebook_variants("vpgc_512_lite")["vanilla"]["num_codes"] == 256
    assert list(found)[4:] == ["soft grid r=1", "soft grid r=4", "none"]
    assert "soft grid r=2" in codebook_variants("vpgc_tiny", {"window_size": 2})
    weights, sizes = [], {}
    for name, settings in codebook_variants("vpgc_tiny").items():
        keras.utils.set_random_seed(5)
        model = PortraitAutoencoder.from_preset("vpgc_tiny", **settings)
        weights.append([to_numpy(v) for x in (model.encoder, model.decoder) for v in x.weights])
        sizes[name] = sum(v.numpy().size for v in model.codebook.trainable_weights)
    for other in weights[1:]:
        for a, b in zip(weights[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert sizes["vanilla"] == sizes["hard grid"] == sizes["soft grid r=4"]


def test_compiling_validating_and_scoring_take_no_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ablation, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ablation, "code_numbers", lambda autoencoder: None)
    model = types.SimpleNamespace(phase=False, autoencoder=None)
    model.optimizer = types.SimpleNamespace(iterations=np.zeros(()))
    points = ScoredPoints(tmp_path, None, 0, None, 5)
    points.set_model(model)

    def at(seconds, event, *arguments):
        now[0] = float(seconds)
        getattr(points, event)(*arguments)

    at(0, "on_train_begin")
    at(1, "on_train_batch_begin", 0)  # compiles
    at(10, "on_train_batch_begin", 1)
    at(12, "on_train_batch_begin", 2)
    model.phase = True  # the discriminator joins, which compiles
    at(40, "on_train_batch_begin", 3)
    at(43, "on_train_batch_begin", 4)
    at(48, "on_test_begin")
    at(90, "on_train_batch_begin", 0)
    at(97, "on_test_begin")
    assert points.seconds == 2 + 3 + 5 + 7


def test_tables_are_means_and_straight_lines():
    def row(name, seed, step, seconds, psnr):
        rest = {"ssim": 0.5, "lpips": None, "live_codes": None}
        return {
            "variant": name,
            "seed": seed,
            "step": step,
            "seconds": seconds,
            "psnr": psnr,
            **rest,
        }

    rows = [row("slow", s, *x) for s in (0, 1) for x in ((5, 20.0, 10.0 + s), (10, 40.0, 20.0 + s))]
    rows += [row("quick", 0, 5, 5.0, 30.0), row("quick", 0, 10, 30.0, 32.0)]
    rows += [row("late", 0, 5, 31.0, 3.0), row("late", 0, 10, 62.0, 4.0)]
    last, equal = ablation_table(rows).split("After 30 seconds each")
    assert "| slow | 2 | 20.50 ± 0.71 | 0.5000 ± 0.0000 | 40 ± 0 |" in last
    assert "| quick | 1 | 32.00 | 0.5000 | 30 |" in last and "LPIPS" not in last
    # Half of the way from 20 s to 40 s.
    assert "| slow | 2 | 15.50 ± 0.71 | 0.5000 ± 0.0000 | 8 ± 0 |" in equal
    assert "| quick | 1 | 32.00 | 0.5000 | 10 |" in equal
    assert "| late | 1 | - | - | - |" in equal


def test_codes_used_are_those_that_are_read(rng):
    frames = rng.integers(0, 256, size=(3, 64, 64, 3), dtype="uint8")
    model = PortraitAutoencoder.from_preset("vpgc_tiny", codebook="split", mode="hard", num_codes=9)
    z = to_numpy(model.encoder(frames / 127.5 - 1)).reshape(-1, 1, 4)
    codes = to_numpy(model.codebook.codes)
    assert codes_used(model, frames) == len(np.unique(((z - codes) ** 2).sum(-1).argmin(-1)))
    away = codes.copy()
    away[2:] += 100
    model.codebook.codes.assign(away)
    assert codes_used(model, frames) == 2
    assert codes_used(PortraitAutoencoder.from_preset("vpgc_tiny", codebook="none"), frames) is None


def test_eyes_and_mouth_are_cut_out(portrait):
    points = portrait.landmarks[portrait.indices("validation")[0]]
    for (rows, columns), part in zip(
        face_boxes(points, 64), (slice(36, 48), slice(48, 68)), strict=True
    ):
        x, y = 64 * points[part, 0], 64 * points[part, 1]
        assert columns.start <= x.min() and x.max() <= columns.stop
        assert rows.start <= y.min() and y.max() <= rows.stop
    (_, first), (_, second) = face_boxes(points, 64)
    assert first.stop - first.start == second.stop - second.start < 50
