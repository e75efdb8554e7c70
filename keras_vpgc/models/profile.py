"""Where a puppet's work and time go, block by block."""

import re
import time
from dataclasses import dataclass

import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.layers import SoftIndex
from keras_vpgc.models.work import Work, of_layer


@dataclass
class Block:
    """Some layers of a model that follow each other.

    Attributes:
        part: The sub-model, such as `"decoder"`.
        name: What of it, such as `"64x64"`.
        shape: Shape of what it gives, without the batch.
        work: Its `Work` for one image.
        parameters: Number of its weights.
        milliseconds: Least time of a call for one image, from device to device; `None` where it
            was not measured.
    """

    part: str
    name: str
    shape: tuple
    work: Work
    parameters: int
    milliseconds: float | None = None


def profile(model, repeats: int = 10) -> list[Block]:
    """Operations, and milliseconds on this machine, of each block of a puppet.

    Each block is compiled and called alone, so that the sum of the milliseconds is not that of
    the whole model, in which compilers join operations across blocks.

    Args:
        model: A `PortraitReenactor` or `DirectMapping`.
        repeats: Calls of a block of which the fastest counts; 0 for no measurement.

    Returns:
        The blocks in the order of their computation, and last the whole model as a block whose
        `part` is `"all"`.

    Example:

    ```python
    blocks = profile(PortraitReenactor.from_preset("vpgc_512_lite"))
    print(table(blocks))
    ```
    """
    blocks = []
    for part, layers in _parts(model):
        for name, group in _groups(part, layers):
            blocks.append(_block(part, name, group, repeats))
    total = sum((b.work for b in blocks), Work())
    whole = Block("all", "", model.output_shape[1:], total, model.count_params())
    if repeats:
        whole.milliseconds = _time(model, repeats)
    return [*blocks, whole]


def table(blocks) -> str:
    """The blocks of `profile` as lines of text."""
    total = blocks[-1].work.flops
    rows = [("part", "block", "gives", "GFLOP", "share", "weights, M", "ms")]
    for block in blocks:
        rows.append(
            (
                block.part,
                block.name,
                "x".join(map(str, block.shape)),
                f"{block.work.flops / 1e9:.3f}",
                f"{block.work.flops / total:.1%}",
                f"{block.parameters / 1e6:.3f}",
                "" if block.milliseconds is None else f"{block.milliseconds:.2f}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            x.ljust(w) if i < 3 else x.rjust(w)
            for i, (x, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def exponentials(model) -> int:
    """How many exponentials the soft index takes for one image; 0 without one."""
    index = getattr(model, "soft_index", None)
    if not isinstance(index, SoftIndex) or index.mode != "soft":
        return 0
    h, w, codes, length = model.codebook.codes.shape
    pieces = model.decoder.input_shape[-1] // length
    return h * w * pieces * index.window_size**2 * codes


def _parts(model):
    """Names and layers of a puppet's parts, in order."""
    loose: list = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, keras.Model):
            # What stands between two parts is a part; the codes wait for the index.
            if loose and loose != [getattr(model, "codebook", None)]:
                yield loose[-1].name, loose
                loose = []
            inner = [x for x in layer.layers if not isinstance(x, keras.layers.InputLayer)]
            yield layer.name, inner
        else:
            loose.append(layer)
    if loose:
        yield loose[-1].name, loose


def _groups(part, layers):
    """The layers of a part in blocks: a level, a transformer block, the rest by its name."""
    if layers[-1].name == part:  # layers of the model itself
        yield "", layers
        return
    groups: list = []
    for layer in layers:
        name = layer.name.removeprefix(f"{part}_")
        found = re.match(r"block_\d+|[^_]+", name)
        key = found[0] if found else name
        # What computes nothing by itself belongs to what is before it.
        same = groups and (groups[-1][0] == key or not layer.weights)
        if same:
            groups[-1][1].append(layer)
        else:
            groups.append((key, [layer]))
    for key, group in groups:
        first = group[0]
        name = (
            ""
            if first.name == part
            else f"{key} at {first.output.shape[1]}"
            if (key.isdigit())
            else key
        )
        yield name, group


def _block(part, name, layers, repeats):
    work, parameters = Work(), 0
    for layer in layers:
        work += of_layer(layer)
        parameters += layer.count_params()
    made = {id(x) for layer in layers for x in keras.tree.flatten(layer.output)}
    inputs: dict = {}
    for layer in layers:
        for x in keras.tree.flatten(layer.input):
            if id(x) not in made:
                inputs[id(x)] = x
    output = keras.tree.flatten(layers[-1].output)[0]
    block = Block(part, name, tuple(output.shape[1:]), work, parameters)
    if repeats:
        entries = list(inputs.values())
        model = keras.Model(entries if len(entries) > 1 else entries[0], output)
        block.milliseconds = _time(model, repeats)
    return block


def _time(model, repeats):
    """Milliseconds of the fastest of some calls for one image."""
    rng = np.random.default_rng(0)
    inputs = [
        keras.ops.convert_to_tensor(
            rng.uniform(0.1, 0.9, [n or 1 for n in x.shape]).astype("float32")
        )
        for x in model.inputs
    ]
    argument = inputs if len(inputs) > 1 else inputs[0]
    call = backend.compiled(model)
    times = []
    for turn in range(2 + repeats):
        began = time.perf_counter()
        backend.to_host(call(argument))()
        if turn > 1:  # the first calls compile
            times.append(time.perf_counter() - began)
    return 1000 * min(times)
