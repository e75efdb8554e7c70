import errno
import json
import shutil
import subprocess
import sys

import pytest

import keras_vpgc

pytestmark = pytest.mark.once


def refused(result, *words):
    """One sentence, exit code 1, no traceback."""
    code, out, error = result
    assert code == 1
    assert error.startswith("vpgc: ") and error.count("\n") == 1
    assert "Traceback" not in error + out
    for word in words:
        assert word in error


def test_the_whole_way(vpgc, clip, tmp_path):
    code, out, _ = vpgc("prepare", clip, "-o", tmp_path / "p", "--size", 64)
    assert code == 0 and "75 frames of 64x64" in out
    code, out, _ = vpgc(
        "train", tmp_path / "p", "-o", tmp_path / "r", "--preset", "vpgc_tiny", "--steps", 2,
        "--driver-steps", 2, "--set", "learning_rate=1e-4", "--set", "codes_per_cell=8",
        "--set", "driver_image_steps=2",
    )  # fmt: skip
    assert code == 0 and "puppet.keras is ready" in out
    config = json.loads((tmp_path / "r" / "run.json").read_text())["config"]
    assert config["recipe"]["learning_rate"] == 1e-4 and config["network"]["codes_per_cell"] == 8
    out_file = tmp_path / "o.mp4"
    code, out, _ = vpgc("reenact", tmp_path / "r", "--driving", clip, "-o", out_file, "--end", 0.2)
    assert code == 0 and out_file.exists()
    code, out, _ = vpgc("evaluate", tmp_path / "r", "--no-landmarks")
    assert code == 0 and "| driven |" in out
    assert (tmp_path / "r" / "evaluation" / "contact_sheet.png").exists()


@pytest.mark.slow
def test_demo_on_an_own_video(vpgc, clip, tmp_path):
    code, out, _ = vpgc(
        "demo", "--video", clip, "-o", tmp_path / "d", "--minutes", 0.1, "--preset", "vpgc_tiny"
    )
    assert code == 0
    assert "the mean training frame" in out and "| driven |" in out
    assert (tmp_path / "d" / "run" / "evaluation" / "driven.mp4").exists()


def test_what_was_found_is_said(vpgc, clip, tmp_path):
    target = tmp_path / "p"
    code, out, _ = vpgc(
        "prepare", clip, "-o", target, "--size", 32, "--start", "0:00.4", "--end", "2.2",
        "--rate", 50, "--workers", 1, "--person", 1,
    )  # fmt: skip
    assert code == 0
    assert "90 frames of 32x32 at 50 a second" in out and "landmarks.png" in out
    assert "0 without a face, 0 interpolated" in out and "Jitter" in out
    assert "repeat the one before and are not trained on" in out
    refused(vpgc("prepare", clip, "-o", tmp_path / "q", "--start", "1:75"), "H:M:S", "'1:75'")
    code, _, error = vpgc("prepare", clip, "-o", tmp_path / "q", "--person", 2)
    assert code == 1 and "no person 2; found: 1 (0:00-0:02, 75 frames" in error.splitlines()[-1]


def test_stopped_by_the_user(vpgc, clip, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_vpgc.data.tracking.track_faces", stop)
    code, _, error = vpgc("prepare", clip, "-o", tmp_path / "p")
    assert (code, error.strip().splitlines()[-1]) == (
        130, "vpgc: stopped; the same command goes on from here.",
    )  # fmt: skip


def test_help_and_version(vpgc):
    code, out, _ = vpgc("--version")
    assert (code, out.strip()) == (0, f"keras_vpgc {keras_vpgc.__version__}")
    code, out, _ = vpgc("train", "--help")
    assert code == 0 and "--preset" in out and "portrait folder" in out


def test_bad_videos(vpgc, clip, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:2000])
    (tmp_path / "notes.txt").write_text("no video")
    before = sorted(x.name for x in tmp_path.iterdir())
    for name, words in (
        ("missing.mp4", "There is no file"),
        ("empty.mp4", "is empty"),
        ("cut.mp4", "cannot be read as a video"),
        ("notes.txt", "cannot be read as a video"),
    ):
        refused(vpgc("prepare", tmp_path / name, "-o", tmp_path / "p"), name, words)
        refused(vpgc("demo", "--video", tmp_path / name, "-o", tmp_path / "d"), name, words)
    assert sorted(x.name for x in tmp_path.iterdir()) == before


def test_bad_settings(vpgc, portrait, tmp_path):
    def train(*more):
        return vpgc("train", portrait.path, "-o", tmp_path / "r", "--preset", "vpgc_tiny", *more)

    refused(vpgc("train", tmp_path / "no", "-o", tmp_path / "r"), "is no portrait folder")
    refused(
        vpgc("train", portrait.path, "-o", tmp_path / "r", "--preset", "big"), "no preset 'big'"
    )
    refused(train("--set", "learning_rat=1"), "did you mean 'learning_rate'?")
    refused(train("--set", "steps"), "KEY=VALUE")
    refused(train("--set", "window_size=20"), "window of 20 cells does not fit a grid of 16x16")
    refused(train("--set", "code_dim=5"), "cannot be split into codes of length 5")
    refused(train("--set", "multipliers=[1,2,2,2]"), "8x8", "16x16")
    refused(train("--batch-size", 1000), "batch of 1000 frames is larger")
    assert not list(tmp_path.iterdir())


def test_runs_of_another_version_and_missing_ones(vpgc, run, clip, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**info, "schema_version": 3}))
    words = "schema version 3 but this keras_vpgc reads 1"
    refused(vpgc("evaluate", tmp_path / "run"), words)
    refused(
        vpgc("reenact", tmp_path / "nowhere", "--driving", clip, "-o", tmp_path / "o.mp4"),
        "There is no puppet",
    )
    assert sorted(x.name for x in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError("no file signature found\nand more"), "could not be read or written (no file sig"),
        (OSError("write failed: No space left on device"), "no space left on the disk: make some"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk: make some"),
        (OSError(errno.ENOSPC, "No space left on device", "a.txt"), "no space left for a.txt: mak"),
        (OSError(errno.EROFS, "Read-only file system", "a.txt"), "a.txt cannot be read or written"),
        (OSError(errno.EROFS, "Read-only file system"), "choose another place"),
        (OSError(errno.EIO, "Input/output error", "a.txt"), "a.txt: Input/output error."),
        (OSError(), "could not be read or written (OSError)"),
    ],
)
def test_errors_of_the_system_are_the_last_resort(error, words, vpgc, portrait, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr("keras_vpgc.data.coverage.inspect", fail)
    refused(vpgc("inspect", portrait.path), words)


def test_real_process_ends_without_a_traceback(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "keras_vpgc.cli", "prepare", "no.mp4", "-o", str(tmp_path / "p")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert "There is no file no.mp4" in result.stderr


def test_import_needs_only_keras_numpy_and_a_backend():
    code = """if True:
        import sys
        for name in ("cv2", "mediapipe", "skimage", "typer", "pydantic", "av", "tqdm", "keras_cv"):
            sys.modules[name] = None  # as if it were not installed
        import keras_vpgc
        from keras_vpgc.training import CodebookTrainer
        keras_vpgc.models.PortraitAutoencoder.from_preset("vpgc_tiny")
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_missing_package_says_which_extra_brings_it(clip, tmp_path):
    code = "import sys; sys.modules['mediapipe'] = None; from keras_vpgc.cli import main; main()"
    arguments = ["prepare", str(clip), "-o", str(tmp_path / "p")]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert 'pip install "keras_vpgc[landmarks]"' in result.stderr
    assert not list(tmp_path.glob("p*"))
