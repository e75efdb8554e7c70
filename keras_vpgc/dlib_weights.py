"""Networks that dlib has saved, read without dlib."""

import re
from pathlib import Path

import numpy as np

from keras_vpgc.errors import VPGCError

# Names of the layers that hold weights, each after its length.
_NAMES = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")


def read_network(path) -> dict[str, np.ndarray]:
    """The weights of a network of dlib's convolutions, affine layers and one dense layer.

    Only numbers are read, nothing is run. Layers are found by their names, in the order of the
    file, which is that from the input on.

    Args:
        path: A `.dat` of `dlib::serialize`.

    Returns:
        Float32 arrays: `con_0/kernel` `(height, width, in, out)`, `con_0/bias` `(out,)`,
        `affine_0/gamma`, `affine_0/beta` and so on, and `fc/kernel` `(in, out)`.

    Raises:
        VPGCError: if the file is something else.

    Example:

    ```python
    read_network("dlib_face_recognition_resnet_model_v1.dat")["fc/kernel"].shape  # (256, 128)
    ```

    References:
        dlib/serialize.h (integers: a byte that counts the following ones, the least first),
        dlib/cuda/tensor_tools.cpp and dlib/dnn/layers.h of dlib (Boost Software License 1.0).
    """
    data = Path(path).read_bytes()
    result: dict[str, np.ndarray] = {}
    counts = {"con": 0, "affine": 0}
    place = 0
    try:
        while match := _NAMES.search(data, place):
            kind = match.group()[2:].split(b"_")[0].decode()
            place = match.end()
            if kind == "fc":
                _, place = _integers(data, place, 2)
                values, place = _tensor(data, place)
                result["fc/kernel"] = values
                continue
            name = f"{kind}_{counts[kind]}"
            counts[kind] += 1
            values, place = _tensor(data, place)
            values = values.reshape(-1)
            if kind == "affine":
                result[f"{name}/gamma"], result[f"{name}/beta"] = np.split(values, 2)
                continue
            (filters, height, width), _ = _integers(data, place, 3)
            kernel = values[:-filters].reshape(filters, -1, height, width)
            result[f"{name}/kernel"] = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
            result[f"{name}/bias"] = values[-filters:]
    except (IndexError, ValueError) as error:
        raise VPGCError(
            f"{path} cannot be read as a network of dlib: it is damaged, or another kind of file."
        ) from error
    if not result:
        raise VPGCError(f"{path} holds no network of dlib: give another file.")
    return result


def _integers(data, place, count):
    found = []
    for _ in range(count):
        size = data[place] & 15
        if data[place] & 128 or not size:
            raise ValueError("a size that is negative")
        found.append(int.from_bytes(data[place + 1 : place + 1 + size], "little"))
        place += 1 + size
    return found, place


def _tensor(data, place):
    (version, *shape), place = _integers(data, place, 5)
    if version != 2:
        raise ValueError("another version")
    values = np.frombuffer(data, "<f4", int(np.prod(shape)), place)
    return values.reshape(shape[:2]).astype("float32"), place + values.nbytes
