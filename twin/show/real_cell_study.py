"""`twin validate cell`: a real cell fitted and aged, as text, JSON and a figure."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from datasets.table_file import DataError
from physics import physics_version
from training.validation.real_cell import CellTables, cell_tables, render
from twin.errors import BadInput, RunFailed
from twin.run_directory import filling, new_directory, stamp
from twin.show.facts import plain
from twin.show.plots import BLUE, GREY, save, styled


def validate_cell(*, data: Path, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Compute the tables, write them to a new folder and return it. RunFailed where a goal is missed."""
    folder = new_directory(out, f"validate-cell-{stamp()}")
    try:
        tables = cell_tables(data, say)
    except DataError as error:
        raise BadInput(f"--data: {error}") from None
    text = render(tables)
    facts = {
        "versions": {"physics": physics_version(), "numpy": np.__version__, "python": platform.python_version()},
        "missed": tables.missed(),
        "rmse_mV": {part.name: round(part.rmse_mV, 3) for part in tables.fit.parts} | {"all": tables.fit.rmse_mV},
        "parameters": [plain(parameter) for parameter in tables.fit.parameters],
        "checks": [plain(row) for row in tables.checks],
    }
    with filling(folder) as temporary:
        (temporary / "cell.txt").write_text(text + "\n")
        (temporary / "cell.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        with styled():
            save(draw(tables), temporary, "cell")
    say(f"\n{text}\n\nwritten to {folder}")
    if tables.missed():
        raise RunFailed(f"goals missed: {'; '.join(tables.missed())}; the tables are in {folder}")
    return folder


def draw(tables: CellTables) -> Figure:
    """Voltage of each part, measured and ours."""
    parts = tables.fit.parts
    figure = Figure(figsize=(9, 2.6 * len(parts)))
    for axis, part in zip(figure.subplots(len(parts), 1), parts, strict=True):
        axis.plot(part.time_s / 3600.0, part.measured_V, color=GREY, label="measured")
        axis.plot(part.time_s / 3600.0, part.ours_V, color=BLUE, lw=0.9, label="fitted")
        axis.set_title(f"part {part.name}: RMSE {part.rmse_mV:.1f} mV")
        axis.set_ylabel("Voltage [V]")
        axis.set_xlabel("Hours")
        axis.legend(loc="best")
    return figure
