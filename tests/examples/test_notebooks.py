"""The notebooks run from their first cell to their last, with other values in their parameters."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.once

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
RECIPE = {"steps": 2, "driver_steps": 2, "driver_image_steps": 0}


def read(name):
    import nbformat

    return nbformat.read(FOLDER / name, as_version=4)


def run_notebook(name, folder, **values):
    """Its cells after a run in `folder`, with the tagged cell replaced by values."""
    from nbclient import NotebookClient

    notebook = read(name)
    (cell,) = [x for x in notebook.cells if "parameters" in x.metadata.get("tags", [])]
    defaults: dict = {}
    exec(cell.source, {}, defaults)
    assert set(values) <= set(defaults), "the notebook has other parameters"
    cell.source = "\n".join(f"{k} = {v!r}" for k, v in {**defaults, **values}.items())
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook.cells


def pictures(cells):
    return [
        output.data["image/png"]
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


@pytest.mark.parametrize("name", ["train_a_puppet.ipynb", "inside_the_codebook.ipynb"])
def test_notebooks_are_kept_clean(name):
    """No pictures of people, and no outputs that change with each run."""
    import nbformat

    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_train_a_puppet(clip, tmp_path):
    cells = run_notebook("train_a_puppet.ipynb", tmp_path, VIDEO=str(clip), RECIPE=RECIPE)
    assert len(pictures(cells)) == 4
    assert (tmp_path / "runs" / "demo" / "notebook.mp4").exists()
    shown = str([cell.get("outputs") for cell in cells])
    assert "| driven |" in shown and "<video" in shown and "(15, 64, 64, 3)" in shown


@pytest.mark.slow
def test_inside_the_codebook(run, tmp_path):
    cells = run_notebook("inside_the_codebook.ipynb", tmp_path, RUN=str(run), FRAMES=2)
    assert len(pictures(cells)) == 8
