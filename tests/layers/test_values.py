"""Layers against their direct definitions."""

import keras
import numpy as np
import pytest

from keras_vpgc import VPGCError, backend, layers


def to_numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_group_normalization_equals_keras(rng):
    x = (5 + 3 * rng.normal(size=(2, 7, 5, 12))).astype("float32")
    ours, theirs = layers.GroupNormalization(3), keras.layers.GroupNormalization(3, epsilon=1e-6)
    ours(x), theirs(x)
    weights = [rng.normal(size=12).astype("float32") for _ in range(2)]
    ours.set_weights(weights), theirs.set_weights(weights)
    np.testing.assert_allclose(to_numpy(ours(x)), to_numpy(theirs(x)), atol=2e-5)


def test_texture_prior_is_the_mean_code(rng):
    features = rng.normal(size=(2, 3, 3, 8)).astype("float32")
    codes = rng.normal(size=(3, 3, 5, 4)).astype("float32")
    layer = layers.TexturePrior(units=6, depth=1)
    found = to_numpy(layer([features, codes]))
    kernel, bias = layer.get_weights()
    prior = np.broadcast_to(codes.astype("float64").mean(2), (2, 3, 3, 4))
    wanted = np.concatenate([features, prior], -1) @ kernel + bias
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_global_context_is_the_spatial_mean(rng):
    features = rng.normal(size=(2, 3, 5, 8)).astype("float32")
    layer = layers.GlobalContext(depth=1)
    found = to_numpy(layer(features))
    kernel, bias = layer.get_weights()
    context = np.broadcast_to(features.mean((1, 2), keepdims=True), features.shape)
    wanted = np.concatenate([features, context], -1).astype("float64") @ kernel + bias
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_vector_quantizer_takes_the_nearest_code(rng):
    x = rng.normal(size=(2, 3, 3, 4)).astype("float32")
    layer = layers.VectorQuantizer(9, initializer="random_normal")
    layer(x)
    codes = rng.normal(size=(9, 4)).astype("float32")
    layer.set_weights([codes])
    nearest = ((x[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(to_numpy(layer.encode(x)), nearest)
    np.testing.assert_allclose(to_numpy(layer(x)), codes[nearest], atol=1e-6)


def test_commitment_loss_is_eq_2(rng):
    z, q = (rng.normal(size=(2, 3, 3, 4)).astype("float32") for _ in range(2))
    layer = layers.CommitmentLoss(codebook_weight=2.0, commitment_weight=0.5, scale=3.0)
    np.testing.assert_array_equal(to_numpy(layer([z, q])), q)
    wanted = 3.0 * 2.5 * np.square(z - q).mean()
    assert float(to_numpy(layer.losses[0])) == pytest.approx(wanted, rel=1e-5)


def loss_and_gradients(straight_through, mode, rng, image_weight):
    """Gradients of `image_weight * sum(weights * output) + L_VQ` to features and codes."""
    z = rng.normal(size=(1, 3, 3, 4)).astype("float32")
    codes = rng.normal(size=(3, 3, 5, 4)).astype("float32")
    weights = rng.normal(size=z.shape).astype("float32")
    index = layers.SoftIndex(2, mode=mode)
    commitment = layers.CommitmentLoss(1.0, 0.25, straight_through=straight_through)

    def loss(z, codes):
        output = commitment([z, index([z, codes])])
        image = image_weight * keras.ops.sum(output * keras.ops.convert_to_tensor(weights))
        # The layer's own loss, by its definition: the tape of the test must see it.
        return image + commitment.losses[0], output

    tensors = [keras.ops.convert_to_tensor(x) for x in (z, codes)]
    _, output, grads = backend.value_and_grad(loss, tensors)
    return z, codes, weights, to_numpy(output), [to_numpy(g) for g in grads]


def test_hard_index_trains_the_codes_by_the_vq_loss_alone(rng):
    state = rng.bit_generator.state
    z, codes, weights, quantized, grads = loss_and_gradients(True, "hard", rng, 1.0)
    count = z.size
    # To the features: straight through from the image, and beta times the commitment term.
    wanted = weights + 0.25 * 2 * (z - quantized) / count
    np.testing.assert_allclose(grads[0], wanted, atol=1e-5)
    rng.bit_generator.state = state
    without_image = loss_and_gradients(True, "hard", rng, 0.0)[-1]
    np.testing.assert_allclose(grads[1], without_image[1], atol=1e-6)
    assert np.abs(grads[1]).max() > 1e-3


def test_soft_index_trains_the_codes_by_the_image_too(rng):
    state = rng.bit_generator.state
    grads = loss_and_gradients(False, "soft", rng, 1.0)[-1]
    rng.bit_generator.state = state
    without_image = loss_and_gradients(False, "soft", rng, 0.0)[-1]
    assert np.abs(grads[1] - without_image[1]).max() > 1e-2


def test_to_uint8():
    x = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], "float32")
    assert to_numpy(layers.ToUint8()(x)).tolist() == [0, 0, 128, 191, 255, 255]


def test_codebook_refuses_what_does_not_fit():
    book = layers.GridCodebook((4, 4), 3, 4)
    with pytest.raises(VPGCError, match="grid is 4x4 but the features' is 5x4"):
        book(np.zeros((1, 5, 4, 8), "float32"))
    with pytest.raises(VPGCError, match="depth of 10"):
        layers.GridCodebook((4, 4), 3, 4)(np.zeros((1, 4, 4, 10), "float32"))
    with pytest.raises(VPGCError, match="positive"):
        layers.GridCodebook((4, 4), 0)


def test_quantizer_refuses_another_depth():
    with pytest.raises(VPGCError, match="length 8 but features of depth 4"):
        layers.VectorQuantizer(5, code_dim=8)(np.zeros((1, 2, 2, 4), "float32"))


def test_normalization_refuses_groups_that_do_not_divide():
    with pytest.raises(VPGCError, match="10 channels cannot be split into 4 groups"):
        layers.GroupNormalization(4)(np.zeros((1, 2, 2, 10), "float32"))


def test_denormalization_turns_standard_scores_into_the_examples(rng, tmp_path):
    values = (3 + rng.normal(size=(50, 2, 2, 3)) * 0.1 + rng.normal(size=(2, 2, 3))).astype("f2")
    layer = layers.Denormalization()
    zeros = np.zeros((1, 2, 2, 3), "float32")
    np.testing.assert_array_equal(to_numpy(layer(zeros + 2)), zeros + 2)
    layer.adapt(values)
    mean = values.astype("float64").mean(0)
    deviation = np.sqrt(((values - mean) ** 2).mean())
    np.testing.assert_allclose(to_numpy(layer(zeros))[0], mean, atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer(zeros + 1))[0], mean + deviation, atol=1e-5)
    assert not layer.trainable_weights
    with pytest.raises(VPGCError, match="both must come from the same model"):
        layer.adapt(values[:, :1])


def test_shortcut_of_upsampling_spreads_channels_over_pixels(rng):
    """`out[2y+i, 2x+j, f] = in[y, x, 4 (2 i + j) + f]` of the repeated channels."""
    x = rng.normal(size=(2, 3, 4, 8)).astype("float32")
    plain, short = layers.Upsample(4), layers.Upsample(4, shortcut=True)
    plain.build(x.shape), short.build(x.shape)
    short.set_weights(plain.get_weights())
    found = to_numpy(short(x)) - to_numpy(plain(x))
    repeated = np.repeat(x, 2, axis=-1)  # 8 channels make 4 pixels of 4
    wanted = np.zeros((2, 6, 8, 4), "float32")
    for i in range(2):
        for j in range(2):
            first = 4 * (2 * i + j)
            wanted[:, i::2, j::2] = repeated[..., first : first + 4]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with pytest.raises(VPGCError, match="cannot spread 8 channels over four pixels of 3"):
        layers.Upsample(3, shortcut=True)(x)


def test_pixels_of_a_position_come_from_its_channels_in_rows(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    layer = layers.PixelShuffleConv2D(2, 1, 3)
    layer.build(x.shape)
    # It starts as one kernel, so that no grid shows.
    started = to_numpy(layer(x))
    np.testing.assert_allclose(started[:, ::3, ::3], started[:, 1::3, 2::3], atol=1e-6)
    kernel = rng.normal(size=(1, 1, 5, 18)).astype("float32")
    layer.set_weights([kernel, np.zeros(18, "float32")])
    found, channels = to_numpy(layer(x)), np.einsum("bhwc,cf->bhwf", x, kernel[0, 0])
    for i in range(3):
        for j in range(3):
            first = 2 * (3 * i + j)
            np.testing.assert_allclose(
                found[:, i::3, j::3], channels[..., first : first + 2], atol=1e-5
            )


def test_shuffled_upsampling_starts_with_the_same_shortcut(rng):
    x = rng.normal(size=(2, 3, 4, 8)).astype("float32")
    light = layers.Upsample(4, shortcut=True, shuffle=True)
    light.build(x.shape)
    kernel, bias = light.get_weights()
    spread = np.eye(8, dtype="float32").repeat(2, axis=1)
    light.set_weights([spread[None, None], bias])
    heavy = layers.Upsample(4, shortcut=True)
    heavy.build(x.shape)
    heavy.set_weights([np.zeros_like(w) for w in heavy.get_weights()])
    np.testing.assert_allclose(to_numpy(light(x)), to_numpy(heavy(x)), atol=1e-5)
    rest = kernel - spread
    # What is beside it is the same for the four pixels.
    np.testing.assert_allclose(rest[..., :4], rest[..., 12:], atol=1e-6)
    assert np.abs(rest).max() > 0.1


def test_separable_block_is_its_convolutions(rng):
    x = rng.normal(size=(1, 4, 5, 3)).astype("float32")
    block = layers.SeparableBlock(expansion=2)
    block.build(x.shape)
    depthwise, b1, expand, b2, project, b3 = (
        rng.normal(size=w.shape).astype("float32") for w in block.get_weights()
    )
    block.set_weights([depthwise, b1, expand, b2, project, b3])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    mixed = sum(
        padded[:, i : i + 4, j : j + 5] * depthwise[i, j, :, 0] for i in range(3) for j in range(3)
    )
    hidden = np.maximum((mixed + b1) @ expand[0, 0] + b2, 0)
    np.testing.assert_allclose(to_numpy(block(x)), x + hidden @ project[0, 0] + b3, atol=1e-4)
