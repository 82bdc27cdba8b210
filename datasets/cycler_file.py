"""A cycler's record from CSV or Parquet, brought to our units and sign: positive current discharges.

    time_s,current_A,voltage_V,temperature_C,session      (the last two may be missing)

Names may be written in many ways: `Time [h]`, `Current(mA)`, `Voltage`, `Ecell/V`, `temp_C`. A unit in a name counts;
without one, s, A, V and degC are meant. A column `session`, `part` or `cycle` divides the record into parts, each of
which is fitted from a start of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from datasets.table_file import DataError, read_table
from physics.constants import COLDEST_C, HOTTEST_C, KELVIN
from physics.parameters import FloatArray

Sign = Literal["discharge", "charge"]
"""What a positive current of the file does to the cell."""

_NAMES: Final = {
    "time": ("t", "time", "testtime", "elapsedtime", "totaltime"),
    "current": ("i", "current", "cellcurrent"),
    "voltage": ("u", "v", "voltage", "ecell", "cellvoltage", "terminalvoltage"),
    "temperature": ("temp", "temperature", "celltemp", "celltemperature", "batterytemp", "batterytemperature"),
    "part": ("part", "session", "cycle", "cyclenumber"),
}
_UNITS: Final = {
    "time": {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "hours": 3600.0},
    "current": {"": 1.0, "a": 1.0, "amps": 1.0, "ma": 1e-3},
    "voltage": {"": 1.0, "v": 1.0, "volts": 1.0, "mv": 1e-3},
    "temperature": {"": 1.0, "c": 1.0, "degc": 1.0, "°c": 1.0, "oc": 1.0, "k": 1.0},
    "part": {"": 1.0},
}
_SHORTEST: Final = 20  # rows of a part
_STEP_A: Final = 0.05  # share of the largest current by which a current must jump to tell its sign
_VOLTAGES: Final = (0.5, 6.0)


@dataclass(frozen=True)
class Part:
    """A stretch of a record; arrays of shape (n,). Value k belongs to the end of a step of `dt_s[k]`."""

    name: str
    dt_s: FloatArray
    current_A: FloatArray
    """Positive discharges."""
    voltage_V: FloatArray
    temperature_C: FloatArray
    first_V: float
    """Before the first step."""
    first_A: float

    @property
    def moved_Ah(self) -> float:
        """Between the emptiest and the fullest moment."""
        drawn = np.concatenate([[0.0], np.cumsum(self.current_A * self.dt_s)]) / 3600.0
        return float(np.ptp(drawn))


def read_cycler(
    path: Path, sign: Sign = "discharge", ambient_C: float = 25.0, only: Sequence[str] = ()
) -> tuple[Part, ...]:
    """The parts of a record, in the file's order. DataError, in one line, for anything that is wrong with it.

    ambient_C   temperature where the file has none [degC]
    only        names of the parts to read; empty: all
    """
    table = read_table(path)
    found = {what: _column(path, table, what) for what in _NAMES}
    names = pd.Series("all", index=table.index)
    if (part := found["part"]) is not None:
        names = table[part[0]].map(_name)
    if missing := [name for name in only if name not in set(names)]:
        raise DataError(
            f"{path}: expected the parts {', '.join(missing)}; there are {', '.join(dict.fromkeys(names))}"[:300]
        )
    if only:
        table, names = table[names.isin(only)], names[names.isin(only)]
    values: dict[str, FloatArray] = {}
    for what in ("time", "current", "voltage", "temperature"):
        column = found[what]
        values[what] = np.full(len(table), ambient_C) if column is None else _numbers(path, table, what, *column)
    values["current"] *= 1.0 if sign == "discharge" else -1.0
    _check_range(path, "voltages", "V", values["voltage"], *_VOLTAGES)
    _check_range(path, "temperatures", "degC", values["temperature"], COLDEST_C, HOTTEST_C)
    parts = tuple(
        _part(path, str(name), np.asarray(rows), values)
        for name, rows in names.groupby(names, sort=False).indices.items()
    )
    _check_sign(path, parts, sign)
    return parts


def _name(value: object) -> str:
    """12.0 is part 12."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _column(path: Path, table: pd.DataFrame, what: str) -> tuple[str, str] | None:
    """(name, unit) of the column that holds `what`; None where it may be missing and is."""
    fits = []
    for column in map(str, table.columns):
        text = column.lower().strip()
        unit = re.search(r"(?:[\[(/_ ]+)([a-z°]+)[\])]*$", text)
        readings = [(text, "")] + ([(text[: unit.start()], unit[1])] if unit else [])
        fits += [
            (column, found)
            for stem, found in readings
            if re.sub(r"[^a-z]", "", stem) in _NAMES[what] and found in _UNITS[what]
        ]
    if len(fits) == 1:
        return fits[0]
    if not fits and what in ("temperature", "part"):
        return None
    listed = ", ".join(map(str, table.columns))[:150]
    if fits:
        raise DataError(f"{path}: expected one column of {what}, got {', '.join(name for name, _ in fits)}")
    raise DataError(f"{path}: expected a column of {what}, such as {_NAMES[what][1]}; there are {listed}")


def _numbers(path: Path, table: pd.DataFrame, what: str, column: str, unit: str) -> FloatArray:
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    if (bad := np.flatnonzero(~np.isfinite(numbers))).size:
        row = int(bad[0])
        raise DataError(f"{path}: expected numbers in {column}, got {table[column].iloc[row]!r} in row {row + 2}")
    return numbers - KELVIN if unit == "k" else numbers * _UNITS[what][unit]


def _check_range(path: Path, what: str, unit: str, values: FloatArray, low: float, high: float) -> None:
    if values.size and not (values.min() >= low and values.max() <= high):
        raise DataError(
            f"{path}: expected {what} from {low:g} to {high:g} {unit}, got {values.min():g} to {values.max():g};"
            " name the unit in the column, such as voltage_mV"
        )


def _part(path: Path, name: str, rows: npt.NDArray[np.intp], values: dict[str, FloatArray]) -> Part:
    time, current, voltage, temperature = (values[what][rows] for what in ("time", "current", "voltage", "temperature"))
    if time.size < _SHORTEST:
        raise DataError(f"{path}: expected at least {_SHORTEST} rows in part {name}, got {time.size}")
    dt = np.diff(time)
    if (bad := np.flatnonzero(~(dt > 0.0))).size:
        row = int(bad[0])
        raise DataError(
            f"{path}: expected rising times, got {time[row]:.10g} and then {time[row + 1]:.10g} in part {name}"
        )
    return Part(name, dt, current[1:], voltage[1:], temperature[1:], float(voltage[0]), float(current[0]))


def _check_sign(path: Path, parts: Sequence[Part], sign: Sign) -> None:
    """Where the current jumps up, a discharging cell's voltage falls at once. DataError where it rises."""
    work = 0.0
    for part in parts:
        jump = np.diff(part.current_A, prepend=part.first_A)
        sudden = np.abs(jump) > _STEP_A * np.abs(part.current_A).max()
        work += float((jump * np.diff(part.voltage_V, prepend=part.first_V))[sudden].sum())
    if work > 0.0:
        other = "charge" if sign == "discharge" else "discharge"
        raise DataError(
            f"{path}: the voltage rises where the current jumps up, so positive current does not {sign}:"
            f" use --current-sign {other}"
        )
