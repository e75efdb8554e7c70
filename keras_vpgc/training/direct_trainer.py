"""Training the direct mapping from landmarks to images."""

import keras
from keras import ops

from keras_vpgc.training.image_trainer import ImageTrainer, to_model_range


@keras.saving.register_keras_serializable("keras_vpgc")
class DirectTrainer(ImageTrainer):
    """Trains a `DirectMapping` by `compile` and `fit` with pix2pixHD-like losses:

    `L = l1_weight * L1 + perceptual_weight * L_per + lambda * L_adv`, L_adv with feature matching.

    Args:
        model: A `DirectMapping`.
        discriminator, perceptual, l1_weight, perceptual_weight, adversarial: See `CodebookTrainer`.
        adversarial_weight, adversarial_start, adaptive: See `CodebookTrainer`.
        feature_matching_weight, adaptive_matching, gradient_penalty: See `CodebookTrainer`.
        name: Name of the trainer.

    Call arguments:
        landmarks: Float `(batch, context, points, 2)` in [0, 1].

    `fit`'s `y` is the images, uint8 or float in [-1, 1]; `sample_weight`, if given, weighs the
    pixels of L1, as in `CodebookTrainer`.

    Output shape:
        The images, float32 in [-1, 1].

    Example:

    ```python
    trainer = DirectTrainer(DirectMapping.from_preset("vpgc_128"), PatchDiscriminator(128))
    trainer.compile(learning_rate=2e-4)
    trainer.fit(landmark_windows, images_uint8, batch_size=4, epochs=10)
    ```

    References:
        Wang et al., pix2pixHD, CVPR 2018.
    """

    def __init__(self, model, *args, name="direct_trainer", **kwargs):
        super().__init__(model.decoder, *args, name=name, mapping=model, **kwargs)

    def call(self, landmarks, training=None):
        return self.mapping(landmarks, training=training)

    def render(self, inputs, training):
        model = self.mapping
        # Nothing to learn in the drawing.
        drawn = ops.stop_gradient(model.heatmap(inputs))
        image, last_input = self.decode(model.encoder(drawn, training=training), training=training)
        return image, last_input, {}

    def split(self):
        return self.mapping.trainable_variables, []

    def unpack(self, data):
        landmarks, images, weights = keras.utils.unpack_x_y_sample_weight(data)
        weights = None if weights is None else ops.cast(weights, "float32")
        return ops.cast(landmarks, "float32"), to_model_range(images), weights
