import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data.tracking import Track
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


@pytest.mark.once
def test_driving_by_the_own_clip_takes_its_crop_and_others_are_retargeted(puppet, portrait, rng):
    crop = portrait.info["crop"]
    points = portrait.points * crop["size"]
    points[..., :2] += [crop["x"], crop["y"]]
    track = Track(
        points,
        portrait.blendshapes,
        portrait.matrices,
        portrait.confidence,
        portrait.interpolated,
        portrait.valid,
    )
    own = puppet.landmarks_of(track, portrait.info["source_sha256"])
    np.testing.assert_allclose(own, portrait.landmarks, atol=1e-5)
    # The same person filmed nearer and elsewhere in another picture: relative motion undoes it.
    moved = replace(track, points=points * 2 + 30)
    found = puppet.landmarks_of(moved, "another file")
    assert np.abs(found - portrait.landmarks).mean() < 0.02
    with pytest.raises(VPGCError, match="no retargeting 'some'"):
        puppet.landmarks_of(track, None, "some")


@pytest.mark.once
def test_what_is_no_puppet_is_named(run, tmp_path):
    with pytest.raises(VPGCError, match="There is no puppet"):
        keras_vpgc.load(tmp_path / "x.keras")
    with pytest.raises(VPGCError, match="holds no puppet.keras"):
        keras_vpgc.load(tmp_path)
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(VPGCError, match="cannot be loaded as a Keras model"):
        keras_vpgc.load(tmp_path / "text.keras")
    shutil.copy(run / "driver.keras", tmp_path / "d.keras")
    with pytest.raises(VPGCError, match="holds a PortraitDriver, not a puppet"):
        keras_vpgc.load(tmp_path / "d.keras")
    model = keras.saving.load_model(run / "puppet.keras")
    config = model.get_config()
    config["metadata"] = {**config["metadata"], "schema_version": 5}
    PortraitReenactor.from_config(config).save(tmp_path / "new.keras")
    with pytest.raises(VPGCError, match="schema version 5 but this keras_vpgc reads 1"):
        keras_vpgc.load(tmp_path / "new.keras")
