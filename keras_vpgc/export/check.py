"""An exported file beside Keras."""

from collections.abc import Callable

import keras
import numpy as np

from keras_vpgc.errors import VPGCError
from keras_vpgc.export.graph import neutral_landmarks
from keras_vpgc.layers import ToUint8

# Grey levels by which any pixel may differ: one, as rounding may fall to either side.
TOLERANCE = 1.0
BATCHES = (1, 3)


def windows(model, seed: int = 0) -> list[np.ndarray]:
    """Landmarks to compare by: the puppet at rest, and random heads in motion.

    Args:
        model: A puppet's model.
        seed: Seed of the random ones.

    Returns:
        List of float32 `(b, context, points, 2)`, b in `BATCHES`.
    """
    rng = np.random.default_rng(seed)
    rest = neutral_landmarks(model.metadata)
    points = model.heatmap.num_points
    if rest is None or len(rest) != points:
        rest = rng.uniform(0.2, 0.8, (points, 2)).astype("float32")
    still = np.broadcast_to(rest, (model.context, *rest.shape)).astype("float32")
    return [still[None], *(_moving(rest, count, model.context, rng) for count in BATCHES)]


def _moving(rest, count, context, rng):
    """Random turns, sizes, places and faces, that change a little from frame to frame."""

    def walk(spread, *shape):
        first = rng.normal(0, spread, (count, 1, *shape))
        return first + np.cumsum(rng.normal(0, spread / 8, (count, context, *shape)), axis=1)

    angle, scale = walk(0.15), np.exp(walk(0.05))[..., None, None]
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    turn = turn.reshape(count, context, 2, 2)
    middle = rest.mean(0)
    faces = rest - middle + walk(0.005, *rest.shape)
    moved = scale * faces @ np.swapaxes(turn, -1, -2) + middle + walk(0.03, 1, 2)
    return moved.astype("float32")


def compare(model, inputs: str, pixels: str, call: Callable) -> dict:
    """Run an exported file and Keras on the same landmarks.

    Args:
        model: The puppet's model as it was loaded, not what was exported.
        inputs, pixels: See `keras_vpgc.export.graph.export_model`.
        call: The file in its runtime, see `keras_vpgc.export.formats.read`.

    Returns:
        Dict with `largest` and `mean`, the differences of pixels in grey levels, `windows`, how
        many were compared, and `batches`, their sizes.

    Raises:
        VPGCError: if shape or type is not as promised, or a pixel differs by more than
            `TOLERANCE`.
    """
    to_uint8 = ToUint8(dtype="float32")
    differences = []
    batches = windows(model)
    for landmarks in batches:
        wanted = model(landmarks, training=False)
        if pixels == "uint8":
            wanted = to_uint8(wanted) if model.output.dtype != "uint8" else wanted
        else:
            wanted = keras.ops.clip(wanted, -1.0, 1.0)
        wanted = keras.ops.convert_to_numpy(wanted)
        batch = landmarks
        if inputs == "heatmaps":
            batch = keras.ops.convert_to_numpy(model.heatmap(landmarks))
        found = np.asarray(call(np.ascontiguousarray(batch)))
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise VPGCError(
                f"The exported puppet gives {found.dtype} {found.shape} where Keras gives "
                f"{wanted.dtype} {wanted.shape}, so nothing was written: choose another format."
            )
        levels = 1.0 if pixels == "uint8" else 127.5
        differences.append(levels * np.abs(found.astype("float64") - wanted.astype("float64")))
    largest = max(float(x.max()) for x in differences)
    # A NaN is no small difference.
    if not largest <= TOLERANCE:
        raise VPGCError(
            f"A pixel of the exported puppet differs by {largest:.3g} grey levels from Keras's, "
            f"where {TOLERANCE:g} is allowed, so nothing was written: choose another format."
        )
    return {
        "largest": largest,
        "mean": float(np.mean([x.mean() for x in differences])),
        "windows": sum(len(x) for x in batches),
        "batches": sorted({len(x) for x in batches}),
    }
