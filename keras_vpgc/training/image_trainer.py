"""Training a network that makes images with all of the paper's losses (VPGC, Eq. 3)."""

import keras
from keras import ops

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError
from keras_vpgc.losses.adversarial import (
    NOISE,
    check_kind,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    gradient_penalty,
)
from keras_vpgc.training.optimizer import adam


class ImageTrainer(keras.Model):
    """What the trainers of images share: losses, optimisers and steps.

    A subclass says by `render` and `split` how the images are made and which variables that
    takes, and by `unpack` what a batch holds.

    Args:
        decoder: The model whose last layer makes the image.
        discriminator, perceptual, l1_weight, perceptual_weight, adversarial, adversarial_weight,
            adversarial_start, adaptive, feature_matching_weight, adaptive_matching,
            gradient_penalty: See `CodebookTrainer`.
        name: Name of the trainer.
        **parts: The models that are trained, which become attributes.

    Raises:
        VPGCError: for an unknown adversarial loss, or feature matching without feature maps.
    """

    def __init__(
        self,
        decoder,
        discriminator=None,
        perceptual=None,
        l1_weight=1.0,
        perceptual_weight=1.0,
        adversarial="hinge",
        adversarial_weight=0.8,
        adversarial_start=0,
        adaptive=True,
        feature_matching_weight=0.0,
        adaptive_matching=True,
        gradient_penalty=0.0,
        name="image_trainer",
        **parts,
    ):
        super().__init__(name=name)
        for part, model in parts.items():
            setattr(self, part, model)
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.l1_weight = float(l1_weight)
        self.perceptual_weight = float(perceptual_weight)
        self.adversarial = check_kind(adversarial)
        self.adversarial_weight = float(adversarial_weight)
        self.adversarial_start = int(adversarial_start)
        self.adaptive = bool(adaptive)
        self.feature_matching_weight = float(feature_matching_weight)
        self.adaptive_matching = bool(adaptive_matching)
        self.gradient_penalty = float(gradient_penalty)
        self._maps = discriminator is not None and discriminator.get_config()["feature_maps"]
        if self.feature_matching_weight and not self._maps:
            raise VPGCError(
                "Feature matching needs the discriminator's feature maps: build it by "
                "PatchDiscriminator(feature_maps=True)."
            )
        # Shares the decoder's layers: also shows what enters the last convolution.
        self._last = decoder.layers[-1]
        self.decode = keras.Model(decoder.inputs, [decoder.outputs[0], self._last.input])
        self._adversarial_on = False
        names = ["loss", "l1", "psnr", *self.more_logs]
        if perceptual is not None:
            names.append("perceptual")
        if discriminator is not None:
            names += ["adversarial", "discriminator", "lambda"]
            if self.feature_matching_weight:
                names.append("matching")
            if self.gradient_penalty:
                names.append("penalty")
        self._trackers = {n: keras.metrics.Mean(name=n) for n in names}
        self.built = True

    # Names of the terms that `render` adds.
    more_logs: tuple[str, ...] = ()

    def render(self, inputs, training):
        """Images, what enters the last layer, and a dict of further terms of the loss."""
        raise NotImplementedError

    def split(self):
        """The trainable variables of the network and of the codes."""
        raise NotImplementedError

    def unpack(self, data):
        """A batch as the network's inputs, images in [-1, 1] and weights of their pixels."""
        raise NotImplementedError

    @property
    def phase(self):
        """What tells steps of different kinds apart: does the discriminator play along?"""
        return self._adversarial_on

    @property
    def metrics(self):
        return list(self._trackers.values())

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
            optimizer: Optimiser of the network. Default: Adam with `learning_rate`, which
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
        """As `keras.Model.fit`, on batches as the class says."""
        callbacks = list(callbacks or [])
        if self.discriminator is not None:
            callbacks.append(_AdversarialStart(self))
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def train_step(self, *args):
        return backend.train_step(self, self._train, *args)

    def test_step(self, *args):
        return backend.test_step(self, self._test, *args)

    def _train(self, data):
        inputs, images, weights = self.unpack(data)
        network, codes = self.split()

        def forward():
            image, last_input, terms = self.render(inputs, training=True)
            return image, ops.stop_gradient(last_input), *terms.values()

        (fakes, last_input, *terms), pullback = backend.vjp(forward, network + codes)
        fakes = ops.stop_gradient(fakes)
        last_input = ops.stop_gradient(last_input)

        rec, parts, (grad,) = backend.value_and_grad(
            lambda y: self._fixed_loss(images, judged(images, y, weights), weights), [fakes]
        )
        logs = {**parts, **dict(zip(self.more_logs, terms, strict=True)), "loss": sum(terms, rec)}
        if self._adversarial_on:
            adv, more, (adv_grad,) = backend.value_and_grad(
                lambda y: self._adversarial_loss(images, judged(images, y, weights)), [fakes]
            )
            weight = self._lambda(last_input, grad, adv_grad)
            grad = grad + weight * adv_grad
            logs.update({"adversarial": adv, "lambda": weight, **more})
            logs["loss"] = logs["loss"] + weight * adv

        # One pass through the network for both terms: d/dw sum(y * sg(g_rec + lambda g_adv)).
        ones = [ops.ones_like(x) for x in terms]
        grads = backend.share(pullback((grad, ops.zeros_like(last_input), *ones)))
        self.network_optimizer.apply(grads[: len(network)], network)
        if codes:
            self.code_optimizer.apply(grads[len(network) :], codes)
        if self._adversarial_on:
            variables = self.discriminator.trainable_variables
            shown = judged(images, fakes, weights)
            (loss, penalty), pullback = backend.vjp(
                lambda: self._discriminator_losses(images, shown), variables
            )
            ones = ops.ones_like(loss)
            grads = backend.share(pullback((ones, self.gradient_penalty * ones)))
            self.discriminator_optimizer.apply(grads, variables)
            logs["discriminator"] = loss
            if self.gradient_penalty:
                logs["penalty"] = penalty
        self.optimizer.iterations.assign_add(1)
        return self._track(logs, ops.shape(images)[0])

    def _test(self, data):
        inputs, images, weights = self.unpack(data)
        fakes, _, terms = self.render(inputs, training=False)
        rec, parts = self._reconstruction_loss(images, judged(images, fakes, weights), weights)
        logs = {**parts, **terms, "loss": sum(terms.values(), rec)}
        return self._track(logs, ops.shape(images)[0])

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

    def _fixed_loss(self, images, fakes, weights):
        """What lambda does not weigh."""
        total, parts = self._reconstruction_loss(images, fakes, weights)
        if self._adversarial_on and self.feature_matching_weight and not self.adaptive_matching:
            parts["matching"] = self._matching(images, self.discriminator(fakes, training=True))
            total = total + self.feature_matching_weight * parts["matching"]
        return total, parts

    def _adversarial_loss(self, images, fakes):
        maps = self.discriminator(fakes, training=True)
        loss = generator_loss(self._logits(maps), self.adversarial)
        if not self.feature_matching_weight or not self.adaptive_matching:
            return loss, {}
        matching = self._matching(images, maps)
        return loss + self.feature_matching_weight * matching, {"matching": matching}

    def _matching(self, images, maps):
        return feature_matching_loss(self.discriminator(images, training=True), maps)

    def _discriminator_losses(self, images, fakes):
        real = self._logits(self.discriminator(images, training=True))
        made = self._logits(self.discriminator(fakes, training=True))
        loss = discriminator_loss(real, made, self.adversarial)
        if not self.gradient_penalty:
            return loss, ops.zeros_like(loss)
        noise = NOISE * backend.noise(ops.shape(images), self.optimizer.iterations)
        noisy = self.discriminator(images + noise, training=True)
        return loss, gradient_penalty(real, self._logits(noisy))

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


def judged(images, fakes, weights):
    """What losses see: pixels that weigh nothing are none to any of them, as they are the true."""
    return fakes if weights is None else ops.where(weights > 0, fakes, images)


def to_model_range(images):
    """Images as the models take them: uint8 becomes float32 in [-1, 1], floats stay."""
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


class _AdversarialStart(keras.callbacks.Callback):
    """Switches the discriminator on at its step, whatever `fit` call that is in."""

    def __init__(self, trainer):
        super().__init__()
        # Not `self.model`: on JAX, Keras gives all variables their values for whoever asks for it.
        self.trainer = trainer

    def on_train_begin(self, logs=None):
        self.steps = int(self.model.optimizer.iterations.numpy())

    def on_train_batch_begin(self, batch, logs=None):
        # Not at a batch's end, which Keras may tell late.
        on = self.steps >= self.trainer.adversarial_start
        if on != self.trainer._adversarial_on:
            self.model.switch_adversarial(on)
        self.steps += 1
