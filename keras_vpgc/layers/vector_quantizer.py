"""The vanilla codebook: one orderless list of codes (VPGC, Sec. 3.1)."""

import keras
import numpy as np
from keras import ops

from keras_vpgc.errors import VPGCError

# Irrational steps, whose multiples spread evenly over [0, 1): one over the codes, one over time.
CODE_STEP, TIME_STEP = 0.6180339887, 0.7548776662


@keras.saving.register_keras_serializable("keras_vpgc")
class VectorQuantizer(keras.layers.Layer):
    """Replaces every feature vector by its nearest code of one shared list.

    The baseline of the paper's Tab. 4: `N = 1024` codes of length `d = 256`, nearest by L2
    (Eq. 1), straight-through to the features.

    The codes learn from L_VQ (`CommitmentLoss`). Three options, off by default, are what later
    work gives such a list to use all of it:

    - `ema_decay`: the codes are moving averages of the features that chose them, and get no
      gradient. With `n_i` the share of a batch's features that chose code `i`, and `s_i` their
      sum over the batch's number of features, `N_i <- decay N_i + (1 - decay) n_i`,
      `m_i <- decay m_i + (1 - decay) s_i`, `e_i = m_i / N_i`; at the start `N_i = 0`, so that a
      code's first features replace it.
    - `revive_after`: a code that no feature has chosen for that many steps is replaced by a
      feature of the batch, and its average begins anew.
    - `adapt`, called before the training: the codes begin as the k-means of some features.

    Args:
        num_codes: `N`.
        code_dim: `d`, or `None` to take the depth of the features.
        initializer: Initialiser of the codes. Default: uniform in `[-1 / N, 1 / N]`, as in VQGAN.
        ema_decay: See above, such as 0.99; `None` for codes that learn by gradient.
        revive_after: See above, such as 100; `None` for never. Needs `ema_decay`.
        **kwargs: Keras layer arguments.

    Call arguments:
        features: Tensor `(batch, h, w, d)`.
        training: With `ema_decay` the codes move if it is true and the layer is trainable.

    Output shape:
        That of the features, in the layer's compute dtype.

    Raises:
        VPGCError: if the depth of the features is not `code_dim`, or for options out of range.

    Example:

    ```python
    quantizer = VectorQuantizer(num_codes=1024, ema_decay=0.99, revive_after=100)
    quantizer.adapt(some_features)
    quantized = quantizer(features)        # (batch, h, w, d)
    indices = quantizer.encode(features)   # (batch, h, w), int32
    ```

    References:
        van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, Appendix A.1
        (moving averages); Dhariwal et al., "Jukebox", 2020, and Zeghidour et al., "SoundStream",
        2021 (codes that die are replaced, k-means at the start); Wang et al., SIGGRAPH 2023, Eq. 1.
    """

    def __init__(
        self,
        num_codes=1024,
        code_dim=None,
        initializer=None,
        ema_decay=None,
        revive_after=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.num_codes = int(num_codes)
        if self.num_codes < 1:
            raise VPGCError(f"num_codes must be at least 1; received {num_codes}.")
        self.code_dim = None if code_dim is None else int(code_dim)
        if initializer is None:
            bound = 1.0 / self.num_codes
            initializer = keras.initializers.RandomUniform(-bound, bound)
        self.initializer = keras.initializers.get(initializer)
        self.ema_decay, self.revive_after = ema_decay, revive_after
        if ema_decay is not None and not (_is_number(ema_decay) and 0 < ema_decay < 1):
            raise VPGCError(
                f"ema_decay must lie between 0 and 1, such as 0.99; received {ema_decay!r}."
            )
        if revive_after is None:
            return
        if not _is_number(revive_after, int) or revive_after < 1:
            raise VPGCError(
                "revive_after must be a whole number of steps, such as 100; received "
                f"{revive_after!r}."
            )
        if ema_decay is None:
            raise VPGCError(
                "revive_after replaces codes that are moving averages: give ema_decay too, such "
                "as 0.99, or leave revive_after out."
            )

    def build(self, input_shape):
        depth = input_shape[-1]
        if self.code_dim is None:
            self.code_dim = depth
        if depth != self.code_dim:
            raise VPGCError(
                f"VectorQuantizer has codes of length {self.code_dim} but features of depth "
                f"{depth}: the two must be equal."
            )
        averaged = self.ema_decay is not None
        options = {"dtype": "float32", "autocast": False}
        if averaged:
            options["trainable"] = False
        self.codes = self.add_weight(
            name="codes",
            shape=(self.num_codes, self.code_dim),
            initializer=self.initializer,
            **options,
        )
        if not averaged:
            return

        def add(name, shape):
            return self.add_weight(name=name, shape=shape, initializer="zeros", **options)

        # The sums m are codes times shares, so they need no variable.
        self.shares = add("shares", (self.num_codes,))
        if self.revive_after is not None:
            self.unused = add("unused", (self.num_codes,))
            self.turn = add("turn", ())

    def encode(self, features):
        """Index of the nearest code of each feature vector.

        Args:
            features: Tensor `(batch, h, w, d)`.

        Returns:
            Int32 tensor `(batch, h, w)`.
        """
        if not self.built:
            self.build(features.shape)
        codes = ops.convert_to_tensor(self.codes)
        features = ops.stop_gradient(ops.cast(features, "float32"))
        distance = ops.sum(ops.square(codes), axis=-1) - 2.0 * ops.matmul(
            features, ops.transpose(codes)
        )
        return ops.cast(ops.argmin(distance, axis=-1), "int32")

    def adapt(self, features, iterations: int = 10, seed: int = 0):
        """Begin with codes that are the k-means of some features.

        Args:
            features: Float array `(..., d)`, at least `num_codes` vectors.
            iterations: Steps of Lloyd's algorithm.
            seed: Seed of the vectors that it begins with.

        Raises:
            VPGCError: if there are too few features.
        """
        features = np.asarray(keras.ops.convert_to_numpy(features), "float32")
        if not self.built:
            self.build(features.shape)
        self.codes.assign(
            k_means(features.reshape(-1, self.code_dim), self.num_codes, iterations, seed)
        )

    def call(self, features, training=False):
        exact = ops.cast(features, "float32")
        index = self.encode(exact)
        found = ops.take(ops.convert_to_tensor(self.codes), index, axis=0)
        # What is frozen stays, whatever it is a part of.
        if training and self.trainable and self.ema_decay is not None:
            self._follow(ops.stop_gradient(exact), index)
        found = found + (exact - ops.stop_gradient(exact))
        return ops.cast(found, self.compute_dtype)

    def _follow(self, features, index):
        """Move the codes towards the features that chose them."""
        features = ops.reshape(features, (-1, self.code_dim))
        count = ops.shape(features)[0]
        # Not `one_hot`, which PyTorch cannot record.
        numbers = ops.arange(self.num_codes, dtype="int32")
        chose = ops.cast(ops.reshape(index, (-1, 1)) == numbers, "float32")
        sums = ops.matmul(ops.transpose(chose), features) / ops.cast(count, "float32")
        share = ops.mean(chose, axis=0)

        codes = ops.convert_to_tensor(self.codes)
        rate = 1.0 - self.ema_decay
        shares = self.ema_decay * ops.convert_to_tensor(self.shares) + rate * share
        # m / N, written so that a code that nobody chose stays exactly where it is.
        moved = (sums - share[:, None] * codes) / ops.maximum(shares, 1e-12)[:, None]
        codes = codes + rate * moved
        if self.revive_after is not None:
            unused = ops.where(share > 0, 0.0, ops.convert_to_tensor(self.unused) + 1.0)
            dead = unused >= float(self.revive_after)
            # Spread over the batch rather than drawn: a random state would keep PyTorch from
            # recording the step.
            places = np.arange(1, self.num_codes + 1, dtype="float64") * CODE_STEP % 1.0
            turn = ops.convert_to_tensor(self.turn)
            places = ops.convert_to_tensor(places, dtype="float32") + turn
            places = ops.cast(places % 1.0 * ops.cast(count, "float32"), "int32")
            places = ops.minimum(places, ops.cast(count - 1, "int32"))
            codes = ops.where(dead[:, None], ops.take(features, places, axis=0), codes)
            shares = ops.where(dead, 0.0, shares)
            self.unused.assign(ops.where(dead, 0.0, unused))
            self.turn.assign((turn + TIME_STEP) % 1.0)
        self.shares.assign(shares)
        self.codes.assign(codes)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_dim": self.code_dim,
            "initializer": keras.initializers.serialize(self.initializer),
            "ema_decay": self.ema_decay,
            "revive_after": self.revive_after,
        }


def k_means(features, count: int, iterations: int = 10, seed: int = 0) -> np.ndarray:
    """Centres of clusters by Lloyd's algorithm, on the host.

    Args:
        features: Float32 `(n, d)`.
        count: Number of clusters; one that becomes empty begins anew at a random vector.
        iterations: Steps of the algorithm.
        seed: Seed of the vectors that it begins with.

    Returns:
        Float32 `(count, d)`.

    Raises:
        VPGCError: if there are fewer vectors than clusters.
    """
    if len(features) < count:
        raise VPGCError(
            f"{len(features)} features are too few for the k-means of {count} codes: give at "
            "least as many."
        )
    rng = np.random.default_rng(seed)
    centres = features[rng.permutation(len(features))[:count]]
    for _ in range(iterations):
        distance = (centres**2).sum(-1) - 2.0 * features @ centres.T
        nearest = distance.argmin(-1)
        sizes = np.bincount(nearest, minlength=count)
        order = np.argsort(nearest, kind="stable")
        full = sizes > 0
        starts = (np.cumsum(sizes) - sizes)[full]
        sums = np.add.reduceat(features[order], starts, axis=0, dtype="float64")
        centres = features[rng.integers(len(features), size=count)]
        centres[full] = sums / sizes[full, None]
    return centres


def _is_number(value, kind=(int, float)):
    return isinstance(value, kind) and not isinstance(value, bool)
