import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

from keras_vpgc import VPGCError
from keras_vpgc.data.video import read_frames
from keras_vpgc.reenactment.background import (
    AlphaWriter,
    Background,
    background_key,
    check_alpha_target,
    foreground,
    parse_background,
    refine,
)
from keras_vpgc.reenactment.compositor import check_composition

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def photograph():
    return np.ascontiguousarray(data.astronaut()[:300, 60:360])


@pytest.fixture(scope="module")
def composed():
    """A head with strands of hair before a blue wall: the frame, alpha and the person's colours."""
    size = 240
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size].astype("float32")
    radius = np.hypot((columns - 120) / 60, (rows - 130) / 80)
    angle = np.arctan2(rows - 130, columns - 120)
    radius += 0.05 * np.sin(23 * angle) * (rows < 130)
    alpha = np.clip((1.02 - radius) / 0.06, 0, 1)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (size, size, 3)), (0, 0), 2) * 30
    person = np.clip(np.array([150, 105, 80]) + texture, 0, 255)
    wall = np.array([40, 90, 200]) + 15 * np.sin(columns / 40)[..., None]
    frame = alpha[..., None] * person + (1 - alpha[..., None]) * wall
    return np.rint(frame).astype("uint8"), alpha.astype("float32"), person


def coarse(alpha):
    """What a small network makes of it: too wide, blurred, and too sure."""
    blurred = cv2.GaussianBlur(alpha, (0, 0), 4)
    return np.clip((cv2.dilate(blurred, np.ones((5, 5))) - 0.4) / 0.2, 0, 1)


class Given:
    """A segmenter of our own."""

    def __init__(self, masks):
        self.masks = iter(masks)

    def __call__(self, frame):
        return next(self.masks)

    def close(self):
        pass


def with_masks(masks, name="green"):
    background = Background(name)
    background.close()
    background.segmenter = Given(masks)
    return background


def test_green_background_behind_the_person(photograph):
    with Background("green") as background:
        frames = [background(photograph) for _ in range(2)]
    frame = frames[-1].astype(int)
    assert np.abs(frame[:100, :40] - (0, 177, 64)).max() == 0
    np.testing.assert_array_equal(frames[-1][60:150, 140:200], photograph[60:150, 140:200])


def test_mask_is_brought_to_the_edges(composed):
    frame, alpha, _ = composed
    mask = coarse(alpha)
    assert np.abs(refine(mask, frame) - alpha).mean() < 0.3 * np.abs(mask - alpha).mean()
    # Colours that differ by some grey levels only still have an edge.
    pale = np.rint(120 + 0.15 * (frame.astype("float32") - 120)).astype("uint8")
    assert np.abs(refine(mask, pale) - alpha).mean() < 0.85 * np.abs(mask - alpha).mean()
    # A mask without a person, and one without a background.
    assert refine(0 * alpha, frame).max() == 0 and refine(0 * alpha + 1, frame).min() == 1


@pytest.mark.parametrize("scale", [1, 4])
def test_old_background_does_not_shine_through(composed, scale):
    frame, alpha, person = (
        cv2.resize(v, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for v in composed
    )
    alpha = np.clip(alpha, 0, 1)
    found = foreground(frame, alpha)
    half = (alpha > 0.2) & (alpha < 0.8)
    before = np.abs(frame[half] - person[half]).mean()
    assert np.abs(found[half] - person[half]).mean() < 0.35 * before
    np.testing.assert_array_equal(found[alpha > 0.999], frame[alpha > 0.999])


def test_masks_are_steadied_but_do_not_trail(composed, rng):
    frame, alpha, _ = composed
    moved, moved_alpha = np.roll(frame, 40, axis=1), np.roll(alpha, 40, axis=1)
    # Before a wall of one tone only the mask tells.
    flat = np.full_like(frame, 128)
    noisy = [np.clip(coarse(alpha) + rng.normal(0, 0.3), 0, 1).astype("float32") for _ in range(12)]
    steady = with_masks(noisy)
    alphas = [steady.alpha(flat) for _ in range(12)]
    single = [with_masks([mask]).alpha(flat) for mask in noisy]
    flicker = [np.abs(np.diff(a, axis=0)).mean() for a in (alphas[3:], single[3:])]
    assert flicker[0] < 0.6 * flicker[1]
    jump = with_masks([coarse(alpha)] * 4 + [coarse(moved_alpha)])
    for _ in range(4):
        jump.alpha(frame)
    assert np.abs(jump.alpha(moved) - moved_alpha).mean() < 0.02


def test_result_does_not_depend_on_where_a_job_begins(photograph):
    frames = [np.roll(photograph, k, axis=1) for k in range(7)]
    with Background("#ff00ff") as background:
        whole = [background(frame) for frame in frames]
    with Background("#ff00ff") as background:
        for frame in frames[5 - background.warm_up : 5]:
            background.see(frame)
        np.testing.assert_array_equal(background(frames[5]), whole[5])
    with Background("#ff00ff") as background:
        assert (background(frames[6]) != whole[6]).any()


def test_picture_covers_the_frame(composed, tmp_path):
    frame, alpha, _ = composed
    picture = np.zeros((60, 200, 3), "uint8")
    picture[:, 70:130] = (10, 20, 230)  # BGR
    cv2.imwrite(str(tmp_path / "room.png"), picture)
    with_picture = with_masks([alpha], tmp_path / "room.png")
    result = with_picture(frame)
    # Of the wide picture the middle is shown: all of it is the red part.
    np.testing.assert_allclose(result[5, 30], (230, 20, 10), atol=4)
    np.testing.assert_allclose(result[5, -30], (230, 20, 10), atol=4)


def test_names_of_backgrounds(tmp_path):
    assert parse_background("alpha") is None
    np.testing.assert_array_equal(parse_background("#10fF00"), [[[16, 255, 0]]])
    with pytest.raises(VPGCError, match="no background 'sea': choose green, blue, .*a picture"):
        parse_background("sea")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(VPGCError, match="a.png cannot be read as a picture"):
        parse_background(tmp_path / "a.png")


def read_alpha(path):
    """Frames with alpha, by other decoders than the writer's."""
    if path.is_dir():
        files = sorted(path.iterdir())
        images = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        return [cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA) for image in images]
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = stream.codec_context
        if path.suffix == ".webm":
            assert stream.metadata.get("alpha_mode") == "1"
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        for packet in container.demux(stream):
            for frame in decoder.decode(packet):
                image = frame.reformat(format="rgba", src_colorspace=1, src_color_range="MPEG")
                frames.append(image.to_ndarray())
    return frames


@pytest.mark.parametrize("name", ["me.mov", "me.webm", "me"])
def test_alpha_is_written_and_read_back(composed, tmp_path, name):
    frame, alpha, _ = composed
    frame, alpha = frame[:, :199], alpha[:, :199]  # odd
    shown = np.dstack([frame, np.rint(255 * alpha).astype("uint8")])
    with AlphaWriter(tmp_path / name, 25) as writer:
        for k in range(6):
            writer.write(np.roll(shown, 3 * k, axis=0))
    assert [x.name for x in tmp_path.iterdir()] == [name]
    found = read_alpha(tmp_path / name)
    assert len(found) == 6
    for k in (0, 5):
        difference = np.abs(found[k][:, :199].astype(int) - np.roll(shown, 3 * k, axis=0))
        assert difference[..., 3].mean() < 1 and difference[..., :3].mean() < 4
    with pytest.raises(VPGCError, match=f"{name} exists: choose another name, or --overwrite"):
        check_alpha_target(tmp_path / name)
    with AlphaWriter(tmp_path / name, 25, overwrite=True) as writer:
        writer.write(shown[:50])
    assert len(read_alpha(tmp_path / name)) == 1


def test_stopped_writer_leaves_what_was_there(tmp_path):
    frame = np.zeros((32, 32, 4), "uint8")
    for name in ("a.mov", "b"):
        with AlphaWriter(tmp_path / name, 25) as writer:
            writer.write(frame)
        before = [file.read_bytes() for file in (tmp_path / name, tmp_path / name / "000000.png")
                  if file.is_file()]  # fmt: skip
        said = pytest.warns(UserWarning, match="rendered so far can be played")
        with said, pytest.raises(VPGCError, match="cannot follow frames of .32, 32, 4."):
            with AlphaWriter(tmp_path / name, 25, overwrite=True) as writer:
                writer.write(frame)
                writer.write(frame[:16])
        after = [file.read_bytes() for file in (tmp_path / name, tmp_path / name / "000000.png")
                 if file.is_file()]  # fmt: skip
        assert after == before and len(before) == 1
    names = ["a.mov", "a.partial.mov", "b", "b.partial"]
    assert sorted(x.name for x in tmp_path.iterdir()) == names
    with pytest.raises(VPGCError, match="No frame was written to"):
        with AlphaWriter(tmp_path / "c.mov", 25):
            pass


def test_refused_alpha_targets(tmp_path):
    with pytest.raises(VPGCError, match="me.mp4 cannot hold an alpha channel: .* .mov .*webm"):
        check_alpha_target(tmp_path / "me.mp4")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(VPGCError, match="more than PNG files .letter.txt.: it is not replaced"):
        check_alpha_target(tmp_path / "mine", overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(VPGCError, match="file is a file: choose another name"):
        check_alpha_target(tmp_path / "file", overwrite=True)


def moving(count=6, size=64):
    """Frames of a disc that is cut out."""
    rows, columns = np.mgrid[:size, :size]
    frame = np.random.default_rng(0).integers(60, 190, (size, size, 4), dtype="uint8")
    frame[..., 3] = 255 * (np.hypot(rows - size / 2, columns - size / 2) < size / 3)
    return [np.roll(frame, 2 * k, axis=1) for k in range(count)]


TEXTS = {"title": "Ich, ausgeschnitten \u2702", "comment": "synthetic", "software": "test 1"}
TEXTS["DigitalSourceType"] = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"


@pytest.mark.parametrize("name", ["me.mov", "me.webm"])
def test_metadata_of_containers(tmp_path, name):
    called = []

    def finish(path):
        called.append((path.name, path.parent == tmp_path, len(read_alpha(path))))

    with AlphaWriter(tmp_path / name, 25, metadata=TEXTS, finish=finish) as writer:
        for frame in moving():
            writer.write(frame)
        assert not called and not (tmp_path / name).exists()
    # Whole, and not yet under its name.
    assert called == [(f"me.partial{name[2:]}", True, 6)]
    with av.open(str(tmp_path / name)) as container:
        found = {key.lower(): text for key, text in container.metadata.items()}
    assert {key.lower(): text for key, text in TEXTS.items()}.items() <= found.items()


def test_texts_of_png_files(tmp_path):
    from PIL import Image

    frames = moving(3)
    with AlphaWriter(tmp_path / "me", 25, metadata=TEXTS, finish=lambda path: 1 / 0) as writer:
        for frame in frames:
            writer.write(frame)
    for k, file in enumerate(sorted((tmp_path / "me").iterdir())):
        with Image.open(file) as image:
            image.verify()  # checksums of all chunks
        with Image.open(file) as image:
            assert image.text == {key[0].upper() + key[1:]: text for key, text in TEXTS.items()}
            np.testing.assert_array_equal(np.asarray(image), frames[k])


@pytest.mark.parametrize("name", ["me.mov", "me.webm"])
def test_times_of_a_rate_that_varies(tmp_path, name):
    times = [0, 0.04, 0.1, 0.15, 0.5, 0.52]
    with AlphaWriter(tmp_path / name, 25, times=times) as writer:
        for frame in moving():
            writer.write(frame)
    with av.open(str(tmp_path / name)) as container:
        found = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.pts is not None]
    np.testing.assert_allclose(found, times, atol=6e-4 if name == "me.webm" else 1e-5)
    with pytest.warns(UserWarning), pytest.raises(VPGCError, match="given 1 times but more fram"):
        with AlphaWriter(tmp_path / name, 25, overwrite=True, times=[0]) as writer:
            for frame in moving(2):
                writer.write(frame)


@pytest.mark.parametrize("name", ["me.mov", "me.webm", "me"])
def test_what_a_stopped_writer_leaves_can_be_played(tmp_path, name):
    partial = tmp_path / name.replace("me", "me.partial")
    told = f"What is rendered so far can be played in {partial}; the same call begins anew"
    with pytest.warns(UserWarning, match=told), pytest.raises(KeyboardInterrupt):
        with AlphaWriter(tmp_path / name, 25) as writer:
            for frame in moving():
                writer.write(frame)
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == [partial.name]
    assert len(read_alpha(partial)) == 6
    # Asked for by the caller, it is said by the caller.
    with AlphaWriter(tmp_path / name, 25) as writer:
        for frame in moving(4):
            writer.write(frame)
        assert writer.keep() == partial
    assert os.listdir(tmp_path) == [partial.name]
    assert len(read_alpha(partial)) == 4
    # One that has not begun takes nothing away; a whole one replaces it.
    with pytest.raises(KeyboardInterrupt):
        with AlphaWriter(tmp_path / name, 25) as writer:
            raise KeyboardInterrupt
    assert partial.exists() and len(os.listdir(tmp_path)) == 1
    with AlphaWriter(tmp_path / name, 25) as writer:
        writer.write(moving()[0])
    assert os.listdir(tmp_path) == [name] and len(read_alpha(tmp_path / name)) == 1


@pytest.mark.slow
def test_what_a_killed_writer_leaves_can_be_played(tmp_path):
    code = """
import os, numpy as np
from keras_vpgc.reenactment.background import AlphaWriter
noise = np.random.default_rng(0).integers(0, 255, (96, 96, 4), dtype="uint8")
writers = [AlphaWriter(name, 25) for name in ("me.mov", "me.webm", "me")]
for k in range(150):
    for writer in writers:
        writer.write(np.roll(noise, k, axis=0))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=200).returncode == 9
    # The last frame may be cut off.
    counts = [sum(1 for _ in read_frames(tmp_path / f"me.partial.{x}")) for x in ("mov", "webm")]
    assert min(counts) >= 75
    assert len(list((tmp_path / "me.partial").iterdir())) == 150


def test_whole_movie_is_an_ordinary_one(tmp_path):
    with AlphaWriter(tmp_path / "me.mov", 25) as writer:
        for frame in moving(60):
            writer.write(frame)
    data, boxes = (tmp_path / "me.mov").read_bytes(), []
    while data:
        boxes.append(data[4:8])
        size = int.from_bytes(data[:4], "big")
        data = data[size if size > 1 else int.from_bytes(data[8:16], "big") :]
    # No fragments, which editors may not know, and nothing behind the index.
    assert boxes[0] == b"ftyp" and boxes[-1] == b"moov" and b"moof" not in boxes
    assert boxes.count(b"moov") == 1


def test_failed_finish_loses_nothing(tmp_path):
    with pytest.warns(UserWarning, match="me.partial.mov"), pytest.raises(ZeroDivisionError):
        with AlphaWriter(tmp_path / "me.mov", 25, finish=lambda path: 1 / 0) as writer:
            writer.write(moving()[0])
    assert len(read_alpha(tmp_path / "me.partial.mov")) == 1


@pytest.mark.parametrize("name", ["me.mov", "me"])
def test_nothing_is_left_where_no_frame_could_be_written(tmp_path, monkeypatch, name):
    writer = AlphaWriter(tmp_path / name, 25)
    monkeypatch.setattr(writer, "_png", lambda frame: 1 / 0)
    monkeypatch.setattr("keras_vpgc.data.video.PictureStream.encode", lambda self, frame: 1 / 0)
    with pytest.raises(ZeroDivisionError), writer:
        writer.write(moving()[0])
    assert os.listdir(tmp_path) == []


def test_foreign_files_are_not_replaced(tmp_path):
    (tmp_path / "me.partial").mkdir()
    (tmp_path / "me.partial" / "letter.txt").write_text("dear")
    with pytest.raises(VPGCError, match="me.partial holds more than PNG files .letter.txt."):
        check_alpha_target(tmp_path / "me")
    (tmp_path / "me.partial.mov").mkdir()
    with pytest.raises(VPGCError, match="me.partial.mov is a folder: choose another name"):
        check_alpha_target(tmp_path / "me.mov")


@pytest.mark.parametrize("name, codec", [("me.mov", "prores_ks"), ("me.webm", "libvpx-vp9")])
def test_missing_encoder_is_said_before_the_work(tmp_path, monkeypatch, name, codec):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {codec})
    with pytest.raises(VPGCError, match=f"no encoder for {name[2:]} with alpha, {codec}: install"):
        check_alpha_target(tmp_path / name)
    check_alpha_target(tmp_path / "me")


def test_path_is_a_picture(composed, tmp_path, monkeypatch):
    frame, alpha, _ = composed
    monkeypatch.chdir(tmp_path)
    picture = np.full((20, 20, 3), (10, 20, 230), "uint8")  # BGR
    for name in ("green", "alpha"):
        cv2.imwrite("a.png", picture)
        os.replace("a.png", name)
        np.testing.assert_array_equal(parse_background(Path(name))[0, 0], (230, 20, 10))
    np.testing.assert_array_equal(with_masks([alpha], Path("green"))(frame)[5, 5], (230, 20, 10))
    check_composition("none", None, Path("green"))
    with pytest.raises(VPGCError, match="no picture .*white: give the path of a PNG"):
        check_composition("none", None, tmp_path / "white")
    names = ["green", "alpha", "#10ff00", None]
    assert [background_key(x) for x in names] == names
    before = background_key(Path("green"))
    assert before == background_key(tmp_path / "alpha") and len(before) == 64
    Path("green").write_bytes(cv2.imencode(".png", picture + 1)[1].tobytes())
    assert background_key(Path("green")) != before
