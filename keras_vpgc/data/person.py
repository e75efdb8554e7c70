"""The person in front of the background: masks, and the background as it is."""

from typing import Any, NamedTuple

import numpy as np

from keras_vpgc.data.mediapipe_task import MediaPipeTask

# What is surely background and surely person; the same of 255.
LOW, HIGH = 0.1, 0.9
NOBODY, SOMEBODY = 26, 229
# Side of the masks that a `Backdrop` keeps: the model's own are of 256 pixels, edges less sharp.
MASK_SIZE = 128
# Frames out of which the background is found, and in how many of them a pixel must show it.
FRAMES, SEEN = 96, 8
# Nine tenths of a pixel's values lie within so many grey levels of each other where it is still.
STILL = 24


class PersonSegmenter(MediaPipeTask):
    """MediaPipe's selfie segmenter. Use it in a `with`: it must be closed.

    Args:
        model: Path of `selfie_segmentation.tflite` or another segmenter of MediaPipe whose first
            or only mask is the person, or `None` to find it by `keras_vpgc.assets`.

    Raises:
        VPGCError: if MediaPipe or its model file is missing, or that is no such model.

    Example:

    ```python
    with PersonSegmenter() as segmenter:
        mask = segmenter(frame)
    ```

    References:
        Model card "MediaPipe Selfie Segmentation", Google 2021 (Apache-2.0).
    """

    def __init__(self, model=None):
        super().__init__(
            "ImageSegmenter",
            "selfie_segmentation",
            "a segmenter's model",
            model,
            output_confidence_masks=True,
            output_category_mask=False,
        )

    def __call__(self, frame) -> np.ndarray:
        """How sure it is that a pixel shows a person.

        Args:
            frame: uint8 RGB `(h, w, 3)`.

        Returns:
            float32 `(h, w)` in [0, 1]; its edges are as coarse as the model's 256x256 pixels.
        """
        found = self.look(frame, "segment")
        return np.array(found.confidence_masks[0].numpy_view(), "float32").reshape(frame.shape[:2])


class Backdrop(NamedTuple):
    """The background of a clip whose camera stands still, and where the person is before it.

    Attributes:
        plate: uint8 `(s, s, 3)`, the background.
        known: Bool `(s, s)`, where that was seen, and did not change.
        people: uint8 `(n, m, m)`, how sure it is that a pixel of each frame is the person, 255 for
            certainly; `m` is at most `s`.
    """

    plate: np.ndarray
    known: np.ndarray
    people: np.ndarray

    def part(self, chosen):
        """That of some of the frames."""
        return self._replace(people=self.people[chosen])


def find_people(frames, model=None, seen=None) -> np.ndarray:
    """Where the person is, in each frame of a clip.

    Args:
        frames: uint8 `(n, s, s, 3)`.
        model: See `PersonSegmenter`.
        seen: Optional callable, called with 1 after each frame (for a progress bar).

    Returns:
        uint8 `(n, m, m)`, see `Backdrop`.

    Raises:
        VPGCError: see `PersonSegmenter`.

    Example:

    ```python
    find_people(portrait.frames(portrait.indices("train"), 256)).mean()
    ```
    """
    import cv2

    size = frames.shape[1]
    side = size // max(1, round(size / MASK_SIZE))
    people = np.empty((len(frames), side, side), "uint8")
    with PersonSegmenter(model) as segmenter:
        for place, frame in enumerate(frames):
            mask = np.rint(255 * np.clip(segmenter(np.asarray(frame)), 0, 1)).astype("uint8")
            people[place] = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
            if seen is not None:
                seen(1)
    return people


def trust_faces(people, landmarks) -> tuple[np.ndarray, np.ndarray]:
    """Masks as far as the landmarks bear them out: a segmenter knows photographs, not drawings.

    Args:
        people: uint8 `(n, m, m)`, `find_people` of frames.
        landmarks: Float `(n, points, 2)` of them in [0, 1], the first 68 in iBUG's order.

    Returns:
        The masks, where a face was found with the box of its landmarks filled, else unsure of
        every pixel; bool `(n,)`, was it found: is most of the face within the mask?

    Example:

    ```python
    people, found = trust_faces(find_people(frames), portrait.landmarks[numbers])
    ```
    """
    side, people = people.shape[1], people.copy()
    places = np.clip((np.asarray(landmarks)[:, :68] * side).astype(int), 0, side - 1)
    x, y = np.moveaxis(places[:, 17:], -1, 0)  # brows, nose, eyes and mouth
    found = (people[np.arange(len(people))[:, None], y, x] > SOMEBODY).mean(1) > 0.5
    people[~found] = 128
    for frame in np.flatnonzero(found):
        (left, top), (right, bottom) = places[frame].min(0), places[frame].max(0) + 1
        people[frame, top:bottom, left:right] = 255
    return people, found


def find_backdrop(frames, people) -> Backdrop:
    """The background behind a person.

    Args:
        frames: uint8 `(n, s, s, 3)` of a clip.
        people: uint8 `(n, m, m)`, their masks, see `find_people` and `trust_faces`.

    Returns:
        A `Backdrop`. Each pixel of the plate is the median of those frames that show it.

    Example:

    ```python
    find_backdrop(frames, find_people(frames)).known.mean()  # 0.4
    ```
    """
    picked = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    size = frames.shape[1]
    row = mask_places(size, people.shape[1])
    plate = np.zeros((size, size, 3), "uint8")
    known = np.zeros((size, size), bool)
    for first in range(0, size, 64):  # by stripes: a large clip's values would fill the memory
        rows = slice(first, first + 64)
        behind = people[picked][:, row[rows]][:, :, row] < NOBODY
        # Values of the person come last when sorted.
        values = np.asarray(frames[picked, rows]).astype("int16")
        values = np.where(behind[..., None], values, np.int16(256))
        values = np.sort(np.moveaxis(values, 0, -1), axis=-1)
        count = behind.sum(0)[..., None, None]

        def at(share, values=values, count=count):
            place = np.rint(np.maximum(count - 1, 0) * share).astype(int)
            place = np.broadcast_to(place, (*values.shape[:3], 1))
            return np.take_along_axis(values, place, -1)[..., 0]

        still = (at(0.95) - at(0.05)).max(-1) <= STILL
        known[rows] = still & (count[..., 0, 0] >= min(SEEN, len(picked)))
        plate[rows] = np.clip(at(0.5), 0, 255)
    plate[~known] = 0
    return Backdrop(plate, known, people)


def mask_places(size: int, side: int) -> np.ndarray:
    """Which row of a mask of `side` pixels each row of an image of `size` pixels is in."""
    return (np.arange(size) * side) // size


class HeadPlaces(NamedTuple):
    """Where heads are that were moved, and where they were. All bool `(b, s, s)`.

    Attributes:
        head: The moved head, without what is beside the jaw.
        near: What else moved with it: beside the jaw, the neck, and what the picture cuts off.
        old: The old head, with what is beside the jaw.
    """

    head: Any
    near: Any
    old: Any


def before_backdrop(moved, images, weights, places, moves, backdrop, math=np):
    """Moved heads before all else, which does not move with them.

    Such a picture has the person at the moved head's place; elsewhere the background of the image
    as it was; and the plate of the backdrop where the old head was. What is not known of it weighs
    nothing: the body, of whose place a face does not tell, and the neck, which joins it to the
    head; hair that hangs out of the head's box, what the head always covers, and edges of which the
    segmenter is not sure.

    Args:
        moved: uint8 `(b, s, s, 3)`, whole images moved.
        images: The same as they were.
        weights: Float `(b, s, s)` of their pixels, those of the moved.
        places: `HeadPlaces`.
        moves: Their `keras_vpgc.data.moves.Moves`; images that are not moved stay as they are.
        backdrop: A `Backdrop` with the masks of these images.
        math: `numpy`, or `keras.ops` for tensors.

    Returns:
        Images and weights.
    """
    head, near, old = places
    still = math.reshape(math.logical_not(moves.moved()), (-1, 1, 1))
    size, side = images.shape[1], backdrop.people.shape[1]
    row = mask_places(size, side)
    here = math.take(math.take(backdrop.people, row, axis=1), row, axis=2)
    x, y = (_floor((v + 0.5) * (side / size), side, math) for v in moves.sources(size, math))
    masks = math.reshape(backdrop.people, (-1, side * side))
    pixels = math.reshape(y * side + x, (-1, size * size))
    there = math.reshape(math.take_along_axis(masks, pixels, axis=1), (-1, size, size))
    free = math.logical_not(still | ((head | near) & (there >= NOBODY)))
    plate = free & old & backdrop.known
    same = free & math.logical_not(plate) & (here < NOBODY)
    shown = math.where(same[..., None], images, moved)
    shown = math.where(plate[..., None], backdrop.plate, shown)
    counts = still | (head & (there > SOMEBODY)) | plate | same
    return shown, math.where(counts, weights, 0.0)


def _floor(values, below, math):
    values = math.clip(math.floor(values), 0, below - 1)
    return values.astype("int32") if math is np else math.cast(values, "int32")
