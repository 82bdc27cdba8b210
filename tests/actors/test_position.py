"""One log on its way to one peer: where it begins, what moves it, how far it goes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.delivery.position import Position
from actors.delivery.sinks import SinkUnavailable
from datasets.log import Cursor, CursorFile, LogReader, LogWriter, log_directory
from tests.actors.memory import MemoryTarget
from tests.support import make_batch

VEHICLES = 2


def position(run: Path, target: MemoryTarget) -> Position:
    return Position(run, target.name, "telemetry", 0, target)


def log(run: Path, records: int, first_row: int = 0) -> None:
    writer = LogWriter(log_directory(run, "telemetry", 0), first_row=first_row)
    first = first_row // VEHICLES
    writer.append(make_batch(VEHICLES, range(first, first + records)), 0)
    writer.close()


@pytest.mark.parametrize(
    ("saved", "known", "keeps_position", "begins"),
    [
        (None, None, False, 0),  # new to both
        (None, 12, False, 12),  # the peer has something of this log already
        (8, None, False, 8),  # a peer that keeps no position
        (8, 6, False, 6),  # it has lost something, and gets it again
        (8, 12, False, 8),  # a dead letter among the rows between may not have been written
        (8, 12, True, 12),  # but where the peer alone decides, it decides
        (8, 6, True, 6),
    ],
)
def test_where_it_begins(
    tmp_path: Path, saved: int | None, known: int | None, keeps_position: bool, begins: int
) -> None:
    log(tmp_path, 10)
    if saved is not None:
        CursorFile(tmp_path, "kafka", "telemetry", 0).save(Cursor(saved))
    found = position(tmp_path, MemoryTarget(keeps_position=keeps_position))
    found.begin(known)
    assert found.cursor.position == begins
    assert CursorFile(tmp_path, "kafka", "telemetry", 0).load().position == begins


def test_a_log_that_begins_later_is_delivered_from_there(tmp_path: Path) -> None:
    log(tmp_path, 5, first_row=20)
    found = position(tmp_path, MemoryTarget())
    found.begin(None)
    assert found.cursor.position == 20


def deliver(run: Path, target: MemoryTarget, at: Position, rows: int) -> None:
    with LogReader(at.directory, at.cursor.position) as reader:
        frame = reader.read(rows)
    assert frame is not None
    at.deliver(target.sink("log"), frame.batch)


def test_delivered_rows_move_the_cursor_on_disk(tmp_path: Path) -> None:
    log(tmp_path, 10)
    target = MemoryTarget()
    at = position(tmp_path, target)
    at.begin(None)
    deliver(tmp_path, target, at, 6)
    deliver(tmp_path, target, at, 6)
    assert at.cursor == CursorFile(tmp_path, "kafka", "telemetry", 0).load() == Cursor(12)
    assert [seq for _, _, seq in target.rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_failed_delivery_moves_nothing(tmp_path: Path) -> None:
    log(tmp_path, 10)
    target = MemoryTarget(fails=[SinkUnavailable("away")])
    at = position(tmp_path, target)
    at.begin(None)
    with pytest.raises(SinkUnavailable):
        deliver(tmp_path, target, at, 6)
    assert at.cursor == Cursor(0)
    assert target.rows == []


def test_a_rejected_record_is_kept_before_the_cursor_passes_it(tmp_path: Path) -> None:
    log(tmp_path, 10)
    target = MemoryTarget(rejects={("EV-000001", 2)})
    at = position(tmp_path, target)
    at.begin(None)
    deliver(tmp_path, target, at, 20)
    assert at.cursor == Cursor(20, 0, 1)
    [letter] = [json.loads(line) for line in at.letters.path.read_text().splitlines()]
    assert (letter["position"], letter["id"], letter["reason"]) == (5, "run-test/EV-000001/2", "a value it cannot hold")
    again = position(tmp_path, target)
    again.begin(None)
    again.move(0)
    deliver(tmp_path, target, again, 20)
    assert again.cursor.dead == 1, "a batch that comes again adds no letter"


def test_what_comes_again_because_of_us_is_no_duplicate_of_theirs(tmp_path: Path) -> None:
    log(tmp_path, 10)
    target = MemoryTarget()
    at = position(tmp_path, target)
    at.begin(None)
    deliver(tmp_path, target, at, 8)
    CursorFile(tmp_path, "kafka", "telemetry", 0).save(Cursor(4))  # killed before the cursor was written
    again = position(tmp_path, target)
    again.begin(8)
    deliver(tmp_path, target, again, 4)
    assert again.cursor == Cursor(8, 0)
    again.move(4)
    again.known = 0
    deliver(tmp_path, target, again, 4)
    assert again.cursor.duplicates == 4


def test_a_forgetful_peer_gets_the_last_seconds_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, 10)
    now = [1000.0]
    monkeypatch.setattr("actors.delivery.position.time.monotonic", lambda: now[0])
    target = MemoryTarget(rewind_s=5.0)
    at = position(tmp_path, target)
    at.begin(None)
    for _ in range(5):
        deliver(tmp_path, target, at, 4)
        now[0] += 2.0
    assert at.rewind()
    assert CursorFile(tmp_path, "kafka", "telemetry", 0).load().position == 12, "delivered 4 s ago or later"
    assert not at.rewind(), "there is nothing more to go back over"
    now[0] += 60.0
    assert not position(tmp_path, target).rewind()
