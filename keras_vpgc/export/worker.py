"""The process that exports: `python -m keras_vpgc.export.worker`, under the format's backend.

A line of JSON comes in, and one goes out. It ends with its parent, however that ends.
"""

import json
import os
import sys
import threading


def work(
    puppet: str,
    format: str,
    target: str,
    inputs: str,
    pixels: str,
    precision: str = "float32",
    portrait: str | None = None,
) -> dict:
    """Export and compare; see `keras_vpgc.export.export_puppet`.

    Args:
        puppet: A run folder or `puppet.keras`.
        format: A key of `FORMATS`.
        target: The file to write.
        inputs, pixels: See `keras_vpgc.export.graph.export_model`.
        precision: `"float32"` or `"int8"`.
        portrait: The folder whose landmarks int8 is calibrated on, or `None`.

    Returns:
        What `keras_vpgc.export.check.compare` returns of the float32 file, `description`, and
        `int8`: what `keras_vpgc.export.int8.quantise` returns, or `None`.
    """
    from keras_vpgc.export import check, formats, graph, int8
    from keras_vpgc.reenactment import Puppet

    model = Puppet.load(puppet, precision="float32").model
    description = {**graph.describe(model, inputs, pixels), "precision": precision}
    exported = graph.export_model(model, inputs, pixels, rows=format != "openvino")
    formats.write(format, exported, target, json.dumps(description))
    del exported
    report = check.compare(model, inputs, pixels, formats.read(format, target))
    small = None
    if precision == "int8":
        small = int8.quantise(target, int8.calibration(model, portrait))
    return {**report, "description": description, "int8": small}


def _main():
    import traceback

    from keras_vpgc.errors import VPGCError

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    request = json.loads(sys.stdin.readline())

    def listen():
        sys.stdin.read()
        os._exit(1)  # the parent is gone

    threading.Thread(target=listen, daemon=True).start()
    try:
        answer = {"done": work(**request)}
    except VPGCError as error:
        answer = {"error": "input", "text": str(error)}
    except OSError as error:
        answer = {
            "error": "system",
            "errno": error.errno,
            "text": error.strerror,
            "file": error.filename and str(error.filename),
        }
    except Exception:
        answer = {"error": "bug", "text": traceback.format_exc()}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    os._exit(0)  # threads of runtimes may outlive their work


if __name__ == "__main__":
    _main()
