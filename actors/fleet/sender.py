"""Which records of a shard are sent, and when: between what vehicles report and the log, which is what has arrived.

The result depends on the vehicle and on what it reported, not on sharding or on the length of a block. Of each sample
time, what is sent at once comes first, in the order of vehicles; then what arrives late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from datasets.transmission import CHANGES, Transmission
from physics.rng import normals, uniforms

_DROP, _LATE, _DELAY, _REPEAT, _CLOCK = 60, 61, 62, 63, 64
_COUNTS = ("unchanged", "asleep", "dropped", "repeated")
_Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sent:
    """Counts since the run began. `taken`: one a vehicle and sample time, which the shard knows. `held`: late ones that
    are still on their way, kept in the checkpoint."""

    taken: int = 0
    unchanged: int = 0
    asleep: int = 0
    dropped: int = 0
    repeated: int = 0
    held: int = 0

    def __add__(self, other: Sent) -> Sent:
        return Sent(**{name: count + getattr(other, name) for name, count in vars(self).items()})

    @property
    def never(self) -> int:
        """Records that are never sent, or never arrive."""
        return self.unchanged + self.asleep + self.dropped


NOTHING_KEPT: Final = Sent()


class Sender:
    """The transmission of one shard's vehicles. `vehicle`: their indices in the fleet, shape (n,)."""

    def __init__(self, how: Transmission, seed: int, vehicle: np.ndarray, period_s: float) -> None:
        self._how, self._seed, self._vehicle, self._period_s = how, seed, vehicle, period_s
        n = vehicle.size
        self._last = {name: np.full(n, np.inf) for name in CHANGES}
        self._last_seq, self._parked = np.full(n, -(1 << 40), dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._counts = np.zeros(len(_COUNTS), dtype=np.int64)
        self._held: _Columns = {}
        clock_ms = np.round(normals(seed, _CLOCK, vehicle) * how.clock_error_s * 1000.0)
        self._clock_us = clock_ms.astype(np.int64) * 1000

    @property
    def sent(self) -> Sent:
        """The counts."""
        held = len(self._held["seq"]) if self._held else 0
        return Sent(**dict(zip(_COUNTS, self._counts.tolist(), strict=True)), held=held)

    def _drawn(self, stream: int, share: float, seq: int) -> np.ndarray:
        """Whether each vehicle's record falls into this share, shape (n,)."""
        if share <= 0.0:
            return np.zeros(self._vehicle.size, dtype=np.bool_)
        return uniforms(self._seed, stream, self._vehicle, seq) < share

    def send(self, samples: Mapping[str, np.ndarray], first_seq: int) -> _Columns:
        """What arrives in these sample times. `samples`: columns of shape (samples, n), the first with `first_seq`.

        Returns the columns of `samples`, `seq`, `lane` (position of the vehicle) and `clock_us` (its clock's error),
        each of shape (records,).
        """
        arrived = [
            part
            for row in range(len(samples["soc"]))
            for part in self._of({name: values[row] for name, values in samples.items()}, first_seq + row)
        ]
        names = [*samples, "seq", "lane"]
        empty = {name: samples[name].dtype for name in samples} | {"seq": np.int64, "lane": np.int64}
        out = {name: np.concatenate([np.empty(0, empty[name]), *(part[name] for part in arrived)]) for name in names}
        return out | {"clock_us": self._clock_us[out["lane"]]}

    def _of(self, now: _Columns, seq: int) -> list[_Columns]:
        """What arrives at one sample time."""
        due = self._due(now, seq)
        dropped = due & self._drawn(_DROP, self._how.drop, seq)
        gone = due & ~dropped
        late = gone & self._drawn(_LATE, self._how.late, seq)
        twice = gone & self._drawn(_REPEAT, self._how.repeat, seq)
        self._counts[2:] += dropped.sum(), twice.sum()
        parts = [_taken(now, np.flatnonzero(gone & ~late), seq)]
        if self._held:
            here = self._held["arrives"] <= seq
            parts.append({name: values[here] for name, values in self._held.items() if name != "arrives"})
            self._held = {name: values[~here] for name, values in self._held.items()}
        arrives = np.full(self._vehicle.size, seq)
        if late.any():
            steps = max(1, int(self._how.late_by_s / self._period_s))
            delay = 1 + (uniforms(self._seed, _DELAY, self._vehicle, seq) * steps).astype(np.int64)
            arrives += np.where(late, delay, 0)
        # A copy comes one period behind its record.
        for lanes, behind in ((np.flatnonzero(late), 0), (np.flatnonzero(twice), 1)):
            if lanes.size:
                self._hold(_taken(now, lanes, seq) | {"arrives": arrives[lanes] + behind})
        return parts

    def _due(self, now: _Columns, seq: int) -> np.ndarray:
        """Which vehicles have something to send, shape (n,) bool."""
        how = self._how
        self._parked = np.where(now["mode"] == 0, self._parked + 1, 0)
        due = np.ones(self._vehicle.size, dtype=np.bool_)
        if how.sleep_after_s is not None:
            asleep = self._parked * self._period_s > how.sleep_after_s
            self._counts[1] += asleep.sum()
            due &= ~asleep
        if how.on_change:
            # Readings are multiples of their resolution; a hair less than the step counts as the step.
            moved = (seq - self._last_seq) * self._period_s >= how.every_s
            for name, step in CHANGES.items():
                moved |= np.abs(now[name] - self._last[name]) >= 0.999 * step
            self._counts[0] += (due & ~moved).sum()
            due &= moved
            for name in CHANGES:
                self._last[name] = np.where(due, now[name], self._last[name])
            self._last_seq = np.where(due, seq, self._last_seq)
        return due

    def _hold(self, rows: _Columns) -> None:
        held = self._held
        self._held = {name: np.concatenate([held[name], rows[name]]) for name in rows} if held else rows

    def parts(self) -> dict[str, list[np.ndarray]]:
        """Everything needed to go on, for a checkpoint."""
        state = {"last_seq": self._last_seq, "parked": self._parked, "counts": self._counts}
        state |= {f"last/{name}": values for name, values in self._last.items()}
        state |= {f"held/{name}": values for name, values in self._held.items()}
        return {f"sender/{name}": [values] for name, values in state.items()}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's arrays."""
        state = {name.removeprefix("sender/"): a for name, a in arrays.items() if name.startswith("sender/")}
        self._last_seq, self._parked, self._counts = (state[name] for name in ("last_seq", "parked", "counts"))
        self._last = {name: state[f"last/{name}"] for name in CHANGES}
        self._held = {name.removeprefix("held/"): a for name, a in state.items() if name.startswith("held/")}


def _taken(now: _Columns, lanes: np.ndarray, seq: int) -> _Columns:
    """The records of some vehicles at one sample time."""
    return {name: values[lanes] for name, values in now.items()} | {"seq": np.full(lanes.size, seq), "lane": lanes}
