"""Puppets on a Hub of our own on this machine."""

import json
import shutil
import socket
import sys
import zipfile

import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError, hub
from tests.cli.test_cli import refused
from tests.hub_server import HubServer

pytestmark = pytest.mark.once


@pytest.fixture
def server(monkeypatch, tmp_path):
    made = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", "secret")
    yield made
    made.close()


@pytest.fixture
def filled(run, tmp_path):
    """The run with a model card that leaves nothing open."""
    folder = tmp_path / "filled"
    shutil.copytree(run, folder)
    card = folder / hub.CARD
    card.write_text(card.read_text().replace("FILL IN", "the astronaut's owner"))
    return folder


def test_a_puppet_goes_there_and_comes_back(vpgc, server, filled, clip, tmp_path, portrait):
    code, out, error = vpgc("push", filled, "me/my-puppet")
    assert code == 0, error
    assert out == f"{server.address}/me/my-puppet holds the puppet: hf://me/my-puppet.\n"
    there = server.repositories["me/my-puppet"]
    # Nothing of the person but what was asked for.
    assert set(there["files"]) == {"puppet.keras", "README.md"} and there["private"] is True
    assert there["files"]["README.md"] == (filled / "MODEL_CARD.md").read_bytes()

    code, out, error = vpgc("pull", "me/my-puppet", "-o", tmp_path / "shared")
    assert code == 0, error
    pulled = tmp_path / "shared"
    assert {x.name for x in pulled.iterdir()} == {"puppet.keras", "MODEL_CARD.md"}
    assert (pulled / "puppet.keras").read_bytes() == (filled / "puppet.keras").read_bytes()
    refused(vpgc("pull", "me/my-puppet", "-o", pulled), "exists", "--overwrite")

    # The loader and the commands take the place itself, the network gone.
    server.close()
    wanted = keras_vpgc.load(filled).drive(portrait.landmarks[:2])
    for place in ("hf://me/my-puppet", "me/my-puppet"):
        np.testing.assert_array_equal(keras_vpgc.load(place).drive(portrait.landmarks[:2]), wanted)
    target = tmp_path / "out.mp4"
    code, out, error = vpgc(
        "reenact", "hf://me/my-puppet", "--driving", clip, "-o", target, "--end", 0.1
    )
    assert code == 0 and target.exists(), error
    refused(vpgc("export", "hf://me/my-puppet"), "give an output")


def test_what_was_pushed_again_is_fetched_by_its_revision(server, filled):
    hub.push(filled, "me/x", public=True)
    assert server.repositories["me/x"]["private"] is False
    first = server.commit("me/x")
    card = filled / "MODEL_CARD.md"
    card.write_text(card.read_text() + "\nMore.\n")
    hub.push(filled, "hf://me/x")
    assert (hub.fetch("hf://me/x") / "README.md").read_text().endswith("More.\n")
    old = hub.fetch(f"hf://me/x@{first}")
    assert not (old / "README.md").read_text().endswith("More.\n")
    with pytest.raises(VPGCError, match="There is no revision v9 of me/x"):
        hub.fetch("hf://me/x@v9")


def test_a_model_that_keras_put_there(server, filled, portrait):
    with zipfile.ZipFile(filled / "puppet.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    server.repositories["me/k"] = {"private": False, "files": files}
    puppet = keras_vpgc.load("hf://me/k")
    wanted = keras_vpgc.load(filled).drive(portrait.landmarks[:2])
    np.testing.assert_array_equal(puppet.drive(portrait.landmarks[:2]), wanted)
    server.repositories["me/e"] = {"private": False, "files": {"README.md": b"nothing"}}
    with pytest.raises(VPGCError, match="hf://me/e holds no puppet.keras"):
        keras_vpgc.load("hf://me/e")


def test_an_open_card_goes_nowhere(vpgc, server, run):
    refused(
        vpgc("push", run, "me/x"), "still says FILL IN at", "Person shown", "license",
        "Agreed to a puppet",
    )  # fmt: skip
    assert not server.requests


def test_who_may_not(vpgc, server, filled, tmp_path):
    server.token = "another"
    refused(vpgc("push", filled, "me/x"), "cannot be sent", "hf auth login")
    server.repositories["me/p"] = {"private": True, "files": {"puppet.keras": b""}}
    words = "There is no hf://me/p at", "or you may not see it", "HF_TOKEN"
    refused(vpgc("pull", "me/p", "-o", tmp_path / "s"), *words)
    assert not (tmp_path / "s").exists()


def test_without_a_network_it_says_so(vpgc, server, filled, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    place = tmp_path / "s"
    refused(vpgc("push", filled, "me/x"), "cannot be sent", f"{address} cannot be reached")
    refused(vpgc("pull", "me/x", "-o", place), "cannot be reached, and no copy is in the cache")
    with pytest.raises(VPGCError, match="There is no puppet mee/x here. On the Hub: hf://mee/x"):
        keras_vpgc.load("mee/x")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(vpgc("push", filled, "me/x"), "HF_HUB_OFFLINE is set")
    refused(vpgc("reenact", "hf://me/x", "--driving", "x.mp4", "-o", tmp_path / "o.mp4"),
            "no copy is in the cache", "HF_HUB_OFFLINE")  # fmt: skip
    assert not place.exists()


@pytest.mark.parametrize("name", ["puppet", "hf://a", "hf://a/b/c", "hf:///b", "a/../b", "-o/x"])
def test_names_that_are_none(name):
    with pytest.raises(VPGCError, match="write hf://OWNER/NAME"):
        hub.parse(name)


def test_names(tmp_path, monkeypatch):
    assert hub.parse("hf:/me/x@v1") == hub.parse("hf://me/x@v1") == hub.Place("me/x", "v1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert hub.could_be_hub_name("me/x")
    # Misspelt paths of one's own are nobody's business.
    for path in ("runs/mee", "x/puppet.keras", tmp_path / "a", "a/b/c", "a"):
        assert not hub.could_be_hub_name(path)


def test_the_extra_is_named(vpgc, filled, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(vpgc("push", filled, "me/x"), 'pip install "keras_vpgc[share]"')
    code, out, _ = vpgc("push", filled, "me/x", "--json")
    assert code == 1 and "keras_vpgc[share]" in json.loads(out)["error"]
