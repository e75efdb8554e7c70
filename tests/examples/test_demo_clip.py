"""The scripts run as they stand, without arguments, here on another clip than the real one."""

import pytest

from examples import ablation_codebook, ablation_priors, compare_baselines
from keras_vpgc import assets, demo

pytestmark = [pytest.mark.once, pytest.mark.slow]


@pytest.fixture
def demo_clip(clip, tmp_path, monkeypatch):
    find = assets.find

    def found(name, path=None):
        return clip if name == "demo_acting" else find(name, path)

    monkeypatch.setattr(assets, "find", found)
    # It is shorter, too.
    monkeypatch.setattr(demo, "TEST_BLOCKS", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ablation_of_the_codebook(demo_clip, capsys):
    ablation_codebook.main(lpips=None, recipe={"steps": 4}, points=2)
    assert "soft grid r=4" in capsys.readouterr().out
    assert (demo_clip / "ablation" / "faces.png").exists()


def test_ablation_of_the_priors(demo_clip, capsys):
    found = ablation_priors.arguments(["--tiny", "--no-landmarks"])
    ablation_priors.main(**{**found, "variants": ["full"], "points": 1})
    assert "full" in capsys.readouterr().out
    assert (demo_clip / "ablation_priors" / "mouth.png").exists()


def test_comparison_with_baselines(demo_clip, capsys, monkeypatch):
    monkeypatch.setattr(
        compare_baselines,
        "compare_runs",
        lambda runs, portrait, folder, **settings: {"table": f"{len(portrait)} {sorted(runs)}"},
    )
    recipe = {"steps": 2, "driver_steps": 2, "driver_image_steps": 0, "adversarial": None}
    compare_baselines.main(recipe=recipe)
    assert "75 ['direct mapping', 'puppet', 'vanilla codebook']" in capsys.readouterr().out


@pytest.mark.parametrize("example", [ablation_codebook, compare_baselines])
def test_on_the_real_clip(example, tmp_path, monkeypatch):
    """Minutes each."""
    monkeypatch.chdir(tmp_path)
    example.main()
