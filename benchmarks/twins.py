"""The networks in plain PyTorch, to compare the package's speed with: own code, same weights.

Each class is built out of a Keras model and copies its weights, whatever the Keras backend:

    twin = twins.Autoencoder(keras_autoencoder).to("cuda")
    images = twin(x)  # (b, 3, s, s) -> (b, 3, s, s)

Maps are NCHW; `to(memory_format=torch.channels_last)` changes how they lie in memory. Mixed
precision is `torch.autocast`; normalisations then give what they are given, with float32
statistics, and codes, softmax and last convolutions are float32, as in the package.
"""

import keras
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from keras_vpgc.layers.landmark_heatmap import CONTOURS
from keras_vpgc.layers.soft_index import window_cells
from keras_vpgc.losses.lpips import SCALE, SHIFT


def exact(x):
    """A scope without automatic casts."""
    return torch.autocast(x.device.type, enabled=False)


def tensor(value, axes=None):
    """A Keras variable as a new float32 tensor of the host, its axes permuted."""
    array = np.array(keras.ops.convert_to_numpy(value), dtype="float32")
    return torch.from_numpy(np.ascontiguousarray(array if axes is None else array.transpose(axes)))


def frozen(module):
    """A module whose weights are not trained."""
    return module.requires_grad_(False)


class Conv(nn.Conv2d):
    """`keras.layers.Conv2D` with padding "same" on sizes that its stride divides."""

    def __init__(self, layer):
        kernel = tensor(layer.kernel, (3, 2, 0, 1))
        outputs, inputs, size, _ = kernel.shape
        total = max(size - layer.strides[0], 0)
        super().__init__(inputs, outputs, size, layer.strides[0], padding=total // 2)
        # A pixel that cannot be shared goes behind.
        self.behind = total % 2
        self.weight.data, self.bias.data = kernel, tensor(layer.bias)

    def forward(self, x):
        if self.behind:
            a = self.padding[0]
            return F.conv2d(F.pad(x, (a, a + 1, a, a + 1)), self.weight, self.bias, self.stride)
        return super().forward(x)


class ExactConv(Conv):
    """The same in float32 under any precision."""

    def forward(self, x):
        with exact(x):
            return super().forward(x.float())


class Linear(nn.Linear):
    """`keras.layers.Dense` without its activation."""

    def __init__(self, layer):
        kernel = tensor(layer.kernel)
        super().__init__(*kernel.shape)
        self.weight.data, self.bias.data = kernel.T.contiguous(), tensor(layer.bias)


class GroupNorm(nn.GroupNorm):
    def __init__(self, layer):
        super().__init__(layer.groups, layer.gamma.shape[0], layer.epsilon)
        self.weight.data, self.bias.data = tensor(layer.gamma), tensor(layer.beta)

    def forward(self, x):
        with exact(x):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class LayerNorm(nn.LayerNorm):
    def __init__(self, layer):
        super().__init__(layer.gamma.shape[0], layer.epsilon)
        self.weight.data, self.bias.data = tensor(layer.gamma), tensor(layer.beta)

    def forward(self, x):
        with exact(x):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Residual(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.norm_1, self.conv_1 = GroupNorm(layer.norm_1), Conv(layer.conv_1)
        self.norm_2, self.conv_2 = GroupNorm(layer.norm_2), Conv(layer.conv_2)
        self.shortcut = None if layer.shortcut is None else Conv(layer.shortcut)

    def forward(self, x):
        y = self.conv_1(F.silu(self.norm_1(x)))
        y = self.conv_2(F.silu(self.norm_2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


def attend(q, k, v, fused, scale=None):
    """Attention `(..., n, d)`, by PyTorch's kernel or as two products."""
    if fused:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax((q * scale) @ k.transpose(-1, -2), -1).to(v.dtype) @ v


class Attention(nn.Module):
    """`SpatialAttention`."""

    def __init__(self, layer, fused=True):
        super().__init__()
        self.heads, self.fused = layer.num_heads, fused
        self.norm = GroupNorm(layer.norm)
        self.qkv, self.projection = Linear(layer.qkv), Linear(layer.projection)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = attend(q, k, v, self.fused).transpose(1, 2).reshape(b, h * w, c)
        return x + self.projection(y).transpose(1, 2).reshape(b, c, h, w)


class Up(nn.Module):
    """`Upsample`."""

    def __init__(self, layer):
        super().__init__()
        self.conv, self.shortcut = Conv(layer.conv), layer.shortcut

    def forward(self, x):
        y = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        if not self.shortcut:
            return y
        b, c, h, w = x.shape
        filters = y.shape[1]
        spread = x.repeat_interleave(4 * filters // c, dim=1).view(b, 2, 2, filters, h, w)
        return y + spread.permute(0, 3, 4, 1, 5, 2).reshape(b, filters, 2 * h, 2 * w)


def _twin_of(layer, fused):
    kind = type(layer).__name__
    if kind == "Conv2D":
        return Conv(layer)
    if kind == "SpatialAttention":
        return Attention(layer, fused)
    if kind == "Downsample":
        return Conv(layer.conv)
    known = {"ResidualBlock": Residual, "Upsample": Up, "GroupNormalization": GroupNorm}
    return nn.SiLU() if kind == "Activation" else known[kind](layer)


class Stack(nn.Module):
    """An encoder or a decoder: its layers one after another, and a shortcut beside them.

    `last` is the class of the last convolution.
    """

    def __init__(self, model, fused=True, last=Conv):
        super().__init__()
        self.shortcut = None
        found = []
        for layer in model.layers:
            if type(layer).__name__ in ("InputLayer", "Add"):
                continue
            if layer.name == f"{model.name}_shortcut":
                self.shortcut = Conv(layer)
            elif layer.name == f"{model.name}_last":
                self.last = last(layer)
            else:
                found.append(_twin_of(layer, fused))
        self.body = nn.Sequential(*found)

    def both(self, x):
        """The output, and what enters the last convolution."""
        inner = self.body(x)
        y = self.last(inner)
        return (y if self.shortcut is None else y + self.shortcut(x)), inner

    def forward(self, x):
        return self.both(x)[0]


class SoftIndex(nn.Module):
    """Codes of the window for each piece of the features `(b, d, h, w)`."""

    def __init__(self, layer, grid, fused=True):
        super().__init__()
        self.hard, self.temperature, self.fused = layer.mode == "hard", layer.temperature, fused
        cells = torch.from_numpy(window_cells(grid, layer.window_size).astype("int64"))
        self.register_buffer("cells", cells.flatten())

    def forward(self, features, codes):
        with exact(features):
            return self._read(features.float(), codes)

    def _read(self, features, codes):
        b, d, h, w = features.shape
        n, length = h * w, codes.shape[-1]
        # `index_select` and not an index: its gradient is a plain sum.
        keys = codes.reshape(n, -1).index_select(0, self.cells).view(n, -1, length)
        queries = features.permute(2, 3, 0, 1).reshape(n, -1, length)
        if self.hard:
            with torch.no_grad():
                distance = keys.square().sum(-1)[:, None] - 2 * queries @ keys.transpose(1, 2)
                nearest = distance.argmin(-1)[..., None].expand(-1, -1, length)
            found = keys.gather(1, nearest)
        else:
            # One head, which the fused kernels want to see.
            q, k = queries[:, None] / self.temperature, keys[:, None]
            found = attend(q, k, k, self.fused, scale=1.0)[:, 0]
        found = found.reshape(h, w, b, d).permute(2, 3, 0, 1)
        return found + (features - features.detach()) if self.hard else found


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


class MLP(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layers = nn.ModuleList(Linear(x) for x in layer.dense)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    """`TransformerBlock`; Keras keeps query, key and value apart, here they are one product."""

    def __init__(self, layer, fused=True):
        super().__init__()
        self.heads, self.fused = layer.num_heads, fused
        self.norm_1, self.norm_2 = LayerNorm(layer.norm_1), LayerNorm(layer.norm_2)
        self.hidden, self.last = Linear(layer.hidden), Linear(layer.output_dense)
        parts = layer.attention
        depth = parts.query_dense.kernel.shape[0]
        self.qkv, self.projection = nn.Linear(depth, 3 * depth), nn.Linear(depth, depth)
        triple = (parts.query_dense, parts.key_dense, parts.value_dense)
        self.qkv.weight.data = torch.cat([tensor(x.kernel).reshape(depth, -1).T for x in triple])
        self.qkv.bias.data = torch.cat([tensor(x.bias).flatten() for x in triple])
        out = parts.output_dense
        self.projection.weight.data = tensor(out.kernel).reshape(-1, depth).T.contiguous()
        self.projection.bias.data = tensor(out.bias)

    def forward(self, x):
        b, n, d = x.shape
        qkv = self.qkv(self.norm_1(x)).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = x + self.projection(attend(q, k, v, self.fused).transpose(1, 2).reshape(b, n, d))
        return x + self.last(F.gelu(self.hidden(self.norm_2(x))))


class Head(nn.Module):
    """Priors and transformer, features `(b, d, h, w)` and codes -> features, float32."""

    def __init__(self, model, fused=True):
        super().__init__()
        parts = {x.name.removeprefix(f"{model.name}_"): x for x in model.layers}
        self.prior, self.context = "prior" in parts, "context" in parts
        self.mlp_0 = MLP(parts["prior"].mlp if self.prior else parts["mlp_0"])
        self.mlp_1 = MLP(parts["context"].mlp if self.context else parts["mlp_1"])
        self.positions = nn.Parameter(tensor(parts["positions"].positions))
        blocks = [x for name, x in parts.items() if name.startswith("block_")]
        self.blocks = nn.Sequential(*(Block(x, fused) for x in blocks))
        self.norm, self.last = LayerNorm(parts["norm"]), Linear(parts["last"])
        self.register_buffer("mean", tensor(parts["scale"].mean, (2, 0, 1)).contiguous())
        self.register_buffer("deviation", tensor(parts["scale"].deviation))

    def forward(self, features, codes):
        b, d, h, w = features.shape
        x = features.flatten(2).transpose(1, 2)
        if self.prior:
            prior = codes.mean(2).reshape(1, h * w, -1).to(x.dtype)
            x = torch.cat([x, prior.expand(b, -1, -1)], -1)
        x = self.mlp_0(x)
        if self.context:
            x = torch.cat([x, x.mean(1, keepdim=True).expand_as(x)], -1)
        x = self.mlp_1(x)
        x = self.norm(self.blocks(x + self.positions.to(x.dtype)))
        with exact(x):
            x = self.last(x.float()).transpose(1, 2).reshape(b, d, h, w)
            return x * self.deviation + self.mean


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


class Heatmap(nn.Module):
    """`LandmarkHeatmap`: landmarks `(n, points, 2)` -> drawings `(n, s, s)`, some lines at once."""

    def __init__(self, size, line_width, landmark_set, lines=8):
        super().__init__()
        pairs = [
            (a, b)
            for points, closed in CONTOURS[landmark_set]
            for a, b in zip(
                points, (*points[1:], points[0])[: None if closed else -1], strict=False
            )
        ]
        self.size, self.lines = size, lines
        self.width = line_width or max(1.0, 2.0 * size / 512)
        self.register_buffer("pairs", torch.tensor(pairs).T.contiguous())
        self.register_buffer("pixels", torch.arange(size) + 0.5)

    def forward(self, landmarks):
        points = landmarks.float() * self.size
        a, b = points[:, self.pairs[0]], points[:, self.pairs[1]]
        nearest = None
        for first, second in zip(a.split(self.lines, 1), b.split(self.lines, 1), strict=True):
            found = self._squared(first, second).amin(1)
            nearest = found if nearest is None else torch.minimum(nearest, found)
        return (self.width / 2 + 0.5 - nearest.sqrt()).clamp(0.0, 1.0)

    def _squared(self, a, b):
        """Squared distances of all pixels from lines `(n, lines, 2)`."""
        way = b - a
        x = self.pixels - a[..., :1]
        y = self.pixels - a[..., 1:]
        # Share of the way at which a pixel's nearest point lies, as a sum of column and row.
        step = way / way.square().sum(-1, keepdim=True).clamp_min(1e-6)
        share = (x * step[..., :1])[..., None, :] + (y * step[..., 1:])[..., None]
        share = share.clamp(0.0, 1.0)
        off_x = x[..., None, :] - share * way[..., :1, None]
        off_y = y[..., None] - share * way[..., 1:, None]
        return off_x.square() + off_y.square()


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
        logits = []
        for place, scale in enumerate(self.scales):
            images = F.avg_pool2d(images, 2) if place else images
            logits.append(scale(images))
        return logits


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
    return x / (torch.where(squared > 0, squared, 1.0).sqrt() + 1e-10)


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
