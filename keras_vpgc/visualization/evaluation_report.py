"""An evaluation as one page that opens anywhere."""

import base64
import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_vpgc.visualization.evaluation_plots import evaluation_plots, opening_plots
from keras_vpgc.visualization.pages import page_of, plots_of
from keras_vpgc.visualization.sheets import write

# Frames by one score and system; fewer where there are many systems.
WORST = 4
# Frames nearer to each other than this show the same.
APART = 10
NO_FACE = "no face found"
# A difference of this many of 255 levels is the hottest colour of an error map.
HOTTEST = 64
# A longer video is linked, not embedded.
EMBEDDED_BYTES = 12_000_000
# Of more pairs of systems the differences are shown when asked for.
OPEN_PAIRS = 3
# Height in pixels of a shown frame, and the least one.
TALLEST, SMALLEST = 320, 160
# At the end of the title of a score of which it is known what is better.
ARROWS = "↑↓"
# Inches of a plot over the page's whole width.
WIDE = (10.5, 2.4)
# What the truth's own floor is called, which is no system.
FLOORS = ("floor", "floor (truth, a frame late)")
STYLE = """
video { max-width: 100%; min-width: min(100%, 640px); border-radius: 8px; display: block; }
.worst { display: grid; gap: 12px; }
.worst img { width: 100%; max-width: 960px; display: block; }
.worst figure:target { outline: 3px solid var(--alarm); }
th { max-width: 10em; overflow-wrap: anywhere; }
td small { display: block; color: var(--quiet); white-space: nowrap; }
td b { color: var(--main); }
.scroll { margin-bottom: 12px; }
.wide { --cell: 100%; }
pre { overflow-x: auto; font-size: 0.8rem; }
.words th { padding-top: 12px; max-width: none; }
svg a { cursor: pointer; }
"""


@dataclass
class Evaluation:
    """What a page of an evaluation shows.

    Attributes:
        title, intro: Its head, and sentences below.
        tables: Title -> name -> what `keras_vpgc.evaluation.summary` returns, for each region.
        pairs: Title -> what `paired_differences` returns, for each region.
        scores: Name -> score -> float `(n,)`, of the curves; those of `shown` among them.
        shown: Names of the systems whose frames are looked at.
        pictures: Takes a name and rising places of frames; yields truth and prediction, uint8
            `(h, w, 3)`, for each.
        frames, times: `(n,)`, the frames' numbers and seconds.
        signals: Name of an axis -> float `(n,)` that errors are drawn against, such as
            `{"yaw, degrees": ...}`.
        openings: `"eyes"` and `"mouth"` -> name, `"truth"` among them -> float `(n,)`, how far they
            are open; see `keras_vpgc.evaluation.eyes_and_mouth.openings`.
        agreement: What `keras_vpgc.evaluation.eyes_and_mouth.agreement_cells` returns.
        captions: The scores that are named below frames; default: all of `columns`.
        seen: Name of an axis -> least and greatest value that a training has seen.
        coverage: Sentences of the coverage report's advice.
        video, video_caption: The video file, which lies beside the page; what it shows.
        columns: Tuples of a score, its title, which ends in an arrow to the better side, and its
            format.
        notes: Sentences on what was left out or went wrong.
        settings: Title -> JSON-able settings.
        footer: Where the numbers are.
    """

    title: str
    intro: str
    tables: dict[str, dict[str, dict]]
    scores: dict[str, dict[str, np.ndarray]]
    shown: Sequence[str]
    pictures: Callable[[str, list[int]], Iterable[tuple[np.ndarray, np.ndarray]]]
    frames: np.ndarray
    times: np.ndarray
    signals: dict[str, np.ndarray]
    columns: Sequence[tuple[str, str, str]]
    settings: dict[str, object]
    footer: str
    pairs: dict[str, list[dict]] = field(default_factory=dict)
    openings: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    agreement: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    captions: Sequence[str] = ()
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    coverage: list[str] = field(default_factory=list)
    video: Path | None = None
    video_caption: str = ""
    notes: list[str] = field(default_factory=list)


def evaluation_report(evaluation: Evaluation) -> str:
    """A page of how well systems do: tables, video, curves, worst frames, errors against pose.

    Args:
        evaluation: What it shows.

    Returns:
        HTML without anything outside of itself, but for a video that is too long for it: plots are
        inline SVG, whose dots lead to the frames, and frames embedded JPEG.

    Raises:
        VPGCError: if matplotlib is missing.

    Example:

    ```python
    evaluate_run("runs/me")  # writes runs/me/evaluation/report.html
    ```
    """
    count = min(WORST, max(2, 6 - len(evaluation.shown)))
    chosen = {name: choose(evaluation.scores[name], count) for name in evaluation.shown}
    links = {
        name: {i: f"{_anchor(evaluation, name)}-{evaluation.frames[i]}" for i, _ in places}
        for name, places in chosen.items()
    }
    curves, against = evaluation_plots(evaluation, links)
    parts = [f"<h1>{_text(evaluation.title)}</h1>", f"<p>{_text(evaluation.intro)}</p>"]
    if evaluation.notes:
        notes = "".join(f"<li>{_text(note)}</li>" for note in evaluation.notes)
        parts.append(f'<ul class="advice">{notes}</ul>')
    for title, rows in evaluation.tables.items():
        table = _score_table(rows, evaluation.columns)
        parts.append(f'<h2>{_text(title)}</h2><div class="scroll">{table}</div>')
        if evaluation.pairs.get(title):
            parts.append(_pair_table(evaluation.pairs[title], evaluation.columns))
    if evaluation.video is not None:
        parts.append(f"<h2>{_text(evaluation.video_caption)}</h2>{_video(evaluation.video)}")
    parts.append(f'<h2>Frame by frame</h2><div class="grid">{plots_of(curves)}</div>')
    if evaluation.openings:
        parts.append(_eyes_and_mouth(evaluation))
    if against:
        parts.append("<h2>Errors against pose and mouth</h2>")
        if evaluation.seen:
            parts.append("<p>Shaded: what the frames of the training hold.</p>")
        parts.append(f'<div class="grid">{plots_of(against)}</div>')
    if evaluation.coverage:
        advice = "".join(f"<li>{_text(x)}</li>" for x in evaluation.coverage)
        parts.append(
            "<h2>What the recording lacks</h2><p>From its coverage report, coverage.html in the "
            f'folder of the portrait:</p><ul class="advice">{advice}</ul>'
        )
    parts.append(
        "<h2>Frames to look at</h2><p>Truth, prediction, and where they differ: the mean "
        f"difference of the colours, bright from {HOTTEST} of 255 on.</p>"
    )
    for name, places in chosen.items():
        if len(chosen) > 1:
            parts.append(f"<h3>{_text(name)}</h3>")
        if not places:
            parts.append("<p>No frame has a score that could be called better or worse.</p>")
        parts.append(f'<div class="worst">{_frames(evaluation, name, places, links[name])}</div>')
    parts.append("<h2>Settings</h2>")
    for title, values in evaluation.settings.items():
        text = _text(json.dumps(values, indent=1, ensure_ascii=False))
        parts.append(f"<details><summary>{_text(title)}</summary><pre>{text}</pre></details>")
    parts.append(f"<footer>{_text(evaluation.footer)}</footer>")
    return page_of(_text(evaluation.title), "\n".join(parts), STYLE)


def _text(value):
    return html.escape(str(value))


def _anchor(evaluation, name):
    """Names hold anything; their numbers do not."""
    return "frame" if len(evaluation.shown) == 1 else f"frame-{list(evaluation.shown).index(name)}"


def _score_table(rows, columns):
    """One column a system and one row a score, the best in bold."""
    lines = ["<tr><th></th>" + "".join(f"<th>{_text(name)}</th>" for name in rows) + "</tr>"]
    for key, title, form in columns:
        known = {name: row[key] for name, row in rows.items() if key in row}
        if not known:
            continue
        best = None
        rivals = [value for name, value in known.items() if name not in FLOORS]
        if len(rivals) > 1 and title[-1] in ARROWS:
            best = format((max if title[-1] == "↑" else min)(rivals), form)
        cells = []
        for name, row in rows.items():
            left_out = row["left_out"].get(key)
            out = f"<small>{left_out} left out</small>" if left_out else ""
            if key not in row:
                cells.append(f"<td>-{out}</td>")
                continue
            value = format(row[key], form)
            if value == best and name not in FLOORS:
                value = f"<b>{value}</b>"
            if interval := row["intervals"].get(key):
                value += f"<small>[{interval[0]:{form}}, {interval[1]:{form}}]</small>"
            cells.append(f"<td>{value}{out}</td>")
        lines.append(f"<tr><td>{_text(title)}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _eyes_and_mouth(evaluation):
    """Whether eyes and mouth open and close with the truth's."""
    names = next(iter(evaluation.agreement.values()), {})
    lines = ["<tr><th></th>" + "".join(f"<th>{_text(name)}</th>" for name in names) + "</tr>"]
    for title, row in evaluation.agreement.items():
        cells = [f"<td>{x}<small>{_text(beside)}</small></td>" for x, beside in row.values()]
        lines.append(f"<tr><td>{_text(title)}</td>{''.join(cells)}</tr>")
    table = f'<table class="openings">{"".join(lines)}</table>'
    return (
        f'<h2>Eyes and mouth</h2><div class="scroll">{table}</div>'
        f'<div class="grid wide">{plots_of(opening_plots(evaluation), WIDE)}</div>'
    )


def _pair_table(pairs, columns):
    titles = {key: title for key, title, _ in columns}
    lines = ""
    for pair in pairs:
        head = f"{_text(pair['first'])} against {_text(pair['second'])}"
        lines += f'<tr><th colspan="2">{head}</th></tr>'
        for key, row in pair["scores"].items():
            lines += f"<tr><td>{_text(titles[key])}</td><td>{_text(row['words'])}</td></tr>"
    state = " open" if len(pairs) <= OPEN_PAIRS else ""
    return (
        f"<details{state}><summary>System against system, on the frames that both have</summary>"
        f'<div class="scroll"><table class="words">{lines}</table></div><p>Each interval is for '
        "one difference alone: of many, some exclude 0 by chance.</p></details>"
    )


def _video(path):
    source = _text(path.name)
    if path.stat().st_size <= EMBEDDED_BYTES:
        source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return f'<video controls loop muted playsinline preload="auto" src="{source}"></video>'


def choose(scores: dict, count: int) -> list[tuple[int, str]]:
    """Places of the frames to look at, and why: the worst, far enough apart, and usual ones.

    Args:
        scores: Score -> float `(n,)`, `psnr` among them.
        count: Number of worst frames by one score.

    Returns:
        Places and reasons, each place once.
    """
    chosen: list[tuple[int, str]] = []

    def pick(values, why, count):
        for i in np.argsort(values):
            if count and np.isfinite(values[i]) and all(abs(i - j) > APART for j, _ in chosen):
                chosen.append((int(i), why))
                count -= 1

    psnr = scores["psnr"]
    distance = scores.get("landmark_distance", np.zeros(len(psnr)))
    known = psnr[np.isfinite(psnr)]
    missed = np.isnan(distance) & ~np.isnan(psnr)
    pick(psnr, "lowest PSNR", count)
    if "landmark_distance" in scores:
        pick(-distance, "largest landmark distance", count)
    pick(np.where(missed, np.minimum(psnr, 1e3), np.nan), NO_FACE, 1)
    if len(known):
        pick(np.abs(psnr - np.median(known)), "a usual frame", 1)
    pick(-psnr, "highest PSNR", 1)
    return [(i, f"{why}, {NO_FACE}" if missed[i] and why != NO_FACE else why) for i, why in chosen]


def _frames(evaluation, name, places, links):
    """The chosen frames, in the order in which they were chosen; read in that of time."""
    rising = sorted(i for i, _ in places)
    pairs = evaluation.pictures(name, rising)
    strips = {i: _strip(*pair) for i, pair in zip(rising, pairs, strict=True)}
    found = []
    for i, why in places:
        known = [
            f"{title.rstrip(f'{ARROWS} ')} {evaluation.scores[name][key][i]:{form}}"
            for key, title, form in evaluation.columns
            if title[-1] in ARROWS
            and (not evaluation.captions or key in evaluation.captions)
            and len(evaluation.scores[name].get(key, ())) == len(evaluation.frames)
            and np.isfinite(evaluation.scores[name][key][i])
        ]
        about = f"frame {evaluation.frames[i]}, {evaluation.times[i]:.1f} s; {'; '.join(known)}"
        found.append(
            f'<figure id="{links[i]}"><img alt="{_text(about)}" src="data:image/jpeg;base64,'
            f'{strips[i]}"><figcaption><b>{_text(why)}</b>{_text(about)}</figcaption></figure>'
        )
    return "".join(found)


def _strip(truth, prediction):
    """Truth, prediction and heat map as a JPEG in base 64."""
    import cv2

    error = np.abs(truth.astype(int) - prediction).mean(-1)
    heat = cv2.applyColorMap(
        np.clip(error / HOTTEST * 255, 0, 255).astype("uint8"), cv2.COLORMAP_INFERNO
    )
    height, width = truth.shape[:2]
    scale = max(SMALLEST, min(TALLEST, height)) / height
    size = round(width * scale), round(height * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    parts = [
        cv2.resize(x, size, interpolation=method) for x in (truth, prediction, heat[..., ::-1])
    ]
    labels = ("truth", "prediction", "difference")
    strip = np.hstack([write(x, label) for x, label in zip(parts, labels, strict=True)])
    data = cv2.imencode(".jpg", strip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return base64.b64encode(data.tobytes()).decode()
