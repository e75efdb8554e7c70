"""Several runs on one portrait, and what needs no training, in one table."""

import contextlib
import json
from collections.abc import Callable

import keras
import numpy as np

from keras_vpgc.data.portrait import Portrait
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.clips import TRUTH
from keras_vpgc.evaluation.held_out import (
    MEAN,
    PARTS,
    UNTRAINED,
    drive_part,
    landmarks_of,
    untrained,
)
from keras_vpgc.evaluation.output import check_output, publish
from keras_vpgc.evaluation.paired import paired_differences, paired_table
from keras_vpgc.evaluation.protocol import (
    ALL_COLUMNS,
    COLUMNS,
    evaluate_frames,
    interval_table,
    jsonable,
    summary,
    table,
)
from keras_vpgc.evaluation.scorer import check_net
from keras_vpgc.progress import progress_bar
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.training.recipes import portrait_identity, read_run
from keras_vpgc.visualization import contact_sheet
from keras_vpgc.visualization.sheets import png

LANDMARK_SIZE = 512
COMPARED = (*COLUMNS, *(c for c in ALL_COLUMNS if c[0] == "mouth_distance_centered"))


def compare_runs(
    runs: dict,
    portrait,
    output=None,
    *,
    part: str = "test",
    lpips: str | None = "alex",
    landmarks: bool = True,
    batch_size: int = 8,
    tracker_model=None,
    on_frames: Callable[[str, np.ndarray], None] | None = None,
    progress: bool = True,
) -> dict:
    """Drive the puppets of several runs by a portrait's held-out frames and score all alike.

    Besides the runs three baselines are scored that need no training: the nearest training frame
    by landmarks, the same warped to them, and the mean training frame. One system's frames are held
    at a time.

    Args:
        runs: Name -> run folder; all trained on `portrait`.
        portrait: A `Portrait` or its folder.
        output: Folder for `comparison.json`, `comparison.md`, per-frame `scores.npz` and
            `contact_sheet.png`; `None` writes nothing.
        part: `"test"` or `"validation"`.
        lpips: `"alex"`, `"vgg"` or `None`.
        landmarks: Detect landmarks on the frames, for F-LMD?
        batch_size: Frames computed at once.
        tracker_model: Path of the face landmarker's model.
        on_frames: Is told each system's name and frames, uint8 `(n, s, s, 3)`, the truth's too.
        progress: Show progress bars?

    Returns:
        What `comparison.json` holds: `rows` (name -> what `summary` returns), `table` (Markdown),
        `intervals` (Markdown), `pairs` (of the runs, see `paired_differences`) and `protocol`.

    Raises:
        VPGCError: without a run, for a run of another portrait or of another size than the
            others, or if the scores cannot be written.

    Example:

    ```python
    compare_runs({"grid": "runs/grid", "vanilla": "runs/vanilla"}, "data/me", "scores")["table"]
    ```
    """
    if not runs:
        raise VPGCError("There is no run to compare: give a name and a folder for each.")
    if part not in PARTS:
        raise VPGCError(f"There is no held-out part {part!r}: choose one of {', '.join(PARTS)}.")
    for name in runs:
        if name in (TRUTH, *UNTRAINED):
            raise VPGCError(f"A run cannot be called {name!r}: choose another name.")
    if lpips is not None:
        check_net(lpips)
    folder = check_output(output, report=False)
    if not isinstance(portrait, Portrait):
        portrait = Portrait(portrait)
    identity = portrait_identity(portrait)
    sizes = {}
    for name, run in runs.items():
        info = read_run(run)
        if info["portrait_identity"] != identity:
            raise VPGCError(
                f"{run} was not trained on {portrait.path} as it is now, so its scores would mean "
                "nothing: compare runs of one portrait."
            )
        sizes[name] = info["config"]["network"]["image_size"]
    if len(set(sizes.values())) > 1:
        raise VPGCError(f"The runs' images have different sizes ({sizes}): compare those of one.")
    size = next(iter(sizes.values()))
    held = portrait.indices(part)
    if not len(held):
        raise VPGCError(f"The {part} part of {portrait.path} has no frame with a face.")
    truth = portrait.frames(held, size)
    result, found, shown = {}, {}, {}
    picked = np.linspace(0, len(truth) - 1, min(8, len(truth))).round().astype(int)
    detector = None
    with contextlib.ExitStack() as stack:
        if landmarks:
            tracker = stack.enter_context(FaceTracker(tracker_model))
            detector = f"{tracker.name} {tracker.version}"

        def look(name, frames):
            shown[name] = frames[picked]
            if landmarks and name != MEAN:
                found[name] = landmarks_of(name, frames, tracker, progress)
            if on_frames:
                on_frames(name, frames)

        look("truth", truth)
        for name, frames in _systems(runs, portrait, part, size, batch_size, progress):
            look(name, frames)
            result[name] = evaluate_frames(
                frames,
                truth,
                predicted_landmarks=found.get(name),
                true_landmarks=found.get("truth"),
                landmark_size=LANDMARK_SIZE,
                lpips=lpips,
            )
    rows = {name: summary(scores, portrait.frame_rate) for name, scores in result.items()}
    compared = jsonable(
        {
            "rows": rows,
            "table": table(rows, COMPARED),
            "intervals": interval_table(rows),
            "pairs": paired_differences({name: result[name] for name in runs}, portrait.frame_rate),
            "protocol": {
                "source": portrait.info["source"],
                "part": part,
                "frames": len(truth),
                "image_size": size,
                "data_range": 255,
                "landmark_size": LANDMARK_SIZE,
                "lpips": lpips,
                "detector": detector,
                "backend": keras.backend.backend(),
                "runs": {name: read_run(run)["config"] for name, run in runs.items()},
            },
        }
    )
    if folder is not None:
        sheet = contact_sheet(list(shown.values()), list(shown))
        with publish(folder) as partial:
            text = json.dumps(compared, indent=1, ensure_ascii=False)
            (partial / "comparison.json").write_text(text, encoding="utf-8")
            parts = compared["table"], compared["intervals"], paired_table(compared["pairs"])
            text = "\n\n".join(filter(None, parts))
            (partial / "comparison.md").write_text(f"{text}\n", encoding="utf-8")
            np.savez_compressed(partial / "scores.npz", **_flat(result, held))
            (partial / "contact_sheet.png").write_bytes(png(sheet))
    return compared


def _systems(runs, portrait, part, size, batch_size, progress):
    total = sum(last - first for first, last in portrait.ranges(part))
    for name, run in runs.items():
        with progress_bar(total, f"driving {name}", show=progress) as bar:
            puppet = Puppet.load(run, "float32")
            yield name, drive_part(puppet, portrait, part, batch_size, bar.update)
    yield from untrained(portrait, part, size)


def _flat(result, held):
    flat = {f"{name}/{key}": x for name, scores in result.items() for key, x in scores.items()}
    return {"frames": held, **flat}
