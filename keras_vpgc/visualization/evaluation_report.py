"""The evaluation of a run as one page that opens anywhere."""

import base64
import html
import json
from typing import Any

import numpy as np

from keras_vpgc.errors import missing_extra
from keras_vpgc.visualization.coverage_report import (
    ALARM,
    FAINT,
    INK,
    MAIN,
    SECOND,
    STYLE,
    figure_of,
    plain_style,
)
from keras_vpgc.visualization.sheets import write

WORST = 4
# A difference of this many of 255 levels is the hottest colour of an error map.
HOTTEST = 64
# A longer video is linked, not embedded.
EMBEDDED_BYTES = 12_000_000
SCORES = (
    ("psnr", "PSNR, dB", 2, True),
    ("ssim", "SSIM", 3, True),
    ("lpips", "LPIPS", 3, False),
    ("landmark_distance", "F-LMD, px", 2, False),
    ("landmark_distance_centered", "F-LMD centred, px", 2, False),
    ("mouth_distance_centered", "mouth LMD centred, px", 2, False),
)


def evaluation_report(
    result: dict,
    scores: dict,
    truth,
    systems: dict,
    frames,
    times,
    signals: dict,
    settings: dict,
    video: bytes | None = None,
) -> str:
    """A page of how well a puppet does: table, curves, worst frames, errors against pose.

    Args:
        result: What `keras_vpgc.evaluation.run.evaluate_run` returns.
        scores: System -> score -> float `(n,)`; `"driven"` is the one that is looked at.
        truth: uint8 `(n, s, s, 3)`.
        systems: Name -> uint8 `(n, s, s, 3)`, `"driven"` among them.
        frames: Int `(n,)`, the frames' numbers in the portrait.
        times: Float `(n,)`, their seconds.
        signals: Name of an axis -> float `(n,)` that the error is drawn against, such as
            `{"yaw, degrees": ...}`.
        settings: JSON-able settings of the run.
        video: `driven.mp4`, to embed.

    Returns:
        HTML without anything outside of itself: plots are inline SVG, frames embedded JPEG.

    Raises:
        VPGCError: if matplotlib is missing.

    Example:

    ```python
    evaluate_run("runs/me")  # writes runs/me/evaluation/report.html
    ```
    """
    try:
        import matplotlib
    except ImportError as error:
        raise missing_extra("matplotlib", "landmarks") from error
    driven = scores["driven"]
    chosen = _chosen(driven)
    with matplotlib.rc_context(plain_style()):
        figures = [figure_of(*plot) for plot in _plots(scores, frames, times, signals, chosen)]
    name = html.escape(str(result["protocol"].get("source", "the held-out frames")))
    pictures = "".join(
        _picture(i, why, truth, systems["driven"], frames, times, driven) for i, why in chosen
    )
    clip = ""
    if video is not None and len(video) <= EMBEDDED_BYTES:
        data = base64.b64encode(video).decode()
        clip = f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'
    elif video is not None:
        clip = '<video controls loop muted src="driven.mp4"></video>'
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation on {name}</title><style>{STYLE}
video {{ width: 100%; max-width: 900px; border-radius: 8px; }}
.worst {{ display: grid; gap: 12px; }}
.worst img {{ width: 100%; max-width: 960px; display: block; image-rendering: pixelated; }}
.worst figure:target {{ outline: 3px solid var(--alarm); }}
</style></head><body>
<h1>How well the puppet shows {name}</h1>
<p>{result["protocol"]["frames"]} frames of the {result["protocol"]["part"]} part, which the
training has not seen, at {result["protocol"]["image_size"]} pixels. Means over frames, with
95% intervals by stretches of one second.</p>
<div class="scroll">{_table(result["rows"])}</div>
<h2>Truth and puppet</h2>
{clip}
<h2>Frame by frame</h2>
<div class="grid">{"".join(figures)}</div>
<h2>Frames to look at</h2>
<p>Truth, puppet, and where they differ: the mean difference of the colours, bright from
{HOTTEST} of 255 on.</p>
<div class="worst">{pictures}</div>
<h2>Settings</h2>
<details><summary>Protocol</summary><pre>{_json(result["protocol"])}</pre></details>
<details><summary>Run</summary><pre>{_json(settings)}</pre></details>
<footer>The same numbers are in metrics.json, those of each frame in scores.npz.</footer>
</body></html>
"""


def _json(value):
    return html.escape(json.dumps(value, indent=1))


def _table(rows):
    shown = [x for x in SCORES if any(x[0] in row for row in rows.values())]
    lines = ["<tr><th></th>" + "".join(f"<th>{html.escape(x[1])}</th>" for x in shown) + "</tr>"]
    for system, row in rows.items():
        cells = [f"<td>{html.escape(system)}</td>"]
        for key, _, digits, _ in shown:
            if key not in row:
                cells.append("<td>-</td>")
                continue
            interval = row["intervals"].get(key)
            ends = ""
            if interval is not None:
                ends = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
            cells.append(f"<td>{row[key]:.{digits}f}{ends}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    failures = {k: v["detector_failures"] for k, v in rows.items() if v.get("detector_failures")}
    note = "".join(
        f"<p>No face was found in {count} frames of {html.escape(system)}; its landmark "
        "distances leave them out.</p>"
        for system, count in failures.items()
    )
    return f"<table>{''.join(lines)}</table>{note}"


def _chosen(driven):
    """Places of the frames to look at, and why: the worst, far enough apart, and a usual one."""
    chosen: list[tuple[int, str]] = []

    def pick(values, why, count):
        for i in np.argsort(values):
            if count and np.isfinite(values[i]) and all(abs(i - j) > 10 for j, _ in chosen):
                chosen.append((int(i), why))
                count -= 1

    psnr = np.where(np.isfinite(driven["psnr"]), driven["psnr"], np.inf)
    pick(psnr, "lowest PSNR", WORST)
    if "landmark_distance" in driven:
        pick(-driven["landmark_distance"], "largest landmark distance", WORST)
    pick(np.abs(psnr - np.median(psnr)), "a usual frame", 1)
    pick(-driven["psnr"], "highest PSNR", 1)
    return chosen


def _picture(i, why, truth, driven, frames, times, scores):
    import cv2

    true, shown = truth[i].astype(int), driven[i].astype(int)
    error = np.abs(true - shown).mean(-1)
    heat = cv2.applyColorMap(
        np.clip(error / HOTTEST * 255, 0, 255).astype("uint8"), cv2.COLORMAP_INFERNO
    )
    parts = [truth[i], driven[i], heat[..., ::-1]]
    side = max(160, min(320, truth.shape[1]))
    parts = [cv2.resize(x, (side, side), interpolation=cv2.INTER_CUBIC) for x in parts]
    labels = ("truth", "puppet", "difference")
    strip = np.hstack([write(x, label) for x, label in zip(parts, labels, strict=True)])
    data = cv2.imencode(".jpg", strip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    known = [
        f"{title} {scores[key][i]:.{digits}f}"
        for key, title, digits, _ in SCORES
        if key in scores and np.isfinite(scores[key][i])
    ]
    caption = f"frame {frames[i]}, {times[i]:.1f} s; {'; '.join(known)}"
    return (
        f'<figure id="frame-{frames[i]}"><img alt="{html.escape(caption)}" src="data:image/jpeg;'
        f'base64,{base64.b64encode(data.tobytes()).decode()}"><figcaption><b>{html.escape(why)}'
        f"</b>{html.escape(caption)}</figcaption></figure>"
    )


def _plots(scores, frames, times, signals, chosen):
    """Title, caption and a function that draws into axes, for each plot."""
    colours = {"driven": MAIN, "reconstructed": SECOND}
    # A line would bridge the gaps between stretches.
    breaks = np.flatnonzero(np.diff(frames) > 5) + 1
    marked = [i for i, _ in chosen]

    def curve(key):
        def draw(axes):
            for system in ("nearest frame, warped", "reconstructed", "driven"):
                if key not in scores.get(system, {}):
                    continue
                values = np.where(np.isfinite(scores[system][key]), scores[system][key], np.nan)
                x, y = np.insert(times, breaks, np.nan), np.insert(values, breaks, np.nan)
                colour = colours.get(system, FAINT)
                axes.plot(x, y, color=colour, linewidth=0.8, label=system)
            points = axes.scatter(
                times[marked], scores["driven"][key][marked], s=22, color=ALARM, zorder=3
            )
            points.set_urls([f"#frame-{frames[i]}" for i in marked])
            axes.set_xlabel("seconds")
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
            axes.legend(frameon=False, fontsize=7, ncols=3, **place)

        return draw

    def against(values, name):
        def draw(axes):
            axes.scatter(values, scores["driven"]["psnr"], s=4, color=MAIN, alpha=0.5, linewidth=0)
            known = np.isfinite(values) & np.isfinite(scores["driven"]["psnr"])
            edges = np.quantile(values[known], np.linspace(0, 1, 9)) if known.any() else []
            middles, means = [], []
            for low, high in zip(edges[:-1], edges[1:], strict=True):
                inside = known & (values >= low) & (values <= high)
                if inside.any():
                    middles.append(values[inside].mean())
                    means.append(scores["driven"]["psnr"][inside].mean())
            axes.plot(middles, means, color=SECOND, linewidth=1.5)
            axes.set_xlabel(name)
            axes.set_ylabel("PSNR of the puppet, dB", color=INK)

        return draw

    plots: list[Any] = []
    for key, title, _, higher in SCORES:
        if key in scores["driven"] and key in ("psnr", "lpips", "landmark_distance"):
            better = "higher is better" if higher else "lower is better"
            caption = f"{better}; the dots lead to the frames below"
            plots.append((title, caption, curve(key)))
    for name, values in signals.items():
        caption = "each dot a frame; the line its mean over eighths of the frames"
        plots.append((f"PSNR against {name.split(',')[0]}", caption, against(values, name)))
    return plots
