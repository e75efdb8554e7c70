"""Several face trackers at once, for pictures that come one after the other."""

import contextlib
import mmap
import os
import queue
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import parallel
from keras_vpgc.data.tracking import MAX_FACES, MIN_SIDE, NUM_POINTS, FaceTracker, tracker_name

# What a process answers: the number of faces and their points.
ANSWER = 4 * (1 + MAX_FACES * NUM_POINTS * 3)


class TrackerPool:
    """Face trackers that work beside each other and beside the caller.

    One tracker runs in a thread of this process; several have a process each, as a tracker keeps
    Python busy between its own computations. Pictures go there, and points come back, through
    memory that is shared; it is as large as the largest picture so far.

    Args:
        workers: Number of trackers.
        model: Path of `face_landmarker.task`, or `None` to find it.

    Raises:
        VPGCError: if MediaPipe or its model file is missing.

    Example:

    ```python
    with TrackerPool(2) as pool:
        waiting = [pool.submit(picture) for picture in pictures]
        for future in waiting:
            points, seconds = future.result()  # (faces, 478, 3) in pixels, the largest face first
    ```
    """

    def __init__(self, workers: int = 1, model=None):
        tracker_name()
        self.workers = workers
        self._free: queue.SimpleQueue = queue.SimpleQueue()
        path = str(assets.find("face_landmarker", model))
        self._crew: list = []
        try:
            if workers == 1:
                self._crew.append(FaceTracker(path))
            else:
                self._crew += [_Process(path) for _ in range(workers)]
                for process in self._crew:
                    process.begin()
        except BaseException:
            self._end()
            raise
        for tracker in self._crew:
            self._free.put(tracker)
        self._threads = ThreadPoolExecutor(workers, "tracking")
        # The first picture takes a tracker seconds, and it says what is wrong with it.
        plain = np.zeros((MIN_SIDE, MIN_SIDE, 3), "uint8")
        try:
            for future in [self.submit(plain) for _ in range(workers)]:
                future.result()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def submit(self, picture: np.ndarray) -> Future:
        """Begin to track a picture.

        Args:
            picture: uint8 RGB `(h, w, 3)`.

        Returns:
            A `concurrent.futures.Future` of the points of all faces, float32 `(k, 478, 3)` in
            pixels, and of the seconds that the tracker took.
        """
        return self._threads.submit(self._detect, picture)

    def close(self):
        """End the trackers, what has not begun is not done."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._end()

    def _detect(self, picture):
        tracker = self._free.get()
        began = time.perf_counter()
        try:
            points = tracker.detect(picture)[0]
            return points, time.perf_counter() - began
        finally:
            self._free.put(tracker)

    def _end(self):
        for tracker in self._crew:
            tracker.close()
        self._crew.clear()


class _Process:
    """A `FaceTracker` in another process."""

    def __init__(self, model):
        self._folder = _shared_folder()
        self._file = Path(self._folder.name) / "picture"
        self._memory: mmap.mmap | None = None
        self._process = parallel._Process(
            "keras_vpgc.data.tracker_pool:shared_tracker",
            {"model": model, "file": str(self._file)},
        )

    def begin(self):
        self._process.begin()

    def detect(self, picture):
        picture = np.ascontiguousarray(picture)
        if self._memory is None or len(self._memory) < ANSWER + picture.nbytes:
            self._grow(ANSWER + picture.nbytes)
        place = np.frombuffer(self._memory, "uint8", picture.nbytes, ANSWER)
        place[:] = picture.reshape(-1)
        self._process.ask({"shape": picture.shape})
        count = int(np.frombuffer(self._memory, "int32", 1)[0])
        points = np.frombuffer(self._memory, "float32", count * NUM_POINTS * 3, 4)
        return (points.reshape(count, NUM_POINTS, 3).copy(),)

    def close(self):
        self._process.end()
        self._memory = None
        self._folder.cleanup()

    def _grow(self, size):
        # A new file: the other side may still have the old one mapped.
        self._file.unlink(missing_ok=True)
        with open(self._file, "xb+") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)


def _shared_folder():
    """A folder for files that are memory, where the system has one."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="keras_vpgc_", dir=place, ignore_cleanup_errors=True)


@contextlib.contextmanager
def shared_tracker(model: str, file: str):
    """The job of `keras_vpgc.data.parallel` that tracks pictures in shared memory.

    Args:
        model: Path of `face_landmarker.task`.
        file: The memory: room for the answer, then the picture.

    Yields:
        A function of a task `{"shape"}`, that of the picture, and a progress callable.
    """
    memory: list = [None, 0]

    def work(task, progress):
        shape = task["shape"]
        size = ANSWER + int(np.prod(shape))
        if memory[1] < size:
            with open(file, "rb+") as opened:
                memory[:] = mmap.mmap(opened.fileno(), 0), os.path.getsize(file)
        picture = np.frombuffer(memory[0], "uint8", size - ANSWER, ANSWER).reshape(shape)
        points = tracker.detect(picture)[0]
        np.frombuffer(memory[0], "int32", 1)[0] = len(points)
        np.frombuffer(memory[0], "float32", points.size, 4)[:] = points.reshape(-1)

    with FaceTracker(model) as tracker:
        yield work
