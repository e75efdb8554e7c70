"""What the answers of a study say."""

import itertools
import json
import os
from pathlib import Path

import numpy as np

from keras_vpgc.errors import VPGCError, check_writable, writing
from keras_vpgc.evaluation.agreement import krippendorff_alpha
from keras_vpgc.evaluation.bootstrap import crossed_interval
from keras_vpgc.evaluation.output import check_output
from keras_vpgc.evaluation.study_answers import Answers, Key, read_answers
from keras_vpgc.version import __version__
from keras_vpgc.visualization.study_page import QUESTIONS, TITLES


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
    folder = check_output(output, report=False)
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
