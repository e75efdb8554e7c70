"""What pages that open anywhere share: their style, and plots inside of them."""

import html
import io

import numpy as np

from keras_vpgc.errors import missing_extra

# Placeholders that become the page's own colours, light or dark.
NAMES = ("ink", "faint", "main", "second", "alarm", "third", "fourth", "fifth", "sixth")
COLOURS = [f"#0a0b{i:02}" for i in range(1, len(NAMES) + 1)]
INK, FAINT, MAIN, SECOND, ALARM = COLOURS[:5]
# Of systems that are compared.
SERIES = (MAIN, SECOND, *COLOURS[5:])
VARIABLES = {colour: f"var(--{name})" for colour, name in zip(COLOURS, NAMES, strict=True)}
SIZE = (4.4, 2.7)
# Points of a curve; more would not show.
CURVE = 500

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --card: #fff; --ink: #22262b; --faint: #c9ccd1;
  --quiet: #5d646d; --main: #1f6fb2; --second: #c2571a; --alarm: #b3261e; --note: #fff4e5;
  --third: #2c8545; --fourth: #7a4fb5; --fifth: #0f8a8a; --sixth: #9a6b00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --card: #1d2125; --ink: #e4e6e9; --faint: #474d54; --quiet: #a3aab2;
    --main: #6db3ee; --second: #f0a35e; --alarm: #ff8a80; --note: #33291a;
    --third: #7fd096; --fourth: #c3a3f5; --fifth: #6fd3d3; --sixth: #e3c35f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 16px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0.4em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 1.6em 0 0.5em; }
figure, .advice { background: var(--card); border: 1px solid var(--faint); border-radius: 8px;
  margin: 0; padding: 12px; }
.advice { background: var(--note); padding-left: 32px; }
.advice li { margin: 0.35em 0; }
.grid, .frames, .numbers { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--cell), 100%), 1fr)); }
.grid { --cell: 340px; } .frames { --cell: 140px; } .numbers { --cell: 130px; }
.frames img { width: 100%; display: block; border-radius: 4px; }
figcaption { font-size: 0.85rem; color: var(--quiet); margin-top: 6px; }
figcaption b { color: var(--ink); display: block; font-size: 0.95rem; }
svg { width: 100%; height: auto; display: block; }
.numbers div { border-left: 3px solid var(--main); padding-left: 8px; }
.numbers b { display: block; font-size: 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--faint); padding: 4px 10px; text-align: right; }
th:first-child, td:first-child { text-align: left; min-width: 9em; }
.words td { text-align: left; overflow-wrap: anywhere; }
footer { color: var(--quiet); font-size: 0.85rem; margin: 2em 0 1em; }
"""


def plain_style() -> dict:
    """Matplotlib's settings of all plots of such pages."""
    return {
        "svg.fonttype": "none",
        "font.size": 10,
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
    }


def page_of(title: str, body: str, style: str = "") -> str:
    """A whole page.

    Args:
        title: Its title, HTML.
        body: What it shows, HTML.
        style: CSS beside that of all pages.

    Returns:
        HTML.
    """
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}{style}</style></head><body>
{body}</body></html>
"""


def plots_of(plots, size=SIZE) -> str:
    """Plots in the page's own colours.

    Args:
        plots: Tuples of a title, a sentence below and a function that draws into matplotlib's axes.
        size: Width and height of each in inches.

    Returns:
        `<figure>`s of inline SVG.

    Raises:
        VPGCError: if matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise missing_extra("matplotlib", "landmarks") from error
    with matplotlib.rc_context(plain_style()):
        return "".join(_figure_of(title, text, draw, size) for title, text, draw in plots)


def envelope(values, most: int = CURVE) -> np.ndarray:
    """Places of a curve's points that keep its peaks: least and greatest of each stretch.

    Args:
        values: Float `(n,)`; what is not finite has no place.
        most: Number of points.

    Returns:
        Int `(k,)`, rising; all finite ones if they are few enough.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) <= most:
        return known
    chosen = [
        end
        for part in np.array_split(known, most // 2)
        for end in sorted({int(part[np.argmin(values[part])]), int(part[np.argmax(values[part])])})
    ]
    return np.array(chosen)


def _figure_of(title, caption, draw, size):
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    draw(axes)
    file = io.StringIO()
    # Names inside one page must differ from plot to plot.
    with rc_context({"svg.hashsalt": title}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    # Links lead to places of the same page.
    svg = svg[svg.index("<svg") :].replace(' target="_blank"', "")
    for placeholder, variable in VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return (
        f"<figure>{svg}<figcaption><b>{html.escape(title)}</b>{html.escape(caption)}</figcaption>"
        "</figure>"
    )
