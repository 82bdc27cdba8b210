"""Cursors and dead letters of a sink: what is on disk after a restart, a crash, an older version."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from datasets.log.cursor import Cursor, CursorFile, DeadLetterFile
from datasets.log.watch import Watch
from tests.support import HANG_S, make_batch


def test_a_cursor_comes_back(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "kafka", "telemetry", 3)
    assert file.load() == Cursor()
    file.save(Cursor(120, 5, 2))
    assert CursorFile(tmp_path, "kafka", "telemetry", 3).load() == Cursor(120, 5, 2)
    assert CursorFile(tmp_path, "mqtt", "telemetry", 3).load() == Cursor()


def test_a_cursor_of_an_older_version(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "kafka", "telemetry", 0)
    file.path.parent.mkdir(parents=True)
    file.path.write_text('{"position": 77}')
    assert file.load() == Cursor(77)


def test_a_dead_letter_is_kept_once(tmp_path: Path) -> None:
    batch = make_batch(2, range(3))
    letters = DeadLetterFile(tmp_path, "kafka", "telemetry", 0)
    for _ in range(2):
        letters.add(4, batch.slice(4, 1), "too large")
    letters = DeadLetterFile(tmp_path, "kafka", "telemetry", 0)
    letters.add(4, batch.slice(4, 1), "too large")
    letters.add(5, batch.slice(5, 1), "too large")
    assert len(letters) == 2
    lines = [json.loads(line) for line in letters.path.read_text().splitlines()]
    assert [(line["position"], line["id"], line["reason"]) for line in lines] == [
        (4, "run-test/EV-000000/2", "too large"),
        (5, "run-test/EV-000001/2", "too large"),
    ]
    assert lines[0]["payload"]["seq"] == 2


def test_a_line_torn_by_a_crash_is_written_again(tmp_path: Path) -> None:
    batch = make_batch(2, range(1))
    letters = DeadLetterFile(tmp_path, "mqtt", "telemetry", 0)
    letters.add(0, batch.slice(0, 1), "a")
    whole = letters.path.read_bytes()
    letters.add(1, batch.slice(1, 1), "b")
    letters.path.write_bytes(letters.path.read_bytes()[:-20])
    letters = DeadLetterFile(tmp_path, "mqtt", "telemetry", 0)
    assert len(letters) == 1
    assert letters.path.read_bytes() == whole
    letters.add(1, batch.slice(1, 1), "b")
    assert [json.loads(line)["position"] for line in letters.path.read_text().splitlines()] == [0, 1]


def test_a_watch_wakes_when_a_file_grows(tmp_path: Path) -> None:
    later = tmp_path / "run" / "later"
    watch = Watch([tmp_path, later])
    watch.wait(0)
    making = threading.Timer(0.1, lambda: later.mkdir(parents=True))
    making.start()
    begun = time.monotonic()
    watch.wait(HANG_S)
    assert time.monotonic() - begun < HANG_S, "also of one that is not there yet"
    making.join()
    for _ in range(3):  # what was made until now
        watch.wait(0.05)
    begun = time.monotonic()
    watch.wait(0.2)
    assert time.monotonic() - begun > 0.15, "nothing happens: the whole time"
    timer = threading.Timer(0.1, (later / "segment").write_bytes, [b"frame"])
    timer.start()
    begun = time.monotonic()
    watch.wait(HANG_S)
    assert time.monotonic() - begun < HANG_S
    timer.join()
    (tmp_path / "segment").write_bytes(b"between two waits")
    begun = time.monotonic()
    watch.wait(HANG_S)
    assert time.monotonic() - begun < HANG_S
    watch.close()
