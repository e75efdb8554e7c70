"""What a run folder says of its training: where it is, its curves, and how long it will take."""

import csv
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from keras_vpgc.errors import VPGCError

# The stages of a run in their order: file, title, and the setting that holds their steps.
STAGES = (
    ("codebook", "Codebook", "steps"),
    ("driver", "Driver", "driver_steps"),
    ("driver_on_images", "Driver on images", "driver_image_steps"),
    ("joint", "Driver and decoder", "joint_steps"),
)
DIRECT = (("direct", "Direct mapping", "steps"),)
# The curves that are shown, and what people call them.
CURVES = {
    "loss": "loss",
    "val_loss": "loss, held out",
    "psnr": "PSNR",
    "val_psnr": "PSNR, held out",
    "code_perplexity": "codes in use (perplexity)",
}


@dataclass
class StageProgress:
    """One stage.

    Attributes:
        name, title: Name of its files, and for people.
        steps, total: Steps done, and planned.
        seconds: Seconds of the epochs that are done.
        left: Seconds still needed, or `None` where that is not known.
        measured: Whether `left` rests on this run's own steps.
    """

    name: str
    title: str
    steps: int
    total: int
    seconds: float
    left: float | None
    measured: bool


@dataclass
class RunProgress:
    """A whole run; see `read_progress`."""

    done: bool
    stages: list[StageProgress] = field(default_factory=list)
    later: str = ""

    @property
    def share(self) -> float:
        """The part of all steps that is done, 0 to 1."""
        if self.done:
            return 1.0
        total = sum(x.total for x in self.stages)
        return sum(min(x.steps, x.total) for x in self.stages) / total if total else 0.0

    @property
    def sentence(self) -> str:
        """How long it will take, as far as that is known."""
        if self.done:
            return "The training is done."
        open_ = [x for x in self.stages if x.left != 0]
        known = [x for x in open_ if x.left is not None]
        unknown = [x.title for x in open_ if x.left is None]
        if not known:
            return "How long it takes is told once some steps are done."
        text = f"About {clock(sum(x.left or 0 for x in known))} left"
        if unknown:
            each = "it begins" if len(unknown) == 1 else "they begin"
            text += f", and then {' and '.join(unknown)}, whose speed shows when {each}"
        elif any(not x.measured for x in known):
            text += ", of which a part is taken from your earlier runs of this preset"
        return f"{text}.{self.later}"


def clock(seconds: float) -> str:
    """A time in words, such as `3 min` or `1 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def read_progress(run, others=(), now: float | None = None) -> RunProgress:
    """Where a training is.

    A stage's time left is that of the steps left at the speed of its own last epochs, with their
    validations. Of a stage that has not begun it is what the same stage took per step in another
    run with the same network, batch and backend, if there is one; else it is unknown, and said so.

    Args:
        run: The run folder; it need not have begun.
        others: Other run folders, whose speed may be told from.
        now: Seconds since 1970, for what the current epoch has used.

    Returns:
        A `RunProgress`.
    """
    run = Path(run)
    info = _info(run)
    if info is None:
        return RunProgress(False)
    config = info["config"]
    stages = _stages(config)
    done = (run / "puppet.keras").exists() and (
        (run / "driver.keras").exists() or config.get("method") == "direct"
    )
    now = time.time() if now is None else now
    found = []
    for place, (name, title, key) in enumerate(stages):
        rows = read_rows(run, name)
        total = config["recipe"].get(key) or 0
        # What comes after it has begun, or all is done: ended early, by patience or time.
        over = done or any(read_rows(run, later) for later, *_ in stages[place + 1 :])
        steps = int(rows[-1]["step"]) if rows else 0
        left: float | None = 0.0
        measured = True
        if over or (total and steps >= total):
            pass
        else:
            speed = _speed(rows)
            measured = speed is not None
            if speed is None:
                speed = _speed_elsewhere(info, name, others)
            left = None if speed is None else speed * max(0, total - steps)
            if rows and left:
                # The epoch that runs is not in the file yet.
                used = now - (run / "logs" / f"{name}.csv").stat().st_mtime
                epoch = _epoch(rows)
                left -= min(max(0.0, used), (speed or 0.0) * epoch * 0.95)
                left = max(left, 1.0)
            limit = config["recipe"].get("time_limit")
            if limit and left is not None:
                left = min(left, max(0.0, limit - sum(x["seconds"] for x in rows)))
        seconds = sum(x["seconds"] for x in rows)
        found.append(StageProgress(name, title, steps, total, seconds, left, measured))
    return RunProgress(done, found, _later(config, found))


def _later(config, found):
    """What the times measured so far cannot know."""
    recipe, first = config["recipe"], found[0]
    if not recipe.get("adversarial") or first.left == 0:
        return ""
    start = recipe.get("adversarial_start")
    start = first.total // 2 if start is None else start
    if first.steps >= start or start >= first.total:
        return ""
    return f" Steps take longer once the discriminator joins, at step {start}."


def read_rows(run, name: str) -> list[dict[str, float]]:
    """The logs of a stage, one dict an epoch; what cannot be read is left out."""
    try:
        with open(Path(run) / "logs" / f"{name}.csv", newline="") as file:
            rows = [
                {k: float(v) for k, v in row.items() if k and v not in (None, "")}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError):
        return []
    return [x for x in rows if {"step", "seconds"} <= set(x)]


def curves(runs) -> list[dict]:
    """What a plot wants: a dict a point with `run`, `stage`, `curve`, `step` and `value`.

    Steps count through the stages of a run.

    Args:
        runs: Name -> run folder.
    """
    points = []
    for run_name, run in runs.items():
        info = _info(Path(run))
        before = 0
        for name, title, _ in _stages(info["config"]) if info else STAGES:
            rows = read_rows(run, name)
            for row in rows:
                points += [
                    {
                        "run": run_name,
                        "stage": title,
                        "curve": CURVES[key],
                        "step": before + int(row["step"]),
                        "value": row[key],
                    }
                    for key in CURVES
                    if key in row and math.isfinite(row[key])
                ]
            before += int(rows[-1]["step"]) if rows else 0
    return points


def previews(run) -> list[tuple[str, Path]]:
    """The newest picture of each stage, and of the codebook: pairs of a caption and a path."""
    found = []
    titles = {name: title for name, title, _ in (*STAGES, *DIRECT)}
    titles["codebook_inside"] = "Inside the codebook"
    for name, title in titles.items():
        files = sorted((Path(run) / "previews").glob(f"{name}_[0-9]*.png"))
        if files:
            step = int(files[-1].stem.rsplit("_", 1)[1])
            found.append((f"{title}, step {step}", files[-1]))
    return found


def scores(runs) -> list[dict]:
    """The scores of runs that were evaluated, a dict a run, for a table.

    Args:
        runs: Name -> run folder.
    """
    rows = []
    for name, run in runs.items():
        row: dict = {"run": name, "preset": "", "steps": "", "trained": ""}
        info = _info(Path(run))
        if info:
            state = read_progress(run)
            row["preset"] = info["config"]["preset"]
            row["steps"] = " + ".join(str(x.steps) for x in state.stages)
            row["trained"] = clock(sum(x.seconds for x in state.stages)) if state.stages else ""
        try:
            metrics = json.loads((Path(run) / "evaluation" / "metrics.json").read_text())
            driven = metrics["rows"]["driven"]
            for key in ("psnr", "ssim", "lpips", "landmark_distance"):
                value = driven.get(key)
                row[key] = value if isinstance(value, str) else _rounded(value)
        except (OSError, ValueError, KeyError, TypeError):
            row["psnr"] = "not scored yet"
        rows.append(row)
    return rows


def _rounded(value):
    return "" if value is None else round(float(value), 3)


def _info(run):
    from keras_vpgc.training.recipes import read_run

    try:
        return read_run(run)
    except (VPGCError, OSError):
        return None


def _stages(config):
    stages = DIRECT if config.get("method") == "direct" else STAGES
    return [x for x in stages if config["recipe"].get(x[2])]


def _epoch(rows):
    steps = [int(x["step"]) for x in rows]
    return steps[-1] - steps[-2] if len(steps) > 1 else steps[0]


def _speed(rows) -> float | None:
    """Seconds a step, validation and all, of the last epochs; the first one compiles."""
    if not rows:
        return None
    last = rows[1:][-5:] or rows
    return statistics.median(x["seconds"] for x in last) / max(1, _epoch(rows))


def _speed_elsewhere(info, name, others) -> float | None:
    """The same of the newest other run that computes the same."""
    for other in others:
        found = _info(Path(other))
        if found is None or found.get("portrait") is None or _computes(found) != _computes(info):
            continue
        rows = read_rows(other, name)
        if len(rows) > 1:
            return _speed(rows)
    return None


def _computes(info):
    recipe = info["config"]["recipe"]
    keys = ("batch_size", "driver_batch_size", "precision", "adversarial", "perceptual")
    return (
        info.get("backend"),
        info.get("devices"),
        info["config"]["network"],
        [recipe.get(key) for key in keys],
    )
