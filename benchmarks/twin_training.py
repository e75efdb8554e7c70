"""A step of stage 1 in plain PyTorch: what `CodebookTrainer` does, on the twins."""

import contextlib

import torch
import torch.nn.functional as F


class Stage1:
    """Losses, gradients and both optimisers' updates; as fast as PyTorch offers it plainly.

    L1, LPIPS, L_VQ and the hinge loss with the adaptive weight, one pass backward through the
    network for all of them, then the discriminator's own step.

    Args:
        autoencoder, discriminator, lpips: Twins, where they are to compute.
        precision: `"float32"` or `"mixed_bfloat16"` (automatic casts).
        lpips_precision: The same of LPIPS's convolutions.
        compiled: Compile forward and backward of the four losses by `torch.compile`?
        learning_rate, code_rate, adversarial_weight, matching_weight: See `CodebookTrainer`.
    """

    def __init__(
        self,
        autoencoder,
        discriminator,
        lpips,
        precision="float32",
        lpips_precision="float32",
        compiled=False,
        learning_rate=2e-4,
        code_rate=10.0,
        adversarial_weight=0.8,
        matching_weight=0.0,
    ):
        self.autoencoder, self.discriminator, self.lpips = autoencoder, discriminator, lpips
        self.adversarial_weight, self.matching_weight = adversarial_weight, matching_weight
        self.device = autoencoder.codes.device
        self.precision, self.lpips_precision = precision, lpips_precision
        codes = autoencoder.codes
        network = [x for x in autoencoder.parameters() if x is not codes]
        # One update for all, which a CUDA graph can hold.
        gpu = self.device.type == "cuda"
        shared = {"betas": (0.5, 0.9), "eps": 1e-7, "fused": gpu, "capturable": gpu}
        groups = [{"params": network}, {"params": [codes], "lr": code_rate * learning_rate}]
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate, **shared)
        self.judge_optimizer = torch.optim.Adam(
            discriminator.parameters(), lr=learning_rate, **shared
        )
        names = ("forward", "reconstruction", "adversarial", "judgement")
        for name in names:
            function = getattr(self, f"_{name}")
            setattr(self, name, _compile(function) if compiled else function)

    def _cast(self, precision):
        if precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _forward(self, images):
        with self._cast(self.precision):
            return self.autoencoder.train_forward(images)

    def _reconstruction(self, images, fakes):
        l1 = (images - fakes).abs().mean()
        with self._cast(self.lpips_precision):
            perceptual = self.lpips(images, fakes).mean()
        return l1 + perceptual, l1, perceptual

    def _adversarial(self, images, fakes):
        with self._cast(self.precision):
            maps = self.discriminator.maps(fakes)
            loss = sum(-scale[-1].float().mean() for scale in maps) / len(maps)
            if not self.matching_weight:
                return loss
            with torch.no_grad():
                real = self.discriminator.maps(images)
        total = 0.0
        for one, other in zip(real, maps, strict=True):
            pairs = list(zip(one, other, strict=True))[:-1]
            total = total + sum((x.float() - y.float()).abs().mean() for x, y in pairs) / len(pairs)
        return loss + self.matching_weight * total / len(maps)

    def _judgement(self, images, fakes):
        with self._cast(self.precision):
            real, fake = self.discriminator(images), self.discriminator(fakes)
        total = 0.0
        for one, other in zip(real, fake, strict=True):
            total = total + 0.5 * (
                F.relu(1 - one.float()).mean() + F.relu(1 + other.float()).mean()
            )
        return total / len(real)

    def __call__(self, pixels):
        """One step on uint8 images `(b, s, s, 3)`; a dict of scalar tensors."""
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        images = images.contiguous(memory_format=self._layout())
        self.optimizer.zero_grad(set_to_none=True)
        image, inner, vq = self.forward(images)
        fakes = image.detach().requires_grad_()

        loss, l1, perceptual = self.reconstruction(images, fakes)
        (grad,) = torch.autograd.grad(loss, fakes)
        # Only the image's gradient is wanted here.
        self.discriminator.requires_grad_(False)
        adversarial = self.adversarial(images, fakes)
        (adversarial_grad,) = torch.autograd.grad(adversarial, fakes)
        self.discriminator.requires_grad_(True)
        weight = self._lambda(inner.detach().float(), grad, adversarial_grad)
        total = grad + weight * adversarial_grad
        torch.autograd.backward([image, vq], [total, torch.ones_like(vq)])
        self.optimizer.step()

        self.judge_optimizer.zero_grad(set_to_none=True)
        judgement = self.judgement(images, image.detach())
        judgement.backward()
        self.judge_optimizer.step()
        logs = {"l1": l1, "perceptual": perceptual, "vq": vq, "adversarial": adversarial}
        logs |= {"lambda": weight, "discriminator": judgement}
        return {name: value.detach() for name, value in logs.items()}

    def _lambda(self, inner, grad, adversarial_grad):
        """The adaptive weight, by the gradients of the last kernel."""
        shape, padding = self.autoencoder.decoder.last.weight.shape, 1
        one, other = (
            torch.nn.grad.conv2d_weight(inner, shape, x, padding=padding).norm()
            for x in (grad, adversarial_grad)
        )
        return self.adversarial_weight * (one / (other + 1e-4)).clamp(0.0, 1e4)

    def _layout(self):
        weight = self.autoencoder.decoder.last.weight
        nhwc = weight.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if nhwc else torch.contiguous_format


def _compile(function):
    return torch.compile(function, dynamic=False)
