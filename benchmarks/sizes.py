"""Quality for size: puppets from 1 to 341 GFLOP on the same clip, scored on the same frames.

KERAS_BACKEND=jax python benchmarks/sizes.py data/me out/sizes                 # hours on a GPU
KERAS_BACKEND=jax python benchmarks/sizes.py data/me out/sizes --only lite big lite-distilled
python benchmarks/sizes.py data/me out/sizes --milliseconds              # on a CPU, afterwards
KERAS_BACKEND=torch python benchmarks/sizes.py data/me out/tiny --tiny         # whether it works

Each size is trained by the recipe of the preset that it is made of (`--set KEY=VALUE` changes it
for all) into a run folder of its own, and goes on there if the same command comes again; with
`--only` several commands can train several sizes at the same time. `lite-distilled` is the lite
size with the largest one as its teacher, behind the same stage 1 and by as many steps, once both
are trained; seconds of training are in the table. Held-out frames are scored by `evaluate_run`
(`--part test`: choose by `validation`), driven from their landmarks and reconstructed.
`--milliseconds` exports the network of each size that is scored to ONNX and measures a frame under
ONNX Runtime on two threads; its folder need hold no more than `size.json`.
`sizes.json`, `sizes.md` and `sizes.png` (PSNR and LPIPS against GFLOP and against milliseconds) are
written anew each time.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from keras_vpgc import VPGCError
from keras_vpgc.cli.train import split_settings

DISTILLED = "lite-distilled"
# Name -> preset and what differs from it, in the order of training.
SIZES: dict[str, tuple[str, dict]] = {
    "lite-24": ("vpgc_512_lite", {"base_channels": 24, "num_blocks": 1}),
    "lite": ("vpgc_512_lite", {}),
    "lite-96": ("vpgc_512_lite", {"base_channels": 96, "driver_base_channels": 64}),
    "16": ("vpgc_512", {"base_channels": 16, "driver_base_channels": 16, "norm_groups": 8}),
    "32": ("vpgc_512", {"base_channels": 32, "driver_base_channels": 32}),
    "big": ("vpgc_512", {}),
    DISTILLED: ("vpgc_512_lite", {}),
}
_TINY_LITE = {
    "block": "separable", "stride": 2, "multipliers": [1, 2], "heatmap_size": 32,
    "driver_multipliers": [1, 2],
}  # fmt: skip
TINY_SIZES: dict[str, tuple[str, dict]] = {
    "lite-8": ("vpgc_tiny", {**_TINY_LITE, "base_channels": 8}),
    "lite": ("vpgc_tiny", _TINY_LITE),
    "lite-32": ("vpgc_tiny", {**_TINY_LITE, "base_channels": 32}),
    "8": ("vpgc_tiny", {"base_channels": 8}),
    "big": ("vpgc_tiny", {}),
    DISTILLED: ("vpgc_tiny", _TINY_LITE),
}
TINY_RECIPE = {
    "steps": 4, "driver_steps": 4, "driver_image_steps": 0, "joint_steps": 4, "previews": False,
    "tensorboard": False,
}  # fmt: skip
# Of a run, in its folder.
ROW = "size.json"
COLUMNS = (
    "size", "GFLOP", "weights, M", "seconds", "PSNR", "LPIPS", "PSNR, reconstructed",
    "LPIPS, reconstructed", "CPU ms",
)  # fmt: skip


def train(name, sizes, options, recipe, network):
    """Train a size, or go on with it; returns its run folder."""
    from keras_vpgc.training.recipes import distill_puppet, train_puppet

    run = options.folder / name
    preset, own = sizes[name]
    settings = {"network": {**own, **network}, "recipe": recipe, "seed": options.seed}
    if name == DISTILLED:
        settings |= {"portrait": options.portrait, "stage_1": options.folder / "lite"}
        distill_puppet(options.folder / "big", run, preset, **settings)
    else:
        train_puppet(options.portrait, run, preset, **settings)
    return run


def score(name, run, options):
    """What is known of a trained size, a dict."""
    from keras_vpgc.evaluation.run import evaluate_run
    from keras_vpgc.models.work import count
    from keras_vpgc.reenactment import Puppet

    model = Puppet.load(run, precision="float32").model
    found = evaluate_run(
        run, portrait=options.portrait, part=options.part, landmarks=False, lpips=options.lpips
    )
    logs = list((run / "logs").glob("*.csv"))
    if name == DISTILLED:
        logs.append(options.folder / "lite" / "logs" / "codebook.csv")
    driven, reconstructed = (found["rows"][way] for way in ("driven", "reconstructed"))
    return {
        "size": name,
        "part": options.part,
        "LPIPS by": options.lpips,
        "GFLOP": count(model).flops / 1e9,
        "weights, M": model.count_params() / 1e6,
        "seconds": sum(seconds_of(file) for file in logs),
        "PSNR": mean_of(driven, "psnr"),
        "LPIPS": mean_of(driven, "lpips"),
        "PSNR, reconstructed": mean_of(reconstructed, "psnr"),
        "LPIPS, reconstructed": mean_of(reconstructed, "lpips"),
        "CPU ms": None,
    }


def seconds_of(file):
    """Seconds of training of one stage, by its log."""
    with file.open() as lines:
        return sum(float(row["seconds"]) for row in csv.DictReader(lines))


def mean_of(row, name):
    """A score's mean, where there is one."""
    value = row.get(name)
    return value["mean"] if isinstance(value, dict) else value


def milliseconds(name, sizes, network):
    """The fastest of 30 frames under ONNX Runtime on two threads, from landmarks to pixels.

    Of an untrained network: weights do not change how long it takes.
    """
    from benchmarks import lite

    preset, own = sizes[name]
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/puppet.onnx"
        model = lite.write(preset, file, **{**own, **network})
        call = lite.onnx_runtime(file, "ort-all", 2)
        windows = lite.landmark_windows(model.input_shape[1:3], None, 24)
        return float(lite.measure(call, windows, 30)[0])


def keep(found, file):
    """Write JSON at once, as other commands may read it."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1))
    os.replace(partial, file)


def write(folder):
    """Table and plots of what there is, also by other commands."""
    rows = [json.loads(file.read_text()) for file in folder.glob(f"*/{ROW}")]
    rows.sort(key=lambda row: (row["GFLOP"], row["size"]))
    keep(rows, folder / "sizes.json")
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = [
            row[c] if c == "size" else "" if row[c] is None else f"{row[c]:.3g}" for c in COLUMNS
        ]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "sizes.md").write_text("\n".join(lines) + "\n")
    plot(rows, folder / "sizes.png")
    return "\n".join(lines)


def plot(rows, file):
    """PSNR and LPIPS against GFLOP and milliseconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (x, y) in enumerate((x, y) for y in ("PSNR", "LPIPS") for x in ("GFLOP", "CPU ms")):
        axes = figure.add_subplot(2, 2, place + 1)
        axes.set(xlabel=f"{x} a frame", ylabel=y, xscale="log")
        axes.grid(alpha=0.25)
        for distilled, marker in ((True, "D"), (False, "o")):
            known = [
                r for r in rows
                if (r["size"] == DISTILLED) == distilled and None not in (r[x], r[y])
            ]  # fmt: skip
            known.sort(key=lambda r: r[x])
            axes.plot([r[x] for r in known], [r[y] for r in known], marker=marker)
            for r in known:
                axes.annotate(r["size"], (r[x], r[y]), xytext=(4, 4), textcoords="offset points")
    figure.savefig(file, dpi=130)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("portrait", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", help="some of the sizes")
    parser.add_argument("--milliseconds", action="store_true", help="measure what is trained")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--lpips", choices=["alex", "vgg", "none"], default="alex")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="a trial of a minute")
    options = parser.parse_args(words)
    options.lpips = None if options.lpips == "none" else options.lpips
    sizes = TINY_SIZES if options.tiny else SIZES
    names = options.only or list(sizes)
    for name in names:
        if name not in sizes:
            raise VPGCError(f"There is no size {name!r}: choose of {', '.join(sizes)}.")
    recipe, network = split_settings(options.set)
    recipe = {**(TINY_RECIPE if options.tiny else {}), **recipe}
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        file = options.folder / name / ROW
        row = json.loads(file.read_text()) if file.exists() else None
        if row and (row["part"], row["LPIPS by"]) != (options.part, options.lpips):
            raise VPGCError(
                f"{name} was scored on {row['part']} frames with LPIPS by {row['LPIPS by']}: "
                f"choose these, or delete {file}, and it is scored anew."
            )
        if options.milliseconds:
            if row is None:
                continue
            row["CPU ms"] = milliseconds(name, sizes, network)
        elif row is None:
            row = score(name, train(name, sizes, options, recipe, network), options)
        keep(row, file)
        print(write(options.folder), flush=True)


if __name__ == "__main__":
    main()
