"""The network that is exported, and what its file says of itself."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.data import landmark_sets
from keras_vpgc.data.crop import Crop, to_crop
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.data.retarget import Camera, HeadTrack, project
from keras_vpgc.layers import PixelShuffleConv2D, SoftIndex, ToUint8
from keras_vpgc.layers.landmark_heatmap import CONTOURS
from keras_vpgc.version import __version__

INPUTS = ("landmarks", "heatmaps")
PIXELS = ("uint8", "float")
# Of the metadata.
VERSION = 1


class _ToFloat(keras.layers.Layer):
    """Images clipped to [-1, 1]."""

    def call(self, images):
        return ops.clip(ops.cast(images, "float32"), -1.0, 1.0)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def export_model(
    model, inputs: str = "landmarks", pixels: str = "uint8", rows: bool = True
) -> keras.Model:
    """A puppet's network in standard operators: no loops, and soft indexing in bounded chunks.

    Args:
        model: A `PortraitReenactor` or `DirectMapping`.
        inputs: `"landmarks"`, or `"heatmaps"`: from the drawings on.
        pixels: `"uint8"` or `"float"`.
        rows: Softmax of the soft index along rows? ONNX Runtime is quick in it; OpenVINO, left to
            take bfloat16, gives zeros for it.

    Returns:
        Keras model of the same weights, from float32 `landmarks` `(b, context, points, 2)` in
        [0, 1] or `heatmaps` `(b, d, d, context)` in [0, 1] to `images` `(b, s, s, 3)`, uint8 RGB or
        float32 in [-1, 1].

    Example:

    ```python
    images = export_model(puppet.model)(windows)
    ```
    """
    config = {**model.get_config(), "dtype": "float32", "output": "float"}
    if "implementation" in config:
        # "attention" and "direct" hold all similarities of a batch at once.
        config["implementation"] = "chunked"
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if layer is copy.heatmap or isinstance(layer, SoftIndex):
            layer.unrolled = True
        if isinstance(layer, SoftIndex):
            layer.rows = rows
    last: type = ToUint8 if pixels == "uint8" else _ToFloat
    shuffle = copy.decoder.layers[-1]
    if pixels == "uint8" and isinstance(shuffle, PixelShuffleConv2D):
        # From [-1, 1] to [0, 255] by its weights.
        shuffle.kernel.assign(127.5 * shuffle.kernel)
        shuffle.bias.assign(127.5 * (shuffle.bias + 1.0))
        shuffle.rounded = True
        last = keras.layers.Identity
    source = copy.input if inputs == "landmarks" else copy.heatmap.output
    network = keras.Model(source, copy.output)
    entry = keras.Input(source.shape[1:], name=inputs, dtype="float32")
    return keras.Model(entry, last(name="images", dtype="float32")(network(entry)))


def neutral_landmarks(metadata: dict) -> np.ndarray | None:
    """The landmarks of a puppet at rest, where its metadata tells.

    Args:
        metadata: A puppet's.

    Returns:
        Float32 `(points, 2)` in [0, 1] of the crop, or `None`.
    """
    if any(metadata.get(key) is None for key in ("shape", "pose", "crop", "landmark_set")):
        return None
    pose = metadata["pose"]
    head = HeadTrack(
        np.asarray(pose["rotation"])[None],
        np.asarray(pose["translation"])[None],
        np.ones(1),
        np.asarray(metadata["shape"]),
        np.asarray(pose["expression"])[None],
        Camera(**pose["camera"]),
    )
    points = to_crop(project(head)[..., :2], Crop(**metadata["crop"]))
    if points.shape[1] == 478:
        points = landmark_sets.landmarks(points, metadata["landmark_set"])
    return points[0].astype("float32")


def describe(model, inputs: str, pixels: str) -> dict:
    """What a driver needs to know that has the file alone.

    Args:
        model: The puppet's model.
        inputs, pixels: See `export_model`.

    Returns:
        JSON-able dict: names, shapes and ranges of `input` and `output`; `size` and
        `heatmap_size` in pixels,
        `frame_rate`, `landmark_set`, `context`, `context_mode` and `context_offsets` (the frames of
        a window, relative to the one that is shown; beyond its ends a clip's first or last frame is
        repeated); `contours` (points in order, and whether they are closed) and `line_width` in
        pixels, as heatmaps are drawn; `neutral_landmarks`; and the puppet's own `metadata`.
    """
    metadata = model.metadata
    context = model.context
    mode = metadata.get("context_mode", "centered")
    # The offsets of a frame that has all its neighbours.
    middle = context
    offsets = context_indices(2 * context + 1, context, mode)[middle] - middle
    size, heatmap = model.image_size, model.heatmap
    drawn, _ = heatmap.size
    shapes = {
        "landmarks": ["batch", context, heatmap.num_points, 2],
        "heatmaps": ["batch", drawn, drawn, context],
    }
    neutral = neutral_landmarks(metadata)
    return {
        "version": VERSION,
        "generator": f"keras_vpgc {__version__}",
        "input": {
            "name": inputs,
            "shape": shapes[inputs],
            "dtype": "float32",
            "range": [0, 1],
        },
        "output": {
            "name": "images",
            "shape": ["batch", size, size, 3],
            "dtype": "uint8" if pixels == "uint8" else "float32",
            "range": [0, 255] if pixels == "uint8" else [-1, 1],
            "color": "RGB",
        },
        "size": size,
        "heatmap_size": drawn,
        "frame_rate": metadata.get("frame_rate"),
        "landmark_set": model.landmark_set,
        "context": context,
        "context_mode": mode,
        "context_offsets": offsets.tolist(),
        "contours": [[list(points), closed] for points, closed in CONTOURS[model.landmark_set]],
        "line_width": heatmap.line_width or max(1.0, 2.0 * drawn / 512),
        "neutral_landmarks": None if neutral is None else np.round(neutral, 6).tolist(),
        "metadata": metadata,
    }
