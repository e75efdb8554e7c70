"""Training both stages."""

from keras_vpgc.training.checkpoint import Checkpoint
from keras_vpgc.training.codebook_pictures import CodebookPictures
from keras_vpgc.training.codebook_trainer import CodebookTrainer
from keras_vpgc.training.direct_trainer import DirectTrainer
from keras_vpgc.training.driver_trainer import DriverTrainer
from keras_vpgc.training.fit_driver import (
    FeatureLoss,
    draw,
    encode,
    fit_driver,
    fit_driver_on_images,
)
from keras_vpgc.training.optimizer import AveragingAdam, averaged, schedule
from keras_vpgc.training.stage import Stage

__all__ = [
    "AveragingAdam",
    "Checkpoint",
    "CodebookPictures",
    "CodebookTrainer",
    "DirectTrainer",
    "DriverTrainer",
    "FeatureLoss",
    "Stage",
    "averaged",
    "draw",
    "encode",
    "fit_driver",
    "fit_driver_on_images",
    "schedule",
]
