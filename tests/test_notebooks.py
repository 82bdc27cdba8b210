"""The notebooks, run from top to bottom as a person runs them; their own assertions say what must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from twin.folders import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    assert "**Scenario:**" in notebook.cells[0].source
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs: they belong to one machine"
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["from_telemetry_to_a_model", "why_that_r2_is_the_noise"]
