"""Puppets that were exported, driven as any other."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data import video
from keras_vpgc.export import export_puppet
from keras_vpgc.export.int8 import calibration, quantise
from keras_vpgc.reenactment import Puppet, reenact
from keras_vpgc.reenactment import exported as exported_module
from keras_vpgc.reenactment.exported import ExportedPuppet

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def pair(small_export):
    """A puppet of random weights, as Keras has it and as ONNX."""
    path, done = small_export
    return keras_vpgc.load(path, precision="float32"), done.path


@pytest.fixture(scope="module")
def exported(pair):
    return keras_vpgc.load(pair[1])


def noted(path, target, change):
    """A copy of an exported file whose description was changed."""
    import onnx

    model = onnx.load(path)
    (held,) = model.metadata_props
    about = json.loads(held.value)
    change(about)
    held.value = json.dumps(about)
    onnx.save(model, target)
    return target


def test_it_shows_what_keras_shows(pair, exported, portrait):
    puppet, landmarks = pair[0], portrait.landmarks[:7]
    assert isinstance(exported, ExportedPuppet) and isinstance(exported, Puppet)
    for name in ("size", "context", "num_points", "landmark_set", "metadata"):
        assert getattr(exported, name) == getattr(puppet, name)
    wanted, done = puppet.drive(landmarks), []
    found = exported.drive(landmarks, batch_size=3, progress=done.append)
    assert found.dtype == np.uint8 and done == [3, 3, 1]
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert (found[0] != found[-1]).any()
    np.testing.assert_array_equal(np.stack(list(exported.drive_frames(landmarks, [5, 2]))),
                                  found[[5, 2]])  # fmt: skip
    # It sees the frame after each.
    with exported.stream() as stream:
        first, *pushed = [stream.push(x) for x in landmarks]
        pushed += stream.flush()
    assert first is None
    np.testing.assert_array_equal(pushed, found)
    assert len(exported.drive(landmarks[:0])) == 0
    with pytest.raises(VPGCError, match=r"driven by landmarks of shape \(frames, 68, 2\)"):
        exported.drive(landmarks[:, :60])


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_openvino(pair, portrait, precision):
    wanted = pair[0].drive(portrait.landmarks[:3])
    puppet = Puppet.load(pair[1], precision, engine="openvino")
    assert puppet.runtime == "openvino"
    far = np.abs(puppet.drive(portrait.landmarks[:3]).astype(int) - wanted)
    if puppet.computes_in == "float32":
        assert far.max() <= 1
    else:  # where the processor has bfloat16
        assert far.mean() < 4 and precision == "auto"


def test_openvino_is_not_begun_by_two_threads_at_once(pair, portrait, monkeypatch):
    """Each may wait for ever for the other there."""
    import openvino

    infer, calls = openvino.InferRequest.infer, []

    def watched(self, *args, **kwargs):
        began = time.monotonic()
        time.sleep(0.02)
        found = infer(self, *args, **kwargs)
        calls.append((began, time.monotonic(), threading.get_ident()))
        return found

    monkeypatch.setattr(openvino.InferRequest, "infer", watched)
    puppet = Puppet.load(pair[1], "float32", engine="openvino")
    monkeypatch.setattr(puppet, "_at_once", 3)
    puppet.drive(portrait.landmarks[:9])
    _, end, first = min(calls)
    others = [began for began, _, thread in calls if thread != first]
    assert others and min(others) >= end


def test_without_instructions_for_bfloat16(pair, portrait, monkeypatch):
    import openvino

    class Plain(openvino.Core):
        def get_property(self, *name):
            return ["FP32"] if "OPTIMIZATION_CAPABILITIES" in name else super().get_property(*name)

    monkeypatch.setattr(openvino, "Core", Plain)
    with pytest.warns(UserWarning, match="no instructions for bfloat16: the puppet computes in fl"):
        puppet = Puppet.load(pair[1], "bfloat16", engine="openvino")
    assert puppet.computes_in == "float32"
    far = np.abs(
        puppet.drive(portrait.landmarks[:2]).astype(int) - pair[0].drive(portrait.landmarks[:2])
    )
    assert far.max() <= 1


def are_int8(path):
    import onnx

    weights = [x for x in onnx.load(path).graph.initializer if x.data_type == 3]
    return sum(len(x.dims) == 4 for x in weights) > 10


def test_int8_is_calibrated_and_says_how_far_it_is(pair, portrait, tmp_path):
    puppet = pair[0]
    small = shutil.copy(pair[1], tmp_path / "me.onnx")
    told = quantise(small, calibration(puppet.model, portrait.path))
    assert are_int8(small) and [f.name for f in tmp_path.iterdir()] == ["me.onnx"]
    found = keras_vpgc.load(small).drive(portrait.landmarks[:6]).astype(int)
    off = np.abs(found - puppet.drive(portrait.landmarks[:6]))
    # Of the same kind as what was told of other frames, and int8 indeed.
    assert 0 < off.mean() < 3 * told["mean"] + 0.5 and told["largest"] >= 1


def test_int8_on_a_processor_without_its_instructions(pair, tmp_path, monkeypatch):
    path = noted(pair[1], tmp_path / "8.onnx", lambda about: about.update(precision="int8"))
    for has, told in (({"avx2"}, True), ({"avx2", "avx_vnni"}, False), (set(), False)):
        monkeypatch.setattr(exported_module, "_instructions", lambda has=has: frozenset(has))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            keras_vpgc.load(path)
        assert any("no instructions for int8 (VNNI)" in str(x.message) for x in said) == told
        keras_vpgc.load(pair[1])  # float32


@pytest.mark.slow
def test_a_puppet_is_exported_in_int8(small_export, portrait, tmp_path):
    path = shutil.copy(small_export[0], tmp_path / "me.keras")
    done = export_puppet(path, tmp_path / "me.onnx", precision="int8", portrait=portrait.path)
    assert are_int8(done.path) and done.int8["largest"] >= 1
    assert [f.name for f in sorted(tmp_path.iterdir())] == ["me.keras", "me.onnx"]
    description = keras_vpgc.load(done.path).description
    assert description == done.description and description["precision"] == "int8"


def test_what_int8_is_not_for(small_export, portrait, tmp_path):
    path = shutil.copy(small_export[0], tmp_path / "me.keras")
    for settings in ({"format": "torch"}, {"inputs": "heatmaps"}):
        with pytest.raises(VPGCError, match="Only ONNX from landmarks is written in int8"):
            export_puppet(path, precision="int8", **settings)
    with pytest.raises(VPGCError, match="A portrait calibrates int8 alone"):
        export_puppet(path, portrait=portrait.path)
    with pytest.raises(VPGCError, match="no precision 'int4': choose one of float32, int8"):
        export_puppet(path, precision="int4")


def test_a_video_is_reenacted_from_file_to_file(pair, clip, tmp_path):
    command = ["reenact", str(pair[1]), "--driving", str(clip), "-o", "out.mp4", "--end", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "keras_vpgc.cli", *command, "--no-sound"],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "out.mp4 is ready" in done.stdout
    info = video.probe(tmp_path / "out.mp4")
    assert (info.width, info.height) == (32, 32) and not list(tmp_path.glob("*.parts"))


def test_what_cannot_be_driven_is_refused_in_one_sentence(pair, portrait, tmp_path, monkeypatch):
    import onnx

    path = pair[1]

    def refused(message, call, *arguments, **settings):
        with pytest.raises(VPGCError, match=message) as error:
            call(*arguments, **settings)
        assert "\n" not in str(error.value)

    refused("no exported puppet .*gone.onnx: check the path", Puppet.load, tmp_path / "gone.onnx")
    refused("no engine 'tensorrt': choose one of onnxruntime, openvino", Puppet.load, path,
            engine="tensorrt")  # fmt: skip
    refused("float32 on processors: choose the engine openvino", Puppet.load, path, "bfloat16")
    refused("0 threads compute nothing", ExportedPuppet, path, threads=0)
    whole = path.read_bytes()
    for name, data in (("cut.onnx", whole[: len(whole) // 2]), ("text.onnx", b"no model")):
        (tmp_path / name).write_bytes(data)
        for engine in ("onnxruntime", "openvino"):
            refused(f"{name} cannot be read as an ONNX file: it is damaged or another kind",
                    Puppet.load, tmp_path / name, engine=engine)  # fmt: skip
    newer = onnx.load(path)
    newer.ir_version = 99
    onnx.save(newer, tmp_path / "newer.onnx")
    refused("onnxruntime .* is too old for .*newer.onnx: pip install --upgrade onnxruntime",
            Puppet.load, tmp_path / "newer.onnx")  # fmt: skip
    other = noted(path, tmp_path / "other.onnx", lambda about: about.update(version=99))
    drawn = noted(
        path, tmp_path / "drawn.onnx", lambda about: about["input"].update(name="heatmaps")
    )
    foreign = onnx.load(path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for engine in ("onnxruntime", "openvino"):
        load = {"engine": engine}
        refused("exported by another version of keras_vpgc", Puppet.load, other, **load)
        refused("takes drawings: export the puppet with --input landmarks", Puppet.load, drawn,
                **load)  # fmt: skip
        refused("is an ONNX file but no exported puppet", Puppet.load, tmp_path / "foreign.onnx",
                **load)  # fmt: skip
    exported = Puppet.load(path)
    refused("has no Keras model: give the run", getattr, exported, "model")
    (tmp_path / "contours").mkdir()
    (tmp_path / "contours" / "0.png").write_bytes(b"")
    refused("driven by landmarks, not by contour images", reenact, exported, tmp_path / "contours",
            tmp_path / "out.mp4", progress=False)  # fmt: skip
    refused("has its precision already, and its engine", reenact, exported, tmp_path / "contours",
            tmp_path / "out.mp4", engine="openvino")  # fmt: skip
    pair[0].model.save(tmp_path / "me.keras")
    refused("An engine runs exported puppets, and .*me.keras is none", Puppet.load,
            tmp_path / "me.keras", engine="openvino")  # fmt: skip
    for engine in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, engine, None)
        refused(rf'{engine} is needed for this: pip install "keras_vpgc\[export\]"', Puppet.load,
                path, engine=engine)  # fmt: skip
