"""What all tests share."""

import contextlib
import importlib.metadata
import os
import pickle
import re
import shutil
from pathlib import Path

# The log of the backends' start-up and XLA's threads are not the tests' subject.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and compute little. XLA ends the process where it does not know a flag.
with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12):
        os.environ.setdefault(
            "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
        )
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import numpy as np
import pytest

# Keras is imported where it is used: the process that hands out the tests does without.

# A file whose tests all run once.
ONCE = re.compile(r"^pytestmark = .*\bmark\.once\b", re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """Importing files whose tests are all left out takes each worker many seconds."""
    if "not once" in config.option.markexpr and collection_path.suffix == ".py":
        return ONCE.search(collection_path.read_text()) is not None or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`slow_on("tensorflow")`: slow there, and run under the others each time."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    for item in items:
        if any(backend in mark.args for mark in item.iter_markers("slow_on")):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def seeded():
    import keras

    keras.utils.set_random_seed(1)


@contextlib.contextmanager
def untraced():
    """TensorFlow takes far longer to trace a training step than to run it a few times."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eager_tensorflow():
    with untraced():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    folder = os.environ.get("KERAS_VPGC_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("KERAS_VPGC_TEST_DATA is not set to a folder of portrait clips")
    return Path(folder)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory):
    """`make_once(name, make)` is a folder that `make(folder)` filled, once for all workers.

    `tests/run.py` gives the place, for all backends. No test may change what is there.
    """
    from filelock import FileLock

    place = Path(os.environ.get("KERAS_VPGC_TEST_SHARED") or tmp_path_factory.mktemp("shared"))

    def made(name, make):
        folder, whole = place / name, place / f"{name}.made"
        with FileLock(place / f"{name}.lock"):
            if not whole.exists():
                # Left by a maker that failed.
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def clip(make_once) -> Path:
    """A rights-clean clip of a moving face, 75 frames of 256x256."""
    from examples.animated_portrait import write

    folder = make_once("clip", lambda to: write(to / "astronaut.mp4", seconds=3, size=256))
    return folder / "astronaut.mp4"


@pytest.fixture(scope="session")
def portrait(clip, make_once):
    from keras_vpgc.data import Portrait, prepare

    folder = make_once("portrait", lambda to: prepare(clip, to / "p", size=64, progress=False))
    return Portrait(folder / "p")


@pytest.fixture(scope="session")
def run(portrait, make_once) -> Path:
    """A run of a few steps: everything is there, nothing is learned."""
    import keras

    from keras_vpgc.training.recipes import train_puppet

    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 2, "previews": False}
    # Without shortcuts an untrained puppet is smooth, which a compressed video can hold.
    network = {"shortcuts": False}

    def train(to):
        with untraced():
            train_puppet(portrait, to / "r", "vpgc_tiny", network=network, recipe=recipe, verbose=0)

    return make_once(f"run-{keras.backend.backend()}", train) / "r"


@pytest.fixture(scope="session")
def small_export(run, make_once):
    """`small.keras` of random weights, and what exporting it to ONNX returned."""
    import keras

    import keras_vpgc
    from keras_vpgc.export import export_puppet
    from tests.export.puppets import build

    def make(to):
        keras.utils.set_random_seed(1)
        build(keras_vpgc.load(run).metadata).save(to / "small.keras")
        # Beside nothing else.
        done = export_puppet(to / "small.keras", to / "onnx" / "small.onnx")
        (to / "export.pickle").write_bytes(pickle.dumps(done))

    folder = make_once("export", make)
    return folder / "small.keras", pickle.loads((folder / "export.pickle").read_bytes())


@pytest.fixture(scope="session")
def chromium():
    """What starts a headless Chromium, and its path."""
    from playwright.sync_api import sync_playwright

    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail("There is no Chromium: install it, or name it in CHROMIUM.")
    with sync_playwright() as playwright:
        yield playwright.chromium, found


@pytest.fixture
def page(chromium, tmp_path):
    """An empty page without the network; errors in its scripts fail the test.

    Its profile is on the disk, as a user's is: what an incognito window stores lives in a process
    that may be restarted.
    """
    start, path = chromium
    # Root, as in containers, has no sandbox.
    context = start.launch_persistent_context(
        tmp_path / "profile",
        executable_path=path,
        args=["--no-sandbox", "--disable-dev-shm-usage"],
        offline=True,
        viewport={"width": 1280, "height": 900},
    )
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors


@pytest.fixture
def vpgc(monkeypatch, capsys):
    """Run the command in this process: `vpgc("prepare", ...)` -> (exit code, out, err)."""

    import sys

    from keras_vpgc.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vpgc", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call
