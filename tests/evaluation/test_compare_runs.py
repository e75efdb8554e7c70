import json

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from examples import compare_baselines
from keras_vpgc import VPGCError
from keras_vpgc.evaluation.compare_runs import compare_runs
from keras_vpgc.reenactment.puppet import Puppet

pytestmark = pytest.mark.once


def test_runs_and_baselines_are_scored_on_the_same_frames(run, portrait, tmp_path):
    seen = {}
    result = compare_runs(
        {"a": run, "b": run},
        portrait,
        tmp_path / "c",
        lpips=None,
        on_frames=seen.__setitem__,
        progress=False,
    )
    untrained = ["nearest training frame", "nearest frame, warped", "mean training frame"]
    assert list(result["rows"]) == ["a", "b", *untrained]
    assert list(seen) == ["truth", *result["rows"]]
    held = portrait.indices("test")
    np.testing.assert_array_equal(seen["truth"], portrait.frames(held, 64))
    # The whole stretch is driven: its frames are each other's context.
    driven = Puppet.load(run).drive(portrait.landmarks[held[0] : held[-1] + 1])
    np.testing.assert_array_equal(seen["a"], driven[held - held[0]])
    for name, row in result["rows"].items():
        psnr = [
            peak_signal_noise_ratio(t, p, data_range=255)
            for t, p in zip(seen["truth"], seen[name], strict=True)
        ]
        assert row["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
        assert ("landmark_distance" in row) == (name != "mean training frame") or row["left_out"]
    assert json.loads((tmp_path / "c" / "comparison.json").read_text()) == result
    assert {x.name for x in (tmp_path / "c").iterdir()} == {
        "comparison.json",
        "comparison.md",
        "scores.npz",
        "contact_sheet.png",
    }
    with np.load(tmp_path / "c" / "scores.npz") as stored:
        np.testing.assert_array_equal(stored["frames"], held)


def test_bad_comparisons_are_refused(run, portrait, tmp_path):
    with pytest.raises(VPGCError, match="no run to compare"):
        compare_runs({}, portrait)
    with pytest.raises(VPGCError, match="is no run folder"):
        compare_runs({"a": tmp_path}, portrait)
    with pytest.raises(VPGCError, match="A run cannot be called 'truth'"):
        compare_runs({"truth": run}, portrait)
    with pytest.raises(VPGCError, match="no held-out part 'train'"):
        compare_runs({"a": run}, portrait, part="train")
    (tmp_path / "file").write_text("")
    with pytest.raises(VPGCError, match="is a file"):
        compare_runs({"a": run}, portrait, tmp_path / "file")
    other = tmp_path / "other"
    other.mkdir()
    info = json.loads((run / "run.json").read_text())
    info["portrait_identity"]["size"] = 1
    (other / "run.json").write_text(json.dumps(info))
    with pytest.raises(VPGCError, match="compare runs of one portrait"):
        compare_runs({"a": run, "b": other}, portrait)


# Three trainings: each system has its own test, and so has the comparison.
@pytest.mark.slow
def test_example_trains_and_scores_all_systems(portrait, tmp_path, capsys, monkeypatch):
    recipe = {"steps": 2, "driver_steps": 1, "driver_image_steps": 1, "previews": False}
    monkeypatch.setattr(compare_baselines, "compare_runs", _without_lpips(compare_runs))
    compare_baselines.main(portrait.path, tmp_path / "c", "vpgc_tiny", recipe=recipe, verbose=0)
    said = capsys.readouterr().out
    for name in ("puppet", "vanilla codebook", "direct mapping", "nearest frame, warped"):
        assert f"| {name} |" in said
    effort = json.loads((tmp_path / "c" / "effort.json").read_text())
    # One stage, as many iterations as the others' three.
    assert effort["direct mapping"][0] == effort["puppet"][0] == 4
    assert (tmp_path / "c" / "direct_mapping.mp4").stat().st_size > 0
    assert (tmp_path / "c" / "truth.mp4").stat().st_size > 0


def _without_lpips(function):
    return lambda *args, **kwargs: function(*args, **kwargs, lpips=None, progress=False)
