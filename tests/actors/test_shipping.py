"""A shipper without Ray and without servers: streams, shards, failures, restarts."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.delivery.shipper import Shipper
from actors.delivery.sinks import SinkRefused, SinkUnavailable
from datasets.log import Cursor, CursorFile, LogWriter, log_directory
from datasets.schema import STREAMS, Stream
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
    monkeypatch.setattr("actors.delivery.shipper._RETRY_LOG_S", 0.01)
    monkeypatch.setattr("actors.delivery.shipper.SUBSCRIBERS_S", 0.01)


def ship(run: Path, target: MemoryTarget, shippers: list[Shipper]) -> Shipper:
    shipper = Shipper(target, run, "log", dict.fromkeys(SHARDS, (0, 0)))
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


@pytest.mark.parametrize("error", [SinkUnavailable("away"), SinkRefused("no rights")])
def test_a_lost_peer_is_connected_again(tmp_path: Path, shippers: list[Shipper], error: Exception) -> None:
    append(tmp_path, range(20))
    target = MemoryTarget(fails=[error] * 3)
    shipper = ship(tmp_path, target, shippers)
    until("all", lambda: complete(target, 20) and set(shipper.status().positions.values()) == {40})
    assert len(target.rows) == len(set(target.rows)), "a failed batch was not delivered"
    assert shipper.status().retries >= 1
    assert target.opened == len(target.closed) + len(STREAMS)


def test_a_defect_is_seen_and_ends_nothing(tmp_path: Path, shippers: list[Shipper]) -> None:
    append(tmp_path, range(20))
    target = MemoryTarget(fails=[RuntimeError("a defect")] * 3)
    shipper = ship(tmp_path, target, shippers)
    until("its reason", lambda: "a defect" in shipper.status().waiting_for)
    until("a new connection", lambda: shipper.status().retries >= 1)
    until("all", lambda: complete(target, 20) and set(shipper.status().positions.values()) == {40})
    assert len(target.rows) == len(set(target.rows)), "a failed batch was not delivered"
    until("the end of waiting", lambda: shipper.status().waiting_for == "")


def test_streams_fail_apart(tmp_path: Path, shippers: list[Shipper]) -> None:
    """A peer that denies predictions gets telemetry on a connection of its own, undisturbed."""
    append(tmp_path, range(10))
    target = MemoryTarget(denies={"predictions"})
    shipper = ship(tmp_path, target, shippers)
    until("telemetry", lambda: shipper.status().delivered("telemetry") == 40)
    for tries in range(2, 5):
        until("more tries", lambda: target.opened > tries)  # noqa: B023
        append(tmp_path, range(10 * (tries - 1), 10 * tries))
        until("more telemetry", lambda: shipper.status().delivered("telemetry") == 40 * tries)  # noqa: B023
    assert shipper.status().waiting_for == "no rights to predictions"
    assert len(target.rows) == len(set(target.rows)) == 160
    target.denies.clear()
    until("predictions", lambda: shipper.status().delivered("predictions") == 160)


def test_a_damaged_log_holds_up_only_itself(tmp_path: Path, shippers: list[Shipper]) -> None:
    append(tmp_path, range(10))
    [damaged] = (log_directory(tmp_path, "telemetry", 0)).glob("*.parquet")
    damaged.write_bytes(b"PAR1" + bytes(200) + b"PAR1")
    target = MemoryTarget()
    shipper = ship(tmp_path, target, shippers)
    until("the other log", lambda: shipper.status().positions.get(("telemetry", 1)) == 20)
    until("its reason", lambda: "shard 0" in shipper.status().waiting_for and "damaged" in shipper.status().waiting_for)
    writer = LogWriter(log_directory(tmp_path, "telemetry", 1))
    writer.append(make_batch(VEHICLES, range(10, 20), first_vehicle=2), 20)
    writer.close()
    until("more of the other", lambda: shipper.status().positions["telemetry", 1] == 40)
    assert not any(int(name[-1]) < 2 for stream, name, _ in target.rows if stream == "telemetry")
    assert shipper.status().retries == 0


@pytest.mark.parametrize("accept_loss", [False, True])
def test_what_the_log_does_not_hold_any_more(tmp_path: Path, shippers: list[Shipper], accept_loss: bool) -> None:
    """A database restored from a backup that is older than retention: said and counted, passed only when told to."""
    for stream in STREAMS:
        for shard in SHARDS:
            writer = LogWriter(log_directory(tmp_path, stream, shard), first_row=20)
            writer.append(make_batch(VEHICLES, range(10, 20), stream=stream, first_vehicle=2 * shard), 20)
            writer.close()
            CursorFile(tmp_path, "kafka@memory", stream, shard).save(Cursor(40))
    target = MemoryTarget(knows={(stream, shard): 8 for stream in STREAMS for shard in SHARDS})
    shipper = Shipper(target, tmp_path, "log", dict.fromkeys(SHARDS, (0, 0)), accept_loss)
    shipper.start()
    shippers.append(shipper)
    if not accept_loss:
        until("its reason", lambda: "12 records can no longer be delivered" in shipper.status().waiting_for)
        assert "--accept-loss" in shipper.status().waiting_for
        until("where it waits", lambda: set(shipper.status().positions.values()) == {8})
    else:
        until("the rest", lambda: len(target.rows) == 80)
        until("the cursors", lambda: set(shipper.status().positions.values()) == {40})
        assert {(c.lost, c.delivered) for c in shipper.status().cursors.values()} == {(12, 28)}
        assert len(set(target.rows)) == 80


def test_a_full_disk_is_waited_for(tmp_path: Path, shippers: list[Shipper], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a file is written: the thread that ships lives on, and says for what it waits."""
    append(tmp_path, range(10))
    target, full, save = MemoryTarget(), threading.Event(), CursorFile.save
    full.set()

    def save_if_room(file: CursorFile, cursor: Cursor) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device", str(file.path))
        save(file, cursor)

    monkeypatch.setattr(CursorFile, "save", save_if_room)
    shipper = ship(tmp_path, target, shippers)
    until("its reason", lambda: "No space left" in shipper.status().waiting_for)
    full.clear()
    until("all", lambda: complete(target, 10) and set(shipper.status().positions.values()) == {20})
    assert len(target.rows) == len(set(target.rows))


def test_any_exception_anywhere_ends_nothing(
    tmp_path: Path, shippers: list[Shipper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one in the handling of a failure: the thread would be gone, and the actor look alive."""
    append(tmp_path, range(10))
    target = MemoryTarget(fails=[SinkUnavailable("away")] * 6)
    look, times = Shipper._look, iter(range(3))

    def look_or_fail(shipper: Shipper, stream: Stream) -> None:
        if next(times, None) is not None:
            raise RuntimeError("while looking")
        look(shipper, stream)

    monkeypatch.setattr(Shipper, "_look", look_or_fail)
    shipper = ship(tmp_path, target, shippers)
    until("all", lambda: complete(target, 10) and set(shipper.status().positions.values()) == {20})


def test_a_loss_is_noticed_while_there_is_nothing_to_deliver(tmp_path: Path, shippers: list[Shipper]) -> None:
    """And what the peer may have forgotten goes out again without waiting for the next record."""
    append(tmp_path, range(10))
    target = MemoryTarget(rewind_s=1e6)
    shipper = ship(tmp_path, target, shippers)
    until("all", lambda: set(shipper.status().positions.values()) == {20})
    target.rows.clear()
    target.lost = "broker gone"
    until("both streams to notice", lambda: set(target.closed) == set(STREAMS))
    assert shipper.status().waiting_for == "broker gone"
    target.lost = ""
    until("all again", lambda: complete(target, 10))


def test_a_batch_gathers_small_frames(tmp_path: Path, shippers: list[Shipper]) -> None:
    """A batch costs a round trip, however few rows it has."""
    writer = LogWriter(log_directory(tmp_path, "telemetry", 0))
    for seq in range(100):
        writer.append(make_batch(VEHICLES, range(seq, seq + 1)), seq)
    target = MemoryTarget(batch_rows=50)
    shipper = ship(tmp_path, target, shippers)
    until("all", lambda: shipper.status().delivered("telemetry") == 200)
    writer.close()
    assert target.batches == [50, 50, 50, 50]
    assert [row[2] for row in target.rows] == [seq for seq in range(100) for _ in range(VEHICLES)]
    assert sum(shipper.status().latencies.counts) == 200


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
    assert len(list(tmp_path.glob("dead-letters/kafka@memory/*.jsonl"))) == 2


def test_a_new_shipper_goes_on_from_the_cursors(tmp_path: Path, shippers: list[Shipper]) -> None:
    append(tmp_path, range(10))
    target = MemoryTarget()
    first = ship(tmp_path, target, shippers)
    until("the first part", lambda: set(first.status().positions.values()) == {20})
    first.stop()
    append(tmp_path, range(10, 20))
    second = Shipper(target, tmp_path, "log", dict.fromkeys(SHARDS, (0, 0)))
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
    shipper = Shipper(target, tmp_path, "log", dict.fromkeys(SHARDS, (0, 0)))
    shipper.start()
    until("a delivery", lambda: target.opened > 0)
    target.gate.set()
    status = shipper.stop()
    delivered = sum(status.positions.values())
    assert delivered == len(target.rows), "what was acknowledged is in the cursors"
    assert len(target.closed) == target.opened
