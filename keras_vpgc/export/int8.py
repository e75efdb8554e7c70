"""Convolutions of an ONNX file in 8 bits."""

import warnings
from pathlib import Path

import numpy as np

from keras_vpgc.data import landmark_sets
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.data.portrait import Portrait, fill
from keras_vpgc.export.check import windows

COUNT = 32


def calibration(model, portrait=None) -> np.ndarray:
    """Windows of landmarks that a puppet will see.

    Args:
        model: The puppet's model.
        portrait: The portrait folder that it was trained on: frames spread over its training part;
            `None` for made-up heads around the puppet at rest.

    Returns:
        Float32 `(n, context, points, 2)`.
    """
    if portrait is None:
        return np.concatenate([x for seed in range(COUNT // 4) for x in windows(model, seed)])
    known = Portrait(portrait)
    landmarks = landmark_sets.landmarks(fill(known.points, known.valid), model.landmark_set)
    train = known.indices("train")
    chosen = train[np.linspace(0, len(train) - 1, min(COUNT, len(train))).astype(int)]
    mode = model.metadata.get("context_mode", "centered")
    around = context_indices(len(landmarks), model.context, mode)[chosen]
    return landmarks[around].astype("float32")


def quantise(path, seen: np.ndarray) -> dict:
    """Turn a float32 file into one with convolutions in int8, but for the first and the last.

    Weights by channel and activations by map, ONNX Runtime's static quantisation; other operators
    stay in float32.

    Args:
        path: The ONNX file, from landmarks; it is replaced.
        seen: See `calibration`.

    Returns:
        Dict of `mean` and `largest`, the distances of pixels from the float32 file's in grey levels
        over `images` of the windows.

    Example:

    ```python
    quantise("me.onnx", calibration(model))["mean"]  # 0.8
    ```
    """
    import onnx
    from onnxruntime import quantization

    from keras_vpgc.export import formats

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(seen)

        def get_next(self):
            window = next(self.left, None)
            return None if window is None else {"landmarks": window[None]}

    path = Path(path)
    model = onnx.load(path)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    target = path.with_name(f"{path.stem}.int8.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(
            path,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
        )
    small = onnx.load(target)
    del small.metadata_props[:]
    small.metadata_props.extend(model.metadata_props)
    onnx.save(small, target)
    shown = seen[:: max(1, len(seen) // 8)]
    images = [
        np.concatenate([formats.read("onnx", file)(window[None]) for window in shown])
        for file in (path, target)
    ]
    levels = 1.0 if images[0].dtype == np.uint8 else 127.5
    off = levels * np.abs(images[0].astype("float64") - images[1].astype("float64"))
    target.replace(path)
    return {"mean": float(off.mean()), "largest": float(off.max()), "images": len(shown)}
