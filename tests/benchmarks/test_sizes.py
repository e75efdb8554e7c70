import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import sizes  # noqa: E402
from keras_vpgc import VPGCError  # noqa: E402

pytestmark = pytest.mark.once


def row(size, flops, psnr, milliseconds=None):
    return {
        "size": size, "GFLOP": flops, "weights, M": 3.0, "seconds": 60.0, "PSNR": psnr,
        "LPIPS": None, "PSNR, reconstructed": 31.0, "LPIPS, reconstructed": None,
        "CPU ms": milliseconds,
    }  # fmt: skip


def test_what_is_measured_is_written_as_numbers_table_and_picture(tmp_path):
    rows = [
        row("lite", 4.73, 28.1, 31.0),
        row("lite-distilled", 4.73, 28.6),
        row("big", 339.4, 29.0),
    ]
    # By several commands, in whatever order.
    for known in reversed(rows):
        (tmp_path / known["size"]).mkdir()
        (tmp_path / known["size"] / sizes.ROW).write_text(json.dumps(known))
    table = sizes.write(tmp_path)
    assert json.loads((tmp_path / "sizes.json").read_text()) == rows
    assert table.splitlines()[2] == "| lite | 4.73 | 3 | 60 | 28.1 |  | 31 |  | 31 |"
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")


def test_seconds_are_those_of_all_epochs(tmp_path):
    log = tmp_path / "joint.csv"
    log.write_text("epoch,step,seconds,loss\n0,20,12.5,1.0\n1,40,12.0,0.9\n")
    assert sizes.seconds_of(log) == 24.5


def test_unknown_sizes_and_other_scores_are_said(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(VPGCError, match="no size 'huge': choose of lite-24, lite, .*big"):
        sizes.main([str(tmp_path), str(out), "--only", "huge"])
    assert not out.exists()
    (out / "lite").mkdir(parents=True)
    scored = {**row("lite", 4.73, 28.1), "part": "validation", "LPIPS by": "alex"}
    (out / "lite" / sizes.ROW).write_text(json.dumps(scored))
    with pytest.raises(VPGCError, match="lite was scored on validation frames with LPIPS by alex"):
        sizes.main([str(tmp_path), str(out), "--only", "lite", "--part", "test"])


def test_the_taught_one_waits_for_its_teacher(portrait, tmp_path):
    with pytest.raises(VPGCError, match="big is no run folder"):
        sizes.main([str(portrait.path), str(tmp_path), "--tiny", "--only", "lite-distilled"])
