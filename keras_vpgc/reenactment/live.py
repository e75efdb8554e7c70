"""A puppet that follows a camera: preview window, recording and virtual camera."""

import collections
import dataclasses
import functools
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc.data import video
from keras_vpgc.data.capture import Camera, Clip
from keras_vpgc.data.overlap import Behind
from keras_vpgc.data.sound import add_sound
from keras_vpgc.errors import VPGCError, import_cv2, missing_extra
from keras_vpgc.reenactment.driving import checksum
from keras_vpgc.reenactment.pipeline import StageTimes, Statistics
from keras_vpgc.reenactment.provenance import Provenance, Source
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.reenactment.ready_clip import ReadyClip
from keras_vpgc.reenactment.stream import open_clip
from keras_vpgc.visualization.sheets import write

TITLE = "vpgc live"
# What the recordings are called that a key begins.
RECORDING = "live-{}.mp4"
# Least side of the puppet in the window, in pixels.
WINDOW_SIDE = 512
# Part of the window's height that the driving picture takes in its corner.
INSET = 0.3
# Frames over which the numbers on the screen are taken.
SHOWN = 30
# Seconds that a message stays on the screen, and that keys wait while no frame comes.
MESSAGE, PATIENCE = 2.0, 0.03
# Images that wait to be written before the recording goes without one.
WAITING = 32
KEYS = (
    ("q", "quit"),
    ("n", "this face is neutral"),
    ("s", "side by side"),
    ("r", "record, on and off"),
    ("h", "this help"),
)


def live(
    puppet,
    *,
    camera: int | str | None = None,
    driving=None,
    window: bool | None = None,
    record=None,
    virtual_camera: bool = False,
    side_by_side: bool = False,
    every_frame: bool = False,
    sound: bool = True,
    precision: str | None = None,
    engine: str | None = None,
    overwrite: bool = False,
    provenance: Provenance | None = None,
    say=print,
    **settings,
) -> Statistics:
    """Drive a puppet by a camera, or by a video as if it were one, and show it.

    In the window: `q` or Escape ends, `n` takes the driver's pose and expression of now as neutral,
    `s` shows the driving picture beside, `r` starts and stops a recording, `h` helps. The numbers
    are the frames shown in a second, and how long it is from the arrival of a picture until its
    image is on the screen.

    A recording has a constant rate, the source's: each of its frames shows what was on the screen
    at that time. With `every_frame` it has the driving video's times instead. It ends whole however
    the stream ends. It has the driving video's sound; a camera gives pictures alone.

    Args:
        puppet: A `Puppet`, a `puppet.keras`, a run folder or an exported `.onnx`.
        camera: Number of a camera (default 0), the address of one, or a
            `keras_vpgc.data.capture.Camera`.
        driving: A video instead, played at its own pace; or a file of landmarks or a folder of
            contour images, as for `reenact`.
        window: Show it? Default: if there is a display.
        record: A video to record from the first frame on, such as `out.mp4`.
        virtual_camera: Give the images to other programs as a camera, by `pyvirtualcam`.
        side_by_side: Begin with the driving picture beside the puppet? In recordings too.
        every_frame: Show every frame of a driving video, as fast as it goes.
        sound: Give recordings the driving video's sound, as AAC?
        precision: That of a puppet given by its path, see `Puppet.load`; default: `"auto"`.
        engine: What runs an exported puppet given by its path, see `Puppet.load`.
        overwrite: Replace an existing recording?
        provenance: How recordings say that they are synthetic, those that a key begins too; what it
            knows of the puppet and of a driving video and `composite` are filled in. Its marks are
            drawn for the virtual camera too. Default: by metadata and a manifest.
        say: Is told what the user should know, a sentence each.
        **settings: Of `keras_vpgc.reenactment.stream.Stream`: `retargeting`, `motion`, `neutral`,
            `guard`, `calibration`, `filter`, `lookahead`, `missing`, `workers`, `start`, `end`,
            `tracker_model`.

    Returns:
        `Stream.stats()`, with `latency_on_screen`, from a picture's arrival to the screen, and
        `recordings`, the files.

    Raises:
        VPGCError: if camera, display, virtual camera or a file is not there, or options do not go
            together; for a camera that vanished, after the recording was ended.

    Example:

    ```python
    print(live("runs/me", camera=0, record="me.mp4"))
    ```
    """
    if driving is not None and camera is not None:
        raise VPGCError("A camera and a driving video cannot both drive: choose one of them.")
    if every_frame and driving is None:
        raise VPGCError(
            "A camera's frames come when they come: choose every frame for a driving video only."
        )
    provenance = provenance or Provenance()
    if record is not None:
        video.check_target(record, overwrite)
        if driving is not None and Path(record).exists() and Path(record).samefile(driving):
            raise VPGCError(f"{record} is the driving video itself: choose another recording.")
    shown = _choose_window(window, record is not None or virtual_camera, say)
    _check_provenance(provenance, record, shown, virtual_camera)
    if not isinstance(puppet, Puppet):
        puppet = Puppet.load(puppet, precision or "auto", engine)
    elif precision is not None or engine is not None:
        raise VPGCError(
            "A Puppet has its precision already, and its engine: give the path of its file or run, "
            "or leave these out."
        )
    if driving is not None:
        start, end = settings.pop("start", None), settings.pop("end", None)
        source: Any = open_clip(puppet, driving, start, end, live=not every_frame)
        if record is not None or shown:
            provenance = dataclasses.replace(provenance, driving_sha256=checksum(driving))
    elif camera is None or isinstance(camera, int | str):
        # The stream opens it after all else is checked, and lets it go.
        source = functools.partial(Camera, 0 if camera is None else camera)
    else:
        source = camera
    beside = side_by_side and not isinstance(source, ReadyClip)
    provenance = dataclasses.replace(provenance, puppet=puppet, composite=beside)
    stream = puppet.stream(source, **settings)
    session = _Session(stream, side_by_side, overwrite, provenance, sound, say)
    error: BaseException | None = None
    try:
        # All that can refuse comes before the first frame.
        session.open(shown, virtual_camera, record)
        session.run()
    except KeyboardInterrupt:
        pass
    except Exception as broken:
        error = broken
    finally:
        stream.close()
        session.close(error)
    if error is not None:
        if session.frames:
            say(str(session.stats()))
        raise error
    return session.stats()


class _Session:
    """The loop between the stream and what shows its images."""

    def __init__(self, stream, side_by_side, overwrite, provenance, sound, say):
        self.stream, self.beside, self.overwrite, self.say = stream, side_by_side, overwrite, say
        self.provenance, self.sound = provenance, sound
        self.window: _Window | None = None
        self.camera: _VirtualCamera | None = None
        self.recorder: _Recorder | None = None
        self.recordings: list[str] = []
        self.unwritten = 0
        self.frames = self.faces = 0
        self.on_screen = StageTimes()
        self.record_path: Path | None = None

    def open(self, window, virtual_camera, record):
        if virtual_camera:
            size = self.stream.puppet.size
            shape = (size, size * (1 + self.beside))
            self.camera = _VirtualCamera(shape, self.stream.frame_rate, self.provenance.frame)
        if record is not None:
            self.record_path = Path(record)
            self._record()
        if window:
            self.window = _Window()

    def run(self):
        with self.stream:
            while not self.stream.ended:
                frame = self.stream.read(PATIENCE if self.window else None)
                if frame is not None:
                    self._show(frame)
                if self.window:
                    # OpenCV paints while it waits for a key.
                    key = self.window.key()
                    if frame is not None:
                        self._measure(frame)
                    if not self._obey(key):
                        return

    def stats(self) -> Statistics:
        stats = self.stream.stats()
        if self.window:
            summary = self.on_screen.summary()
            stats["latency_on_screen"] = {k: v for k, v in summary.items() if k != "workers"}
        stats["recordings"] = self.recordings
        return stats

    def close(self, error):
        """End what is open; the recording becomes whole, whatever went wrong elsewhere."""
        if self.window:
            self.window.close()
        if self.camera:
            self.camera.close()
        self._stop_recording()
        if error is None and self.frames and not self.faces:
            self.say("No face was found in any frame: the puppet was at rest all the time.")

    def _show(self, frame):
        self.frames += 1
        self.faces += frame.face
        image = frame.image
        if self.beside:
            image = np.hstack([fitted(frame.picture, len(image)), image])
        if self.recorder:
            self.recorder.add(image, frame.number, frame.second)
        if self.camera:
            self.camera.send(frame.image, image)
        if self.window:
            self.window.show(
                frame,
                self.beside,
                recording=self.recorder is not None,
                calibrating=self.stream.calibrating,
            )

    def _measure(self, frame):
        """The frame has been painted."""
        assert self.window
        shown = time.perf_counter()
        self.on_screen.add(shown - frame.captured)
        self.window.measured(shown, shown - frame.captured)

    def _obey(self, key) -> bool:
        """Do what a key says; go on?"""
        assert self.window
        if key in ("q", "\x1b") or self.window.gone():
            return False
        if key == "n":
            try:
                self.stream.calibrate()
                self.window.say("neutral")
            except VPGCError:
                self.window.say("nothing to calibrate")
        elif key == "s":
            self.beside = not self.beside
            # A video has one size.
            if self.recorder:
                self._stop_recording()
                self._record()
        elif key == "h":
            self.window.help = not self.window.help
        elif key == "r":
            if self.recorder:
                self._stop_recording()
            else:
                try:
                    self._record()
                except VPGCError as error:
                    self.window.say("no recording")
                    self.say(str(error))
        return True

    def _record(self):
        first = self.record_path or Path(RECORDING.format(time.strftime("%Y%m%d-%H%M%S")))
        path, number = first, 1
        # What this session has recorded is not replaced by its next recording.
        while str(path) in self.recordings or (number > 1 and path.exists()):
            number += 1
            path = first.with_stem(f"{first.stem}-{number}")
        clip = self.stream.source
        sources = ()
        if isinstance(clip, Clip):
            sources = (Source(Path(clip.path), "Driving video", self.beside),)
        composite = self.beside and not isinstance(clip, ReadyClip)
        provenance = dataclasses.replace(self.provenance, composite=composite, sources=sources)
        self.recorder = _Recorder(path, self.stream, self.overwrite, provenance, self.sound)

    def _stop_recording(self):
        recorder, self.recorder = self.recorder, None
        if recorder is None:
            return
        try:
            if recorder.close():
                self.recordings.append(str(recorder.path))
                self.say(f"{recorder.path} is ready.")
                if recorder.unwritten:
                    self.say(
                        f"{recorder.unwritten} images were not encoded in time: the recording "
                        "shows the one before each of them."
                    )
                if recorder.silent:
                    self.say(
                        f"The sound of {self.stream.source.path} cannot be decoded or written: "
                        f"{recorder.path} is silent."
                    )
        except VPGCError as error:
            self.say(str(error))


class _Recorder:
    """Writes images in a thread of its own.

    Where the stream is live, at a constant rate: times without an image are filled in, and images
    that are too many are left out. Else each image becomes a frame, and lasts as long as that of
    the driving video.

    Args:
        path: The video.
        stream: What gives the images.
        overwrite: Replace an existing file?
        provenance: How it says that it is synthetic.
        sound: Add the sound of a driving video?
    """

    def __init__(self, path, stream, overwrite, provenance, sound):
        self.path, self.rate, self.live = path, stream.frame_rate, stream.live
        self.unwritten, self.silent = 0, False
        self._provenance = provenance
        self._clip = stream.source if isinstance(stream.source, Clip) else None
        self._times: list[float] | None = None
        info = None if self._clip is None else video.probe(self._clip.path)
        if info is not None and info.variable_rate and not self.live:
            self._times = []
        self._sound = sound and info is not None and info.has_sound
        # What was recorded, in seconds of the driving video.
        self._spans: list[tuple[float, float]] = []
        self._writer = video.VideoWriter(
            path,
            self.rate,
            overwrite=overwrite,
            times=self._times,
            metadata=provenance.metadata(),
            finish=self._finish,
        )
        self._behind = Behind(self._write, WAITING)
        self._behind.__enter__()
        self._last: Any = None
        self._first: float | None = None
        self._written = 0

    def add(self, image, number, second):
        """An image, its number and when it was taken, in seconds of the source."""
        if self._behind.error is not None:
            return  # said by `close`; the stream goes on
        if not self.live:
            if self._clip is not None:
                self._lasts(*self._clip.edges[number : number + 2].tolist())
            self._behind(image, 1)
            return
        self._first = second if self._first is None else self._first
        # An image lasts from its own tick of the clock to the next one's.
        tick = round((second - self._first) * self.rate)
        count = tick + 1 - self._written
        if count < 1:
            return
        if self._behind.full():
            self.unwritten += 1
            return
        self._behind(image, count)
        self._written = tick + 1
        if self._clip is not None:
            start = float(self._clip.edges[0]) + self._first
            self._spans = [(start, start + self._written / self.rate)]

    def _lasts(self, start, end):
        """Note that a frame of the driving video is shown."""
        if self._times is not None:
            before = sum(b - a for a, b in self._spans)
            self._times.append(before)
        if self._spans and abs(self._spans[-1][1] - start) < 1e-6:
            self._spans[-1] = self._spans[-1][0], end
        else:
            self._spans.append((start, end))

    def close(self) -> bool:
        """End the file; was anything written?

        Raises:
            VPGCError: if it could not be written.
        """
        error: BaseException | None = None
        try:
            self._behind.__exit__(None, None, None)
        except BaseException as broken:
            error = broken
        if self._last is None:
            if error is not None:
                # Nothing was written: what was begun of the file goes.
                self._writer.__exit__(type(error), error, None)
                raise error
            return False
        # The frames up to an error are whole: they stay.
        try:
            self._writer.__exit__(None, None, None)
        except BaseException as broken:
            error = error or broken
        if error is not None:
            raise error
        return True

    def _write(self, image, count):
        for place in range(count):
            # Up to its own tick what came before is shown.
            early = place < count - 1 and self._last is not None
            self._writer.write(self._provenance.frame(self._last if early else image))
        self._last = image

    def _finish(self, path):
        """The whole file, before it gets its name."""
        if self._sound and self._clip is not None:
            sounding = path.with_stem(f"{path.stem}-sounding")
            try:
                self.silent = not add_sound(path, self._clip.path, sounding, spans=self._spans)
                if not self.silent:
                    os.replace(sounding, path)
            except (VPGCError, OSError):
                self.silent = True  # the picture is there
            finally:
                sounding.unlink(missing_ok=True)
        self._provenance.sign(path)


class _Window:
    """The preview, by OpenCV."""

    def __init__(self):
        self.cv2 = import_cv2()
        with video.quiet():
            flags = self.cv2.WINDOW_NORMAL | self.cv2.WINDOW_KEEPRATIO | self.cv2.WINDOW_GUI_NORMAL
            self.cv2.namedWindow(TITLE, flags)
            blank = np.zeros((WINDOW_SIDE, WINDOW_SIDE, 3), "uint8")
            self.cv2.imshow(TITLE, write(blank, "starting"))
            self.cv2.resizeWindow(TITLE, WINDOW_SIDE, WINDOW_SIDE)
            self.cv2.waitKey(50)
        self.help = False
        self.size = None
        self._times: collections.deque = collections.deque(maxlen=SHOWN)
        self._latencies: collections.deque = collections.deque(maxlen=SHOWN)
        self._message, self._until = "", 0.0

    def say(self, message):
        self._message, self._until = message, time.perf_counter() + MESSAGE

    def measured(self, shown, latency):
        """When a frame was on the screen, and how old it was."""
        self._times.append(shown)
        self._latencies.append(latency)

    def numbers(self) -> str:
        """The line of numbers: of the last frames, so that it can be read."""
        if len(self._times) < 2:
            return "..."
        rate = (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
        return f"{rate:.1f} frames/s  {1000 * np.median(self._latencies):.0f} ms"

    def show(self, frame, beside, *, recording, calibrating):
        message = self._message if time.perf_counter() < self._until else ""
        if not message:
            message = "no face" if not frame.face else "calibrating" if calibrating else ""
        picture = compose(frame, beside, self.numbers(), message, recording, self.help)
        if picture.shape != self.size:
            self.size = picture.shape
            self.cv2.resizeWindow(TITLE, picture.shape[1], picture.shape[0])
        self.cv2.imshow(TITLE, picture[..., ::-1])

    def key(self) -> str:
        code = self.cv2.waitKey(1)
        return "" if code < 0 else chr(code & 0xFF)

    def gone(self) -> bool:
        """Has the user closed it?"""
        return self.cv2.getWindowProperty(TITLE, self.cv2.WND_PROP_VISIBLE) < 1

    def close(self):
        self.cv2.destroyAllWindows()
        self.cv2.waitKey(1)


def compose(
    frame, beside: bool, numbers: str, message: str = "", recording=False, help=False
) -> np.ndarray:
    """What the window shows.

    Args:
        frame: A `keras_vpgc.reenactment.stream.StreamFrame`.
        beside: Show the driving picture beside the puppet, or else in its corner?
        numbers: A line of text, at the top.
        message: Another, at the bottom.
        recording: Mark it as being recorded?
        help: List the keys?

    Returns:
        uint8 RGB `(side, side, 3)`, twice as wide with the driving picture beside.
    """
    import cv2

    size = len(frame.image)
    side = size * max(1, -(-WINDOW_SIDE // size))
    image = cv2.resize(frame.image, (side, side), interpolation=cv2.INTER_CUBIC)
    if beside:
        image = np.hstack([fitted(frame.picture, side), image])
    else:
        high, wide = frame.picture.shape[:2]
        scale = INSET * side / max(high, wide)
        inset = cv2.resize(
            frame.picture,
            (max(1, round(scale * wide)), max(1, round(scale * high))),
            interpolation=cv2.INTER_AREA,
        )
        image = image.copy()
        image[-len(inset) :, -inset.shape[1] :] = inset
    image = write(image, numbers)
    if message:
        image = write(image, message, -1)
    if recording:
        centre, radius = (image.shape[1] - side // 24, side // 24), side // 48
        cv2.circle(image, centre, radius, (220, 30, 30), -1, cv2.LINE_AA)
    if help:
        for line, (key, does) in enumerate(KEYS, 2):
            image = write(image, f"{key}  {does}", line)
    return image


def fitted(picture, side: int) -> np.ndarray:
    """The middle square of a picture, `(side, side, 3)`."""
    import cv2

    short = min(picture.shape[:2])
    top, left = ((n - short) // 2 for n in picture.shape[:2])
    square = picture[top : top + short, left : left + short]
    method = cv2.INTER_AREA if short > side else cv2.INTER_CUBIC
    return cv2.resize(square, (side, side), interpolation=method)


class _VirtualCamera:
    """A camera for other programs.

    Args:
        shape: Height and width.
        frame_rate: Frames a second.
        mark: From an image to the marked one.
    """

    def __init__(self, shape, frame_rate, mark):
        try:
            import pyvirtualcam
        except ImportError:
            raise missing_extra("pyvirtualcam", "live") from None
        self.height, self.width = shape
        self._mark = mark
        try:
            self._camera = pyvirtualcam.Camera(self.width, self.height, max(1, round(frame_rate)))
        except (RuntimeError, ValueError, OSError) as error:
            raise VPGCError(
                "There is no virtual camera on this machine: load the kernel module v4l2loopback "
                "(Linux) or install OBS Studio (macOS, Windows), or do without it."
            ) from error

    def send(self, alone, composed):
        """The image of the size that the camera began with."""
        wide = self._mark(composed if composed.shape[1] == self.width else alone)
        if wide.shape[1] != self.width:
            wide = np.pad(wide, ((0, 0), (0, self.width - wide.shape[1]), (0, 0)))
        self._camera.send(np.ascontiguousarray(wide))

    def close(self):
        self._camera.close()


def _check_provenance(provenance, record, shown, virtual_camera):
    """Say or refuse once, before the work, what recordings will lack; a key may begin them too."""
    if record is not None or shown:
        provenance.check(RECORDING.format("*") if record is None else record)
    elif virtual_camera and (provenance.mark is not None or provenance.invisible):
        # Of no file anything needs to be said, but marks must be such that can be drawn.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            provenance.check(RECORDING.format("*"))


def _choose_window(window, other, say) -> bool:
    """Whether to show it; refuses what would show nothing to anybody."""
    if window is False or (window is None and other and not _may_have_display()):
        return False
    reason = _no_window()
    if reason is None:
        return True
    if window or not other:
        raise VPGCError(f"{reason}: connect one, or choose --no-window with --record.")
    say(f"{reason}: there is no preview.")
    return False


def _may_have_display() -> bool:
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return not sys.platform.startswith("linux") or bool(named)


def _no_window() -> str | None:
    """Why no window can be opened, or `None`."""
    import_cv2()
    if not _may_have_display():
        return "There is no display for a window (DISPLAY is not set)"
    # Without a display that answers, Qt ends the whole process.
    trial = "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1)"
    try:
        done = subprocess.run([sys.executable, "-c", trial], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "The display does not answer"
    if done.returncode == 0:
        return None
    if b"not implemented" in done.stderr:
        return "The installed OpenCV is a headless one, which has no windows"
    return "There is no display that OpenCV can open a window on"
