"""What are the driver's priors worth? Stage 2 with other drivers, scored alike as they train.

KERAS_BACKEND=torch python examples/ablation_priors.py data/me ablations/priors vpgc_256
KERAS_BACKEND=torch python examples/ablation_priors.py --tiny    # a demonstration clip, a minute

Trained, with three seeds each, all behind the same stage 1: the three drivers of the paper's
Tab. 5 (baseline; with the texture prior, "w P"; full, with the global context too), and full
without the transformer, without neighbouring frames, and without codes. Validation frames are
driven and scored at ten points on the way: `ablation.csv`, `ablation.md`, plots against iterations
and seconds, and eyes and mouth as they come, `eyes.png` and `mouth.png`. All stages after the
codebook count; the paper's letter, Eq. 8 behind a frozen decoder, is

    --set driver_steps=6000 --set driver_image_steps=0 --set joint_steps=0

`--test` also scores the test frames at the end, once; choose by the validation frames. The same
command again goes on where it was stopped. `--tiny` shows in a minute that all works.
"""

import argparse

from keras_vpgc import VPGCError
from keras_vpgc.cli.train import split_settings
from keras_vpgc.demo import demo_portrait
from keras_vpgc.evaluation.ablation_priors import run_driver_ablation
from keras_vpgc.evaluation.scorer import Features

TINY = {
    "preset": "vpgc_tiny",
    "variants": ["baseline", "w P", "full"],
    "seeds": [0],
    "points": 2,
    "recipe": {"steps": 4, "driver_steps": 4, "driver_image_steps": 2, "tensorboard": False},
    "lpips": None,
}


def main(portrait=None, folder="ablation_priors", preset="vpgc_128", **settings):
    if portrait is None:
        portrait = demo_portrait("data/demo")
    if "lpips" not in settings:
        try:
            Features("alex")
        except VPGCError as error:
            print(f"There will be no LPIPS: {error}")
            settings["lpips"] = None
    result = run_driver_ablation(portrait, folder, preset, **settings)
    print(result["table"])
    return result


def arguments(words=None) -> dict:
    """The command line as arguments of `main`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "portrait", nargs="?", help="a portrait folder, by vpgc prepare; default: a demonstration"
    )
    parser.add_argument("folder", nargs="?", default="ablation_priors", help="gets all of it")
    parser.add_argument("preset", nargs="?", default="vpgc_128")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=10, help="how often it is scored")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--stage-1", metavar="FOLDER", help="take the stages 1 of another ablation")
    parser.add_argument("--no-lpips", action="store_true")
    parser.add_argument("--no-landmarks", action="store_true")
    parser.add_argument("--test", action="store_true", help="score the test frames at the end")
    parser.add_argument("--tiny", action="store_true", help="a minute's try")
    given = parser.parse_args(words)
    recipe, network = split_settings(given.set)
    found = {
        "portrait": given.portrait, "folder": given.folder, "preset": given.preset,
        "variants": given.variants, "seeds": given.seeds, "points": given.points,
        "recipe": recipe, "network": network, "stage_1": given.stage_1,
        "landmarks": not given.no_landmarks, "test": given.test,
    }  # fmt: skip
    if given.no_lpips:
        found["lpips"] = None
    if given.tiny:
        found |= {**TINY, "recipe": {**TINY["recipe"], **recipe}}
    return found


if __name__ == "__main__":
    main(**arguments())
