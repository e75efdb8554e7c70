"""`vpgc export`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vpgc.cli import options
from keras_vpgc.cli.answer import Answer, Json


def command(
    run: options.Run,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx, openvino, litert, saved_model or torch.",
            autocompletion=options.words(*options.FORMATS),
        ),
    ] = "onnx",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; default: beside the puppet.")
    ] = None,
    inputs: Annotated[
        str, typer.Option("--input", help="landmarks, or heatmaps (drawings of them).")
    ] = "landmarks",
    pixels: Annotated[str, typer.Option(help="uint8, or float in [-1, 1].")] = "uint8",
    precision: Annotated[
        str,
        typer.Option(
            help="float32, or int8 for half the size (ONNX).",
            autocompletion=options.words("float32", "int8"),
        ),
    ] = "float32",
    portrait: Annotated[
        Path | None,
        typer.Option(help="Landmarks to calibrate int8 on; default: those of the training."),
    ] = None,
    overwrite: options.Overwrite = False,
    json: Json = False,
):
    """Export a puppet to a file that runs without Keras.

    It is checked against Keras before it gets its name.

    Example: vpgc export runs/me --format onnx -o me.onnx
    """
    with Answer(json) as answer:
        from keras_vpgc.export import FORMATS, export_puppet

        done = export_puppet(
            run,
            output,
            format,
            inputs=inputs,
            pixels=pixels,
            precision=precision,
            portrait=portrait,
            overwrite=overwrite,
        )
        answer.give(
            file=done.path,
            files=done.files,
            format=format,
            input=done.description["input"],
            output=done.description["output"],
            largest_difference=done.largest,
            mean_difference=done.mean,
            images=done.windows,
            int8=done.int8,
        )
        shapes = (
            f"{x['dtype']} {x['name']} ({', '.join(map(str, x['shape']))})"
            for x in (done.description["input"], done.description["output"])
        )
        answer.say(" -> ".join(shapes))
        answer.say(
            f"{FORMATS[format].runtime} and Keras differ by {done.largest:.3g} grey levels at "
            f"most, {done.mean:.2g} in the mean, over {done.windows} images."
        )
        if done.int8:
            answer.say(
                f"In int8, pixels are {done.int8['mean']:.2g} grey levels from float32 in the "
                f"mean, {done.int8['largest']:.3g} at most, over {done.int8['images']} images."
            )
        beside = "".join(f", with {file.name} beside it" for file in done.files[:-1])
        answer.say(f"{done.path} is ready{beside}.")
