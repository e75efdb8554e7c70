"""Two devices (of the processor) compute what one does with the same batches."""

import csv
import json
import os
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.training.devices import check_division, resolve_devices
from tests.layers.layer_case import to_numpy
from tests.training.train_run import NETWORK

TORCH = keras.backend.backend() == "torch"
SCRIPT = ["-m", "tests.training.train_devices"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*arguments, **environment):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags, **environment},
    )
    return result.returncode, result.stdout


def python(*arguments, **environment):
    code, output = run(*arguments, **environment)
    assert code == 0, output


# Layer by layer, the exchange between two processes is PyTorch's own.
MODES = ["trace", "off"] if TORCH else [""]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_two_devices_train_as_one(mode, tmp_path):
    """Three optimisers, averages, adaptive lambda, feature matching, pairs of frames."""
    if TORCH:
        # Recorded steps hold the exchange between the processes.
        same = {"ACCUMULATE": "1" if mode == "trace" else "2"}
        python(*SCRIPT, "part", tmp_path, 1, KERAS_VPGC_TORCH="off", **same)
        python(*TORCHRUN, *SCRIPT, "part", tmp_path, 2, KERAS_VPGC_TORCH=mode, **same)
    else:
        python(*SCRIPT, "part", tmp_path, 1, 2)
    one, two = (np.load(tmp_path / count / "end.npz") for count in "12")
    assert sorted(one.files) == sorted(two.files)
    assert {"codebook/lambda", "codebook/val_psnr", "driver/loss"} <= set(one.files)
    for name in one.files:
        # L1's gradient leaps where rounding takes an error across zero. Gradients that are not
        # averaged give differences of 1e-2.
        np.testing.assert_allclose(two[name], one[name], rtol=2e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_puppet_of_two_devices_is_that_of_one(portrait, tmp_path):
    """All phases of `train_puppet(devices=2)`."""
    python(*SCRIPT, "whole", tmp_path, 1, 2, PORTRAIT=str(portrait.path))
    for name in ("codebook", "driver", "driver_on_images", "joint"):
        logs = []
        for count in (1, 2):
            with open(tmp_path / str(count) / "logs" / f"{name}.csv") as file:
                logs.append(list(csv.DictReader(file)))
        # Adam makes full steps of gradients that are nothing but rounding, so after dozens of steps
        # two runs are alike, not equal.
        for one, two in zip(*logs, strict=True):
            assert float(two["val_loss"]) == pytest.approx(float(one["val_loss"]), rel=0.1), name
    one, two = (keras.saving.load_model(tmp_path / c / "puppet.keras") for c in "12")
    landmarks = portrait.landmarks[None, 20:27].astype("float32")
    difference = np.abs(to_numpy(one(landmarks)) - to_numpy(two(landmarks)))
    assert difference.mean() < 1e-2
    assert json.loads((tmp_path / "2" / "run.json").read_text())["devices"] == 2


def test_more_devices_than_there_are():
    with pytest.raises(VPGCError, match="1000 devices were asked for, but .* give --devices"):
        resolve_devices(1000)
    with pytest.raises(VPGCError, match="one device or more, not 0"):
        resolve_devices(0)


@pytest.mark.parametrize(
    "devices, batch, driver_batch, temporal, message",
    [
        (2, 3, 4, 0.0, "batch_size=3 cannot be divided among 2 devices: choose 2 or 4"),
        (4, 8, 2, 0.0, "driver_batch_size=2 cannot be divided among 4 devices: choose 4"),
        (2, 2, 6, 1.0, "driver_batch_size=6 .* whole pairs of frames each: choose 4 or 8"),
        (2, 2, 8, 1.0, None),
        (1, 3, 5, 0.0, None),
    ],
)
@pytest.mark.once
def test_batches_that_cannot_be_divided(devices, batch, driver_batch, temporal, message):
    recipe = types.SimpleNamespace(
        batch_size=batch,
        driver_batch_size=driver_batch,
        temporal_weight=temporal,
        accumulate=1,
    )
    if message is None:
        check_division(devices, recipe)
        return
    with pytest.raises(VPGCError, match=message):
        check_division(devices, recipe)


def test_accumulation_on_several_devices_where_it_works():
    recipe = types.SimpleNamespace(
        batch_size=4, driver_batch_size=4, temporal_weight=0.0, accumulate=2
    )
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(VPGCError, match="accumulate=2 works on one device only"):
            check_division(2, recipe)
    else:
        check_division(2, recipe)


@pytest.mark.slow
@pytest.mark.once
def test_what_a_process_of_pytorch_says_reaches_the_caller(portrait, tmp_path):
    (tmp_path / "run").write_text("a file")
    command = ["-m", "keras_vpgc.cli", "train", portrait.path, "--preset", "vpgc_tiny"]
    code, output = run(*command, "--devices", 2, "-o", tmp_path / "run", KERAS_BACKEND="torch")
    assert code == 1
    (message,) = [x for x in output.splitlines() if x.startswith("vpgc:")]
    assert "is a file: give a folder for the run" in message
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.once
def test_killed_training_of_two_processes_goes_on_on_one(portrait, tmp_path):
    """`vpgc train --devices 2` on PyTorch; its processes end with it."""
    folder = tmp_path / "run"
    command = ["-m", "keras_vpgc.cli", "train", portrait.path, "-o", folder]
    command += ["--preset", "vpgc_tiny"]
    settings = {**NETWORK, "batch_size": 4, "steps": 60, "driver_steps": 4, "average": 0.9}
    settings |= {"driver_image_steps": 4, "previews": False, "checkpoint_seconds": 0}
    for key, value in settings.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    killed = subprocess.Popen(
        [sys.executable, *map(str, command), "--devices", "2"],
        stdout=subprocess.PIPE,
        env={**os.environ, "KERAS_BACKEND": "torch"},
    )
    while not (folder / "checkpoints" / "codebook.npz").exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    # The processes have the same standard output: it ends when they do.
    killed.communicate(timeout=20)
    code, output = run(*command, "--devices", 1, KERAS_BACKEND="torch")
    assert code == 0 and "Stage 1, the codebook goes on at step" in output
    assert json.loads((folder / "run.json").read_text())["devices"] == 2
    code, output = run(
        *command[:-2], "--set", "previews=true", "--devices", 2, KERAS_BACKEND="torch"
    )
    assert code == 0, output


@pytest.mark.once
@pytest.mark.slow
def test_torchrun_of_another_number(portrait, tmp_path):
    command = ["-m", "keras_vpgc.cli", "train", portrait.path, "--preset", "vpgc_tiny"]
    environment = {"KERAS_BACKEND": "torch", "WORLD_SIZE": "3"}
    code, output = run(*command, "--devices", 2, "-o", tmp_path / "run", **environment)
    assert code == 1 and "torchrun started 3 processes for 2 devices" in output
