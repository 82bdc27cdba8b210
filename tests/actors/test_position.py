"""One log on its way to one peer: where it begins, what moves it, how far it goes back."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.delivery.position import Position
from actors.delivery.sinks import SinkUnavailable, reader_of
from datasets.log import Cursor, CursorFile, LogReader, LogWriter, log_directory
from tests.actors.memory import MemoryTarget
from tests.support import make_batch

VEHICLES = 2


def position(run: Path, target: MemoryTarget) -> Position:
    return Position(run, reader_of(target), "telemetry", 0, target)


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
        CursorFile(tmp_path, "kafka@memory", "telemetry", 0).save(Cursor(saved))
    found = position(tmp_path, MemoryTarget(keeps_position=keeps_position))
    found.begin(known)
    assert found.cursor.position == begins
    assert CursorFile(tmp_path, "kafka@memory", "telemetry", 0).load().position == begins


def test_a_log_that_begins_later_is_delivered_from_there(tmp_path: Path) -> None:
    log(tmp_path, 5, first_row=20)
    found = position(tmp_path, MemoryTarget())
    found.begin(None)
    assert found.cursor.position == 20


def deliver(run: Path, target: MemoryTarget, at: Position, rows: int) -> None:
    with LogReader(at.directory, at.cursor.position) as reader:
        frame = reader.read(rows)
    assert frame is not None
    at.deliver(target.sink("log", "telemetry"), frame.batch)


def test_delivered_rows_move_the_cursor_on_disk(tmp_path: Path) -> None:
    log(tmp_path, 10)
    target = MemoryTarget()
    at = position(tmp_path, target)
    at.begin(None)
    deliver(tmp_path, target, at, 6)
    deliver(tmp_path, target, at, 6)
    assert at.cursor == CursorFile(tmp_path, "kafka@memory", "telemetry", 0).load() == Cursor(12)
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
    CursorFile(tmp_path, "kafka@memory", "telemetry", 0).save(Cursor(4))  # killed before the cursor was written
    again = position(tmp_path, target)
    again.begin(8)
    deliver(tmp_path, target, again, 4)
    assert again.cursor == Cursor(8, 0)
    again.move(4)
    again.known = 0
    deliver(tmp_path, target, again, 4)
    assert again.cursor.duplicates == 4


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("actors.delivery.position.time.monotonic", clock)
    return clock


def begins_again(run: Path, target: MemoryTarget) -> int:
    again = position(run, target)
    again.begin(None)
    return again.cursor.position


def test_what_a_forgetful_peer_acknowledged_since_it_was_last_heard_goes_out_again(
    tmp_path: Path, clock: Clock
) -> None:
    """However late its loss is noticed: it may have died right after its last sign of life."""
    log(tmp_path, 10)
    target = MemoryTarget(rewind_s=5.0)
    at = position(tmp_path, target)
    at.begin(None)
    for _ in range(5):  # at 1000, 1002, ... 1008
        deliver(tmp_path, target, at, 4)
        clock.now += 2.0
        at.heard(clock.now)
    assert at.cursor == Cursor(20, unsettled=8), "acknowledged after 1005"
    clock.now += 60.0
    assert begins_again(tmp_path, target) == 12


def test_what_it_acknowledged_long_before_it_was_heard_is_safe(tmp_path: Path, clock: Clock) -> None:
    log(tmp_path, 10)
    target = MemoryTarget(rewind_s=5.0)
    at = position(tmp_path, target)
    at.begin(None)
    deliver(tmp_path, target, at, 20)
    clock.now += 5.0
    at.heard(clock.now)
    assert at.cursor == Cursor(20)
    assert begins_again(tmp_path, target) == 20


def test_rows_that_the_log_lost_are_counted_once(tmp_path: Path) -> None:
    log(tmp_path, 10)
    target = MemoryTarget(knows={})
    at = position(tmp_path, target)
    at.begin(0)
    assert at.lose(8) == 8
    deliver(tmp_path, target, at, 4)
    assert (at.cursor.position, at.cursor.lost, at.cursor.delivered) == (12, 8, 4)
    again = position(tmp_path, target)
    again.begin(0)  # killed before the peer had moved its own cursor
    assert again.lose(8) == 0
    assert again.cursor.lost == 8


def test_a_log_that_is_not_there_yet_begins_where_we_were_told(tmp_path: Path) -> None:
    """Its node was lost; the feeder makes the predictions log there anew, some time after us."""
    found = position(tmp_path, MemoryTarget())
    found.begin(None, 20)
    assert found.cursor.position == 20
    log(tmp_path, 5, first_row=20)
    deliver(tmp_path, target := MemoryTarget(), found, 10)
    assert len(target.rows) == 10


def test_a_cursor_belongs_to_its_peer(tmp_path: Path) -> None:
    log(tmp_path, 10)
    first, other = MemoryTarget(), MemoryTarget(peer="elsewhere")
    at = position(tmp_path, first)
    at.begin(None)
    deliver(tmp_path, first, at, 20)
    assert begins_again(tmp_path, other) == 0
    assert begins_again(tmp_path, first) == 20


def test_while_the_cursor_cannot_be_saved_nothing_more_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, 10)
    target = MemoryTarget()
    at = position(tmp_path, target)
    at.begin(None)

    def full(_file: object, _cursor: Cursor) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CursorFile, "save", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                deliver(tmp_path, target, at, 4)
    assert len(target.rows) == 4, "the first batch was on its way"
    deliver(tmp_path, target, at, 4)
    assert [seq for _, _, seq in target.rows] == [0, 0, 1, 1, 2, 2, 3, 3], "and is not sent again"
