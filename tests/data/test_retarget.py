"""Heads made up in float64, seen by a pinhole camera written out here."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.canonical import canonical_head
from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68, eye_opening
from keras_vpgc.data.retarget import (
    Camera,
    HeadTrack,
    angles,
    fit_head,
    from_angles,
    metric_landmarks,
    neutral_frame,
    neutral_pose,
    project,
    rebuild,
    retarget,
)
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.data.video import read_frames

pytestmark = pytest.mark.once
WIDTH, HEIGHT = 640, 480
FOCAL = 240 / np.tan(np.radians(31.5))
FLIP = np.diag([1.0, -1.0, -1.0])
CHIN, UPPER_LIP, LOWER_LIP = [152, 148, 377, 176, 400], [13, 312, 82], [14, 317, 87, 17]
UPPER_LIDS, LOWER_LIDS = [159, 158, 160, 386, 385, 387], [145, 153, 144, 374, 380, 373]


def matrix(yaw=0.0, pitch=0.0, roll=0.0):
    """Turns to the image's right, down and clockwise, in degrees, by OpenCV."""
    turns = [(0, -yaw, 0), (pitch, 0, 0), (0, 0, roll)]
    a, b, c = (cv2.Rodrigues(np.radians(np.array(t, float)))[0] for t in turns)
    return a @ b @ c


def person(seed):
    """A made-up face: the canonical one with other proportions, and irises."""
    rng = np.random.default_rng(seed)
    head, weights = canonical_head()
    shape = np.concatenate([head, np.zeros((10, 3))])
    width, length = (1.12, 0.94) if seed % 2 else (0.9, 1.1)
    shape = shape * [width, length, 1.0] + rng.normal(size=shape.shape) * 0.02
    shape[468:473] = shape[[33, 133]].mean(0) + [[0, 0, 0], [0.4, 0, 0], [0, 0.4, 0], [-0.4, 0, 0],
                                                [0, -0.4, 0]]  # fmt: skip
    shape[473:] = shape[[362, 263]].mean(0) + (shape[468:473] - shape[468])
    gap = 0.5 + 0.3 * (seed % 2)
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        shape[lower] = shape[upper] + [0, 2 * gap, 0]
    for upper, lower in zip(UPPER_LIP, LOWER_LIP[:3], strict=True):
        shape[lower] = shape[upper] + [0, 0.02, 0]
    return normalised(shape)


def normalised(shape):
    """In the canonical head's place, axes and size (weighted, as the fit has it)."""
    head, weights = canonical_head()
    w = (weights / weights.sum())[:, None]
    a, b = shape[:468], head
    a0, b0 = (w * a).sum(0), (w * b).sum(0)
    u, s, vt = np.linalg.svd((w * (b - b0)).T @ (a - a0))
    rotation = u @ vt
    assert np.linalg.det(rotation) > 0
    scale = (w * (b - b0) ** 2).sum() / (w * (b - b0) * ((a - a0) @ rotation.T)).sum()
    return scale * (shape - a0) @ rotation.T + b0


def talk(count, seed=0):
    """Expression offsets: the mouth opens, the eyes blink now and then; rest is most frequent."""
    rng = np.random.default_rng(seed)
    offsets = np.zeros((count, 478, 3))
    opening = np.where(np.arange(count) % 3 == 0, rng.uniform(0.5, 2.0, count), 0.0)
    offsets[:, LOWER_LIP + CHIN, 1] = opening[:, None]
    return offsets, opening


def seen_by_camera(shape, offsets, rotations, places, width=WIDTH, height=HEIGHT):
    """What a tracker would give: pixels, and depth relative to the face in the scale of x."""
    focal = 0.5 * height / np.tan(np.radians(31.5))
    points = np.einsum("nij,npj->npi", rotations, shape + offsets) + np.asarray(places)[:, None]
    middle = points[:, :468, 2].mean(1)[:, None]
    return np.stack(
        [
            focal * points[..., 0] / points[..., 2] + width / 2,
            focal * points[..., 1] / points[..., 2] + height / 2,
            focal * (points[..., 2] / middle - 1),
        ],
        -1,
    )


def motion(count, seed=0, near=45.0):
    rng = np.random.default_rng(seed)
    turns = np.stack([matrix(*a) for a in rng.uniform([-25, -12, -10], [25, 12, 10], (count, 3))])
    places = rng.uniform([-4, -3, near - 3], [4, 3, near + 3], (count, 3))
    return turns, places


def filmed(seed, count=40, near=45.0, **picture):
    turns, places = motion(count, seed, near)
    offsets, _ = talk(count, seed)
    shape = person(seed)
    return shape, offsets, turns, places, seen_by_camera(shape, offsets, turns, places, **picture)


def apart(a, b):
    """Angles between rotations, degrees."""
    return np.degrees(2 * np.arcsin(np.linalg.norm(a - b, axis=(1, 2)) / np.sqrt(8)))


def test_shape_pose_and_expression_are_found():
    shape, offsets, turns, places, points = filmed(0)
    head = fit_head(points, WIDTH, HEIGHT)
    # The median is taken point by point: exact where most frames are at rest.
    assert np.abs(head.shape - shape).max() < 2e-3
    assert apart(head.rotation, turns).max() < 0.05
    assert np.abs(head.translation - places).max() < 0.05
    assert np.abs(head.expression - offsets).max() < 5e-3
    np.testing.assert_allclose(head.scale, 1, atol=1e-9)


def test_landmarks_come_back_irises_included():
    *_, points = filmed(1)
    points += np.random.default_rng(0).normal(size=points.shape)
    head = fit_head(points.astype("float32"), WIDTH, HEIGHT)
    back = project(head)
    assert np.abs(back[..., :2] - points[..., :2]).max() < 1e-3
    # Depth has no origin of its own.
    depth = points[..., 2] - points[:, :468, 2].mean(1, keepdims=True)
    assert np.abs(back[..., 2] - depth).max() < 1e-3
    local = head.shape + head.expression
    pinhole = head.rotation[7] @ local[7].T + head.translation[7][:, None]
    np.testing.assert_allclose(rebuild(head)[7], pinhole.T, atol=1e-9)
    expected, _ = cv2.projectPoints(
        local[7].astype("float64"),
        cv2.Rodrigues(head.rotation[7])[0],
        head.translation[7],
        np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]),
        None,
    )
    assert np.abs(expected[:, 0] - points[7, :, :2]).max() < 1e-3


def test_long_clips_are_fitted_in_parts(monkeypatch):
    from keras_vpgc.data import retarget as module

    *_, points = filmed(0, 30)
    whole = fit_head(points, WIDTH, HEIGHT)
    monkeypatch.setattr(module, "CHUNK", 7)
    parts = fit_head(points, WIDTH, HEIGHT)
    for name in ("rotation", "translation", "expression"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-6)


def check_against_tracker(frames):
    """Our pose of the canonical head is the tracker's own matrix: the worst degrees and cm."""
    height, width = frames[0].shape[:2]
    with FaceTracker() as tracker:
        track = tracker.track(frames)
    matrices = track.matrices[track.valid].astype("float64")
    points = track.points[track.valid].astype("float64")
    _, rotation, translation, scale = metric_landmarks(points, width, height)
    theirs = FLIP @ matrices[:, :3, :3] @ FLIP
    np.testing.assert_allclose(scale, np.cbrt(np.linalg.det(theirs)), atol=1e-4)
    assert apart(rotation, theirs / scale[:, None, None]).max() < 0.01
    assert np.abs(translation - matrices[:, :3, 3] @ FLIP).max() < 1e-3
    # The person's own shape, instead of the canonical one, changes the pose little.
    head = fit_head(points, width, height)
    assert apart(head.rotation, theirs / scale[:, None, None]).max() < 1
    assert np.abs(head.translation - matrices[:, :3, 3] @ FLIP).max() < 0.5


def test_pose_is_the_trackers_own_matrix(clip):
    check_against_tracker(list(read_frames(clip))[::15])


def test_pose_is_the_trackers_own_matrix_on_real_frames(test_data):
    check_against_tracker(list(read_frames(test_data / "franck.webm", 0, 60))[::10])


def test_angles_have_the_promised_signs():
    assert angles(matrix(yaw=20)) == pytest.approx([20, 0, 0])
    assert angles(matrix(pitch=15)) == pytest.approx([0, 15, 0])
    assert angles(matrix(roll=10)) == pytest.approx([0, 0, 10])
    nose = np.array([0, 0, -1.0])  # of a head that faces the camera
    assert (matrix(yaw=20) @ nose)[0] > 0 and (matrix(pitch=15) @ nose)[1] > 0
    top = np.array([0, -1.0, 0])
    assert (matrix(roll=10) @ top)[0] > 0
    some = np.array([[20, -35, 12], [-70, 5, -40.0]])
    np.testing.assert_allclose(from_angles(some), [matrix(*a) for a in some], atol=1e-12)
    np.testing.assert_allclose(angles(from_angles(some)), some)


def test_own_motion_comes_back():
    *_, points = filmed(0)
    head = fit_head(points, WIDTH, HEIGHT)
    pose = json.loads(json.dumps(neutral_pose(head)))
    for mode in ("relative", "absolute"):
        found = project(retarget(head, head.shape, pose, mode))
        assert np.abs(found - project(head)).max() < 0.02


def test_swapped_identity_has_the_targets_shape_and_the_drivers_motion():
    """Before another camera, of another size, at another distance."""
    shape, offsets, turns, places, points = filmed(0)
    other = filmed(1, 30, near=60.0, width=300, height=300)
    driving, target = fit_head(points, WIDTH, HEIGHT), fit_head(other[-1], 300, 300)
    pose = neutral_pose(target)
    found = retarget(driving, target.shape, pose, "absolute")
    np.testing.assert_array_equal(found.shape, target.shape)
    assert found.camera == Camera(300, 300)
    assert apart(found.rotation, turns).max() < 0.05
    rest = neutral_frame(driving)
    # The same direction from the camera, at a distance that gives the rest frame the target's size.
    near = found.translation / driving.translation
    np.testing.assert_allclose(near, np.full_like(near, near[0, 0]), rtol=1e-6)
    assert found.translation[rest, 2] == pytest.approx(pose["translation"][2])
    # Taken apart again, what was put together is the target.
    again = fit_head(project(found), 300, 300)
    assert np.abs(again.shape - target.shape).max() < 5e-3
    assert np.abs(target.shape - other[0]).max() < 5e-3
    assert np.abs(driving.shape - target.shape).max() > 0.5
    # Expressions keep their measure, but for the size of the faces.
    size = [np.sqrt(((s - s.mean(0)) ** 2).sum(1).mean()) for s in (shape, other[0])]
    moved = found.expression[:, CHIN, 1] * size[0] / size[1]
    assert np.abs(moved - offsets[:, CHIN, 1]).max() < 0.02


def test_relative_motion_is_added_to_the_targets_rest():
    *_, points = filmed(0)
    *_, other = filmed(1, near=60.0)
    driving, target = fit_head(points, WIDTH, HEIGHT), fit_head(other, WIDTH, HEIGHT)
    for neutral in (None, 5):
        found = retarget(driving, target.shape, neutral_pose(target, 8), neutral=neutral)
        rest = neutral_frame(driving) if neutral is None else neutral
        # At rest the driven face is the target's own rest frame, to the landmark.
        assert np.abs(project(found)[rest] - other[8] + [0, 0, other[8, :468, 2].mean()]).max() < (
            0.02
        )
        turn = np.swapaxes(driving.rotation[rest][None], 1, 2) @ driving.rotation
        assert apart(target.rotation[8] @ turn, found.rotation).max() < 1e-4
        # Centimetres stay centimetres.
        np.testing.assert_allclose(
            np.linalg.norm(found.translation - found.translation[rest], axis=1),
            np.linalg.norm(driving.translation - driving.translation[rest], axis=1),
            atol=1e-5,
        )


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_strength_of_head_motion(mode):
    *_, points = filmed(0)
    *_, other = filmed(1)
    driving, target = fit_head(points, WIDTH, HEIGHT), fit_head(other, WIDTH, HEIGHT)
    pose = neutral_pose(target)
    full, half, still = (retarget(driving, target.shape, pose, mode, motion=m) for m in (1, 0.5, 0))
    rest = neutral_frame(driving)
    assert apart(still.rotation, still.rotation[0]).max() < 1e-4
    assert np.ptp(still.translation, axis=0).max() < 1e-9
    np.testing.assert_allclose(still.rotation[0], full.rotation[rest], atol=1e-9)
    # Half of the way on the same arc: twice it is the whole.
    step = half.rotation @ half.rotation[rest].T
    np.testing.assert_allclose(step @ step @ full.rotation[rest], full.rotation, atol=1e-6)
    np.testing.assert_allclose(
        2 * (half.translation - half.translation[rest]),
        full.translation - full.translation[rest],
        atol=1e-9,
    )
    np.testing.assert_array_equal(still.expression, full.expression)
    assert np.ptp(still.expression[:, CHIN, 1]) > 0.5


def test_closed_eyes_close_on_other_eyes_and_lips_do_not_cross():
    """The driver's eyes are smaller, so their own offset would leave a gap, or cross."""
    for own, other in ((0, 1), (1, 0)):
        shape, offsets, turns, places, _ = filmed(own)
        gap = shape[LOWER_LIDS] - shape[UPPER_LIDS]
        closed = np.arange(len(offsets)) % 8 == 4
        offsets[np.ix_(closed, UPPER_LIDS)] += 0.97 * gap
        driving = fit_head(seen_by_camera(shape, offsets, turns, places), WIDTH, HEIGHT)
        target = fit_head(filmed(other)[-1], WIDTH, HEIGHT)
        face = [
            (h.shape + h.expression)[:, MEDIAPIPE_TO_68, :2]
            for h in (driving, retarget(driving, target.shape, neutral_pose(target)))
        ]
        theirs, ours = (eye_opening(f).mean(1) for f in face)
        assert ours[closed].max() < 0.1 * np.median(ours)
        np.testing.assert_allclose(ours / np.median(ours), theirs / np.median(theirs), atol=0.03)
        assert (face[1][:, 66, 1] - face[1][:, 62, 1]).min() > -0.02


def flame_like(shape, offsets, turns, scale, places):
    """A tracker of 68 points before an orthographic camera, in its own axes and unit."""
    axes = matrix(5, -8, 3)
    unit = 0.01
    return HeadTrack(
        turns @ axes.T,
        np.stack([places[:, 0], places[:, 1], 0 * places[:, 0]], 1),
        scale / unit,
        unit * shape[MEDIAPIPE_TO_68] @ axes.T,
        unit * offsets[:, MEDIAPIPE_TO_68] @ axes.T,
        Camera(WIDTH, HEIGHT, "orthographic"),
    )


def test_a_head_of_68_points_drives_too():
    """The same person seen by both trackers: the same motion, whatever axes and unit."""
    shape, offsets, turns, places, points = filmed(0)
    head = fit_head(points, WIDTH, HEIGHT)
    pixels = FOCAL * places[:, :2] / places[:, 2:] + [WIDTH / 2, HEIGHT / 2]
    other = flame_like(shape, offsets, turns, FOCAL / places[:, 2], pixels)
    assert np.abs(other.camera.project(rebuild(other)) - points[:, MEDIAPIPE_TO_68, :2]).max() < 30
    target = fit_head(filmed(1, near=60.0)[-1], WIDTH, HEIGHT)
    for mode in ("relative", "absolute"):
        a, b = (
            retarget(h, target.shape, neutral_pose(target), mode, neutral=7) for h in (head, other)
        )
        assert b.shape.shape == (68, 3)
        np.testing.assert_array_equal(b.shape, target.shape[MEDIAPIPE_TO_68])
        if mode == "relative":
            # The two neutral shapes are laid onto the target's by different points.
            assert apart(a.rotation, b.rotation).max() < 4
            difference = a.translation - b.translation
            assert np.abs(difference - difference[7]).max() < 1
            openings = [h.expression[:, i, 1] for h, i in ((a, 152), (b, 8))]
            assert np.corrcoef(*openings)[0, 1] > 0.99
        away = np.linalg.norm(project(a)[:, MEDIAPIPE_TO_68, :2] - project(b)[..., :2], axis=-1)
        assert away.mean() < 0.05 * WIDTH


def test_neutral_frame_is_at_rest():
    shape = person(0)
    turns = np.stack([matrix(a) for a in np.linspace(-20, 20, 21)])
    offsets = np.zeros((21, 478, 3))
    offsets[:, LOWER_LIP + CHIN, 1] = 1.0  # talks all the time,
    offsets[[2, 9, 10], :] = 0  # but for these,
    offsets[10, UPPER_LIDS] += shape[LOWER_LIDS] - shape[UPPER_LIDS]  # and blinks once
    places = np.tile([0, 0, 45.0], (21, 1))
    head = fit_head(seen_by_camera(shape, offsets, turns, places), WIDTH, HEIGHT)
    assert neutral_frame(head) == 9
    assert neutral_pose(head)["frame"] == 9 and neutral_pose(head, 3)["frame"] == 3
    one = fit_head(seen_by_camera(shape, offsets[:1], turns[:1], places[:1]), WIDTH, HEIGHT)
    assert neutral_frame(one) == 0


def test_bad_calls():
    *_, points = filmed(0, 5)
    with pytest.raises(VPGCError, match=r"\(frames, 478, 3\).*received \(3, 68, 2\)"):
        fit_head(np.zeros((3, 68, 2)), WIDTH, HEIGHT)
    with pytest.raises(VPGCError, match="at least one frame"):
        fit_head(points[:0], WIDTH, HEIGHT)
    bad = points.copy()
    bad[3, 5] = np.nan
    with pytest.raises(VPGCError, match="frame 3 are not finite"):
        fit_head(bad, WIDTH, HEIGHT)
    bad[3] = 7
    with pytest.raises(VPGCError, match="frame 3 .* all in one place"):
        fit_head(bad, WIDTH, HEIGHT)
    head = fit_head(points, WIDTH, HEIGHT)
    pose = neutral_pose(head)
    for keywords, message in (
        ({"mode": "both"}, "no retargeting mode 'both'"),
        ({"motion": 1.5}, r"head motion is 1.5: choose one from 0"),
        ({"motion": float("nan")}, "head motion is nan"),
        ({"neutral": 5}, "neutral frame 5 is not in the driving clip of 5"),
        ({"neutral": -1}, "neutral frame -1"),
    ):
        with pytest.raises(VPGCError, match=message):
            retarget(head, head.shape, pose, **keywords)
    with pytest.raises(VPGCError, match="478 points does not fit a target of 70"):
        retarget(head, head.shape[:70], pose)


def test_canonical_head_is_read_from_the_trackers_file(tmp_path):
    vertices, weights = canonical_head()
    assert vertices.shape == (468, 3) and weights.shape == (468,)
    # Symmetric; some 15 cm wide; the chin below the forehead, the nose nearest to the camera.
    assert vertices[33] == pytest.approx(vertices[263] * [-1, 1, 1], abs=1e-4)
    assert 12 < np.ptp(vertices[:, 0]) < 18
    assert vertices[152, 1] > vertices[10, 1] and vertices[4, 2] < vertices[234, 2]
    assert (weights > 0).sum() == 33 and not weights[[13, 14, 159, 145]].any()
    with zipfile.ZipFile(tmp_path / "x.task", "w") as bundle:
        bundle.writestr("other", b"")
    (tmp_path / "y.task").write_bytes(b"no bundle")
    with zipfile.ZipFile(tmp_path / "z.task", "w") as bundle:
        bundle.writestr("geometry_pipeline_metadata_landmarks.binarypb", b"\x0a\x80\x80")
    for name in "xyz":
        with pytest.raises(VPGCError, match=f"{name}.task does not hold the canonical head"):
            canonical_head(tmp_path / f"{name}.task")
