"""Group normalisation without the five-dimensional reshape, and an activation behind it."""

import keras
from keras import ops

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError


@keras.saving.register_keras_serializable("keras_vpgc")
class GroupNormalization(keras.layers.Layer):
    """Normalises groups of channels over all positions, then scales and shifts each channel.

    Equal to `keras.layers.GroupNormalization`. It reduces every channel first and joins the
    channels of a group afterwards, on a tiny tensor; splitting the channel axis of the whole
    feature map instead costs four times as much on XLA's CPU backend (`docs/results.md`). On
    JAX a gradient of its own keeps the inputs alone, and on PyTorch with an NVIDIA GPU kernels do
    all, the activation too: these have no second derivatives.

    Args:
        groups: Number of groups; must divide the number of channels.
        epsilon: Added to the variance.
        activation: `"silu"`, applied to the result, or `None`.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: Tensor `(batch, h, w, c)`.

    Output shape:
        That of the input, in the compute dtype; statistics are float32.

    Raises:
        VPGCError: if `groups` does not divide the number of channels, or for another activation.

    Example:

    ```python
    GroupNormalization(32)(keras.random.normal((1, 16, 16, 64)))
    ```

    References:
        Wu and He, "Group Normalization", ECCV 2018.
    """

    def __init__(self, groups=32, epsilon=1e-6, activation=None, **kwargs):
        super().__init__(**kwargs)
        if activation not in (None, "silu"):
            raise VPGCError(
                f"GroupNormalization knows activation 'silu' or None; received {activation!r}."
            )
        self.groups = int(groups)
        self.epsilon = float(epsilon)
        self.activation = activation

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.groups:
            raise VPGCError(
                f"{channels} channels cannot be split into {self.groups} groups: choose a number "
                "of groups that divides the channels."
            )
        self.gamma = self.add_weight(
            name="gamma", shape=(channels,), initializer="ones", autocast=False
        )
        self.beta = self.add_weight(
            name="beta", shape=(channels,), initializer="zeros", autocast=False
        )

    def call(self, inputs):
        settings = self.groups, self.epsilon, self.activation == "silu"
        done = backend.group_norm(inputs, self.gamma, self.beta, *settings)
        if done is not None:
            return done
        x = ops.cast(inputs, "float32")
        mean = self._grouped(ops.mean(x, axis=(1, 2)))
        x = x - mean
        variance = self._grouped(ops.mean(ops.square(x), axis=(1, 2)))
        scale = ops.rsqrt(variance + self.epsilon) * ops.cast(self.gamma, "float32")
        x = ops.cast(x * scale + ops.cast(self.beta, "float32"), self.compute_dtype)
        return ops.silu(x) if self.activation else x

    def _grouped(self, values):
        """Means over the channels of each group; (b, c) -> (b, 1, 1, c)."""
        channels = values.shape[-1]
        size = channels // self.groups
        values = ops.mean(ops.reshape(values, (-1, self.groups, size)), axis=-1)
        return ops.reshape(ops.repeat(values, size, axis=-1), (-1, 1, 1, channels))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
            "activation": self.activation,
        }
