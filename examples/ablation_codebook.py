"""Is the grid codebook worth it? Stage 1 with other codebooks, scored alike as they train.

KERAS_BACKEND=torch python examples/ablation_codebook.py data/me ablations/me vpgc_256
KERAS_BACKEND=torch python examples/ablation_codebook.py    # minutes on a demonstration clip

Trained, with three seeds each: the vanilla codebook of the paper's Tab. 4; the same as later work
trains it (moving averages, k-means at the start, dead codes revived); one list of short codes
without a grid; the grid read hard, softly within a cell, and softly within its window, as the
package has it; and no codebook at all. With one seed all start from the same weights and see the
same batches. Validation frames are scored at ten points on the way: `ablation.csv`, `ablation.md`,
plots against iterations and seconds, and `faces.png`, the paper's Fig. 4. The same command again
goes on where it was stopped. `--set KEY=VALUE` changes network or recipe of all: without the
adversarial phase it is

    --set adversarial=null --set feature_matching_weight=0
"""

import argparse

from keras_vpgc import VPGCError
from keras_vpgc.cli.train import split_settings
from keras_vpgc.demo import demo_portrait
from keras_vpgc.evaluation.ablation import run_ablation
from keras_vpgc.evaluation.scorer import Features

# Without a portrait: it shows how it works, not which codebook is better.
QUICK = {
    "preset": "vpgc_tiny",
    "variants": ["vanilla", "hard grid", "soft grid r=4"],
    "seeds": [0],
    "points": 4,
    "recipe": {"steps": 120},
}


def main(portrait=None, folder="ablation", preset="vpgc_128", **settings):
    if portrait is None:
        recipe = {**QUICK["recipe"], **settings.get("recipe", {})}
        settings = {**QUICK, **settings, "recipe": recipe}
        portrait, preset = demo_portrait("data/demo"), settings.pop("preset")
    if "lpips" not in settings:
        try:
            Features("alex")
        except VPGCError as error:
            print(f"There will be no LPIPS: {error}")
            settings["lpips"] = None
    result = run_ablation(portrait, folder, preset, **settings)
    print(result["table"])
    return result


def arguments(words=None) -> dict:
    """The command line as arguments of `main`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "portrait", nargs="?", help="a portrait folder, by vpgc prepare; default: a demonstration"
    )
    parser.add_argument("folder", nargs="?", default="ablation", help="gets all of it")
    parser.add_argument("preset", nargs="?", default="vpgc_128")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2")
    parser.add_argument("--points", type=int, help="how often it is scored; default: 10")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--part", choices=["validation", "test"], help="default: validation")
    parser.add_argument("--no-lpips", action="store_true")
    given = parser.parse_args(words)
    recipe, network = split_settings(given.set)
    found = {
        "variants": given.variants, "seeds": given.seeds, "points": given.points,
        "part": given.part, "recipe": recipe or None, "network": network or None,
    }  # fmt: skip
    # What is not given is left to `main`, which has other defaults without a portrait.
    found = {key: value for key, value in found.items() if value is not None}
    if given.no_lpips:
        found["lpips"] = None
    return {"portrait": given.portrait, "folder": given.folder, "preset": given.preset, **found}


if __name__ == "__main__":
    main(**arguments())
