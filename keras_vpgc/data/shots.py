"""Which stretch of a clip shows one person: cuts, persons, confidence."""

from dataclasses import dataclass

import numpy as np

from keras_vpgc.data.landmark_sets import RIGID_POINTS
from keras_vpgc.data.retarget import _similarity
from keras_vpgc.data.tracking import Faces, Track
from keras_vpgc.errors import VPGCError

# Difference of thumbnails, of 255, that a cut makes at least, and how many times the mean of the
# frames around. Heads that move stay below 10 in the clips that were measured, cuts were above 80.
MIN_CUT, CUT_RATIO, CUT_WINDOW = 15.0, 3.0, 5
# A frame repeats the one before if nothing changed, or little, and much less than before and after:
# doubled 25 fps, encoded again at 50, stay below 8 in the changed parts, and real frames that small
# have equals around them.
NO_CHANGE, MAX_REPEAT, REPEAT_RATIO = 1.0, 8.0, 0.4
# Cost of taking a face for a person's: distance in face sizes, and doublings of the size.
MAX_COST = 1.0
# Seconds after which a person who left may come back elsewhere, if nobody else is missing.
LEFT = 1.0
# A second person counts from this part of the first one's size, and these seconds.
MIN_SIZE, MIN_SECONDS = 0.4, 0.5
# Below this a face is as good as none.
MIN_CONFIDENCE = 0.5


def find_shots(cut) -> np.ndarray:
    """Where a clip is cut.

    A cut is a thumbnail that differs from the one before by 15 of 255 in the mean, and three times
    as much as is usual in the five frames before and after. Fades are not found. PySceneDetect's
    AdaptiveDetector compares in the same way, but reads the video itself, from beginning to end;
    here the differences come from the workers that track chunks of it.

    Args:
        cut: Float `(n,)`, `Faces.cut`.

    Returns:
        Int array, the first frame of each shot; the first is 0.

    Example:

    ```python
    find_shots([0, 1, 1, 90, 1, 1])  # [0, 3]
    ```
    """
    cut = np.asarray(cut, "float64")
    total = np.concatenate([[0], np.cumsum(cut)])
    frame = np.arange(len(cut))
    # The first frame has no difference.
    low, high = np.maximum(frame - CUT_WINDOW, 1), np.minimum(frame + CUT_WINDOW + 1, len(cut))
    level = (total[high] - total[np.minimum(low, high)] - cut) / np.maximum(high - low - 1, 1)
    found = (cut >= MIN_CUT) & (cut >= CUT_RATIO * level)
    found[:1] = True
    return np.flatnonzero(found)


def find_repeated(change) -> np.ndarray:
    """Which frames show the picture before them again.

    Args:
        change: Float `(n,)`, `Faces.change`.

    Returns:
        Bool `(n,)`; the first is false.
    """
    change = np.asarray(change, "float64")
    count = len(change)
    # Nothing is known of what is before the first frame and after the last.
    padded = np.pad(change, 2, constant_values=np.inf)
    padded[2:3] = np.inf
    before = np.maximum(padded[:count], padded[1 : count + 1])
    after = np.maximum(padded[3 : count + 3], padded[4 : count + 4])
    small = (change < MAX_REPEAT) & (change < REPEAT_RATIO * np.minimum(before, after))
    repeated = small | (change < NO_CHANGE)
    repeated[:1] = False
    return repeated


class ChoiceError(VPGCError):
    """Somebody has to say which person is meant."""


@dataclass
class Person:
    """Somebody in one shot.

    Attributes:
        shot: Number of the shot, from 0.
        frames: Int `(k,)`, the frames that show the face, ascending.
        faces: Int `(k,)`, the face's place in `Faces`.
        size: Median of the longer side of the face in pixels.
        middle: Median `(x, y)` of the face's middle in pixels.
    """

    shot: int
    frames: np.ndarray
    faces: np.ndarray
    size: float
    middle: tuple[float, float]


def find_persons(faces: Faces, shots, times) -> list[Person]:
    """Link the faces of frames to persons, by place and size, shot by shot.

    In each frame the nearest pairs of persons and faces are linked first. Somebody who was away for
    a second or more may come back anywhere, at up to twice or half the size, if nobody else is
    missing. Persons seen for less than half a second are left out (of a shot under a second: for
    less than half of it).

    Args:
        faces: `Faces` of the clip.
        shots: First frames of the shots.
        times: Float `(n,)`, seconds of the frames.

    Returns:
        Persons, the one in most frames first.
    """
    xy = faces.points[..., :2]
    low, high = xy.min(axis=1), xy.max(axis=1)
    middle, size = (low + high) / 2, (high - low).max(axis=1)
    shot_of = np.searchsorted(shots, np.arange(len(faces)), side="right") - 1
    first_face = np.searchsorted(faces.frame, np.arange(len(faces) + 1))
    people: list[list[int]] = []  # each a person's faces
    present: list[list[int]] = []
    shot = -1
    for frame in np.unique(faces.frame):
        if shot_of[frame] != shot:
            shot, present = shot_of[frame], []
        here = list(range(first_face[frame], first_face[frame + 1]))
        pairs = []
        for person in present:
            last = person[-1]
            for face in here:
                both = (size[face] + size[last]) / 2
                cost = np.linalg.norm(middle[face] - middle[last]) / max(both, 1e-9)
                cost += abs(np.log2(size[face] / size[last]))
                pairs.append((cost, person, face))
        known = list(present)
        for cost, person, face in sorted(pairs, key=lambda pair: pair[0]):
            if cost < MAX_COST and person in known and face in here:
                person.append(face)
                known.remove(person)
                here.remove(face)
        if len(here) == len(known) == 1:
            last, face = known[0][-1], here[0]
            away = times[frame] - times[faces.frame[last]]
            if away >= LEFT and 0.5 < size[face] / size[last] < 2:
                known[0].append(here.pop())
        for face in here:
            people.append([face])
            present.append(people[-1])
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    lengths = step * np.diff([*shots, len(times)])
    found = []
    for person in people:
        chosen = np.array(person)
        frames = faces.frame[chosen]
        shot = int(shot_of[frames[0]])
        if len(chosen) * step >= min(MIN_SECONDS, lengths[shot] / 2):
            x, y = np.median(middle[chosen], axis=0).tolist()
            found.append(Person(shot, frames, chosen, float(np.median(size[chosen])), (x, y)))
    return sorted(found, key=lambda person: -len(person.frames))


@dataclass
class Choice:
    """A stretch of a clip and the person in it: `[start, stop)` in frames."""

    person: Person
    start: int
    stop: int


def choose(persons: list[Person], shots, times, number: int | None = None) -> Choice:
    """The person to use, and the stretch of the clip.

    Args:
        persons: From `find_persons`, not empty.
        shots: First frames of the shots.
        times: Float `(n,)`, seconds of the frames.
        number: A person by number, from 1, who is taken from the first to the last frame that shows
            the face, whoever else is there. Default: the longest stretch, by the frames with the
            face, in which one person alone is shown. Faces below 0.4 of that person's size and
            persons seen for less than half a second do not count as others.

    Returns:
        A `Choice`.

    Raises:
        ChoiceError: for a number without a person, or if nobody is ever alone.

    Example:

    ```python
    choice = choose(find_persons(faces, shots, times), shots, times)
    ```
    """
    if number is not None:
        if not 1 <= number <= len(persons):
            raise ChoiceError(
                f"There is no person {number}; found: {describe(persons, times)}; choose one of "
                "them."
            )
        person = persons[number - 1]
        return Choice(person, int(person.frames[0]), int(person.frames[-1]) + 1)
    best, most = None, 0
    for person in persons:
        last = [*shots[1:], len(times)][person.shot]
        start = stop = int(shots[person.shot])
        alone = _alone(person, persons, times)
        # Runs of frames without anybody else.
        edges = np.flatnonzero(np.diff(np.concatenate([[0], alone[start:last], [0]]))) + start
        for start, stop in edges.reshape(-1, 2):
            seen = person.frames[(person.frames >= start) & (person.frames < stop)]
            if len(seen) > most:
                best, most = Choice(person, int(seen[0]), int(seen[-1]) + 1), len(seen)
    if best is None:
        raise ChoiceError(
            f"There is no stretch with one person alone; found: {describe(persons, times)}; choose "
            "by --person (person= in Python)."
        )
    return best


def _alone(person, persons, times):
    alone = np.ones(len(times), int)
    for other in persons:
        if other is person or other.shot != person.shot or other.size < MIN_SIZE * person.size:
            continue
        # Somebody who looks away for a moment is still there.
        frames = other.frames
        away = times[frames[1:]] - times[frames[:-1]] > MIN_SECONDS
        starts = frames[np.concatenate([[True], away])]
        stops = frames[np.concatenate([away, [True]])] + 1
        for start, stop in zip(starts, stops, strict=True):
            alone[start:stop] = 0
    return alone


def describe(persons: list[Person], times) -> str:
    """Persons in words: number, seconds, place and size."""
    shown = [
        f"{n} ({clock(times[p.frames[0]])}-{clock(times[p.frames[-1]])}, {len(p.frames)} frames, "
        f"{p.size:.0f} px at {p.middle[0]:.0f},{p.middle[1]:.0f})"
        for n, p in enumerate(persons[:8], 1)
    ]
    return ", ".join(shown) + (f" and {len(persons) - 8} more" if len(persons) > 8 else "")


def clock(seconds: float) -> str:
    """Seconds as `M:SS` or `H:MM:SS`.

    Example:

    ```python
    clock(75.2)  # "1:15"
    ```
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def parse_time(text: str) -> float:
    """Seconds from `"75.2"`, `"1:15.2"` or `"0:01:15.2"`.

    Raises:
        VPGCError: if the text is anything else.

    Example:

    ```python
    parse_time("1:15.5")  # 75.5
    ```
    """
    try:
        parts = [float(part) for part in text.split(":")]
        if len(parts) > 3 or any(not 0 <= part < float("inf") for part in parts):
            raise ValueError
        if any(part >= 60 for part in parts[1:]):
            raise ValueError
    except ValueError:
        raise VPGCError(
            f"A time is seconds or H:M:S, such as 75, 1:15 or 0:01:15.5; received {text!r}."
        ) from None
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def confidence(track: Track, width: int, height: int) -> np.ndarray:
    """How far a track can be trusted in each frame: our own measure, since the tracker gives none.

    The product of three numbers in [0, 1]:

    - shape: the points that move with the skull, laid on the person's median head by the best
      rotation, scale and shift, are off by up to 10% of their distance from its middle (1), by 25%
      (0) or between, root mean square. In the clips that were measured faces stay below 10%, also
      turned, grimacing and with hands before them; a picture mixed of two shots was at 23%.
    - motion: the face's middle, or its height, is off the median over two frames before and after
      by up to 0.1 face heights (1), by 0.4 (0) or between: a wrong face that flashes up.
    - border: 90% of the points are inside of the picture (1), 50% (0) or between; where the others
      are is invented.

    Args:
        track: A `Track` in source pixels.
        width: Width of the picture in pixels.
        height: Its height.

    Returns:
        Float32 `(n,)`; 0 where not valid.
    """
    result = np.zeros(len(track.valid), "float32")
    seen = np.flatnonzero(track.valid)
    if not len(seen):
        return result
    # No copy of all points of a long track.
    skull = track.points[:, RIGID_POINTS][seen].astype("float64")
    size = np.ptp(track.points[..., 1], axis=1)[seen]
    residual = _misfit(skull)
    middle = skull[..., :2].mean(axis=1)
    course = np.column_stack([middle, size]) / np.median(size)
    padded = np.pad(course, ((2, 2), (0, 0)), mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=0), axis=-1)
    leap = np.linalg.norm(course - usual, axis=1)
    x, y = track.points[..., 0], track.points[..., 1]
    share = ((x >= 0) & (x <= width) & (y >= 0) & (y <= height)).mean(axis=1)[seen]
    result[seen] = _fall(residual, 0.1, 0.25) * _fall(leap, 0.1, 0.4) * _fall(-share, -0.9, -0.5)
    return result


def _misfit(points):
    """Root mean square distances of `(n, p, 3)` from their median shape, over its size.

    The size is the root mean square distance from the middle.
    """
    shape = points[len(points) // 2]
    for _ in range(3):
        shape = shape - shape.mean(axis=0)
        shape = shape / np.sqrt(np.square(shape).sum(axis=1).mean())
        scale, rotation, translation = _similarity(shape, points)
        local = (points - translation[:, None]) / scale[:, None, None]
        local = np.einsum("npi,nij->npj", local, rotation)
        shape = np.median(local, axis=0)
    return np.sqrt(np.square(local - shape).sum(axis=2).mean(axis=1))


def _fall(values, good, bad):
    """1 up to `good`, 0 from `bad`, straight between."""
    return np.clip((bad - values) / (bad - good), 0, 1)
