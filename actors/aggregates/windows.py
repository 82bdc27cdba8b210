"""Fleet aggregates per simulated minute: records in, windows out; no Kafka, no database, no clock of its own.

A window is the fold of all records of one run, one minute and one partition, in the order of their offsets. It holds
the offset up to which it has counted (`last_offset`) and the identities it has counted (`seen`). So it can be written
at any moment, read back later and continued. Closing is never final, and reading the same records again changes
nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

WINDOW_VERSION = 1  # of the messages in ev-fleet-minute
_MINUTE = timedelta(minutes=1)

Key = tuple[str, datetime, int]
Taken = Literal["counted", "duplicate", "again"]


@dataclass
class Window:
    """Sums that add up over partitions. Units as in `datasets.schema`; `power_sum` is in kW, one term per record."""

    run_id: str
    minute: datetime
    partition: int
    records: int = 0
    soc_sum: float = 0.0
    soc_min: float = math.inf
    soc_max: float = -math.inf
    soh_sum: float = 0.0
    soh_min: float = math.inf
    battery_temperature_sum: float = 0.0
    battery_temperature_min: float = math.inf
    battery_temperature_max: float = -math.inf
    power_sum: float = 0.0
    parked: int = 0
    driving: int = 0
    charging: int = 0
    fast_charging: int = 0
    flagged: int = 0
    last_offset: int = -1
    # vehicle -> [first, end, first, end, ..] of its sequence numbers, ends exclusive, ascending: nearly always one pair
    seen: dict[str, list[int]] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> Key:
        return self.run_id, self.minute, self.partition

    @property
    def vehicles(self) -> int:
        return len(self.seen)

    @property
    def size(self) -> int:
        """Memory that the window takes, in ranges of sequence numbers (some 200 bytes each)."""
        return 1 + sum(map(len, self.seen.values())) // 2

    @property
    def missing(self) -> int:
        """Records that did not come, between others of the same vehicle."""
        return sum(
            ranges[-1] - ranges[0] - sum(ranges[1::2]) + sum(ranges[::2])
            for ranges in self.seen.values()
            if len(ranges) > 2
        )

    def add(self, record: dict[str, Any], offset: int) -> Taken:
        """Count a record unless it was read before (`again`) or came before in another message (`duplicate`)."""
        if offset <= self.last_offset:
            return "again"
        self.last_offset = offset
        if not _insert(self.seen.setdefault(record["vehicle_id"], []), record["seq"]):
            return "duplicate"
        soc, soh, temperature = record["soc"], record["soh"], record["battery_temperature"]
        self.records += 1
        self.soc_sum += soc
        self.soc_min = min(self.soc_min, soc)
        self.soc_max = max(self.soc_max, soc)
        self.soh_sum += soh
        self.soh_min = min(self.soh_min, soh)
        self.battery_temperature_sum += temperature
        self.battery_temperature_min = min(self.battery_temperature_min, temperature)
        self.battery_temperature_max = max(self.battery_temperature_max, temperature)
        self.power_sum += record["power_consumption"]
        mode = record["mode"]
        setattr(self, mode, getattr(self, mode) + 1)
        self.flagged += record["flags"] != 0
        return "counted"


def _insert(ranges: list[int], number: int) -> bool:
    """Add a number to ascending half-open ranges; False where it is in one of them."""
    place = bisect_right(ranges, number)
    if place % 2:
        return False
    after = place > 0 and ranges[place - 1] == number
    before = place < len(ranges) and ranges[place] == number + 1
    if after and before:
        del ranges[place - 1 : place + 1]
    elif after:
        ranges[place - 1] = number + 1
    elif before:
        ranges[place] = number
    else:
        ranges[place:place] = [number, number + 1]
    return True


def minute_of(time: datetime) -> datetime:
    """The start of the minute of `time`."""
    return time.replace(second=0, microsecond=0)


@dataclass
class Counts:
    """Counters since the start of this process."""

    counted: int = 0
    duplicates: int = 0
    again: int = 0
    late: int = 0
    malformed: int = 0
    windows: int = 0
    missing: int = 0


@dataclass
class _Open:
    """A window in memory. `first_offset` opened it, so nothing from there on may be committed. `touched_s` is the
    arrival of its last record on the wall clock. `missing` were counted when it was written before."""

    window: Window
    first_offset: int
    touched_s: float
    missing: int = 0


@dataclass
class _Partition:
    position: int | None = None  # the next offset
    newest: dict[str, datetime] = field(default_factory=dict)  # run -> greatest ts


class Windows:
    """The open windows of the partitions that a member of the group has.

    Bound: `max_open` ranges (`Window.size`). When it is reached the oldest windows close. A later record of such a
    window opens it again from the store.
    """

    _RUNS = 1000  # watermarks kept per partition; a run beyond that starts anew with its next record

    def __init__(self, *, lateness_s: float = 10.0, idle_s: float = 30.0, max_open: int = 1_000_000) -> None:
        self._lateness = timedelta(seconds=lateness_s)
        self._idle_s = idle_s
        self._max_open = max_open
        self._open: dict[Key, _Open] = {}
        self._partitions: dict[int, _Partition] = {}
        self.counts = Counts()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: Key) -> bool:
        return key in self._open

    def add(self, partition: int, offset: int, record: dict[str, Any], now_s: float, stored: Window | None) -> None:
        """Fold one record. `stored` is what the store holds of its window, if the window is not open."""
        run, time = record["run_id"], record["ts"]
        state = self._partitions.setdefault(partition, _Partition())
        key = (run, minute_of(time), partition)
        opened = self._open.get(key)
        if opened is None:
            opened = _Open(stored or Window(*key), offset, now_s, stored.missing if stored else 0)
            self._open[key] = opened
        opened.touched_s = now_s
        taken = opened.window.add(record, offset)
        newest = state.newest.get(run)
        if taken == "counted":
            self.counts.counted += 1
            self.counts.late += newest is not None and self._is_past(key[1], newest)
        elif taken == "duplicate":
            self.counts.duplicates += 1
        else:
            self.counts.again += 1
        if newest is None or time > newest:
            state.newest[run] = time
            if len(state.newest) > self._RUNS:
                del state.newest[next(iter(state.newest))]
        state.position = offset + 1

    def skip(self, partition: int, offset: int) -> None:
        """Pass over a malformed message, which is in no window."""
        self.counts.malformed += 1
        self._partitions.setdefault(partition, _Partition()).position = offset + 1

    def _is_past(self, minute: datetime, newest: datetime) -> bool:
        # Written so that at the ends of the calendar no datetime overflows.
        return newest - minute >= _MINUTE + self._lateness

    def full(self) -> bool:
        """Whether the bound is reached."""
        return sum(opened.window.size for opened in self._open.values()) > self._max_open

    def closable(self, now_s: float, *, everything: bool = False) -> list[Window]:
        """Windows to write and close: those behind the watermark, those long idle, the oldest of too many; or all."""
        late = []
        staying: list[_Open] = []
        for opened in self._open.values():
            run, minute, partition = opened.window.key
            past = self._is_past(minute, self._partitions[partition].newest.get(run, minute))
            if everything or past or now_s - opened.touched_s >= self._idle_s:
                late.append(opened.window)
            else:
                staying.append(opened)
        sizes = [opened.window.size for opened in staying]
        if sum(sizes) > self._max_open:
            by_age = sorted(zip(staying, sizes, strict=True), key=lambda pair: pair[0].window.minute)
            excess = sum(sizes) - self._max_open
            for opened, size in by_age:
                if excess <= 0:
                    break
                late.append(opened.window)
                excess -= size
        return late

    def close(self, windows: Iterable[Window]) -> None:
        """Drop windows that are written and acknowledged."""
        for window in windows:
            opened = self._open.get(window.key)
            if opened is not None and opened.window is window:
                del self._open[window.key]
                self.counts.windows += 1
                self.counts.missing += max(0, window.missing - opened.missing)

    def offsets(self) -> dict[int, int]:
        """Offsets that may be committed: everything before them is in closed windows, or was malformed."""
        free = {number: state.position for number, state in self._partitions.items() if state.position is not None}
        for (_, _, partition), opened in self._open.items():
            free[partition] = min(free[partition], opened.first_offset)
        return free

    def position(self, partition: int) -> int | None:
        """The offset after the last one seen; None if none was."""
        state = self._partitions.get(partition)
        return None if state is None else state.position

    def drop(self, partition: int) -> None:
        """Forget a partition that is another member's now; that member reads again what is not committed."""
        self._partitions.pop(partition, None)
        for key in [key for key in self._open if key[2] == partition]:
            del self._open[key]
