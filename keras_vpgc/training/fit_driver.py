"""Stage 2: training the driver by plain `fit` on cached features (VPGC, Eq. 8)."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from keras_vpgc.data.dataset import (
    DriverBatches,
    DriverImageBatches,
    context_indices,
    stack_context,
    weigh_regions,
)
from keras_vpgc.errors import VPGCError
from keras_vpgc.layers import LandmarkHeatmap
from keras_vpgc.training.driver_trainer import DriverTrainer
from keras_vpgc.training.optimizer import adam, parts


def encode(autoencoder, images, batch_size=16, dtype="float16", progress=None):
    """Features Z of images by the frozen stage-1 encoder.

    Args:
        autoencoder: A trained `PortraitAutoencoder`.
        images: uint8 `(n, s, s, 3)`.
        batch_size: Images a call.
        dtype: Type of the result; float16 halves the cache and is finer than the driver's error.
        progress: Optional callable that wraps the list of batches (for a progress bar).

    Returns:
        Array `(n, h, w, d)`.
    """
    call = backend.compiled(autoencoder.encoder)
    result = None
    starts = range(0, len(images), batch_size)
    for start in progress(starts) if progress else starts:
        batch = images[start : start + batch_size].astype("float32") / 127.5 - 1.0
        count = len(batch)
        # The last batch is filled up: one compiled shape serves all.
        batch = np.pad(batch, ((0, min(batch_size, len(images)) - count), *[(0, 0)] * 3))
        features = keras.ops.convert_to_numpy(call(batch))[:count]
        if result is None:
            result = np.empty((len(images), *features.shape[1:]), dtype)
        result[start : start + count] = features
    return result


def draw(landmarks, size, line_width=None, batch_size=32, contours="ibug-68"):
    """Heatmaps of a clip by the layer that draws them at inference.

    Args:
        landmarks: Float `(n, points, 2)` in [0, 1].
        size: Height and width in pixels.
        line_width: See `LandmarkHeatmap`.
        batch_size: Frames a call.
        contours: A landmark set or contours, see `LandmarkHeatmap`.

    Returns:
        uint8 `(n, size, size)`, 255 = 1.
    """
    layer = LandmarkHeatmap(size, line_width, contours, dtype="float32")
    inputs = keras.Input((1, *landmarks.shape[1:]))
    call = backend.compiled(keras.Model(inputs, layer(inputs)))
    result = np.empty((len(landmarks), size, size), "uint8")
    for start in range(0, len(landmarks), batch_size):
        batch = landmarks[start : start + batch_size, None].astype("float32")
        count = len(batch)
        batch = np.pad(
            batch, ((0, min(batch_size, len(landmarks)) - count), *[(0, 0)] * 3), mode="edge"
        )
        heatmap = keras.ops.convert_to_numpy(call(batch))[:count, ..., 0]
        result[start : start + count] = np.rint(heatmap * 255)
    return result


@keras.saving.register_keras_serializable("keras_vpgc")
class FeatureLoss(keras.losses.Loss):
    """Eq. 8, and how the features change from a frame to the next.

    `|F - Z|_1 + temporal_weight * |(F' - F) - (Z' - Z)|_1`, the primes of the frame after. L1 alone
    lets each frame err in its own way, which flickers.

    Args:
        temporal_weight: See above; with it a batch must hold pairs of frames one after the other,
            as `DriverBatches(pairs=True)` gives them.

    Call arguments:
        y_true, y_pred: Features `(batch, h, w, d)`.

    Example:

    ```python
    driver.compile("adam", FeatureLoss(temporal_weight=0.5), loss_weights=[10.0])
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 8; the temporal term is ours.
    """

    def __init__(self, temporal_weight: float = 0.0, name="features", **kwargs):
        super().__init__(name=name, **kwargs)
        self.temporal_weight = temporal_weight

    def call(self, y_true, y_pred):
        error = ops.cast(y_pred, "float32") - ops.cast(y_true, "float32")
        loss = ops.mean(ops.abs(error), axis=-1)
        if self.temporal_weight:
            # The error of a difference is the difference of the errors.
            change = ops.mean(ops.abs(error[1::2] - error[::2]), axis=-1)
            loss = loss + self.temporal_weight * ops.repeat(change, 2, axis=0)
        return loss

    def get_config(self):
        return {**super().get_config(), "temporal_weight": self.temporal_weight}


def fit_driver(
    driver,
    landmarks,
    features,
    indices,
    validation=None,
    *,
    mode="centered",
    line_width=None,
    landmark_set="ibug-68",
    steps=1000,
    batch_size=8,
    learning_rate=2e-4,
    feature_weight=10.0,
    temporal_weight=0.0,
    scale_jitter=0.0,
    sampling=None,
    average=None,
    accumulate=1,
    steps_per_epoch=100,
    seed=0,
    callbacks=(),
    verbose="auto",
    heatmaps=None,
    stage=None,
    preview=None,
):
    """Compile and fit a driver: `L_feat = feature_weight * |F_hat_t - Z|_1` (Eq. 8).

    Args:
        driver: A `PortraitDriver`.
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        features: Float `(m, h, w, d)`, `encode` of the training frames.
        indices: Int `(m,)`, the training frames.
        validation: Optional pair of features and indices of the validation frames; with a
            `temporal_weight` they must be pairs of frames one after the other too.
        mode: Context mode, see `context_indices`.
        line_width: See `LandmarkHeatmap`.
        landmark_set: The set of the landmarks, `"ibug-68"` or `"ibug-68-iris"`.
        steps: Number of steps.
        batch_size: Frames a step.
        learning_rate: A rate or a schedule.
        feature_weight: lambda of Eq. 8.
        temporal_weight: See `FeatureLoss`.
        scale_jitter: See `DriverBatches`.
        sampling: How often each training frame is seen, see `keras_vpgc.data.sampling`.
        average: Keep averages of the weights and leave the driver with them, see
            `AveragingAdam`.
        accumulate: Batches of one update, see there.
        steps_per_epoch: Steps between two validations.
        seed: Seed of the order.
        callbacks: Keras callbacks.
        verbose: As in `fit`.
        heatmaps: `draw` of the landmarks, where it has been done already.
        stage: A `Stage`, which logs, saves and goes on after a kill; it has its own `callbacks`,
            `verbose`, `steps` and `steps_per_epoch`.
        preview: With a stage, see `Previews`.

    Returns:
        The logs of all epochs, a list of dicts.

    Raises:
        VPGCError: if features and indices do not belong together.
    """
    if len(features) != len(indices):
        raise VPGCError(f"There are {len(features)} features for {len(indices)} frames.")
    context = driver.input_shape[-1]
    if heatmaps is None:
        heatmaps = draw(
            np.asarray(landmarks), driver.heatmap_size, line_width, contours=landmark_set
        )
    neighbours = context_indices(len(landmarks), context, mode)
    batches = DriverBatches(
        heatmaps,
        neighbours[indices],
        features,
        batch_size,
        stage.steps_per_epoch if stage else min(steps, steps_per_epoch),
        seed,
        scale_jitter=scale_jitter,
        sampling=sampling,
        pairs=bool(temporal_weight),
        indices=indices,
        prefetch=2,
        shard=backend.process(),
    )
    if validation is not None and len(validation[1]):
        validation = (
            stack_context(heatmaps, neighbours[validation[1]]),
            validation[0].astype("float32"),
        )
    else:
        validation = None
    driver.adapt(features)
    driver.compile(
        adam(learning_rate, average=average, accumulate=accumulate),
        loss=FeatureLoss(temporal_weight),
        loss_weights=[feature_weight],
        jit_compile=backend.jit_by_default(),
    )
    backend.record_steps(driver)
    fit = {"validation_data": validation, "validation_batch_size": batch_size}
    if stage is not None:
        return stage.fit(driver, batches, draw=preview, **fit)
    return _fit(driver, batches, steps, callbacks, verbose, **fit)


def _fit(model, batches, steps, callbacks, verbose, **kwargs):
    """`Stage.fit` without a run folder."""
    epochs = -(-steps // len(batches))
    history = model.fit(
        batches,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=verbose,
        shuffle=False,
        **kwargs,
    )
    backend.release_steps(model)
    for optimizer in parts(model.optimizer):
        if hasattr(optimizer, "swap"):
            optimizer.swap()
    logs = history.history
    return [dict(zip(logs, row, strict=True)) for row in zip(*logs.values(), strict=True)]


def fit_driver_on_images(
    driver,
    autoencoder,
    landmarks,
    images,
    features,
    indices,
    validation=None,
    *,
    mode="centered",
    line_width=None,
    landmark_set="ibug-68",
    steps=1000,
    batch_size=4,
    learning_rate=1e-4,
    feature_weight=10.0,
    image_weight=30.0,
    perceptual=None,
    perceptual_weight=1.0,
    train_decoder=False,
    discriminator=None,
    adversarial=None,
    region_weights=None,
    jitter=0.0,
    backdrop=None,
    scale_jitter=0.0,
    sampling=None,
    average=None,
    accumulate=1,
    steps_per_epoch=100,
    seed=0,
    callbacks=(),
    verbose="auto",
    heatmaps=None,
    stage=None,
    preview=None,
):
    """Train a driver further on what is seen: through the frozen codebook and decoder.

    `L = feature_weight * |F_hat_t - Z|_1 + image_weight * (|w (I_hat - I)|_1 + perceptual_weight *
    L_per)`, `w` heavier on face, eyes and mouth; see `DriverTrainer`. Eq. 8 alone spends its effort
    on all features alike; this term spends it on those that show.

    Args:
        driver: A `PortraitDriver`, trained by `fit_driver`.
        autoencoder: The `PortraitAutoencoder` of its features.
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        images: uint8 `(m, s, s, 3)`, the training frames.
        features: Float `(m, h, w, d)`, `encode` of them.
        indices: Int `(m,)`, their numbers.
        validation: Optional triple of images, features and indices of the validation frames.
        mode, line_width, landmark_set, steps, batch_size, learning_rate: See `fit_driver`.
        feature_weight, scale_jitter, sampling, average, accumulate: See `fit_driver`.
        steps_per_epoch, seed, callbacks, verbose, heatmaps, stage, preview: See `fit_driver`.
        image_weight: Weight of the image term.
        perceptual: A callable `(true, predicted) -> scalar`, or `None`.
        perceptual_weight: Its weight, relative to L1 of the images.
        train_decoder: Also train the decoder, jointly. The codes stay as they are. The
            autoencoder's decoder is then another one than that of its own training.
        discriminator: A `PatchDiscriminator` for an adversarial term, with the decoder only.
        adversarial: Dict of `DriverTrainer`'s settings of it, and of `discriminator_optimizer`.
            Feature matching without the adaptive weight is multiplied by `image_weight`.
        region_weights: See `keras_vpgc.data.dataset.weigh_regions`.
        jitter, backdrop: Move half of the frames, see
            `keras_vpgc.data.dataset.DriverImageBatches`.

    Returns:
        The logs of all epochs, a list of dicts.

    Raises:
        VPGCError: if images, features and indices do not belong together, or for jitter with a
            `feature_weight`, as nobody knows the features of moved frames.
    """
    if not len(features) == len(indices) == len(images):
        raise VPGCError(
            f"There are {len(images)} images and {len(features)} features for {len(indices)} "
            "frames."
        )
    if jitter and feature_weight:
        raise VPGCError("Features of moved frames are not known: set feature_weight=0 with jitter.")
    landmarks = np.asarray(landmarks)
    if heatmaps is None:
        heatmaps = draw(landmarks, driver.heatmap_size, line_width, contours=landmark_set)
    neighbours = context_indices(len(landmarks), driver.input_shape[-1], mode)
    batches = DriverImageBatches(
        heatmaps,
        neighbours[indices],
        features,
        batch_size,
        stage.steps_per_epoch if stage else min(steps, steps_per_epoch),
        seed,
        images=images,
        landmarks=landmarks,
        indices=indices,
        region_weights=region_weights,
        jitter=jitter,
        backdrop=backdrop,
        draw=LandmarkHeatmap(driver.heatmap_size, line_width, landmark_set, dtype="float32"),
        scale_jitter=scale_jitter,
        sampling=sampling,
        prefetch=2,
        shard=backend.process(),
    )
    if validation is not None and len(validation[2]):
        held_images, held_features, held = validation
        # In the shape of a batch, but in their order and all at once.
        validation = (
            (stack_context(heatmaps, neighbours[held]), held_features.astype("float32")),
            held_images,
            weigh_regions(landmarks[held], held_images.shape[1], region_weights)[..., None],
        )
    else:
        validation = None
    fit = {"validation_data": validation, "validation_batch_size": batch_size}

    def run(trainer, weights):
        if stage is not None:
            return stage.fit(trainer, batches, weights=weights, draw=preview, **fit)
        return _fit(trainer, batches, steps, callbacks, verbose, **fit)

    return fit_through_decoder(
        DriverTrainer,
        driver,
        autoencoder,
        run,
        compile={"learning_rate": learning_rate, "average": average, "accumulate": accumulate},
        train_decoder=train_decoder,
        feature_weight=feature_weight,
        image_weight=image_weight,
        perceptual=perceptual,
        perceptual_weight=perceptual_weight,
        discriminator=discriminator,
        adversarial=adversarial,
    )


def fit_through_decoder(
    cls,
    driver,
    autoencoder,
    run,
    *,
    compile,
    feature_weight,
    image_weight,
    perceptual,
    perceptual_weight,
    discriminator,
    adversarial,
    train_decoder=True,
    **settings,
):
    """Train a driver, and the decoder if asked, by images; all else of the autoencoder is frozen.

    Args:
        cls: `DriverTrainer`, or a class derived from it.
        driver, autoencoder: The two.
        run: Trains: `run(trainer, weights) -> logs`, `weights` all that changes.
        compile: Dict of arguments of the trainer's `compile`.
        feature_weight, image_weight, perceptual: See `fit_driver_on_images`.
        perceptual_weight, discriminator, adversarial, train_decoder: See there.
        **settings: More arguments of the trainer.

    Returns:
        What `run` returns.
    """
    adversarial = dict(adversarial or {})
    optimizer = adversarial.pop("discriminator_optimizer", None)
    if not adversarial.get("adaptive_matching", True):
        # As all that compares images.
        matching = adversarial.get("feature_matching_weight", 0.0)
        adversarial["feature_matching_weight"] = image_weight * matching
    autoencoder.trainable = False
    autoencoder.decoder.trainable = train_decoder
    try:
        trainer = cls(
            driver,
            autoencoder,
            discriminator,
            perceptual,
            image_weight,
            image_weight * perceptual_weight,
            train_decoder=train_decoder,
            feature_weight=feature_weight,
            **adversarial,
            **settings,
        )
        trainer.compile(discriminator_optimizer=optimizer, **compile)
        changed = [driver, *trainer.more_parts]
        changed += [autoencoder.decoder] if train_decoder else []
        changed += [discriminator] if discriminator is not None else []
        return run(
            trainer,
            [v for x in changed for v in [*x.trainable_variables, *x.non_trainable_variables]],
        )
    finally:
        autoencoder.trainable = True
