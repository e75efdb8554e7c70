"""Annotation files of HDTF's format, made small, with a local clip."""

import dataclasses
import os
import shutil
import sys

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import hdtf
from keras_vpgc.data.crop import Crop
from keras_vpgc.data.hdtf import Clip, fetch, find_video, locate, read_annotations, select
from keras_vpgc.data.video import read_frames

pytestmark = pytest.mark.once

URL = "https://www.youtube.com/watch?v=aBc-12_xyZ0"
# Lines as the corpus has them: blanks at the end, hyphens, missing lines, resolution 0.
FILES = {
    "RD_video_url.txt": f"Radio7 {URL}&t=6s\nRadio24 https://www.youtube.com/watch?v=cU0JPT3n9B4\n",
    "RD_annotion_time.txt": "Radio7.mp4 00:30-01:00 01:30-02:30 \nRadio15.mp4 00:35-00:45\n",
    "RD_crop_wh.txt": "Radio7_0.mp4 412 599 0 599\nRadio7_1.mp4 557 478 3 478\n",
    "RD_crop_ratio.txt": "Radio7_0.mp4 1.2\nRadio7_1.mp4 1.0\n",
    "RD_resolution.txt": "Radio7.mp4 720\nRadio15.mp4 0\nRadio24.mp4 720\n",
    "WDA_annotion_time.txt": "Lucy-Ann_B.mp4 01:02:03-01:02:05.5",
    "WDA_resolution.txt": "Lucy-Ann_B.mp4 1080",
}


@pytest.fixture
def annotations(tmp_path):
    folder = tmp_path / "HDTF_dataset"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def radio7():
    return Clip("Radio7_1", "Radio7", "RD", 1, URL, 1.0, 2.0, Crop(100, 20, 300), 1.2, 512)


def test_annotations_are_read_as_the_corpus_writes_them(annotations):
    clips = {clip.name: clip for clip in read_annotations(annotations)}
    assert list(clips) == ["Radio7_0", "Radio7_1", "Radio15_0", "Radio24", "Lucy-Ann_B_0"]
    assert clips["Radio7_1"] == Clip(
        name="Radio7_1",
        video="Radio7",
        subset="RD",
        index=1,
        url=f"{URL}&t=6s",
        start=90.0,
        end=150.0,
        crop=Crop(557.0, 3.0, 478.0),
        ratio=1.0,
        resolution=720,
    )
    # What the corpus leaves out stays out.
    assert clips["Radio15_0"].crop is None and clips["Radio15_0"].url is None
    assert clips["Radio15_0"].resolution is None
    assert clips["Radio24"].start is None and clips["Radio24"].url
    assert (clips["Lucy-Ann_B_0"].start, clips["Lucy-Ann_B_0"].end) == (3723.0, 3725.5)
    assert [c.name for c in read_annotations(annotations, "WDA")] == ["Lucy-Ann_B_0"]


def test_clips_are_chosen_by_their_own_or_their_videos_name(annotations):
    clips = read_annotations(annotations)
    assert select(clips, []) == clips
    assert [c.name for c in select(clips, ["Radio15", "Radio7_1"])] == ["Radio7_1", "Radio15_0"]
    assert [c.name for c in select(clips, ["Radio7"])] == ["Radio7_0", "Radio7_1"]
    with pytest.raises(VPGCError, match="no clip or video radio7: did you mean Radio7"):
        select(clips, ["radio7"])


@pytest.mark.parametrize(
    "name, line",
    [
        ("RD_annotion_time.txt", "Radio9.mp4 00:30"),
        ("RD_annotion_time.txt", "Radio9.mp4 soon-later"),
        ("RD_crop_wh.txt", "Radio9_0.mp4 1 2 3"),
        ("RD_crop_wh.txt", "Radio9_0.mp4 1 200 3 300"),
        ("RD_resolution.txt", "Radio9.mp4 HD"),
        ("RD_video_url.txt", "Radio9 --exec=rm"),
    ],
)
def test_malformed_lines_are_named(name, line, annotations):
    with (annotations / name).open("a") as file:
        file.write(f"\n{line}\n")
    number = len((annotations / name).read_text().splitlines())
    with pytest.raises(VPGCError, match=f"Line {number} of .*{name} is not as in the corpus"):
        read_annotations(annotations)


def test_folder_without_annotations(annotations, tmp_path):
    with pytest.raises(VPGCError, match=r"holds no \*_annotion_time.txt"):
        read_annotations(tmp_path / "nothing")
    with pytest.raises(VPGCError, match="no subset 'WRA' .* choose RD or WDA"):
        read_annotations(annotations, "WRA")


@pytest.mark.parametrize(
    "name, whole",
    [
        ("Radio7.mp4", True),
        ("Radio7", True),
        ("sub/rd_radio7.MKV", True),
        ("aBc-12_xyZ0.webm", True),
        ("Address 7, the whole [aBc-12_xyZ0].webm", True),
        ("Radio7_1.mp4", False),
        ("RD_Radio7_001.mp4", False),
        ("Radio7_1", False),
        ("Radio77.mp4", None),
        ("Radio7_11.mp4", None),
        ("Radio7_0.mp4", None),
        ("Radio7.txt", None),
        ("abc-12_xyz0.webm", None),
        (".Radio7.partial/Radio7.mp4", None),
    ],
)
def test_videos_are_matched_by_usual_names(name, whole, radio7, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert find_video(radio7, [tmp_path]) == (None if whole is None else (file, whole))


def test_a_whole_video_is_preferred_to_a_cut_one(radio7, tmp_path):
    for name in ("Radio7_1.mp4", "RD_Radio7.mp4"):
        (tmp_path / name).touch()
    assert find_video(radio7, [tmp_path / "absent", tmp_path]) == (tmp_path / "RD_Radio7.mp4", True)


FAKE = """#!{python}
import os, shutil, sys
from pathlib import Path
folder = Path({folder!r})
with (folder / "calls.txt").open("a") as file:
    file.write("\\t".join(sys.argv[1:]) + "\\n")
if (folder / "gone").exists():
    sys.exit("WARNING: slow\\nERROR: [youtube] aBc-12_xyZ0: Video unavailable.")
target = sys.argv[sys.argv.index("-o") + 1].replace("%(ext)s", "mp4")
assert not Path(target).parent.parent.joinpath("Radio7.mp4").exists()
Path(target + ".part").touch()
shutil.copy(folder / "site.mp4", target)
os.remove(target + ".part")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A yt-dlp that serves `site.mp4`, alone on the PATH."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "site.mp4").write_bytes(b"video")
    program = folder / "yt-dlp"
    program.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_fetch_asks_for_the_annotated_resolution(site, radio7, tmp_path):
    path = fetch(radio7, tmp_path / "videos")
    assert path == tmp_path / "videos" / "Radio7.mp4" and path.read_bytes() == b"video"
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    fetch(radio7, tmp_path / "videos", resolution=1080)
    first, second = ((site / "calls.txt").read_text()).splitlines()
    assert first.split("\t")[-2:] == ["--", URL]
    assert "-S\tres:512" in first and "-S\tres:1080" in second
    assert "--no-playlist" in first and "-f\tbv*/b" in first  # no ffmpeg on this PATH


def test_fetch_runs_yt_dlp_as_a_module_too(site, radio7, tmp_path, monkeypatch):
    (site / "yt-dlp").rename(site / "yt_dlp.py")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    assert fetch(radio7, tmp_path / "videos").read_bytes() == b"video"


def test_fetch_that_cannot_succeed_says_why(site, radio7, tmp_path, monkeypatch):
    (site / "gone").touch()
    with pytest.raises(VPGCError, match="Radio7 could not be fetched from .*'.*Video unavailable'"):
        fetch(radio7, tmp_path / "videos")
    with pytest.raises(VPGCError, match="Radio7 has no line in RD_video_url.txt: put a Radio7.mp4"):
        fetch(dataclasses.replace(radio7, url=None), tmp_path / "videos")
    os.remove(site / "yt-dlp")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VPGCError, match="yt-dlp is not installed: install it"):
        fetch(radio7, tmp_path / "videos")
    assert not list((tmp_path / "videos").iterdir())


def test_crop_follows_the_files_resolution(radio7, clip):
    cut = locate(radio7, clip)  # 256 lines where 512 were annotated
    assert (cut.start, cut.end, cut.crop) == (1.0, 2.0, Crop(50, 10, 150))
    assert locate(radio7, clip, tracked=True).crop is None
    # A cut file is used from end to end; a square one was cropped.
    cut = locate(radio7, clip, whole=False)
    assert (cut.start, cut.end, cut.crop) == (0.0, None, Crop(0, 0, 256))
    # Rounding may not push a crop out of the picture.
    edge = dataclasses.replace(radio7, crop=Crop(0, 0, 513))
    assert locate(edge, clip).crop == Crop(0, 0, 256)
    # Times are whole seconds: 4 may mean the end of 3 s.
    assert locate(dataclasses.replace(radio7, end=4.0), clip).end is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"end": 4.5}, "Radio7_1 lies at 1 to 4.5 s but .* ends at 3.0 s"),
        ({"start": 2.5}, "ends before it begins"),
        ({"start": None, "end": None}, "no times in RD_annotion_time.txt"),
        ({"crop": None}, "has no crop in RD_crop_wh.txt: let the face choose"),
        ({"resolution": None}, "has no resolution in RD_resolution.txt"),
        ({"crop": Crop(300, 0, 300)}, "leaves the picture of 256x256 in .* by 44 pixels"),
    ],
)
def test_annotation_that_does_not_fit_the_file(change, message, radio7, clip):
    with pytest.raises(VPGCError, match=message):
        locate(dataclasses.replace(radio7, **change), clip)


def test_broken_file_is_named(radio7, tmp_path):
    (tmp_path / "Radio7.mp4").write_bytes(b"x" * 100)
    with pytest.raises(VPGCError, match="Radio7.mp4 cannot be read"):
        locate(radio7, tmp_path / "Radio7.mp4")


def test_preview_shows_beginning_middle_and_end_of_the_crop(radio7, clip):
    image = hdtf.preview(locate(radio7, clip), size=150)
    assert image.shape == (150, 450, 3)
    frames = list(read_frames(clip))
    for place, number in enumerate((25, 37, 49)):
        wanted = frames[number][10:160, 50:200]
        np.testing.assert_array_equal(image[:, 150 * place : 150 * (place + 1)], wanted)
    whole = hdtf.preview(locate(radio7, clip, tracked=True), size=64)
    assert whole.shape == (64, 192, 3)
    first = cv2.resize(frames[25], (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(whole[:, :64], first)


def test_real_layout_of_the_folder(annotations):
    """Other files of the corpus' repository lie beside; they do not matter."""
    shutil.copy(annotations / "RD_resolution.txt", annotations / "README.md")
    assert len(read_annotations(annotations)) == 5
