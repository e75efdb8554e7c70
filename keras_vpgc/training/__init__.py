"""Training both stages."""

from keras_vpgc.training.codebook_trainer import CodebookTrainer
from keras_vpgc.training.fit_driver import draw, encode, fit_driver, fit_driver_on_images

__all__ = ["CodebookTrainer", "draw", "encode", "fit_driver", "fit_driver_on_images"]
