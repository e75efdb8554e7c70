"""Self-reenactment of a run's held-out frames, against the baselines."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.data import landmark_sets
from keras_vpgc.data.portrait import Portrait, fill
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.data.video import VideoWriter
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.baselines import mean_frame, nearest_frames
from keras_vpgc.evaluation.protocol import (
    evaluate_frames,
    find_landmarks,
    jsonable,
    summary,
    table,
)
from keras_vpgc.evaluation.scorer import check_net
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.training.recipes import read_run
from keras_vpgc.visualization import contact_sheet, side_by_side

LANDMARK_SIZE = 512


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
    that driving could reach), `nearest training frame` (by landmarks) and `mean training frame`.
    Written to `RUN/evaluation/`: `metrics.json`, `metrics.md`, per-frame `scores.npz`,
    `driven.mp4` (truth beside driven) and `contact_sheet.png`.

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
        Dict with `rows` (name -> means with intervals, see `summary`), `table` (Markdown),
        `beats_mean_frame`, `beats_nearest_frame` and the protocol's settings.

    Raises:
        VPGCError: if run or portrait cannot be read.

    Example:

    ```python
    print(evaluate_run("runs/me")["table"])
    ```
    """
    from tqdm.auto import tqdm

    run = Path(run)
    if lpips is not None:
        check_net(lpips)
    info = read_run(run)
    puppet = Puppet.load(run)
    folder = Path(portrait or info["portrait"])
    if not folder.exists():
        raise VPGCError(
            f"The run was trained on {folder}, which is gone: give its new place by --portrait."
        )
    portrait = Portrait(folder)
    size = puppet.size
    held_out, train = portrait.indices(part), portrait.indices("train")
    if not len(held_out):
        raise VPGCError(f"The {part} part of {folder} has no frame with a face.")
    # The driver sees neighbouring frames: drive whole stretches, keep the frames with a face.
    stretches = [np.arange(*ends) for ends in portrait.ranges(part)]
    total = sum(map(len, stretches))
    clip = portrait.landmarks
    points = fill(portrait.points, portrait.valid)
    driving = landmark_sets.landmarks(points, puppet.model.landmark_set)
    with tqdm(total=total, desc="driving", unit="frame", disable=not progress) as bar:
        driven = np.concatenate(
            [
                puppet.drive(driving[x], batch_size, bar.update)[np.isin(x, held_out)]
                for x in stretches
                if len(x)
            ]
        )
    truth = portrait.frames(held_out, size)
    train_frames = portrait.frames(train, size)
    nearest = nearest_frames(clip[train], clip[held_out])
    systems = {"driven": driven}
    if (run / "autoencoder.keras").exists():
        systems["reconstructed"] = _reconstruct(run / "autoencoder.keras", truth, batch_size)
    systems["nearest training frame"] = train_frames[nearest]
    systems["mean training frame"] = np.broadcast_to(mean_frame(train_frames), truth.shape)

    found: dict[str, np.ndarray] = {}
    tracker_name = None
    if landmarks:
        detected = [n for n in systems if n != "mean training frame"]
        total = len(truth) * (len(detected) + 1)
        with FaceTracker(tracker_model) as tracker:
            tracker_name = f"{tracker.name} {tracker.version}"
            with tqdm(total=total, desc="landmarks", unit="frame", disable=not progress) as bar:
                for name, frames in [("truth", truth), *((n, systems[n]) for n in detected)]:
                    parts = []
                    for start in range(0, len(frames), 50):
                        parts.append(find_landmarks(frames[start : start + 50], tracker))
                        bar.update(len(parts[-1]))
                    found[name] = np.concatenate(parts)
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
    result = {
        "rows": rows,
        "beats_mean_frame": best > rows["mean training frame"]["psnr"],
        "beats_nearest_frame": best > rows["nearest training frame"]["psnr"],
        "protocol": {
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
    output = run / "evaluation"
    output.mkdir(exist_ok=True)
    flat: dict[str, Any] = {f"{n}/{key}": v for n, s in scores.items() for key, v in s.items()}
    np.savez_compressed(output / "scores.npz", **flat)
    (output / "metrics.md").write_text(f"{result['table']}\n")
    with VideoWriter(output / "driven.mp4", portrait.frame_rate, overwrite=True) as video:
        for true, frame in zip(truth, driven, strict=True):
            video.write(side_by_side([true, frame]))
    _write_png(
        output / "contact_sheet.png",
        contact_sheet([truth, *systems.values()], ["truth", *systems]),
    )
    (output / "metrics.json").write_text(json.dumps(jsonable(result), indent=1))
    return result


def _reconstruct(file, truth, batch_size):
    call = backend.compiled(keras.saving.load_model(file, compile=False))
    result = np.empty_like(truth)
    for start in range(0, len(truth), batch_size):
        batch = truth[start : start + batch_size].astype("float32") / 127.5 - 1.0
        count = len(batch)
        batch = np.pad(batch, ((0, min(batch_size, len(truth)) - count), *[(0, 0)] * 3))
        images = keras.ops.convert_to_numpy(call(batch))[:count]
        result[start : start + count] = np.rint(np.clip((images + 1.0) * 127.5, 0, 255))
    return result


def _write_png(path, image):
    import cv2

    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
