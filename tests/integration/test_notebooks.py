"""The notebooks of `examples/` run from the first cell to the last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.integration.conftest import copied_store

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
SHORT = "first_steps"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_output_is_stored(path: Path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.parametrize(
    "path",
    [pytest.param(one, id=one.stem, marks=[] if one.stem == SHORT else pytest.mark.slow) for one in EXAMPLES],
)
def test_it_runs(path: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", copied_store(empty_store, tmp_path))
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("epochs=6", "epochs=1")
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "<td>groups of exact duplicates</td>" in shown
    assert "Primary metric: " in printed
    assert 'install "ipywidgets"' not in shown + printed  # Rich's, for each line that it cannot draw
    assert any("image/png" in output.data for output in outputs if "data" in output) or path.stem == "audit_your_images"
