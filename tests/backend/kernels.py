"""PyTorch's kernels: `python -m tests.backend.kernels TARGET.npz`.

`test_kernels` runs it with TRITON_INTERPRET=1 and KERAS_BACKEND=torch in the environment.
"""

import sys

import keras
import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from keras_vpgc import layers
from keras_vpgc.backend import torch as backend
from keras_vpgc.backend import torch_passes, triton_kernels

# (shape, groups): whole groups in one program, in parts, one group of all channels, odd sizes.
CASES = (((2, 8, 8, 16), 4), ((1, 64, 64, 32), 8), ((2, 24, 24, 24), 1), ((1, 37, 41, 20), 5))


def main(target):
    rng, found = np.random.default_rng(0), {}
    for place, (shape, groups) in enumerate(CASES):
        for silu in (False, True):
            # Far from zero: the squares' mean would lose the variance.
            x = rng.normal(size=shape) + 50.0
            gamma, beta = rng.normal(size=(2, shape[-1]))
            out = rng.normal(size=shape)
            inputs = [torch.tensor(a, dtype=torch.float32) for a in (x, gamma, beta)]
            inputs = [a.requires_grad_() for a in inputs]
            y = triton_kernels.group_norm(*inputs, groups, 1e-6, silu)
            y.backward(torch.tensor(out, dtype=torch.float32))
            arrays = {
                "groups": groups,
                "x": x,
                "gamma": gamma,
                "beta": beta,
                "out": out,
                "y": y.detach(),
            }
            arrays |= {f"d{n}": a.grad for n, a in zip(("x", "gamma", "beta"), inputs, strict=True)}
            name = f"{place}/{int(silu)}"
            found |= {f"{name}/{key}": np.asarray(value) for key, value in arrays.items()}

    heatmap = layers.LandmarkHeatmap((40, 56), line_width=1.5)
    landmarks = rng.uniform(-0.1, 1.1, size=(2, 3, 68, 2)).astype("float32")
    # Two points in one place, as a closed eye may have them.
    landmarks[0, 0, 37] = landmarks[0, 0, 36]
    found["drawn/layer"] = heatmap(landmarks).numpy()
    points = torch.tensor(landmarks * np.array([56, 40], "float32")).flatten(0, 1)
    start, end = (points[:, heatmap._segments[:, i]] for i in (0, 1))
    drawn = triton_kernels.draw_lines(torch.cat([start, end], -1), 40, 56, 1.5, torch.float32)
    found["drawn/kernel"] = drawn.unflatten(0, (2, 3)).permute(0, 2, 3, 1).numpy()

    # By the layers, as on a GPU.
    norm = layers.GroupNormalization(4, activation="silu")
    images = torch.tensor(rng.normal(size=(2, 9, 7, 8)).astype("float32"))
    norm.build(images.shape)
    norm.gamma.assign(rng.normal(size=8))
    norm.beta.assign(rng.normal(size=8))
    for name in ("plain", "kernel"):
        if name == "kernel":
            backend._on_gpu = lambda x: True
        found[f"layer/norm/{name}"] = norm(images).detach().numpy()
        found[f"layer/lines/{name}"] = heatmap(landmarks).detach().numpy()
        # Gradients of landmarks are had in the plain way.
        moved = torch.tensor(landmarks[1:], requires_grad=True)
        heatmap(moved).sum().backward()
        found[f"layer/moved/{name}"] = moved.grad.numpy()
    backend._on_gpu = lambda x: x.is_cuda
    empty = torch.empty(0, 4, 4, 8, requires_grad=True)
    y = triton_kernels.group_norm(empty, norm.gamma.value, norm.beta.value, 4, 1e-6, True)
    y.sum().backward()
    found["empty"] = np.array([*y.shape, *empty.grad.shape])

    # What a convolution's result gets: its bias, a shortcut or ReLU.
    x, other = rng.normal(size=(2, 2, 9, 7, 24)).astype("float32")
    bias = rng.normal(size=24).astype("float32")
    tensors = [torch.tensor(a) for a in (x, bias, other)]
    found |= {"sum/x": x, "sum/bias": bias, "sum/other": other}
    found["sum/plain"] = triton_kernels.add_bias(*tensors[:2], None, False).numpy()
    found["sum/relu"] = triton_kernels.add_bias(*tensors[:2], None, True).numpy()
    found["sum/both"] = triton_kernels.add_bias(*tensors, False).numpy()
    half = [a.to(torch.bfloat16) for a in tensors]
    found["sum/half"] = triton_kernels.add_bias(*half, False).float().numpy()

    # The checks that a GPU is put to pass here.
    for check in triton_kernels.CHECKS.values():
        check("cpu")

    # Joined in a recorded graph.
    inputs = keras.Input((16, 16, 8))
    x = layers.ResidualBlock(16, 4)(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.ResidualBlock(8, 4)(x))
    images = torch.tensor(rng.normal(size=(1, 16, 16, 8)).astype("float32"))
    with torch.no_grad():
        traced = make_fx(lambda x: model(x, training=False))(images)
        found["joined/model"] = model(images).numpy()
    torch_passes.drop_copies(traced)
    torch_passes.join_biases(traced, torch.ops.keras_vpgc.add_bias.default)
    found["joined/graph"] = traced(images).detach().numpy()
    called = [str(node.target) for node in traced.graph.nodes]
    found["joined/count"] = called.count("keras_vpgc.add_bias.default")
    found["joined/left"] = called.count("aten.add.Tensor")

    # Recorded, forwards and backwards are one node each.
    def step(x, gamma, beta):
        with torch.enable_grad():
            y = triton_kernels.group_norm(x, gamma, beta, 2, 1e-6, True)
            return torch.autograd.grad(y.sum(), [gamma])

    inputs = torch.ones(1, 4, 4, 8), torch.ones(8).requires_grad_(), torch.ones(8)
    with torch.no_grad():
        nodes = make_fx(step)(*inputs).graph.nodes
    found["nodes"] = np.array([str(x.target) for x in nodes if "keras_vpgc" in str(x.target)])
    np.savez(target, **found)


if __name__ == "__main__":
    main(sys.argv[1])
