"""Work of a network by its shapes, and the rates that the machine reaches.

One operation is a multiplication or an addition: a multiply-add counts as two. Bytes are a lower
bound: each convolution, dense layer and attention reads its inputs and weights and writes its
outputs once, and everything between them (normalisations, activations, sums) costs nothing.
"""

import math
import time
from dataclasses import dataclass

import keras

from benchmarks import clock


@dataclass(frozen=True)
class Work:
    """What one pass forward takes.

    Args:
        flops: Operations of convolutions and matrix products.
        weights: Numbers that they read whatever the batch.
        values: Numbers that they read and write for the batch.
        entry: The part of `flops` that is in convolutions of the network's own input, for which
            training needs no gradient.
    """

    flops: float = 0
    weights: float = 0
    values: float = 0
    entry: float = 0

    def __add__(self, other):
        return Work(
            self.flops + other.flops,
            self.weights + other.weights,
            self.values + other.values,
            self.entry + other.entry,
        )

    def times(self, count):
        """The same weights for `count` times the batch."""
        return Work(self.flops * count, self.weights, self.values * count, self.entry * count)

    def bytes(self, precision, passes=1):
        """Lower bound in bytes; codes and the like count as of the network's precision too."""
        return passes * (2 if "16" in precision else 4) * (self.weights + self.values)

    @property
    def training(self):
        """Operations of forward and backward, with the gradients of all weights."""
        return 3 * self.flops - self.entry


def _size(shape):
    return math.prod(shape[1:])


def _product(inputs, outputs, weights, flops):
    return Work(flops, weights, _size(inputs) + _size(outputs))


def _conv(layer, shape):
    outputs = layer.compute_output_shape(shape)
    kernel = math.prod(layer.kernel.shape)
    work = _product(shape, outputs, kernel, 2 * kernel * math.prod(outputs[1:3]))
    return work, outputs


def _dense(layer, shape):
    kernel = math.prod(layer.kernel.shape)
    outputs = (*shape[:-1], layer.units)
    return _product(shape, outputs, kernel, 2 * kernel * math.prod(shape[1:-1])), outputs


def _chain(layers, shape):
    total = Work()
    for layer in layers:
        work, shape = _of(layer, shape)
        total += work
    return total, shape


def _attention(tokens, depth):
    """Both products of self-attention."""
    return Work(4 * tokens * tokens * depth, 0, 4 * tokens * depth)


def _residual(layer, shape):
    work, outputs = _chain([layer.conv_1, layer.conv_2], shape)
    return work + (_of(layer.shortcut, shape)[0] if layer.shortcut else Work()), outputs


def _spatial_attention(layer, shape):
    dense, _ = _chain([layer.qkv], shape)
    dense += _chain([layer.projection], shape)[0]
    return dense + _attention(shape[1] * shape[2], shape[3]), shape


def _upsample(layer, shape):
    batch, h, w, channels = shape
    work, outputs = _of(layer.conv, (batch, 2 * h, 2 * w, channels))
    # What it reads is the small map, enlarged on the way.
    return work + Work(values=-3 * h * w * channels), outputs


def _texture_prior(layer, shape):
    features, codes = shape
    return _chain(layer.mlp.dense, (*features[:3], features[3] + codes[3]))


def _transformer_block(layer, shape):
    _, tokens, depth = shape
    square = Work(2 * tokens * depth * depth, depth * depth, 2 * tokens * depth)
    total = _attention(tokens, depth)
    for _ in range(4):
        total += square
    return total + _chain([layer.hidden, layer.output_dense], shape)[0], shape


def _soft_index(layer, shape):
    (_, h, w, depth), (_, _, count, length) = shape
    keys = layer.window_size**2 * count
    # Each of the `depth / length` pieces meets all keys; a hard index only looks for one.
    products = 1 if layer.mode == "hard" else 2
    return Work(products * 2 * h * w * depth * keys, h * w * count * length, 2 * h * w * depth), (
        shape[0]
    )


_COUNTED = {
    "Conv2D": _conv,
    "Dense": _dense,
    "ResidualBlock": _residual,
    "SpatialAttention": _spatial_attention,
    "Downsample": lambda layer, shape: _of(layer.conv, shape),
    "Upsample": _upsample,
    "PointwiseMLP": lambda layer, shape: _chain(layer.dense, shape),
    "TexturePrior": _texture_prior,
    "GlobalContext": lambda layer, shape: _chain(layer.mlp.dense, (*shape[:3], 2 * shape[3])),
    "TransformerBlock": _transformer_block,
    "SoftIndex": _soft_index,
}


def _of(layer, shape):
    """Work of a layer for one sample, and the shape of what it gives."""
    return _COUNTED[type(layer).__name__](layer, shape)


def count(model, size=None) -> Work:
    """Work of a functional model for one sample.

    Args:
        model: A Keras model of the package's layers.
        size: Pixels a side, where the model takes any.

    Returns:
        A `Work`; layers without products count nothing.
    """
    total = Work()
    entrance = {id(x) for x in keras.tree.flatten(model.input)}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += count(layer)
            continue
        if isinstance(layer, keras.layers.InputLayer):
            continue
        shapes = [tuple(x.shape) for x in keras.tree.flatten(layer.input)]
        if size:  # one layer follows another
            shapes = [(None, size, size, shapes[0][-1])]
            size = layer.compute_output_shape(shapes[0])[1]
        if type(layer).__name__ not in _COUNTED:
            continue
        work, _ = _of(layer, shapes[0] if len(shapes) == 1 else shapes)
        if id(layer.input) in entrance and isinstance(layer, keras.layers.Conv2D):
            work = Work(work.flops, work.weights, work.values, work.flops)
        total += work
    return total


def image_step(autoencoder, discriminator, lpips, batch, matching=False) -> dict[str, float]:
    """Operations of a step of stage 1, by the part whose precision they have.

    LPIPS sees both images and gives a gradient to one of them. The discriminator judges the
    images three times, gives a gradient to the image once and to its weights twice. The adaptive
    weight's two gradients of a kernel are left out.

    Args:
        autoencoder, discriminator, lpips: `Work` of one sample of each.
        batch: Images of a batch.
        matching: Are the discriminator's features compared? It judges the images once more then.

    Returns:
        Operations of `"network"` and `"lpips"`.
    """
    network = autoencoder.training + 2 * discriminator.training
    network += (3 if matching else 2) * discriminator.flops
    return {"network": batch * network, "lpips": batch * 3 * lpips.flops}


def image_step_bytes(
    autoencoder, discriminator, lpips, batch, matching, precision, lpips_precision="float32"
) -> float:
    """Lower bound of the bytes that such a step moves; the arguments are those of `image_step`.

    A gradient of an input, and one of weights, moves as much as the pass forward. Adam reads
    weights, gradients and two moments of float32 and writes all but the gradients.
    """
    work = autoencoder.times(batch).bytes(precision, 3)
    work += discriminator.times(batch).bytes(precision, (3 if matching else 2) + 2 * 3)
    work += lpips.times(batch).bytes(lpips_precision, 3)
    return work + 7 * 4 * (autoencoder.weights + discriminator.weights)


def rates(tiny=False) -> dict[str, float]:
    """What this machine reaches: products of large matrices and copies of a large array.

    Returns:
        Operations a second of `"bfloat16"` and `"float32"` products (on a GPU as its framework
        computes convolutions of float32, in TF32), and bytes a second read and written by a
        `"copy"`.
    """
    side, numbers = (512, 2**22) if tiny else (8192, 2**26)
    found = {}
    for dtype in ("bfloat16", "float32"):
        product, sync = clock.product(side, dtype)
        found[dtype] = 2 * side**3 / _best(product, sync, tiny)
    copy, sync = clock.copy(numbers)
    found["copy"] = 2 * 4 * numbers / _best(copy, sync, tiny)
    return found


def floor(flops, moved, reached) -> tuple[float, float]:
    """Seconds that work takes at the rates that were measured.

    Args:
        flops: Dict of operations by the type they are computed in, as in `rates`.
        moved: Bytes.
        reached: What `rates` gave.

    Returns:
        Seconds of the products alone, and of the bytes alone.
    """
    return sum(n / reached[dtype] for dtype, n in flops.items()), moved / reached["copy"]


def _best(call, sync, tiny):
    times = []
    for _ in range(3 if tiny else 6):
        began = time.perf_counter()
        for _ in range(1 if tiny else 10):
            result = call()
        sync(result)
        times.append((time.perf_counter() - began) / (1 if tiny else 10))
    return min(times[1:])
