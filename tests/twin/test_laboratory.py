"""`twin cell` and `twin validate physics`: what a person gets, and the one line for what a person got wrong."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.command import Twin
from tests.support import HANG_S
from twin.errors import BadInput
from twin.show.cell_study import cycle_cell
from twin.show.physics_study import validate_physics

ROOT = Path(__file__).parents[2]
PROTOCOL = "CC 1C to 2.5V; rest 10min; CCCV 1C 4.2V C/20"
BPX = ROOT / "tests" / "data" / "lgm50.bpx.json"
FILES = {"cell.json", "cell.png", "cell.svg", "cycles.csv", "series.parquet"}


def test_results_of_a_run(tmp_path: Path) -> None:
    said: list[str] = []
    folder = cycle_cell("chen2020", PROTOCOL, cycles="12", ambient="30", out=tmp_path / "a" / "b", say=said.append)
    assert {file.name for file in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["b"]  # no temporary folder left
    cycles = pd.read_csv(folder / "cycles.csv")
    assert list(cycles["cycle"]) == list(range(1, 13))
    assert cycles["discharge_Ah"].between(4.8, 5.1).all()
    assert (np.diff(cycles["soh"]) < 0.0).all()
    series = pd.read_parquet(folder / "series.parquet")
    assert sorted(series["cycle"].unique()) == [1, 6, 12]
    assert series["voltage_V"].between(2.49, 4.21).all()
    assert series.notna().all().all()
    table = said[0].splitlines()
    assert len(table) == 9  # a heading and eight of the cycles
    assert table[1].split()[0] == "1"
    assert table[-1].split()[0] == "12"
    assert json.loads((folder / "cell.json").read_text())["protocol"] == PROTOCOL


def test_a_cell_from_a_file(tmp_path: Path) -> None:
    said: list[str] = []
    folder = cycle_cell(None, PROTOCOL, bpx=BPX, out=tmp_path / "x", say=said.append)
    assert said[0].startswith("note: aging is not in the file")
    kept = json.loads((folder / "cell.json").read_text())
    assert (kept["cell"], kept["bpx"], len(kept["assumed"])) == ("lgm50", BPX.name, 1)
    assert pd.read_csv(folder / "cycles.csv")["discharge_Ah"].between(4.8, 5.1).all()


def test_a_file_says_where_its_cell_starts(tmp_path: Path) -> None:
    values = json.loads(BPX.read_text())
    values["State"]["Initial conditions"] |= {"Initial state-of-charge": 0.5, "Initial temperature [K]": 273.15}
    values["State"]["Thermal environment"]["Ambient temperature [K]"] = 273.15
    path = tmp_path / "cold.json"
    path.write_text(json.dumps(values))
    said: list[str] = []
    folder = cycle_cell(None, "CC 1C for 5min", bpx=path, out=tmp_path / "x", say=said.append)
    series = pd.read_parquet(folder / "series.parquet")
    ends = series[["voltage_V", "temperature_C"]].iloc[[0, -1]].to_numpy()
    assert ends[:, 1] == pytest.approx([0.0, 8.5], abs=0.6), "PyBaMM's SPMe with heat of mixing; without it 7.0"
    assert ends[:, 0] == pytest.approx([3.750, 3.370], abs=0.005)
    assert "note: the file starts the cell at 0 degC in air of 0 degC; --ambient sets both" in said
    assert "note: the file starts the cell at 50.0 % of its charge; --soc sets another" in said
    folder = cycle_cell(
        None, "CC 1C for 5min", bpx=path, ambient="25", soc="1", out=tmp_path / "y", say=lambda _text: None
    )
    series = pd.read_parquet(folder / "series.parquet")
    assert series["voltage_V"].iloc[0] == pytest.approx(4.2, abs=1e-3)
    assert series["temperature_C"].iloc[0] == pytest.approx(25.0)


def test_one_short_cycle_is_enough_for_a_plot(tmp_path: Path) -> None:
    said: list[str] = []
    folder = cycle_cell("chen2020", "rest 1min; CC 9C for 1h", out=tmp_path / "x", soc="0.2", say=said.append)
    assert {file.name for file in folder.iterdir()} == FILES
    assert any("note: step 2" in line and "voltage limit" in line for line in said)


def test_leaving_the_valid_range_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    cycle_cell("chen2020", "CC C/2 for 1min", ambient="-40", out=tmp_path / "x", say=said.append)
    assert any(line.startswith("note: the model left its valid range (-20 to 60 degC") for line in said)


def test_same_run_same_files(tmp_path: Path) -> None:
    one, two = (
        cycle_cell("chen2020", PROTOCOL, cycles="3", out=tmp_path / name, say=lambda _text: None) for name in "ab"
    )
    for name in FILES - {"cell.png", "series.parquet"}:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cell": "unobtainium"}, "--cell: unknown cell 'unobtainium'; known cells: chen2020"),
        ({"protocol": "CC 1C"}, '--cycle: step 1 "CC 1C": expected'),
        ({"protocol": "CC 1C to 9V"}, "--cycle: step 1"),
        ({"cycles": "0"}, "--cycles: expected a whole number from 1 to 100,000, got '0'"),
        ({"cycles": "1e3"}, "--cycles: expected a whole number"),
        ({"ambient": "hot"}, "--ambient: expected a number from -60 to 100, got 'hot'"),
        ({"ambient": "nan"}, "--ambient"),
        ({"soc": "1.2"}, "--soc: expected a number from 0 to 1, got '1.2'"),
        ({"bpx": BPX}, "--bpx: expected either a file or --cell, got both"),
        ({"cell": None, "bpx": Path("none.json")}, "--bpx: none.json: cannot read it: No such file or directory"),
    ],
)
def test_bad_input(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    arguments = {"cell": "chen2020", "protocol": PROTOCOL} | settings
    with pytest.raises(BadInput) as caught:
        cycle_cell(**arguments, out=tmp_path / "out")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    runs: tuple[Callable[[], Path], ...] = (
        lambda: cycle_cell("chen2020", PROTOCOL, out=tmp_path),
        lambda: validate_physics(out=tmp_path),
    )
    for run in runs:
        with pytest.raises(BadInput, match="already holds something"):
            run()
    with pytest.raises(BadInput, match="already holds something"):
        cycle_cell("chen2020", PROTOCOL, out=tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("twin.show.cell_study.save", broken)
    with pytest.raises(OSError, match="disk full"):
        cycle_cell("chen2020", PROTOCOL, out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_validation_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="--only: expected one of electrical, cells, aging, pack, got 'magic'"):
        validate_physics(only="magic")

    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(BadInput, match="install it: pip install"):
        validate_physics(out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_the_command(tmp_path: Path, twin: Twin) -> None:
    short = ["cell", "--cycle", "CC 1C for 1min", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "twin", *short, "--cell", "chen2020"]
    good = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG_S)
    assert good.returncode == 0, good.stderr
    assert "discharge Ah" in good.stdout
    again = twin(*short)
    again.complaint(2)
    assert again.err.startswith("twin: --out: expected a new or empty directory")
    assert twin("cell", "--cycle", "CC 1C").code == 2
