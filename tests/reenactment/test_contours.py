import warnings

import keras
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError, backend
from keras_vpgc.data import context_indices
from keras_vpgc.data.video import read_frames
from keras_vpgc.models import PortraitReenactor
from keras_vpgc.reenactment import Puppet
from keras_vpgc.reenactment.contours import (
    drive_contours,
    overlapped,
    read_contours,
    stream_windows,
    window_model,
)
from keras_vpgc.training import draw

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def puppet(run):
    return keras_vpgc.load(run)


def save(folder, images, name="{}.png"):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        assert cv2.imwrite(str(folder / name.format(i)), image)
    return folder


@pytest.mark.once
def test_drawn_landmarks_drive_like_the_landmarks(puppet, portrait, tmp_path):
    landmarks = portrait.landmarks[:13]
    # More than ten: 10.png comes after 9.png.
    folder = save(tmp_path / "drawn", draw(landmarks, puppet.size))
    done = []
    batches = list(drive_contours(puppet, folder, batch_size=5, progress=done.append))
    assert [len(b) for b in batches] == done == [5, 5, 3]
    found, wanted = np.concatenate(batches), puppet.drive(landmarks)
    assert found.dtype == np.uint8 and found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1
    # The landmarks do matter.
    assert (found[0] != found[-1]).any()


@pytest.mark.parametrize(
    "context, mode, output", [(3, "centered", "float"), (2, "causal", "uint8")], ids=str
)
def test_windows_of_frames_drawn_once_are_the_models_own(context, mode, output, rng):
    model = PortraitReenactor.from_preset(
        "vpgc_tiny", context=context, output=output, landmark_set="ibug-68-iris"
    )
    landmarks = rng.uniform(0.2, 0.8, size=(7, 78, 2)).astype("float32")
    call = backend.compiled(window_model(model))

    def begin(batch):
        return backend.to_host(call(batch))

    found = np.concatenate(list(stream_windows(begin, landmarks, context, mode, 3)))
    whole = backend.compiled(model)
    wanted = keras.ops.convert_to_numpy(whole(landmarks[context_indices(7, context, mode)]))
    if output == "float":
        wanted = np.rint(np.clip((wanted + 1) * 127.5, 0, 255))
    # Sums in another order may round to the other side.
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.abs(np.diff(found.astype(int), axis=0)).max() > 5


@pytest.mark.once
def test_puppets_mode_and_size_hold_for_drawings(puppet, rng):
    drawings = rng.integers(0, 256, size=(6, 64, 64), dtype="uint8")
    causal = Puppet(puppet.model)
    causal.metadata = {**puppet.metadata, "context_mode": "causal"}
    changed = drawings.copy()
    changed[4:] = 0

    def drive(puppet, contours):
        return np.concatenate(list(drive_contours(puppet, contours)))

    same = drive(causal, drawings) == drive(causal, changed)
    assert same[:4].all() and not same[4:].all()
    assert not (drive(puppet, drawings)[:4] == drive(puppet, changed)[:4]).all()
    assert not list(drive_contours(puppet, drawings[:0]))
    for bad, message in (
        (drawings[:, :32], r"shape \(frames, 64, 64\); received uint8 \(6, 32, 64\)"),
        (drawings / 255, "type uint8 .* received float64"),
        (drawings[0], r"received uint8 \(64, 64\)"),
    ):
        with pytest.raises(VPGCError, match=message):
            drive_contours(puppet, bad)


@pytest.mark.once
def test_colour_polarity_and_format_do_not_matter(portrait, tmp_path):
    drawings = draw(portrait.landmarks[:3], 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plain = read_contours(save(tmp_path / "plain", drawings), 64)
        colour = read_contours(save(tmp_path / "colour", np.stack([drawings] * 3, -1)), 64)
        jpeg = read_contours(save(tmp_path / "jpeg", drawings, "{}.JPG"), 64)
    np.testing.assert_array_equal(plain, drawings)
    np.testing.assert_array_equal(colour, drawings)
    assert np.abs(jpeg.astype(int) - drawings).mean() < 3
    folder = save(tmp_path / "inverted", 255 - drawings)
    with pytest.warns(UserWarning, match="3 of the 3 contour images .* are inverted"):
        np.testing.assert_array_equal(read_contours(folder, 64), drawings)


@pytest.mark.once
def test_order_is_natural_and_other_files_are_left_alone(tmp_path):
    folder = tmp_path / "mixed"
    numbers = (1, 2, 10, 100)
    folder.mkdir()
    for number in numbers:
        image = np.zeros((8, 8), "uint8")
        image[0, 0] = number
        cv2.imwrite(str(folder / f"frame{number}.png"), image)
    (folder / "._frame1.png").write_bytes(b"note")
    (folder / "info.json").write_text("{}")
    (folder / "frame3.png").mkdir()
    assert read_contours(folder, 8)[:, 0, 0].tolist() == list(numbers)


@pytest.mark.once
@pytest.mark.parametrize("drawn, size", [(512, 64), (512, 256), (256, 128)])
def test_larger_images_become_the_puppets_own_lines(drawn, size, portrait, tmp_path):
    """Made smaller, the drawing has the lines that the layer would have drawn there."""
    landmarks = portrait.landmarks[:2]
    folder = save(tmp_path / "large", draw(landmarks, drawn))
    found, wanted = read_contours(folder, size), draw(landmarks, size)
    assert found.shape == wanted.shape
    lines = (found > 0) | (wanted > 0)
    assert np.abs(found.astype(int) - wanted)[lines].mean() < 35
    assert found.mean() == pytest.approx(wanted.mean(), rel=0.25)


@pytest.mark.once
def test_smaller_images_are_enlarged(portrait, tmp_path):
    landmarks = portrait.landmarks[:2]
    found = read_contours(save(tmp_path / "small", draw(landmarks, 256)), 512)
    wanted = draw(landmarks, 512)
    # Blurred, but in the same place and as wide.
    assert found.mean() == pytest.approx(wanted.mean(), rel=0.05)
    assert (found[wanted > 200] > 60).all()


@pytest.mark.once
@pytest.mark.parametrize("size", [32, 128, 512])
def test_drawings_are_told_from_photographs(size, portrait, clip, tmp_path):
    drawings = draw(portrait.landmarks[:2], size)
    for name, images, quality in (
        ("jpeg", drawings, 20),
        ("paper", 240 - 0.85 * drawings, 60),
        ("blurred", [cv2.GaussianBlur(x, (3, 3), 0) for x in drawings], 90),
    ):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            file = str(tmp_path / name / f"{i}.jpg")
            cv2.imwrite(file, image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # dark lines
            assert len(read_contours(tmp_path / name, size)) == 2
    photo = cv2.resize(next(read_frames(clip)), (size, size))
    masked = photo * (np.hypot(*(np.indices((size, size)) / size - 0.5)) < 0.4)[..., None]
    for name, image in (("photo", photo), ("wide", photo[: size // 2]), ("masked", masked)):
        folder = save(tmp_path / name, [image])
        with pytest.raises(VPGCError, match=r"0.png is no contour image: \d\d% of .* which is tr"):
            read_contours(folder, 64)
        (folder / "me.mp4").write_bytes(b"")
        with pytest.raises(VPGCError, match="or by a video, such as .*me.mp4"):
            read_contours(folder, 64)


@pytest.mark.once
def test_what_is_no_clip_of_contours_is_named(tmp_path):
    with pytest.raises(VPGCError, match="There is no folder"):
        read_contours(tmp_path / "nowhere", 64)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VPGCError, match="empty holds no PNG or JPEG file"):
        read_contours(empty, 64)
    square = np.zeros((32, 32), "uint8")
    folder = save(tmp_path / "damaged", [square, square])
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    with pytest.raises(VPGCError, match="1.png cannot be read as an image"):
        read_contours(folder, 64)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(VPGCError, match="1.png cannot be read as an image"):
        read_contours(folder, 64)
    folder = save(tmp_path / "sizes", [square, np.zeros((16, 16), "uint8")])
    with pytest.raises(VPGCError, match="1.png has 16 pixels a side but 0.png has 32"):
        read_contours(folder, 64)
    folder = save(tmp_path / "wide", [np.zeros((32, 40), "uint8")])
    with pytest.raises(VPGCError, match="0.png has 40x32 pixels: contour images must be square"):
        read_contours(folder, 64)


def test_the_next_call_begins_before_a_result_is_waited_for():
    events = []

    def begin(batch):
        events.append(("call", batch))

        def wait():
            events.append(("wait", batch))
            return np.array(batch)

        return wait

    found = list(overlapped(begin, [("a", 0), ("b", 1), ("c", 2)]))
    assert [(key, int(x)) for key, x in found] == [("a", 0), ("b", 1), ("c", 2)]
    wanted = [("call", 0), ("call", 1), ("wait", 0), ("call", 2), ("wait", 1), ("wait", 2)]
    assert events == wanted
    assert list(overlapped(begin, [])) == []
