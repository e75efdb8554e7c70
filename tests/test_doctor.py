"""What the doctor says, of an installation made up and of this one."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

import pytest

from keras_vpgc import assets, doctor

pytestmark = pytest.mark.once


class Distribution:
    def __init__(self, name, version):
        self.metadata, self.version = {"Name": name}, version


INSTALLED = {
    **{"keras": "3.15.1", "numpy": "2.4", "jax": "0.10.2", "typer": "0.29", "pydantic": "2.14"},
    **{"tqdm": "4.70", "PyYAML": "6.0", "av": "18.1", "mediapipe": "1.2.2", "matplotlib": "3.11"},
    **{"opencv-contrib-python": "5.0.0.93"},
}
NEEDED = [
    "keras>=3.15",
    *(f'{x}; extra == "cli"' for x in ("typer>=0.20", "pydantic>=2.10", "tqdm>=4.67", "pyyaml")),
    *(f'{x}; extra == "video"' for x in ("opencv-contrib-python>=5.0", "av>=18", "tqdm>=4.67")),
    *(f'{x}; extra == "landmarks"' for x in ("mediapipe>=1.2", "matplotlib", "keras_vpgc[video]")),
    'openvino>=2026.4; extra == "export"',
]


@pytest.fixture
def examine(monkeypatch, tmp_path):
    """`examine(installed, ...)` of a made-up computer -> {name: check}, ready."""

    def call(
        installed=INSTALLED, backends=None, modules=None, encoders=tuple(doctor.ENCODERS), gpus=()
    ):
        found = [Distribution(*x) for x in installed.items()]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: NEEDED)
        probed = {"jax": (["CPU"], ""), **(backends or {})}
        monkeypatch.setattr(doctor, "_probe_backend", probed.get)
        monkeypatch.setattr(doctor, "_probe_modules", lambda names: (modules or {}, encoders))
        monkeypatch.setattr(doctor, "_gpus", lambda: list(gpus))
        result = doctor.examine(tmp_path)
        return {check.name: check for check in result.checks}, result

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("KERAS_VPGC_CACHE", str(tmp_path / "cache"))
    return call


def test_a_sound_installation_is_ready(examine):
    checks, result = examine()
    assert result.ready and checks["jax"].state == "ok" and "(chosen)" in checks["jax"].found
    assert checks["torch"].state == "note" and "keras_vpgc[torch]" in checks["torch"].advice
    # What nobody needs to drive a puppet is no fault.
    assert checks["openvino"].state == "note" and "keras_vpgc[export]" in checks["openvino"].advice
    assert "fetched when" in checks["face_landmarker"].found
    assert result.sentences()[-1] == "Videos can be prepared, trained on and driven."
    assert json.loads(json.dumps(result.as_dict()))["ready"] is True


@pytest.mark.parametrize(
    "change, name, state, words",
    [
        ({"without": "mediapipe"}, "mediapipe", "missing", 'pip install "keras_vpgc[landmarks]"'),
        ({"without": "jax"}, "any", "missing", "keras_vpgc[jax]"),
        ({"backends": {"jax": ([], "ImportError: no lib")}}, "jax", "broken", "Install it again"),
        ({"modules": {"cv2": "ImportError: libGL"}}, "opencv-contrib-python", "broken", "again"),
        ({"encoders": ("aac",)}, "libx264", "missing", "PyAV of PyPI"),
        ({"add": {"av": "12.0"}}, "av", "broken", 'pip install -U "av>=18"'),
    ],
)
def test_what_is_lacking_is_said_with_the_way_out(examine, change, name, state, words):
    installed = {**INSTALLED, **change.get("add", {})}
    installed.pop(change.get("without"), None)
    rest = {k: v for k, v in change.items() if k not in ("add", "without")}
    checks, result = examine(installed, **rest)
    assert not result.ready
    assert checks[name].state == state and words in checks[name].advice
    assert f"-> {checks[name].advice}" in "\n".join(result.sentences())


def test_another_chosen_backend_than_is_there(examine, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    checks, result = examine()
    assert not result.ready and "'torch' is chosen" in checks["KERAS_BACKEND"].found
    assert checks["KERAS_BACKEND"].advice == "Set KERAS_BACKEND to jax."


def test_two_packages_that_write_the_same_files(examine):
    checks, result = examine({**INSTALLED, "opencv-python": "5.0"})
    advice = checks["opencv-contrib-python"].advice
    assert "pip uninstall opencv-contrib-python opencv-python" in advice
    checks, _ = examine({**INSTALLED, "tensorflow": "2.21", "tensorflow_cpu": "2.21"},
                        {"tensorflow": (["CPU"], "")})  # fmt: skip
    assert "tensorflow and tensorflow-cpu are installed" in checks["tensorflow"].found


def test_a_gpu_that_the_backend_does_not_see(examine):
    checks, result = examine(gpus=["NVIDIA X, 80 GiB"])
    assert "does not see the GPU" in checks["jax"].advice and "jax[cuda13]" in checks["jax"].advice


def test_models_and_disks(examine, monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / assets.ASSETS["face_landmarker"].filename
    file.write_bytes(b"cut off")
    monkeypatch.setenv("KERAS_VPGC_LPIPS_VGG", str(tmp_path / "no.ckpt"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 8, 2**30))
    checks, result = examine()
    assert checks["face_landmarker"].state == "broken" and "Delete it" in checks[
        "face_landmarker"
    ].advice  # fmt: skip
    assert "Correct KERAS_VPGC_LPIPS_VGG" in checks["lpips_vgg"].advice
    assert checks["cache"].state == "note" and "1.0 GiB free" in checks["cache"].found
    assert "Make room" in checks["cache"].advice
    # Looking leaves nothing behind.
    assert {x.name for x in tmp_path.rglob("*")} == {"cache", file.name}


def test_libraries_that_crash_hide_none_after_them(tmp_path, monkeypatch):
    (tmp_path / "crashes.py").write_text("import os; os.abort()")
    (tmp_path / "fails.py").write_text("raise ImportError('libGL.so.1 is not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    errors, encoders = doctor._probe_modules(["crashes", "fails", "json"])
    assert "signal 6" in errors["crashes"] and "libGL.so.1" in errors["fails"]
    assert errors["json"] is None and "libx264" in encoders


def test_a_backend_is_tried_in_a_process_of_its_own(monkeypatch, tmp_path):
    devices, error = doctor._probe_backend("jax")
    assert devices and not error
    (tmp_path / "jax.py").write_text("raise OSError('libcuda is not there')")
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "keras_vpgc" / "doctor.py"))
    assert doctor._probe_backend("jax") == ([], "OSError: libcuda is not there")


@pytest.mark.slow
def test_the_command_on_this_installation():
    """The real thing: this environment has a backend that works."""
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    result = subprocess.run(
        [sys.executable, "-m", "keras_vpgc.cli", "doctor", "--json"], capture_output=True, text=True
    )
    found = json.loads(result.stdout)
    checks = {x["name"]: x for x in found["checks"]}
    assert (result.returncode == 0) == found["ready"]
    assert checks[chosen]["state"] == "ok" and checks[chosen]["found"].endswith("(chosen)")
    assert checks["libx264"]["state"] == "ok" and checks["numpy"]["found"]
