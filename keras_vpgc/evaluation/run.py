"""Self-reenactment of a run's held-out frames, against the baselines."""

import itertools
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.data import landmark_sets
from keras_vpgc.data.crop import Crop, from_crop
from keras_vpgc.data.portrait import Portrait
from keras_vpgc.data.retarget import angles, fit_head
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.data.video import VideoWriter
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.baselines import nearest_frames
from keras_vpgc.evaluation.eyes_and_mouth import (
    OPENINGS,
    agreement_cells,
    agreement_table,
    crop_sizes,
    describe_crops,
    eyes_and_mouth,
    openings,
)
from keras_vpgc.evaluation.held_out import (
    MEAN,
    NEAREST,
    PARTS,
    WARPED,
    drive_part,
    landmarks_of,
    untrained,
)
from keras_vpgc.evaluation.output import OPENINGS_PLOT, check_output, publish
from keras_vpgc.evaluation.protocol import (
    ALL_COLUMNS,
    CAPTIONS,
    COLUMNS,
    CROP_COLUMNS,
    evaluate_frames,
    jsonable,
    summary,
    table,
)
from keras_vpgc.evaluation.scorer import check_net
from keras_vpgc.evaluation.videos import MOUTH, PITCH, YAW
from keras_vpgc.progress import progress_bar
from keras_vpgc.reenactment.provenance import Provenance
from keras_vpgc.reenactment.puppet import Puppet, in_precision, load_model
from keras_vpgc.training.model_card import write_model_card
from keras_vpgc.training.recipes import portrait_identity, read_run
from keras_vpgc.visualization import contact_sheet, side_by_side
from keras_vpgc.visualization.evaluation_plots import OPENING_TITLES, openings_picture
from keras_vpgc.visualization.evaluation_report import Evaluation, evaluation_report
from keras_vpgc.visualization.sheets import png

LANDMARK_SIZE = 512
# Systems whose curves are drawn beside the puppet's.
BESIDE = ("reconstructed", WARPED)
# Those whose eyes and mouth are drawn over time.
CURVES = ("driven", "reconstructed")
ELSEWHERE = "copy the run to a place that can be, and score it there"
# Pixels at LANDMARK_SIZE to the nearest training frame, between which frames are scored together.
STEPS = (0, 2, 4, 8, 16, np.inf)
NEAR_COLUMNS = (*COLUMNS[:3], *(c for c in CROP_COLUMNS if c[0] in ("face_psnr", "face_lpips")))
DISTANCE = "distance of the nearest training frame (px)"


def evaluate_run(
    run,
    *,
    portrait=None,
    part: str = "test",
    landmarks: bool = True,
    lpips: str | None = None,
    batch_size: int = 8,
    tracker_model=None,
    progress: bool = True,
) -> dict:
    """Drive a run's puppet by the landmarks of its held-out frames and score the result.

    Rows: `driven` (the puppet), `reconstructed` (the autoencoder on the true frames, the best
    that driving could reach), `nearest training frame` (by landmarks), `nearest frame, warped` to
    the landmarks, and `mean training frame`.
    Written to `RUN/evaluation/`: `metrics.json`, `metrics.md`, per-frame `scores.npz`,
    `driven.mp4` (truth beside driven), `contact_sheet.png`, with landmarks `eyes_and_mouth.png`
    (their openings over time), and `report.html`, which shows all of it. The metrics in the run's
    `MODEL_CARD.md` are brought up to date.

    Args:
        run: The run folder.
        portrait: The portrait folder, if it was moved since the training.
        part: `"test"` or `"validation"`.
        landmarks: Detect landmarks on the frames, for F-LMD?
        lpips: Network of LPIPS, `"alex"` or `"vgg"`; `None` for no LPIPS.
        batch_size: Frames computed at once.
        tracker_model: Path of the face landmarker's model.
        progress: Show progress bars?

    Returns:
        Dict with `rows` (name -> means with intervals, see `summary`), `table` (Markdown), with
        landmarks `eyes_and_mouth` (name -> whether they open and close with the truth's, see
        `keras_vpgc.evaluation.eyes_and_mouth.eyes_and_mouth`),
        `beats_mean_frame`, `beats_nearest_frame`, `by_distance` (means of the driven frames by how
        near the nearest training frame is, see `by_distance`) and the protocol's settings.

    Raises:
        VPGCError: if run or portrait cannot be read, the portrait is not the one of the training,
            or the scores cannot be written.

    Example:

    ```python
    print(evaluate_run("runs/me")["table"])
    ```
    """
    run = Path(run)
    if part not in PARTS:
        raise VPGCError(
            f"There is no held-out part {part!r}: choose one of {', '.join(PARTS)}, which the "
            "training has not seen."
        )
    if lpips is not None:
        check_net(lpips)
    info = read_run(run)
    output = run / "evaluation"
    check_output(output, ELSEWHERE)
    puppet = Puppet.load(run, "float32")
    folder = Path(portrait or info["portrait"])
    if not folder.exists():
        raise VPGCError(
            f"The run was trained on {folder}, which is gone: give its new place by --portrait."
        )
    portrait = Portrait(folder)
    _check_identity(run, info["portrait_identity"], portrait)
    autoencoder = None
    if (run / "autoencoder.keras").exists():
        autoencoder = in_precision(load_model(run / "autoencoder.keras"), "float32")
    size = puppet.size
    held_out = portrait.indices(part)
    if not len(held_out):
        raise VPGCError(f"The {part} part of {folder} has no frame with a face.")
    total = sum(last - first for first, last in portrait.ranges(part))
    with progress_bar(total, "driving", show=progress) as bar:
        driven = drive_part(puppet, portrait, part, batch_size, bar.update)
    truth = portrait.frames(held_out, size)
    systems = {"driven": driven}
    if autoencoder is not None:
        systems["reconstructed"] = _reconstruct(autoencoder, truth, batch_size)
    systems |= untrained(portrait, part, size)

    found: dict[str, np.ndarray] = {}
    tracker_name = None
    if landmarks:
        with FaceTracker(tracker_model) as tracker:
            tracker_name = f"{tracker.name} {tracker.version}"
            for name, frames in {"truth": truth, **systems}.items():
                if name != MEAN:
                    found[name] = landmarks_of(name, frames, tracker, progress)
    scores = {
        name: evaluate_frames(
            frames,
            truth,
            predicted_landmarks=found.get(name),
            true_landmarks=found.get("truth"),
            landmark_size=LANDMARK_SIZE,
            lpips=lpips,
        )
        for name, frames in systems.items()
    }
    rows = {name: summary(s, portrait.frame_rate) for name, s in scores.items()}
    best = rows["driven"]["psnr"]
    distances = nearest_distances(portrait, part)
    near = by_distance(scores["driven"], distances)
    result = {
        "rows": rows,
        "beats_mean_frame": best > rows[MEAN]["psnr"],
        "beats_nearest_frame": best > rows[NEAREST]["psnr"],
        "by_distance": near,
        "protocol": {
            "source": portrait.info["source"],
            "part": part,
            "frames": len(truth),
            "image_size": size,
            "data_range": 255,
            "landmark_size": LANDMARK_SIZE,
            "lpips": lpips,
            "detector": tracker_name,
            "backend": keras.backend.backend(),
            "preset": puppet.metadata["preset"],
        },
        "table": table(rows),
    }
    curves: dict[str, dict[str, np.ndarray]] = {}
    if found:
        times, whole = portrait.times[held_out], found["truth"]
        agreement = {
            name: eyes_and_mouth(whole, points, times, portrait.frame_rate)
            for name, points in found.items()
            if name != "truth"
        }
        result["eyes_and_mouth"] = agreement
        result["table"] += f"\n\n{table(rows, CROP_COLUMNS)}\n\n{agreement_table(agreement)}"
        result["protocol"]["crops"] = describe_crops(crop_sizes(whole, size))
        result["protocol"]["openings"] = OPENINGS
        each = {name: openings(found[name]) for name in found if name in ("truth", *CURVES)}
        curves = {part: {name: x[part] for name, x in each.items()} for part in OPENING_TITLES}
    result["table"] += f"\n\n{_distance_table(near)}"
    _write(output, result, scores, distances, curves, truth, systems, portrait, puppet, info)
    write_model_card(run, portrait)
    return result


def nearest_distances(portrait: Portrait, part: str) -> np.ndarray:
    """How far the nearest training frame is from each frame of a part: has the pose been seen?

    Args:
        portrait: The portrait.
        part: Name of the part.

    Returns:
        Float `(n,)`: mean distance of the 68 points, in pixels at 512x512.

    Example:

    ```python
    (nearest_distances(Portrait("data/me"), "test") < 4).mean()
    ```
    """
    train, held_out = (portrait.landmarks[portrait.indices(x)] for x in ("train", part))
    nearest = train[nearest_frames(train, held_out)]
    return LANDMARK_SIZE * np.linalg.norm(held_out - nearest, axis=-1).mean(-1)


def by_distance(scores: dict[str, np.ndarray], distances) -> list[dict]:
    """Means of scores by the distance of the nearest training frame.

    Args:
        scores: Name -> float `(n,)`, those of `evaluate_frames`.
        distances: Float `(n,)`, those of `nearest_distances`.

    Returns:
        Dicts of `from`, `to` (pixels; the last one's is infinite), `frames`, `psnr`, `ssim` and,
        where there is one, `lpips`, of whole frames and of the face's crop (`face_psnr`), the
        nearest first; without those that no frame is in. Frames without a face count in the first
        alone.

    Example:

    ```python
    by_distance(scores, nearest_distances(portrait, "test"))[0]["psnr"]
    ```
    """
    found = []
    for low, high in itertools.pairwise(STEPS):
        chosen = (distances >= low) & (distances < high)
        if chosen.any():
            found.append({"from": low, "to": high, "frames": int(chosen.sum())})
            for key in (key for key, _, _ in NEAR_COLUMNS if key in scores):
                values = scores[key][chosen]
                values = values[~np.isnan(values)]
                if len(values):
                    found[-1][key] = float(values.mean())
    return found


def _distance_table(rows):
    named = {}
    for row in rows:
        far = np.isinf(row["to"])
        place = f"{row['from']} px and more" if far else f"{row['from']} to {row['to']} px"
        named[f"driven, {place} from the nearest training frame ({row['frames']} frames)"] = row
    return table(named, NEAR_COLUMNS)


def _check_identity(run, wanted, portrait, option="--portrait"):
    """Is it the portrait of the training, as it was then?"""
    found = portrait_identity(portrait)
    changed = next((key for key in found if found[key] != wanted.get(key)), None)
    if changed:
        raise VPGCError(
            f"{portrait.path} is not the portrait that {run} was trained on, or changed since "
            f"({changed} differs), so its scores would mean nothing: give the one of the training "
            f"by {option}, or train again into a new folder."
        )


def _write(output, result, scores, distances, curves, truth, systems, portrait, puppet, settings):
    """All files or none."""
    flat: dict[str, Any] = {f"{n}/{key}": v for n, s in scores.items() for key, v in s.items()}
    flat |= {f"{part}/{name}": v for part, x in curves.items() for name, v in x.items()}
    with publish(output, ELSEWHERE) as partial:
        np.savez_compressed(partial / "scores.npz", **flat)
        (partial / "metrics.md").write_text(f"{result['table']}\n", encoding="utf-8")
        sheet = contact_sheet([truth, *systems.values()], ["truth", *systems])
        (partial / "contact_sheet.png").write_bytes(png(sheet))
        (partial / "metrics.json").write_text(json.dumps(jsonable(result), indent=1))
        provenance = Provenance(puppet=puppet, composite=True)
        with VideoWriter(
            partial / "driven.mp4",
            portrait.frame_rate,
            metadata=provenance.metadata(),
            finish=provenance.sign,
        ) as video:
            for true, frame in zip(truth, systems["driven"], strict=True):
                video.write(side_by_side([true, frame]))
        evaluation = _evaluation(result, scores, truth, systems, portrait, puppet, settings)
        evaluation.signals[DISTANCE] = distances
        evaluation.video = partial / "driven.mp4"
        evaluation.openings = curves
        if curves:
            (partial / OPENINGS_PLOT).write_bytes(openings_picture(evaluation))
        page = evaluation_report(evaluation)
        (partial / "report.html").write_text(page, encoding="utf-8")


def _evaluation(result, scores, truth, systems, portrait, puppet, settings) -> Evaluation:
    """What the page shows."""
    protocol = result["protocol"]
    held_out, train = portrait.indices(protocol["part"]), portrait.indices("train")
    crop, clip = Crop(**portrait.info["crop"]), portrait.landmarks
    head = fit_head(from_crop(portrait.points[held_out], crop), *portrait.info["source_size"])
    turn = angles(head.rotation)
    mouths = landmark_sets.mouth_opening(clip[train])
    seen = {MOUTH: tuple(np.percentile(mouths, [0.1, 99.9]))}
    if "seen" in puppet.metadata:
        corners = np.array(puppet.metadata["seen"]["yaw_pitch"])
        for axis, values in zip((YAW, PITCH), corners.T, strict=True):
            seen[axis] = values.min(), values.max()
    coverage = portrait.path / "coverage.json"
    advice = json.loads(coverage.read_text())["advice"] if coverage.exists() else []
    counts = {name: row.get("detector_failures") for name, row in result["rows"].items()}
    return Evaluation(
        title=f"How well the puppet shows {protocol['source']}",
        intro=f"{protocol['frames']} frames of the {protocol['part']} part, which the training has "
        f"not seen, at {protocol['image_size']} pixels. Means over frames, with 95% intervals by "
        "stretches of one second.",
        tables={"Scores": result["rows"]},
        scores={n: scores[n] for n in scores if n in ("driven", *BESIDE)},
        shown=["driven"],
        pictures=lambda name, places: ((truth[i], systems[name][i]) for i in places),
        frames=held_out,
        times=portrait.times[held_out],
        signals={
            YAW: turn[:, 0],
            PITCH: turn[:, 1],
            MOUTH: landmark_sets.mouth_opening(clip[held_out]),
        },
        seen=seen,
        coverage=[item["text"] for item in advice],
        video_caption="Side by side: truth, puppet",
        notes=[
            f"No face was found in {count} of {len(held_out)} frames of {name}: its landmark "
            "distances leave them out."
            for name, count in counts.items()
            if count
        ],
        columns=ALL_COLUMNS,
        captions=CAPTIONS,
        agreement=agreement_cells(result.get("eyes_and_mouth", {})),
        settings={"Protocol": protocol, "Run": settings},
        footer="The same numbers are in metrics.json, those of each frame in scores.npz.",
    )


def _reconstruct(autoencoder, truth, batch_size):
    call = backend.compiled(autoencoder)
    result = np.empty_like(truth)
    for start in range(0, len(truth), batch_size):
        batch = truth[start : start + batch_size].astype("float32") / 127.5 - 1.0
        count = len(batch)
        batch = np.pad(batch, ((0, min(batch_size, len(truth)) - count), *[(0, 0)] * 3))
        images = keras.ops.convert_to_numpy(call(batch))[:count]
        result[start : start + count] = np.rint(np.clip((images + 1.0) * 127.5, 0, 255))
    return result
