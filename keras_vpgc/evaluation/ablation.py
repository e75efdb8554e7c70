"""Stage 1 with other codebooks: which reconstructs better, after how much training."""

import csv
import gc
import inspect
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.config import resolve
from keras_vpgc.data.portrait import Portrait
from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.evaluation.held_out import PARTS
from keras_vpgc.evaluation.output import check_output, publish
from keras_vpgc.evaluation.scorer import Features, Scorer
from keras_vpgc.layers import SharedCodebook
from keras_vpgc.models import PortraitAutoencoder
from keras_vpgc.models.autoencoder import grid_of
from keras_vpgc.training.optimizer import averaged, parts
from keras_vpgc.training.recipes import codebook_is_trained, train_codebook
from keras_vpgc.visualization.ablation_plots import ablation_plots, faces_picture
from keras_vpgc.visualization.sheets import png

# What later work gives a vanilla codebook, see `VectorQuantizer`.
FAIR = {"ema_decay": 0.99, "revive_after": 100, "kmeans_start": True}
# Validation frames that are scored.
FRAMES = 100
COLUMNS = ("variant", "seed", "step", "seconds", "psnr", "ssim", "lpips", "live_codes")
SCORES = (
    ("psnr", "PSNR (dB) ↑", ".2f"),
    ("ssim", "SSIM ↑", ".4f"),
    ("lpips", "LPIPS ↓", ".4f"),
    ("live_codes", "live codes", ".0f"),
)
BATCH = 8


def codebook_variants(preset: str, network: dict | None = None) -> dict[str, dict]:
    """The codebooks that are compared, each with what differs from a preset's network.

    Each differs from the package's own, the soft grid, in one thing: `split` in that there is no
    grid (a list of as many codes as the window holds), `hard grid` in the index, `soft grid r=1`
    in the window. `vanilla` and `fair vanilla` have as many parameters as the grid, the paper's
    measure. Codes that are read hard learn from L_VQ alone, which has the paper's weight there.

    Args:
        preset: Name of a preset.
        network: Overrides of the model classes' arguments, for all variants.

    Returns:
        Name -> arguments.

    Example:

    ```python
    codebook_variants("vpgc_256")["vanilla"]  # {"codebook": "vanilla", "num_codes": 1024, ...}
    ```
    """
    parameters = inspect.signature(PortraitAutoencoder.__init__).parameters
    chosen = {key: x.default for key, x in parameters.items()} | resolve(preset, network).network
    cells = grid_of(chosen["image_size"], chosen["multipliers"], chosen["stride"]) ** 2
    window, per_cell = chosen["window_size"], chosen["codes_per_cell"]
    equal = max(1, cells * per_cell * chosen["code_dim"] // chosen["latent_dim"])
    vanilla = {"codebook": "vanilla", "num_codes": equal, "vq_scale": 1.0}
    grid = {"codebook": "grid", "mode": "soft"}
    return {
        "vanilla": vanilla,
        "fair vanilla": {**vanilla, **FAIR},
        "split": {"codebook": "split", "mode": "soft", "num_codes": window**2 * per_cell},
        "hard grid": {**grid, "mode": "hard", "vq_scale": 1.0},
        "soft grid r=1": {**grid, "window_size": 1},
        f"soft grid r={window}": grid,
        "none": {"codebook": "none"},
    }


def run_of(folder, variant: str, seed: int) -> Path:
    """The run folder of a variant and a seed."""
    return Path(folder) / variant.replace(" ", "_").replace("=", "") / f"seed_{seed}"


def run_ablation(
    portrait,
    folder,
    preset: str = "vpgc_128",
    *,
    variants: Iterable[str] | None = None,
    seeds: Iterable[int] = (0, 1, 2),
    points: int = 10,
    network: dict | None = None,
    recipe: dict | None = None,
    part: str = "validation",
    lpips: str | None = "alex",
    verbose="auto",
) -> dict:
    """Train stage 1 with each codebook and each seed, and score held-out frames as it goes.

    With one seed all variants start from the same weights of encoder and decoder and see the same
    batches. Seconds are those of the steps: neither validation nor what compiles counts, nor the
    k-means of `fair vanilla` before the first step. The same call again goes on where it was
    stopped; what is trained is not trained again.

    Args:
        portrait: A `Portrait` or its folder.
        folder: Gets a run folder for each variant and seed, and `ablation.csv`, `ablation.md`,
            plots of each score against iterations and seconds, and `faces.png`.
        preset: Name of a preset.
        variants: Names out of `codebook_variants`; default all.
        seeds: Seeds of weights and data order.
        points: How often held-out frames are scored, evenly over the training.
        network: Overrides of the model classes' arguments, for all variants.
        recipe: Overrides of the recipe, for all.
        part: `"validation"`, or `"test"` where nothing will be chosen by what is found.
        lpips: Network of LPIPS, `"alex"` or `"vgg"`; `None` for no LPIPS.
        verbose: As in `fit`.

    Returns:
        Dict of `rows` (those of `ablation.csv`) and `table` (Markdown).

    Raises:
        VPGCError: for settings that do not fit, LPIPS weights that cannot be had, or a folder that
            holds runs of others.

    Example:

    ```python
    print(run_ablation("data/me", "ablation", "vpgc_128", seeds=[0], lpips=None)["table"])
    ```

    References:
        Wang et al., SIGGRAPH 2023, Tab. 4 and Fig. 4.
    """
    found = codebook_variants(preset, network)
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
    features = None if lpips is None else Features(lpips)
    truth = HeldOutFrames(portrait, resolve(preset, network).network["image_size"], part)
    if features is not None:
        features(_filled(truth.frames[:BATCH]))  # Too small for it? That shows here.
    rows: list[dict] = []
    for seed in seeds:
        for name in names:
            settings = {
                "network": {**(network or {}), **found[name]},
                "recipe": {**(recipe or {}), "previews": False},
                "seed": seed,
            }
            run = run_of(folder, name, seed)
            scored = _train(portrait, run, preset, settings, truth, points, features, verbose)
            rows += [{"variant": name, "seed": seed, **row} for row in scored]
            table = ablation_table(rows, truth)
            with publish(folder) as partial:
                (partial / "ablation.csv").write_text(csv_of(rows, COLUMNS), encoding="utf-8")
                (partial / "ablation.md").write_text(f"{table}\n", encoding="utf-8")
    runs = {name: run_of(folder, name, seeds[0]) for name in names}
    with publish(folder) as partial:
        scores = [(key, title) for key, title, _ in SCORES]
        for name, plot in ablation_plots(rows, scores).items():
            (partial / f"{name}.png").write_bytes(plot)
        steps = [row["step"] for row in rows if row["variant"] == names[0]]
        picture = faces_picture(
            {name: lambda step, run=run: run / POINTS / f"{step:06d}.png"
             for name, run in runs.items()},
            sorted(set(steps)), truth.shown, truth.shown_landmarks,
        )  # fmt: skip
        (partial / "faces.png").write_bytes(picture)
    return {"rows": rows, "table": table}


POINTS = "points"


class HeldOutFrames:
    """The held-out frames that are scored, and the one that is shown: its mouth opens widest."""

    def __init__(self, portrait, size, part):
        if part not in PARTS:
            raise VPGCError(f"There is no part {part!r} to score: choose {' or '.join(PARTS)}.")
        held = portrait.indices(part)
        if not len(held):
            raise VPGCError(f"The {part} part of {portrait.path} has no frame with a face.")
        picked = np.linspace(0, len(held) - 1, min(FRAMES, len(held))).round().astype(int)
        self.numbers, self.size, self.part = held[picked], size, part
        self.frames = portrait.frames(self.numbers, size)
        landmarks = portrait.landmarks[self.numbers]
        self.place = int(np.linalg.norm(landmarks[:, 62] - landmarks[:, 66], axis=-1).argmax())
        self.shown, self.shown_landmarks = self.frames[self.place], landmarks[self.place]


def _train(portrait, run, preset, settings, truth, points, features, verbose):
    """The scored points of a run, which is trained unless it is."""
    steps = resolve(preset, settings["network"], settings["recipe"]).recipe.steps
    every = math.ceil(steps / points)
    if not codebook_is_trained(portrait, run, preset, **settings):
        scored = ScoredPoints(run, truth.frames, truth.place, features, every, truth.part)
        train_codebook(
            portrait, run, preset, verbose=verbose, steps_per_epoch=every, callbacks=[scored],
            **settings,
        )  # fmt: skip
        gc.collect()  # the next one needs the memory
    rows = read_points(run, every, steps)
    if features is not None and rows[0]["lpips"] is None:
        raise VPGCError(
            f"{run} was scored without LPIPS: set lpips=None, or choose another folder."
        )
    check_part(run, rows, truth.part)
    return [{key: value for key, value in row.items() if key != "part"} for row in rows]


def check_part(run, rows, part):
    """A `VPGCError` if rows are scores of another part."""
    other = next((x for x in (row.get("part", "validation") for row in rows) if x != part), None)
    if other is not None:
        raise VPGCError(
            f"{run} was scored on {other} frames: give that part, or choose another folder."
        )


def read_points(run, every: int, steps: int, name: str | None = None) -> list[dict]:
    """The rows that `TimedPoints` kept of a stage that is done.

    Args:
        run: The run folder.
        every: Steps between two points.
        steps: Steps of the stage, rounded up to whole epochs.
        name: See `TimedPoints`.

    Returns:
        The rows.

    Raises:
        VPGCError: if there are none, or those of other steps.
    """
    try:
        rows = json.loads(points_file(run, name).read_text())
    except (OSError, ValueError):
        raise VPGCError(
            f"{run} is trained but has no scores: delete it, and it is trained again."
        ) from None
    if [row["step"] for row in rows] != [every * (i + 1) for i in range(math.ceil(steps / every))]:
        raise VPGCError(
            f"{run} was scored at other iterations than every {every}: choose another folder, or "
            "the number of points that it began with."
        )
    return rows


class TimedPoints(keras.callbacks.Callback):
    """Scores a model after each epoch, and keeps the time that steps took.

    What it does itself, validation and the first step of a kind, which compiles, take no time.

    Args:
        run: The run folder. Gets `points/NAME.json`, or `points.json` without a name.
        steps_per_epoch: Steps of an epoch.
        name: Name of the stage, where a run has several.

    Attributes:
        rows: List of dicts of `step`, `seconds` and what `score` returns.
        seconds: Time of the steps so far.
    """

    def __init__(self, run, steps_per_epoch: int, name: str | None = None):
        super().__init__()
        self.run, self.steps_per_epoch, self.name = Path(run), steps_per_epoch, name
        self.rows: list[dict] = []
        self.seconds = 0.0
        self._since: float | None = None
        self._kind: object = None

    def set_model(self, model):
        super().set_model(model)
        # `self.model` gives all variables their values on JAX, which takes time in each step.
        self._trainer = model

    def score(self, step: int) -> tuple[dict, dict[str, np.ndarray]]:
        """Scores after a step, with the averages of the weights in place, and pictures to keep.

        Args:
            step: Number of steps done.

        Returns:
            Dict of scores, `None` where there is no such score; name of a file -> uint8
            `(s, s, 3)`.
        """
        raise NotImplementedError("TimedPoints is a base: give score in a subclass.")

    def on_train_begin(self, logs=None):
        # No step has run yet in this process.
        self._since, self._kind = None, None

    def on_train_batch_begin(self, batch, logs=None):
        self._count()
        self._since = time.monotonic()

    def on_test_begin(self, logs=None):
        # Steps may still be queued on the device.
        keras.ops.convert_to_numpy(self.model.optimizer.iterations)
        self._count()

    def on_epoch_end(self, epoch, logs=None):
        self._count()
        step = (epoch + 1) * self.steps_per_epoch
        with averaged(*parts(self.model.optimizer)):
            scores, pictures = self.score(step)
        self.rows.append({"step": step, "seconds": round(self.seconds, 3), **scores})
        with writing(self.run):
            folder = self.run / POINTS
            folder.mkdir(exist_ok=True)
            for name, picture in pictures.items():
                (folder / f"{name}.png").write_bytes(png(picture))
            file = points_file(self.run, self.name)
            partial = file.with_name(f".{file.name}")
            partial.write_text(json.dumps(self.rows, indent=1))
            os.replace(partial, file)

    def get_state(self):
        return {"rows": self.rows, "seconds": self.seconds, "every": self.steps_per_epoch}

    def set_state(self, state):
        if state["every"] != self.steps_per_epoch:
            raise VPGCError(
                f"{self.run} began with points every {state['every']} steps: go on with as many "
                "points, or choose another folder."
            )
        self.rows, self.seconds = state["rows"], state["seconds"]

    def _count(self):
        """Count the step that has just been run, unless it compiled."""
        if self._since is None:
            return
        kind = (getattr(self._trainer, "phase", None),)
        if kind == self._kind:
            self.seconds += time.monotonic() - self._since
        self._since, self._kind = None, kind


def points_file(run, name: str | None = None) -> Path:
    """Where `TimedPoints` keeps its rows."""
    return Path(run) / (f"{POINTS}.json" if name is None else f"{POINTS}/{name}.json")


class ScoredPoints(TimedPoints):
    """Scores what a `CodebookTrainer` makes of frames, see `TimedPoints`.

    Args:
        run: The run folder. Gets `points.json`, and one reconstructed frame a point in `points`.
        frames: uint8 `(n, s, s, 3)`, the frames to reconstruct.
        shown: The place of the one that is kept.
        features: Those of LPIPS, or `None`.
        steps_per_epoch: Steps of an epoch.
        part: Of which part the frames are.

    Attributes:
        rows: List of dicts of `step`, `seconds`, `part`, `psnr`, `ssim`, `lpips` and `live_codes`,
            `None` where there is no such score.
        seconds: Time of the steps so far.
    """

    def __init__(
        self, run, frames, shown: int, features, steps_per_epoch: int, part: str = "validation"
    ):
        super().__init__(run, steps_per_epoch)
        self.frames, self.shown, self.features, self.part = frames, shown, features, part

    def set_state(self, state):
        super().set_state(state)
        check_part(self.run, self.rows, self.part)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._numbers = code_numbers(self.model.autoencoder)

    def score(self, step):
        pictures = reconstruct(self.model, self.frames)
        live = _live_codes(self.model.autoencoder, self._numbers, self.frames)
        scorer = Scorer(self.features)
        for start, true in _batches(self.frames):
            scorer.update(true, _filled(pictures[start : start + BATCH]), len(pictures) - start)
        means = {key: float(values.mean()) for key, values in scorer.scores().items()}
        row = {"part": self.part, "lpips": None, **means, "live_codes": live}
        return row, {f"{step:06d}": pictures[self.shown]}


def reconstruct(trainer, frames) -> np.ndarray:
    """What a `CodebookTrainer` makes of frames, uint8 `(n, s, s, 3)`, in the same form."""
    found = []
    for _, batch in _batches(frames):
        image = np.asarray(trainer.predict_on_batch(batch))[: len(batch)]
        found.append(np.clip(np.rint((image + 1.0) * 127.5), 0, 255).astype("uint8"))
    return np.concatenate(found)[: len(frames)]


def code_numbers(autoencoder) -> Callable | None:
    """Which codes a model reads for features, or `None` for one without a codebook.

    Args:
        autoencoder: A `PortraitAutoencoder`.

    Returns:
        A function of features `(batch, h, w, d)` that returns an int array of numbers of codes, for
        soft indices those of the codes that have most weight.
    """
    codebook, index = autoencoder.codebook, autoencoder.soft_index
    if not codebook.weights:
        return None
    if index is None:
        return lambda features: keras.ops.convert_to_numpy(codebook.encode(features))
    # Of tensors alone: compiled once, it does not keep the codes of its first call.
    find = backend.jitted(lambda features, codes: index.encode([features, codes]))

    def numbers(features):
        features = keras.ops.convert_to_tensor(features)
        found = keras.ops.convert_to_numpy(find(features, codebook(features)))
        return found % codebook.num_codes if isinstance(codebook, SharedCodebook) else found

    return numbers


def codes_used(autoencoder, frames) -> int | None:
    """Number of codes that a model reads to reconstruct frames; see `code_numbers`.

    Args:
        autoencoder: A `PortraitAutoencoder`.
        frames: uint8 `(n, s, s, 3)`.

    Returns:
        The number, `None` for a model without codebook.
    """
    return _live_codes(autoencoder, code_numbers(autoencoder), frames)


def _live_codes(autoencoder, numbers, frames):
    if numbers is None:
        return None
    used: set[int] = set()
    for _, batch in _batches(frames):
        images = batch.astype("float32") / 127.5 - 1.0
        used.update(np.unique(numbers(autoencoder.encoder.predict_on_batch(images))).tolist())
    return len(used)


def _batches(frames):
    """Batches of one size, so that one compiled step serves all; the last frame fills the last."""
    for start in range(0, len(frames), BATCH):
        yield start, _filled(frames[start : start + BATCH])


def _filled(batch):
    return np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])


def ablation_table(rows, truth=None) -> str:
    """Markdown tables of an ablation: at the last iteration, and after equal seconds.

    Args:
        rows: Those of `run_ablation`.
        truth: What was scored, for a sentence about it.

    Returns:
        The tables: means over the seeds, with their standard deviation where there are several.
    """
    text = ""
    if truth is not None:
        size = f"{truth.size}x{truth.size} pixels"
        text = f"Reconstruction of {len(truth.frames)} {truth.part} frames of {size}. "
    return score_tables(rows, SCORES, "codebook", text)


def score_tables(rows, scores, what: str, text: str = "") -> str:
    """Markdown tables of variants: at the last iteration, and after equal seconds.

    Args:
        rows: Dicts of `variant`, `seed`, `step`, `seconds` and scores, which may be `None`.
        scores: Tuples of a score, its title and its format.
        what: What varies, at the head of the first column.
        text: Sentences before the first table.

    Returns:
        The tables: means over the seeds, with their standard deviation where there are several.
    """
    runs: dict[str, dict] = {}
    for row in rows:
        runs.setdefault(row["variant"], {}).setdefault(row["seed"], []).append(row)
    last = max(row["step"] for row in rows)
    limit = min(points[-1]["seconds"] for seeds in runs.values() for points in seeds.values())
    keys = ["step", *(key for key, _, _ in scores)]
    ends = {name: [points[-1] for points in seeds.values()] for name, seeds in runs.items()}
    then = {name: [_at(points, limit, keys) for points in x.values()] for name, x in runs.items()}
    text += (
        "Means over the seeds, ± their standard deviation. Seconds are those of the training "
        f"steps, by {keras.backend.backend()}."
    )
    equal = f"After {limit:.0f} seconds each, between two points as on a straight line:"
    whole = means_table(ends, (*scores, ("seconds", "seconds", ".0f")), what)
    partly = means_table(then, (*scores, ("step", "iterations", ".0f")), what)
    return "\n\n".join([text, f"After {last} iterations:", whole, equal, partly])


def _at(points, seconds, keys):
    """The scores of a run at a time, `None` before its first point."""
    times = [row["seconds"] for row in points]

    def at(key):
        if points[0][key] is None or seconds < times[0]:
            return None
        return np.interp(seconds, times, np.array([row[key] for row in points], "float64"))

    return {key: at(key) for key in keys}


def means_table(runs: dict[str, list[dict]], columns, what: str) -> str:
    """A Markdown table of means over seeds, one row a variant.

    Args:
        runs: Name -> a dict of scores for each seed; `None` or NaN where there is no such score.
        columns: Tuples of a score, its title and its format; those that no run has are left out.
        what: What varies, at the head of the first column.

    Returns:
        The table: means, ± the standard deviation where there are several.
    """

    def known(rows, key):
        return [row[key] for row in rows if row[key] is not None and np.isfinite(row[key])]

    columns = [x for x in columns if any(known(rows, x[0]) for rows in runs.values())]
    lines = [f"| {what} | seeds | " + " | ".join(title for _, title, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name, ends in runs.items():
        cells = []
        for key, _, form in columns:
            values = known(ends, key)
            cell = format(np.mean(values), form) if values else "-"
            cells.append(cell + (f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else ""))
        lines.append(f"| {name} | {len(ends)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def csv_of(rows, columns) -> str:
    """Dicts as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
