"""What of an installation works, and what to do about the rest."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keras_vpgc import assets
from keras_vpgc.errors import VPGCError, check_writable
from keras_vpgc.version import __version__

OK, MISSING, BROKEN, NOTE = "ok", "missing", "broken", "note"
BACKENDS = ("jax", "torch", "tensorflow")
# What each extra is for, and whether the way from a video to a driven one needs it.
EXTRAS = {
    "cli": ("the command", True),
    "video": ("reading and writing videos", True),
    "landmarks": ("finding faces", True),
    "logs": ("TensorBoard's files", False),
    "provenance": ("signed manifests", False),
    "export": ("other runtimes", False),
    "share": ("vpgc push and pull", False),
    "live": ("a virtual camera", False),
    "studio": ("the page in the browser", False),
}
# What a package is called when it is imported, where that is another name.
MODULES = {
    "opencv-contrib-python": "cv2",
    "c2pa-python": "c2pa",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "huggingface-hub": "huggingface_hub",
    "tensorboardx": "tensorboardX",
}
ENCODERS = {
    "libx264": ("MP4 and MOV", True),
    "aac": ("sound", True),
    "prores_ks": ("cut-outs as .mov", False),
    "libvpx-vp9": ("cut-outs as .webm", False),
}
# Only one of each may be installed: they write the same files.
RIVALS = (
    (
        "opencv-contrib-python",
        ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless"),
    ),
    ("tensorflow", ("tensorflow-cpu",)),
)
LOW_DISK = 5 * 2**30
# Seconds that a library may take to load.
PATIENCE = 180
PROBE_BACKEND = """
import json, keras
from keras_vpgc import backend
value = float(keras.ops.sum(keras.ops.ones((2, 2)) @ keras.ops.ones((2, 2))))
print("\\nFOUND", json.dumps({"devices": backend.device_names(), "works": value == 8}))
"""
PROBE_MODULES = """
import importlib, json, sys
try:
    import av
    found = [name for name in sys.argv[1].split(",") if name in av.codecs_available]
    print("\\nENCODERS", json.dumps(found), flush=True)
except ImportError:
    pass
for name in sys.argv[2:]:
    print("\\nTRY", json.dumps(name), flush=True)
    try:
        importlib.import_module(name)
        error = None
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
    print("\\nFOUND", json.dumps([name, error]), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: What it belongs to.
        name: What it is.
        state: `"ok"`; `"missing"` or `"broken"`; `"note"` for what may hinder or is a matter of
            taste.
        found: What was found, such as a version.
        advice: What to do about it, or `""`.
        needed: Does the way from a video to a driven one need it?
    """

    group: str
    name: str
    state: str
    found: str
    advice: str = ""
    needed: bool = False


@dataclasses.dataclass(frozen=True)
class Findings:
    """All checks, and whether videos can be prepared, trained on and driven.

    Attributes:
        checks: The checks.
        ready: Is everything there that this needs?
    """

    checks: list[Check]
    ready: bool

    def as_dict(self) -> dict:
        """The same for JSON."""
        return {
            "schema_version": 1,
            "keras_vpgc": __version__,
            "ready": self.ready,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }

    def sentences(self) -> list[str]:
        """The same for people, line by line."""
        lines: list[str] = []
        for group in dict.fromkeys(check.group for check in self.checks):
            lines += ["", group] if lines else [group]
            for check in self.checks:
                if check.group == group:
                    lines.append(f"  {check.state:<8} {check.name}: {check.found}")
                    if check.advice:
                        lines.append(f"           -> {check.advice}")
        lines.append("")
        if self.ready:
            lines.append("Videos can be prepared, trained on and driven.")
        else:
            lines.append("Something is lacking: see the arrows of what is missing or broken.")
        return lines


def examine(folder=".") -> Findings:
    """Look at backends, devices, packages, models, encoders and disks.

    Each backend is loaded in a process of its own, all at once, so that none can spoil the others.
    Nothing is fetched.

    Args:
        folder: Where the user works; its disk is looked at.

    Returns:
        The `Findings`.

    Example:

    ```python
    for check in examine().checks:
        print(check.name, check.state, check.advice)
    ```
    """
    requirements, installed = _requirements(), _installed()
    packages = _packages(requirements)
    modules = {name: MODULES.get(name, name.replace("-", "_")) for name in packages}
    loaded = [modules[name] for name in packages if name in installed]
    with ThreadPoolExecutor(len(BACKENDS) + 1) as pool:
        probes = {
            name: pool.submit(_probe_backend, name)
            for name in BACKENDS
            if _version(name, installed)
        }
        libraries = pool.submit(_probe_modules, loaded)
        errors, encoders = libraries.result()
        backends = {name: probe.result() for name, probe in probes.items()}
    checks = [*_computer(installed), *_backends(backends, installed)]
    for name, (extra, requirement) in packages.items():
        checks.append(_package(name, extra, requirement, installed, errors.get(modules[name])))
    checks += _rivals(installed)
    checks += _encoders(encoders) if "av" in installed else []
    checks += _models()
    checks += _disks(Path(folder))
    works = any(check.group == "Backends" and check.state == OK for check in checks)
    lacking = any(check.needed and check.state in (MISSING, BROKEN) for check in checks)
    return Findings(checks, works and not lacking)


def _normal(name):
    return name.lower().replace("_", "-").replace(".", "-")


def _installed():
    """Name -> version of every distribution."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_normal(name), distribution.version)
    return found


def _version(backend, installed):
    # What the extra takes on Linux is the same package by another name.
    names = ("tensorflow", "tensorflow-cpu") if backend == "tensorflow" else (backend,)
    return next((installed[name] for name in names if name in installed), None)


def _requirements():
    """What keras_vpgc says that it needs, as `packaging` reads it."""
    from packaging.requirements import Requirement

    try:
        return [Requirement(x) for x in importlib.metadata.requires("keras_vpgc") or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def _packages(requirements):
    """Package -> the extra that brings it and its requirement, of those worth a look."""
    found = {}
    for extra in EXTRAS:
        for requirement in requirements:
            name = _normal(requirement.name)
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                continue
            if marker.evaluate({"extra": extra}) and name not in ("keras-vpgc", *found):
                found[name] = extra, requirement
    return found


def _run(code, *arguments, **environment):
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "2", **environment}
    # The same package as here, wherever it was imported from; nothing of the current folder.
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH")]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, **variables},
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        said = said if isinstance(said, str) else said.decode(errors="replace")
        return said, f"it did not load within {PATIENCE} s"
    if result.returncode < 0:
        return result.stdout, f"its process ended by signal {-result.returncode}"
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    return result.stdout, lines[-1].strip() if result.returncode and lines else ""


def _found(output, word):
    return [json.loads(x[len(word) + 1 :]) for x in output.splitlines() if x.startswith(f"{word} ")]


def _probe_backend(name):
    """`(devices, "")`, or `([], what went wrong)`."""
    output, error = _run(PROBE_BACKEND, KERAS_BACKEND=name)
    found = _found(output, "FOUND")
    if not found or not found[0]["works"]:
        return [], error or "it computes wrong numbers"
    return found[0]["devices"], ""


def _probe_modules(names):
    """What loading each module ended with (`None` for well), and the encoders that are there."""
    errors, encoders, left = {}, None, list(names)
    while left:
        output, error = _run(PROBE_MODULES, ",".join(ENCODERS), *left)
        errors |= dict(_found(output, "FOUND"))
        encoders = next(iter(_found(output, "ENCODERS")), encoders)
        tried = _found(output, "TRY")
        # One that takes its process along hides those after it.
        if tried and tried[-1] not in errors:
            errors[tried[-1]] = error or "its process ended"
        elif not tried:
            errors |= dict.fromkeys(left, error or "no process could be started")
        left = [name for name in left if name not in errors]
    return errors, encoders


def _computer(installed):
    yield Check(
        "Computer",
        "keras_vpgc",
        OK,
        f"{__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} processor cores",
    )
    for name in ("keras", "numpy"):
        yield Check("Computer", name, OK, installed.get(name, "not known"))
    gpus = _gpus()
    yield Check("Computer", "GPU", OK if gpus else NOTE, ", ".join(gpus) or "none by nvidia-smi")


def _gpus():
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run([program, *query], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.strip().splitlines() if result.returncode == 0 else []


GPU_WHEELS = {
    "jax": 'pip install "jax[cuda13]"',
    "torch": "pip install --force-reinstall torch, from an index with CUDA wheels",
    "tensorflow": 'pip uninstall tensorflow-cpu, then pip install "tensorflow[and-cuda]"',
}


def _backends(probed, installed):
    chosen = os.environ.get("KERAS_BACKEND") or "tensorflow"
    gpus = bool(_gpus())
    for name in BACKENDS:
        version = _version(name, installed)
        if version is None:
            yield Check("Backends", name, NOTE, "not installed", _pip(name))
            continue
        devices, error = probed[name]
        text = f"{version}, {', '.join(devices)}" + (" (chosen)" if name == chosen else "")
        advice = ""
        if gpus and devices == ["CPU"]:
            advice = f"It does not see the GPU: {GPU_WHEELS[name]}."
        if error:
            advice = f"Install it again: {_pip(name)}"
            yield Check("Backends", name, BROKEN, f"{version}, {error}", advice)
        else:
            yield Check("Backends", name, OK, text, advice)
    if not probed:
        yield Check("Backends", "any", MISSING, "none is installed", _pip("jax"), True)
    elif chosen not in probed:
        yield Check(
            "Backends",
            "KERAS_BACKEND",
            MISSING,
            f"{chosen!r} is chosen and not installed",
            f"Set KERAS_BACKEND to {' or '.join(probed)}.",
            True,
        )
    elif probed[chosen][1]:
        others = [name for name, (_, error) in probed.items() if not error]
        yield Check(
            "Backends",
            "KERAS_BACKEND",
            BROKEN,
            f"{chosen} is chosen and does not work",
            f"Set KERAS_BACKEND to {' or '.join(others)}." if others else "",
            True,
        )


def _pip(extra):
    return f'pip install "keras_vpgc[{extra}]"'


def _package(name, extra, requirement, installed, error):
    purpose, needed = EXTRAS[extra]
    title = f"For {purpose}"
    if name not in installed:
        return Check(title, name, MISSING if needed else NOTE, "not installed", _pip(extra), needed)
    version = installed[name]
    if error:
        advice = f"Install it again: pip install --force-reinstall {name}"
        return Check(title, name, BROKEN, f"{version}, {error}", advice, needed)
    if not requirement.specifier.contains(version, prereleases=True):
        advice = f'pip install -U "{name}{requirement.specifier}"'
        return Check(
            title, name, BROKEN, f"{version} is not {requirement.specifier}", advice, needed
        )
    return Check(title, name, OK, version, "", needed)


def _rivals(installed):
    for name, others in RIVALS:
        there = [x for x in (name, *others) if x in installed]
        if len(there) > 1:
            yield Check(
                "Conflicts",
                there[0],
                BROKEN,
                f"{' and '.join(there)} are installed and write the same files",
                f"pip uninstall {' '.join(there)}, and install one of them again.",
            )


def _encoders(found):
    for name, (purpose, needed) in ENCODERS.items():
        if name in (found or ()):
            yield Check("Encoders", name, OK, purpose)
        else:
            advice = "Install the PyAV of PyPI, which has it: pip install --force-reinstall av"
            state = MISSING if needed else NOTE
            yield Check("Encoders", name, state, f"not there, for {purpose}", advice, needed)


def _models():
    for name, asset in assets.ASSETS.items():
        if name.startswith("demo"):
            continue
        variable = f"KERAS_VPGC_{name.upper()}"
        own, cached = os.environ.get(variable), assets.cache_folder() / asset.filename
        group = "Models"
        if own and not Path(own).is_file():
            advice = f"Correct {variable}, or leave it out."
            yield Check(group, name, BROKEN, f"{own} is not there", advice, True)
        elif own:
            yield Check(group, name, OK, own)
        elif not cached.is_file():
            if cached.with_suffix(".npz").is_file():
                yield Check(group, name, OK, str(cached.with_suffix(".npz")))
                continue
            advice = f"Without a network put {asset.filename} into {cached.parent}."
            yield Check(group, name, NOTE, "not here; fetched when it is first needed", advice)
        elif assets.sha256(cached) != asset.sha256:
            advice = "Delete it; it is fetched again when it is needed."
            yield Check(group, name, BROKEN, f"{cached} has another checksum", advice)
        else:
            yield Check(group, name, OK, str(cached))


def _disks(folder):
    cache, scratch = assets.cache_folder(), Path(tempfile.gettempdir())
    for name, place in (("this folder", folder), ("cache", cache), ("temporary files", scratch)):
        place = place.absolute()
        try:
            check_writable(place / "vpgc")
        except VPGCError as error:
            yield Check("Disks", name, BROKEN, str(error), "", True)
            continue
        there = place
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        text = f"{free / 2**30:.1f} GiB free, {place}"
        advice = "Make room: frames and checkpoints take gigabytes." if free < LOW_DISK else ""
        yield Check("Disks", name, NOTE if advice else OK, text, advice)
