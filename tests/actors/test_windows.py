"""Windows without Kafka: in any order, however often, broken off anywhere, the sums are those of the records."""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.aggregates.windows import Key, Window, Windows, _insert, minute_of

START = datetime(2026, 6, 1, 7, tzinfo=UTC)


def record(vehicle: int, seq: int, *, run: str = "run", second: float | None = None, **more: Any) -> dict[str, Any]:
    values = {"soc": 0.1 + seq / 1000, "soh": 0.9, "battery_temperature": 20.0 + vehicle, "power_consumption": 1.5}
    time = START + timedelta(seconds=2 * seq if second is None else second)
    return {
        "run_id": run, "vehicle_id": f"EV-{vehicle:06d}", "seq": seq, "ts": time, "mode": "parked", "flags": 0,
        **values, **more,
    }  # fmt: skip


class Process:
    """A member of the group with its store, both in memory; `crash` forgets what was not written."""

    def __init__(self, log: list[dict[str, Any]], **bounds: Any) -> None:
        self.log, self.bounds = log, bounds
        self.stored: dict[Key, Window] = {}
        self.committed = 0
        self.crash()

    def crash(self) -> None:
        self.windows = Windows(**self.bounds)
        self.position = self.committed

    def read(self, count: int, now_s: float = 0.0) -> None:
        for offset in range(self.position, min(self.position + count, len(self.log))):
            made = self.log[offset]
            key = (made["run_id"], minute_of(made["ts"]), 0)
            stored = None if key in self.windows else copy.deepcopy(self.stored.get(key))
            self.windows.add(0, offset, made, now_s, stored)
            self.position = offset + 1

    def write(self, now_s: float = 0.0, *, everything: bool = False, commit: bool = True) -> list[Window]:
        closable = self.windows.closable(now_s, everything=everything)
        self.stored |= {window.key: copy.deepcopy(window) for window in closable}
        self.windows.close(closable)
        if commit:
            self.committed = self.windows.offsets().get(0, self.committed)
        return closable


def expected(log: list[dict[str, Any]]) -> dict[Key, tuple[int, int]]:
    """Records and vehicles of each window, the slow way."""
    found: dict[Key, set[tuple[str, int]]] = {}
    for made in log:
        found.setdefault((made["run_id"], minute_of(made["ts"]), 0), set()).add((made["vehicle_id"], made["seq"]))
    return {key: (len(ids), len({vehicle for vehicle, _ in ids})) for key, ids in found.items()}


def result(process: Process) -> dict[Key, tuple[int, int]]:
    return {key: (window.records, window.vehicles) for key, window in process.stored.items()}


def test_a_window_closes_behind_the_watermark() -> None:
    process = Process([record(0, seq) for seq in range(60)], lateness_s=10)
    process.read(35)  # the newest is at 68 s: the first minute waits until 70 s
    assert process.write() == []
    assert process.committed == 0
    process.read(1)
    [window] = process.write()
    assert (window.minute, window.records, window.vehicles) == (START, 30, 1)
    assert window.soc_max == pytest.approx(0.129)
    assert process.committed == 30, "the first record of the minute that is open"


def test_a_quiet_window_closes_after_the_idle_time() -> None:
    process = Process([record(0, 0)], idle_s=30)
    process.read(1, now_s=100.0)
    assert process.write(129.9) == []
    assert len(process.write(130.0)) == 1
    assert process.committed == 1


def test_runs_and_partitions_have_watermarks_of_their_own() -> None:
    windows = Windows(lateness_s=10)
    windows.add(0, 0, record(0, 0), 0.0, None)
    windows.add(1, 0, record(1, 500), 0.0, None)
    windows.add(0, 1, record(2, 500, run="other"), 0.0, None)
    assert windows.closable(0.0) == []
    assert windows.offsets() == {0: 0, 1: 0}
    windows.drop(1)
    assert windows.offsets() == {0: 0}
    assert len(windows) == 2


def test_late_is_counted_and_the_window_opens_again() -> None:
    process = Process([*(record(0, seq) for seq in range(60)), record(1, 3), record(1, 4)])
    process.read(60)
    process.write()
    assert process.windows.counts.late == 0
    process.read(2)
    assert process.windows.counts.late == 2
    process.write(everything=True)
    assert result(process) == expected(process.log)
    assert process.committed == 62


def test_the_same_identity_counts_once_and_the_same_offset_too() -> None:
    process = Process([record(0, 0), record(0, 1), record(0, 1), record(0, 0)])
    process.read(4)
    process.write(everything=True, commit=False)
    process.crash()
    process.read(4)
    process.write(everything=True)
    assert result(process) == {("run", START, 0): (2, 1)}
    assert dataclasses.astuple(process.windows.counts)[:3] == (0, 0, 4), "counted, duplicates, again"


def test_what_is_missing_between_others_is_counted_once() -> None:
    """Of vehicle 0 two records of ten, of vehicle 1 none; one of the two comes late, the other never."""
    there = [seq for seq in range(10) if seq not in (3, 7)]
    process = Process([*(record(0, seq) for seq in there), *(record(1, seq) for seq in range(10)), record(0, 3)])
    process.read(18)
    process.write(everything=True)
    assert process.windows.counts.missing == 2
    process.read(1)
    process.write(everything=True)
    assert process.windows.counts.missing == 2, "counted when the minute was first written"
    [window] = process.stored.values()
    assert (window.missing, window.records) == (1, 19)


def test_full_closes_the_oldest() -> None:
    process = Process([record(vehicle, 30 * minute) for minute in range(10) for vehicle in range(3)], max_open=12,
                      lateness_s=1e6)  # fmt: skip
    process.read(30)
    assert process.windows.full()
    closed = process.write()
    assert [window.minute for window in closed] == [START + timedelta(minutes=minute) for minute in range(7)]
    assert not process.windows.full()
    assert process.committed == 21


def test_the_ends_of_the_calendar() -> None:
    ends = [record(0, 0, second=0) | {"ts": time} for time in (datetime.min, datetime.max)]
    process = Process([made | {"ts": made["ts"].replace(tzinfo=UTC)} for made in ends])
    process.read(2)
    process.write(everything=True)
    assert len(process.stored) == 2


def test_a_malformed_message_is_passed_over() -> None:
    windows = Windows()
    windows.skip(3, 41)
    assert windows.offsets() == {3: 42}
    windows.add(3, 42, record(0, 0), 0.0, None)
    windows.skip(3, 43)
    assert windows.offsets() == {3: 42}


@given(st.lists(st.integers(0, 30)))
def test_ranges_are_a_set(numbers: list[int]) -> None:
    ranges: list[int] = []
    seen: set[int] = set()
    for number in numbers:
        assert _insert(ranges, number) == (number not in seen)
        seen.add(number)
        assert {n for first, end in zip(ranges[::2], ranges[1::2], strict=True) for n in range(first, end)} == seen
        assert ranges == sorted(set(ranges))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 25)),
        st.tuples(st.just("write"), st.integers(0, 60)),
        st.tuples(st.just("everything"), st.just(0)),
        st.tuples(st.just("crash after writing"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=25,
)


@given(
    st.lists(st.builds(record, st.integers(0, 3), st.integers(0, 120), run=st.sampled_from(["a", "b"])), max_size=80),
    STEPS,
    st.sampled_from([3, 1000]),
)
def test_crashes_anywhere_change_nothing(
    log: list[dict[str, Any]], steps: list[tuple[str, int]], max_open: int
) -> None:
    """Any order of records and repeats, any break: the rows are those of one undisturbed reading, to the last bit."""
    process = Process(log, max_open=max_open)
    for now, (step, number) in enumerate(steps):
        if step == "read":
            process.read(number, float(now))
        elif step == "write":
            process.write(float(number))
        elif step == "everything":
            process.write(everything=True)
        elif step == "crash after writing":
            process.write(everything=True, commit=False)
            process.crash()
        else:
            process.crash()
    process.read(len(log))
    process.write(everything=True)
    assert process.committed == len(log)
    assert result(process) == expected(log)
    undisturbed = Process(log)
    undisturbed.read(len(log))
    undisturbed.write(everything=True)
    assert process.stored == undisturbed.stored
