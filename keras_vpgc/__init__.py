"""Personal portrait reenactment by a grid-based codebook, on Keras 3."""

import importlib.util
import os
import sys


def _choose_backend():
    """Let an installation with one backend work without a word from the user.

    Keras takes KERAS_BACKEND, then its own settings file, then TensorFlow; where that is not
    installed the import of keras fails although another backend is there.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return
    import json
    from pathlib import Path

    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        wanted = json.loads((home / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError):
        wanted = "tensorflow"
    for name in (wanted, "jax", "torch", "tensorflow"):
        if importlib.util.find_spec(name) is not None:
            if name != "tensorflow" or wanted != "tensorflow":
                os.environ["KERAS_BACKEND"] = name
            return


_choose_backend()

# Worker processes of `keras_vpgc.data.prepare` see pictures and no network: keras would cost each
# of them seconds and hundreds of megabytes.
if "KERAS_VPGC_WORKER" not in os.environ:
    from keras_vpgc import layers, losses, metrics, models
from keras_vpgc.errors import VPGCError  # noqa: E402
from keras_vpgc.version import __version__  # noqa: E402


def load(path, **kwargs):
    """Load a puppet, ready to drive.

    Args:
        path: A `puppet.keras` file, or a run folder that holds one.
        **kwargs: Passed to `keras_vpgc.reenactment.Puppet`.

    Returns:
        A `keras_vpgc.reenactment.Puppet`.

    Example:

    ```python
    puppet = keras_vpgc.load("runs/me")
    frames = puppet.drive(landmarks)  # (n, 68, 2) in [0, 1] -> (n, 512, 512, 3) uint8
    ```
    """
    from keras_vpgc.reenactment.puppet import Puppet

    return Puppet.load(path, **kwargs)


__all__ = ["VPGCError", "__version__", "layers", "load", "losses", "metrics", "models"]
