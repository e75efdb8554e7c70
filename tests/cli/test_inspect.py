import json
import shutil
import sys

import pytest

from keras_vpgc.cli import main

pytestmark = pytest.mark.once


def vpgc(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vpgc", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_inspect_a_prepared_clip(portrait, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "p"
    shutil.copytree(portrait.path, folder)
    assert vpgc(monkeypatch, "inspect", folder) == 0
    out = capsys.readouterr().out
    result = json.loads((folder / "coverage.json").read_text())
    assert result["frames"]["total"] == 75
    assert "- Only 3 s are usable" in out
    for item in result["advice"]:
        assert f"- {item['text']}\n" in out
    assert f"Open {folder / 'coverage.html'} in a browser." in out
    assert (folder / "coverage.html").read_text().startswith("<!DOCTYPE html>")


def test_inspect_another_folder(tmp_path, monkeypatch, capsys):
    assert vpgc(monkeypatch, "inspect", tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith("vpgc: ") and "no portrait folder" in error
    assert not list(tmp_path.iterdir())
