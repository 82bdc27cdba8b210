"""A real cell: a Panasonic NCR18650PF (NCA-graphite, 2.9 Ah), fitted, and its capacity over five months.

Data: P. Kollmeyer, Panasonic 18650PF Li-ion Battery Data, Mendeley Data 2018 (doi 10.17632/wykht8y7tg.1), files
`panasonic18650pf_timeseries_1s.parquet` and `panasonic18650pf_capacity_checks.csv`. Positive current charges there.

The fit begins with `kim2011`, the NCA cell that we have. It sees three parts: the discharge at C/20 of 8 May (not its
charge, which takes 2.62 Ah to the voltage from which 3.00 Ah had come), the first 1C discharge of 9 March and the
drive cycle of 18 March, all at 25 degC. Then the fitted cell is taken through everything that was recorded from March
to July, with the aging constants of `chen2020`, which were fitted to other cells. At each check a copy of it is
discharged as the real cell was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from datasets.cycler_file import Part, read_cycler
from datasets.table_file import DataError, read_table
from physics import load_cell
from physics.modal import build_model
from physics.record import age_record
from training.cell_fit import CellFit, begin_with, fit_cell
from training.cell_fit import render as render_fit

SERIES: Final = "panasonic18650pf_timeseries_1s.parquet"
CHECKS: Final = "panasonic18650pf_capacity_checks.csv"
BEGINS_WITH: Final = "kim2011"
GOAL_POINTS: Final = 2.0
"""Of capacity, at the last check."""
_C20, _ONE_C, _DRIVE = "64", "1", "14"
_LIMITS_V: Final = (2.5, 4.2)
_CHECK: Final = "1C discharge 4.2 -> 2.5 V"
_CHECK_A: Final = 2.9
_CHECK_C: Final = 28.7  # mean of the cell in its checks
_REST_A: Final = 0.01
_LONG_S: Final = 1800.0  # a rest long enough that its voltage is an open-circuit voltage
_LONGEST_S: Final = 3600.0  # a step
_LOADED_S: Final = 120.0  # in a gap longer than this no current flowed


@dataclass(frozen=True)
class CheckRow:
    """A capacity check at 1C and 25 degC."""

    date: str
    measured_Ah: float
    ours_Ah: float
    soh: float
    """Ours: capacity at rest over the fresh cell's."""
    residual_points: float
    """Change since the first check, ours less measured, in percent of the first."""
    unstressed_Ah: float
    """Ours without the loss of active material by stress."""
    unstressed_residual_points: float


@dataclass(frozen=True)
class CellTables:
    """What `twin validate cell` shows."""

    fit: CellFit
    checks: tuple[CheckRow, ...]
    throughput_Ah: float
    film_grown_nm: float
    dead_mAh: float
    active_lost_percent: tuple[float, float]
    """Negative, positive."""

    def missed(self) -> list[str]:
        """Goals that are missed, one phrase each."""
        last = self.checks[-1]
        if abs(last.residual_points) <= GOAL_POINTS:
            return []
        return [f"capacity on {last.date} off by {last.residual_points:+.1f} points, the goal is {GOAL_POINTS:g}"]


def fitted_parts(folder: Path) -> tuple[Part, ...]:
    """The three parts that the cell is fitted to."""
    parts = {part.name: part for part in read_cycler(folder / SERIES, "charge", only=(_C20, _ONE_C, _DRIVE))}
    slow = parts[_C20]
    drawn = np.cumsum(slow.current_A * slow.dt_s)
    end = int(np.argmax(drawn)) + 1
    cut = {name: getattr(slow, name)[:end] for name in ("dt_s", "current_A", "voltage_V", "temperature_C")}
    return replace(slow, **cut), parts[_ONE_C], parts[_DRIVE]


def cell_tables(folder: Path, say: Callable[[str], None] = lambda _: None) -> CellTables:
    """Fit and life. DataError, in one line, where a file is not there or not what it should be."""
    checks = read_table(folder / CHECKS, ("start", "session", "method", "capacity_Ah"))
    checks = checks[checks["method"] == _CHECK].sort_values("start")
    if len(checks) < 2:
        raise DataError(f"{folder / CHECKS}: expected two or more rows of method {_CHECK!r}, got {len(checks)}")
    parts = fitted_parts(folder)
    fit = fit_cell(begin_with(load_cell(BEGINS_WITH), parts, *_LIMITS_V), parts, name="ncr18650pf", say=say)
    say("five months")
    return _life(fit, folder, checks)


def _life(fit: CellFit, folder: Path, checks: pd.DataFrame) -> CellTables:
    table = read_table(folder / SERIES, ("session", "t_s", "voltage_V", "current_A", "battery_temp_C"))
    table = table[table["voltage_V"] > 1.0]  # two rows of a tester that was off
    table = table.sort_values("t_s", kind="stable").drop_duplicates("t_s")
    time, session = table["t_s"].to_numpy(), table["session"].to_numpy()
    gap = np.diff(time)
    current = -table["current_A"].to_numpy(dtype=np.float64)[1:]
    current[gap > _LOADED_S] = 0.0
    first = [int(np.flatnonzero(session[1:] == number)[0]) for number in checks["session"]]
    # A long gap is several steps, so that coefficients and side reactions are of now.
    pieces = np.ceil(gap / _LONGEST_S).astype(np.int64)
    of = np.repeat(np.arange(gap.size), pieces)
    last = np.cumsum(pieces) - 1
    rests = np.flatnonzero((gap >= _LONG_S) & (np.abs(current) < _REST_A))
    voltage = table["voltage_V"].to_numpy(dtype=np.float64)[1:]
    unloaded = np.abs(-table["current_A"].to_numpy()[1:]) < _REST_A
    record = (
        (gap / pieces)[of],
        current[of],
        table["battery_temp_C"].to_numpy(dtype=np.float64)[1:][of],
        voltage[of],
        last[rests[unloaded[rests]]],
        last[np.array(first)],
    )
    aged, unstressed = (
        age_record(build_model(cell), *record, _CHECK_A, _CHECK_C)
        for cell in (fit.cell, replace(fit.cell, lam_negative=None, lam_positive=None))
    )
    measured = checks["capacity_Ah"].to_numpy(dtype=np.float64)
    ours, calm = aged.discharge_Ah, unstressed.discharge_Ah
    residual, calm_residual = (100.0 * (x / x[0] - measured / measured[0]) for x in (ours, calm))
    rows = tuple(
        CheckRow(str(start)[:10], *map(float, numbers))
        for start, *numbers in zip(
            checks["start"], measured, ours, aged.soh, residual, calm, calm_residual, strict=True
        )
    )
    return CellTables(
        fit=fit,
        checks=rows,
        throughput_Ah=float(np.abs(current * gap).sum()) / 3600.0,
        film_grown_nm=1e9 * float(aged.film_m[-1] - aged.film_m[0]),
        dead_mAh=1e3 * float(aged.dead_Ah[-1] - aged.dead_Ah[0]),
        active_lost_percent=(100.0 * float(1.0 - aged.active_n[-1]), 100.0 * float(1.0 - aged.active_p[-1])),
    )


def render(tables: CellTables) -> str:
    """The tables as text."""
    lost_n, lost_p = tables.active_lost_percent
    lines = [
        f"A real Panasonic NCR18650PF, fitted; the fit begins with {BEGINS_WITH}",
        "",
        render_fit(tables.fit),
        "",
        "Its capacity at 1C and 25 degC over five months, and ours on the same record",
        f"{'date':>10} {'measured Ah':>11} {'ours Ah':>8} {'SoH':>6} {'residual, points':>16}"
        f" {'without stress':>15} {'residual':>9}",
    ]
    lines += [
        f"{row.date:>10} {row.measured_Ah:11.3f} {row.ours_Ah:8.3f} {row.soh:6.3f} {row.residual_points:+16.2f}"
        f" {row.unstressed_Ah:15.3f} {row.unstressed_residual_points:+9.2f}"
        for row in tables.checks
    ]
    lines += [
        f"{tables.throughput_Ah:.0f} Ah passed; ours grew {tables.film_grown_nm:.1f} nm of film, lost"
        f" {tables.dead_mAh:.0f} mAh as dead lithium, {lost_n:.1f} % and {lost_p:.1f} % of active material (-, +)",
    ]
    return "\n".join(lines)
