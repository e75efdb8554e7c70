"""The layers of the twins, see `twins.py`: built out of Keras layers, whose weights they copy."""

import keras
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from keras_vpgc.layers.landmark_heatmap import CONTOURS
from keras_vpgc.layers.soft_index import window_cells


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


class ExactLinear(Linear):
    """The same in float32 under any precision."""

    def forward(self, x):
        with exact(x):
            return super().forward(x.float())


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
    if kind == "AveragePooling2D":
        return nn.AvgPool2d(layer.pool_size)
    if kind == "GroupNormalization":
        norm = GroupNorm(layer)
        return nn.Sequential(norm, nn.SiLU()) if layer.activation else norm
    return {"ResidualBlock": Residual, "Upsample": Up}[kind](layer)


class Stack(nn.Module):
    """An encoder or a decoder: its layers one after another, and a shortcut beside them.

    `last` is the class of the last convolution.
    """

    def __init__(self, model, fused=True, last=Conv):
        super().__init__()
        self.shortcut = None
        found, straight = [], []
        for layer in model.layers:
            if type(layer).__name__ in ("InputLayer", "Add"):
                continue
            if layer.name == f"{model.name}_shortcut":
                self.shortcut = nn.Sequential(*straight, Conv(layer))
            elif layer.name == f"{model.name}_pooled":
                straight.append(_twin_of(layer, fused))
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


def halve(module):
    """Keep in bfloat16 the weights that automatic casts would convert at each call.

    Args:
        module: A twin that is not trained; it is changed.

    Returns:
        The twin.
    """
    for part in module.modules():
        casts = isinstance(part, (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm))
        if casts and not isinstance(part, (ExactConv, ExactLinear)):
            part.to(torch.bfloat16)
    return module


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
        self.norm, self.last = LayerNorm(parts["norm"]), ExactLinear(parts["last"])
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
        x = self.last(x).transpose(1, 2).reshape(b, d, h, w)
        return x * self.deviation + self.mean


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
