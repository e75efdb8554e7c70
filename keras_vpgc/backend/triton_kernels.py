"""Kernels for GPUs on PyTorch, in Triton: one pass where ATen would make many.

They are registered as operators of PyTorch, so that a recorded graph (`torch_graph`) holds them as
it holds any other.
"""

import functools

import torch
import triton
import triton.language as tl

# Elements of a tile that one program works on.
TILE = 4096
# Programs an image that add up a feature map's statistics.
PARTS = 256


@triton.jit
def _silu_gradient(z):
    s = tl.sigmoid(z)
    return s * (1 + z * (1 - s))


@triton.jit
def _small_forward(
    x,
    gamma,
    beta,
    y,
    means,
    rates,
    positions,
    channels,
    epsilon,
    SIZE: tl.constexpr,
    SILU: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    """A group of one image, whole."""
    image, group = tl.program_id(0), tl.program_id(1)
    p, c = tl.arange(0, P)[:, None], tl.arange(0, C)[None, :]
    inside = (p < positions) & (c < SIZE)
    channel = group * SIZE + c
    place = (image * positions + p) * channels + channel
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    count = positions * SIZE
    mean = tl.sum(tl.sum(values, 1), 0) / count
    values = tl.where(inside, values - mean, 0.0)
    rate = tl.rsqrt(tl.sum(tl.sum(values * values, 1), 0) / count + epsilon)
    scale = tl.load(gamma + channel, mask=c < SIZE, other=0.0) * rate
    z = values * scale + tl.load(beta + channel, mask=c < SIZE, other=0.0)
    if SILU:
        z = z * tl.sigmoid(z)
    tl.store(y + place, z.to(y.dtype.element_ty), mask=inside)
    groups = channels // SIZE
    tl.store(means + image * groups + group, mean)
    tl.store(rates + image * groups + group, rate)


@triton.jit
def _sums(x, sums, positions, channels, ROWS: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """Sums of a part's differences from the image's first position, and of their squares."""
    image, part = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)[None, :]
    inner = c < channels
    start = x + image.to(tl.int64) * positions * channels
    first = tl.load(start + c, mask=inner, other=0.0).to(tl.float32)
    plain = tl.zeros((P, C), tl.float32)
    squared = tl.zeros((P, C), tl.float32)
    for row in range(0, ROWS, P):
        p = part * ROWS + row + tl.arange(0, P)[:, None]
        inside = (p < positions) & inner
        values = tl.load(start + p * channels + c, mask=inside, other=0.0).to(tl.float32)
        values = tl.where(inside, values - first, 0.0)
        plain += values
        squared += values * values
    target = sums + (image * tl.num_programs(1) + part) * 2 * channels
    c = tl.arange(0, C)
    tl.store(target + c, tl.sum(plain, 0), mask=c < channels)
    tl.store(target + channels + c, tl.sum(squared, 0), mask=c < channels)


@triton.jit
def _statistics(
    x,
    sums,
    means,
    rates,
    positions,
    channels,
    epsilon,
    COUNT: tl.constexpr,
    SIZE: tl.constexpr,
    N: tl.constexpr,
    C: tl.constexpr,
):
    """Mean and 1 / deviation of a group, out of `_sums`."""
    image, group = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)
    inner = c < SIZE
    channel = group * SIZE + c
    plain = tl.zeros((N, C), tl.float32)
    squared = tl.zeros((N, C), tl.float32)
    for part in range(0, COUNT, N):
        n = part + tl.arange(0, N)[:, None]
        inside = (n < COUNT) & inner[None, :]
        place = sums + (image * COUNT + n) * 2 * channels + channel[None, :]
        plain += tl.load(place, mask=inside, other=0.0)
        squared += tl.load(place + channels, mask=inside, other=0.0)
    start = x + image.to(tl.int64) * positions * channels
    first = tl.load(start + channel, mask=inner, other=0.0).to(tl.float32)
    differences = tl.sum(plain, 0) / positions
    within = tl.sum(squared, 0) / positions - differences * differences
    mean = tl.sum(tl.where(inner, first + differences, 0.0), 0) / SIZE
    between = first + differences - mean
    variance = tl.sum(tl.where(inner, within + between * between, 0.0), 0) / SIZE
    groups = channels // SIZE
    tl.store(means + image * groups + group, mean)
    tl.store(rates + image * groups + group, tl.rsqrt(tl.maximum(variance, 0.0) + epsilon))


@triton.jit
def _apply(
    x,
    gamma,
    beta,
    means,
    rates,
    y,
    positions,
    channels,
    SIZE: tl.constexpr,
    SILU: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    part, image = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)[None, :]
    p = part * P + tl.arange(0, P)[:, None]
    inner = c < channels
    inside = (p < positions) & inner
    groups = channels // SIZE
    mean = tl.load(means + image * groups + c // SIZE, mask=inner, other=0.0)
    rate = tl.load(rates + image * groups + c // SIZE, mask=inner, other=0.0)
    scale = tl.load(gamma + c, mask=inner, other=0.0) * rate
    place = image.to(tl.int64) * positions * channels + p * channels + c
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    z = (values - mean) * scale + tl.load(beta + c, mask=inner, other=0.0)
    if SILU:
        z = z * tl.sigmoid(z)
    tl.store(y + place, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward_sums(
    x,
    gradient,
    gamma,
    beta,
    means,
    rates,
    sums,
    positions,
    channels,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    SILU: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    """For each channel of a part the sums of dz and of dz times the normalised values."""
    image, part = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)[None, :]
    inner = c < channels
    groups = channels // SIZE
    mean = tl.load(means + image * groups + c // SIZE, mask=inner, other=0.0)
    rate = tl.load(rates + image * groups + c // SIZE, mask=inner, other=0.0)
    g = tl.load(gamma + c, mask=inner, other=0.0)
    b = tl.load(beta + c, mask=inner, other=0.0)
    start = image.to(tl.int64) * positions * channels
    plain = tl.zeros((P, C), tl.float32)
    scaled = tl.zeros((P, C), tl.float32)
    for row in range(0, ROWS, P):
        p = part * ROWS + row + tl.arange(0, P)[:, None]
        inside = (p < positions) & inner
        place = start + p * channels + c
        values = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - mean) * rate
        dz = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        if SILU:
            dz = dz * _silu_gradient(values * g + b)
        plain += dz
        scaled += dz * values
    target = sums + (image * tl.num_programs(1) + part) * 2 * channels
    c = tl.arange(0, C)
    tl.store(target + c, tl.sum(plain, 0), mask=c < channels)
    tl.store(target + channels + c, tl.sum(scaled, 0), mask=c < channels)


@triton.jit
def _backward_statistics(
    sums,
    gamma,
    totals,
    shares,
    positions,
    channels,
    COUNT: tl.constexpr,
    SIZE: tl.constexpr,
    N: tl.constexpr,
    C: tl.constexpr,
):
    """An image's sums by channel, and the means by group that dx needs."""
    image, group = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)
    inner = c < SIZE
    channel = group * SIZE + c
    plain = tl.zeros((N, C), tl.float32)
    scaled = tl.zeros((N, C), tl.float32)
    for part in range(0, COUNT, N):
        n = part + tl.arange(0, N)[:, None]
        inside = (n < COUNT) & inner[None, :]
        place = sums + (image * COUNT + n) * 2 * channels + channel[None, :]
        plain += tl.load(place, mask=inside, other=0.0)
        scaled += tl.load(place + channels, mask=inside, other=0.0)
    first, second = tl.sum(plain, 0), tl.sum(scaled, 0)
    target = totals + image * 2 * channels + channel
    tl.store(target, first, mask=inner)
    tl.store(target + channels, second, mask=inner)
    g = tl.load(gamma + channel, mask=inner, other=0.0)
    place = shares + (image * (channels // SIZE) + group) * 2
    tl.store(place, tl.sum(first * g, 0) / (positions * SIZE))
    tl.store(place + 1, tl.sum(second * g, 0) / (positions * SIZE))


@triton.jit
def _backward_apply(
    x,
    gradient,
    gamma,
    beta,
    means,
    rates,
    shares,
    dx,
    positions,
    channels,
    SIZE: tl.constexpr,
    SILU: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    part, image = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)[None, :]
    p = part * P + tl.arange(0, P)[:, None]
    inner = c < channels
    inside = (p < positions) & inner
    group = image * (channels // SIZE) + c // SIZE
    mean = tl.load(means + group, mask=inner, other=0.0)
    rate = tl.load(rates + group, mask=inner, other=0.0)
    first = tl.load(shares + 2 * group, mask=inner, other=0.0)
    second = tl.load(shares + 2 * group + 1, mask=inner, other=0.0)
    g = tl.load(gamma + c, mask=inner, other=0.0)
    b = tl.load(beta + c, mask=inner, other=0.0)
    place = image.to(tl.int64) * positions * channels + p * channels + c
    values = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - mean) * rate
    dz = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        dz = dz * _silu_gradient(values * g + b)
    found = rate * (dz * g - first - values * second)
    tl.store(dx + place, found.to(dx.dtype.element_ty), mask=inside)


def _on_its_device(function):
    """Launch kernels on the GPU where the first argument lies, the current one or not."""

    @functools.wraps(function)
    def call(first, *rest):
        if not first.is_cuda:
            return function(first, *rest)
        with torch.cuda.device(first.device):
            return function(first, *rest)

    return call


def _tiles(channels, positions):
    """Tile's sides, rows of a part, and number of parts."""
    width = triton.next_power_of_2(channels)
    height = max(1, TILE // width)
    rows = -(-positions // PARTS)
    rows = -(-rows // height) * height
    return height, width, rows, -(-positions // rows)


@torch.library.custom_op("keras_vpgc::group_norm", mutates_args=())
@_on_its_device
def _group_norm(
    x: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    groups: int,
    epsilon: float,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = x.contiguous()
    batch, channels = x.shape[0], x.shape[-1]
    positions = x.numel() // max(1, batch * channels)
    size = channels // groups
    y = torch.empty_like(x)
    means = torch.empty((batch, groups), dtype=torch.float32, device=x.device)
    rates = torch.empty_like(means)
    if not x.numel():
        return y, means, rates
    p, c = triton.next_power_of_2(positions), triton.next_power_of_2(size)
    if p * c <= 2 * TILE:
        _small_forward[(batch, groups)](
            x,
            gamma,
            beta,
            y,
            means,
            rates,
            positions,
            channels,
            epsilon,
            SIZE=size,
            SILU=silu,
            P=p,
            C=c,
            num_warps=8 if p * c > 2048 else 4,
        )
        return y, means, rates
    height, width, rows, parts = _tiles(channels, positions)
    sums = torch.empty((batch, parts, 2, channels), dtype=torch.float32, device=x.device)
    _sums[(batch, parts)](x, sums, positions, channels, ROWS=rows, P=height, C=width, num_warps=8)
    tile = {"COUNT": parts, "SIZE": size, "N": max(1, TILE // c), "C": c}
    _statistics[(batch, groups)](x, sums, means, rates, positions, channels, epsilon, **tile)
    _apply[(-(-positions // height), batch)](
        x,
        gamma,
        beta,
        means,
        rates,
        y,
        positions,
        channels,
        SIZE=size,
        SILU=silu,
        P=height,
        C=width,
        num_warps=8,
    )
    return y, means, rates


@_group_norm.register_fake
def _(x, gamma, beta, groups, epsilon, silu):
    means = x.new_empty((x.shape[0], groups), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), means, means.clone()


@torch.library.custom_op("keras_vpgc::group_norm_backward", mutates_args=())
@_on_its_device
def _group_norm_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    means: torch.Tensor,
    rates: torch.Tensor,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    gradient, x = gradient.contiguous(), x.contiguous()
    batch, channels, groups = x.shape[0], x.shape[-1], means.shape[1]
    positions = x.numel() // max(1, batch * channels)
    size = channels // groups
    if not x.numel():
        totals = torch.zeros((batch, 2, channels), dtype=torch.float32, device=x.device)
        return torch.empty_like(x), totals
    height, width, rows, parts = _tiles(channels, positions)
    width_of_group = triton.next_power_of_2(size)
    sums = torch.empty((batch, parts, 2, channels), dtype=torch.float32, device=x.device)
    totals = torch.empty((batch, 2, channels), dtype=torch.float32, device=x.device)
    shares = torch.empty((batch, groups, 2), dtype=torch.float32, device=x.device)
    dx = torch.empty_like(x)
    tile = {"SIZE": size, "SILU": silu, "P": height, "C": width, "num_warps": 8}
    _backward_sums[(batch, parts)](
        x, gradient, gamma, beta, means, rates, sums, positions, channels, ROWS=rows, **tile
    )
    _backward_statistics[(batch, groups)](
        sums,
        gamma,
        totals,
        shares,
        positions,
        channels,
        COUNT=parts,
        SIZE=size,
        N=max(1, TILE // width_of_group),
        C=width_of_group,
    )
    _backward_apply[(-(-positions // height), batch)](
        x, gradient, gamma, beta, means, rates, shares, dx, positions, channels, **tile
    )
    return dx, totals


@_group_norm_backward.register_fake
def _(gradient, x, gamma, beta, means, rates, silu):
    totals = x.new_empty((x.shape[0], 2, x.shape[-1]), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), totals


def _keep(ctx, inputs, output):
    x, gamma, beta, _, _, silu = inputs
    _, means, rates = output
    ctx.mark_non_differentiable(means, rates)
    ctx.save_for_backward(x, gamma, beta, means, rates)
    ctx.silu = silu


def _back(ctx, gradient, *_):
    x, gamma, beta, means, rates = ctx.saved_tensors
    dx, totals = _group_norm_backward(gradient, x, gamma, beta, means, rates, ctx.silu)
    totals = totals.sum(0)
    return dx, totals[1], totals[0], None, None, None


_group_norm.register_autograd(_back, setup_context=_keep)


def group_norm(x, gamma, beta, groups: int, epsilon: float, silu: bool):
    """Group normalisation of `(batch, ..., channels)` and SiLU, see `GroupNormalization`."""
    return _group_norm(x, gamma, beta, groups, epsilon, silu)[0]


@triton.jit
def _draw(
    ends,
    y,
    height,
    width,
    line_width,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A stretch of one drawing's pixels."""
    drawing = tl.program_id(0)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = (pixel % width).to(tl.float32) + 0.5
    v = (pixel // width).to(tl.float32) + 0.5
    nearest = tl.full((BLOCK,), 1e30, tl.float32)
    for segment in range(SEGMENTS):
        place = ends + (drawing * SEGMENTS + segment) * 4
        ax, ay = tl.load(place), tl.load(place + 1)
        bx, by = tl.load(place + 2), tl.load(place + 3)
        dx, dy = bx - ax, by - ay
        squared = dx * dx + dy * dy
        inverse = tl.where(squared > 1e-6, 1.0 / tl.maximum(squared, 1e-6), 0.0)
        share = ((x - ax) * dx + (v - ay) * dy) * inverse
        share = tl.minimum(tl.maximum(share, 0.0), 1.0)
        off_x, off_y = x - ax - share * dx, v - ay - share * dy
        nearest = tl.minimum(nearest, off_x * off_x + off_y * off_y)
    value = line_width / 2 + 0.5 - tl.sqrt(nearest)
    value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    target = y + drawing.to(tl.int64) * height * width + pixel
    tl.store(target, value.to(y.dtype.element_ty), mask=pixel < height * width)


@torch.library.custom_op("keras_vpgc::draw_lines", mutates_args=())
@_on_its_device
def _draw_lines(
    ends: torch.Tensor, height: int, width: int, line_width: float, dtype: torch.dtype
) -> torch.Tensor:
    ends = ends.contiguous()
    y = torch.empty((ends.shape[0], height, width), dtype=dtype, device=ends.device)
    grid = (ends.shape[0], -(-height * width // 1024))
    _draw[grid](ends, y, height, width, line_width, SEGMENTS=ends.shape[1], BLOCK=1024)
    return y


@_draw_lines.register_fake
def _(ends, height, width, line_width, dtype):
    return ends.new_empty((ends.shape[0], height, width), dtype=dtype)


def draw_lines(ends, height: int, width: int, line_width: float, dtype: torch.dtype):
    """Antialiased lines, see `LandmarkHeatmap`; it has no gradient.

    Args:
        ends: Float32 `(n, segments, 4)`: x and y of both ends, in pixels.
        height, width: Size of a drawing.
        line_width: In pixels.
        dtype: Type of the drawings.

    Returns:
        `(n, height, width)`.
    """
    return _draw_lines(ends, height, width, line_width, dtype)


@triton.jit
def _sum(
    x,
    bias,
    other,
    y,
    count,
    channels,
    OTHER: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + place % channels, mask=inside, other=0.0).to(tl.float32)
    if OTHER:
        value += tl.load(other + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        # Unlike the maximum it lets NaN pass.
        value = tl.where(value < 0.0, 0.0, value)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@torch.library.custom_op("keras_vpgc::add_bias", mutates_args=())
@_on_its_device
def add_bias(
    x: torch.Tensor, bias: torch.Tensor, other: torch.Tensor | None, relu: bool
) -> torch.Tensor:
    """A convolution's bias, what is added to its result, and its activation, in one pass.

    Args:
        x: Tensor `(..., channels)`.
        bias: The same number of channels.
        other: `None`, or a tensor of the shape of `x`, to be added.
        relu: Apply ReLU at the end?

    Returns:
        Tensor of the shape and type of `x`, contiguous.
    """
    x = x.contiguous()
    other = None if other is None else other.contiguous()
    y = torch.empty_like(x)
    count, block = x.numel(), 2048
    if not count:
        return y
    _sum[(-(-count // block),)](
        x,
        bias.contiguous(),
        x if other is None else other,
        y,
        count,
        x.shape[-1],
        OTHER=other is not None,
        RELU=relu,
        BLOCK=block,
    )
    return y


@add_bias.register_fake
def _(x, bias, other, relu):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _agree(what, found, wanted):
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-4):
        off = (found - wanted).abs().max().item()
        raise RuntimeError(f"{what} is off by {off:.1e}")


def _plain_group_norm(x, gamma, beta, groups, epsilon, silu):
    y = torch.nn.functional.group_norm(x.movedim(-1, 1), groups, gamma, beta, epsilon)
    return (torch.nn.functional.silu(y) if silu else y).movedim(1, -1)


def _check_group_norm(device):
    # One that fits one program, and one in parts.
    for side in (4, 96):
        x = torch.linspace(-1, 3, 8 * side**2, device=device).sin().view(1, side, side, 8)
        gamma = torch.linspace(0.5, 1, 8, device=device)
        found = []
        for function in (group_norm, _plain_group_norm):
            inputs = [v.clone().requires_grad_() for v in (x, gamma, gamma)]
            y = function(*inputs, 2, 1e-6, True)
            found.append([y.detach(), *torch.autograd.grad((y * x).sum(), inputs)])
        for one, other in zip(*found, strict=True):
            _agree("the result", one / other.abs().max(), other / other.abs().max())


def _check_draw_lines(device):
    ends = torch.tensor([[[1.0, 2.5, 6.0, 2.5]]], device=device)
    found = draw_lines(ends, 5, 8, 1.0, torch.float32)[0]
    wanted = torch.zeros(5, 8, device=device)
    wanted[2, 1:6] = 1
    wanted[2, 0] = wanted[2, 6] = 0.5
    _agree("the drawing", found, wanted)


def _check_add_bias(device):
    x = torch.linspace(-3, 3, 105, device=device).view(3, 5, 7)
    bias = torch.linspace(1, -1, 7, device=device)
    _agree("the sum", add_bias(x, bias, None, True), torch.relu(x + bias))
    _agree("the sum", add_bias(x, bias, x, False), x + bias + x)


# Raise where a kernel does not do on a device what PyTorch's operations do.
CHECKS = {
    "group_norm": _check_group_norm,
    "draw_lines": _check_draw_lines,
    "add_bias": _check_add_bias,
}
