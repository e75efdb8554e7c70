"""Steps and models recorded as one graph on PyTorch, against the same run layer by layer."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    found = {}
    for mode in ("off", "trace"):
        env = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_VPGC_TORCH": mode}
        target = folder / f"{mode}.npz"
        subprocess.run(
            [sys.executable, "-m", "tests.backend.recorded", target], check=True, env=env
        )
        with np.load(target) as stored:
            found[mode] = dict(stored)
    return found["off"], found["trace"]


def test_training_is_the_same(results):
    off, recorded = results
    assert off.keys() == recorded.keys()
    logs = [name for name in off if name.startswith("log/")]
    assert {"log/lambda", "log/matching", "log/driver/loss", "log/joint/loss"} <= set(logs)
    for name in logs:
        np.testing.assert_allclose(recorded[name], off[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for name in (name for name in off if name.startswith("weight/")):
        np.testing.assert_allclose(recorded[name], off[name], atol=1e-6, err_msg=name)


def test_models_give_the_same_images(results):
    off, recorded = results
    for name in ("image/a", "image/b", "image/c"):
        np.testing.assert_allclose(recorded[name], off[name], atol=1e-6)
    assert np.abs(off["image/a"] - off["image/b"]).max() > 1e-3


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so(results):
    off, recorded = results
    np.testing.assert_array_equal(recorded["asks"], [[2, 2], [-2, -2]])
    assert not len(off["warnings"])
    # Nothing that ran before it was known counts twice.
    assert recorded["counted"] == off["counted"] == 1
    assert recorded["constant"] == 3
    said, again = recorded["warnings"]
    assert said == again and said.startswith(
        "This function could not be recorded as one graph and runs layer by"
    )
