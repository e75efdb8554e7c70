"""What README and the documentation show is run as it stands, on small models."""

import copy
import os
import runpy
import shutil
import sys

import numpy as np
import pytest
import typer

from keras_vpgc.cli.app import app
from keras_vpgc.experiment import read_experiment
from keras_vpgc.models import presets
from tests.docs.blocks import ROOT, blocks, commands, pages

pytestmark = pytest.mark.once

BASH = [(page, words) for page in pages() for kind, code in blocks(page) if kind == "bash"
        for words in commands(code)]  # fmt: skip
PYTHON = [page for page in pages() if any(kind == "python" for kind, _ in blocks(page))]
# Pages whose Python needs nothing that was trained before.
QUICK = ("docs/method.md", "docs/how-to/configuration.md")


def find_command(words):
    """The command of `vpgc ...`, and its arguments."""
    command, rest = typer.main.get_command(app), words[1:]
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def test_there_are_blocks():
    assert {"README.md", "docs/method.md", "docs/index.md"} <= set(pages())
    assert len(BASH) > 40 and len(PYTHON) >= 4


@pytest.mark.parametrize("page", sorted({page for page, _ in BASH}))
def test_commands_are_understood(page):
    """Every `vpgc` has these options and arguments; every script and test named is there."""
    for words in (words for where, words in BASH if where == page):
        line = " ".join(words)
        if words[0] == "vpgc" and not {"--help", "--install-completion"} & set(words):
            command, rest = find_command(words)
            assert not hasattr(command, "commands"), line
            command.make_context(command.name, list(rest))
        for word in words:
            if word.startswith(("examples/", "tests/", "benchmarks/")):
                assert (ROOT / word).exists(), line


@pytest.mark.parametrize("page", PYTHON)
def test_python_compiles(page):
    for kind, code in blocks(page):
        if kind == "python":
            compile(code, page, "exec")


@pytest.mark.parametrize("page", [page for page in pages() if page != "mkdocs.yml"])
def test_yaml_is_an_experiment(page, tmp_path):
    for kind, code in blocks(page):
        if kind == "yaml":
            (tmp_path / "e.yaml").write_text(code)
            read_experiment(tmp_path / "e.yaml")


@pytest.mark.parametrize("page", QUICK)
def test_python_that_needs_nothing_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace = {"__name__": page}
    for kind, code in blocks(page):
        if kind == "python":
            exec(compile(code, page, "exec"), namespace)


@pytest.fixture
def workplace(tmp_path, clip, monkeypatch):
    """A folder as the pages mean it, and presets of GPUs made small."""
    tiny = copy.deepcopy(presets.PRESETS["vpgc_tiny"])
    tiny["recipe"] |= {"steps": 2, "driver_steps": 2, "driver_image_steps": 0, "joint_steps": 2}
    for name in ("vpgc_256", "vpgc_512", "vpgc_512_lite", "paper_512"):
        monkeypatch.setitem(presets.PRESETS, name, tiny)
    for name in ("me", "friend", "truth", "driven", "theirs", "a", "b"):
        shutil.copy(clip, tmp_path / f"{name}.mp4")
    for folder in ("out/ours", "out/theirs", "driving"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(clip, tmp_path / folder / "a.mp4")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What this machine lacks, what other tests run, and what would change the machine.
NOT_RUN = {
    "vpgc demo": "ten minutes; tests/cli",
    "vpgc push": "a server; tests/test_hub.py",
    "vpgc pull": "the same",
    "vpgc reenact hf://": "the same",
    "vpgc study read": "people's answers; tests/evaluation",
    "vpgc doctor": "tests/test_doctor.py",
    "vpgc --": "help and completion; tests/cli",
    "vpgc live runs/me --record": "a camera",
    "vpgc studio": "a server that somebody ends; tests/studio",
}


def reason_not_to_run(words):
    line = " ".join(words)
    if words[0] == "vpgc":
        if words[1] == "live" and "--driving" not in words:
            return "a camera"
        if "--devices" in words:
            return "several GPUs; tests/training"
        if words[1] == "train" and any("paper_512.yaml" in word for word in words):
            return "512 pixels; its settings are tested in tests/test_experiment.py"
        return next((why for begin, why in NOT_RUN.items() if line.startswith(begin)), None)
    return None if words[:2] == ["python", "examples/onnx_drive.py"] else "not this machine's"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/how-to/own-video.md",
                                  "docs/how-to/configuration.md", "docs/index.md",
                                  "docs/how-to/command-line.md"])  # fmt: skip
def test_a_page_from_top_to_bottom(page, workplace, vpgc, monkeypatch):
    rng = np.random.default_rng(0)
    images_uint8 = rng.integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    namespace = {
        "__name__": page,
        "images_uint8": images_uint8,
        "images": images_uint8.astype("float32") / 127.5 - 1,
        "landmarks": rng.uniform(0.3, 0.7, (68, 2)).astype("float32"),
        "show": lambda image: None,
    }
    ran = 0
    for kind, code in blocks(page):
        if kind == "yaml":
            (workplace / "me.yaml").write_text(code)
            if not (workplace / "data" / "me").exists():
                assert vpgc("prepare", "me.mp4", "-o", "data/me")[0] == 0
        elif kind == "python":
            # A camera is a video here.
            code = code.replace("source=0", 'source="friend.mp4"')
            exec(compile(code, page, "exec"), namespace)
            ran += 1
        else:
            for words in commands(code):
                if reason_not_to_run(words):
                    continue
                if words[0] == "python":
                    # That name is taken by what is scored further down.
                    words = ["onnx.mp4" if word == "driven.mp4" else word for word in words]
                    monkeypatch.setattr(sys, "argv", words[1:])
                    runpy.run_path(words[1], run_name="__main__")
                    assert (workplace / "onnx.mp4").exists()
                else:
                    code_, out, error = vpgc(*words[1:])
                    assert code_ == 0, f"{' '.join(words)}\n{out}\n{error}"
                ran += 1
    assert ran and os.getcwd() == str(workplace)
