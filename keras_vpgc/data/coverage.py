"""What a clip holds of a person, advice on what to record, and the guard against unseen poses."""

import base64
import json
import os
from dataclasses import replace

import numpy as np

from keras_vpgc.data.landmark_sets import (
    MEDIAPIPE_TO_68,
    RIGID_POINTS,
    eye_opening,
    mouth_opening,
)
from keras_vpgc.data.retarget import HeadTrack, angles, from_angles
from keras_vpgc.data.tracking import NUM_POINTS
from keras_vpgc.errors import VPGCError, check_writable, missing_extra, writing
from keras_vpgc.metrics.blinks import BLINK, eye_closure, find_blinks

SCHEMA_VERSION = 1
ELSEWHERE = "copy the portrait to a place that can be, and inspect it there"

# What `advise` asks of a clip. Angles are from the clip's median pose.
WANTED = {
    "usable_seconds": 120.0,  # the paper's clips hold some minutes
    "yaw": 15.0,  # degrees to each side; talking people turn that far now and then
    "pitch": 8.0,  # degrees up and down
    "roll": 6.0,  # degrees to each shoulder
    "mouth_open": 0.5,  # gap between the lips over the mouth's width; a wide vowel has about 0.6
    "mouth_closed": 0.05,  # the same when the lips touch
    "eyes_closed": 0.75,  # part of its opening that an eye must lose to be fully closed
    "blinks_a_minute": 4.0,  # people blink 10 to 20 times
    "gaze": 0.2,  # iris off its median, in half widths of the eye; about 15 degrees
    "expression": 0.3,  # MediaPipe's blendshape coefficient, over its 5th percentile
    "blurred": 0.02,  # share of frames under `BLURRED` of the median sharpness
    "fast": 0.05,  # share of frames that move further than `FAST`
    "without_face": 0.05,  # share of frames
    "interpolated": 0.02,  # share of frames
    "clipped": 0.02,  # share of the face's pixels that are black or white
    "dark": 60.0,  # mean luma of the face, of 255
    "bright": 210.0,
    "light_change": 0.2,  # spread of the face's mean luma (5% to 95%) over its median
    "enlarged": 1.25,  # stored pixels for one of the source
    "face_pixels": 120.0,  # height of the face in the source
}
# A clip whose angles change less than that in all, in degrees, shows one pose.
ONE_POSE = {"yaw": 10.0, "pitch": 8.0}
# A pose counts as seen if the frames that hold it or a more extreme one last this long together.
SEEN_SECONDS = 0.2
# A frame counts as shown for no longer than this, so that a frozen picture is not footage.
LONGEST_FRAME = 0.1
# A frame is blurred under this part of the clip's median variance of the Laplacian.
BLURRED = 0.4
# Motion during the exposure (half of a frame's time, as with a shutter of 180 degrees), in heights
# of the face, from which on talking people's frames lost a tenth of their sharpness and more.
FAST = 0.015
# Images are measured on this many frames at most, evenly picked.
IMAGE_FRAMES = 600
THUMBNAIL = 200

# MediaPipe's 52 blendshapes that speak for an expression, by their numbers.
EXPRESSIONS = {
    "smile": (44, 45),
    "mouth corners down": (30, 31),
    "pucker, as in a kiss": (38,),
    "funnel, as in 'oh'": (32,),
    "jaw open": (25,),
    "lips pressed": (36, 37),
    "lips rolled in": (40, 41),
    "mouth to one side": (33, 39),
    "upper lip raised": (48, 49),
    "lower lip down": (34, 35),
    "brows raised": (3, 4, 5),
    "brows lowered": (1, 2),
    "eyes wide": (21, 22),
    "eyes squinting": (19, 20),
}
# Those that a puppet is most often asked for.
WANTED_EXPRESSIONS = ("smile", "pucker, as in a kiss", "brows raised")
# From MediaPipe's pose (y up, z to the viewer) to y down, z away.
FLIP = np.diag([1.0, -1.0, -1.0])

# The unseen-pose guard: see `seen_range`.
TRIM = 0.001
MARGIN = 0.2
ANGLE_MARGIN = 2.0
PLACE_MARGIN = 0.5
DIRECTIONS = 24
COMPONENTS = 12
WARN_SHARE = 0.1
# Differences under this are rounding.
EXACT = 1e-6
LID_WEIGHTS = np.where((np.arange(68) >= 36) & (np.arange(68) < 48), 2.0, 1.0)


def inspect(portrait) -> dict:
    """Measure a portrait, and write `coverage.json` and `coverage.html` into its folder.

    Args:
        portrait: A `keras_vpgc.data.Portrait`.

    Returns:
        The dict of `measure`, with `advice`: a list of `{"topic", "text"}` from `advise`. It is
        what `coverage.json` holds.

    Raises:
        VPGCError: if OpenCV or matplotlib is missing, fewer than 2 frames are usable, or the
            folder is read-only or full.

    Example:

    ```python
    for item in inspect(Portrait("data/me"))["advice"]:
        print(item["text"])
    ```
    """
    # Not at the top: that folder shows pictures of what this one holds.
    from keras_vpgc.visualization.coverage_report import coverage_report

    check_writable(portrait.path, ELSEWHERE)
    signals = measure_signals(portrait)
    result = measure(portrait, signals)
    result["advice"] = advise(result)
    limits = {**WANTED, "sharpness": BLURRED, "motion_path": FAST}
    page = coverage_report(result, signals, thumbnails(portrait, signals), limits)
    for name, text in (
        ("coverage.json", json.dumps(result, indent=1)),
        ("coverage.html", page),
    ):
        partial = portrait.path / f".{name}"
        try:
            with writing(portrait.path, ELSEWHERE):
                partial.write_text(text, encoding="utf-8")
                os.replace(partial, portrait.path / name)
        finally:
            partial.unlink(missing_ok=True)
    return result


def measure_signals(portrait) -> dict[str, np.ndarray]:
    """What `measure` counts, frame by frame.

    Args:
        portrait: A `Portrait`.

    Returns:
        Dict of arrays over all frames, NaN where a frame is not usable:

        - `usable`: bool, a face was seen, is not filled from neighbours, and the frame is new;
          `times`: seconds; `shown`: seconds that a usable frame lasts, at most `LONGEST_FRAME`.
        - `yaw`, `pitch`, `roll`: degrees, signs as in `keras_vpgc.data.retarget.angles`.
        - `x`, `y`: middle of the face in the crop, `size`: its height, in parts of the crop's side.
        - `mouth`: see `mouth_opening`; `closed`: part of their opening that the eyes have lost, 0
          open to 1, the mean of both, where open is the clip's 75th percentile.
        - `gaze_x`, `gaze_y`: iris from the middle between the corners of the eye, in half widths
          of the eye, to the image's right and down; NaN in a blink.
        - `motion`: path of the head during the exposure, in heights of the face.
        - `sharpness`: variance of the Laplacian in the face over its median; `luma`: mean of the
          face, 0 to 255; `bright`, `dark`: share of the face's pixels over 250, under 5; NaN where
          not measured (`IMAGE_FRAMES`).

    Raises:
        VPGCError: if OpenCV is missing, or fewer than 2 frames are usable.
    """
    usable = portrait.valid & ~portrait.interpolated & ~portrait.repeated
    if usable.sum() < 2:
        raise VPGCError(
            f"{portrait.path} has only {usable.sum()} usable frame(s), with a face and not "
            "repeated: prepare another video."
        )
    count, picked = len(usable), np.flatnonzero(usable)
    times = np.asarray(portrait.times, "float64")
    points = np.asarray(portrait.points[picked], "float64")
    xy = points[..., :2]

    signals = {"times": times, "usable": usable}

    def put(name, values, where=picked):
        signals[name] = np.full(count, np.nan)
        signals[name][where] = values

    until = np.append(times[picked[1:]], times[-1] + 1 / portrait.frame_rate)
    put("shown", np.minimum(until - times[picked], LONGEST_FRAME))

    turn = pose_angles(portrait.matrices[picked])
    for i, name in enumerate(("yaw", "pitch", "roll")):
        put(name, turn[:, i])
    low, high = xy.min(1), xy.max(1)
    height = high[:, 1] - low[:, 1]
    put("x", (low[:, 0] + high[:, 0]) / 2)
    put("y", (low[:, 1] + high[:, 1]) / 2)
    put("size", height)

    landmarks = xy[:, MEDIAPIPE_TO_68]
    put("mouth", mouth_opening(landmarks))
    closed = eye_closure(eye_opening(landmarks))
    put("closed", closed)
    gaze = np.where((closed < BLINK)[:, None], _gaze(xy), np.nan)
    put("gaze_x", gaze[:, 0])
    put("gaze_y", gaze[:, 1])

    step = np.linalg.norm(np.diff(xy[:, RIGID_POINTS].mean(1), axis=0), axis=-1)
    lasted = np.diff(times[picked])
    exposure = 0.5 * np.median(lasted)
    speed = np.where(lasted <= LONGEST_FRAME, step / np.maximum(lasted, 1e-6), np.nan)
    put("motion", speed * exposure / height[1:], picked[1:])

    chosen = np.unique(np.linspace(0, len(picked) - 1, IMAGE_FRAMES).astype(int))
    image = _image_measures(portrait, picked[chosen], xy[chosen])
    image["sharpness"] /= max(float(np.nanmedian(image["sharpness"])), 1e-9)
    for name, values in image.items():
        put(name, values, picked[chosen])
    return signals


def pose_angles(matrices) -> np.ndarray:
    """Angles of MediaPipe's head poses.

    Args:
        matrices: Float `(n, 4, 4)`, as in `keras_vpgc.data.tracking.Track`.

    Returns:
        Float64 `(n, 3)`: yaw, pitch and roll in degrees, signs as in `retarget.angles`; NaN where
        the matrix is.
    """
    return angles(FLIP @ np.asarray(matrices, "float64")[:, :3, :3] @ FLIP)


def _gaze(xy):
    """Place of the irises between the corners of the eyes, `(n, 2)`."""
    found = []
    # Iris, corner on the image's left, corner on the image's right.
    for iris, left, right in ((468, 33, 133), (473, 362, 263)):
        across = (xy[:, right] - xy[:, left]) / 2
        off = xy[:, iris] - (xy[:, right] + xy[:, left]) / 2
        width = np.maximum((across**2).sum(-1), 1e-12)
        along = (off * across).sum(-1) / width
        down = (across[:, 0] * off[:, 1] - across[:, 1] * off[:, 0]) / width
        found.append(np.stack([along, down], -1))
    return np.mean(found, axis=0)


def _image_measures(portrait, indices, xy):
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("opencv", "video") from error
    rows = []
    for start in range(0, len(indices), 50):
        images = portrait.frames(indices[start : start + 50])
        for image, points in zip(images, xy[start : start + 50], strict=True):
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            face = np.zeros(grey.shape, "uint8")
            outline = cv2.convexHull(np.rint(points * portrait.size).astype("int32"))
            cv2.fillConvexPoly(face, outline, 1)
            inside = face.astype(bool)
            if not inside.any():
                rows.append([np.nan] * 4)
                continue
            luma = grey[inside]
            sharpness = cv2.Laplacian(grey, cv2.CV_32F)[inside].var()
            rows.append([sharpness, luma.mean(), (luma > 250).mean(), (luma < 5).mean()])
    names = ("sharpness", "luma", "bright", "dark")
    return dict(zip(names, np.array(rows, "float64").T, strict=True))


def measure(portrait, signals) -> dict:
    """Statistics of what a portrait holds.

    Args:
        portrait: A `Portrait`.
        signals: `measure_signals` of it.

    Returns:
        JSON-able dict. A range is `{"least", "low", "median", "high", "greatest"}`: 5th and 95th
        percentile as low and high; least and greatest are the values that frames of `SEEN_SECONDS`
        together reach or exceed, so that a few wrong frames do not count.
    """
    usable = signals["usable"]
    seconds = float(np.nansum(signals["shown"]))
    rate = usable.sum() / max(seconds, 1e-6)

    def spread(name, digits=3, all_frames=True):
        values = np.sort(signals[name][np.isfinite(signals[name])])
        if not len(values):
            return dict.fromkeys(("least", "low", "median", "high", "greatest"))
        skip = int(np.ceil(SEEN_SECONDS * rate)) - 1 if all_frames else 0
        skip = min(skip, (len(values) - 1) // 2)
        found = (
            values[skip],
            *np.percentile(values, [5, 50, 95]),
            values[len(values) - 1 - skip],
        )
        names = ("least", "low", "median", "high", "greatest")
        # The sum makes a rounded -0.0 plain zero.
        return {k: round(float(v), digits) + 0.0 for k, v in zip(names, found, strict=True)}

    def share(mask, of):
        return round(float(mask.sum() / max(of.sum(), 1)), 4)

    info, crop = portrait.info, portrait.info["crop"]
    closed_frames = np.where(usable, signals["closed"], np.nan)
    blinks = find_blinks(closed_frames, signals["times"])
    minutes = seconds / 60
    measured = np.isfinite(signals["sharpness"])
    moved = np.isfinite(signals["motion"])
    blendshapes = portrait.blendshapes[usable].astype("float64")
    # Over what this face shows at rest, as some faces always seem to smile a little.
    blendshapes -= np.percentile(blendshapes, 5, axis=0)
    peak = np.sort(blendshapes, axis=0)[-min(int(np.ceil(SEEN_SECONDS * rate)), len(blendshapes))]
    eigen = np.linalg.eigvalsh(np.cov(blendshapes.T))
    size = spread("size")
    closed = spread("closed")
    return {
        "schema_version": SCHEMA_VERSION,
        "source": info["source"],
        "frames": {
            "total": len(usable),
            "usable": int(usable.sum()),
            "without_face": int((~portrait.valid).sum()),
            "interpolated": int((portrait.valid & portrait.interpolated).sum()),
            "repeated": int(portrait.repeated.sum()),
        },
        "seconds": {
            "total": round(float(np.ptp(signals["times"]) + 1 / portrait.frame_rate), 2),
            "usable": round(seconds, 2),
        },
        "frame_rate": round(portrait.frame_rate, 3),
        "pose": {name: spread(name, 1) for name in ("yaw", "pitch", "roll")},
        "place": {
            "x": spread("x"),
            "y": spread("y"),
            "size": size,
            "face_source_pixels": round(size["median"] * crop["size"]),
            "enlarged": round(portrait.size / crop["size"], 3),
        },
        "mouth": spread("mouth"),
        "eyes": {
            "closed": closed,
            "blinks": len(blinks),
            "blinks_a_minute": round(len(blinks) / minutes, 1),
            "blink_depth": round(
                float(np.median([closed_frames[deepest] for *_, deepest in blinks])), 3
            )
            if blinks
            else None,
            "fully_closed_frames": int((signals["closed"] >= WANTED["eyes_closed"]).sum()),
        },
        "gaze": {"x": spread("gaze_x"), "y": spread("gaze_y")},
        "expressions": {
            "peaks": {k: round(float(peak[list(v)].max()), 3) for k, v in EXPRESSIONS.items()},
            # Participation ratio of the blendshapes' covariance.
            "dimensions": round(float(eigen.sum() ** 2 / max((eigen**2).sum(), 1e-12)), 1),
        },
        "sharpness": {
            "relative": spread("sharpness", all_frames=False),
            "blurred": share(signals["sharpness"] < BLURRED, measured),
            "measured_frames": int(measured.sum()),
        },
        "exposure": {
            "luma": spread("luma", 1, all_frames=False),
            "bright": round(float(np.nanmean(signals["bright"])), 4),
            "dark": round(float(np.nanmean(signals["dark"])), 4),
        },
        "motion": {
            "path": spread("motion", 5) if moved.any() else None,
            "fast": share(signals["motion"] > FAST, moved),
        },
        "preparation": info.get("report", {}),
    }


def advise(result: dict) -> list[dict[str, str]]:
    """Say in plain sentences what a clip lacks.

    Args:
        result: The dict of `measure`.

    Returns:
        List of `{"topic", "text"}`, the most important first; empty if all that `WANTED` asks for
        is there. Left and right are the picture's, with the person's own in brackets (the other
        way round in a mirrored recording).
    """
    found = []

    def say(topic, text):
        found.append({"topic": topic, "text": text})

    frames, seconds = result["frames"], result["seconds"]
    if seconds["usable"] < WANTED["usable_seconds"]:
        say(
            "length",
            f"Only {seconds['usable']:.0f} s are usable (the clip has {seconds['total']:.0f} s): "
            "record some minutes.",
        )
    for key, what, way in (
        ("without_face", "show no face", "stay in the picture and keep hands off the face"),
        (
            "interpolated",
            "were filled from their neighbours, as the face was lost",
            "keep hands and hair off the face",
        ),
    ):
        part = frames[key] / frames["total"]
        if part > WANTED[key]:
            say("tracking", f"{part:.0%} of the frames {what}: {way}.")

    left = "the left of the picture (the person's right)"
    right = "the right of the picture (the person's left)"
    for axis, sides in {
        "yaw": ((f"turns farther to {left}", "turning"), (f"turns farther to {right}", "turning")),
        "pitch": (("looks farther up", "looking"), ("looks farther down", "looking")),
        "roll": ((f"tilts farther to {left}", "tilting"), (f"tilts farther to {right}", "tilting")),
    }.items():
        p = result["pose"][axis]
        for (what, doing), end in zip(sides, ("least", "greatest"), strict=True):
            reach = abs(p[end] - p["median"])
            if reach < WANTED[axis]:
                say(
                    axis,
                    f"No frame {what} than {reach:.0f} degrees from the usual pose ({axis} "
                    f"{round(p[end])}, usually {round(p['median'])}): the puppet will break there; "
                    f"record some seconds of {doing} that way.",
                )

    mouth = result["mouth"]
    if mouth["greatest"] < WANTED["mouth_open"]:
        say(
            "mouth",
            f"The mouth never opens wider than {mouth['greatest']:.2f} of its width (wanted "
            f"{WANTED['mouth_open']:g}): say 'ah' and laugh in the recording.",
        )
    if mouth["least"] > WANTED["mouth_closed"]:
        say(
            "mouth",
            f"The lips never close (the gap stays over {mouth['least']:.2f} of the mouth's width): "
            "be silent for some seconds, and say 'm', 'b', 'p'.",
        )
    eyes = result["eyes"]
    if not eyes["fully_closed_frames"]:
        say(
            "eyes",
            f"The eyes are never fully closed (they lose {eyes['closed']['greatest']:.0%} of their "
            "opening at most): close them for a second now and then.",
        )
    if eyes["blinks_a_minute"] < WANTED["blinks_a_minute"]:
        say(
            "eyes",
            f"There are {eyes['blinks']} blinks, {eyes['blinks_a_minute']:.1f} a minute: blink as "
            "you do when you talk, or the puppet will stare.",
        )
    gaze = result["gaze"]["x"]
    if gaze["median"] is not None:
        for what, end in ((left, "least"), (right, "greatest")):
            if abs(gaze[end] - gaze["median"]) < WANTED["gaze"]:
                say(
                    "gaze",
                    f"The eyes hardly look to {what}: let them wander while the head is still.",
                )
    peaks = result["expressions"]["peaks"]
    rare = [name for name in WANTED_EXPRESSIONS if peaks[name] < WANTED["expression"]]
    if rare:
        say("expressions", f"Hardly ever shown: {'; '.join(rare)}: do so for some seconds.")

    if result["sharpness"]["blurred"] > WANTED["blurred"]:
        say(
            "sharpness",
            f"{result['sharpness']['blurred']:.0%} of the frames are blurred: more light, a "
            "shorter exposure, or a fixed focus.",
        )
    if result["motion"]["fast"] > WANTED["fast"]:
        say(
            "motion",
            f"In {result['motion']['fast']:.0%} of the frames the head moves so fast that it may "
            "blur: move more slowly, or record with a shorter exposure.",
        )
    place = result["place"]
    if place["enlarged"] > WANTED["enlarged"]:
        say(
            "resolution",
            f"The frames are the source enlarged {place['enlarged']:.2f} times: the puppet will "
            "not be sharper than the source; prepare it at a smaller size, or record nearer.",
        )
    if place["face_source_pixels"] < WANTED["face_pixels"]:
        say(
            "resolution",
            f"The face is only {place['face_source_pixels']} pixels high in the source: record "
            "nearer or at a higher resolution.",
        )
    light = result["exposure"]
    luma = light["luma"]
    for key, what, way in (
        ("bright", "burnt out to white", "less light, or a shorter exposure"),
        ("dark", "lost in black", "more light on the face"),
    ):
        if light[key] > WANTED["clipped"]:
            say("light", f"{light[key]:.0%} of the face is {what}: {way}.")
    if luma["median"] < WANTED["dark"]:
        say("light", f"The face is dark (mean luma {luma['median']:.0f} of 255): more light on it.")
    if luma["median"] > WANTED["bright"]:
        say(
            "light", f"The face is very bright (mean luma {luma['median']:.0f} of 255): less light."
        )
    change = (luma["high"] - luma["low"]) / max(luma["median"], 1)
    if change > WANTED["light_change"]:
        say(
            "light",
            f"The light on the face changes by {change:.0%} over the clip: lock the camera's "
            "exposure and keep the light even.",
        )
    return found


def training_warnings(portrait, rare_frames: float = 0.0) -> list[str]:
    """What will break in a puppet of this portrait, whatever the training does.

    Read from the portrait's `coverage.json`; without one, or with one that cannot be read, there
    are no warnings.

    Args:
        portrait: A `Portrait`.
        rare_frames: The recipe's setting, which helps where closed eyes are few but there.

    Returns:
        Sentences, none for a clip with closed eyes and several poses.

    Example:

    ```python
    for text in training_warnings(Portrait("data/me")):
        print(text)
    ```
    """
    try:
        result = json.loads((portrait.path / "coverage.json").read_text(encoding="utf-8"))
        if result["schema_version"] != SCHEMA_VERSION:
            return []
        return _training_warnings(result, rare_frames)
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _training_warnings(result, rare_frames):
    found = []
    eyes, seconds = result["eyes"], result["seconds"]["usable"]
    shut = eyes["fully_closed_frames"]
    few = eyes["blinks_a_minute"] < WANTED["blinks_a_minute"]
    if few or shut < SEEN_SECONDS * result["frame_rate"]:
        way = "record some minutes with blinks, and eyes closed for a second now and then"
        if shut and not rare_frames:
            way += ", or let the training see the closed eyes more often by rare_frames=0.5"
        found.append(
            f"The clip hardly shows closed eyes (frames: {shut}, blinks: {eyes['blinks']}, in "
            f"{seconds:.0f} s, where people blink 10 to 20 times a minute), so that the puppet's "
            f"eyes will stay half open: {way}."
        )
    spans = {}
    for axis in ONE_POSE:
        pose = result["pose"][axis]
        spans[axis] = pose["greatest"] - pose["least"]
    if all(spans[axis] < limit for axis, limit in ONE_POSE.items()):
        found.append(
            f"The clip shows one pose only (yaw changes by {spans['yaw']:.0f} degrees and pitch by "
            f"{spans['pitch']:.0f} in all), so that the puppet will break where it is driven "
            "farther: record some minutes of turning and nodding, or drive it with less motion, by "
            "vpgc reenact --motion 0.3 or --guard clamp."
        )
    return found


def thumbnails(portrait, signals) -> list[tuple[str, int, bytes]]:
    """Frames at the ends of what a clip holds.

    Args:
        portrait: A `Portrait`.
        signals: `measure_signals` of it.

    Returns:
        List of caption, frame number and JPEG of `THUMBNAIL` pixels.
    """
    import cv2

    def most(name, sign=1):
        return int(np.nanargmax(sign * signals[name]))

    off = sum(
        np.abs(signals[name] - np.nanmedian(signals[name])) / (np.nanstd(signals[name]) + 1e-9)
        for name in ("yaw", "pitch", "roll", "mouth", "closed")
    )
    chosen = [
        ("usual pose", int(np.nanargmin(off))),
        ("most to the picture's left (the person's right)", most("yaw", -1)),
        ("most to the picture's right (the person's left)", most("yaw")),
        ("most up", most("pitch", -1)),
        ("most down", most("pitch")),
        ("widest mouth", most("mouth")),
        ("most closed eyes", most("closed")),
        ("blurriest", most("sharpness", -1)),
    ]
    if np.isfinite(signals["gaze_x"]).any():
        chosen += [
            ("eyes to the picture's left (the person's right)", most("gaze_x", -1)),
            ("eyes to the picture's right (the person's left)", most("gaze_x")),
        ]
    images = portrait.frames([i for _, i in chosen], size=min(THUMBNAIL, portrait.size))
    result = []
    for (caption, index), image in zip(chosen, images, strict=True):
        _, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80]
        )
        result.append((caption, index, data.tobytes()))
    return result


def seen_range(head: HeadTrack) -> dict:
    """What poses and expressions a person's clip holds, for `out_of_range` and `clamp`.

    Yaw and pitch are kept together, as a polygon (the intersection of 24 half planes about the
    clip's frames), so that a corner that was never seen does not count as seen; roll, place and
    scale as intervals. Expressions are coordinates in the clip's own 12 principal components, of
    the 68 landmarks with the lids counted double, regressed onto all points: each has an interval,
    all together a Mahalanobis radius, and what the components do not explain a root mean square.
    The most extreme `TRIM` of the frames do not count, as they are often wrong; a margin of
    `MARGIN` (angles 2 degrees, place 0.5 cm) is added, as a puppet bears a little more than it saw.

    Args:
        head: `fit_head` of the frames that the puppet is trained on.

    Returns:
        JSON-able dict, under 100 kB.

    Raises:
        VPGCError: for fewer than 2 frames, or values that are not finite.

    Example:

    ```python
    metadata["seen"] = seen_range(fit_head(points, width, height))
    ```

    References:
        Cootes et al., "Active shape models", CVIU 1995 (principal components of landmarks and the
        limits of their coordinates).
    """
    count = len(head.rotation)
    if count < 2:
        raise VPGCError(f"A seen range needs at least 2 frames; received {count}.")
    offsets = np.asarray(head.expression, "float64")
    if not (np.isfinite(offsets).all() and np.isfinite(head.translation).all()):
        raise VPGCError("A seen range needs finite values: leave frames without a face out.")
    turn = angles(head.rotation)
    seen = {
        "frames": count,
        "yaw_pitch": _polygon(turn[:, :2]).round(3).tolist(),
        "roll": _interval(turn[:, 2], ANGLE_MARGIN),
        "translation": [_interval(x, PLACE_MARGIN) for x in np.transpose(head.translation)],
        "scale": _interval(head.scale, MARGIN * float(np.median(head.scale))),
    }
    mean = offsets.mean(0)
    weighted = ((offsets - mean)[:, _landmarks(offsets)] * LID_WEIGHTS[:, None]).reshape(count, -1)
    left, size, _ = np.linalg.svd(weighted, full_matrices=False)
    # Whitened coordinates; what never varies has none.
    keep = min(COMPONENTS, int((size > 1e-6 * max(size[0], 1e-9)).sum()), count - 1)
    white = left[:, :keep] * np.sqrt(count)
    basis = np.tensordot(white, offsets - mean, (0, 0)) / count
    seen["expression"] = {
        "points": offsets.shape[1],
        "mean": mean.round(4).tolist(),
        "components": keep,
        "basis": base64.b64encode(basis.astype("<f2").tobytes()).decode(),
    }
    coordinates, _, rest = _coordinates(offsets, seen["expression"])
    seen["expression"] |= {
        "ranges": [_interval(c, MARGIN * np.ptp(_trimmed(c)) / 2) for c in coordinates.T],
        "radius": round(_trimmed(np.linalg.norm(coordinates, axis=1))[1] * (1 + MARGIN), 4),
        "rest": round(_trimmed(rest)[1] * (1 + MARGIN), 5),
    }
    return seen


def out_of_range(head: HeadTrack, seen: dict) -> dict:
    """How far a driving track leaves what the puppet has seen.

    Args:
        head: The driving track after `retarget`, so with the target's shape and camera.
        seen: `seen_range` of the target.

    Returns:
        JSON-able dict: `frames`; `share` of the frames with anything out; `parameters`, for each of
        yaw, pitch, roll (degrees), x, y, z (centimetres), scale and expression its `share` of
        frames out, `worst` value and the `seen` interval (expression: times the seen limit, seen
        at most 1); `warning`, one sentence, or `None` if less than 10% of the frames are out.

    Raises:
        VPGCError: if the tracks have other points.

    Example:

    ```python
    warning = out_of_range(driven, metadata["seen"])["warning"]
    ```
    """
    return clamp(head, seen)[1]


def clamp(head: HeadTrack, seen: dict) -> tuple[HeadTrack, dict]:
    """Project a driving track back into what the puppet has seen.

    Each frame by itself, so it serves live too. Yaw and pitch go to the nearest point of the seen
    polygon, roll, place and scale to their intervals; coordinates of the expression are clipped,
    then drawn towards the mean into the seen radius, and what the components do not explain is
    made smaller, on the landmarks. Every step is a projection onto a set: frames within stay
    exactly as they are, a second call changes nothing, and as it is continuous the result jumps
    only where the driving track does. These three together leave no room for a soft knee: any
    map that is continuous, leaves the seen values alone and gives seen values again sends what is
    beyond a limit to the limit. Motion along the limit and all else go on; less of it overall is
    `retarget(motion=...)`.

    Args:
        head: The driving track after `retarget`, so with the target's shape and camera.
        seen: `seen_range` of the target.

    Returns:
        The new `HeadTrack`, and the report of `out_of_range`.

    Raises:
        VPGCError: if the tracks have other points.

    Example:

    ```python
    driven, report = clamp(driven, metadata["seen"])
    ```
    """
    guard = Guard(seen)
    return guard(head), guard.report()


class Guard:
    """`clamp` for a driving track that comes in pieces, such as a long clip or a camera's frames.

    Args:
        seen: `seen_range` of the target.

    Example:

    ```python
    guard = Guard(metadata["seen"])
    for driven in retarget_pieces(head, shape, pose):
        limited = guard(driven)
    print(guard.report()["warning"])
    ```
    """

    def __init__(self, seen: dict):
        known = seen["expression"]
        # A plain list would be read anew for each piece.
        self.seen = seen | {"expression": known | {"mean": np.array(known["mean"])}}
        polygon = np.array(seen["yaw_pitch"])
        self._seen = {
            "yaw": (polygon[:, 0].min(), polygon[:, 0].max()),
            "pitch": (polygon[:, 1].min(), polygon[:, 1].max()),
            "roll": seen["roll"],
            **dict(zip("xyz", seen["translation"], strict=True)),
            "scale": seen["scale"],
            "expression": (0.0, 1.0),
        }
        self.frames = self._out = 0
        # Of each parameter: frames out, how far the farthest value is out, and that value.
        self._found = {name: (0, -np.inf, 0.0) for name in self._seen}

    def __call__(self, head: HeadTrack) -> HeadTrack:
        """The limited piece; what it leaves is counted."""
        seen = self.seen
        turn = angles(head.rotation)
        limited = turn.copy()
        limited[:, :2] = _into_polygon(turn[:, :2], np.array(seen["yaw_pitch"]))
        limited[:, 2] = np.clip(turn[:, 2], *seen["roll"])
        place = np.asarray(head.translation, "float64")
        limited_place = np.clip(place, *np.transpose(seen["translation"]))
        scale = np.asarray(head.scale, "float64")
        limited_scale = np.clip(scale, *seen["scale"])
        offsets, moved, excess = _limit_expression(np.asarray(head.expression), seen["expression"])
        before = np.column_stack([turn, place, scale])
        after = np.column_stack([limited, limited_place, limited_scale])
        by = np.abs(before - after)
        self._count(
            np.column_stack([by > EXACT, moved]),
            np.column_stack([by, excess]),
            np.column_stack([before, excess]),
        )
        turned = (by[:, :3] > EXACT).any(1)
        return replace(
            head,
            rotation=np.where(turned[:, None, None], from_angles(limited), head.rotation),
            translation=np.where(by[:, 3:6] > EXACT, limited_place, place),
            scale=np.where(by[:, 6] > EXACT, limited_scale, scale),
            expression=offsets,
        )

    def _count(self, out, by, values):
        """Columns in the order of the parameters."""
        self.frames += len(out)
        self._out += int(out.any(1).sum())
        for column, (name, (count, far, worst)) in enumerate(self._found.items()):
            farthest = int(np.argmax(by[:, column]))
            if by[farthest, column] > far:
                far, worst = by[farthest, column], values[farthest, column]
            self._found[name] = (count + int(out[:, column].sum()), far, worst)

    def report(self) -> dict:
        """The report of `out_of_range` on all pieces so far."""
        parameters = {
            name: {
                "share": round(count / self.frames, 4),
                "worst": round(float(worst), 3),
                "seen": [round(float(v), 3) for v in self._seen[name]],
            }
            for name, (count, _, worst) in self._found.items()
        }
        share = self._out / self.frames
        return {
            "frames": self.frames,
            "share": round(share, 4),
            "parameters": parameters,
            "warning": _warning(share, parameters) if share >= WARN_SHARE else None,
        }


def _warning(share, parameters):
    names = {"x": "place across", "y": "place down", "z": "distance"}
    found = []
    for name, p in sorted(parameters.items(), key=lambda item: -item[1]["share"])[:3]:
        low, high = p["seen"]
        if not p["share"]:
            continue
        if name == "expression":
            found.append(f"expressions reach {p['worst']:.1f} times what was seen")
        elif name in names:
            found.append(
                f"{names[name]} reaches {p['worst']:.1f} cm (seen {low:.1f} to {high:.1f})"
            )
        elif name == "scale":
            found.append(f"size reaches {p['worst']:.2f} (seen {low:.2f} to {high:.2f})")
        else:
            found.append(f"{name} reaches {p['worst']:.0f} degrees (seen {low:.0f} to {high:.0f})")
    return (
        f"{share:.0%} of the driving frames leave what the puppet has seen, and its picture may "
        f"break there: {', '.join(found)}; drive it with less motion, clamp the motion by --guard "
        "clamp, or train on a recording that shows more."
    )


def _trimmed(values):
    """Least and greatest value without the most extreme `TRIM` of them at each end."""
    values = np.sort(values)
    skip = int(TRIM * len(values))
    return values[skip], values[len(values) - 1 - skip]


def _interval(values, margin):
    low, high = _trimmed(np.asarray(values, "float64"))
    return [round(float(low - margin), 4), round(float(high + margin), 4)]


def _polygon(points):
    """Corners, in order, of the intersection of half planes that hold all but `TRIM` of points."""
    far = np.abs(points).max() + 100.0
    corners = np.array([[-far, -far], [far, -far], [far, far], [-far, far]])
    for angle in 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS:
        normal = np.array([np.cos(angle), np.sin(angle)])
        limit = _trimmed(points @ normal)[1] + ANGLE_MARGIN
        beyond = corners @ normal - limit
        kept = []
        for i, (here, there) in enumerate(zip(beyond, np.roll(beyond, -1), strict=True)):
            start, end = corners[i], corners[(i + 1) % len(corners)]
            if here <= 0:
                kept.append(start)
            if (here <= 0) != (there <= 0):
                kept.append(start + (end - start) * here / (here - there))
        corners = np.array(kept)
    return corners


def _into_polygon(points, corners):
    """The nearest points `(n, 2)` in a convex polygon `(k, 2)`, counter-clockwise."""
    edges = np.roll(corners, -1, axis=0) - corners
    from_corner = points[:, None] - corners
    # Corners that rounding brought together have no edge between them.
    length = np.maximum((edges**2).sum(-1), 1e-12)
    inside = (edges[:, 0] * from_corner[..., 1] - edges[:, 1] * from_corner[..., 0]) >= -EXACT
    along = np.clip((from_corner * edges).sum(-1) / length, 0, 1)
    feet = corners + along[..., None] * edges
    nearest = np.argmin(((points[:, None] - feet) ** 2).sum(-1), axis=1)
    found = feet[np.arange(len(points)), nearest]
    return np.where(inside.all(1)[:, None], points, found)


def _landmarks(offsets):
    """Which points are the 68 landmarks."""
    return MEDIAPIPE_TO_68 if offsets.shape[1] == NUM_POINTS else np.arange(68)


def _coordinates(offsets, seen):
    """Whitened coordinates `(n, k)`, the rest `(n, 68, 3)` on the landmarks and its size `(n,)`."""
    mean, basis = _stored(offsets, seen)
    places = _landmarks(offsets)
    weighted = LID_WEIGHTS[:, None] * np.ones(3)
    inverse = np.linalg.pinv((basis[:, places] * weighted).reshape(len(basis), 3 * len(places)))
    centred = offsets[:, places] - mean[places]
    coordinates = (centred * weighted).reshape(len(offsets), -1) @ inverse
    rest = centred - np.einsum("nk,kpi->npi", coordinates, basis[:, places])
    return coordinates, rest, np.sqrt(((rest * weighted) ** 2).sum(-1).mean(-1))


def _stored(offsets, seen):
    count = offsets.shape[1]
    mean = np.array(seen["mean"])
    basis = np.frombuffer(base64.b64decode(seen["basis"]), "<f2").astype("float64")
    basis = basis.reshape(seen["components"], seen["points"], 3)
    if count == 68 and seen["points"] == NUM_POINTS:
        return mean[MEDIAPIPE_TO_68], basis[:, MEDIAPIPE_TO_68]
    if count != seen["points"]:
        raise VPGCError(
            f"A track of {count} points cannot be compared with what a puppet of {seen['points']} "
            "points has seen: use the tracker that the puppet was made with."
        )
    return mean, basis


def _limit_expression(offsets, seen):
    """Limited offsets, which frames changed `(n,)`, and how many times the limit was reached."""
    coordinates, rest, size = _coordinates(np.asarray(offsets, "float64"), seen)
    ranges = np.array(seen["ranges"]).reshape(-1, 2)
    limited = np.clip(coordinates, ranges[:, 0], ranges[:, 1])
    # The box holds the mean, so going towards it stays in the box.
    radius = np.linalg.norm(limited, axis=1)
    limited *= np.minimum(1, seen["radius"] / np.maximum(radius, 1e-9))[:, None]
    less = np.minimum(1, seen["rest"] / np.maximum(size, 1e-9))
    times = np.stack(
        [
            (np.maximum(coordinates / ranges[:, 1], coordinates / ranges[:, 0])).max(1, initial=0),
            np.linalg.norm(coordinates, axis=1) / max(seen["radius"], 1e-9),
            size / max(seen["rest"], 1e-9),
        ]
    ).max(0)
    moved = (np.abs(limited - coordinates) > EXACT).any(1) | (less < 1 - EXACT)
    _, basis = _stored(offsets, seen)
    change = np.einsum("nk,kpi->npi", limited - coordinates, basis)
    # Points that are no landmarks, such as the irises, keep their own part.
    change[:, _landmarks(offsets)] += (less - 1)[:, None, None] * rest
    return np.where(moved[:, None, None], offsets + change, offsets), moved, times
