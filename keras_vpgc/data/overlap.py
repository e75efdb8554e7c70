"""Reading ahead and writing behind, in threads: decoders and encoders leave Python alone."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def ahead(items: Iterable, depth: int = 8) -> Iterator:
    """The items, made in a thread before they are asked for.

    Args:
        items: What is iterated there; closed there too.
        depth: How many items may wait.

    Yields:
        The items, in their order.

    Raises:
        Exception: what the iteration raises, at its place.

    Example:

    ```python
    for frame in ahead(read_frames("friend.mp4")):
        ...
    ```
    """
    waiting: queue.Queue = queue.Queue(depth)
    ended = threading.Event()

    def put(entry):
        while not ended.is_set():
            try:
                return waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work():
        iterator = iter(items)
        try:
            for item in iterator:
                put((item, None))
                if ended.is_set():
                    break
            else:
                put((None, StopIteration))
        except BaseException as error:
            put((None, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is StopIteration:
                return
            if error is not None:
                raise error
            yield item
    finally:
        ended.set()
        thread.join()


class Behind:
    """Calls of a function, one after the other, in a thread.

    Args:
        call: The function; its results are not kept.
        depth: How many calls may wait.

    Raises:
        Exception: what a call raises, from the next call or at the end.

    Example:

    ```python
    with VideoWriter("out.mp4", 25) as video, Behind(video.write) as write:
        for frame in frames:
            write(frame)
    ```
    """

    def __init__(self, call: Callable, depth: int = 16):
        self.call = call
        self.waiting: queue.Queue = queue.Queue(depth)
        self.error: BaseException | None = None
        self.thread: Any = None

    def __enter__(self):
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        return self

    def __call__(self, *args) -> None:
        """Have the function called; waits while too many calls do."""
        if self.error is not None:
            raise self.error
        self.waiting.put(args)

    def full(self) -> bool:
        """Would a call wait?"""
        return self.waiting.full()

    def _work(self):
        while (args := self.waiting.get()) is not None:
            # After an error the calls are taken, so that nobody waits, and forgotten.
            if self.error is None:
                try:
                    self.call(*args)
                except BaseException as error:
                    self.error = error

    def __exit__(self, kind, error, trace):
        self.waiting.put(None)
        self.thread.join()
        if kind is None and self.error is not None:
            raise self.error
