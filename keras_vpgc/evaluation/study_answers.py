"""What the answers of a study say."""

import itertools
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vpgc.errors import VPGCError, check_writable, writing
from keras_vpgc.evaluation.agreement import krippendorff_alpha
from keras_vpgc.evaluation.bootstrap import crossed_interval
from keras_vpgc.evaluation.pair import check_output
from keras_vpgc.version import __version__
from keras_vpgc.visualization.study_page import PAGE_VERSION, QUESTIONS, TITLES

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


def read_study(
    answers,
    key,
    output=None,
    *,
    minimum: float = 0.5,
    level: float = 0.95,
    seed: int = 0,
) -> dict:
    """Opinion scores out of the files that raters sent back.

    Every file is checked before anything is counted. An incomplete one, of a rater who stopped, is
    used if it holds at least `minimum` of the items, and left out and counted below. Of items that
    came twice the first ratings count; the second ones only tell how well raters agree with
    themselves. Means are over all ratings of a system; intervals see
    `keras_vpgc.evaluation.crossed_interval`. Differences are paired: of two systems' ratings by one
    rater of one clip.

    Args:
        answers: Files saved by the page, one a rater.
        key: The study's folder, or its `key.json`.
        output: Folder for `study.json` and `study.md`; `None` writes nothing.
        minimum: Part of the items that an incomplete file must hold to be used, from 0 to 1.
        level: Level of the intervals.
        seed: Seed of their draws.

    Returns:
        What `study.json` holds:

        - `scores`: system -> `quality`, `realness`, `synchronisation` -> `mean` from 1 to 5,
          `interval` (`None` with one rater) and `ratings`, their number.
        - `differences`: dicts of `systems` (two names) and the same for the first minus the second.
        - `agreement`: question -> Krippendorff's alpha for ordinal data over all items, see
          `keras_vpgc.evaluation.krippendorff_alpha`; `None` where it cannot be told.
        - `consistency`: question -> `pairs`, `equal` (part of them) and `difference` (mean absolute
          one, in points) of items that were rated twice; `None` without any.
        - `raters`, `incomplete` (used ones among them), `left_out`: numbers of files.
        - `seconds`: median time spent on an item, watching included.
        - `comments`, `notes`, `protocol`, and `table`: Markdown, first in the layout of the paper's
          Tab. 3.

    Raises:
        VPGCError: without a file; for one that is no JSON of this study, damaged, too large, with
            items missing or unknown, or a rating other than 1 to 5; for one rater twice; or if all
            files are left out.

    Example:

    ```python
    print(read_study(["answers-1.json", "answers-2.json"], "study", "study")["table"])
    ```

    References:
        Wang et al., "Efficient Video Portrait Reenactment via Grid-based Codebook", 2023, Tab. 3.
    """
    if not 0 <= minimum <= 1:
        raise VPGCError(f"minimum = {minimum:g} is no part of a file: give one from 0 to 1.")
    opened = Key.load(key)
    folder = check_output(output)
    files = [Path(x) for x in ([answers] if isinstance(answers, str | os.PathLike) else answers)]
    if not files:
        raise VPGCError("There are no answers to read: give the JSON files that raters saved.")
    found: dict[str, tuple[Path, Answers]] = {}
    for file in files:
        one = read_answers(file, opened)
        if one.rater in found:
            raise VPGCError(
                f"{found[one.rater][0]} and {file} are answers of the same rater, {one.rater}: "
                "leave one out."
            )
        found[one.rater] = file, one
    everybody = [one for _, one in found.values()]
    # A rater of nothing has nothing to count, whatever the minimum.
    used = [one for one in everybody if one.rated >= minimum and one.rated > 0]
    if not used:
        raise VPGCError(
            f"None of the {len(files)} files holds {100 * minimum:g}% of the items: wait for more "
            "answers, or lower --minimum."
        )
    result = _evaluate(used, opened, level, seed)
    left_out = len(everybody) - len(used)
    incomplete = sum(one.rated < 1 for one in used)
    notes = _notes(result, len(used), incomplete, left_out, minimum, opened)
    result = {
        "raters": len(used),
        "incomplete": incomplete,
        "left_out": left_out,
        "clips": len(opened.clips),
        **result,
        "comments": [one.comment for one in used if one.comment.strip()],
        "notes": notes,
        "protocol": {
            **opened.protocol,
            "study": opened.study,
            "repeats": opened.repeats,
            "minimum": minimum,
            "interval": {
                "level": level,
                "seed": seed,
                "method": "percentiles of a bootstrap over raters and clips",
            },
            "agreement": "Krippendorff's alpha, ordinal, over all items",
            "keras_vpgc": __version__,
        },
    }
    result["table"] = _table(result)
    if folder is not None:
        check_writable(folder / "study.json")
        listed = "".join(f"- {note}\n" for note in notes)
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in (
                ("study.json", text),
                ("study.md", f"{result['table']}\n\n{listed}"),
            ):
                partial = folder / f".{name}.partial"
                partial.write_text(content, encoding="utf-8")
                os.replace(partial, folder / name)
    return result


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


def _evaluate(used, key, level, seed) -> dict:
    """Scores, differences and agreement."""
    # (raters, questions, systems, clips)
    ratings = np.stack([one.ratings for one in used])

    def score(values):
        interval = crossed_interval(values, level, seed)
        known = np.isfinite(values)
        return {
            "mean": float(values[known].mean()) if known.any() else None,
            "interval": None if interval is None else list(interval),
            "ratings": int(known.sum()),
        }

    scores = {
        system: {name: score(ratings[:, q, s]) for q, name in enumerate(QUESTIONS)}
        for s, system in enumerate(key.systems)
    }
    differences = [
        {
            "systems": [key.systems[a], key.systems[b]],
            **{
                name: score(ratings[:, q, a] - ratings[:, q, b]) for q, name in enumerate(QUESTIONS)
            },
        }
        for a, b in itertools.combinations(range(len(key.systems)), 2)
    ]
    consistency = {}
    for name in QUESTIONS:
        pairs = np.array([(a, b) for one in used for n, a, b in one.again if n == name])
        consistency[name] = (
            {
                "pairs": len(pairs),
                "equal": float((pairs[:, 0] == pairs[:, 1]).mean()),
                "difference": float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()),
            }
            if len(pairs)
            else None
        )
    return {
        "scores": scores,
        "differences": differences,
        "agreement": {
            name: krippendorff_alpha(ratings[:, q].reshape(len(used), -1))
            for q, name in enumerate(QUESTIONS)
        },
        "consistency": consistency,
        "seconds": float(np.median([x for one in used for x in one.seconds])),
    }


def _notes(result, raters, incomplete, left_out, minimum, key) -> list[str]:
    notes = []
    if incomplete:
        notes.append(f"{incomplete} of {raters} raters stopped before the end; theirs are used.")
    if left_out:
        notes.append(
            f"{left_out} more stopped before {100 * minimum:g}% of the items and are left out."
        )
    if raters < 2:
        notes.append("One rater has no interval and agrees with nobody: ask more.")
    elif len(key.clips) < 2:
        notes.append("There is one clip: the intervals tell of other raters, not of other clips.")
    if raters > 1 and None in result["agreement"].values():
        notes.append("Where all ratings are alike, agreement cannot be told from chance.")
    return notes


def _table(result) -> str:
    """Markdown: the paper's Tab. 3 with intervals, differences, agreement."""

    def cell(score, form):
        if score["mean"] is None:
            return "-"
        text = format(score["mean"], form)
        if score["interval"]:
            text += " [{}, {}]".format(*(format(x, form) for x in score["interval"]))
        return text

    def rows(first, lines):
        heads = [first, *(TITLES[name] for name in QUESTIONS)]
        out = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])

    def plain(name):
        return name.replace("|", "\\|")

    level = 100 * result["protocol"]["interval"]["level"]
    people, clips = result["raters"], result["clips"]
    parts = [
        f"Opinion scores from 1 (bad) to 5 (excellent) by {people} rater{'s' * (people != 1)} on "
        f"{clips} clip{'s' * (clips != 1)} a system: mean [{level:g}% interval].",
        rows(
            "Methods",
            [
                [plain(system), *(cell(row[name], ".2f") for name in QUESTIONS)]
                for system, row in result["scores"].items()
            ],
        ),
    ]
    if result["differences"]:
        parts += [
            "Differences, paired within raters and clips:",
            rows(
                "First - second",
                [
                    [
                        " - ".join(map(plain, row["systems"])),
                        *(cell(row[name], "+.2f") for name in QUESTIONS),
                    ]
                    for row in result["differences"]
                ],
            ),
        ]
    agreement = [
        "-" if result["agreement"][name] is None else f"{result['agreement'][name]:.2f}"
        for name in QUESTIONS
    ]
    lines = [["between raters (Krippendorff's alpha, ordinal)", *agreement]]
    if any(result["consistency"].values()):
        twice = [result["consistency"][name] for name in QUESTIONS]
        lines.append(
            [
                "of raters with themselves (equal ratings)",
                *("-" if x is None else f"{100 * x['equal']:.0f}% of {x['pairs']}" for x in twice),
            ]
        )
    parts.append(rows("Agreement", lines))
    return "\n\n".join(parts)
