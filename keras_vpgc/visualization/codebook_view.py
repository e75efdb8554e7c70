"""What the codebook of a trained model does with frames, in numbers."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_vpgc.errors import VPGCError

# Elements of one block of weights (float32): 64 MiB.
BLOCK = 16 * 2**20
# Frames that pass a network at once.
AT_ONCE = 8


@dataclass(frozen=True)
class CodeUsage:
    """How much of a codebook some frames use.

    Args:
        weights: Float64 `(h, w, K)`: the weight that the soft index gave each code, summed over
            frames and pieces; hard indices give all to the one they choose.
        chosen: Int `(h, w, K)`: how often a code was the strongest of a window.
        shared: All cells read one list: `weights[u, v]` is then what is read at `(u, v)`.

    Example:

    ```python
    usage = CodebookView(autoencoder).usage(images)
    usage.perplexity.mean(), usage.used.mean()
    ```
    """

    weights: np.ndarray
    chosen: np.ndarray
    shared: bool

    @property
    def used(self) -> np.ndarray:
        """Float `(h, w)` in [0, 1]: the share of a cell's codes that were ever the strongest."""
        return (self.chosen > 0).mean(axis=2)

    @property
    def perplexity(self) -> np.ndarray:
        """Float `(h, w)`, 1 to K: the number of a cell's codes that are used, were they alike.

        `exp` of the entropy of the cell's weights; 0 where nothing reads the cell.
        """
        return _perplexity(self.weights)

    @property
    def total_perplexity(self) -> float:
        """The same of the whole codebook, 1 to its number of codes."""
        weights = self.weights.sum((0, 1)) if self.shared else self.weights.ravel()
        return float(_perplexity(weights))

    @property
    def total_used(self) -> float:
        """The share of all codes that were ever the strongest, in [0, 1]."""
        chosen = self.chosen.sum((0, 1)) if self.shared else self.chosen
        return float((chosen > 0).mean())


def _perplexity(weights):
    total = weights.sum(axis=-1, keepdims=True)
    share = weights / np.maximum(total, 1e-30)
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(axis=-1)
    return np.where(total[..., 0] > 0, np.exp(entropy), 0.0)


class CodebookView:
    """Looks into an autoencoder or a puppet's network.

    Args:
        model: A `PortraitAutoencoder`, whose inputs are images, uint8 `(n, s, s, 3)` or float in
            [-1, 1]; or a `PortraitReenactor`, whose inputs are landmarks `(n, T, 68, 2)`.

    Attributes:
        grid_size: Pair `(h, w)`.
        window: `r`, cells along a side of the window that a position reads.
        pieces: Pieces of a feature vector that choose codes on their own.
        codes_per_cell: `K_c`; of a shared list its length.
        shared: Do all cells read one list?

    Raises:
        VPGCError: if the model has no codebook.

    Example:

    ```python
    view = CodebookView(keras.saving.load_model("runs/me/autoencoder.keras"))
    usage = view.usage(portrait.frames(portrait.indices("validation"), view.image_size))
    ```
    """

    def __init__(self, model):
        codebook = getattr(model, "codebook", None)
        if not hasattr(codebook, "codes"):
            name = getattr(model, "name", None) or type(model).__name__
            raise VPGCError(
                f"{name} has no codebook to look into: give a PortraitAutoencoder or a puppet's "
                "PortraitReenactor that was trained with one."
            )
        self.model, self.image_size = model, model.image_size
        self._index, self._codebook = model.soft_index, codebook
        features = codebook.input if self._index is None else self._index.input[0]
        self._features = keras.Model(model.input, features)
        _, height, width, self.depth = features.shape
        self.grid_size = (height, width)
        self.code_dim = codebook.codes.shape[-1]
        self.pieces = self.depth // self.code_dim
        self.shared = len(codebook.codes.shape) == 2
        self.codes_per_cell = codebook.codes.shape[-2]
        self.window = 1 if self._index is None else self._index.window_size

    def features(self, inputs) -> np.ndarray:
        """What asks the codebook: float32 `(n, h, w, d)`."""
        inputs = np.asarray(inputs)
        if inputs.ndim != len(self.model.input_shape) or inputs.shape[1:] != tuple(
            self.model.input_shape[1:]
        ):
            raise VPGCError(
                f"{self.model.name} takes inputs of shape (n, "
                f"{', '.join(map(str, self.model.input_shape[1:]))}); received {inputs.shape}."
            )
        if inputs.dtype == np.uint8:
            inputs = inputs.astype("float32") / 127.5 - 1.0
        return _in_batches(self._features, inputs.astype("float32"))

    def quantize(self, features) -> np.ndarray:
        """What the codebook answers: float32 `(n, h, w, d)`."""

        def answer(features):
            features = ops.convert_to_tensor(features)
            if self._index is None:
                return self._codebook(features)
            return self._index([features, self._codebook(features)])

        parts = [features[i : i + AT_ONCE] for i in range(0, len(features), AT_ONCE)]
        return np.concatenate([_to_numpy(answer(x)) for x in parts])

    def decode(self, quantized) -> np.ndarray:
        """Pictures of quantised features: uint8 `(n, s, s, 3)`."""
        images = _in_batches(self.model.decoder, np.asarray(quantized, "float32"))
        return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype("uint8")

    @property
    def codes(self) -> np.ndarray:
        """The codes, float32 `(h, w, K_c, d_c)`, or `(N, d_c)` of a shared list."""
        return keras.ops.convert_to_numpy(self._codebook.codes)

    @property
    def window_cells(self) -> np.ndarray:
        """Int `(h * w, r * r)`: the cells that each position reads, flat."""
        from keras_vpgc.layers.soft_index import window_cells

        return window_cells(self.grid_size, self.window)

    def cell_of(self, place) -> tuple[int, int]:
        """The cell (row, column) of a place `(x, y)` of the picture, both in [0, 1].

        Raises:
            VPGCError: for a place outside of the picture.
        """
        x, y = (float(v) for v in place)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise VPGCError(
                f"The place ({x:g}, {y:g}) lies outside of the picture: give x and y in [0, 1] of "
                "its width and height."
            )
        h, w = self.grid_size
        return min(int(y * h), h - 1), min(int(x * w), w - 1)

    def weights_at(self, features, cell) -> np.ndarray:
        """M of Eq. 4 at one position: which codes of its window the pieces take.

        Args:
            features: Float `(n, h, w, d)`.
            cell: Row and column.

        Returns:
            Float32 `(n, pieces, r * r, K_c)`; each sums to 1 over the last two axes.
        """
        h, w = self.grid_size
        place = cell[0] * w + cell[1]
        found = self._weights(features, np.array([place]))
        shape = (len(features), self.pieces, self.window**2, self.codes_per_cell)
        return _to_numpy(found).reshape(shape)

    def usage(self, inputs) -> CodeUsage:
        """Which codes some frames use.

        Args:
            inputs: The model's inputs, see the class.

        Returns:
            A `CodeUsage`.
        """
        features = self.features(inputs)
        h, w = self.grid_size
        cells, codes = self.window_cells, self.codes_per_cell
        weights = np.zeros((h * w, codes))
        for start in range(0, len(features), AT_ONCE):
            part = features[start : start + AT_ONCE]
            row = len(part) * self.pieces * cells.shape[1] * codes
            size = max(1, min(h * w, BLOCK // row))
            for first in range(0, h * w, size):
                places = np.arange(first, min(first + size, h * w))
                # Summed over frames and pieces before it leaves the device.
                sums = _to_numpy(ops.sum(self._weights(part, places), axis=1))
                np.add.at(weights, cells[places], sums.reshape(len(places), -1, codes))
        chosen = np.bincount(self._strongest(features).ravel(), minlength=h * w * codes)
        shape = (h, w, codes)
        return CodeUsage(weights.reshape(shape), chosen.reshape(shape), self.shared)

    def light_up(self, features, code) -> np.ndarray:
        """Where a code is read, and how strongly.

        Args:
            features: Float `(n, h, w, d)`.
            code: `(row, column, number)` of a code; of a shared list its number.

        Returns:
            Float `(n, h, w)` in [0, 1]: its weight, the mean over the pieces.
        """
        h, w = self.grid_size
        if self.shared:
            readers, slot = np.arange(h * w), np.zeros(h * w, int)
            number = int(code)
        else:
            row, column, number = (int(x) for x in code)
            readers, slot = np.nonzero(self.window_cells == row * w + column)
        light = np.zeros((len(features), h * w))
        for reader, place in zip(readers, slot, strict=True):
            found = self.weights_at(features, (reader // w, reader % w))
            light[:, reader] = found[:, :, place, number].mean(axis=1)
        return light.reshape(len(features), h, w)

    def prior(self) -> np.ndarray:
        """The texture prior P, float32 `(h, w, d_c)`: the mean code of each cell (Eq. 6).

        Raises:
            VPGCError: for a shared list, which knows no places.
        """
        if self.shared:
            raise VPGCError(
                "Only a grid codebook has a texture prior: this one is a list that all cells share."
            )
        return self.codes.mean(axis=2)

    def _strongest(self, features):
        """The number of the strongest code of each piece, as `usage` counts them."""
        h, w = self.grid_size
        found = []
        for start in range(0, len(features), AT_ONCE):
            part = ops.convert_to_tensor(features[start : start + AT_ONCE])
            if self._index is None:
                numbers = self._codebook.encode(part)[..., None]
            else:
                numbers = self._index.encode([part, self._codebook(part)])
            found.append(keras.ops.convert_to_numpy(numbers).astype("int64"))
        numbers = np.concatenate(found)
        if self._index is None:
            numbers = numbers + (np.arange(h * w) * self.codes_per_cell).reshape(h, w, 1)
        return numbers

    def _weights(self, features, places):
        """Weights `(p, n * pieces, r * r * K)` at some positions, a tensor."""
        count, codes = len(features), self.codes_per_cell
        queries = np.asarray(features).reshape(count, -1, self.pieces, self.code_dim)[:, places]
        queries = queries.transpose(1, 0, 2, 3).reshape(len(places), -1, self.code_dim)
        if self.shared:
            keys = self.codes[None]
        else:
            keys = self.codes.reshape(-1, codes, self.code_dim)[self.window_cells[places]]
            keys = keys.reshape(len(places), -1, self.code_dim)
        products = ops.matmul(queries, np.ascontiguousarray(keys.transpose(0, 2, 1)))
        if self._index is not None and self._index.mode == "soft":
            return ops.softmax(products / self._index.temperature, axis=-1)
        # The nearest one: |q - k|^2 without |q|^2.
        lengths = ops.convert_to_tensor(np.square(keys).sum(axis=-1)[:, None])
        distance = lengths - 2.0 * products
        return ops.one_hot(ops.argmin(distance, axis=-1), keys.shape[1], dtype="float32")


def _in_batches(model, values):
    parts = [values[i : i + AT_ONCE] for i in range(0, len(values), AT_ONCE)]
    return np.concatenate([_to_numpy(model.predict_on_batch(x)) for x in parts])


def _to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
