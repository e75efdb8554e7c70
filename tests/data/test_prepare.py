import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import Portrait, prepare, tracking
from keras_vpgc.data import crop as crops
from keras_vpgc.data.landmark_sets import eye_opening, mouth_opening
from keras_vpgc.data.prepare import frame_range, refine, split, track_clip
from keras_vpgc.data.tracking import FaceTracker, Track
from keras_vpgc.data.video import VideoWriter, read_frames

pytestmark = pytest.mark.once


def test_split_has_gaps_of_a_second_and_the_test_part_last():
    parts = split(4998, 25)
    assert parts == {"train": [[0, 3748]], "validation": [[3773, 3973]], "test": [[3998, 4998]]}
    # A short clip gets a fifth and shorter gaps.
    parts = split(100, 25)
    assert parts["test"] == [[80, 100]]
    assert parts["train"][0][1] < parts["validation"][0][0] < parts["validation"][0][1] < 80
    assert split(4998, 25, 250)["test"] == [[4748, 4998]]
    with pytest.raises(VPGCError, match="test part of 90 frames does not fit a clip of 100"):
        split(100, 25, 90)


def test_split_in_blocks_tests_all_over_the_clip():
    parts = split(480, 24, test_blocks=4)
    assert parts["test"] == [[48, 72], [168, 192], [288, 312], [408, 432]]
    ranges = sorted((*ends, part) for part, found in parts.items() for ends in found)
    assert ranges[0][0] == 0 and ranges[-1][1] == 480
    for (_, last, part), (first, _, other) in zip(ranges, ranges[1:], strict=False):
        assert part != other and first - last == 8
    assert sum(last - first for first, last in parts["validation"]) == 38
    with pytest.raises(VPGCError, match="cannot be tested in 99 blocks: choose at most"):
        split(480, 24, test_blocks=99)


def test_portrait_folder_describes_itself(portrait, clip):
    info = json.loads((portrait.path / "portrait.json").read_text())
    assert info["source"] == clip.name and len(info["source_sha256"]) == 64
    assert info["frame_count"] == len(portrait) == 75
    assert info["frame_rate"] == 25
    assert info["schema_version"] == 3 and info["source_size"] == [256, 256]
    assert "mediapipe" in info["tracker"] and info["landmark_set"] == "mediapipe-478"
    assert {x.name for x in portrait.path.iterdir()} == {
        "portrait.json", "frames", "tracking.npz", "landmarks.png",
    }  # fmt: skip
    report = info["report"]
    assert report["source"]["codec"] == "h264" and not report["source"]["has_sound"]
    assert report["frames"] == {
        "tracked": 75, "left_out": 0, "used": 75, "repeated": 0, "interpolated": 0,
        "without_face": 0, "low_confidence": 0,
    }  # fmt: skip
    assert len(report["shots"]) == len(report["persons"]) == 1 and report["notes"] == []
    assert report["seconds"] == 3 and 80 < report["face_height"] < 120
    np.testing.assert_allclose(portrait.times, np.arange(75) / 25, atol=1e-6)
    assert portrait.source_frames.tolist() == list(range(75))
    assert portrait.confidence.min() > 0.9 and not portrait.interpolated.any()
    assert cv2.imread(str(portrait.path / "landmarks.png")).shape == (1280, 1920, 3)
    assert len(list((portrait.path / "frames").iterdir())) == 75
    assert not list(portrait.path.parent.glob(".*"))


def test_tracked_landmarks_are_the_true_ones(portrait, clip):
    """The animated portrait's landmarks are known: crop, scale and order must be right."""
    truth = np.load(clip.with_suffix(".npz"))["landmarks"]
    crop = portrait.info["crop"]
    truth = (truth * 256 - [crop["x"], crop["y"]]) / crop["size"]
    distance = np.linalg.norm(portrait.landmarks - truth, axis=-1)
    face = np.ptp(truth[..., 1], axis=1).mean()
    assert np.median(distance) / face < 0.03
    a, b = mouth_opening(portrait.landmarks), mouth_opening(truth)
    assert np.corrcoef(a, b)[0, 1] > 0.9
    shut = eye_opening(truth).mean(1)
    assert np.corrcoef(eye_opening(portrait.landmarks).mean(1), shut)[0, 1] > 0.7


def test_frames_are_the_crop_of_the_video(portrait, clip):
    crop = {k: int(v) for k, v in portrait.info["crop"].items()}
    source = list(read_frames(clip))[40]
    cut = source[crop["y"] : crop["y"] + crop["size"], crop["x"] : crop["x"] + crop["size"]]
    wanted = cv2.resize(cut, (64, 64), interpolation=cv2.INTER_AREA)
    found = portrait.frames([40])[0]
    assert np.abs(found.astype(int) - wanted).mean() < 1
    assert portrait.frames([1, 2], size=32).shape == (2, 32, 32, 3)
    # The face is in the middle and fills about half.
    face = portrait.landmarks[portrait.indices("train")]
    assert np.abs(face.mean((0, 1)) - 0.5).max() < 0.15
    assert 0.3 < np.ptp(face[..., 1], axis=1).mean() < 0.7


def test_prepared_portrait_is_used_again_and_others_are_kept(portrait, clip, tmp_path):
    before = (portrait.path / "portrait.json").stat().st_mtime_ns
    prepare(clip, portrait.path, size=64, progress=False)
    assert (portrait.path / "portrait.json").stat().st_mtime_ns == before
    with pytest.raises(VPGCError, match="holds something else"):
        prepare(clip, portrait.path, size=32, progress=False)
    assert (portrait.path / "portrait.json").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(VPGCError, match="holds something else"):
        prepare(clip, tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_chosen_crop_and_range(clip, tmp_path):
    portrait = prepare(
        clip, tmp_path / "p", crop="20,10,200", size=64, start=0.2, end=2.2, progress=False
    )
    assert portrait.info["crop"] == {"x": 20, "y": 10, "size": 200}
    assert len(portrait) == 50 and portrait.info["source_range"] == [5, 55]
    source = list(read_frames(clip, 5, 6))[0][10:210, 20:220]
    wanted = cv2.resize(source, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(portrait.frames([0])[0].astype(int) - wanted).mean() < 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"crop": "200,0,100"}, "leaves the picture of 256x256 pixels"),
        ({"crop": "1,2"}, "three numbers X,Y,SIZE"),
        ({"size": 4}, "too small"),
        ({"test_frames": 70}, "does not fit a clip of 75"),
        ({"end": 0.8}, "Only 20 of the 20 frames"),
        ({"start": 7}, "no frame of .* from 7 s to its end: it lasts 2.96 s"),
        ({"start": 2, "end": 1}, "no frame of .* from 2 s to 1 s"),
        ({"rate": -5}, "rate = -5 is impossible"),
        ({"max_gap": -1}, "max_gap = -1 is impossible"),
        ({"workers": 0}, "workers = 0 is impossible"),
    ],
)
def test_bad_settings_leave_nothing(settings, message, clip, tmp_path):
    with pytest.raises(VPGCError, match=message):
        prepare(clip, tmp_path / "p", progress=False, **settings)
    assert not list(tmp_path.iterdir())


def test_video_without_a_face_leaves_nothing(tmp_path, rng):
    source = tmp_path / "wall.mp4"
    wall = cv2.GaussianBlur(rng.integers(0, 256, size=(120, 160, 3), dtype="uint8"), (0, 0), 9)
    with VideoWriter(source, 25) as video:
        for _ in range(40):
            video.write(wall)
    with pytest.raises(VPGCError, match="No face was found in any of the 40 frames of .*wall.mp4"):
        prepare(source, tmp_path / "p", progress=False)
    assert [x.name for x in tmp_path.iterdir()] == ["wall.mp4"]


def write_stamped(path, frames, stamps, encoder="libx264", pixels="yuv420p", **options):
    """A video whose frames appear at given milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.options = {"crf": "18", **options}
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, stamp in zip(frames, stamps, strict=True):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            image.pts, image.time_base = int(stamp), Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def faces():
    """40 frames of 128x128 of a talking head."""
    from examples.animated_portrait import animate

    return [frame for frame, _ in animate(40, 128)]


def test_repeated_frames_are_not_trained_on(faces, tmp_path):
    """Doubled frames, encoded again by a usual setting."""
    doubled = [frame for frame in faces for _ in range(2)]
    write_stamped(tmp_path / "doubled.mp4", doubled, 20 * np.arange(80), crf="23")
    portrait = prepare(tmp_path / "doubled.mp4", tmp_path / "p", progress=False)
    train = portrait.indices("train")
    ((first, last),) = portrait.ranges("train")
    assert 0.45 * (last - first) <= len(train) <= 0.6 * (last - first)
    assert (train % 2 == 0).mean() > 0.9
    assert "repeat the one before" in " ".join(portrait.info["report"]["notes"])
    # At half of the rate nothing repeats.
    half = prepare(tmp_path / "doubled.mp4", tmp_path / "h", rate=25, progress=False)
    assert half.source_frames.tolist() == list(range(0, 80, 2)) and half.frame_rate == 25
    assert half.repeated.mean() < 0.1


def test_frames_are_picked_by_time_stamps(faces, tmp_path, rng):
    stamps = np.cumsum(rng.integers(15, 70, size=40))
    write_stamped(tmp_path / "v.mp4", faces, stamps)
    own = prepare(tmp_path / "v.mp4", tmp_path / "own", progress=False)
    seconds = (stamps - stamps[0]) / 1000
    np.testing.assert_allclose(own.times, seconds, atol=1e-3)
    assert own.frame_rate == pytest.approx(39 / seconds[-1], rel=1e-3)
    assert own.info["report"]["source"]["variable_rate"]
    portrait = prepare(tmp_path / "v.mp4", tmp_path / "p", rate=60, progress=False)
    assert portrait.frame_rate == 60
    for tick, shown in enumerate(portrait.source_frames):
        # Stamps of milliseconds may be one too late.
        assert shown == max(i for i in range(40) if seconds[i] <= tick / 60 + 1e-3)
    np.testing.assert_allclose(portrait.times, seconds[portrait.source_frames], atol=1e-3)
    again = np.diff(portrait.source_frames, prepend=-1) == 0
    assert portrait.repeated[again].all() and portrait.repeated[~again].mean() < 0.1
    i = int(np.flatnonzero(again)[3])
    np.testing.assert_array_equal(portrait.points[i], portrait.points[i - 1])
    images = portrait.frames([i - 1, i])
    np.testing.assert_array_equal(images[0], images[1])


def test_two_people_and_a_choice_between_them(faces, tmp_path, monkeypatch):
    small = [cv2.resize(frame, (112, 112)) for frame in faces]
    both = [
        np.hstack([frame, np.pad(other, ((16, 0), (0, 16), (0, 0)))])
        for frame, other in zip(faces, small[::-1], strict=True)
    ]
    write_stamped(tmp_path / "two.mp4", both, 40 * np.arange(40))
    with pytest.raises(VPGCError, match="one person alone; found: 1 .*, 2 .*--person") as error:
        prepare(tmp_path / "two.mp4", tmp_path / "p", progress=False)
    assert "40 frames" in str(error.value) and not (tmp_path / "p").exists()
    with pytest.raises(VPGCError, match="no person 3"):
        prepare(tmp_path / "two.mp4", tmp_path / "p", person=3, progress=False)
    with pytest.raises(VPGCError, match="No face lies in the crop 0,0,20; found: 1 "):
        prepare(tmp_path / "two.mp4", tmp_path / "p", crop="0,0,20", progress=False)

    def refuse(self, frame):
        raise AssertionError("the track that was there is made again")

    monkeypatch.setattr(FaceTracker, "detect", refuse)
    portrait = prepare(tmp_path / "two.mp4", tmp_path / "p", person=2, progress=False)
    report = portrait.info["report"]
    assert report["person"] == 2 and len(report["persons"]) == 2
    middle = report["persons"][1]["middle"][0]
    crop = portrait.info["crop"]
    assert crop["x"] < middle < crop["x"] + crop["size"]
    assert np.abs(portrait.landmarks[..., 0].mean() * crop["size"] + crop["x"] - middle) < 8
    # A crop is a choice too.
    monkeypatch.undo()
    cropped = prepare(tmp_path / "two.mp4", tmp_path / "q", crop="128,16,112", progress=False)
    assert cropped.info["report"]["person"] == 2
    found = 128 + 112 * cropped.landmarks[..., 0].mean()
    assert abs(found - middle) < 8


def test_cuts_part_the_clip_and_the_longest_part_is_used(faces, tmp_path):
    bright = [np.clip(frame[:, ::-1].astype(int) + 120, 0, 255).astype("uint8") for frame in faces]
    order = [*bright[:5], *faces, *bright[:8]]
    write_stamped(tmp_path / "v.mp4", order, 40 * np.arange(53))
    portrait = prepare(tmp_path / "v.mp4", tmp_path / "p", progress=False)
    report = portrait.info["report"]
    assert [shot["start"] for shot in report["shots"]] == [0, 0.2, 1.8]
    assert portrait.source_frames.tolist() == list(range(5, 45))
    assert report["frames"]["left_out"] == 13 and "one was used" in report["notes"][0]
    # The driving side takes everybody, shot by shot.
    track = track_clip(tmp_path / "v.mp4", end=1.9, progress=False)
    assert track.valid.shape == (48,) and track.valid.all()


def test_face_that_leaves(faces, tmp_path):
    """Gone for half a second: filled in; gone for long: without landmarks, and still split."""
    wall = np.full((128, 128, 3), faces[0].mean((0, 1)).astype("uint8"))
    shares = np.linspace(0, 1, 6)[1:-1]
    leaving = [np.rint(a * wall + (1 - a) * faces[-1]).astype("uint8") for a in shares]
    coming = [np.rint(a * wall + (1 - a) * faces[0]).astype("uint8") for a in shares[::-1]]
    order = [*faces, *leaving, *[wall] * 4, *coming, *faces]
    write_stamped(tmp_path / "v.mp4", order, 40 * np.arange(len(order)))
    portrait = prepare(tmp_path / "v.mp4", tmp_path / "p", max_gap=1, progress=False)
    assert len(portrait) == 92 and portrait.valid.all()
    filled = np.flatnonzero(portrait.interpolated)
    assert set(range(44, 48)) <= set(filled) <= set(range(40, 52))
    a, b = filled[0] - 1, filled[-1] + 1
    assert (
        portrait.points[filled] >= np.minimum(portrait.points[a], portrait.points[b]) - 1e-6
    ).all()
    for part in ("train", "validation", "test"):
        assert not portrait.interpolated[portrait.indices(part)].any()
    short = prepare(tmp_path / "v.mp4", tmp_path / "s", max_gap=0.1, progress=False)
    assert not short.valid[filled].any() and np.isnan(short.points[filled]).all()
    assert short.info["report"]["frames"]["without_face"] == len(filled)
    assert np.isfinite(short.landmarks).all()
    # The parts hold as many frames with the face as those of a clip of such frames alone.
    wanted = split(92 - len(filled), 25)
    for part, ((first, last),) in wanted.items():
        repeated = short.repeated[slice(*short.ranges(part)[0])].sum()
        assert last - first - repeated <= len(short.indices(part)) <= last - first
    assert "show no face" in " ".join(short.info["report"]["notes"])


def test_wrong_faces_are_dropped_and_filled(portrait, rng):
    """A face that leaps away for a frame is not believed."""
    crop = crops.Crop(**portrait.info["crop"])
    points = crops.from_crop(portrait.points, crop)
    track = Track(
        points,
        portrait.blendshapes,
        portrait.matrices,
        portrait.confidence,
        portrait.interpolated,
        portrait.valid,
    )
    before = points.copy()
    points[30] += [70, 0, 0]
    found, facts = refine(track, portrait.times, 256, 256)
    assert facts["low_confidence"] == facts["interpolated"] == 1 and found.interpolated[30]
    assert np.abs(found.points[30, :, :2] - before[30, :, :2]).mean() < 1
    assert track.valid.all() and not track.interpolated.any()  # the given one stays


def test_number_of_workers_does_not_change_the_portrait(clip, portrait, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "CHUNK_FRAMES", 30)
    monkeypatch.setattr(import_module("keras_vpgc.data.prepare"), "CHUNK_FRAMES", 20)
    other = prepare(clip, tmp_path / "p", size=64, workers=2, progress=False)
    for name in ("points", "blendshapes", "matrices", "confidence", "valid", "repeated", "times"):
        np.testing.assert_array_equal(getattr(other, name), getattr(portrait, name))
    np.testing.assert_array_equal(other.frames(), portrait.frames())
    assert other.info == portrait.info


@pytest.mark.slow
def test_killed_preparation_goes_on_and_gives_the_same(clip, portrait, tmp_path, monkeypatch):
    """Killed while two workers track: no portrait is there; the same call finishes it."""
    code = (
        "import sys; from keras_vpgc.data import prepare, tracking\n"
        "tracking.CHUNK_FRAMES = 10\n"
        "prepare(sys.argv[1], sys.argv[2], size=64, workers=2, progress=False)"
    )
    target, parts = tmp_path / "p", tmp_path / ".p.partial" / "tracking"
    process = subprocess.Popen([sys.executable, "-c", code, str(clip), str(target)])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(parts.glob("[0-9]*.npz"))) >= 2:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    monkeypatch.setattr(tracking, "CHUNK_FRAMES", 10)
    done = list(parts.glob("[0-9]*.npz"))
    assert 2 <= len(done) < 8
    seen = []
    detect = FaceTracker.detect
    monkeypatch.setattr(FaceTracker, "detect", lambda s, f: seen.append(1) or detect(s, f))
    again = prepare(clip, target, size=64, workers=1, progress=False)
    assert len(seen) <= 75 - sum(len(np.load(file)["cut"]) for file in done if file.exists())
    np.testing.assert_array_equal(again.points, portrait.points)
    np.testing.assert_array_equal(again.frames(), portrait.frames())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_cutting_goes_on(stop, clip, portrait, tmp_path, monkeypatch):
    write, written = crops._write_png, []

    def stopped(image, files):
        if len(written) == 20:
            raise stop
        written.append(files)
        write(image, files)

    monkeypatch.setattr(crops, "_write_png", stopped)
    wanted = pytest.raises(VPGCError, match="no space left for .*goes on from here")
    with pytest.raises(KeyboardInterrupt) if stop is KeyboardInterrupt else wanted:
        prepare(clip, tmp_path / "p", size=64, progress=False)
    assert not (tmp_path / "p").exists()
    assert len(list((tmp_path / ".p.partial" / "frames").glob("[0-9]*.png"))) == 20
    monkeypatch.setattr(crops, "_write_png", lambda i, f: written.append(f) or write(i, f))
    monkeypatch.setattr(FaceTracker, "detect", None)
    again = prepare(clip, tmp_path / "p", size=64, progress=False)
    assert len(written) == 75
    np.testing.assert_array_equal(again.frames(), portrait.frames())
    assert [x.name for x in tmp_path.iterdir()] == ["p"]


def test_places_that_cannot_be_written(clip, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(VPGCError, match="cannot be written .*choose another place"):
        prepare(clip, tmp_path / "file" / "p", progress=False)

    def refuse(self, *args, **kwargs):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(VPGCError, match=r"p cannot be written \(Read-only file system\)"):
        prepare(clip, tmp_path / "p", progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_overwriting_replaces_portraits_only(portrait, clip, tmp_path):
    shutil.copytree(portrait.path, tmp_path / "p")
    new = prepare(clip, tmp_path / "p", size=32, overwrite=True, progress=False)
    assert new.size == 32 and [x.name for x in tmp_path.iterdir()] == ["p"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(VPGCError, match="something else than a portrait"):
        prepare(clip, tmp_path / "mine", overwrite=True, progress=False)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_portrait_between_two_renamings_comes_back(portrait, clip, tmp_path):
    """Killed when the old portrait was set aside and the new one not yet in its place."""
    shutil.copytree(portrait.path, tmp_path / ".p.old")
    prepare(clip, tmp_path / "p", size=64, progress=False)
    assert [x.name for x in tmp_path.iterdir()] == ["p"]
    np.testing.assert_array_equal(Portrait(tmp_path / "p").points, portrait.points)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda f: [x[::32, ::32] for x in f],
            "pictures of 4x4 pixels: a face can be found in 64x64",
        ),
        (lambda f: f[:1], "is a single picture"),
    ],
    ids=["tiny", "picture"],
)
def test_videos_in_which_no_face_can_be(make, message, faces, tmp_path):
    frames = make(faces)
    write_stamped(tmp_path / "v.mkv", frames, 40 * np.arange(len(frames)), "ffv1", "bgr0")
    with pytest.raises(VPGCError, match=message):
        prepare(tmp_path / "v.mkv", tmp_path / "p", progress=False)
    assert [x.name for x in tmp_path.iterdir()] == ["v.mkv"]


@pytest.mark.parametrize("pixels", ["gray", "yuv420p10le"])
def test_grey_and_ten_bit_videos_are_as_good(pixels, faces, tmp_path):
    write_stamped(tmp_path / "v.mkv", faces, 40 * np.arange(40), "ffv1", pixels)
    portrait = prepare(tmp_path / "v.mkv", tmp_path / "p", size=64, progress=False)
    assert portrait.valid.all() and portrait.info["report"]["source"]["pixel_format"] == pixels
    if pixels == "gray":
        assert np.ptp(portrait.frames([7])[0].astype(int), axis=-1).max() <= 2


def test_file_that_was_cut_off_is_used_as_far_as_it_goes(clip, tmp_path):
    with av.open(str(clip)) as source, av.open(str(tmp_path / "v.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "v.mkv").write_bytes(whole[: int(0.7 * len(whole))])
    portrait = prepare(tmp_path / "v.mkv", tmp_path / "p", size=64, progress=False)
    assert 30 <= len(portrait) < 75 and np.isfinite(portrait.landmarks).all()
    (tmp_path / "v.mkv").write_bytes(whole[:300])
    with pytest.raises(VPGCError, match="v.mkv"):
        prepare(tmp_path / "v.mkv", tmp_path / "q", progress=False)


def test_range_of_frames_between_two_times(clip):
    assert frame_range(clip) == (0, 75)
    assert frame_range(clip, 0.2, 0.4) == (5, 10)
    assert frame_range(clip, 0.201) == (6, 75)
    assert frame_range(clip, end=100) == (0, 75)


def test_damaged_portraits_are_named(portrait, tmp_path):
    with pytest.raises(VPGCError, match="no portrait folder"):
        Portrait(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(portrait.path, copy)
    info = json.loads((copy / "portrait.json").read_text())
    (copy / "frames" / "000007.png").write_bytes(b"")
    with pytest.raises(VPGCError, match="000007.png is missing or damaged"):
        Portrait(copy).frames()
    (copy / "portrait.json").write_text(json.dumps({**info, "schema_version": 7}))
    with pytest.raises(VPGCError, match="schema version 7 but this keras_vpgc reads 3"):
        Portrait(copy)
    (copy / "portrait.json").write_text("{")
    with pytest.raises(VPGCError, match="damaged"):
        Portrait(copy)
    with pytest.raises(VPGCError, match="no part 'training'"):
        portrait.indices("training")


def test_real_clip_without_a_face(test_data, tmp_path):
    with pytest.raises(VPGCError, match="No face was found in any of the 95 frames"):
        prepare(test_data / "hard" / "no_face.mp4", tmp_path / "p", progress=False)
    assert not list(tmp_path.iterdir())


def test_real_clip_whose_face_leaves(test_data, tmp_path):
    """The face, then cuts to pictures without one: the shot with the face is used."""
    portrait = prepare(
        test_data / "hard" / "face_noface.mov", tmp_path / "p", size=64, progress=False
    )
    report = portrait.info["report"]
    assert len(report["shots"]) >= 2 and report["source"]["variable_rate"]
    assert len(portrait) == 72 and portrait.valid.all() and report["frames"]["left_out"] == 97


def test_real_footage(test_data, tmp_path):
    portrait = prepare(test_data / "franck.webm", tmp_path / "p", end=2.4, progress=False)
    report = portrait.info["report"]
    assert report["frames"]["without_face"] == 0 and len(portrait) == 60
    assert report["jitter"]["after"] < 0.8 * report["jitter"]["before"]
    face = portrait.landmarks
    # The eyes are above the mouth, his right eye is on the left, all lies in the crop.
    assert (face[:, 36:48, 1].mean(1) < face[:, 48:, 1].mean(1) - 0.1).all()
    assert (face[:, 36, 0] < face[:, 45, 0] - 0.1).all()
    assert 0 < face.min() and face.max() < 1


def test_real_clip_that_was_cut_off(test_data, tmp_path):
    """The head announces three minutes, the packets end after some seconds."""
    data = (test_data / "franck.webm").read_bytes()
    (tmp_path / "v.webm").write_bytes(data[: len(data) // 60])
    portrait = prepare(tmp_path / "v.webm", tmp_path / "p", size=64, progress=False)
    (note,) = portrait.info["report"]["notes"]
    assert "cut off: it announces 3:19, and" in note and 30 < len(portrait) < 200


def test_places_that_a_portrait_cannot_have(clip, portrait, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VPGCError, match="needs a folder of its own, not ."):
        prepare(clip, ".", progress=False)
    copy = tmp_path / "p"
    shutil.copytree(portrait.path, copy)
    shutil.copy(clip, copy / "me.mp4")
    with pytest.raises(VPGCError, match="me.mp4 lies inside of .*p, the portrait folder to make"):
        prepare(copy / "me.mp4", copy, overwrite=True, progress=False)
    with pytest.raises(VPGCError, match="also holds me.mp4, which --overwrite would delete"):
        prepare(clip, copy, overwrite=True, size=32, progress=False)
    assert (copy / "me.mp4").exists() and len(Portrait(copy)) == 75


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": 100000}, "100000 pixels is too large: choose at most 2048"),
        ({"rate": 100000}, "100000 frames a second are too many: choose at most 240"),
        ({"tracker_model": "m.task"}, "m.task is not the face landmarker's model"),
    ],
)
def test_settings_out_of_reach_leave_nothing(clip, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    Path("m.task").write_text("text")
    with pytest.raises(VPGCError, match=message):
        prepare(clip, "p", progress=False, **settings)
    assert [x.name for x in tmp_path.iterdir()] == ["m.task"]


@pytest.mark.parametrize("damage", ["tracking", "info"])
def test_damaged_files_of_a_portrait(portrait, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(portrait.path, copy)
    if damage == "tracking":
        whole = (copy / "tracking.npz").read_bytes()
        (copy / "tracking.npz").write_bytes(whole[: len(whole) // 2])
    else:
        info = {"schema_version": portrait.info["schema_version"]}
        (copy / "portrait.json").write_text(json.dumps(info))
    with pytest.raises(VPGCError, match="is damaged: prepare the video again"):
        Portrait(copy)
