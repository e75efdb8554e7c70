"""Processes that are really killed, and go on."""

import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tests.layers.layer_case import to_numpy


def start(what, *runs, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.train_run", what, *runs],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def kill_after(checkpoint, *arguments, **environment):
    """Kill a process in the epoch that follows its first checkpoint."""
    process = start(*arguments, **environment)
    while not checkpoint.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def finish(*arguments, **environment):
    process = start(*arguments, **environment)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "goes on at step" in output


@pytest.mark.slow
def test_killed_stage_ends_as_one_that_was_never_killed(tmp_path):
    """Three optimisers, averages, order, sampling, augmentation, half an update: all go on."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after(killed / "checkpoints" / "codebook.npz", "stage", killed)
    assert not (killed / "end.npz").exists()
    finish("stage", killed, whole)
    a, b = (np.load(x / "end.npz") for x in (killed, whole))
    assert len(a.files) > 40
    for name in a.files:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6)
    logs = [(x / "logs" / "codebook.csv").read_text().splitlines() for x in (killed, whole)]
    assert [x.split(",")[:2] for x in logs[0]] == [x.split(",")[:2] for x in logs[1]]


@pytest.mark.slow
def test_run_killed_in_each_of_its_stages(portrait, tmp_path):
    """All phases, the discriminator joining in the midst of an epoch."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {"PORTRAIT": str(portrait.path)}
    for stage in ("codebook", "driver", "driver_on_images", "joint"):
        kill_after(killed / "checkpoints" / f"{stage}.npz", "both", killed, **environment)
        assert not (killed / "puppet.keras").exists()
    finish("both", killed, whole, **environment)
    assert not (killed / "checkpoints").exists()
    same(killed, whole, ("autoencoder.keras", "driver.keras", "puppet.keras"))


@pytest.mark.slow
def test_lesson_killed_in_the_midst_of_it(run, tmp_path):
    """What the teacher shows of which poses goes on too."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {"TEACHER": str(run)}
    kill_after(killed / "checkpoints" / "joint.npz", "distill", killed, **environment)
    assert not (killed / "puppet.keras").exists()
    finish("distill", killed, whole, **environment)
    same(killed, whole, ["puppet.keras"])


def same(killed, whole, names):
    for name in names:
        a, b = (keras.saving.load_model(x / name, compile=False) for x in (killed, whole))
        for v, w in zip(a.weights, b.weights, strict=True):
            np.testing.assert_allclose(to_numpy(v), to_numpy(w), atol=1e-6, err_msg=v.path)
