"""The three backends against each other, each in its own process."""

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_vpgc.models import PortraitAutoencoder, PortraitDriver, PortraitReenactor

pytestmark = pytest.mark.once
PAIRS = [("jax", "torch"), ("jax", "tensorflow"), ("torch", "tensorflow")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("across")
    rng = np.random.default_rng(0)
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny")
    driver = PortraitDriver.from_preset("vpgc_tiny", codes=autoencoder.codebook.codes)
    reenactor = PortraitReenactor.from_models(autoencoder, driver)
    # Weights of a trained puppet's size, so that the image fills its range.
    for variable in reenactor.weights:
        variable.assign(1.5 * np.asarray(variable.numpy()))
    reenactor.save(folder / "puppet.keras")
    np.savez(
        folder / "in.npz",
        images=rng.uniform(-1, 1, size=(2, 64, 64, 3)).astype("float32"),
        landmarks=rng.uniform(0.2, 0.8, size=(2, 7, 68, 2)).astype("float32"),
        puppet=str(folder / "puppet.keras"),
    )
    found = {}
    for name in ("jax", "torch", "tensorflow"):
        target = folder / f"{name}.npz"
        subprocess.run(
            [sys.executable, "-m", "tests.backend.one_backend", folder / "in.npz", target],
            check=True,
            env={**os.environ, "KERAS_BACKEND": name},
        )
        with np.load(target) as stored:
            found[name] = dict(stored)
    return found


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_gradients_agree(pair, results):
    a, b = (results[name] for name in pair)
    names = [n for n in a if n.startswith("grad/")]
    assert len(names) > 40
    size = np.sqrt(np.mean([np.mean(a[n] ** 2) for n in names]))
    for name in names:
        assert np.abs(a[name] - b[name]).max() <= 1e-4 * max(size, np.abs(a[name]).max()), name
    difference = np.concatenate([(a[n] - b[n]).ravel() for n in names])
    assert np.sqrt(np.mean(difference**2)) <= 2e-5 * size


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_step_with_all_losses_agrees(pair, results):
    a, b = (results[name] for name in pair)
    logs = [n for n in a if n.startswith("log/")]
    assert {"log/l1", "log/vq", "log/adversarial", "log/discriminator", "log/lambda"} <= set(logs)
    for name in logs:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-3, err_msg=name)
    for name in (n for n in a if n.startswith("weight/")):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_same_puppet_file_gives_the_same_images(pair, results):
    a, b = (results[name]["image"] for name in pair)
    assert a.std() > 0.05
    assert np.abs(a - b).max() <= 2e-3
