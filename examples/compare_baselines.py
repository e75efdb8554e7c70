"""The puppet beside what it has to beat, all trained and scored alike on one portrait.

KERAS_BACKEND=jax python examples/compare_baselines.py data/me comparisons/me vpgc_256
KERAS_BACKEND=torch python examples/compare_baselines.py    # minutes on a demonstration clip

Trained: the puppet; a vanilla codebook with a driver; the direct mapping from landmarks to images
that the paper argues against, always with pix2pixHD-like losses (hinge and feature matching, which
not every preset has). All else by the same recipe, on the same frames, for as many iterations: the
direct mapping, which has one stage, gets those of all stages.
Not trained: the nearest training frame, the same warped to the landmarks, the mean frame. The same
command again goes on where it was stopped.
"""

import csv
import json
import sys
from pathlib import Path

from keras_vpgc.config import resolve
from keras_vpgc.data.portrait import Portrait
from keras_vpgc.data.video import VideoWriter
from keras_vpgc.demo import demo_portrait
from keras_vpgc.evaluation.compare_runs import compare_runs
from keras_vpgc.reenactment import Provenance
from keras_vpgc.training.recipes import train_puppet

# What differs from the puppet's settings.
SYSTEMS = {
    "puppet": {},
    "vanilla codebook": {"network": {"codebook": "vanilla", "vq_scale": 1.0}},
    "direct mapping": {"method": "direct"},
}
# Without a portrait: it shows how it works, not which system is better.
QUICK = {
    "preset": "vpgc_tiny",
    "recipe": {"steps": 120, "driver_steps": 120, "driver_image_steps": 40},
}


def train(portrait, folder, system, preset="vpgc_128", network=None, recipe=None, **settings):
    """Train one of `SYSTEMS` in its folder below `folder`; returns that."""
    run = Path(folder) / system.replace(" ", "_")
    recipe = dict(recipe or {})
    own = dict(SYSTEMS[system])
    if own.get("method") == "direct":
        recipe["steps"] = iterations(resolve(preset, network, recipe).recipe)
        # pix2pixHD's losses, whatever the preset has.
        recipe["adversarial"] = recipe.get("adversarial") or "hinge"
        recipe["feature_matching_weight"] = recipe.get("feature_matching_weight") or 10.0
    network = {**(network or {}), **own.pop("network", {})}
    train_puppet(portrait, run, preset, network=network, recipe=recipe, **own, **settings)
    return run


def iterations(recipe):
    """Steps of all stages."""
    stages = ("steps", "driver_steps", "driver_image_steps", "joint_steps")
    return sum(getattr(recipe, stage) for stage in stages)


def seconds(run):
    """Iterations and time of a run's stages, as logged."""
    logs = [list(csv.DictReader(file.open())) for file in (Path(run) / "logs").glob("*.csv")]
    steps = sum(int(rows[-1]["step"]) for rows in logs)
    return steps, sum(float(row["seconds"]) for rows in logs for row in rows)


def main(portrait=None, folder="comparisons", preset="vpgc_128", **settings):
    folder = Path(folder)
    if portrait is None:
        settings = {**QUICK, **settings}
        portrait, preset = demo_portrait("data/demo").path, settings.pop("preset")
    runs = {name: train(portrait, folder, name, preset, **settings) for name in SYSTEMS}
    portrait = Portrait(portrait)

    def save(name, frames):
        with VideoWriter(
            folder / f"{name.replace(' ', '_')}.mp4",
            portrait.frame_rate,
            overwrite=True,
            metadata=Provenance().metadata() if name in SYSTEMS else None,
        ) as video:
            for frame in frames:
                video.write(frame)

    result = compare_runs(runs, portrait, folder, on_frames=save)
    lines = ["| | iterations | seconds of training |", "|---|---|---|"]
    effort = {name: seconds(run) for name, run in runs.items()}
    lines += [f"| {name} | {steps} | {time:.0f} |" for name, (steps, time) in effort.items()]
    text = result["table"] + "\n\n" + "\n".join(lines)
    with open(folder / "comparison.md", "a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(lines) + "\n")
    (folder / "effort.json").write_text(json.dumps(effort, indent=1))
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
