"""The notebook runs top to bottom, as somebody who opens it would run it."""

import ast
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"


def run_notebook(notebook: Any) -> str:
    """Run every cell in a kernel of its own and return what they printed; an exception in a cell is one here."""
    NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    # Tables and notes of the commands are HTML there, with the same as text.
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_it_is_kept_without_outputs_and_every_cell_is_python() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 4 and all(ast.parse(cell.source).body for cell in cells)
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_a_cell_that_fails_fails_here() -> None:
    from nbclient.exceptions import CellExecutionError

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)"), nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run_notebook(made)


@pytest.mark.slow
def test_it_runs_top_to_bottom(orpo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{TOUR.parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    shown = run_notebook(nbformat.read(TOUR, as_version=4))
    assert "I am so sorry for your loss" in shown
    assert "preference pairs" in shown and "verdict" in shown and "tuned" in shown
    assert "Warning" not in shown, "a newcomer reads what libraries say to each other"
    assert (orpo_home / "trained" / "tour" / "adapter_model.safetensors").is_file()
