"""Learned perceptual image patch similarity (LPIPS)."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import assets
from keras_vpgc.errors import VPGCError

# Channels of the maps that are compared, and the smallest image that has all of them.
NETS = {"vgg": ((64, 128, 256, 512, 512), 16), "alex": ((64, 192, 384, 256, 256), 31)}
# The colours' mean and deviation over ImageNet, for images in [-1, 1].
SHIFT, SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])


def check_net(net: str) -> str:
    """Return `net`, or raise a `VPGCError` if LPIPS has no such network."""
    if net not in NETS:
        raise VPGCError(f"LPIPS has no network {net!r}: choose one of {', '.join(NETS)}.")
    return net


def feature_distance(true_maps, predicted_maps, heads):
    """Distance between images by their feature maps (LPIPS, Eq. 1).

    Args:
        true_maps: List of feature maps `(batch, h_i, w_i, c_i)`.
        predicted_maps: The same of other images.
        heads: List of weights `(c_i,)`, one a channel.

    Returns:
        Float32 `(batch,)`: the sum over the maps of the mean over positions of
        `sum_c head_c (x_c / |x| - y_c / |y|)^2`, where `|x|` is the length over the channels.

    Example:

    ```python
    feature_distance(network(truth), network(prediction), heads)
    ```
    """
    total = 0.0
    for true, predicted, head in zip(true_maps, predicted_maps, heads, strict=True):
        difference = ops.square(_unit(true) - _unit(predicted))
        total += ops.mean(ops.sum(difference * ops.cast(head, "float32"), axis=-1), axis=(1, 2))
    return total


def _unit(features):
    features = ops.cast(features, "float32")
    squared = ops.sum(ops.square(features), axis=-1, keepdims=True)
    # Where no channel is active the length is 0, and the root's slope infinite.
    active = squared > 0
    return features / (ops.sqrt(ops.where(active, squared, 1.0)) + 1e-10)


class LPIPSDistance:
    """The LPIPS distance: a frozen network with its learned linear heads.

    The weights are fetched once by `keras_vpgc.assets` (`lpips_vgg`, `lpips_alex`), see there.

    Args:
        net: `"vgg"` (VGG16; usual as a loss) or `"alex"` (AlexNet; usual as a metric, and quick).
        path: Own copy of the asset, or a `.npz` of arrays under the same names.
        dtype: Dtype policy of the convolutions; what follows them is float32.

    Call arguments:
        y_true: Images `(batch, h, w, 3)`, float in [-1, 1] or uint8. No gradient flows to them.
        y_pred: The same. At least 16x16 pixels for `"vgg"`, 31x31 for `"alex"`.

    Attributes:
        network: A functional `keras.Model` from images in [-1, 1] to five feature maps.
        heads: List of five float32 arrays of weights, one a channel.

    Returns:
        Float32 `(batch,)`, 0 for identical images.

    Raises:
        VPGCError: for an unknown net, weights that cannot be had or do not fit, and images of
            another shape.

    Example:

    ```python
    distance = LPIPSDistance("alex")
    distance(truth, prediction)
    ```

    References:
        Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        CVPR 2018 (version 0.1 of its weights).
    """

    def __init__(self, net="vgg", path=None, dtype="float32"):
        self.net = check_net(net)
        self.path = None if path is None else str(path)
        policy = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype
        weights = assets.arrays(f"lpips_{net}", path)
        self.network = (_vgg if net == "vgg" else _alex)(policy)
        source = self.path or f"The asset lpips_{net}"
        trunk = "VGG16_0" if net == "vgg" else "AlexNet_0"
        convolutions = [x for x in self.network.layers if isinstance(x, keras.layers.Conv2D)]
        for place, layer in enumerate(convolutions):
            for name in ("kernel", "bias"):
                variable = getattr(layer, name)
                key = f"{trunk}/Conv_{place}/{name}"
                variable.assign(_weight(weights, key, variable.shape, source))
        self.network.trainable = False
        self.heads = [
            _weight(weights, f"NetLinLayer_{i}/Conv_0/kernel", (1, 1, n, 1), source).reshape(n)
            for i, n in enumerate(NETS[net][0])
        ]

    def __call__(self, y_true, y_pred):
        y_true, y_pred = _images(y_true), _images(y_pred)
        shapes = [tuple(x.shape) for x in (y_true, y_pred)]
        if any(len(x) != 4 or x[-1] != 3 for x in shapes) or _differ(*shapes):
            raise VPGCError(
                "LPIPS compares two batches of images (batch, height, width, 3) of one size; "
                f"received {shapes[0]} and {shapes[1]}."
            )
        smallest = NETS[self.net][1]
        _, height, width, _ = shapes[1]
        if min(height or smallest, width or smallest) < smallest:
            raise VPGCError(
                f"LPIPS ({self.net}) needs images of {smallest}x{smallest} pixels or more and "
                f"these are {width}x{height}: compare larger images."
            )
        true = self.network(ops.stop_gradient(y_true), training=False)
        return feature_distance(true, self.network(y_pred, training=False), self.heads)


def _differ(one, other):
    """Do two shapes differ? A size that is not known while a graph is built is any size."""
    return any(None not in x and len(set(x)) > 1 for x in zip(one, other, strict=True))


def _images(images):
    images = ops.convert_to_tensor(images)
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


def _weight(weights, key, shape, source):
    found = weights.get(key)
    if found is None or found.shape != tuple(shape):
        raise VPGCError(
            f"{source} has {'no array' if found is None else f'the shape {found.shape} for'} {key} "
            f"where LPIPS needs {tuple(shape)}: leave the path out to have the right file fetched."
        )
    return found.astype("float32")


def _scaled():
    image = keras.Input((None, None, 3), name="image", dtype="float32")
    factors, offsets = (1 / SCALE).tolist(), (-SHIFT / SCALE).tolist()
    return image, keras.layers.Rescaling(factors, offsets, dtype="float32")(image)


def _conv(channels, size, dtype, strides=1, padding="same"):
    # The initial values are replaced at once.
    return keras.layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding=padding,
        activation="relu",
        kernel_initializer="zeros",
        dtype=dtype,
    )


def _vgg(dtype):
    image, x = _scaled()
    maps = []
    for channels, depth in zip(NETS["vgg"][0], (2, 2, 3, 3, 3), strict=True):
        if maps:
            x = keras.layers.MaxPooling2D(2, dtype=dtype)(x)
        for _ in range(depth):
            x = _conv(channels, 3, dtype)(x)
        maps.append(x)
    return keras.Model(image, maps, name="lpips_vgg")


def _alex(dtype):
    image, x = _scaled()
    # Two pixels each side, unlike "same" with a stride.
    x = keras.layers.ZeroPadding2D(2, dtype=dtype)(x)
    maps = [_conv(64, 11, dtype, strides=4, padding="valid")(x)]
    for place, channels in enumerate(NETS["alex"][0][1:]):
        x = maps[-1]
        if place < 2:
            x = keras.layers.MaxPooling2D(3, 2, dtype=dtype)(x)
        maps.append(_conv(channels, 3 if place else 5, dtype)(x))
    return keras.Model(image, maps, name="lpips_alex")


@keras.saving.register_keras_serializable("keras_vpgc")
class LPIPSLoss(keras.losses.Loss):
    """The LPIPS distance as a loss.

    The configuration names the network and the path, not the weights: who loads it has them
    fetched in turn.

    Args:
        net: `"vgg"` or `"alex"`.
        path: Own copy of the weights, see `LPIPSDistance`.
        network_dtype: Dtype policy of the convolutions, such as `"mixed_bfloat16"`; the distance
            is float32.
        **kwargs: Arguments of `keras.losses.Loss`.

    Call arguments:
        y_true, y_pred: Images `(batch, h, w, 3)` in [-1, 1]; the gradient flows to `y_pred` alone.

    Returns:
        The distance, a mean over the batch unless `reduction` says otherwise.

    Raises:
        VPGCError: see `LPIPSDistance`.

    Example:

    ```python
    trainer = CodebookTrainer(autoencoder, perceptual=LPIPSLoss("vgg"))
    ```

    References:
        Zhang et al., CVPR 2018.
    """

    def __init__(self, net="vgg", path=None, network_dtype="float32", name="lpips", **kwargs):
        super().__init__(name=name, **kwargs)
        self.network_dtype = keras.DTypePolicy(network_dtype).name
        self.distance = LPIPSDistance(net, path, self.network_dtype)

    def call(self, y_true, y_pred):
        return self.distance(y_true, y_pred)

    def get_config(self):
        return {
            **super().get_config(),
            "net": self.distance.net,
            "path": self.distance.path,
            "network_dtype": self.network_dtype,
        }
