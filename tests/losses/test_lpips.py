import functools
import hashlib
import json
import subprocess
import sys
import types
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from keras_vpgc import VPGCError, assets, backend
from keras_vpgc.losses import LPIPSDistance, LPIPSLoss
from keras_vpgc.losses.lpips import feature_distance
from keras_vpgc.metrics import LPIPS
from tests.layers.layer_case import compiled, to_numpy

WHEEL = "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e"


@pytest.fixture(scope="module")
def distance():
    return functools.cache(LPIPSDistance)


@pytest.fixture(scope="module")
def measure(distance):
    """`(net, x, y) -> (distances, gradients of their sum + sum(x))`."""

    @functools.cache
    def step(net):
        def run(x, y):
            def loss(x, y):
                found = distance(net)(x, y)
                return ops.sum(found) + ops.sum(x), found

            return backend.value_and_grad(loss, [x, y])[1:]

        return compiled(run)

    def get(net, *images):
        values, gradients = step(net)(*[ops.convert_to_tensor(x) for x in images])
        return to_numpy(values), [to_numpy(x) for x in gradients]

    return get


@pytest.fixture
def images(rng):
    """Coarse patterns and distortions of them, in [-1, 1]."""
    x = rng.uniform(-1, 1, size=(2, 16, 16, 3)).repeat(4, 1).repeat(4, 2)
    y = np.clip(x + rng.normal(size=x.shape) * [[[[0.1]]], [[[0.4]]]], -1, 1)
    return x.astype("float32"), y.astype("float32")


def torchvision(weights):
    """A module in torchvision's place: the two networks, with our weights."""
    import torch

    def features(trunk, plan):
        made, place = [], 0
        for entry in plan:
            if isinstance(entry, torch.nn.Module):
                made.append(entry)
                continue
            kernel = weights[f"{trunk}/Conv_{place}/kernel"].transpose(3, 2, 0, 1)
            conv = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], *entry)
            conv.weight.data = torch.from_numpy(kernel.copy())
            conv.bias.data = torch.from_numpy(weights[f"{trunk}/Conv_{place}/bias"].copy())
            made += [conv, torch.nn.ReLU()]
            place += 1
        return types.SimpleNamespace(features=torch.nn.Sequential(*made))

    def vgg16(pretrained):
        same = (1, 1)
        blocks = [[same] * depth + [torch.nn.MaxPool2d(2, 2)] for depth in (2, 2, 3, 3, 3)]
        return features("VGG16_0", sum(blocks, []))

    def alexnet(pretrained):
        pool = torch.nn.MaxPool2d(3, 2)
        return features("AlexNet_0", [(4, 2), pool, (1, 2), pool, (1, 1), (1, 1), (1, 1), pool])

    models = types.ModuleType("torchvision.models")
    models.vgg16, models.alexnet = vgg16, alexnet
    package = types.ModuleType("torchvision")
    package.models = models
    return {"torchvision": package, "torchvision.models": models}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """`net -> lpips.LPIPS`, the authors' own code: their wheel, unpacked but not installed."""
    folder = tmp_path_factory.mktemp("lpips")
    download = ("download", "-q", "--no-deps", "--only-binary", "lpips", "lpips==0.1.4")
    subprocess.run([sys.executable, "-m", "pip", *download, "-d", str(folder)], check=True)
    (wheel,) = folder.iterdir()
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        weights = {**assets.arrays("lpips_vgg"), **assets.arrays("lpips_alex")}
        for name, module in torchvision(weights).items():
            patch.setitem(sys.modules, name, module)
        import lpips

        yield lambda net: lpips.LPIPS(net=net, verbose=False)
        for name in [x for x in sys.modules if x.split(".")[0] == "lpips"]:
            del sys.modules[name]


@pytest.mark.parametrize(
    "net", ["alex", pytest.param("vgg", marks=pytest.mark.slow_on("tensorflow", "jax"))]
)
def test_values_and_gradient_are_those_of_the_authors_code(
    net, reference, distance, measure, images
):
    import torch

    theirs = reference(net)
    x, y = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in images)
    y.requires_grad_()
    # Their mode, not Keras' (which may have switched gradients off for the thread).
    with torch.enable_grad():
        wanted = theirs(x, y).reshape(-1)
        wanted.sum().backward()
    wanted, slope = wanted.detach().numpy(), y.grad.numpy().transpose(0, 2, 3, 1)

    found, (none, gradient) = measure(net, *images)
    assert found.shape == (2,) and found[0] < found[1]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # The true images get no gradient of the distance: what is left is that of sum(x).
    np.testing.assert_array_equal(none, 1)
    # A unit within rounding of 0 may be active here and not there, which shows around it.
    errors = np.abs(gradient - slope) / np.abs(slope).max()
    assert np.quantile(errors, 0.9) < 1e-4 and errors.max() < 0.05
    for head, layer in zip(distance(net).heads, theirs.lins, strict=True):
        np.testing.assert_array_equal(head, layer.model[-1].weight.detach().numpy().ravel())


def test_identical_images_are_at_distance_zero(measure, images):
    found, (_, gradient) = measure("alex", images[1], images[1])
    np.testing.assert_array_equal(found, 0)
    np.testing.assert_array_equal(gradient, 0)


def test_flat_images_have_a_finite_gradient(measure):
    x, y = np.full((2, 64, 64, 3), -1, "float32"), np.full((2, 64, 64, 3), 1, "float32")
    found, (_, gradient) = measure("alex", x, y)
    assert (found > 0.1).all() and np.isfinite(gradient).all()


def test_distance_by_its_definition(rng):
    shapes, counts = [(3, 2), (1, 2)], (4, 6)
    x, y = (
        [np.maximum(rng.normal(size=(2, *s, c)), 0) for s, c in zip(shapes, counts, strict=True)]
        for _ in range(2)
    )
    heads = [rng.uniform(size=c) for c in counts]
    # Where nothing is active there is no direction: both ways, and in both images.
    x[0][0, 0, 0], y[0][0, 1, 1], x[1][1, 0, 0], y[1][1, 0, 0] = 0, 0, 0, 0
    wanted = 0
    for a, b, head in zip(x, y, heads, strict=True):
        a, b = (m / (np.linalg.norm(m, axis=-1, keepdims=True) + 1e-10) for m in (a, b))
        wanted = wanted + ((a - b) ** 2 @ head).mean((1, 2))
    x, y, heads = ([a.astype("float32") for a in b] for b in (x, y, heads))

    def run(y):
        def loss(*y):
            found = feature_distance(x, y, heads)
            return ops.sum(found), found

        return backend.value_and_grad(loss, y)[1:]

    found, gradients = compiled(run)([ops.convert_to_tensor(a) for a in y])
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=1e-5)
    assert all(np.isfinite(to_numpy(g)).all() and to_numpy(g).any() for g in gradients)


def test_loss_and_metric_in_a_compiled_fit(measure, images):
    x, y = images
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(3, 1)])
    model.layers[0].set_weights([np.eye(3, dtype="float32")[None, None], np.zeros(3, "float32")])
    model.compile(keras.optimizers.SGD(0.1), LPIPSLoss("alex"), metrics=[LPIPS()])
    wanted = measure("alex", x, y)[0].mean()
    logs = model.fit(y, x, batch_size=2, epochs=2, verbose=0).history
    assert logs["loss"][0] == pytest.approx(wanted, rel=1e-4)
    assert logs["lpips"][0] == pytest.approx(wanted, rel=1e-4)
    assert logs["loss"][1] < logs["loss"][0]
    assert len(model.weights) == 2


def test_metric_takes_bytes_and_averages_over_frames(measure, images):
    metric = LPIPS()
    raw = [np.rint((a + 1) * 127.5).astype("uint8") for a in images]
    metric.update_state(*raw)
    metric.update_state(raw[0], raw[0])
    wanted = measure("alex", *(a.astype("float32") / 127.5 - 1 for a in raw))[0].mean() / 2
    assert float(to_numpy(metric.result())) == pytest.approx(wanted, rel=1e-4)
    assert metric.get_config().items() >= {"net": "alex", "path": None, "name": "lpips"}.items()


def test_configuration_names_the_weights_and_does_not_hold_them():
    loss = LPIPSLoss("alex", network_dtype="mixed_bfloat16", reduction=None)
    saved = json.dumps(keras.saving.serialize_keras_object(loss))
    assert len(saved) < 1000
    again = keras.saving.deserialize_keras_object(json.loads(saved))
    assert again.get_config() == loss.get_config()
    for one, other in zip(
        again.distance.network.weights, loss.distance.network.weights, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert not again.distance.network.trainable_weights


def test_convolutions_may_be_of_another_precision(measure, images):
    loss = LPIPSLoss("alex", network_dtype="mixed_bfloat16", reduction=None)
    found = compiled(loss)(*images)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    wanted = measure("alex", *images)[0]
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=0.05)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        plain = to_numpy(compiled(LPIPSLoss("alex", reduction=None))(*images))
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(plain, wanted, rtol=1e-5)


def test_wrong_arguments(distance, images, tmp_path):
    with pytest.raises(VPGCError, match="no network 'squeeze': choose one of vgg, alex"):
        LPIPSLoss("squeeze")
    x, y = images
    with pytest.raises(VPGCError, match="images of 31x31 pixels or more and these are 64x30"):
        distance("alex")(x[:, :30], y[:, :30])
    with pytest.raises(VPGCError, match="of one size; received .2, 64, 64, 3. and .2, 32, 64, 3."):
        distance("alex")(x, y[:, :32])
    with pytest.raises(VPGCError, match="height, width, 3. of one size; received .2, 64, 64, 1."):
        distance("alex")(x[..., :1], y[..., :1])
    own = dict(assets.arrays("lpips_alex"))
    own["NetLinLayer_4/Conv_0/kernel"] = np.ones((1, 1, 2, 1))
    np.savez(tmp_path / "own.npz", **own)
    with pytest.raises(VPGCError, match="own.npz has the shape .1, 1, 2, 1. for NetLinLayer_4/"):
        LPIPSLoss("alex", tmp_path / "own.npz")
    del own["NetLinLayer_4/Conv_0/kernel"]
    np.savez(tmp_path / "own.npz", **own)
    with pytest.raises(VPGCError, match="own.npz has no array NetLinLayer_4/Conv_0/kernel where"):
        LPIPSLoss("alex", tmp_path / "own.npz")


def test_own_weights_are_used(tmp_path):
    own = {k: x * (2 if k.startswith("Net") else 1) for k, x in assets.arrays("lpips_alex").items()}
    np.savez(tmp_path / "own.npz", **own)
    loss = LPIPSLoss("alex", tmp_path / "own.npz")
    np.testing.assert_array_equal(
        loss.distance.heads[0], own["NetLinLayer_0/Conv_0/kernel"].ravel()
    )
    assert loss.get_config()["path"] == str(tmp_path / "own.npz")
