"""Work of a network by its shapes.

One operation is a multiplication or an addition: a multiply-add counts as two. Bytes are a lower
bound: each convolution, dense layer and attention reads its inputs and weights and writes its
outputs once, and everything between them (normalisations, activations, sums) costs nothing.
"""

import math
from dataclasses import dataclass

import keras


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
    # Where several pixels come from one position, each weight serves the position once.
    places = math.prod(outputs[1:3]) // getattr(layer, "factor", 1) ** 2
    return _product(shape, outputs, kernel, 2 * kernel * places), outputs


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
    if layer.shuffle:
        return _of(layer.conv, shape)
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


def _separable(layer, shape):
    work, outputs = _chain([layer.depthwise, layer.expand, layer.project], shape)
    return work + (_of(layer.shortcut, shape)[0] if layer.shortcut else Work()), outputs


_COUNTED = {
    "Conv2D": _conv,
    "PixelShuffleConv2D": _conv,
    "DepthwiseConv2D": _conv,
    "SeparableBlock": _separable,
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


def of_layer(layer, shapes=None) -> Work:
    """Work of a layer of a functional model for one sample.

    Args:
        layer: A layer that was called once.
        shapes: List of the shapes of its inputs; default: those of that call.

    Returns:
        A `Work`; a layer without products counts nothing.
    """
    if type(layer).__name__ not in _COUNTED:
        return Work()
    if shapes is None:
        shapes = [tuple(x.shape) for x in keras.tree.flatten(layer.input)]
    return _of(layer, shapes[0] if len(shapes) == 1 else shapes)[0]


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
        work = of_layer(layer, shapes)
        if id(layer.input) in entrance and isinstance(layer, keras.layers.Conv2D):
            work = Work(work.flops, work.weights, work.values, work.flops)
        total += work
    return total
