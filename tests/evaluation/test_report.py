"""The pages of evaluations, as a browser shows them."""

import json
import re

import cv2
import numpy as np
import pytest

from keras_vpgc.evaluation.compare import compare
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.visualization import evaluation_report
from tests.evaluation.videos import frames_of, write

pytestmark = pytest.mark.once

QUICK = {"progress": False, "workers": 1, "lpips": None}


@pytest.fixture(scope="module")
def scored(run, tmp_path_factory):
    """A run with its evaluation; this module's own."""
    import shutil

    folder = shutil.copytree(run, tmp_path_factory.mktemp("scored") / "r")
    evaluate_run(folder, progress=False)
    return folder / "evaluation"


@pytest.fixture(scope="module")
def compared(clip, tmp_path_factory):
    """Two systems with signs in their names, of which one shows no face for some time."""
    folder = tmp_path_factory.mktemp("compared")
    frames = [cv2.resize(x, (128, 128), interpolation=cv2.INTER_AREA) for x in frames_of(clip)]
    soft = [cv2.GaussianBlur(x, (0, 0), 1.5) for x in frames]
    soft[40:44] = [x * 0 + 90 for x in soft[40:44]]
    systems = {
        "a <b> & c/d": write(folder / "a.mp4", soft),
        "late": write(folder / "b.mp4", frames[:1] + frames[:-1]),
    }
    compare(systems, write(folder / "truth.mp4", frames), folder / "s", size=64, **QUICK)
    return folder / "s"


def opened(page, file):
    """Open a file; whatever is asked for from elsewhere is returned."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))
    page.goto(file.as_uri())
    return [x for x in asked if x != file.as_uri() and not x.startswith("data:")]


def cells(page, table):
    """Row title -> column title -> the number that is shown."""
    rows = table.locator("tr").all()
    heads = rows[0].locator("th").all_inner_texts()[1:]
    found = {}
    for row in rows[1:]:
        title, *texts = row.locator("td").all_inner_texts()
        found[title] = {h: x.split("\n")[0] for h, x in zip(heads, texts, strict=True)}
    return found


def check_shown(page):
    """Nothing hangs over, pictures and videos are there, and dots lead to frames."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("[...document.querySelectorAll('video')].every(x => x.readyState > 0)")
    assert page.evaluate("[...document.querySelectorAll('video')].every(x => x.duration > 0.1)")
    assert page.evaluate("[...document.images].every(x => x.complete && x.naturalWidth > 0)")
    dots = page.locator("svg a")
    names = {dot.get_attribute("xlink:href")[1:] for dot in dots.all()}
    assert names == set(
        page.evaluate("[...document.querySelectorAll('.worst figure')].map(x=>x.id)")
    )
    dots.first.click()
    wanted = dots.first.get_attribute("xlink:href")
    assert page.evaluate("location.hash") == wanted
    target = page.locator("figure:target")
    assert f"#{target.get_attribute('id')}" == wanted
    box = target.bounding_box()
    assert -1 <= box["y"] < 900
    assert (
        page.evaluate("getComputedStyle(document.querySelector(':target')).outlineStyle") == "solid"
    )


def test_frames_to_look_at_are_the_worst_and_apart():
    psnr = np.full(100, 30.0) + np.arange(100) / 1000
    psnr[[50, 52, 70]] = 10, 11, 12
    psnr[20:40] = np.nan  # not decoded
    psnr[5] = np.inf
    distance = np.ones(100)
    distance[90], distance[60:62], distance[20:40] = 7, np.nan, np.nan
    chosen = evaluation_report.choose({"psnr": psnr, "landmark_distance": distance}, 2)
    assert chosen[:3] == [
        (50, "lowest PSNR"), (70, "lowest PSNR"), (90, "largest landmark distance"),
    ]  # fmt: skip
    places = [i for i, _ in chosen]
    assert min(np.diff(sorted(places))) > 10 and not set(places) & set(range(20, 40))
    assert evaluation_report.choose({"psnr": np.full(9, np.inf)}, 2) == []


def test_page_of_a_run(page, scored):
    assert opened(page, scored / "report.html") == []
    check_shown(page)
    rows = json.loads((scored / "metrics.json").read_text())["rows"]
    shown = cells(page, page.locator("table").first)
    for title, key, form in (("PSNR (dB) ↑", "psnr", ".2f"), ("SSIM ↑", "ssim", ".3f")):
        assert shown[title] == {name: format(row[key], form) for name, row in rows.items()}
    assert shown["F-LMD (px) ↓"]["mean training frame"] == "-"
    assert page.locator("video").get_attribute("src").startswith("data:video/mp4")
    # What the training has seen is shaded.
    for signal in ("yaw", "pitch", "mouth opening"):
        plot = page.locator("figure", has_text=f"PSNR (dB) against {signal}")
        assert plot.locator("[style*='fill: var(--faint)']").count() >= 1
    assert '"preset": "vpgc_tiny"' in page.locator("pre").nth(0).text_content()


def test_page_of_a_comparison(page, compared):
    assert opened(page, compared / "report.html") == []
    check_shown(page)
    stored = json.loads((compared / "comparison.json").read_text())
    tables = page.locator(".scroll > table:not(.words):not(.openings)")
    assert tables.count() == 2
    for table, region in zip(tables.all(), ("face", "full"), strict=True):
        rows, shown = stored["scores"][region], cells(page, table)
        for title, key, form in (
            ("PSNR (dB) ↑", "psnr", ".2f"),
            ("F-LMD (px) ↓", "landmark_distance", ".2f"),
            ("flicker (of 255) ↓", "flicker", ".2f"),
        ):
            wanted = {name: format(row[key], form) for name, row in rows.items()}
            wanted["floor (truth, a frame late)"] = format(stored["floor"][region][key], form)
            assert shown[title] == wanted
    # Eyes and mouth of the same video a frame late.
    shown = cells(page, page.locator("table.openings"))
    wanted = stored["eyes_and_mouth"]["late"]["mouth"]["correlation"]
    assert shown["mouth opening: correlation with the truth ↑"]["late"] == f"{wanted:.2f}"
    assert stored["eyes_and_mouth"]["floor"]["mouth"]["correlation"] == pytest.approx(
        wanted, abs=0.1
    )
    assert page.locator(".wide figure svg").count() == 2
    low, high = rows["late"]["intervals"]["psnr"]
    assert f"[{low:.2f}, {high:.2f}]" in table.inner_text()
    text = page.inner_text("body")
    assert stored["pairs"]["full"][0]["scores"]["psnr"]["words"] in text
    assert "No face was found in 4 of 75 frames of a <b> & c/d (40-43)" in text
    assert json.loads(page.locator("pre").first.text_content()) == stored["protocol"]
    # Each system's frames, the one without a face among them.
    assert page.locator("h3").all_inner_texts() == ["a <b> & c/d", "late"]
    assert page.locator("figcaption", has_text="no face found").count() >= 1


def test_long_video_is_linked(page, compared, monkeypatch):
    monkeypatch.setattr(evaluation_report, "EMBEDDED_BYTES", 0)
    linked = evaluation_report._video(compared / "side_by_side.mp4")
    text = (compared / "report.html").read_text()
    file = compared / "linked.html"
    file.write_text(re.sub(r"<video.*?</video>", lambda found: linked, text))
    opened(page, file)
    page.wait_for_function("document.querySelector('video').readyState > 0")
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(3, abs=0.1)
