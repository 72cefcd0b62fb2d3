"""Every notebook runs from top to bottom, and the method in CONTRIBUTING.md is one."""

from __future__ import annotations

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
# Which compute for longer than they compile.
OPTIMISED = {"04_trajectories", "05_selection", "06_soft_labels"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    if path.stem in OPTIMISED:
        monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", [])
                if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2


def test_the_own_objective_fits_in_fifteen_lines():
    notebook = nbformat.read(FOLDER / "01_first_distillation.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    cells = [source for source in sources if "weighted_sum" in source]
    assert len(cells) == 1 and len(cells[0].splitlines()) <= 15


def test_the_method_in_contributing_runs(tmp_path, toy):
    import dd_jax as dd

    text = (FOLDER.parent / "CONTRIBUTING.md").read_text()
    [source] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "mean_images.py"
    path.write_text(source)
    for protocol in ("official", "cpu"):
        plan = dd.methods.plan(str(path), toy, protocol=protocol, ipc=2, depth=1, steps=2)
        distilled = dd.distill(plan, toy, show_progress=False)
        assert distilled.recipe["method"] == "mean_images" and distilled.ipc == 2
