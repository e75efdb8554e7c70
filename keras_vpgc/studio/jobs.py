"""Jobs: commands of `vpgc`, one at a time, each in a process of its own.

A job is a file `NUMBER.json` in the queue's folder, beside its log; so the queue outlives the page,
and a job that runs outlives the studio too.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from keras_vpgc.errors import VPGCError, writing

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
OPEN = (WAITING, RUNNING)
# Jobs that may wait, and old ones that are remembered.
MOST_WAITING, REMEMBERED = 20, 200
# Seconds that a job has to end by itself, by degrees of rudeness; in the first of them it may not
# have taken its lock yet.
PATIENCE = ((signal.SIGINT, 30.0), (signal.SIGTERM, 10.0))
BEGINNING = 20.0
LOG_BYTES = 64 * 1024
TICK = 0.3


@dataclass
class Job:
    """One command.

    Attributes:
        number: Its number, rising.
        kind: The verb of `vpgc`.
        title: What a person calls it.
        arguments: Of the command, with the verb.
        target: What it makes, a path: no two open jobs make the same.
        state: `waiting`, `running`, `done`, `failed` or `stopped`.
        created, began, ended: Seconds since 1970, or 0.
        process: Number of its process, or 0.
        message: One sentence on how it ended.
    """

    number: int
    kind: str
    title: str
    arguments: list[str]
    target: str
    state: str = WAITING
    created: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    process: int = 0
    message: str = ""

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return max(0.0, (self.ended or time.time()) - self.began) if self.began else 0.0


class JobQueue:
    """Runs jobs one after the other.

    Args:
        folder: Where its notes are.
        cwd: The jobs' working directory; default: this one.
        environment: Variables of the jobs beside those of this process.
        check: Called before a job is taken in; raises a `VPGCError` where it cannot be, such as
            for a full disk.

    Raises:
        VPGCError: if another studio has the folder.

    Example:

    ```python
    with JobQueue("vpgc_studio/.studio/jobs") as queue:
        queue.add("prepare", "Prepare me", ["me.mp4", "-o", "data/me"], "data/me")
    ```
    """

    def __init__(self, folder, cwd=None, environment: dict | None = None, check=None):
        from filelock import FileLock, Timeout

        self.folder = Path(folder)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(str(self.folder / "queue.lock"))
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise VPGCError(
                    f"Another vpgc studio works in {self.folder.parent.parent}: use its page, or "
                    "give this one another workspace."
                ) from None
        self._cwd, self._check = cwd, check
        self._environment = {**(environment or {}), "PYTHONUNBUFFERED": "1"}
        self._guard = threading.RLock()
        self._closing = threading.Event()
        self._process: subprocess.Popen | None = None
        self._asked: dict[int, list[float]] = {}
        self._jobs = {job.number: job for job in self._read()}
        self._thread: threading.Thread | None = None

    def start(self) -> "JobQueue":
        """Begin to run jobs, in a thread."""

        def work():
            while not self._closing.wait(TICK):
                # A full disk must not end the queue; the next turn tries again.
                with contextlib.suppress(OSError, VPGCError):
                    self.step()

        self._thread = threading.Thread(target=work, daemon=True, name="vpgc-jobs")
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop looking after the jobs; one that runs goes on by itself."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._lock.release()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        with self._guard:
            return [dataclasses.replace(x) for x in sorted(self._jobs.values(), key=_newest)]

    def get(self, number: int) -> Job:
        """A job by its number.

        Raises:
            VPGCError: if there is none.
        """
        with self._guard:
            return dataclasses.replace(self._get(number))

    def running(self) -> Job | None:
        """The job that runs now."""
        return next((x for x in self.jobs() if x.state == RUNNING), None)

    def last_for(self, target) -> Job | None:
        """The newest job that makes something."""
        return next((x for x in self.jobs() if x.target == str(target)), None)

    def add(self, kind: str, title: str, arguments, target) -> Job:
        """Put a job into the queue.

        Args:
            kind: A verb of `vpgc`.
            title: What a person calls it.
            arguments: What follows the verb.
            target: The path that it makes.

        Returns:
            The job.

        Raises:
            VPGCError: if one for the same target waits or runs, too many wait, or the disk is full.
        """
        with self._guard:
            if self._check is not None:
                self._check()
            for job in self._jobs.values():
                if job.state in OPEN and job.target == str(target):
                    state = "runs already" if job.state == RUNNING else "waits already"
                    raise VPGCError(
                        f"{job.title} {state}: look at it, or stop it first (nothing was started "
                        "twice)."
                    )
            if sum(x.state == WAITING for x in self._jobs.values()) >= MOST_WAITING:
                raise VPGCError(
                    f"{MOST_WAITING} jobs wait already: wait for some, or take them out first."
                )
            number = max(self._jobs, default=0) + 1
            words = [kind, *map(str, arguments)]
            job = Job(number, kind, title, words, str(target), created=time.time())
            # Of a job of this number whose note was damaged.
            for end in ("log", "result"):
                self._file(number, end).unlink(missing_ok=True)
            self._write(job)
            self._jobs[number] = job
            self._forget()
            return dataclasses.replace(job)

    def again(self, number: int) -> Job:
        """Run a job that ended once more: it goes on where it was.

        Raises:
            VPGCError: see `add`; or if it has not ended.
        """
        with self._guard:
            job = self._get(number)
            if job.state in OPEN:
                raise VPGCError(f"{job.title} has not ended: it goes on by itself.")
            return self.add(job.kind, job.title, job.arguments[1:], job.target)

    def cancel(self, number: int) -> Job:
        """Stop a job, or take it out of the queue. What it made stays, so that it can go on.

        Raises:
            VPGCError: if it has ended.
        """
        with self._guard:
            job = self._get(number)
            if job.state not in OPEN:
                raise VPGCError(f"{job.title} has ended already: there is nothing to stop.")
            if job.state == WAITING:
                self._end(job, STOPPED, "Taken out of the queue before it began.")
            elif number not in self._asked:
                self._asked[number] = []
                self._press(job)
            return dataclasses.replace(job)

    def stopping(self, number: int) -> bool:
        """Was a job that still runs asked to stop?"""
        return number in self._asked

    def log(self, number: int) -> str:
        """What a job has said; of each line that was written over, the last state."""
        file = self._file(number, "log")
        try:
            with open(file, "rb") as opened:
                opened.seek(max(0, file.stat().st_size - LOG_BYTES))
                text = opened.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        lines = (line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
        return "\n".join(line for line in lines if line and not _noise(line))

    def wait(self, number: int, seconds: float = 600.0) -> Job:
        """Wait for the end of a job, for scripts and tests."""
        end = time.monotonic() + seconds
        while (job := self.get(number)).state in OPEN and time.monotonic() < end:
            time.sleep(TICK / 3)
        return job

    def step(self) -> None:
        """Look after the jobs once: what has ended, what must be pressed, what can begin."""
        with self._guard:
            running = [x for x in self._jobs.values() if x.state == RUNNING]
            for job in running:
                if self._alive(job):
                    if job.number in self._asked:
                        self._press(job)
                else:
                    self._finish(job)
            if any(x.state == RUNNING for x in self._jobs.values()):
                return
            waiting = [x for x in self._jobs.values() if x.state == WAITING]
            if waiting:
                self._begin(min(waiting, key=lambda x: x.number))

    def _begin(self, job):
        # By its path, so that it takes its lock before keras is imported; -P: not with its folder.
        script = str(Path(__file__).with_name("job.py"))
        command = [sys.executable, "-P", script, str(self.folder.resolve())]
        own_group: dict = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            with open(self._file(job.number, "log"), "ab") as log:
                self._process = subprocess.Popen(
                    [*command, f"{job.number:06d}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._cwd,
                    env={**os.environ, **self._environment},
                    **own_group,
                )
        except OSError as error:
            self._end(job, FAILED, f"It could not be started ({error.strerror}).")
            return
        job.state, job.began, job.process = RUNNING, time.time(), self._process.pid
        self._write(job)

    def _alive(self, job):
        if self._process is not None and self._process.pid == job.process:
            return self._process.poll() is None
        # Of a former studio: its lock tells.
        from filelock import FileLock, Timeout

        lock = FileLock(str(self._file(job.number, "lock")))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        if self._file(job.number, "result").exists():
            return False
        return time.time() - job.began < BEGINNING and _exists(job.process)

    def _press(self, job):
        """Ask to end, with more emphasis where it does not help."""
        asked = self._asked[job.number]
        waited = time.monotonic() - asked[-1] if asked else 0.0
        if asked and len(asked) <= len(PATIENCE) and waited < PATIENCE[len(asked) - 1][1]:
            return
        if len(asked) < len(PATIENCE):
            number = PATIENCE[len(asked)][0]
        else:
            number = getattr(signal, "SIGKILL", signal.SIGTERM)
        asked.append(time.monotonic())
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                os.kill(job.process, signal.CTRL_BREAK_EVENT if len(asked) == 1 else number)
            else:
                os.killpg(job.process, number)

    def _finish(self, job):
        code = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            code = json.loads(self._file(job.number, "result").read_text())["code"]
        lines = self.log(job.number).splitlines()
        last = lines[-1] if lines else ""
        if code == 0:
            # What a terminal is told to do next, and tables, are on the page.
            told = ("Look at", "Fill in", "|", job.target)
            lines = [x for x in lines if not x.startswith(told)]
            self._end(job, DONE, lines[-1] if lines else "")
        elif job.number in self._asked or code == 130:
            self._end(job, STOPPED, "What was made is kept, and it can go on from there.")
        elif code is None:
            self._end(
                job,
                FAILED,
                "It was killed from outside, perhaps for lack of memory or by a shutdown: it can "
                "go on from what is kept.",
            )
        else:
            # A warning further up explains nothing.
            said = f"It ended with code {code}: see its log."
            if last.startswith("vpgc: "):
                said = last.removeprefix("vpgc: ")
            self._end(job, FAILED, said)

    def _end(self, job, state, message):
        job.state, job.message, job.ended = state, message, time.time()
        self._asked.pop(job.number, None)
        # Known here even where the disk is full.
        with contextlib.suppress(OSError, VPGCError):
            self._write(job)

    def _forget(self):
        ended = [n for n in sorted(self._jobs) if self._jobs[n].state not in OPEN]
        for number in ended[: max(0, len(self._jobs) - REMEMBERED)]:
            del self._jobs[number]
            for end in ("json", "log", "result", "lock"):
                with contextlib.suppress(OSError):
                    self._file(number, end).unlink(missing_ok=True)

    def _get(self, number):
        try:
            return self._jobs[int(number)]
        except (KeyError, TypeError, ValueError):
            raise VPGCError(f"There is no job {number!r}: pick one of the list.") from None

    def _file(self, number, end):
        return self.folder / f"{number:06d}.{end}"

    def _write(self, job):
        file = self._file(job.number, "json")
        partial = file.with_suffix(".partial")
        with writing(f"the note of {job.title}", full="make some and try again"):
            try:
                partial.write_text(json.dumps(dataclasses.asdict(job), indent=1))
                os.replace(partial, file)
            finally:
                partial.unlink(missing_ok=True)

    def _read(self):
        for file in self.folder.glob("[0-9]*.json"):
            # A note that is damaged is no reason not to start.
            with contextlib.suppress(OSError, ValueError, TypeError):
                yield Job(**json.loads(file.read_text()))


def _newest(job):
    return -job.number


def _exists(process):
    if sys.platform == "win32":  # there `os.kill` would do more than ask
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


# What libraries log at their start.
_NOISE = re.compile(
    r"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d|I0000 |W0000 |"
    r"To enable the following instructions|INFO: )"
)


def _noise(line):
    return _NOISE.match(line) is not None
