"""Cross-reenactment as a table, and as one page that opens anywhere."""

import base64
import html

import numpy as np

from keras_vpgc.metrics.identity import THRESHOLD
from keras_vpgc.visualization.evaluation_report import EMBEDDED_BYTES
from keras_vpgc.visualization.pages import ALARM, MAIN, SECOND, page_of, plots_of

SCORES = (
    ("head_pose_error", "head pose error (°) ↓", ".2f"),
    ("head_motion_error", "head motion error (°) ↓", ".2f"),
    ("expression_error", "expression error ↓", ".4f"),
    ("expression_change_error", "expression change error ↓", ".4f"),
    ("expression_agreement", "expression agreement ↑", ".3f"),
    ("landmark_distance", "landmarks asked for and found (px) ↓", ".2f"),
    ("jitter", "jitter (px)", ".2f"),
    ("flicker", "flicker of still faces (of 255)", ".2f"),
    ("sharpness", "sharpness", ".1f"),
    ("relative_sharpness", "sharpness over the target's", ".2f"),
    ("identity_distance", "identity distance ↓", ".3f"),
    ("identity_similarity", "identity similarity ↑", ".3f"),
)
CORRELATIONS = (
    ("yaw", "yaw"),
    ("pitch", "pitch"),
    ("roll", "roll"),
    ("mouth", "mouth opening"),
    ("blink", "eye closing"),
    ("expression", "blendshapes, mean"),
)
CURVES = (
    ("yaw", "Yaw", "degrees"),
    ("pitch", "Pitch", "degrees"),
    ("mouth", "Mouth opening", "its width being 1"),
    ("blink", "Eye closing", "blendshape"),
)
PER_FRAME = (
    ("head_motion_error", "Head motion error", "degrees"),
    ("expression_change_error", "Expression change error", ""),
    ("identity_distance", "Identity distance", ""),
    ("landmark_distance", "Landmarks asked for and found", "pixels at 512"),
)


def cross_table(result: dict) -> str:
    """Scores and correlations as Markdown.

    Args:
        result: What `keras_vpgc.evaluation.cross.evaluate_cross` returns.

    Returns:
        Two tables: means with intervals by column, and correlations over time.
    """
    header, *rows = _rows(result)
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    header, *rows = _correlation_rows(result)
    lines += ["", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def cross_report(result: dict, per_frame: dict, curves: dict, sheet: bytes, video: bytes) -> str:
    """A page of how well a result follows its driving clip.

    Args:
        result: What `keras_vpgc.evaluation.cross.evaluate_cross` returns.
        per_frame: Its `scores.npz`.
        curves: For `"driving"` and `"result"` what `keras_vpgc.evaluation.motion.signals` returns.
        sheet: The contact sheet as PNG.
        video: `cross.mp4`, to embed.

    Returns:
        HTML without anything outside of itself, but for a long video.

    Raises:
        VPGCError: if matplotlib is missing.
    """
    protocol = result["protocol"]
    times = per_frame["times"] - per_frame["times"][0]
    source = f"data:video/mp4;base64,{base64.b64encode(video).decode()}"
    if len(video) > EMBEDDED_BYTES:
        source = "cross.mp4"
    name = html.escape(protocol["driving"]["file"])
    target = protocol["target"]
    shown = html.escape(target["name"]) if target else "a face"
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in result["notes"])
    style = "video, .sheet { width: 100%; max-width: 1160px; border-radius: 8px; display: block; }"
    body = f"""<h1>How well {name} drives {shown}</h1>
<p>{result["frames"]} frames; means with {100 * protocol["interval"]["level"]:g}% intervals by
stretches of one second. There is no true frame: what is detected in both clips is compared.</p>
<video controls loop src="{source}"></video>
<h2>Scores</h2>
<div class="scroll">{_html(_rows(result))}</div>
<p>Head motion and expression change are against each clip's own rest, which retargeting may keep.
A still face is what a result that never moves gets; the driving clip a frame late is near to the
best, and its identity is the driving person's. Identity distances above 0.6 are of different
persons by the network's training. Flicker is measured where the driving face stands still; moving
frames are left out.</p>
<h2>Does it move when the driver moves?</h2>
<div class="scroll">{_html(_correlation_rows(result))}</div>
<h2>Over time</h2>
<div class="grid">{plots_of(_plots(times, per_frame, curves))}</div>
<h2>Frames</h2>
<img class="sheet" alt="Frames of the driving clip, landmarks and result"
src="data:image/png;base64,{base64.b64encode(sheet).decode()}">
{f'<h2>Notes</h2><ul class="advice">{notes}</ul>' if notes else ""}
<footer>The same numbers and the protocol are in cross.json, those of each frame in
scores.npz.</footer>
"""
    return page_of(f"{name} drives {shown}", body, style)


def _rows(result):
    """The table's head and rows as texts."""
    columns = result["scores"]
    yield ["", *columns]
    for key, title, form in SCORES:
        if any(key in column for column in columns.values()):
            yield [title, *(_cell(column, key, form) for column in columns.values())]


def _cell(column, key, form):
    if key not in column:
        return "-"
    text = format(column[key], form)
    if interval := column["intervals"].get(key):
        text += f" [{interval[0]:{form}}, {interval[1]:{form}}]"
    left_out = column["left_out"].get(key)
    return text + (f" ({left_out} left out)" if left_out else "")


def _correlation_rows(result):
    columns = result["correlations"]
    yield ["", *(f"{name}: {what}" for name in columns for what in ("correlation", "spread"))]
    for key, title in CORRELATIONS:
        cells = []
        for column in columns.values():
            row = column[key]
            text = "-" if row["correlation"] is None else f"{row['correlation']:.3f}"
            if row["interval"]:
                text += " [{:.3f}, {:.3f}]".format(*row["interval"])
            cells += [text, "-" if row["ratio"] is None else f"{row['ratio']:.2f}"]
        yield [title, *cells]


def _html(rows):
    header, *rows = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _plots(times, per_frame, curves):
    def both(key, unit):
        def draw(axes):
            for name, colour in (("driving", MAIN), ("result", SECOND)):
                axes.plot(times, curves[name][key], color=colour, linewidth=0.9)
            axes.set_xlabel("seconds")
            axes.set_ylabel(unit)

        return draw

    def alone(key, values, unit):
        def draw(axes):
            axes.plot(times, values, color=SECOND, linewidth=0.9)
            if key == "identity_distance":
                axes.axhline(THRESHOLD, color=ALARM, linestyle="--", linewidth=1)
            axes.set_ylim(0, None)
            axes.set_xlabel("seconds")
            axes.set_ylabel(unit)

        return draw

    for key, title, unit in CURVES:
        yield title, "The driving clip blue, the result orange.", both(key, unit)
    for key, title, unit in PER_FRAME:
        values = per_frame.get(f"result/{key}")
        if values is not None and np.isfinite(values).any():
            caption = (
                "Dashed: above it is probably another person." if key == "identity_distance" else ""
            )
            yield title, caption, alone(key, values, unit)
