"""The whole way over a corpus of HDTF's format, made small."""

import json
import sys

import cv2
import numpy as np
import pytest

from examples.hdtf import run as example
from keras_vpgc import VPGCError
from keras_vpgc.data import Portrait
from keras_vpgc.data.video import VideoWriter, read_frames

pytestmark = pytest.mark.once

FAKE = """#!{python}
import shutil, sys
with open({log!r}, "a") as file:
    file.write(sys.argv[-1] + "\\n")
if "gone" in sys.argv[-1]:
    sys.exit("ERROR: [youtube] gone: Private video. Sign in")
shutil.copy({video!r}, sys.argv[sys.argv.index("-o") + 1].replace("%(ext)s", "mp4"))
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """4 s of 240x160 with the face in the square at 60, 10 of 144 pixels."""
    from examples.animated_portrait import animate

    path = tmp_path_factory.mktemp("site") / "site.mp4"
    with VideoWriter(path, 25, crf=8) as writer:
        for frame, _ in animate(100, size=144):
            picture = np.full((160, 240, 3), 120, "uint8")
            picture[10:154, 60:204] = frame
            writer.write(picture)
    return path


@pytest.fixture
def corpus(video, tmp_path, monkeypatch):
    folder = tmp_path / "HDTF_dataset"
    folder.mkdir()
    names = ["Gone", "Site", "Broken", "Late", "Bare", "Mine"]
    # Annotated at 320 lines, twice the video's.
    files = {
        "video_url": [f"{n} https://www.youtube.com/watch?v={n.lower()}" for n in names],
        "annotion_time": [f"{n}.mp4 00:00-00:02" for n in names[:-1]]
        + ["Mine.mp4 00:00-00:02 00:02-00:04"],
        "resolution": [f"{n}.mp4 320" for n in names],
        "crop_wh": [f"{n}_0.mp4 120 288 20 288" for n in names if n != "Bare"]
        + ["Mine_1.mp4 120 280 20 280"],
        "crop_ratio": [f"{n}_0.mp4 1.2" for n in names],
    }
    for name, lines in files.items():
        (folder / f"RD_{name}.txt").write_text("\n".join(lines) + "\n")
    late = (
        (folder / "RD_annotion_time.txt")
        .read_text()
        .replace("Late.mp4 00:00-00:02", "Late.mp4 00:05-00:09")
    )
    (folder / "RD_annotion_time.txt").write_text(late)

    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("Late", "Bare", "RD_Mine"):
        (mine / f"{name}.mp4").write_bytes(video.read_bytes())
    (mine / "Broken").write_bytes(video.read_bytes()[:3000])

    program = tmp_path / "bin" / "yt-dlp"
    program.parent.mkdir()
    log = tmp_path / "fetched.txt"
    program.write_text(FAKE.format(python=sys.executable, log=str(log), video=str(video)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return tmp_path


def arguments(corpus, *more):
    return [
        *("--annotations", str(corpus / "HDTF_dataset"), "--videos", str(corpus / "mine")),
        *("-o", str(corpus / "out"), "--preset", "vpgc_tiny", "--size", "64", "--no-landmarks"),
        *("--set", "steps=1", "driver_steps=1", "driver_image_steps=0", "--only", *more),
    ]


@pytest.mark.slow
def test_failed_clips_are_listed_and_the_rest_goes_on(corpus, capsys, monkeypatch):
    everything = arguments(corpus, "Gone", "Site", "Broken", "Late", "Bare")
    assert example.main(everything) == 1
    out = capsys.readouterr().out
    listed = dict(line[2:].split(", ", 1) for line in out.splitlines() if line[:2] == "- ")
    assert list(listed) == ["Gone_0", "Broken_0", "Late_0", "Bare_0"]
    assert "fetch: Gone could not be fetched" in listed["Gone_0"]
    assert "Private video. Sign in" in listed["Gone_0"]
    assert "cut: " in listed["Broken_0"] and "Broken cannot be read" in listed["Broken_0"]
    assert "lies at 5 to 9 s but" in listed["Late_0"]
    assert "has no crop in RD_crop_wh.txt" in listed["Bare_0"]

    output = corpus / "out"
    summary = json.loads((output / "summary.json").read_text())["clips"]
    assert summary["Late_0"]["failed"]["reason"] in out
    scores = summary["Site_0"]["evaluate"]["scores"]
    assert f"| Site_0 | 50 | {scores['psnr']:.3f} | {scores['ssim']:.3f} |" in out
    assert (output / "runs" / "Site_0" / "puppet.keras").exists()
    assert (output / "previews" / "Site_0.png").exists()
    assert {x.name for x in (output / "portraits").iterdir()} == {"Site_0"}

    # The same again does nothing twice, even when the video is deleted; failed ones are tried.
    (output / "videos" / "Site.mp4").unlink()
    before = (corpus / "fetched.txt").read_text().splitlines()

    def refuse(*args, **settings):
        raise AssertionError("what is done is done again")

    for name in ("prepare", "train_puppet", "evaluate_run"):
        monkeypatch.setattr(example, name, refuse)
    assert example.main(everything) == 1
    again = capsys.readouterr().out
    assert again.split("\n| clip")[1] == out.split("\n| clip")[1]
    new = (corpus / "fetched.txt").read_text().splitlines()[len(before) :]
    assert new == ["https://www.youtube.com/watch?v=gone"]


def test_clips_are_cut_and_cropped_as_annotated(corpus, video, capsys):
    steps = ["--stages", "fetch", "cut", "prepare"]
    assert example.main(arguments(corpus, "Mine", *steps)) == 0
    assert not (corpus / "fetched.txt").exists() and not (corpus / "out" / "videos").exists()
    frames = list(read_frames(video))
    for name, first, size in (("Mine_0", 0, 144), ("Mine_1", 50, 140)):
        portrait = Portrait(corpus / "out" / "portraits" / name)
        assert len(portrait) == 50
        assert portrait.info["crop"] == {"x": 60, "y": 10, "size": size}
        for image, number in zip(portrait.frames([0, 49]), (first, first + 49), strict=True):
            cut = frames[number][10 : 10 + size, 60 : 60 + size]
            wanted = cv2.resize(cut, (64, 64), interpolation=cv2.INTER_AREA)
            assert np.abs(image.astype(int) - wanted).mean() < 1

    # Other settings do not overwrite what is there.
    other = arguments(corpus, "Mine_0", *steps, "--test-frames", "7")
    assert example.main(other) == 1
    assert "holds something else" in capsys.readouterr().out
    assert example.main(arguments(corpus, "Mine_1", "--stages", "evaluate")) == 1
    assert "has not come through the stage train" in capsys.readouterr().out


def test_face_chooses_the_crop_where_none_is_annotated(corpus):
    steps = ["--stages", "fetch", "cut", "prepare", "--crop", "tracked"]
    assert example.main(arguments(corpus, "Bare", *steps)) == 0
    face = Portrait(corpus / "out" / "portraits" / "Bare_0").landmarks
    assert np.abs(face.mean((0, 1)) - 0.5).max() < 0.2


def test_unknown_clip_is_refused_before_anything_is_written(corpus):
    with pytest.raises(VPGCError, match="no clip or video Nobody"):
        example.main(arguments(corpus, "Nobody"))
    assert not (corpus / "out").exists()
