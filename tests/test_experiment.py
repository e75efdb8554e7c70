import inspect
import json
from pathlib import Path

import pytest
import yaml

from keras_vpgc import VPGCError
from keras_vpgc.config import Recipe, resolve
from keras_vpgc.experiment import read_experiment, write_experiment
from tests.cli.test_cli import refused

pytestmark = pytest.mark.once
PAPER = Path(__file__).parent.parent / "examples" / "configs" / "paper_512.yaml"


def write(tmp_path, text):
    path = tmp_path / "e.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_papers_file_is_the_papers_preset():
    text = yaml.safe_load(PAPER.read_text())
    assert set(text["recipe"]) == set(Recipe.model_fields)
    found, preset = read_experiment(PAPER).resolved(), resolve("paper_512")
    assert found.recipe == preset.recipe
    # What the preset leaves to the classes is written out with their defaults.
    from keras_vpgc.models import PortraitReenactor

    parameters = inspect.signature(PortraitReenactor.__init__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    for key, value in found.network.items():
        wanted = preset.network.get(key, defaults.get(key))
        assert (list(value) if isinstance(value, tuple) else value) == (
            list(wanted) if isinstance(wanted, tuple) else wanted
        ), key


def test_yaml_reads_numbers_and_words_as_people_write_them(tmp_path):
    path = write(
        tmp_path,
        "preset: vpgc_tiny\nseed: 7\nnetwork:\n  code_scale: 1e-1\n  multipliers: [1, 2, 2]\n"
        "recipe:\n  learning_rate: 1e-4\n  steps: 10\n  adversarial: null\n  previews: false\n"
        "  wandb: off\n",
    )
    config = read_experiment(path).resolved()
    assert config.network["code_scale"] == 0.1 and config.seed == 7
    recipe = config.recipe
    assert (recipe.learning_rate, recipe.steps, recipe.previews) == (1e-4, 10, False)
    assert recipe.adversarial is None and recipe.wandb == "off"


@pytest.mark.parametrize(
    "text, words",
    [
        ("presett: vpgc_tiny", "no key 'presett': did you mean 'preset'?"),
        ("learning_rate: 1e-4", "learning_rate is a setting of the recipe: put it under recipe"),
        ("zzz: 1", "no key 'zzz': known are devices, method"),
        ("recipe:\n  learning_rat: 1", "did you mean 'learning_rate'?"),
        ("network:\n  learning_rate: 1", "learning_rate is a setting of the recipe, not of the"),
        ("recipe:\n  window_size: 1", "window_size is a setting of the network, not of the"),
        ("network:\n  window_siz: 1", "did you mean 'window_size'?"),
        (
            "recipe:\n  steps: 10\n  steps: 20",
            "line 3, column 3: this is no YAML that can be read (the key st",
        ),
        ("recipe:\n  steps: ten", "steps cannot be 'ten'"),
        ("recipe:\n  steps: true", "steps cannot be True: it is neither true nor false"),
        ("recipe:\n  steps: 0", "steps cannot be 0: input should be greater than or equal to 1"),
        ("network:\n  window_size: wide", "window_size cannot be 'wide': give a whole number"),
        ("seed: x", "seed cannot be 'x'"),
        ("devices: 0", "devices cannot be 0"),
        ("preset: big", "no preset 'big'"),
        ("method: magic", "method cannot be 'magic'"),
        ("recipe: 5", "recipe cannot be 5"),
        ("recipe:\n  1: 2", "1 under recipe is no name"),
        ("recipe: [steps: 1", "no YAML that can be read"),
        ("recipe:\n\tsteps: 1", "line 2, column 1"),
        ("- a\n- b", "holds no settings"),
        ("", "holds no settings"),
        ("preset: {{ preset }}", "no YAML that can be read"),
        ("? [a, b]", "no YAML that can be read"),
        ("[" * 3000, "no YAML that can be read"),
        ("a: !!python/object/apply:os.system [ls]", "no YAML that can be read"),
    ],
)
def test_mistakes_are_named(text, words, tmp_path):
    with pytest.raises(VPGCError) as caught:
        read_experiment(write(tmp_path, text))
    assert "e.yaml" in str(caught.value) and "\n" not in str(caught.value)
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(VPGCError, match="There is no file"):
        read_experiment(tmp_path / "no.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VPGCError, match="it is not UTF-8"):
        read_experiment(tmp_path / "b.yaml")


@pytest.mark.parametrize("preset", ["vpgc_tiny", "vpgc_512"])
def test_written_settings_are_read_as_they_were(preset, tmp_path):
    config = resolve(preset, {"multipliers": [1, 2, 2]}, {"region_weights": {"face": 3.0}}, seed=3)
    # Words that look like numbers, decimal and octal, stay words.
    write_experiment(
        tmp_path / "e.yaml", config, portrait="data/ich für mich", devices=2, run="1e3"
    )
    experiment = read_experiment(tmp_path / "e.yaml")
    assert experiment.run == "1e3"
    assert read_experiment(write(tmp_path, "preset: vpgc_tiny\nseed: 010")).seed == 10
    with pytest.raises(VPGCError, match="leave --preset out"):
        experiment.override(preset="vpgc_128")
    assert experiment.resolved().model_dump(mode="json") == config.model_dump(mode="json")
    assert (experiment.portrait, experiment.devices) == ("data/ich für mich", 2)
    assert [x.name for x in tmp_path.iterdir()] == ["e.yaml"]


@pytest.mark.slow
def test_options_override_the_file_and_the_run_keeps_what_came_out(vpgc, portrait, tmp_path):
    path = write(
        tmp_path,
        f"portrait: {portrait.path}\nrun: {tmp_path / 'r'}\npreset: vpgc_tiny\nseed: 5\n"
        "network:\n  driver_variant: full\n"
        "recipe:\n  steps: 50\n  driver_steps: 1\n  driver_image_steps: 0\n  previews: false\n",
    )
    given = ("train", "--config", path, "--steps", 1, "--set", "driver_variant=texture")
    code, out, _ = vpgc(*given, "--dry-run")
    shown = yaml.safe_load(out)
    assert code == 0 and not (tmp_path / "r").exists()
    assert shown["recipe"]["steps"] == 1 and shown["network"]["global_context"] is False

    code, out, error = vpgc(*given, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["puppet"] == str(tmp_path / "r" / "puppet.keras")
    assert answer["config"]["recipe"]["steps"] == 1 and "1/1" in error
    saved = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    assert saved["seed"] == 5 and saved["portrait"] == str(portrait.path)
    run = json.loads((tmp_path / "r" / "run.json").read_text())
    assert saved["recipe"] == run["config"]["recipe"]
    assert saved["network"] == run["config"]["network"]
    assert saved["network"]["texture_prior"] is True

    # The saved file is the experiment: the same run has nothing left to do by it.
    before = (tmp_path / "r" / "puppet.keras").stat().st_mtime_ns
    code, out, _ = vpgc("train", "--config", tmp_path / "r", "-o", tmp_path / "r")
    assert code == 0 and (tmp_path / "r" / "puppet.keras").stat().st_mtime_ns == before
    refused(
        vpgc("train", "--config", tmp_path / "r", "-o", tmp_path / "r", "--seed", 6),
        "other settings (seed differs)",
    )


def test_train_says_what_it_was_not_told(vpgc, portrait, tmp_path):
    path = write(tmp_path, "preset: vpgc_tiny\n")
    refused(vpgc("train", "--config", path), "no portrait to train on")
    refused(vpgc("train", portrait.path, "--config", path), "give one by -o")
    refused(vpgc("train", "--config", write(tmp_path, "prest: x")), "did you mean 'preset'?")
