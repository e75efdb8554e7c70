from pathlib import Path

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import Crop
from keras_vpgc.data.crop import apply, choose_crop, frame_cutter, from_crop, parse, to_crop
from keras_vpgc.data.video import read_frames

pytestmark = pytest.mark.once


def test_crop_is_read_from_text():
    assert parse("36,0,288") == Crop(36, 0, 288)
    for text in ("36,0", "a,b,c", "1,2,-3", ""):
        with pytest.raises(VPGCError, match="three numbers X,Y,SIZE"):
            parse(text)


def test_points_go_into_the_crop_and_back(rng):
    points = rng.uniform(0, 300, size=(5, 7, 3)).astype("float32")
    crop = Crop(20, 30, 200)
    inside = to_crop(points, crop)
    np.testing.assert_allclose(inside[..., 0], (points[..., 0] - 20) / 200, atol=1e-6)
    np.testing.assert_allclose(inside[..., 1], (points[..., 1] - 30) / 200, atol=1e-6)
    np.testing.assert_allclose(inside[..., 2], points[..., 2] / 200, atol=1e-6)
    np.testing.assert_allclose(from_crop(inside, crop), points, atol=1e-3)
    np.testing.assert_allclose(to_crop(points[..., :2], crop), inside[..., :2])


def test_crop_holds_the_face_in_all_frames_but_a_few_wrong_ones(rng):
    face = rng.uniform(-1, 1, size=(50, 2)) * [40, 60]
    centres = np.linspace([280, 190], [320, 210], 200)
    points = face + centres[:, None]
    points[3] += 250  # the tracker was wrong once
    valid = np.ones(200, bool)
    valid[10] = False
    points[10] = np.nan
    crop = choose_crop(points, valid, 640, 480)
    good = np.delete(points, [3, 10], axis=0)
    assert crop.x <= good[..., 0].min() and crop.x + crop.size >= good[..., 0].max()
    assert crop.y <= good[..., 1].min() and crop.y + crop.size >= good[..., 1].max()
    assert crop.x >= 0 and crop.x + crop.size <= 640
    # Hair and shoulders have room, the face is not lost in the picture.
    assert 1.4 < crop.size / np.ptp(good[..., 1], axis=1).max() < 2.2
    assert crop.size == int(crop.size)


def test_crop_of_a_face_at_the_edge_stays_inside():
    points = np.random.default_rng(0).uniform(0, 100, size=(30, 50, 2))
    crop = choose_crop(points, np.ones(30, bool), 160, 120)
    assert crop == Crop(0, 0, 120)


def test_crop_beyond_the_picture_repeats_its_edge():
    frame = np.zeros((10, 10, 3), "uint8")
    frame[:, 9] = 200
    found = apply(frame, Crop(5, 0, 10), 10)
    assert (found[:, 4:] == 200).all() and (found[:, :4] == 0).all()


def test_pictures_are_cut_once_and_whole(clip, tmp_path, monkeypatch):
    crop = Crop(20, 10, 200)
    with frame_cutter(str(clip), str(tmp_path), [20, 10, 200], 64) as cut:
        told = []
        cut({"first": 5, "numbers": [3, 3, 6]}, told.append)
        assert sum(told) == 3
        assert sorted(x.name for x in tmp_path.iterdir()) == [
            "000005.png", "000006.png", "000007.png",
        ]  # fmt: skip
        source = list(read_frames(clip, 0, 7))
        for name, number in (("000005", 3), ("000006", 3), ("000007", 6)):
            found = cv2.cvtColor(cv2.imread(str(tmp_path / f"{name}.png")), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(found, apply(source[number], crop, 64))
        (tmp_path / "000006.png").unlink()
        before = (tmp_path / "000005.png").stat().st_mtime_ns
        cut({"first": 5, "numbers": [3, 3, 6]}, told.append)
        assert (tmp_path / "000006.png").exists()
        assert (tmp_path / "000005.png").stat().st_mtime_ns == before

        def full(self, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError):
            cut({"first": 9, "numbers": [1]}, told.append)
    assert len(list(tmp_path.iterdir())) == 3


def test_face_that_walks_away_is_held_where_it_rests(rng):
    """Wider than the picture has room for: as many frames as can be are whole."""
    x = np.concatenate([np.full(100, 190.0), np.linspace(190, 360, 20)])
    points = np.stack([x[:, None] + rng.uniform(-90, 90, (120, 50)),
                       100 + rng.uniform(-90, 90, (120, 50))], axis=-1)  # fmt: skip
    crop = choose_crop(points, np.ones(120, bool), 480, 200)
    assert crop.size == 200
    low, high = points[..., 0].min(1), points[..., 0].max(1)
    assert ((low >= crop.x) & (high <= crop.x + crop.size)).sum() >= 100
