"""What a produced video says of itself: that it is synthetic, by what, of which sources."""

import contextlib
import dataclasses
import mimetypes
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vpgc.assets import sha256
from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.reenactment import content_credentials, marks
from keras_vpgc.version import __version__

# IPTC NewsCodes, which metadata standards and C2PA share: all of the picture is from a trained
# model, or a part beside what a camera saw.
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = SOURCE_TYPES + "trainedAlgorithmicMedia"
COMPOSITE = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
# All that say that a picture, or a part of it, was never before a camera.
SYNTHETIC = (GENERATED, COMPOSITE, *(SOURCE_TYPES + x for x in ("algorithmicMedia",)))
SYNTHETIC += tuple(SOURCE_TYPES + x for x in ("compositeSynthetic", "virtualRecording"))
SOFTWARE = f"keras_vpgc {__version__}"
# Containers whose boxes hold XMP and C2PA manifests.
BOXES = (".mp4", ".mov")
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
EXTRA = 'pip install "keras_vpgc[provenance]"'


class Source(NamedTuple):
    """A file that a video was made from: an ingredient of its C2PA manifest.

    Attributes:
        file: A video or a picture; files of other kinds are not named.
        title: What it is, such as `"Driving video"`; the file's own name is not told.
        shown: Are its pictures a part of the video's? Else it only steered them.
    """

    file: Path
    title: str
    shown: bool = False


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a video of a puppet says that it is synthetic.

    Three things, each by itself: metadata of the container (title, comment, software and the IPTC
    digital source type; as XMP too in MP4, MOV and PNG); a signed C2PA manifest in MP4 and MOV,
    where c2pa-python is installed; and, if asked for, marks in the picture. Nothing uses the
    network.

    Args:
        puppet: The `Puppet` shown, if known: its checksum and that of its training footage go into
            the manifest.
        driving_sha256: SHA-256 of the driving video, if there is one.
        sources: `Source`s: what it was made from, with whatever manifests these carry themselves.
        enabled: `False` writes nothing at all: neither metadata nor manifest nor marks.
        composite: Is a part of the picture from a camera, as beside a driving face or after pasting
            back?
        mark: Text to draw in the lower right corner, such as `"synthetic"`.
        invisible: Hide a mark in the picture, see `keras_vpgc.reenactment.marks.InvisibleMark`?
        certificate, key: PEM files of your own C2PA certificate chain, the signer's first, and its
            private key; default: `KERAS_VPGC_CERTIFICATE` and `KERAS_VPGC_KEY`, else a certificate
            that is made on this machine once, see `content_credentials.local_identity`.

    Example:

    ```python
    provenance = Provenance(puppet=puppet, mark="synthetic")
    provenance.check("out.mp4")
    with VideoWriter("out.mp4", 25, metadata=provenance.metadata(), finish=provenance.sign) as out:
        for frame in puppet.drive(landmarks):
            out.write(provenance.frame(frame))
    ```

    References:
        - IPTC Digital Source Type NewsCodes and Video Metadata Hub.
        - C2PA Technical Specification 2.
    """

    puppet: Any = None
    driving_sha256: str | None = None
    sources: tuple[Source, ...] = ()
    enabled: bool = True
    composite: bool = False
    mark: str | None = None
    invisible: bool = False
    certificate: str | Path | None = None
    key: str | Path | None = None

    def check(self, target) -> None:
        """Say before the work what the video will lack, and refuse what cannot be.

        Args:
            target: The video to be written, or a folder of PNG files, a name without a suffix.

        Raises:
            VPGCError: for marks or a certificate without provenance, a mark without letters, or a
                certificate or key that is missing or cannot sign.
        """
        if not self.enabled:
            if self.mark is not None or self.invisible or self.certificate or self.key:
                raise VPGCError(
                    "Without provenance there are no marks and no signature: leave them out, or "
                    "--no-provenance."
                )
            warnings.warn(
                f"Provenance is off, so that nothing in {target} will say that it is synthetic: "
                "law (in the European Union Article 50 of the AI Act) or the place where you show "
                "it may require that you say so.",
                stacklevel=2,
            )
            return
        if self.mark is not None and not self.mark.strip():
            raise VPGCError("The mark has no letters: give a word, such as synthetic.")
        certificate, _ = self._own()
        if not Path(target).suffix:
            warnings.warn(
                f"The PNG files of a folder are not signed, so that those of {target} will say by "
                "their metadata alone that they are synthetic: choose .mov for a signed manifest.",
                stacklevel=2,
            )
        elif Path(target).suffix.lower() == ".webm":
            warnings.warn(
                f"C2PA has no place for a manifest in .webm files, so that {target} will say by "
                "its metadata alone that it is synthetic: choose .mov for a signed manifest.",
                stacklevel=2,
            )
        elif Path(target).suffix.lower() not in BOXES:
            warnings.warn(
                f"C2PA has no place for a manifest in {Path(target).suffix} files, so that "
                f"{target} will say by its metadata alone that it is synthetic: choose .mp4 or "
                ".mov for a signed manifest.",
                stacklevel=2,
            )
        elif certificate is not None:
            content_credentials.check_identity(self._identity(), self._manifest())
        elif not content_credentials.available():
            warnings.warn(
                f"c2pa-python is not installed, so that {target} will say by its metadata alone, "
                f"without a signed manifest, that it is synthetic: {EXTRA}.",
                stacklevel=2,
            )

    def metadata(self, target=None) -> dict[str, str]:
        """Metadata of the container: FFmpeg's names, and IPTC's for the digital source type.

        Args:
            target: What is to be written; for a folder of PNG files, a name without a suffix, the
                XMP packet is among them, under PNG's keyword for it.

        Returns:
            Names and their texts; none where provenance is off.
        """
        if not self.enabled:
            return {}
        packet = {}
        if target is not None and not Path(target).suffix:
            packet = {"XML:com.adobe.xmp": self._xmp()}
        return packet | {
            "title": "Synthetic video",
            "comment": f"{self._sentence()} {self._source_type()}",
            "software": SOFTWARE,
            "DigitalSourceType": self._source_type(),
        }

    def frame(self, image: np.ndarray) -> np.ndarray:
        """A frame with its marks; without any, the frame itself.

        Args:
            image: uint8 RGB `(height, width, 3)`, or with straight alpha `(height, width, 4)`.

        Returns:
            uint8 of the same shape.
        """
        if not self.enabled:
            return image
        if self.invisible:
            image = marks.InvisibleMark().embed(image)
        if self.mark is not None:
            image = marks.draw_mark(image, self.mark)
        return image

    def sign(self, source, target=None) -> None:
        """Put XMP and manifest into a finished video.

        What cannot be signed keeps its metadata, with a warning: hours of rendering are not lost.

        Args:
            source: A whole MP4, MOV or MKV.
            target: Where the result goes; default: in its place.

        Raises:
            VPGCError: if the target cannot be written.
        """
        source = Path(source)
        target = source if target is None else Path(target)
        with contextlib.nullcontext() if target == source else writing(target):
            if target != source:
                shutil.copyfile(source, target)
            if not self.enabled or target.suffix.lower() not in BOXES:
                return
            _append_xmp(target, self._xmp())
        if not content_credentials.available():
            return  # said by `check`
        signed = target.with_name(f".{target.stem}.signed{target.suffix}")
        failures: tuple[type[Exception], ...]
        failures = (VPGCError, OSError, *content_credentials.errors())
        try:
            self._sign(target, signed)
            os.replace(signed, target)
        except failures as error:
            reason = str(error).splitlines()[0].rstrip(".:")
            warnings.warn(
                f"No C2PA manifest could be made ({reason}): the video says by its metadata alone "
                "that it is synthetic.",
                stacklevel=2,
            )
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, source, target):
        identity = self._identity()
        ingredients = []
        for given in self.sources:
            kind = mimetypes.guess_type(given.file.name)[0] or ""
            if kind.startswith(("video/", "image/")) and given.file.is_file():
                label = f"keras_vpgc.source.{len(ingredients) + 1}"
                definition = {
                    "title": given.title,
                    "relationship": "componentOf" if given.shown else "inputTo",
                    "instance_id": label,
                    "label": label,
                    "description": f"SHA-256 {sha256(given.file)}",
                }
                ingredients.append((definition, kind, given.file))
        named = [definition for definition, *_ in ingredients]
        try:
            content_credentials.sign(source, target, self._manifest(named), identity, ingredients)
        except content_credentials.errors():
            if not ingredients:
                raise
            # What is wrong with a source's own manifest must not cost this one.
            content_credentials.sign(source, target, self._manifest(), identity)

    def _own(self):
        """The user's own certificate and key, or two times `None`."""
        certificate = self.certificate or os.environ.get("KERAS_VPGC_CERTIFICATE") or None
        key = self.key or os.environ.get("KERAS_VPGC_KEY") or None
        if (certificate is None) != (key is None):
            raise VPGCError(
                "A signature takes a certificate and its key: give --certificate and --key (or "
                "KERAS_VPGC_CERTIFICATE and KERAS_VPGC_KEY), or neither."
            )
        return certificate, key

    def _identity(self):
        certificate, key = self._own()
        if certificate is None or key is None:
            return content_credentials.local_identity()
        return content_credentials.read_identity(certificate, key)

    def _source_type(self):
        return COMPOSITE if self.composite else GENERATED

    def _sentence(self):
        if self.composite:
            return (
                "This video is synthetic in part: a model generated pictures of a person that are "
                "shown together with pictures from a camera."
            )
        return (
            "This video is synthetic: a model generated every picture; the person shown did not do "
            "this before a camera."
        )

    def _manifest(self, ingredients=()) -> dict:
        """The definition; of ingredients that are added to it their own definitions."""
        agent = {"name": "keras_vpgc", "version": __version__}
        actions: list[dict] = [
            {
                "action": "c2pa.created",
                "digitalSourceType": self._source_type(),
                "softwareAgent": agent,
                "description": self._sentence(),
            }
        ]
        shown = [x["label"] for x in ingredients if x["relationship"] == "componentOf"]
        steering = [x["label"] for x in ingredients if x["relationship"] == "inputTo"]
        if steering:
            actions[0]["parameters"] = {"ingredientIds": steering}
        if shown:
            actions.append({"action": "c2pa.placed", "parameters": {"ingredientIds": shown}})
        if self.invisible:
            actions.append({"action": "c2pa.watermarked.unbound", "softwareAgent": agent})
        details = {
            "puppet_sha256": getattr(self.puppet, "sha256", None),
            "training_source_sha256": getattr(self.puppet, "metadata", {}).get("source_sha256"),
            "driving_sha256": self.driving_sha256,
        }
        details = {name: value for name, value in details.items() if value is not None}
        assertions: list[dict] = [{"label": "c2pa.actions.v2", "data": {"actions": actions}}]
        if details:
            assertions.append({"label": "keras_vpgc.puppet", "data": details})
        return {
            "claim_generator_info": [agent],
            "title": "Synthetic video",
            "assertions": assertions,
        }

    def _xmp(self) -> str:
        """The metadata as an XMP packet, where IPTC's Video Metadata Hub has them."""
        namespaces = {
            "dc": "http://purl.org/dc/elements/1.1/",
            "xmp": "http://ns.adobe.com/xap/1.0/",
            "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        }
        known = " ".join(f'xmlns:{name}="{uri}"' for name, uri in namespaces.items())
        texts = {"title": "Synthetic video", "description": self._sentence()}
        item = '<rdf:li xml:lang="x-default">'
        body = "".join(
            f"<dc:{name}><rdf:Alt>{item}{text}</rdf:li></rdf:Alt></dc:{name}>"
            for name, text in texts.items()
        )
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description rdf:about="" {known} xmp:CreatorTool="{SOFTWARE}" '
            f'Iptc4xmpExt:DigitalSourceType="{self._source_type()}">{body}</rdf:Description>'
            '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
        )


def _append_xmp(path, packet: str) -> None:
    """Add an XMP box to the end of an MP4 or MOV (ISO 16684-3)."""
    data = XMP_UUID + packet.encode()
    with open(path, "ab") as file:
        file.write((len(data) + 8).to_bytes(4, "big") + b"uuid" + data)
