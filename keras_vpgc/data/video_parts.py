"""A long video written in parts, so that a job that was stopped goes on where it was."""

import contextlib
import itertools
import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from keras_vpgc.data import video
from keras_vpgc.errors import VPGCError, check_writable, writing

NAME, WORK = "part-{:07d}.mp4", "part-*.mp4"
# Where a job keeps its tracking, and how files of the whole begin.
FACES, JOINED = "faces", "joined"


class VideoParts:
    """H.264 in a folder, a file for every so many frames, each whole or not there.

    The parts can be played, the one at work as far as it is written. Joined they are the same file
    whether the job was stopped in between or not: encoding begins anew with each part.

    Args:
        folder: Where the parts are; what an earlier job of the same settings left is taken over.
        settings: JSON-able dict of all that the frames depend on.
        count: Number of frames of the whole video.
        length: Frames of a part.
        frame_rate: Frames a second.
        times: Seconds from the first frame at which each frame appears, where the rate varies.
        metadata: What the files say of themselves.
        crf: See `keras_vpgc.data.video.VideoWriter`.
        overwrite: Throw away what a job of other settings left?

    Attributes:
        done: Number of frames that are written: the first that `write` expects.

    Raises:
        VPGCError: if the folder holds something else or a job of other settings, or cannot be
            written.

    Example:

    ```python
    with VideoParts("out.parts", {"puppet": sha256}, len(landmarks), 250, 25) as parts:
        for frame in frames_from(parts.done):
            parts.write(frame)
        parts.join("out.mp4")
    parts.remove()
    ```
    """

    def __init__(
        self,
        folder,
        settings: dict,
        count: int,
        length: int,
        frame_rate: float,
        times=None,
        metadata: dict[str, str] | None = None,
        crf: int = 17,
        overwrite: bool = False,
    ):
        self.folder = Path(folder)
        self.metadata = metadata
        self.count, self.length = count, length
        self.frame_rate, self.crf = frame_rate, crf
        self.times = None if times is None else np.asarray(times, "float64")
        open_job(self.folder, settings, overwrite)
        self.done = 0
        while self.done < count and self._file(self.done).exists():
            self.done = min(self.done + length, count)
        self.writer: video.VideoWriter | None = None

    def __enter__(self):
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB `(height, width, 3)`."""
        if self.done >= self.count:
            raise VPGCError(f"{self.folder} is a video of {self.count} frames: there is one more.")
        start = self.done - self.done % self.length
        if self.writer is None:
            times = None
            if self.times is not None:
                times = self.times[start : start + self.length] - self.times[start]
            self.writer = video.VideoWriter(
                self._file(start),
                self.frame_rate,
                self.crf,
                times=times,
                part=True,
                metadata=self.metadata,
                straight=start + self.length >= self.count,
            )
        self.writer.write(frame)
        self.done += 1
        if self.done - start == self.length or self.done == self.count:
            writer, self.writer = self.writer, None
            writer.__exit__(None, None, None)

    def join(self, target, last: float | None = None) -> None:
        """Put the parts together into one file, without encoding them again.

        Args:
            target: The video to write.
            last: Seconds that the last frame lasts; default: as the others.

        Raises:
            VPGCError: if frames are missing or the target cannot be written.
        """
        import av

        if self.done < self.count:
            raise VPGCError(
                f"{self.folder} holds {self.done} of {self.count} frames: run the same command "
                "again for the rest."
            )
        files = [self._file(k) for k in range(0, self.count, self.length)]
        base = 1 / Fraction(self.frame_rate).limit_denominator(1001)
        with writing(target), video.open_target(target, self.metadata or {}) as made:
            stream = None
            for start, file in zip(range(0, self.count, self.length), files, strict=True):
                with av.open(str(file)) as part:
                    source = part.streams.video[0]
                    if stream is None:
                        stream = made.add_stream_from_template(source)
                        stream.time_base = source.time_base
                    shift = start * base if self.times is None else Fraction(self.times[start])
                    shift = round(shift / source.time_base)
                    packets = [packet for packet in part.demux(source) if packet.dts is not None]
                    shown = sorted(packet.pts for packet in packets)
                    # A part's first frame waits for those that refer to each other.
                    shift -= shown[0]
                    after = dict(itertools.pairwise(shown))
                    following = start + len(packets)
                    if following < self.count and self.times is not None:
                        end = round(Fraction(self.times[following]) / source.time_base) - shift
                        after[shown[-1]] = end
                    elif following == self.count and last is not None:
                        after[shown[-1]] = shown[-1] + round(last / source.time_base)
                    for packet in packets:
                        if packet.pts in after:
                            packet.duration = after[packet.pts] - packet.pts
                        packet.pts += shift
                        packet.dts += shift
                        packet.stream = stream
                        made.mux(packet)

    def remove(self) -> None:
        """Delete the folder."""
        remove_job(self.folder)

    def _file(self, start):
        return self.folder / NAME.format(start)

    def __exit__(self, kind, error, trace):
        if self.writer is not None:
            writer, self.writer = self.writer, None
            # What is there of the part can be played, and is written anew by the next run.
            writer.keep()


def open_job(folder, settings: dict, overwrite: bool = False, work: str = WORK) -> None:
    """Begin a job in a folder, or go on with one of the same settings.

    A job of other settings that has not done anything yet is replaced.

    Args:
        folder: The job's folder; made where it is missing.
        settings: JSON-able dict of all that the result depends on.
        overwrite: Throw away what a job of other settings did?
        work: Pattern of the files that hold what is done.

    Raises:
        VPGCError: if the folder is a file, holds something else or what a job of other settings
            did, or cannot be written.

    Example:

    ```python
    open_job("out.parts", {"driving": sha256})
    ```
    """
    folder = Path(folder)
    file, partial = folder / "job.json", folder / ".job.json"
    wanted = json.loads(json.dumps(settings))
    if folder.exists() and not folder.is_dir():
        raise VPGCError(f"{folder} is where the job is kept but is a file: move it away.")
    if folder.exists() and not file.exists():
        if {entry.name for entry in folder.iterdir()} - {partial.name, FACES}:
            raise VPGCError(
                f"{folder} is where the job is kept but holds other files: move them away."
            )
    if file.exists():
        try:
            known = json.loads(file.read_text("utf-8"))
        except ValueError:
            known = None
        if known == wanted:
            return
        done = list(folder.glob(work))
        if done and not overwrite:
            why = "it is damaged"
            if isinstance(known, dict):
                differ = {k for k in {*known, *wanted} if known.get(k) != wanted.get(k)}
                why = f"other {', '.join(sorted(differ))}"
            raise VPGCError(
                f"{folder} holds an unfinished job that cannot go on ({why}): remove it, choose "
                "another output, or --overwrite."
            )
        for old in done:
            old.unlink()
    check_writable(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(wanted, indent=1), "utf-8")
        os.replace(partial, file)


@contextlib.contextmanager
def only_job(output):
    """Hold an output, so that no other process works on it; a process that dies lets it go.

    Args:
        output: The file or folder that is being made.

    Raises:
        VPGCError: if another job holds it, or the place cannot be written.

    Example:

    ```python
    with only_job("out.mp4"):
        ...
    ```
    """
    from filelock import FileLock, Timeout

    output = Path(output)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output.with_name(f".{output.name}.lock"), blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise VPGCError(
                f"{output} is being made by another process: wait until that has ended, or choose "
                "another output."
            ) from None
    try:
        yield
    finally:
        # Windows keeps a file that is open.
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


def remove_job(folder) -> None:
    """Delete what a job left in its folder, and the folder unless it holds something else.

    Args:
        folder: See `open_job`.

    Example:

    ```python
    remove_job("out.parts")
    ```
    """
    folder = Path(folder)
    names = (WORK, f"{JOINED}*", "job.json", ".job.json", f"{FACES}/*.npz", f"{FACES}/job.json")
    with contextlib.suppress(OSError):
        for file in [file for name in names for file in folder.glob(name)]:
            file.unlink()
        for place in (folder / FACES, folder):
            if place.exists():
                place.rmdir()
