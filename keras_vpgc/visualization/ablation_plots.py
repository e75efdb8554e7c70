"""Pictures of an ablation: curves of the scores, and faces as they come."""

import io

import numpy as np

from keras_vpgc.errors import VPGCError, missing_extra

# Okabe and Ito's colours, which all eyes tell apart, without yellow, which white paper hides.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SIZE, DPI = (7.2, 4.2), 160
STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
# Columns of the faces, without the truth, and their width in pixels.
MOMENTS, WIDTH = 5, 192


def ablation_plots(rows, scores) -> dict[str, bytes]:
    """Curves of each score against iterations and against seconds.

    Args:
        rows: Dicts of `variant`, `seed`, `step`, `seconds` and scores, which may be `None`.
        scores: Pairs of a score and its title.

    Returns:
        `SCORE_iterations` and `SCORE_seconds` -> bytes of a PNG file. Lines are means over the
        seeds, bands reach from the least to the greatest.

    Raises:
        VPGCError: if matplotlib is missing.
    """
    figure_of = _figures()
    plots = {}
    for score, title in scores:
        curves = _curves(rows, score)
        if not curves:
            continue
        for axis, label in (("step", "iterations"), ("seconds", "seconds of training")):

            def draw(axes, curves=curves, axis=axis, label=label, title=title):
                for place, (name, curve) in enumerate(curves.items()):
                    style = {"color": COLOURS[place % len(COLOURS)]}
                    values = curve["values"]
                    axes.plot(
                        curve[axis], values.mean(0), label=name, linewidth=1.8, markersize=5,
                        marker=MARKERS[place % len(MARKERS)], **style,
                    )  # fmt: skip
                    if len(values) > 1:
                        band = values.min(0), values.max(0)
                        axes.fill_between(curve[axis], *band, alpha=0.15, linewidth=0, **style)
                axes.set_xlabel(label)
                axes.set_ylabel(title)
                axes.grid(alpha=0.25)
                axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))

            plots[f"{score}_{label.split()[0]}"] = figure_of(draw, SIZE)
    return plots


def _curves(rows, score):
    """Name -> steps, mean seconds and the values of each seed, of those that have the score."""
    curves = {}
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == name]
        if all(row[score] is None for row in own):
            continue
        seeds = dict.fromkeys(row["seed"] for row in own)

        def table(key, own=own, seeds=seeds):
            # What has no score is NaN, where the curve is broken.
            return np.array([[x[key] for x in own if x["seed"] == s] for s in seeds], "float64")

        steps = table("step")[0]
        curves[name] = {"step": steps, "seconds": table("seconds").mean(0), "values": table(score)}
    return curves


def face_boxes(landmarks, size: int) -> list[tuple[slice, slice]]:
    """Where eyes and mouth are, as rows and columns of a frame; both equally wide.

    Args:
        landmarks: Float `(68, 2)` in [0, 1].
        size: Side of the frame in pixels.

    Returns:
        Two pairs of slices.
    """
    parts = [np.asarray(landmarks)[x] * size for x in (slice(36, 48), slice(48, 68))]
    width = 1.3 * max(np.ptp(x[:, 0]) for x in parts)
    boxes = []
    for points, share in zip(parts, (0.35, 0.55), strict=True):
        sides = np.array([width, max(share * width, 1.4 * np.ptp(points[:, 1]))])
        sides = np.minimum(np.rint(sides), size).astype(int)
        middle = (points.min(0) + points.max(0)) / 2
        left, top = np.clip(np.rint(middle - sides / 2), 0, size - sides).astype(int)
        boxes.append((slice(top, top + sides[1]), slice(left, left + sides[0])))
    return boxes


def faces_picture(files: dict, steps, truth, landmarks) -> bytes:
    """Eyes and mouth of one frame, a row for each variant and a column for each moment.

    Args:
        files: Name -> function of a step that returns the path of a picture of the frame.
        steps: The steps that there are; at most five are shown.
        truth: uint8 `(s, s, 3)`.
        landmarks: Float `(68, 2)` in [0, 1] of the frame.

    Returns:
        Bytes of a PNG file.

    Raises:
        VPGCError: if a picture is missing, or matplotlib is.

    References:
        Wang et al., SIGGRAPH 2023, Fig. 4.
    """
    import cv2

    figure_of = _figures()
    boxes = face_boxes(landmarks, len(truth))

    def cut(image):
        pieces = [image[box] for box in boxes]
        scale = WIDTH / pieces[0].shape[1]
        sizes = [(WIDTH, max(1, round(x.shape[0] * scale))) for x in pieces]
        pairs = zip(pieces, sizes, strict=True)
        eyes, mouth = (cv2.resize(x, s, interpolation=cv2.INTER_CUBIC) for x, s in pairs)
        return np.vstack([eyes, np.full((3, WIDTH, 3), 255, "uint8"), mouth])

    chosen = np.linspace(0, len(steps) - 1, min(MOMENTS, len(steps))).round().astype(int)
    shown = [steps[i] for i in chosen]
    lines = []
    for place in files.values():
        cells = []
        for step in shown:
            image = cv2.imread(str(place(step)))
            if image is None:
                raise VPGCError(f"{place(step)} is missing: delete its run to train it again.")
            cells.append(cut(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
        lines.append(np.hstack([*cells, cut(truth)]))
    whole = np.vstack(lines)
    height, width = lines[0].shape[0], WIDTH

    def draw(axes):
        axes.imshow(whole)
        labels = [*(str(step) for step in shown), "truth"]
        axes.set_xticks((np.arange(len(labels)) + 0.5) * width, labels)
        axes.set_yticks((np.arange(len(lines)) + 0.5) * height, list(files))
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("iterations")
        axes.tick_params(length=0)
        for place in range(1, len(lines)):
            axes.axhline(place * height - 0.5, color="white", linewidth=3)
        for place in range(1, len(labels)):
            axes.axvline(place * width - 0.5, color="white", linewidth=3)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return figure_of(draw, (whole.shape[1] / DPI + 1.6, whole.shape[0] / DPI + 0.6))


def _figures():
    """A function that draws one figure and returns it as PNG."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "landmarks") from error

    def figure_of(draw, size):
        with matplotlib.rc_context(STYLE):
            figure = Figure(size)
            FigureCanvasAgg(figure)
            draw(figure.add_subplot())
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
        return data.getvalue()

    return figure_of
