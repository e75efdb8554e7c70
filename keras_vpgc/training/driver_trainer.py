"""Stage 2 on what is seen: the driver through the frozen codes, with the decoder if asked."""

import keras
from keras import ops

from keras_vpgc.errors import VPGCError
from keras_vpgc.training.image_trainer import ImageTrainer, to_model_range


@keras.saving.register_keras_serializable("keras_vpgc")
class DriverTrainer(ImageTrainer):
    """Trains a `PortraitDriver`, and the decoder behind it, by `compile` and `fit` with

    `L = feature_weight * |F_hat_t - Z|_1 + l1_weight * L1 + perceptual_weight * L_per +
    lambda * L_adv`,

    the image being decoded from `F_hat_t` through the codebook. The codes stay as they are.

    Args:
        driver: A `PortraitDriver`.
        autoencoder: The `PortraitAutoencoder` of its features.
        discriminator: A `PatchDiscriminator`, or `None`; only if the decoder is trained too.
        train_decoder: Train the decoder, too? The autoencoder's decoder is then another one than
            that of its own training.
        feature_weight: Weight of Eq. 8's term.
        perceptual, l1_weight, perceptual_weight, adversarial: See `CodebookTrainer`.
        adversarial_weight, adversarial_start, adaptive: See `CodebookTrainer`.
        feature_matching_weight, adaptive_matching, gradient_penalty: See `CodebookTrainer`.
        name: Name of the trainer.

    Raises:
        VPGCError: for a discriminator while the decoder is frozen.

    Call arguments:
        heatmaps: `(batch, s, s, context)` in [0, 1], or `fit`'s pair.

    `fit`'s `x` is the pair of heatmaps and true features Z `(batch, h, w, d)`, `y` the images,
    uint8 or float in [-1, 1]; `sample_weight`, if given, weighs the pixels of L1, as in
    `CodebookTrainer`.

    Output shape:
        The images, float32 in [-1, 1].

    Example:

    ```python
    trainer = DriverTrainer(driver, autoencoder, train_decoder=True)
    trainer.compile(learning_rate=1e-4)
    trainer.fit((heatmaps, features), images_uint8, batch_size=8, epochs=10)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 8; the image terms of stage 2 are ours.
    """

    more_logs = ("features",)

    def __init__(
        self,
        driver,
        autoencoder,
        discriminator=None,
        *args,
        train_decoder=False,
        feature_weight=10.0,
        name="driver_trainer",
        **kwargs,
    ):
        if discriminator is not None and not train_decoder:
            raise VPGCError(
                "An adversarial loss teaches the decoder: set train_decoder=True, or leave the "
                "discriminator out."
            )
        super().__init__(
            autoencoder.decoder,
            discriminator,
            *args,
            name=name,
            driver=driver,
            decoding=autoencoder.decoder,
            codebook=driver.codebook or autoencoder.codebook,
            soft_index=autoencoder.soft_index,
            **kwargs,
        )
        self.feature_weight = float(feature_weight)
        self.train_decoder = bool(train_decoder)

    @property
    def more_parts(self):
        """What is trained besides driver and decoder."""
        return []

    def call(self, heatmaps, training=None):
        if isinstance(heatmaps, list | tuple):
            heatmaps, _ = heatmaps
        return self._show(self.driver(heatmaps, training=training), training)[0]

    def render(self, inputs, training):
        heatmaps, true = inputs
        features = self.driver(heatmaps, training=training)
        error = ops.mean(ops.abs(ops.cast(features, "float32") - true))
        return *self._show(features, training), {"features": self.feature_weight * error}

    def _show(self, features, training):
        """Images of features, and what enters the last layer."""
        quantized = self.codebook(features)
        if self.soft_index is not None:
            quantized = self.soft_index([features, quantized])
        return self.decode(quantized, training=training)

    def split(self):
        network = self.driver.trainable_variables
        return [*network, *(self.decoding.trainable_variables if self.train_decoder else [])], []

    def unpack(self, data):
        (heatmaps, features), images, weights = keras.utils.unpack_x_y_sample_weight(data)
        weights = None if weights is None else ops.cast(weights, "float32")
        inputs = ops.cast(heatmaps, "float32"), ops.cast(features, "float32")
        return inputs, to_model_range(images), weights
