"""What is said of a training, told from its files."""

import json
import os

import numpy as np
import pytest

from keras_vpgc.config import resolve
from keras_vpgc.studio import progress

pytestmark = pytest.mark.once


def make_run(folder, logs, done=False, seed=0, **recipe):
    """A run folder with logs: stage -> seconds of its epochs of 40 steps."""
    recipe = {"steps": 400, "driver_steps": 200, "driver_image_steps": 0, **recipe}
    config = resolve("vpgc_tiny", recipe=recipe, seed=seed)
    (folder / "logs").mkdir(parents=True)
    info = {"schema_version": 1, "portrait": "p", "portrait_identity": {}, "devices": 1}
    info |= {"backend": "jax", "config": config.model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps(info))
    for stage, seconds in logs.items():
        lines = ["epoch,step,seconds,loss,val_loss,psnr,val_psnr"]
        for epoch, used in enumerate(seconds):
            lines.append(f"{epoch},{40 * (epoch + 1)},{used},0.{9 - epoch},0.5,20.5,")
        file = folder / "logs" / f"{stage}.csv"
        file.write_text("\n".join(lines) + "\n")
        os.utime(file, (1000.0, 1000.0))
    if done:
        (folder / "puppet.keras").touch()
        (folder / "driver.keras").touch()
    return folder


def test_time_left_is_that_of_the_last_epochs(tmp_path):
    # The first one compiles, so it does not count.
    run = make_run(tmp_path / "r", {"codebook": [90.0, 20.0, 20.0, 20.0]})
    found = progress.read_progress(run, now=1000.0)
    first, second = found.stages
    assert (first.name, first.steps, first.total, first.seconds) == ("codebook", 160, 400, 150)
    assert first.left == pytest.approx(240 * 0.5) and first.measured
    # What the epoch that runs has used is not left any more, but never all of it.
    assert progress.read_progress(run, now=1010.0).stages[0].left == pytest.approx(110)
    assert progress.read_progress(run, now=9000.0).stages[0].left == pytest.approx(101)
    assert second.left is None and second.steps == 0
    assert found.share == pytest.approx(160 / 600)
    assert found.sentence == "About 2 min left, and then Driver, whose speed shows when it begins."


def test_what_has_not_begun_is_told_by_runs_that_compute_the_same(tmp_path):
    run = make_run(tmp_path / "r", {"codebook": [90.0, 20.0]})
    same = make_run(tmp_path / "a", {"codebook": [9.0, 4.0], "driver": [5.0, 8.0, 8.0]}, seed=5)
    other = make_run(tmp_path / "b", {"driver": [5.0, 1.0]}, driver_batch_size=2)
    assert progress.read_progress(run, [other], now=1000.0).stages[1].left is None
    found = progress.read_progress(run, [other, same], now=1000.0)
    assert found.stages[1].left == pytest.approx(200 * 0.2) and not found.stages[1].measured
    assert found.sentence.endswith("a part is taken from your earlier runs of this preset.")


def test_nothing_is_promised_before_something_is_known(tmp_path):
    assert progress.read_progress(tmp_path / "none").stages == []
    run = make_run(tmp_path / "r", {})
    sentence = progress.read_progress(run).sentence
    assert sentence == "How long it takes is told once some steps are done."
    (run / "logs" / "codebook.csv").write_text("epoch,step,seconds\n0,40,")
    assert progress.read_progress(run).share == 0.0
    (run / "run.json").write_text("{")
    assert progress.read_progress(run).stages == []


def test_a_stage_that_ended_early_and_a_run_that_is_done(tmp_path):
    logs = {"codebook": [9.0, 4.0], "driver": [2.0]}
    run = make_run(tmp_path / "r", logs)
    first, second = progress.read_progress(run, now=1000.0).stages
    assert first.left == 0 and second.left == pytest.approx(160 * 0.05)
    run = make_run(tmp_path / "d", logs, done=True)
    found = progress.read_progress(run)
    assert (found.done, found.share, found.sentence) == (True, 1.0, "The training is done.")


def test_the_discriminator_is_announced_and_the_limit_counts(tmp_path):
    run = make_run(
        tmp_path / "r", {"codebook": [9.0, 20.0]}, adversarial="hinge", adversarial_start=120
    )
    assert "once the discriminator joins, at step 120." in progress.read_progress(run).sentence
    run = make_run(tmp_path / "s", {"codebook": [9.0, 20.0]}, time_limit=60)
    assert progress.read_progress(run, now=1000.0).stages[0].left == pytest.approx(31)


def test_curves_count_through_the_stages(tmp_path):
    run = make_run(tmp_path / "r", {"codebook": [1.0, 1.0], "driver": [1.0]})
    points = progress.curves({"mine": run})
    losses = [(x["stage"], x["step"], x["value"]) for x in points if x["curve"] == "loss"]
    assert losses == [("Codebook", 40, 0.9), ("Codebook", 80, 0.8), ("Driver", 120, 0.9)]
    # What has no value is no point.
    assert {x["curve"] for x in points} == {"loss", "loss, held out", "PSNR"}
    assert all(np.isfinite(x["value"]) for x in points)


def test_newest_pictures(tmp_path):
    folder = tmp_path / "r" / "previews"
    folder.mkdir(parents=True)
    names = ("codebook_000040", "codebook_000080", "codebook_inside_000040", "driver_000020")
    for name in names:
        (folder / f"{name}.png").touch()
    found = [(caption, file.stem) for caption, file in progress.previews(tmp_path / "r")]
    assert found == [
        ("Codebook, step 80", "codebook_000080"),
        ("Driver, step 20", "driver_000020"),
        ("Inside the codebook, step 40", "codebook_inside_000040"),
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 s"), (3, "5 s"), (44, "45 s"), (89, "90 s"), (100, "2 min"), (5400, "1 h 30 min")],
)
def test_times_in_words(seconds, words):
    assert progress.clock(seconds) == words


def test_scores_of_runs(tmp_path):
    run = make_run(tmp_path / "r", {"codebook": [10.0], "driver": [5.0]}, done=True)
    metrics = {"rows": {"driven": {"psnr": 24.12345, "ssim": 0.8, "landmark_distance": 3.0}}}
    (run / "evaluation").mkdir()
    (run / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    other = make_run(tmp_path / "s", {"codebook": [10.0]})
    first, second = progress.scores({"mine": run, "other": other})
    assert first["psnr"] == 24.123 and first["steps"] == "40 + 40" and first["trained"] == "15 s"
    assert second["psnr"] == "not scored yet" and second["preset"] == "vpgc_tiny"
