"""The canonical head, out of the face tracker's own file."""

import functools
import zipfile
from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.errors import VPGCError

MEMBER = "geometry_pipeline_metadata_landmarks.binarypb"
NUM_VERTICES = 468


def canonical_head(model=None) -> tuple[np.ndarray, np.ndarray]:
    """MediaPipe's canonical face and how much each point says about the head's pose.

    Args:
        model: Path of `face_landmarker.task`, or `None` to find it by `keras_vpgc.assets`.

    Returns:
        Vertices float64 `(468, 3)` in centimetres (x right, y down, z away from the camera, the
        face looking at it), numbered like the tracker's points, and weights float64 `(468,)`,
        0 for the points that move with the expression.

    Raises:
        VPGCError: if the file does not hold them.

    Example:

    ```python
    vertices, weights = canonical_head()
    ```

    References:
        `geometry_pipeline_metadata.proto` and `mesh_3d.proto` of MediaPipe
        (mediapipe/tasks/cc/vision/face_geometry/proto, Apache-2.0).
    """
    return _read(assets.find("face_landmarker", model))


@functools.lru_cache(maxsize=4)
def _read(path: Path):
    try:
        with zipfile.ZipFile(path) as bundle:
            message = bundle.read(MEMBER)
        vertices, weights = [], np.zeros(NUM_VERTICES)
        # GeometryPipelineMetadata: 1 canonical_mesh, 2 procrustes_landmark_basis (repeated).
        for number, value in _fields(message):
            if number == 1:  # Mesh3d: 3 vertex_buffer, five floats (x, y, z, u, v) a vertex.
                vertices += [_floats(v) for n, v in _fields(value) if n == 3]
            elif number == 2:  # WeightedLandmarkRef: 1 landmark_id, 2 weight.
                reference = dict(_fields(value))
                weights[reference[1]] = _floats(reference[2])[0]
        points = np.concatenate(vertices).reshape(NUM_VERTICES, 5)[:, :3]
        if not weights.any():
            raise ValueError
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
        raise VPGCError(
            f"{path} does not hold the canonical head ({MEMBER}): use MediaPipe's "
            "face_landmarker.task."
        ) from None
    # MediaPipe: y up, z towards the viewer.
    points = points * [1.0, -1.0, -1.0]
    points.setflags(write=False)
    weights.setflags(write=False)
    return points, weights


def _floats(value: bytes) -> np.ndarray:
    return np.frombuffer(value, "<f4").astype("float64")


def _fields(message: bytes):
    """Fields of a protobuf message: yields numbers and values (int, or the bytes)."""

    def varint(place):
        value = shift = 0
        while True:
            byte = message[place]
            value |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                return value, place

    place = 0
    while place < len(message):
        key, place = varint(place)
        kind = key & 7
        if kind == 0:
            value, place = varint(place)
        else:
            if kind == 2:
                size, place = varint(place)
            else:
                size = {1: 8, 5: 4}[kind]
            value, place = message[place : place + size], place + size
        yield key >> 3, value
