import pytest

from keras_vpgc.data.video import read_frames
from tests.cli.test_cli import refused

pytestmark = pytest.mark.once


def test_a_clip_as_the_camera(vpgc, run, clip, tmp_path):
    target = tmp_path / "live.mp4"
    code, out, error = vpgc(
        "live", run, "--driving", clip, "--no-window", "--record", target, "--end", 1.2,
        "--retargeting", "relative", "--guard", "off",
    )  # fmt: skip
    assert code == 0 and error == f"{target} is ready.\n"
    table = out.splitlines()
    assert table[0].startswith("| stage |") and table[-1].startswith("30 frames captured, ")
    # It lasts as long as the clip, whatever was dropped.
    assert len(list(read_frames(target))) == pytest.approx(30, abs=3)


def test_what_is_refused(vpgc, run, clip, tmp_path):
    live = ("live", run, "--no-window")
    refused(vpgc(*live, "--camera", 97), "Camera 97 cannot be opened")
    refused(vpgc(*live, "--driving", clip, "--filter", "kalman"), "no filter 'kalman'")
    refused(vpgc(*live, "--driving", clip, "--missing", "cry"), "no way 'cry'")
    recorded = (*live, "--driving", clip, "--record", tmp_path / "a.mp4")
    refused(vpgc(*recorded, "--certificate", tmp_path / "a.pem"), "a certificate and its key")
    both = ("--certificate", tmp_path / "a.pem", "--key", tmp_path / "b.pem")
    refused(vpgc(*recorded, *both), "a.pem")
    refused(vpgc(*recorded, "--no-provenance", "--invisible-mark"), "no marks and no signature")
    assert not list(tmp_path.iterdir())
    refused(vpgc(*live, "--start", 1), "Only a driving video has a start")
    refused(vpgc(*live, "--driving", clip, "--camera", 0), "cannot both drive")
    refused(vpgc(*live, "--driving", tmp_path / "x.mp4"), "There is no file")
    code, _, error = vpgc(*live, "--driving", clip, "--speed", 2)
    assert code == 2 and "No such option" in error
