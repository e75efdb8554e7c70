"""Stage 1: training the codebook with all of the paper's losses (VPGC, Eq. 3)."""

import keras
from keras import ops

from keras_vpgc.training.image_trainer import ImageTrainer, to_model_range


@keras.saving.register_keras_serializable("keras_vpgc")
class CodebookTrainer(ImageTrainer):
    """Trains a `PortraitAutoencoder` by `compile` and `fit` with

    `L_cb = l1_weight * L1 + perceptual_weight * L_per + L_VQ + lambda * L_adv`.

    L_VQ is what the autoencoder's `CommitmentLoss` adds. The discriminator has its own optimiser
    and joins at `adversarial_start`; before that it costs nothing. With `adaptive=True`
    `lambda = adversarial_weight * |grad_w L_rec| / (|grad_w L_adv| + 1e-4)`, its fraction clipped
    to [0, 1e4],
    `w` the decoder's last kernel and `L_rec` = L1 and perceptual terms; else `lambda =
    adversarial_weight`.

    Args:
        autoencoder: A `PortraitAutoencoder`.
        discriminator: A `PatchDiscriminator`, or `None` for no adversarial loss.
        perceptual: A callable `(true, predicted) -> scalar`, such as
            `keras_vpgc.losses.PerceptualLoss`, or `None`.
        l1_weight: Weight of the mean absolute error.
        perceptual_weight: Weight of the perceptual term.
        adversarial: `"hinge"` or `"lsgan"`.
        adversarial_weight: See above.
        adversarial_start: Step at which the adversarial loss begins.
        adaptive: Use the adaptive lambda?
        feature_matching_weight: Adds that much of `feature_matching_loss` to L_adv; the
            discriminator must have been built with `feature_maps=True` then. pix2pixHD has 10.
        adaptive_matching: Weigh feature matching by lambda as well, as a part of L_adv? Else by
            `feature_matching_weight` alone, as a part of L_rec: it stays where a discriminator that
            tells all frames apart makes the adaptive lambda small.
        gradient_penalty: Adds that much of `keras_vpgc.losses.gradient_penalty` to what the
            discriminator minimises.

    Raises:
        VPGCError: for an unknown adversarial loss, or feature matching without feature maps.

    Call arguments:
        images: `(batch, s, s, 3)`, float in [-1, 1] or uint8.

    `fit`'s `y`, if given, weighs the pixels of L1: float `(batch, s, s, 1)` with mean 1, see
    `keras_vpgc.data.dataset.weigh_regions`.

    Output shape:
        The reconstruction, float32 in [-1, 1].

    Example:

    ```python
    trainer = CodebookTrainer(autoencoder, PatchDiscriminator(image_size=128))
    trainer.compile(learning_rate=2e-4)
    trainer.fit(images_uint8, batch_size=4, epochs=10)
    autoencoder.save("autoencoder.keras")
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 3; adaptive lambda: Esser et al., CVPR 2021, Eq. 7.
    """

    more_logs = ("vq",)

    def __init__(
        self,
        autoencoder,
        discriminator=None,
        perceptual=None,
        *args,
        name="codebook_trainer",
        **kwargs,
    ):
        super().__init__(
            autoencoder.decoder,
            discriminator,
            perceptual,
            *args,
            name=name,
            autoencoder=autoencoder,
            **kwargs,
        )

    def call(self, images, training=None):
        return self.autoencoder(to_model_range(images), training=training)

    def render(self, inputs, training):
        # The autoencoder with its parts called one by one, to see the last layer's input.
        model = self.autoencoder
        features = model.encoder(inputs, training=training)
        if model.soft_index is None:
            quantized = model.codebook(features, training=training)
        else:
            quantized = model.soft_index([features, model.codebook(features)])
        quantized = model.commitment([features, quantized])
        image, last_input = self.decode(quantized, training=training)
        return image, last_input, {"vq": sum(model.losses, ops.zeros(()))}

    def split(self):
        codes = self.autoencoder.codebook.trainable_variables
        chosen = {id(v) for v in codes}
        return [v for v in self.autoencoder.trainable_variables if id(v) not in chosen], codes

    def unpack(self, data):
        images, weights, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = to_model_range(images)
        return images, images, None if weights is None else ops.cast(weights, "float32")
