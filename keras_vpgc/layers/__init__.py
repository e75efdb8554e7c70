"""Layers of the portrait models; each serialisable and backend-agnostic."""

from keras_vpgc.layers.commitment_loss import CommitmentLoss
from keras_vpgc.layers.denormalization import Denormalization
from keras_vpgc.layers.global_context import GlobalContext
from keras_vpgc.layers.grid_codebook import GridCodebook
from keras_vpgc.layers.group_normalization import GroupNormalization
from keras_vpgc.layers.landmark_heatmap import LandmarkHeatmap
from keras_vpgc.layers.pixel_shuffle_conv import PixelShuffleConv2D
from keras_vpgc.layers.pointwise_mlp import PointwiseMLP
from keras_vpgc.layers.position_embedding import PositionEmbedding
from keras_vpgc.layers.resample import Downsample, Upsample
from keras_vpgc.layers.residual_block import ResidualBlock
from keras_vpgc.layers.separable_block import SeparableBlock
from keras_vpgc.layers.shared_codebook import SharedCodebook
from keras_vpgc.layers.soft_index import SoftIndex
from keras_vpgc.layers.spatial_attention import SpatialAttention
from keras_vpgc.layers.texture_prior import TexturePrior
from keras_vpgc.layers.to_uint8 import ToUint8
from keras_vpgc.layers.transformer_block import TransformerBlock
from keras_vpgc.layers.vector_quantizer import VectorQuantizer

__all__ = [
    "CommitmentLoss",
    "Denormalization",
    "Downsample",
    "GlobalContext",
    "GridCodebook",
    "GroupNormalization",
    "LandmarkHeatmap",
    "PixelShuffleConv2D",
    "PointwiseMLP",
    "PositionEmbedding",
    "ResidualBlock",
    "SeparableBlock",
    "SharedCodebook",
    "SoftIndex",
    "SpatialAttention",
    "TexturePrior",
    "ToUint8",
    "TransformerBlock",
    "Upsample",
    "VectorQuantizer",
]
