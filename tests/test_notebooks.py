"""The notebooks in `docs/` run from start to end as they stand, and nothing in them is a red box."""

from pathlib import Path
from typing import Any

import pytest

import autopeft

nbformat = pytest.importorskip("nbformat", reason="needs autopeft[exhaustive]")
NotebookClient = pytest.importorskip("nbclient", reason="needs autopeft[exhaustive]").NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks_without_outputs_and_pages_lead_to_them():
    assert len(NOTEBOOKS) == 2
    page = (FOLDER.parent / "api.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code), f"{path.name}: clear its outputs"
        for cell in code:
            compile(cell.source, path.name, "exec")
        assert f"notebooks/{path.name}" in page


def texts(notebook: Any, kind: str) -> list[str]:
    """What the cells put out of a MIME type."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [str(output.data[kind]) for output in outputs if kind in output.get("data", {})]


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_says(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    red = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not red, "".join(red)
    shown = texts(notebook, "text/html")
    assert any("<strong>Study " in html for html in shown)
    assert texts(notebook, "image/png")
    if path.stem == "classify_a_frame":
        (live,) = [html for html in shown if html.startswith("<div>") and "Refitting the winner" in html]
        assert live.count("<tr>") == 4, "the head and three trials stay when the search is over"
        assert any("<iframe srcdoc=" in html for html in shown)
        assert any("<strong>Winner of study tweets" in html for html in shown)
    assert autopeft.load(next(tmp_path.glob("outputs/*/winner"))).card.labels
