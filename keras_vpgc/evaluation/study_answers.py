"""The files that raters send back, and the key that tells whose the clips are."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vpgc.errors import VPGCError
from keras_vpgc.visualization.study_page import PAGE_VERSION, QUESTIONS

KEY = "key.json"
KEY_FORMAT = "keras_vpgc study key"
ANSWERS_FORMAT = "keras_vpgc study answers"
LARGEST = 5_000_000  # bytes; a thousand items take a fifth of it
LONGEST_COMMENT = 2000


@dataclass(frozen=True)
class Key:
    """Which item is whose.

    Attributes:
        study: Identifier of the study.
        systems, clips: Their names.
        items: Identifier -> places of its system and its clip.
        repeats: Number of items that each rater gets twice.
        protocol: How the clips were made.
    """

    study: str
    systems: list[str]
    clips: list[str]
    items: dict[str, tuple[int, int]]
    repeats: int
    protocol: dict

    @classmethod
    def load(cls, path) -> "Key":
        """Read `key.json`, or that of a study's folder; a `VPGCError` if it is none."""
        path = Path(path)
        if path.is_dir():
            if not (path / KEY).exists():
                raise VPGCError(
                    f"{path} is no study: it holds no {KEY}, as vpgc study make writes."
                )
            path = path / KEY
        found = _load(path)
        damaged = VPGCError(f"{path} is damaged or no key of a study: take the one that was made.")
        if found.get("format") != KEY_FORMAT:
            raise damaged
        _check_version(path, found)
        try:
            systems, clips = list(found["systems"]), list(found["clips"])
            items = {
                identifier: (systems.index(item["system"]), clips.index(item["clip"]))
                for identifier, item in found["items"].items()
                if not item.get("reference")
            }
            key = cls(
                found["study"], systems, clips, items, int(found["repeats"]), found["protocol"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged from error
        if len(set(items.values())) != len(systems) * len(clips):
            raise damaged
        return key


@dataclass(frozen=True)
class Answers:
    """One rater's file: `ratings[question]` is `(systems, clips)`, NaN where there is none.

    `again` holds pairs of ratings that were given to the same item.
    """

    rater: str
    rated: float
    ratings: np.ndarray
    again: list[tuple[str, int, int]]
    seconds: list[float]
    comment: str


def _load(path: Path) -> dict:
    """A JSON object out of a file of reasonable size."""
    if not path.exists():
        raise VPGCError(f"There is no file {path}: check the path.")
    if path.is_dir():
        raise VPGCError(f"{path} is a folder: give the JSON files in it.")
    if path.stat().st_size > LARGEST:
        raise VPGCError(
            f"{path} is {path.stat().st_size / 1e6:.3g} MB large, which answers never are: leave "
            "it out."
        )
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise VPGCError(f"{path} cannot be read ({error.strerror}): check its rights.") from error
    except (ValueError, RecursionError) as error:
        raise VPGCError(
            f"{path} is damaged or no JSON: ask for the file again, as the page saved it."
        ) from error
    if not isinstance(found, dict):
        raise VPGCError(f"{path} is JSON of something else: give files that the page saved.")
    return found


def _check_version(path, found):
    version = found.get("version")
    if version != PAGE_VERSION:
        raise VPGCError(
            f"{path} has version {str(version)[:20]} but this keras_vpgc reads {PAGE_VERSION}: "
            "read it with the version that made the study."
        )


def read_answers(path, key: Key) -> Answers:
    """One rater's file, checked.

    Args:
        path: A file saved by the page.
        key: Of the study.

    Returns:
        The `Answers`.

    Raises:
        VPGCError: see `read_study`.
    """
    path = Path(path)
    found = _load(path)
    if found.get("format") != ANSWERS_FORMAT:
        raise VPGCError(f"{path} is JSON of something else: give files that the page saved.")
    _check_version(path, found)
    if found.get("study") != key.study:
        raise VPGCError(
            f"{path} answers another study, {str(found.get('study'))[:20]}, and this one is "
            f"{key.study}: give the key it belongs to, or leave it out."
        )

    def wrong(what):
        return VPGCError(f"{path} {what}: it was changed or damaged; ask for it again.")

    rater, order, given = found.get("rater"), found.get("order"), found.get("answers")
    comment = found.get("comment")
    if not isinstance(rater, str) or not re.fullmatch(r"[0-9a-f]{16}", rater):
        raise wrong("names no rater")
    if not isinstance(order, list) or not isinstance(given, list):
        raise wrong("holds no list of answers")
    if not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise wrong("holds no comment as the page writes it")
    if not all(isinstance(x, str) and x in key.items for x in order):
        raise wrong("lists an item that the study does not have")
    missing = sorted(set(key.items) - set(order))
    if missing:
        raise wrong(f"lacks {len(missing)} of the study's {len(key.items)} items")
    if len(order) != len(key.items) + key.repeats or max(map(order.count, set(order))) > 2:
        raise wrong("lists items more often than the study does")
    if len(given) > len(order):
        raise wrong("holds more answers than items")
    if type(found.get("complete")) is not bool or found["complete"] != (len(given) == len(order)):
        raise wrong(f"holds {len(given)} of {len(order)} answers, and says otherwise")

    ratings = np.full((len(QUESTIONS), len(key.systems), len(key.clips)), np.nan)
    again, seconds = [], []
    for i, (identifier, answer) in enumerate(zip(order, given, strict=False), 1):
        if not isinstance(answer, dict) or answer.get("item") != identifier:
            raise wrong(f"answers another item than the {i}th of its order")
        own = answer.get("ratings")
        if not isinstance(own, dict) or set(own) != set(QUESTIONS):
            raise wrong(f"does not answer the three questions of its item {i}")
        spent = answer.get("seconds")
        if not isinstance(spent, int | float) or not 0 <= spent < math.inf:
            raise wrong(f"does not tell the seconds of its item {i}")
        seconds.append(float(spent))
        for q, question in enumerate(QUESTIONS):
            value = own[question]
            # JSON's true is an int to Python.
            if type(value) is not int or not 1 <= value <= 5:
                raise wrong(f"rates its item {i} with {str(value)[:20]}, not with 1 to 5")
            place = q, *key.items[identifier]
            if np.isnan(ratings[place]):
                ratings[place] = value
            else:
                again.append((question, int(ratings[place]), value))
    return Answers(rater, len(given) / len(order), ratings, again, seconds, comment)
