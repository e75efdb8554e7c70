import base64
import copy
import io
import itertools
import json
import re

import av
import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data.sound import read_sound
from keras_vpgc.evaluation import crossed_interval, krippendorff_alpha, study_clips
from keras_vpgc.evaluation.study import make_study, read_study
from tests.evaluation.videos import write_talking

pytestmark = pytest.mark.once

RED, GREEN, BLUE = (200, 30, 30), (30, 180, 30), (40, 40, 200)
QUESTIONS = ("quality", "realness", "synchronisation")


def make(systems, output, **options):
    return make_study(systems, output, **{"size": 64, "progress": False, **options})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two systems' folders of two clips, and the driving videos with sound."""
    folder = tmp_path_factory.mktemp("systems")
    for name, colour, beep in (("crimson", RED, None), ("verdant", GREEN, None), ("led", BLUE, 0)):
        (folder / name).mkdir()
        for scene in ("maybird", "obsidian"):
            write_talking(folder / name / f"{scene}.mp4", colour, beep=beep)
    return {name: folder / name for name in ("crimson", "verdant", "led")}


@pytest.fixture(scope="module")
def study(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("study") / "s"
    systems = {name: folders[name] for name in ("crimson", "verdant")}
    result = make(systems, output, references=folders["led"], repeats=1)
    assert result["clips"] == 4 and result["notes"] == []
    return output


def embedded(folder):
    """What the page holds: identifier -> MP4 bytes, and its settings."""
    text = (folder / "study.html").read_text()
    found = re.findall(r'<script type="text/plain" id="v-(\w+)">(.*?)</script>', text)
    settings = json.loads(re.search(r'id="study">(.*?)</script>', text)[1])
    return {name: base64.b64decode(data) for name, data in found}, settings


def content(data):
    """Mean colour of the last frame, size, seconds, and the sound of an MP4."""
    with av.open(io.BytesIO(data)) as container:
        assert not set(container.metadata) - {"major_brand", "minor_version", "compatible_brands"}
        frames = [x.to_ndarray(format="rgb24") for x in container.decode(video=0)]
    sound = np.zeros((2, 0))
    with av.open(io.BytesIO(data)) as container:
        if container.streams.audio:
            assert container.streams.audio[0].rate == 48000
            parts = [x.to_ndarray() for x in container.decode(audio=0) if x.pts >= 0]
            sound = np.concatenate(parts, axis=1)
    colour = frames[-1][20:44, 20:44].mean(axis=(0, 1))
    return colour, frames[0].shape, len(frames), sound


def test_nothing_in_the_page_tells_whose_a_clip_is(study, folders):
    clips, settings = embedded(study)
    key = json.loads((study / "key.json").read_text())
    assert set(clips) == set(key["items"]) and len(clips) == 6
    page = (study / "study.html").read_bytes()
    for word in ("crimson", "verdant", "maybird", "obsidian", str(folders["led"].parent)):
        assert word.encode() not in page
        assert not any(word.encode() in data for data in clips.values())
    assert b"http://" not in page and b"https://" not in page
    # Sorted by names that are random; another study of the same clips has others.
    assert list(clips) == sorted(clips)
    assert [x["id"] for x in settings["items"]] == sorted(x["id"] for x in settings["items"])
    shapes = set()
    for identifier, data in clips.items():
        colour, shape, frames, sound = content(data)
        whose = key["items"][identifier]
        wanted = {"crimson": RED, "verdant": GREEN, None: BLUE}[whose.get("system")]
        assert np.abs(colour - wanted).max() < 12
        # The reference's sound for all, and the reference itself silent.
        assert (abs(sound).max(initial=0) > 0.1) == ("system" in whose)
        shapes.add((shape, frames))
    assert shapes == {((64, 64, 3), 15)}
    for item in settings["items"]:
        reference = key["items"][item["reference"]]
        assert reference["reference"] and reference["clip"] == key["items"][item["id"]]["clip"]


def test_clips_of_a_scene_become_alike(tmp_path):
    one = write_talking(tmp_path / "one.mp4", RED, 1.4, (96, 64), beep=0.4)
    two = write_talking(tmp_path / "two.mp4", GREEN, 0.8, (64, 64), rate=30, beep=0.4)
    result = make({"a b": one, "c|d": [two]}, tmp_path / "s", seconds=1.2)
    assert "cut to 0.8 s" in result["notes"][0] and "25 to 30 frames" in result["notes"][1]
    assert "differ in shape" in result["notes"][2] and len(result["notes"]) == 3
    clips, settings = embedded(tmp_path / "s")
    for data in clips.values():
        colour, shape, frames, sound = content(data)
        assert shape == (64, 64, 3)
        assert abs(sound.shape[1] / 48000 - 0.8) < 0.05
        # The tone comes when it did, in both ears.
        for side in sound:
            assert abs(np.argmax(abs(side) > 0.2) / 48000 - 0.4) < 0.03
        assert frames == (20 if colour[0] > 100 else 24)
    assert "speech" in settings["questions"][2]["text"]
    assert "reference" not in settings["questions"][2]["text"]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_that_begins_late_stays_late(ending, tmp_path):
    path = write_talking(tmp_path / f"a.{ending}", RED, 0.8, beep=0.2, late=0.3)
    sound = read_sound(path, 1)
    assert sound.shape == (2, 48000)
    assert abs(np.argmax(abs(sound[0]) > 0.2) / 48000 - 0.5) < 0.01
    assert read_sound(write_talking(tmp_path / "b.mp4", RED), 1) is None


def test_pictures_keep_their_shape():
    box = study_clips.Box(64, 64)
    wide = box.fit(np.full((32, 64, 3), 255, "uint8"))
    assert wide.shape == (64, 64, 3)
    assert (wide[16:48] == 255).all() and not wide[:16].any() and not wide[48:].any()
    # Nearly a square is one: borders would tell it from the others.
    assert (box.fit(np.full((128, 127, 3), 255, "uint8")) == 255).all()


def test_what_cannot_be_made(folders, study, tmp_path):
    one, two = folders["crimson"], folders["verdant"]
    silent, loud = one / "maybird.mp4", folders["led"] / "maybird.mp4"
    few = tmp_path / "few"
    few.mkdir()
    (tmp_path / "none").mkdir()
    write_talking(few / "maybird.mov", GREEN)
    out = tmp_path / "s"
    for systems, options, words in (
        ({}, {}, "no system to rate"),
        ({"a": one, "b": few}, {}, "'b' has no clip 'obsidian'"),
        ({"b": few, "a": one}, {}, "'b' has no clip 'obsidian'"),
        ({"a": one, "b": silent}, {}, "one being a folder"),
        ({"a": [one, silent]}, {}, "one folder, or videos"),
        ({"a": [silent, silent], "b": silent}, {}, "'b' has 1 clips and .*'a' 2"),
        ({"a": tmp_path / "none"}, {}, "holds no video"),
        ({"a": one}, {"references": few}, "The reference has no clip 'obsidian'"),
        ({"a": silent, "b": loud}, {}, "'b' has sound and 'a' has none"),
        ({"a": one, "b": two}, {}, "cannot be judged without sound or a reference"),
        ({"a": loud}, {"sound": "none"}, "cannot be judged without sound or a reference"),
        ({"a": loud}, {"sound": "reference"}, "reference of clip '1' has no sound"),
        ({"a": loud}, {"sound": "loud"}, "no sound 'loud'"),
        ({"a": loud}, {"size": 8}, "size of 8"),
        ({"a": loud}, {"seconds": 0}, "0 seconds"),
        ({"a": loud}, {"repeats": 1}, "at most half"),
        ({"a": loud}, {"max_megabytes": 0}, "above 0"),
        ({"a": loud}, {"max_megabytes": 0.001}, r"about 0\.\d+ MB large, .*--size \(now 64\)"),
        ({"a\n": loud}, {}, "no name for a system"),
        ({"a": tmp_path / "no.mp4"}, {}, "There is no file"),
    ):
        with pytest.raises(VPGCError, match=words):
            make(systems, out, **options)
    with pytest.raises(VPGCError, match="holds a study already"):
        make({"a": loud}, study)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["few", "none"]


def answers_of(folder, number, rate, count=None, again=None):
    """A rater's file; `rate(system, clip)` gives three ratings."""
    key = json.loads((folder / "key.json").read_text())
    items = {k: v for k, v in key["items"].items() if "system" in v}
    order = np.random.default_rng(number).permutation(sorted(items)).tolist()
    order.append(order[0])
    given = []
    for place, identifier in enumerate(order[:count]):
        own = rate(items[identifier]["system"], items[identifier]["clip"])
        if place == len(items) and again is not None:
            own = again
        ratings = dict(zip(QUESTIONS, own, strict=True))
        given.append({"item": identifier, "ratings": ratings, "seconds": 5.5, "plays": 1})
    return {
        "format": "keras_vpgc study answers", "version": 1, "study": key["study"],
        "rater": f"{number:016x}", "complete": len(given) == len(order), "order": order,
        "answers": given, "comment": "",
    }  # fmt: skip


def save(path, value):
    path.write_text(json.dumps(value))
    return path


def test_scores_are_those_of_the_ratings(study, tmp_path, rng):
    table = rng.integers(1, 6, size=(5, 2, 2, 3))
    systems, clips = ["crimson", "verdant"], ["maybird", "obsidian"]
    files = [
        save(
            tmp_path / f"{n}.json",
            answers_of(
                study,
                n,
                lambda s, c, n=n: table[n, systems.index(s), clips.index(c)].tolist(),
                again=[3, 3, 3],
            ),
        )
        for n in range(5)
    ]
    result = read_study(files, study, tmp_path / "out")
    assert (result["raters"], result["incomplete"], result["left_out"]) == (5, 0, 0)
    for s, system in enumerate(systems):
        for q, question in enumerate(QUESTIONS):
            score = result["scores"][system][question]
            assert score["mean"] == pytest.approx(table[:, s, :, q].mean())
            assert score["interval"] == pytest.approx(crossed_interval(table[:, s, :, q]))
            assert score["ratings"] == 10
    (difference,) = result["differences"]
    assert difference["systems"] == systems
    paired = table[:, 0, :, 0] - table[:, 1, :, 0]
    assert difference["quality"]["mean"] == pytest.approx(paired.mean())
    assert difference["quality"]["interval"] == pytest.approx(crossed_interval(paired))
    for q, question in enumerate(QUESTIONS):
        alpha = krippendorff_alpha(table[..., q].reshape(5, 4))
        assert result["agreement"][question] == pytest.approx(alpha)
        assert result["consistency"][question]["pairs"] == 5
    assert result["seconds"] == 5.5
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert written == json.loads(json.dumps(result))
    head = (tmp_path / "out" / "study.md").read_text().splitlines()
    assert head[2] == "| Methods | Generation Quality | Video Realness | Synchronization |"
    assert head[4].startswith(f"| crimson | {table[:, 0, :, 0].mean():.2f} [")


def test_repeated_items_count_once_and_tell_consistency(study, tmp_path):
    files = [
        save(tmp_path / "1.json", answers_of(study, 1, lambda s, c: (4, 4, 4), again=(4, 1, 2))),
        save(tmp_path / "2.json", answers_of(study, 2, lambda s, c: (4, 4, 4), again=(4, 4, 4))),
    ]
    result = read_study(files, study)
    assert result["scores"]["verdant"]["realness"]["mean"] == 4
    assert result["consistency"]["quality"] == {"pairs": 2, "equal": 1.0, "difference": 0.0}
    assert result["consistency"]["realness"] == {"pairs": 2, "equal": 0.5, "difference": 1.5}
    assert result["agreement"]["quality"] is None
    assert any("cannot be told from chance" in note for note in result["notes"])


def test_incomplete_answers_are_used_or_left_out_by_a_rule(study, tmp_path):
    def rate(system, clip):
        return (5, 4, 3) if system == "crimson" else (1, 2, 3)

    files = [
        save(tmp_path / f"{n}.json", answers_of(study, n, rate, count))
        for n, count in ((1, None), (2, 3), (3, 2), (4, 0))
    ]
    result = read_study(files, study)
    assert (result["raters"], result["incomplete"], result["left_out"]) == (2, 1, 2)
    assert "1 of 2 raters stopped" in result["notes"][0] and "2 more" in result["notes"][1]
    assert result["scores"]["crimson"]["quality"]["mean"] == 5
    assert result["scores"]["verdant"]["realness"]["mean"] == 2
    assert read_study(files, study, minimum=0)["raters"] == 3
    alone = read_study(files[0], study)
    assert alone["scores"]["crimson"]["quality"]["interval"] is None
    assert "| crimson | 5.00 | 4.00 | 3.00 |" in alone["table"]
    assert "ask more" in alone["notes"][0]
    with pytest.raises(VPGCError, match="None of the 2 files holds 50%"):
        read_study(files[2:], study)
    with pytest.raises(VPGCError, match="from 0 to 1"):
        read_study(files, study, minimum=2)


def test_foreign_and_damaged_answers(study, tmp_path):
    good = answers_of(study, 7, lambda s, c: (3, 3, 3))
    first = good["order"][0]
    fine = save(tmp_path / "fine.json", good)
    assert read_study([fine], study)["raters"] == 1

    def changed(change):
        value = copy.deepcopy(good)
        change(value)
        return json.dumps(value)

    def rated(value):
        return changed(lambda x: x["answers"][1]["ratings"].update(quality=value))

    for text, words in (
        ("", "damaged or no JSON"),
        (json.dumps(good)[:-40], "damaged or no JSON"),
        ("[" * 100_000, "damaged or no JSON"),
        ("\udcff", "damaged or no JSON"),
        ("[1, 2]", "JSON of something else"),
        ('{"name": "package"}', "JSON of something else"),
        (changed(lambda x: x.update(version=2)), "version 2 but this keras_vpgc reads 1"),
        (changed(lambda x: x.update(study="f" * 16)), "answers another study, ffff"),
        (changed(lambda x: x.update(rater="../x")), "names no rater"),
        (changed(lambda x: x.update(comment="x" * 9999)), "no comment"),
        (changed(lambda x: x.pop("answers")), "no list of answers"),
        (changed(lambda x: x["order"].__setitem__(0, "ffffffff")), "does not have"),
        (changed(lambda x: x["order"].__setitem__(1, first)), "lacks 1 of the study's 4 items"),
        (changed(lambda x: x["order"].append(first)), "more often"),
        (changed(lambda x: x["answers"].pop()), "holds 4 of 5 answers, and says otherwise"),
        (changed(lambda x: x["answers"].append({})), "more answers than items"),
        (changed(lambda x: x["answers"].reverse()), "another item than the"),
        (changed(lambda x: x["answers"][0]["ratings"].pop("quality")), "three questions"),
        (changed(lambda x: x["answers"][0].update(seconds=-1)), "seconds of its item 1"),
        (rated(0), "rates its item 2 with 0"),
        (rated(6), "rates its item 2 with 6"),
        (rated(True), "rates its item 2 with True"),
        (rated(2.5), "rates its item 2 with 2.5"),
        (rated("4"), "rates its item 2 with 4"),
        (rated(None), "rates its item 2 with None"),
        (" " * 6_000_000, "6 MB large"),
    ):
        bad = tmp_path / "bad.json"
        bad.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(VPGCError, match=words) as error:
            read_study([fine, bad], study, tmp_path / "out")
        assert "bad.json" in str(error.value) and "\n" not in str(error.value)
    copied = save(tmp_path / "copy (1).json", good)
    with pytest.raises(VPGCError, match="answers of the same rater"):
        read_study([fine, copied], study)
    with pytest.raises(VPGCError, match="no answers to read"):
        read_study([], study)
    for missing in ("no.json", "."):
        with pytest.raises(VPGCError):
            read_study([tmp_path / missing], study)
    assert not (tmp_path / "out").exists()


def test_keys_that_are_none(study, tmp_path):
    fine = save(tmp_path / "a.json", answers_of(study, 7, lambda s, c: (3, 3, 3)))
    assert read_study(fine, study / "key.json")["raters"] == 1
    with pytest.raises(VPGCError, match="is no study"):
        read_study(fine, tmp_path)
    with pytest.raises(VPGCError, match="no key of a study"):
        read_study(fine, fine)
    key = json.loads((study / "key.json").read_text())
    for change in ({"systems": ["x"]}, {"items": {}}, {"repeats": None}, {"clips": 3}):
        broken = save(tmp_path / "key.json", {**key, **change})
        with pytest.raises(VPGCError, match="no key of a study"):
            read_study(fine, broken)


def test_command(vpgc, study, folders, tmp_path):
    loud = folders["led"] / "maybird.mp4"
    silent = [folders["crimson"] / f"{x}.mp4" for x in ("maybird", "obsidian")]
    code, out, _ = vpgc(
        "study", "make", f"a={silent[0]}", f"b={silent[1]}", f"a={silent[1]}", f"b={silent[0]}",
        "--reference", loud, "--reference", loud, "--size", 64, "-o", tmp_path / "s",
    )  # fmt: skip
    assert code == 0 and "holds 4 clips" in out and "key.json to nobody" in out
    key = json.loads((tmp_path / "s" / "key.json").read_text())
    assert key["clips"] == ["1", "2"] and key["systems"] == ["a", "b"]
    own = {(x["system"], x["clip"]): x["file"] for x in key["items"].values() if "system" in x}
    assert own["a", "2"] == own["b", "1"] == "obsidian.mp4"
    files = [
        save(tmp_path / f"{n}.json", answers_of(study, n, lambda s, c: (2, 3, 4))) for n in (1, 2)
    ]
    code, out, _ = vpgc("study", "read", study, *files)
    assert code == 0 and "| crimson | 2.00 [2.00, 2.00] | 3.00" in out
    assert (study / "study.json").exists() and (study / "study.md").exists()
    for arguments, words in (
        (("make", "a", "-o", tmp_path / "x"), "NAME=VIDEO or NAME=FOLDER"),
        (("read", tmp_path, *files), "is no study"),
    ):
        code, out, error = vpgc("study", *arguments)
        assert code == 1 and words in error and error.count("\n") == 1


def test_every_system_pair_is_compared(tmp_path):
    clips = {
        name: write_talking(tmp_path / f"{name}.mp4", RED, beep=0) for name in ("one", "two", "six")
    }
    make(clips, tmp_path / "s")
    key = json.loads((tmp_path / "s" / "key.json").read_text())
    value = {"one": 1, "two": 2, "six": 5}
    order = sorted(key["items"])
    files = []
    for rater in range(2):
        given = [
            {
                "item": x,
                "ratings": dict.fromkeys(QUESTIONS, value[key["items"][x]["system"]]),
                "seconds": 1,
            }
            for x in order
        ]
        answers = {
            "format": "keras_vpgc study answers", "version": 1, "study": key["study"],
            "rater": f"{rater:016x}", "complete": True, "order": order, "answers": given,
            "comment": "fine",
        }  # fmt: skip
        files.append(save(tmp_path / f"{rater}.json", answers))
    result = read_study(files, tmp_path / "s")
    found = {tuple(x["systems"]): x["quality"]["mean"] for x in result["differences"]}
    assert found == {(a, b): value[a] - value[b] for a, b in itertools.combinations(clips, 2)}
    assert result["agreement"]["quality"] == 1 and result["comments"] == ["fine", "fine"]
    assert any("one clip" in note for note in result["notes"])
