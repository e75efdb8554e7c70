import pytest

from examples.train import main


@pytest.mark.once
def test_example_trains_and_drives(clip, tmp_path, capsys):
    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 0}
    main(clip, tmp_path / "p", tmp_path / "r", recipe=recipe)
    out = capsys.readouterr().out
    assert "| driven |" in out and "15 frames of 64x64 pixels were driven" in out


@pytest.mark.slow
def test_example_without_arguments(tmp_path, monkeypatch, capsys):
    """The real clip, the whole recipe: minutes."""
    monkeypatch.chdir(tmp_path)
    main()
    assert "| driven |" in capsys.readouterr().out
