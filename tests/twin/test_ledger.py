"""Counting: what is missing, unknown, repeated or out of order is found, and said by vehicle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.log import LogWriter, log_directory
from datasets.log.cursor import Cursor, CursorFile
from datasets.log.durable import cut_torn_line
from datasets.schema import Stream
from tests.support import make_batch
from twin.books import peers
from twin.books.ledger import Books, table, verify
from twin.books.messages import messages
from twin.books.peers import PeerSilent, Seen, compare
from twin.errors import BadInput
from twin.run_directory import load_run


def identities(vehicles: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(vehicles * count)
    return rows % vehicles, rows // vehicles


def seen_of(records: list[tuple[int, int]], *, ordered: bool = True) -> Seen:
    seen = Seen(ordered=ordered)
    for vehicle, seq in records:
        seen.take(f"EV-{vehicle:06d}", seq)
    return seen


ALL = list(zip(*(part.tolist() for part in identities(3, 5)), strict=True))


def test_all_there_once_in_order_is_complete() -> None:
    count = compare(seen_of(ALL), identities(3, 5), identities(3, 5))
    assert count.complete
    assert (count.received, count.repeated) == (15, 0)


def test_what_differs_is_named() -> None:
    records = [r for r in ALL if r != (1, 3)] + [(2, 9), (0, 0)]
    count = compare(seen_of(records), identities(3, 5), identities(3, 5))
    assert (count.missing, count.unknown, count.repeated, count.disordered) == (1, 1, 1, 0)
    assert count.differences == ("EV-000001: missing 1, seq 3 to 3", "EV-000002: unknown 1, seq 9 to 9")
    assert not count.complete
    assert compare(seen_of([*ALL, (0, 0)]), identities(3, 5), identities(3, 5)).complete, "again is no difference"
    stored = compare(seen_of([*ALL, (0, 0)]), identities(3, 5), identities(3, 5), repeats_are_wrong=True)
    assert not stored.complete, "but in a store it is"
    assert stored.differences == ("EV-000000: stored twice 1, seq 0 to 0",)


def test_order_is_that_of_first_arrival() -> None:
    swapped = [*ALL]
    swapped[4], swapped[7] = swapped[7], swapped[4]  # vehicle 1: seq 2 before seq 1
    assert compare(seen_of(swapped), identities(3, 5), identities(3, 5)).disordered == 1
    again = [*ALL, *ALL[3:]]  # a batch that came a second time, whole
    assert compare(seen_of(again), identities(3, 5), identities(3, 5)).disordered == 0
    assert compare(seen_of(swapped, ordered=False), identities(3, 5), identities(3, 5)).complete


def test_more_than_was_acknowledged_is_no_difference() -> None:
    assert compare(seen_of(ALL), identities(3, 5), identities(3, 2)).complete


@given(st.lists(st.sampled_from(ALL), max_size=40))
def test_counts_agree_with_sets(records: list[tuple[int, int]]) -> None:
    count = compare(seen_of(records), identities(3, 5), identities(3, 5))
    assert count.missing == len(set(ALL) - set(records))
    assert count.repeated == len(records) - len(set(records))
    firsts: dict[int, list[int]] = {}
    for vehicle, seq in dict.fromkeys(records):
        firsts.setdefault(vehicle, []).append(seq)
    assert count.disordered == sum(seqs != sorted(seqs) for seqs in firsts.values())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two shards of 4 and 5 vehicles, 6 records each; Kafka has 8 rows of the first and all of the second."""
    for shard, vehicles in ((0, 4), (1, 5)):
        writer = LogWriter(log_directory(tmp_path, "telemetry", shard))
        writer.append(make_batch(vehicles, range(6), first_vehicle=4 * shard), 12, 1_780_000_000_000_000_000)
    CursorFile(tmp_path, "kafka", "telemetry", 0).save(Cursor(8, 2, 1))
    CursorFile(tmp_path, "kafka", "telemetry", 1).save(Cursor(30))
    (tmp_path / "run.json").write_text(
        '{"run_id": "run-test", "state": "interrupted", "versions": {}, "period_s": 2.0,'
        ' "settings": {"vehicles": 9, "shards": 2, "kafka": "127.0.0.1:1", "duration": 12.0}}'
    )
    return tmp_path


def test_the_books_of_a_run_add_up(run: Path) -> None:
    ledger = Books(run).ledger()
    lines = {(line.stream, line.shard): line for line in ledger.lines}
    line = lines["telemetry", 0]
    assert (line.made, line.delivered, line.waiting, line.duplicates, line.dead_letters) == (24, 7, 16, 2, 1)
    assert line.made == line.delivered + line.dead_letters + line.waiting
    assert line.oldest_waiting is not None
    assert line.waiting_since is not None
    assert line.waiting_since.timestamp() == 1_780_000_000
    assert lines["telemetry", 1].waiting == 0
    assert not ledger.complete
    assert "kafka  telemetry      all    54         37       16" in table(ledger)


def away(*_: object) -> dict[Stream, Seen]:
    raise PeerSilent("Kafka at 127.0.0.1:1 does not answer")


def test_the_log_itself_is_counted_and_an_unreachable_peer_is_a_difference(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "kafka", away)
    ledger = verify(Books(run), None)
    log, kafka = ledger.verified
    assert log.complete
    assert log.counts["telemetry"].received == 54
    assert not kafka.complete
    assert "does not answer" in kafka.error
    assert not ledger.complete


def test_a_record_missing_in_the_log_is_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of shard 0 less than its neighbours have: everything behind it is in another place than it says."""
    log_file = next(log_directory(run, "telemetry", 0).glob("*.open"))
    log_file.unlink()
    writer = LogWriter(log_directory(run, "telemetry", 0))
    batch = make_batch(4, range(6))
    writer.append(batch.slice(0, 9), 1)
    writer.append(batch.slice(10), 2)
    monkeypatch.setattr(peers, "kafka", away)
    log = verify(Books(run), None).verified[0]
    assert log.counts["telemetry"].missing == 1
    assert any("missing 1, seq 2 to 2" in words for words in log.counts["telemetry"].differences)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInput, match="cannot read"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInput, match="expected run_id"):
        load_run(tmp_path)


def test_an_archive_torn_in_mid_line_goes_on_from_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_bytes(b'ev/battery/telemetry/EV-000001\t{"a":1}\nev/b\tbase64:AAEC\nev/battery/tele')
    assert list(messages(tmp_path)) == [("ev/battery/telemetry/EV-000001", b'{"a":1}'), ("ev/b", b"\0\1\2")]
    cut_torn_line(path)
    assert path.read_bytes().endswith(b"AAEC\n")
    path.write_bytes(b"torn")
    cut_torn_line(path)
    assert path.read_bytes() == b""
    path.write_bytes(b"ev/b\tfirst\nev/b\t" + bytes(500) + b"\nev/b\tlast\n")
    cut_torn_line(path)
    assert path.read_bytes() == b"ev/b\tfirst\n", "a power cut left zeros of what was not synced, nor was the rest"
