"""Metrics of talking portraits, for `compile(metrics=...)` and alone."""

from keras_vpgc.metrics.blinks import blink_agreement, eye_closure, find_blinks
from keras_vpgc.metrics.expression_error import expression_error
from keras_vpgc.metrics.flicker import Flicker, flicker, still_pairs
from keras_vpgc.metrics.head_pose_error import head_pose_error
from keras_vpgc.metrics.identity import (
    FaceEmbedding,
    IdentitySimilarity,
    align_face,
    identity_distance,
    identity_similarity,
)
from keras_vpgc.metrics.jitter import Jitter, jitter
from keras_vpgc.metrics.landmark_distance import MOUTH_POINTS, LandmarkDistance, landmark_distance
from keras_vpgc.metrics.lpips import LPIPS
from keras_vpgc.metrics.psnr import PSNR, psnr
from keras_vpgc.metrics.sharpness import Sharpness, sharpness
from keras_vpgc.metrics.ssim import SSIM, ssim

__all__ = [
    "LPIPS",
    "MOUTH_POINTS",
    "PSNR",
    "SSIM",
    "FaceEmbedding",
    "Flicker",
    "IdentitySimilarity",
    "Jitter",
    "LandmarkDistance",
    "Sharpness",
    "align_face",
    "blink_agreement",
    "expression_error",
    "eye_closure",
    "find_blinks",
    "flicker",
    "head_pose_error",
    "identity_distance",
    "identity_similarity",
    "jitter",
    "landmark_distance",
    "psnr",
    "sharpness",
    "ssim",
    "still_pairs",
]
