import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.export import export_puppet, exporter, formats
from keras_vpgc.export.graph import neutral_landmarks
from tests.export.puppets import build_light

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def path(small_export):
    return small_export[0]


@pytest.fixture(scope="module")
def puppet(path):
    return keras_vpgc.load(path, precision="float32")


@pytest.fixture(scope="module")
def windows(portrait):
    """Real landmarks, five windows of a context of 3."""
    return portrait.landmarks[context_indices(5, 3)].astype("float32")


@pytest.fixture(scope="module")
def onnx(small_export):
    """The puppet as ONNX, exported with this backend as the caller."""
    return small_export[1]


@pytest.mark.once
def test_a_runtime_that_is_too_old_is_named(onnx, tmp_path):
    from onnx import load, save

    from examples.onnx_drive import open_puppet

    newer = load(onnx.path)
    newer.ir_version = 99
    save(newer, tmp_path / "newer.onnx")
    with pytest.raises(SystemExit, match="onnxruntime .* is too old for .*newer.onnx: pip install"):
        open_puppet(tmp_path / "newer.onnx")


@pytest.mark.slow
def test_light_puppet_reads_small_drawings_and_leaves_maps_as_convolutions_have_them(
    run, windows, tmp_path
):
    import onnx
    import onnxruntime

    model = build_light(keras_vpgc.load(run).metadata)
    for weight in model.weights:
        if weight.name == "bias":  # those of zeros are left out of a file
            weight.assign(np.linspace(-0.1, 0.1, np.prod(weight.shape)).reshape(weight.shape))
    model.save(tmp_path / "light.keras")
    puppet = keras_vpgc.load(tmp_path / "light.keras", precision="float32")
    path = export_puppet(puppet, tmp_path / "light.onnx", inputs="heatmaps").path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["keras_vpgc"])
    assert about["heatmap_size"] == 16 and about["size"] == 32 and about["line_width"] == 1.0
    assert about["input"]["shape"] == ["batch", 16, 16, 3]
    drawn = keras.ops.convert_to_numpy(model.heatmap(windows))
    close(session.run(None, {"heatmaps": drawn})[0], puppet, windows)
    # Every bias is in its convolution: what is added are shortcuts, and what is no convolution's.
    graph = onnx.load(path).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert sum(len(node.input) == 3 for node in convolutions) > 15
    maps = {node.output[0] for node in convolutions}
    maps |= {x.output[0] for x in graph.node if x.op_type == "Transpose" and x.input[0] in maps}
    constant = {x.name for x in graph.initializer}
    for node in graph.node:
        assert node.op_type != "Add" or not (maps & {*node.input} and constant & {*node.input})
    transposes = sum(node.op_type == "Transpose" for node in graph.node)
    assert transposes < 2 * len(convolutions)


def of_keras(puppet, windows):
    """Pixels by the model itself, in grey levels."""
    images = keras.ops.convert_to_numpy(puppet.model(windows))
    return np.clip((images + 1) * 127.5, 0, 255)


def close(found, puppet, windows):
    size = puppet.size
    assert found.dtype == np.uint8 and found.shape == (len(windows), size, size, 3)
    # Half a level by rounding.
    assert np.abs(found - of_keras(puppet, windows)).max() <= 0.55


@pytest.mark.once
def test_onnx_shows_what_keras_shows_in_any_batch(onnx, puppet, windows):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx.path)
    (entry,), (images,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape, entry.type) == (
        "landmarks",
        ["batch", 3, 68, 2],
        "tensor(float)",
    )
    assert (images.name, images.shape, images.type) == (
        "images", ["batch", 32, 32, 3], "tensor(uint8)",
    )  # fmt: skip
    for batch in (windows[:1], windows[1:3], windows):
        close(session.run(None, {"landmarks": batch})[0], puppet, batch)
    # Weights, and no pile of unrolled constants; nothing of this machine.
    data = onnx.path.read_bytes()
    weights = sum(np.prod(w.shape) for w in puppet.model.weights) * 4
    assert len(data) < 2 * weights + 2**20
    assert str(ROOT).encode() not in data and b"site-packages" not in data


@pytest.mark.once
def test_the_report_is_of_the_file(onnx):
    assert 0 <= onnx.mean <= onnx.largest <= 1 and onnx.windows == 5
    assert onnx.files == [onnx.path]
    assert sorted(f.name for f in onnx.path.parent.iterdir()) == ["small.onnx"]


@pytest.mark.once
def test_metadata_tells_a_driver_all(onnx, puppet, portrait):
    import onnxruntime

    held = onnxruntime.InferenceSession(onnx.path).get_modelmeta().custom_metadata_map
    about = json.loads(held["keras_vpgc"])
    assert about == onnx.description
    assert about["size"] == 32 and about["frame_rate"] == 25
    assert about["context"] == 3 and about["context_mode"] == "centered"
    assert about["context_offsets"] == [-1, 0, 1]
    assert about["landmark_set"] == "ibug-68" and about["line_width"] == 1
    assert about["contours"][0] == [list(range(17)), False] and len(about["contours"]) == 9
    assert about["metadata"] == puppet.metadata
    # The frame that was found to be at rest, but for the shape's common to all frames.
    rest = portrait.landmarks[portrait.indices("train")[puppet.metadata["pose"]["frame"]]]
    np.testing.assert_allclose(about["neutral_landmarks"], rest, atol=1e-3)


@pytest.mark.once
def test_metadata_without_a_person():
    assert neutral_landmarks({"frame_rate": 25}) is None


@pytest.mark.slow
@pytest.mark.once
def test_openvino(puppet, path, windows, tmp_path):
    import openvino

    done = export_puppet(path, tmp_path / "me.xml", "openvino", inputs="heatmaps", pixels="float")
    assert [f.name for f in done.files] == ["me.bin", "me.xml"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["me.bin", "me.xml"]
    assert str(ROOT) not in done.path.read_text()
    model = openvino.Core().read_model(done.path)
    assert json.loads(model.get_rt_info(["keras_vpgc"]).astype(str)) == done.description
    assert done.description["input"]["shape"] == ["batch", 32, 32, 3]
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (windows[:1], windows[:3]):
        drawn = keras.ops.convert_to_numpy(puppet.model.heatmap(batch))
        images = compiled({"heatmaps": drawn})["images"]
        assert images.dtype == np.float32 and np.abs(images).max() <= 1
        assert np.abs((images + 1) * 127.5 - of_keras(puppet, batch)).max() < 0.1


@pytest.mark.slow
@pytest.mark.once
def test_litert(puppet, path, windows, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    done = export_puppet(path, tmp_path / "me.tflite", "litert")
    assert json.loads((tmp_path / "me.json").read_text()) == done.description
    run = Interpreter(str(done.path)).get_signature_runner("serving_default")
    for batch in (windows[:1], windows[:3]):
        close(run(landmarks=batch)["images"], puppet, batch)


@pytest.mark.slow
@pytest.mark.once
def test_saved_model(puppet, path, windows, tmp_path):
    tf = pytest.importorskip("tensorflow")
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "saved_model.pb").write_text("a former one")
    with pytest.raises(VPGCError, match="me exists: choose another name, or --overwrite"):
        export_puppet(puppet, tmp_path / "me", "saved_model")
    done = export_puppet(puppet, tmp_path / "me", "saved_model", overwrite=True)
    held = (tmp_path / "me" / "assets.extra" / "keras_vpgc.json").read_text()
    assert json.loads(held) == done.description
    run = tf.saved_model.load(str(done.path)).signatures["serving_default"]
    for batch in (windows[:1], windows[:3]):
        close(run(landmarks=tf.constant(batch))["images"].numpy(), puppet, batch)
    assert [f.name for f in tmp_path.iterdir()] == ["me"]


@pytest.mark.once
@pytest.mark.slow
def test_what_cannot_be_exported_leaves_nothing(path, tmp_path, monkeypatch):
    def refused(message, puppet=path, output="x.onnx", format="onnx", **settings):
        with pytest.raises(VPGCError, match=message) as error:
            export_puppet(puppet, tmp_path / "out" / output, format, **settings)
        assert "\n" not in str(error.value)

    refused("no format 'tensorrt': choose one of onnx, openvino, litert, saved", format="tensorrt")
    refused("no input 'sound': choose one of landmarks, heatmaps", inputs="sound")
    refused("no type of pixels 'int8': choose one of uint8, float", pixels="int8")
    refused("x.tflite is no name for this format: let it end in .onnx", output="x.tflite")
    refused("There is no puppet", puppet=tmp_path / "gone.keras")
    whole = path.read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    refused("cut.keras cannot be loaded as a Keras model", puppet=tmp_path / "cut.keras")
    monkeypatch.setattr(exporter.sys, "executable", shutil.which("false"))
    refused("ended by itself .exit code 1")
    found = formats.importlib.util.find_spec

    def without(*names):
        spec = lambda name: None if name in names else found(name)  # noqa: E731
        monkeypatch.setattr(formats.importlib.util, "find_spec", spec)

    without("onnxruntime")
    refused(r'onnxruntime is needed for this: pip install "keras_vpgc\[export\]"')
    without("torch")
    refused(r"written by PyTorch, which is not installed here.*keras_vpgc\[torch\]")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.once
def test_what_exists_is_kept(path, tmp_path):
    (tmp_path / "me.onnx").write_text("mine")
    with pytest.raises(VPGCError, match="me.onnx exists: choose another name, or --overwrite"):
        export_puppet(path, tmp_path / "me.onnx")
    # Weights and metadata beside the file too.
    (tmp_path / "me.bin").write_text("mine")
    with pytest.raises(VPGCError, match="me.bin exists"):
        export_puppet(path, tmp_path / "me.xml", "openvino")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("mine")
    with pytest.raises(VPGCError, match="is a folder of other things"):
        export_puppet(path, tmp_path / "folder", "saved_model", overwrite=True)
    assert (tmp_path / "me.onnx").read_text() == (tmp_path / "me.bin").read_text() == "mine"
    assert (tmp_path / "folder" / "letter.txt").exists()


@pytest.mark.once
def test_a_file_that_shows_something_else_is_refused(puppet, windows):
    from keras_vpgc.export.check import compare

    def by_keras(batch):
        return np.rint(of_keras(puppet, batch)).astype("uint8")

    report = compare(puppet.model, "landmarks", "uint8", by_keras)
    assert report["largest"] <= 1 and report["batches"] == [1, 3]

    def one_pixel_off(batch):
        images = by_keras(batch).astype("int")
        images[-1, 20, 10, 1] += 3 if images[-1, 20, 10, 1] < 128 else -3
        return images.astype("uint8")

    with pytest.raises(VPGCError, match="differs by [34] grey levels .* nothing was written"):
        compare(puppet.model, "landmarks", "uint8", one_pixel_off)
    with pytest.raises(
        VPGCError, match=r"gives uint8 \(1, 32, 32, 3\) where Keras gives uint8 \(3"
    ):
        compare(puppet.model, "landmarks", "uint8", lambda batch: by_keras(batch[:1]))
    with pytest.raises(VPGCError, match="differs by nan"):
        nothing = np.full((9, 32, 32, 3), np.nan, "float32")
        compare(puppet.model, "landmarks", "float", lambda batch: nothing[: len(batch)])


@pytest.mark.once
def test_example_drives_without_keras(onnx, puppet, portrait, tmp_path):
    landmarks = portrait.landmarks[:6].astype("float32")
    np.savez(tmp_path / "drive.npz", landmarks=landmarks, frame_rate=25.0)
    script = ROOT / "examples" / "onnx_drive.py"
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['onnx_drive.py', {str(onnx.path)!r}, 'drive.npz', '-o', sys.argv[1]]\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "heavy = {'keras', 'keras_vpgc', 'torch', 'tensorflow', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    for target in ("frames", "driven.mp4"):
        command = [sys.executable, "-c", code, target]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"{target} is ready: 6 frames" in done.stdout
    import cv2

    from keras_vpgc.data import video

    wanted = puppet.drive(landmarks)
    files = sorted((tmp_path / "frames").iterdir())
    frames = np.stack([cv2.imread(str(f))[..., ::-1] for f in files])
    assert np.abs(frames.astype("int") - wanted).max() <= 1
    assert video.probe(tmp_path / "driven.mp4").frame_rate == 25
    compressed = np.stack(list(video.read_frames(tmp_path / "driven.mp4")))
    # Random weights show noise, whose colours no video keeps.
    grey = [x.mean(-1).ravel() for x in (compressed, wanted)]
    assert compressed.shape == wanted.shape and np.corrcoef(grey)[0, 1] > 0.9


@pytest.mark.once
def test_example_draws_the_puppets_heatmaps(onnx, puppet, portrait):
    from examples.onnx_drive import heatmaps, windows

    landmarks = portrait.landmarks[:4].astype("float32")
    drawn = heatmaps(landmarks, onnx.description)
    wanted = keras.ops.convert_to_numpy(puppet.model.heatmap(landmarks[None]))[0]
    np.testing.assert_allclose(drawn, np.moveaxis(wanted, -1, 0), atol=1e-3)
    np.testing.assert_array_equal(
        windows(landmarks, onnx.description), landmarks[context_indices(4, 3)]
    )


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("pixels", ["uint8", "float"])
@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_light_puppet_in_each_format(format, pixels, run, tmp_path):
    build_light(keras_vpgc.load(run).metadata).save(tmp_path / "light.keras")
    target = tmp_path / f"me{formats.FORMATS[format].suffix}"
    done = export_puppet(tmp_path / "light.keras", target, format, pixels=pixels)
    # Compared with Keras before it got its name; one level is where rounding falls.
    assert done.largest <= 1 and done.mean < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_trained_puppet_in_each_format(format, run, portrait, tmp_path):
    done = export_puppet(run, tmp_path / f"me{formats.FORMATS[format].suffix}", format)
    assert done.largest <= 1 and done.mean < 0.01
    puppet = keras_vpgc.load(run, precision="float32")
    if format == "onnx":
        batch = portrait.landmarks[context_indices(2, 7)].astype("float32")
        close(formats.read(format, done.path)(batch), puppet, batch)
