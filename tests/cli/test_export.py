import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.models import DirectMapping
from tests.cli.test_cli import refused

pytestmark = pytest.mark.once


def test_what_was_written_is_said(vpgc, run, small_export, monkeypatch):
    done, asked = small_export[1], []

    def export(*arguments, **settings):
        asked.append((arguments, settings))
        return done

    monkeypatch.setattr("keras_vpgc.export.export_puppet", export)
    code, out, _ = vpgc("export", run, "-o", "me.onnx", "--pixels", "float", "--overwrite")
    assert code == 0
    ((arguments, settings),) = asked
    assert arguments == (run, Path("me.onnx"), "onnx")
    assert (settings["inputs"], settings["pixels"]) == ("landmarks", "float")
    assert settings["precision"] == "float32" and settings["overwrite"]
    assert "float32 landmarks (batch, 3, 68, 2) -> uint8 images (batch, 32, 32, 3)" in out
    assert "ONNX Runtime and Keras differ by" in out and "over 5 images" in out
    assert f"{done.path} is ready." in out


def test_what_cannot_be_exported_is_refused(vpgc, run, tmp_path):
    (tmp_path / "me.onnx").write_bytes(b"mine")
    refused(vpgc("export", run, "-o", tmp_path / "me.onnx"), "exists", "--overwrite")
    refused(vpgc("export", run, "--format", "caffe"), "no format 'caffe'", "onnx, openvino")


@pytest.mark.slow
def test_a_puppet_is_exported_beside_itself(vpgc, run, portrait, tmp_path):
    model = DirectMapping(
        image_size=32, context=3, base_channels=8, multipliers=(1, 2), driver_base_channels=8,
        driver_multipliers=(1, 2), num_blocks=1, latent_dim=16, norm_groups=4, attention_sizes=(),
        metadata={**keras_vpgc.load(run).metadata, "size": 32, "context_mode": "causal"},
        dtype="float32",
    )  # fmt: skip
    model.save(tmp_path / "direct.keras")
    code, out, _ = vpgc("export", tmp_path / "direct.keras", "--format", "torch")
    assert code == 0
    assert "float32 landmarks (batch, 3, 68, 2) -> uint8 images (batch, 32, 32, 3)" in out
    assert "PyTorch and Keras differ by" in out and "direct.pt2 is ready." in out
    torch = pytest.importorskip("torch")
    extra = {"keras_vpgc": ""}
    module = torch.export.load(tmp_path / "direct.pt2", extra_files=extra).module()
    assert json.loads(extra["keras_vpgc"])["context_offsets"] == [-2, -1, 0]
    windows = portrait.landmarks[context_indices(3, 3, "causal")].astype("float32")
    for batch in (windows[:1], windows):
        images = keras.ops.convert_to_numpy(model(batch))
        wanted = np.clip((images + 1) * 127.5, 0, 255)
        found = module(torch.from_numpy(batch)).numpy()
        assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 0.55
    refused(vpgc("export", tmp_path / "direct.keras", "--format", "torch"), "exists", "--overwrite")


def test_landmarks_of_a_video_become_a_file(vpgc, run, clip, portrait, tmp_path):
    target = tmp_path / "drive.npz"
    code, out, _ = vpgc("landmarks", run, "--driving", clip, "-o", target, "--end", 0.4)
    assert code == 0 and "landmarks of 10 frames" in out
    with np.load(target) as file:
        assert file["frame_rate"] == 25 and file["landmark_set"] == "ibug-68"
        assert file["landmarks"].dtype == np.float32
        np.testing.assert_allclose(file["landmarks"], portrait.landmarks[:10], atol=0.01)
    again = "landmarks", run, "--driving", clip, "-o"
    refused(vpgc(*again, target), "drive.npz exists", "--overwrite")
    refused(vpgc(*again, tmp_path / "drive.csv"), "let it end in .npz")
    assert [f.name for f in tmp_path.iterdir()] == ["drive.npz"]
