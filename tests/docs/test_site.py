"""The site is built strictly, and says what there is."""

import importlib
import re
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.once


def build(config, target):
    # With --quiet, warnings are neither shown nor counted.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d"]
    return subprocess.run([*command, target], capture_output=True, text=True)


def test_the_site_is_built_without_a_warning(tmp_path):
    result = build(ROOT / "mkdocs.yml", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    method = (tmp_path / "method" / "index.html").read_text()
    assert "soft-index.svg" in method and (tmp_path / "images" / "soft-index.svg").exists()
    layers = (tmp_path / "api" / "layers" / "index.html").read_text()
    # Signature, arguments and shapes out of the docstrings.
    assert "keras_vpgc.layers.GridCodebook" in layers and "codes_per_cell" in layers
    live = (tmp_path / "how-to" / "live" / "index.html").read_text()
    assert "virtual-camera" in live, "a section of README"
    assert not list(tmp_path.glob("*.py"))
    # Nothing is loaded from other sites.
    for page in tmp_path.glob("**/*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not loaded, (page, loaded)


@pytest.mark.parametrize(
    "text, fails",
    [
        ("# A\n\n[there](#a)\n", False),
        ("# A\n\n[gone](gone.md)\n", True),
        ("# A\n\n[gone](#gone)\n", True),
        ("# A\n\n![gone](gone.svg)\n", True),
    ],
)
def test_a_broken_link_fails(text, fails, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text(text)
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: pages\nnav: [index.md]\n"
        "plugins: []\nhooks: []\n"
    )
    assert (build(tmp_path / "mkdocs.yml", tmp_path / "out").returncode != 0) is fails


@pytest.mark.parametrize(
    "package", ["layers", "models", "losses", "metrics", "training", "data", "reenactment",
                "evaluation", "export"],
)  # fmt: skip
def test_the_reference_lists_what_is_public(package):
    module = importlib.import_module(f"keras_vpgc.{package}")
    text = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    listed = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    public = {
        name for name in module.__all__ if callable(getattr(module, name)) or name == "presets"
    }
    assert {f"keras_vpgc.{package}.{name}" for name in public} <= listed


def test_sections_of_other_files(tmp_path):
    spec = importlib.util.spec_from_file_location("include", ROOT / "docs" / "include.py")
    include = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(include)
    (tmp_path / "a.md").write_text(
        "# A\n\none\n\n## B\n\ntwo\n\n```bash\n# no heading\n```\n\n## C\nx\n"
    )
    assert include.section(tmp_path / "a.md", "## B") == "two\n\n```bash\n# no heading\n```"
    assert include.section(tmp_path / "a.md").startswith("one")
    with pytest.raises(ValueError, match="no line '## D'"):
        include.section(tmp_path / "a.md", "## D")
