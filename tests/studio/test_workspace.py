"""What may come in, and what never leads out."""

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import av
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.studio.workspace import Limits, Workspace, container_of, safe_name

pytestmark = pytest.mark.once


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


def left(workspace):
    return [x for x in workspace.folder.rglob("*") if x.is_file()]


def film(path, seconds, announce=True):
    """A film of two pictures that lie `seconds` apart."""
    options = {} if announce else {"live": "1"}
    with av.open(str(path), "w", options=options) as target:
        stream = target.add_stream("mpeg4", rate=25, width=32, height=32)
        for time in (0, seconds * 25):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), "uint8"), format="rgb24")
            frame.pts = time
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def test_a_video_comes_in_by_a_plain_name(workspace, clip):
    name = workspace.take(clip, "../../etc/Zoë's clip (1).exe")
    assert name == "Zoe-s-clip-1.mp4"
    assert workspace.path("videos", name).read_bytes() == clip.read_bytes()
    # The same again is another one, and the suffix is the content's.
    assert workspace.take(clip, "Zoë's clip (1)") == "Zoe-s-clip-1-2.mp4"
    assert workspace.names("videos")[0] == "Zoe-s-clip-1-2.mp4"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("../../passwd", "passwd"), ("..\\..\\boot.ini", "boot.ini"), ("/etc/shadow", "shadow"),
        (".bashrc", "bashrc"), ("a/../b", "b"), ("con", "con_"), ("NUL.mp4", "NUL.mp4_"),
        ("--help", "help"), ("a;rm -rf ~.mp4", "a-rm--rf-.mp4"), ("x" * 300, "x" * 60),
        ("..", ""), ("日本", ""), ("a\x00b\nc", "a-b-c"), ("a..b", "a.b"),
    ],
)  # fmt: skip
def test_names_are_plain(given, wanted):
    assert safe_name(given) == wanted
    assert safe_name(wanted) == wanted


def test_what_is_no_video_is_refused_in_a_sentence(workspace, tmp_path, clip):
    files = {
        "empty.mp4": (b"", r"^empty is empty \(0 bytes\)"),
        # The head of a Windows executable and of a Linux one.
        "setup.mp4": (b"MZ\x90\x00" + bytes(5000), "^setup is no video by its content"),
        "tool.mov": (b"\x7fELF" + bytes(5000), "^tool is no video by its content"),
        "page.mp4": (b"<html><script>alert(1)</script>", "no video by its content"),
        # A playlist would make FFmpeg read other files.
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no video by its content"),
        "still.mp4": (b"\x89PNG\r\n\x1a\n" + bytes(100), "no video by its content"),
        "cut.mp4": (clip.read_bytes()[:2000], "^cut cannot be read as a video"),
    }
    for name, (content, sentence) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VPGCError, match=sentence) as refused:
            workspace.take(tmp_path / name)
        assert str(tmp_path) not in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(VPGCError, match="did not arrive"):
        workspace.take(tmp_path / "gone.mp4")
    assert left(workspace) == []


def test_a_film_of_two_hours_and_a_large_file_are_refused(tmp_path, clip):
    long = film(tmp_path / "film.mkv", 7200)
    with pytest.raises(VPGCError, match="film is 120 minutes long and at most 30 are taken: cut"):
        Workspace(tmp_path / "w").take(long)
    # Without a length in the header, as browsers record.
    live = film(tmp_path / "live.mkv", 7200, announce=False)
    with av.open(str(live)) as opened:
        assert opened.duration is None
    with pytest.raises(VPGCError, match="live is 120 minutes long"):
        Workspace(tmp_path / "w").take(live)
    assert Workspace(tmp_path / "w", Limits(minutes=121)).take(long) == "film.mkv"
    with open(tmp_path / "big.mp4", "wb") as file:
        file.truncate(3 * 2**20)
    with pytest.raises(VPGCError, match="big has 3 MB and at most 2 are taken"):
        Workspace(tmp_path / "w", Limits(megabytes=2)).take(tmp_path / "big.mp4")


def test_full_disk(workspace, clip, monkeypatch):
    usage = shutil._ntuple_diskusage(10**12, 10**12, 30 * 2**20)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(VPGCError, match="has 30 MB left, and 500 MB are needed: delete"):
            workspace.take(clip)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(VPGCError, match="no space left for astronaut.mp4: delete what you"):
            workspace.take(clip)
    assert left(workspace) == []


def test_nothing_outside_can_be_named(workspace, tmp_path, clip):
    (tmp_path / "secret").mkdir()
    shutil.copy(clip, tmp_path / "secret" / "own.mp4")
    for name in ("../secret/own.mp4", "/etc/passwd", "..", ".", "", "a/b", ".studio", None, 3):
        with pytest.raises(VPGCError, match="nothing called"):
            workspace.path("videos", name)
    with pytest.raises(VPGCError, match="nothing called"):
        workspace.path("../secret", "own.mp4")
    os.symlink(tmp_path / "secret" / "own.mp4", workspace.folder / "videos" / "link.mp4")
    with pytest.raises(VPGCError, match="link.mp4 is a link out of"):
        workspace.path("videos", "link.mp4")
    # Nor does it stand in the list, which must not fail over it.
    os.symlink(tmp_path / "secret", workspace.folder / "runs" / "link")
    (tmp_path / "secret" / "run.json").write_text("{}")
    os.symlink("round", workspace.folder / "videos" / "round")
    assert workspace.names("videos") == workspace.names("runs") == []
    with pytest.raises(VPGCError, match="gone.mp4 is no longer there"):
        workspace.existing("videos", "gone.mp4")
    with pytest.raises(VPGCError, match="pick a video first"):
        workspace.existing("videos", None)


def test_the_longest_names_come_in_and_are_found_again(workspace, clip):
    for number in range(2):
        name = workspace.take(clip, "x" * 300)
        assert workspace.existing("videos", name).stem == ("x" * 60, "x" * 54 + "-2")[number]
        assert name in workspace.names("videos")
    made = workspace.free_name("driven", f"{'x' * 60}-by-{'y' * 60}", ".webm")
    assert workspace.path("driven", made).name == made


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps a person's folders by other means")
def test_other_accounts_see_nothing(workspace):
    for folder in (workspace.folder, *workspace.folder.iterdir()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_two_uploads_of_one_name_at_once_are_two_videos(workspace, clip, tmp_path, monkeypatch):
    other = film(tmp_path / "other.mp4", 1)
    both, copy = Barrier(2), shutil.copyfile

    def together(*files):
        copy(*files)
        both.wait(30)

    monkeypatch.setattr(shutil, "copyfile", together)
    with ThreadPoolExecutor(2) as pool:
        names = list(pool.map(lambda file: workspace.take(file, "me"), (clip, other)))
    assert sorted(names) == ["me-2.mp4", "me.mp4"]
    for name, file in zip(names, (clip, other), strict=True):
        assert workspace.path("videos", name).read_bytes() == file.read_bytes()
    assert len(left(workspace)) == 2


def test_containers_are_told_by_their_content(tmp_path, clip):
    assert container_of(clip) == ".mp4"
    for suffix in (".mkv", ".webm", ".avi", ".mov", ".ts", ".flv", ".mpg"):
        file = tmp_path / f"a{suffix}"
        codec = {".webm": "vp8", ".flv": "flv", ".mpg": "mpeg2video"}.get(suffix, "mpeg4")
        with av.open(str(file), "w") as target:
            stream = target.add_stream(codec, rate=25, width=64, height=64)
            for _ in range(30):
                noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
                target.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            target.mux(stream.encode(None))
        assert container_of(file) == suffix, suffix
