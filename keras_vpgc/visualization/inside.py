"""Looking inside a trained model: functions that return matplotlib figures.

All take a `PortraitAutoencoder` with images, uint8 `(n, s, s, 3)`, or a `PortraitReenactor` with
landmarks `(n, T, 68, 2)`, or a `CodebookView` of one. The figures belong to no window and to no
`pyplot`: a notebook shows them after `%matplotlib inline`, `savefig` writes them, `picture_of`
makes them an array.
"""

import numpy as np

from keras_vpgc.errors import VPGCError, missing_extra
from keras_vpgc.visualization.codebook_view import CodebookView, CodeUsage

STYLE = {"font.size": 9, "axes.titlesize": 10, "image.interpolation": "nearest"}
MAP, HEAT = "viridis", "magma"
DPI = 110


def plot_usage(model, inputs, usage: CodeUsage | None = None):
    """Which share of its codes each cell uses, its perplexity, and the codes by their weight.

    Args:
        model: See the module.
        inputs: The frames.
        usage: What `CodebookView.usage` said of them, if that is known.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        VPGCError: if the model has no codebook, or matplotlib is missing.

    Example:

    ```python
    plot_usage(autoencoder, portrait.frames(portrait.indices("test"), 128)).savefig("usage.png")
    ```

    References:
        Perplexity of codes as a measure of their use: van den Oord et al., NeurIPS 2017.
    """
    view = _view(model)
    usage = usage or view.usage(inputs)
    figure, axes = _figure(1, 3, (11, 3.4))
    owner = "read at" if view.shared else "of"
    _map(axes[0], 100 * usage.used, f"% of codes {owner} a cell ever the strongest", 0, 100)
    _map(axes[1], usage.perplexity, f"perplexity of a cell (most: {view.codes_per_cell})", 0)
    weights = usage.weights.sum((0, 1)) if usage.shared else usage.weights.ravel()
    weights = np.sort(weights)[::-1] / weights.sum()
    axes[2].plot(np.arange(1, len(weights) + 1), np.cumsum(weights))
    axes[2].set(
        xscale="log", ylim=(0, 1), xlabel="codes, the heaviest first", ylabel="share of all weight"
    )
    axes[2].set_title(
        f"all codes: perplexity {usage.total_perplexity:.0f} of {len(weights)},\n"
        f"{100 * usage.total_used:.0f}% used"
    )
    axes[2].grid(alpha=0.25)
    return figure


def plot_code_maps(model, inputs, count: int = 6):
    """Where the most used codes light up, over the frames' pictures.

    Args:
        model: See the module.
        inputs: The frames; the first few are shown, a row each.
        count: Number of codes. Of a grid they lie in different cells.

    Returns:
        A figure: a column a code, brighter where the pieces take more of it.

    Raises:
        VPGCError: see `plot_usage`.
    """
    view = _view(model)
    usage = view.usage(inputs)
    codes: list = []
    if view.shared:
        codes = np.argsort(-usage.weights.sum((0, 1)))[:count].tolist()
        names = [f"code {x}" for x in codes]
    else:
        best = usage.weights.max(axis=2)
        # Of neighbours, which read the same codes, only the strongest.
        order = np.argsort(-best, axis=None)
        names = []
        for row, column in zip(*np.unravel_index(order, best.shape), strict=True):
            near = [max(abs(row - r), abs(column - c)) for r, c, _ in codes]
            if len(codes) < count and min(near, default=99) >= view.window:
                codes.append((row, column, int(usage.weights[row, column].argmax())))
                names.append(f"cell {row},{column}, code {codes[-1][2]}")
    features = view.features(inputs)[:3]
    pictures = _pictures(view, inputs[:3], features)
    figure, axes = _figure(len(pictures), len(codes), (1.9 * len(codes), 2.1 * len(pictures)))
    axes = axes.reshape(len(pictures), len(codes))
    for column, (code, name) in enumerate(zip(codes, names, strict=True)):
        light = view.light_up(features, code)
        for row, picture in enumerate(pictures):
            _over(axes[row, column], picture, light[row], light.max())
        axes[0, column].set_title(f"{name}\n(at most {light.max():.2g})", fontsize=7)
    return figure


def plot_traversal(model, inputs, place=(0.5, 0.5), piece: int | None = None, count: int = 7):
    """One piece of the features at one place walks through the codes there, decoded.

    The codes are those of the cell, in their order along the direction in which they differ most.

    Args:
        model: See the module.
        inputs: The frame; of several the first.
        place: `(x, y)` in [0, 1] of the picture.
        piece: Number of the piece; -1 for all pieces at once; default: the one that differs most
            from cell to cell.
        count: Number of codes shown.

    Returns:
        A figure: decoded pictures, and where they differ from the frame's own, enlarged in
        contrast as the title says.

    Raises:
        VPGCError: see `plot_usage`; or for a place or piece that there is not.
    """
    view = _view(model)
    features = view.features(inputs[:1])
    row, column = view.cell_of(place)
    if piece is None:
        parts = features.reshape(-1, view.pieces, view.code_dim)
        piece = int(parts.var(axis=0).sum(axis=1).argmax())
    if not -1 <= piece < view.pieces:
        raise VPGCError(
            f"There is no piece {piece}: give one of 0 to {view.pieces - 1}, or -1 for all."
        )
    quantized = view.quantize(features)
    numbers = _walk(view.codes if view.shared else view.codes[row, column], count)
    codes = view.codes[numbers] if view.shared else view.codes[row, column, numbers]
    walk = np.repeat(quantized, len(codes), axis=0).reshape(
        len(codes), *view.grid_size, view.pieces, view.code_dim
    )
    chosen = slice(None) if piece == -1 else piece
    walk[:, row, column, chosen] = codes[:, None] if piece == -1 else codes
    pictures = view.decode(
        np.concatenate([quantized, walk.reshape(len(codes), *quantized.shape[1:])])
    )
    original, pictures = pictures[0], pictures[1:]
    change = np.abs(pictures.astype(float) - original).mean(axis=3)
    figure, axes = _figure(2, len(codes) + 1, (1.5 * (len(codes) + 1), 3.6))
    axes[0, 0].imshow(original)
    _mark(axes[0, 0], view, row, column)
    axes[0, 0].set_title("as it is", fontsize=8)
    axes[1, 0].axis("off")
    highest = max(change.max(), 1e-9)
    for place_, (number, picture) in enumerate(zip(numbers, pictures, strict=True), 1):
        axes[0, place_].imshow(picture)
        axes[0, place_].set_title(f"code {number}", fontsize=8)
        axes[1, place_].imshow(change[place_ - 1], cmap=HEAT, vmin=0, vmax=highest)
    for axis in axes.ravel():
        _bare(axis)
    what = "all pieces" if piece == -1 else f"piece {piece}"
    figure.suptitle(
        f"cell {row},{column}, {what}; below the change, white: {change.max():.2g} grey levels",
        fontsize=9,
    )
    return figure


def plot_attention(model, inputs, places=((0.5, 0.5),)):
    """What the positions at some places read: M of Eq. 4, by cells of the window and by pieces.

    Args:
        model: See the module.
        inputs: The frame; of several the first.
        places: Pairs `(x, y)` in [0, 1] of the picture, such as a pixel that was clicked.

    Returns:
        A figure, a row a place: the window over the picture, the weight of each of its cells (the
        mean over the pieces), and each piece's share.

    Raises:
        VPGCError: see `plot_usage`; or for a place outside.
    """
    view = _view(model)
    cells = [view.cell_of(place) for place in places]
    features = view.features(inputs[:1])
    (picture,) = _pictures(view, inputs[:1], features)
    figure, axes = _figure(len(cells), 3, (10, 3.1 * len(cells)))
    axes = axes.reshape(len(cells), 3)
    r, (h, w) = view.window, view.grid_size
    for line, (row, column) in zip(axes, cells, strict=True):
        weights = view.weights_at(features, (row, column))[0].sum(axis=2)
        whole = np.zeros(h * w)
        whole[view.window_cells[row * w + column]] = weights.mean(axis=0)
        _over(line[0], picture, whole.reshape(h, w), whole.max())
        _mark(line[0], view, row, column)
        line[0].set_title(f"cell {row},{column}")
        first = view.window_cells[row * w + column][0]
        edges = (first % w - 0.5, first % w + r - 0.5, first // w + r - 0.5, first // w - 0.5)
        shown = line[1].imshow(weights.mean(axis=0).reshape(r, r), cmap=HEAT, vmin=0, extent=edges)
        line[1].set_title(f"weight of the window's cells (alike: {1 / r**2:.3g})")
        line[1].set_xticks(np.arange(r) + first % w)
        line[1].set_yticks(np.arange(r) + first // w)
        figure.colorbar(shown, ax=line[1], shrink=0.8)
        shown = line[2].imshow(weights, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
        line[2].set(xlabel="cell of the window", ylabel="piece", title="of each piece")
        figure.colorbar(shown, ax=line[2], shrink=0.8)
    return figure


def plot_texture_prior(model):
    """The texture prior P(u, v), the mean code of each cell, as pictures.

    Args:
        model: See the module.

    Returns:
        A figure: P decoded (each piece of the features takes the mean code), its three strongest
        directions as red, green and blue, and each of its numbers.

    Raises:
        VPGCError: for a codebook without a grid; see `plot_usage`.

    References:
        Wang et al., SIGGRAPH 2023, Eq. 6.
    """
    view = _view(model)
    prior = view.prior()
    depth = prior.shape[2]
    shown = min(depth, 8)
    figure, axes = _figure(1, 2 + shown, (1.9 * (2 + shown), 2.4))
    axes[0].imshow(view.decode(np.tile(prior, view.pieces)[None])[0])
    axes[0].set_title("decoded")
    _bare(axes[0])
    colours, _ = _directions(prior.reshape(-1, depth), 3)
    least, most = colours.min(axis=0), colours.max(axis=0)
    colours = (colours - least) / np.maximum(most - least, 1e-9)
    axes[1].imshow(colours.reshape(*view.grid_size, 3))
    axes[1].set_title("main directions")
    _bare(axes[1])
    highest = np.abs(prior).max()
    for number in range(shown):
        image = axes[2 + number].imshow(
            prior[..., number], cmap="coolwarm", vmin=-highest, vmax=highest
        )
        axes[2 + number].set_title(f"number {number}")
        _bare(axes[2 + number])
    figure.colorbar(image, ax=list(axes[2:]), shrink=0.7)
    return figure


def plot_cell_error(model, inputs, images=None):
    """Where the pictures are wrong, cell by cell.

    Args:
        model: See the module.
        inputs: The frames.
        images: The true pictures, uint8 `(n, s, s, 3)`; default: the inputs, if they are images.

    Returns:
        A figure: the first frame, the mean absolute error of each cell in grey levels, and what
        the codebook leaves over of the features, `|Z - Z_hat|`.

    Raises:
        VPGCError: see `plot_usage`; or if there is nothing to compare with.
    """
    view = _view(model)
    images = _true(view, inputs, images)
    features = view.features(inputs)
    quantized = view.quantize(features)
    error = cell_error(view.decode(quantized), images, view.grid_size)
    rest = np.abs(features - quantized).mean(axis=(0, 3))
    figure, axes = _figure(1, 3, (10.5, 3.4))
    _over(axes[0], images[0], error, error.max())
    axes[0].set_title("over the first frame")
    _map(axes[1], error, f"error in grey levels, mean {error.mean():.2f}", 0)
    _map(axes[2], rest, f"|Z - Z_hat|, mean {rest.mean():.3g}", 0)
    return figure


def cell_error(pictures, images, grid_size) -> np.ndarray:
    """The mean absolute error of each cell, float `(h, w)` in grey levels.

    Args:
        pictures, images: uint8 `(n, s, s, 3)`.
        grid_size: `(h, w)`; must divide the pictures.
    """
    h, w = grid_size
    error = np.abs(pictures.astype("float32") - images).mean(axis=(0, 3))
    return error.reshape(h, error.shape[0] // h, w, error.shape[1] // w).mean(axis=(1, 3))


def picture_of(figure) -> np.ndarray:
    """A figure as uint8 `(height, width, 3)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _view(model):
    return model if isinstance(model, CodebookView) else CodebookView(model)


def _figure(rows, columns, size):
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "landmarks") from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(size, dpi=DPI, layout="constrained", facecolor="white")
        return figure, np.atleast_1d(figure.subplots(rows, columns, squeeze=False).squeeze())


def _map(axes, values, title, least=None, most=None):
    image = axes.imshow(values, cmap=MAP, vmin=least, vmax=most)
    axes.set_title(title)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def _over(axes, picture, values, highest):
    """A map of cells over a picture: where it is low, the picture is dark."""
    side = len(picture)
    edges = (-0.5, side - 0.5, side - 0.5, -0.5)
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(values, cmap=HEAT, vmin=0, vmax=max(highest, 1e-9), alpha=0.6, extent=edges)
    axes.set(xlim=edges[:2], ylim=edges[2:])
    _bare(axes)


def _mark(axes, view, row, column):
    from matplotlib.patches import Rectangle

    height, width = (view.image_size / n for n in view.grid_size)
    corner = (column * width - 0.5, row * height - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="#00e5ff", linewidth=1.5))


def _bare(axes):
    axes.set_xticks([])
    axes.set_yticks([])


def _pictures(view, inputs, features):
    """The frames as pictures: what is put in, or what the puppet makes of it."""
    inputs = np.asarray(inputs)
    if inputs.ndim == 4 and inputs.dtype == np.uint8:
        return inputs
    return view.decode(view.quantize(features))


def _true(view, inputs, images):
    if images is None and np.asarray(inputs).dtype == np.uint8:
        images = inputs
    if images is None or np.shape(images) != (len(inputs), view.image_size, view.image_size, 3):
        raise VPGCError(
            "The error needs the true pictures: give images, uint8 of shape "
            f"({len(inputs)}, {view.image_size}, {view.image_size}, 3)."
        )
    return np.asarray(images)


def _directions(vectors, count):
    """Places of vectors along the directions in which they differ most, `(n, count)`."""
    centred = vectors - vectors.mean(axis=0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    found = centred @ directions[:count].T
    return np.pad(found, ((0, 0), (0, count - found.shape[1]))), spread


def _walk(codes, count):
    """Numbers of codes along the direction in which they differ most, evenly picked."""
    order = np.argsort(_directions(codes, 1)[0][:, 0])
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
