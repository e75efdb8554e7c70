"""What people and shells see before anything is done."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer
from keras_vpgc.cli.app import app
from keras_vpgc.export import FORMATS
from keras_vpgc.models import presets
from tests.cli.test_cli import refused

pytestmark = pytest.mark.once


def commands(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_shows_examples_that_it_understands(vpgc):
    found = dict(commands())
    assert len(found) > 12
    for path, command in found.items():
        code, out, _ = vpgc(*path, "--help")
        block = out.split("Examples:\n")[1].split("\n\n")[0]
        lines = [line.strip() for line in block.splitlines()]
        assert code == 0 and lines
        known = {name for x in command.params for name in (*x.opts, *x.secondary_opts)}
        for line in lines:
            words = line.split()
            assert tuple(words[: len(path) + 1]) == ("vpgc", *path), line
            assert {x for x in words if x.startswith("-")} <= known, line
        assert "--json" in known, path


def test_the_first_page_is_whole(vpgc):
    code, out, _ = vpgc("--help")
    assert code == 0
    listed = out.split("Commands:\n")[1].split("\n\n")[0]
    assert "..." not in listed
    for code in ("0", "1", "2", "3", "4", "130"):
        assert re.search(rf"^    {code} ", out, re.MULTILINE)
    assert vpgc("-h")[1] == out


def test_help_needs_no_keras(tmp_path):
    """The command loads in a moment: nothing of the deep learning comes with it."""
    code = (
        "import sys; sys.argv = ['vpgc', '--help']\n"
        "from keras_vpgc.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'keras', 'numpy', 'jax', 'torch', 'tensorflow', 'cv2', 'pydantic', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr


@pytest.mark.slow
def test_a_script_knows_the_layers_of_a_puppet_at_once(run):
    code = (
        "import keras_vpgc, keras; "
        f"print(type(keras.saving.load_model({str(run / 'puppet.keras')!r})).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "PortraitReenactor", result.stderr


@pytest.mark.parametrize(
    "line, words",
    [
        ("vpgc pre", ["prepare"]),
        (
            "vpgc train --preset vpgc_",
            ["vpgc_512", "vpgc_512_lite", "vpgc_256", "vpgc_128", "vpgc_tiny"],
        ),
        ("vpgc export --format o", ["onnx", "openvino"]),
        ("vpgc reenact --retargeting ", ["auto", "none", "relative", "absolute"]),
        ("vpgc train --driver", ["--driver-steps"]),
    ],
)
def test_shells_complete(line, words):
    code = "import sys; sys.argv = ['vpgc']; from keras_vpgc.cli import main; main()"
    environment = {
        **os.environ,
        "_VPGC_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stdout.split() == words, result.stderr


def test_what_is_completed_is_what_there_is():
    assert list(options.PRESETS) == presets.names()
    assert set(options.FORMATS) == set(FORMATS)


def test_json_is_all_that_a_machine_reads(vpgc, portrait, run, tmp_path):
    # Pages are written beside what they are of, which other tests share.
    folder, own = tmp_path / "portrait", tmp_path / "run"
    shutil.copytree(portrait.path, folder)
    shutil.copytree(run, own)
    code, out, error = vpgc("inspect", folder, "--json")
    found = json.loads(out)
    assert code == 0 and found["portrait"] == str(folder) and found["advice"]
    code, out, error = vpgc("evaluate", own, "--no-landmarks", "--json")
    found = json.loads(out)
    assert code == 0, error
    assert found["rows"]["driven"]["psnr"] > 0 and "driving: " in error
    code, out, error = vpgc("inspect", tmp_path / "no", "--json")
    assert json.loads(out)["error"] in error and error.startswith("vpgc: ")
    refused((code, "", error), "no portrait folder")


def test_numbers_that_json_lacks(capsys):
    import numpy as np

    with Answer(True) as answer:
        print("on the way")
        answer.say("not for machines")
        answer.give(a=float("inf"), b=float("nan"), c=np.float32(1.5), d=np.arange(2), e=None)
    out, error = capsys.readouterr()
    assert json.loads(out) == {"a": "inf", "b": None, "c": 1.5, "d": [0, 1], "e": None}
    assert error == "on the way\n"
