import numpy as np
import pytest

from keras_vpgc import layers
from tests.layers.layer_case import check_layer

MAP = (2, 6, 6, 8)
CODES = (6, 6, 5, 4)
CASES = {
    "CommitmentLoss": (layers.CommitmentLoss, {}, [MAP, MAP]),
    "Denormalization": (layers.Denormalization, {}, MAP),
    "Downsample": (layers.Downsample, {"filters": 4}, MAP),
    "GlobalContext": (layers.GlobalContext, {}, MAP),
    "GridCodebook": (
        layers.GridCodebook,
        {"grid_size": (6, 6), "codes_per_cell": 5, "code_dim": 4},
        MAP,
    ),
    "GroupNormalization": (layers.GroupNormalization, {"groups": 4}, MAP),
    "LandmarkHeatmap": (layers.LandmarkHeatmap, {"size": 32}, (2, 3, 68, 2)),
    "PixelShuffleConv2D": (
        layers.PixelShuffleConv2D,
        {"filters": 3, "kernel_size": 3, "factor": 2},
        MAP,
    ),
    "PointwiseMLP": (layers.PointwiseMLP, {"units": 12, "depth": 2}, MAP),
    "PositionEmbedding": (layers.PositionEmbedding, {}, (2, 9, 8)),
    "ResidualBlock": (layers.ResidualBlock, {"filters": 16, "groups": 4}, MAP),
    "SeparableBlock": (layers.SeparableBlock, {"filters": 16}, MAP),
    "SharedCodebook": (layers.SharedCodebook, {"num_codes": 5}, MAP),
    "SoftIndex": (layers.SoftIndex, {"window_size": 3}, [MAP, CODES]),
    "SpatialAttention": (layers.SpatialAttention, {"groups": 4, "num_heads": 2}, MAP),
    "TexturePrior": (layers.TexturePrior, {"units": 10}, [MAP, CODES]),
    "ToUint8": (layers.ToUint8, {}, MAP),
    "TransformerBlock": (layers.TransformerBlock, {"num_heads": 2, "mlp_units": 16}, (2, 9, 8)),
    "Upsample": (layers.Upsample, {"filters": 4, "shortcut": True}, MAP),
    "VectorQuantizer": (
        layers.VectorQuantizer,
        {"num_codes": 7, "ema_decay": 0.9, "revive_after": 5},
        MAP,
    ),
}
DTYPES = {"GridCodebook": "float32", "SharedCodebook": "float32", "ToUint8": "uint8"}


def test_every_public_layer_is_here():
    assert set(CASES) == set(layers.__all__)


@pytest.mark.parametrize("name", CASES)
def test_layer(name, rng, tmp_path):
    cls, arguments, shapes = CASES[name]

    def array(shape):
        values = rng.normal(size=shape).astype("float32")
        return np.abs(values) % 1 if name == "LandmarkHeatmap" else values

    inputs = [array(s) for s in shapes] if isinstance(shapes, list) else array(shapes)
    # A nearest code may be another one in bfloat16, and one level of 255 is 1 after rounding.
    check_layer(lambda **k: cls(**arguments, **k), inputs, tmp_path, DTYPES.get(name))
