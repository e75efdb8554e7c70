import shutil
import tracemalloc
import warnings
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data.crop import Crop, from_crop
from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68
from keras_vpgc.data.retarget import fit_head, from_angles
from keras_vpgc.models import PortraitReenactor
from keras_vpgc.reenactment import Puppet
from tests.layers.layer_case import to_numpy


@pytest.fixture(scope="module")
def puppet(run):
    return keras_vpgc.load(run)


def test_frames_are_the_models_with_neighbours(puppet, portrait):
    landmarks = portrait.landmarks[:11]
    found = puppet.drive(landmarks, batch_size=4)
    assert found.shape == (11, 64, 64, 3) and found.dtype == np.uint8
    for frame in (0, 5, 10):
        around = landmarks[np.clip(np.arange(frame - 3, frame + 4), 0, 10)]
        wanted = (to_numpy(puppet.model(around[None]))[0] + 1) * 127.5
        assert np.abs(found[frame] - np.clip(wanted, 0, 255)).max() <= 0.52


def test_causal_puppet_does_not_see_the_future(puppet, portrait):
    causal = Puppet(puppet.model)
    causal.metadata = {**puppet.metadata, "context_mode": "causal"}
    landmarks = portrait.landmarks[:10]
    changed = landmarks.copy()
    changed[6:] += 0.05
    same = causal.drive(landmarks)[:6] == causal.drive(changed)[:6]
    assert same.all()
    assert (puppet.drive(landmarks)[5] != puppet.drive(changed)[5]).any()


@pytest.mark.slow_on("tensorflow")
def test_some_frames_are_those_of_the_whole(puppet, portrait):
    landmarks = portrait.landmarks[:20]
    whole = puppet.drive(landmarks).astype("int")
    some = np.stack(list(puppet.drive_frames(landmarks, [0, 7, 19, 3])))
    assert some.dtype == np.uint8
    np.testing.assert_allclose(some, whole[[0, 7, 19, 3]], atol=1)
    assert list(puppet.drive_frames(landmarks, [])) == []


@pytest.mark.slow_on("tensorflow")
def test_half_precision_looks_the_same(puppet, portrait):
    landmarks = portrait.landmarks[:9]
    exact = puppet.drive(landmarks).astype("int")
    half = Puppet(puppet.model, "bfloat16")
    assert half.model.get_config()["dtype"] == "mixed_bfloat16"
    assert puppet.model.get_config()["dtype"] == "float32"
    off = np.abs(half.drive(landmarks) - exact)
    assert 0 < off.mean() < 1
    same = Puppet(half.model, "float32")
    np.testing.assert_allclose(same.drive(landmarks), exact, atol=1)


def test_unknown_precision(puppet):
    with pytest.raises(VPGCError, match="no precision 'half': choose one of auto, float32, bfloa"):
        Puppet(puppet.model, "half")


def test_one_frame_and_none(puppet, portrait):
    assert puppet.drive(portrait.landmarks[:1]).shape == (1, 64, 64, 3)
    assert puppet.drive(portrait.landmarks[:0]).shape == (0, 64, 64, 3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda x: x[:, :60], r"shape \(frames, 68, 2\); received \(5, 60, 2\)"),
        (lambda x: x[0], r"received \(68, 2\)"),
        (lambda x: np.where(np.arange(5)[:, None, None] == 3, np.nan, x), "frame 3 are not finite"),
        (lambda x: x * 512, "frame 0 reach .*outside of the crop's"),
    ],
    ids=["points", "axes", "nan", "pixels"],
)
def test_bad_landmarks_are_named(make, message, puppet, portrait):
    with pytest.raises(VPGCError, match=message):
        puppet.drive(make(portrait.landmarks[:5].astype("float32")))


@pytest.fixture
def driving(portrait):
    """The puppet's own clip as a track in source pixels, with the video's size."""
    points = from_crop(portrait.points, Crop(**portrait.info["crop"]))
    return SimpleNamespace(points=points, valid=portrait.valid), portrait.info["source_size"]


@pytest.mark.once
def test_driving_by_the_own_clip_takes_its_crop_and_others_are_retargeted(
    puppet, portrait, driving
):
    track, size = driving
    own = puppet.landmarks_of(track, size, portrait.info["source_sha256"])
    np.testing.assert_allclose(own, portrait.landmarks, atol=1e-5)
    # The same person filmed in a picture twice as large: relative motion undoes it.
    moved = SimpleNamespace(points=2 * track.points, valid=track.valid)
    found = puppet.landmarks_of(moved, np.multiply(size, 2), "another file", guard="off")
    assert np.abs(found - portrait.landmarks).mean() < 0.01
    # Two frames side by side: the person is elsewhere in the picture.
    moved.points = track.points + np.float32([size[0] / 2, 0, 0])
    found = puppet.landmarks_of(moved, (2 * size[0], size[1]), "another file", guard="off")
    assert np.abs(found - portrait.landmarks).mean() < 0.01
    assert found.shape == portrait.landmarks.shape and found.dtype == np.float32


@pytest.mark.once
def test_strength_of_motion_and_neutral_frame(puppet, portrait, driving):
    sha256 = portrait.info["source_sha256"]
    still = puppet.landmarks_of(*driving, sha256, motion=0.0, guard="off")
    nose, corners = [27, 28, 29], [36, 45]
    moves = [np.ptp(x[:, nose].mean(1), axis=0).max() for x in (still, portrait.landmarks)]
    assert moves[0] < 0.4 * moves[1]
    # Frame 7 at rest is the puppet at rest.
    pose = puppet.metadata["pose"]["frame"]
    rest = portrait.landmarks[portrait.indices("train")[pose]]
    found = puppet.landmarks_of(*driving, sha256, neutral=7, guard="off")
    assert np.abs(found[7] - rest).max() < 1e-3
    assert np.abs(found[7, corners] - portrait.landmarks[7, corners]).max() > 0.002


@pytest.mark.once
def test_a_long_clip_is_planned_in_the_memory_of_a_short_one(puppet, driving, monkeypatch):
    """Of each frame only the landmarks stay, not the tracker's points several times over."""
    monkeypatch.setattr("keras_vpgc.data.retarget.SHAPE_FRAMES", 300)
    track, size = driving
    peaks, planned = [], []
    for frames in (500, 1000):
        order = np.resize(np.arange(len(track.valid)), frames)
        long = SimpleNamespace(points=track.points[order], valid=track.valid[order])
        tracemalloc.start()
        try:
            planned.append(puppet.landmarks_of(long, size, "another file", guard="off", neutral=7))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # 68 points of two float32 are 544 bytes; the tracker's points 5736.
    assert (peaks[1] - peaks[0]) / 500 < 2500
    short = puppet.landmarks_of(track, size, "another file", guard="off", neutral=7)
    np.testing.assert_allclose(planned[1][: len(short)], short, atol=1e-4)


@pytest.mark.once
def test_the_guard_counts_over_all_pieces_of_a_clip(puppet, driving, monkeypatch):
    track, size = driving
    head = fit_head(track.points, *size)
    turned = replace(head, rotation=from_angles([40.0, 0, 0]) @ head.rotation)
    said = []
    for frames in (1000, 7):
        monkeypatch.setattr("keras_vpgc.data.retarget.CHUNK", frames)
        with pytest.warns(UserWarning) as found:
            landmarks = puppet.landmarks_of_head(turned, "absolute")
        said.append((str(found[0].message), landmarks))
    assert said[0][0] == said[1][0] and len(found) == 1
    np.testing.assert_allclose(said[0][1], said[1][1], atol=1e-6)


@pytest.mark.once
def test_heads_of_68_points_drive(puppet, portrait, driving):
    track, size = driving
    head = fit_head(track.points, *size)
    less = replace(
        head, shape=head.shape[MEDIAPIPE_TO_68], expression=head.expression[:, MEDIAPIPE_TO_68]
    )
    for mode in ("relative", "absolute"):
        whole, part = (
            puppet.landmarks_of_head(h, mode, neutral=3, guard="off") for h in (head, less)
        )
        assert part.shape == (len(head), 68, 2)
        # The sizes of the two sets of points differ a little.
        np.testing.assert_allclose(part, whole, atol=5e-3)


@pytest.mark.once
def test_guard_warns_of_unseen_poses_and_clamps_them(puppet, portrait, driving):
    track, size = driving
    head = fit_head(track.points[portrait.indices("train")], *size)
    turned = replace(head, rotation=from_angles([40.0, 0, 0]) @ head.rotation)
    wild = {"mode": "absolute", "neutral": 0}
    with pytest.warns(UserWarning, match="yaw reaches .*--guard clamp") as found:
        free = puppet.landmarks_of_head(turned, **wild)
    assert len(found) == 1 and "\n" not in str(found[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        off = puppet.landmarks_of_head(turned, **wild, guard="off")
        clamped = puppet.landmarks_of_head(turned, **wild, guard="clamp")
        usual = puppet.landmarks_of_head(head, **wild)
        puppet.landmarks_of(*driving, portrait.info["source_sha256"])
    np.testing.assert_array_equal(free, off)
    assert np.abs(clamped - usual).mean() < 0.5 * np.abs(free - usual).mean()


@pytest.mark.once
def test_settings_of_driving_that_do_not_fit(puppet, driving):
    for settings, message in (
        ({"retargeting": "some"}, "no retargeting 'some': choose one of auto, none"),
        ({"guard": "maybe"}, "no guard 'maybe': choose one of warn, clamp, off"),
        ({"retargeting": "none", "motion": 0.5}, "'none' takes the landmarks as they are"),
        ({"retargeting": "none", "neutral": 3}, "'none' takes the landmarks as they are"),
        ({"motion": 2.0}, "strength of head motion is 2"),
        ({"neutral": 9999}, "neutral frame 9999 is not in the driving clip"),
    ):
        with pytest.raises(VPGCError, match=message):
            puppet.landmarks_of(*driving, **settings)


@pytest.mark.once
def test_what_is_no_puppet_is_named(run, tmp_path):
    with pytest.raises(VPGCError, match="There is no puppet"):
        keras_vpgc.load(tmp_path / "x.keras")
    with pytest.raises(VPGCError, match="holds no puppet.keras"):
        keras_vpgc.load(tmp_path)
    (tmp_path / "text.keras").write_text("hello")
    whole = (run / "puppet.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (tmp_path / "holes.keras").write_bytes(whole[:middle] + bytes(9999) + whole[middle + 9999 :])
    for name in ("text", "cut", "holes"):
        with pytest.raises(
            VPGCError, match=f"{name}.keras cannot be loaded as a Keras mod"
        ) as error:
            keras_vpgc.load(tmp_path / f"{name}.keras")
        assert "it is damaged" in str(error.value) and "found" not in str(error.value)
    shutil.copy(run / "driver.keras", tmp_path / "d.keras")
    with pytest.raises(VPGCError, match="holds a PortraitDriver, not a puppet"):
        keras_vpgc.load(tmp_path / "d.keras")
    model = keras.saving.load_model(run / "puppet.keras")
    config = model.get_config()
    config["metadata"] = {**config["metadata"], "schema_version": 5}
    PortraitReenactor.from_config(config).save(tmp_path / "new.keras")
    with pytest.raises(VPGCError, match="schema version 5 but this keras_vpgc reads 2"):
        keras_vpgc.load(tmp_path / "new.keras")
