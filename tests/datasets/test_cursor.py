"""Cursors and dead letters of a sink: what is on disk after a restart, a crash, an older version."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

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


def test_a_torn_cursor_is_the_one_before_it(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "kafka", "telemetry", 0)
    for position in (10, 20, 30):
        file.save(Cursor(position))
    whole = file.path.read_bytes()
    last = whole.index(b'"position": 30')
    for torn in (b"\0" * 60, b'"position": 40'):
        file.path.write_bytes(whole[:last] + torn + whole[last + len(torn) :])
        again = CursorFile(tmp_path, "kafka", "telemetry", 0)
        assert again.load() == Cursor(20)
        again.save(Cursor(50))
        assert again.load() == Cursor(50)


@pytest.mark.parametrize(
    "left",
    [b"", bytes(45), b'{"position": 7', bytes(1024), b"[]"],
    ids=["empty", "zeros", "torn", "zeros of its size", "other"],
)
def test_a_cursor_that_cannot_be_read_is_none(tmp_path: Path, left: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What a power cut or a bad disk has left ends nobody: delivery begins again, and one line says so."""
    file = CursorFile(tmp_path, "kafka", "telemetry", 0)
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(left)
    assert file.load() == Cursor()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be read" in caplog.text
    assert not file.exists()
    file.save(Cursor(5))
    assert file.load() == Cursor(5)


def test_a_cursor_of_an_older_version_goes_on_in_the_new_form(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "kafka", "telemetry", 0)
    file.path.parent.mkdir(parents=True)
    file.path.write_text('{"position": 77, "duplicates": 1, "dead": 0}')
    assert file.exists()
    file.save(Cursor(78, 1))
    assert file.load() == Cursor(78, 1)


def test_a_dead_letter_that_a_power_cut_has_left_as_zeros_comes_again(tmp_path: Path) -> None:
    batch = make_batch(2, range(1))
    letters = DeadLetterFile(tmp_path, "mqtt", "telemetry", 0)
    letters.add(0, batch.slice(0, 1), "a")
    letters.path.write_bytes(letters.path.read_bytes() + bytes(300) + b"\n")
    letters = DeadLetterFile(tmp_path, "mqtt", "telemetry", 0)
    assert len(letters) == 1
    letters.add(1, batch.slice(1, 1), "b")
    assert [json.loads(line)["position"] for line in letters.path.read_text().splitlines()] == [0, 1]


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
