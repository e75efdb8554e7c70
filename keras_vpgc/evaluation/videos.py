"""Scoring videos of any system against a true one."""

from typing import Any

import keras
import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import landmark_sets, tracking
from keras_vpgc.data.coverage import pose_angles
from keras_vpgc.data.crop import Crop, to_crop
from keras_vpgc.data.tracking import Track
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.clips import FLOOR, TRUTH, open_all, spans
from keras_vpgc.evaluation.eyes_and_mouth import (
    OPENINGS,
    CropScorer,
    describe_crops,
    eyes_and_mouth,
    openings,
)
from keras_vpgc.evaluation.follower import Follower
from keras_vpgc.evaluation.pictures import Pictures
from keras_vpgc.evaluation.protocol import landmark_scores, summary
from keras_vpgc.evaluation.scorer import Features, Scorer, check_net
from keras_vpgc.metrics import expression_error, head_pose_error, jitter
from keras_vpgc.progress import progress_bar
from keras_vpgc.version import __version__

YAW, PITCH = "yaw, degrees", "pitch, degrees"
MOUTH = "mouth opening, its width being 1"
REGIONS = {"face": ("face",), "full": ("full",), "both": ("face", "full")}


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

    Frames that cannot be decoded, of a system or of the truth, have no scores there, and are
    counted. What goes wrong with one system while it is tracked or scored ends its scores there,
    not those of the others.

    Args:
        systems: Name -> predicted video file.
        truth: The true video file.
        size: Side in pixels of the face region, and the size at which landmark distances are stated
            (in the region `full` that of the longer side).
        crop: `"face"`, `"full"` or `"both"`.
        align: Score videos of another length, rate or size than the truth's: the stretch that all
            have, by the frames nearest in time, scaled to the truth's size? Else that is an error.
        lpips: `"alex"`, `"vgg"` or `None`.
        landmarks: Detect faces? Without, only `full` is scored, by the pictures alone.
        level, seed: See `keras_vpgc.evaluation.bootstrap_interval`; stretches of one second.
        workers: Processes that track; default: one a core.
        tracker_model: Path of `face_landmarker.task`.
        progress: Show progress bars?

    Returns:
        Dict of `frames`, `scores` (region -> name, and `"floor"` -> summary),
        `frames_without_face` and `frames_not_decoded` (name, and `"truth"` -> count), `failures`
        (name -> what went wrong with it, in words), `eyes_and_mouth` (name, and `"floor"` -> what
        `keras_vpgc.evaluation.eyes_and_mouth` returns; empty without landmarks), `notes`,
        `protocol`, `per_frame` (region/name/score -> array, openings of eyes and mouth of truth and
        systems as `eyes/name` and `mouth/name`, and the numbers of the frames that were compared),
        `pictures`, a `Pictures` to see the frames again, and `signals`, the truth's pose and mouth
        (name with unit -> array).

    Raises:
        VPGCError: before the work for a file that is no video, another length, rate or size
            without `align`, pictures of another shape, or an option that does not exist; for a
            truth without a face.

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
        if name in (FLOOR, TRUTH):
            raise VPGCError(f"A system cannot be called {name!r}: choose another name.")
    regions = REGIONS[crop] if landmarks else ("full",)
    notes: list[str] = []
    failures: dict[str, str] = {}
    follow = Follower(workers, tracker_model, progress)
    smallest = tracking.MIN_SIDE if landmarks else 0
    true, clips, places, alignment = open_all(systems, truth, align, smallest, notes)
    shown = places[FLOOR]
    count = len(shown)
    # Frames of each, by their places, that have no scores.
    lost = {name: np.isin(places[name], clip.lost) for name, clip in clips.items()}
    lost[TRUTH] = np.isin(shown, true.lost)

    features = None if lpips is None else Features(lpips)
    tracks: dict[str, Track] = {}
    detector = None
    square = None
    if landmarks:
        detector = tracking.tracker_name()
        tracks[TRUTH] = whole = follow(true, "tracking the truth")
        if "face" in regions:
            square = _choose_square(whole, true)
        tracks[TRUTH] = whole[shown]
        for name, clip in clips.items():
            try:
                tracks[name] = follow(clip, f"tracking {name}", (tracks[TRUTH], places[name]))
            except (VPGCError, OSError) as error:
                failures[name] = f"its faces were not tracked ({_reason(error)})"
                tracks[name] = Track.empty(count)

    scorers = {
        region: {name: Scorer(features, video=True) for name in (*clips, FLOOR)}
        for region in regions
    }
    pictures = Pictures(true, clips, places, square, size)
    # Crops of eyes and mouth are cut from the first region.
    details: dict[str, CropScorer] = {}
    if landmarks:
        side = size if regions[0] == "face" else max(true.info.width, true.info.height)
        points = _points(tracks[TRUTH], pictures.square(regions[0]))
        details = {name: CropScorer(points, side, features) for name in (*clips, FLOOR)}

    def failed(name, place, error):
        lost[name][place:] = True
        known = f"{failures[name]}; " if name in failures else ""
        failures[name] = f"{known}it could not be read from frame {place} on ({_reason(error)})"

    _score_pictures(pictures, scorers, details, failed, progress)

    scores: dict[str, dict] = {}
    per_frame: dict[str, np.ndarray] = {f"frames/{n}": v for n, v in places.items() if n != FLOOR}
    per_frame["frames/truth"], per_frame["times"] = shown, true.times[shown]
    for region in regions:
        scores[region] = {}
        for name, scorer in scorers[region].items():
            values = scorer.scores()
            if region == regions[0] and landmarks:
                values.update(details[name].scores())
            late = np.r_[False, lost[TRUTH][:-1]]
            _leave_out(values, lost[TRUTH] | (late if name == FLOOR else lost[name]))
            if name == FLOOR:
                values = {key: x[1:] for key, x in values.items()}
            if landmarks:
                pair = tracks[TRUTH], tracks[name if name != FLOOR else TRUTH]
                if name == FLOOR:
                    pair = pair[0][1:], pair[1][: count - 1]
                values.update(_track_scores(*pair, pictures.square(region), size))
            scores[region][name] = summary(values, true.info.frame_rate, level, seed)
            identical = int(np.isinf(values["psnr"]).sum())
            if 0 < identical < len(values["psnr"]) and name != FLOOR:
                notes.append(
                    f"{identical} of {count} frames of {name} ({region}) are identical to the "
                    "truth's: the mean of PSNR, which is infinite there, leaves them out."
                )
            per_frame.update({f"{region}/{name}/{key}": v for key, v in values.items()})
    agreement, found = _openings(tracks, clips, true, shown, level, seed)
    per_frame.update(found)
    for name, frames in lost.items():
        if frames.any():
            notes.append(
                f"{frames.sum()} of {count} frames of {_called(name)} cannot be decoded "
                f"({spans(np.flatnonzero(frames))}): they have no scores."
            )
    without = {name: ~track.valid & ~lost[name] for name, track in tracks.items()}
    for name, missing in without.items():
        if missing.any() and not (name in failures and missing.all()):
            notes.append(
                f"No face was found in {missing.sum()} of {count} frames of {_called(name)} "
                f"({spans(np.flatnonzero(missing))}): the scores of landmarks leave them out and "
                "the others hold them."
            )
    for name, reason in failures.items():
        called = "The truth" if name == TRUTH else name
        notes.append(f"{called} was not scored to its end: {reason}.")
    protocol = _protocol(
        pictures, alignment, regions, size, level, seed, lpips, detector, tracker_model
    )
    if landmarks:
        protocol["crops"] = {"region": regions[0], **describe_crops(details[FLOOR].sizes)}
        protocol["openings"] = OPENINGS
    return {
        "frames": count,
        "scores": scores,
        "eyes_and_mouth": agreement,
        "frames_without_face": {name: int(x.sum()) for name, x in without.items()},
        "frames_not_decoded": {name: int(x.sum()) for name, x in lost.items()},
        "failures": failures,
        "notes": notes,
        "protocol": protocol,
        "per_frame": per_frame,
        "pictures": pictures,
        "signals": head_signals(tracks[TRUTH]) if landmarks else {},
    }


def _openings(tracks, clips, true, shown, level, seed):
    """How eyes and mouth agree with the truth's, and the openings of all."""
    if TRUTH not in tracks:
        return {}, {}
    points = {name: landmark_sets.landmarks(track.points) for name, track in tracks.items()}
    times, rate, whole = true.times[shown], true.info.frame_rate, points[TRUTH]
    agreement = {
        name: eyes_and_mouth(whole, points[name], times, rate, level, seed) for name in clips
    }
    if len(shown) > 1:
        agreement[FLOOR] = eyes_and_mouth(whole[1:], whole[:-1], times[1:], rate, level, seed)
    found = {
        f"{part}/{name}": values
        for name in (TRUTH, *clips)
        for part, values in openings(points[name]).items()
    }
    return agreement, found


def head_signals(track: Track) -> dict[str, np.ndarray]:
    """What errors are drawn against: name with unit -> float `(n,)`, NaN without a face."""
    turn = pose_angles(track.matrices)
    return {
        YAW: turn[:, 0],
        PITCH: turn[:, 1],
        MOUTH: landmark_sets.mouth_opening(landmark_sets.landmarks(track.points)),
    }


def _protocol(pictures, alignment, regions, size, level, seed, lpips, detector, tracker_model):
    """Everything that the numbers depend on."""
    true, clips = pictures.true, pictures.clips
    return {
        "package": f"keras_vpgc {__version__}",
        "backend": keras.backend.backend(),
        "frames": len(pictures.places[FLOOR]),
        "frame_rate": true.info.frame_rate,
        "truth": true.describe(),
        "systems": {
            name: {**clip.describe(), "alignment": alignment[name]} for name, clip in clips.items()
        },
        "regions": {
            region: (
                {"crop": vars(pictures.face), "size": size}
                if region == "face"
                else {"width": true.info.width, "height": true.info.height}
            )
            for region in regions
        },
        "resizing": "by areas to less than two thirds, else cubic",
        "colours": "RGB of 8 bits, each channel alone",
        "not_decoded": "frames that cannot be decoded have no scores, and are counted",
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


def _called(name):
    return "the truth" if name == TRUTH else name


def _reason(error):
    words = getattr(error, "strerror", None) or str(error)
    return words.strip().rstrip(".") or type(error).__name__


def _leave_out(scores, frames):
    """Frames without a score, and pairs of frames with one of them."""
    pairs = frames[1:] | frames[:-1]
    for values in scores.values():
        values[frames if len(values) == len(frames) else pairs] = np.nan


def _choose_square(track, clip) -> Crop:
    if not track.valid.any():
        raise VPGCError(
            f"No face was found in {clip.path}, the truth, so that there is no region of the face: "
            "choose the full one by --crop full."
        )
    width, height = clip.info.width, clip.info.height
    return crops.choose_crop(track.points * max(width, height), track.valid, width, height)


def _score_pictures(pictures, scorers, details, failed, progress):
    count = len(pictures.places[FLOOR])
    size = pictures.batch(scorers)
    before: dict[str, Any] = {}
    first = next(iter(scorers))
    with pictures.streams(failed) as streams, progress_bar(count, "scoring", show=progress) as bar:
        for start in range(0, count, size):
            keep = min(size, count - start)
            frames = [[next(stream) for stream in streams] for _ in range(keep)]
            # One shape for all batches: compiling for another takes longer than scoring it.
            frames += frames[-1:] * (size - keep)
            for region, of_region in scorers.items():
                truth, *predictions = (
                    np.stack([pictures.cut(frame, region) for frame in column])
                    for column in zip(*frames, strict=True)
                )
                floor = of_region[FLOOR]
                maps = floor.features(truth) if floor.features else []
                for name, prediction in zip(pictures.clips, predictions, strict=True):
                    of_region[name].update(truth, prediction, keep, maps)
                    if details and region == first:
                        details[name].update(truth, prediction, keep)
                # The first frame has none before it; its scores are dropped by the caller.
                late = before.get(region) or [truth[:1], *(x[:1] for x in maps)]
                now = [truth, *maps]
                before[region] = [x[-1:] for x in now]
                late_truth, *late_maps = (
                    keras.ops.concatenate([a, b[:-1]]) if i else np.concatenate([a, b[:-1]])
                    for i, (a, b) in enumerate(zip(late, now, strict=True))
                )
                floor.update(truth, late_truth, keep, maps, late_maps)
                if details and region == first:
                    details[FLOOR].update(truth, late_truth, keep)
            bar.update(keep)


def _points(track, square):
    """Landmarks in parts of a region's side."""
    return to_crop(landmark_sets.landmarks(track.points), square)


def _track_scores(true: Track, predicted: Track, square: Crop, size: int) -> dict[str, np.ndarray]:
    """Scores of landmarks, poses and expressions; NaN where no face was found."""
    points = [_points(track, square) for track in (true, predicted)]
    scores = landmark_scores(points[0], points[1], size)
    scores["head_pose_error"] = head_pose_error(true.matrices, predicted.matrices)
    scores["expression_error"] = expression_error(true.blendshapes, predicted.blendshapes)
    for name, found in zip(("true_jitter", "jitter"), points, strict=True):
        if len(found) > 2:
            scores[name] = keras.ops.convert_to_numpy(jitter(found, size))
    return scores
