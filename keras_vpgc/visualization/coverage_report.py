"""The coverage of a clip as one page that opens anywhere."""

import base64
import html

import numpy as np

from keras_vpgc.visualization.pages import (
    ALARM,
    INK,
    MAIN,
    SECOND,
    envelope,
    page_of,
    plots_of,
)


def coverage_report(result: dict, signals: dict, thumbnails, wanted: dict) -> str:
    """A page of what a clip holds: advice, numbers, frames and plots.

    Args:
        result: What `keras_vpgc.data.coverage.inspect` returns.
        signals: `keras_vpgc.data.coverage.measure_signals`.
        thumbnails: List of caption, frame number and JPEG bytes.
        wanted: Thresholds of the advice, drawn as dashed lines.

    Returns:
        HTML without anything outside of itself: plots are inline SVG, frames embedded JPEG.

    Raises:
        VPGCError: if matplotlib is missing.
    """
    plots = plots_of(_plots(result, signals, wanted))
    name = html.escape(result["source"])
    advice = "".join(f"<li>{html.escape(item['text'])}</li>" for item in result["advice"])
    advice = f'<ul class="advice">{advice}</ul>' if advice else "<p>Nothing is missing.</p>"
    frames = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,'
        f'{base64.b64encode(data).decode()}"><figcaption>{html.escape(caption)}: frame {index}, '
        f"{signals['times'][index]:.1f} s</figcaption></figure>"
        for caption, index, data in thumbnails
    )
    body = f"""<h1>What {name} holds</h1>
{_numbers(result)}
<h2>What to record</h2>
{advice}
<h2>The ends of what was seen</h2>
<div class="frames">{frames}</div>
<h2>Plots</h2>
<div class="grid">{plots}</div>
<h2>Ranges</h2>
{_table(result)}
{_preparation(result["preparation"])}
<footer>Left and right are the picture's; the person's own are the other way round, or the same in
a mirrored recording. Dashed lines are what the advice asks for. The same numbers are in
coverage.json.</footer>
"""
    return page_of(f"Coverage of {name}", body)


def _numbers(result):
    frames, seconds, eyes = result["frames"], result["seconds"], result["eyes"]
    rows = [
        (f"{seconds['usable']:.0f} s", f"usable of {seconds['total']:.0f} s"),
        (f"{frames['usable']}", f"usable of {frames['total']} frames"),
        (f"{frames['without_face']}", "frames without a face"),
        (f"{frames['interpolated']}", "frames interpolated"),
        (f"{frames['repeated']}", "frames repeated"),
        (f"{eyes['blinks']}", f"blinks, {eyes['blinks_a_minute']:g} a minute"),
        (f"{result['sharpness']['blurred']:.1%}", "of the frames blurred"),
        (f"{result['place']['face_source_pixels']} px", "height of the face in the source"),
    ]
    cells = "".join(f"<div><b>{value}</b>{html.escape(what)}</div>" for value, what in rows)
    return f'<div class="numbers">{cells}</div>'


def _table(result):
    light = result["exposure"]["luma"]
    rows = [
        ("yaw (left - / right +), degrees", result["pose"]["yaw"]),
        ("pitch (up - / down +), degrees", result["pose"]["pitch"]),
        ("roll (counter-clockwise - / clockwise +), degrees", result["pose"]["roll"]),
        ("middle of the face, from the left", result["place"]["x"]),
        ("middle of the face, from the top", result["place"]["y"]),
        ("height of the face", result["place"]["size"]),
        ("mouth opening over width", result["mouth"]),
        ("eyes closed (0 open to 1)", result["eyes"]["closed"]),
        ("gaze (left - / right +), half widths of the eye", result["gaze"]["x"]),
        ("gaze (up - / down +)", result["gaze"]["y"]),
        ("sharpness over its median", result["sharpness"]["relative"]),
        ("luma of the face, of 255", light),
    ]
    body = ""
    for name, spread in rows:
        cells = "".join("<td>-</td>" if v is None else f"<td>{v:g}</td>" for v in spread.values())
        body += f"<tr><td>{html.escape(name)}</td>{cells}</tr>"
    return (
        '<div class="scroll"><table><tr><th></th><th>least</th><th>5%</th><th>median</th>'
        f"<th>95%</th><th>greatest</th></tr>{body}</table></div>"
    )


def _preparation(report):
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value[:200])}</td></tr>"
        for name, value in _flat(report)
    )
    if not rows:
        return ""
    table = f'<div class="scroll"><table class="words">{rows}</table></div>'
    return f"<h2>Preparation and tracking</h2>{table}"


def _flat(report, before=""):
    """Names and texts of a nested dict."""
    for key, value in report.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield name, str(len(value))
        else:
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _plots(result, signals, wanted):
    """Title, caption and a function that draws into axes, for each plot."""
    times = signals["times"]
    pose = result["pose"]

    def turns(axes):
        _density(axes, signals["yaw"], signals["pitch"])
        middle = [pose[name]["median"] for name in ("yaw", "pitch")]
        reach = [wanted[name] for name in ("yaw", "pitch")]
        _box(axes, middle, reach)
        axes.invert_yaxis()
        axes.set_xlabel("yaw: left - / right +")
        axes.set_ylabel("pitch: down + / up -")

    def turns_in_time(axes):
        for name, colour in (("yaw", MAIN), ("pitch", SECOND), ("roll", INK)):
            _curve(axes, times, signals[name], colour, name)
        axes.set_xlabel("seconds")
        axes.set_ylabel("degrees")
        _legend(axes)

    def tilt(axes):
        _histogram(axes, signals["roll"])
        for side in (-1, 1):
            _line(axes, pose["roll"]["median"] + side * wanted["roll"])
        axes.set_xlabel("roll, degrees")

    def place(axes):
        _density(axes, signals["x"], signals["y"], bins=np.linspace(0, 1, 51))
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.set_aspect("equal")
        axes.set_xlabel("picture, left to right")
        axes.set_ylabel("top to bottom")

    def size(axes):
        _histogram(axes, signals["size"])
        axes.set_xlabel("height of the face / height of the frame")

    def mouth(axes):
        _histogram(axes, signals["mouth"])
        _line(axes, wanted["mouth_open"])
        axes.set_xlabel("gap between the lips / width of the mouth")

    def eyes(axes):
        _curve(axes, times, signals["closed"], MAIN)
        axes.axhline(wanted["eyes_closed"], color=ALARM, linestyle="--", linewidth=1)
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("seconds")
        axes.set_ylabel("closed")

    def gaze(axes):
        _density(axes, signals["gaze_x"], signals["gaze_y"])
        middle = result["gaze"]["x"]["median"]
        if middle is not None:
            for side in (-1, 1):
                _line(axes, middle + side * wanted["gaze"])
        axes.invert_yaxis()
        axes.set_xlabel("left - / right +")
        axes.set_ylabel("down + / up -")

    def expressions(axes):
        peaks = dict(sorted(result["expressions"]["peaks"].items(), key=lambda item: item[1]))
        axes.barh(list(peaks), list(peaks.values()), color=MAIN)
        _line(axes, wanted["expression"])
        axes.set_xlim(0, 1)
        axes.tick_params(axis="y", labelsize=8)

    def sharpness(axes):
        _curve(axes, times, signals["sharpness"], MAIN)
        axes.axhline(wanted["sharpness"], color=ALARM, linestyle="--", linewidth=1)
        axes.set_ylim(0, None)
        axes.set_xlabel("seconds")
        axes.set_ylabel("relative")

    def light(axes):
        _curve(axes, times, signals["luma"], MAIN)
        for name in ("dark", "bright"):
            axes.axhline(wanted[name], color=ALARM, linestyle="--", linewidth=1)
        axes.set_ylim(0, 255)
        axes.set_xlabel("seconds")
        axes.set_ylabel("mean luma")

    def motion(axes):
        _histogram(axes, 100 * signals["motion"], log=True)
        _line(axes, 100 * wanted["motion_path"])
        axes.set_xlabel("path during the exposure, % of the face")

    directions = result["expressions"]["dimensions"]
    expression_caption = (
        f"Greatest blendshape coefficients, over the face at rest; {directions:g} independent "
        "directions."
    )
    plots = [
        ("Turns of the head", "Yaw and pitch of all frames, degrees.", turns),
        ("Turns in time", "", turns_in_time),
        ("Tilt", "Positive: clockwise in the picture.", tilt),
        ("Place in the frame", "Middle of the face.", place),
        ("Size", "Changes as the head comes nearer.", size),
        ("Mouth", "", mouth),
        ("Eyelids", "Above the dashed line the eyes are fully closed.", eyes),
        ("Gaze", "Iris between the corners of the eye, in half widths of the eye.", gaze),
        ("Expressions", expression_caption, expressions),
        ("Sharpness", "Variance of the Laplacian in the face, over its median.", sharpness),
        ("Light", "Mean of the face, 0 to 255.", light),
    ]
    if result["motion"]["path"]:
        plots.append(("Motion", "Half of a frame's time taken as exposure.", motion))
    return plots


def _density(axes, x, y, bins=30):
    """Cells of a grid, the darker the more frames."""
    from matplotlib.patches import Rectangle

    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return
    counts, across, down = np.histogram2d(x[known], y[known], bins)
    for i, j in np.argwhere(counts):
        strength = 0.25 + 0.75 * np.log1p(counts[i, j]) / np.log1p(counts.max())
        corner = (across[i], down[j])
        width, height = across[i + 1] - across[i], down[j + 1] - down[j]
        axes.add_patch(Rectangle(corner, width, height, color=MAIN, alpha=strength, linewidth=0))
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(down[0], down[-1])


def _box(axes, middle, reach):
    from matplotlib.patches import Rectangle

    corner = (middle[0] - reach[0], middle[1] - reach[1])
    axes.add_patch(
        Rectangle(corner, 2 * reach[0], 2 * reach[1], fill=False, edgecolor=ALARM, linestyle="--")
    )
    for limits, centre, half, put in (
        (axes.get_xlim(), middle[0], reach[0], axes.set_xlim),
        (axes.get_ylim(), middle[1], reach[1], axes.set_ylim),
    ):
        put(min(limits[0], centre - 1.1 * half), max(limits[1], centre + 1.1 * half))


def _curve(axes, times, values, colour, label=None):
    chosen = envelope(values)
    axes.plot(times[chosen], values[chosen], color=colour, linewidth=0.9, label=label)


def _histogram(axes, values, log=False):
    axes.hist(values[np.isfinite(values)], bins=40, color=MAIN, log=log)
    axes.set_ylabel("frames")


def _line(axes, place):
    axes.axvline(place, color=ALARM, linestyle="--", linewidth=1)


def _legend(axes):
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
