"""Watching the codebook while it trains."""

import contextlib
from pathlib import Path

import keras
import numpy as np

from keras_vpgc.errors import missing_extra
from keras_vpgc.training.optimizer import averaged, parts


class CodebookPictures(keras.callbacks.Callback):
    """Writes what a codebook does with some frames after each epoch: usage, attention, errors.

    The logs get `code_perplexity` (of the whole codebook) and `codes_used` (its share that is
    ever the strongest), so all loggers that follow have them. See `keras_vpgc.visualization`.

    Args:
        images: uint8 `(n, s, s, 3)`, a few frames that are not trained on.
        folder: Gets TensorBoard's event files (by tensorboardX); `None` for none.
        pictures: Gets `{name}_inside_{step:06d}.png`, all figures below each other; `None` for
            none.
        model: The `PortraitAutoencoder`; default: the `autoencoder` of the model that is fitted,
            or that model itself.
        name: Prefix of the names.
        steps_per_epoch: Steps of an epoch.
        places: See `keras_vpgc.visualization.plot_attention`.

    Raises:
        VPGCError: if tensorboardX is missing, or the model has no codebook.

    Example:

    ```python
    trainer.fit(images, callbacks=[CodebookPictures(held_images, "runs/me/logs/tensorboard")])
    ```
    """

    def __init__(
        self,
        images,
        folder=None,
        pictures=None,
        model=None,
        name: str = "codebook",
        steps_per_epoch: int = 1,
        places=((0.5, 0.5),),
    ):
        super().__init__()
        self.images, self.name, self.steps_per_epoch = images, name, steps_per_epoch
        self.pictures = None if pictures is None else Path(pictures)
        self.places = places
        self._given, self._view, self.writer = model, None, None
        if folder is not None:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                raise missing_extra("tensorboardX", "logs") from None
            # The name holds the second of its start: another writer's must not be the same.
            self.writer = SummaryWriter(str(folder), filename_suffix=f".{name}_inside")

    def on_train_begin(self, logs=None):
        from keras_vpgc.visualization import CodebookView

        model = self._given or getattr(self.model, "autoencoder", self.model)
        self._view = CodebookView(model)

    def on_epoch_end(self, epoch, logs=None):
        from keras_vpgc import visualization as see
        from keras_vpgc.visualization.sheets import png

        view, step = self._view, (epoch + 1) * self.steps_per_epoch
        with averaged(*parts(self.model.optimizer)):
            usage = view.usage(self.images)
            figures = {
                "usage": see.plot_usage(view, self.images, usage),
                "attention": see.plot_attention(view, self.images, self.places),
                "cell_error": see.plot_cell_error(view, self.images),
            }
            if not view.shared:
                figures["texture_prior"] = see.plot_texture_prior(view)
        numbers = {"code_perplexity": usage.total_perplexity, "codes_used": usage.total_used}
        if logs is not None:
            logs.update(numbers)
        drawn = {name: see.picture_of(figure) for name, figure in figures.items()}
        if self.writer is not None:
            for name, value in numbers.items():
                self.writer.add_scalar(f"{self.name}/{name}", value, step)
            for name, image in drawn.items():
                self.writer.add_image(f"{self.name}/{name}", image, step, dataformats="HWC")
            self.writer.flush()
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            file = self.pictures / f"{self.name}_inside_{step:06d}.png"
            file.write_bytes(png(_below(drawn.values())))

    def on_train_end(self, logs=None):
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer.close()


def _below(pictures):
    """Pictures of any width below each other, on white."""
    pictures = list(pictures)
    width = max(x.shape[1] for x in pictures)
    return np.vstack(
        [
            np.pad(x, ((0, 0), (0, width - x.shape[1]), (0, 0)), constant_values=255)
            for x in pictures
        ]
    )
