"""Stages that work beside each other: the bounded queues between them and their times."""

import collections
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

# Times that are kept of each stage: hours of a stream need no more memory than minutes.
KEPT = 10000


class Closed(Exception):
    """The queue is closed and empty, or was given up."""


class Channel:
    """A bounded queue between two stages.

    Args:
        name: What the items are.
        size: Most items that wait in it.
        newest_wins: Drop the oldest item where there is no room, instead of making who puts wait.

    Attributes:
        most: The most items that have waited in it so far.
        dropped: Number of items that were dropped.
    """

    def __init__(self, name: str, size: int, newest_wins: bool = False):
        self.name, self.size, self.newest_wins = name, size, newest_wins
        self.most = self.dropped = 0
        self._items: collections.deque = collections.deque()
        self._changed = threading.Condition()
        self._closed = self._given_up = False
        self._error: BaseException | None = None

    def __len__(self):
        return len(self._items)

    def put(self, item) -> None:
        """Append an item.

        Raises:
            Closed: if nobody takes items any more.
        """
        with self._changed:
            while len(self._items) >= self.size and not (self.newest_wins or self._given_up):
                self._changed.wait()
            if self._given_up or self._closed:
                raise Closed
            if len(self._items) >= self.size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self.most = max(self.most, len(self._items))
            self._changed.notify_all()

    def get(self, timeout: float | None = None):
        """The oldest item.

        Args:
            timeout: Seconds to wait for one, 0 for none; default: as long as it takes.

        Raises:
            TimeoutError: if none came in time.
            Closed: if there are no more.
            BaseException: the error with which the queue was closed, after its last item.
        """
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._items or self._closed or self._given_up, timeout
            )
            if not ready:
                raise TimeoutError
            if self._given_up or not self._items:
                if self._error is not None and not self._given_up:
                    raise self._error
                raise Closed
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, error: BaseException | None = None) -> None:
        """No more items come; what waits may still be taken, then `error` is raised."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def give_up(self) -> None:
        """Nobody wants the items any more."""
        with self._changed:
            self._given_up = True
            self._items.clear()
            self._changed.notify_all()


class Pace:
    """When to begin with a frame so that it is ready when the last stage is free for it.

    What is begun sooner is replaced by what is newer, and took the processor from those who work.

    Args:
        clock: Gives the time in seconds.
    """

    # A late picture is worse than one that waits a little; and a stage may stop for long.
    EARLY, LONGEST = 1.2, 0.5

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._under_way: collections.deque[int] = collections.deque()
        self._leads, self._takes = Median(), Median()
        self._free = 0.0

    def wait(self) -> float:
        """Seconds to wait before a frame is begun."""
        left = self._free - self.EARLY * self._leads() - self._clock()
        return min(max(0.0, left), self.LONGEST)

    def begun(self, number: int) -> None:
        """A frame is begun."""
        self._under_way.append(number)
        self._free = max(self._free, self._clock() + self._leads()) + self._takes()

    def led(self, seconds: float) -> None:
        """The time from a frame's beginning until the last stage could have it."""
        self._leads.add(seconds)

    def last(self, number: int) -> None:
        """The last stage takes a frame; those before it never come there."""
        while self._under_way and self._under_way[0] <= number:
            self._under_way.popleft()
        self._free = self._clock() + self._takes() * (1 + len(self._under_way))

    def ended(self, seconds: float) -> None:
        """The time that the last stage took for a frame."""
        self._takes.add(seconds)


class Median:
    """The median of the last values; 0 without any."""

    def __init__(self, of: int = 15):
        self._kept: collections.deque[float] = collections.deque(maxlen=of)

    def add(self, value: float) -> None:
        """Note a value."""
        self._kept.append(value)

    def __call__(self) -> float:
        return statistics.median(self._kept) if self._kept else 0.0


class StageTimes:
    """How long a stage works on a frame.

    Args:
        workers: How many work on it beside each other.
    """

    def __init__(self, workers: int = 1):
        self.workers = workers
        self.count, self.busy = 0, 0.0
        self._kept: collections.deque = collections.deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        """Note one frame."""
        self.count += 1
        self.busy += seconds
        self._kept.append(seconds)

    def summary(self, wall: float | None = None) -> dict:
        """Percentiles in milliseconds and the share of the time in which it worked."""
        times = 1000 * np.array(self._kept or [np.nan])
        half, most = (None if np.isnan(x) else round(float(x), 2) for x in _percentiles(times))
        result = {"frames": self.count, "p50_ms": half, "p99_ms": most, "workers": self.workers}
        if wall:
            result["busy"] = round(min(1.0, self.busy / (wall * self.workers)), 3)
        return result


def _percentiles(times):
    return np.percentile(times, [50, 99])


class Statistics(dict):
    """What a stream did, a dict that prints as a table.

    `captured`, `shown`, `dropped` and `without_face` count frames; `frames_per_second` is that of
    the frames shown; `latency` is from a picture's arrival to its image; `stages` are the times of
    each; `bound_by` names what the rate is bound by.

    Example:

    ```python
    print(stream.stats())
    stream.stats()["latency"]["p99_ms"]
    ```
    """

    def __str__(self):
        def cell(value, form="{:.1f}"):
            return "-" if value is None else form.format(value)

        rows = [*self["stages"].items(), ("capture to image", self["latency"])]
        if self.get("latency_on_screen", {}).get("frames"):
            rows.append(("capture to screen", self["latency_on_screen"]))
        lines = [
            "| stage | workers | frames | p50 ms | p99 ms | busy |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in rows:
            workers = row.get("workers") if "busy" in row else None
            busy = None if row.get("busy") is None else 100 * row["busy"]
            lines.append(
                f"| {name} | {cell(workers, '{}')} | {row['frames']} | {cell(row['p50_ms'])} | "
                f"{cell(row['p99_ms'])} | {cell(busy, '{:.0f}%')} |"
            )
        lines.append("")
        lines.append(
            f"{self['captured']} frames captured, {self['shown']} shown, {self['dropped']} "
            f"dropped, {self['without_face']} without a face; {self['frames_per_second']:.1f} "
            f"frames/s, bound by {self['bound_by']}."
        )
        return "\n".join(lines)
