"""What a shard's months tell of its vehicles' past, for the feeder: the windowed features at the time of any record."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.months import known_month, known_s, month_path
from models.features import WINDOWED, History, windowed
from physics.constants import YEAR_S

_log = logging.getLogger(__name__)

Floats32 = npt.NDArray[np.float32]


class ShardPast:
    """Follows the files of a `datasets.months.MonthKeeper`.

    A shard keeps a month before it logs the first record from when it is known, so what a record is predicted with
    depends on its time alone. Records that come late get the features of before, one month back.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._month = -1
        self._vehicles = np.empty(0, dtype=np.int64)
        self._history = History(self._vehicles)
        self._born_s = np.empty(0)
        self._now = self._before = np.empty((0, len(WINDOWED)), dtype=np.float32)

    def at(self, vehicle: npt.NDArray[np.int64], time_s: npt.NDArray[np.float64]) -> Floats32:
        """The `WINDOWED` features of these vehicles at these times [s since 1970], shape (n, len(WINDOWED)). NaN of
        vehicles of which nothing is kept."""
        out = np.full((vehicle.size, len(WINDOWED)), np.nan, dtype=np.float32)
        known = known_month(time_s)
        for month in np.unique(known).tolist():
            if month > self._month:
                self._follow(month)
            if self._vehicles.size:
                rows = np.flatnonzero(known == month)
                where = np.minimum(np.searchsorted(self._vehicles, vehicle[rows]), self._vehicles.size - 1)
                there = self._vehicles[where] == vehicle[rows]
                out[rows[there]] = (self._now if month == self._month else self._before)[where[there]]
        return out

    def _follow(self, month: int) -> None:
        """Take the months up to this one."""
        first = self._month + 1
        if self._month < 0:
            kept = [of for path in self._directory.glob("*.parquet") if (of := int(path.stem)) <= month]
            first = min(kept, default=month)
        for of in range(first, month + 1):
            self._take(of)
            if of >= month - 1 and self._vehicles.size:  # of those before nobody asks
                age_years = np.maximum((known_s(of) - self._born_s) / YEAR_S, 0.0)
                self._before = self._now
                self._now = windowed(self._history.past(of), age_years).astype(np.float32)
        if self._before.shape != self._now.shape:
            self._before = self._now
        self._month = month

    def _take(self, month: int) -> None:
        path = month_path(self._directory, month)
        try:
            rows = pq.read_table(path)
        except FileNotFoundError:
            return  # the run went on without predictions
        except (OSError, pa.ArrowInvalid) as error:
            _log.warning("%s cannot be read (%s): predictions go on without this month", path, error)
            return
        columns = {name: rows.column(name).to_numpy() for name in rows.column_names}
        if self._vehicles.size == 0:
            self._vehicles = columns["vehicle"]
            self._history = History(self._vehicles)
            self._born_s = np.full(self._vehicles.size, np.nan)
        of = self._history.add(columns)
        self._born_s[of] = known_s(month) - YEAR_S * columns["age_years"]
