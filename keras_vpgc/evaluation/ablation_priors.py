"""Stage 2 with other drivers: what prior, context and transformer are worth."""

import contextlib
import gc
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_vpgc.config import DRIVER_VARIANTS, resolve
from keras_vpgc.data.landmark_sets import eye_opening
from keras_vpgc.data.portrait import Portrait
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.evaluation.ablation import (
    BATCH,
    FRAMES,
    POINTS,
    TimedPoints,
    csv_of,
    means_table,
    read_points,
    run_of,
    score_tables,
)
from keras_vpgc.evaluation.eyes_and_mouth import eyes_and_mouth
from keras_vpgc.evaluation.held_out import drive_part
from keras_vpgc.evaluation.output import check_output, publish
from keras_vpgc.evaluation.protocol import evaluate_frames, find_landmarks
from keras_vpgc.evaluation.scorer import Features
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.training.recipes import (
    codebook_is_trained,
    puppet_is_trained,
    train_codebook,
    train_driver,
)
from keras_vpgc.visualization.ablation_plots import ablation_plots, faces_picture

REFERENCE = "full"
SCORES = (
    ("psnr", "PSNR (dB) ↑", ".2f"),
    ("ssim", "SSIM ↑", ".4f"),
    ("lpips", "LPIPS ↓", ".4f"),
    ("landmark_distance", "F-LMD (px) ↓", ".2f"),
    ("mouth_distance", "mouth LMD (px) ↓", ".2f"),
    ("eyes_psnr", "eyes PSNR (dB) ↑", ".2f"),
    ("mouth_psnr", "mouth PSNR (dB) ↑", ".2f"),
    ("eyes_correlation", "eye opening: correlation ↑", ".3f"),
    ("mouth_correlation", "mouth opening: correlation ↑", ".3f"),
)
KEYS = tuple(key for key, _, _ in SCORES)
COLUMNS = ("variant", "seed", "step", "seconds", *KEYS, "without_face")
TEST_COLUMNS = ("variant", "seed", *KEYS, "without_face")
LANDMARK_SIZE = 512
# What decides stage 1 alone is left when these are taken out of a recipe.
STAGE_2 = ("feature_weight", "temporal_weight", "scale_jitter", "context_mode")
STAGE_2_PREFIXES = ("driver_", "joint_")
# The stages after the codebook, and the recipe's setting of their steps.
STAGES = {
    "driver": "driver_steps",
    "driver_on_images": "driver_image_steps",
    "joint": "joint_steps",
}
# What is shown, and the file of it.
SHOWN = {"mouth": "mouth.png", "eyes": "eyes.png"}


def driver_variants(preset: str, network: dict | None = None) -> dict[str, dict]:
    """The drivers that are compared, each with what differs from a preset's network.

    `baseline`, `w P` (with the texture prior) and `full` (with the global context too) are those of
    the paper's Tab. 5: without a prior the same MLP works without the concatenation. The others
    differ from `full` in one thing: `no transformer` has none of its blocks, `one frame` sees no
    neighbouring frames, and `no codes` stands behind a stage 1 without a codebook, so that there
    is neither a prior nor a codebook that its features go through.

    Args:
        preset: Name of a preset.
        network: Overrides of the model classes' arguments, for all variants.

    Returns:
        Name -> arguments.

    Raises:
        VPGCError: for settings that do not fit, or that the variants set.

    Example:

    ```python
    driver_variants("vpgc_256")["w P"]  # {"texture_prior": True, "global_context": False}
    ```

    References:
        Wang et al., SIGGRAPH 2023, Tab. 5.
    """
    full = DRIVER_VARIANTS["full"]
    found: dict[str, dict] = {
        "baseline": DRIVER_VARIANTS["baseline"],
        "w P": DRIVER_VARIANTS["texture"],
        REFERENCE: full,
        "no transformer": {**full, "transformer_blocks": 0},
        "one frame": {**full, "context": 1},
        "no codes": {"texture_prior": False, "global_context": True, "codebook": "none"},
    }
    twice = {*(network or {})} & {
        "driver_variant",
        "codebook",
        *(k for x in found.values() for k in x),
    }
    twice -= {"context", "transformer_blocks"}
    if twice:
        raise VPGCError(
            f"The drivers that are compared differ in {', '.join(sorted(twice))}: leave that out."
        )
    resolve(preset, network)
    return {name: dict(settings) for name, settings in found.items()}


def run_driver_ablation(
    portrait,
    folder,
    preset: str = "vpgc_128",
    *,
    variants: Iterable[str] | None = None,
    seeds: Iterable[int] = (0, 1, 2),
    points: int = 10,
    network: dict | None = None,
    recipe: dict | None = None,
    lpips: str | None = "alex",
    landmarks: bool = True,
    test: bool = False,
    stage_1=None,
    tracker_model=None,
    verbose="auto",
) -> dict:
    """Train each driver with each seed behind the same stage 1, and score what they drive.

    A seed's stage 1 is trained once and copied to all its drivers (`no codes` has its own, without
    a codebook). With one seed all see the same batches for as many iterations, all stages after the
    codebook together. Up to 100 validation frames are driven and scored as they train. Seconds are
    those of the steps of stage 2: neither validation nor what compiles counts. The same call again
    goes on where it was stopped.

    Args:
        portrait: A `Portrait` or its folder.
        folder: Gets a run folder for each variant and seed, `stage_1`, and `ablation.csv`,
            `ablation.md`, plots of each score against iterations and seconds, and `mouth.png` and
            `eyes.png`: eyes and mouth of the frames with the widest mouth and the most closed eyes,
            by iteration and driver.
        preset: Name of a preset.
        variants: Names out of `driver_variants`; default all.
        seeds: Seeds of weights and data order.
        points: How often the validation frames are scored, evenly over the training.
        network: Overrides of the model classes' arguments, for all variants.
        recipe: Overrides of the recipe, for all. The paper's letter, Eq. 8 behind a frozen decoder,
            is `driver_image_steps=0` and `joint_steps=0`.
        lpips: Network of LPIPS, `"alex"` or `"vgg"`; `None` for no LPIPS.
        landmarks: Detect landmarks, for F-LMD, crops, and openings of eyes and mouth?
        test: Also score all frames of the test part once all drivers are trained: for the end,
            when nothing is chosen any more. Each run's test scores are kept and never made again;
            they are in `test.csv` and `ablation.md`.
        stage_1: A folder whose stages 1 are taken (and those missing trained there), such as
            `stage_1` of an ablation with fewer steps; default `FOLDER/stage_1`.
        tracker_model: Path of `face_landmarker.task`.
        verbose: As in `fit`.

    Returns:
        Dict of `rows` (those of `ablation.csv`), `test` (those of `test.csv`) and `table`
        (Markdown).

    Raises:
        VPGCError: for settings that do not fit, LPIPS weights or a face landmarker that cannot be
            had, or a folder that holds runs of others.

    Example:

    ```python
    print(run_driver_ablation("data/me", "priors", "vpgc_128", seeds=[0], lpips=None)["table"])
    ```

    References:
        Wang et al., SIGGRAPH 2023, Tab. 5.
    """
    found = driver_variants(preset, network)
    names = list(found if variants is None else variants)
    for name in names:
        if name not in found:
            raise VPGCError(f"There is no variant {name!r}: choose among {', '.join(found)}.")
    seeds = list(seeds)
    if not names or not seeds or points < 1:
        raise VPGCError("An ablation needs a variant, a seed and at least one point: give them.")
    folder = check_output(folder)
    if not isinstance(portrait, Portrait):
        portrait = Portrait(portrait)
    config = resolve(preset, network, recipe)
    stages = _stages(config.recipe, points)
    features = None if lpips is None else Features(lpips)
    stage_1 = Path(stage_1 or folder / "stage_1")
    rows: list[dict] = []
    tested: list[dict] = []
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(FaceTracker(tracker_model)) if landmarks else None
        held = _picked(portrait)
        truth = _Truth(portrait, held, config.network["image_size"], tracker, features)
        shown = truth.shown()
        ways = {}
        for seed in seeds:
            for name in names:
                settings = {
                    "network": {**(network or {}), **found[name]},
                    "recipe": {**(recipe or {}), "previews": False},
                    "seed": seed,
                }
                ways[name, seed] = run_of(folder, name, seed), settings
                behind = _stage_1(portrait, stage_1, preset, settings, verbose)
                scored = _train(
                    portrait, *ways[name, seed], preset, behind, stages, truth, shown, verbose
                )
                rows += [{"variant": name, "seed": seed, **row} for row in scored]
                _write_tables(folder, rows, tested, truth)
        if test:
            part = None
            for (name, seed), (run, _) in ways.items():
                if part is None and not (run / TEST).exists():
                    numbers = portrait.indices("test")
                    part = _Truth(portrait, numbers, truth.size, tracker, features)
                row = _test(portrait, run, part, landmarks, lpips)
                tested.append({"variant": name, "seed": seed, **row})
            _write_tables(folder, rows, tested, truth)
    runs = {name: ways[name, seeds[0]][0] for name in names}
    with publish(folder) as partial:
        titles = [(key, title) for key, title, _ in SCORES]
        for name, plot in ablation_plots(rows, titles).items():
            (partial / f"{name}.png").write_bytes(plot)
        moments = _moments(stages)
        for what, file in SHOWN.items():
            place = shown[what]
            picture = faces_picture(
                {name: lambda step, run=run, what=what: run / POINTS / f"{moments[step]}_{what}.png"
                 for name, run in runs.items()},
                list(moments), truth.frames[place], portrait.landmarks[truth.numbers[place]],
            )  # fmt: skip
            (partial / file).write_bytes(picture)
    return {"rows": rows, "test": tested, "table": _table(rows, tested, truth)}


TEST = "test.json"


def _picked(portrait):
    held = portrait.indices("validation")
    if not len(held):
        raise VPGCError(f"The validation part of {portrait.path} has no frame with a face.")
    return held[np.linspace(0, len(held) - 1, min(FRAMES, len(held))).round().astype(int)]


def _stages(recipe, points):
    """Name -> steps between two points and steps, of the stages that a recipe has."""
    steps = {name: getattr(recipe, key) for name, key in STAGES.items() if getattr(recipe, key)}
    whole = sum(steps.values())
    return {
        name: (math.ceil(count / max(1, round(points * count / whole))), count)
        for name, count in steps.items()
    }


def _moments(stages):
    """Step of stage 2 as a whole -> name of the pictures of it."""
    moments, before = {}, 0
    for name, (every, steps) in stages.items():
        for step in range(every, every * math.ceil(steps / every) + 1, every):
            moments[before + step] = f"{name}_{step:06d}"
        before += every * math.ceil(steps / every)
    return moments


class _Truth:
    """Frames that are driven, and how they are scored."""

    def __init__(self, portrait, numbers, size, tracker, features):
        self.portrait, self.numbers, self.size = portrait, numbers, size
        self.tracker, self.features = tracker, features
        self.frames = portrait.frames(numbers, size)
        # Found in the pictures, as those of what is driven are.
        self.landmarks = None if tracker is None else find_landmarks(self.frames, tracker)
        if features is not None:
            features(np.repeat(self.frames[:1], BATCH, axis=0))  # Too small for it? Here it shows.

    def shown(self) -> dict[str, int]:
        """Places of the frames that are shown: the widest mouth and the most closed eyes."""
        points = self.portrait.landmarks[self.numbers]
        mouth = np.linalg.norm(points[:, 62] - points[:, 66], axis=-1)
        return {"mouth": int(mouth.argmax()), "eyes": int(eye_opening(points).mean(1).argmin())}

    def score(self, driven) -> dict:
        """Means of scores, `None` where there is no such score."""
        found = None if self.tracker is None else find_landmarks(driven, self.tracker)
        scores = evaluate_frames(
            driven,
            self.frames,
            predicted_landmarks=found,
            true_landmarks=self.landmarks,
            landmark_size=LANDMARK_SIZE,
            lpips=self.features,
            batch_size=BATCH,
        )
        row = {key: _mean(scores[key]) if key in scores else None for key in KEYS}
        row["without_face"] = None
        if found is not None:
            row["without_face"] = int(np.isnan(found[:, 0, 0]).sum())
            times = self.portrait.times[self.numbers]
            rate = self.portrait.frame_rate
            agreement = eyes_and_mouth(self.landmarks, found, times, rate)
            for part in ("eyes", "mouth"):
                row[f"{part}_correlation"] = agreement[part]["correlation"]
        return row


def _mean(values):
    values = np.asarray(values, "float64")
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _stage_1(portrait, folder, preset, settings, verbose):
    """The run of the stage 1 behind a driver, trained unless it is."""
    network = {k: v for k, v in settings["network"].items() if k not in DRIVER_VARIANTS["full"]}
    without = network.get("codebook") == "none"
    for key in ("transformer_blocks", "context"):
        network.pop(key, None)
    recipe = {
        key: value
        for key, value in settings["recipe"].items()
        if key not in STAGE_2 and not key.startswith(STAGE_2_PREFIXES)
    }
    settings = {"network": network, "recipe": recipe, "seed": settings["seed"]}
    run = run_of(folder, "no codes" if without else "codebook", settings["seed"])
    if not codebook_is_trained(portrait, run, preset, **settings):
        train_codebook(portrait, run, preset, verbose=verbose, **settings)
        gc.collect()
    return run


class DrivenPoints(TimedPoints):
    """Scores what a driver shows as it trains, see `TimedPoints`.

    Args:
        run: The run folder. Gets `points/NAME.json`, and pictures of the frames that are shown.
        steps_per_epoch: Steps of an epoch.
        name: Name of the stage.
        drive: Takes int numbers `(n,)` of frames and returns uint8 `(n, s, s, 3)`.
        truth: What is scored: has `numbers`, and `score` of what is driven.
        shown: Name -> place of a frame that is kept.
    """

    def __init__(self, run, steps_per_epoch: int, name: str, drive, truth, shown: dict[str, int]):
        super().__init__(run, steps_per_epoch, name)
        self.drive, self.truth, self.shown = drive, truth, shown

    def score(self, step):
        driven = self.drive(self.truth.numbers)
        pictures = {
            f"{self.name}_{step:06d}_{what}": driven[place] for what, place in self.shown.items()
        }
        return self.truth.score(driven), pictures


def _train(portrait, run, settings, preset, behind, stages, truth, shown, verbose):
    """The scored points of a run, which is trained unless it is."""

    def begin(name, steps, drive):
        every = stages[name][0]
        scored = DrivenPoints(run, every, name, drive, truth, shown)
        return {"steps_per_epoch": every, "callbacks": [scored]}

    if not puppet_is_trained(portrait, run, preset, **settings):
        train_driver(
            portrait, run, preset, stage_1=behind, stages=begin, verbose=verbose, **settings
        )
        gc.collect()  # the next one needs the memory
    rows: list[dict] = []
    before = {"step": 0, "seconds": 0.0}
    for name, (every, steps) in stages.items():
        found = read_points(run, every, steps, name)
        rows += [{**row, **{key: row[key] + before[key] for key in before}} for row in found]
        before = {key: rows[-1][key] for key in before}
    _check_scored(run, rows[0], truth.features is not None, truth.tracker is not None)
    return rows


def _check_scored(run, row, lpips, landmarks):
    for wanted, key, what in (
        (lpips, "lpips", "LPIPS: set lpips=None"),
        (landmarks, "without_face", "landmarks: set landmarks=False"),
    ):
        if wanted and row[key] is None:
            raise VPGCError(f"{run} was scored without {what}, or choose another folder.")


def _test(portrait, run, part, landmarks, lpips):
    """The scores of all test frames, made once."""
    file = run / TEST
    if not file.exists():
        puppet = Puppet.load(run, "float32")
        row = part.score(drive_part(puppet, portrait, "test", BATCH))
        partial = run / f".{TEST}"
        with writing(run):
            partial.write_text(json.dumps(row, indent=1))
            os.replace(partial, file)
    try:
        row = json.loads(file.read_text())
        row = {key: row[key] for key in (*KEYS, "without_face")}
    except (ValueError, KeyError, TypeError):
        raise VPGCError(f"{file} is damaged: delete it, and the run is tested again.") from None
    _check_scored(run, row, lpips is not None, landmarks)
    return row


def _write_tables(folder, rows, tested, truth):
    with publish(folder) as partial:
        (partial / "ablation.csv").write_text(csv_of(rows, COLUMNS), encoding="utf-8")
        if tested:
            (partial / "test.csv").write_text(csv_of(tested, TEST_COLUMNS), encoding="utf-8")
        text = f"{_table(rows, tested, truth)}\n"
        (partial / "ablation.md").write_text(text, encoding="utf-8")


def _table(rows, tested, truth):
    size = f"{truth.size}x{truth.size} pixels"
    text = (
        f"{len(truth.numbers)} validation frames of {size}, driven by their landmarks; landmark "
        f"distances at {LANDMARK_SIZE} pixels. "
    )
    parts = [score_tables(rows, SCORES, "driver", text)]
    last = max(row["step"] for row in rows)
    parts += _differences([row for row in rows if row["step"] == last], f"after {last} iterations")
    lost = sum(row["without_face"] or 0 for row in rows if row["step"] == last)
    if lost:
        parts.append(
            f"No face was found in {lost} driven frames at the end, which landmark distances, "
            "correlations and so on leave out; see ablation.csv."
        )
    if tested:
        ends: dict[str, list] = {}
        for row in tested:
            ends.setdefault(row["variant"], []).append(row)
        parts += ["All test frames, at the end:", means_table(ends, SCORES, "driver")]
        parts += _differences(tested, "on the test frames")
    return "\n\n".join(parts)


def _differences(rows, when):
    """A table of differences to the full driver, seed by seed."""
    full = {row["seed"]: row for row in rows if row["variant"] == REFERENCE}
    found: dict[str, list] = {}
    for row in rows:
        if row["variant"] != REFERENCE and row["seed"] in full:
            found.setdefault(row["variant"], []).append((row, full[row["seed"]]))
    if not found:
        return []
    columns = [x for x in SCORES if any(a[x[0]] is not None for p in found.values() for a, _ in p)]
    lines = ["| driver | " + " | ".join(title for _, title, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, pairs in found.items():
        cells = []
        for key, title, form in columns:
            known = [a[key] - b[key] for a, b in pairs if None not in (a[key], b[key])]
            if not known:
                cells.append("-")
                continue
            sign = 1 if title.endswith("↑") else -1
            worse = sum(sign * x < 0 for x in known)
            cells.append(f"{np.mean(known):+{form}} ({worse} of {len(known)})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    head = (
        f"Less `{REFERENCE}` {when}, seed by seed: mean, and in how many seeds `{REFERENCE}` is "
        "better:"
    )
    return [head, "\n".join(lines)]
