"""Other people's array files, read without running anything that is in them."""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc.errors import VPGCError, missing_extra

SUFFIXES = (".npz", ".npy", ".pkl", ".ckpt", ".mat")


class _Foreign(Exception):
    """The name of what a pickle asks for and must not get."""


class _StandIn:
    """Takes the place of a class or function that a pickle names; keeps what it was given.

    Nothing of numpy, chumpy, scipy or torch is called while a pickle is read: `value` makes the
    array afterwards, from checked parts.
    """

    def __new__(cls, *args):
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state):
        self.state = state

    def value(self):
        raise _Foreign(type(self).__name__)


class _Dtype(_StandIn):
    def value(self):
        code = self.args[0]
        if isinstance(code, str) and re.fullmatch(r"O\d*", code):
            return np.dtype(object)
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSU]\d+", code):
            raise _Foreign(f"an array of type {code!r}")
        order = self.state[1] if self.state else "="
        return np.dtype(code) if order == "|" else np.dtype(code).newbyteorder(order)


def _array(raw, dtype, shape, order):
    if dtype.hasobject:
        made = np.empty(len(raw), object)
        for place, value in enumerate(raw):
            made[place] = value
        return made.reshape(shape)
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


class _Array(_StandIn):
    """`numpy.ndarray`, and the function that makes an empty one."""

    def value(self):
        shape, dtype, fortran, raw = self.state[-4:]
        raw = [_plain(x) for x in raw] if isinstance(raw, list) else raw
        return _array(raw, dtype.value(), shape, "F" if fortran else "C")


class _Buffer(_StandIn):
    """An array of pickle protocol 5."""

    def value(self):
        raw, dtype, shape, order = self.args
        return _array(raw, dtype.value(), shape, order)


class _Scalar(_StandIn):
    def value(self):
        dtype, raw = self.args
        return _array(raw, dtype.value(), (), "C")[()]


class _Chumpy(_StandIn):
    def value(self):
        return _plain(self.state["x"])


class _Similarity(_StandIn):
    """A transform of scikit-image: its matrix."""

    def value(self):
        return _plain(self.state["params"])


class _Compressed(_StandIn):
    """A sparse matrix in compressed columns or rows, as a dense array."""

    axis = 1

    def value(self):
        state = {k: _plain(v) for k, v in self.state.items()}
        shape = state["_shape"] if "_shape" in state else state["shape"]
        major = np.repeat(np.arange(len(state["indptr"]) - 1), np.diff(state["indptr"]))
        dense = np.zeros(shape, state["data"].dtype)
        place = (state["indices"], major) if self.axis else (major, state["indices"])
        np.add.at(dense, place, state["data"])
        return dense


class _Rows(_Compressed):
    axis = 0


class _Storage(_StandIn):
    """The numbers of a torch tensor: four pickles (magic number, version, system, kind), the list
    of keys, the count and the numbers."""

    def value(self):
        file = io.BytesIO(self.args[0])
        for _ in range(3):
            _Unpickler(file).load()
        kind, dtype = _Unpickler(file).load()[:2]
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise _Foreign("a torch storage of an unknown kind")
        _Unpickler(file).load()
        count = int.from_bytes(file.read(8), "little")
        return np.frombuffer(file.read(count * dtype.itemsize), dtype)


class _Tensor(_StandIn):
    def value(self):
        storage, offset, size, stride = self.args[:4]
        numbers = storage.value()
        if np.prod(size) > numbers.size:
            raise _Foreign("a torch tensor larger than its numbers")
        # A view by strides, without trusting them: numpy checks each index.
        place = np.full(size, offset)
        for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
            steps = np.arange(length) * step
            place += steps.reshape([-1 if axis == i else 1 for i in range(len(size))])
        if place.size and place.min() < 0:
            raise _Foreign("a torch tensor that starts before its numbers")
        return numbers[place]


def _rebuild(kind, base, state):
    return kind()


def _encode(text, codec):
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("builtins", "object"): object,
    ("builtins", "set"): set,
    ("collections", "OrderedDict"): OrderedDict,
    ("copyreg", "_reconstructor"): _rebuild,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("scipy.sparse.csc", "csc_matrix"): _Compressed,
    ("scipy.sparse.csr", "csr_matrix"): _Rows,
    ("skimage.transform.geometric", "SimilarityTransform"): _Similarity,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "DoubleStorage"): np.dtype("<f8"),
    ("torch", "IntStorage"): np.dtype("<i4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}
# Modules by the names that older and newer releases give them.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "chumpy": "chumpy.ch",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "scipy.sparse._csr": "scipy.sparse.csr",
    "skimage.transform._geometric": "skimage.transform.geometric",
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file):
        # Python 2 wrote the bytes of arrays as text.
        super().__init__(file, encoding="latin1")

    def find_class(self, module, name):
        try:
            found = _ADMITTED[_RENAMED.get(module, module), name]
        except KeyError:
            raise _Foreign(f"{module}.{name}") from None
        # A fresh class each time: a pickle may write attributes to what it names.
        if isinstance(found, type) and issubclass(found, _StandIn):
            return type(found.__name__, (found,), {})
        return found

    def persistent_load(self, pid):
        return pid


def _plain(value, seen=None):
    seen = {} if seen is None else seen
    if id(value) not in seen:
        if isinstance(value, _StandIn):
            made = value.value()
        elif isinstance(value, dict):
            made = {k: _plain(v, seen) for k, v in value.items()}
        elif isinstance(value, (list, tuple)):
            made = [_plain(v, seen) for v in value]
        else:
            return value
        seen[id(value)] = made
    return seen[id(value)]


def _read_pickle(file):
    return _plain(_Unpickler(file).load())


def _read_npy(file):
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        header = np.lib.format.read_array_header_2_0
    dtype = header(file)[2]
    if dtype.hasobject:
        made = _read_pickle(file)
        return made.item() if made.shape == () else made
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_npz(file):
    with zipfile.ZipFile(file) as archive:
        members = [x for x in archive.namelist() if x.endswith(".npy")]
        return {x[:-4]: _read_npy(io.BytesIO(archive.read(x))) for x in members}


def _read_mat(file):
    try:
        from scipy.io import loadmat
    except ImportError:
        raise missing_extra("scipy", "demo") from None
    return {k: v for k, v in loadmat(file).items() if not k.startswith("__")}


def read_arrays(path) -> Any:
    """Read a file of arrays that somebody else made; nothing in it is run.

    A pickle may name functions that its reader must call. Here only stand-ins are called: those of
    numpy's arrays and numbers, chumpy's plain arrays (`chumpy.ch.Ch`), scipy's sparse matrices
    (csc, csr: they become dense), torch's CPU or GPU tensors and scikit-image's similarity
    transforms (their matrix); none of these packages has to be installed. Anything else is refused
    by name.

    Args:
        path: A `.npz`, `.npy` (also of one pickled dictionary), `.pkl` (of Python 2 or 3), `.ckpt`
            (a pickle of a network's arrays) or `.mat` (MATLAB 4 to 7.2; needs scipy).

    Returns:
        A dictionary (its tuples as lists) or an array, as the file has it.

    Raises:
        VPGCError: for a missing, damaged or foreign file.

    Example:

    ```python
    model = read_arrays("generic_model.pkl")
    model["v_template"].shape  # (5023, 3)
    ```
    """
    path = Path(path)
    suffix = path.suffix.lower()
    readers = {
        ".npz": _read_npz,
        ".npy": _read_npy,
        ".pkl": _read_pickle,
        ".ckpt": _read_pickle,
        ".mat": _read_mat,
    }
    if suffix not in readers:
        raise VPGCError(f"{path} is no file of arrays: {', '.join(SUFFIXES)} are read.")
    if not path.is_file():
        raise VPGCError(f"There is no file {path}: check the path.")
    try:
        with open(path, "rb") as file:
            return readers[suffix](file)
    except _Foreign as error:
        raise VPGCError(
            f"{path} is refused because it holds {error}, and only plain arrays are read from "
            "foreign files: save its arrays as .npz."
        ) from None
    except VPGCError:
        raise
    # A hostile or damaged file can fail in any way; none of them may pass as another error.
    except Exception as error:
        raise VPGCError(
            f"{path} cannot be read as {suffix} ({type(error).__name__}): it is damaged, or of "
            "another kind than its name says."
        ) from error
