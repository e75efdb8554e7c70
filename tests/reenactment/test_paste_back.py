import tracemalloc

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from examples.animated_portrait import LANDMARKS, animate
from keras_vpgc import VPGCError
from keras_vpgc.data import crop as crops
from keras_vpgc.data.crop import Crop
from keras_vpgc.reenactment import paste_back as module
from keras_vpgc.reenactment.paste_back import (
    PasteBack,
    Placement,
    key_frames,
    match,
    place_crop,
    place_face,
)

pytestmark = pytest.mark.once
CROP = Crop(40, 24, 180)


@pytest.fixture(scope="module")
def frames():
    return [frame for frame, _ in animate(10, size=256)]


def matched(paste, images, frames, times=None):
    """The same `PasteBack` with colours and rims planned from all frames."""
    numbers = np.arange(len(images))
    times = numbers / 25 if times is None else times
    pairs = (paste.compared(k, images[k], frames[k]) for k in numbers)
    paste.colour, paste.rim = match(pairs, numbers, times)
    return paste


def seam(result, truth, crop=CROP):
    """Grey levels a pixel by which steps across the crop's rim exceed the truth's, in the mean.

    At each place along the four sides the steepest step near the rim counts.
    """
    x, y, side = (int(v) for v in (crop.x, crop.y, crop.size))

    def steps(image):
        image = image.astype("float64")
        found = []
        for edge in (x, x + side):
            part = np.abs(np.diff(image[y : y + side, edge - 3 : edge + 3], axis=1))
            found.append(part.max(axis=(1, 2)))
        for edge in (y, y + side):
            part = np.abs(np.diff(image[edge - 3 : edge + 3, x : x + side], axis=0))
            found.append(part.max(axis=(0, 2)))
        return np.concatenate(found)

    return float(np.maximum(steps(result) - steps(truth), 0).mean())


def test_own_crop_changes_nothing(frames):
    image = crops.apply(frames[0], CROP, 180)
    result = PasteBack(place_crop(CROP, 1), 180, (256, 256))(0, image, frames[0])
    np.testing.assert_allclose(result.astype(int), frames[0], atol=1)


@pytest.mark.parametrize("size", [360, 128])
def test_own_crop_of_another_size_comes_back_in_place(frames, size):
    """Enlarged pictures are made smaller and the other way round, without a shift."""
    image = crops.apply(frames[0], CROP, size)
    paste = matched(PasteBack(place_crop(CROP, 1), size, (256, 256)), [image], frames)
    result = paste(0, image, frames[0])
    assert peak_signal_noise_ratio(frames[0], result) > 33
    # A shift of half a pixel would cost far more.
    shifted = np.roll(frames[0], 1, axis=1)
    assert peak_signal_noise_ratio(shifted, result) < 28
    outside = np.ones((256, 256), bool)
    outside[24:204, 40:220] = False
    np.testing.assert_array_equal(result[outside], frames[0][outside])


def test_padding_beyond_the_frame_is_not_pasted(frames):
    crop = Crop(-30, -12, 200)
    image = crops.apply(frames[0], crop, 200)
    paste = PasteBack(place_crop(crop, 1), 200, (256, 256))
    np.testing.assert_allclose(paste(0, image, frames[0]).astype(int), frames[0], atol=1)
    # There is no rim at the frame's own edge, and one at the other sides.
    white = paste(0, np.full_like(image, 255), np.zeros_like(frames[0]))
    assert white[0, 0].min() == 255 and white[100, 0].min() == 255 and white[0, 100].min() == 255
    assert 0 < white[100, 160].max() < 255 and white[100, 170].max() == 0
    # A rounded corner, where both sides have a rim.
    assert white[186, 168].max() == 0


@pytest.mark.parametrize("scale", [0.45, 1.7])
def test_turned_place_is_exact_to_parts_of_a_pixel(scale):
    """Against the values of a formula at the frame's pixel centres."""

    def painted(u, v):
        waves = [np.sin(9 * u + 2 * v), np.cos(7 * v - u), np.sin(5 * u) * np.cos(6 * v)]
        return 128 + 100 * np.stack(waves, axis=-1)

    size, side = 128, 128 * scale
    place = (np.arange(size) + 0.5) / size
    image = np.rint(painted(*np.meshgrid(place, place))).astype("uint8")
    turn = 0.3
    cos, sin = side * np.cos(turn), side * np.sin(turn)
    matrix = np.array([[cos, -sin, 150.37], [sin, cos, 40.81]])
    paste = PasteBack(Placement(matrix[None], np.ones(1, "float32")), size, (360, 288))
    result = paste(0, image, np.zeros((288, 360, 3), "uint8"))
    columns, rows = np.meshgrid(np.arange(360) + 0.5, np.arange(288) + 0.5)
    inverse = np.linalg.inv(matrix[:, :2])
    u, v = np.einsum("ij,jhw->ihw", inverse, np.stack([columns - 150.37, rows - 40.81]))
    inside = (u > 0.3) & (u < 0.7) & (v > 0.3) & (v < 0.7)
    assert np.abs(result[inside] - painted(u, v)[inside]).max() < 2
    assert result[(u < 0) | (u > 1) | (v < 0) | (v > 1)].max() <= 1


def test_seam_is_invisible(frames):
    """Of a tinted, blurred picture, against a hard paste and the true frame."""
    image = cv2.GaussianBlur(crops.apply(frames[0], CROP, 128), (0, 0), 1)
    image = np.clip(image * np.array([1.15, 1.0, 0.85]) + 8, 0, 255).astype("uint8")
    place = place_crop(CROP, 1)
    naive = PasteBack(place, 128, (256, 256), blend="none")(0, image, frames[0])
    for blend in ("feather", "two-band"):
        paste = matched(PasteBack(place, 128, (256, 256), blend=blend), [image], frames)
        assert seam(paste(0, image, frames[0]), frames[0]) < 0.1 * seam(naive, frames[0])
    # The measure itself: the truth has none.
    assert seam(frames[0], frames[0]) == 0 and seam(naive, frames[0]) > 10


def tinted(image):
    return np.rint(255 * (image / 255) ** np.array([0.65, 0.85, 1.35])).astype("uint8")


def test_gamma_and_tint_are_removed(frames):
    truth = [crops.apply(frame, CROP, 128) for frame in frames]
    images = [tinted(image) for image in truth]
    paste = matched(PasteBack(place_crop(CROP, 10), 128, (256, 256)), images, frames)
    before = np.abs(images[5].astype(int) - truth[5]).mean()
    after = np.abs(paste.colour(5, images[5]).astype(int) - truth[5]).mean()
    assert before > 15 and after < 0.3 * before
    # A hand, say, before the face in some frames.
    covered = [frame.copy() for frame in frames]
    for frame in covered[:5]:
        frame[90:150, 60:120] = (250, 30, 30)
    paste = matched(PasteBack(place_crop(CROP, 10), 128, (256, 256)), images, covered)
    assert np.abs(paste.colour(5, images[5]).astype(int) - truth[5]).mean() < 0.4 * before


def test_right_colours_stay(frames):
    images = [crops.apply(frame, CROP, 180) for frame in frames]
    paste = matched(PasteBack(place_crop(CROP, 10), 180, (256, 256)), images, frames)
    np.testing.assert_allclose(paste(3, images[3], frames[3]).astype(int), frames[3], atol=1)


def test_matched_colours_do_not_flicker(frames):
    """Pictures whose brightness jumps from one compared frame to the next."""
    images = [crops.apply(frames[0], CROP, 128)] * 10
    jumping = [np.clip(f.astype(int) + (-1) ** k * 12, 0, 255).astype("uint8") for k in range(10)
               for f in (frames[0],)]  # fmt: skip
    paste = matched(PasteBack(place_crop(CROP, 10), 128, (256, 256)), images, jumping)
    grey = np.full((1, 1, 3), 128, "uint8")
    shown = [int(paste.colour(k, grey)[0, 0, 1]) for k in range(10)]
    assert np.abs(np.diff(shown)).max() <= 1 and abs(np.mean(shown) - 128) < 3


def test_one_tone_is_shifted_only():
    frames = [np.full((64, 64, 3), (90, 120, 150), "uint8")] * 5
    images = [np.full((32, 32, 3), (110, 120, 130), "uint8")] * 5
    paste = matched(PasteBack(place_crop(Crop(8, 8, 48), 5), 32, (64, 64)), images, frames)
    np.testing.assert_allclose(paste.colour.gain, 1, atol=1e-3)
    np.testing.assert_allclose(paste(2, images[2], frames[2]), frames[2], atol=2)


def test_lines_run_on_across_the_rim():
    """The top of a shoulder that the puppet shows too high."""

    def drawn(top, size=256):
        image = np.full((size, size, 3), (60, 120, 220), "uint8")
        image[round(top) :] = (110, 105, 100)
        return cv2.GaussianBlur(image, (0, 0), 1.2)

    def top(image, column):
        return float(np.argmax(np.diff(image[:, column, 2].astype(int)) < -20))

    frames = [drawn(180)] * 5
    crop = Crop(40, 76, 180)
    images = [crops.apply(drawn(168), crop, 180)] * 5
    paste = PasteBack(place_crop(crop, 5), 180, (256, 256))
    matched(paste, images, frames)
    result = paste(2, images[2], frames[2])
    edge = [top(result, column) for column in range(42, 62, 2)]
    assert abs(edge[0] - top(frames[0], 30)) <= 1.5
    # From the rim it passes evenly to where the puppet has it.
    assert np.abs(np.diff(edge)).max() <= 4
    assert abs(top(result, 130) - 168) <= 2
    paste.rim = None
    hard = PasteBack(place_crop(crop, 5), 180, (256, 256), blend="none")
    assert abs(top(hard(2, images[2], frames[2]), 42) - 168) <= 2


def similar(points, matrix):
    return points @ matrix[:, :2].T + matrix[:, 2]


def motion(count, rate=25):
    """Similarity transforms of a nodding, nearing head."""
    t = np.arange(count) / rate
    turn, size = 0.12 * np.sin(2 * np.pi * 0.7 * t), 220 + 20 * np.sin(2 * np.pi * 0.4 * t)
    x, y = 150 + 25 * np.sin(2 * np.pi * 0.8 * t), 90 + 10 * np.cos(2 * np.pi * 1.1 * t)
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    rows = np.stack([cos, -sin, x], axis=1), np.stack([sin, cos, y], axis=1)
    return np.stack(rows, axis=1), t


def corners(matrices):
    return np.stack([similar(np.array([[0.3, 0.3], [0.7, 0.8]]), m) for m in matrices])


def test_place_follows_the_face_without_jitter_and_lag(rng):
    truth, times = motion(120)
    driven = np.repeat(LANDMARKS[None], 120, axis=0)
    seen = np.stack([similar(p, m) for p, m in zip(driven, truth, strict=True)])
    valid = np.ones(120, bool)
    exact = place_face(driven, seen, valid, times)
    assert np.abs(corners(exact.matrices) - corners(truth)).max() < 0.8
    # A tremble of the whole face, which no mean over its points takes out.
    noise = rng.normal(0, 1.0, (120, 1, 2)) + rng.normal(0, 1.0, (120, 68, 2))
    found = corners(place_face(driven, seen + noise, valid, times).matrices)
    raw = corners(truth) + noise[:, :1]

    def jitter(points):
        return np.abs(np.diff(points - corners(truth), 2, axis=0)).mean()

    assert jitter(found) < 0.15 * jitter(raw)
    assert np.abs(found - corners(truth)).mean() < 0.6
    np.testing.assert_array_equal(exact.opacity, 1)


def test_cut_and_gap_of_the_track():
    truth, times = motion(100)
    truth[60:, :, 2] += 150
    driven = np.repeat(LANDMARKS[None], 100, axis=0)
    seen = np.stack([similar(p, m) for p, m in zip(driven, truth, strict=True)])
    valid = np.ones(100, bool)
    valid[20:30] = False
    seen[20:30] = np.nan
    place = place_face(driven, seen, valid, times)
    shown = np.flatnonzero(valid)
    assert np.abs(corners(place.matrices[shown]) - corners(truth[shown])).max() < 3
    assert (place.opacity[20:30] == 0).all() and place.opacity[10] == place.opacity[40] == 1
    assert (np.diff(place.opacity[13:21]) <= 0).all() and 0 < place.opacity[18] < 0.9
    with pytest.raises(VPGCError, match="no face to put the puppet's on"):
        place_face(driven, seen, np.zeros(100, bool), times)


def test_face_region_shows_nothing_but_the_face():
    """What is beside the face in the picture stays out, what is beside it in the frame stays."""
    size = 128
    image = np.zeros((size, size, 3), "uint8")
    image[:] = (255, 0, 0)
    hull = cv2.convexHull((LANDMARKS * size).astype("int32"))
    cv2.fillConvexPoly(image, hull, (120, 120, 120))
    # Room above the brows and for interpolation.
    image = cv2.dilate(image[..., 1], np.ones((15, 15)))
    image = np.dstack([np.where(image > 0, 120, 255), image, image]).astype("uint8")
    matrices, times = motion(5)
    seen = np.stack([similar(LANDMARKS, m) for m in matrices])
    place = place_face(np.repeat(LANDMARKS[None], 5, axis=0), seen, np.ones(5, bool), times)
    frame = np.full((288, 360, 3), 60, "uint8")
    for blend in ("feather", "two-band"):
        paste = PasteBack(place, size, (360, 288), region="face", blend=blend)
        result = paste(2, image, frame, LANDMARKS, seen[2]).astype(int)
        assert (result[..., 0] - result[..., 1]).max() < 8
        nose = tuple(np.rint(seen[2][30]).astype(int)[::-1])
        assert np.abs(result[nose] - 120).max() <= 2
        x, y = np.ptp(seen[2], axis=0), seen[2].min(axis=0)
        away = np.ones(frame.shape[:2], bool)
        low, high = (y - 0.15 * x).astype(int), (y + 1.15 * x).astype(int)
        away[low[1] : high[1], low[0] : high[0]] = False
        np.testing.assert_allclose(result[away], 60, atol=1)
    # A driver with a narrower face: nothing of the picture shows beside that.
    middle = seen[2].mean(axis=0)
    narrow = middle + (seen[2] - middle) * np.array([0.6, 1.0])
    result = paste(2, image, frame, LANDMARKS, narrow).astype(int)
    left = int(narrow[:, 0].min()) - 2
    np.testing.assert_allclose(result[:, :left], 60, atol=1)


def test_faded_face_leaves_the_frame():
    matrices, _ = motion(2)
    place = Placement(matrices, np.array([0, 0.5], "float32"))
    paste = PasteBack(place, 64, (360, 288), region="face")
    image, frame = np.full((64, 64, 3), 200, "uint8"), np.full((288, 360, 3), 100, "uint8")
    np.testing.assert_array_equal(paste(0, image, frame, LANDMARKS), frame)
    half = paste(1, image, frame, LANDMARKS)
    assert abs(int(half.max()) - 150) <= 1


def test_frames_depend_on_their_number_alone(frames):
    images = [tinted(crops.apply(frame, CROP, 128)) for frame in frames]
    first = matched(PasteBack(place_crop(CROP, 10), 128, (256, 256)), images, frames)
    whole = [first(k, images[k], frames[k]) for k in range(10)]
    again = matched(PasteBack(place_crop(CROP, 10), 128, (256, 256)), images, frames)
    for k in (7, 8, 9, 2):
        np.testing.assert_array_equal(again(k, images[k], frames[k]), whole[k])


@pytest.fixture
def planned(monkeypatch, rng):
    """`match` of comparisons that are given: moments `(m, 13)` and shifts `(m, 32, 32, 3)`."""

    def plan(moments, shifts, numbers, times):
        given = {"_moments": iter(moments), "_shifts": iter(shifts)}
        for name, values in given.items():
            monkeypatch.setattr(module, name, lambda *pair, values=values: next(values))
        return match(((),) * len(numbers), numbers, times)

    return plan


def some_moments(rng, count):
    """Weights, means of picture and frame, and mean squares, as `_moments` gives them."""
    means, spreads = rng.uniform(20, 80, (count, 6)), rng.uniform(4, 100, (count, 6))
    return np.hstack([rng.uniform(20, 16384, (count, 1)), means, means**2 + spreads])


def dense(moments, numbers, times):
    """Gaussian weights of all frames by all keys, gains and shifts, by their definition."""
    distance = (times[:, None] - times[numbers]) ** 2
    weight = np.exp((distance.min(1, keepdims=True) - distance) / 2)
    rim = weight / weight.sum(1, keepdims=True)
    weight = weight * moments[:, 0]
    weight /= weight.sum(1, keepdims=True)
    x, y, xx, yy = np.split(weight @ moments[:, 1:], 4, axis=1)
    gain = np.clip(np.sqrt((yy - y**2 + 9) / (xx - x**2 + 9)), 0.5, 2)
    return rim, gain, y - gain * x


@pytest.mark.parametrize("length, step", [(5, 0.5), (40, 1), (120, 30), (0.1, 1), (0, 1)])
def test_pooling_is_that_over_all_key_frames(planned, rng, length, step):
    times = np.sort(rng.uniform(0, length, 1 + round(25 * length)))
    numbers = key_frames(len(times), times, step)
    moments = some_moments(rng, len(numbers))
    shifts = rng.normal(size=(len(numbers), 32, 32, 3)).astype("float32")
    colour, rim = planned(moments, shifts, numbers, times)
    weight, gain, shift = dense(moments, numbers, times)
    np.testing.assert_allclose(colour.gain, gain, rtol=1e-6)
    np.testing.assert_allclose(colour.shift, shift, rtol=1e-5, atol=1e-4)
    found = np.zeros_like(weight)
    np.add.at(found, (np.arange(len(times))[:, None], rim.index), rim.weight)
    np.testing.assert_allclose(found, weight, rtol=1e-6, atol=1e-9)


def test_colours_far_from_all_that_could_be_compared(planned, rng):
    """Half of the clip is covered: there the nearest colours that are known count."""
    times = np.arange(3000) / 25
    numbers = key_frames(3000, times)
    moments = some_moments(rng, len(numbers))
    known = numbers < 1500
    moments[~known] = 0
    colour, _ = planned(moments, np.zeros((len(numbers), 32, 32, 3)), numbers, times)
    _, gain, shift = dense(moments[known], numbers[known], times)
    np.testing.assert_allclose(colour.gain, gain, rtol=1e-6)
    np.testing.assert_allclose(colour.shift, shift, rtol=1e-5, atol=1e-4)


def test_memory_grows_with_the_clip_and_not_with_its_square(planned, rng):
    sizes, peaks = [], []
    for count in (3000, 15000):
        times = np.arange(count) / 25
        numbers = key_frames(count, times)
        shifts = np.broadcast_to(np.float32(0), (len(numbers), 32, 32, 3))
        moments = some_moments(rng, len(numbers))
        tracemalloc.start()
        _, rim = planned(moments, shifts, numbers, times)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(rim.weight.nbytes + rim.index.nbytes)
    assert sizes[1] == pytest.approx(5 * sizes[0], rel=0.1)
    assert peaks[1] < 6 * peaks[0]


def test_key_frames():
    np.testing.assert_array_equal(key_frames(3, np.arange(3) / 25), [0, 1, 2])
    assert len(key_frames(100, np.arange(100) / 25)) == 5
    keys = key_frames(15000, np.arange(15000) / 25)
    assert len(keys) == 601 and np.diff(keys).min() >= 24 and keys[-1] < 15000


def test_refusals(frames):
    place = place_crop(CROP, 1)
    for arguments, message in (
        ({"region": "head"}, "no region 'head': choose one of crop, face"),
        ({"blend": "poisson"}, "no blend 'poisson': choose one of feather, two-band, none"),
        ({"feather": 0.9}, "feather of 0.9 is impossible"),
    ):
        with pytest.raises(VPGCError, match=message):
            PasteBack(place, 64, (256, 256), **arguments)
    with pytest.raises(VPGCError, match="crop 300,0,64 lies outside of frames of 256x256"):
        PasteBack(place_crop(Crop(300, 0, 64), 1), 64, (256, 256))
    paste = PasteBack(place, 64, (256, 256))
    with pytest.raises(VPGCError, match="put into frames of 256x256; received 32x32 and 256x256"):
        paste(0, np.zeros((32, 32, 3), "uint8"), frames[0])
    with pytest.raises(VPGCError, match="needs the landmarks"):
        PasteBack(place, 64, (256, 256), region="face", blend="none")(
            0, np.zeros((64, 64, 3), "uint8"), frames[0]
        )
