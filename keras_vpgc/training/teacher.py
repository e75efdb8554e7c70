"""A trained puppet that teaches another one."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from keras_vpgc.data.dataset import context_indices
from keras_vpgc.errors import VPGCError
from keras_vpgc.training.driver_trainer import DriverTrainer
from keras_vpgc.training.fit_driver import fit_through_decoder


class Teacher:
    """A puppet, run for what a student of another size is to learn.

    Args:
        model: The `PortraitReenactor` that teaches.
        student: The `PortraitReenactor` that learns, for its heatmaps and its context.
        student_mode: The student's context mode.

    Attributes:
        offsets: Int `(t,)`, the frames that either of them sees, relative to the one shown.
        depth: Depth of the teacher's features.

    Raises:
        VPGCError: if the two show images of different sizes, read different landmarks, or have
            different grids.

    Example:

    ```python
    features, images, heatmaps = Teacher(big, light).teach(landmark_windows)
    ```
    """

    def __init__(self, model, student, student_mode="centered"):
        for what, a, b in (
            ("images of {} pixels", model.image_size, student.image_size),
            ("the landmarks {}", model.landmark_set, student.landmark_set),
            ("a grid of {} cells", model.decoder.input_shape[1], student.decoder.input_shape[1]),
        ):
            if a != b:
                raise VPGCError(
                    f"The puppet that teaches has {what.format(a)} but the one that learns "
                    f"{what.format(b)}: choose a preset or settings in which they agree."
                )
        mode = model.metadata.get("context_mode", "centered")
        spans = [_offsets(model.context, mode), _offsets(student.context, student_mode)]
        self.offsets = np.arange(min(s[0] for s in spans), max(s[-1] for s in spans) + 1)
        self._seen, self._drawn = (s - self.offsets[0] for s in spans)
        self.depth = model.decoder.input_shape[-1]
        index = model.soft_index
        features = model.codebook.input if index is None else index.input[0]
        image = model.output if model.output.dtype != "uint8" else model.layers[-1].input
        self._call = backend.compiled(keras.Model(model.input, [features, image]))
        self._draw = backend.compiled(keras.Model(student.input, student.heatmap.output))

    def teach(self, landmarks):
        """The teacher's features and images, and the student's heatmaps.

        Args:
            landmarks: Float32 `(b, t, points, 2)`, windows of the frames `offsets`.

        Returns:
            Three float32 arrays: features `(b, h, w, d)`, images `(b, s, s, 3)`, heatmaps.
        """
        features, images = self._call(np.ascontiguousarray(landmarks[:, self._seen]))
        heatmaps = self._draw(np.ascontiguousarray(landmarks[:, self._drawn]))
        return tuple(ops.convert_to_numpy(x) for x in (features, images, heatmaps))


def _offsets(context, mode):
    """The frames of a window relative to the one that is shown."""
    return context_indices(2 * context + 1, context, mode)[context] - context


@keras.saving.register_keras_serializable("keras_vpgc")
class DistillationTrainer(DriverTrainer):
    """Trains a driver and its decoder on what a teacher shows.

    As `DriverTrainer` with the decoder, but the features to be met are the teacher's, of another
    depth: a linear map that learns along brings the student's to it, and is then thrown away.

    Args:
        driver, autoencoder: The student's.
        depth: Depth of the teacher's features.
        *args, **kwargs: As for `DriverTrainer`.

    Example:

    ```python
    trainer = DistillationTrainer(driver, autoencoder, depth=256)
    ```

    References:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015 (the map); Hinton et al.,
        "Distilling the Knowledge in a Neural Network", 2015.
    """

    def __init__(
        self,
        driver,
        autoencoder,
        *args,
        depth,
        train_decoder=True,
        name="distillation_trainer",
        **kwargs,
    ):
        super().__init__(
            driver, autoencoder, *args, train_decoder=train_decoder, name=name, **kwargs
        )
        # The same one in a run that goes on, which has drawn fewer weights before.
        start = keras.initializers.GlorotUniform(seed=0)
        self.hint = keras.layers.Dense(
            depth, name="hint", dtype="float32", kernel_initializer=start
        )
        self.hint.build(driver.output_shape)

    @property
    def more_parts(self):
        return [self.hint]

    def render(self, inputs, training):
        heatmaps, true = inputs
        features = self.driver(heatmaps, training=training)
        error = ops.mean(ops.abs(self.hint(ops.cast(features, "float32")) - true))
        return *self._show(features, training), {"features": self.feature_weight * error}

    def split(self):
        network, codes = super().split()
        return [*network, *self.hint.trainable_variables], codes


def fit_to_teacher(
    driver,
    autoencoder,
    teacher,
    batches,
    validation,
    stage,
    *,
    preview=None,
    **settings,
):
    """Train a driver and its decoder on a teacher's images and features.

    Args:
        driver, autoencoder: The student's; the codes stay as they are.
        teacher: A `Teacher`.
        batches: `keras_vpgc.data.dataset.TeacherBatches`.
        validation: Such a batch of held-out frames.
        stage: A `Stage`.
        preview: See `fit_driver`.
        **settings: See `fit_through_decoder`.

    Returns:
        The logs of all epochs, a list of dicts.
    """
    return fit_through_decoder(
        DistillationTrainer,
        driver,
        autoencoder,
        lambda trainer, weights: stage.fit(
            trainer,
            batches,
            weights=weights,
            draw=preview,
            validation_data=validation,
            validation_batch_size=batches.batch_size,
        ),
        depth=teacher.depth,
        **settings,
    )
