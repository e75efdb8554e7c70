"""Metrics of talking portraits, for `compile(metrics=...)` and alone."""

from keras_vpgc.metrics.landmark_distance import LandmarkDistance, landmark_distance
from keras_vpgc.metrics.lpips import LPIPS
from keras_vpgc.metrics.psnr import PSNR, psnr
from keras_vpgc.metrics.ssim import SSIM, ssim

__all__ = ["LPIPS", "PSNR", "SSIM", "LandmarkDistance", "landmark_distance", "psnr", "ssim"]
