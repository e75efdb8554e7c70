"""What distributions and services read about the project agrees with the code."""

import re
import subprocess
import tomllib

import pytest
import yaml

import keras_vpgc
from keras_vpgc import doctor
from tests.docs.blocks import ROOT

pytestmark = pytest.mark.once
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = yaml.load((ROOT / ".github" / "workflows" / "ci.yml").read_text(), yaml.BaseLoader)


def steps(job):
    return [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


def test_the_workflow_does_what_the_script_does():
    script = (ROOT / ".ci" / "run").read_text()
    lint = steps("lint")
    for command in ("ruff check .", "ruff format --check .", "mypy"):
        assert command in script and command in lint
    assert "python tests/run.py" in script and ".ci/package" in script
    install = 'pip install -c constraints-cpu.txt -e ".[all,test]"'
    assert install in lint and install in steps("tests")
    assert install.removeprefix("pip install ") in script

    from tests.run import BACKENDS

    matrix = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert [row["backend"] for row in matrix] == list(BACKENDS)
    # Once under the first, like tests/run.py.
    assert [row["select"] for row in matrix] == ["not slow", *["not slow and not once"] * 2]
    bare = WORKFLOW["jobs"]["without-tensorflow"]
    assert steps("without-tensorflow")[-1] == ".ci/package python tests/layers tests/models"
    assert "tensorflow" not in (ROOT / ".ci" / "package").read_text().lower().replace(
        "without tensorflow", ""
    )
    least = PROJECT["requires-python"].removeprefix(">=")
    assert bare["strategy"]["matrix"]["python"][0] == least


def test_the_version_is_in_one_place():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == keras_vpgc.__version__
    assert cited["preferred-citation"]["doi"] in PROJECT["urls"]["Paper"]
    assert len(cited["preferred-citation"]["authors"]) == 11
    first = re.search(r"^## (\S+?)[, ]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == keras_vpgc.__version__


def test_the_issue_forms_are_whole():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= set(form)
            names = [item["id"] for item in form["body"] if item["type"] != "markdown"]
            assert len(names) == len(set(names))


def test_the_doctor_knows_the_extras():
    extras = set(PROJECT["optional-dependencies"])
    together = {"demo", "test", "all", "docs", "keras-cv"}
    assert extras - together - set(doctor.BACKENDS) <= set(doctor.EXTRAS)
    readme = (ROOT / "README.md").read_text()
    for extra in extras:
        assert f"`{extra}`" in readme, extra


def test_nothing_of_a_checkout_gets_lost():
    """What the source archive is told to hold is there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = set(listed.stdout.splitlines())
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        if line.startswith("include "):
            assert set(line.split()[1:]) <= names
