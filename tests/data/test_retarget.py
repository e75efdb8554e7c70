import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.retarget import fit_head, neutral_pose, rebuild, retarget

pytestmark = pytest.mark.once
# Points that `fit_head` takes for expression only.
MOUTH = [13, 14, 17, 0]


def rotation(yaw, pitch=0.0):
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array(
        [[1, 0, 0], [0, cp, -sp], [0, sp, cp]]
    )


def clip(shape, yaws, size=0.2, place=(0.5, 0.5, 0.0), openings=None):
    """A head of a given shape that turns; its mouth opens by `openings`."""
    frames = []
    for i, yaw in enumerate(yaws):
        head = shape.copy()
        if openings is not None:
            head[MOUTH, 1] += openings[i]
        frames.append(size * head @ rotation(yaw).T + place)
    return np.stack(frames)


@pytest.fixture
def shapes(rng):
    first = rng.normal(size=(478, 3))
    return first, first * [1.3, 0.9, 1.0] + 0.05 * rng.normal(size=(478, 3))


YAWS = np.concatenate([np.linspace(-0.4, 0.4, 21), np.zeros(20)])


def test_head_is_taken_apart_and_put_together(shapes, rng):
    points = clip(shapes[0], YAWS) + 0.001 * rng.normal(size=(len(YAWS), 478, 3))
    head = fit_head(points)
    np.testing.assert_allclose(rebuild(head), points, atol=1e-9)
    # Rotations are rotations; their differences are the true ones.
    np.testing.assert_allclose(
        np.einsum("nij,nkj->nik", head.rotation, head.rotation),
        np.broadcast_to(np.eye(3), head.rotation.shape),
        atol=1e-9,
    )
    turn = head.rotation[20] @ head.rotation[0].T
    assert np.arccos((np.trace(turn) - 1) / 2) == pytest.approx(0.8, abs=0.02)
    assert np.abs(head.expression).mean() < 0.02


def test_expression_is_apart_from_pose(shapes):
    openings = np.where(np.arange(len(YAWS)) % 4 == 0, 0.5, 0.0)
    head = fit_head(clip(shapes[0], YAWS, openings=openings))
    moved = np.abs(head.expression[:, MOUTH]).max((1, 2))
    assert moved[openings > 0].min() > 10 * moved[openings == 0].max()


def test_own_motion_comes_back(shapes):
    points = clip(shapes[0], YAWS)
    head = fit_head(points)
    for mode in ("relative", "absolute"):
        found = retarget(head, head.shape, neutral_pose(head), mode)
        np.testing.assert_allclose(found, points, atol=1e-5)


def test_another_persons_shape_stays_and_the_pose_is_taken(shapes):
    """Driver's shape, place and size differ: the target must look like itself, turned."""
    target = clip(shapes[1], np.zeros(30))
    metadata = fit_head(target)
    driving = fit_head(clip(shapes[0], YAWS, size=0.1, place=(0.3, 0.6, 0.0)))
    found = retarget(driving, metadata.shape, neutral_pose(metadata), "relative")
    # The driving clip's middle pose is yaw 0, so the truth is the target turned by the yaws.
    pivot = target[0].mean(0)
    for i in (0, 10, 20, 30):
        a = found[i] - found[i].mean(0)
        b = (target[0] - pivot) @ rotation(YAWS[i]).T
        assert np.abs(a - b).max() < 0.02 * np.ptp(b)


def test_a_nearer_driver_does_not_move_the_target_farther(shapes):
    shift = np.zeros((20, 1, 3))
    shift[:, 0, 0] = np.linspace(0, 0.1, 20)
    driving = fit_head(clip(shapes[0], np.zeros(20), size=0.4) + shift)
    pose = {**neutral_pose(driving), "scale": neutral_pose(driving)["scale"] / 2}
    found = retarget(driving, driving.shape, pose, "relative")
    moved = found[-1].mean(0) - found[0].mean(0)
    assert moved[0] == pytest.approx(0.05, abs=1e-3)


def test_bad_calls(shapes):
    with pytest.raises(VPGCError, match="478, 3"):
        fit_head(np.zeros((3, 68, 2)))
    head = fit_head(clip(shapes[0], YAWS))
    with pytest.raises(VPGCError, match="no retargeting mode 'both'"):
        retarget(head, head.shape, neutral_pose(head), "both")
