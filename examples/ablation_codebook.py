"""Is the grid codebook worth it? Stage 1 with other codebooks, scored alike as they train.

KERAS_BACKEND=torch python examples/ablation_codebook.py data/me ablations/me vpgc_256
KERAS_BACKEND=torch python examples/ablation_codebook.py    # minutes on a demonstration clip

Trained, with three seeds each: the vanilla codebook of the paper's Tab. 4; the same as later work
trains it (moving averages, k-means at the start, dead codes revived); one list of short codes
without a grid; the grid read hard, softly within a cell, and softly within its window, as the
package has it; and no codebook at all. With one seed all start from the same weights and see the
same batches. Validation frames are scored at ten points on the way: `ablation.csv`, `ablation.md`,
plots against iterations and seconds, and `faces.png`, the paper's Fig. 4. The same command again
goes on where it was stopped.
"""

import sys

from keras_vpgc import VPGCError
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
        settings = {**QUICK, **settings}
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


if __name__ == "__main__":
    main(*sys.argv[1:])
