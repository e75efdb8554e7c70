import json
import shutil

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.video import read_frames
from keras_vpgc.evaluation.run import evaluate_run


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
    assert cv2.imread(str(folder / "contact_sheet.png")).shape[0] == 5 * 160
    frames = list(read_frames(folder / "driven.mp4"))
    assert len(frames) == len(held_out) and frames[0].shape == (64, 128, 3)
    truth = portrait.frames(held_out[:1])[0]
    assert np.abs(frames[0][:, :64].astype(int) - truth).mean() < 8
    with np.load(folder / "scores.npz") as scores:
        assert scores["driven/psnr"].mean() == pytest.approx(rows["driven"]["psnr"], rel=1e-5)


@pytest.mark.once
def test_validation_part_and_moved_portrait(copy, portrait, tmp_path):
    shutil.move(shutil.copytree(portrait.path, tmp_path / "here"), tmp_path / "there")
    result = evaluate_run(
        copy, portrait=tmp_path / "there", part="validation", landmarks=False, progress=False
    )
    assert result["protocol"]["frames"] == len(portrait.indices("validation"))
    assert "landmark_distance" not in result["rows"]["driven"]


@pytest.mark.once
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
