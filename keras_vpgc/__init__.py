"""Personal portrait reenactment by a grid-based codebook, on Keras 3."""

import importlib
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


def _is_quick() -> bool:
    """Start without Keras, which takes seconds?

    So does the command, whose help needs none, and so do the worker processes of
    `keras_vpgc.data.prepare`, which see pictures and no network. Elsewhere Keras is there at once:
    `keras.saving.load_model` must know the layers of a puppet after `import keras_vpgc`.
    """
    program = os.path.basename((sys.argv or [""])[0])
    return program in ("vpgc", "vpgc.exe") or "KERAS_VPGC_WORKER" in os.environ


if not _is_quick():
    from keras_vpgc import layers, losses, metrics, models
from keras_vpgc.errors import VPGCError  # noqa: E402
from keras_vpgc.version import __version__  # noqa: E402


def __getattr__(name):
    if name in ("layers", "losses", "metrics", "models"):
        return importlib.import_module(f"keras_vpgc.{name}")
    raise AttributeError(f"module 'keras_vpgc' has no attribute {name!r}")


def load(path, **kwargs):
    """Load a puppet, ready to drive.

    Args:
        path: A `puppet.keras` file, a run folder that holds one, an exported `.onnx`, or a place on
            the Hugging Face Hub: `hf://OWNER/NAME`, or `OWNER/NAME` where there is no such folder.
        **kwargs: Passed to `keras_vpgc.reenactment.Puppet.load`.

    Returns:
        A `keras_vpgc.reenactment.Puppet`.

    Raises:
        VPGCError: if there is none, it cannot be fetched, or it is of another version.

    Example:

    ```python
    puppet = keras_vpgc.load("runs/me")
    frames = puppet.drive(landmarks)  # (n, 68, 2) in [0, 1] -> (n, 512, 512, 3) uint8
    ```
    """
    from keras_vpgc import hub
    from keras_vpgc.reenactment.puppet import Puppet

    if not hub.could_be_hub_name(path):
        return Puppet.load(path, **kwargs)
    try:
        return Puppet.load(f"hf://{path}", **kwargs)
    except VPGCError as error:
        raise VPGCError(f"There is no puppet {path} here. On the Hub: {error}") from None


__all__ = ["VPGCError", "__version__", "layers", "load", "losses", "metrics", "models"]
