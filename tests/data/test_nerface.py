"""Nerface folders made of the animated portrait."""

import json
import shutil

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_vpgc import VPGCError
from keras_vpgc.cli.app import app
from keras_vpgc.data import prepare
from keras_vpgc.data.nerface import import_nerface, is_nerface
from keras_vpgc.data.tracking import FaceTracker

pytestmark = pytest.mark.once

PARTS = {"train": 40, "val": 3, "test": 12}


def write_folder(folder, frames, order=None, index_map=True):
    """`frames` in the order of time: train and validation first, then test.

    `order` are the numbers of the training frames as the folder lists them.
    """
    train, validation = PARTS["train"], PARTS["val"]
    numbers = {
        "train": np.arange(train) if order is None else order,
        "val": np.arange(train, train + validation),
        "test": np.arange(train + validation, len(frames)),
    }
    for part, chosen in numbers.items():
        (folder / part).mkdir(parents=True)
        listed = []
        for i, number in enumerate(chosen):
            path = f"./{part}/f_{i:04d}"
            cv2.imwrite(str(folder / f"{path}.png"), frames[number][..., ::-1])
            listed.append(
                {
                    "file_path": path,
                    "bbox": [0.1, 0.9, 0.2, 0.8],
                    "transform_matrix": np.eye(4).tolist(),
                    "expression": [0.0] * 76,
                }
            )
        (folder / f"transforms_{part}.json").write_text(
            json.dumps(
                {"camera_angle_x": 0.2, "intrinsics": [-2000, 2000, 0.5, 0.5], "frames": listed}
            )
        )
    if index_map:
        place = -np.ones((train + validation, 2))
        place[:, 0] = np.arange(len(place))
        place[numbers["train"], 1] = np.arange(train)
        np.save(folder / "index_map.npy", place)
    return folder


@pytest.fixture(scope="module")
def frames():
    from examples.animated_portrait import animate

    return [frame for frame, _ in animate(sum(PARTS.values()), size=128)]


@pytest.fixture(scope="module")
def shuffled_order():
    return np.random.default_rng(0).permutation(PARTS["train"])


@pytest.fixture(scope="module")
def folder(frames, shuffled_order, tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("n") / "person_1", frames, shuffled_order)


@pytest.fixture(scope="module")
def imported(folder, tmp_path_factory):
    return import_nerface(folder, tmp_path_factory.mktemp("p") / "p", progress=False)


def test_split_and_images_are_the_folders_own(imported, frames):
    assert imported.info["split"] == {
        "train": [[0, 40]],
        "validation": [[40, 43]],
        "test": [[43, 55]],
    }
    assert imported.info["source"] == "person_1" and imported.info["source_size"] == [128, 128]
    # Square images are kept whole, and the shuffled training part is in order again.
    assert imported.info["crop"] == {"x": 0, "y": 0, "size": 128} and imported.size == 128
    np.testing.assert_array_equal(imported.frames(), np.stack(frames))
    np.testing.assert_array_equal(imported.indices("test"), np.arange(43, 55))


def test_landmarks_are_those_of_the_images(imported):
    from examples.animated_portrait import animate

    truth = np.stack([points for _, points in animate(len(imported), size=128)])
    distance = np.linalg.norm(imported.landmarks - truth, axis=-1)
    assert np.median(distance) < 0.03 * np.ptp(truth[..., 1], axis=1).mean()


def test_imported_folder_is_used_again_and_others_are_kept(imported, folder):
    before = (imported.path / "portrait.json").stat().st_mtime_ns
    import_nerface(folder, imported.path, progress=False)
    with pytest.raises(VPGCError, match="holds something else"):
        import_nerface(folder, imported.path, size=64, progress=False)
    assert (imported.path / "portrait.json").stat().st_mtime_ns == before
    assert not list(imported.path.parent.glob(".*"))


def test_shuffled_images_without_their_order_are_noticed(
    frames, shuffled_order, imported, tmp_path
):
    folder = write_folder(tmp_path / "n", frames, shuffled_order, index_map=False)
    shuffled = import_nerface(folder, tmp_path / "a", progress=False)
    assert ["not in the order of time" in note for note in shuffled.info["report"]["notes"]] == [1]
    assert imported.info["report"]["notes"] == []
    # Without an order nothing is smoothed: each image has what the tracker sees in it alone.
    with FaceTracker() as tracker:
        alone = tracker.track([frames[shuffled_order[5]]]).points[0] / 128
    np.testing.assert_array_equal(shuffled.points[5], alone)
    assert (imported.points[shuffled_order[5]] != alone).any()


def test_chosen_crop(frames, tmp_path):
    folder = write_folder(tmp_path / "n", frames, index_map=False)
    portrait = import_nerface(folder, tmp_path / "p", progress=False, crop="10,0,100", rate=50)
    assert portrait.frame_rate == 50 and portrait.times[-1] == pytest.approx(54 / 50)
    assert portrait.info["report"]["notes"] == []
    cut = frames[7][0:100, 10:110]
    wanted = cv2.resize(cut, (portrait.size,) * 2, interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(portrait.frames([7])[0], wanted)


@pytest.mark.slow
def test_imported_portrait_trains(imported, tmp_path):
    from keras_vpgc.training.recipes import train_puppet

    recipe = {"steps": 1, "driver_steps": 1, "driver_image_steps": 0}
    train_puppet(imported, tmp_path / "run", "vpgc_tiny", recipe=recipe, verbose=0)
    assert (tmp_path / "run" / "puppet.keras").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "transforms_val.json").unlink(), "transforms_val.json is missing"),
        (lambda f: (f / "transforms_test.json").write_text("{"), "transforms_test.json is damaged"),
        (lambda f: (f / "test" / "f_0003.png").unlink(), "1 of the 12 images .* ./test/f_0003"),
        (lambda f: (f / "val" / "f_0001.png").write_bytes(b"x"), "f_0001.png is no image"),
        (lambda f: np.save(f / "index_map.npy", np.zeros((9, 2))), "does not fit the 40 images"),
        (
            lambda f: cv2.imwrite(str(f / "test" / "f_0002.png"), np.zeros((64, 64, 3), "uint8")),
            "f_0002.png has 64x64 pixels but the first image has 128x128",
        ),
        (
            lambda f: [
                cv2.imwrite(str(file), np.full((128, 128, 3), 90, "uint8"))
                for file in (f / "train").iterdir()
            ],
            "Only 0 of the 40 train images",
        ),
    ],
)
def test_damaged_folders_are_named_and_leave_nothing(damage, message, folder, tmp_path):
    copy = tmp_path / "in" / "n"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(VPGCError, match=message):
        import_nerface(copy, tmp_path / "out" / "p", progress=False)
    assert not (tmp_path / "out").exists()


def test_nerface_folders_are_recognised(folder, imported, tmp_path):
    assert is_nerface(folder) and not is_nerface(tmp_path) and not is_nerface(__file__)
    assert prepare(folder, imported.path, progress=False).info == imported.info
    with pytest.raises(VPGCError, match="has its own frames and split: leave out test_frames"):
        prepare(folder, tmp_path / "p", test_frames=5, progress=False)
    result = CliRunner().invoke(app, ["prepare", str(folder), "-o", str(imported.path)])
    assert "55 frames of 128x128 at 25 a second (train 40, validation 3, test 12)" in result.output
