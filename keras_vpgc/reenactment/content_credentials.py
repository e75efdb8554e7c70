"""C2PA manifests (Content Credentials) by c2pa-python: signing, reading, a certificate."""

import contextlib
import dataclasses
import datetime
import io
import json
import os
import tempfile
import zlib
from pathlib import Path

from keras_vpgc.assets import cache_folder
from keras_vpgc.errors import VPGCError, missing_extra

IDENTITY = "c2pa_identity.pem"
FORMATS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".png": "image/png"}
# Without a timestamp authority a signature is valid as long as its certificate.
YEARS = 30
# Extended key usage of the C2PA certificate profile that its validators take without configuration.
EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
# No network: neither manifests elsewhere nor revocation lists are fetched.
SETTINGS: dict = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who signs.

    Attributes:
        chain: PEM certificates, the signer's first.
        key: PEM private key, PKCS #8.
        algorithm: C2PA's name of the signature algorithm, such as `es256`.
        name: Where it comes from, for messages.
    """

    chain: bytes
    key: bytes = dataclasses.field(repr=False)
    algorithm: str
    name: str


def available() -> bool:
    """Is c2pa-python installed?"""
    try:
        import c2pa  # noqa: F401
    except ImportError:
        return False
    return True


def errors() -> tuple[type[Exception], ...]:
    """What c2pa-python raises."""
    if not available():
        return ()
    import c2pa

    return (c2pa.C2paError,)


def _c2pa():
    try:
        import c2pa
    except ImportError:
        raise missing_extra("c2pa-python", "provenance") from None
    return c2pa


def sign(source, target, manifest: dict, identity: Identity, ingredients=()) -> None:
    """Copy a video with a signed manifest in it; no timestamp authority is asked.

    Args:
        source: MP4 or MOV.
        target: The file to write, of the same kind.
        manifest: Definition for `c2pa.Builder`: claim generator, title, assertions.
        identity: Who signs.
        ingredients: What it was made from: definition, MIME type and file of each.

    Raises:
        VPGCError: if c2pa-python is missing.
        c2pa.C2paError: if it cannot be signed.
    """
    kind = FORMATS[Path(source).suffix.lower()]
    with open(source, "rb") as given, open(target, "w+b") as made:
        _sign(given, made, kind, manifest, identity, ingredients)


def _sign(given, made, kind, manifest, identity, ingredients=()):
    c2pa = _c2pa()
    info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder({**manifest, "format": kind}, context=_context()) as builder,
    ):
        for definition, form, file in ingredients:
            with open(file, "rb") as opened:
                builder.add_ingredient(definition, form, opened)
        builder.sign(signer, kind, given, made)


def _context(trusted: str | None = None):
    c2pa = _c2pa()
    settings = dict(SETTINGS)
    if trusted is not None:
        settings["trust"] = {"user_anchors": trusted}
    return c2pa.Context(c2pa.Settings.from_dict(settings))


def read(path, trusted: str | None = None) -> dict | None:
    """The manifest store of a file, validated.

    Args:
        path: A file of any format that C2PA knows.
        trusted: PEM certificates of the authorities that you trust.

    Returns:
        What `c2pa.Reader` reports, or `None` without a manifest. `validation_state` is
        `"Invalid"`, `"Valid"` (as signed, by anybody) or `"Trusted"`.

    Raises:
        VPGCError: if c2pa-python is missing or the certificates cannot be read.
        c2pa.C2paError: if there is a manifest that cannot be read.

    Example:

    ```python
    read("out.mp4")["validation_state"]  # "Valid"
    ```
    """
    c2pa = _c2pa()
    try:
        context = _context(trusted)
    except c2pa.C2paError as error:
        raise VPGCError(f"The trusted certificates cannot be read ({error}).") from error
    with open(path, "rb") as file:
        reader = c2pa.Reader.try_create(FORMATS.get(Path(path).suffix.lower()), file, None, context)
        if reader is None:
            return None
        with reader:
            return json.loads(reader.json())


def local_identity() -> Identity:
    """The certificate of this machine, made at first use.

    A key (ECDSA, P-256) with a certificate of 30 years, issued by an authority made for it alone
    whose key is thrown away. It proves that a file is as it was signed, not who signed it. Kept in
    `c2pa_identity.pem` of the cache folder (`KERAS_VPGC_CACHE`), which only its owner may read;
    where that cannot be written, another one is made each time.

    Returns:
        An `Identity`.

    Raises:
        VPGCError: if c2pa-python is missing.
    """
    _c2pa()
    file = cache_folder() / IDENTITY
    # Without a file, or a damaged or outdated one, a new one takes its place.
    with contextlib.suppress(OSError, VPGCError):
        return _identity(file.read_bytes(), file.read_bytes(), "the certificate of this machine")
    pem = _new_identity()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        # `mkstemp` makes files that only their owner may read.
        descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{IDENTITY}.")
        try:
            with open(descriptor, "wb") as opened:
                opened.write(pem)
            os.replace(partial, file)
        finally:
            Path(partial).unlink(missing_ok=True)
    return _identity(pem, pem, "the certificate of this machine")


def read_identity(certificate, key) -> Identity:
    """A certificate of one's own.

    Args:
        certificate: PEM file with the chain, the signer's certificate first.
        key: PEM file with its private key, without a password.

    Returns:
        An `Identity`.

    Raises:
        VPGCError: if c2pa-python is missing, a file cannot be read, the key is of a kind that C2PA
            does not know, they do not belong together, or the certificate is outdated.
    """
    _c2pa()
    contents = []
    for file in (certificate, key):
        try:
            contents.append(Path(file).read_bytes())
        except OSError as error:
            reason = error.strerror or "it is no file"
            raise VPGCError(f"{file} cannot be read ({reason}): check the path.") from error
    return _identity(contents[0], contents[1], f"{certificate} with {key}")


def check_identity(identity: Identity, manifest: dict) -> None:
    """Sign a pixel, to see before the work whether an identity can sign.

    Args:
        identity: Who is to sign.
        manifest: What, see `sign`.

    Raises:
        VPGCError: if it cannot.
    """
    c2pa = _c2pa()
    try:
        _sign(io.BytesIO(_pixel()), io.BytesIO(), "image/png", manifest, identity)
    except c2pa.C2paError as error:
        reason = " ".join(str(error).split("(self#")[0].split()).rstrip(".:")
        raise VPGCError(
            f"{identity.name} cannot sign a C2PA manifest ({reason}): give a certificate chain "
            "made for C2PA, the signer's first, and its key."
        ) from error


def _identity(certificates: bytes, private: bytes, name: str) -> Identity:
    """An identity from PEM texts, which may hold more than is looked for."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        chain = x509.load_pem_x509_certificates(certificates)
        key = serialization.load_pem_private_key(_block(private, b"PRIVATE KEY"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise VPGCError(
            f"{name} cannot be read as PEM, or the key has a password: give a certificate chain "
            "and a key without one."
        ) from error
    algorithms = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = algorithms.get(key.curve.name)
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    else:
        algorithm = "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else None
    if algorithm is None:
        raise VPGCError(
            f"{name} has a key of a kind that C2PA does not sign with: take ECDSA (P-256, P-384, "
            "P-521), RSA or Ed25519."
        )
    if chain[0].public_key() != key.public_key():
        raise VPGCError(
            f"{name} do not belong together: the first certificate must be that of the key."
        )
    now = datetime.datetime.now(datetime.UTC)
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        raise VPGCError(
            f"{name} is valid from {chain[0].not_valid_before_utc:%Y-%m-%d} to "
            f"{chain[0].not_valid_after_utc:%Y-%m-%d} only: renew the certificate."
        )
    return Identity(
        b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        algorithm,
        name,
    )


def _block(text: bytes, kind: bytes) -> bytes:
    """The PEM block of a kind, of a text with several."""
    blocks = text.split(b"-----BEGIN ")
    return next((b"-----BEGIN " + x for x in blocks if x.split(b"-----")[0].endswith(kind)), text)


def _new_identity() -> bytes:
    """PEM of a new key, its certificate and its authority's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(what):
        parts = (
            (NameOID.ORGANIZATION_NAME, "keras_vpgc (self-signed)"),
            (NameOID.COMMON_NAME, what),
        )
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])

    def usage(**chosen):
        every = ("digital_signature", "content_commitment", "key_encipherment")
        every += ("data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
        every += ("encipher_only", "decipher_only")
        return x509.KeyUsage(**{**dict.fromkeys(every, False), **chosen})

    now = datetime.datetime.now(datetime.UTC)
    # C2PA refuses a certificate that its own key has signed.
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = name("authority of one signer"), name("signer of this machine")
    certificates = []
    for who, public, extensions in (
        (
            subject,
            key.public_key(),
            (
                (x509.BasicConstraints(False, None), True),
                (usage(digital_signature=True), True),
                (x509.ExtendedKeyUsage([x509.ObjectIdentifier(EMAIL_PROTECTION)]), False),
            ),
        ),
        (
            issuer,
            authority.public_key(),
            (
                (x509.BasicConstraints(True, 0), True),
                (usage(key_cert_sign=True, crl_sign=True), True),
            ),
        ),
    ):
        builder = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            # Clocks differ.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False
            )
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        certificate = builder.sign(authority, hashes.SHA256())
        certificates.append(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + b"".join(certificates)


def _pixel() -> bytes:
    """A black pixel as PNG."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    header = (1).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)
