"""`reenact` into full frames and before other backgrounds."""

import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.video import probe, read_frames
from keras_vpgc.reenactment import Provenance, Puppet, reenact

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def puppet(run):
    return Puppet.load(run)


def frames(path):
    return np.stack(list(read_frames(path))).astype(int)


def test_own_footage_is_pasted_into(puppet, clip, tmp_path):
    """The picture is changed within the puppet's crop alone, and the job can be stopped."""
    settings = {"end": 0.8, "progress": False, "provenance": Provenance(enabled=False)}
    path = reenact(puppet, clip, tmp_path / "o.mp4", paste_back="auto", **settings)
    found, source = frames(path), frames(clip)[:20]
    assert found.shape == source.shape
    crop = puppet.metadata["crop"]
    x, y, side = (round(crop[k]) for k in ("x", "y", "size"))
    away = np.ones(source.shape[1:3], bool)
    away[max(0, y - 4) : y + side + 4, max(0, x - 4) : x + side + 4] = False
    inside = source[:, ~away], found[:, ~away]
    assert np.abs(inside[0] - inside[1]).mean() > 5
    if away.any():
        assert np.abs(source - found)[:, away].mean() < 3
    beside = reenact(
        puppet, clip, tmp_path / "b.mp4", paste_back="crop", side_by_side=True, **settings
    )
    width = source.shape[2]
    both = frames(beside)
    assert both.shape[2] == 2 * width
    assert np.abs(both[:, :, :width] - source).mean() < 4
    assert np.abs(both[:, :, width:] - found).mean() < 4


def test_backgrounds(puppet, portrait, clip, tmp_path):
    np.save(tmp_path / "d.npy", portrait.landmarks[:6])
    settings = {"progress": False, "provenance": Provenance(enabled=False)}
    path = reenact(puppet, tmp_path / "d.npy", tmp_path / "g.mp4", background="#00ff00", **settings)
    assert probe(path).width == puppet.size and len(frames(path)) == 6
    folder = reenact(puppet, clip, tmp_path / "cut", background="alpha", end=0.2, **settings)
    assert sorted(x.suffix for x in folder.iterdir()) == [".png"] * 5
    assert sorted(x.name for x in tmp_path.iterdir()) == ["cut", "d.npy", "g.mp4"]
    # A folder of that name that no job has made is nobody's to remove.
    (tmp_path / "own.parts").mkdir()
    (tmp_path / "own.parts" / "diary.txt").write_text("dear")
    reenact(puppet, tmp_path / "d.npy", tmp_path / "own", background="alpha", **settings)
    assert (tmp_path / "own.parts" / "diary.txt").exists()


def test_settings_that_do_not_fit(puppet, portrait, clip, tmp_path):
    np.save(tmp_path / "d.npy", portrait.landmarks[:6])
    for driving, target, settings, words in (
        (clip, "o.mp4", {"paste_back": "moon"}, "no place 'moon'"),
        (clip, "o.mp4", {"paste_into": clip, "paste_back": "face"}, "at its own crop"),
        (clip, "o.mp4", {"paste_into": "none.mp4"}, "no file none.mp4"),
        (clip, "o.mp4", {"background": "plaid"}, "plaid"),
        (clip, "o.mp4", {"background": "alpha"}, "o.mp4 cannot hold an alpha channel"),
        (clip, "o", {"background": "alpha", "side_by_side": True}, "cut out has no room"),
        (clip, "o.mp4", {"paste_into_start": 1.0}, "belongs to a video to paste into"),
        (clip, "o.mp4", {"paste_into": clip, "paste_into_start": 50.0}, "no frame at second 50"),
        (clip, "o.mp4", {"motion": 2.0}, "strength of head motion is 2"),
        (clip, "o.mp4", {"retargeting": "none", "motion": 0.5}, "takes the landmarks as they are"),
        (clip, "o.mp4", {"batch_size": 0}, "batch_size = 0 is impossible"),
        ("d.npy", "o.mp4", {"neutral": 0.0}, "cannot be retargeted"),
        ("d.npy", "o.mp4", {"start": -0.2}, "start = -0.2 is impossible"),
        ("d.npy", "o.mp4", {"start": float("nan")}, "start = nan is impossible"),
        ("d.npy", "o.mp4", {"paste_back": "auto"}, "Only a driving video has frames to paste into"),
    ):
        with pytest.raises(VPGCError, match=words):
            reenact(puppet, tmp_path / driving, tmp_path / target, progress=False, **settings)
    assert [x.name for x in tmp_path.iterdir()] == ["d.npy"]


def test_no_source_is_replaced(puppet, clip, tmp_path):
    own = tmp_path / "me.mp4"
    own.write_bytes(clip.read_bytes())
    for settings in ({"paste_into": own}, {"background": own}):
        with pytest.raises(VPGCError, match="me.mp4 is the .* itself: choose another output"):
            reenact(puppet, clip, own, overwrite=True, progress=False, **settings)
    assert own.read_bytes() == clip.read_bytes()
