"""Adversarial losses over the logit maps of a multi-scale discriminator."""

from keras import ops

from keras_vpgc.errors import VPGCError

KINDS = ("hinge", "lsgan")
# Standard deviation of the noise of `gradient_penalty`, for images in [-1, 1].
NOISE = 0.05


def check_kind(kind: str) -> str:
    """Return `kind`, or raise a `VPGCError` if there is no such adversarial loss."""
    if kind not in KINDS:
        raise VPGCError(f"There is no adversarial loss {kind!r}: choose one of {', '.join(KINDS)}.")
    return kind


def generator_loss(fake_logits, kind: str = "hinge"):
    """What the autoencoder minimises to be taken for real.

    Args:
        fake_logits: List of logit maps `(batch, h_i, w_i, 1)` of generated images, one a scale.
        kind: `"hinge"`: `-mean(D)`; `"lsgan"`: `mean((D - 1)^2)`.

    Returns:
        Scalar float32 tensor, the mean over the scales.

    Example:

    ```python
    generator_loss(discriminator(fakes))
    ```

    References:
        Lim and Ye, "Geometric GAN", 2017; Mao et al., "Least Squares GANs", ICCV 2017.
    """
    check_kind(kind)
    total = 0.0
    for logits in fake_logits:
        logits = ops.cast(logits, "float32")
        total += ops.mean(-logits if kind == "hinge" else ops.square(logits - 1.0))
    return total / len(fake_logits)


def discriminator_loss(real_logits, fake_logits, kind: str = "hinge"):
    """What the discriminator minimises to tell real from generated images.

    Args:
        real_logits: List of logit maps of real images, one a scale.
        fake_logits: The same for generated images.
        kind: `"hinge"`: `(mean(relu(1 - D_real)) + mean(relu(1 + D_fake))) / 2`;
            `"lsgan"`: `(mean((D_real - 1)^2) + mean(D_fake^2)) / 2`.

    Returns:
        Scalar float32 tensor, the mean over the scales.

    Example:

    ```python
    discriminator_loss(discriminator(images), discriminator(fakes))
    ```
    """
    check_kind(kind)
    total = 0.0
    for real, fake in zip(real_logits, fake_logits, strict=True):
        real, fake = ops.cast(real, "float32"), ops.cast(fake, "float32")
        if kind == "hinge":
            part = ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake))
        else:
            part = ops.mean(ops.square(real - 1.0)) + ops.mean(ops.square(fake))
        total += 0.5 * part
    return total / len(real_logits)


def gradient_penalty(logits, noisy_logits):
    """How steep the discriminator is around real images: an approximation of R1.

    `mean((D(x) - D(x + n))^2)` with `n ~ N(0, NOISE^2)` is `NOISE^2` times the mean squared norm
    of a logit's gradient where D is nearly linear, without a derivative of a derivative.

    Args:
        logits: List of logit maps `(batch, h_i, w_i, 1)` of real images, one a scale.
        noisy_logits: The same of these images with noise.

    Returns:
        Scalar float32 tensor, the mean over the scales.

    Example:

    ```python
    noise = keras.random.normal(images.shape, stddev=NOISE)
    gradient_penalty(discriminator(images), discriminator(images + noise))
    ```

    References:
        Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018 (R1);
        Lin et al., "Diffusion Adversarial Post-Training for One-Step Video Generation", 2025, for
        the approximation.
    """
    total = 0.0
    for clean, noisy in zip(logits, noisy_logits, strict=True):
        total += ops.mean(ops.square(ops.cast(clean, "float32") - ops.cast(noisy, "float32")))
    return total / len(logits)


def feature_matching_loss(real_maps, fake_maps):
    """How far generated images are from real ones in the discriminator's own features.

    Args:
        real_maps: What `PatchDiscriminator(feature_maps=True)` says of real images: for each scale
            a list of feature maps, the logits last. No gradient flows to it.
        fake_maps: The same of the images generated for them.

    Returns:
        Scalar float32 tensor: the mean over scales and layers of the mean absolute difference;
        the logits do not count.

    Raises:
        VPGCError: if a scale holds no feature maps, or the two differ in their number.

    Example:

    ```python
    discriminator = PatchDiscriminator(image_size=128, feature_maps=True)
    feature_matching_loss(discriminator(images), discriminator(fakes))
    ```

    References:
        Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
        GANs" (pix2pixHD), CVPR 2018, Eq. 4, with means for its sums.
    """
    scales = [*real_maps, *fake_maps]
    if not all(isinstance(x, (list, tuple)) and len(x) > 1 for x in scales):
        raise VPGCError(
            "feature_matching_loss compares feature maps and was given logits alone: build the "
            "discriminator with feature_maps=True."
        )
    if [len(x) for x in real_maps] != [len(x) for x in fake_maps]:
        raise VPGCError(
            f"feature_matching_loss was given {[len(x) for x in real_maps]} maps of real and "
            f"{[len(x) for x in fake_maps]} of generated images: take both from one discriminator."
        )
    total = 0.0
    for real_scale, fake_scale in zip(real_maps, fake_maps, strict=True):
        part = 0.0
        for real, fake in zip(real_scale[:-1], fake_scale[:-1], strict=True):
            real, fake = ops.cast(real, "float32"), ops.cast(fake, "float32")
            part += ops.mean(ops.abs(ops.stop_gradient(real) - fake))
        total += part / (len(real_scale) - 1)
    return total / len(real_maps)
