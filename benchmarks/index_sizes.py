"""What a smaller soft index costs: fewer codes a cell, narrower windows, shallower features, grids.

KERAS_BACKEND=jax python benchmarks/index_sizes.py data/me out/index                  # a GPU
KERAS_BACKEND=jax python benchmarks/index_sizes.py data/me out/small --small --seeds 0 1
KERAS_BACKEND=torch python benchmarks/index_sizes.py data/me out/tiny --tiny    # whether it works

Stage 1 is trained once for each variant and seed, with one thing changed from the preset
(`vpgc_512_lite`), and validation frames are scored by `run_ablation`, which goes on where it was
stopped. `--small` is the same network on 128 pixels without LPIPS and discriminator in training,
for two CPU cores. `--only` takes some of the variants, `--set KEY=VALUE` changes all. The table
(`index.json`, `index.md`) has the exponentials of a frame, the codes' parameters, the milliseconds
of the index alone (batch 1, float32, the backend's compiled call, the fastest of `--repeats`), and
the scores at the end, as means over the seeds.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np

from benchmarks import clock
from keras_vpgc import VPGCError, backend
from keras_vpgc.cli.train import split_settings
from keras_vpgc.config import resolve
from keras_vpgc.evaluation.ablation import run_ablation
from keras_vpgc.layers import GridCodebook, SoftIndex
from keras_vpgc.models.autoencoder import grid_of

PRESET, STEPS = "vpgc_512_lite", 3000
SMALL = {"image_size": 128, "multipliers": [4, 4]}
TINY = {**SMALL, "image_size": 64, "multipliers": [1, 2], "stride": 2, "base_channels": 8}
PLAIN = {"perceptual": None, "adversarial": None, "feature_matching_weight": 0.0}
SCORES = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f"}


def variants_of(base):
    """Name -> what differs from a network."""
    codes, window, depth = base["codes_per_cell"], base["window_size"], base["latent_dim"]
    multipliers = list(base["multipliers"])
    found = {"as it is": {}}
    found |= {f"K_c = {n}": {"codes_per_cell": n} for n in (codes // 4, codes * 4)}
    found |= {f"r = {n}": {"window_size": n} for n in (1, window - 1, window + 2) if n}
    found |= {f"d = {n}": {"latent_dim": n} for n in (depth // 2, depth * 2)}
    # The driver, which is not trained, must fit.
    heatmap = base["heatmap_size"]
    halved = {"multipliers": [*multipliers, multipliers[-1]], "heatmap_size": heatmap // 2}
    doubled = {"multipliers": multipliers[:-1], "heatmap_size": heatmap * 2}
    return {**found, "half the grid": halved, "twice the grid": doubled}


def index_of(network):
    """Cells a side, codes a cell, window, depth of the features and of the codes of a network."""
    cells = grid_of(network["image_size"], network["multipliers"], network["stride"])
    given = (network[key] for key in ("codes_per_cell", "window_size", "latent_dim"))
    return cells, *given, network.get("code_dim", 4)


def work_of(cells, codes, window, depth, code_dim):
    """Exponentials of a frame, and parameters of the codes."""
    return cells**2 * (depth // code_dim) * window**2 * codes, cells**2 * codes * code_dim


def milliseconds(cells, codes, window, depth, code_dim, repeats):
    """The fastest call of codebook and index alone."""
    features = keras.Input(batch_shape=(1, cells, cells, depth))
    book = GridCodebook((cells, cells), codes, code_dim)
    model = keras.Model(features, SoftIndex(window, temperature=0.09)([features, book(features)]))
    call = backend.compiled(model)
    given = np.random.default_rng(0).normal(size=features.shape).astype("float32") * 0.3
    placed = keras.ops.convert_to_tensor(given)
    best = np.inf
    for _ in range(repeats + 3):
        began = time.perf_counter()
        clock.synchronise(call(placed))
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def mean_of(rows, score):
    """Mean over the seeds at the last iteration and, of several, its standard deviation."""
    last = max(row["step"] for row in rows)
    values = [r[score] for r in rows if r["step"] == last and r[score] is not None]
    if not values:
        return None
    return [float(np.mean(values)), *([float(np.std(values, ddof=1))] if len(values) > 1 else [])]


def table_of(found):
    """The Markdown table."""
    lines = ["| | cells, K_c, r, d, d_c | exponentials, M | codes, M | ms | PSNR | SSIM | LPIPS |"]
    lines.append("|---" * 8 + "|")
    for name, row in found.items():
        cells = [name, ", ".join(str(n) for n in row["index"])]
        cells += [f"{row['exponentials'] / 1e6:.2f}", f"{row['parameters'] / 1e6:.2f}"]
        cells.append(f"{row['ms']:.2f}")
        for score, form in SCORES.items():
            cells.append(" ± ".join(format(x, form) for x in row[score] or []))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("portrait", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", help="some of the variants")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lpips", choices=["alex", "vgg", "none"], default="alex")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--small", action="store_true", help="128 pixels, for a CPU")
    parser.add_argument("--tiny", action="store_true", help="a trial of a minute")
    options = parser.parse_args(words)
    recipe, network = split_settings(options.set)
    if options.small or options.tiny:
        network = {**(TINY if options.tiny else SMALL), **network}
        recipe = {**PLAIN, **recipe}
    recipe = {"steps": 4 if options.tiny else STEPS, **recipe}
    base = resolve(PRESET, network).network
    variants = variants_of(base)
    for name in options.only or []:
        if name not in variants:
            raise VPGCError(f"There is no variant {name!r}: choose of {', '.join(variants)}.")
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "index.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name in options.only or variants:
        changed = {**base, **variants[name]}
        index = index_of(changed)
        result = run_ablation(
            options.portrait,
            options.folder / name.replace(" ", "_").replace("=", ""),
            PRESET,
            variants=[f"soft grid r={changed['window_size']}"],
            seeds=options.seeds,
            points=2 if options.tiny else 5,
            network={**network, **variants[name]},
            recipe=recipe,
            lpips=None if options.lpips == "none" else options.lpips,
        )
        exponentials, parameters = work_of(*index)
        found[name] = {
            "index": list(index),
            "exponentials": exponentials,
            "parameters": parameters,
            "ms": milliseconds(*index, options.repeats),
            "seeds": options.seeds,
            **{score: mean_of(result["rows"], score) for score in SCORES},
        }
        file.write_text(json.dumps(found, indent=1))
        table = table_of(found)
        (options.folder / "index.md").write_text(table + "\n")
        print(table, flush=True)


if __name__ == "__main__":
    main()
