import hashlib
import json
import shutil

import pytest

from keras_vpgc.data import Portrait
from keras_vpgc.data.coverage import inspect
from keras_vpgc.training.model_card import write_model_card
from keras_vpgc.training.recipes import train_puppet

pytestmark = pytest.mark.once


@pytest.fixture
def copy(run, tmp_path):
    """The run, trained before, as its training left it."""
    return shutil.copytree(run, tmp_path / "mine")


def test_card_says_what_is_known_and_what_to_fill_in(copy, portrait, clip, tmp_path):
    card = (copy / "MODEL_CARD.md").read_text()
    _, header, body = card.split("---\n", 2)
    keys = [line.split(":")[0] for line in header.splitlines() if not line.startswith(("#", "-"))]
    assert keys == ["library_name", "license", "tags"]
    titles = [line[3:] for line in body.splitlines() if line.startswith("## ")]
    assert titles == [
        "What it is",
        "Person and consent",
        "Footage and licence",
        "Training and results",
        "Intended use",
        "Misuse",
        "Limits",
    ]
    consent = body.split("## Person and consent")[1].split("## ")[0]
    assert consent.count("**FILL IN**") == 6
    puppet = hashlib.sha256((copy / "puppet.keras").read_bytes()).hexdigest()
    source = hashlib.sha256(clip.read_bytes()).hexdigest()
    for words in (
        f"| SHA-256 | `{puppet}` |",
        f"| SHA-256 | `{source}` |",
        "| File | `astronaut.mp4` |",
        "| Duration | 3.0 s |",
        "| Resolution | 256x256 pixels |",
        "64x64 pixels. Method: grid-based codebook",
        "mediapipe-face-landmarker",
        "Apache-2.0",
        "| Preset | vpgc_tiny |",
        "| Seed | 0 |",
        "| codebook | 2 |",
        "| driver | 2 |",
        "None yet: `vpgc evaluate",
        "### Coverage",
        "Not measured: `vpgc inspect p`",
    ):
        assert words in body
    inspected = Portrait(shutil.copytree(portrait.path, tmp_path / "q"))
    coverage = inspect(inspected)
    assert write_model_card(copy, inspected)
    body = (copy / "MODEL_CARD.md").read_text()
    assert f"| Blinks | {coverage['eyes']['blinks']}, " in body and "Not measured" not in body
    assert coverage["advice"] and all(f"- {x['text']}\n" in body for x in coverage["advice"])


def test_own_words_stay_and_numbers_come(copy, portrait):
    file = copy / "MODEL_CARD.md"
    mine = file.read_text().replace("# Puppet of FILL IN", "# Puppet of me")
    mine = mine.replace("| Of age | **FILL IN** |", "| Of age | yes |") + "\nMy own end.\n"
    file.write_text(mine)
    (copy / "evaluation").mkdir()
    metrics = {"protocol": {"part": "test", "frames": 7}, "table": "| driven | 9.87 |"}
    (copy / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    assert write_model_card(copy)
    card = file.read_text()
    assert "# Puppet of me" in card and "| Of age | yes |" in card
    assert card.endswith("\nMy own end.\n")
    assert "Of the test part, 7 frames" in card and "\n| driven | 9.87 |\n" in card
    assert "None yet" not in card
    # Nothing new: nothing written.
    before = file.stat().st_mtime_ns
    assert write_model_card(copy, portrait)
    assert file.stat().st_mtime_ns == before


def test_changed_blocks_are_left_alone(copy, portrait):
    file = copy / "MODEL_CARD.md"
    mine = file.read_text().replace("| Seed | 0 |", "| Seed | a secret |")
    file.write_text(mine)
    (copy / "evaluation").mkdir()
    metrics = {"protocol": {"part": "test", "frames": 7}, "table": "| driven | 9.87 |"}
    (copy / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    with pytest.warns(UserWarning, match=r"changed by hand .*\(training\)"):
        assert write_model_card(copy, portrait) is False
    assert "a secret" in file.read_text() and "9.87" not in file.read_text()
    # An editor's line ends and spaces are no words.
    fresh = shutil.copy(file, copy / "old.md")
    file.unlink()
    assert write_model_card(copy, portrait)
    assert "9.87" in file.read_text()
    (copy / "evaluation" / "metrics.json").write_text(json.dumps(metrics).replace("9.87", "6.54"))
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert write_model_card(copy, portrait)
    assert "6.54" in file.read_text()
    # A card without markers is the user's alone.
    file.write_text("Mine.\n")
    assert write_model_card(copy, portrait)
    assert file.read_text() == "Mine.\n"
    fresh.unlink()


def test_finished_run_of_a_former_version_gets_its_card(copy, portrait):
    (copy / "MODEL_CARD.md").unlink()
    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 2, "previews": False}
    arguments = {"network": {"shortcuts": False}, "recipe": recipe, "verbose": 0}
    train_puppet(portrait, copy, "vpgc_tiny", **arguments)
    assert "| Preset | vpgc_tiny |" in (copy / "MODEL_CARD.md").read_text()
    # A place where it cannot be written ends no training.
    (copy / "MODEL_CARD.md").unlink()
    (copy / ".MODEL_CARD.md").mkdir()
    with pytest.warns(UserWarning, match="MODEL_CARD.md could not be written"):
        train_puppet(portrait, copy, "vpgc_tiny", **arguments)
    assert not (copy / "MODEL_CARD.md").exists()


def test_missing_pieces_are_left_out(copy):
    for name in ("MODEL_CARD.md", "run.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "logs")
    assert write_model_card(copy)
    card = (copy / "MODEL_CARD.md").read_text()
    assert "keras_vpgc:begin footage" in card and "SHA-256" in card
