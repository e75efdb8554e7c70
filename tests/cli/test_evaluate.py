import json

import pytest

from keras_vpgc.data import video
from tests.cli.test_cli import refused
from tests.evaluation.videos import frames_of, write_exact

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = frames_of(clip, 12, 64)
    return (
        write_exact(folder / "truth.mkv", frames),
        write_exact(folder / "late.mkv", frames[:1] + frames[:-1]),
    )


def test_two_videos_are_scored(vpgc, videos, tmp_path):
    truth, late = videos
    target = tmp_path / "scores"
    code, out, _ = vpgc(
        "evaluate", "--prediction", late, "--truth", truth, "-o", target, "--no-landmarks"
    )
    assert code == 0 and "| PSNR (dB) ↑ |" in out and "LPIPS" in out and str(target) in out
    result = json.loads((target / "evaluation.json").read_text())
    # A frame late is what the floor is; the first of the twelve is the same.
    psnr = result["scores"]["full"]["psnr"]
    assert psnr == pytest.approx(result["floor"]["full"]["psnr"], rel=1e-4)
    assert result["scores"]["full"]["left_out"]["psnr"] == 1
    assert "1 of 12 frames of prediction (full) are identical" in out


def test_systems_are_compared(vpgc, videos, tmp_path):
    truth, late = videos
    code, out, _ = vpgc(
        "compare", "--truth", truth, f"late={late}", f"same={truth}", "-o", tmp_path / "c",
        "--no-landmarks", "--lpips", "none",
    )  # fmt: skip
    assert code == 0 and "| same | inf | 1.000 |" in out and "| late |" in out
    result = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert result["scores"]["full"]["same"]["psnr"] == "inf"
    refused(vpgc("compare", "--truth", truth, late), "NAME=VIDEO")
    refused(vpgc("compare", "--truth", truth, f"a={late}", f"a={truth}"), "Two systems", "'a'")


def test_what_failed_is_said_at_the_end(vpgc, videos, tmp_path, monkeypatch):
    truth, late = videos
    read = video.read_frames

    def failing(path, start=0, stop=None):
        for number, frame in enumerate(read(path, start, stop), start):
            if path == late and number >= 6:
                raise OSError("Input/output error")
            yield frame

    monkeypatch.setattr(video, "read_frames", failing)
    code, out, err = vpgc(
        "compare", "--truth", truth, f"late={late}", f"same={truth}", "-o", tmp_path / "c",
        "--no-landmarks", "--lpips", "none",
    )  # fmt: skip
    assert code == 1 and "Not scored to the end: late" in err and str(tmp_path / "c") in err
    assert "| same | inf | 1.000 |" in out and "could not be read from frame 6 on" in out
    assert (tmp_path / "c" / "report.html").exists()


def test_exactly_one_of_the_two_ways(vpgc, videos, tmp_path):
    truth, late = videos
    way = "give RUN, or --prediction and --truth"
    refused(vpgc("evaluate"), way)
    refused(vpgc("evaluate", "--truth", truth), way)
    refused(vpgc("evaluate", "--prediction", late), way)
    refused(vpgc("evaluate", tmp_path, "--prediction", late, "--truth", truth), way)
    refused(vpgc("evaluate", tmp_path, "-o", tmp_path / "s"), "leave out --output")
    refused(
        vpgc("evaluate", "--prediction", late, "--truth", tmp_path / "gone.mp4"), "There is no file"
    )


def test_a_result_is_scored_against_its_driver(vpgc, videos, tmp_path):
    truth, late = videos
    target = tmp_path / "scores"
    code, out, _ = vpgc(
        "evaluate", "--prediction", late, "--driving", truth, "--target", truth, "-o", target,
        "--no-identity",
    )  # fmt: skip
    assert code == 0 and "| head motion error (°) ↓ |" in out and f"Look at {target}" in out
    assert (target / "report.html").is_file() and (target / "cross.mp4").is_file()
    way = "give RUN, or --prediction, and leave out --truth"
    refused(vpgc("evaluate", "--driving", truth), way)
    refused(vpgc("evaluate", "--driving", truth, "--prediction", late, "--truth", truth), way)
    refused(vpgc("evaluate", tmp_path, "--motion", 0.5), "it is used with RUN --driving or")
    said = "With RUN --driving --crop says nothing: leave it out (it is used for two videos)"
    refused(vpgc("evaluate", tmp_path, "--driving", truth, "--crop", "face"), said)
    refused(vpgc("evaluate", "--prediction", late, "--driving", truth, "--start", 1), "finished")
