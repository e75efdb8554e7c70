"""The page on which people rate clips."""

import base64
import importlib.resources
import json
from collections.abc import Iterator

from keras_vpgc.visualization.pages import STYLE

# Of the page and of the answers that it saves.
PAGE_VERSION = 1
QUESTIONS = ("quality", "realness", "synchronisation")
# Those of the paper's Tab. 3.
TITLES = {
    "quality": "Generation Quality",
    "realness": "Video Realness",
    "synchronisation": "Synchronization",
}


def questions(sound: bool, reference: bool) -> list[dict]:
    """Name, title and text of the paper's three questions.

    Args:
        sound: Have the clips sound?
        reference: Is a reference shown beside them?

    Returns:
        A list of dicts of `name`, `title` and `text`.
    """
    with_sound = "do the lips go with the speech"
    with_reference = "do face and head follow the reference, without delay"
    parts = [with_sound] * sound + [with_reference] * reference
    together = ", and ".join(parts) + "?"
    texts = {
        "quality": "How good is the picture: sharp and clean, without blur, flicker or flaws?",
        "realness": "How much does it look like a real recording of a real person?",
        "synchronisation": together[0].upper() + together[1:],
    }
    return [{"name": name, "title": TITLES[name], "text": texts[name]} for name in QUESTIONS]


def study_page(
    study: str,
    items: dict[str, str | None],
    clips: dict[str, bytes],
    *,
    size: tuple[int, int],
    repeats: int,
    minutes: int,
    sound: bool,
    contact: str = "",
) -> Iterator[str]:
    """A page that holds all clips, asks for ratings and saves them as one file.

    It fetches and sends nothing. Each rater gets a random number, from which the order follows;
    ratings open when the clip was played to its end; the state is kept by the browser until the
    answers are saved.

    Args:
        study: Identifier of the study.
        items: Identifier of each clip to be rated -> that of its reference, or `None`.
        clips: Identifier -> MP4 bytes, of items and references.
        size: Width and height of all clips.
        repeats: Number of items that each rater gets twice.
        minutes: How long it takes, as told to the rater.
        sound: Have the clips sound?
        contact: A sentence on who asks, shown before the consent.

    Yields:
        The HTML, in pieces.
    """
    told = {
        "study": study,
        "version": PAGE_VERSION,
        "questions": questions(sound, any(items.values())),
        # By identifiers, which are random: no order of systems or clips is left.
        "items": [{"id": name, "reference": items[name]} for name in sorted(items)],
        "repeats": repeats,
        "minutes": minutes,
        "sound": sound,
        "contact": contact,
    }
    template = importlib.resources.files("keras_vpgc.visualization") / "study_page.html"
    head, tail = template.read_text(encoding="utf-8").split("@CLIPS@")
    for mark, text in (
        ("@STYLE@", STYLE),
        ("@WIDTH@", str(size[0])),
        ("@HEIGHT@", str(size[1])),
        # A "</script>" in a text must not end the script that holds it.
        ("@STUDY@", json.dumps(told).replace("<", "\\u003c")),
    ):
        head = head.replace(mark, text)
    yield head
    for name in sorted(clips):
        data = base64.b64encode(clips[name]).decode()
        yield f'<script type="text/plain" id="v-{name}">{data}</script>\n'
    yield tail
