"""What a command says: sentences for people, one JSON object for machines."""

import contextlib
import json
import sys
from typing import Annotated, Any

import typer

from keras_vpgc.errors import VPGCError

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; all other words go to stderr.")
]


class Answer:
    """Collects what a command found, and says it in one of two ways.

    With JSON the standard output holds one object and nothing else: whatever is printed on the way
    goes to the standard error. Bad input is then `{"error": SENTENCE}`, with the exit code 1 as
    ever; the keys that are there already stay.

    Args:
        as_json: Say it as JSON.

    Example:

    ```python
    with Answer(json) as answer:
        answer.give(frames=75)
        answer.say("75 frames are ready.")
    ```
    """

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.values: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        if self.as_json:
            self._out = sys.stdout
            self._stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(self, kind, error, trace):
        self._stack.close()
        if not self.as_json:
            return
        if isinstance(error, (VPGCError, OSError)):
            from keras_vpgc.cli import sentence

            words = str(error) if isinstance(error, VPGCError) else sentence(error)
            self.values["error"] = words
        elif error is not None:
            return
        text = json.dumps(_plain(self.values), indent=1, ensure_ascii=False)
        print(text, file=self._out, flush=True)

    def say(self, sentence: str) -> None:
        """A sentence for people."""
        if not self.as_json:
            typer.echo(sentence)

    def give(self, **values) -> None:
        """Values for machines: numbers, texts, paths, arrays, nested in dicts and lists."""
        self.values |= values


def _plain(value):
    """The same of what JSON knows; a number that it lacks as `"inf"`, `"-inf"` or null."""
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        if value != value:
            return None
        return str(value) if value in (float("inf"), float("-inf")) else value
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
