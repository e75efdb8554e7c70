import numpy as np
import pytest
from keras import ops
from skimage import data

from keras_vpgc import VPGCError
from keras_vpgc.data.dataset import DriverImageBatches, LandmarkBatches, context_indices
from keras_vpgc.data.moves import Moves
from keras_vpgc.data.person import (
    Backdrop,
    PersonSegmenter,
    before_backdrop,
    faces_found,
    find_backdrop,
    find_people,
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
# Of whole pixels, so that what must come out is known exactly; the last stays.
SHIFTS = np.array([[3, -2], [-4, 1], [0, 0]])


def scene(rng):
    """Images, boxes of their heads, masks, and the background, of which a corner is unknown."""
    wall = rng.integers(0, 100, size=(SIZE, SIZE, 3), dtype="uint8")
    image = wall.copy()
    people = np.zeros((SIZE, SIZE), "uint8")
    people[8:20, 10:20] = 255  # the head, in a wider box
    people[20:, 6:26] = 255  # the body below it
    people[7, 10:20] = 128  # hair
    image[people > 0] = rng.integers(150, 255, size=((people > 0).sum(), 3))
    known = np.ones((SIZE, SIZE), bool)
    known[:5, :5] = False
    box = np.array([7, 4, 23, 20])
    return image, box, people, Backdrop(wall, known, np.stack([people] * 3))


def shifted(image, shift):
    """By whole pixels, the border repeated."""
    rows, columns = (np.clip(np.arange(SIZE) - s, 0, SIZE - 1) for s in shift[::-1])
    return image[rows][:, columns]


@pytest.mark.parametrize("math", [np, ops])
def test_moved_heads_stand_before_the_background(math, rng):
    image, box, people, backdrop = scene(rng)
    moves = Moves(np.ones(3, "float32"), np.zeros(3, "float32"), SHIFTS.astype("float32"))
    images = np.stack([shifted(image, s) for s in SHIFTS])
    inside = np.zeros((SIZE, SIZE), bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    below = np.zeros((SIZE, SIZE), bool)
    below[box[3] : box[3] + 3, box[0] : box[2]] = True
    now, necks = (np.stack([shifted(x, s) for s in SHIFTS]) for x in (inside, below))
    heads = now, np.stack([inside] * 3), necks
    weights = rng.uniform(1, 2, size=(3, SIZE, SIZE)).astype("float32")
    still = np.stack([image] * 3)
    given = images, still, weights, heads
    if math is ops:
        given = *map(ops.convert_to_tensor, given[:3]), [ops.convert_to_tensor(x) for x in heads]
        tensors = Backdrop(*map(ops.convert_to_tensor, backdrop))
    found = before_backdrop(*given, moves, tensors if math is ops else backdrop, math)
    found, weighed = map(to_numpy, found)
    for k, shift in enumerate(SHIFTS[:2]):
        for y in range(SIZE):
            for x in range(SIZE):
                moved = shifted(people, shift)[y, x]
                if (now[k, y, x] or necks[k, y, x]) and moved > 0:
                    counts = moved == 255 and now[k, y, x]
                    wanted = images[k, y, x], weights[k, y, x] if counts else 0.0
                elif people[y, x] == 255 and not inside[y, x]:
                    wanted = image[y, x], weights[k, y, x]
                elif (people[y, x] == 0 or inside[y, x]) and backdrop.known[y, x]:
                    wanted = backdrop.plate[y, x], weights[k, y, x]
                else:
                    wanted = images[k, y, x], 0.0
                np.testing.assert_array_equal(found[k, y, x], wanted[0])
                assert weighed[k, y, x] == wanted[1]
        # The old head is gone, and where it was there is wall; the body is where it was.
        assert (found[k] >= 150).all(-1)[:16].sum() < 1.2 * (images[k] >= 150).all(-1)[:16].sum()
        np.testing.assert_array_equal(found[k, 25:], image[25:])
    np.testing.assert_array_equal(found[2], images[2])
    np.testing.assert_array_equal(weighed[2], weights[2])


def clip(rng):
    """Frames 32 pixels wide of a bright head before a wall, and their landmarks."""
    image, _, _, backdrop = scene(rng)
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
                    # Far from the head: wall and body as they are, and they count.
                    assert weight[8:16, -3:].all() and weight[-2:, 14:18].all()
                    np.testing.assert_array_equal(image[8:16, -3:], backdrop.plate[8:16, -3:])
                    np.testing.assert_array_equal(image[-2:, 14:18], images[0, -2:, 14:18])
    assert min(counts) > 3


@pytest.mark.once
def test_a_clip_in_which_no_person_is_found_is_told(monkeypatch, tmp_path, portrait):
    from keras_vpgc.training import recipes

    people = np.zeros((4, 16, 16), "uint8")
    people[:3, 4:12, 4:12] = 255
    landmarks = np.full((4, 68, 2), 0.5)
    landmarks[:, :17] = 0.9  # The jaw may be beside the mask.
    landmarks[2, 17:60] = 0.1
    np.testing.assert_array_equal(faces_found(people, landmarks), [True, True, False, False])

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
