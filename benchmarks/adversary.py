"""Which adversarial settings help: stage 1 once, then on from there with each of them.

KERAS_BACKEND=jax python benchmarks/adversary.py data/me out/adversary              # a GPU
KERAS_BACKEND=jax python benchmarks/adversary.py data/me out/adversary --only "quarter rate" without
KERAS_BACKEND=torch python benchmarks/adversary.py data/me out/tiny --tiny    # whether it works

`as it is` is trained first, by the preset's recipe in `--steps` steps. What it was when the
discriminator joined, half way, is where every other variant begins: only what follows differs. The
same command goes on where it was stopped; `--only` takes some of the variants, `--set KEY=VALUE`
changes all. Held-out frames are scored at `--points` moments (`--part test`: choose by
`validation`). The table (`adversary.json`, `adversary.md`) has the scores at the end, and the
discriminator's loss in the last steps on training frames and on held-out ones: a hinge loss of 1
(.25 by least squares) is that of one that cannot tell real from made, 0 of one that always can;
where it is low on training frames alone, these are known by heart.
"""

import argparse
import csv
import gc
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np

from keras_vpgc import VPGCError
from keras_vpgc.cli.train import split_settings
from keras_vpgc.config import resolve
from keras_vpgc.data.portrait import Portrait
from keras_vpgc.evaluation.ablation import (
    BATCH,
    HeldOutFrames,
    ScoredPoints,
    check_part,
    read_points,
)
from keras_vpgc.evaluation.scorer import Features
from keras_vpgc.losses.adversarial import discriminator_loss
from keras_vpgc.training.image_trainer import to_model_range
from keras_vpgc.training.recipes import codebook_is_trained, train_codebook

BASE = "as it is"
TINY = {"steps": 4, "previews": False, "tensorboard": False}
# Of a variant's run, and what all others begin with.
CHECKPOINT = Path("checkpoints", "codebook.npz")
BEFORE = "before.npz"
COLUMNS = ("PSNR", "SSIM", "LPIPS", "loss of D, training", "held out")
# By noise of .05 that is .25 |g|^2 for the gradient g of a logit. Frames 32 dB apart differ by 6 in
# the 70x70 pixels a logit sees: |g| = .3 suffices to tell them apart.
PENALTY = 100.0
# Held-out frames that the discriminator judges, in whole batches: none is compiled for again.
JUDGED = 2 * BATCH


def variants_of(recipe):
    """Name -> what differs in the recipe from the moment when the discriminator joins."""
    rate, weight = recipe.discriminator_rate, recipe.adversarial_weight
    apart = {"adaptive_matching": False, "feature_matching_weight": 1.0}
    return {
        BASE: {},
        "without": {"adversarial_start": recipe.steps},
        "quarter rate": {"discriminator_rate": rate / 4},
        "sixteenth of the rate": {"discriminator_rate": rate / 16},
        "weight x 4": {"adversarial_weight": weight * 4},
        "least squares": {"adversarial": "lsgan"},
        "weight fixed": {"adaptive": False, "adversarial_weight": weight / 10},
        "matching apart": apart,
        "matching apart, a third": {**apart, "feature_matching_weight": 1 / 3},
        "gradient penalty": {"gradient_penalty": PENALTY},
        "gradient penalty, matching apart": {"gradient_penalty": PENALTY, **apart},
        "perceptual x 2": {"perceptual_weight": 2 * recipe.perceptual_weight},
    }  # fmt: skip


class Watched(ScoredPoints):
    """Scores, and how well the discriminator tells held-out frames from reconstructions."""

    def __init__(self, before, epoch, *args):
        super().__init__(*args)
        self.before, self.epoch = before, epoch

    def on_epoch_begin(self, epoch, logs=None):
        # The checkpoint of the epoch before is whole by now.
        if self.before is not None and epoch == self.epoch and not self.before.exists():
            partial = self.before.with_suffix(".partial")
            shutil.copyfile(self.run / CHECKPOINT, partial)
            partial.replace(self.before)

    def score(self, step):
        row, pictures = super().score(step)
        trainer, losses = self.model, []
        picked = np.linspace(0, len(self.frames) - 1, JUDGED).round().astype(int)
        for batch in (self.frames[picked[:BATCH]], self.frames[picked[BATCH:]]):
            real = to_model_range(keras.ops.convert_to_tensor(batch))
            made = keras.ops.convert_to_tensor(trainer.predict_on_batch(batch))
            logits = [trainer._logits(trainer.discriminator(x)) for x in (real, made)]
            loss = discriminator_loss(*logits, trainer.adversarial)
            losses.append(float(keras.ops.convert_to_numpy(loss)))
        return {**row, "discriminator": float(np.mean(losses))}, pictures


def folder_of(folder, name):
    """The run folder of a variant."""
    return folder / name.replace(" ", "_")


def begin(run, base, change, before):
    """Give a variant's run the settings and the checkpoint of the moment when it parts."""
    if run.exists():
        return
    if not before.exists():
        raise VPGCError(f"{before} is missing: {base} was trained elsewhere; delete that folder.")
    info = json.loads((base / "run.json").read_text())
    info["config"]["recipe"] |= change
    partial = run.with_name(f".{run.name}")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / CHECKPOINT.parent).mkdir(parents=True)
    shutil.copyfile(before, partial / CHECKPOINT)
    (partial / "run.json").write_text(json.dumps(info, indent=1))
    partial.rename(run)


def last(file, column):
    """The last value of a column of a log, or `None` if there is none."""
    with file.open() as lines:
        values = [row[column] for row in csv.DictReader(lines) if row.get(column)]
    return float(values[-1]) if values else None


def table_of(found):
    """The Markdown table."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    forms = (".2f", ".4f", ".4f", ".3f", ".3f")
    for name, row in found.items():
        pairs = zip(COLUMNS, forms, strict=True)
        cells = ["" if row[c] is None else format(row[c], form) for c, form in pairs]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("portrait", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="vpgc_512")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--only", nargs="+", help="some of the variants")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--lpips", choices=["alex", "vgg", "none"], default="alex")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tiny", action="store_true", help="a trial of a minute")
    options = parser.parse_args(words)
    if options.tiny:
        options.preset, options.steps, options.points = "vpgc_tiny", 4, 2
    recipe, network = split_settings(options.set)
    if options.points < 2:
        raise VPGCError("There is a moment before the discriminator joins and one after: give two.")
    every = -(-options.steps // options.points)
    joins = options.points // 2
    recipe = {
        **(TINY if options.tiny else {"previews": False}),
        "adversarial": "hinge", "feature_matching_weight": 10.0,
        **recipe,
        "steps": options.steps, "adversarial_start": joins * every, "checkpoint_seconds": 0,
    }  # fmt: skip
    config = resolve(options.preset, network, recipe, options.seed)
    if config.recipe.adversarial is None:
        raise VPGCError("adversarial=null leaves nothing to compare: leave it out.")
    variants = variants_of(config.recipe)
    for name in options.only or []:
        if name not in variants:
            raise VPGCError(f"There is no variant {name!r}: choose of {', '.join(variants)}.")
    options.folder.mkdir(parents=True, exist_ok=True)
    portrait = Portrait(options.portrait)
    features = None if options.lpips == "none" else Features(options.lpips)
    truth = HeldOutFrames(portrait, config.network["image_size"], options.part)
    file, before = options.folder / "adversary.json", options.folder / BEFORE
    found = json.loads(file.read_text()) if file.exists() else {}
    for name in [BASE, *(x for x in options.only or variants if x != BASE)]:
        run = folder_of(options.folder, name)
        settings = {
            "network": network, "recipe": {**recipe, **variants[name]}, "seed": options.seed,
        }  # fmt: skip
        if name != BASE:
            begin(run, folder_of(options.folder, BASE), variants[name], before)
        if not codebook_is_trained(portrait, run, options.preset, **settings):
            watched = Watched(
                before if name == BASE else None, joins,
                run, truth.frames, truth.place, features, every, options.part,
            )  # fmt: skip
            train_codebook(
                portrait, run, options.preset, steps_per_epoch=every, callbacks=[watched],
                **settings,
            )  # fmt: skip
            gc.collect()  # the next one needs the memory
        rows = read_points(run, every, options.steps)
        check_part(run, rows, options.part)
        row = rows[-1]
        scores = row["psnr"], row["ssim"], row["lpips"]
        trained = last(run / "logs" / "codebook.csv", "discriminator")
        held = None if trained is None else row["discriminator"]
        found[name] = dict(zip(COLUMNS, (*scores, trained, held), strict=True))
        file.write_text(json.dumps(found, indent=1))
        table = table_of(found)
        (options.folder / "adversary.md").write_text(table + "\n")
        print(table, flush=True)


if __name__ == "__main__":
    main()
