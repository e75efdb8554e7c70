"""Work on a clip in several processes, chunk by chunk.

The processes are plain interpreters, not `multiprocessing`'s: these import the caller's main module
again, so that a script without `if __name__ == "__main__"` would start itself in each of them, and
keras with it.
"""

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

from keras_vpgc.errors import VPGCError

# keras_vpgc leaves keras out where this is set: a worker never needs it.
WORKER = "KERAS_VPGC_WORKER"


def default_workers() -> int:
    """The number of processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def run(
    job: str,
    settings: dict,
    tasks: list[dict],
    workers: int,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Do tasks in several processes.

    A job is a context manager `job(**settings)` that gives a function `work(task, progress)`, which
    writes what it finds into files. One worker, or one task, is done in this process. Processes end
    with their parent, however that ends.

    Args:
        job: `"module:name"` of the job.
        settings: Its arguments, JSON-able.
        tasks: JSON-able dicts.
        workers: Number of processes.
        progress: Is told of every few frames done.

    Raises:
        VPGCError: what a task raised, or that a process died.
        OSError: what a task raised.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        with _find(job)(**settings) as work:
            for task in tasks:
                work(task, progress)
        return
    todo: queue.SimpleQueue = queue.SimpleQueue()
    said: queue.SimpleQueue = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)
    crew = [_Process(job, settings) for _ in range(workers)]
    try:
        for process in crew:
            process.thread = threading.Thread(target=process.serve, args=(todo, said), daemon=True)
            process.thread.start()
        left = len(tasks)
        while left:
            message = said.get()
            if "progress" in message:
                progress(message["progress"])
            elif "done" in message:
                left -= 1
            else:
                raise _error(message)
    finally:
        for process in crew:
            process.end()


class _Process:
    def __init__(self, job, settings):
        environment = {**os.environ, WORKER: "1", "OMP_NUM_THREADS": "1"}
        # The same package as here, wherever it was imported from.
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        known = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + known if known else "")
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_vpgc.data.parallel"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
        )
        self.start = {"job": job, "settings": settings}
        self.thread: threading.Thread | None = None

    def serve(self, todo, said):
        """Hand out tasks until there are none, and pass on what comes back."""
        try:
            self._say(self.start)
            while True:
                try:
                    self._say(todo.get_nowait())
                except queue.Empty:
                    return
                message: dict = {}
                while "done" not in message:
                    line = self.process.stdout.readline()
                    if not line:
                        raise BrokenPipeError
                    message = json.loads(line)
                    said.put(message)
                    if "error" in message:
                        return
        except (OSError, ValueError):
            said.put({"error": "died", "code": self.process.wait(), "text": self._last_line()})

    def begin(self):
        """Let the job start, for `ask`; does not wait for it."""
        self._say(self.start)

    def ask(self, task):
        """Hand out one task and wait until it is done.

        Raises:
            VPGCError, OSError: what it raised, or that the process died.
        """
        message: dict = {}
        try:
            self._say(task)
            while not message.keys() & {"done", "error"}:
                line = self.process.stdout.readline()
                if not line:
                    raise BrokenPipeError
                message = json.loads(line)
        except (OSError, ValueError):
            message = {"error": "died", "code": self.process.wait(), "text": self._last_line()}
        if "error" in message:
            raise _error(message)

    def _say(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def _last_line(self):
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def end(self):
        self.process.kill()
        self.process.wait()
        if self.thread is not None:
            self.thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            # What was on its way to a process that has ended cannot be written any more.
            with contextlib.suppress(OSError):
                pipe.close()


def _error(message):
    if message["error"] == "input":
        return VPGCError(message["text"])
    if message["error"] == "system":
        return OSError(message["errno"], message["text"], message["file"])
    if message["error"] == "died":
        return VPGCError(
            f"A worker process ended by itself (exit code {message['code']}: too little memory?): "
            "the same call goes on from here, and with one worker it needs the least memory."
        )
    return RuntimeError(f"A worker process failed:\n{message['text']}")


def _find(job):
    module, name = job.split(":")
    return getattr(importlib.import_module(module), name)


def _main():
    """What a worker process does: tasks come in as lines of JSON, and answers go out so."""
    import signal
    import traceback

    # Ctrl-C goes to the whole group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer

    def say(**message):
        out.write(json.dumps(message) + "\n")
        out.flush()

    lines: queue.SimpleQueue = queue.SimpleQueue()

    def listen():
        for line in sys.stdin:
            lines.put(json.loads(line))
        os._exit(0)  # the parent is gone, or has no more to do

    threading.Thread(target=listen, daemon=True).start()
    try:
        import cv2

        cv2.setNumThreads(1)
        start = lines.get()
        with _find(start["job"])(**start["settings"]) as work:
            while True:
                work(lines.get(), lambda count: say(progress=count))
                say(done=True)
    except VPGCError as error:
        say(error="input", text=str(error))
    except OSError as error:
        say(error="system", errno=error.errno, text=error.strerror, file=str(error.filename))
    except Exception:
        say(error="bug", text=traceback.format_exc())


if __name__ == "__main__":
    _main()
