"""A replay without servers: order, interval, idempotence, a sink that is away."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.delivery.replay import Replay
from actors.delivery.sinks import SinkRefused, SinkUnavailable
from datasets.log import LogWriter, log_directory
from tests.actors.memory import MemoryTarget
from tests.support import make_batch

VEHICLES, RECORDS = 2, 20
START = datetime.fromtimestamp(1_780_000_000, UTC)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two shards of two vehicles, a record every 2 s."""
    for shard in (0, 1):
        writer = LogWriter(log_directory(tmp_path, "telemetry", shard))
        for first in range(0, RECORDS, 5):
            writer.append(make_batch(VEHICLES, range(first, first + 5), first_vehicle=2 * shard), first)
        writer.close()
    return tmp_path


def replay(run: Path, target: MemoryTarget, **changes: Any) -> Replay:
    return Replay(run, "log", 2, target, where=target.url, **changes)


def replayed(run: Path, target: MemoryTarget, **changes: Any) -> int:
    return replay(run, target, **changes).run(lambda counts: None, threading.Event()).records


def test_everything_once_in_the_order_of_time(run: Path) -> None:
    target = MemoryTarget()
    assert replayed(run, target) == 2 * VEHICLES * RECORDS
    assert len(set(target.rows)) == len(target.rows) == 2 * VEHICLES * RECORDS
    for vehicle in range(4):
        seqs = [seq for _, name, seq in target.rows if name == f"EV-{vehicle:06d}"]
        assert seqs == list(range(RECORDS))
    assert replayed(run, target) == 0, "the same command twice delivers once"


def test_logs_stay_together_in_time(run: Path) -> None:
    """For a sink whose readers see records as they come, no log runs more than some seconds ahead of another."""
    target = MemoryTarget()
    replayed(run, target)
    newest = {0: -1, 1: -1}
    for _, name, seq in target.rows:
        newest[int(name[-1]) // 2] = seq
        if min(newest.values()) >= 0:
            assert abs(newest[0] - newest[1]) <= 5 + target.batch_rows


def test_at_a_pace_the_order_over_logs_is_exact(run: Path) -> None:
    target = MemoryTarget()
    replayed(run, target, pace=1e6)
    seqs = [seq for _, _, seq in target.rows]
    assert seqs == sorted(seqs)


@pytest.mark.parametrize(
    ("begin", "end", "first", "last"), [(None, 11, 0, 4), (11, None, 5, 19), (5, 13, 2, 5), (1000, None, 0, -1)]
)
def test_an_interval(run: Path, begin: int | None, end: int | None, first: int, last: int) -> None:
    """Record k is of START + 2 (k + 1) s; the end is not included."""
    target = MemoryTarget()
    bounds = {
        "begin": None if begin is None else START + timedelta(seconds=begin),
        "end": None if end is None else START + timedelta(seconds=end),
    }
    assert replayed(run, target, **bounds) == 4 * (last - first + 1)
    assert sorted({seq for _, _, seq in target.rows}) == list(range(first, last + 1))


def test_a_sink_that_is_away_for_a_moment_gets_all(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.delivery.replay._RETRY_S", 0.0)
    target = MemoryTarget(fails=[SinkUnavailable("away")] * 3)
    said: list[str] = []
    counts = replay(run, target).run(lambda counts: said.append(counts.waiting_for), threading.Event())
    assert counts.records == len(set(target.rows)) == 2 * VEHICLES * RECORDS
    assert said.count("away") == 3
    assert said[-1] == ""


def test_a_sink_that_stays_away_ends_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.delivery.replay._RETRY_S", 0.0)
    target = MemoryTarget(fails=[SinkUnavailable("away")] * 1_000_000)
    with pytest.raises(SinkUnavailable, match="away"):
        replayed(run, target, patience_s=0.05)
    target.fails.clear()
    assert replayed(run, target) == 2 * VEHICLES * RECORDS, "and the same command goes on"


def test_a_sink_that_refuses_ends_it_at_once(run: Path) -> None:
    with pytest.raises(SinkRefused, match="no rights"):
        replayed(run, MemoryTarget(fails=[SinkRefused("no rights")]))


def test_told_to_stop_it_stops_and_goes_on_later(run: Path) -> None:
    target, stop = MemoryTarget(), threading.Event()

    def until_ten(counts: Any) -> None:
        if counts.records >= 10:
            stop.set()

    first = replay(run, target).run(until_ten, stop).records
    assert 10 <= first < 2 * VEHICLES * RECORDS
    assert first + replayed(run, target) == 2 * VEHICLES * RECORDS
    assert len(target.rows) == len(set(target.rows))


def test_another_interval_or_address_is_another_replay(run: Path) -> None:
    target = MemoryTarget()
    ids = {
        replay(run, target).id,
        replay(run, target, begin=START).id,
        replay(run, MemoryTarget(url="elsewhere")).id,
        Replay(run, "other log", 2, target, where=target.url, pace=math.inf).id,
    }
    assert len(ids) == 4
