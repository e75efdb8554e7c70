import itertools

import keras
import numpy as np
import pytest
from keras import ops
from skimage.data import astronaut

from keras_vpgc import VPGCError, assets
from keras_vpgc.data import landmark_sets, tracking, video
from keras_vpgc.metrics import (
    FaceEmbedding,
    IdentitySimilarity,
    align_face,
    identity_distance,
    identity_similarity,
)

# The first of the 128 numbers that dlib 20.0.1 finds by the same file
# (face_recognition_model_v1.compute_face_descriptor), for a picture and its mirror image.
DLIB = (
    [-0.076857, 0.095077, 0.031432, -0.002244, -0.092962, -0.039061, -0.071963, -0.110081],
    [-0.08588, 0.102252, 0.074325, 0.020239, -0.065423, -0.066153, -0.044202, -0.10625],
)


@pytest.fixture(scope="module")
def embed():
    return FaceEmbedding()


@pytest.fixture(scope="module")
def chips():
    chip = astronaut()[25:175, 150:300]
    return np.stack([chip, chip[:, ::-1]])


def test_embedding_is_dlibs(embed, chips):
    found = embed(chips, batch_size=4)
    assert found.shape == (2, 128) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, :8], DLIB, atol=2e-6)
    # Batches do not matter.
    np.testing.assert_allclose(embed(chips[:1], batch_size=4), found[:1], atol=1e-6)
    assert len(embed(chips[:0])) == 0
    with pytest.raises(VPGCError, match=r"\(2, 75, 75, 3\): make them by align_face"):
        embed(chips[:, ::2, ::2])


def test_metric_is_the_function(embed, chips):
    metric = IdentitySimilarity()
    metric.update_state(chips, chips)
    assert float(metric.result()) == pytest.approx(1, abs=1e-6)
    metric.reset_state()
    metric.update_state(chips, chips[::-1].copy())
    vectors = embed(chips, batch_size=4)
    wanted = identity_similarity(vectors[0], vectors[1:])[0]
    assert float(metric.result()) == pytest.approx(wanted, abs=1e-5) and wanted < 0.999
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert isinstance(again, IdentitySimilarity)
    with pytest.raises(VPGCError, match="Two batches of images"):
        metric.update_state(ops.ones((1, 150, 150, 3)), ops.ones((1, 64, 64, 3)))


@pytest.mark.once
def test_similarity_and_distance(rng):
    a, b = rng.normal(size=(2, 5, 128))
    b[3] = np.nan
    similarity, distance = identity_similarity(a, b), identity_distance(a, b)
    for i in (0, 1, 2, 4):
        cosine = a[i] @ b[i] / np.linalg.norm(a[i]) / np.linalg.norm(b[i])
        assert similarity[i] == pytest.approx(cosine)
        assert distance[i] == pytest.approx(np.sqrt(((a[i] - b[i]) ** 2).sum()))
    assert np.isnan(similarity[3]) and np.isnan(distance[3])
    np.testing.assert_allclose(identity_similarity(a[0], a[:1]), 1)
    with pytest.raises(VPGCError, match=r"received \(3, 128\) and \(5, 128\)"):
        identity_distance(a[:3], b)


@pytest.mark.once
def test_alignment_is_dlibs():
    points = np.zeros((68, 2))
    points[[45, 42, 36, 39, 33]] = [(260, 112), (236, 113), (194, 113), (213, 113), (227, 150)]
    chip = align_face(astronaut(), points)
    # dlib 20.0.1: get_face_chip(image, five points, size=150, padding=0.25)[::50, ::50, 0].
    dlib = [[91, 140, 138], [204, 239, 228], [0, 238, 170]]
    assert chip.shape == (150, 150, 3)
    np.testing.assert_allclose(chip[::50, ::50, 0], dlib, atol=3)
    # Four times as large, and turned about: the same picture.
    large = np.rot90(astronaut().repeat(4, 0).repeat(4, 1), 2)
    turned = 4 * 512 - 1 - (4 * points + 1.5)
    difference = np.abs(align_face(large, turned).astype(float) - chip)
    assert difference.mean() < 4
    with pytest.raises(VPGCError, match=r"points \(68, 2\) that are finite"):
        align_face(astronaut(), np.full((68, 2), np.nan))


@pytest.mark.once
def test_a_persons_pictures_are_nearer_than_another_persons(embed):
    """Between a picture, changed as videos change it, and a drawn face."""
    import cv2

    image = astronaut()
    with tracking.FaceTracker() as tracker:
        track = tracker.track([image])
    points = landmark_sets.landmarks(track.points)[0]
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    dark = (0.6 * image).astype("uint8")
    versions = [
        align_face(image, points),
        align_face(dark, points),
        align_face(np.ascontiguousarray(image[:, ::-1]), mirrored(points)),
        align_face(small, (points + 0.5) / 4 - 0.5),
        cv2.GaussianBlur(align_face(image, points), (0, 0), 12),
    ]
    distance = identity_distance(embed(np.stack(versions))[0], embed(np.stack(versions)))
    assert distance[0] == 0 and (distance[1:4] < 0.6).all() and distance[4] > distance[3]


def mirrored(points):
    """The landmarks of the mirror image; only the five that align matter."""
    result = points.copy()
    result[[45, 42, 36, 39, 33]] = points[[36, 39, 45, 42, 33]]
    result[:, 0] = 511 - result[:, 0]
    return result


@pytest.mark.once
def test_real_persons_are_told_apart(embed, test_data):
    chips, who = [], []
    with tracking.FaceTracker() as tracker:
        for name in ("franck.webm", "obama.mov", "expressive_woman_480.mp4"):
            frames = list(itertools.islice(video.read_frames(test_data / name), 0, 121, 40))
            points = landmark_sets.landmarks(tracker.track(frames).points)
            chips += [align_face(x, p) for x, p in zip(frames, points, strict=True)]
            who += [name] * len(frames)
    vectors, who = embed(np.stack(chips)), np.array(who)
    distances = np.stack([identity_distance(x, vectors) for x in vectors])
    same = who[:, None] == who
    assert distances[same].max() < 0.6 < distances[~same].min()


@pytest.mark.once
def test_weights_of_another_file_are_refused(tmp_path):
    assert assets.ASSETS["face_embedding"].licence.startswith("public domain")
    np.savez(tmp_path / "mine.npz", **{"con_0/kernel": np.zeros((7, 7, 3, 32), "float32")})
    with pytest.raises(VPGCError, match="mine.npz lacks the weights con_0/bias"):
        FaceEmbedding(tmp_path / "mine.npz")
    (tmp_path / "mine.dat").write_bytes(b"\x01\x05con_4\x01\x02\x01")
    with pytest.raises(VPGCError, match="mine.dat is not dlib_face_recognition_resnet_model_v1"):
        FaceEmbedding(tmp_path / "mine.dat")


@pytest.mark.once
def test_dlibs_format(tmp_path):
    from keras_vpgc.dlib_weights import read_network

    def number(value):
        return b"\x02" + value.to_bytes(2, "little")

    def tensor(values, shape):
        head = number(2) + b"".join(number(n) for n in shape)
        return head + np.asarray(values, "<f4").tobytes()

    kernel = np.arange(2 * 3 * 1 * 2)  # filters, channels, height, width
    data = b"net" + b"\x01\x05con_4" + tensor([*kernel, 5, 6], (14, 1, 1, 1))
    data += (
        b"".join(map(number, (2, 1, 2))) + b"\x01\x07affine_" + tensor([1, 2, 3, 4], (4, 1, 1, 1))
    )
    data += b"\x01\x04fc_2" + number(2) + number(3) + tensor(range(6), (3, 2, 1, 1))
    (tmp_path / "net.dat").write_bytes(data)
    found = read_network(tmp_path / "net.dat")
    assert found["con_0/kernel"].shape == (1, 2, 3, 2)
    assert found["con_0/kernel"][0, 1, 2, 1] == kernel.reshape(2, 3, 1, 2)[1, 2, 0, 1]
    np.testing.assert_array_equal(found["con_0/bias"], [5, 6])
    np.testing.assert_array_equal(found["affine_0/beta"], [3, 4])
    np.testing.assert_array_equal(found["fc/kernel"], [[0, 1], [2, 3], [4, 5]])
    for damaged in (data[:-5], data[:20]):
        (tmp_path / "net.dat").write_bytes(damaged)
        with pytest.raises(VPGCError, match="cannot be read as a network of dlib"):
            read_network(tmp_path / "net.dat")
    (tmp_path / "net.dat").write_bytes(b"something else")
    with pytest.raises(VPGCError, match="holds no network"):
        read_network(tmp_path / "net.dat")
