import errno
import html
import json
import os
import re
import shutil

import cv2
import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import Portrait
from keras_vpgc.data.coverage import inspect
from keras_vpgc.data.video import read_frames
from keras_vpgc.evaluation import run as module
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.reenactment import verify

pytestmark = pytest.mark.once


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_run_is_scored_against_its_baselines(copy, portrait):
    result = evaluate_run(copy, progress=False)
    held_out = portrait.indices("test")
    rows = result["rows"]
    assert set(rows) == {
        "driven",
        "reconstructed",
        "nearest training frame",
        "nearest frame, warped",
        "mean training frame",
    }
    # The mean frame's score, by hand.
    mean = np.rint(portrait.frames(portrait.indices("train")).astype(float).mean(0))
    error = ((portrait.frames(held_out) - mean) ** 2).mean((1, 2, 3))
    wanted = (10 * np.log10(255**2 / error)).mean()
    assert rows["mean training frame"]["psnr"] == pytest.approx(wanted, abs=1e-3)
    # Two steps of training cannot beat it.
    assert result["beats_mean_frame"] is False
    assert rows["driven"]["frames"] == len(held_out)
    assert rows["nearest training frame"]["landmark_distance"] < 40
    assert result["protocol"]["data_range"] == 255

    folder = copy / "evaluation"
    assert json.loads((folder / "metrics.json").read_text())["rows"] == rows
    assert "| driven |" in (folder / "metrics.md").read_text()
    assert result["table"] in (copy / "MODEL_CARD.md").read_text()
    assert cv2.imread(str(folder / "contact_sheet.png")).shape[0] == 6 * 160
    said = verify(folder / "driven.mp4")
    assert said.exit_code == 0 and said.manifest["state"] == "valid"
    frames = list(read_frames(folder / "driven.mp4"))
    assert len(frames) == len(held_out) and frames[0].shape == (64, 128, 3)
    truth = portrait.frames(held_out[:1])[0]
    assert np.abs(frames[0][:, :64].astype(int) - truth).mean() < 8
    # Eyes and mouth have scores of their own.
    stored = json.loads((folder / "metrics.json").read_text())
    agreement = stored["eyes_and_mouth"]
    assert set(agreement) == set(rows) - {"mean training frame"}
    assert agreement["nearest training frame"]["mouth"]["correlation"] > 0.3
    assert "| mouth opening: correlation with the truth ↑ |" in stored["table"]
    crop = stored["protocol"]["crops"]["mouth"]
    assert crop["width"] > crop["height"] > 10
    assert rows["reconstructed"]["eyes_psnr"] > 5 and rows["mean training frame"]["mouth_ssim"] < 1
    assert cv2.imread(str(folder / "eyes_and_mouth.png")).std() > 5
    page = (folder / "report.html").read_text()
    for word in ("Eye opening", "Mouth opening", "blinks of the truth that are there"):
        assert word in page
    for word in ("nearest frame, warped", "lowest PSNR", "PSNR (dB) against yaw", "vpgc_tiny"):
        assert word in page
    assert "Shaded: what the frames of the training hold" in page
    # Everything is inside, and the dots of the curves lead to frames that are there.
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert set(re.findall(r'href="#(frame-\d+)"', page)) == set(
        re.findall(r'id="(frame-\d+)"', page)
    )
    with np.load(folder / "scores.npz") as scores:
        assert scores["driven/psnr"].mean() == pytest.approx(rows["driven"]["psnr"], rel=1e-5)
        each, faces = scores["driven/psnr"], scores["driven/face_psnr"]
    # By how near the training came to a frame, in pixels at 512.
    clip, train = portrait.landmarks, portrait.landmarks[portrait.indices("train")]
    apart = [512 * np.linalg.norm(train - clip[i], axis=-1).mean(-1).min() for i in held_out]
    assert sum(row["frames"] for row in result["by_distance"]) == len(held_out)
    for row in result["by_distance"]:
        inside = [row["from"] <= x < row["to"] for x in apart]
        assert row["frames"] == sum(inside)
        assert row["psnr"] == pytest.approx(each[inside].mean(), rel=1e-5)
        assert row["face_psnr"] == pytest.approx(faces[inside].mean(), rel=1e-5)
        assert f"from the nearest training frame ({sum(inside)} frames) |" in result["table"]
    assert "PSNR (dB) against distance of the nearest training frame" in page


def test_validation_part_and_moved_portrait(copy, portrait, tmp_path):
    shutil.move(shutil.copytree(portrait.path, tmp_path / "here"), tmp_path / "there")
    advice = inspect(Portrait(tmp_path / "there"))["advice"]
    result = evaluate_run(
        copy, portrait=tmp_path / "there", part="validation", landmarks=False, progress=False
    )
    assert result["protocol"]["frames"] == len(portrait.indices("validation"))
    assert "landmark_distance" not in result["rows"]["driven"]
    assert "eyes_and_mouth" not in result and "eyes_psnr" not in result["rows"]["driven"]
    assert not (copy / "evaluation" / "eyes_and_mouth.png").exists()
    page = html.unescape((copy / "evaluation" / "report.html").read_text())
    assert advice and all(item["text"] in page for item in advice)


def test_what_is_missing_is_named(copy, tmp_path):
    info = json.loads((copy / "run.json").read_text())
    info["portrait"] = str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(info))
    with pytest.raises(VPGCError, match="gone, which is gone: give its new place by --portrait"):
        evaluate_run(copy, progress=False)
    (copy / "puppet.keras").unlink()
    with pytest.raises(VPGCError, match="holds no puppet.keras: finish the training"):
        evaluate_run(copy, progress=False)
    with pytest.raises(VPGCError, match="no run folder"):
        evaluate_run(tmp_path, progress=False)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "hidden")


@pytest.fixture
def no_work(monkeypatch):
    """What is refused is refused before anything is computed."""

    def never(*args, **kwargs):
        raise AssertionError("frames were driven")

    monkeypatch.setattr(module.Puppet, "drive", never)


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(copy, monkeypatch):
    places = (
        (module.np, "savez_compressed"),
        (module.Path, "write_bytes"),
        (module.VideoWriter, "write"),
    )
    for place, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(VPGCError, match="no space left for .*/run/evaluation"):
                evaluate_run(copy, landmarks=False, progress=False)
        assert not (copy / "evaluation").exists()
    (copy / "evaluation").mkdir()
    (copy / "evaluation" / "scores.npz").write_text("mine")
    monkeypatch.setattr(module, "png", full)
    with pytest.raises(VPGCError, match="no space left"):
        evaluate_run(copy, landmarks=False, progress=False)
    assert [x.name for x in (copy / "evaluation").iterdir()] == ["scores.npz"]
    assert (copy / "evaluation" / "scores.npz").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named_first(copy, no_work, monkeypatch):
    (copy / "evaluation").write_text("mine")
    with pytest.raises(VPGCError, match="/run/evaluation, the folder of the scores, is a file"):
        evaluate_run(copy, progress=False)
    (copy / "evaluation").unlink()

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("keras_vpgc.errors.tempfile.TemporaryFile", read_only)
    with pytest.raises(
        VPGCError, match="evaluation cannot be written .Read-only file system.: copy the"
    ):
        evaluate_run(copy, progress=False)


def test_another_portrait_is_refused(copy, portrait, no_work, tmp_path):
    other = shutil.copytree(portrait.path, tmp_path / "other")
    info = json.loads((other / "portrait.json").read_text())
    (other / "portrait.json").write_text(json.dumps({**info, "source_sha256": "0"}))
    with pytest.raises(VPGCError, match="other is not the portrait that .*source_sha256 differs"):
        evaluate_run(copy, portrait=other, progress=False)
    (other / "portrait.json").write_text(json.dumps(info))
    with np.load(other / "tracking.npz") as file:
        arrays = dict(file)
    key = next(k for k, v in arrays.items() if v.dtype.kind == "f")
    np.savez(other / "tracking.npz", **{**arrays, key: arrays[key] + 1})
    with pytest.raises(VPGCError, match="changed since .tracking_sha256 differs"):
        evaluate_run(copy, portrait=other, progress=False)


def test_weights_that_are_not_numbers_are_refused(copy, no_work):
    model = keras.saving.load_model(copy / "puppet.keras", compile=False)
    weight = model.trainable_weights[-1]
    weight.assign(np.full(weight.shape, np.nan))
    model.save(copy / "puppet.keras")
    with pytest.raises(VPGCError, match="puppet.keras holds weights that are NaN or infinite"):
        evaluate_run(copy, progress=False)


def test_seen_frames_and_damaged_files_are_refused(copy, no_work):
    for part in ("train", "all"):
        with pytest.raises(VPGCError, match=f"no held-out part '{part}': choose one of test, val"):
            evaluate_run(copy, part=part, progress=False)
    whole = (copy / "autoencoder.keras").read_bytes()
    (copy / "autoencoder.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VPGCError, match="autoencoder.keras cannot be loaded .* it is damaged"):
        evaluate_run(copy, progress=False)
    (copy / "run.json").write_text('{"schema_version": 1}')
    with pytest.raises(VPGCError, match="run.json is damaged: train again"):
        evaluate_run(copy, progress=False)
