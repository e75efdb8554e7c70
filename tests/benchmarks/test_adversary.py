import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import adversary  # noqa: E402
from keras_vpgc import VPGCError  # noqa: E402
from keras_vpgc.config import resolve  # noqa: E402

pytestmark = pytest.mark.once


def test_variants_differ_in_the_adversarial_settings_alone():
    recipe = resolve("vpgc_512").recipe
    changed = {key for x in adversary.variants_of(recipe).values() for key in x}
    adversarial = {"discriminator_rate", "adaptive", "adaptive_matching", "feature_matching_weight"}
    others = {"gradient_penalty", "perceptual_weight"}
    assert changed == adversarial | others | {k for k in changed if "adversarial" in k}


@pytest.mark.slow
def test_variants_part_when_the_discriminator_joins(portrait, tmp_path, capsys):
    words = [str(portrait.path), str(tmp_path), "--tiny", "--lpips", "none"]
    adversary.main([*words, "--only", "without", "quarter rate"])
    rows = json.loads((tmp_path / "adversary.json").read_text())
    assert list(rows) == ["as it is", "without", "quarter rate"]
    runs = [tmp_path / x for x in ("as_it_is", "without", "quarter_rate")]
    points = [json.loads((run / "points.json").read_text()) for run in runs]
    assert all([row["step"] for row in x] == [2, 4] for x in points)
    # Half way they are one and the same.
    assert len({json.dumps(x[0]) for x in points}) == 1
    assert len({x[1]["psnr"] for x in points}) == 3
    assert rows["without"]["loss of D, training"] is None is rows["without"]["held out"]
    losses = [[rows[x][k] for k in adversary.COLUMNS[3:]] for x in ("as it is", "quarter rate")]
    assert np.min(losses) > 0 and losses[0] != losses[1]
    assert np.isfinite([row["PSNR"] for row in rows.values()]).all()
    assert (tmp_path / "adversary.md").read_text().strip() in capsys.readouterr().out

    with pytest.raises(VPGCError, match="no variant 'half rate': choose of as it is, "):
        adversary.main([*words, "--only", "half rate"])
    with pytest.raises(VPGCError, match="was scored on validation frames"):
        adversary.main([*words, "--only", "without", "--part", "test"])
    with pytest.raises(VPGCError, match="leaves nothing to compare"):
        adversary.main([*words, "--set", "adversarial=null", "--set", "feature_matching_weight=0"])
    (tmp_path / "before.npz").unlink()
    shutil.rmtree(tmp_path / "without")
    with pytest.raises(VPGCError, match="before.npz is missing"):
        adversary.main([*words, "--only", "without"])
