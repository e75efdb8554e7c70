"""A study as its raters see it, in a real browser."""

import json

import numpy as np
import pytest

from keras_vpgc.evaluation.study import make_study, read_study
from tests.evaluation.videos import write_talking

pytestmark = pytest.mark.once

COLOURS = {"crimson": (200, 30, 30), "verdant": (30, 180, 30)}
# What a rater thinks who goes by the colour that is seen.
OPINION = {"crimson": (5, 4, 2), "verdant": (1, 3, 2)}
QUESTIONS = ("quality", "realness", "synchronisation")
SEEN = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  const pen = canvas.getContext("2d");
  pen.drawImage(document.getElementById("clip"), 0, 0, 8, 8);
  return Array.from(pen.getImageData(4, 4, 1, 1).data).slice(0, 3);
}"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two systems, two clips, one of which comes twice, beside references with sound."""
    folder = tmp_path_factory.mktemp("study")
    systems = {
        name: [write_talking(folder / f"{name}-{i}.mp4", colour, 0.6) for i in range(2)]
        for name, colour in COLOURS.items()
    }
    driving = write_talking(folder / "driving.mp4", (40, 40, 200), 0.6, beep=0)
    make_study(
        systems,
        folder / "s",
        references=[driving, driving],
        size=64,
        repeats=1,
        contact="Asked by <the lab> & friends.",
        progress=False,
    )
    return folder / "s"


def begin(page):
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Start").click()


def opinion(page):
    """By the picture on the screen."""
    page.locator("#clip").evaluate(
        "x => x.readyState >= 2 || new Promise(done => x.addEventListener('loadeddata', done))"
    )
    seen = np.array(page.evaluate(SEEN))
    name = min(COLOURS, key=lambda x: abs(seen - COLOURS[x]).max())
    assert abs(seen - COLOURS[name]).max() < 20
    return OPINION[name]


def rate_by_mouse(page):
    group = page.get_by_role("group", name="Generation Quality")
    assert group.get_by_role("radio").first.is_disabled()
    page.get_by_role("button", name="Play").click()
    page.wait_for_selector("fieldset:enabled")
    assert page.get_by_role("button", name="Next").is_disabled()
    for title, value in zip(
        ("Generation Quality", "Video Realness", "Synchronization"), opinion(page), strict=True
    ):
        group = page.get_by_role("group", name=title)
        group.get_by_role("radio", name=str(value)).check()
    page.get_by_role("button", name="Next").click()


def rate_by_keys(page):
    # Before the end of the clip numbers rate nothing.
    page.keyboard.press("3")
    assert "to its end first" in page.get_by_role("status").inner_text()
    page.keyboard.press("p")
    page.wait_for_selector("fieldset:enabled")
    for value in opinion(page):
        page.keyboard.press(str(value))
    page.keyboard.press("Enter")


def save(page, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_raters_go_through_a_study(page, study, tmp_path):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    address = (study / "study.html").as_uri()
    page.goto(address)
    text = page.locator("body").inner_text()
    assert "5 short clips" in text and "Asked by <the lab> & friends." in text
    assert page.get_by_role("button", name="Start").is_disabled()

    # The first rates by mouse, and reloads the page in the middle of an item.
    assert page.locator("#forgets").is_hidden()
    begin(page)
    assert page.get_by_role("heading").inner_text() == "Clip 1 of 5"
    rate_by_mouse(page)
    rate_by_mouse(page)
    page.get_by_role("button", name="Play").click()
    page.wait_for_selector("fieldset:enabled")
    group = page.get_by_role("group", name="Generation Quality")
    group.get_by_role("radio", name=str(opinion(page)[0])).check()
    page.reload()
    assert page.get_by_role("heading").inner_text() == "Clip 3 of 5"
    assert page.locator("input:checked").count() == 1
    # Number keys go on with the first open question.
    for value in opinion(page)[1:]:
        page.keyboard.press(str(value))
    page.keyboard.press("Enter")
    rate_by_mouse(page)
    rate_by_mouse(page)
    assert page.get_by_role("heading").inner_text() == "Thank you"
    page.get_by_role("textbox", name="comment").fill("A <b>fine</b> study")
    first = save(page, tmp_path)

    # The second, at a phone's width, by keys, and stops early.
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Another person").click()
    assert wide(page) <= 390
    begin(page)
    for _ in range(3):
        assert wide(page) <= 390
        rate_by_keys(page)
    page.get_by_role("button", name="Stop here").click()
    assert "3 of 5" in page.locator("body").inner_text() and wide(page) <= 390
    page.get_by_role("button", name="Go on rating").click()
    assert page.get_by_role("heading").inner_text() == "Clip 4 of 5"
    page.get_by_role("button", name="Stop here").click()
    second = save(page, tmp_path)

    one, two = (json.loads(x.read_text()) for x in (first, second))
    assert first.name == f"answers-{one['rater']}.json"
    assert one["rater"] != two["rater"]
    assert one["complete"] and not two["complete"]
    assert all(x["seconds"] > 0.5 and x["plays"] >= 1 for x in one["answers"])
    result = read_study([first, second], study)
    assert (result["raters"], result["incomplete"]) == (2, 1)
    for name, values in OPINION.items():
        for question, value in zip(QUESTIONS, values, strict=True):
            assert result["scores"][name][question]["mean"] == value
    assert result["agreement"]["quality"] == 1
    assert result["consistency"]["realness"]["equal"] == 1
    assert result["comments"] == ["A <b>fine</b> study"]
    # Nothing but the page itself and what it holds was asked for.
    assert {x.split(":")[0] for x in requests} <= {"file", "blob"}


def wide(page):
    return page.evaluate("() => document.documentElement.scrollWidth")


def test_orders_are_random_and_follow_from_the_rater(page, study):
    page.goto((study / "study.html").as_uri())
    orders = page.evaluate("() => Array.from({ length: 2000 }, () => fresh().order)")
    firsts = [order[0] for order in orders]
    for identifier in set(firsts):
        assert firsts.count(identifier) / 2000 == pytest.approx(1 / 4, abs=0.05)
    assert len({tuple(dict.fromkeys(order)) for order in orders}) == 24
    for order in orders:
        (twice,) = {x for x in order if order.count(x) == 2}
        assert order[::-1].index(twice) + order.index(twice) <= 1  # three places apart or more
    again = "() => [0, 1].map(() => orderOf('0123456789abcdef').join())"
    assert len(set(page.evaluate(again))) == 1


def test_a_second_tab_goes_on_and_loses_no_answers(page, study):
    """One tab still shows the introduction, later an old clip, while the other is rated in."""

    def tell():
        # As the browser does: a busy one was seen to leave it out.
        kept = page.evaluate("() => localStorage.getItem(kept)")
        other.evaluate(
            "text => { localStorage.setItem(kept, text);"
            " dispatchEvent(new StorageEvent('storage', { key: kept })); }",
            kept,
        )

    address = (study / "study.html").as_uri()
    page.goto(address)
    other = page.context.new_page()
    other.goto(address)
    assert other.locator("#intro").is_visible()
    begin(page)
    rate_by_keys(page)
    tell()
    assert other.get_by_role("heading").inner_text() == "Clip 2 of 5"
    rate_by_keys(page)
    tell()
    assert other.get_by_role("heading").inner_text() == "Clip 3 of 5"
    other.evaluate("() => dispatchEvent(new Event('pagehide'))")
    assert other.evaluate("() => JSON.parse(localStorage.getItem(kept)).answers.length") == 2
    other.close()
    page.reload()
    assert page.get_by_role("heading").inner_text() == "Clip 3 of 5"


def test_a_page_that_has_not_begun_replaces_no_answers(page, study):
    """A busy browser may show the page before it has what the page had stored."""
    page.goto((study / "study.html").as_uri())
    begin(page)
    rate_by_keys(page)
    kept = page.evaluate("() => localStorage.getItem(kept)")
    page.evaluate("() => { state = fresh(); forget(); display(); }")
    assert page.locator("#intro").is_visible()
    page.evaluate("() => dispatchEvent(new Event('pagehide'))")
    assert page.evaluate("() => localStorage.getItem(kept)") == kept
    begin(page)
    assert page.get_by_role("heading").inner_text() == "Clip 2 of 5"


def test_a_reload_loses_no_answers_with_a_storage_that_does(page, study):
    page.add_init_script(
        "const kept = {}; Object.defineProperty(window, 'localStorage', { value: {"
        "getItem: x => kept[x] ?? null, setItem: (x, y) => { kept[x] = y; },"
        "removeItem: x => { delete kept[x]; } } });"
    )
    page.goto((study / "study.html").as_uri())
    begin(page)
    rate_by_keys(page)
    page.reload()
    assert page.get_by_role("heading").inner_text() == "Clip 2 of 5"
    for _ in range(4):
        rate_by_keys(page)
    with page.expect_download():
        page.get_by_role("button", name="Save my answers").click()
    page.get_by_role("button", name="Another person").click()
    page.reload()
    assert page.locator("#intro").is_visible()


def test_without_storage_the_page_says_so_and_works(page, study):
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })"
    )
    page.goto((study / "study.html").as_uri())
    assert "rate all clips in one go" in " ".join(page.locator("body").inner_text().split())
    begin(page)
    rate_by_keys(page)
    assert page.get_by_role("heading").inner_text() == "Clip 2 of 5"
