import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError, backend
from keras_vpgc.layers import SoftIndex
from keras_vpgc.layers import soft_index as module
from tests.layers.layer_case import to_numpy


def reference(features, codes, window, temperature=1.0, mode="soft"):
    """Eq. 1, 4 and 5 by their definition, position by position, in float64."""
    features, codes = features.astype("float64"), codes.astype("float64")
    batch, h, w, depth = features.shape
    code_dim = codes.shape[-1]
    result = np.empty_like(features)
    for u in range(h):
        for v in range(w):
            top = min(max(u - (window - 1) // 2, 0), h - window)
            left = min(max(v - (window - 1) // 2, 0), w - window)
            keys = codes[top : top + window, left : left + window].reshape(-1, code_dim)
            for b in range(batch):
                pieces = features[b, u, v].reshape(-1, code_dim)
                if mode == "soft":
                    logits = pieces @ keys.T / temperature
                    weights = np.exp(logits - logits.max(1, keepdims=True))
                    found = weights / weights.sum(1, keepdims=True) @ keys
                else:
                    distance = ((pieces[:, None] - keys[None]) ** 2).sum(-1)
                    found = keys[distance.argmin(1)]
                result[b, u, v] = found.reshape(-1)
    return result


def inputs(rng, h=5, w=6, depth=8, codes=3, code_dim=4, batch=2):
    features = rng.normal(size=(batch, h, w, depth)).astype("float32")
    return features, rng.normal(size=(h, w, codes, code_dim)).astype("float32")


@pytest.mark.parametrize("implementation", ["auto", "direct", "chunked", "attention"])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
def test_soft_equals_definition(rng, implementation, window):
    features, codes = inputs(rng)
    layer = SoftIndex(window, temperature=0.5, implementation=implementation)
    found = keras.ops.convert_to_numpy(layer([features, codes]))
    np.testing.assert_allclose(found, reference(features, codes, window, 0.5), atol=2e-5)


@pytest.mark.parametrize("window", [1, 4, 5])
def test_hard_equals_definition(rng, window):
    features, codes = inputs(rng)
    found = keras.ops.convert_to_numpy(SoftIndex(window, mode="hard")([features, codes]))
    np.testing.assert_allclose(found, reference(features, codes, window, mode="hard"), atol=1e-5)


def gradients(layer, features, codes, weights):
    def loss(z, c):
        return keras.ops.sum(layer([z, c]) * keras.ops.convert_to_tensor(weights)), ()

    tensors = [keras.ops.convert_to_tensor(x) for x in (features, codes)]
    return [keras.ops.convert_to_numpy(g) for g in backend.value_and_grad(loss, tensors)[2]]


@pytest.mark.parametrize("implementation", ["chunked", "attention"])
def test_light_ways_have_the_reference_gradients(rng, monkeypatch, implementation):
    features, codes = inputs(rng, h=6)
    weights = rng.normal(size=features.shape).astype("float32")
    wanted = gradients(SoftIndex(4, implementation="direct"), features, codes, weights)
    # Small enough that there are several chunks, the last one short.
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 2 * 2 * 48 * 7)
    found = gradients(SoftIndex(4, implementation=implementation), features, codes, weights)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))


def test_direct_gradient_equals_finite_differences(rng):
    features, codes = inputs(rng, h=3, w=3, depth=4, batch=1)
    weights = rng.normal(size=features.shape)
    _, grad = gradients(SoftIndex(2), features, codes, weights.astype("float32"))
    for place in [(0, 0, 0, 0), (1, 2, 1, 3), (2, 2, 2, 1)]:
        moved = codes.astype("float64")
        values = []
        for step in (1e-4, -1e-4):
            moved[place] = codes[place] + step
            values.append((reference(features, moved, 2) * weights).sum())
        assert grad[place] == pytest.approx((values[0] - values[1]) / 2e-4, abs=1e-4)


def test_hard_passes_the_gradient_straight_through(rng):
    features, codes = inputs(rng)
    weights = rng.normal(size=features.shape).astype("float32")
    to_features, _ = gradients(SoftIndex(3, mode="hard"), features, codes, weights)
    np.testing.assert_allclose(to_features, weights, atol=1e-6)


def test_chunks_bound_the_similarities(rng, monkeypatch):
    """No block of similarities is larger than the bound, however large the batch."""
    seen = []
    plain = module._attend

    def spy(queries, keys):
        seen.append(keys.shape[0] * queries.shape[1] * keys.shape[1])
        return plain(queries, keys)

    monkeypatch.setattr(module, "_attend", spy)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 5000)
    for batch in (1, 4, 16):
        features, codes = inputs(rng, h=6, batch=batch)
        SoftIndex(3, implementation="chunked")([features, codes])
    assert max(seen) <= 5000


@pytest.mark.parametrize(
    ("arguments", "shapes", "words"),
    [
        ({"window_size": 7}, [(1, 5, 6, 8), (5, 6, 3, 4)], "window of 7 cells"),
        ({}, [(1, 5, 6, 10), (5, 6, 3, 4)], "multiple of the code length"),
        ({}, [(1, 4, 6, 8), (5, 6, 3, 4)], "grid is 4x6 but the codes' is 5x6"),
        ({}, [(1, 6, 8), (5, 6, 3, 4)], "received shapes"),
    ],
)
def test_bad_input_says_what_to_do(arguments, shapes, words):
    with pytest.raises(VPGCError, match=words):
        SoftIndex(**arguments)([np.zeros(s, "float32") for s in shapes])


@pytest.mark.parametrize("argument", [{"mode": "x"}, {"implementation": "x"}, {"temperature": 0}])
def test_unknown_arguments_are_refused(argument):
    with pytest.raises(VPGCError, match=str(next(iter(argument.values())))):
        SoftIndex(**argument)


@pytest.mark.slow_on("tensorflow", "torch")
def test_memory_does_not_grow_with_the_similarities():
    """Eight images at the paper's size: 4 GiB of similarities, in a process of its own."""
    code = """if True:
        import resource, keras, numpy as np
        from keras_vpgc import backend, layers
        x = np.random.default_rng(0).normal(size=(8, 16, 16, 256)).astype("float32")
        inputs = keras.Input(batch_shape=x.shape)
        codes = layers.GridCodebook()(inputs)
        model = keras.Model(inputs, layers.SoftIndex(4, temperature=0.09)([inputs, codes]))
        call = backend.compiled(model)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        keras.ops.convert_to_numpy(call(x))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert int(result.stdout.split()[-1]) < 700


def test_fused_attention_in_half_precision(monkeypatch):
    """What a GPU takes, by its processor-side twin: padded, scaled and cut back rightly."""
    name = keras.backend.backend()
    if name == "torch":
        from keras_vpgc.backend import torch as kernels

        monkeypatch.setattr(kernels, "_on_gpu", lambda x: True)
    elif name == "jax":
        import jax

        from keras_vpgc.backend import jax as kernels

        own = kernels._attend
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(kernels, "_attends", lambda *a: True)
        monkeypatch.setattr(kernels, "_attend", lambda q, k, d, way: own(q, k, d, "xla"))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 4, 4, 256)).astype("float32") * 0.3
    codes = rng.normal(size=(4, 4, 16, 4)).astype("float32") * 0.3
    results = []
    for settings in ({"dtype": "mixed_bfloat16"}, {"implementation": "direct"}):
        layer = SoftIndex(2, temperature=0.09, **settings)
        results.append(to_numpy(keras.ops.cast(layer([features, codes]), "float32")))
    half, exact = results
    assert 0 < np.abs(half - exact).mean() < 0.01 * np.abs(exact).mean()
