import sys

import numpy as np
import pytest
from keras import ops
from skimage import data

from keras_vpgc import VPGCError
from keras_vpgc.data.dataset import DriverImageBatches, LandmarkBatches, context_indices
from keras_vpgc.data.moves import Moves
from keras_vpgc.data.person import (
    Backdrop,
    HeadPlaces,
    PersonSegmenter,
    before_backdrop,
    find_backdrop,
    find_people,
    trust_faces,
)
from keras_vpgc.layers import LandmarkHeatmap
from tests.layers.layer_case import to_numpy


@pytest.fixture(scope="module")
def photograph():
    return np.ascontiguousarray(data.astronaut()[:300, 60:360])


@pytest.mark.once
def test_person_is_found(photograph):
    with PersonSegmenter() as segmenter:
        mask = segmenter(photograph)
    assert mask.shape == photograph.shape[:2] and mask.dtype == np.float32
    # The face, the suit, and the flag behind.
    assert mask[60:150, 140:200].min() > 0.95 and mask[270, 150] > 0.95
    assert mask[40:140, 20:50].max() < 0.05
    done = []
    people = find_people(np.stack([photograph[:256, :256]] * 2), seen=done.append)
    assert people.shape == (2, 128, 128) and people.dtype == np.uint8 and done == [1, 1]
    assert people[0, 30:70, 70:98].min() > 240 and people[0, 20:70, 12:24].max() < 13


@pytest.mark.once
def test_what_is_no_segmenter_is_refused(tmp_path):
    (tmp_path / "a.tflite").write_text("no model")
    with pytest.raises(VPGCError, match="a.tflite is not a segmenter's model"):
        PersonSegmenter(tmp_path / "a.tflite")


@pytest.mark.once
def test_the_backdrop_is_what_stands_still(rng):
    size, count = 64, 40
    wall = rng.integers(30, 226, size=(size, size, 3))
    frames = np.clip(wall + rng.normal(0, 2, (count, size, size, 3)), 0, 255).astype("uint8")
    people = np.zeros((count, size // 2, size // 2), "uint8")
    for i, (frame, mask) in enumerate(zip(frames, people, strict=True)):
        left = 4 + i  # A person who walks by, and what flickers, and what nobody ever sees.
        frame[20:, left : left + 16] = 255 - wall[20:, left : left + 16]
        mask[10:, left // 2 : (left + 17) // 2 + 1] = 255
        frame[:10, 40:] = rng.integers(0, 256, 3)
        mask[:4, :4] = 255
    backdrop = find_backdrop(frames, people)
    assert backdrop.plate.shape == (size, size, 3) and backdrop.people is people
    known = np.ones((size, size), bool)
    known[:10, 40:] = False
    known[:8, :8] = False
    np.testing.assert_array_equal(backdrop.known, known)
    assert np.abs(backdrop.plate.astype(int) - wall)[known].max() < 5


SIZE = 32


def moved_by_hand(image, move):
    """By whole pixels or a quarter turn, so that what must come out is known exactly."""
    if move == "turn":
        return np.rot90(image, -1)
    rows, columns = (np.clip(np.arange(SIZE) - s, 0, SIZE - 1) for s in move[::-1])
    return image[rows][:, columns]


BY_HAND = ((3, -2), (-4, 1), (12, 5), "turn", (0, 0))


def scene(rng):
    """An image, the places of its head, its mask, and the background, partly unknown."""
    wall = rng.integers(0, 100, size=(SIZE, SIZE, 3), dtype="uint8")
    people = np.zeros((SIZE, SIZE), "uint8")
    people[:20, 10:20] = 255  # the head, which the picture cuts off, in a wider box
    people[20:, 6:26] = 255  # the body below it
    people[5:16, 20] = 128  # hair
    people[10:12, 24] = 255  # and what sticks out of the box
    image = wall.copy()
    image[people > 0] = rng.integers(150, 255, size=((people > 0).sum(), 3))
    known = np.ones((SIZE, SIZE), bool)
    known[:12, :12] = False
    places = {}
    for name, (top, bottom, left, right) in {
        "box": (0, 20, 7, 23), "sides": (16, 20, 7, 23), "jaw": (16, 20, 9, 21),
        "neck": (20, 23, 9, 21),
    }.items():  # fmt: skip
        places[name] = np.zeros((SIZE, SIZE), bool)
        places[name][top:bottom, left:right] = True
    count = len(BY_HAND)
    return image, places, people, Backdrop(wall, known, np.stack([people] * count))


@pytest.mark.parametrize("math", [np, ops])
def test_moved_heads_stand_before_the_rest(math, rng):
    image, places, people, backdrop = scene(rng)
    count = len(BY_HAND)
    shifts = np.array([(0, 0) if m == "turn" else m for m in BY_HAND], "float32")
    angles = np.array([np.pi / 2 if m == "turn" else 0 for m in BY_HAND], "float32")
    moves = Moves(np.ones(count, "float32"), angles, shifts)

    def by_hand(name):
        found = [moved_by_hand(places[name], m) for m in BY_HAND]
        for mask, m in zip(found, BY_HAND, strict=True):
            if m != "turn":  # What comes from outside is no part of the box.
                rows, columns = (np.arange(SIZE) - s for s in m[::-1])
                mask &= ((rows >= 0) & (rows < SIZE))[:, None] & (columns >= 0) & (columns < SIZE)
        return np.stack(found)

    box, jaw, sides, neck = map(by_hand, ("box", "jaw", "sides", "neck"))
    beyond = np.stack([moved_by_hand(places["box"], m) for m in BY_HAND])
    head = box & (~sides | jaw)
    old = np.stack([places["box"]] * count)
    images = np.stack([moved_by_hand(image, m) for m in BY_HAND])
    masks = np.stack([moved_by_hand(people, m) for m in BY_HAND])
    weights = rng.uniform(1, 2, size=(count, SIZE, SIZE)).astype("float32")
    given = images, np.stack([image] * count), weights
    where = HeadPlaces(head, beyond | neck, old)
    if math is ops:
        given = [ops.convert_to_tensor(x) for x in given]
        where = HeadPlaces(*map(ops.convert_to_tensor, where))
    tensors = Backdrop(*map(ops.convert_to_tensor, backdrop)) if math is ops else backdrop
    found = before_backdrop(*given, where, moves, tensors, math)
    found, weighed = map(to_numpy, found)
    kinds = set()
    for k in range(count - 1):
        for y, x in np.ndindex(SIZE, SIZE):
            moved, here = masks[k, y, x], people[y, x]
            if moved > 0 and (beyond[k, y, x] or neck[k, y, x]):
                # The moved head counts; neck, what is beside the jaw, and what was cut off do not.
                kind = "head" if head[k, y, x] and moved == 255 else "nothing"
            elif old[k, y, x] and backdrop.known[y, x]:
                kind = "plate"
            elif here == 0:
                kind = "same"
            else:
                kind = "nothing"
            shown = {"plate": backdrop.plate, "same": image}.get(kind, images[k])
            np.testing.assert_array_equal(found[k, y, x], shown[y, x])
            assert weighed[k, y, x] == (0 if kind == "nothing" else weights[k, y, x])
            kinds.add(kind)
    assert len(kinds) == 4
    # Of the old head nothing is left where the wall is known.
    gone = (people == 255) & (masks[0] == 0) & places["box"] & backdrop.known
    assert gone.sum() > 20 and (found[0][gone] < 100).all()
    np.testing.assert_array_equal(found[-1], image)
    np.testing.assert_array_equal(weighed[-1], weights[-1])


def clip(rng):
    """Frames 32 pixels wide of a bright head before a wall, and their landmarks."""
    image, _, _, backdrop = scene(rng)
    backdrop = backdrop.part(slice(3))
    points = np.full((68, 2), [15 / SIZE, 14 / SIZE])
    points[0:17:16] = [[10 / SIZE, 14 / SIZE], [20 / SIZE, 20 / SIZE]]
    return np.stack([image] * 3), np.stack([points] * 3).astype("float32"), backdrop


@pytest.mark.parametrize("cache", ["host", "device"])
def test_batches_move_heads_before_the_background(cache, rng):
    images, landmarks, backdrop = clip(rng)
    layer = LandmarkHeatmap(16, 1.0, dtype="float32")
    pairs = DriverImageBatches(
        np.zeros((3, 16, 16), "uint8"), context_indices(3, 1), np.zeros((3, 1, 1, 2)), 3, 4,
        images=images, landmarks=landmarks, indices=np.arange(3), jitter=0.2, backdrop=backdrop,
        draw=layer, cache=cache,
    )  # fmt: skip
    direct = LandmarkBatches(
        landmarks, context_indices(3, 1), images, 3, 4, region_landmarks=landmarks, jitter=0.2,
        backdrop=backdrop, cache=cache,
    )  # fmt: skip
    counts = [0, 0]
    for i in range(4):
        still = ~pairs.moved(i, pairs.chosen(i))[1].moved()
        for shown, weights in (pairs[i][1:], direct[i][1:]):
            shown, weights = to_numpy(shown), to_numpy(weights)[..., 0]
            for image, weight, kept in zip(shown, weights, still, strict=True):
                counts[int(kept)] += 1
                assert np.array_equal(image, images[0]) == kept
                assert (weight > 0).all() == kept
                if not kept:
                    # Far from the head the wall is as it is, and counts; the body does not.
                    assert weight[8:16, -3:].all() and not weight[-2:, 14:18].any()
                    np.testing.assert_array_equal(image[8:16, -3:], backdrop.plate[8:16, -3:])
    assert min(counts) > 3
    # A shard has its part of the batch, and of the masks.
    whole, part = (
        LandmarkBatches(
            landmarks[[0, 1, 2, 0]], context_indices(4, 1), images[[0, 1, 2, 0]], 4, 1,
            region_landmarks=landmarks[[0, 1, 2, 0]], jitter=0.2, cache=cache, shard=shard,
            backdrop=backdrop._replace(people=backdrop.people[[0, 1, 2, 0]]),
        )[0]
        for shard in (None, (1, 2))
    )  # fmt: skip
    for x, y in zip(whole, part, strict=True):
        np.testing.assert_allclose(to_numpy(x)[2:], to_numpy(y), atol=1e-6)


@pytest.mark.once
def test_masks_are_trusted_as_far_as_faces_are_in_them():
    people = np.zeros((4, 16, 16), "uint8")
    people[:3, 4:12, 4:12] = 255
    people[0, 7, 7] = 0
    landmarks = np.full((4, 68, 2), 0.5)
    landmarks[:, 18] = 0.4
    landmarks[1, :17] = 0.9  # The jaw may be beside the mask.
    landmarks[2, 17:60] = 0.1
    trusted, found = trust_faces(people, landmarks)
    np.testing.assert_array_equal(found, [True, True, False, False])
    wanted = people.copy()
    wanted[0, 6:9, 6:9] = 255
    wanted[1, 6:15, 6:15] = 255
    wanted[2:] = 128
    np.testing.assert_array_equal(trusted, wanted)
    assert people[0, 7, 7] == 0


@pytest.mark.once
def test_training_goes_on_with_the_masks_that_it_began_with(monkeypatch, tmp_path, portrait):
    from keras_vpgc.training import recipes

    def by_columns(frames, seen):
        people = np.zeros((len(frames), 32, 32), "uint8")
        people[:, :, 6:-6] = 255
        return people

    given = []

    class Stopped(DriverImageBatches):
        def __init__(self, *args, backdrop, **kwargs):
            given.append((backdrop, (tmp_path / "run" / "people.npz").exists()))
            if len(given) == 1:
                raise KeyboardInterrupt
            super().__init__(*args, backdrop=backdrop, **kwargs)

    monkeypatch.setattr(recipes, "find_people", by_columns)
    module = sys.modules["keras_vpgc.training.fit_driver"]
    monkeypatch.setattr(module, "DriverImageBatches", Stopped)
    recipe = {
        "steps": 1, "driver_steps": 1, "driver_image_steps": 0, "joint_steps": 1,
        "joint_jitter": 0.1, "previews": False, "tensorboard": False,
    }  # fmt: skip
    arguments = portrait, tmp_path / "run", "vpgc_tiny"
    with pytest.raises(KeyboardInterrupt):
        recipes.train_puppet(*arguments, recipe=recipe, verbose=0)
    monkeypatch.delattr(recipes, "find_people")
    recipes.train_puppet(*arguments, recipe=recipe, verbose=0)
    assert [kept for _, kept in given] == [True, True]
    for backdrop, _ in given:
        assert backdrop.known[:, :8].any() and not backdrop.known[:, 30:34].any()
    np.testing.assert_array_equal(given[0][0].people, given[1][0].people)
    assert not (tmp_path / "run" / "people.npz").exists()


@pytest.mark.once
def test_a_clip_in_which_no_person_is_found_is_told(monkeypatch, tmp_path, portrait):
    from keras_vpgc.training import recipes

    def nobody(frames, seen):
        return np.zeros((len(frames), 32, 32), "uint8")

    monkeypatch.setattr(recipes, "find_people", nobody)
    recipe = {
        "steps": 1, "driver_steps": 1, "driver_image_steps": 0, "joint_steps": 1,
        "joint_jitter": 0.1, "previews": False, "tensorboard": False,
    }  # fmt: skip
    with pytest.warns(UserWarning, match="finds no person in (.*) of \\1 frames: heads are moved"):
        recipes.train_puppet(portrait, tmp_path / "run", "vpgc_tiny", recipe=recipe, verbose=0)
    assert (tmp_path / "run" / "puppet.keras").exists()


@pytest.mark.once
def test_a_missing_segmenter_is_told_before_the_training(monkeypatch, tmp_path, portrait):
    from keras_vpgc.training.recipes import train_puppet

    monkeypatch.setenv("KERAS_VPGC_SELFIE_SEGMENTATION", str(tmp_path / "none.tflite"))
    recipe = {"joint_steps": 2, "joint_jitter": 0.1}
    with pytest.raises(VPGCError, match=r"none\.tflite.*; or train with joint_jitter=0") as caught:
        train_puppet(portrait, tmp_path / "run", "vpgc_tiny", recipe=recipe, verbose=0)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
