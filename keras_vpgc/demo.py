"""The demonstration: a real clip, the whole way, within minutes."""

import time
from pathlib import Path

from keras_vpgc import assets
from keras_vpgc.data import prepare
from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.training.recipes import train_puppet

PRESET = "vpgc_tiny"
# What two CPU cores do in the demo's time.
RECIPE = {"steps": 1000, "driver_steps": 1200, "driver_image_steps": 600}
# Its twenty seconds end in poses that come nowhere else, so it is tested all over.
TEST_BLOCKS = 6


def demo_portrait(output):
    """The portrait of a real clip that a package registry serves.

    Args:
        output: The portrait folder.

    Returns:
        A `Portrait`; that of `output`, if it is there already.

    Raises:
        VPGCError: if the clip cannot be had.

    Example:

    ```python
    portrait = demo_portrait("data/demo")
    ```
    """
    clip = assets.find("demo_acting")
    print(f"The clip: {assets.ASSETS['demo_acting'].licence}.")
    return prepare(clip, output, test_blocks=TEST_BLOCKS)


def demo(output, video=None, *, preset: str | None = None, minutes: float = 7.0) -> dict:
    """Prepare a clip, train both stages, drive the unseen frames and score them.

    Args:
        output: Folder for everything; `portrait/` and `run/` in it.
        video: A video of one person; default: a real clip that a package registry serves.
        preset: Name of a preset; default: the demo's own small settings.
        minutes: Training time at most; each of the three phases stops early at its third.

    Returns:
        What `evaluate_run` returns, with `seconds`.

    Raises:
        VPGCError: for a video that cannot be used.

    Example:

    ```python
    print(demo("vpgc_demo")["table"])
    ```
    """
    began = time.monotonic()
    output = Path(output)
    if output.is_file():
        raise VPGCError(f"{output} is a file: give a folder with -o.")
    place = output / "portrait"
    portrait = demo_portrait(place) if video is None else prepare(video, place)
    train_puppet(
        portrait,
        output / "run",
        preset or PRESET,
        recipe={**({} if preset else RECIPE), "time_limit": 20 * minutes},
    )
    result = evaluate_run(output / "run")
    result["seconds"] = round(time.monotonic() - began)
    print(f"All of it took {result['seconds']} s.")
    return result
