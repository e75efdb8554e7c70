"""One experiment as one YAML file."""

import os
import re
from pathlib import Path
from typing import Any

from keras_vpgc.config import Method, Recipe, TrainConfig, expand_variant, nearest, resolve
from keras_vpgc.errors import VPGCError, missing_extra, writing
from keras_vpgc.version import __version__

try:
    import yaml
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
except ImportError as error:
    raise missing_extra(error.name or "pyyaml", "cli") from error

# The resolved settings in a run folder.
NAME = "config.yaml"


class Experiment(BaseModel):
    """What `vpgc train` is told: a portrait, a run, and how the one becomes the other.

    `network` and `recipe` hold what differs from the preset. Paths are those of the command line:
    relative to the folder in which it is run.

    Attributes:
        portrait: The portrait folder, or `None` if the command names it.
        run: The run folder, or `None` if the command names it.
        preset: Name of a preset.
        method: See `TrainConfig`.
        seed: Seed of weights and data order.
        devices: GPUs that divide each batch among them.
        network: Arguments of the model classes.
        recipe: Fields of `Recipe`.

    Example:

    ```python
    experiment = read_experiment("examples/configs/paper_512.yaml")
    experiment.resolved().recipe.learning_rate  # 5e-05
    ```
    """

    model_config = ConfigDict(extra="forbid")

    portrait: str | None = None
    run: str | None = None
    preset: str = "vpgc_256"
    method: Method = "vpgc"
    seed: int = Field(default=0, strict=True)
    devices: int = Field(default=1, ge=1, strict=True)
    network: dict[str, Any] = {}
    recipe: dict[str, Any] = {}

    def resolved(self) -> TrainConfig:
        """The preset with these settings, checked: see `keras_vpgc.config.resolve`."""
        return resolve(self.preset, self.network, self.recipe, self.seed, self.method)

    def override(
        self, network: dict | None = None, recipe: dict | None = None, **values
    ) -> "Experiment":
        """The same with other settings where they are given.

        Args:
            network, recipe: Settings that win over those of the file.
            **values: The other attributes; `None` leaves the file's.

        Returns:
            A new `Experiment`.
        """
        given = {key: value for key, value in values.items() if value is not None}
        whole = set(Recipe.model_fields) <= set(self.recipe)
        if whole and given.get("preset", self.preset) != self.preset:
            raise VPGCError(
                f"The file holds all settings of {self.preset}, so that another preset would be "
                "one by name alone: leave --preset out, or take the settings out of the file."
            )
        given["network"] = {**expand_variant(self.network), **expand_variant(network or {})}
        given["recipe"] = {**self.recipe, **(recipe or {})}
        return self.model_copy(update=given)


def read_experiment(path) -> Experiment:
    """Read and check a YAML file of an experiment.

    Args:
        path: The file. `config.yaml` of a run folder is such a file.

    Returns:
        An `Experiment`.

    Raises:
        VPGCError: if there is no such file, it is no YAML (with line and column), a key is unknown
            (the nearest known one is named), stands twice or in another section than its own, or a
            value is out of range.

    Example:

    ```python
    experiment = read_experiment("examples/configs/paper_512.yaml")
    ```
    """
    path = Path(path)
    if path.is_dir():
        path = path / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VPGCError(f"There is no file {path}: give the YAML file of an experiment.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise VPGCError(f"{path} cannot be read ({reason}): give a YAML file.") from None
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise VPGCError(f"{path}{place}: this is no YAML that can be read ({reason}).") from None
    if not isinstance(content, dict) or not content:
        raise VPGCError(
            f"{path} holds no settings: write KEY: VALUE lines, such as preset: vpgc_256."
        )
    _check_keys(path, content)
    try:
        experiment = Experiment(**content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"])
        raise VPGCError(
            f"{path}: {place} cannot be {first['input']!r}: {first['msg'].lower()}."
        ) from None
    try:
        experiment.resolved()
    except VPGCError as error:
        raise VPGCError(f"{path}: {error}") from None
    return experiment


def write_experiment(path, config: TrainConfig, **values) -> None:
    """Write complete settings, so that the same can be trained again.

    Args:
        path: The file.
        config: Resolved settings.
        **values: The other attributes of `Experiment`, such as `portrait`.

    Raises:
        VPGCError: if the file cannot be written.

    Example:

    ```python
    write_experiment("me.yaml", resolve("vpgc_128"), portrait="data/me")
    ```
    """
    path = Path(path)
    with writing(path):
        partial = path.with_name(f".{path.name}")
        try:
            partial.write_text(as_yaml(config, **values), encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def as_yaml(config: TrainConfig, **values) -> str:
    """Complete settings as the text of `write_experiment`."""
    settings = config.model_dump(mode="json")
    head = {key: value for key, value in values.items() if value is not None}
    head |= {key: settings[key] for key in ("preset", "method", "seed")}
    body = {"network": settings["network"], "recipe": settings["recipe"]}
    again = "vpgc train --config THIS_FILE -o ANOTHER_RUN"
    if config.method == "distill":
        again = f"vpgc distill {config.teacher} -o ANOTHER_RUN, with what differs by --set"
    return f"# Written by keras_vpgc {__version__}. The same again: {again}\n" + yaml.dump(
        {**head, **body}, Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )


def _check_keys(path, content):
    fields = set(Experiment.model_fields)
    for key in content:
        if key in fields:
            continue
        if key in Recipe.model_fields:
            raise VPGCError(f"{path}: {key} is a setting of the recipe: put it under recipe.")
        if key == "driver_variant":
            raise VPGCError(f"{path}: {key} is a setting of the network: put it under network.")
        hint = nearest(str(key), fields, f"known are {', '.join(sorted(fields))}.")
        raise VPGCError(f"{path}: there is no key {key!r}: {hint}")
    for section in ("network", "recipe"):
        if content.get(section, {}) is None:
            # A section of which all is commented out.
            content[section] = {}
        names = content.get(section, {})
        if isinstance(names, dict) and not all(isinstance(key, str) for key in names):
            odd = next(key for key in names if not isinstance(key, str))
            raise VPGCError(f"{path}: {odd!r} under {section} is no name of a setting.")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's words and numbers: 1e-4 is a number, and `off` a word; no key may stand twice."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rsplit(":", 1)[-1] not in ("bool", "float", "int", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


# Else a leading zero would make it octal.
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


class _Dumper(yaml.SafeDumper):
    """Lists of numbers in one line."""

    def represent_sequence(self, tag, sequence, flow_style=None):
        return super().represent_sequence(tag, sequence, flow_style=True)

    def ignore_aliases(self, data):
        return True


# Words that either of the two readers would take for something else stand in quotes.
_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *_Loader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}
