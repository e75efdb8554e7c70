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


def start(what, portrait, *runs):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.train_run", what, portrait.path, *runs],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "what, stages",
    [
        ("stage-1", ["codebook"]),
        pytest.param(
            "both", ["codebook", "driver", "driver_on_images", "joint"], marks=pytest.mark.slow
        ),
    ],
    ids=["stage 1", "both"],
)
def test_killed_run_ends_as_one_that_was_never_killed(what, stages, portrait, tmp_path):
    """Optimisers, averages, order, augmentation, the discriminator's start: all go on."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for stage in stages:
        process = start(what, portrait, killed)
        checkpoint = killed / "checkpoints" / f"{stage}.npz"
        while not checkpoint.exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        # Somewhere in the epoch that follows.
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (killed / "puppet.keras").exists()
        process.stdout.close()
    process = start(what, portrait, killed, whole)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "goes on at step" in output
    assert not (killed / "checkpoints").exists()
    for name in ("autoencoder.keras", "puppet.keras"):
        a, b = (keras.saving.load_model(x / name, compile=False) for x in (killed, whole))
        for v, w in zip(a.weights, b.weights, strict=True):
            np.testing.assert_allclose(to_numpy(v), to_numpy(w), atol=1e-6, err_msg=v.path)
    logs = [(x / "logs" / "codebook.csv").read_text().splitlines() for x in (killed, whole)]
    assert [line.split(",")[1] for line in logs[0]] == [line.split(",")[1] for line in logs[1]]
    assert os.listdir(killed / "logs")
