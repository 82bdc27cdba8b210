"""What is known of each vehicle: its newest record and prediction, and its last minutes, in arrays. No MQTT, no web.

Memory is bounded. A vehicle has one row in each array, 6 kB in all, and there are at most `most` of them: records of
further vehicles are counted and not kept. A row holds the last `RECORDS` records and `PREDICTIONS` predictions, and a
new one takes the place of the oldest.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from datasets.codec import decode_columns
from datasets.schema import Stream
from physics.columns import MODES
from twin.page.quantities import NONE, QUANTITIES

RECORDS: Final = 150
PREDICTIONS: Final = 60
_REPEATS = 3  # so many records in a row behind the newest are a new run's
_RATE_S = 10.0
_ID: Final = ("run_id", "vehicle_id", "seq", "ts")
_KEPT: Final = ("soc", "battery_voltage", "battery_current", "battery_temperature", "power_consumption")
_SHOWN: dict[Stream, tuple[str, ...]] = {
    "telemetry": (*_KEPT, "soh", "driving_speed", "mode", "flags", "diagnostics"),
    "predictions": ("rul", "rul_low", "rul_high", "failure_probability"),
}
_CODES = {mode: number for number, mode in enumerate(MODES)}

Floats = npt.NDArray[np.float64]


class _Stream:
    """Newest values and rings of one stream; a row a vehicle."""

    def __init__(self, names: tuple[str, ...], kept: tuple[str, ...], length: int) -> None:
        self.names, self.kept, self.length = names, kept, length
        self.newest = np.empty((len(names), 0), np.float32)
        self.seq = np.empty(0, np.int64)
        self.run = np.empty(0, np.int64)
        self.behind = np.empty(0, np.int64)
        self.count = np.empty(0, np.int64)
        self.times = np.empty((0, length))
        self.ring = np.empty((0, length, len(kept)), np.float32)

    def grow(self, rows: int) -> None:
        """To this number of rows."""
        new = rows - len(self.seq)
        self.newest = np.concatenate([self.newest, np.full((len(self.names), new), np.nan, np.float32)], axis=1)
        self.seq = np.append(self.seq, np.full(new, -1))
        self.run, self.behind, self.count = (
            np.append(a, np.zeros(new, np.int64)) for a in (self.run, self.behind, self.count)
        )
        self.times = np.concatenate([self.times, np.zeros((new, self.length))])
        self.ring = np.concatenate([self.ring, np.zeros((new, *self.ring.shape[1:]), np.float32)])

    def take(
        self,
        row: npt.NDArray[np.int64],
        run: npt.NDArray[np.int64],
        seq: npt.NDArray[np.int64],
        at: Floats,
        values: Floats,
    ) -> None:
        """A record each of different vehicles. One that is late or comes again changes nothing."""
        same = self.run[row] == run
        behind = same & (seq <= self.seq[row])
        self.behind[row] = np.where(behind, self.behind[row] + 1, 0)
        again = self.behind[row] >= _REPEATS
        begins = ~same | again
        good = begins | ~behind
        row, run, seq, at, values, begins = row[good], run[good], seq[good], at[good], values[:, good], begins[good]
        self.behind[row] = 0
        self.count[row[begins]] = 0
        self.newest[:, row[begins]] = np.nan
        self.run[row], self.seq[row] = run, seq
        self.newest[:, row] = values
        place = self.count[row] % self.length
        self.times[row, place] = at
        self.ring[row, place] = values[[self.names.index(name) for name in self.kept]].T
        self.count[row] += 1

    def past(self, row: int) -> tuple[Floats, npt.NDArray[np.float32]]:
        """Times and values of what is kept of a vehicle, the oldest first."""
        count = int(self.count[row])
        order = np.arange(max(0, count - self.length), count) % self.length
        return self.times[row, order], self.ring[row, order]


class FleetView:
    """The fleet as its messages show it. Any thread may call."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}
        self._streams: dict[Stream, _Stream] = {
            "telemetry": _Stream(_SHOWN["telemetry"], _KEPT, RECORDS),
            "predictions": _Stream(_SHOWN["predictions"], _SHOWN["predictions"], PREDICTIONS),
        }
        self._heard = np.empty(0)
        self._capacity = 0
        self._counts: dict[Stream, int] = {"telemetry": 0, "predictions": 0}
        self._rates: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)])
        self._malformed, self._says = 0, ""
        self._unkept = 0
        self._run_id, self._simulated = "", 0.0

    def take(self, stream: Stream, messages: Sequence[bytes]) -> None:
        """Messages as they came. What is malformed is counted."""
        names = _SHOWN[stream]
        columns, wrong = decode_columns(messages, stream, (*_ID, *names))
        now = self._clock()
        with self._lock:
            self._malformed += len(wrong)
            if wrong:
                self._says = str(wrong[-1])
            if not len(columns["seq"]):
                return
            self._counts[stream] += len(columns["seq"])
            row = np.array([self._row(vehicle) for vehicle in columns["vehicle_id"]], np.int64)
            at, seq = columns["ts"].astype(np.int64) / 1e6, columns["seq"]
            self._run_id, self._simulated = columns["run_id"][-1], float(at[-1])
            run = np.array([hash(run) for run in columns["run_id"]], np.int64)
            if "mode" in columns:
                columns["mode"] = [_CODES[mode] for mode in columns["mode"]]
            values = np.array([columns[name] for name in names], np.float64)
            left = np.flatnonzero(row >= 0)
            self._unkept += len(row) - len(left)
            if stream == "telemetry":
                self._heard[row[left]] = now
            while len(left):  # the first of each vehicle, then the second, ..
                _, first = np.unique(row[left], return_index=True)
                chosen = left[first]
                self._streams[stream].take(row[chosen], run[chosen], seq[chosen], at[chosen], values[:, chosen])
                left = np.delete(left, first)
            if now - self._rates[-1][0] >= 1.0:
                self._note_rate(now)

    def _row(self, vehicle: str) -> int:
        """The vehicle's row, a new one if need be; -1 where there is no room."""
        found = self._rows.get(vehicle)
        if found is None:
            found = len(self._rows)
            if found >= self._most:
                return -1
            self._rows[vehicle] = found
            if found >= self._capacity:
                self._capacity = min(self._most, max(256, 2 * self._capacity))
                self._heard = np.append(self._heard, np.full(self._capacity - len(self._heard), self._clock()))
                for stream in self._streams.values():
                    stream.grow(self._capacity)
            self._heard[found] = self._clock()
        return found

    def _note_rate(self, now: float) -> None:
        self._rates.append((now, self._counts["telemetry"], self._counts["predictions"]))
        while len(self._rates) > 2 and now - self._rates[1][0] >= _RATE_S:
            self._rates.popleft()

    # ---- what is shown

    def vehicles(self, begin: int = 0) -> list[str]:
        """Ids by row, from this row on."""
        with self._lock:
            return list(self._rows)[begin:] if begin < len(self._rows) else []

    def snapshot(self) -> bytes:
        """The newest value of each of `QUANTITIES` for each vehicle: 16-bit integers in steps, quantity by quantity."""
        with self._lock:
            vehicles = len(self._rows)
            found = np.full((len(QUANTITIES), vehicles), NONE, "<i2")
            for place, quantity in enumerate(QUANTITIES):
                values = self._values(quantity.name)[:vehicles] * (quantity.scale / quantity.step)
                there = ~np.isnan(values)
                found[place, there] = np.clip(np.rint(values[there]), -32767, 32767)
        return found.tobytes()

    def _values(self, name: str) -> Floats:
        if name == "age":
            return self._clock() - self._heard
        for stream in self._streams.values():
            if name in stream.names:
                values: Floats = stream.newest[stream.names.index(name)].astype(np.float64)
                return values
        raise KeyError(name)

    def past(self, vehicle: str) -> dict[str, Any] | None:
        """A vehicle's last minutes: times [ms since 1970], values by name in units of the records. None: unknown."""
        with self._lock:
            row = self._rows.get(vehicle)
            if row is None:
                return None
            found: dict[str, Any] = {"vehicle": vehicle}
            for name, stream in self._streams.items():
                times, values = stream.past(row)
                columns = {kept: np.round(values[:, i].astype(float), 4).tolist() for i, kept in enumerate(stream.kept)}
                found[name] = {"t": (times * 1e3).tolist(), **columns}
            return found

    def facts(self) -> dict[str, Any]:
        """The flow as a whole: records and predictions a second, how long ago the last came [s], what was not kept."""
        now = self._clock()
        with self._lock:
            began, *before = self._rates[0]
            seconds = max(1.0, now - began)
            heard = self._heard[: len(self._rows)]
            return {
                "vehicles": len(self._rows),
                "telemetry": self._counts["telemetry"],
                "telemetry_rate": round((self._counts["telemetry"] - before[0]) / seconds, 1),
                "predictions_rate": round((self._counts["predictions"] - before[1]) / seconds, 1),
                "last_s": round(now - float(heard.max()), 1) if len(heard) else None,
                "run": self._run_id,
                "simulated": self._simulated * 1e3,
                "malformed": self._malformed,
                "malformed_says": self._says,
                "unkept": self._unkept,
                "most": self._most,
            }
