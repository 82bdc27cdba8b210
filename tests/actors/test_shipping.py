"""A shipper without Ray and without servers: streams, shards, failures, restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.delivery.shipper import Shipper
from actors.delivery.sinks import SinkRefused, SinkUnavailable
from datasets.log import Cursor, LogWriter, log_directory
from datasets.schema import STREAMS
from tests.actors.memory import MemoryTarget
from tests.support import make_batch, wait_until

VEHICLES, SHARDS = 2, (0, 1)


@pytest.fixture
def shippers() -> Iterator[list[Shipper]]:
    started: list[Shipper] = []
    yield started
    for shipper in started:
        shipper.stop()


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.delivery.shipper._RETRY_S", (0.01,))
    monkeypatch.setattr("actors.delivery.shipper._RETRY_REFUSED_S", 0.01)
    monkeypatch.setattr("actors.delivery.shipper.SUBSCRIBERS_S", 0.01)


def ship(run: Path, target: MemoryTarget, shippers: list[Shipper]) -> Shipper:
    shipper = Shipper(target, run, "log", list(SHARDS))
    shipper.start()
    shippers.append(shipper)
    return shipper


def append(run: Path, records: range) -> None:
    for stream in STREAMS:
        for shard in SHARDS:
            writer = LogWriter(log_directory(run, stream, shard))
            writer.append(make_batch(VEHICLES, records, stream=stream, first_vehicle=2 * shard), records.stop)
            writer.close()


def until(what: str, holds: Callable[[], bool]) -> None:
    wait_until(holds, lambda: f"{what} did not come")


def complete(target: MemoryTarget, records: int) -> bool:
    return len(set(target.rows)) == len(STREAMS) * len(SHARDS) * VEHICLES * records


def test_all_logs_are_shipped_as_they_grow(tmp_path: Path, shippers: list[Shipper]) -> None:
    target = MemoryTarget()
    shipper = ship(tmp_path, target, shippers)
    append(tmp_path, range(10))
    until("the first part", lambda: complete(target, 10))
    append(tmp_path, range(10, 30))
    until("the second part", lambda: complete(target, 30))
    until("the cursors", lambda: set(shipper.status().positions.values()) == {60})
    assert len(target.rows) == len(set(target.rows))
    assert max(target.batches) <= target.batch_rows
    status = shipper.status()
    assert (status.delivered("telemetry"), status.waiting_for, status.retries) == (120, "", 0)


@pytest.mark.parametrize("error", [SinkUnavailable("away"), SinkRefused("no rights"), RuntimeError("a defect")])
def test_any_failure_goes_back_to_the_cursors(tmp_path: Path, shippers: list[Shipper], error: Exception) -> None:
    append(tmp_path, range(20))
    target = MemoryTarget(fails=[error] * 3)
    shipper = ship(tmp_path, target, shippers)
    until("all", lambda: complete(target, 20) and set(shipper.status().positions.values()) == {40})
    assert len(target.rows) == len(set(target.rows)), "a failed batch was not delivered"
    assert shipper.status().retries >= 1
    assert target.opened == target.closed + 1


def test_while_a_sink_is_away_the_backlog_has_an_age(tmp_path: Path, shippers: list[Shipper]) -> None:
    writer = LogWriter(log_directory(tmp_path, "telemetry", 0))
    writer.append(make_batch(VEHICLES, range(10)), 10)
    target = MemoryTarget(fails=[SinkUnavailable("away")] * 1_000_000)
    shipper = ship(tmp_path, target, shippers)
    until("its reason", lambda: shipper.status().waiting_for == "away")
    until("the age", lambda: shipper.status().oldest_due_ns.get(("telemetry", 0), 0) > 0)
    target.fails.clear()
    until("all", lambda: len(target.rows) == 20)
    writer.close()


def test_rejected_records_are_kept_and_counted(tmp_path: Path, shippers: list[Shipper]) -> None:
    append(tmp_path, range(10))
    target = MemoryTarget(rejects={("EV-000003", 7)})
    shipper = ship(tmp_path, target, shippers)
    until("all", lambda: set(shipper.status().positions.values()) == {20})
    assert shipper.status().dead == 2, "of each stream one"
    assert shipper.status().cursors["telemetry", 1] == Cursor(20, 0, 1)
    assert len(list(tmp_path.glob("dead-letters/kafka/*.jsonl"))) == 2


def test_a_new_shipper_goes_on_from_the_cursors(tmp_path: Path, shippers: list[Shipper]) -> None:
    append(tmp_path, range(10))
    target = MemoryTarget()
    first = ship(tmp_path, target, shippers)
    until("the first part", lambda: set(first.status().positions.values()) == {20})
    first.stop()
    append(tmp_path, range(10, 20))
    second = Shipper(target, tmp_path, "log", list(SHARDS))
    assert set(second.status().positions.values()) == {20}, "known before the peer has answered"
    second.start()
    shippers.append(second)
    until("the rest", lambda: complete(target, 20))
    assert len(target.rows) == len(set(target.rows))


def test_a_peer_that_lost_something_gets_it_again(tmp_path: Path, shippers: list[Shipper]) -> None:
    append(tmp_path, range(10))
    target = MemoryTarget(knows={})
    first = ship(tmp_path, target, shippers)
    until("all", lambda: set(first.status().positions.values()) == {20})
    first.stop()
    target.rows.clear()
    target.knows = {("telemetry", 0): 4}
    second = ship(tmp_path, target, shippers)
    until("all again", lambda: len(set(target.rows)) == 4 * 20 - 4)
    assert second.status().duplicates == 0


def test_told_to_stop_it_finishes_the_batch_on_its_way(tmp_path: Path) -> None:
    append(tmp_path, range(10))
    target = MemoryTarget()
    target.gate.clear()
    shipper = Shipper(target, tmp_path, "log", list(SHARDS))
    shipper.start()
    until("a delivery", lambda: target.opened > 0)
    target.gate.set()
    status = shipper.stop()
    delivered = sum(status.positions.values())
    assert delivered == len(target.rows), "what was acknowledged is in the cursors"
    assert target.closed == target.opened
