"""What can be scored of damaged videos is scored, and the rest is counted."""

import errno
import html
import json

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import tracking, video
from keras_vpgc.data.video import lost_frames
from keras_vpgc.evaluation.clips import spans
from keras_vpgc.evaluation.compare import compare
from keras_vpgc.evaluation.cross import evaluate_cross
from keras_vpgc.evaluation.output import publish
from keras_vpgc.evaluation.pair import evaluate_pair
from keras_vpgc.evaluation.study import make_study
from tests.evaluation.videos import damage, frames_of, write, write_exact

pytestmark = pytest.mark.once

QUICK = {"progress": False, "workers": 1, "lpips": None}
PICTURES = {**QUICK, "landmarks": False}


@pytest.fixture(scope="module")
def frames(clip):
    return [cv2.resize(x, (128, 128), interpolation=cv2.INTER_AREA) for x in frames_of(clip, 60)]


@pytest.fixture(scope="module")
def videos(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    soft = [cv2.GaussianBlur(x, (0, 0), 1) for x in frames]
    return {
        "truth": write_exact(folder / "truth.mkv", frames),
        "good": write(folder / "good.mp4", frames),
        "soft": write(folder / "soft.mp4", soft),
    }


def test_numbers_in_words():
    assert spans([4, 3, 5, 9]) == "3-5, 9" and spans([]) == ""
    assert spans(range(0, 40, 2)).endswith(", 14 and 12 more stretches")


def test_frames_that_cannot_be_decoded_have_no_scores(videos, tmp_path):
    broken = damage(videos["good"], tmp_path / "broken.mp4", range(20, 24))
    lost = lost_frames(broken)
    assert 4 <= len(lost) < 12 and not len(lost_frames(videos["good"]))
    result = evaluate_pair(broken, videos["truth"], tmp_path / "s", **QUICK, crop="full")
    row = result["scores"]["full"]
    assert result["frames_not_decoded"] == {"truth": 0, "prediction": len(lost)}
    assert result["frames_without_face"] == {"truth": 0, "prediction": 0}
    for name in ("psnr", "ssim", "landmark_distance", "head_pose_error"):
        assert row["left_out"][name] == len(lost)
    (note,) = (x for x in result["notes"] if "cannot be decoded" in x)
    assert f"{len(lost)} of 60 frames of prediction" in note and f"({lost[0]}" in note
    with np.load(tmp_path / "s" / "scores.npz") as scores:
        np.testing.assert_array_equal(
            np.flatnonzero(np.isnan(scores["full/prediction/ssim"])), lost
        )
        # Neither has the change to and from such a frame.
        gone = np.isnan(scores["full/prediction/flicker"])
        assert gone[lost[0] - 1] and gone[lost[0]] and not gone[: lost[0] - 1].any()
    page = (tmp_path / "s" / "report.html").read_text()
    assert note in page and "the truth" not in note


def test_the_end_that_cannot_be_decoded_is_left_out(videos, tmp_path):
    broken = damage(videos["soft"], tmp_path / "broken.mp4", range(30, 60))
    found = compare({"broken": broken, "soft": videos["soft"]}, videos["truth"], **PICTURES)
    whole = evaluate_pair(videos["soft"], videos["truth"], **PICTURES)
    rows = found["scores"]["full"]
    assert rows["soft"] == whole["scores"]["full"]
    lost = found["frames_not_decoded"]["broken"]
    assert 30 <= lost < 40 and rows["broken"]["left_out"]["psnr"] == lost
    # Until then it is the same picture.
    row = found["pairs"]["full"][0]["scores"]["psnr"]
    assert row["frames"] == 60 - lost and abs(row["difference"]) < 0.5
    # Without a frame of the truth there is none for anybody, and the floor lacks the next too.
    found = compare({"soft": videos["soft"]}, broken, **PICTURES)
    assert found["scores"]["full"]["soft"]["left_out"]["ssim"] == lost
    assert found["floor"]["full"]["left_out"]["ssim"] == lost
    assert any(f"{lost} of 60 frames of the truth cannot" in x for x in found["notes"])


def test_a_picture_that_changes_its_shape_is_refused_first(videos, frames, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vpgc.evaluation.videos._score_pictures", None)
    with open(tmp_path / "joined.264", "wb") as joined:
        for i, part in enumerate((frames[:30], [x[:64] for x in frames[30:]])):
            joined.write(annex_b(write(tmp_path / f"{i}.mp4", part)))
    with pytest.raises(VPGCError, match="changes from 128x128 to 128x64 at frame 30: cut the"):
        evaluate_pair(tmp_path / "joined.264", videos["truth"], **PICTURES)


def annex_b(path):
    """The bare stream of an MP4."""
    import av

    filtered = b""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        convert = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            for out in convert.filter(packet if packet.size else None):
                filtered += bytes(out)
    return filtered


def test_a_system_that_cannot_be_read_on_leaves_the_others(videos, tmp_path, monkeypatch):
    systems = {"good": videos["good"], "soft": videos["soft"]}
    wanted = compare(systems, videos["truth"], **PICTURES)["scores"]["full"]
    read = video.read_frames

    def failing(path, start=0, stop=None):
        for number, frame in enumerate(read(path, start, stop), start):
            if path == videos["soft"] and number >= 30:
                raise OSError(errno.EIO, "Input/output error")
            yield frame

    monkeypatch.setattr(video, "read_frames", failing)
    compare(systems, videos["truth"], tmp_path / "s", **PICTURES)
    found = json.loads((tmp_path / "s" / "comparison.json").read_text())
    assert found["scores"]["full"]["good"] == wanted["good"]
    assert found["scores"]["full"]["soft"]["left_out"]["psnr"] == 30
    assert "could not be read from frame 30 on" in found["failures"]["soft"]
    (note,) = (x for x in found["notes"] if "soft was not scored to its end" in x)
    assert "Input/output error" in note
    assert note in html.unescape((tmp_path / "s" / "report.html").read_text())


def test_a_system_that_cannot_be_tracked_keeps_its_other_scores(videos, monkeypatch):
    track = tracking.track_faces

    def failing(path, *args, **options):
        if path == videos["soft"]:
            raise VPGCError("A worker process ended by itself.")
        return track(path, *args, **options)

    monkeypatch.setattr(tracking, "track_faces", failing)
    systems = {"good": videos["good"], "soft": videos["soft"]}
    found = compare(systems, videos["truth"], size=64, crop="face", **QUICK)
    rows = found["scores"]["face"]
    assert rows["good"]["landmark_distance"] < 2 and "landmark_distance" not in rows["soft"]
    assert rows["soft"]["left_out"]["psnr"] == 0 and 20 < rows["soft"]["psnr"] < 40
    assert set(found["failures"]) == {"soft"}
    assert any("soft was not scored to its end: its faces were not" in x for x in found["notes"])


@pytest.mark.slow
def test_no_face_at_all_in_one_system(videos, frames, tmp_path):
    empty = write_exact(tmp_path / "empty.mkv", [np.full_like(frames[0], 90)] * 60)
    systems = {"empty": empty, "good": videos["good"]}
    found = compare(systems, videos["truth"], tmp_path / "s", size=64, crop="face", **QUICK)
    assert found["frames_without_face"] == {"truth": 0, "empty": 60, "good": 0}
    rows = found["scores"]["face"]
    assert "landmark_distance" not in rows["empty"] and rows["empty"]["psnr"] < rows["good"]["psnr"]
    assert rows["empty"]["left_out"]["landmark_distance"] == 60 and not found["failures"]
    assert "No face was found in 60 of 60 frames of empty (0-59)" in "".join(found["notes"])
    assert "no face found" in (tmp_path / "s" / "report.html").read_text()


def test_a_damaged_clip_gets_into_no_study(videos, tmp_path):
    broken = damage(videos["good"], tmp_path / "broken.mp4", range(20, 24))
    systems = {"a": videos["soft"], "b": broken}
    with pytest.raises(VPGCError, match="broken.mp4 is damaged: .* frames to be shown cannot"):
        make_study(systems, tmp_path / "s", references=videos["soft"], progress=False)
    assert not (tmp_path / "s").exists()


def test_frames_of_a_driven_face_that_cannot_be_decoded_have_no_scores(videos, tmp_path):
    broken = damage(videos["good"], tmp_path / "broken.mp4", range(20, 24))
    lost = len(lost_frames(broken))
    found = evaluate_cross(videos["truth"], broken, workers=1, progress=False)
    row = found["scores"]["result"]
    assert row["left_out"]["head_motion_error"] == row["left_out"]["sharpness"] == lost
    assert any(f"{lost} of 60 frames of the result clip cannot be" in x for x in found["notes"])


def test_what_a_killed_run_left_is_not_published(tmp_path):
    (tmp_path / "s" / ".partial").mkdir(parents=True)
    (tmp_path / "s" / ".partial" / "old.json").write_text("")
    with publish(tmp_path / "s") as partial:
        (partial / "new.json").write_text("")
    assert [x.name for x in (tmp_path / "s").iterdir()] == ["new.json"]
