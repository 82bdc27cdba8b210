"""Months of a vehicle, folded from the days that it reports (`physics.DAILY`): what models read of a vehicle's past.

A month is 30 days, counted from 1970-01-01 in the vehicle's local days. The same code folds days as a shard makes them
and days of whole lives, so that a model is served what it was trained with.

A new column needs an entry in `MONTHLY`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from physics import DAILY

MONTH_DAYS: Final = 30
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

_SUMS = np.array([column.how in ("sum", "mean") for column in MONTHLY])
_MEANS = np.array([column.how == "mean" for column in MONTHLY])
_MOST = np.array([column.how == "most" for column in MONTHLY])
_LEAST = np.array([column.how == "least" for column in MONTHLY])
_LAST = np.array([column.how == "last" for column in MONTHLY])
_ENDS = np.array([column.how == "end" for column in MONTHLY])
_SEEN = np.array([column.how == "seen" for column in MONTHLY])
_BEFORE = np.select([_MOST, _LEAST], [-np.inf, np.inf], 0.0)

Rows = dict[str, npt.NDArray[Any]]


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
            return {field.name: np.empty(0, field.type.to_pandas_dtype()) for field in SCHEMA}
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
