"""Cross-reenactment: one person's motion on another's face, scored without a truth."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import landmark_sets, sound, tracking, video
from keras_vpgc.data.crop import Crop
from keras_vpgc.data.prepare import frame_range
from keras_vpgc.errors import VPGCError, check_writable, writing
from keras_vpgc.evaluation.clips import Clip, align_frames, spans
from keras_vpgc.evaluation.cross_pictures import (
    DETECTED_SIDE,
    SIDE,
    CrossPictures,
    picture_scores,
    track_faces,
)
from keras_vpgc.evaluation.follower import Follower
from keras_vpgc.evaluation.motion import correlations, motion_scores, signals, still_face
from keras_vpgc.evaluation.output import check_output
from keras_vpgc.evaluation.protocol import jsonable, summary
from keras_vpgc.evaluation.target import check_target, open_target
from keras_vpgc.metrics import (
    FaceEmbedding,
    identity_distance,
    identity_similarity,
    landmark_distance,
)
from keras_vpgc.progress import progress_bar
from keras_vpgc.reenactment.provenance import Provenance, Source
from keras_vpgc.reenactment.puppet import GUARDS, RETARGETING
from keras_vpgc.version import __version__
from keras_vpgc.visualization.cross_report import cross_report, cross_table

RESULT, LATE, STILL, OWN = "result", "driving, a frame late", "a still face", "target's own frames"
LANDMARK_SIZE = 512
# What drives a run, where nothing is said.
UNDRIVEN = {
    "retargeting": "auto",
    "neutral": None,
    "motion": 1.0,
    "guard": "warn",
    "start": None,
    "end": None,
}
ELSEWHERE = "choose another folder by --output"


def evaluate_cross(
    driving,
    prediction=None,
    *,
    run=None,
    target=None,
    output=None,
    retargeting: str = "auto",
    neutral: float | None = None,
    motion: float = 1.0,
    guard: str = "warn",
    start: float | None = None,
    end: float | None = None,
    align: bool = False,
    identity: bool = True,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 8,
    workers: int | None = None,
    tracker_model=None,
    embedding=None,
    progress: bool = True,
) -> dict:
    """Score how well a result follows the clip that drove it, and whether it shows the target.

    Either a run's puppet is driven here, or the finished video of any system is scored. No frame is
    the true one, so the numbers are agreements of what is detected in both clips: see
    `keras_vpgc.evaluation.motion` for pose and expression. Jitter is in pixels of a square around
    the face of 512; flicker is the plain change between frames (of 255) where the driving face
    stands still, and sharpness the variance of the Laplacian, both on that square at 256 pixels.
    Identity is the mean distance of a frame's face embedding to those of up to 100 of the target's
    frames (of a portrait its training frames), and their mean cosine. They are reduced to the
    result's resolution first. What makes the numbers readable stands beside them: the driving clip
    against itself a frame late (and how far the driving person is from the target), a face that
    never moves, and the target's own frames that the gallery does not hold.

    Memory does not grow with the length, but for some numbers a frame.

    Args:
        driving: The driving video.
        prediction: The result, as a video of any system.
        run: Instead of it a run folder (or `puppet.keras`), whose puppet is driven.
        target: A portrait folder, or a video of the person whom the result shall show; default: a
            run's own portrait. Without one, identity and relative sharpness are left out.
        output: Folder for `cross.json`, `cross.md`, per-frame `scores.npz`, `cross.mp4` (driving,
            landmarks, result, with the driving clip's sound), `contact_sheet.png`, `report.html`
            and of a run `driven.mp4`. Default: of a run `RUN/evaluation/cross_NAME`, else nothing
            is written.
        retargeting, neutral, motion, guard, start, end: See `keras_vpgc.reenactment.reenact`; for a
            run only.
        align: Score the stretch that both videos have if they are not equally long?
        identity: Measure identity, if there is a target?
        level, seed: See `keras_vpgc.evaluation.bootstrap_interval`; stretches of one second.
        batch_size: Frames of a run computed at once.
        workers: Processes that track; default: one a core.
        tracker_model: Path of `face_landmarker.task`.
        embedding: Own copy of the face embedding's weights.
        progress: Show progress bars?

    Returns:
        What `cross.json` holds: `frames`; `scores`, column -> what `summary` returns, with means,
        `intervals` and `left_out`; `correlations`, see `keras_vpgc.evaluation.motion.correlations`;
        `frames_without_face`; `notes`; `protocol`; `table`, the same as Markdown; and beside that
        `folder`, the `Path` of the files, or `None`.

    Raises:
        VPGCError: unless exactly one of prediction and run is given; for a file that cannot be
            read, videos of two lengths without `align`, a driving clip, a finished result or a
            target without any face, or an output that cannot be written. A run's result without a
            face is not refused but counted.

    Example:

    ```python
    result = evaluate_cross("friend.mp4", run="runs/me")
    result = evaluate_cross("friend.mp4", "theirs.mp4", target="data/me", output="scores")
    result["scores"]["result"]["head_motion_error"], result["correlations"]["result"]["mouth"]
    ```
    """
    if (prediction is None) == (run is None):
        raise VPGCError("Either a run or a finished video is scored: give one of the two.")
    options = {
        "retargeting": retargeting,
        "neutral": neutral,
        "motion": motion,
        "guard": guard,
        "start": start,
        "end": end,
    }
    if run is None and options != UNDRIVEN:
        raise VPGCError(
            "The options of retargeting, start and end drive a run's puppet: leave them out for a "
            "finished video."
        )
    for kind, value, known in (
        ("retargeting", retargeting, RETARGETING),
        ("guard", guard, GUARDS),
    ):
        if value not in known:
            raise VPGCError(f"There is no {kind} {value!r}: choose one of {', '.join(known)}.")
    source = Clip.open(driving)
    if run is not None:
        output = output or _own_folder(run, source)
    folder = check_output(output)
    if folder is not None:
        check_writable(folder / "cross.mp4", ELSEWHERE)
    notes: list[str] = []
    follow = Follower(workers, tracker_model, progress)
    with _place(folder) as partial:
        asked = None
        if run is None:
            clip = Clip.open(prediction).decoded()
            numbers, places, alignment = align_frames(
                clip, source, align, notes, "result", "the driving clip"
            )
        else:
            target = target or _own_portrait(run, notes)
            numbers = np.arange(*frame_range(driving, start, end))
            places, alignment = numbers - numbers[0], "frame by frame"
        if len(numbers) < 3:
            raise VPGCError(f"Only {len(numbers)} frames can be scored: give longer videos.")
        if target is None:
            notes.append("Without a target there is no identity and no relative sharpness.")
        else:
            check_target(target)
        embed = FaceEmbedding(embedding) if identity and target is not None else None
        if run is not None:
            path = partial / "driven.mp4"
            driven = {**options, "workers": workers, "tracker_model": tracker_model}
            asked = _drive(run, source, path, batch_size, driven, progress)
            clip = Clip.open(path)
        tracker = follow, tracker_model, progress
        source = source.decoded()
        one = track_faces(source, numbers, "the driving clip", *tracker)
        _check_seen(one, source, "the driving clip")
        other = track_faces(clip, places, "the result", *tracker)
        if run is None:
            _check_seen(other, clip, "the result")
        tracks = {"driving": one, "result": other}
        lost = {"driving": np.isin(numbers, source.lost), "result": np.isin(places, clip.lost)}
        for name, frames in lost.items():
            if frames.any():
                tracks[name].forget(frames)
                notes.append(
                    f"{frames.sum()} of {len(numbers)} frames of the {name} clip cannot be decoded "
                    f"({spans(np.flatnonzero(frames))}): they have no scores."
                )
        without = {name: int((~track.valid).sum()) for name, track in tracks.items()}
        notes += [
            f"No face was found in {missing} of {len(numbers)} frames of the {name} clip: the "
            "scores that need one leave them out."
            for name, missing in without.items()
            if missing
        ]
        squares = {
            "driving": _square(one, source),
            "result": _square(other, clip) if run is None else _whole(clip),
        }
        goal = None
        if target is not None:
            goal = open_target(target, round(squares["result"].size), tracker_model)

        clips = {"driving": (source, numbers), "result": (clip, places)}
        pictures = CrossPictures(clips, tracks, squares, asked, embed, partial, progress)
        seconds, rate = source.times[numbers] - source.times[numbers[0]], source.info.frame_rate
        shown = pictures.run(video.resample(seconds, rate))
        for name, frames in lost.items():
            shown[name]["sharpness"][frames] = np.nan
            shown[name]["flicker"][frames[1:] | frames[:-1]] = np.nan
        relative = _relative(squares["driving"], source), _relative(squares["result"], clip)
        columns = _columns(one, other, relative, shown, goal, embed, asked)
        found = {
            "frames": len(numbers),
            "scores": {name: _summary(name, x, rate, level, seed) for name, x in columns.items()},
            "correlations": {
                RESULT: correlations(one, other, rate, level, seed),
                LATE: correlations(one[1:], one[:-1], rate, level, seed),
            },
            "frames_without_face": without,
            "notes": notes,
            "protocol": {
                "driving": {**source.describe(), "first_frame": int(numbers[0])},
                "result": {**clip.describe(), "alignment": alignment},
                "run": None if run is None else {"name": Path(run).name, **options},
                "target": goal and goal.describe(),
                "squares": {name: vars(square) for name, square in squares.items()},
                **_protocol(embed, tracker_model, rate, level, seed),
            },
        }
        found["table"] = cross_table(found)
        found = jsonable(found)
        if folder is not None:
            curves = {name: signals(track) for name, track in tracks.items()}
            named = {**columns, **{f"{name} signals": x for name, x in curves.items()}}
            per_frame = {f"{n}/{key}": v for n, x in named.items() for key, v in x.items()}
            per_frame["frames/driving"], per_frame["frames/result"] = numbers, places
            per_frame["times"] = source.times[numbers]
            with writing(folder, ELSEWHERE):
                _write(folder, partial, found, per_frame, curves, pictures, source)
    return {**found, "folder": folder}


def _summary(name, values, frame_rate, level, seed):
    """Means; no interval for frames that were picked here and there, which are no stretches."""
    row = summary(values, frame_rate, level, seed)
    for key in row["intervals"]:
        if name == OWN or (name == LATE and key.startswith("identity")):
            row["intervals"][key] = None
    return row


def _own_folder(run, source):
    """Where the scores of a run and a driving clip go: each clip has its own place."""
    folder = _run_folder(run) / "evaluation" / f"cross_{source.path.stem}"
    digest = assets.sha256(source.path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((folder / "cross.json").read_text(encoding="utf-8"))
        if found["protocol"]["driving"]["sha256"] != digest:
            return folder.with_name(f"{folder.name}_{digest[:8]}")
    return folder


def _protocol(embed, tracker_model, frame_rate, level, seed):
    """What the numbers depend on, beside the files."""
    return {
        "package": f"keras_vpgc {__version__}",
        "backend": keras.backend.backend(),
        "landmark_size": LANDMARK_SIZE,
        "picture_side": SIDE,
        "detector": tracking.tracker_name(),
        "detected_side": f"pictures of less than {DETECTED_SIDE} pixels are enlarged to that",
        "model_sha256": assets.sha256(assets.find("face_landmarker", tracker_model)),
        "identity": None
        if embed is None
        else {
            "network": "dlib_face_recognition_resnet_model_v1",
            "distance": "mean Euclidean distance to the gallery's faces; 0.6 tells persons apart",
        },
        "interval": {
            "method": "percentiles of a circular block bootstrap (Politis and Romano 1992)",
            "level": level,
            "block_frames": max(1, round(frame_rate)),
            "resamples": 2000,
            "seed": seed,
        },
    }


def _columns(one, other, squares, shown, goal, embed, asked):
    """Column -> score -> values by frame."""
    late = motion_scores(one[1:], one[:-1], (squares[0], squares[0]), LANDMARK_SIZE)
    still = motion_scores(one, still_face(one), (squares[0], squares[0]), LANDMARK_SIZE)
    columns = {
        RESULT: motion_scores(one, other, squares, LANDMARK_SIZE),
        LATE: late,
        STILL: still,
    }
    if asked is not None:
        points = crops.to_crop(landmark_sets.landmarks(other.points), squares[1])
        distance = landmark_distance(asked[:, :68], points, LANDMARK_SIZE)
        columns[RESULT]["landmark_distance"] = keras.ops.convert_to_numpy(distance)
    columns[RESULT] |= {key: shown["result"][key] for key in ("flicker", "sharpness")}
    columns[LATE] |= {key: shown["driving"][key] for key in ("flicker", "sharpness")}
    if goal is None:
        return columns
    own = columns[OWN] = {"sharpness": picture_scores(goal.held_out)["sharpness"]}
    if not len(goal.held_out):
        own["sharpness"] = picture_scores(goal.gallery)["sharpness"]
    usual = picture_scores(goal.gallery)["sharpness"].mean()
    # The driving clip has a resolution of its own.
    for values in (columns[RESULT], own):
        values["relative_sharpness"] = values["sharpness"] / usual
    if embed is not None:
        gallery, held_out = (embed(chips) for chips in goal.chips())
        for values, vectors in (
            (columns[RESULT], shown["result"]["embeddings"]),
            (columns[LATE], shown["driving"]["embeddings"]),
            (own, held_out),
        ):
            if len(vectors):
                values |= _identity(gallery, vectors)
    return columns


def _identity(gallery, vectors):
    """Mean over the gallery of a distance, for each vector."""
    return {
        name: np.mean([compare(known, vectors) for known in gallery], axis=0)
        for name, compare in (
            ("identity_distance", identity_distance),
            ("identity_similarity", identity_similarity),
        )
    }


def _drive(run, source, path, batch_size, options, progress):
    """Write the puppet's frames; the landmarks that drove them."""
    from keras_vpgc.reenactment.driving import driving_landmarks
    from keras_vpgc.reenactment.puppet import Puppet

    puppet = Puppet.load(run, "float32")
    landmarks, *_ = driving_landmarks(puppet, source.path, progress=progress, **options)
    with (
        video.VideoWriter(
            path, source.info.frame_rate, overwrite=True, metadata=Provenance().metadata()
        ) as writer,
        progress_bar(len(landmarks), "driving", show=progress) as bar,
    ):
        for frames in puppet.batches(landmarks, batch_size, bar.update):
            for frame in frames:
                writer.write(frame)
    return landmarks


def _check_seen(track, clip, what):
    if not track.valid.any():
        raise VPGCError(f"No face was found in {clip.path}, {what}: give a video that shows one.")


def _square(track, clip) -> Crop:
    """A square around the face in pixels."""
    width, height = clip.info.width, clip.info.height
    return crops.choose_crop(track.points * max(width, height), track.valid, width, height)


def _whole(clip) -> Crop:
    return Crop(0.0, 0.0, float(clip.info.width))


def _relative(square, clip) -> Crop:
    """A square in parts of the longer side, as tracks are."""
    longer = max(clip.info.width, clip.info.height)
    return Crop(square.x / longer, square.y / longer, square.size / longer)


def _run_folder(run) -> Path:
    run = Path(run)
    return run if run.is_dir() else run.parent


def _own_portrait(run, notes):
    """The portrait that a run was trained on, if it is where it was."""
    from keras_vpgc.data.portrait import Portrait
    from keras_vpgc.evaluation.run import _check_identity
    from keras_vpgc.training.recipes import read_run

    if not Path(run).is_dir():
        return None
    info = read_run(run)
    folder = Path(info["portrait"])
    if not folder.exists():
        notes.append(f"The run was trained on {folder}, which is gone: give it by --target.")
        return None
    _check_identity(run, info["portrait_identity"], Portrait(folder), "--target")
    return folder


@contextlib.contextmanager
def _place(folder):
    """A folder for what is being made; it goes away."""
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    partial = folder / ".partial"
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with writing(folder, ELSEWHERE):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()  # only if there is nothing in it


def _write(folder, partial, found, per_frame, curves, pictures, source):
    """All files or none: they get their names when all are whole."""
    silent, whole = partial / "silent.mp4", partial / "cross.mp4"
    if not sound.add_sound(silent, source.path, whole, per_frame["times"][0]):
        os.replace(silent, whole)
    silent.unlink(missing_ok=True)
    shown = Source(Path(source.path), "Driving video", True)
    Provenance(composite=True, sources=(shown,)).sign(whole)
    sheet = pictures.sheet()
    (partial / "contact_sheet.png").write_bytes(sheet)
    np.savez_compressed(partial / "scores.npz", **per_frame)
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    (partial / "cross.json").write_text(text, encoding="utf-8")
    notes = "".join(f"- {note}\n" for note in found["notes"])
    (partial / "cross.md").write_text(f"{found['table']}\n\n{notes}", encoding="utf-8")
    page = cross_report(found, per_frame, curves, sheet, whole.read_bytes())
    (partial / "report.html").write_text(page, encoding="utf-8")
    for file in sorted(partial.iterdir()):
        os.replace(file, folder / file.name)
