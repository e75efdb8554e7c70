"""Plots of an evaluation's page."""

import io
from typing import Any

import numpy as np

from keras_vpgc.errors import missing_extra
from keras_vpgc.visualization.pages import ALARM, FAINT, INK, SERIES, envelope

CURVES = ("psnr", "ssim", "lpips", "landmark_distance")
AGAINST = ("psnr", "landmark_distance")
# Dots of a system in a plot; more would only make the page heavy.
DOTS = 1000
# Parts, equally full, whose means make a line.
PARTS = 8
# What the openings of eyes and mouth are called.
OPENING_TITLES = {
    "eyes": ("Eye opening", "height over width"),
    "mouth": ("Mouth opening", "gap over width"),
}
TRUTH = "truth"
# Colours of a picture on white: the truth's, then those of systems (Okabe and Ito's).
ON_WHITE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Inches a second, and the least and greatest width.
A_SECOND, NARROWEST, WIDEST = 0.3, 9.0, 60.0


def evaluation_plots(evaluation, links: dict) -> tuple[list, list]:
    """What `keras_vpgc.visualization.pages.plots_of` draws.

    Args:
        evaluation: A `keras_vpgc.visualization.evaluation_report.Evaluation`.
        links: Name -> place -> id of the frame's picture.

    Returns:
        Curves over time, and errors against pose and mouth.
    """
    colours = dict.fromkeys(evaluation.scores, FAINT)
    others = [name for name in evaluation.scores if name not in evaluation.shown]
    series = [*evaluation.shown, *others]
    for name, colour in zip(series, SERIES, strict=False):
        colours[name] = colour
    styles = {name: "-" if i < len(SERIES) else "--" for i, name in enumerate(series)}
    # The least important is drawn first.
    order = [name for name in reversed(series) if evaluation.scores[name]]
    # A line would bridge the gaps between stretches.
    breaks = np.flatnonzero(np.diff(evaluation.frames) > 5) + 1
    titles = {key: title for key, title, _ in evaluation.columns}

    def scored(name, key):
        values = np.asarray(evaluation.scores[name].get(key, ()), "float64")
        return np.where(np.isfinite(values), values, np.nan) if values.size else None

    def shows(key):
        return any(
            np.isfinite(evaluation.scores[x].get(key, np.nan)).any() for x in evaluation.shown
        )

    def curve(key):
        def draw(axes):
            for name in order:
                values = scored(name, key)
                if values is None or not np.isfinite(values).any():
                    continue
                x, y = _drawn(evaluation.times, values, breaks)
                style = {"color": colours[name], "linestyle": styles[name], "linewidth": 0.8}
                alpha = 1.0 if name in evaluation.shown else 0.5
                axes.plot(x, y, label=name, alpha=alpha, **style)
            for name in evaluation.shown:
                values = scored(name, key)
                if values is None:
                    continue
                marked = [i for i in links[name] if np.isfinite(values[i])]
                points = axes.scatter(
                    evaluation.times[marked], values[marked], s=30, zorder=3, linewidth=0.8,
                    color=ALARM if len(evaluation.shown) == 1 else colours[name], edgecolor=INK,
                )  # fmt: skip
                points.set_urls([f"#{links[name][i]}" for i in marked])
            axes.set_xlabel("seconds")
            _legend(axes)

        return draw

    def against(key, axis, signal):
        def draw(axes):
            if axis in evaluation.seen:
                axes.axvspan(*evaluation.seen[axis], color=FAINT, alpha=0.35, linewidth=0)
            for name in (name for name in order if name in evaluation.shown):
                values = scored(name, key)
                if values is None:
                    continue
                known = np.flatnonzero(np.isfinite(signal) & np.isfinite(values))
                if not len(known):
                    continue
                dots = known[np.linspace(0, len(known) - 1, min(DOTS, len(known))).astype(int)]
                style = {"s": 4, "color": colours[name], "alpha": 0.35, "linewidth": 0}
                axes.scatter(signal[dots], values[dots], **style)
                line = _means(signal[known], values[known])
                axes.plot(*line, color=colours[name], linewidth=1.8, label=name)
            axes.set_xlabel(axis)
            if len(evaluation.shown) > 1:
                _legend(axes)

        return draw

    curves: list[Any] = []
    plots: list[Any] = []
    for key in CURVES:
        if shows(key):
            better = "Higher is better" if "↑" in titles[key] else "Lower is better"
            caption = f"{better}; the dots lead to the frames below."
            curves.append((titles[key].rstrip("↑↓ "), caption, curve(key)))
    for key in AGAINST:
        for axis, signal in evaluation.signals.items() if shows(key) else ():
            title = f"{titles[key].rstrip('↑↓ ')} against {axis.split(',')[0]}"
            caption = "Each dot a frame; the line the mean over eighths of the frames."
            plots.append((title, caption, against(key, axis, signal)))
    return curves, plots


def opening_plots(evaluation) -> list:
    """How far eyes and mouth are open over time, for `keras_vpgc.visualization.pages.plots_of`.

    Args:
        evaluation: A `keras_vpgc.visualization.evaluation_report.Evaluation`.

    Returns:
        A plot each for eyes and mouth.
    """
    # The truth stands out; the systems have the colours of the other curves.
    series = [*evaluation.shown, *(x for x in evaluation.scores if x not in evaluation.shown)]
    colours = dict(zip(series, SERIES, strict=False))
    plots = []
    for part, curves in evaluation.openings.items():
        title, unit = OPENING_TITLES[part]

        def draw(axes, curves=curves):
            _draw_openings(axes, evaluation, curves, {TRUTH: INK, **colours}, FAINT)
            _legend(axes)

        caption = f"{unit[0].upper()}{unit[1:]}, found in the pictures of truth and result alike."
        plots.append((title, caption, draw))
    return plots


def openings_picture(evaluation) -> bytes:
    """How far eyes and mouth are open over time, below each other, as wide as the clip is long.

    Args:
        evaluation: A `keras_vpgc.visualization.evaluation_report.Evaluation`.

    Returns:
        Bytes of a PNG file.

    Raises:
        VPGCError: if matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "landmarks") from error
    width = np.clip(A_SECOND * np.ptp(evaluation.times), NARROWEST, WIDEST)
    style = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure((width, 2.4 * len(evaluation.openings)), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(evaluation.openings), sharex=True, squeeze=False)[:, 0]
        for axes, (part, curves) in zip(rows, evaluation.openings.items(), strict=True):
            names = [TRUTH, *(name for name in curves if name != TRUTH)]
            _draw_openings(axes, evaluation, curves, dict(zip(names, ON_WHITE, strict=False)))
            title, unit = OPENING_TITLES[part]
            axes.set_ylabel(f"{title.lower()}\n({unit})")
            axes.grid(alpha=0.25)
        rows[0].legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))
        for axes in rows[:-1]:
            axes.set_xlabel("")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=100, facecolor="white")
    return data.getvalue()


def _draw_openings(axes, evaluation, curves, colours, other="#999999"):
    breaks = np.flatnonzero(np.diff(evaluation.frames) > 5) + 1
    for name, values in curves.items():
        if np.isfinite(values).any():
            x, y = _drawn(evaluation.times, np.asarray(values, "float64"), breaks)
            style = {"color": colours.get(name, other), "linewidth": 1.3 if name == TRUTH else 1.0}
            axes.plot(x, y, label=name, **style)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")


def _drawn(times, values, breaks):
    """Points of a curve with NaN where it is broken: gaps of time, and frames without a score."""
    pieces_x, pieces_y = [], []
    for part in np.split(np.arange(len(values)), breaks):
        missing = np.flatnonzero(np.isnan(values[part]))
        for piece in np.split(part, missing):
            kept = piece[envelope(values[piece], max(4, 500 * len(piece) // len(values)))]
            pieces_x += [times[kept], [np.nan]]
            pieces_y += [values[kept], [np.nan]]
    return np.concatenate(pieces_x), np.concatenate(pieces_y)


def _means(signal, values):
    """Means in parts of the signal's range that hold equally many frames."""
    order = np.argsort(signal, kind="stable")
    parts = [part for part in np.array_split(order, PARTS) if len(part)]
    return [signal[x].mean() for x in parts], [values[x].mean() for x in parts]


def _legend(axes):
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=7, ncols=3, **place)
