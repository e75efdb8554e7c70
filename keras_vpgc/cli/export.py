"""`vpgc export`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder or a puppet.keras.")],
    format: Annotated[
        str, typer.Option("--format", help="onnx, openvino, litert, saved_model or torch.")
    ] = "onnx",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; default: beside the puppet.")
    ] = None,
    inputs: Annotated[
        str, typer.Option("--input", help="landmarks, or heatmaps (drawings of them).")
    ] = "landmarks",
    pixels: Annotated[str, typer.Option(help="uint8, or float in [-1, 1].")] = "uint8",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
):
    """Export a puppet to a file that runs without Keras, checked against it.

    Example: vpgc export runs/me --format onnx -o me.onnx
    """
    from keras_vpgc.export import FORMATS, export_puppet

    done = export_puppet(run, output, format, inputs=inputs, pixels=pixels, overwrite=overwrite)
    shapes = (
        f"{x['dtype']} {x['name']} ({', '.join(map(str, x['shape']))})"
        for x in (done.description["input"], done.description["output"])
    )
    typer.echo(" -> ".join(shapes))
    typer.echo(
        f"{FORMATS[format].runtime} and Keras differ by {done.largest:.3g} grey levels at most, "
        f"{done.mean:.2g} in the mean, over {done.windows} images."
    )
    beside = "".join(f", with {file.name} beside it" for file in done.files[:-1])
    typer.echo(f"{done.path} is ready{beside}.")
