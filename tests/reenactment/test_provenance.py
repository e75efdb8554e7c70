import hashlib
import json
import os
import re
import stat
import sys
import warnings
import xml.etree.ElementTree as ET

import av
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.video import VideoWriter, read_frames
from keras_vpgc.reenactment import Provenance, Puppet, content_credentials, reenact, verify
from keras_vpgc.reenactment.background import AlphaWriter
from keras_vpgc.reenactment.provenance import Source

pytestmark = pytest.mark.once

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
# Adobe's XMP and C2PA's boxes, as their specifications print them.
XMP = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
C2PA = bytes.fromhex("D8FEC3D61B0E483C92975828877EC481")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test signs with, or makes, the certificate of who runs it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("KERAS_VPGC_CACHE", str(folder))
    for name in ("CERTIFICATE", "KEY"):
        monkeypatch.delenv(f"KERAS_VPGC_{name}", raising=False)
    return folder


@pytest.fixture(scope="module")
def puppet(run):
    return Puppet.load(run)


def pictures(count=30, size=64):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (size, size, 3))
    return [np.clip(noise + 4 * i, 0, 255).astype("uint8") for i in range(count)]


def write(path, provenance=None, frames=None):
    """A video as `reenact` writes it."""
    extra = {}
    if provenance is not None:
        extra = {"metadata": provenance.metadata(), "finish": provenance.sign}
    with VideoWriter(path, 25, overwrite=True, **extra) as video:
        for frame in frames or pictures():
            video.write(provenance.frame(frame) if provenance else frame)
    return path


def tags(path, **options):
    with av.open(str(path), options=options) as container:
        return {key.lower(): value for key, value in container.metadata.items()}


def manifest(path):
    """The active manifest as c2pa itself reads it, and its state."""
    import c2pa

    with c2pa.Reader(str(path)) as reader:
        store = json.loads(reader.json())
    return store["manifests"][store["active_manifest"]], store["validation_state"]


def assertion(found, label):
    return next(x["data"] for x in found["assertions"] if x["label"].startswith(label))


def flip(path, place, target):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_metadata_are_read_back(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", Provenance())
    found = tags(path)
    assert found["title"] == "Synthetic video"
    assert found["comment"].startswith("This video is synthetic")
    assert found["software"].startswith("keras_vpgc ")
    assert found["digitalsourcetype"] == GENERATED and GENERATED in found["comment"]
    assert len(list(read_frames(path))) == 30
    assert verify(path).metadata["digital_source_type"] == GENERATED
    assert os.listdir(tmp_path) == [path.name]
    path = write(tmp_path / f"b{suffix}", Provenance(composite=True))
    assert tags(path)["digitalsourcetype"] == COMPOSITE


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_iptc_term_is_where_xmp_has_it(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", Provenance())
    packet = tags(path, export_xmp="1")["xmp"]  # FFmpeg's own reader
    assert path.read_bytes().count(b"uuid" + XMP) == 1
    root = ET.fromstring(packet.split("?>", 1)[1].rsplit("<?", 1)[0])
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    term = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    assert description.get(term) == GENERATED
    # XMP alone says it too.
    bare = write(tmp_path / f"bare{suffix}")
    Provenance(certificate=None).sign(bare)
    assert "digitalsourcetype" not in tags(bare)
    assert verify(bare).metadata["digital_source_type"] == GENERATED


def test_reenacted_video_carries_a_manifest(run, puppet, clip, tmp_path):
    target = reenact(puppet, clip, tmp_path / "o.mp4", end=0.4, progress=False)
    found, state = manifest(target)
    assert state == "Valid"
    assert found["claim_generator_info"][0]["name"] == "keras_vpgc"
    (action,) = assertion(found, "c2pa.actions")["actions"]
    assert action["action"] == "c2pa.created" and action["digitalSourceType"] == GENERATED
    assert action["softwareAgent"]["name"] == "keras_vpgc" and action["softwareAgent"]["version"]
    details = assertion(found, "keras_vpgc.puppet")
    driving = hashlib.sha256(clip.read_bytes()).hexdigest()
    checksum = hashlib.sha256((run / "puppet.keras").read_bytes()).hexdigest()
    assert details == {
        "puppet_sha256": checksum,
        "training_source_sha256": driving,  # here one clip trains and drives
        "driving_sha256": driving,
    }
    # Without a network nobody signs the time.
    assert "time" not in found["signature_info"]
    # The picture is what it is without.
    with pytest.warns(UserWarning, match="Provenance is off, so that nothing in .*plain.mp4"):
        plain = reenact(
            puppet, clip, tmp_path / "plain.mp4", end=0.4, progress=False,
            provenance=Provenance(enabled=False),
        )  # fmt: skip
    np.testing.assert_array_equal(list(read_frames(target)), list(read_frames(plain)))
    assert verify(target).exit_code == 0 and verify(plain).exit_code == 3
    # The driving video is an ingredient, by what it is, not by the name of its file.
    (ingredient,) = found["ingredients"]
    assert ingredient["title"] == "Driving video" and clip.name not in str(found)
    assert ingredient["relationship"] == "inputTo" and driving in ingredient["description"]
    assert "active_manifest" not in ingredient and len(action["parameters"]["ingredients"]) == 1
    # Beside the result it is a part of the picture; and it tells what it was made from itself.
    signed = tmp_path / "signed.mp4"
    Provenance(composite=True).sign(clip, signed)
    both = reenact(puppet, signed, tmp_path / "s.mp4", end=0.4, side_by_side=True, progress=False)
    said = verify(both)
    assert said.manifest["digital_source_types"][0] == COMPOSITE and said.exit_code == 0
    found, _ = manifest(both)
    (ingredient,) = found["ingredients"]
    assert ingredient["relationship"] == "componentOf" and ingredient["active_manifest"]
    actions = [x["action"] for x in assertion(found, "c2pa.actions")["actions"]]
    assert actions == ["c2pa.created", "c2pa.placed"]
    driving = hashlib.sha256(signed.read_bytes()).hexdigest()
    assert said.manifest["details"]["driving_sha256"] == driving
    assert said.manifest["ingredients"] == [
        {
            "title": "Driving video",
            "relationship": "componentOf",
            "description": f"SHA-256 {driving}",
            "has_manifest": True,
        }
    ]
    assert "made from: Driving video" in said.sentences[2]


def test_sources_that_cannot_be_ingredients_cost_no_manifest(tmp_path):
    """A file of numbers, one that is gone, and a video whose own manifest is broken."""
    signed = write(tmp_path / "signed.mp4", Provenance())
    flip(signed, signed.read_bytes().find(b"c2pa.actions") + 3, tmp_path / "broken.mp4")
    (tmp_path / "d.npz").write_bytes(b"numbers")
    for name, ingredients in (("d.npz", 0), ("gone.mp4", 0), ("broken.mp4", None)):
        made = write(
            tmp_path / "o.mp4", Provenance(sources=(Source(tmp_path / name, "Driving video"),))
        )
        found, state = manifest(made)
        assert state == "Valid" and verify(made).exit_code == 0, name
        if ingredients is not None:
            assert len(found.get("ingredients", [])) == ingredients
        made.unlink()


def test_off_leaves_nothing(tmp_path, recwarn):
    off = Provenance(enabled=False)
    assert off.metadata() == {}
    path = write(tmp_path / "off.mp4", off)
    assert path.read_bytes() == write(tmp_path / "bare.mp4").read_bytes()
    data = path.read_bytes().lower()
    assert not any(x in data for x in (b"keras", b"synthetic", b"digitalsource", b"c2pa", XMP))
    assert not recwarn.list
    off.check(path)
    (said,) = recwarn.list
    assert "nothing in" in str(said.message) and "Article 50 of the AI Act" in str(said.message)
    for wish in ({"mark": "synthetic"}, {"invisible": True}, {"certificate": "a", "key": "b"}):
        with pytest.raises(VPGCError, match="no marks and no signature"):
            Provenance(enabled=False, **wish).check(path)


def test_changed_bytes_are_seen(tmp_path):
    whole = write(tmp_path / "whole.mp4", Provenance(), pictures(60))
    data = whole.read_bytes()
    assert verify(whole).exit_code == 0
    places = {
        "picture": data.find(b"mdat") + 2000,
        "metadata": data.find(b"This video is synthetic") + 8,
        "xmp": data.find(XMP) + 60,
        "manifest": data.find(b"c2pa.actions") + 3,
    }
    for name, place in places.items():
        found = verify(flip(whole, place, tmp_path / f"{name}.mp4"))
        assert found.exit_code == 4 and found.manifest["state"] == "invalid", name
        assert "do not rely on what it says" in found.sentences[0]
    assert (
        "changed after keras_vpgc (self-signed) signed"
        in verify(tmp_path / "picture.mp4").sentences[2]
    )
    # Half of the manifest is no manifest.
    box = data.find(b"uuid" + C2PA) - 4
    size = int.from_bytes(data[box : box + 4], "big")
    zeros = data[: box + 60] + bytes(size - 60) + data[box + size :]
    (tmp_path / "half.mp4").write_bytes(zeros)
    assert verify(tmp_path / "half.mp4").exit_code == 4


def test_without_c2pa_the_metadata_stay(tmp_path, monkeypatch, recwarn):
    signed = write(tmp_path / "signed.mp4", Provenance())
    monkeypatch.setitem(sys.modules, "c2pa", None)
    Provenance().check(tmp_path / "a.mp4")
    (said,) = recwarn.list
    assert 'pip install "keras_vpgc[provenance]"' in str(said.message)
    recwarn.clear()
    path = write(tmp_path / "a.mp4", Provenance())
    assert not recwarn.list  # once is enough
    assert tags(path)["digitalsourcetype"] == GENERATED and C2PA not in path.read_bytes()
    found = verify(path)
    assert found.exit_code == 0 and found.manifest["state"] == "none"
    found = verify(signed)
    assert found.exit_code == 0 and found.manifest["state"] == "unread"
    assert "cannot be checked without c2pa-python" in found.sentences[2]
    # Who gives a certificate wants a signature.
    (tmp_path / "c.pem").write_text("")
    with pytest.raises(VPGCError, match=r"c2pa-python is needed .*\[provenance\]"):
        Provenance(certificate=tmp_path / "c.pem", key=tmp_path / "c.pem").check(path)


def test_matroska_has_metadata_alone(tmp_path):
    with pytest.warns(UserWarning, match="C2PA has no place for a manifest in .mkv files"):
        Provenance().check(tmp_path / "a.mkv")
    found = verify(write(tmp_path / "a.mkv", Provenance()))
    assert found.exit_code == 0 and found.manifest["state"] == "none"


def test_what_cannot_be_signed_is_kept(tmp_path, monkeypatch):
    import c2pa

    def fail(*arguments):
        raise c2pa.C2paError("Io: no\nmore")

    monkeypatch.setattr(content_credentials, "sign", fail)
    with pytest.warns(UserWarning, match=r"No C2PA manifest could be made \(Io: no\)"):
        path = write(tmp_path / "a.mp4", Provenance())
    assert tags(path)["digitalsourcetype"] == GENERATED
    assert verify(path).exit_code == 0
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_signing_a_copy_leaves_the_source(tmp_path):
    source = write(tmp_path / "source.mp4")
    before = source.read_bytes()
    Provenance().sign(source, tmp_path / "target.mp4")
    assert source.read_bytes() == before
    assert manifest(tmp_path / "target.mp4")[1] == "Valid"
    with pytest.raises(VPGCError, match="cannot be written"):
        Provenance().sign(source, tmp_path / "source.mp4" / "target.mp4")


def test_certificate_of_the_machine_is_made_once(tmp_path, own_cache, monkeypatch):
    first = content_credentials.local_identity()
    file = own_cache / "c2pa_identity.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(own_cache) == [file.name]
    assert content_credentials.local_identity() == first
    assert b"PRIVATE" not in first.chain and "PRIVATE" not in repr(first)
    file.write_text("damaged")
    second = content_credentials.local_identity()
    assert second != first and content_credentials.local_identity() == second
    # No place for it: still signed.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_VPGC_CACHE", str(tmp_path / "file"))
    assert manifest(write(tmp_path / "a.mp4", Provenance()))[1] == "Valid"


def certificate(folder, kind="ed25519", usage="1.3.6.1.5.5.7.3.4", days=10, password=None):
    """A signer's chain, its key and the root, made without the package."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import NameOID

    folder.mkdir()
    make = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }
    root_key, key = ec.generate_private_key(ec.SECP256R1()), make[kind]()
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, x)]) for x in ("Root", "Studio")
    ]
    none = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
        + ["encipher_only", "decipher_only"],
        False,
    )
    now = datetime.datetime.now(datetime.UTC)

    def build(name, public, is_root, *more):
        use = {"digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
        builder = (
            x509.CertificateBuilder(names[0], name, public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=20))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), True)
            .add_extension(x509.KeyUsage(**none, **use), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
            )
        )
        for extension in more:
            builder = builder.add_extension(extension, False)
        signed = builder.sign(root_key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    root = build(names[0], root_key.public_key(), True)
    purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)])
    chain = build(names[1], key.public_key(), False, purpose) + root
    (folder / "root.pem").write_bytes(root)
    (folder / "chain.pem").write_bytes(chain)
    secret = serialization.NoEncryption()
    if password:
        secret = serialization.BestAvailableEncryption(password)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    )
    return {"certificate": folder / "chain.pem", "key": folder / "key.pem"}


@pytest.mark.parametrize("kind", ["ed25519", "p384", "rsa"])
def test_own_certificate_signs_and_is_trusted_by_list(tmp_path, kind):
    own = certificate(tmp_path / "own", kind)
    provenance = Provenance(**own)
    provenance.check(tmp_path / "a.mp4")
    path = write(tmp_path / "a.mp4", provenance)
    found, state = manifest(path)
    assert state == "Valid" and found["signature_info"]["issuer"] == "Studio"
    found = verify(path)
    assert "no list of trusted certificates names" in found.sentences[2]
    found = verify(path, trusted=tmp_path / "own" / "root.pem")
    assert found.manifest["state"] == "trusted" and "your list trusts" in found.sentences[2]
    certificate(tmp_path / "other")
    found = verify(path, trusted=tmp_path / "other" / "root.pem")
    assert found.manifest["state"] == "valid" and found.exit_code == 0


def test_environment_names_a_certificate(tmp_path, monkeypatch):
    own = certificate(tmp_path / "own")
    for name, file in own.items():
        monkeypatch.setenv(f"KERAS_VPGC_{name.upper()}", str(file))
    path = write(tmp_path / "a.mp4", Provenance())
    assert verify(path).manifest["signer"] == "Studio"


def test_bad_certificates_are_refused_before_the_work(run, clip, tmp_path):
    good = certificate(tmp_path / "good")
    other = certificate(tmp_path / "other")
    (tmp_path / "text.pem").write_text("hello")
    cases = [
        ({"certificate": good["certificate"]}, "takes a certificate and its key"),
        ({**good, "key": tmp_path / "none.pem"}, "none.pem cannot be read"),
        ({**good, "certificate": tmp_path / "text.pem"}, "text.pem .*cannot be read as PEM"),
        ({**good, "key": other["key"]}, "do not belong together"),
        (certificate(tmp_path / "p", password=b"x"), "the key has a password"),
        (certificate(tmp_path / "k", "k1"), "a kind that C2PA does not sign with"),
        (certificate(tmp_path / "old", days=-5), "renew the certificate"),
        # For web servers.
        (
            certificate(tmp_path / "w", usage="1.3.6.1.5.5.7.3.1"),
            "cannot sign .*certificate is invalid",
        ),
    ]
    for wish, message in cases:
        with pytest.raises(VPGCError, match=message) as caught:
            reenact(run, clip, tmp_path / "o.mp4", provenance=Provenance(**wish), progress=False)
        assert "\n" not in str(caught.value)
    with pytest.raises(VPGCError, match="mark has no letters"):
        reenact(run, clip, tmp_path / "o.mp4", provenance=Provenance(mark=" "), progress=False)
    assert not (tmp_path / "o.mp4").exists()


def test_plain_videos_and_other_files(clip, tmp_path):
    found = verify(clip)
    assert found.exit_code == 3 and found.manifest["state"] == "none"
    assert "does not mean that it is real" in found.sentences[0]
    assert found.invisible_mark["found"] is False
    assert verify(clip, marks_too=False).invisible_mark is None
    (tmp_path / "t.mp4").write_text("hello")
    with pytest.raises(VPGCError, match="t.mp4 cannot be read as a video"):
        verify(tmp_path / "t.mp4")
    with pytest.raises(VPGCError, match="There is no file"):
        verify(tmp_path / "none.mp4")
    for content in (b"hello", bytes([0xFF])):
        (tmp_path / "list.pem").write_bytes(content)
        signed = write(tmp_path / "a.mp4", Provenance())
        with pytest.raises(VPGCError, match="trusted certificates|PEM certificates"):
            verify(signed, trusted=tmp_path / "list.pem")


def test_lost_metadata_leave_the_mark(tmp_path):
    frames = list(np.random.default_rng(1).integers(90, 160, (25, 128, 128, 3), dtype="uint8"))
    path = write(tmp_path / "a.mp4", Provenance(invisible=True), frames)
    assert "c2pa.watermarked.unbound" in str(assertion(manifest(path)[0], "c2pa.actions"))
    with VideoWriter(tmp_path / "again.mp4", 25) as again:
        for frame in read_frames(path):
            again.write(frame)
    found = verify(tmp_path / "again.mp4")
    assert found.exit_code == 0 and found.invisible_mark["found"]
    assert found.sentences[0].endswith("says that it is synthetic, by its invisible mark.")


def test_command(vpgc, run, puppet, clip, tmp_path, monkeypatch):
    # Compiled already.
    monkeypatch.setattr(Puppet, "load", lambda *arguments: puppet)

    base = ("reenact", run, "--driving", clip, "--end", 0.4)
    target = tmp_path / "o.mp4"
    code, out, error = vpgc(*base, "-o", target, "--mark", "synthetic", "--invisible-mark")
    assert code == 0 and "vpgc:" not in error
    code, out, _ = vpgc("verify", target)
    assert code == 0 and out.startswith(f"{target} says that it is synthetic, by its metadata")
    assert out.count("\n") == 4
    code, out, _ = vpgc("verify", target, "--json", "--no-invisible-mark")
    found = json.loads(out)
    assert code == found["exit_code"] == 0 and found["manifest"]["state"] == "valid"
    assert found["invisible_mark"] is None

    code, out, error = vpgc(*base, "-o", tmp_path / "off.mp4", "--no-provenance")
    assert code == 0 and "vpgc: Provenance is off" in error
    assert vpgc("verify", tmp_path / "off.mp4")[0] == 3
    code, out, error = vpgc(
        *base, "-o", tmp_path / "x.mp4", "--no-provenance", "--mark", "synthetic"
    )
    assert code == 1 and "no marks" in error and not (tmp_path / "x.mp4").exists()
    changed = flip(target, target.read_bytes().find(b"This video is") + 2, tmp_path / "c.mp4")
    assert vpgc("verify", changed)[0] == 4
    (tmp_path / "t.txt").write_text("hello")
    code, out, error = vpgc("verify", tmp_path / "t.txt")
    assert code == 1 and error.startswith("vpgc: ") and not out


def test_default_says_nothing(puppet, clip, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        reenact(puppet, clip, tmp_path / "o.mp4", end=0.4, progress=False)


def cut_out(path, provenance, count=25):
    """A person who is cut out, as a writer of alpha is to be called."""
    noise = np.random.default_rng(1).integers(90, 160, (128, 128, 4), dtype="uint8")
    noise[..., 3] = 255 * (np.hypot(*np.mgrid[-64:64, -64:64]) < 50)
    extra = {"metadata": provenance.metadata(path), "finish": provenance.sign}
    with AlphaWriter(path, 25, overwrite=True, **extra) as writer:
        for _ in range(count):
            writer.write(provenance.frame(noise))
    return path


@pytest.mark.parametrize(
    "name, said",
    [
        ("me.mov", None),
        (
            "me.webm",
            "no place for a manifest in .webm files, .* by its metadata .* choose .mov for",
        ),
        ("me", "PNG files of a folder are not signed, .* by their metadata .* choose .mov for"),
    ],
)
def test_cut_out_person_says_it_is_synthetic(tmp_path, recwarn, name, said):
    provenance = Provenance(invisible=True, mark="synthetic")
    provenance.check(tmp_path / name)
    assert len(recwarn.list) == (said is not None)
    if said:
        assert re.search(said, str(recwarn.list[0].message))
    path = cut_out(tmp_path / name, provenance)
    found = verify(path)
    assert found.exit_code == 0 and found.invisible_mark["found"]
    assert found.metadata["digital_source_type"] == GENERATED
    assert found.metadata["title"] == "Synthetic video"
    assert found.metadata["software"].startswith("keras_vpgc ")
    if name == "me.mov":
        assert manifest(path)[1] == "Valid" and found.manifest["state"] == "valid"
        assert tags(path, export_xmp="1")["xmp"]
    else:
        assert found.manifest["state"] == "none"
    off = verify(cut_out(tmp_path / f"off{path.suffix}", Provenance(enabled=False), 2))
    assert off.exit_code == 3 and off.metadata["title"] is None


def test_png_files_tell(tmp_path):
    from PIL import Image, PngImagePlugin

    folder = cut_out(tmp_path / "me", Provenance(), 3)
    one, two, _ = sorted(folder.iterdir())
    assert verify(one).exit_code == 0
    with Image.open(one) as image:
        root = ET.fromstring(image.info["xmp"].decode().split("?>", 1)[1].rsplit("<?", 1)[0])
        pixels = image.copy()
    assert GENERATED in str([x.attrib for x in root.iter()])
    # The folder says what all of its files say.
    pixels.save(two)
    assert verify(one).exit_code == 0 and verify(two).exit_code == verify(folder).exit_code == 3
    # Others pack their texts.
    for packed in (False, True):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", f'<a b="{COMPOSITE}"/>', zip=packed)
        pixels.save(two, pnginfo=info)
        assert verify(two).metadata["digital_source_type"] == COMPOSITE
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", f"of {GENERATED}")
    pixels.save(two, pnginfo=info)
    assert verify(two).exit_code == 0
    # A manifest of somebody else, and a broken one.
    signed = tmp_path / "signed.png"
    content_credentials.sign(one, signed, Provenance()._manifest(), Provenance()._identity())
    assert verify(signed).manifest["state"] == "valid"
    two.write_bytes(signed.read_bytes())
    flip(signed, signed.read_bytes().find(b"This video is") + 4, two)
    assert verify(two).exit_code == 4 and verify(folder).exit_code == 4
    (tmp_path / "none").mkdir()
    with pytest.raises(VPGCError, match="none is a folder without PNG files"):
        verify(tmp_path / "none")
    (tmp_path / "b.png").write_text("hello")
    with pytest.raises(VPGCError, match="b.png is no PNG file"):
        verify(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes(one.read_bytes()[:40])
    with pytest.raises(VPGCError, match="b.png cannot be read as a picture"):
        verify(tmp_path / "b.png")
