"""From a video to a portrait folder."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import parallel, smoothing, tracking, video
from keras_vpgc.data import shots as cutting
from keras_vpgc.data.landmark_sets import RIGID_POINTS
from keras_vpgc.data.portrait import SCHEMA_VERSION, Portrait
from keras_vpgc.data.tracking import Faces, Track
from keras_vpgc.errors import NoFaceError, VPGCError, writing
from keras_vpgc.progress import progress_bar

SIZES = (64, 128, 256, 512)
MIN_FRAMES = 30
# Frames that are cut out at a time.
MAX_SIZE, MAX_RATE = 2048, 240
CHUNK_FRAMES = 250
GOES_ON = "make some and repeat the call, which goes on from here"
# What a portrait folder holds.
OWN = {"portrait.json", "frames", "tracking.npz", "landmarks.png", "coverage.html", "coverage.json"}
MAX_GAP = 0.5


def split(
    count: int, frame_rate: float, test_frames: int | None = None, test_blocks: int = 1
) -> dict[str, list[list[int]]]:
    """Cut a clip into train, 1 s gap, validation, 1 s gap, test, in the order of time.

    Args:
        count: Number of frames.
        frame_rate: Frames a second; the gaps keep neighbours of test frames out of the training.
        test_frames: Length of the test part; default a fifth, at most 1000.
        test_blocks: With more than one the test part is that many stretches, one in the middle of
            each equal part of the clip, with gaps on both sides; validation is beside one of them.
            So a short clip is tested on what it shows, not on what comes last.

    Returns:
        Dict of ranges `[first, last + 1]` for each part. Validation is 5% of the rest, at least 100
        frames where there are enough; a clip under 20 s gets shorter gaps.

    Raises:
        VPGCError: if the test part leaves too little to train on, or its blocks have no frames.

    Example:

    ```python
    split(4998, 25)["test"]  # [[3998, 4998]]
    split(480, 24, test_blocks=4)["test"]  # [[48, 72], [168, 192], [288, 312], [408, 432]]
    ```
    """
    test = min(1000, round(count / 5)) if test_frames is None else int(test_frames)
    if test < 1 or count - test < MIN_FRAMES // 2:
        raise VPGCError(
            f"A test part of {test} frames does not fit a clip of {count}: choose fewer, or record "
            "more."
        )
    rest = count - test
    validation = min(max(round(0.05 * rest), 100), rest // 10)
    if test_blocks == 1:
        gap = min(round(frame_rate), count // 20)
        train = rest - validation - 2 * gap
        return {
            "train": [[0, train]],
            "validation": [[train + gap, train + gap + validation]],
            "test": [[count - test, count]],
        }
    if not 1 <= test_blocks <= min(test, count // MIN_FRAMES):
        raise VPGCError(
            f"A clip of {count} frames cannot be tested in {test_blocks} blocks: choose at most "
            f"{max(1, min(test, count // MIN_FRAMES))}."
        )
    gap = min(round(frame_rate), count // (15 * test_blocks))
    length = test // test_blocks
    parts: dict[str, list[list[int]]] = {"train": [], "validation": [], "test": []}
    begin = 0
    for i in range(test_blocks):
        first = round((i + 0.5) * count / test_blocks - length / 2)
        last = first + length
        parts["train"].append([begin, first - gap])
        parts["test"].append([first, last])
        begin = last + gap
        if i == test_blocks // 2:
            parts["validation"].append([begin, begin + validation])
            begin += validation + gap
    parts["train"].append([begin, count])
    return parts


def prepare(
    source,
    output,
    *,
    crop: crops.Crop | str | None = None,
    size: int | None = None,
    rate: float | None = None,
    person: int | None = None,
    start: float | None = None,
    end: float | None = None,
    max_gap: float = MAX_GAP,
    test_frames: int | None = None,
    test_blocks: int = 1,
    workers: int | None = None,
    overwrite: bool = False,
    tracker_model=None,
    progress: bool = True,
) -> Portrait:
    """Track the face, cut one square crop out of every frame and split the clip.

    The longest stretch that shows one person is used, unless `person`, `start` and `end` choose;
    `portrait.info["report"]` says what was found, used and left out, and why. The track is smoothed
    (see `keras_vpgc.data.smoothing.smooth`) and short gaps in it are filled. Look at
    `landmarks.png`.

    The work is done in `.OUTPUT.partial` beside the target and renamed at the end: a stopped run
    leaves no half-written portrait, and the same call again goes on where it was. The number of
    workers does not change the result.

    Args:
        source: The video file, or a Nerface folder (see `keras_vpgc.data.nerface`).
        output: The portrait folder to make.
        crop: A `Crop` or `"X,Y,SIZE"` in source pixels; default: chosen from the whole track.
        size: Side of the stored frames; default: 64, 128, 256 or 512, whatever is nearest to the
            crop.
        rate: Frames a second, taken by the source's time stamps; default: the source's own frames.
        person: Number of the person to use, 1 being in most frames; default: whoever is alone
            longest.
        start: Where to begin, in seconds of the source.
        end: Where to stop, in seconds of the source.
        max_gap: Seconds without the face that are filled in; longer gaps stay without landmarks.
        test_frames: Length of the test part, see `split`.
        test_blocks: Number of stretches that it is spread over, see there.
        workers: Number of processes; default: the cores that this process may use.
        overwrite: Replace an existing portrait of another source or with other settings?
        tracker_model: Path of the face landmarker's model, see `keras_vpgc.assets`.
        progress: Show progress bars?

    Returns:
        The `Portrait`.

    Raises:
        VPGCError: for a file that is no video, a video that is too small or short, that shows no
            face or never one person alone, settings that do not fit it, an output that exists or
            cannot be written, or a full disk.

    Example:

    ```python
    portrait = prepare("me.mp4", "data/me")
    portrait.info["report"]["frames"]  # {"used": 4998, "repeated": 0, ...}
    ```
    """
    source, output = Path(source), Path(output)
    _check_place(source, output)
    from keras_vpgc.data.nerface import import_nerface, is_nerface  # it uses this module

    if is_nerface(source):
        chosen = {"person": person, "start": start, "end": end, "test_frames": test_frames}
        chosen["test_blocks"] = None if test_blocks == 1 else test_blocks
        for name, value in chosen.items():
            if value is not None:
                raise VPGCError(
                    f"{source} is a Nerface folder, which has its own frames and split: leave out "
                    f"{name}."
                )
        return import_nerface(
            source,
            output,
            crop=crop,
            size=size,
            rate=rate,
            max_gap=max_gap,
            overwrite=overwrite,
            tracker_model=tracker_model,
            progress=progress,
        )
    info = video.probe(source)
    if min(info.width, info.height) < tracking.MIN_SIDE:
        raise VPGCError(
            f"{source} shows pictures of {info.width}x{info.height} pixels: a face can be found in "
            f"{tracking.MIN_SIDE}x{tracking.MIN_SIDE} at least, and should be 256 pixels high."
        )
    if isinstance(crop, str):
        crop = crops.parse(crop)
    if crop is not None:
        crops.check(crop, info.width, info.height)
    if size is not None and size < 16:
        raise VPGCError(f"A size of {size} pixels is too small: choose 64 or more.")
    if size is not None and size > MAX_SIZE:
        raise VPGCError(f"A size of {size} pixels is too large: choose at most {MAX_SIZE}.")
    check_number("rate", rate, "frames a second", above=0)
    if rate is not None and rate > MAX_RATE:
        raise VPGCError(f"{rate:g} frames a second are too many: choose at most {MAX_RATE}.")
    check_number("max_gap", max_gap, "seconds")
    workers = _check_workers(workers)
    first, stop = frame_range(source, start, end)
    if tracker_model is not None:
        tracking.FaceTracker(tracker_model).close()  # no model at all shows here
    asked = {
        "source_sha256": assets.sha256(source),
        "range": [first, stop],
        "tracker": tracking.tracker_name(),
        "model_sha256": assets.sha256(assets.find("face_landmarker", tracker_model)),
    }
    settings = {
        **asked,
        "source": source.name,
        "crop": vars(crop) if crop else None,
        "size": size,
        "rate": rate,
        "person": person,
        "max_gap": max_gap,
        "test_frames": test_frames,
        "test_blocks": test_blocks,
    }
    old = output.with_name(f".{output.name}.old")
    if old.exists() and not output.exists():
        os.replace(old, output)  # a run was killed between the two renamings at its end
    if output.exists() and (existing := _existing(output, settings, overwrite)):
        return existing

    work = output.with_name(f".{output.name}.partial")
    with writing(output, full=GOES_ON):
        _stamped(work / "tracking", asked)
        with progress_bar(stop - first, "tracking", show=progress) as bar:
            faces = tracking.track_faces(
                source,
                work / "tracking",
                first,
                stop,
                tracker_model=tracker_model,
                workers=workers,
                progress=bar.update,
            )
        try:
            arrays, portrait_info = _plan(source, info, faces, settings, crop)
        except cutting.ChoiceError:
            raise  # the next call, which chooses, can use the tracking
        except VPGCError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        # Their points are a file in the folder of the tracking, which may be kept while it is read.
        del faces
        _stamped(work / "frames", settings)
        _cut_frames(
            source, work / "frames", arrays["source_frames"], portrait_info, workers, progress
        )
        np.savez_compressed(work / "tracking.npz", **arrays)
        (work / "portrait.json").write_text(json.dumps(portrait_info, indent=1))
        _write_sheet(Portrait(work))
        shutil.rmtree(work / "tracking")
        (work / "frames" / STAMP).unlink()
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(output, old)
        os.replace(work, output)
        shutil.rmtree(old, ignore_errors=True)
    return Portrait(output)


def frame_range(source, start: float | None = None, end: float | None = None) -> tuple[int, int]:
    """The frames between two times.

    Args:
        source: The video file.
        start: Seconds from the first frame, or `None` for the beginning.
        end: Seconds at which to stop, or `None` for the end.

    Returns:
        `(first, stop)` in numbers of frames.

    Raises:
        VPGCError: for times that hold no frame.

    Example:

    ```python
    frame_range("me.mp4", 1, 3)  # (25, 75)
    ```
    """
    check_number("start", start, "seconds")
    check_number("end", end, "seconds")
    times = video.frame_times(source)
    first = 0 if start is None else int(np.searchsorted(times, start - 1e-6))
    stop = len(times) if end is None else int(np.searchsorted(times, end - 1e-6))
    if first >= stop:
        raise VPGCError(
            f"There is no frame of {source} from {start or 0:g} s to "
            f"{'its end' if end is None else f'{end:g} s'}: it lasts {times[-1]:.2f} s."
        )
    return first, stop


def refine(
    track: Track,
    times,
    width: int,
    height: int,
    max_gap: float = MAX_GAP,
    in_place: bool = False,
):
    """Drop what cannot be trusted, smooth the rest and fill short gaps.

    Args:
        track: A `Track` of one person in one shot, as tracked.
        times: Float `(n,)`, seconds.
        width: Width of the picture in pixels.
        height: Its height.
        max_gap: See `prepare`.
        in_place: Change the track instead of a copy?

    Returns:
        The refined `Track`, and a dict of counts and of the jitter before and after.
    """
    if not in_place:
        track = track[np.arange(len(track.valid))]
    faces = track.valid.copy()
    track.confidence[:] = cutting.confidence(track, width, height)
    seen = faces & (track.confidence >= cutting.MIN_CONFIDENCE)
    track.valid[:] = seen
    for values in (track.points, track.blendshapes, track.matrices):
        values[~seen] = np.nan
    facts: dict = {"low_confidence": int((faces & ~seen).sum())}
    if seen.any():
        still = smoothing.still_frames(track.points, seen, times)
        tall = smoothing.face_height(track.points, seen)

        def jitter(points):
            return _rounded(smoothing.jitter(points, still, tall))

        before = jitter(track.points), jitter(track.points[:, RIGID_POINTS])
        smoothing.smooth(track.points, seen, times, out=track.points)
        facts["jitter"] = {
            "unit": "mean second difference of landmarks, thousandths of the face's height",
            "still_frames": int(still.sum()),
            "before": before[0],
            "after": jitter(track.points),
            "skull_before": before[1],
            "skull_after": jitter(track.points[:, RIGID_POINTS]),
        }
        facts["face_height"] = round(tall, 1)
        smoothing.fill_gaps(track, times, max_gap)
    facts["interpolated"] = int(track.interpolated.sum())
    facts["without_face"] = int((~track.valid).sum())
    return track, facts


def _own_folder():
    # The points' file, which goes with them, may hold it up (Windows, network drives).
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def track_clip(
    source,
    *,
    start: float | None = None,
    end: float | None = None,
    max_gap: float = MAX_GAP,
    workers: int | None = None,
    tracker_model=None,
    folder=None,
    progress: bool = True,
) -> Track:
    """Track a driving video.

    In each shot the person is taken who is there longest and largest.

    Args:
        source: The video file.
        start: Where to begin, in seconds.
        end: Where to stop, in seconds.
        max_gap, workers, tracker_model: See `prepare`.
        folder: Where the faces found are kept, so that a stopped call goes on there; default:
            nothing is kept.
        progress: Show a progress bar?

    Returns:
        A `Track` in source pixels, one entry for each frame of `frame_range(source, start, end)`.

    Raises:
        VPGCError: for a file that is no video, or a video without a face.

    Example:

    ```python
    track = track_clip("friend.mp4", end=10)
    ```
    """
    info = video.probe(source)
    workers = _check_workers(workers)
    first, stop = frame_range(source, start, end)
    tracking.tracker_name()
    with (
        _own_folder() if folder is None else contextlib.nullcontext(folder) as kept,
        writing(kept),
        progress_bar(stop - first, "tracking", show=progress) as bar,
    ):
        faces = tracking.track_faces(
            source,
            kept,
            first,
            stop,
            tracker_model=tracker_model,
            workers=workers,
            progress=bar.update,
        )
        times = video.frame_times(source)[first : first + len(faces)]
        shots = cutting.find_shots(faces.cut)
        persons = cutting.find_persons(faces, shots, times)
        _check_faces(source, faces, bool(persons))
        chosen = np.full(len(faces), -1)
        for shot in range(len(shots)):
            here = [person for person in persons if person.shot == shot]
            if here:
                main = max(here, key=lambda person: person.size * len(person.frames))
                chosen[main.frames] = main.faces
        track = faces.track(chosen, kept)
    for a, b in zip(shots, [*shots[1:], len(faces)], strict=True):
        refine(track[a:b], times[a:b], info.width, info.height, max_gap, in_place=True)
    _check_faces(source, faces, bool(track.valid.any()))
    return track


def _plan(source, info, faces, settings, crop):
    """Everything that is decided after tracking: arrays for `tracking.npz` and `portrait.json`."""
    first = settings["range"][0]
    all_times = video.frame_times(source)
    times = all_times[first : first + len(faces)]
    shots = cutting.find_shots(faces.cut)
    persons = cutting.find_persons(faces, shots, times)
    _check_faces(source, faces, bool(persons))
    candidates = persons
    if crop is not None and settings["person"] is None:
        # Whoever is outside of the crop that was asked for is nobody to choose, or to be alone of.
        candidates = [person for person in persons if crops.holds(crop, person.middle)]
        if not candidates:
            raise cutting.ChoiceError(
                f"No face lies in the crop {crop.x:g},{crop.y:g},{crop.size:g}; found: "
                f"{cutting.describe(persons, times)}; choose another crop."
            )
    choice = cutting.choose(candidates, shots, times, settings["person"])
    chosen = np.full(len(faces), -1)
    chosen[choice.person.frames] = choice.person.faces
    used = slice(choice.start, choice.stop)
    track, facts = refine(
        faces.track(chosen[used]), times[used], info.width, info.height, settings["max_gap"]
    )
    seen = track.valid & ~track.interpolated
    if seen.sum() < MIN_FRAMES:
        raise VPGCError(
            f"Only {seen.sum()} of the {len(faces)} frames of {source} show one person's face "
            f"well: {MIN_FRAMES} are the least, and some minutes are better."
        )
    crop = crop or crops.choose_crop(track.points, seen, info.width, info.height)

    # Which source frame each frame of the portrait shows.
    if settings["rate"]:
        shown = video.resample(times[used] - times[choice.start], settings["rate"])
        rate = float(settings["rate"])
    else:
        shown = np.arange(len(seen))
        rate = info.frame_rate
        if info.variable_rate and len(seen) > 1:
            rate = (len(seen) - 1) / float(times[choice.stop - 1] - times[choice.start])
    news = np.cumsum(~cutting.find_repeated(faces.change)[used])[shown]
    repeated = np.diff(news, prepend=-1) == 0
    track = track[shown]
    arrays = {
        **vars(track),
        "points": crops.to_crop(track.points, crop),
        "repeated": repeated,
        "times": times[used][shown],
        "source_frames": first + choice.start + shown,
    }
    inside = (arrays["points"][..., :2] >= 0) & (arrays["points"][..., :2] <= 1)
    outside = int((track.valid & ~inside.all(axis=(1, 2))).sum())
    count = len(shown)
    size = settings["size"] or min(SIZES, key=lambda s: abs(np.log(s / crop.size)))
    number = next(i for i, person in enumerate(persons, 1) if person is choice.person)
    report = {
        "source": {
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "width": info.width,
            "height": info.height,
            "frame_rate": round(info.frame_rate, 4),
            "variable_rate": info.variable_rate,
            "frames": info.frame_count,
            "seconds": round(info.duration, 3),
            "rotation": info.rotation,
            "has_sound": info.has_sound,
        },
        "tracker": settings["tracker"],
        "shots": [
            {"start": _seconds(times, a), "end": _seconds(times, b)}
            for a, b in zip(shots, [*shots[1:], len(faces)], strict=True)
        ],
        "persons": [
            {
                "number": i,
                "shot": person.shot + 1,
                "start": _seconds(times, person.frames[0]),
                "end": _seconds(times, person.frames[-1] + 1),
                "frames": len(person.frames),
                "size": round(person.size, 1),
                "middle": [round(v, 1) for v in person.middle],
            }
            for i, person in enumerate(persons, 1)
        ],
        "person": number,
        "start": _seconds(times, choice.start),
        "end": _seconds(times, choice.stop),
        "seconds": round(count / rate, 3),
        "face_height": facts["face_height"],
        "frames": {
            "tracked": len(faces),
            "left_out": len(faces) - len(seen),
            "used": count,
            "repeated": int(repeated.sum()),
            "interpolated": int(track.interpolated.sum()),
            "without_face": int((~track.valid).sum()),
            "low_confidence": facts["low_confidence"],
        },
        "jitter": facts["jitter"],
        "face_reaches_out_of_crop": outside,
    }
    report["notes"] = _notes(report, settings, crop, size, _announced_seconds(source))
    portrait_info = {
        "schema_version": SCHEMA_VERSION,
        "source": settings["source"],
        "source_sha256": settings["source_sha256"],
        "source_size": [info.width, info.height],
        "source_range": [int(arrays["source_frames"][0]), int(arrays["source_frames"][-1]) + 1],
        "frame_rate": rate,
        "frame_count": count,
        "crop": vars(crop),
        "size": size,
        "tracker": settings["tracker"],
        "landmark_set": "mediapipe-478",
        "split": _split_seen(track.valid & ~track.interpolated, rate, settings),
        "report": report,
        "settings": settings,
    }
    return arrays, portrait_info


def _split_seen(seen, rate, settings):
    """`split` by the frames that show the face: a face that was away leaves no part empty."""
    frames = np.flatnonzero(seen)
    parts = split(len(frames), rate, settings["test_frames"], settings["test_blocks"])

    def place(first, last):
        if last <= first:
            return [int(frames[first])] * 2
        return [int(frames[first]) if first else 0, int(frames[last - 1]) + 1]

    return {part: [place(*x) for x in ranges] for part, ranges in parts.items()}


def _announced_seconds(source) -> float:
    """How long the picture is by the file's own head, 0 if that does not say."""
    with video.open_container(source) as container:
        stream = container.streams.video[0]
        if stream.duration:
            return float(stream.duration * stream.time_base)
        return (container.duration or 0) / 1e6


def _notes(report, settings, crop, size, announced):
    """What the user should know, in sentences."""
    notes, frames = [], report["frames"]
    wanted = settings["range"][1] - settings["range"][0]
    seconds = report["source"]["seconds"]
    # A sound track may well last a little longer.
    if frames["tracked"] < wanted or announced > 1.1 * seconds + 2:
        notes.append(
            f"The file was cut off: it announces {cutting.clock(max(announced, seconds))}, and "
            f"{frames['tracked']} frames can be decoded; copy it again if there should be more."
        )
    if len(report["shots"]) > 1:
        notes.append(f"The clip has {len(report['shots'])} shots; one was used.")
    if len(report["persons"]) > 1:
        notes.append(
            f"There are {len(report['persons'])} persons; number {report['person']} was used, and "
            "--person chooses another."
        )
    if frames["left_out"]:
        notes.append(
            f"{cutting.clock(report['start'])} to {cutting.clock(report['end'])} was used and "
            f"{frames['left_out']} frames were left out."
        )
    if frames["repeated"] > 0.2 * frames["used"]:
        notes.append(
            f"{frames['repeated']} of {frames['used']} frames repeat the one before and are not "
            "trained on."
        )
    if frames["without_face"]:
        notes.append(f"{frames['without_face']} frames show no face that can be used.")
    if report["face_reaches_out_of_crop"] > 0.02 * frames["used"]:
        notes.append(
            f"In {report['face_reaches_out_of_crop']} frames the face reaches out of the crop: "
            "choose a larger one by --crop, or a part of the clip by --start and --end."
        )
    if size > 1.5 * crop.size:
        notes.append(
            f"The crop is {crop.size:.0f} pixels wide in the source: {size} show no more than "
            f"{min(SIZES, key=lambda s: abs(np.log(s / crop.size)))}."
        )
    return notes


def _cut_frames(source, folder, numbers, portrait_info, workers, progress):
    files = {file.name for file in folder.glob("[0-9]*.png")}
    tasks, done = [], 0
    for start in range(0, len(numbers), CHUNK_FRAMES):
        chunk = numbers[start : start + CHUNK_FRAMES].tolist()
        if all(f"{start + i:06d}.png" in files for i in range(len(chunk))):
            done += len(chunk)
        else:
            tasks.append({"first": start, "numbers": chunk})
    crop = portrait_info["crop"]
    settings = {
        "source": str(source),
        "folder": str(folder),
        "crop": [crop["x"], crop["y"], crop["size"]],
        "size": portrait_info["size"],
    }
    with progress_bar(len(numbers), "cropping", show=progress) as bar:
        bar.update(done)
        parallel.run("keras_vpgc.data.crop:frame_cutter", settings, tasks, workers, bar.update)


def _write_sheet(portrait, columns: int = 6, rows: int = 4, cell: int = 320):
    """Landmarks drawn on frames of the whole clip and on its extremes: `landmarks.png`."""
    import cv2

    from keras_vpgc.data.landmark_sets import eye_opening, mouth_opening
    from keras_vpgc.visualization import draw_landmarks
    from keras_vpgc.visualization.sheets import write

    landmarks = portrait.landmarks
    known = np.flatnonzero(portrait.valid)
    left, right, nose = (portrait.points[known, i, 0] for i in (127, 356, 1))
    turn = (nose - left) / (right - left)
    eyes = eye_opening(landmarks[known]).mean(axis=1)
    mouth = mouth_opening(landmarks[known])
    extremes = {
        "turned left": known[np.argmin(turn)],
        "turned right": known[np.argmax(turn)],
        "eyes shut": known[np.argmin(eyes)],
        "mouth open": known[np.argmax(mouth)],
    }
    if portrait.confidence[known].min() < 1:
        extremes["least sure"] = known[np.argmin(portrait.confidence[known])]
    if portrait.interpolated.any():
        extremes["interpolated"] = np.flatnonzero(portrait.interpolated)[0]
    evenly = np.linspace(0, len(portrait) - 1, rows * columns - len(extremes)).round().astype(int)
    chosen = [(int(i), "") for i in evenly] + [(int(i), name) for name, i in extremes.items()]
    cells = []
    for i, name in chosen:
        image = portrait.frames([i], size=cell)[0]
        if portrait.valid[i]:
            image = draw_landmarks(image, landmarks[i])
        else:
            name = "no face"
        image[: cell // 14] //= 3  # so that the text can be read
        cells.append(write(image, f"{i} ({cutting.clock(portrait.times[i])}) {name}"))
    sheet = np.vstack([np.hstack(cells[k : k + columns]) for k in range(0, len(cells), columns)])
    data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    (portrait.path / "landmarks.png").write_bytes(data)


STAMP = ".settings.json"


def _stamped(folder, settings):
    """A folder whose content belongs to these settings; what belongs to others is removed."""
    stamp = folder / STAMP
    try:
        same = json.loads(stamp.read_text()) == settings
    except (OSError, ValueError):
        same = False
    if not same:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        stamp.write_text(json.dumps(settings))


def _existing(output, settings, overwrite):
    """The portrait at the target if it is the one that is asked for; else is the target free?"""
    if not (output / "portrait.json").is_file():
        if not output.is_dir() or any(output.iterdir()):
            raise VPGCError(
                f"{output} exists and holds something else than a portrait: choose another folder."
            )
        return None
    if overwrite:
        others = sorted({x.name for x in output.iterdir()} - OWN)
        if others:
            raise VPGCError(
                f"{output} also holds {others[0]}, which --overwrite would delete: move it away, "
                "or choose another folder."
            )
        return None
    try:
        existing = Portrait(output)
    except VPGCError as error:
        raise VPGCError(f"{str(error).rstrip('.')}, with --overwrite.") from None
    if existing.info["settings"] != settings:
        raise VPGCError(
            f"{output} exists and holds something else: another portrait, of "
            f"{existing.info['source']} or with other settings; choose another folder, or "
            "--overwrite."
        )
    return existing


def _check_place(source, output):
    if output.resolve() == Path.cwd() or not output.resolve().name:
        raise VPGCError(f"A portrait needs a folder of its own, not {output}: give another one.")
    if output.resolve() in source.resolve().parents:
        raise VPGCError(
            f"{source} lies inside of {output}, the portrait folder to make: choose another one."
        )


def check_number(name, value, unit, above=None) -> None:
    """Refuse a number below 0, or not above `above`, or not finite."""
    if value is None or (value >= 0 and (above is None or value > above) and value < float("inf")):
        return
    least = "above 0" if above == 0 else "from 0 on"
    raise VPGCError(f"{name} = {value:g} is impossible: give {unit} {least}.")


def _check_workers(workers):
    if workers is not None and workers < 1:
        raise VPGCError(f"workers = {workers} is impossible: give 1 or more.")
    return workers or parallel.default_workers()


def _check_faces(source, faces: Faces, found: bool):
    if found:
        return
    seen = len(np.unique(faces.frame))
    if seen:
        raise NoFaceError(
            f"Only {seen} of the {len(faces)} frames of {source} show a face, none for long: "
            f"{MIN_FRAMES} are the least, and some minutes are better."
        )
    raise NoFaceError(
        f"No face was found in any of the {len(faces)} frames of {source}: use a video in which "
        "one person faces the camera, the face higher than a tenth of the picture's longer side."
    )


def _seconds(times, frame):
    """When a frame begins; beyond the last one, when that ends."""
    if frame < len(times):
        return round(float(times[frame]), 3)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return round(float(times[-1]) + step, 3)


def _rounded(value):
    return None if value is None else round(value, 3)
