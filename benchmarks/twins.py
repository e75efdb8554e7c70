"""The networks in plain PyTorch, to compare the package's speed with: own code, same weights.

Each class is built out of a Keras model and copies its weights, whatever the Keras backend:

    twin = twins.Autoencoder(keras_autoencoder).to("cuda")
    images = twin(x)  # (b, 3, s, s) -> (b, 3, s, s)

Maps are NCHW; `to(memory_format=torch.channels_last)` changes how they lie in memory. Mixed
precision is `torch.autocast`; normalisations then give what they are given, with float32
statistics, and codes, softmax and last convolutions are float32, as in the package.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.twin_layers import (
    Conv,
    ExactConv,
    GroupNorm,
    Head,
    Heatmap,
    SoftIndex,
    Stack,
    exact,
    frozen,
    tensor,
)
from keras_vpgc.losses.lpips import SCALE, SHIFT


class Autoencoder(nn.Module):
    """The twin of a `PortraitAutoencoder` with a grid codebook."""

    def __init__(self, model, fused=True):
        super().__init__()
        self.encoder = Stack(model.encoder, fused)
        self.decoder = Stack(model.decoder, fused, ExactConv)
        self.codes = nn.Parameter(tensor(model.codebook.codes))
        self.index = SoftIndex(model.soft_index, model.grid_size, fused)
        terms = model.commitment
        self.weights = terms.scale, terms.codebook_weight, terms.commitment_weight
        self.straight = terms.straight_through

    def forward(self, images):
        return self.decoder(self.index(self.encoder(images), self.codes))

    def train_forward(self, images):
        """Images, what enters the last convolution, and L_VQ."""
        features = self.encoder(images)
        quantized = self.index(features, self.codes)
        with exact(features):
            z, scale = features.float(), self.weights[0]
            codes = quantized - (z - z.detach()) if self.straight else quantized
            vq = scale * self.weights[1] * (z.detach() - codes).square().mean()
            vq = vq + scale * self.weights[2] * (codes.detach() - z).square().mean()
            if self.straight:
                quantized = z + (quantized - z).detach()
        image, inner = self.decoder.both(quantized)
        return image, inner, vq


class Driver(nn.Module):
    """The twin of a `PortraitDriver`, heatmaps `(b, context, s, s)` -> features."""

    def __init__(self, model, fused=True):
        super().__init__()
        self.encoder, self.head = Stack(model.encoder, fused), Head(model.head, fused)
        self.codes = None
        if model.codebook is not None:
            self.codes = nn.Parameter(tensor(model.codebook.codes), requires_grad=False)

    def forward(self, heatmaps):
        return self.head(self.encoder(heatmaps), self.codes)


class Reenactor(nn.Module):
    """The twin of a `PortraitReenactor`, from its landmarks, heatmaps, or consecutive frames."""

    def __init__(self, model, fused=True):
        super().__init__()
        self.context = model.context
        self.heatmap = Heatmap(model.image_size, model.heatmap.line_width, model.landmark_set)
        self.encoder, self.head = Stack(model.encoder, fused), Head(model.head, fused)
        self.codes = nn.Parameter(tensor(model.codebook.codes))
        self.index = SoftIndex(model.soft_index, model.codebook.grid_size, fused)
        self.decoder = Stack(model.decoder, fused, ExactConv)
        frozen(self)

    def from_heatmaps(self, heatmaps):
        """Heatmaps `(b, context, s, s)` -> images `(b, 3, s, s)`."""
        features = self.head(self.encoder(heatmaps), self.codes)
        return self.decoder(self.index(features, self.codes))

    def forward(self, landmarks):
        """Landmarks `(b, context, points, 2)` -> images `(b, 3, s, s)`."""
        drawn = self.heatmap(landmarks.flatten(0, 1))
        return self.from_heatmaps(drawn.unflatten(0, (-1, self.context)))

    def frames(self, landmarks):
        """Consecutive landmarks `(b + context - 1, points, 2)` -> uint8 RGB `(b, s, s, 3)`."""
        windows = self.heatmap(landmarks).unfold(0, self.context, 1).permute(0, 3, 1, 2)
        images = self.from_heatmaps(windows.contiguous(memory_format=self._layout()))
        images = ((images + 1.0) * 127.5).clamp(0.0, 255.0).round().to(torch.uint8)
        return images.permute(0, 2, 3, 1).contiguous()

    def _layout(self):
        weight = self.decoder.last.weight
        nhwc = weight.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if nhwc else torch.contiguous_format


class Discriminator(nn.Module):
    """The twin of a `PatchDiscriminator`: a list of logits `(b, 1, h, w)`."""

    def __init__(self, model):
        super().__init__()
        config = model.get_config()
        self.scales = nn.ModuleList()
        for scale in range(config["num_scales"]):
            found = []
            for i in range(config["num_layers"] + 1):
                name = f"discriminator_{scale}_{i}"
                found.append(Conv(model.get_layer(name)))
                if i:
                    found.append(GroupNorm(model.get_layer(f"{name}_norm")))
                found.append(nn.LeakyReLU(0.2))
            found.append(ExactConv(model.get_layer(f"discriminator_{scale}_last")))
            self.scales.append(nn.Sequential(*found))

    def forward(self, images):
        return [maps[-1] for maps in self.maps(images)]

    def maps(self, images):
        """For each scale the inner feature maps, then the logits."""
        scales = []
        for place, scale in enumerate(self.scales):
            images = F.avg_pool2d(images, 2) if place else images
            x, found = images, []
            for layer in scale:
                x = layer(x)
                if isinstance(layer, nn.LeakyReLU):
                    found.append(x)
            scales.append([*found, x])
        return scales


class LPIPS(nn.Module):
    """The twin of an `LPIPSDistance` by VGG16, images `(b, 3, h, w)` -> `(b,)`."""

    def __init__(self, distance):
        super().__init__()
        layers = [x for x in distance.network.layers if hasattr(x, "kernel")]
        convs = iter(Conv(layer) for layer in layers)
        depths = (2, 2, 3, 3, 3)
        self.stages = nn.ModuleList(nn.ModuleList(next(convs) for _ in range(n)) for n in depths)
        self.register_buffer("shift", torch.tensor(SHIFT, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE, dtype=torch.float32).view(1, 3, 1, 1))
        for place, head in enumerate(distance.heads):
            self.register_buffer(f"head_{place}", torch.tensor(head).view(1, -1, 1, 1))
        frozen(self)

    def maps(self, images):
        """The five feature maps."""
        x, found = (images - self.shift) / self.scale, []
        for place, stage in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if place else x
            for conv in stage:
                x = F.relu(conv(x))
            found.append(x)
        return found

    def forward(self, true, predicted):
        with torch.no_grad():
            true = self.maps(true)
        total = 0.0
        for place, maps in enumerate(zip(true, self.maps(predicted), strict=True)):
            one, other = (_unit(x.float()) for x in maps)
            squared = (one - other).square() * getattr(self, f"head_{place}")
            total = total + squared.sum(1).mean((1, 2))
        return total


def _unit(x):
    squared = x.square().sum(1, keepdim=True)
    return x / (squared.masked_fill(squared == 0, 1.0).sqrt() + 1e-10)


def difference(expected, found) -> float:
    """The largest difference between two arrays, as a share of the largest expected value."""
    expected, found = (np.asarray(x, dtype="float64") for x in (expected, found))
    if expected.shape != found.shape:
        raise ValueError(f"shapes {expected.shape} and {found.shape} differ")
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12))


def nchw(array):
    """An NHWC array as an NCHW tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(array), -1, 1)))


def nhwc(x):
    """An NCHW tensor as an NHWC array of the host."""
    return x.detach().float().cpu().movedim(1, -1).numpy()


def compare(what, expected, found, tolerance=1e-4) -> float:
    """Difference of two arrays; a `RuntimeError` if it is above the tolerance."""
    value = difference(expected, found)
    if not value <= tolerance:
        raise RuntimeError(f"{what}: the twin is off by {value:.1e}, more than {tolerance:.0e}.")
    return value
