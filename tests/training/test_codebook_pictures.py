import csv

import cv2
import keras
import numpy as np
import pytest

from keras_vpgc.models import PortraitAutoencoder
from keras_vpgc.training import CodebookPictures, CodebookTrainer
from keras_vpgc.training.recipes import train_codebook
from keras_vpgc.visualization import CodebookView
from tests.training.test_callbacks import events_of
from tests.visualization.test_codebook_view import SMALL

pytestmark = pytest.mark.once


def test_numbers_and_pictures_of_each_epoch(rng, tmp_path, eager_tensorflow):
    images = rng.integers(0, 256, size=(4, 32, 32, 3), dtype="uint8")
    autoencoder = PortraitAutoencoder.from_preset("vpgc_tiny", **SMALL)
    trainer = CodebookTrainer(autoencoder)
    trainer.compile(jit_compile=False)
    watch = CodebookPictures(images, tmp_path / "events", tmp_path / "p", steps_per_epoch=2)
    seen = []
    log = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    trainer.fit(images, batch_size=2, epochs=2, callbacks=[watch, log], verbose=0)
    wanted = CodebookView(autoencoder).usage(images)
    assert seen[1]["code_perplexity"] == pytest.approx(wanted.total_perplexity, rel=1e-3)
    assert seen[1]["codes_used"] == pytest.approx(wanted.total_used, abs=0.01)
    assert seen[0]["code_perplexity"] != seen[1]["code_perplexity"]
    tags = events_of(tmp_path / "events")
    names = ("usage", "attention", "cell_error", "texture_prior", "code_perplexity", "codes_used")
    assert tags == {(step, f"codebook/{name}") for step in (2, 4) for name in names}
    files = sorted(x.name for x in (tmp_path / "p").iterdir())
    assert files == ["codebook_inside_000002.png", "codebook_inside_000004.png"]
    assert np.ptp(cv2.imread(str(tmp_path / "p" / files[0]))) == 255


def test_a_run_writes_them_if_asked(portrait, tmp_path):
    recipe = {"steps": 2, "codebook_pictures": True}
    train_codebook(portrait, tmp_path / "r", "vpgc_tiny", recipe=recipe, verbose=0)
    assert (tmp_path / "r" / "previews" / "codebook_inside_000002.png").exists()
    with open(tmp_path / "r" / "logs" / "codebook.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["code_perplexity"]) > 1 and 0 < float(row["codes_used"]) <= 1
    tags = events_of(tmp_path / "r" / "logs" / "tensorboard")
    assert {(2, "codebook/usage"), (2, "codebook/code_perplexity")} <= tags
