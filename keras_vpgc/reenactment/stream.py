"""Driving frame by frame: a camera, a video, or landmarks as they come."""

import collections
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import parallel
from keras_vpgc.data.capture import Camera, Clip
from keras_vpgc.data.smoothing import OneEuro
from keras_vpgc.data.tracker_pool import TrackerPool
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment.contours import begin_of_drawings
from keras_vpgc.reenactment.driving import check_free, is_drawn, is_stored
from keras_vpgc.reenactment.live_retargeting import (
    CALIBRATION_FRAMES,
    Calibration,
    LiveRetargeting,
    SamePerson,
    rest_landmarks,
)
from keras_vpgc.reenactment.pipeline import Channel, Closed, Pace, StageTimes, Statistics
from keras_vpgc.reenactment.puppet import GUARDS, RETARGETING, check_landmarks
from keras_vpgc.reenactment.ready_clip import ReadyClip
from keras_vpgc.reenactment.steady import Steady

# More trackers than this only make the network wait for its turn on the processor.
MAX_WORKERS = 8
STAGES = ("capture", "tracking", "retargeting", "network", "output")


@dataclass
class StreamFrame:
    """What a stream makes of a picture.

    Attributes:
        number: Number of the picture, from 0; those that were dropped are counted.
        second: When it was taken, in seconds of the source.
        picture: The driving picture, uint8 RGB `(h, w, 3)`.
        face: Was the driver's face found?
        points: The tracker's points, float32 `(478, 3)` in pixels of the picture, or `None`.
        landmarks: Float32 `(68, 2)` (78 with irises) in the puppet's crop; or the contour image.
        image: uint8 RGB `(size, size, 3)`: the puppet.
        captured: When the picture arrived, on the clock of `time.perf_counter`.
        ready: When the image was there, on that clock.
    """

    number: int
    second: float
    picture: Any
    captured: float
    face: bool = False
    points: Any = None
    landmarks: Any = None
    image: Any = None
    ready: float = 0.0


class Stream:
    """Drives a puppet frame by frame, by a source or by landmarks that are pushed.

    **By a source**: iterate. Capture, tracking, retargeting and the network work beside each
    other, with bounded queues between them, so memory stays flat however long it lasts. With
    `live` (the default for cameras) the newest picture wins: a stage that is late drops what came
    before. Otherwise no frame is dropped.

    **Without one**: `push` the landmarks of each frame and get its image.

    A puppet of centred context sees the frames around one, 3 on each side. Those after it are not
    there yet. `lookahead` frames are waited for, which costs their time as latency, and where that
    is less than the puppet sees the newest landmarks stand for the others. In live mode neighbours
    are taken at the puppet's own rate, by interpolation, whatever the rate of the camera.

    Args:
        puppet: A `Puppet`.
        source: Number of a camera (0 is the first); path of a video, of a file of landmarks or of a
            folder of contour images (see `reenact`; the last two are taken as they are, and nothing
            is tracked); a `keras_vpgc.data.capture.Camera` or `Clip`, a function that opens a
            camera, or an iterable of uint8 RGB pictures `(h, w, 3)` or of pairs of such and their
            seconds; an attribute `live` is its default for that. A camera given by number or
            function is opened after all else is checked, and let go at the end or on any error.
            `None`: landmarks are pushed.
        live: Drop what is late, and play a video at its own pace?
        lookahead: Frames to wait for, from 0 to what the puppet sees ahead (3, or 0 with a causal
            context). Default: all where nothing is live, 0 for live sources.
        retargeting: `"none"`, `"relative"`, `"absolute"` or `"auto"`, see `Puppet.landmarks_of`.
        motion: Strength of the head motion, 0 (still) to 1 (as driven).
        neutral: Second of a video at which the face is at rest; default: found by `calibration`.
        guard: Where the driver leaves what the puppet has seen: `"warn"` (once), `"clamp"` or
            `"off"`.
        calibration: Good frames out of which shape and neutral pose are found, or the
            `calibration` of another stream; see
            `keras_vpgc.reenactment.live_retargeting.LiveRetargeting`.
        filter: `"one-euro"` (default with a source that is tracked), `"off"` (default for ready
            landmarks, the only one for drawings), or a `keras_vpgc.data.smoothing.OneEuro`.
        missing: Where there is no face, `"hold"` the last pose; `"fade"` to the puppet at rest
            within a second (a file that `reenact` writes fades to black); or `"skip"` the frame.
        workers: Trackers that work at once; one is a thread, more are processes. Default: 1 for
            live sources, else one a core, at most 8.
        start: Where to begin, in seconds of a video.
        end: Where to stop, in seconds of a video.
        tracker_model: Path of the face landmarker's model.

    Attributes:
        frame_rate: Frames a second of the source, the puppet's own without one.
        lookahead: Frames that are waited for.
        warning: What the guard says, or `None`.

    Raises:
        VPGCError: for a source that cannot be opened, an unknown option, or options that do not go
            together. While iterating: what went wrong with the source or a tracker, such as a
            camera that vanished; all frames before it have been given by then.

    Example:

    ```python
    with puppet.stream("friend.mp4", guard="clamp") as stream:
        for frame in stream:
            video.write(frame.image)
    print(stream.stats())

    with puppet.stream(lookahead=1) as stream:
        for landmarks in mine:  # (68, 2) in [0, 1] of the puppet's crop
            image = stream.push(landmarks)  # that of the frame before; None at first
        images = stream.flush()
    ```
    """

    def __init__(
        self,
        puppet,
        source=None,
        *,
        live: bool | None = None,
        lookahead: int | None = None,
        retargeting: str = "auto",
        motion: float = 1.0,
        neutral: float | None = None,
        guard: str = "warn",
        calibration: int | Calibration = CALIBRATION_FRAMES,
        filter: str | OneEuro | None = None,
        missing: str = "hold",
        workers: int | None = None,
        start: float | None = None,
        end: float | None = None,
        tracker_model=None,
    ):
        for name, value, known in (
            ("retargeting", retargeting, RETARGETING),
            ("guard", guard, GUARDS),
        ):
            if value not in known:
                raise VPGCError(f"There is no {name} {value!r}: choose one of {', '.join(known)}.")
        if workers is not None and workers < 1:
            raise VPGCError(f"{workers} workers cannot track: choose 1 or more.")
        self.puppet = puppet
        self.context = _Context(puppet)
        most = self.context.future
        if lookahead is not None and not 0 <= lookahead <= most:
            raise VPGCError(
                f"A lookahead of {lookahead} frames does not fit this puppet, which sees {most} "
                f"frames ahead: choose 0{'' if most == 0 else f' to {most}'}."
            )
        file = isinstance(source, Path) or (isinstance(source, str) and not source.isdigit())
        timed = neutral is not None and not isinstance(source, Clip)
        if not file and (timed or start is not None or end is not None):
            raise VPGCError(
                "Only a video has a second at which the driver is neutral, a start and an end: "
                "leave these out, and call calibrate() while the driver looks neutral."
            )
        self._tracker_model = tracker_model
        self._own: Camera | None = None
        if file:
            source = open_clip(puppet, source, start, end, live=bool(live))
        self.source = source
        self._ready = source if isinstance(source, ReadyClip) else None
        self._launch, drawn = puppet.begin, self._ready is not None and self._ready.drawn
        self._retargeting: LiveRetargeting | None = None
        if self._ready is not None:
            check_free(self._ready.path, retargeting, neutral, motion)
            if drawn:
                if filter not in (None, "off"):
                    raise VPGCError("Contour images cannot be filtered: choose the filter 'off'.")
                self._launch = begin_of_drawings(puppet.drawn_model())
                self.context.nearest = True
        elif source is not None:
            self._retargeting = self._retarget(
                retargeting, motion, neutral, guard, calibration, tracker_model
            )
        self._rest = rest_landmarks(puppet)
        usual = "off" if self._retargeting is None else "one-euro"
        self._steady = Steady(self._rest, filter or usual, missing)
        if drawn:
            self._rest = np.zeros(puppet.drawn_model().heatmap.size, "uint8")
        # Whatever can be refused has been: no error leaves a camera taken.
        if isinstance(source, int | str):
            source = self._own = Camera(source)
        elif callable(source):
            source = self._own = source()
        self.source = source
        if live is None or source is None:
            live = getattr(source, "live", False)
        self.live = bool(live)
        if isinstance(source, Clip | ReadyClip):
            source.live = self.live
        self.lookahead = (0 if self.live else most) if lookahead is None else lookahead
        self.context.lookahead, self.context.by_time = self.lookahead, self.live
        rate = getattr(source, "frame_rate", None)
        self.frame_rate = float(rate or puppet.metadata["frame_rate"])
        self.workers = workers or (1 if self.live else min(parallel.default_workers(), MAX_WORKERS))
        self.times = {name: StageTimes() for name in STAGES}
        self.times["tracking"].workers = self.workers
        self._latency = StageTimes()
        self._captured = self._shown = self._without = self._skipped = self._late = 0
        self._began: float | None = None
        self._ended: float | None = None
        self._last_read: float | None = None
        self._last_ready = 0.0
        self._warned = False
        self._threads: list[threading.Thread] = []
        self._channels: list[Channel] = []
        self._pool: TrackerPool | None = None
        self._pace = Pace()
        self._finished = self._closed = False
        self._pushed = 0

    # ---------------------------------------------------------------- both ways

    def __enter__(self):
        if self.source is not None:
            self._begin()
        else:
            self._warm_up()
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def warning(self) -> str | None:
        """What the guard says, or `None`."""
        return None if self._retargeting is None else self._retargeting.warning

    @property
    def calibration(self) -> Calibration | None:
        """What is known of the driver, for `calibration` of another stream."""
        return None if self._retargeting is None else self._retargeting.calibration

    @property
    def calibrating(self) -> bool:
        """Do more frames take part in the calibration?"""
        return self._retargeting is not None and self._retargeting.calibrating

    def calibrate(self) -> None:
        """Take the driver's pose and expression of now as neutral.

        The shape is found anew too, so that another person may sit down first. The puppet glides
        over to the new calibration.

        Raises:
            VPGCError: if nothing is retargeted.
        """
        if self._retargeting is None or self._retargeting.mode == "none":
            raise VPGCError(
                "There is nothing to calibrate where landmarks are taken as they are: choose the "
                "retargeting 'relative' or 'absolute'."
            )
        self._retargeting.calibrate()

    def stats(self) -> Statistics:
        """What was done so far, and how long it took.

        Returns:
            A `keras_vpgc.reenactment.pipeline.Statistics`, a dict that prints as a table. Times
            are those of the last 10 000 frames.
        """
        wall = 0.0
        if self._began is not None:
            wall = (self._ended or time.perf_counter()) - self._began
        stages = {name: stage.summary(wall) for name, stage in self.times.items() if stage.count}
        late = self._late + sum(c.dropped for c in self._channels)
        return Statistics(
            captured=self._captured,
            shown=self._shown,
            dropped=late,
            skipped=self._skipped,
            without_face=self._without,
            seconds=round(wall, 3),
            frames_per_second=round(self._shown / wall, 2) if wall else 0.0,
            latency={k: v for k, v in self._latency.summary().items() if k != "workers"},
            lookahead=self.lookahead,
            queues={c.name: {"size": c.size, "most": c.most} for c in self._channels},
            stages=stages,
            bound_by=self._bound(stages, late),
        )

    def close(self) -> None:
        """End the threads and trackers, and let the camera go. Frames not yet given are lost."""
        if self._closed:
            return
        self._closed = self._finished = True
        for channel in self._channels:
            channel.give_up()
        for thread in self._threads:
            # A camera that hangs would never let its thread end.
            thread.join(timeout=5)
        if self._pool is not None:
            self._pool.close()
        if self._own is not None:
            self._own.close()
        if self._began is not None and self._ended is None:
            self._ended = time.perf_counter()

    # ---------------------------------------------------------------- landmarks that are pushed

    def push(self, landmarks) -> np.ndarray | None:
        """The next frame's landmarks in, an image out.

        Args:
            landmarks: Float `(68, 2)` (78 with irises) in [0, 1] of the puppet's crop, or `None`
                where there was no face, see `missing`.

        Returns:
            uint8 RGB `(size, size, 3)` of the frame `lookahead` frames ago; `None` if that is
            before the first or was skipped.

        Raises:
            VPGCError: for landmarks of another shape, NaN, or far outside, which change nothing;
                or if the stream has a source.

        Example:

        ```python
        image = stream.push(landmarks)
        ```
        """
        self._check_pushable()
        arrived = time.perf_counter()
        if landmarks is not None:
            points = self.puppet.num_points
            landmarks = np.asarray(landmarks, "float32")
            landmarks = check_landmarks(landmarks[None], points, self._pushed)[0]
        else:
            self._without += 1
        second = self._pushed / self.context.rate
        self._pushed += 1
        self._captured += 1
        self._began = self._began or arrived
        steady = self._steady(landmarks, second)
        if steady is None:
            self._skipped += 1
            return None
        frame = StreamFrame(self._pushed - 1, second, None, arrived, landmarks is not None)
        frame.landmarks = steady
        self.context.add(frame)
        return next(self._images(), None)

    def flush(self) -> list[np.ndarray]:
        """The images of the last frames, for which no more landmarks come.

        Returns:
            uint8 RGB `(size, size, 3)` each, `lookahead` of them, or fewer if fewer were pushed.
            The stream may be pushed on as a new clip.

        Raises:
            VPGCError: if the stream has a source.
        """
        self._check_pushable()
        self.context.end()
        images = list(self._images())
        self.context.clear()
        return images

    def _images(self) -> Iterator[np.ndarray]:
        while (found := self.context.next()) is not None:
            frame, window = found
            began = time.perf_counter()
            frame.image = self._launch(window)()[0]
            self._deliver(frame, began)
            yield frame.image

    def _check_pushable(self):
        if self.source is not None:
            raise VPGCError(
                "This stream is driven by its source: iterate over it, or leave the source out to "
                "push landmarks."
            )

    # ---------------------------------------------------------------- a source

    def __iter__(self) -> Iterator[StreamFrame]:
        """Frames with their images, in order.

        Raises:
            VPGCError: see the class; or if there is no source.
        """
        try:
            self._begin()
            while (frame := self.read()) is not None:
                yield frame
        finally:
            self.close()

    def read(self, timeout: float | None = None) -> StreamFrame | None:
        """The next frame, for a program with a loop of its own.

        Args:
            timeout: Seconds to wait; default: as long as it takes.

        Returns:
            A `StreamFrame`; `None` at the end, see `ended`, or if there was none in time.

        Raises:
            VPGCError: see the class.
        """
        self._begin()
        if self._finished:
            return None
        began = time.perf_counter()
        try:
            frame = self._channels[-1].get(timeout)
        except TimeoutError:
            return None
        except Closed:
            self._finish()
            return None
        except BaseException:
            self._finish()
            raise
        if self._last_read is not None:
            self.times["output"].add(began - self._last_read)
        self._last_read = time.perf_counter()
        self._shown += 1
        self._latency.add(frame.ready - frame.captured)
        self._warn()
        return frame

    @property
    def ended(self) -> bool:
        """Are there no more frames?"""
        return self._finished

    def _warn(self):
        if self.warning and not self._warned:
            self._warned = True
            warnings.warn(self.warning, stacklevel=3)

    def _finish(self):
        self._finished = True
        # A short clip says what it has to say at its end.
        if self._retargeting is not None:
            self._retargeting.judge()
        self._warn()
        self._ended = self._ended or time.perf_counter()

    def _begin(self):
        if self.source is None:
            raise VPGCError(
                "This stream has no source to iterate over: push landmarks, or give a source."
            )
        if self._threads or self._closed:
            return
        try:
            self._start_threads()
        except BaseException:
            self.close()
            raise

    def _start_threads(self):
        if self._ready is None:
            self._pool = TrackerPool(self.workers, self._tracker_model)
        ahead = self.workers if self.live else 2 * self.workers
        # Late pictures are dropped before they are tracked, and late images before they are shown;
        # what was tracked in between serves as context.
        self._captures = Channel("captured", 1 if self.live else 2, self.live)
        self._tracked = Channel("tracked", ahead)
        self._driven = Channel("retargeted", 8 if self.live else 2, self.live)
        self._done = Channel("rendered", 1 if self.live else 2, self.live)
        self._permits = threading.Semaphore(ahead)
        self._warm = threading.Event()
        stages = [(self._capture, self._captures)]
        if self._ready is None:
            stages += [(self._track, self._tracked), (self._drive, self._driven)]
        else:
            stages += [(self._take, self._driven)]
        stages += [(self._render, self._done)]
        self._channels = [target for _, target in stages]
        for work, target in stages:
            thread = threading.Thread(
                target=self._stage, args=(work, target), name=work.__name__, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _stage(self, work, target):
        """A thread: what ends or breaks it reaches the next after the last good frame."""
        error = None
        try:
            work()
        except Closed:
            pass
        except BaseException as broken:
            error = broken
        target.close(error)
        # Whoever puts in here would wait for ever.
        place = self._channels.index(target)
        if place:
            self._channels[place - 1].give_up()

    def _capture(self):
        self._warm.wait()
        times = self.times["capture"]
        iterator = iter(self.source)
        while not self._closed:
            began = time.perf_counter()
            try:
                found = next(iterator)
            except StopIteration:
                return
            now = time.perf_counter()
            number = self._captured
            picture, second = found if isinstance(found, tuple) else (found, None)
            if second is None:
                # Pictures without a time come when they come, or at the rate of the source.
                begin = now if self._began is None else self._began
                second = now - begin if self.live else number / self.frame_rate
            if self._began is None:
                self._began = now
            self._captured += 1
            times.add(max(0.0, now - began - getattr(self.source, "waited", 0.0)))
            self._captures.put(StreamFrame(number, float(second), _checked(picture, number), now))

    def _track(self):
        while True:
            self._permits.acquire()
            if self.live:
                time.sleep(self._pace.wait())
            frame = self._captures.get()
            self._pace.begun(frame.number)
            future = self._pool.submit(frame.picture)
            future.add_done_callback(lambda _: self._permits.release())
            self._tracked.put((frame, future))

    def _take(self):
        """Frames of a source that needs no tracking."""
        while True:
            frame = self._captures.get()
            frame.face, frame.landmarks = True, self._ready.frames[frame.number]
            if not self._ready.drawn:
                frame.landmarks = self._steady(frame.landmarks, frame.second)
            self._driven.put(frame)

    def _drive(self):
        same = SamePerson()
        while True:
            frame, future = self._tracked.get()
            faces, seconds = future.result()
            self.times["tracking"].add(seconds)
            began = time.perf_counter()
            points, jump, landmarks = same(faces, frame.second), 0.0, None
            if points is not None:
                height, width = frame.picture.shape[:2]
                landmarks, jump = self._retargeting(points, (width, height))
                if landmarks is not None and np.abs(landmarks - 0.5).max() > 1.5:
                    landmarks = None
            frame.face = landmarks is not None
            frame.points = points if frame.face else None
            self._without += not frame.face
            frame.landmarks = self._steady(landmarks, frame.second, jump)
            ended = time.perf_counter()
            self.times["retargeting"].add(ended - began)
            self._pace.led(seconds + ended - began)
            if frame.landmarks is None:
                self._skipped += 1
            else:
                self._driven.put(frame)

    def _render(self):
        waiting = None
        try:
            self._warm_up()
        finally:
            self._warm.set()
        while True:
            try:
                # An image that is on its way is given before anything is waited for.
                frame = self._driven.get(None if waiting is None else 0)
            except TimeoutError:
                waiting = self._hand_over(waiting)
                continue
            except Closed:
                self._drain(waiting)
                raise
            except BaseException:
                self._drain(waiting)
                raise
            self.context.add(frame)
            while self.live and len(self._driven):
                self.context.add(self._driven.get())
            while (found := self.context.next()) is not None:
                if self.live and self.context.ready():
                    self._late += 1
                    continue
                waiting = self._start(*found, waiting)

    def _drain(self, waiting):
        """The last frames, for which no more context comes."""
        if self._closed:
            return
        self.context.end()
        while (found := self.context.next()) is not None:
            waiting = self._start(*found, waiting)
        self._hand_over(waiting)

    def _start(self, frame, window, before):
        """Begin an image, then wait for the one before it; live, for itself."""
        began = time.perf_counter()
        self._pace.last(frame.number)
        wait = self._launch(window)
        self._hand_over(before)
        if self.live:
            return self._hand_over((frame, wait, began))
        return frame, wait, began

    def _hand_over(self, waiting):
        if waiting is not None:
            frame, wait, began = waiting
            frame.image = wait()[0]
            self._deliver(frame, began)
            self._done.put(frame)

    def _warm_up(self):
        """Compile, before anybody waits for an image."""
        window = np.repeat(self._rest[None], self.context.past + 1 + self.context.future, axis=0)
        for _ in range(2):
            began = time.perf_counter()
            self._launch(window)()
        self._pace.ended(time.perf_counter() - began)

    def _deliver(self, frame, began):
        frame.ready = time.perf_counter()
        # Two that overlap are not counted twice.
        took = frame.ready - max(began, self._last_ready)
        self.times["network"].add(took)
        self._pace.ended(took)
        self._last_ready = frame.ready
        if self.source is None:
            self._shown += 1
            self._latency.add(frame.ready - frame.captured)
            self._ended = frame.ready

    def _retarget(self, mode, motion, neutral, guard, calibration, tracker_model):
        if mode == "auto":
            path = getattr(self.source, "path", None)
            own = path is not None and neutral is None and motion == 1
            own = own and assets.sha256(path) == self.puppet.metadata["source_sha256"]
            mode = "none" if own else "relative"
        if neutral is not None:
            if mode == "none" or isinstance(calibration, Calibration):
                raise VPGCError(
                    "A neutral second says nothing where landmarks are taken as they are or a "
                    "calibration is given: leave one of the two out."
                )
            calibration = _calibration_at(self.source, neutral, calibration, tracker_model)
        return LiveRetargeting(
            self.puppet,
            mode,
            motion=motion,
            guard=guard,
            calibration=calibration,
            tracker_model=tracker_model,
        )

    def _bound(self, stages, late):
        """What the rate is bound by: the stage that is always busy, or the source itself."""
        busy = {name: stage.get("busy", 0.0) for name, stage in stages.items()}
        if not busy:
            return "nothing yet"
        name = max(busy, key=lambda name: busy[name])
        if self.source is None:
            return "how fast landmarks are pushed" if busy[name] < 0.8 else name
        if self.live and late <= 0.02 * self._captured:
            return "the rate of the source"
        return name


def open_clip(puppet, path, start=None, end=None, live=False) -> Clip | ReadyClip:
    """What drives a puppet from a file: a video, landmarks, or a folder of contour images.

    Args:
        puppet: The `Puppet`.
        path: The file or folder.
        start: Where to begin, in seconds.
        end: Where to stop, in seconds.
        live: Give each frame at its own time?

    Returns:
        A source for `Stream`.

    Raises:
        VPGCError: for a path that is none of these.

    Example:

    ```python
    puppet.stream(open_clip(puppet, "drive.npz", live=True))
    ```
    """
    if is_drawn(path) or is_stored(path):
        return ReadyClip(puppet, path, start, end, live)
    return Clip(path, start, end, live)


class _Context:
    """The landmarks around each frame, as far as they are known."""

    def __init__(self, puppet):
        context = puppet.context
        centered = puppet.metadata.get("context_mode", "centered") == "centered"
        self.past = context // 2 if centered else context - 1
        self.future = context // 2 if centered else 0
        self.rate = float(puppet.metadata["frame_rate"])
        self.lookahead, self.by_time = 0, False
        # Of drawings there is no frame between two.
        self.nearest = False
        self.clear()

    def clear(self):
        self._frames: collections.deque = collections.deque()  # None where it has been shown
        self._landmarks: collections.deque[np.ndarray] = collections.deque()
        self._times: collections.deque[float] = collections.deque()
        # Place of the next frame to be shown; whether more frames come.
        self._next, self._whole, self._count = 0, False, 0

    def add(self, frame):
        """Append a frame with landmarks."""
        self._frames.append(frame)
        self._landmarks.append(frame.landmarks)
        # In units of the puppet's frames; where none is dropped, frames are counted.
        self._times.append(frame.second * self.rate if self.by_time else float(self._count))
        self._count += 1

    def end(self):
        """No more frames come."""
        self._whole = True

    def ready(self) -> bool:
        """Is there a frame of which enough is known?"""
        last = len(self._frames) - 1 - (0 if self._whole else self.lookahead)
        return self._next <= last

    def next(self):
        """The next frame and landmarks `(context, p, 2)` around it, or `None`."""
        if not self.ready():
            return None
        times, known = np.array(self._times), np.stack(self._landmarks)
        wanted = times[self._next] + np.arange(-self.past, self.future + 1)
        wanted = np.clip(wanted, times[0], times[-1])
        after = np.clip(np.searchsorted(times, wanted), min(1, len(times) - 1), len(times) - 1)
        before = np.maximum(after - 1, 0)
        step = np.maximum(times[after] - times[before], 1e-9)
        share = np.clip((wanted - times[before]) / step, 0, 1)[:, None, None]
        if self.nearest:
            window = known[np.where(share[:, 0, 0] < 0.5, before, after)]
        else:
            window = ((1 - share) * known[before] + share * known[after]).astype("float32")
        frame, self._frames[self._next] = self._frames[self._next], None
        self._next += 1
        # Of what no window reaches any more one frame stays, to interpolate from.
        reach = self._times[min(self._next, len(self._times) - 1)] - self.past
        while self._next > 1 and len(self._times) > 1 and self._times[1] <= reach:
            for kept in (self._frames, self._landmarks, self._times):
                kept.popleft()
            self._next -= 1
        return frame, window


def _calibration_at(clip, second, frames, tracker_model) -> Calibration:
    """The calibration by the frames around a second of a video."""
    from keras_vpgc.data import video
    from keras_vpgc.data.retarget import fit_head
    from keras_vpgc.data.tracking import FaceTracker

    first, stop = clip.range
    times = video.frame_times(clip.path)
    place = int(np.searchsorted(times, second, "right")) - 1
    if not first <= place < stop or second >= times[-1] + 1 / clip.frame_rate:
        raise VPGCError(
            f"Second {second:g} is not in the part of {clip.path} that drives: choose another "
            "--neutral."
        )
    low = min(max(first, place - frames // 2), max(first, stop - frames))
    numbers = range(low, min(stop, low + frames))
    pictures = list(video.read_frames(clip.path, numbers[0], numbers[-1] + 1))
    with FaceTracker(tracker_model) as tracker:
        track = tracker.track(pictures)
    rest = place - low
    if rest >= len(pictures) or not track.valid[rest]:
        raise VPGCError(
            f"There is no face at second {second:g} of {clip.path}: choose another --neutral."
        )
    height, width = pictures[0].shape[:2]
    good = np.flatnonzero(track.valid)
    head = fit_head(track.points[good], width, height, model=tracker_model)
    return Calibration.of(head, int(np.searchsorted(good, rest)))


def _checked(picture, number):
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise VPGCError(
            f"Picture {number} of the source is of type {picture.dtype} and shape "
            f"{picture.shape}: a stream takes uint8 RGB pictures (height, width, 3)."
        )
    return picture
