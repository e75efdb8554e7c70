import os
import pickle
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix, csr_matrix
from scipy.spatial.transform import Rotation
from skimage.transform import SimilarityTransform

from keras_vpgc.data.flame import FlameModel, LandmarkEmbedding, read_codes, read_deca
from keras_vpgc.data.retarget import Camera, HeadTrack, angles, neutral_pose, rebuild, retarget
from keras_vpgc.errors import VPGCError
from keras_vpgc.safe_pickle import read_arrays

pytestmark = pytest.mark.once

VERTICES, FACES, FRAMES = 160, 200, 12
# Written by `python tests/data/test_flame.py`.
STORED = Path(__file__).with_name("flame_smplx.npz")


def make_model():
    """A made-up model of FLAME's layout, in metres."""
    # Streams of RandomState never change, and stored numbers hang on them.
    rng = np.random.RandomState(3)
    regressor = rng.rand(5, VERTICES) ** 8
    weights = rng.rand(VERTICES, 5) ** 4
    return {
        "v_template": rng.normal(0, 0.08, (VERTICES, 3)),
        "shapedirs": rng.normal(0, 0.004, (VERTICES, 3, 400)),
        "posedirs": rng.normal(0, 0.004, (VERTICES, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], "uint32"),
        "f": rng.randint(0, VERTICES, (FACES, 3)).astype("uint32"),
        "bs_style": "lbs",
    }


def make_tables():
    rng = np.random.RandomState(4)
    return {
        "static_lmk_faces_idx": rng.randint(0, FACES, 51),
        "static_lmk_bary_coords": rng.dirichlet([1, 1, 1], 51),
        "dynamic_lmk_faces_idx": rng.randint(0, FACES, (79, 17)),
        "dynamic_lmk_bary_coords": rng.dirichlet([1, 1, 1], (79, 17)),
    }


def make_poses(count=6):
    rng = np.random.RandomState(5)
    shape, expression = rng.normal(0, 1, (count, 100)), rng.normal(0, 1, (count, 50))
    pose = rng.normal(0, 0.3, (count, 15))
    pose[:, 1] = np.linspace(-1.5, 1.5, count)  # yaw to 86 degrees
    # DECA counts the neck in for the contour, smplx the root alone.
    pose[::2, 3:6] = 0
    return shape, expression, pose


@pytest.fixture(scope="module")
def arrays():
    return make_model()


@pytest.fixture(scope="module")
def tables():
    return make_tables()


@pytest.fixture(scope="module")
def model_file(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "flame.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def model(model_file):
    return FlameModel.load(model_file)


@pytest.fixture(scope="module")
def embedding(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("embedding") / "landmark_embedding.npy"
    np.save(path, tables, allow_pickle=True)
    return LandmarkEmbedding.load(path)


@pytest.fixture
def codes(rng):
    yaw = np.linspace(-1.2, 1.2, FRAMES)
    head = rng.normal(0, 0.2, (FRAMES, 3)) + yaw[:, None] * [0, 1, 0]
    jaw = np.abs(rng.normal(0, 0.2, (FRAMES, 3))) * [1, 0.1, 0.1]
    return {
        "shape": np.repeat(rng.normal(0, 1, (1, 100)), FRAMES, 0),
        "expression": rng.normal(0, 1, (FRAMES, 50)),
        "pose": np.concatenate([head, jaw], 1),
        "camera": np.stack([rng.uniform(6, 9, FRAMES), *rng.normal(0, 0.02, (2, FRAMES))], 1),
    }


def full_pose(codes):
    pose = np.zeros((len(codes["pose"]), 15))
    pose[:, :3], pose[:, 6:9] = codes["pose"][:, :3], codes["pose"][:, 3:]
    return pose


def direct_vertices(a, shape, expression, pose):
    """Skinning written out with 4x4 matrices, one frame."""
    code = np.zeros(400)
    code[: len(shape)], code[300 : 300 + len(expression)] = shape, expression
    turns = Rotation.from_rotvec(pose.reshape(5, 3)).as_matrix()
    shaped = a["v_template"] + a["shapedirs"] @ code
    joints = a["J_regressor"] @ shaped
    shaped = shaped + a["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
    world = []
    for j, parent in enumerate([None, 0, 1, 1, 1]):
        step = np.eye(4)
        step[:3, :3] = turns[j]
        step[:3, 3] = joints[j] - (0 if parent is None else joints[parent])
        world.append(step if parent is None else world[parent] @ step)
    out = []
    for point, weights in zip(shaped, a["weights"], strict=True):
        mixed = sum(
            w * (m @ np.append(point - joint, 1.0))
            for w, m, joint in zip(weights, world, joints, strict=True)
        )
        out.append(mixed[:3])
    return np.array(out)


def decas_projection(points, camera, size=224):
    s, t = camera[:, None, :1], camera[:, None, 1:]
    x, y = np.moveaxis(s * (points[..., :2] + t), -1, 0)
    return np.stack([x, -y], -1) * size / 2 + size / 2


def test_vertices_are_the_direct_definition(arrays, model, rng):
    shape, expression = rng.normal(0, 1, (3, 100)), rng.normal(0, 1, (3, 50))
    pose = rng.normal(0, 0.6, (3, 15))
    pose[0] = 0
    made = model.vertices(shape, expression, pose)
    expected = [direct_vertices(arrays, *x) for x in zip(shape, expression, pose, strict=True)]
    np.testing.assert_allclose(made, expected, atol=1e-12)
    some = [5, 99, 3]
    np.testing.assert_allclose(model.vertices(shape, expression, pose, some), made[:, some])


def run_smplx(folder):
    """Vertices and the 68 landmarks of `make_poses` by the package smplx, in float64."""
    import smplx
    import torch

    arrays, tables = make_model(), make_tables()
    (folder / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(arrays))
    static = {"lmk_face_idx": tables["static_lmk_faces_idx"]}
    static["lmk_b_coords"] = tables["static_lmk_bary_coords"]
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(static))
    # smplx counts yaw in a frame with y down: its rows of left and right are exchanged.
    mirrored = [0, *range(40, 79), *range(1, 40)]
    dynamic = {"lmk_face_idx": tables["dynamic_lmk_faces_idx"][mirrored]}
    dynamic["lmk_b_coords"] = tables["dynamic_lmk_bary_coords"][mirrored]
    np.save(folder / "flame_dynamic_embedding.npy", dynamic, allow_pickle=True)
    model = smplx.FLAME(
        str(folder),
        num_betas=100,
        num_expression_coeffs=50,
        use_face_contour=True,
        dtype=torch.float64,
    )
    shape, expression, pose = map(torch.tensor, make_poses())
    names = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")
    parts = dict(zip(names, pose.split(3, 1), strict=True))
    with torch.no_grad():
        made = model(betas=shape, expression=expression, **parts)
    # After the five joints: the static 51, then the contour.
    inner, contour = np.split(made.joints.numpy()[:, 5:], [51], 1)
    return {"vertices": made.vertices.numpy(), "landmarks": np.concatenate([contour, inner], 1)}


@pytest.mark.parametrize("run", ["stored", "installed"])
def test_vertices_and_landmarks_are_those_of_smplx(model, embedding, tmp_path, run):
    """smplx's licence is for research only, so it is no dependency of the tests: what version
    0.1.28 gave is stored, and the package itself is asked where it is installed."""
    if run == "installed":
        pytest.importorskip("smplx")
        expected = run_smplx(tmp_path)
    else:
        expected = np.load(STORED)
    codes = make_poses()
    np.testing.assert_allclose(model.vertices(*codes), expected["vertices"], atol=1e-6)
    straight = slice(None, None, 2)
    made = model.landmarks(embedding, *(x[straight] for x in codes))
    np.testing.assert_allclose(made, expected["landmarks"][straight], atol=1e-6)


@pytest.mark.parametrize(
    ("yaw", "row"),
    [(0, 0), (1.4, 1), (1.6, 2), (39, 39), (75, 39), (-0.6, 40), (-38.7, 78), (-75, 78)],
)
def test_the_contour_goes_with_the_yaw(model, embedding, yaw, row):
    nothing = np.zeros((1, 1))
    for joint in (0, 1):
        pose = np.zeros((1, 15))
        pose[0, 3 * joint + 1] = np.radians(yaw)
        made = model.landmarks(embedding, nothing, nothing, pose)[0, :17]
        corners = model.vertices(nothing, nothing, pose)[0][
            model.faces[embedding.contour_faces[row]]
        ]
        expected = (embedding.contour_weights[row][..., None] * corners).sum(1)
        np.testing.assert_allclose(made, expected, atol=1e-12)


def test_many_frames_are_posed_in_parts(model, embedding, monkeypatch, codes):
    whole = model.landmarks(embedding, codes["shape"], codes["expression"], full_pose(codes))
    monkeypatch.setattr("keras_vpgc.data.flame.CHUNK", 5)
    parts = model.landmarks(embedding, codes["shape"][:1], codes["expression"], full_pose(codes))
    np.testing.assert_allclose(parts, whole, atol=1e-12)


def test_a_deca_track_lands_where_deca_draws_it(model, embedding, codes):
    head = read_deca(codes, model, embedding)
    points = model.landmarks(embedding, codes["shape"], codes["expression"], full_pose(codes))
    placed = rebuild(head)
    np.testing.assert_allclose(
        head.camera.project(placed), decas_projection(points, codes["camera"]), atol=1e-9
    )
    # Depth has the scale of x and grows away from the camera.
    depth = -112 * codes["camera"][:, :1] * points[..., 2]
    np.testing.assert_allclose(placed[..., 2], depth, atol=1e-9)
    assert (head.camera.width, head.camera.height, head.camera.kind) == (224, 224, "orthographic")
    assert head.shape.shape == (68, 3) and head.expression.shape == (FRAMES, 68, 3)
    np.testing.assert_allclose(np.linalg.det(head.rotation), 1)
    larger = read_deca(codes, model, embedding, crop_size=448)
    np.testing.assert_allclose(rebuild(larger), 2 * placed, atol=1e-9)


def test_the_head_is_in_centimetres_with_y_down(model, embedding, codes):
    codes["camera"][:] = [8, 0, 0]
    codes["pose"][:] = codes["expression"][:] = 0
    head = read_deca(codes, model, embedding)
    rest = model.landmarks(embedding, codes["shape"][:1], np.zeros((1, 1)), np.zeros((1, 15)))[0]
    eyes = rest[[36, 39, 42, 45]].mean(0)
    np.testing.assert_allclose(head.shape, 100 * (rest - eyes) * [1, -1, -1])
    np.testing.assert_allclose(head.scale, 112 * 8 / 100)
    np.testing.assert_allclose(head.expression, 0, atol=1e-12)


@pytest.mark.parametrize("axis, sign", [(0, 1), (1, 1), (2, -1)])
def test_angles_of_a_deca_head(model, embedding, codes, axis, sign):
    """About FLAME's x the face goes down, about y to the image's right, about z anticlockwise."""
    codes["pose"][:] = 0
    codes["pose"][:, axis] = np.radians(20)
    head = read_deca(codes, model, embedding)
    expected = np.zeros(3)
    expected[[1, 0, 2][axis]] = sign * 20
    np.testing.assert_allclose(angles(head.rotation), np.tile(expected, (FRAMES, 1)), atol=1e-9)


def test_one_shape_a_clip_whatever_single_frames_say(model, embedding, codes):
    clean = read_deca(codes, model, embedding)
    codes["shape"][::4] += np.random.default_rng(1).normal(0, 5, (3, 100))
    shaken = read_deca(codes, model, embedding)
    np.testing.assert_allclose(shaken.shape, clean.shape, atol=1e-9)
    np.testing.assert_allclose(shaken.expression, clean.expression, atol=1e-9)


def test_expression_is_free_of_the_head_pose(model, embedding, codes):
    codes["expression"][:], codes["pose"][:, 3:] = codes["expression"][0], [0.3, 0, 0]
    head = read_deca(codes, model, embedding)
    inner = head.expression[:, 17:]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:1], inner.shape), atol=1e-9)
    assert np.abs(inner).max() > 0.1
    # The jaw's contour slides with the yaw.
    assert np.ptp(head.expression[:, :17], axis=0).max() > 0.1


def test_a_tform_leads_back_to_the_video(model, embedding, codes, rng):
    crop = rebuild(read_deca(codes, model, embedding))
    transforms = [
        SimilarityTransform(scale=s, rotation=r, translation=t)
        for s, r, t in zip(
            rng.uniform(0.3, 2, FRAMES),
            rng.normal(0, 0.2, FRAMES),
            rng.normal(0, 90, (FRAMES, 2)),
            strict=True,
        )
    ]
    codes["tform"] = np.stack([x.params for x in transforms])
    head = read_deca(codes, model, embedding, source_size=(1280, 720))
    placed = rebuild(head)
    expected = [t.inverse(p[:, :2]) for t, p in zip(transforms, crop, strict=True)]
    np.testing.assert_allclose(head.camera.project(placed), expected, atol=1e-8)
    size = np.array([x.scale for x in transforms])[:, None]
    np.testing.assert_allclose(placed[..., 2], crop[..., 2] / size, atol=1e-8)
    np.testing.assert_allclose(
        head.rotation @ head.rotation.swapaxes(1, 2), [np.eye(3)] * FRAMES, atol=1e-12
    )
    assert (head.camera.width, head.camera.height) == (1280, 720)
    with pytest.raises(VPGCError, match="source_size"):
        read_deca(codes, model, embedding)
    with pytest.raises(VPGCError, match="no tform"):
        read_deca(without(codes, "tform"), model, embedding, source_size=(1280, 720))
    codes["tform"][3] = codes["tform"][3].T
    with pytest.raises(VPGCError, match="frame 3"):
        read_deca(codes, model, embedding, source_size=(1280, 720))


def test_a_deca_track_drives_another_face(model, embedding, codes, rng):
    head = read_deca(codes, model, embedding)
    target = HeadTrack(
        rotation=np.eye(3)[None],
        translation=np.array([[0.0, 0, 50]]),
        scale=np.ones(1),
        shape=rng.normal(0, 6, (68, 3)),
        expression=np.zeros((1, 68, 3)),
        camera=Camera(640, 480),
    )
    driven = retarget(head, target.shape, neutral_pose(target), neutral=5)
    np.testing.assert_array_equal(driven.shape, target.shape)
    assert np.isfinite(rebuild(driven)).all() and len(driven) == FRAMES
    # Jaw, brows and nose; lids and lips have rules of their own, made for faces.
    part = slice(36)
    np.testing.assert_allclose(rebuild(driven)[5, part], rebuild(target)[0, part], atol=1e-4)


# Files of codes.


def decas(codes, frame):
    """What deca.encode returns for a frame, and more."""
    value = {"shape": "shape", "exp": "expression", "pose": "pose", "cam": "camera"}
    value = {k: codes[v][[frame]].astype("float32") for k, v in value.items()}
    return {**value, "detail": np.zeros((1, 128), "float32"), "images": np.zeros((1, 3, 8, 8))}


def write_npz(path, value):
    np.savez(path, **value)


def write_npy(path, value):
    np.save(path, value, allow_pickle=True)


def write_pkl(path, value):
    path.write_bytes(pickle.dumps(value))


def write_torch(path, value):
    torch = pytest.importorskip("torch")
    value = {k: torch.tensor(v) for k, v in value.items()}
    value["shape"] = torch.cat([value["shape"]] * 2)[1:]  # a view into a larger storage
    path.write_bytes(pickle.dumps(value, protocol=2))


WRITERS = {
    "npz": write_npz,
    "npy": write_npy,
    "pkl": write_pkl,
    "torch.pkl": write_torch,
    "mat": savemat,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_of_frames(tmp_path, codes, kind):
    for frame in range(FRAMES):
        WRITERS[kind](tmp_path / f"clip_frame{frame}.{kind}", decas(codes, frame))
    (tmp_path / "clip_frame0.jpg").touch()
    made = read_codes(tmp_path)
    assert set(made) == set(codes)
    for name in codes:
        np.testing.assert_array_equal(made[name], codes[name].astype("float32"))


def test_other_places_of_codes(tmp_path, codes):
    np.savez(tmp_path / "clip.npz", **codes)
    for frame in range(FRAMES):
        folder = tmp_path / "nested" / f"f{frame}"
        folder.mkdir(parents=True)
        savemat(folder / f"f{frame}.mat", {k: v[frame] for k, v in codes.items()})
    (tmp_path / "apart").mkdir()
    for name, value in codes.items():
        np.save(tmp_path / "apart" / f"{name}.npy", value)
    for place in ("clip.npz", "nested", "apart"):
        made = read_codes(tmp_path / place)
        for name in codes:
            np.testing.assert_array_equal(made[name], codes[name])


def test_a_transform_of_scikit_image_in_a_pickle(tmp_path, codes):
    value = {k: v[0] for k, v in codes.items()}
    transform = SimilarityTransform(scale=0.5, translation=(3, 4))
    write_pkl(tmp_path / "f.pkl", {**value, "tform": transform})
    np.testing.assert_array_equal(read_codes(tmp_path / "f.pkl")["tform"], [transform.params])


# Files of models.


@pytest.fixture
def chumpy(monkeypatch):
    """A class of chumpy's name and state, for writing; reading must do without."""

    class Ch:
        def __init__(self, x):
            self.x, self._dirty_vars, self._itr = x, {"x"}, None

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        patch.setitem(sys.modules, "chumpy.ch", module)
        yield Ch


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("sparse", [csc_matrix, csr_matrix])
def test_the_published_pickle_without_chumpy(arrays, model, chumpy, tmp_path, protocol, sparse):
    value = {**arrays, "J_regressor": sparse(arrays["J_regressor"])}
    for name in ("v_template", "shapedirs"):
        value[name] = chumpy(value[name])
    value["posedirs"] = np.asfortranarray(value["posedirs"])
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    read = FlameModel.load(path)
    for name, expected in vars(model).items():
        np.testing.assert_array_equal(getattr(read, name), expected, name)


def test_a_pickle_of_python_2(tmp_path):
    numbers = np.array([1.5, -2.0])
    raw = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10" + numbers.tobytes() + b"tbs."
    )
    (tmp_path / "old.pkl").write_bytes(raw)
    np.testing.assert_array_equal(read_arrays(tmp_path / "old.pkl")["a"], numbers)


def test_other_forms_of_the_embedding(tables, embedding, tmp_path):
    torch = pytest.importorskip("torch")
    # DECA's own file: the dynamic part as torch tensors.
    mixed = {k: torch.tensor(v) if "dynamic" in k else v for k, v in tables.items()}
    write_npy(tmp_path / "landmark_embedding.npy", mixed)
    static = {"lmk_face_idx": tables["static_lmk_faces_idx"].astype("uint32")}
    write_pkl(tmp_path / "static.pkl", {**static, "lmk_b_coords": tables["static_lmk_bary_coords"]})
    dynamic = {"lmk_face_idx": list(tables["dynamic_lmk_faces_idx"])}
    write_npy(
        tmp_path / "dynamic.npy", {**dynamic, "lmk_b_coords": tables["dynamic_lmk_bary_coords"]}
    )
    for files in (["landmark_embedding.npy"], ["static.pkl", "dynamic.npy"]):
        read = LandmarkEmbedding.load(*(tmp_path / x for x in files))
        for name, expected in vars(embedding).items():
            np.testing.assert_array_equal(getattr(read, name), expected)
    with pytest.raises(VPGCError, match="flame_dynamic_embedding"):
        LandmarkEmbedding.load(tmp_path / "static.pkl")
    with pytest.raises(VPGCError, match="There is no file"):
        LandmarkEmbedding.load(tmp_path / "missing.npy")


# Bad input.


class Runs:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def hidden_in_torch(bad):
    """A torch storage whose inner pickle is the bad one."""

    class Storage:
        def __reduce__(self):
            import torch

            return torch.storage._load_from_bytes, (pickle.dumps(bad),)

    pytest.importorskip("torch")
    return {"shape": Storage()}


@pytest.mark.parametrize("wrap", ["plain", "key", "npy", "npz", "torch"])
def test_nothing_in_a_file_is_run(tmp_path, wrap):
    bad = Runs(tmp_path / "ran")
    path = tmp_path / f"codes.{wrap if wrap in ('npy', 'npz') else 'pkl'}"
    if wrap == "npz":
        write_npz(path, {"shape": np.array([bad], object)})
    else:
        value = {"shape": bad} if wrap == "key" else bad
        (write_npy if wrap == "npy" else write_pkl)(
            path, hidden_in_torch(bad) if wrap == "torch" else value
        )
    for read in (read_codes, FlameModel.load, LandmarkEmbedding.load):
        with pytest.raises(VPGCError, match=r"posix.mkdir|nt.mkdir") as caught:
            read(path)
        assert str(caught.value).count("\n") == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "os system",
        "numpy load",
        "numpy.core.multiarray fromfile",
        "chumpy.reordering Select",
        "torch.storage UntypedStorage",
        "functools partial",
    ],
)
def test_foreign_names_are_refused(tmp_path, name):
    module, attribute = name.split()
    raw = f"\x80\x02c{module}\n{attribute}\nU\x01x\x85R.".encode("latin1")
    (tmp_path / "x.pkl").write_bytes(raw)
    with pytest.raises(VPGCError, match=f"{module}.{attribute}"):
        read_arrays(tmp_path / "x.pkl")


def test_an_array_of_pointers_is_refused(tmp_path):
    """numpy itself trusts the layout that a pickle claims."""
    value = np.zeros(2, [("a", "O"), ("b", "f8")])
    write_pkl(tmp_path / "x.pkl", value)
    with pytest.raises(VPGCError, match="an array of type 'V16'"):
        read_arrays(tmp_path / "x.pkl")


def test_an_array_of_arrays(tmp_path):
    value = np.empty(2, object)
    value[:] = [np.arange(3.0), np.arange(4.0)]
    write_npy(tmp_path / "x.npy", value)
    made = read_arrays(tmp_path / "x.npy")
    for one, expected in zip(made, value, strict=True):
        np.testing.assert_array_equal(one, expected)


def test_damaged_files(tmp_path, codes):
    for kind in ("npz", "npy", "pkl", "mat"):
        path = tmp_path / f"codes.{kind}"
        WRITERS[kind](path, decas(codes, 0))
        raw = path.read_bytes()
        for damaged in (b"", raw[: len(raw) // 2], b"something else"):
            path.write_bytes(damaged)
            with pytest.raises(VPGCError, match=f"codes.{kind}"):
                read_codes(path)
    endless: list = []
    endless.append(endless)
    write_pkl(tmp_path / "endless.pkl", endless)
    with pytest.raises(VPGCError, match="endless.pkl"):
        read_codes(tmp_path / "endless.pkl")


def without(value, name):
    return {k: v for k, v in value.items() if k != name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: without(c, "camera"), "no camera or cam"),
        (lambda c: {"verts": c["pose"], "landmarks2d": c["pose"]}, "deca.encode"),
        (lambda c: {**c, "shape": c["shape"][:, :50]}, "shape .* 100 numbers"),
        (lambda c: {**c, "pose": full_pose(c)}, r"pose .*\(12, 15\).* 6 numbers"),
        (lambda c: {**c, "expression": c["expression"][:-1]}, "11 expression"),
        (lambda c: {**c, "camera": c["camera"] * [-1, 1, 1]}, "scale in frame 0"),
        (lambda c: {**c, "pose": np.where(np.arange(12)[:, None] == 7, np.nan, c["pose"])},
         "pose .* frame 7"),
        (lambda c: {**c, "shape": "abc"}, "shape .* 100 numbers"),
        (lambda c: {k: v[:0] for k, v in c.items()}, "0 shape"),
    ],
)  # fmt: skip
def test_codes_that_do_not_fit(model, embedding, codes, change, says):
    with pytest.raises(VPGCError, match=says):
        read_deca(change(codes), model, embedding)


def test_folders_that_do_not_fit(tmp_path, codes):
    with pytest.raises(VPGCError, match="none"):
        read_codes(tmp_path)
    write_npz(tmp_path / "a0.npz", decas(codes, 0))
    write_npz(tmp_path / "a1.npz", {**decas(codes, 1), "tform": np.eye(3)})
    with pytest.raises(VPGCError, match="tform"):
        read_codes(tmp_path)
    write_npy(tmp_path / "a2.npy", decas(codes, 0))
    with pytest.raises(VPGCError, match=".npy and .npz"):
        read_codes(tmp_path)
    with pytest.raises(VPGCError, match="There is no file"):
        read_codes(tmp_path / "missing.npz")
    with pytest.raises(VPGCError, match="no file of arrays"):
        read_codes(tmp_path / "codes.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: without(a, "posedirs"), "posedirs .* none"),
        (lambda a: {**a, "shapedirs": a["shapedirs"][..., :20]}, "400.*20"),
        (lambda a: {**a, "kintree_table": a["kintree_table"][:, ::-1]}, "parents"),
        (lambda a: {**a, "f": a["f"] + 1}, f"vertex {VERTICES}"),
        (lambda a: {}, "v_template"),
    ],
)
def test_models_that_do_not_fit(arrays, tmp_path, change, says):
    path = tmp_path / "model.npz"
    np.savez(path, **change(arrays))
    with pytest.raises(VPGCError, match=says):
        FlameModel.load(path)


def test_an_embedding_of_another_model(arrays, embedding, codes, tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, **{**arrays, "f": arrays["f"][:150]})
    with pytest.raises(VPGCError, match="has 150"):
        read_deca(codes, path, embedding)


def test_everything_from_files(arrays, tables, codes, tmp_path):
    write_npz(tmp_path / "model.npz", arrays)
    write_npy(tmp_path / "embedding.npy", tables)
    write_npz(tmp_path / "codes.npz", codes)
    files = [tmp_path / x for x in ("codes.npz", "model.npz", "embedding.npy")]
    head = read_deca(*files)
    again = read_deca(codes, FlameModel.load(files[1]), LandmarkEmbedding.load(files[2]))
    np.testing.assert_array_equal(rebuild(head), rebuild(again))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = run_smplx(Path(folder))
    np.savez_compressed(STORED, **{k: v.astype("float32") for k, v in made.items()})
