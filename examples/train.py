"""From a video to a puppet in a few lines.

KERAS_BACKEND=jax python examples/train.py              # a demonstration clip
KERAS_BACKEND=torch python examples/train.py me.mp4 data/me runs/me vpgc_256
"""

import sys

import keras_vpgc
from keras_vpgc.data import prepare
from keras_vpgc.demo import demo_portrait
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.training.recipes import train_puppet


def main(
    video=None,
    portrait_folder="data/demo",
    run_folder="runs/demo",
    preset="vpgc_tiny",
    **settings,
):
    portrait = prepare(video, portrait_folder) if video else demo_portrait(portrait_folder)
    train_puppet(portrait, run_folder, preset, **settings)
    print(evaluate_run(run_folder, landmarks=False)["table"])

    puppet = keras_vpgc.load(run_folder)
    frames = puppet.drive(portrait.landmarks[portrait.indices("test")])
    print(f"{len(frames)} frames of {puppet.size}x{puppet.size} pixels were driven.")


if __name__ == "__main__":
    main(*sys.argv[1:])
