"""A recorded demand on a cell, such as a drive cycle, from a CSV file.

    time_s,current_A        or  time_s,power_W   or  time_s,c_rate
    0,0
    1,2.5

**Positive discharges.** A row's value holds until the time of the next row; the last row only says when the drive ends.
Other columns are ignored. Times may begin anywhere.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from physics.parameters import FloatArray

TIME: Final = "time_s"
DEMANDS: Final = ("current_A", "power_W", "c_rate")
_SHORTEST_S: Final = 1e-3


@dataclass(frozen=True, eq=False)
class Drive:
    """What was asked of the cell."""

    path: str
    column: str
    """One of DEMANDS."""
    time_s: FloatArray
    """From 0, shape (n + 1,)."""
    value: FloatArray
    """From time k to time k + 1, in the unit of `column`; + discharges; shape (n,)."""

    def largest(self, capacity_Ah: float) -> tuple[float, float]:
        """Largest current [A] and power [W] that it asks for; one of them is 0."""
        top = float(np.abs(self.value).max())
        if self.column == "power_W":
            return 0.0, top
        return (top * capacity_Ah if self.column == "c_rate" else top), 0.0


def read_drive(path: str) -> Drive:
    """Read a file. Whatever is wrong with it raises a one-line ValueError."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(word.strip() for word in row)]
    except OSError as error:
        raise ValueError(f"{path}: cannot read it: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path}: expected a CSV file with a line of column names, got something else") from None
    names = [word.strip() for word in rows[0]] if rows else []
    demands = [name for name in DEMANDS if name in names]
    if names.count(TIME) != 1 or len(demands) != 1 or names.count(demands[0]) != 1:
        raise ValueError(
            f"{path}: expected the columns {TIME} and one of {', '.join(DEMANDS)} (positive discharges),"
            f" got {', '.join(names)[:80] or 'nothing'}"
        )
    columns = names.index(TIME), names.index(demands[0])
    values = np.array([_numbers(path, number, row, columns) for number, row in enumerate(rows[1:], 2)])
    if len(values) < 2:
        raise ValueError(f"{path}: expected at least two rows of numbers, got {len(values)}")
    time = values[:, 0]
    if (short := np.flatnonzero(~(np.diff(time) >= _SHORTEST_S))).size:
        k = int(short[0])
        raise ValueError(
            f"{path}: expected {TIME} to rise by at least {_SHORTEST_S:g} s from row to row,"
            f" got {time[k]:g} and then {time[k + 1]:g}"
        )
    return Drive(path, demands[0], time - time[0], values[:-1, 1].copy())


def _numbers(path: str, number: int, row: list[str], columns: tuple[int, int]) -> list[float]:
    try:
        values = [float(row[k]) for k in columns]
    except (ValueError, IndexError):
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{path}: expected numbers in row {number} (names are row 1), got {','.join(row)[:60]!r}")
    return values
