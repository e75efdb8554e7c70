import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.shots import (
    choose,
    clock,
    confidence,
    find_persons,
    find_repeated,
    find_shots,
    parse_time,
)
from keras_vpgc.data.tracking import Faces

pytestmark = pytest.mark.once

RATE = 25


def clip(count, people, cuts=()):
    """Faces out of boxes: `people` are functions of the frame that give (x, y, size) or None."""
    shape = np.random.default_rng(0).uniform(-0.5, 0.5, size=(478, 3))
    shape[0], shape[1] = -0.5, 0.5
    frames, points, owners = [], [], []
    for frame in range(count):
        for who, place in enumerate(people):
            if place(frame) is not None:
                x, y, size = place(frame)
                frames.append(frame)
                owners.append(who)
                points.append(shape * size + [x, y, 0])
    cut = np.ones(count, "float32")
    cut[list(cuts)] = 90
    faces = Faces(
        np.array(frames),
        np.array(points, "float32").reshape(-1, 478, 3),
        np.zeros((len(frames), 52), "float32"),
        np.zeros((len(frames), 4, 4), "float32"),
        cut,
        np.full(count, 9.0, "float32"),
    )
    return faces, np.array(owners), np.arange(count) / RATE


def persons_of(count, people, cuts=()):
    faces, owners, times = clip(count, people, cuts)
    shots = find_shots(faces.cut)
    persons = find_persons(faces, shots, times)
    return persons, owners, shots, times


def test_cuts_stand_out_from_what_is_usual_around():
    cut = np.full(60, 2.0)
    cut[0] = 0
    cut[20], cut[25] = 80, 30
    cut[40:50] = 25  # a camera that swings
    assert find_shots(cut).tolist() == [0, 20, 25]
    assert find_shots([0, 14, 0, 0]).tolist() == [0]
    assert find_shots([0.0]).tolist() == [0]
    assert find_shots([0, 70]).tolist() == [0, 1]


def test_repeated_frames_are_still_between_frames_that_are_not():
    doubled = np.tile([25.0, 2.5], 20)
    assert find_repeated(doubled).tolist() == [False, True] * 20
    pulled_down = np.tile([25.0, 3.0, 25.0, 3.0, 3.0], 8)  # 24 in 60
    assert find_repeated(pulled_down)[5:35].tolist() == [False, True, False, True, True] * 6
    # A head that rests and then moves: nothing repeats.
    assert not find_repeated([0] + [2.5] * 20 + [25.0] * 20 + [2.5] * 20).any()
    assert find_repeated([0] + [0.2] * 10).tolist() == [False] + [True] * 10


def test_persons_are_followed_by_place_and_size():
    """Two who cross at different sizes, one who nods quickly."""
    people = [
        lambda f: (100 + 3 * f, 100, 90),
        lambda f: (400 - 3 * f, 110, 40),
        lambda f: (250, 300 + 30 * np.sin(f), 80),
    ]
    persons, owners, _, _ = persons_of(100, people)
    assert len(persons) == 3
    for person in persons:
        assert len(np.unique(owners[person.faces])) == 1 and len(person.frames) == 100


def test_who_comes_back_alone_is_the_same_and_others_are_not():
    away = range(30, 80)
    alone = [lambda f: None if f in away else ((100, 100, 80) if f < 30 else (300, 120, 70))]
    persons, *_ = persons_of(120, alone)
    assert [len(p.frames) for p in persons] == [70]
    # Much larger, or too soon to have walked: somebody else.
    larger = [lambda f: None if f in away else ((100, 100, 40) if f < 30 else (300, 120, 120))]
    assert len(persons_of(120, larger)[0]) == 2
    leap = [lambda f: (100, 100, 80) if f < 60 else (300, 120, 80)]
    assert len(persons_of(120, leap)[0]) == 2
    # Nobody is linked over a cut.
    persons, _, shots, _ = persons_of(120, [lambda f: (100, 100, 80)], cuts=[50])
    assert shots.tolist() == [0, 50] and [p.shot for p in persons] == [1, 0]


def test_a_flash_of_a_face_is_no_person():
    people = [lambda f: (100, 100, 80), lambda f: (300, 100, 80) if f in range(40, 50) else None]
    persons, _, shots, times = persons_of(120, people)
    assert len(persons) == 1
    choice = choose(persons, shots, times)
    assert (choice.start, choice.stop) == (0, 120)


def test_longest_stretch_of_one_person_is_taken():
    people = [
        lambda f: (100, 100, 80),
        lambda f: (300, 100, 70) if 60 <= f < 100 else None,  # visits
        lambda f: (400, 50, 25),  # far behind
    ]
    persons, owners, shots, times = persons_of(300, people)
    choice = choose(persons, shots, times)
    assert (choice.start, choice.stop) == (100, 300)
    assert set(owners[choice.person.faces]) == {0}
    # Chosen by number: 1 is in most frames; the others may be there.
    by_number = choose(persons, shots, times, 3)
    assert (by_number.start, by_number.stop) == (60, 100)
    assert set(owners[by_number.person.faces]) == {1}
    with pytest.raises(VPGCError, match=r"no person 4; found: 1 \(0:00-0:11, 300 frames, .* 3 \("):
        choose(persons, shots, times, 4)


def test_a_shot_is_never_left():
    persons, _, shots, times = persons_of(200, [lambda f: (100, 100, 80)], cuts=[70])
    choice = choose(persons, shots, times)
    assert (choice.start, choice.stop) == (70, 200)


def test_stretch_begins_and_ends_with_the_face():
    people = [lambda f: (100, 100, 80) if f in range(20, 60) or f in range(150, 180) else None]
    persons, _, shots, times = persons_of(200, people)
    choice = choose(persons, shots, times)
    assert (choice.start, choice.stop) == (20, 180)


def test_nobody_alone_names_everybody():
    persons, _, shots, times = persons_of(100, [lambda f: (100, 100, 80), lambda f: (300, 120, 70)])
    with pytest.raises(
        VPGCError, match=r"1 \(0:00-0:03, 100 frames, 80 px at 100,100\), 2 .*--person"
    ):
        choose(persons, shots, times)


def test_confidence_falls_for_leaps_borders_and_other_shapes(rng):
    faces, _, _ = clip(60, [lambda f: (200, 150, 100)])
    track = faces.track(np.arange(60))
    track.points += rng.normal(scale=0.3, size=track.points.shape).astype("float32")
    track.points[10] += [60, 0, 0]  # a wrong face for one frame
    track.points[20, :, 0] = 200 + 1.5 * rng.normal(size=478) * 50  # no face's shape
    track.points[30:, :, 0] -= 180  # a third of it beyond the edge, too long for a flash
    track.valid[40] = False
    found = confidence(track, 400, 300)
    assert found.dtype == np.float32 and ((found >= 0) & (found <= 1)).all()
    assert found[10] == 0 and found[20] < 0.1 and found[40] == 0
    assert (found[[0, 5, 8, 12, 15, 25]] > 0.95).all()
    inside = (track.points[50, :, 0] >= 0).mean()
    assert found[50] == pytest.approx(np.clip((inside - 0.5) / 0.4, 0, 1), abs=0.05)
    assert 0.2 < found[50] < 0.8


def test_times_in_words_and_back():
    assert [clock(x) for x in (0, 59.9, 75.2, 3723)] == ["0:00", "0:59", "1:15", "1:02:03"]
    for text, seconds in (("75.2", 75.2), ("1:15.5", 75.5), ("1:02:03", 3723), ("0", 0)):
        assert parse_time(text) == seconds
    for text in ("", "a", "1:75", "-3", "1:2:3:4", "inf", "nan"):
        with pytest.raises(VPGCError, match="seconds or H:M:S"):
            parse_time(text)
