import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import index_sizes  # noqa: E402
from keras_vpgc import VPGCError  # noqa: E402
from keras_vpgc.config import resolve  # noqa: E402

pytestmark = pytest.mark.once


def test_variants_change_one_thing_and_work_is_counted():
    base = resolve(index_sizes.PRESET).network
    variants = index_sizes.variants_of(base)
    found = {name: index_sizes.index_of({**base, **x}) for name, x in variants.items()}
    assert found["as it is"] == (16, 32, 3, 128, 4)
    # 256 positions of 32 queries, each of 9 cells of 32 codes; and 256 x 32 codes of 4.
    assert index_sizes.work_of(16, 32, 3, 128, 4) == (2_359_296, 32_768)
    assert found["half the grid"][0] == 8 and found["twice the grid"][0] == 32
    for name, index in found.items():
        same = sum(a == b for a, b in zip(index, found["as it is"], strict=True))
        assert same == (5 if name == "as it is" else 4), name


@pytest.mark.slow
def test_variants_are_trained_scored_and_written(portrait, tmp_path, capsys):
    words = [str(portrait.path), str(tmp_path), "--tiny", "--lpips", "none", "--repeats", "1"]
    index_sizes.main([*words, "--only", "half the grid", "r = 1"])
    rows = json.loads((tmp_path / "index.json").read_text())
    assert list(rows) == ["half the grid", "r = 1"]
    assert rows["r = 1"]["index"] == [16, 32, 1, 128, 4] and rows["r = 1"]["psnr"][0] > 5
    assert (tmp_path / "index.md").read_text().strip() in capsys.readouterr().out
    with pytest.raises(VPGCError, match="no variant 'r = 99': choose of as it is, "):
        index_sizes.main([*words, "--only", "r = 99"])
