"""The code blocks of README and pages."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"^```(python|bash|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Its commands are those that were measured, on footage that is not here.
LEFT_OUT = {"docs/results.md"}


def pages():
    """Names of all pages with blocks, from the root."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/README.md"),
    ]
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    return [name for name in names if name not in LEFT_OUT and blocks(name)]


def blocks(page):
    """`(language, code)` of a page's blocks, in order."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def commands(code):
    """Commands of a bash block as lists of words, without variables before and comments."""
    joined = re.sub(r"\$\(\(.*?\)\)", "1", code.replace("\\\n", " "))
    for line in joined.splitlines():
        for part in re.split(r"&&|;", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words:
                yield words
