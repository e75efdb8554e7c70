"""Scoring a puppet: metrics, baselines, tables."""

from keras_vpgc.evaluation.agreement import krippendorff_alpha
from keras_vpgc.evaluation.baselines import mean_frame, nearest_frames, warp_frames
from keras_vpgc.evaluation.bootstrap import (
    bootstrap_correlation,
    bootstrap_interval,
    crossed_interval,
)
from keras_vpgc.evaluation.paired import paired_differences
from keras_vpgc.evaluation.protocol import evaluate_frames, find_landmarks, summary, table

__all__ = [
    "bootstrap_correlation",
    "bootstrap_interval",
    "crossed_interval",
    "evaluate_frames",
    "find_landmarks",
    "krippendorff_alpha",
    "mean_frame",
    "nearest_frames",
    "paired_differences",
    "summary",
    "table",
    "warp_frames",
]
