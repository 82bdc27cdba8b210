"""Months of a vehicle, folded from the days that it reports (`physics.DAILY`): what models read of a vehicle's past.

A month is 30 days, counted from 1970-01-01 in the vehicle's local days. The same code folds days as a shard makes them
and days of whole lives, so that a model is served what it was trained with. A month counts as known once vehicles of
all time zones have reported a day of the next (`known_s`).

A shard whose records are predicted keeps its vehicles' months in `months/shard=NNNN/<month>.parquet`, for good. The
first file is of the month before the shard began: no days, but the ages of its vehicles.

A new column needs an entry in `MONTHLY`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.log.durable import replace_file
from physics import DAILY
from physics.constants import DAY_S, YEAR_S

MONTH_DAYS: Final = 30
_KNOWN_AFTER_DAYS: Final = 1.5
"""A day of the next month, and half of one to the last time zone."""
HOW: Final = {
    "sum": "over its days",
    "mean": "over its days",
    "most": "the largest of its days",
    "least": "the smallest of its days",
    "last": "of its last day that has one; 0 if none has",
    "end": "at the end of its last day",
    "seen": "all bits of its days",
}


@dataclass(frozen=True)
class MonthlyColumn:
    """One column: that of `DAILY` with its name, folded in one of the ways of `HOW`."""

    name: str
    how: str


MONTHLY: Final = (
    *(MonthlyColumn(name, "sum") for name in ("cycles", "distance", "energy_out", "energy_charged")),
    *(MonthlyColumn(name, "sum") for name in ("energy_recuperated", "time_parked", "time_driving", "time_charging")),
    *(MonthlyColumn(name, "sum") for name in ("time_fast_charging", "time_soc_high", "time_hot")),
    *(MonthlyColumn(name, "most") for name in ("current_out_max", "current_in_max", "temperature_max")),
    MonthlyColumn("temperature_min", "least"),
    MonthlyColumn("window_charge", "last"),
    *(MonthlyColumn(name, "mean") for name in ("soc_min", "soc_mean", "soc_max", "temperature_mean")),
    MonthlyColumn("cell_voltage_spread", "mean"),
    MonthlyColumn("diagnostics", "seen"),
    *(MonthlyColumn(name, "end") for name in ("resistance_25", "soh", "charge_cycles", "distance_traveled")),
)
NAMES: Final = tuple(column.name for column in MONTHLY)
assert set(NAMES) < {column.name for column in DAILY}
SCHEMA: Final = pa.schema(
    [("vehicle", pa.int64()), ("month", pa.int32()), ("days", pa.int16()), *((name, pa.float64()) for name in NAMES)]
)
"""A row of `MonthFold.add`: index of the vehicle, days since 1970 over `MONTH_DAYS`, days that it has reported."""
KEPT: Final = SCHEMA.append(pa.field("age_years", pa.float64()))
"""A row of a shard's files: with the age of the vehicle when the month is known, below 0 before its first use."""

_SUMS = np.array([column.how in ("sum", "mean") for column in MONTHLY])
_MEANS = np.array([column.how == "mean" for column in MONTHLY])
_MOST = np.array([column.how == "most" for column in MONTHLY])
_LEAST = np.array([column.how == "least" for column in MONTHLY])
_LAST = np.array([column.how == "last" for column in MONTHLY])
_ENDS = np.array([column.how == "end" for column in MONTHLY])
_SEEN = np.array([column.how == "seen" for column in MONTHLY])
_BEFORE = np.select([_MOST, _LEAST], [-np.inf, np.inf], 0.0)

Rows = dict[str, npt.NDArray[Any]]


def nothing() -> Rows:
    """No rows of `SCHEMA`."""
    return {field.name: np.empty(0, field.type.to_pandas_dtype()) for field in SCHEMA}


class MonthFold:
    """Folds days into months. `vehicles`: their indices, shape (n,), ascending."""

    def __init__(self, vehicles: npt.NDArray[np.int64]) -> None:
        self._vehicles = np.asarray(vehicles)
        self.month = np.full(self._vehicles.size, -1, dtype=np.int32)
        """The month that is open, shape (n,); -1 before the first day."""
        self.days = np.zeros(self._vehicles.size, dtype=np.int16)
        self.values = np.tile(_BEFORE, (self._vehicles.size, 1))
        """What its days came to so far, shape (n, len(MONTHLY))."""

    def add(self, daily: Mapping[str, npt.NDArray[Any]]) -> Rows:
        """Take days, by the names of `DAILY`, those of a vehicle ascending. Returns the months that they have ended, by
        the names of `SCHEMA`: a month ends when a vehicle reports a day of a later one."""
        closed: list[tuple[Any, ...]] = []
        where = np.searchsorted(self._vehicles, daily["vehicle"])
        figures = np.column_stack([daily[name] for name in NAMES]).astype(np.float64)
        order = np.argsort(daily["day"], kind="stable")
        days, starts = np.unique(daily["day"][order], return_index=True)
        for day, rows in zip(days, np.split(order, starts[1:]), strict=True):
            of, month = where[rows], int(day) // MONTH_DAYS
            over = of[(self.month[of] != month) & (self.month[of] >= 0)]
            if over.size:
                closed.append((self._vehicles[over], self.month[over], self.days[over], self._told(over)))
            fresh = of[self.month[of] != month]
            self.month[fresh], self.days[fresh], self.values[fresh] = month, 0, _BEFORE
            self._count(of, figures[rows])
        if not closed:
            return nothing()
        vehicle, months, counts, values = (np.concatenate(parts) for parts in zip(*closed, strict=True))
        return {"vehicle": vehicle, "month": months, "days": counts} | dict(zip(NAMES, values.T, strict=True))

    def _count(self, of: npt.NDArray[np.int64], figures: npt.NDArray[np.float64]) -> None:
        """Count a day of each of these vehicles."""
        self.days[of] += 1
        values = self.values[of]
        values[:, _SUMS] += figures[:, _SUMS]
        values[:, _MOST] = np.maximum(values[:, _MOST], figures[:, _MOST])
        values[:, _LEAST] = np.minimum(values[:, _LEAST], figures[:, _LEAST])
        values[:, _LAST] = np.where(figures[:, _LAST] > 0.0, figures[:, _LAST], values[:, _LAST])
        values[:, _ENDS] = figures[:, _ENDS]
        values[:, _SEEN] = values[:, _SEEN].astype(np.int64) | figures[:, _SEEN].astype(np.int64)
        self.values[of] = values

    def _told(self, of: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        values = self.values[of]
        values[:, _MEANS] /= self.days[of][:, None]
        return values


def known_s[Number: (float, npt.NDArray[Any])](month: Number) -> Number:
    """When a month is known of all vehicles [s since 1970, UTC]; one or many."""
    return ((month + 1) * MONTH_DAYS + _KNOWN_AFTER_DAYS) * DAY_S


def known_month(time_s: npt.NDArray[np.float64] | float) -> npt.NDArray[np.int64]:
    """The last month that is known at these times [s since 1970, UTC]."""
    return np.floor((np.asarray(time_s) / DAY_S - _KNOWN_AFTER_DAYS) / MONTH_DAYS).astype(np.int64) - 1


def months_directory(run_dir: Path, shard: int) -> Path:
    """Where a shard's months are."""
    return run_dir / "months" / f"shard={shard:04d}"


def month_path(directory: Path, month: int) -> Path:
    """The file of a month."""
    return directory / f"{month:05d}.parquet"


class MonthKeeper:
    """Folds the days of a shard's vehicles into months, and keeps each in a file once it is known.

    vehicles   their indices, ascending, shape (n,)
    age_years  their ages at `start_s` [s since 1970], when the run began, shape (n,)
    """

    def __init__(
        self, directory: Path, vehicles: npt.NDArray[np.int64], age_years: npt.NDArray[np.float64], start_s: float
    ) -> None:
        self._directory, self._vehicles, self._age_years, self._start_s = directory, vehicles, age_years, start_s
        self._fold = MonthFold(vehicles)
        self._closed = nothing()

    def begin(self, now_s: float) -> None:
        """Vehicles of which no month is kept, as at the start of a run, begin to be known."""
        if any(self._directory.glob("*.parquet")):
            return
        unknown = {name: np.full(self._vehicles.size, np.nan) for name in NAMES}
        self._write(
            int(known_month(now_s)), {"vehicle": self._vehicles, "days": np.zeros(self._vehicles.size)} | unknown
        )

    def add(self, daily: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take days that have ended, as `MonthFold.add`."""
        if not daily["vehicle"].size:
            return
        closed = self._fold.add(daily)
        if closed["vehicle"].size:
            self._closed = {name: np.concatenate([self._closed[name], closed[name]]) for name in closed}

    def keep(self, now_s: float) -> None:
        """Write the months that are known by now. LogFull where there is no room: call it again."""
        if not self._closed["vehicle"].size:
            return
        for month in np.unique(self._closed["month"][self._closed["month"] <= known_month(now_s)]):
            of = self._closed["month"] == month
            self._write(int(month), {name: values[of] for name, values in self._closed.items()})
            self._closed = {name: values[~of] for name, values in self._closed.items()}

    def _write(self, month: int, rows: Rows) -> None:
        """Once made, a month does not change: a shard that goes on from before it makes the same."""
        path = month_path(self._directory, month)
        if path.exists():
            return
        of = np.searchsorted(self._vehicles, rows["vehicle"])
        age = self._age_years[of] + (known_s(month) - self._start_s) / YEAR_S
        columns = rows | {"month": np.full(of.size, month), "age_years": age}
        order = np.argsort(of)
        table = pa.table({name: pa.array(columns[name][order], KEPT.field(name).type) for name in KEPT.names}, KEPT)
        replace_file(path, lambda file: pq.write_table(table, file, compression="zstd"))

    def parts(self) -> dict[str, list[npt.NDArray[Any]]]:
        """Everything needed to go on, for a checkpoint."""
        fold: Rows = {"month": self._fold.month, "days": self._fold.days, "values": self._fold.values}
        return {f"months/fold/{name}": [values] for name, values in fold.items()} | {
            f"months/closed/{name}": [values] for name, values in self._closed.items()
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's arrays; from nothing if it is of a run that kept no months."""
        if "months/fold/month" in arrays:
            self._fold.month, self._fold.days, self._fold.values = (
                arrays[f"months/fold/{name}"] for name in ("month", "days", "values")
            )
            self._closed = {name: arrays[f"months/closed/{name}"] for name in SCHEMA.names}
