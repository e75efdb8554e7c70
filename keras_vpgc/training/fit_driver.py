"""Stage 2: training the driver by plain `fit` on cached features (VPGC, Eq. 8)."""

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.data.dataset import (
    DriverBatches,
    DriverImageBatches,
    context_indices,
    stack_context,
)
from keras_vpgc.errors import VPGCError
from keras_vpgc.layers import LandmarkHeatmap
from keras_vpgc.training.codebook_trainer import adam


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


def draw(landmarks, image_size, line_width=None, batch_size=32, contours="ibug-68"):
    """Heatmaps of a clip by the layer that draws them at inference.

    Args:
        landmarks: Float `(n, points, 2)` in [0, 1].
        image_size: Height and width in pixels.
        line_width: See `LandmarkHeatmap`.
        batch_size: Frames a call.
        contours: A landmark set or contours, see `LandmarkHeatmap`.

    Returns:
        uint8 `(n, image_size, image_size)`, 255 = 1.
    """
    layer = LandmarkHeatmap(image_size, line_width, contours, dtype="float32")
    inputs = keras.Input((1, *landmarks.shape[1:]))
    call = backend.compiled(keras.Model(inputs, layer(inputs)))
    result = np.empty((len(landmarks), image_size, image_size), "uint8")
    for start in range(0, len(landmarks), batch_size):
        batch = landmarks[start : start + batch_size, None].astype("float32")
        count = len(batch)
        batch = np.pad(
            batch, ((0, min(batch_size, len(landmarks)) - count), *[(0, 0)] * 3), mode="edge"
        )
        heatmap = keras.ops.convert_to_numpy(call(batch))[:count, ..., 0]
        result[start : start + count] = np.rint(heatmap * 255)
    return result


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
    scale_jitter=0.0,
    steps_per_epoch=100,
    seed=0,
    callbacks=(),
    verbose="auto",
    heatmaps=None,
):
    """Compile and fit a driver: `L_feat = feature_weight * |F_hat_t - Z|_1` (Eq. 8).

    Args:
        driver: A `PortraitDriver`.
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        features: Float `(m, h, w, d)`, `encode` of the training frames.
        indices: Int `(m,)`, the training frames.
        validation: Optional pair of features and indices of the validation frames.
        mode: Context mode, see `context_indices`.
        line_width: See `LandmarkHeatmap`.
        landmark_set: The set of the landmarks, `"ibug-68"` or `"ibug-68-iris"`.
        steps: Number of steps.
        batch_size: Frames a step.
        learning_rate: A rate or a schedule.
        feature_weight: lambda of Eq. 8.
        scale_jitter: See `DriverBatches`.
        steps_per_epoch: Steps between two validations.
        seed: Seed of the order.
        callbacks: Keras callbacks.
        verbose: As in `fit`.
        heatmaps: `draw` of the landmarks, where it has been done already.

    Returns:
        The `keras.callbacks.History`.

    Raises:
        VPGCError: if features and indices do not belong together.
    """
    if len(features) != len(indices):
        raise VPGCError(f"There are {len(features)} features for {len(indices)} frames.")
    context = driver.input_shape[-1]
    if heatmaps is None:
        heatmaps = draw(np.asarray(landmarks), driver.image_size, line_width, contours=landmark_set)
    neighbours = context_indices(len(landmarks), context, mode)
    steps_per_epoch = min(steps, steps_per_epoch)
    batches = DriverBatches(
        heatmaps,
        neighbours[indices],
        features,
        batch_size,
        steps_per_epoch,
        seed,
        scale_jitter=scale_jitter,
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
        adam(learning_rate),
        loss="mae",
        loss_weights=[feature_weight],
        jit_compile=backend.jit_by_default(),
    )
    return driver.fit(
        batches,
        validation_data=validation,
        validation_batch_size=batch_size,
        epochs=-(-steps // steps_per_epoch),
        callbacks=list(callbacks),
        verbose=verbose,
    )


def fit_driver_on_images(
    driver,
    autoencoder,
    landmarks,
    images,
    features,
    indices,
    *,
    mode="centered",
    line_width=None,
    landmark_set="ibug-68",
    steps=1000,
    batch_size=4,
    learning_rate=1e-4,
    feature_weight=10.0,
    image_weight=30.0,
    region_weights=None,
    scale_jitter=0.0,
    steps_per_epoch=100,
    seed=0,
    callbacks=(),
    verbose="auto",
    heatmaps=None,
):
    """Train a driver further on what is seen: through the frozen codebook and decoder.

    `L = feature_weight * |F_hat_t - Z|_1 + image_weight * |w (I_hat - I)|_1`, `w` heavier on face,
    eyes and mouth. Eq. 8 alone spends its effort on all features alike; this term spends it on
    those that show.

    Args:
        driver: A `PortraitDriver`, trained by `fit_driver`.
        autoencoder: The `PortraitAutoencoder` of its features; not changed.
        landmarks: Float `(n, points, 2)` in [0, 1], of every frame of the clip.
        images: uint8 `(m, s, s, 3)`, the training frames.
        features: Float `(m, h, w, d)`, `encode` of them.
        indices: Int `(m,)`, their numbers.
        mode, line_width, landmark_set, steps, batch_size, learning_rate, feature_weight,
            scale_jitter, steps_per_epoch, seed, callbacks, verbose, heatmaps: See `fit_driver`.
        image_weight: Weight of the image term.
        region_weights: See `keras_vpgc.data.dataset.weigh_regions`.

    Returns:
        The `keras.callbacks.History`.

    Raises:
        VPGCError: if images, features and indices do not belong together.
    """
    if not len(features) == len(indices) == len(images):
        raise VPGCError(
            f"There are {len(images)} images and {len(features)} features for {len(indices)} "
            "frames."
        )
    landmarks = np.asarray(landmarks)
    if heatmaps is None:
        heatmaps = draw(landmarks, driver.image_size, line_width, contours=landmark_set)
    neighbours = context_indices(len(landmarks), driver.input_shape[-1], mode)
    steps_per_epoch = min(steps, steps_per_epoch)
    batches = DriverImageBatches(
        heatmaps,
        neighbours[indices],
        features,
        batch_size,
        steps_per_epoch,
        seed,
        scale_jitter=scale_jitter,
        images=images,
        landmarks=landmarks[indices],
        region_weights=region_weights,
    )
    predicted = driver.outputs[0]
    quantized = (driver.codebook or autoencoder.codebook)(predicted)
    if autoencoder.soft_index is not None:
        quantized = autoencoder.soft_index([predicted, quantized])
    autoencoder.trainable = False
    try:
        model = keras.Model(driver.inputs, [predicted, autoencoder.decoder(quantized)])
        model.compile(
            adam(learning_rate),
            loss=["mae", "mae"],
            loss_weights=[feature_weight, image_weight],
            jit_compile=backend.jit_by_default(),
        )
        return model.fit(
            batches,
            epochs=-(-steps // steps_per_epoch),
            callbacks=list(callbacks),
            verbose=verbose,
        )
    finally:
        autoencoder.trainable = True
