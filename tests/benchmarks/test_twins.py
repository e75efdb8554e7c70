"""The twins that the package's speed is compared with do the same, and the counts are right."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks import counting, twin_layers, twins  # noqa: E402
from benchmarks.twin_training import Stage1  # noqa: E402
from keras_vpgc.losses import LPIPSLoss  # noqa: E402
from keras_vpgc.models import (  # noqa: E402
    PatchDiscriminator,
    PortraitAutoencoder,
    PortraitDriver,
    PortraitReenactor,
)
from keras_vpgc.reenactment.contours import window_model  # noqa: E402
from keras_vpgc.training.codebook_trainer import CodebookTrainer  # noqa: E402

pytestmark = pytest.mark.once
PASSES = ("forward", "training")
ROOT = Path(__file__).resolve().parents[2]
# Other shapes than the preset's: plain ways, two blocks, attention inside, a strided driver.
OTHER = {"shortcuts": False, "num_blocks": 2, "attention_sizes": (32, 16), "window_size": 3}
STRIDED = {"driver_stride": 2, "driver_multipliers": (1, 2), "texture_prior": False}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def shaken(model, rng):
    """A model none of whose weights is 0 or 1 as they are at the start."""
    for variable in model.trainable_variables:
        noise = 0.05 * rng.normal(size=variable.shape)
        variable.assign(keras.ops.convert_to_numpy(variable) + noise.astype("float32"))
    return model


def close(expected, found):
    return twins.difference(keras.ops.convert_to_numpy(expected), twins.nhwc(found)) < 1e-4


def flops(function, *inputs):
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("settings", [{}, OTHER])
def test_an_autoencoders_twin_gives_its_images(mode, fused, settings, rng):
    model = PortraitAutoencoder.from_preset("vpgc_tiny", mode=mode, **settings)
    shaken(model, rng)
    images = rng.uniform(-1, 1, size=(3, 64, 64, 3)).astype("float32")
    twin = twins.Autoencoder(model, fused)
    assert close(model(images), twin(twins.nchw(images)))
    if not fused:
        own = twins.nchw(images)
        assert flops(twin, own) == counting.count(model).times(3).flops


@pytest.mark.parametrize("settings", [{}, STRIDED, {"global_context": False}])
def test_a_drivers_twin_gives_its_features(settings, rng):
    model = PortraitDriver.from_preset("vpgc_tiny", **settings)
    shaken(model, rng)
    model.adapt(rng.normal(2.0, 3.0, size=(4, *model.output_shape[1:])))
    if model.codebook is not None:
        model.codebook.codes.assign(rng.normal(size=model.codebook.codes.shape))
    heatmaps = rng.uniform(size=(2, 64, 64, 7)).astype("float32")
    assert close(model(heatmaps), twins.Driver(model)(twins.nchw(heatmaps)))
    counted = flops(twins.Driver(model, fused=False), twins.nchw(heatmaps))
    assert counted == counting.count(model).times(2).flops


@pytest.mark.parametrize("points", ["ibug-68", "ibug-68-iris"])
def test_a_reenactors_twin_gives_its_images_from_landmarks_and_heatmaps(points, rng):
    model = PortraitReenactor.from_preset("vpgc_tiny", landmark_set=points)
    shaken(model, rng)
    twin = twins.Reenactor(model, fused=False)
    landmarks = rng.uniform(-0.1, 1.1, size=(2, *model.input_shape[1:])).astype("float32")
    # Two equal points, and a line that is seen from its end.
    landmarks[:, :, 37] = landmarks[:, :, 36]
    found = twin(torch.from_numpy(landmarks))
    assert close(model(landmarks), found)
    heatmaps = keras.ops.convert_to_numpy(model.heatmap(landmarks))
    assert close(model(landmarks), twin.from_heatmaps(twins.nchw(heatmaps)))
    counted = flops(twin, torch.from_numpy(landmarks))
    assert counted == counting.count(model).times(2).flops


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_consecutive_frames_become_the_same_pixels(layout, rng):
    model = PortraitReenactor.from_preset("vpgc_tiny")
    shaken(model, rng)
    twin = twins.Reenactor(model).to(memory_format=layout)
    frames = rng.uniform(size=(9, 68, 2)).astype("float32")
    expected = keras.ops.convert_to_numpy(window_model(model)(frames)).astype("int")
    found = twin.frames(torch.from_numpy(frames))
    assert found.dtype == torch.uint8 and found.shape == (3, 64, 64, 3)
    assert np.abs(expected - found.numpy()).max() <= 1


def test_a_twin_in_bfloat16_stays_near(rng):
    model = PortraitReenactor.from_preset("vpgc_tiny")
    shaken(model, rng)
    landmarks = torch.from_numpy(rng.uniform(size=(1, 7, 68, 2)).astype("float32"))
    exact = twins.nhwc(twins.Reenactor(model)(landmarks))
    twin = twin_layers.halve(twins.Reenactor(model))
    assert twin.encoder.last.weight.dtype == torch.bfloat16
    assert twin.decoder.last.weight.dtype == twin.codes.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        found = twin(landmarks)
    assert found.dtype == torch.float32
    assert 0 < twins.difference(exact, twins.nhwc(found)) < 0.1


@pytest.mark.parametrize("scales, layers, size", [(2, 3, 64), (3, 2, 128)])
def test_a_discriminators_twin_gives_its_logits(scales, layers, size, rng):
    model = PatchDiscriminator(size, scales, layers, discriminator_channels=8)
    shaken(model, rng)
    images = rng.uniform(-1, 1, size=(2, size, size, 3)).astype("float32")
    twin = twins.Discriminator(model)
    for expected, found in zip(model(images), twin(twins.nchw(images)), strict=True):
        assert close(expected, found)
    assert flops(twin, twins.nchw(images)) == counting.count(model).times(2).flops


def perceptual(folder):
    from benchmarks.training import lpips_weights

    return LPIPSLoss("vgg", lpips_weights("random", folder))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the twin's steps are PyTorch's")
@pytest.mark.parametrize("matching", [pytest.param(0.0, marks=pytest.mark.slow), 2.0])
def test_a_twins_steps_have_the_trainers_losses(matching, rng, tmp_path):
    models = (
        PortraitAutoencoder.from_preset("vpgc_tiny"),
        PatchDiscriminator.from_preset(
            "vpgc_tiny", discriminator_channels=8, feature_maps=matching > 0
        ),
        perceptual(tmp_path),
    )
    trainer = CodebookTrainer(*models, feature_matching_weight=matching)
    trainer.compile()
    trainer.switch_adversarial(True)
    step = Stage1(
        twins.Autoencoder(models[0], fused=False),
        twins.Discriminator(models[1]),
        twins.LPIPS(models[2].distance),
        matching_weight=matching,
    )
    # PyTorch's counter does not know a module that is given a leaf.
    step.reconstruction = lambda images, x: step._reconstruction(images, x.view_as(x))
    step.adversarial = lambda images, x: step._adversarial(images, x.view_as(x))
    pixels = rng.integers(0, 256, size=(2, 64, 64, 3), dtype="uint8")
    images = pixels.astype("float32") / 127.5 - 1.0
    expected = models[2].distance(images, images[::-1].copy())
    found = step.lpips(*(twins.nchw(x) for x in (images, images[::-1])))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(expected), found.numpy(), rtol=1e-4)
    works = [counting.count(models[0]), counting.count(models[1])]
    works.append(counting.count(models[2].distance.network, 64))
    assert flops(step.lpips.maps, twins.nchw(images)) == works[2].times(2).flops
    for place in range(2):
        expected = trainer.train_on_batch(pixels, return_dict=True)
        trainer.reset_metrics()
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            found = step(torch.from_numpy(pixels))
        # The second step's losses show what the first did to the weights.
        for name, value in found.items():
            assert float(value) == pytest.approx(float(expected[name]), rel=1e-2, abs=1e-3), (
                name,
                place,
            )
    counted = sum(counting.image_step(*works, 2, matching).values())
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


# Each row trains or drives anew; what they compare is tested above.
@pytest.mark.slow
@pytest.mark.parametrize("script", ["training", "inference"])
def test_a_benchmark_prints_a_row_for_each_variant(script):
    command = [sys.executable, f"benchmarks/{script}.py", "--tiny", "--precision", "mixed_bfloat16"]
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    # A failed row is printed too, and the rest goes on.
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "failed" not in result.stdout, result.stderr
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in result.stdout.splitlines()]
    times = {row[0]: float(row[3]) for row in rows if len(row) == 12 and row[1].startswith("mixed")}
    assert set(times) == {"package-off", "package-trace", "twin-eager", "twin-eager-nhwc"}
    assert min(times.values()) > 0
    if script == "inference":
        parts = {(row[0], row[3]) for row in rows if len(row) == 9 and row[1].startswith("mixed")}
        assert len(parts) == 2 * 5


@pytest.mark.slow
def test_the_soft_indexs_benchmark_compares_with_float64():
    command = [sys.executable, "benchmarks/soft_index.py", "--tiny", "--rows", "chunked", "auto"]
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in result.stdout.splitlines()]
    found = {tuple(row[:3]): row for row in rows if len(row) == 7 and row[2] in PASSES}
    assert len(found) == 2 * 2 * 2
    for (_, precision, _), row in found.items():
        assert float(row[3]) > 0
        assert float(row[6]) < (1e-5 if precision == "float32" else 5e-3)


@pytest.mark.parametrize("row", ["twin-fast", "package-fast", "twins"])
def test_a_row_that_says_nothing_is_refused(row):
    from benchmarks import clock

    with pytest.raises(SystemExit, match="no row"):
        clock.check_rows(["twin-eager", row])
