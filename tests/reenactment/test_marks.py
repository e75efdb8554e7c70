import cv2
import numpy as np
import pytest

from keras_vpgc.data.video import VideoWriter, read_frames
from keras_vpgc.reenactment.marks import InvisibleMark, draw_mark, sampled_frames

pytestmark = pytest.mark.once


def scene(size, count=50, seed=0):
    """Moving soft blobs over a textured, partly flat ground."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.uniform(60, 200, (9, 9, 3)).astype("float32"), (size, size))
    texture = cv2.GaussianBlur(rng.normal(0, 30, (size, size, 3)).astype("float32"), (0, 0), 1.5)
    texture[: size // 2] = 0
    y, x = np.mgrid[:size, :size] / size
    for i in range(count):
        middle = 0.5 + 0.1 * np.sin(i / 7), 0.5 + 0.1 * np.cos(i / 5)
        blob = 60 * np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / 0.03)
        yield np.clip(ground + texture + blob[..., None], 0, 255).astype("uint8")


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (256, 256), (512, 512), (1080, 1920)])
@pytest.mark.parametrize("ground", ["black", "white", "noise"])
def test_words_are_legible_in_the_corner(size, ground):
    image = np.full((*size, 3), 255 if ground == "white" else 0, "uint8")
    if ground == "noise":
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype="uint8")
    before = image.copy()
    marked = draw_mark(image, "synthetic")
    np.testing.assert_array_equal(image, before)
    # The words alone: what is the same on every ground.
    word = draw_mark(np.zeros((*size, 3), "uint8"), "synthetic")[..., 0]
    rows, columns = np.where(word > 128)
    assert rows.min() > 0.6 * size[0] and columns.max() < size[1] - 1
    height = np.ptp(rows) + 1
    assert height >= 8 and height >= 0.025 * min(size)
    assert np.ptp(columns) > 3 * height
    grey = marked.mean(-1)
    letters, around = word > 200, cv2.dilate(word, np.ones((3, 3))) == 0
    # WCAG asks for 4.5 to 1 of text.
    box = np.zeros(size, bool)
    box[rows.min() : rows.max(), columns.min() : columns.max()] = True

    def luminance(values):
        curve = ((values / 255 + 0.055) / 1.055) ** 2.4
        return np.where(values <= 10, values / 255 / 12.92, curve).mean()

    contrast = (luminance(grey[letters]) + 0.05) / (luminance(grey[box & around]) + 0.05)
    assert contrast > 4.5
    # Elsewhere nothing changes.
    outside = np.ones(size, bool)
    outside[int(0.6 * size[0]) :] = False
    np.testing.assert_array_equal(marked[outside], before[outside])


def test_long_words_shrink_to_fit():
    marked = draw_mark(np.zeros((128, 128, 3), "uint8"), "this video was generated")
    columns = np.where(marked.max((0, 2)) > 100)[0]
    assert columns.min() > 0 and columns.max() < 127 and np.ptp(columns) > 90


@pytest.mark.parametrize("size", [128, 256])
def test_invisible_mark_outlives_compression(tmp_path, size):
    frames = list(scene(size))
    marked = [InvisibleMark().embed(frame) for frame in frames]
    error = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(marked, frames, strict=True)])
    assert 10 * np.log10(255**2 / error) > 40
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(marked, frames, strict=True)) < 20
    assert not InvisibleMark().detect(frames).found
    assert InvisibleMark().detect(marked).found
    for name, shown in (("with", marked), ("without", frames)):
        for crf in (18, 28):
            path = tmp_path / f"{name}_{crf}.mp4"
            with VideoWriter(path, 25, crf=crf) as video:
                for frame in shown:
                    video.write(frame)
            found = InvisibleMark().detect(sampled_frames(path))
            assert found.found == (name == "with"), (crf, found)
    smaller = [cv2.resize(x, (96, 96), interpolation=cv2.INTER_AREA) for x in marked]
    assert InvisibleMark().detect(smaller).found


def test_pictures_without_it_correlate_as_chance_does():
    """Over many pictures: no more than the stated bound, and of unit spread."""
    found = [InvisibleMark().detect(scene(128, 1, seed)).correlation for seed in range(60)]
    assert np.abs(np.mean(found)) < 0.6 and 0.6 < np.std(found) < 1.4
    assert max(found) < 4.5
    assert not InvisibleMark().detect([]).found
    assert not InvisibleMark().detect(np.full((3, 64, 64, 3), 200, "uint8")).found


def test_code_of_the_mark_never_changes():
    """A mark of today is found by versions to come: signs by SHA-256, written out here."""
    import hashlib

    from keras_vpgc.reenactment.marks import _signs

    first = hashlib.sha256(b"keras_vpgc invisible mark 1" + bytes(4)).digest()
    wanted = [2 * (byte >> (7 - bit) & 1) - 1 for byte in first for bit in range(8)]
    np.testing.assert_array_equal(_signs()[:256], wanted)
    assert len(_signs()) == 3142


def test_long_videos_are_sampled(tmp_path):
    path = tmp_path / "long.mp4"
    with VideoWriter(path, 25, crf=10) as video:
        for i in range(400):
            video.write(np.full((32, 32, 3), i // 2, "uint8"))
    levels = [frame.mean() for frame in sampled_frames(path)]
    assert len(levels) == 300 and levels[0] < 5 and levels[-1] > 190
    assert len(list(read_frames(path))) == 400


def composite(image, behind):
    """A frame with straight alpha before a grey ground, in float64."""
    alpha = image[..., 3:] / 255.0
    return alpha * image[..., :3] + (1 - alpha) * behind


@pytest.mark.parametrize("behind", [0, 128, 255])
def test_words_on_a_cut_out_look_as_on_a_whole_picture(behind):
    size = 256
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 4), dtype="uint8")
    frame[..., 3] = np.linspace(0, 255, size)  # the corner has all of it in its rows
    frame = np.ascontiguousarray(np.rot90(frame))
    marked = draw_mark(frame, "synthetic")
    plain = draw_mark(np.rint(composite(frame, behind)).astype("uint8"), "synthetic")
    found = composite(marked, behind)
    assert np.abs(found - plain).max() <= 4 and np.abs(found - plain).mean() < 0.5
    # Nothing else is touched; the letters are white and opaque.
    np.testing.assert_array_equal(marked[: size // 2], frame[: size // 2])
    letters = (plain == 255).all(axis=-1) & (composite(frame, behind) < 250).any(axis=-1)
    letters[: size // 2] = False
    assert letters.sum() > 4 and marked[letters].min() == 255


def test_invisible_mark_leaves_alpha_alone():
    mark = InvisibleMark()
    frames = list(scene(128))
    alpha = np.random.default_rng(0).integers(0, 256, (128, 128), dtype="uint8")
    marked = [mark.embed(np.dstack([frame, alpha])) for frame in frames]
    for frame, found in zip(frames, marked, strict=True):
        np.testing.assert_array_equal(found[..., 3], alpha)
        np.testing.assert_array_equal(found[..., :3], mark.embed(frame))
    assert mark.detect(x[..., :3] for x in marked).found
