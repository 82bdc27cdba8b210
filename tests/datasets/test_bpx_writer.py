"""What is written as BPX is read as the same cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.bpx_file import load_bpx
from datasets.bpx_writer import write_bpx
from physics import cell_names, load_cell, simulate_cell
from physics.modal import cell_model

LGM50 = Path(__file__).parents[1] / "data" / "lgm50.bpx.json"


@pytest.mark.parametrize("name", [*cell_names(), "file", "varying"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    cell = load_bpx(LGM50).parameters if name in ("file", "varying") else load_cell(name)
    if name == "varying":
        cell = replace(cell, positive=replace(cell.positive, relative_diffusivity=lambda x: 2.0 - x))
    write_bpx(cell, path := tmp_path / "cell.bpx.json", title="a title", description="a description")
    assert [file.name for file in tmp_path.iterdir()] == ["cell.bpx.json"]
    again = load_bpx(path)
    assert len(again.notes) == 1  # aging is not in the file
    one, other = cell_model(cell), cell_model(again.parameters)
    assert (other.x_full, other.x_empty) == pytest.approx((one.x_full, one.x_empty), abs=1e-6)
    nominal = cell.nominal_capacity_Ah
    current = np.concatenate([np.full(400, nominal), np.zeros(200), np.full(400, -0.5 * nominal)])
    ours, theirs = (
        simulate_cell(c, current, initial_soc=0.7, ambient_C=15.0, sei=False, plating=False, lam=False)
        for c in (cell, again.parameters)
    )
    assert theirs.voltage_V == pytest.approx(ours.voltage_V, abs=1e-4)
    assert theirs.temperature_C == pytest.approx(ours.temperature_C, abs=1e-3)
    assert np.ptp(ours.voltage_V) > 0.05
