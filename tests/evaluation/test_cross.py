import json
import shutil

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import crop, landmark_sets, retarget, tracking
from keras_vpgc.data.crop import Crop
from keras_vpgc.data.video import probe, read_frames
from keras_vpgc.evaluation import bootstrap_correlation
from keras_vpgc.evaluation.cross import LATE, OWN, RESULT, STILL, evaluate_cross
from keras_vpgc.evaluation.cross_pictures import picture_scores
from keras_vpgc.evaluation.motion import (
    BLENDSHAPES,
    correlations,
    motion_scores,
    signals,
    still_face,
)
from keras_vpgc.reenactment import verify
from tests.evaluation.videos import frames_of, write_exact

pytestmark = pytest.mark.once

QUICK = {"progress": False, "workers": 1}
WHOLE = Crop(0.0, 0.0, 1.0), Crop(0.0, 0.0, 1.0)
FILES = {"contact_sheet.png", "cross.json", "cross.md", "cross.mp4", "report.html", "scores.npz"}


@pytest.fixture(scope="module")
def frames(clip):
    return frames_of(clip, 55, 128)


@pytest.fixture(scope="module")
def driving(frames, tmp_path_factory):
    return write_exact(tmp_path_factory.mktemp("driving") / "driver.mkv", frames)


@pytest.fixture(scope="module")
def brief(frames, tmp_path_factory):
    return write_exact(tmp_path_factory.mktemp("brief") / "brief.mkv", frames[:20])


@pytest.fixture(scope="module")
def face():
    """A `Track` of a head that nods, turns, speaks and blinks, 100 frames."""
    with tracking.FaceTracker() as tracker:
        from skimage.data import astronaut

        seen = tracker.track([astronaut()])
    count = 100
    track = tracking.Track.join([seen] * count)
    t = np.arange(count) / 25
    turns = np.stack([9 * np.sin(2 * t), 5 * np.sin(3 * t), 3 * np.cos(t)], axis=1)
    track.matrices[:, :3, :3] = flip(retarget.from_angles(turns))
    track.points = track.points / np.float32(512)
    lip = landmark_sets.MEDIAPIPE_TO_68[66]
    track.points[:, lip, 1] += (0.01 * (1 + np.sin(7 * t)))[:, None].astype("float32")[:, 0]
    waves = 0.3 + 0.3 * np.sin(t[:, None] * np.linspace(1, 9, 52))
    track.blendshapes[:] = waves
    return track


def flip(rotations):
    axes = np.diag([1.0, -1.0, -1.0])
    return axes @ rotations @ axes


def copied(track):
    return track[np.arange(len(track.valid))]


def test_the_same_motion_is_without_error(face):
    scores = motion_scores(face, copied(face), WHOLE)
    for name in ("head_pose_error", "head_motion_error"):
        np.testing.assert_allclose(scores[name], 0, atol=1e-4)
    for name in ("expression_error", "expression_change_error"):
        np.testing.assert_allclose(scores[name], 0, atol=1e-7)
    np.testing.assert_allclose(scores["expression_agreement"], 1, atol=1e-9)
    assert scores["jitter"].shape == (98,)
    rows = correlations(face, copied(face), 25)
    for name in ("yaw", "pitch", "roll", "mouth", "blink", "expression"):
        assert rows[name]["correlation"] == pytest.approx(1) and rows[name]["ratio"] == 1
        assert rows[name]["interval"] == pytest.approx((1, 1))
    assert len(rows["blendshapes"]) == 52 == len(set(BLENDSHAPES))
    assert BLENDSHAPES[25] == "jawOpen" and BLENDSHAPES[44] == "mouthSmileLeft"


def test_signals_are_what_was_put_in(face):
    found = signals(face)
    t = np.arange(100) / 25
    np.testing.assert_allclose(found["yaw"], 9 * np.sin(2 * t), atol=1e-4)
    np.testing.assert_allclose(found["roll"], 3 * np.cos(t), atol=1e-4)
    np.testing.assert_allclose(found["blink"], face.blendshapes[:, 9:11].mean(1), atol=1e-6)
    assert np.corrcoef(found["mouth"], np.sin(7 * t))[0, 1] > 0.999


def test_another_rest_changes_absolute_scores_alone(face):
    """As relative retargeting keeps the target's own rest."""
    other = copied(face)
    turn = flip(retarget.from_angles([[12.0, 0, 0]]))[0]
    other.matrices[:, :3, :3] = turn @ face.matrices[:, :3, :3]
    other.blendshapes[:] = face.blendshapes + 0.1
    scores = motion_scores(face, other, WHOLE)
    np.testing.assert_allclose(scores["head_pose_error"], 12, atol=1e-3)
    np.testing.assert_allclose(scores["head_motion_error"], 0, atol=1e-3)
    np.testing.assert_allclose(scores["expression_error"], 0.1, atol=1e-6)
    np.testing.assert_allclose(scores["expression_change_error"], 0, atol=1e-6)


def mean(face, other, name):
    return np.nanmean(motion_scores(face, other, WHOLE)[name])


def test_distortions_move_their_scores(face, rng):
    names = ("head_motion_error", "expression_change_error", "expression_agreement", "jitter")
    noise = {
        "matrices": rng.normal(size=(100, 3)),
        "blendshapes": rng.normal(size=face.blendshapes.shape),
        "points": rng.normal(size=face.points.shape),
    }
    rows, moved = [], []
    for strength in (0, 1, 2, 3):
        other = copied(face)
        shaken = flip(retarget.from_angles(2 * strength * noise["matrices"]))
        other.matrices[:, :3, :3] = face.matrices[:, :3, :3] @ shaken
        other.blendshapes += (0.05 * strength * noise["blendshapes"]).astype("float32")
        other.points += (0.002 * strength * noise["points"]).astype("float32")
        rows.append([mean(face, other, name) for name in names])
        found = correlations(face, other, 25)
        moved.append([found[x]["correlation"] for x in ("yaw", "mouth", "blink", "expression")])
    rises, falls = np.diff(rows, axis=0), np.diff(moved, axis=0)
    assert (rises[:, [0, 1, 3]] > 0).all() and (rises[:, 2] < 0).all() and (falls < 0).all()


def test_half_the_motion_has_half_the_spread(face):
    half = copied(face)
    turns = retarget.angles(flip(face.matrices[:, :3, :3].astype("float64")))
    half.matrices[:, :3, :3] = flip(retarget.from_angles(0.5 * turns))
    half.blendshapes = (0.5 * face.blendshapes).astype("float32")
    found = correlations(face, half, 25)
    for name in ("yaw", "pitch", "blink", "expression"):
        assert found[name]["correlation"] == pytest.approx(1, abs=1e-3)
        assert found[name]["ratio"] == pytest.approx(0.5, rel=1e-3)


def test_a_still_face_is_the_floor(face):
    still = still_face(face)
    scores = motion_scores(face, still, WHOLE)
    angle = np.degrees(np.arccos((np.trace(
        np.swapaxes(face.matrices[:, :3, :3], 1, 2) @ still.matrices[:, :3, :3], axis1=1, axis2=2
    ) - 1) / 2))  # fmt: skip
    np.testing.assert_allclose(scores["head_motion_error"], angle, atol=0.05)
    np.testing.assert_allclose(scores["jitter"], 0, atol=1e-6)
    assert np.isnan(scores["expression_agreement"]).all()
    found = correlations(face, still, 25)
    assert all(found[x]["correlation"] is None for x in ("yaw", "mouth", "blink", "expression"))
    # The other way round nothing is asked for.
    assert correlations(still, face, 25)["yaw"] == {
        "correlation": None, "interval": None, "ratio": None,
    }  # fmt: skip


def test_frames_without_a_face_have_no_motion(face):
    gaps = copied(face)
    for values in (gaps.points, gaps.blendshapes, gaps.matrices):
        values[10:20] = np.nan
    gaps.valid[10:20] = False
    scores = motion_scores(face, gaps, WHOLE)
    for name, values in scores.items():
        assert np.isnan(values).sum() == (12 if name == "jitter" else 10)
    np.testing.assert_allclose(np.nanmax(scores["head_motion_error"]), 0, atol=1e-4)
    assert correlations(face, gaps, 25)["mouth"]["correlation"] == pytest.approx(1)
    # None at all: nothing is known, and nothing breaks.
    gaps.valid[:] = False
    for values in (gaps.points, gaps.blendshapes, gaps.matrices):
        values[:] = np.nan
    assert np.isnan(motion_scores(face, gaps, WHOLE)["head_motion_error"]).all()
    assert correlations(face, gaps, 25)["expression"]["correlation"] is None


def test_bootstrap_of_correlations(rng):
    count = 1000
    x = rng.normal(size=count).repeat(5)[:count]
    y = x + rng.normal(size=count)
    low, high = bootstrap_correlation(x, y, block=25)
    assert low < np.corrcoef(x, y)[0, 1] < high and high - low < 0.3
    np.testing.assert_allclose(bootstrap_correlation(x, -2 * x + 3, block=25), (-1, -1))
    y[::7] = np.nan
    assert low - 0.1 < bootstrap_correlation(x, y, block=25)[0] < high
    both = bootstrap_correlation(np.stack([x, x], 1), np.stack([x, -x], 1), block=25)
    np.testing.assert_allclose(both, (0, 0), atol=1e-9)
    assert bootstrap_correlation(x[:49], x[:49], block=25) is None
    assert bootstrap_correlation(x, np.ones(count), block=25) is None
    with pytest.raises(VPGCError, match=r"received \(1000,\) and \(999,\)"):
        bootstrap_correlation(x, x[1:])


def test_pictures_scores_are_those_of_all_frames_together(frames):
    from keras_vpgc.metrics import flicker, sharpness

    group = np.stack(frames[:20])
    found = picture_scores(group)
    large = np.stack([crop.apply(x, Crop(0, 0, 128), 256) for x in group])
    np.testing.assert_allclose(found["sharpness"], sharpness(large), rtol=1e-4)
    np.testing.assert_allclose(found["flicker"][1:], flicker(None, large), rtol=1e-4)
    later = picture_scores(group[7:], before=group[6])
    np.testing.assert_allclose(later["flicker"], found["flicker"][7:], rtol=1e-6)


@pytest.mark.slow
def test_identical_clips(driving, tmp_path):
    found = evaluate_cross(driving, driving, target=driving, output=tmp_path / "s", **QUICK)
    row = found["scores"][RESULT]
    for name in ("head_pose_error", "head_motion_error", "expression_error"):
        assert row[name] == pytest.approx(0, abs=1e-4)
    assert row["expression_agreement"] == pytest.approx(1, abs=1e-6)
    moved = {k: v for k, v in found["correlations"][RESULT].items() if k != "blendshapes"}
    assert moved["yaw"]["correlation"] == pytest.approx(1)
    # The drawn face hardly blinks: then there is nothing to correlate.
    assert {round(x["correlation"] or 1, 6) for x in moved.values()} == {1}
    late = found["scores"][LATE]
    # A frame late is worse than the same and better than not moving at all.
    assert 0 < late["head_motion_error"] < found["scores"][STILL]["head_motion_error"]
    assert 0.5 < found["correlations"][LATE]["yaw"]["correlation"] < 1
    # It is one person, as sharp as itself, and trembles and flickers as itself.
    own = found["scores"][OWN]
    assert row["identity_distance"] == pytest.approx(own["identity_distance"], abs=0.1)
    assert row["identity_distance"] < 0.6 and row["identity_similarity"] > 0.95
    assert row["relative_sharpness"] == pytest.approx(1, abs=0.1)
    assert row["jitter"] == pytest.approx(late["jitter"], rel=0.1)
    assert row["flicker"] == pytest.approx(late["flicker"], rel=1e-6)
    assert row["intervals"]["head_motion_error"] is not None
    folder = tmp_path / "s"
    assert found["folder"] == folder and {x.name for x in folder.iterdir()} == FILES
    stored = json.loads((folder / "cross.json").read_text())
    assert stored == json.loads(json.dumps({k: v for k, v in found.items() if k != "folder"}))
    assert "| head motion error (°) ↓ | 0.00" in (folder / "cross.md").read_text()
    said = verify(folder / "cross.mp4")
    assert said.metadata["software"].startswith("keras_vpgc")
    assert said.manifest["state"] == "valid"
    assert [x["relationship"] for x in said.manifest["ingredients"]] == ["componentOf"]
    info = probe(folder / "cross.mp4")
    assert (info.frame_count, info.width, info.height) == (55, 768, 256)
    assert cv2.imread(str(folder / "contact_sheet.png")).shape == (480, 1280, 3)
    text = (folder / "report.html").read_text()
    assert "How well driver.mkv drives driver.mkv" in text and "Head motion error" in text
    assert 'src="http' not in text and 'href="http' not in text
    with np.load(folder / "scores.npz") as scores:
        assert scores["result/identity_distance"].shape == (55,)
        assert scores["driving signals/yaw"].shape == scores["times"].shape == (55,)


@pytest.mark.slow
def test_pictures_show_their_distortions(brief, frames, tmp_path):
    """Blur lowers sharpness, shaking raises jitter and flicker."""

    def scored(name, change):
        shown = [change(i, x) for i, x in enumerate(frames[:20])]
        path = write_exact(tmp_path / f"{name}.mkv", shown)
        return evaluate_cross(brief, path, target=brief, identity=False, **QUICK)["scores"]

    blurred = scored("blurred", lambda i, x: cv2.GaussianBlur(x, (0, 0), 1.5))
    assert blurred[RESULT]["sharpness"] < 0.5 * blurred[LATE]["sharpness"]
    assert blurred[RESULT]["relative_sharpness"] < 0.6 * blurred[OWN]["relative_sharpness"]
    shaken = scored("shaken", lambda i, x: np.roll(x, i % 2, axis=1))
    for name in ("jitter", "flicker"):
        assert shaken[RESULT][name] > 1.5 * shaken[LATE][name]


def test_frames_without_a_face_are_counted(brief, frames, tmp_path):
    gone = [np.full_like(x, 90) if i in (3, 4, 11) else x for i, x in enumerate(frames[:20])]
    path = write_exact(tmp_path / "gone.mkv", gone)
    found = evaluate_cross(brief, path, **QUICK)
    assert found["frames_without_face"] == {"driving": 0, "result": 3} and found["folder"] is None
    row = found["scores"][RESULT]
    assert row["frames"] == 20 and row["left_out"]["head_motion_error"] == 3
    assert row["head_motion_error"] == pytest.approx(0, abs=1e-3)
    assert "(3 left out)" in found["table"] and "identity_distance" not in row
    notes = found["notes"]
    assert any("No face was found in 3 of 20 frames of the result clip" in x for x in notes)
    assert any("Without a target" in x for x in notes)


def test_other_rates_are_timed(brief, frames, tmp_path):
    half = write_exact(tmp_path / "half.mkv", frames[:20:2], rate=12.5)
    found = evaluate_cross(brief, half, output=tmp_path / "s", align=True, **QUICK)
    assert found["protocol"]["result"]["alignment"] == "nearest in time"
    said = "result has 12.5 frames a second and the driving clip 25"
    assert any(said in x for x in found["notes"])
    with np.load(tmp_path / "s" / "scores.npz") as scores:
        np.testing.assert_array_equal(scores["frames/result"][::2], np.arange(10))
        twice = np.flatnonzero(np.diff(scores["frames/result"]) == 0)[4]
    # The right part of the video shows the result's frame of that time.
    shown = list(read_frames(tmp_path / "s" / "cross.mp4"))
    assert len(shown) == 20
    same, other = (x[20:, 512:].astype(int) for x in shown[twice : twice + 2])
    assert np.abs(same - other).mean() < 1


def test_a_run_is_driven_and_scored(run, clip, tmp_path):
    """Untrained, it shows no face: that is counted, and the rest is scored."""
    run = shutil.copytree(run, tmp_path / "run")
    found = evaluate_cross(clip, run=run, start=1, end=1.5, retargeting="absolute", **QUICK)
    folder = run / "evaluation" / "cross_astronaut"
    assert found["folder"] == folder
    assert {x.name for x in folder.iterdir()} == FILES | {"driven.mp4"}
    assert found["frames"] == 13 and found["protocol"]["run"]["retargeting"] == "absolute"
    assert found["protocol"]["driving"]["first_frame"] == 25
    assert found["protocol"]["target"]["side"] == 64
    assert probe(folder / "driven.mp4").frame_count == 13
    assert verify(folder / "driven.mp4").exit_code == 0
    row = found["scores"][RESULT]
    assert (
        row["sharpness"] >= 0
        and row["left_out"]["head_motion_error"] == (found["frames_without_face"]["result"])
    )
    assert row["left_out"]["identity_distance"] == found["frames_without_face"]["result"]
    assert found["scores"][OWN]["identity_distance"] < 0.6
    assert "landmark_distance" in row["left_out"]


def test_bad_input_is_said_before_anything_is_written(brief, frames, run, tmp_path):
    short = write_exact(tmp_path / "short.mkv", frames[:15])
    blank = write_exact(tmp_path / "blank.mkv", [np.full_like(x, 90) for x in frames[:20]])
    target = tmp_path / "s"
    (tmp_path / "file").write_text("")
    for words, arguments in (
        ("give one of the two", {"prediction": brief, "run": run}),
        ("give one of the two", {}),
        ("leave them out for a finished video", {"prediction": brief, "motion": 0.5}),
        ("There is no file", {"prediction": tmp_path / "gone.mp4"}),
        ("short.mkv has 15 frames and .*brief.mkv 20.*--align", {"prediction": short}),
        ("No face was found in .*blank.mkv, the result", {"prediction": blank}),
        ("There is no target .*gone", {"prediction": brief, "target": tmp_path / "gone"}),
        ("is no portrait folder", {"prediction": brief, "target": tmp_path}),
        ("No face was found in .*blank.mkv, the target", {"prediction": brief, "target": blank}),
        ("is no run folder", {"run": tmp_path}),
        ("There is no retargeting 'odd'", {"run": run, "retargeting": "odd"}),
    ):
        with pytest.raises(VPGCError, match=words):
            evaluate_cross(brief, output=target, **arguments, **{**QUICK, "identity": False})
        assert not target.exists()
    with pytest.raises(VPGCError, match="No face was found in .*blank.mkv, the driving clip"):
        evaluate_cross(blank, brief, output=target, **QUICK)
    with pytest.raises(VPGCError, match="is a file: move it away"):
        evaluate_cross(brief, brief, output=tmp_path / "file", **QUICK)
    with pytest.raises(VPGCError, match="There is no puppet"):
        evaluate_cross(brief, run=tmp_path / "none" / "puppet.keras", **QUICK)
    assert not target.exists() and not (tmp_path / "none").exists()
    assert evaluate_cross(brief, short, align=True, **QUICK)["frames"] == 15
