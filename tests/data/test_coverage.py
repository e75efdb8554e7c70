import base64
import errno
import html.parser
import json
import os
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from keras_vpgc import VPGCError
from keras_vpgc.data import coverage
from keras_vpgc.data.coverage import (
    BLURRED,
    advise,
    clamp,
    inspect,
    measure,
    measure_signals,
    out_of_range,
    seen_range,
    training_warnings,
)
from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68
from keras_vpgc.data.retarget import Camera, HeadTrack, angles, from_angles

pytestmark = pytest.mark.once
RATE = 25
SIDE = 96


class FakePortrait:
    """A clip whose every value is known, with what `Portrait` has of it.

    `mouth` is the gap over the width, `closed` 0 to 1, `gaze` half widths of the eye, angles in
    degrees.
    """

    def __init__(self, path, count=200, **values):
        def track(name, default=0.0):
            return np.broadcast_to(np.asarray(values.get(name, default), float), count)

        self.path = path
        self.size = SIDE
        self.frame_rate = RATE
        self.valid = np.ones(count, bool)
        self.interpolated = np.zeros(count, bool)
        self.repeated = np.zeros(count, bool)
        self.times = 7.0 + np.arange(count) / RATE  # cut out of a longer recording
        self.blendshapes = np.zeros((count, 52), "float32")
        self.info = {
            "source": "me <&> you.mp4",
            "crop": {"x": 0, "y": 0, "size": 300},
            "size": SIDE,
            "report": {"jitter": 0.25},
        }
        # MediaPipe's axes: y up, z towards the viewer.
        euler = np.stack([track("yaw"), track("pitch"), -track("roll")], -1)
        self.matrices = np.tile(np.eye(4, dtype="float32"), (count, 1, 1))
        self.matrices[:, :3, :3] = Rotation.from_euler("YXZ", euler, degrees=True).as_matrix()

        around = 2 * np.pi * np.arange(478) / 478
        face = np.stack([0.2 * np.cos(around), 0.3 * np.sin(around), 0 * around], -1)
        points = np.tile(face, (count, 1, 1))
        mesh = MEDIAPIPE_TO_68
        for first, middle, iris in ((36, -0.08, 468), (42, 0.08, 473)):
            half = 0.04
            lid = 0.3 * half * (1 - track("closed"))
            for k, (x, up) in enumerate(
                ((-1, 0), (-0.4, 1), (0.4, 1), (1, 0), (0.4, -1), (-0.4, -1))
            ):
                points[:, mesh[first + k], 0] = middle + x * half
                points[:, mesh[first + k], 1] = -0.1 - up * lid
            points[:, iris, 0] = middle + half * track("gaze_x")
            points[:, iris, 1] = -0.1 + half * track("gaze_y")
        points[:, mesh[[48, 54]], :2] = [[-0.05, 0.15], [0.05, 0.15]]
        points[:, mesh[[62, 66]], 0] = 0
        gap = 0.1 * track("mouth")[:, None] / 2
        points[:, mesh[[62, 66]], 1] = 0.15 + gap * [-1, 1]
        points[..., 0] += track("x", 0.5)[:, None]
        points[..., 1] += track("y", 0.5)[:, None]
        self.points = points.astype("float32")
        noise = np.random.default_rng(0).integers(80, 180, (SIDE, SIDE, 3), "uint8")
        self.images = np.tile(noise, (count, 1, 1, 1))

    def frames(self, indices, size=SIDE):
        images = self.images[indices]
        return images if size == SIDE else np.stack([cv2.resize(x, (size, size)) for x in images])


def wave(low, high, count=200, turns=3):
    """From low to high and back, so that both ends last."""
    phase = 2 * np.pi * turns * np.arange(count) / count
    return low + (high - low) * (1 - np.cos(phase)) / 2


def blinking(count, starts, length=4, depth=1.0):
    closed = np.zeros(count)
    for start in starts:
        closed[start : start + length] = depth
    return closed


def rich(path, count=4000):
    """All that the advice asks for."""
    portrait = FakePortrait(
        path,
        count,
        yaw=wave(-25, 25, count, 20),
        pitch=wave(-15, 12, count, 31),
        roll=wave(-9, 9, count, 23),
        mouth=wave(0, 0.8, count, 400),
        closed=blinking(count, range(50, count, 100)),
        gaze_x=wave(-0.5, 0.5, count, 47),
    )
    portrait.blendshapes[:] = wave(0, 0.9, count, 20)[:, None] * np.linspace(0.7, 1, 52)
    return portrait


def report(portrait):
    result = measure(portrait, measure_signals(portrait))
    return {**result, "advice": advise(result)}


def text_of(result, topic):
    return " ".join(item["text"] for item in result["advice"] if item["topic"] == topic)


def test_a_clip_with_everything_needs_no_advice(tmp_path):
    result = report(rich(tmp_path))
    assert result["advice"] == []
    # Ends of the known motions, and what is given back.
    for name, low, high in (("yaw", -25, 25), ("pitch", -15, 12), ("roll", -9, 9)):
        assert result["pose"][name]["least"] == pytest.approx(low, abs=0.2)
        assert result["pose"][name]["greatest"] == pytest.approx(high, abs=0.2)
    assert result["mouth"]["greatest"] == pytest.approx(0.8, abs=0.01)
    assert result["place"]["x"]["median"] == pytest.approx(0.5, abs=0.01)
    assert result["place"]["size"]["median"] == pytest.approx(0.6, abs=0.01)
    assert result["place"]["face_source_pixels"] == 180
    assert result["eyes"]["blinks"] == 40
    assert result["eyes"]["blinks_a_minute"] == 15
    assert result["eyes"]["blink_depth"] == pytest.approx(1, abs=0.01)
    assert result["gaze"]["x"]["greatest"] == pytest.approx(0.5, abs=0.01)
    assert result["seconds"] == {"total": 160, "usable": 160}
    assert result["preparation"] == {"jitter": 0.25}


@pytest.mark.parametrize(
    "values, topic, words, absent",
    [
        (
            {"yaw": np.r_[wave(-8, 0, 100), wave(0, 25, 100)]},
            "yaw",
            "No frame turns farther to the left of the picture (the person's right) than 8 degrees",
            "to the right of the picture",
        ),
        (
            {"yaw": np.r_[wave(-25, 0, 100), wave(0, 6, 100)]},
            "yaw",
            "to the right of the picture (the person's left) than 6 degrees",
            "to the left of the picture",
        ),
        ({"pitch": np.r_[wave(-3, 0, 100), wave(0, 15, 100)]}, "pitch", "farther up", "down"),
        ({"roll": np.r_[wave(-9, 0, 100), wave(0, 2, 100)]}, "roll", "right of the", "left of the"),
        ({"mouth": wave(0, 0.3)}, "mouth", "never opens wider than 0.30", "never close"),
        ({"mouth": wave(0.2, 0.8)}, "mouth", "The lips never close", "never opens"),
        (
            {"closed": blinking(200, (50, 100, 150), depth=0.6)},
            "eyes",
            "never fully closed",
            "stare",
        ),
        (
            {"gaze_x": np.r_[wave(-0.5, 0, 100), wave(0, 0.1, 100)]},
            "gaze",
            "hardly look to the right of the picture (the person's left)",
            "to the left of the picture",
        ),
    ],
)
def test_advice_names_what_is_missing(values, topic, words, absent, tmp_path):
    result = report(FakePortrait(tmp_path, **values))
    assert words in text_of(result, topic)
    assert absent not in text_of(result, topic)


def test_reach_counts_from_the_usual_pose(tmp_path):
    """A camera at the side, and eyes that always look aside, are no fault."""
    result = report(FakePortrait(tmp_path, yaw=wave(-8, 25), gaze_x=wave(-0.5, 0)))
    found = {item["topic"] for item in result["advice"]}
    assert "pitch" in found and not found & {"yaw", "gaze"}


def test_a_few_wrong_frames_do_not_count(tmp_path):
    yaw = np.zeros(400)
    yaw[[100, 300]] = -60
    portrait = FakePortrait(tmp_path, 400, yaw=yaw)
    result = measure(portrait, measure_signals(portrait))
    assert result["pose"]["yaw"]["least"] == 0


def test_blinks_are_counted_and_closed_eyes_are_none(tmp_path):
    closed = blinking(500, (50, 100, 150), depth=0.8)
    closed[200:300] = 1.0  # four seconds
    closed[495:] = 1.0  # the clip ends within
    portrait = FakePortrait(tmp_path, 500, closed=closed)
    eyes = measure(portrait, measure_signals(portrait))["eyes"]
    assert eyes["blinks"] == 3
    assert eyes["blink_depth"] == pytest.approx(0.8, abs=0.01)
    assert eyes["fully_closed_frames"] == 12 + 100 + 5


def moving(count, reach):
    return reach * np.sin(np.arange(count) / 20)


def test_training_is_warned_of_open_eyes_and_of_one_pose(tmp_path):
    assert training_warnings(FakePortrait(tmp_path)) == []  # no coverage report
    count = 500
    # One blink in 20 s, and a head that turns by 4 and nods by 2 degrees in all.
    portrait = FakePortrait(
        tmp_path, count, closed=blinking(count, (50,), depth=0.9), yaw=moving(count, 2),
        pitch=moving(count, 1),
    )  # fmt: skip
    inspect(portrait)
    eyes, pose = training_warnings(portrait)
    shut = int((portrait_closed(portrait) >= 0.75).sum())
    assert f"(frames: {shut}, blinks: 1, in 20 s" in eyes and "rare_frames=0.5" in eyes
    assert "yaw changes by 4 degrees and pitch by 2" in pose and "--motion 0.3" in pose
    assert all(text.count(". ") == 0 and text.endswith(".") for text in (eyes, pose))
    # Who has set it already is not told to.
    assert "rare_frames" not in training_warnings(portrait, rare_frames=0.5)[0]
    # Closed eyes that are nowhere cannot come more often.
    inspect(FakePortrait(tmp_path, count, yaw=moving(count, 20)))
    (text,) = training_warnings(portrait)
    assert "(frames: 0, blinks: 0" in text and "rare_frames" not in text


def test_training_is_not_warned_of_a_clip_that_has_both(tmp_path):
    count = 500
    closed = blinking(count, range(50, 500, 60), depth=0.95)
    # Nodding alone is more than one pose.
    portrait = FakePortrait(tmp_path, count, closed=closed, pitch=moving(count, 8))
    inspect(portrait)
    assert training_warnings(portrait) == []


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_coverage_that_cannot_be_read_warns_of_nothing(tmp_path, text):
    (tmp_path / "coverage.json").write_text(text)
    assert training_warnings(FakePortrait(tmp_path)) == []


def portrait_closed(portrait):
    return measure_signals(portrait)["closed"]


def test_usable_time_counts_seen_new_frames_only(tmp_path):
    portrait = FakePortrait(tmp_path, 1000)
    portrait.valid[:100] = False
    portrait.interpolated[100:150] = True
    portrait.points[:100] = np.nan
    portrait.repeated[200:300:2] = True  # each second frame repeats: no time is lost
    portrait.repeated[401:500] = True  # a frozen picture
    result = report(portrait)
    assert result["frames"] == {
        "total": 1000, "usable": 1000 - 150 - 50 - 99, "without_face": 100, "interpolated": 50,
        "repeated": 149,
    }  # fmt: skip
    assert result["seconds"]["usable"] == pytest.approx(40 - 6 - 3.94 + 0.04, abs=0.05)
    assert "10% of the frames show no face" in text_of(result, "tracking")
    assert "5% of the frames were filled" in text_of(result, "tracking")
    assert f"Only {result['seconds']['usable']:.0f} s are usable" in text_of(result, "length")
    portrait.valid[:-1] = False
    with pytest.raises(VPGCError, match="only 1 usable frame"):
        report(portrait)


def test_blurred_frames_are_found_and_shown(tmp_path):
    portrait = FakePortrait(tmp_path, 100)
    blurred = np.arange(100) % 10 == 3
    for i in np.flatnonzero(blurred):
        portrait.images[i] = cv2.GaussianBlur(portrait.images[i], (0, 0), 2)
    signals = measure_signals(portrait)
    np.testing.assert_array_equal(signals["sharpness"] < BLURRED, blurred)
    result = report(portrait)
    assert result["sharpness"]["blurred"] == pytest.approx(0.1)
    assert "10% of the frames are blurred" in text_of(result, "sharpness")
    # Blur outside of the face is the background's.
    portrait = FakePortrait(tmp_path, 20)
    portrait.images[3, :15] = 128
    assert (measure_signals(portrait)["sharpness"] > 0.9).all()


def test_light(tmp_path):
    portrait = FakePortrait(tmp_path, 100)
    portrait.images[:] = 40
    result = report(portrait)
    assert result["exposure"]["luma"]["median"] == 40
    assert "The face is dark (mean luma 40 of 255)" in text_of(result, "light")
    portrait.images[:, :, ::2] = 255
    result = report(portrait)
    assert result["exposure"]["bright"] == pytest.approx(0.5, abs=0.03)
    assert "50% of the face is burnt out" in text_of(result, "light")
    portrait.images[:50] = 100
    portrait.images[50:] = 150
    assert "changes by 40% over the clip" in text_of(report(portrait), "light")


def test_fast_motion_and_small_faces(tmp_path):
    # Path in half of a frame's time: 0.018 of the picture, 3% of the face.
    portrait = FakePortrait(tmp_path, 200, x=0.5 + 0.018 * (np.arange(200) % 4 >= 2) * 2)
    portrait.info["crop"]["size"] = 60
    result = report(portrait)
    assert result["motion"]["fast"] == pytest.approx(0.5, abs=0.01)
    assert result["motion"]["path"]["greatest"] == pytest.approx(0.03, abs=0.001)
    assert "moves so fast" in text_of(result, "motion")
    assert "enlarged 1.60 times" in text_of(result, "resolution")
    assert "only 36 pixels high" in text_of(result, "resolution")


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text += data


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    portrait = rich(tmp_path, 300)
    monkeypatch.setattr(coverage.os, "replace", full)
    with pytest.raises(VPGCError, match=f"no space left for {tmp_path}: make some"):
        inspect(portrait)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("keras_vpgc.errors.tempfile.TemporaryFile", full)
    monkeypatch.setattr(coverage, "measure_signals", None)  # not reached
    with pytest.raises(VPGCError, match=f"no space left for {tmp_path}: make some"):
        inspect(portrait)


def test_page_holds_all_it_shows(tmp_path):
    portrait = rich(tmp_path, 300)
    portrait.images[:, :20, :20] = 0
    portrait.images[140, :20, :20] = 250
    portrait.matrices[140, :3, :3] = Rotation.from_euler("Y", 35, degrees=True).as_matrix()
    result = inspect(portrait)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["coverage.html", "coverage.json"]
    assert json.loads((tmp_path / "coverage.json").read_text()) == result
    text = (tmp_path / "coverage.html").read_text()
    page = Page(text)
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    assert "What me <&> you.mp4 holds" in page.text
    for item in result["advice"]:
        assert item["text"] in page.text
    assert text.count("<svg") == 12
    # Colours are the page's, so that they change with it.
    assert "#0a0b" not in text and "prefers-color-scheme: dark" in text
    ids = re.findall(r'<g id="([^"]+)"|<clipPath id="([^"]+)"', text)
    clips = [b for _, b in ids if b]
    assert len(clips) == len(set(clips))
    found = re.search(r"most to the picture&#x27;s right[^>]*base64,([^\"]+)", text)
    jpeg = np.frombuffer(base64.b64decode(found[1]), "uint8")
    thumbnail = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert thumbnail.shape == (SIDE, SIDE, 3)
    assert thumbnail[4:16, 4:16].mean() > 240


# --- the guard ---


def head_track(rng, count=600, points=478, correlated=True):
    """A head whose yaw and pitch go together and whose mouth, lids and irises move."""
    along = np.linspace(-1, 1, count) * 15
    across = rng.normal(size=count)
    turn = np.stack([along + across, along - across if correlated else across, across], -1)
    shape = rng.normal(size=(478, 3)) * 4
    modes = np.zeros((5, 478, 3))
    for k, places in enumerate((slice(48, 68), slice(36, 48), slice(0, 17), slice(17, 27))):
        modes[k, MEDIAPIPE_TO_68[places]] = rng.normal(size=(len(range(*places.indices(68))), 3))
    weights = rng.uniform(-1, 1, size=(count, 5))
    expression = np.einsum("nk,kpi->npi", weights, modes)
    expression += 0.01 * rng.normal(size=expression.shape)
    expression[:, 468:, 0] = rng.uniform(-0.3, 0.3, size=(count, 1))
    if points == 68:
        shape, expression = shape[MEDIAPIPE_TO_68], expression[:, MEDIAPIPE_TO_68]
    place = rng.normal(size=(count, 3)) + [0, 0, 40]
    return HeadTrack(from_angles(turn), place, np.ones(count), shape, expression, Camera(640, 480))


def same(a, b, fields=("rotation", "translation", "scale", "expression")):
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in fields)


def part(head, places):
    fields = ("rotation", "translation", "scale", "expression")
    return replace(head, **{k: getattr(head, k)[places] for k in fields})


@pytest.fixture
def head(rng):
    return head_track(rng)


@pytest.fixture
def seen(head):
    return json.loads(json.dumps(seen_range(head)))


@pytest.fixture
def wild(head, rng):
    """Motion far beyond, that moves smoothly."""
    count = 300
    t = np.linspace(0, 6, count)
    turn = np.stack([40 * np.sin(t), 30 * np.cos(2 * t), 20 * np.sin(3 * t)], -1)
    weights = np.stack([np.sin((k % 5 + 1) * t + k) for k in range(8)], -1)
    pick = rng.choice(len(head.rotation), 8)
    expression = 2 * np.einsum("nk,kpi->npi", weights, head.expression[pick])
    expression += 0.2 * np.sin(t)[:, None, None] * rng.normal(size=(478, 3))
    place = np.stack([9 * np.sin(t), 5 * np.cos(t), 40 + 9 * np.sin(2 * t)], -1)
    return HeadTrack(
        from_angles(turn), place, 1 + 0.5 * np.sin(t), head.shape, expression, head.camera
    )


def test_seen_range_is_small_and_holds_its_own_clip(head, seen):
    assert len(json.dumps(seen)) < 100_000
    report = out_of_range(head, seen)
    assert report["share"] < 0.01 and report["warning"] is None
    assert report["parameters"]["yaw"]["seen"] == pytest.approx([-18, 18], abs=2)


def test_frames_within_stay_exactly(head, seen):
    limited, report = clamp(head, seen)
    inside = np.ones(len(head.rotation), bool)
    if report["share"]:
        inside = np.array([out_of_range(part(head, [i]), seen)["share"] == 0 for i in range(600)])
    assert inside.mean() > 0.99
    assert same(part(limited, inside), part(head, inside))


def test_clamped_track_is_within_and_a_second_call_changes_nothing(wild, seen):
    before = out_of_range(wild, seen)
    limited, report = clamp(wild, seen)
    assert report == before and report["share"] > 0.9
    again, after = clamp(limited, seen)
    assert after["share"] == 0 and after["warning"] is None
    assert same(again, limited)
    np.testing.assert_allclose(np.linalg.det(limited.rotation), 1, atol=1e-9)


def test_turns_go_to_the_nearest_seen_ones(wild, seen):
    """OpenCV's distance to the polygon is how far yaw and pitch are moved, and onto its edge."""
    polygon = np.array(seen["yaw_pitch"], "float32")
    before = angles(wild.rotation)[:, :2]
    after = angles(clamp(wild, seen)[0].rotation)[:, :2]
    for a, b in zip(before, after, strict=True):
        distance = cv2.pointPolygonTest(polygon, a.tolist(), True)
        moved = np.linalg.norm(a - b)
        assert moved == pytest.approx(max(0, -distance), abs=2e-3)
        assert cv2.pointPolygonTest(polygon, b.tolist(), True) > -2e-3


def test_a_corner_that_was_never_seen_is_out(head, seen):
    """Yaw +13 and pitch -13 were each seen, but never together."""
    corner = replace(part(head, [300]), rotation=from_angles(np.array([[13.0, -13.0, 0.0]])))
    middle = replace(corner, rotation=from_angles(np.array([[13.0, 13.0, 0.0]])))
    report = out_of_range(corner, seen)["parameters"]
    assert report["yaw"]["share"] == report["pitch"]["share"] == 1
    assert report["yaw"]["seen"][0] < -13 and report["yaw"]["seen"][1] > 13
    assert out_of_range(middle, seen)["parameters"]["yaw"]["share"] == 0
    yaw, pitch, _ = angles(clamp(corner, seen)[0].rotation)[0]
    assert abs(yaw) < 6 and abs(pitch) < 6


def test_result_moves_no_faster_than_the_driving_track(wild, seen):
    limited, _ = clamp(wild, seen)

    def steps(values):
        return np.linalg.norm(np.diff(values, axis=0).reshape(len(values) - 1, -1), axis=1)

    yaw_pitch = [angles(h.rotation)[:, :2] for h in (wild, limited)]
    assert (steps(yaw_pitch[1]) <= steps(yaw_pitch[0]) + 1e-6).all()
    assert (steps(limited.translation) <= steps(wild.translation) + 1e-9).all()
    assert steps(limited.expression).max() <= 1.5 * steps(wild.expression).max()


def test_frame_by_frame_is_the_same(wild, seen):
    whole, _ = clamp(wild, seen)
    for i in (0, 50, 120):
        one, _ = clamp(part(wild, [i]), seen)
        for name in ("rotation", "translation", "expression"):
            np.testing.assert_allclose(getattr(one, name)[0], getattr(whole, name)[i], atol=1e-9)


def test_expressions_are_brought_back_towards_what_was_seen(head, seen):
    far = replace(head, expression=3 * head.expression)
    limited, report = clamp(far, seen)
    assert report["parameters"]["expression"]["share"] > 0.5
    assert 2 < report["parameters"]["expression"]["worst"] < 4
    size = [
        np.linalg.norm(h.expression[:, MEDIAPIPE_TO_68], axis=(1, 2)).max()
        for h in (head, limited, far)
    ]
    assert size[1] < 1.5 * size[0] < size[2]
    # Still the same kind of expression, with the driver's gaze.
    a, b = limited.expression[:, MEDIAPIPE_TO_68], far.expression[:, MEDIAPIPE_TO_68]
    cosine = (a * b).sum((1, 2)) / np.linalg.norm(a, axis=(1, 2)) / np.linalg.norm(b, axis=(1, 2))
    assert np.median(cosine) > 0.9
    gaze = [h.expression[:, 470, 0] for h in (limited, far)]
    assert np.corrcoef(*gaze)[0, 1] > 0.95
    # Something of another kind, a dented cheek, is made smaller.
    dent = np.zeros((478, 3))
    dent[MEDIAPIPE_TO_68[30]] = 5.0
    middle = part(head, [300])
    dented = replace(middle, expression=middle.expression + dent)
    limited, report = clamp(dented, seen)
    assert report["parameters"]["expression"]["share"] == 1
    moved = np.abs(limited.expression - middle.expression)[0, MEDIAPIPE_TO_68[30]]
    assert moved.max() < 0.5


def test_a_track_of_68_points_is_limited_alike(wild, seen):
    small = replace(
        wild, shape=wild.shape[MEDIAPIPE_TO_68], expression=wild.expression[:, MEDIAPIPE_TO_68]
    )
    a, b = clamp(small, seen), clamp(wild, seen)
    np.testing.assert_allclose(a[0].expression, b[0].expression[:, MEDIAPIPE_TO_68], atol=1e-9)
    assert a[1] == b[1]


def test_heads_of_68_points_and_still_ones(rng):
    small = head_track(rng, points=68)
    assert out_of_range(small, seen_range(small))["share"] < 0.01
    still = replace(small, expression=np.zeros_like(small.expression))
    ranges = seen_range(still)
    assert ranges["expression"]["components"] == 0
    limited, report = clamp(small, ranges)
    assert report["parameters"]["expression"]["share"] == 1
    assert np.abs(limited.expression).max() < 1e-6


def test_warning_says_what_is_out(head, seen):
    turned = replace(head, rotation=from_angles(angles(head.rotation) + [40.0, 0.0, 0.0]))
    warning = out_of_range(turned, seen)["warning"]
    assert re.match(r"\d+% of the driving frames leave what the puppet has seen", warning)
    assert "yaw reaches 5" in warning and "--guard clamp" in warning
    assert "expression" not in warning and "distance" not in warning


def test_bad_tracks(head, seen, rng):
    with pytest.raises(VPGCError, match="at least 2 frames; received 1"):
        seen_range(part(head, [0]))
    broken = replace(head, expression=head.expression.copy())
    broken.expression[3] = np.nan
    with pytest.raises(VPGCError, match="finite"):
        seen_range(broken)
    small = head_track(rng, points=68)
    with pytest.raises(VPGCError, match="478 points cannot be compared .* puppet of 68"):
        out_of_range(head, seen_range(small))


@pytest.mark.slow
def test_guard_on_real_people(test_data):
    """A talking man's own later frames are mostly within; a face that pulls grimaces is not.

    Some are out: he looks up there as he never did before.
    """
    from keras_vpgc.data.prepare import track_clip
    from keras_vpgc.data.retarget import fit_head, neutral_pose, retarget

    man = track_clip(test_data / "franck.webm", end=120, progress=False)
    head = fit_head(man.points, 360, 288)
    seen = seen_range(part(head, slice(0, 2400)))
    assert out_of_range(part(head, slice(2425, 3000)), seen)["share"] < 0.2
    woman = track_clip(test_data / "expressive_woman_480.mp4", end=13.3, progress=False)
    driven = retarget(fit_head(woman.points, 480, 480), head.shape, neutral_pose(head))
    limited, report = clamp(driven, seen)
    assert report["share"] > 0.5 and report["warning"]
    assert out_of_range(limited, seen)["share"] == 0
