import itertools
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data.capture import Clip
from keras_vpgc.data.retarget import fit_head
from keras_vpgc.data.smoothing import OneEuro
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.data.video import read_frames
from keras_vpgc.reenactment import Puppet, verify
from keras_vpgc.reenactment import stream as stream_module
from keras_vpgc.reenactment.contours import drive_contours
from keras_vpgc.reenactment.live import live
from keras_vpgc.reenactment.live_retargeting import (
    Calibration,
    LiveRetargeting,
    SamePerson,
    rest_landmarks,
)
from keras_vpgc.training import draw
from tests.layers.layer_case import to_numpy

once = pytest.mark.once
SIZE = (256, 256)


@pytest.fixture(scope="module")
def puppet(run):
    return keras_vpgc.load(run)


@pytest.fixture(scope="module")
def pictures(clip):
    return list(read_frames(clip))


@pytest.fixture(scope="module")
def points(pictures):
    """The tracker's points in each picture."""
    with FaceTracker() as tracker:
        return tracker.track(pictures).points


class Source:
    """Pictures as a camera gives them, and what goes wrong with it."""

    live = False

    def __init__(self, pictures, live=False, pause=0.0, breaks=None):
        self.pictures, self.live, self.pause, self.breaks = pictures, live, pause, breaks
        self.given = 0

    def __iter__(self):
        for number, picture in enumerate(self.pictures):
            if number == self.breaks:
                raise VPGCError(f"The camera gives no more pictures after {number}: plug it in.")
            time.sleep(self.pause)
            self.given += 1
            yield picture, number / 25


def push_all(stream, landmarks):
    images = [stream.push(x) for x in landmarks]
    return [x for x in images if x is not None] + stream.flush()


def test_pushed_landmarks_give_the_images_of_the_whole_clip(puppet, portrait):
    landmarks = portrait.landmarks[:12]
    with puppet.stream() as stream:
        assert stream.lookahead == 3
        for number, one in enumerate(landmarks):
            # The image of three frames ago.
            assert (stream.push(one) is None) == (number < 3)
        assert len(stream.flush()) == 3
        images = np.stack(push_all(stream, landmarks)).astype(int)
    assert np.abs(images - puppet.drive(landmarks)).max() <= 1
    assert stream.stats()["shown"] == 24


@once
def test_no_image_depends_on_what_comes_later(puppet, portrait):
    landmarks = portrait.landmarks[:10]
    changed = landmarks.copy()
    changed[6:] += 0.05
    for lookahead in (0, 2):
        first, second = (
            np.stack(push_all(puppet.stream(lookahead=lookahead), x)) for x in (landmarks, changed)
        )
        assert len(first) == 10
        same = (first == second).all((1, 2, 3))
        assert same[: 6 - lookahead].all() and not same[6 - lookahead]


@once
def test_newest_landmarks_stand_for_those_to_come(puppet, portrait):
    landmarks = portrait.landmarks[:8]
    found = push_all(puppet.stream(lookahead=1), landmarks)
    # Frame 5 when frame 6 is the newest: 2, 3, 4, 5, 6, 6, 6.
    seen = landmarks[[2, 3, 4, 5, 6, 6, 6]]
    wanted = puppet._call(seen)
    np.testing.assert_allclose(found[5], to_numpy(wanted)[0])


@once
def test_causal_puppet_needs_no_lookahead(puppet, portrait):
    causal = Puppet(puppet.model)
    causal.metadata = {**puppet.metadata, "context_mode": "causal"}
    landmarks = portrait.landmarks[:9]
    stream = causal.stream()
    assert stream.lookahead == 0
    images = np.stack([stream.push(x) for x in landmarks]).astype(int)
    assert np.abs(images - causal.drive(landmarks)).max() <= 1
    with pytest.raises(VPGCError, match="lookahead of 1 frames does not fit .* choose 0"):
        causal.stream(lookahead=1)


@once
def test_bad_landmarks_change_nothing(puppet, portrait):
    landmarks = portrait.landmarks[:6].astype("float32")
    stream = puppet.stream(lookahead=0)
    images = []
    for one in landmarks:
        images.append(stream.push(one))
        with pytest.raises(VPGCError, match=f"landmarks of frame {len(images)} are not finite"):
            stream.push(np.where(np.arange(68)[:, None] == 3, np.nan, one))
        with pytest.raises(VPGCError, match="outside of the crop's"):
            stream.push(one * 512)
        with pytest.raises(VPGCError, match=r"shape \(frames, 68, 2\)"):
            stream.push(one[:60])
    again = push_all(puppet.stream(lookahead=0), landmarks)
    np.testing.assert_array_equal(images, again)


def gap(puppet, missing, landmarks, lost):
    """The landmarks behind the images of a stream that loses the face."""
    stream = puppet.stream(lookahead=0, missing=missing)
    shown, call = [], stream._launch
    half = 3

    def note(window):
        shown.append(window[half])
        return call(window)

    stream._launch = note
    images = [stream.push(None if i in lost else x) for i, x in enumerate(landmarks)]
    assert stream.stats()["without_face"] == len(lost)
    return images, np.stack(shown)


@pytest.mark.slow
@once
def test_without_a_face_the_last_image_stays(puppet, portrait):
    landmarks = portrait.landmarks[:32]
    images, shown = gap(puppet, "hold", landmarks, range(10, 20))
    assert all(x is not None for x in images)
    np.testing.assert_array_equal(shown[10:20], np.repeat(landmarks[9:10], 10, axis=0))
    np.testing.assert_array_equal(images[19], images[18])
    # Back without a jump, and then exactly there.
    before = np.abs(np.diff(landmarks, axis=0)).max()
    assert np.abs(shown[20] - shown[19]).max() <= before
    np.testing.assert_allclose(shown[30:], landmarks[30:], atol=1e-6)


@pytest.mark.slow
@once
def test_without_a_face_the_puppet_comes_to_rest(puppet, portrait):
    landmarks = portrait.landmarks[:45]
    rest = rest_landmarks(puppet)
    _, shown = gap(puppet, "fade", landmarks, range(4, 34))
    away = np.abs(shown - rest).mean((1, 2))
    assert (np.diff(away[3:30]) <= 1e-7).all() and away[3] > 0 and away[30] < 1e-6
    np.testing.assert_allclose(shown[44], landmarks[44], atol=1e-6)
    # The face at rest is the one that the puppet was calibrated with.
    pose = portrait.landmarks[portrait.indices("train")[puppet.metadata["pose"]["frame"]]]
    assert np.abs(rest - pose).max() < 1e-3


@once
def test_without_a_face_frames_are_skipped(puppet, portrait):
    images, _ = gap(puppet, "skip", portrait.landmarks[:12], range(4, 8))
    assert [x is None for x in images] == [4 <= i < 8 for i in range(12)]


@once
def test_no_face_at_the_start_shows_the_puppet_at_rest(puppet, portrait):
    rest = puppet.drive(np.repeat(rest_landmarks(puppet)[None], 7, 0))[3].astype(int)
    stream = puppet.stream(lookahead=0)
    assert np.abs(stream.push(None) - rest).max() <= 1
    assert puppet.stream(lookahead=0, missing="skip").push(None) is None


def test_a_clip_drives_as_it_does_offline(puppet, clip, portrait):
    """The own clip, taken as it is: every frame, in order, and what `drive` makes of it."""
    with puppet.stream(clip, filter="off", end=0.6, workers=1) as stream:
        frames = list(stream)
    assert [f.number for f in frames] == list(range(15)) and all(f.face for f in frames)
    landmarks = np.stack([f.landmarks for f in frames])
    # The portrait's are smoothed.
    assert np.abs(landmarks - portrait.landmarks[:15]).max() < 0.01
    images = np.stack([f.image for f in frames]).astype(int)
    assert np.abs(images - puppet.drive(landmarks)).max() <= 1
    stats = stream.stats()
    assert stats["captured"] == stats["shown"] == 15 and stats["dropped"] == 0
    assert set(stats["stages"]) == {"capture", "tracking", "retargeting", "network", "output"}
    assert stats["latency"]["p99_ms"] >= stats["latency"]["p50_ms"] > 0
    table = str(stats).splitlines()
    assert len(table) == 2 + 5 + 1 + 2 and "15 frames captured, 15 shown, 0 dropped" in table[-1]


@pytest.mark.once
def test_ready_landmarks_and_drawings_stream_as_they_do_offline(puppet, portrait, tmp_path):
    landmarks = portrait.landmarks[:12].astype("float32")
    np.savez(tmp_path / "d.npz", landmarks=landmarks, frame_rate=50.0)
    drawings = draw(landmarks, 64)
    (tmp_path / "drawn").mkdir()
    for number, drawing in enumerate(drawings):
        cv2.imwrite(str(tmp_path / "drawn" / f"{number}.png"), drawing)
    whole = np.concatenate(list(drive_contours(puppet, drawings[2:])))
    for source, start, rate, wanted, shown in (
        ("d.npz", 0.04, 50.0, puppet.drive(landmarks[2:]), None),
        ("drawn", 2 / puppet.metadata["frame_rate"], 25.0, whole, drawings[2:]),
    ):
        with puppet.stream(tmp_path / source, start=start) as stream:
            frames = list(stream)
        assert stream.frame_rate == pytest.approx(rate) and stream.stats()["without_face"] == 0
        assert [frame.number for frame in frames] == list(range(10)) and frames[0].face
        assert frames[5].second == pytest.approx(5 / rate)
        images = np.stack([frame.image for frame in frames]).astype(int)
        assert np.abs(images - wanted).max() <= 1
        # What drives is shown beside.
        picture = frames[5].picture
        assert picture.shape == (64, 64, 3) and picture.max() > 100
        if shown is not None:
            np.testing.assert_array_equal(picture[..., 0], shown[5])


@once
def test_ready_landmarks_and_drawings_play_live(puppet, portrait, tmp_path):
    np.savez(tmp_path / "d.npz", landmarks=portrait.landmarks[:25])
    (tmp_path / "drawn").mkdir()
    for number, drawing in enumerate(draw(portrait.landmarks[:25], 64)):
        cv2.imwrite(str(tmp_path / "drawn" / f"{number}.png"), drawing)
    for source in ("d.npz", "drawn"):
        said, target = [], tmp_path / f"{source}.mp4"
        stats = live(
            puppet, driving=tmp_path / source, record=target, window=False, say=said.append,
            side_by_side=True,
        )  # fmt: skip
        assert stats["captured"] == 25 and "tracking" not in stats["stages"]
        assert said[0] == f"{target} is ready." and 1 <= len(list(read_frames(target))) <= 25
        assert verify(target).exit_code == 0
    for settings, message in (
        ({"retargeting": "relative"}, "file of landmarks, which cannot be retargeted"),
        ({"neutral": 0.2}, "file of landmarks, which cannot be retargeted"),
        ({"start": 9}, "holds 25 frames of landmarks, none of them in the part"),
    ):
        with pytest.raises(VPGCError, match=message):
            puppet.stream(tmp_path / "d.npz", **settings)
    with pytest.raises(VPGCError, match="Contour images cannot be filtered"):
        puppet.stream(tmp_path / "drawn", filter="one-euro")
    with pytest.raises(VPGCError, match="nothing to calibrate"):
        puppet.stream(tmp_path / "d.npz").calibrate()


@once
@pytest.mark.slow
def test_number_of_trackers_changes_nothing(puppet, pictures):
    found = []
    for workers in (1, 2):
        frames = list(puppet.stream(pictures[:8], workers=workers, retargeting="relative"))
        assert [f.number for f in frames] == list(range(8))
        found.append(np.stack([f.image for f in frames]))
    np.testing.assert_array_equal(*found)


@once
def test_relative_motion_follows_that_of_the_whole_clip(puppet, points):
    """Of another camera: what is known after the calibration is what `landmarks_of` finds."""
    track = SimpleNamespace(points=points, valid=np.ones(75, bool))
    known = Calibration.of(fit_head(points[:25], *SIZE), 5)
    for settings in ({}, {"motion": 0.3}, {"mode": "absolute"}, {"guard": "clamp"}):
        live = LiveRetargeting(puppet, **{"guard": "off", **settings}, calibration=known)
        found = np.stack([live(x, SIZE)[0] for x in points])
        settings = {"mode": "relative", "guard": "off", **settings}
        mode = settings.pop("mode")
        wanted = puppet.landmarks_of(track, SIZE, None, mode, neutral=5, **settings)
        # The shape is that of 25 frames instead of 75.
        assert np.abs(found - wanted).mean() < 2e-3 and np.abs(found - wanted).max() < 0.02


@once
def test_a_second_of_the_clip_is_neutral(puppet, clip):
    frames = list(
        puppet.stream(Clip(clip, end=0.4), filter="off", neutral=0.2, motion=0.5, workers=1)
    )
    rest = rest_landmarks(puppet)
    away = [np.abs(f.landmarks - rest).max() for f in frames]
    assert np.argmin(away) == 5 and away[5] < 1e-3


@once
def test_calibration_is_kept_begun_anew_and_glides(puppet, points):
    live = LiveRetargeting(puppet, guard="off", calibration=4)
    rest = rest_landmarks(puppet)
    found, jumps = zip(*(live(x, SIZE) for x in points[:8]), strict=True)
    # The first frame alone is neutral, so the puppet is at rest.
    assert np.abs(found[0] - rest).max() < 1e-3
    assert [bool(np.any(x)) for x in jumps] == [i in (1, 3) for i in range(8)]
    assert not live.calibrating
    kept = live.calibration
    live.calibrate()
    assert live.calibrating
    landmarks, jump = live(points[40], SIZE)
    assert np.abs(landmarks - rest).max() < 1e-3
    # By that the old calibration's are elsewhere.
    before = LiveRetargeting(puppet, guard="off", calibration=kept)(points[40], SIZE)[0]
    np.testing.assert_allclose(landmarks - jump, before, atol=1e-6)
    again = LiveRetargeting(puppet, guard="off", calibration=live.calibration)
    assert not again.calibrating and isinstance(again.calibration, Calibration)
    np.testing.assert_allclose(again(points[40], SIZE)[0], landmarks, atol=1e-5)
    # What is no face is none.
    assert live(np.full((478, 3), np.nan), SIZE) == (None, 0.0)
    assert live(points[3] + [200, 0, 0], SIZE) == (None, 0.0)
    squashed = np.random.default_rng(0).permutation(points[3])
    assert live(squashed, SIZE)[0] is None


@once
def test_guard_clamps_and_warns_once(puppet, points):
    tilted = points[0].astype("float64")
    middle = tilted.mean(0)
    cos, sin = np.cos(0.6), np.sin(0.6)
    tilted[:, :2] = (tilted[:, :2] - middle[:2]) @ np.array([[cos, sin], [-sin, cos]]) + middle[:2]
    live, found = {}, {}
    for name in ("warn", "clamp", "off"):
        live[name] = LiveRetargeting(puppet, "absolute", guard=name, calibration=1)
        live[name](points[0], SIZE)
        found[name] = live[name](tilted, SIZE)[0]
    np.testing.assert_array_equal(found["warn"], found["off"])
    assert np.abs(found["clamp"] - found["off"]).max() > 0.02
    assert live["warn"].warning is None
    for _ in range(100):
        live["warn"](tilted, SIZE)
    words = "of the driving frames leave what the puppet has seen"
    assert words in live["warn"].warning
    assert live["off"].warning is live["clamp"].warning is None


@once
def test_a_short_clip_warns_at_its_end(puppet, pictures):
    turn = cv2.getRotationMatrix2D((128, 128), 30, 1)
    turned = [cv2.warpAffine(x, turn, SIZE) for x in pictures[:6]]
    with pytest.warns(UserWarning, match="leave what the puppet has seen") as found:
        list(puppet.stream(pictures[:2] + turned, retargeting="absolute", workers=1))
    # Once, whatever else libraries have to say.
    assert sum("leave what the puppet has seen" in str(x.message) for x in found) == 1


@pytest.mark.slow
@once
def test_the_filter_steadies_and_is_ones_own(puppet, pictures, rng):
    still = [pictures[0]] * 10
    noisy = [np.clip(x + rng.normal(0, 12, x.shape), 0, 255).astype("uint8") for x in still]
    moved = {}
    for name in ("off", "one-euro", OneEuro(0.05, 0.0)):
        frames = list(puppet.stream(noisy, filter=name, retargeting="none", workers=1))
        landmarks = np.stack([f.landmarks for f in frames])
        moved[str(name)[:6]] = np.abs(np.diff(landmarks, 2, axis=0)).mean()
    off, usual, strong = moved.values()
    assert strong < 0.3 * off and strong < usual < off


@once
def test_a_camera_that_vanishes_ends_after_its_last_image(puppet, pictures):
    source = Source(pictures[:20], breaks=6)
    frames = []
    with pytest.raises(VPGCError, match="no more pictures after 6"):
        for frame in puppet.stream(source, workers=1):
            frames.append(frame)
    assert [f.number for f in frames] == list(range(6))


@once
def test_a_bug_in_a_source_is_told_as_it_is(puppet):
    def broken():
        yield np.zeros((64, 64, 3), "uint8")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(puppet.stream(broken(), workers=1))
    for picture, words in ((np.zeros((64, 64)), "float64"), (np.zeros((64, 64), "uint8"), "uint8")):
        with pytest.raises(VPGCError, match=f"Picture 0 of the source is of type {words}"):
            list(puppet.stream([picture], workers=1))


@once
def test_live_the_newest_picture_wins_and_memory_is_bounded(puppet, pictures):
    """A slow program sees few frames, all of them newer than the one before."""
    source = Source(pictures, live=True, pause=0.01)
    numbers = []
    with puppet.stream(source) as stream:
        assert stream.live and stream.lookahead == 0
        while (frame := stream.read()) is not None:
            numbers.append(frame.number)
            if len(numbers) > 1:
                time.sleep(0.25)
        stats = stream.stats()
    assert numbers == sorted(set(numbers)) and len(numbers) < 40 and numbers[-1] == 74
    assert stats["captured"] == 75 == stats["shown"] + stats["dropped"]
    assert all(queue["most"] <= queue["size"] <= 8 for queue in stats["queues"].values())


@once
def test_live_no_picture_is_tracked_for_nothing(puppet, pictures, monkeypatch):
    """A slow network takes one picture after the other; those between are not tracked."""
    begin = puppet.begin

    def slow(landmarks):
        time.sleep(0.1)
        return begin(landmarks)

    monkeypatch.setattr(puppet, "begin", slow)
    with puppet.stream(Source(itertools.cycle(pictures), live=True, pause=0.02)) as stream:
        shown = list(itertools.islice(stream, 12))
        tracked = stream.stats()["stages"]["tracking"]["frames"]
    assert len(shown) == 12 <= tracked <= 18


@once
@pytest.mark.slow
def test_a_file_waits_for_a_slow_program(puppet, pictures):
    source = Source(pictures[:40])
    with puppet.stream(source, workers=1, retargeting="none") as stream:
        assert stream.read().number == 0
        time.sleep(1.0)
        # Queues, what is being worked on, and the context; not the whole clip.
        assert source.given < 25
        rest = [f.number for f in stream]
    assert rest == list(range(1, 40))
    assert stream.stats()["dropped"] == 0


@once
def test_closing_early_ends_the_threads(puppet, pictures):
    source = Source(pictures, pause=0.005)
    for frame in puppet.stream(source, workers=1):
        assert frame.number == 0
        break
    with puppet.stream(source, workers=1) as stream:
        stream.read()
    assert stream.ended and stream.read() is None
    assert not any(thread.is_alive() for thread in stream._threads)


@once
def test_a_played_clip_keeps_its_pace(clip):
    began = time.perf_counter()
    seconds = [(second, time.perf_counter() - began) for _, second in Clip(clip, 1, 1.4, live=True)]
    assert len(seconds) == 10
    first = seconds[0][1]
    assert all(now - first >= second - 1e-3 for second, now in seconds)


@once
def test_only_the_driver_drives(portrait):
    face = portrait.points[0] * 256
    other = face * 1.3 + np.float32([300, 0, 0])
    same = SamePerson()
    assert same(np.stack([face]), 0.0) is not None
    # A larger face comes in; the driver goes away; after a while the other one counts.
    np.testing.assert_array_equal(same(np.stack([other, face + 1]), 0.04), face + 1)
    assert same(np.stack([other]), 0.08) is None
    assert same(np.empty((0, 478, 3)), 0.12) is None
    np.testing.assert_array_equal(same(np.stack([other]), 1.0), other)


@once
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"retargeting": "some"}, "no retargeting 'some'"),
        ({"guard": "maybe"}, "no guard 'maybe'"),
        ({"filter": "kalman"}, "no filter 'kalman': choose one of one-euro, off"),
        ({"missing": "cry"}, "no way 'cry' with frames without a face"),
        ({"lookahead": 4}, "lookahead of 4 frames does not fit .* 0 to 3"),
        ({"workers": 0}, "0 workers cannot track"),
        ({"motion": 2.0}, "strength of head motion is 2"),
        ({"retargeting": "none", "motion": 0.5}, "'none' takes the landmarks as they are"),
        ({"calibration": 0}, "calibration of 0 frames"),
        ({"neutral": 99}, "Second 99 is not in the part of .*astronaut"),
        ({"neutral": 1, "retargeting": "none"}, "neutral second says nothing"),
        ({"start": 50}, "There is no frame of .*astronaut"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_options_that_do_not_fit(puppet, clip, settings, message):
    with pytest.raises(VPGCError, match=message):
        puppet.stream(clip, **settings)


@once
def test_ways_that_do_not_go_together(puppet, clip, pictures):
    with pytest.raises(VPGCError, match="driven by its source"):
        puppet.stream(pictures).push(np.zeros((68, 2)))
    with pytest.raises(VPGCError, match="has no source to iterate over"):
        next(iter(puppet.stream()))
    with pytest.raises(VPGCError, match="Only a video has a second"):
        puppet.stream(pictures, neutral=1)
    with pytest.raises(VPGCError, match="nothing to calibrate"):
        puppet.stream(pictures, retargeting="none").calibrate()
    with pytest.raises(VPGCError, match="Camera 97 cannot be opened: connect it"):
        puppet.stream(97)
    with pytest.raises(VPGCError, match="There is no file"):
        puppet.stream("missing.mp4")


@once
def test_no_error_leaves_a_camera_taken(puppet, pictures, monkeypatch):
    cameras = []

    class Camera(Source):
        def __init__(self, number):
            super().__init__(pictures[:4], live=True)
            self.frame_rate, self.closed = 25.0, False
            cameras.append(self)

        def close(self):
            self.closed = True

    monkeypatch.setattr(stream_module, "Camera", Camera)
    for settings in (
        {"missing": "cry"}, {"filter": "kalman"}, {"motion": 2.0}, {"calibration": 0},
        {"lookahead": 9}, {"workers": 0}, {"neutral": 1}, {"tracker_model": "missing.task"},
    ):  # fmt: skip
        with pytest.raises(VPGCError):
            puppet.stream(0, **settings)
    assert not cameras

    def broken(*settings):
        raise VPGCError("No tracker begins.")

    begins = stream_module.TrackerPool
    monkeypatch.setattr(stream_module, "TrackerPool", broken)
    for begin in (lambda s: s.__enter__(), lambda s: s.read(), lambda s: next(iter(s))):
        stream = puppet.stream(0)
        assert not cameras[-1].closed
        with pytest.raises(VPGCError, match="No tracker begins"):
            begin(stream)
        assert cameras[-1].closed and stream.ended
    # One that a function opens is let go as well; another's is not.
    monkeypatch.setattr(stream_module, "TrackerPool", begins)
    stream = puppet.stream(lambda: Camera("address"))
    assert stream.live and stream.frame_rate == 25 and stream.workers == 1
    assert list(stream) and cameras[-1].closed
    mine = Camera(0)
    assert list(puppet.stream(mine)) and not mine.closed


@once
def test_a_face_that_leaves_and_comes_back(puppet, pictures):
    """No face at the start, in the middle and at the end."""
    nothing = [np.zeros_like(pictures[0])] * 3
    source = nothing + pictures[:6] + nothing + pictures[9:14] + nothing
    frames = list(puppet.stream(source, workers=1))
    faces = [f.face for f in frames]
    assert faces == [False] * 3 + [True] * 6 + [False] * 3 + [True] * 5 + [False] * 3
    assert np.isfinite(np.stack([f.landmarks for f in frames])).all()
    skipped = list(puppet.stream(source, workers=1, missing="skip"))
    assert [f.number for f in skipped] == [i for i, face in enumerate(faces) if face]
