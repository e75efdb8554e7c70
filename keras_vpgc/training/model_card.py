"""The model card of a run: whose puppet it is, made of what, how good, for what."""

import csv
import hashlib
import json
import re
import warnings
from pathlib import Path

from keras_vpgc.assets import ASSETS, sha256
from keras_vpgc.data.portrait import Portrait

NAME = "MODEL_CARD.md"
BLOCK = re.compile(
    r"<!-- keras_vpgc:begin (?P<name>\w+) (?P<digest>[0-9a-f]{16}) -->\n"
    r"(?P<text>.*?)<!-- keras_vpgc:end (?P=name) -->",
    re.DOTALL,
)
LOSSES = {
    "lpips-vgg": "LPIPS (VGG16): " + ASSETS["lpips_vgg"].licence,
    "lpips-alex": "LPIPS (AlexNet): " + ASSETS["lpips_alex"].licence,
    "vgg19": "VGG19 as Keras ships it (CC-BY-4.0, Visual Geometry Group, Oxford), trained on "
    "ImageNet (non-commercial research)",
}

TEMPLATE = """---
# The header that Hugging Face reads, where the card is called README.md.
library_name: keras
license: unknown  # FILL IN: under which terms you pass the puppet on, if at all
tags:
- keras
- keras_vpgc
- talking-head
- face-reenactment
- synthetic-media
---

# Puppet of FILL IN

What is between the lines `keras_vpgc:begin` and `keras_vpgc:end` is written by keras_vpgc and
written anew, unless you change it; all else is yours. Where it says **FILL IN** only you know.

## What it is

{what}

## Person and consent

| | |
|---|---|
| Person shown | **FILL IN** (a name, or how to reach the person) |
| Agreed to the recording | **FILL IN** (when, how, where the document is) |
| Agreed to a puppet, which can be made to do anything | **FILL IN** (the same) |
| Agreed to these uses | **FILL IN** (which, by whom, where shown, until when) |
| How consent is withdrawn | **FILL IN** (a contact; then puppet, run and portrait folder go) |
| Of age | **FILL IN** |

Without consent: do not use it, and do not pass it on.

## Footage and licence

| | |
|---|---|
| Recorded by | **FILL IN** |
| Licence of the footage, and whether it allows training a model | **FILL IN** |

{footage}

## Training and results

{training}

## Intended use

**FILL IN**, such as: dubbing of own recordings, an avatar of oneself, research.

## Misuse

A puppet shows a person doing what that person did not do. Not for: passing it off as a recording;
deceiving, defaming or harassing anybody; sexual content; getting past identity checks; words that
the person did not agree to say. Say that a video is synthetic where it is shown; `vpgc reenact`
writes it into every file (metadata, C2PA manifest), and `vpgc verify` reads it.

## Limits

- It knows what the footage shows: poses, mouths, blinks, light, clothes and background beyond that
  break. See the coverage above.
- It follows landmarks. Tongue, teeth, hair, hands and what passes before the face are guessed.
- Pictures of the training footage can come out of it almost unchanged: treat the file as personal
  data, biometric data in many places.
- Scores on the person's own held-out frames say little about being driven by somebody else.
- **FILL IN** what you saw.
"""


def write_model_card(run, portrait: Portrait | None = None) -> bool:
    """Write `MODEL_CARD.md` into a run, or bring the numbers in it up to date.

    A template at first, with the header that Hugging Face reads. After that only the blocks between
    keras_vpgc's markers are written anew, those whose text is as it was written; a block that was
    changed, or whose markers are gone, stays as it is.

    Args:
        run: A run folder with a `puppet.keras`.
        portrait: The `Portrait` that it was trained on, if it can be read; else what the footage
            is stays as the card has it.

    Returns:
        Is the card up to date? A card that cannot be written, and a block that was changed by hand
        and would say something else now, are said in a warning and end nothing.

    Example:

    ```python
    write_model_card("runs/me", Portrait("data/me"))
    ```
    """
    run = Path(run)
    file = run / NAME
    try:
        blocks = {"what": _what(run), "training": _training(run)}
        if portrait is not None:
            blocks["footage"] = _footage(portrait)
        if not file.exists():
            marked = {"footage": _marked("footage", "")}
            marked |= {name: _marked(name, text) for name, text in blocks.items()}
            _replace(file, TEMPLATE.format(**marked))
            return True
        old = file.read_text(encoding="utf-8")
        new, changed = _renewed(old, blocks)
        if new != old:
            _replace(file, new)
    except (OSError, UnicodeDecodeError) as error:
        warnings.warn(f"{file} could not be written ({error}).", stacklevel=2)
        return False
    if changed:
        warnings.warn(
            f"{file} was changed by hand where keras_vpgc writes ({', '.join(changed)}): these "
            "parts stay as they are; delete the file to have it written anew.",
            stacklevel=2,
        )
    return not changed


def _renewed(card: str, blocks: dict[str, str]) -> tuple[str, list[str]]:
    """A card with new blocks, and the names of those that a hand changed."""
    changed = []

    def renew(found):
        name, text = found["name"], found["text"]
        if name not in blocks or text == blocks[name]:
            return found[0]
        if found["digest"] != _digest(text):
            changed.append(name)
            return found[0]
        return _marked(name, blocks[name])

    return BLOCK.sub(renew, card), changed


def _digest(text):
    # Editors change the ends of lines.
    return hashlib.sha256("\n".join(text.split()).encode()).hexdigest()[:16]


def _marked(name, text):
    begin = f"<!-- keras_vpgc:begin {name} {_digest(text)} -->"
    return f"{begin}\n{text}<!-- keras_vpgc:end {name} -->"


def _replace(file, text):
    partial = file.with_name(f".{file.name}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _read(file) -> dict:
    """A JSON file, or nothing: a card must not fail for what it repeats."""
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _table(rows: dict) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def _what(run) -> str:
    config = _read(run / "run.json").get("config", {})
    method = config.get("method", "vpgc")
    size = config.get("network", {}).get("image_size")
    text = (
        "A puppet: a Keras model that turns the face landmarks of any driving person into pictures "
        f"of the one it knows, {size}x{size} pixels. "
    )
    if method != "direct":
        text += (
            "Method: grid-based codebook (Wang et al., Efficient Video Portrait Reenactment via "
            "Grid-based Codebook, SIGGRAPH 2023)."
        )
        if method == "distill":
            text += f" Another puppet taught it (SHA-256 `{config.get('teacher')}`)."
    else:
        text += "Method: direct mapping from landmarks to images, a baseline without a codebook."
    puppet = run / "puppet.keras"
    checksum = f"`{sha256(puppet)}`" if puppet.is_file() else None
    use = f'`keras_vpgc.load("{run.name}")` or `vpgc reenact {run.name} --driving VIDEO -o OUT`'
    rows = {"File": "`puppet.keras`", "SHA-256": checksum, "Use": use}
    return f"{text}\n\n{_table(rows)}"


def _footage(portrait) -> str:
    info = portrait.info
    source = info.get("report", {}).get("source", {})
    width, height = (source.get(x) for x in ("width", "height"))
    crop, rate = info["crop"], info["frame_rate"]
    seconds = source.get("seconds")
    rows = {
        "File": f"`{info.get('source')}`",
        "SHA-256": f"`{info['source_sha256']}`",
        "Duration": None if seconds is None else f"{seconds:.1f} s",
        "Resolution": f"{width}x{height} pixels" if width and height else None,
        "Codec": source.get("codec"),
        "Used": f"{len(portrait)} frames, {len(portrait) / rate:.1f} s at {rate:g} frames/s",
        "Crop": f"{crop['size']:.0f} pixels square at {crop['x']:.0f}, {crop['y']:.0f}, stored at "
        f"{portrait.size}x{portrait.size}",
        "Training, validation, test": ", ".join(
            str(len(portrait.indices(part))) for part in ("train", "validation", "test")
        )
        + " frames",
    }
    return f"{_table(rows)}\n### Coverage\n\n{_coverage(portrait)}\n{_trackers(portrait)}"


def _coverage(portrait) -> str:
    found = _read(portrait.path / "coverage.json")
    if not found:
        return f"Not measured: `vpgc inspect {portrait.path.name}` says what the footage holds.\n"

    def reach(values, unit="", digits=0):
        return (
            f"{values['least']:.{digits}f} to {values['greatest']:.{digits}f}{unit}, usually "
            f"{values['median']:.{digits}f}{unit}"
        )

    try:
        rows = {
            "Usable": f"{found['seconds']['usable']:.1f} s",
            **{x.capitalize(): reach(found["pose"][x], "°") for x in ("yaw", "pitch", "roll")},
            "Mouth opening over its width": reach(found["mouth"], digits=2),
            "Blinks": f"{found['eyes']['blinks']}, {found['eyes']['blinks_a_minute']:g} a minute",
            "Face height in the source": f"{found['place']['face_source_pixels']:g} pixels",
            "Blurred frames": f"{found['sharpness']['blurred']:.1%}",
        }
        advice = "".join(f"- {item['text']}\n" for item in found["advice"])
    except (KeyError, TypeError, ValueError):
        return f"`coverage.json` cannot be read: `vpgc inspect {portrait.path.name}` makes it.\n"
    lacking = f"Lacking:\n\n{advice}" if advice else "Nothing was found lacking.\n"
    return f"{_table(rows)}\n{lacking}"


def _trackers(portrait) -> str:
    tracker = str(portrait.info.get("tracker"))
    known = tracker.startswith("mediapipe-face-landmarker")
    licence = ASSETS["face_landmarker"].licence if known else "**FILL IN** below"
    rows = {
        "Landmarks": f"{tracker}: {licence}",
        "Set": portrait.info.get("landmark_set"),
    }
    return f"### Trackers and their licences\n\n{_table(rows)}"


def _training(run) -> str:
    info = _read(run / "run.json")
    config = info.get("config", {})
    recipe, network = config.get("recipe", {}), config.get("network", {})
    perceptual = recipe.get("perceptual")
    rows = {
        "Preset": config.get("preset"),
        "Landmark set": network.get("landmark_set"),
        "Precision": recipe.get("precision"),
        "Seed": config.get("seed"),
        "Begun": info.get("began"),
        "keras_vpgc, Keras": f"{info.get('keras_vpgc')}, {info.get('keras')}",
        "Backend": info.get("backend"),
        "Devices": info.get("devices"),
        "Perceptual loss": LOSSES.get(perceptual, perceptual) if perceptual else "none",
    }
    return f"{_table(rows)}\n{_stages(run)}\n### Metrics\n\n{_metrics(run)}"


def _stages(run) -> str:
    lines = []
    for file in sorted((run / "logs").glob("*.csv")):
        try:
            with open(file, newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
            seconds = sum(float(row["seconds"]) for row in rows)
            lines.append(f"| {file.stem} | {int(rows[-1]['step'])} | {seconds:.0f} |")
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue
    if not lines:
        return ""
    return "\n".join(["| stage | steps | seconds |", "|---|---|---|", *lines]) + "\n"


def _metrics(run) -> str:
    found = _read(run / "evaluation" / "metrics.json")
    protocol = found.get("protocol")
    if not protocol or not found.get("table"):
        return f"None yet: `vpgc evaluate {run.name}` scores the held-out frames.\n"
    detector = protocol.get("detector")
    return (
        f"Of the {protocol.get('part')} part, {protocol.get('frames')} frames that the training "
        f"has not seen, driven by their own landmarks at {protocol.get('image_size')} pixels; "
        f"backend {protocol.get('backend')}, landmarks by {detector or 'no detector'}.\n\n"
        f"{found['table']}\n"
    )
