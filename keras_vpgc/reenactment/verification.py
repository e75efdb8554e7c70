"""What a video says of where it comes from, and whether that can be believed."""

import contextlib
import dataclasses
import os
import re
import zlib
from pathlib import Path

from keras_vpgc.data.video import metadata_of, open_container, probe
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment import content_credentials, marks
from keras_vpgc.reenactment.provenance import EXTRA, SYNTHETIC

C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
# Exit codes of `vpgc verify`; 1 is that of all commands for what cannot be read, 2 for wrong usage.
SAYS_SYNTHETIC, SAYS_NOTHING, BROKEN = 0, 3, 4
# Bytes of a packed text that are unpacked: who made the file is not known.
LONGEST = 2**20
UNTRUSTED = "signingCredential.untrusted"
# In the codes of C2PA for what is not as it was signed.
CHANGED = ("mismatch", "missing")


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        file: The video.
        exit_code: 0: it says that it is synthetic, and nothing that it carries is broken; 3:
            nothing says so; 4: its manifest does not fit the file, or is damaged.
        sentences: The verdict, then what was found of each kind.
        metadata: What the container says: `title`, `comment`, `software`, `digital_source_type`.
        manifest: `state` (`"none"`, `"trusted"`, `"valid"`, `"invalid"`, `"unread"`), `signer`,
            `digital_source_types`, `software`, `details` and `problems` of the C2PA manifest.
        invisible_mark: `found`, `correlation` and `threshold`, or `None` if not looked for.
    """

    file: str
    exit_code: int
    sentences: list[str]
    metadata: dict
    manifest: dict
    invisible_mark: dict | None

    def as_dict(self) -> dict:
        """The same for JSON."""
        return {"schema_version": 1, **dataclasses.asdict(self)}


def verify(path, trusted=None, marks_too: bool = True) -> Verification:
    """Read what a video says of itself: metadata, C2PA manifest, invisible mark.

    Args:
        path: A video file, whoever made it; or a PNG file, or a folder of them as frames of one
            video, which says what all of its files say.
        trusted: PEM file of the certificate authorities whose signers you trust; default: nobody.
        marks_too: Look for the invisible mark of keras_vpgc, which decodes up to 300 frames?

    Returns:
        A `Verification`.

    Raises:
        VPGCError: if it is no video, a folder holds no PNG files, or a file cannot be read.

    Example:

    ```python
    verify("out.mp4").exit_code  # 0
    ```
    """
    path = Path(path)
    anchors = None
    if trusted is not None:
        try:
            anchors = Path(trusted).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise VPGCError(
                f"{trusted} cannot be read as PEM certificates: check the file."
            ) from error
    pictures = _pictures(path)
    if pictures is None:
        probe(path)
        metadata = _metadata(path)
        manifest = _manifest(path, anchors)
    else:
        metadata, manifest = _of_pictures(pictures, anchors)
    found = None
    if marks_too:
        found = dataclasses.asdict(
            marks.InvisibleMark().detect(marks.sampled_frames(pictures or path))
        )
    says = {
        "its metadata": _is_synthetic(metadata["digital_source_type"]),
        "its C2PA manifest": manifest["state"] in ("valid", "trusted")
        and any(map(_is_synthetic, manifest["digital_source_types"])),
        "its invisible mark": bool(found and found["found"]),
    }
    sayers = [name for name, yes in says.items() if yes]
    code = SAYS_SYNTHETIC if sayers else SAYS_NOTHING
    if manifest["state"] == "invalid":
        code = BROKEN
        changed = _is_changed(manifest["problems"])
        what = "is not what was signed" if changed else "carries a C2PA manifest that is not valid"
        verdict = f"{path} {what}: do not rely on what it says."
    elif sayers:
        verdict = f"{path} says that it is synthetic, by {_listed(sayers)}."
    else:
        verdict = (
            f"{path} does not say that it is synthetic; that does not mean that it is real, since "
            "metadata and manifests can be removed."
        )
    sentences = [verdict, _of_metadata(metadata), _of_manifest(manifest)]
    if found:
        sentences.append(_of_mark(found))
    return Verification(str(path), code, sentences, metadata, manifest, found)


def _is_synthetic(source_type) -> bool:
    return source_type in SYNTHETIC


def _is_changed(problems) -> bool:
    return any(word in problem["code"] for problem in problems for word in CHANGED)


def _listed(names):
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _pictures(path):
    """The PNG files that are meant, or `None` for a video."""
    if not path.is_dir():
        is_png = path.suffix.lower() == ".png" and path.is_file()
        return [path] if is_png else None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise VPGCError(f"{path} is a folder without PNG files: give a video, or such a folder.")
    return files


def _of_pictures(files, anchors):
    """What all say in their texts; the first manifest that is broken, or that of the first file."""
    metadata, manifest = None, None
    for file in files:
        texts, signed = _png(file)
        said = _known(texts)
        metadata = metadata or said
        metadata = {name: text if said[name] == text else None for name, text in metadata.items()}
        if signed or manifest is None:
            found = _manifest(file, anchors) if signed else _no_manifest()
            if manifest is None or found["state"] == "invalid":
                manifest = found
        if manifest["state"] == "invalid":
            break
    return metadata, manifest


def _png(path):
    """Texts of a PNG file, by keywords in small letters, and whether it has a C2PA manifest."""
    texts, signed = {}, False
    try:
        with open(path, "rb") as file:
            if file.read(8) != b"\x89PNG\r\n\x1a\n":
                raise VPGCError(f"{path} is no PNG file: give one, or a video.")
            while len(head := file.read(8)) == 8:
                size, kind = int.from_bytes(head[:4], "big"), head[4:]
                signed = signed or kind == b"caBX"
                if kind in (b"tEXt", b"iTXt"):
                    keyword, _, rest = file.read(size).partition(b"\0")
                    if kind == b"iTXt":
                        packed = rest[:1] == b"\1"
                        rest = rest[2:].split(b"\0", 2)[-1]
                        with contextlib.suppress(zlib.error):
                            rest = (
                                zlib.decompressobj().decompress(rest, LONGEST) if packed else rest
                            )
                    text = rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
                    texts[keyword.decode("latin-1").lower()] = text
                    size = 0
                file.seek(size + 4, os.SEEK_CUR)
    except OSError as error:
        raise VPGCError(f"{path} cannot be read ({error.strerror}).") from error
    texts["xmp"] = texts.get("xml:com.adobe.xmp", "")
    return texts, signed


def _metadata(path) -> dict:
    """Metadata of the container; IPTC's term may be a tag, in XMP or in the comment."""
    with open_container(path, options={"export_xmp": "1"}) as container:
        return _known({key.lower(): value for key, value in metadata_of(container).items()})


def _known(tags) -> dict:
    term = tags.get("digitalsourcetype")
    for text in (tags.get("xmp", ""), tags.get("comment", ""), tags.get("description", "")):
        match = re.search(r"https?://cv\.iptc\.org/newscodes/digitalsourcetype/\w+", text)
        term = term or (match and match[0])
    if term:
        term = term.replace("https://", "http://")
    kept = {name: tags.get(name) for name in ("title", "comment", "software")}
    return {**kept, "digital_source_type": term}


def _no_manifest() -> dict:
    empty: dict = {"state": "none", "signer": None, "software": None}
    return empty | {
        "digital_source_types": [],
        "details": {},
        "ingredients": [],
        "problems": [],
    }


def _manifest(path, anchors) -> dict:
    empty = _no_manifest()
    if not content_credentials.available():
        return {**empty, "state": "unread"} if _has_manifest(path) else empty
    try:
        store = content_credentials.read(path, anchors)
    except content_credentials.errors() as error:
        if not _has_manifest(path):
            return empty  # a format that C2PA does not know
        problem = {"code": str(error).splitlines()[0], "explanation": None}
        return {**empty, "state": "invalid", "problems": [problem]}
    if store is None:
        return empty
    manifests = store.get("manifests", {})
    active = manifests.get(store.get("active_manifest"), {})
    types: list = []
    details: dict = {}
    # Whoever edits a video makes a manifest that contains the former one.
    for manifest in manifests.values():
        for assertion in manifest.get("assertions", []):
            data = assertion.get("data") or {}
            if assertion["label"].startswith("c2pa.actions"):
                types += [x.get("digitalSourceType") for x in data.get("actions", [])]
            elif assertion["label"] == "keras_vpgc.puppet" and (manifest is active or not details):
                details = data
    signature = active.get("signature_info") or {}
    generator = (active.get("claim_generator_info") or [{}])[0]
    software = " ".join(str(generator[x]) for x in ("name", "version") if x in generator)
    problems = [
        {"code": x["code"], "explanation": x.get("explanation")}
        for x in store.get("validation_status") or []
        if x["code"] != UNTRUSTED
    ]
    return {
        "state": store.get("validation_state", "Invalid").lower(),
        "signer": signature.get("issuer") or signature.get("common_name"),
        "software": software or None,
        "digital_source_types": list(dict.fromkeys(x for x in types if x)),
        "details": details,
        "ingredients": [
            {
                "title": x.get("title"),
                "relationship": x.get("relationship"),
                "description": x.get("description"),
                "has_manifest": "active_manifest" in x,
            }
            for x in active.get("ingredients", [])
        ],
        "problems": problems,
    }


def _has_manifest(path) -> bool:
    """Is there a C2PA box in an MP4 or MOV, or such a chunk in a PNG, whatever it holds?"""
    if path.suffix.lower() == ".png":
        return _png(path)[1]
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        place = 0
        while place + 8 <= end:
            file.seek(place)
            head = file.read(32)
            size, start = int.from_bytes(head[:4], "big"), 8
            if size == 1:
                size, start = int.from_bytes(head[8:16], "big"), 16
            if head[4:8] == b"uuid" and head[start : start + 16] == C2PA_UUID:
                return True
            if size < start:  # 0 is the rest of the file; less is no box
                return False
            place += size
    return False


def _of_metadata(metadata) -> str:
    term = metadata["digital_source_type"]
    if term is None:
        return "Metadata: nothing about where the picture comes from."
    by = f", written by {metadata['software']}" if metadata["software"] else ""
    word = term.rsplit("/", 1)[-1]
    return f"Metadata: digital source type {word}{by}; anybody can change metadata."


def _of_manifest(manifest) -> str:
    state, signer = manifest["state"], manifest["signer"] or "somebody without a name"
    if state == "none":
        return "C2PA manifest: none."
    if state == "unread":
        return (
            "C2PA manifest: there is one, which cannot be checked without c2pa-python, so that it "
            f"may be broken: {EXTRA}."
        )
    if state == "invalid":
        codes = [x["code"] for x in manifest["problems"]]
        if _is_changed(manifest["problems"]):
            what = f"picture, sound or metadata were changed after {signer} signed"
        else:
            what = "it cannot be believed"
        return f"C2PA manifest: invalid, {what} ({', '.join(codes) or 'no reason given'})."
    terms = [term.rsplit("/", 1)[-1] for term in manifest["digital_source_types"]]
    says = f"digital source type {', '.join(terms)}" if terms else "nothing about being synthetic"
    made_from = [x["title"] or "a file without a title" for x in manifest["ingredients"]]
    if made_from:
        says += f", made from: {', '.join(made_from)}"
    if state == "trusted":
        return f"C2PA manifest: {says}; the file is as {signer} signed it, whom your list trusts."
    return (
        f"C2PA manifest: {says}; the file is as {signer} signed it, whom no list of trusted "
        "certificates names, so that this proves that nothing was changed since, not who signed."
    )


def _of_mark(found) -> str:
    numbers = f"correlation {found['correlation']:.1f}, found from {found['threshold']:.1f} on"
    if found["found"]:
        return (
            f"Invisible mark of keras_vpgc: found ({numbers}, which a video without it reaches in "
            "one case of a million at most)."
        )
    return f"Invisible mark of keras_vpgc: not found ({numbers})."
