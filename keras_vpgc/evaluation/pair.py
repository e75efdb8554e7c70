"""Scoring videos of any system against a true one."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import landmark_sets, parallel, tracking, video
from keras_vpgc.data.crop import Crop
from keras_vpgc.data.prepare import _bar
from keras_vpgc.data.tracking import Track
from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.evaluation.protocol import interval_table, jsonable, landmark_scores, summary
from keras_vpgc.evaluation.scorer import Features, Scorer, batch_frames, check_net
from keras_vpgc.metrics import expression_error, head_pose_error, jitter
from keras_vpgc.version import __version__

REGIONS = {"face": ("face",), "full": ("full",), "both": ("face", "full")}
# Containers round time stamps: rates that differ by less are one rate. With the same number of
# frames it may be 24 beside 23.976, too.
SAME_RATE, SAME_RATE_AND_COUNT = 5e-4, 5e-3
# Pictures whose sides differ by more than this in proportion would be distorted.
SAME_SHAPE = 0.02
FLOOR = "floor"


def evaluate_pair(prediction, truth, output=None, **options) -> dict:
    """Score a predicted video against the true one, whatever system made it.

    Frames are read one at a time: memory does not grow with the length, but for some numbers a
    frame. Videos of one rate are compared frame by frame, those of other rates by the nearest frame
    in time of the truth's frames; a prediction of another size is scaled to the truth's. The region
    `face` is a square chosen once for the clip by the landmarks of the truth, as `prepare` chooses
    it, cut out of both videos; `full` is the whole picture at the truth's size.

    Args:
        prediction: The predicted video file.
        truth: The true video file.
        output: Folder for `evaluation.json`, `evaluation.md` and per-frame `scores.npz`; `None`
            writes nothing.
        **options: Those of `score_videos`.

    Returns:
        What `evaluation.json` holds; PSNR of identical videos is the text `"inf"`, since JSON has
        no infinity:

        - `scores`: for each region what `summary` returns: means, `intervals`, `left_out`.
        - `floor`: the same for the truth shifted by one frame as the prediction.
        - `frames_without_face`: `{"truth": ..., "prediction": ...}`.
        - `notes`: sentences on what was resized, aligned or left out.
        - `protocol`: everything that the numbers depend on.
        - `table`: the same as Markdown.

    Raises:
        VPGCError: see `score_videos`.

    Example:

    ```python
    result = evaluate_pair("driven.mp4", "truth.mp4", "scores/driven")
    result["scores"]["face"]["lpips"], result["scores"]["face"]["intervals"]["lpips"]
    ```
    """
    folder = check_output(output)
    name = "prediction"
    result = score_videos({name: prediction}, truth, **options)
    scores = result["scores"]
    table = "\n\n".join(
        f"{region_title(region, result['protocol'])}\n\n"
        + interval_table({name: rows[name], "floor (truth, a frame late)": rows[FLOOR]})
        for region, rows in scores.items()
    )
    found = {
        "frames": result["frames"],
        "scores": {region: rows[name] for region, rows in scores.items()},
        "floor": {region: rows[FLOOR] for region, rows in scores.items()},
        "frames_without_face": result["frames_without_face"],
        "notes": result["notes"],
        "protocol": result["protocol"],
        "table": table,
    }
    found = jsonable(found)
    if folder is not None:
        with writing(folder):
            write(folder, "evaluation", found, result["per_frame"])
    return found


def score_videos(
    systems: dict,
    truth,
    *,
    size: int = 512,
    crop: str = "both",
    align: bool = False,
    lpips: str | None = "alex",
    landmarks: bool = True,
    level: float = 0.95,
    seed: int = 0,
    workers: int | None = None,
    tracker_model=None,
    progress: bool = True,
) -> dict:
    """Score several systems' videos of one truth on the same frames by one protocol.

    Args:
        systems: Name -> predicted video file.
        truth: The true video file.
        size: Side in pixels of the face region, and the size at which landmark distances are stated
            (in the region `full` that of the longer side).
        crop: `"face"`, `"full"` or `"both"`.
        align: Score the stretch that all videos have if they are not equally long? Else that is an
            error.
        lpips: `"alex"`, `"vgg"` or `None`.
        landmarks: Detect faces? Without, only `full` is scored, by the pictures alone.
        level, seed: See `keras_vpgc.evaluation.bootstrap_interval`; stretches of one second.
        workers: Processes that track; default: one a core.
        tracker_model: Path of `face_landmarker.task`.
        progress: Show progress bars?

    Returns:
        Dict of `frames`, `scores` (region -> name, and `"floor"` -> summary),
        `frames_without_face` (name, and `"truth"` -> count), `notes`, `protocol` and `per_frame`
        (region/name/score -> array, and the numbers of the frames that were compared).

    Raises:
        VPGCError: for a file that cannot be decoded, other lengths without `align`, pictures of
            another shape, a truth without a face, or an option that does not exist.

    Example:

    ```python
    score_videos({"ours": "a.mp4", "theirs": "b.mp4"}, "truth.mp4", crop="face")["scores"]
    ```
    """
    if crop not in REGIONS:
        raise VPGCError(f"There is no region {crop!r}: choose face, full or both.")
    if not landmarks and crop == "face":
        raise VPGCError("The face's region is found by landmarks: use the full one without them.")
    if size < 32:
        raise VPGCError(f"A size of {size} pixels is too small to be scored: choose 64 or more.")
    if lpips is not None:
        check_net(lpips)
    for name in systems:
        if name in (FLOOR, "truth"):
            raise VPGCError(f"A system cannot be called {name!r}: choose another name.")
    regions = REGIONS[crop] if landmarks else ("full",)
    notes: list[str] = []
    true = _Clip.open(truth)
    clips = {name: _Clip.open(path) for name, path in systems.items()}
    for name, clip in clips.items():
        _check_shape(clip, true)
        if (clip.info.width, clip.info.height) != (true.info.width, true.info.height):
            notes.append(
                f"The frames of {name} are {_size(clip)} and were scaled to the truth's "
                f"{_size(true)}."
            )
    places, alignment = _align_all(clips, true, align, notes)
    shown = places[FLOOR]
    count = len(shown)
    if count < 3:
        raise VPGCError(f"Only {count} frames of {true.path} can be scored: give longer videos.")

    features = None if lpips is None else Features(lpips)
    tracks: dict[str, Track] = {}
    detector = None
    square = None
    if landmarks:
        detector = tracking.tracker_name()
        follow = _Follower(workers, tracker_model, progress)
        tracks["truth"] = whole = follow(true, "tracking the truth")
        if "face" in regions:
            square = _choose_square(whole, true)
        tracks["truth"] = whole[shown]
        for name, clip in clips.items():
            tracks[name] = follow(clip, f"tracking {name}", (tracks["truth"], places[name]))

    scorers = {
        region: {name: Scorer(features, video=True) for name in (*clips, FLOOR)}
        for region in regions
    }
    cut = _Cutter(true.info, square, size)
    _score_pictures(true, clips, places, scorers, cut, progress)

    scores: dict[str, dict] = {}
    per_frame: dict[str, np.ndarray] = {f"frames/{n}": v for n, v in places.items() if n != FLOOR}
    per_frame["frames/truth"], per_frame["times"] = shown, true.times[shown]
    for region in regions:
        scores[region] = {}
        for name, scorer in scorers[region].items():
            values = scorer.scores()
            if name == FLOOR:
                values = {key: x[1:] for key, x in values.items()}
            if landmarks:
                pair = tracks["truth"], tracks[name if name != FLOOR else "truth"]
                if name == FLOOR:
                    pair = pair[0][1:], pair[1][: count - 1]
                values.update(_track_scores(*pair, cut.square(region), size))
            scores[region][name] = summary(values, true.info.frame_rate, level, seed)
            identical = int(np.isinf(values["psnr"]).sum())
            if 0 < identical < len(values["psnr"]) and name != FLOOR:
                notes.append(
                    f"{identical} of {count} frames of {name} ({region}) are identical to the "
                    "truth's: the mean of PSNR, which is infinite there, leaves them out."
                )
            per_frame.update({f"{region}/{name}/{key}": v for key, v in values.items()})
    without = {name: int((~track.valid).sum()) for name, track in tracks.items()}
    for name, missing in without.items():
        if missing:
            notes.append(
                f"No face was found in {missing} of {count} frames of "
                f"{'the truth' if name == 'truth' else name}: the scores of landmarks leave them "
                "out and the others hold them."
            )
    protocol = {
        "package": f"keras_vpgc {__version__}",
        "backend": keras.backend.backend(),
        "frames": count,
        "frame_rate": true.info.frame_rate,
        "truth": true.describe(),
        "systems": {
            name: {**clip.describe(), "alignment": alignment[name]} for name, clip in clips.items()
        },
        "regions": {
            region: (
                {"crop": vars(square), "size": size}
                if region == "face"
                else {"width": true.info.width, "height": true.info.height}
            )
            for region in regions
        },
        "resizing": "by areas to less than two thirds, else cubic",
        "colours": "RGB of 8 bits, each channel alone",
        "data_range": 255,
        "psnr": "mean over frames of 10 log10(255^2 / MSE); identical frames, whose PSNR is "
        'infinite, are left out and counted, and "inf" where all are identical',
        "ssim": {
            "window": "gaussian 11x11, sigma 1.5",
            "K1": 0.01,
            "K2": 0.03,
            "covariance": "population",
            "border": "windows inside the picture",
        },
        "lpips": None if lpips is None else {"net": lpips, "version": "0.1"},
        "landmarks": None
        if detector is None
        else {
            "detector": detector,
            "model_sha256": assets.sha256(assets.find("face_landmarker", tracker_model)),
            "points": "68 of iBUG out of MediaPipe's 478, as tracked, not smoothed",
            "size": size,
            "centred": "the mean of the points that count is removed in each frame",
        },
        "interval": {
            "method": "percentiles of a circular block bootstrap (Politis and Romano 1992)",
            "level": level,
            "block_frames": max(1, round(true.info.frame_rate)),
            "resamples": 2000,
            "seed": seed,
        },
        "floor": "the truth against itself, shifted by one frame",
    }
    return {
        "frames": count,
        "scores": scores,
        "frames_without_face": without,
        "notes": notes,
        "protocol": protocol,
        "per_frame": per_frame,
    }


def region_title(region: str, protocol: dict) -> str:
    """What a region is, for a table's head."""
    where = protocol["regions"][region]
    if region == "face":
        side, square = where["size"], where["crop"]
        return (
            f"Face: the square {square['x']:g},{square['y']:g},{square['size']:g} of the truth at "
            f"{side}x{side} pixels, {protocol['frames']} frames."
        )
    return (
        f"Full picture at {where['width']}x{where['height']} pixels, {protocol['frames']} frames."
    )


def check_output(output) -> Path | None:
    """The output folder, which may exist; a `VPGCError` if it is something else."""
    if output is None:
        return None
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise VPGCError(f"{output} is a file: give a folder for the scores.")
    return output


def write(folder: Path, name: str, result: dict, per_frame: dict) -> None:
    """Write `NAME.json`, `NAME.md` and `scores.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    notes = "".join(f"\n- {note}" for note in result["notes"])
    text = f"{result['table']}\n" + (f"{notes}\n" if notes else "")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    np.savez_compressed(folder / "scores.npz", **per_frame)


@dataclass(frozen=True)
class _Clip:
    path: Path
    info: video.VideoInfo
    times: np.ndarray

    @classmethod
    def open(cls, path) -> "_Clip":
        return cls(Path(path), video.probe(path), video.frame_times(path))

    def describe(self) -> dict:
        return {
            "file": self.path.name,
            "sha256": assets.sha256(self.path),
            "width": self.info.width,
            "height": self.info.height,
            "frames": len(self.times),
            "frame_rate": self.info.frame_rate,
        }

    def frames(self, numbers) -> Iterator[np.ndarray]:
        """The frames of these numbers, which never fall; one may come again."""
        numbers = np.asarray(numbers)
        start = int(numbers[0])
        place = 0
        for number, frame in enumerate(
            video.read_frames(self.path, start, int(numbers[-1]) + 1), start
        ):
            while place < len(numbers) and numbers[place] == number:
                yield frame
                place += 1
        if place < len(numbers):
            raise self.cut_off(int(numbers[place]))

    def cut_off(self, decoded: int) -> VPGCError:
        return VPGCError(
            f"{self.path} announces {len(self.times)} frames and only {decoded} can be decoded: "
            "copy it again, or cut both videos."
        )


def _size(clip):
    return f"{clip.info.width}x{clip.info.height}"


def _check_shape(clip, true):
    shapes = [x.info.width / x.info.height for x in (clip, true)]
    if abs(shapes[0] / shapes[1] - 1) > SAME_SHAPE:
        raise VPGCError(
            f"{clip.path} shows pictures of {_size(clip)} and {true.path} of {_size(true)}: their "
            "shapes differ, so cut the same part out of both first."
        )


def _align(clip, true, align, notes, name, reference="the truth"):
    """Numbers of the true and the predicted frames that belong together, and how."""
    counts = len(true.times), len(clip.times)
    rates = true.info.frame_rate, clip.info.frame_rate
    apart = abs(rates[0] / rates[1] - 1)
    if apart < SAME_RATE or (counts[0] == counts[1] and apart < SAME_RATE_AND_COUNT):
        common = min(counts)
        if counts[0] != counts[1]:
            if not align:
                raise VPGCError(
                    f"{clip.path} has {counts[1]} frames and {true.path} {counts[0]}: give videos "
                    f"of one length, or score the first {common} by --align."
                )
            notes.append(
                f"{name} has {counts[1]} frames and {reference} {counts[0]}: the first {common} "
                "were scored."
            )
        return np.arange(common), np.arange(common), "frame by frame"
    seconds = [x.times[-1] + 1 / x.info.frame_rate for x in (true, clip)]
    if abs(seconds[0] - seconds[1]) > 1 / min(rates) + 1e-3:
        if not align:
            raise VPGCError(
                f"{clip.path} has {counts[1]} frames in {seconds[1]:.2f} s and {true.path} "
                f"{counts[0]} in {seconds[0]:.2f} s: give videos of one length, or score the first "
                f"{min(seconds):.2f} s by --align."
            )
        notes.append(
            f"{name} lasts {seconds[1]:.2f} s and {reference} {seconds[0]:.2f} s: the first "
            f"{min(seconds):.2f} s were scored."
        )
        shown = np.flatnonzero(true.times < min(seconds) - 1e-3)
    else:
        shown = np.arange(counts[0])
    middles = 0.5 * (clip.times[1:] + clip.times[:-1])
    nearest = np.searchsorted(middles, true.times[shown])
    repeated = len(nearest) - len(np.unique(nearest))
    notes.append(
        f"{name} has {rates[1]:g} frames a second and {reference} {rates[0]:g}: each frame of "
        f"{reference} was compared with the nearest in time; {repeated} of {name} came again."
    )
    return shown, nearest, "nearest in time"


def _align_all(clips, true, align, notes):
    """Numbers of the frames for each system, and under `FLOOR` for the truth, on common frames."""
    pairs = {name: _align(clip, true, align, notes, name) for name, clip in clips.items()}
    common = min(len(shown) for shown, _, _ in pairs.values())
    places = {name: numbers[:common] for name, (_, numbers, _) in pairs.items()}
    places[FLOOR] = next(iter(pairs.values()))[0][:common]
    return places, {name: how for name, (_, _, how) in pairs.items()}


class _Follower:
    """Tracks the faces of whole clips in several processes."""

    def __init__(self, workers, model, progress):
        if workers is not None and workers < 1:
            raise VPGCError(f"workers = {workers} is impossible: give 1 or more.")
        self.workers = workers or parallel.default_workers()
        self.model, self.progress = model, progress

    def __call__(self, clip, title, near=None, span=None) -> Track:
        """A face in each frame of a clip: the largest, or the nearest to another track's.

        Args:
            clip: A `_Clip`.
            title: Of the progress bar.
            near: `(track, numbers)`: a track of the truth in parts of the picture's longer side,
                and the clip's frames that belong to it, which are then those of the result.
            span: First frame and the one before which to stop; default: all.

        Returns:
            A `Track` in parts of the picture's longer side.
        """
        if min(clip.info.width, clip.info.height) < tracking.MIN_SIDE:
            raise VPGCError(
                f"{clip.path} shows pictures of {_size(clip)} pixels: a face can be found in "
                f"{tracking.MIN_SIDE}x{tracking.MIN_SIDE} at least, so leave out the landmarks."
            )
        start, stop = span or (0, len(clip.times))
        count = stop - start
        with (
            tempfile.TemporaryDirectory() as folder,
            writing(folder),
            _bar(count, title, self.progress) as bar,
        ):
            faces = tracking.track_faces(
                clip.path,
                folder,
                start,
                stop,
                tracker_model=self.model,
                workers=self.workers,
                progress=bar.update,
            )
        if len(faces) < count:
            raise clip.cut_off(start + len(faces))
        faces.points = faces.points / np.float32(max(clip.info.width, clip.info.height))
        numbers = np.arange(count) if near is None else near[1]
        first = np.searchsorted(faces.frame, numbers)
        last = np.searchsorted(faces.frame, numbers, side="right")
        # The tracker gives a frame's faces by their size.
        chosen = np.where(last > first, first, -1)
        if near is not None:
            for i in np.flatnonzero((last - first > 1) & near[0].valid):
                apart = faces.points[first[i] : last[i], :, :2] - near[0].points[i, :, :2]
                chosen[i] += int(np.linalg.norm(apart, axis=-1).mean(1).argmin())
        return faces.track(chosen)


def _choose_square(track, clip) -> Crop:
    if not track.valid.any():
        raise VPGCError(
            f"No face was found in {clip.path}, the truth, so that there is no region of the face: "
            "choose the full one by --crop full."
        )
    width, height = clip.info.width, clip.info.height
    return crops.choose_crop(track.points * max(width, height), track.valid, width, height)


class _Cutter:
    """Cuts the regions out of frames."""

    def __init__(self, info, square, size):
        self.width, self.height, self.face, self.size = info.width, info.height, square, size

    def __call__(self, frame, region):
        import cv2

        height, width = frame.shape[:2]
        if (width, height) != (self.width, self.height):
            reduced = width > 1.5 * self.width
            method = cv2.INTER_AREA if reduced else cv2.INTER_CUBIC
            frame = cv2.resize(frame, (self.width, self.height), interpolation=method)
        return frame if region == "full" else crops.apply(frame, self.face, self.size)

    def square(self, region) -> Crop:
        """The region in parts of the picture's longer side; its side is what is 1 in landmarks."""
        if region == "full":
            return Crop(0.0, 0.0, 1.0)
        longer = max(self.width, self.height)
        return Crop(self.face.x / longer, self.face.y / longer, self.face.size / longer)

    def batch(self, regions) -> int:
        """How many frames are scored at once."""
        sides = {"face": (self.size, self.size), "full": (self.height, self.width)}
        return min(batch_frames(*sides[region]) for region in regions)


def _score_pictures(true, clips, places, scorers, cut, progress):
    count = len(places[FLOOR])
    size = cut.batch(scorers)
    before: dict[str, Any] = {}
    with contextlib.ExitStack() as stack, _bar(count, "scoring", progress) as bar:
        streams = [true.frames(places[FLOOR])]
        streams += [clip.frames(places[name]) for name, clip in clips.items()]
        for stream in streams:
            stack.callback(stream.close)
        for start in range(0, count, size):
            keep = min(size, count - start)
            frames = [[next(stream) for stream in streams] for _ in range(keep)]
            # One shape for all batches: compiling for another takes longer than scoring it.
            frames += frames[-1:] * (size - keep)
            for region, of_region in scorers.items():
                truth, *predictions = (
                    np.stack([cut(frame, region) for frame in column])
                    for column in zip(*frames, strict=True)
                )
                floor = of_region[FLOOR]
                maps = floor.features(truth) if floor.features else []
                for name, prediction in zip(clips, predictions, strict=True):
                    of_region[name].update(truth, prediction, keep, maps)
                # The first frame has none before it; its scores are dropped by the caller.
                late = before.get(region) or [truth[:1], *(x[:1] for x in maps)]
                now = [truth, *maps]
                before[region] = [x[-1:] for x in now]
                late_truth, *late_maps = (
                    keras.ops.concatenate([a, b[:-1]]) if i else np.concatenate([a, b[:-1]])
                    for i, (a, b) in enumerate(zip(late, now, strict=True))
                )
                floor.update(truth, late_truth, keep, maps, late_maps)
            bar.update(keep)


def _track_scores(true: Track, predicted: Track, square: Crop, size: int) -> dict[str, np.ndarray]:
    """Scores of landmarks, poses and expressions; NaN where no face was found."""
    points = [
        crops.to_crop(landmark_sets.landmarks(track.points), square) for track in (true, predicted)
    ]
    scores = landmark_scores(points[0], points[1], size)
    scores["head_pose_error"] = head_pose_error(true.matrices, predicted.matrices)
    scores["expression_error"] = expression_error(true.blendshapes, predicted.blendshapes)
    for name, found in zip(("true_jitter", "jitter"), points, strict=True):
        if len(found) > 2:
            scores[name] = keras.ops.convert_to_numpy(jitter(found, size))
    return scores
