"""Reading the grid codebook by attention over a window (VPGC, Eq. 4 and 5)."""

import keras
import numpy as np
from keras import ops

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError

# Elements of one similarity block (queries x keys, float32) that a chunk may hold: 64 MiB.
CHUNK_ELEMENTS = 16 * 2**20
# A graph may not know its batch size when it is traced: TensorFlow has no number for it then,
# PyTorch's export a symbol.
ASSUMED_BATCH = 8


def window_starts(grid: int, window: int) -> np.ndarray:
    """First cell of each position's window along one axis.

    `clip(u - (window - 1) // 2, 0, grid - window)`: always `window` real cells. A window that is
    padded with zeros instead would give the padding a share of the softmax.

    Args:
        grid: Number of cells.
        window: Window size, `1 <= window <= grid`.

    Returns:
        Int array `(grid,)`.

    Example:

    ```python
    window_starts(6, 4)  # array([0, 0, 1, 2, 2, 2])
    ```
    """
    return np.clip(np.arange(grid) - (window - 1) // 2, 0, grid - window)


def window_cells(grid_size: tuple[int, int], window: int) -> np.ndarray:
    """Flat indices of the cells in each position's window.

    Args:
        grid_size: Pair `(h, w)`.
        window: Window size `r`.

    Returns:
        Int32 array `(h * w, r * r)`, row-major in positions and in window cells.

    Example:

    ```python
    window_cells((2, 2), 1)  # [[0], [1], [2], [3]]
    ```
    """
    h, w = grid_size
    rows = window_starts(h, window)[:, None] + np.arange(window)
    columns = window_starts(w, window)[:, None] + np.arange(window)
    cells = rows[:, None, :, None] * w + columns[None, :, None, :]
    return cells.reshape(h * w, window * window).astype("int32")


@keras.saving.register_keras_serializable("keras_vpgc")
class SoftIndex(keras.layers.Layer):
    """Replaces each piece of a feature vector by codes of its neighbourhood.

    A feature vector of depth `d` at position `(u, v)` is cut into `d / d_c` pieces `Z^s`. All
    codes of the `r x r` cells around the position form the keys `G^W`. Soft mode (Eq. 4 and 5):
    `M = softmax(Z^s G^W^T / temperature)` by row, `Z_hat = M G^W`. Hard mode (Eq. 1, for each
    piece): the nearest code of the window by L2 distance, straight-through to the features.

    The codebook has no gradient from the image in hard mode inside an autoencoder: there
    `CommitmentLoss(straight_through=True)` follows and trains the codes by L_VQ alone.

    Args:
        window_size: `r`, odd or even, from 1 to the whole grid.
        mode: `"soft"` or `"hard"`.
        temperature: Divides the dot products. 1 is the paper's letter; codes drawn from
            `N(0, s)` start near the identity with `s ** 2`.
        implementation: How the soft index is computed. All give the same result.
            `"direct"` materialises every similarity (the reference: memory grows as
            `batch x h x w x d / d_c x r^2 K_c`), `"chunked"` computes blocks of bounded size and
            again in the backward pass, `"attention"` calls `keras.ops.dot_product_attention`
            (fused on PyTorch, materialised elsewhere), `"auto"` takes attention on PyTorch and
            chunks elsewhere, and on an NVIDIA GPU in half precision fused attention, in which
            queries, keys and result are of that type, as measured in `docs/results.md`.
        **kwargs: Keras layer arguments.

    Call arguments:
        inputs: List of features `(batch, h, w, d)` and codes `(h, w, K_c, d_c)`.

    Output shape:
        `(batch, h, w, d)` in the layer's compute dtype; the softmax is float32 inside.

    Raises:
        VPGCError: for a window larger than the grid, another grid than the codes', or a depth
            that is not a multiple of the code length.

    Example:

    ```python
    features = keras.random.normal((2, 16, 16, 256))
    codes = keras.random.normal((16, 16, 256, 4))
    z_hat = SoftIndex(window_size=4)([features, codes])  # (2, 16, 16, 256)
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 1, 4 and 5. (Eq. 5 prints G; its shapes fit G^W only.)
    """

    def __init__(
        self,
        window_size=4,
        mode="soft",
        temperature=1.0,
        implementation="auto",
        **kwargs,
    ):
        # Inputs keep their own precision: the codes are float32 under every policy.
        super().__init__(autocast=False, **kwargs)
        if int(window_size) < 1:
            raise VPGCError(f"window_size must be at least 1; received {window_size}.")
        if mode not in ("soft", "hard"):
            raise VPGCError(f"SoftIndex knows mode 'soft' and 'hard'; received {mode!r}.")
        if implementation not in ("auto", "direct", "chunked", "attention"):
            raise VPGCError(
                "SoftIndex knows implementation 'auto', 'direct', 'chunked' and 'attention'; "
                f"received {implementation!r}."
            )
        if not temperature > 0:
            raise VPGCError(f"temperature must be positive; received {temperature}.")
        self.window_size = int(window_size)
        self.mode = mode
        self.temperature = float(temperature)
        self.implementation = implementation
        # Exported graphs hold no loops, and for most runtimes a softmax along rows, which is quick
        # there; see `keras_vpgc.export`.
        self.unrolled = self.rows = False

    def build(self, input_shape):
        self._check(*input_shape)
        self._cells = window_cells(tuple(input_shape[1][:2]), self.window_size)

    def call(self, inputs):
        features, codes = inputs
        self._check(features.shape, codes.shape)
        h, w, _, code_dim = codes.shape
        pieces = features.shape[3] // code_dim
        positions = h * w
        keys, queries = self._keys_and_queries(features, codes)
        if self.mode == "hard":
            found = self._in_chunks(_nearest, queries, keys, features.shape[0], pieces)
        else:
            found = self._soft(queries, keys, features.shape[0], pieces)

        found = ops.reshape(found, (positions, -1, pieces, code_dim))
        found = ops.transpose(found, (1, 0, 2, 3))
        found = ops.reshape(found, (-1, h, w, pieces * code_dim))
        if self.mode == "hard":
            exact = ops.cast(features, "float32")
            found = found + (exact - ops.stop_gradient(exact))
        return ops.cast(found, self.compute_dtype)

    def encode(self, inputs):
        """The code that each piece of the features takes most of: in hard mode the nearest one.

        Args:
            inputs: As in a call.

        Returns:
            Int32 tensor `(batch, h, w, d / d_c)`: numbers of codes in `(h, w, K_c)`, flat.
        """
        features, codes = inputs
        h, w, codes_per_cell, code_dim = codes.shape
        positions, pieces = h * w, features.shape[3] // code_dim
        keys, queries = self._keys_and_queries(features, codes)
        find = _nearest_number if self.mode == "hard" else _strongest_number
        found = self._in_chunks(find, queries, keys, features.shape[0], pieces)
        found = ops.reshape(found, (positions, -1, pieces))
        # A number in the window is its cell's place there, then the code's in the cell.
        cells = ops.reshape(ops.convert_to_tensor(self._cells), (-1,))
        place = ops.arange(positions, dtype="int32")[:, None, None] * self.window_size**2
        cell = ops.take(cells, place + found // codes_per_cell, axis=0)
        found = ops.transpose(cell * codes_per_cell + found % codes_per_cell, (1, 0, 2))
        return ops.reshape(found, (-1, h, w, pieces))

    def _keys_and_queries(self, features, codes):
        """The codes of each window, and the pieces of the features at its position."""
        h, w, codes_per_cell, code_dim = codes.shape
        positions, pieces = h * w, features.shape[3] // code_dim
        # (h*w, r*r*K_c, d_c): the keys of a position serve the queries of the whole batch.
        keys = ops.take(
            ops.reshape(ops.cast(codes, "float32"), (positions, codes_per_cell * code_dim)),
            self._cells,
            axis=0,
        )
        keys = ops.reshape(keys, (positions, -1, code_dim))
        queries = ops.reshape(ops.cast(features, "float32"), (-1, positions, pieces, code_dim))
        queries = ops.transpose(queries, (1, 0, 2, 3))
        return keys, ops.reshape(queries, (positions, -1, code_dim))

    def _soft(self, queries, keys, batch, pieces):
        implementation = self.implementation
        if implementation == "auto":
            implementation = "attention" if keras.backend.backend() == "torch" else "chunked"
        # Scaling the few queries is cheaper than scaling the similarities.
        queries = queries / self.temperature
        if self.implementation == "auto":
            done = backend.attend(queries, keys, self.compute_dtype)
            if done is not None:
                return done
        if implementation == "direct":
            return _attend_directly(queries, keys)
        if implementation == "chunked":
            attend = _attend_directly if self.rows else _attend
            return self._in_chunks(attend, queries, keys, batch, pieces)
        keys = keys[:, :, None, :]
        found = ops.dot_product_attention(queries[:, :, None, :], keys, keys, scale=1.0)
        return found[:, :, 0, :]

    def _in_chunks(self, function, queries, keys, batch, pieces):
        positions = keys.shape[0]
        row = (batch if isinstance(batch, int) else ASSUMED_BATCH) * pieces * keys.shape[1]
        size = max(1, min(positions, CHUNK_ELEMENTS // row))
        if size >= positions:
            return function(queries, keys)
        while positions % size:
            size -= 1
        if self.unrolled:
            starts = range(0, positions, size)
            parts = [function(queries[i : i + size], keys[i : i + size]) for i in starts]
            return ops.concatenate(parts, axis=0)
        step = keras.remat(function)
        # A loop of the backend's own: chunks that are written out one by one may run, and keep
        # their memory, at the same time (XLA on a CPU does so).
        chunks = [ops.reshape(x, (positions // size, size, *_tail(x))) for x in (queries, keys)]
        found = ops.map(lambda chunk: step(*chunk), tuple(chunks))
        return ops.reshape(found, (positions, *_tail(found, 2)))

    def _check(self, features, codes):
        if len(features) != 4 or len(codes) != 4:
            raise VPGCError(
                "SoftIndex reads features (batch, h, w, d) and codes (h, w, K_c, d_c); received "
                f"shapes {tuple(features)} and {tuple(codes)}."
            )
        h, w, _, code_dim = codes
        if (features[1], features[2]) != (h, w):
            raise VPGCError(
                f"The features' grid is {features[1]}x{features[2]} but the codes' is {h}x{w}: "
                "both must come from the same model."
            )
        if features[3] % code_dim:
            raise VPGCError(
                f"A feature depth of {features[3]} cannot be split into codes of length "
                f"{code_dim}: choose a depth that is a multiple of the code length."
            )
        if self.window_size > min(h, w):
            raise VPGCError(
                f"A window of {self.window_size} cells does not fit a grid of {h}x{w}: choose "
                f"window_size <= {min(h, w)}."
            )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "window_size": self.window_size,
            "mode": self.mode,
            "temperature": self.temperature,
            "implementation": self.implementation,
        }


def _tail(x, first=1):
    """The sizes from axis `first` on; one of them may be unknown in a graph."""
    return [-1 if n is None else n for n in x.shape[first:]]


def _attend_directly(queries, keys):
    """Eq. 4 and 5 as they read; (p, q, c), (p, k, c) -> (p, q, c)."""
    similarity = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
    return ops.matmul(ops.softmax(similarity, axis=-1), keys)


def _attend(queries, keys):
    """The same with the keys in front, the layout that XLA's CPU backend is three times faster in.

    A column of ones beside the keys gives the softmax's denominator in the same product.
    """
    similarity = ops.matmul(keys, ops.transpose(queries, (0, 2, 1)))
    similarity -= ops.stop_gradient(ops.max(similarity, axis=1, keepdims=True))
    values = ops.concatenate([keys, ops.ones_like(keys[..., :1])], axis=-1)
    sums = ops.matmul(ops.transpose(values, (0, 2, 1)), ops.exp(similarity))
    return ops.transpose(sums[:, :-1] / sums[:, -1:], (0, 2, 1))


def _nearest(queries, keys):
    """The nearest key of each query by L2; (p, q, c), (p, k, c) -> (p, q, c)."""
    return ops.take_along_axis(keys, _nearest_number(queries, keys), axis=1)


def _nearest_number(queries, keys):
    """The number of that key; (p, q, c), (p, k, c) -> int32 (p, q, 1)."""
    # |q - k|^2 without |q|^2, which is the same for all keys.
    distance = ops.sum(ops.square(keys), axis=-1)[:, None, :] - 2.0 * ops.matmul(
        ops.stop_gradient(queries), ops.transpose(keys, (0, 2, 1))
    )
    return ops.cast(ops.argmin(distance, axis=-1), "int32")[:, :, None]


def _strongest_number(queries, keys):
    """The number of the key with the greatest weight; (p, q, c), (p, k, c) -> int32 (p, q, 1)."""
    similarity = ops.matmul(ops.stop_gradient(queries), ops.transpose(keys, (0, 2, 1)))
    return ops.cast(ops.argmax(similarity, axis=-1), "int32")[:, :, None]
