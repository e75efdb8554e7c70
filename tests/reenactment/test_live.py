import errno
import hashlib
import sys
import time
import warnings
from types import SimpleNamespace

import av
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data.sound import add_sound
from keras_vpgc.data.video import VideoWriter, frame_times, probe, read_frames
from keras_vpgc.reenactment import Provenance, verify
from keras_vpgc.reenactment import live as module
from keras_vpgc.reenactment.live import compose, fitted, live
from keras_vpgc.reenactment.marks import InvisibleMark, draw_mark
from keras_vpgc.reenactment.stream import StreamFrame
from tests.data.test_sound import speaking
from tests.reenactment.test_driving import click

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def puppet(run):
    return keras_vpgc.load(run)


@pytest.fixture(scope="module")
def pictures(clip):
    return list(read_frames(clip))


@pytest.fixture(scope="module")
def sounding(clip, tmp_path_factory):
    """Two seconds of a face with a click at one second; and the same at a rate that varies."""
    folder = tmp_path_factory.mktemp("sounding")
    even = np.arange(50) / 25
    for name, times in (("even", even), ("varying", even + 0.012 * (np.arange(50) % 3))):
        with VideoWriter(folder / "silent.mp4", 25, times=times, overwrite=True) as video:
            for frame in read_frames(clip, 0, 50):
                video.write(frame)
        speech = speaking(folder / f"{name}.mkv")
        assert add_sound(folder / "silent.mp4", speech, folder / f"{name}.mp4")
    return folder


class FakeCamera:
    """A camera of 25 frames a second that may be pulled out."""

    live, frame_rate = True, 25.0

    def __init__(self, pictures, vanishes=True):
        self.pictures, self.vanishes = pictures, vanishes

    def __iter__(self):
        began = time.perf_counter()
        for number, picture in enumerate(self.pictures):
            time.sleep(max(0.0, began + number / 25 - time.perf_counter()))
            yield picture, number / 25
        if self.vanishes:
            raise VPGCError(f"Camera 0 gives no more pictures after {len(self.pictures)}: look.")


class FakeWindow:
    """Keys that are pressed after some frames, and what was shown."""

    def __init__(self, keys):
        self.keys, self.shown, self.help, self.messages = dict(keys), [], False, []
        self.painted = None

    def show(self, frame, beside, *, recording, calibrating):
        self.shown.append((frame.number, beside, recording, calibrating, self.help))
        self.painted = None

    def key(self):
        # As OpenCV, it paints here.
        self.painted = time.perf_counter()
        return self.keys.pop(len(self.shown), "")

    def say(self, message):
        self.messages.append(message)

    def measured(self, shown, latency):
        assert latency > 0 and self.painted is not None and shown >= self.painted

    def gone(self):
        return False

    def close(self):
        self.closed = True


@pytest.fixture
def window(monkeypatch):
    def press(keys):
        fake = FakeWindow(keys)
        monkeypatch.setattr(module, "_Window", lambda: fake)
        monkeypatch.setattr(module, "_no_window", lambda: None)
        return fake

    return press


def test_every_frame_of_a_clip_is_recorded(puppet, clip, tmp_path):
    target, said = tmp_path / "out.mp4", []
    stats = live(
        puppet, driving=clip, record=target, window=False, every_frame=True, end=0.6,
        side_by_side=True, workers=1, say=said.append,
    )  # fmt: skip
    assert said == [f"{target} is ready."] and stats["recordings"] == [str(target)]
    assert stats["captured"] == stats["shown"] == 15 and stats["dropped"] == 0
    frames = np.stack(list(read_frames(target))).astype(int)
    assert frames.shape == (15, 64, 128, 3)
    # Left the driving picture, right what a stream gives.
    driving = np.stack([fitted(x, 64) for _, x in zip(range(15), read_frames(clip), strict=False)])
    assert np.abs(frames[:, :, :64] - driving).mean() < 6
    images = np.stack([f.image for f in puppet.stream(clip, end=0.6, workers=1)])
    assert np.abs(frames[:, :, 64:] - images).mean() < 6


@pytest.mark.parametrize(
    ("name", "start", "settings"),
    [
        ("even", 0.4, {"every_frame": True}),
        pytest.param("varying", None, {"every_frame": True}, marks=pytest.mark.slow),
        ("even", 0.4, {}),
    ],
)
def test_a_recording_sounds_as_the_driving_video(puppet, sounding, tmp_path, name, start, settings):
    target, driving = tmp_path / "out.mp4", sounding / f"{name}.mp4"
    live(
        puppet, driving=driving, record=target, window=False, start=start, workers=1,
        say=lambda line: None, **settings,
    )  # fmt: skip
    # Live, the first images may be late.
    late = probe(driving).duration - (start or 0) - probe(target).duration
    assert late == pytest.approx(0, abs=0.05) if settings else -0.1 < late < 0.7
    assert click(target) == pytest.approx(1 - (start or 0) - (0 if settings else late), abs=0.05)
    if name == "varying":
        np.testing.assert_allclose(frame_times(target), frame_times(driving), atol=1e-3)
    assert [x.name for x in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(("end", "sound"), [(0.2, False), (0.04, True)])
def test_recordings_without_sound_and_of_one_frame(puppet, sounding, tmp_path, end, sound):
    live(
        puppet, driving=sounding / "even.mp4", record=tmp_path / "o.mp4", window=False, end=end,
        every_frame=True, sound=sound, say=lambda line: None,
    )  # fmt: skip
    assert len(list(read_frames(tmp_path / "o.mp4"))) == round(end * 25)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(container.streams.audio) == sound


@pytest.mark.slow
def test_frames_left_out_take_their_sound_with_them(puppet, sounding, tmp_path, monkeypatch):
    """Frames 5 to 14 show no face and are skipped, so that the click comes 0.4 s sooner."""
    driving, target = tmp_path / "gap.mp4", tmp_path / "out.mp4"
    with VideoWriter(tmp_path / "silent.mp4", 25) as video:
        for k, frame in enumerate(read_frames(sounding / "even.mp4")):
            video.write(np.zeros_like(frame) if 5 <= k < 15 else frame)
    assert add_sound(tmp_path / "silent.mp4", sounding / "even.mp4", driving)
    live(
        puppet, driving=driving, record=target, window=False, every_frame=True, missing="skip",
        workers=1, say=lambda line: None,
    )  # fmt: skip
    frames = len(frame_times(target))
    assert frames == pytest.approx(40, abs=3)
    assert click(target) == pytest.approx(1 - (50 - frames) / 25, abs=0.05)


def test_a_camera_that_vanishes_leaves_a_recording_of_its_length(puppet, pictures, tmp_path):
    target, said = tmp_path / "out.mp4", []
    with pytest.raises(VPGCError, match="Camera 0 gives no more pictures after 30"):
        live(puppet, camera=FakeCamera(pictures[:30]), record=target, window=False, say=said.append)
    assert said[0] == f"{target} is ready." and "frames captured" in said[1]
    # However many images were made, it lasts as long as the camera gave pictures.
    assert len(list(read_frames(target))) == pytest.approx(30, abs=3)
    assert probe(target).frame_rate == 25
    assert [x.name for x in tmp_path.iterdir()] == ["out.mp4"]


def test_keys(puppet, pictures, window, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Both within the same second.
    monkeypatch.setattr("keras_vpgc.reenactment.live.time.strftime", lambda form: "1")
    said = []
    fake = window({2: "n", 3: "s", 4: "h", 5: "r", 9: "s", 12: "r", 14: "q"})
    source = FakeCamera(pictures * 30, vanishes=False)  # a busy machine shows few of them
    stats = live(
        puppet, camera=source, window=True, calibration=1, retargeting="relative", say=said.append
    )
    assert len(fake.shown) == 14 and fake.closed and fake.messages == ["neutral"]
    _, beside, recording, _, helped = map(list, zip(*fake.shown, strict=True))
    assert beside == [False] * 3 + [True] * 6 + [False] * 5
    assert recording == [False] * 5 + [True] * 7 + [False] * 2
    assert helped == [False] * 4 + [True] * 10
    # One recording for each shape of the picture.
    first, second = stats["recordings"]
    assert [probe_size(x) for x in (first, second)] == [(128, 64), (64, 64)]
    assert second == "live-1-2.mp4" and len(list(tmp_path.iterdir())) == 2
    screen = stats["latency_on_screen"]
    assert screen["frames"] == 14 and screen["p50_ms"] >= stats["latency"]["p50_ms"]
    assert "capture to screen" in str(stats)


def probe_size(path):
    frame = next(iter(read_frames(path)))
    return frame.shape[1], frame.shape[0]


def test_ctrl_c_is_a_way_to_end(puppet, pictures, window, tmp_path):
    fake = window({})

    def interrupt():
        if len(fake.shown) == 3:
            raise KeyboardInterrupt
        return FakeWindow.key(fake)

    fake.key = interrupt
    said = []
    stats = live(
        puppet, camera=FakeCamera(pictures), record=tmp_path / "a.mp4", window=True, say=said.append
    )
    assert stats["shown"] == 3 and said == [f"{tmp_path}/a.mp4 is ready."]
    assert list(read_frames(tmp_path / "a.mp4"))


def test_no_face_at_all_is_said(puppet, tmp_path):
    nothing, said = [np.zeros((64, 64, 3), "uint8")] * 4, []
    live(puppet, camera=FakeCamera(nothing, False), record=tmp_path / "a.mp4", window=False,
         say=said.append)  # fmt: skip
    assert "No face was found in any frame" in said[-1]


def test_a_face_that_leaves_is_no_missing_face(puppet, pictures, window, tmp_path):
    fake, said, nothing = window({}), [], np.zeros((64, 64, 3), "uint8")

    class Leaving(FakeCamera):
        def __iter__(self):
            # A busy machine drops pictures: the face stays until it was seen.
            for picture in super().__iter__():
                yield picture
                if fake.shown:
                    break
            yield from FakeCamera([nothing] * 6, False)

    stats = live(puppet, camera=Leaving(pictures * 30), window=True, say=said.append)
    assert stats["without_face"] and not said


@pytest.fixture
def virtual(monkeypatch):
    sent = []

    class Camera:
        def __init__(self, width, height, fps):
            assert (width, height, fps) == (64, 64, 25)

        def send(self, frame):
            sent.append(frame)

        def close(self):
            sent.append("closed")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Camera))
    return sent


def test_virtual_camera_gets_the_images(puppet, clip, virtual):
    settings = {"driving": clip, "window": False, "every_frame": True, "end": 0.2, "workers": 1}
    live(puppet, virtual_camera=True, **settings)
    *frames, last = virtual
    assert last == "closed" and len(frames) == 5
    images = [f.image for f in puppet.stream(clip, end=0.2, workers=1)]
    np.testing.assert_array_equal(frames, images)


def test_virtual_camera_gets_the_marks(puppet, clip, virtual):
    settings = {"driving": clip, "window": False, "every_frame": True, "end": 0.2, "workers": 1}
    provenance = Provenance(mark="fake", invisible=True)
    # Nothing is recorded: nothing is said of recordings, and no mark is refused late.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        live(puppet, virtual_camera=True, provenance=provenance, **settings)
        images = [f.image for f in puppet.stream(clip, end=0.2, workers=1)]
        live(puppet, virtual_camera=True, provenance=Provenance(enabled=False), **settings)
    marked = [draw_mark(InvisibleMark().embed(x), "fake") for x in images]
    np.testing.assert_array_equal(virtual[:5], marked)
    np.testing.assert_array_equal(virtual[6:11], images)
    for wrong, message in ((Provenance(mark=" "), "no letters"),
                           (Provenance(enabled=False, mark="fake"), "no marks")):  # fmt: skip
        with pytest.raises(VPGCError, match=message):
            live(puppet, virtual_camera=True, provenance=wrong, **settings)
    assert len(virtual) == 12


def test_recordings_begun_by_a_key_say_what_they_are(puppet, clip, window, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_VPGC_CACHE", str(tmp_path / "cache"))
    settings = {"driving": clip, "every_frame": True, "end": 0.4, "workers": 1}
    settings["say"] = lambda line: None
    fake = window({1: "r"})
    stats = live(puppet, window=True, **settings)
    (path,) = stats["recordings"]
    found = verify(path).manifest["details"]
    assert found["driving_sha256"] == hashlib.sha256(clip.read_bytes()).hexdigest()
    # What cannot be is refused before anything is shown, though nothing may ever be recorded.
    fake = window({})
    for wrong, message in (
        (Provenance(certificate="a.pem"), "takes a certificate and its key"),
        (Provenance(certificate="a.pem", key="b.pem"), "a.pem"),
        (Provenance(enabled=False, mark="fake"), "Without provenance there are no marks"),
    ):
        with pytest.raises(VPGCError, match=message):
            live(puppet, window=True, provenance=wrong, **settings)
    assert not fake.shown
    # Said once.
    with pytest.warns(UserWarning, match=r"Provenance is off.*live-\*\.mp4") as said:
        live(puppet, window=True, provenance=Provenance(enabled=False), **settings)
    assert len([x for x in said if "Provenance" in str(x.message)]) == 1
    # Without a window no key can begin one.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        live(puppet, camera=FakeCamera([], False), window=False,
             provenance=Provenance(enabled=False), say=settings["say"])  # fmt: skip


def test_missing_virtual_camera_is_said(puppet, clip, tmp_path, monkeypatch):
    def absent(*size):
        raise RuntimeError("'v4l2loopback' backend: No v4l2 loopback device found")

    settings = {"driving": clip, "window": False, "virtual_camera": True}
    target = tmp_path / "a.mp4"
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=absent))
    with pytest.raises(VPGCError, match="no virtual camera on this machine: load .*v4l2loopback"):
        live(puppet, record=target, **settings)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(VPGCError, match=r'pip install "keras_vpgc\[live\]"'):
        live(puppet, record=target, **settings)
    assert not list(tmp_path.iterdir())


def test_without_a_display(puppet, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(VPGCError, match="no display for a window .DISPLAY is not set.: connect"):
        live(puppet, driving=clip)
    with pytest.raises(VPGCError, match="no display"):
        live(puppet, driving=clip, window=True, record=tmp_path / "a.mp4")
    # A display that is named but not there would end the process from within Qt.
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(VPGCError, match="no display that OpenCV can open a window on"):
        live(puppet, driving=clip, window=True)
    said = []
    stats = live(puppet, driving=clip, record=tmp_path / "a.mp4", end=0.1, workers=1,
                 every_frame=True, say=said.append)  # fmt: skip
    assert said[0].endswith("there is no preview.") and stats["shown"] == 3


def test_options_that_do_not_go_together(puppet, run, clip, tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"mine")
    for settings, message in (
        ({"camera": 0, "driving": clip}, "cannot both drive"),
        ({"camera": 0, "every_frame": True}, "frames come when they come"),
        ({"driving": clip, "record": target}, "a.mp4 exists"),
        ({"driving": clip, "record": clip, "overwrite": True}, "is the driving video itself"),
        ({"driving": clip, "record": tmp_path / "a.gif"}, "no name for a video"),
        ({"driving": clip, "precision": "float32"}, "has its precision already"),
        ({"driving": clip, "filter": "none"}, "no filter 'none'"),
        ({"camera": 97}, "Camera 97 cannot be opened"),
    ):
        with pytest.raises(VPGCError, match=message):
            live(puppet, window=False, **settings)
    assert target.read_bytes() == b"mine"
    with pytest.raises(VPGCError, match="no precision 'half'"):
        live(run, driving=clip, window=False, precision="half")


def test_what_the_window_shows(pictures, rng):
    image = rng.integers(0, 256, (64, 64, 3), dtype="uint8")
    wide = np.concatenate([pictures[0], pictures[0]], axis=1)
    frame = StreamFrame(0, 0.0, wide, 0.0, image=image)
    plain = compose(frame, False, "")
    assert plain.shape == (512, 512, 3)
    # The driving picture in its corner keeps its shape.
    inset = plain[-77:, -154:].astype(int)
    small = module.import_cv2().resize(wide, (154, 77), interpolation=3)
    assert np.abs(inset - small).mean() < 4
    beside = compose(frame, True, "")
    assert beside.shape == (512, 1024, 3)
    np.testing.assert_array_equal(beside[:, :512], fitted(wide, 512))
    for change in ({"message": "no face"}, {"recording": True}, {"help": True}):
        other = compose(frame, False, "", **change)
        assert (other != plain).any() and other.shape == plain.shape
    assert (compose(frame, False, "25.0 frames/s")[:40] != plain[:40]).any()


def test_a_recording_that_fails_at_its_first_frame_is_said(puppet, clip, tmp_path, monkeypatch):
    def full(self, image):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Provenance, "frame", full)
    said = []
    try:
        live(
            puppet, driving=clip, record=tmp_path / "o.mp4", window=False, workers=1, end=0.2,
            say=said.append,
        )  # fmt: skip
    except (VPGCError, OSError) as error:
        said.append(str(error))
    assert any("No space left" in line for line in said), said
    assert not list(tmp_path.iterdir())
