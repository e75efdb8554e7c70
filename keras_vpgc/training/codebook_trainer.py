"""Stage 1: training the codebook with all of the paper's losses (VPGC, Eq. 3)."""

import keras
from keras import ops

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError
from keras_vpgc.losses.adversarial import (
    check_kind,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from keras_vpgc.training.optimizer import adam


@keras.saving.register_keras_serializable("keras_vpgc")
class CodebookTrainer(keras.Model):
    """Trains a `PortraitAutoencoder` by `compile` and `fit` with

    `L_cb = l1_weight * L1 + perceptual_weight * L_per + L_VQ + lambda * L_adv`.

    L_VQ is what the autoencoder's `CommitmentLoss` adds. The discriminator has its own optimiser
    and joins at `adversarial_start`; before that it costs nothing. With `adaptive=True`
    `lambda = adversarial_weight * |grad_w L_rec| / (|grad_w L_adv| + 1e-4)`, its fraction clipped
    to [0, 1e4],
    `w` the decoder's last kernel and `L_rec` = L1 and perceptual terms; else `lambda =
    adversarial_weight`.

    Args:
        autoencoder: A `PortraitAutoencoder`.
        discriminator: A `PatchDiscriminator`, or `None` for no adversarial loss.
        perceptual: A callable `(true, predicted) -> scalar`, such as
            `keras_vpgc.losses.PerceptualLoss`, or `None`.
        l1_weight: Weight of the mean absolute error.
        perceptual_weight: Weight of the perceptual term.
        adversarial: `"hinge"` or `"lsgan"`.
        adversarial_weight: See above.
        adversarial_start: Step at which the adversarial loss begins.
        adaptive: Use the adaptive lambda?
        feature_matching_weight: Adds that much of `feature_matching_loss` to L_adv; the
            discriminator must have been built with `feature_maps=True` then. pix2pixHD has 10.

    Raises:
        VPGCError: for an unknown adversarial loss, or feature matching without feature maps.

    Call arguments:
        images: `(batch, s, s, 3)`, float in [-1, 1] or uint8.

    `fit`'s `y`, if given, weighs the pixels of L1: float `(batch, s, s, 1)` with mean 1, see
    `keras_vpgc.data.dataset.weigh_regions`.

    Output shape:
        The reconstruction, float32 in [-1, 1].

    Example:

    ```python
    trainer = CodebookTrainer(autoencoder, PatchDiscriminator(image_size=128))
    trainer.compile(learning_rate=2e-4)
    trainer.fit(images_uint8, batch_size=4, epochs=10)
    autoencoder.save("autoencoder.keras")
    ```

    References:
        Wang et al., SIGGRAPH 2023, Eq. 3; adaptive lambda: Esser et al., CVPR 2021, Eq. 7.
    """

    def __init__(
        self,
        autoencoder,
        discriminator=None,
        perceptual=None,
        l1_weight=1.0,
        perceptual_weight=1.0,
        adversarial="hinge",
        adversarial_weight=0.8,
        adversarial_start=0,
        adaptive=True,
        feature_matching_weight=0.0,
        name="codebook_trainer",
    ):
        super().__init__(name=name)
        self.autoencoder = autoencoder
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.l1_weight = float(l1_weight)
        self.perceptual_weight = float(perceptual_weight)
        self.adversarial = check_kind(adversarial)
        self.adversarial_weight = float(adversarial_weight)
        self.adversarial_start = int(adversarial_start)
        self.adaptive = bool(adaptive)
        self.feature_matching_weight = float(feature_matching_weight)
        self._maps = discriminator is not None and discriminator.get_config()["feature_maps"]
        if self.feature_matching_weight and not self._maps:
            raise VPGCError(
                "Feature matching needs the discriminator's feature maps: build it by "
                "PatchDiscriminator(feature_maps=True)."
            )
        # Shares the decoder's layers: also shows what enters the last convolution.
        decoder = autoencoder.decoder
        self._last = decoder.layers[-1]
        self._decode = keras.Model(decoder.inputs, [decoder.outputs[0], self._last.input])
        self._adversarial_on = False
        names = ["loss", "l1", "psnr", "vq"]
        if perceptual is not None:
            names.append("perceptual")
        if discriminator is not None:
            names += ["adversarial", "discriminator", "lambda"]
            if self.feature_matching_weight:
                names.append("matching")
        self._trackers = {n: keras.metrics.Mean(name=n) for n in names}
        self.built = True

    @property
    def metrics(self):
        return list(self._trackers.values())

    def call(self, images, training=None):
        return self.autoencoder(to_model_range(images), training=training)

    def compile(
        self,
        optimizer=None,
        code_optimizer=None,
        discriminator_optimizer=None,
        learning_rate=2e-4,
        code_rate=10.0,
        discriminator_rate=1.0,
        average=None,
        accumulate=1,
        jit_compile="auto",
        run_eagerly=False,
    ):
        """Choose the optimisers.

        Args:
            optimizer: Optimiser of encoder and decoder. Default: Adam with `learning_rate`, which
                may be a schedule, and betas 0.5 and 0.9.
            code_optimizer: Optimiser of the codes. Default: Adam at `code_rate` times the rate.
                At the network's rate Adam hardly moves them.
            discriminator_optimizer: Default: Adam at `discriminator_rate` times the rate.
            learning_rate: Base rate of the defaults.
            code_rate: See above.
            discriminator_rate: See above.
            average: Keep averages of the weights of encoder, decoder and codes, see
                `keras_vpgc.training.AveragingAdam`.
            accumulate: Batches of one update, see there.
            jit_compile: As in Keras. "auto": on for JAX, on for TensorFlow with a GPU, off for
                PyTorch.
            run_eagerly: As in Keras.
        """
        if jit_compile == "auto":
            jit_compile = backend.jit_by_default()
        shared = {"average": average, "accumulate": accumulate}
        self.network_optimizer = optimizer or adam(learning_rate, **shared)
        self.code_optimizer = code_optimizer or adam(learning_rate, code_rate, **shared)
        self.discriminator_optimizer = discriminator_optimizer or adam(
            learning_rate, discriminator_rate, accumulate=accumulate
        )
        # One optimiser for Keras, so that `fit` carries all the state on every backend.
        optimizers = {r"codebook/.*": self.code_optimizer}
        if self.discriminator is not None:
            optimizers[r"discriminator_.*"] = self.discriminator_optimizer
        super().compile(
            optimizer=keras.optimizers.MultiOptimizer(
                keras.optimizers.OptimizerMap(self.network_optimizer, optimizers)
            ),
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
        )
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`; `x` is images, uint8 or float in [-1, 1], `y` their weights."""
        callbacks = list(callbacks or [])
        if self.discriminator is not None:
            callbacks.append(_AdversarialStart())
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def train_step(self, *args):
        return backend.train_step(self, self._train, *args)

    def test_step(self, *args):
        return backend.test_step(self, self._test, *args)

    def _train(self, data):
        images, weights = self._unpack(data)
        codebook = self.autoencoder.codebook.trainable_variables
        chosen = {id(v) for v in codebook}
        network = [v for v in self.autoencoder.trainable_variables if id(v) not in chosen]

        def forward():
            # The autoencoder with its parts called one by one, to see the last layer's input.
            model = self.autoencoder
            image, last_input = self._reconstruct(images)
            return image, ops.stop_gradient(last_input), sum(model.losses, ops.zeros(()))

        (fakes, last_input, vq), pullback = backend.vjp(forward, network + codebook)
        fakes = ops.stop_gradient(fakes)
        last_input = ops.stop_gradient(last_input)

        rec, parts, (grad,) = backend.value_and_grad(
            lambda y: self._reconstruction_loss(images, y, weights), [fakes]
        )
        logs = {**parts, "vq": vq, "loss": rec + vq}
        if self._adversarial_on:
            adv, more, (adv_grad,) = backend.value_and_grad(
                lambda y: self._adversarial_loss(images, y), [fakes]
            )
            weight = self._lambda(last_input, grad, adv_grad)
            grad = grad + weight * adv_grad
            logs.update({"adversarial": adv, "lambda": weight, **more})
            logs["loss"] = logs["loss"] + weight * adv

        # One pass through the network for both terms: d/dw sum(y * sg(g_rec + lambda g_adv)).
        grads = backend.share(pullback((grad, ops.zeros_like(last_input), ops.ones_like(vq))))
        self.network_optimizer.apply(grads[: len(network)], network)
        if codebook:
            self.code_optimizer.apply(grads[len(network) :], codebook)
        if self._adversarial_on:
            variables = self.discriminator.trainable_variables
            (loss,), pullback = backend.vjp(
                lambda: (
                    discriminator_loss(
                        self._logits(self.discriminator(images, training=True)),
                        self._logits(self.discriminator(fakes, training=True)),
                        self.adversarial,
                    ),
                ),
                variables,
            )
            grads = backend.share(pullback((ops.ones_like(loss),)))
            self.discriminator_optimizer.apply(grads, variables)
            logs["discriminator"] = loss
        self.optimizer.iterations.assign_add(1)
        return self._track(logs, ops.shape(images)[0])

    def _test(self, data):
        images, weights = self._unpack(data)
        fakes = self.autoencoder(images, training=False)
        vq = sum(self.autoencoder.losses, ops.zeros(()))
        rec, parts = self._reconstruction_loss(images, fakes, weights)
        return self._track({**parts, "vq": vq, "loss": rec + vq}, ops.shape(images)[0])

    def _reconstruct(self, images):
        model = self.autoencoder
        features = model.encoder(images, training=True)
        if model.soft_index is None:
            quantized = model.codebook(features)
        else:
            quantized = model.soft_index([features, model.codebook(features)])
        return self._decode(model.commitment([features, quantized]), training=True)

    def _reconstruction_loss(self, images, fakes, weights):
        error = ops.abs(images - fakes)
        l1 = ops.mean(error if weights is None else weights * error)
        total = self.l1_weight * l1
        squared = ops.mean(ops.square(ops.clip(fakes, -1.0, 1.0) - images), axis=(1, 2, 3))
        parts = {"l1": l1, "psnr": ops.mean(-10.0 * ops.log10(ops.maximum(squared, 1e-12) / 4.0))}
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(images, fakes)
            total = total + self.perceptual_weight * parts["perceptual"]
        return total, parts

    def _adversarial_loss(self, images, fakes):
        maps = self.discriminator(fakes, training=True)
        loss = generator_loss(self._logits(maps), self.adversarial)
        if not self.feature_matching_weight:
            return loss, {}
        matching = feature_matching_loss(self.discriminator(images, training=True), maps)
        return loss + self.feature_matching_weight * matching, {"matching": matching}

    def _logits(self, outputs):
        return [maps[-1] for maps in outputs] if self._maps else outputs

    def _lambda(self, last_input, grad, adv_grad):
        if not self.adaptive:
            return ops.convert_to_tensor(self.adversarial_weight, dtype="float32")
        kernel = self._last.kernel

        def norm(cotangent):
            _, pullback = backend.vjp(lambda: (self._last(last_input),), [kernel])
            (whole,) = backend.mean_over_devices([pullback((cotangent,))[0]])
            return ops.sqrt(ops.sum(ops.square(whole)))

        ratio = norm(grad) / (norm(adv_grad) + 1e-4)
        return self.adversarial_weight * ops.clip(ratio, 0.0, 1e4)

    def _unpack(self, data):
        images, weights, _ = keras.utils.unpack_x_y_sample_weight(data)
        return to_model_range(images), None if weights is None else ops.cast(weights, "float32")

    def _track(self, logs, batch):
        logs = dict(zip(logs, backend.mean_over_devices(list(logs.values())), strict=True))
        for name, value in logs.items():
            self._trackers[name].update_state(value, sample_weight=ops.cast(batch, "float32"))
        return {name: self._trackers[name].result() for name in logs}

    def switch_adversarial(self, on: bool):
        """Turn the adversarial terms on or off; `fit` does it at `adversarial_start`."""
        if on != self._adversarial_on:
            self._adversarial_on = on
            if self.train_function is not None:
                self.make_train_function(force=True)


def to_model_range(images):
    """Images as the models take them: uint8 becomes float32 in [-1, 1], floats stay."""
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


class _AdversarialStart(keras.callbacks.Callback):
    """Switches the discriminator on at its step, whatever `fit` call that is in."""

    def on_train_begin(self, logs=None):
        self.steps = int(self.model.optimizer.iterations.numpy())

    def on_train_batch_begin(self, batch, logs=None):
        # Not at a batch's end, which Keras may tell late.
        self.model.switch_adversarial(self.steps >= self.model.adversarial_start)
        self.steps += 1
