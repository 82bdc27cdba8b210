"""Retention: by age and by size, and a cursor is never overtaken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from datasets.log import LogReader, LogWriter, extent, log_directory
from datasets.log.cursor import Cursor, CursorFile
from datasets.log.retention import Retention, retain, saves
from datasets.schema import Stream
from tests.support import make_batch

READERS: tuple[tuple[Stream, tuple[str, ...]], ...] = (
    ("telemetry", ("kafka", "predictor")),
    ("predictions", ("kafka",)),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten segments of telemetry, three of predictions."""
    counts: dict[Stream, int] = {"telemetry": 10, "predictions": 3}
    for stream, count in counts.items():
        writer = LogWriter(log_directory(tmp_path, stream, 0), segment_bytes=1)
        for number in range(count):
            writer.append(make_batch(10, range(number * 10, number * 10 + 10), stream=stream), number)
        writer.close()
    return tmp_path


def cursors(run: Path, **rows: int) -> None:
    for name, position in rows.items():
        reader, stream = name.split("_")
        CursorFile(run, reader, stream, 0).save(Cursor(position))


def first(run: Path) -> int:
    return extent(log_directory(run, "telemetry", 0)).first


def test_the_slowest_cursor_decides(run: Path) -> None:
    cursors(run, kafka_telemetry=1000, predictor_telemetry=350, kafka_predictions=300)
    assert retain(run, 0, Retention(READERS, max_age_s=10), now=time.time() + 100)
    assert first(run) == 300
    assert extent(log_directory(run, "predictions", 0)).first == 200, "the last segment stays"
    with LogReader(log_directory(run, "telemetry", 0), 350) as reader:
        frame = reader.read()
    assert frame is not None
    assert frame.row == 350


def test_a_full_log_that_is_needed_makes_the_shard_wait(run: Path) -> None:
    retention = Retention(READERS, max_bytes=1)
    assert not retain(run, 0, retention), "nobody has read anything"
    assert first(run) == 0
    cursors(run, kafka_telemetry=1000, predictor_telemetry=1000, kafka_predictions=0)
    assert not retain(run, 0, retention), "predictions wait for Kafka"
    cursors(run, kafka_predictions=300)
    assert retain(run, 0, retention), "all is delivered: what is left does not stop the shard"
    assert first(run) == 900


def test_by_size_the_oldest_go(run: Path) -> None:
    cursors(run, kafka_telemetry=1000, predictor_telemetry=1000, kafka_predictions=300)
    size = sum(extent(log_directory(run, stream, 0)).bytes for stream in ("telemetry", "predictions"))
    assert retain(run, 0, Retention(READERS, max_bytes=size * 0.75))
    held = sum(extent(log_directory(run, stream, 0)).bytes for stream in ("telemetry", "predictions"))
    assert held <= size * 0.75
    assert held > size * 0.5, "no more than asked for"


def test_what_nobody_reads_goes_by_age_alone(run: Path) -> None:
    assert retain(run, 0, Retention((), max_age_s=10), now=time.time() + 100)
    assert first(run) == 900


def test_what_was_made_of_the_rows_is_on_the_disk_before_they_go(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut no cursor, and no prediction's mark, may be older than the log."""
    cursors(run, kafka_telemetry=1000, predictor_telemetry=1000, kafka_predictions=310)
    predictions = LogWriter(log_directory(run, "predictions", 0))
    predictions.append(make_batch(10, range(30, 31), stream="predictions"), 31)
    happened: list[str] = []
    sync, unlink = os.fsync, os.unlink

    def synced(descriptor: int) -> None:
        happened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def unlinked(path: Path) -> None:
        happened.append("unlink")
        unlink(path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "unlink", unlinked)
    assert retain(run, 0, Retention(READERS, max_bytes=1))
    before = happened[: happened.index("unlink")]
    assert {Path(path).suffix for path in before} >= {".open", ".json"}
    assert {Path(path).parent.name for path in before if path.endswith(".json")} == {"kafka", "predictor"}
    predictions.close()


def test_the_last_sealed_segment_stays(run: Path) -> None:
    """What comes after it may be lost with the machine, and the log must still say where it continues."""
    writer = LogWriter(log_directory(run, "telemetry", 0))
    writer.append(make_batch(10, range(100, 101)), 101)
    assert retain(run, 0, Retention((), max_age_s=10), now=time.time() + 100)
    assert first(run) == 900
    writer.close()


def test_a_cursor_counts_when_its_peer_was_asked_since_the_start(run: Path) -> None:
    """A database may be older than its cursor file: what it needs must not go before it has said so."""
    cursors(run, kafka_telemetry=1000, predictor_telemetry=1000, kafka_predictions=300)
    retention = Retention(READERS, max_bytes=1)
    started = saves(run, 0, retention)
    assert not retain(run, 0, retention, since=started)
    assert first(run) == 0
    cursors(run, kafka_telemetry=150, predictor_telemetry=1000, kafka_predictions=300)
    assert not retain(run, 0, retention, since=started)
    assert first(run) == 100
