"""Sections of files at the repository's root in pages: `{{ include README.md "## Scoring" }}`."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\{\{ include (\S+)(?: "(#+ [^"]+)")? \}\}$', re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def on_page_markdown(markdown, page, config, files):
    """Put the sections in their places, with links that fit the page."""

    def replace(match):
        text = section(ROOT / match[1], match[2])
        up = "../" * page.file.src_uri.count("/")
        return LINK.sub(lambda link: _link(link, Path(match[1]).parent, up), text)

    return INCLUDE.sub(replace, markdown)


def section(path, heading=None):
    """What stands under a heading, without it; all under the first one if none is given."""
    lines = path.read_text(encoding="utf-8").splitlines()
    heading = heading or next(line for line in lines if line.startswith("# "))
    if heading not in lines:
        raise ValueError(f"{path.name} has no line {heading!r}")
    level, found, code = len(heading.split(" ")[0]), [], False
    for line in lines[lines.index(heading) + 1 :]:
        if line.startswith("```"):
            code = not code
        title = None if code else re.match(r"(#+) ", line)
        if title and len(title[1]) <= level:
            break
        found.append(line)
    return "\n".join(found).strip()


def _link(link, folder, up):
    """A link to a page stays one; other files of the repository are named."""
    target = (folder / link[2]).as_posix()
    if target.startswith("docs/"):
        return f"[{link[1]}]({up}{target.removeprefix('docs/')})"
    return f"`{link[1].strip('`')}`"
