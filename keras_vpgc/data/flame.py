"""DECA's codes and the user's own FLAME model: 68 landmarks in 3D."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vpgc.data.retarget import Camera, HeadTrack
from keras_vpgc.errors import VPGCError
from keras_vpgc.safe_pickle import SUFFIXES, read_arrays

CODE_SIZES = {"shape": 100, "expression": 50, "pose": 6, "camera": 3}
_CODE_NAMES = {
    "shape": ("shape",),
    "expression": ("expression", "exp"),
    "pose": ("pose",),
    "camera": ("camera", "cam"),
}
NUM_SHAPE, NUM_EXPRESSION, NUM_JOINTS = 300, 100, 5
# The table of contours: one row a degree of yaw, 0 to 39, then -1 to -39.
MAX_YAW = 39
# FLAME has y up and z towards the camera, in metres; heads here y down, z away, in centimetres.
FLIP = np.diag([1.0, -1.0, -1.0])
CENTIMETRES = 100.0
EYE_CORNERS = [36, 39, 42, 45]
CHUNK = 1000


def rotation_matrices(vectors) -> np.ndarray:
    """Rotation matrices `(..., 3, 3)` of axis-angle vectors `(..., 3)` in radians (Rodrigues)."""
    vectors = np.asarray(vectors, "float64")
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    # numpy's sinc is sin(pi x) / (pi x): no division by zero at rest.
    sine, versine = np.sinc(angle / np.pi), 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    return np.eye(3) + sine * cross + versine * (cross @ cross)


@dataclass(frozen=True, eq=False)
class LandmarkEmbedding:
    """Where the 68 landmarks lie on FLAME's faces.

    Args:
        static_faces: Integer `(51,)`: for brows, nose, eyes and lips, the face it lies in.
        static_weights: `(51, 3)`: barycentric weights of that face's corners.
        contour_faces: Integer `(79, 17)`: the same for the jaw as seen at each degree of yaw, rows
            0 to 39, then -1 to -39; positive: the head turns to the image's right.
        contour_weights: `(79, 17, 3)`.
    """

    static_faces: np.ndarray
    static_weights: np.ndarray
    contour_faces: np.ndarray
    contour_weights: np.ndarray

    @classmethod
    def load(cls, path, contour=None) -> "LandmarkEmbedding":
        """Read the files that come with DECA, FLAME or smplx.

        Args:
            path: DECA's `landmark_embedding.npy`, which holds all; or `flame_static_embedding.pkl`.
            contour: `flame_dynamic_embedding.npy`, with the latter.

        Returns:
            The embedding.

        Raises:
            VPGCError: for a missing, foreign or incomplete file.

        Example:

        ```python
        LandmarkEmbedding.load("landmark_embedding.npy")
        LandmarkEmbedding.load("flame_static_embedding.pkl", "flame_dynamic_embedding.npy")
        ```
        """
        found = _dictionary(path)
        if contour is not None:
            second = _dictionary(contour)
            arrays = [found.get("lmk_face_idx"), found.get("lmk_b_coords")]
            arrays += [second.get("lmk_face_idx"), second.get("lmk_b_coords")]
        else:
            arrays = [
                found.get(f"{kind}_lmk_{what}")
                for kind in ("static", "dynamic")
                for what in ("faces_idx", "bary_coords")
            ]
        shapes = [(51,), (51, 3), (2 * MAX_YAW + 1, 17), (2 * MAX_YAW + 1, 17, 3)]
        for array, shape in zip(arrays, shapes, strict=True):
            if array is None or np.shape(array) != shape:
                has = "none" if array is None else f"one of shape {np.shape(array)}"
                raise VPGCError(
                    f"The landmark embedding {path}{f' with {contour}' if contour else ''} should "
                    f"hold an array of shape {shape} and has {has}: give DECA's "
                    "landmark_embedding.npy, or flame_static_embedding.pkl and "
                    "flame_dynamic_embedding.npy."
                )
        faces, weights = arrays[::2], arrays[1::2]
        return cls(
            *(
                np.asarray(array, kind)
                for pair in zip(faces, weights, strict=True)
                for array, kind in zip(pair, ("int64", "float64"), strict=True)
            )
        )


@dataclass(frozen=True, eq=False)
class FlameModel:
    """The FLAME head model: blend shapes and linear blend skinning, in float64.

    Joints: root, neck, jaw, left eye, right eye. Axes of a head at rest: x to the image's right, y
    up, z towards the camera; metres.

    Args:
        template: `(v, 3)`.
        shape_basis: `(v, 3, 300)`.
        expression_basis: `(v, 3, 100)`.
        pose_basis: `(v, 3, 36)`: correctives for the rotation matrices of all joints but the root.
        joint_regressor: `(5, v)`.
        parents: Integer `(5,)`; that of the root is not used.
        weights: `(v, 5)`: how far each vertex goes with each joint.
        faces: Integer `(f, 3)`.

    References:
        Li et al., "Learning a model of facial shape and expression from 4D scans", SIGGRAPH Asia
        2017; Loper et al., "SMPL", SIGGRAPH Asia 2015 (the skinning).
    """

    template: np.ndarray
    shape_basis: np.ndarray
    expression_basis: np.ndarray
    pose_basis: np.ndarray
    joint_regressor: np.ndarray
    parents: np.ndarray
    weights: np.ndarray
    faces: np.ndarray

    @classmethod
    def load(cls, path) -> "FlameModel":
        """Read the user's own copy of the model.

        Args:
            path: `generic_model.pkl` as published (2019 to 2023), or its arrays under the same
                names in a `.npz`. A pickle is read safely and without chumpy, see `read_arrays`.

        Returns:
            The model.

        Raises:
            VPGCError: for a missing, foreign or incomplete file.

        Example:

        ```python
        model = FlameModel.load("FLAME2020/generic_model.pkl")
        ```
        """
        found = _dictionary(path)
        count, face_count = (
            len(np.atleast_1d(found.get(name, ()))) for name in ("v_template", "f")
        )
        shapes = {
            "v_template": (count, 3),
            "shapedirs": (count, 3, NUM_SHAPE + NUM_EXPRESSION),
            "posedirs": (count, 3, 9 * (NUM_JOINTS - 1)),
            "J_regressor": (NUM_JOINTS, count),
            "kintree_table": (2, NUM_JOINTS),
            "weights": (count, NUM_JOINTS),
            "f": (face_count, 3),
        }
        for name, shape in shapes.items():
            if name not in found or np.shape(found[name]) != shape or 0 in shape:
                has = f"one of shape {np.shape(found[name])}" if name in found else "none"
                raise VPGCError(
                    f"The FLAME model {path} should hold an array {name} of shape {shape} and has "
                    f"{has}: give generic_model.pkl of FLAME 2019 or later."
                )
        numbers = {k: np.asarray(found[k], "float64") for k in shapes}
        parents, faces = (
            np.asarray(found["kintree_table"][0], "int64"),
            numbers["f"].astype("int64"),
        )
        if (parents[1:] >= range(1, NUM_JOINTS)).any() or (parents[1:] < 0).any():
            raise VPGCError(
                f"The joints' parents {parents.tolist()} of the FLAME model {path} are not those "
                "of a tree: give generic_model.pkl of FLAME 2019 or later."
            )
        if faces.min() < 0 or faces.max() >= count:
            raise VPGCError(
                f"The faces of the FLAME model {path} name vertex {int(faces.max())} of {count}: "
                "give generic_model.pkl of FLAME 2019 or later."
            )
        return cls(
            template=numbers["v_template"],
            shape_basis=numbers["shapedirs"][..., :NUM_SHAPE],
            expression_basis=numbers["shapedirs"][..., NUM_SHAPE:],
            pose_basis=numbers["posedirs"],
            joint_regressor=numbers["J_regressor"],
            parents=parents,
            weights=numbers["weights"],
            faces=faces,
        )

    def _shaped(self, shape, expression, subset=slice(None)):
        made = self.template[subset]
        for code, basis in ((shape, self.shape_basis), (expression, self.expression_basis)):
            made = made + np.tensordot(code, basis[subset][..., : code.shape[-1]], (-1, -1))
        return made

    def joints(self, shape, expression) -> np.ndarray:
        """Joints at rest.

        Args:
            shape: `(n, k)` or `(1, k)`, k up to 300.
            expression: `(n, k)`, k up to 100.

        Returns:
            Float64 `(n, 5, 3)`, metres.
        """
        made = self.joint_regressor @ self.template
        for code, basis in ((shape, self.shape_basis), (expression, self.expression_basis)):
            basis = np.tensordot(self.joint_regressor, basis[..., : code.shape[-1]], (1, 0))
            made = made + np.tensordot(code, basis, (-1, -1))
        return made

    def vertices(self, shape, expression, pose, subset=slice(None)) -> np.ndarray:
        """Vertices of posed heads.

        Args:
            shape: `(n, k)` or `(1, k)`, k up to 300.
            expression: `(n, k)`, k up to 100.
            pose: `(n, 15)`: axis-angle in radians of root, neck, jaw, left eye, right eye.
            subset: Numbers of the vertices wanted.

        Returns:
            Float64 `(n, v, 3)`, metres.

        Example:

        ```python
        rest = model.vertices(np.zeros((1, 100)), np.zeros((1, 50)), np.zeros((1, 15)))
        ```
        """
        turns = rotation_matrices(np.reshape(pose, (-1, NUM_JOINTS, 3)))
        bends = (turns[:, 1:] - np.eye(3)).reshape(len(turns), -1)
        rest = self._shaped(shape, expression, subset)
        rest = rest + np.tensordot(bends, self.pose_basis[subset], (-1, -1))
        joints = self.joints(shape, expression)
        made = np.zeros_like(rest)
        rotations, places = [turns[:, 0]], [joints[:, 0]]
        for joint in range(NUM_JOINTS):
            if joint:
                parent = self.parents[joint]
                arm = (joints[:, joint] - joints[:, parent])[..., None]
                rotations.append(rotations[parent] @ turns[:, joint])
                places.append((rotations[parent] @ arm)[..., 0] + places[parent])
            local = rest - joints[:, None, joint]
            moved = local @ rotations[joint].swapaxes(1, 2) + places[joint][:, None]
            made += self.weights[subset, joint, None] * moved
        return made

    def landmarks(self, embedding: LandmarkEmbedding, shape, expression, pose) -> np.ndarray:
        """The 68 landmarks (iBUG's order) of posed heads.

        The jaw's 17 are on the contour that is seen at the head's yaw, up to 39 degrees, as in
        DECA. Only the vertices that are needed are posed.

        Args:
            embedding: Where they lie.
            shape: `(n, k)` or `(1, k)`, k up to 300.
            expression: `(n, k)`, k up to 100.
            pose: `(n, 15)`, see `vertices`.

        Returns:
            Float64 `(n, 68, 3)`, metres.

        Raises:
            VPGCError: for an embedding of another model.

        References:
            `FLAME.py` of DECA: the contour's row is the yaw of the root's and neck's rotation with
            y up. `lbs.py` of smplx has the other sign: it expects y down.
        """
        used = max(embedding.static_faces.max(), embedding.contour_faces.max())
        if used >= len(self.faces):
            raise VPGCError(
                f"The landmark embedding names face {int(used)}, but the FLAME model has "
                f"{len(self.faces)}: give the embedding of this model."
            )
        parts = []
        for first in range(0, len(pose), CHUNK):
            part = slice(first, first + CHUNK)
            shapes = shape if len(shape) == 1 else shape[part]
            turns = rotation_matrices(pose[part, :6].reshape(-1, 2, 3))
            rows = _contour_rows(turns[:, 0] @ turns[:, 1])
            static = (len(rows), *embedding.static_weights.shape)
            faces = np.broadcast_to(embedding.static_faces, static[:2])
            faces = np.concatenate([embedding.contour_faces[rows], faces], 1)
            weights = np.broadcast_to(embedding.static_weights, static)
            weights = np.concatenate([embedding.contour_weights[rows], weights], 1)
            subset, corners = np.unique(self.faces[faces], return_inverse=True)
            posed = self.vertices(shapes, expression[part], pose[part], subset)
            frames = np.arange(len(rows))[:, None, None]
            corners = posed[frames, corners.reshape(*faces.shape, 3)]
            parts.append(np.einsum("nlc,nlcx->nlx", weights, corners))
        return np.concatenate(parts)


def _contour_rows(rotation):
    yaw = np.arctan2(-rotation[:, 2, 0], np.hypot(rotation[:, 0, 0], rotation[:, 1, 0]))
    degrees = np.rint(np.clip(np.degrees(yaw), -MAX_YAW, MAX_YAW)).astype(int)
    return np.where(degrees < 0, MAX_YAW - degrees, degrees)


def _dictionary(path) -> dict:
    found = read_arrays(path)
    if not isinstance(found, dict):
        raise VPGCError(
            f"{path} holds {type(found).__name__} and not named arrays: give the file as published."
        )
    return found


def read_codes(path) -> dict[str, np.ndarray]:
    """Read DECA's codes of a clip.

    DECA's demo does not write them: save the dictionary that `deca.encode` returns, a file a frame
    or one a clip. Other entries (tex, light, detail, images ...) are ignored.

    Args:
        path: A file (`.npz`, `.npy` of a dictionary, `.pkl`, `.mat`) with `shape` `(n, 100)`, `exp`
            or `expression` `(n, 50)`, `pose` `(n, 6)` (axis-angle of head and jaw, radians), `cam`
            or `camera` `(n, 3)` and, if wanted, `tform` `(n, 3, 3)`; or a folder of such files in
            the frames' order (`frame_9` before `frame_10`), beside each other or each in its own
            folder; or a folder of `shape.npy`, `exp.npy`, `pose.npy` and `cam.npy`.

    Returns:
        Float64 arrays by the names shape, expression, pose, camera and, if there, tform.

    Raises:
        VPGCError: for missing, foreign or incomplete files and for codes of another size.

    Example:

    ```python
    codes = read_codes("deca_results")
    ```

    References:
        Feng et al., "Learning an animatable detailed 3D face model from in-the-wild images"
        (DECA), SIGGRAPH 2021; `decalib/deca.py` there.
    """
    path = Path(path)
    if not path.is_dir():
        return _codes(read_arrays(path), path)
    files = [x for x in path.iterdir() if x.suffix.lower() in SUFFIXES]
    names = {name for names in _CODE_NAMES.values() for name in names} | {"tform"}
    if files and {x.stem for x in files} <= names:
        return _codes({x.stem: read_arrays(x) for x in files}, path)
    files = files or [x for x in path.glob("*/*") if x.suffix.lower() in SUFFIXES]
    kinds = sorted({x.suffix.lower() for x in files})
    if len(kinds) != 1:
        raise VPGCError(
            f"{path} should hold files of codes of one kind and has "
            f"{' and '.join(kinds) or 'none'}: save DECA's codes there as .npz, a file a frame."
        )
    files.sort(key=lambda x: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", str(x))])
    frames = [_codes(read_arrays(x), x) for x in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.keys() != frames[0].keys():
            raise VPGCError(
                f"Of {files[0]} and {file} only one has a tform: save it with every frame or none."
            )
    return {name: np.concatenate([x[name] for x in frames]) for name in frames[0]}


def _codes(found, path):
    if not isinstance(found, dict):
        raise VPGCError(
            f"{path} holds {type(found).__name__} and not named codes: save DECA's codes by their "
            "names, shape, exp, pose and cam."
        )
    codes = {}
    for name, size in CODE_SIZES.items():
        key = next((x for x in _CODE_NAMES[name] if x in found), None)
        if key is None:
            has = ", ".join(sorted(map(str, found))) or "nothing"
            raise VPGCError(
                f"{path} has no {' or '.join(_CODE_NAMES[name])} among {has}: save what "
                "deca.encode returns, not what deca.decode does."
            )
        codes[name] = _numbers(found[key], (size,), key, path)
    if "tform" in found:
        codes["tform"] = _numbers(found["tform"], (3, 3), "tform", path)
    counts = {name: len(x) for name, x in codes.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise VPGCError(
            f"The codes in {path} have {', '.join(f'{v} {k}' for k, v in counts.items())}: give as "
            "many of each, one a frame."
        )
    if (codes["camera"][:, 0] <= 0).any():
        frame = int(np.argmax(codes["camera"][:, 0] <= 0))
        raise VPGCError(
            f"The camera's scale in frame {frame} of {path} is {codes['camera'][frame, 0]:g}: "
            "leave out frames where DECA failed."
        )
    return codes


def _numbers(value, shape, name, path):
    try:
        array = np.asarray(value, "float64")
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape == shape:
        array = array[None]
    if array.shape[1:] != shape:
        wanted = " x ".join(map(str, shape))
        raise VPGCError(
            f"{name} in {path} has the shape {array.shape}: {wanted} numbers a frame are read."
        )
    bad = ~np.isfinite(array).all(tuple(range(1, array.ndim)))
    if bad.any():
        raise VPGCError(
            f"{name} in {path} is not finite in frame {int(np.argmax(bad))}: leave out frames "
            "where DECA failed."
        )
    return array


def read_deca(codes, model, embedding, crop_size=224, source_size=None) -> HeadTrack:
    """A DECA track as a `HeadTrack` of 68 landmarks.

    DECA projects a point (X, Y, Z) of FLAME, in metres, with cam = [s, tx, ty] to x = s (X + tx),
    y = -s (Y + ty), depth -s Z, each in [-1, 1] over its crop, that is the pixel
    `crop_size / 2 * (1 + x)`. The same is kept here as an orthographic camera.

    The person has one shape, the median over the frames of each number of the shape code; the
    frames' own shapes, which change with pose and light, are not used. `expression` is what the
    expression code, the jaw and, at the jaw's contour, the yaw do to it. Head coordinates are in
    centimetres, x right, y down, z away from the camera, from the middle of the corners of the
    eyes.

    Args:
        codes: What `read_codes` reads (a path), or such a dictionary.
        model: A `FlameModel` or its path.
        embedding: A `LandmarkEmbedding`, its path, or the pair of paths.
        crop_size: Side of DECA's crop in pixels.
        source_size: Width and height of the video in pixels, where the codes have a `tform`: the
            matrix from the video's pixels to the crop's, `testdata[i]["tform"]` of DECA. The
            result is then in the video's pixels; without a `tform` it is in the crop's, and DECA's
            crop goes with the face.

    Returns:
        A `HeadTrack` with 68 points and an orthographic camera; `scale` is in pixels a centimetre.

    Raises:
        VPGCError: for missing, foreign or unfit files.

    Example:

    ```python
    head = read_deca(
        "deca_results", "generic_model.pkl", "landmark_embedding.npy", source_size=(1280, 720)
    )
    pixels = head.camera.project(rebuild(head))  # (n, 68, 2)
    ```

    References:
        Feng et al., DECA, SIGGRAPH 2021: `batch_orth_proj` in `decalib/utils/util.py`, `decode` in
        `decalib/deca.py`, `transform_points` in `decalib/utils/tensor_cropper.py`.
    """
    codes = _codes(codes, "codes") if isinstance(codes, dict) else read_codes(codes)
    if ("tform" in codes) != (source_size is not None):
        raise VPGCError(
            "The codes have a tform to the video's pixels, but its size is not known: give "
            "source_size=(width, height)."
            if source_size is None
            else "source_size is given, but the codes have no tform to lead to the video's pixels: "
            "save testdata[i]['tform'] of DECA with them, or leave source_size out."
        )
    model = model if isinstance(model, FlameModel) else FlameModel.load(model)
    if not isinstance(embedding, LandmarkEmbedding):
        pair = embedding if isinstance(embedding, (tuple, list)) else (embedding,)
        embedding = LandmarkEmbedding.load(*pair)

    count = len(codes["shape"])
    shape = np.median(codes["shape"], axis=0, keepdims=True)
    expression = codes["expression"]
    # DECA leaves neck and eyes at rest.
    pose = np.zeros((count, 3 * NUM_JOINTS))
    pose[:, :3], pose[:, 6:9] = codes["pose"][:, :3], codes["pose"][:, 3:]
    points = model.landmarks(embedding, shape, expression, pose)
    neutral = model.landmarks(embedding, shape, expression[:1] * 0, pose[:1] * 0)[0]
    origin = neutral[EYE_CORNERS].mean(0)

    # FLAME turns the head about its root joint.
    root = model.joints(shape, expression)[:, 0]
    turn = rotation_matrices(codes["pose"][:, :3])
    local = (points - root[:, None]) @ turn + root[:, None]
    place = np.einsum("nij,nj->ni", turn, origin - root) + root
    place[:, :2] += codes["camera"][:, 1:]

    pixels = 0.5 * crop_size * codes["camera"][:, 0]
    rotation = FLIP @ turn @ FLIP
    translation = pixels[:, None] * (place @ FLIP)
    translation[:, :2] += 0.5 * crop_size
    width, height = (crop_size, crop_size) if source_size is None else source_size
    if "tform" in codes:
        inverse, zoom = _to_source(codes["tform"])
        pixels = pixels * zoom
        rotation = inverse[:, :3, :3] / zoom[:, None, None] @ rotation
        translation = np.einsum("nij,nj->ni", inverse[:, :3, :3], translation) + inverse[:, :3, 3]
    head_shape = CENTIMETRES * (neutral - origin) @ FLIP
    return HeadTrack(
        rotation=rotation,
        translation=translation,
        scale=pixels / CENTIMETRES,
        shape=head_shape,
        expression=CENTIMETRES * (local - origin) @ FLIP - head_shape,
        camera=Camera(width, height, kind="orthographic"),
    )


def _to_source(tform):
    """The crop's pixels and depth to the video's, `(n, 3, 4)`, and the zoom `(n,)`."""
    a, b = tform[:, 0, 0], tform[:, 1, 0]
    size = np.hypot(a, b)
    similarity = np.zeros_like(tform)
    similarity[:, 0, 0] = similarity[:, 1, 1] = a
    similarity[:, 1, 0], similarity[:, 0, 1] = b, -b
    similarity[:, :2, 2], similarity[:, 2, 2] = tform[:, :2, 2], 1.0
    off = np.abs(tform - similarity).max((1, 2)) > 1e-3 * size
    if (off | (size <= 0)).any():
        raise VPGCError(
            f"The tform of frame {int(np.argmax(off | (size <= 0)))} is not a turn, a size and a "
            "shift from the video's pixels to the crop's: save testdata[i]['tform'] of DECA as it "
            "is."
        )
    inverse, zoom = np.linalg.inv(similarity), 1.0 / size
    made = np.zeros((len(tform), 3, 4))
    made[:, :2, :2], made[:, 2, 2] = inverse[:, :2, :2], zoom
    made[:, :2, 3] = inverse[:, :2, 2]
    return made, zoom
