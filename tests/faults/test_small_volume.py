"""A volume of its own that gets full: whoever writes there waits, says why, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.fleet.restart_points import RestartPoints
from actors.fleet.shard import Shard
from datasets.log import Cursor, CursorFile, DeadLetterFile, LogFull, LogWriter, extent, log_directory, read_all
from datasets.log.retention import Retention, retain
from tests.actors.test_shard import plan
from tests.services.fixtures import unavailable
from tests.support import make_batch, wait_until
from twin.run_directory import load_run, save_run

VOLUME = 16 << 20


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        unavailable(f"a volume of its own needs the right to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(volume: Path, *, leave: int = 0) -> Path:
    """Something else takes the room. Removing it makes room again."""
    ballast = volume / "ballast"
    stats = os.statvfs(volume)
    ballast.write_bytes(b"\0" * (stats.f_bavail * stats.f_frsize - leave))
    return ballast


def free(volume: Path) -> int:
    stats = os.statvfs(volume)
    return stats.f_bavail * stats.f_frsize


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that keep 1 MiB free."""
    monkeypatch.setattr("actors.fleet.shard.MIN_FREE_BYTES", 1 << 20)


def shard_of(volume: Path, **changes: Any) -> Shard:
    return Shard(plan(volume / "run", **changes))


def test_a_segment_left_open_is_sealed_as_soon_as_there_is_room(volume: Path) -> None:
    """Nobody appends any more: whoever waits for retention cannot, and only sealed segments can be dropped."""
    directory = log_directory(volume, "telemetry", 0)
    writer = LogWriter(directory)
    for number in range(10):
        writer.append(make_batch(500, range(number, number + 1)), number)
    ballast = fill(volume, leave=4096)
    writer.roll()
    writer.sync()
    assert [path.suffix for path in directory.glob("0*")] == [".open"], "left as it is; readers can read it"
    table = read_all(directory)
    assert table is not None
    assert table.num_rows == 5000
    ballast.unlink()
    wait_until(lambda: [path.suffix for path in directory.glob("0*")] == [".parquet"])
    writer.append(make_batch(500, range(10, 11)), 10)
    writer.roll()
    writer.sync()
    assert retain(volume, 0, Retention((), max_bytes=1), now=None)
    assert extent(directory).first == 5000, "it is dropped like any other"
    writer.close()


def test_a_log_is_opened_on_a_full_volume(volume: Path) -> None:
    directory = log_directory(volume, "telemetry", 0)
    writer = LogWriter(directory)
    for number in range(10):
        writer.append(make_batch(500, range(number, number + 1)), number)
    ballast = fill(volume)
    again = LogWriter(directory)  # as after a crash
    assert (again.rows, again.mark) == (5000, 9)
    with pytest.raises(LogFull):
        again.append(make_batch(500, range(10, 11)), 10)
    ballast.unlink()
    again.append(make_batch(500, range(10, 11)), 10)
    again.close()
    assert [path.suffix for path in sorted(directory.glob("0*"))] == [".parquet", ".parquet"]
    table = read_all(directory)
    assert table is not None
    assert table.num_rows == 5500


def test_shards_that_look_at_the_same_moment_leave_the_reserve_free(
    volume: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [shard_of(volume, shard=n, shards=4, vehicles=200, first_vehicle=200 * n) for n in range(4)]
    for shard in shards:
        shard.advance(20)
    ballast = fill(volume, leave=(1 << 20) + 900_000)
    looked = os.statvfs(volume)
    with monkeypatch.context() as patch:  # all have looked before the first one writes
        patch.setattr("actors.fleet.shard.os.statvfs", lambda path: looked)
        for shard in shards:
            shard.advance(80)
    assert free(volume) >= 1 << 20
    waiting = [shard.status().waiting_for for shard in shards]
    assert waiting == [f"room on the volume of {volume / 'run'}"] * 4
    ballast.unlink()
    for shard in shards:
        assert (shard.advance(80).waiting_for, shard.status().records) == ("", 200 * 40)
        shard.close()


def test_a_checkpoint_waits_for_room(volume: Path, small: None) -> None:
    shard = shard_of(volume, checkpoint_ticks=10_000)
    shard.advance(60)
    ballast = fill(volume)
    shard.inject(3, "internal_short", 0.0, 1.0)  # a checkpoint follows at once
    assert shard.status().waiting_for == f"room on the volume of {volume / 'run'}"
    assert shard.advance(120).tick == 60, "no block before it: a restart would compute it without the fault"
    assert shard.checkpoint() == (0, b"")
    assert not list((volume / "run" / "checkpoints").glob("*"))
    ballast.unlink()
    assert (shard.advance(120).waiting_for, shard.status().checkpoint_tick) == ("", 60)
    shard.close()


def test_a_shard_is_closed_when_there_is_room(volume: Path, small: None) -> None:
    shard = shard_of(volume)
    shard.advance(50)
    ballast = fill(volume)
    assert "room on the volume" in shard.close().waiting_for
    assert not list((volume / "run" / "truth").glob("**/*.parquet"))
    ballast.unlink()
    assert not shard.close().waiting_for
    assert [path.name for path in (volume / "run" / "truth").glob("**/*.parquet")] == ["2026.parquet"]
    assert extent(log_directory(volume / "run", "telemetry", 0)).end == 20 * 25


def test_what_retention_may_drop_makes_the_room_that_is_missing(
    volume: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.log.writer.DIRECT_ROWS", 100)
    monkeypatch.setattr("actors.fleet.shard._RETAIN_EVERY_S", 1e9)
    shard = shard_of(volume, vehicles=200, retention=Retention((), max_age_s=0.0), checkpoint_ticks=10_000)
    tick = 0
    while not (status := shard.advance(tick := tick + 200)).waiting_for:
        assert tick < 100_000
    assert "room" in status.waiting_for
    assert shard.advance(tick).waiting_for == ""
    shard.close()


def test_a_cursor_needs_no_room(volume: Path) -> None:
    """A sink that has delivered must be able to say so: that is what lets retention make room."""
    cursor = CursorFile(volume, "kafka", "telemetry", 0)
    cursor.save(Cursor(1))
    fill(volume)
    for position in range(2, 10):
        cursor.save(Cursor(position))
    assert cursor.load() == Cursor(9)


def test_a_dead_letter_waits_for_room(volume: Path) -> None:
    batch = make_batch(2, range(2000))
    letters = DeadLetterFile(volume, "kafka", "telemetry", 0)
    letters.add(0, batch.slice(0, 1), "a")
    ballast = fill(volume)
    full: list[str] = []
    while not full:  # what is left of the file's last page still takes some
        assert len(letters) < batch.num_rows
        before = letters.path.read_bytes()
        try:
            letters.add(len(letters), batch.slice(len(letters), 1), "b")
        except LogFull as error:
            full.append(str(error))
    assert "no room on the volume" in full[0]
    assert letters.path.read_bytes() == before, "nothing is half-written"
    ballast.unlink()
    letters.add(len(letters), batch.slice(len(letters), 1), "b")
    assert letters.path.read_bytes().count(b"\n") == len(letters) == before.count(b"\n") + 1


def test_run_json_waits_for_room_and_says_so(
    volume: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("datasets.log.durable._RETRY_S", 0.01)
    run = {"run_id": "r", "settings": {}, "versions": {}, "period_s": 2.0}
    save_run(volume, run | {"state": "running"})
    ballast = fill(volume)
    writing = threading.Thread(target=save_run, args=(volume, run | {"state": "finished"}))
    writing.start()
    wait_until(lambda: "no room on the volume" in caplog.text)
    assert load_run(volume)["state"] == "running"
    ballast.unlink()
    writing.join()
    assert load_run(volume)["state"] == "finished"
    assert len(caplog.records) == 1, "said once"


def test_a_restart_point_without_room_is_the_earlier_one(volume: Path) -> None:
    points = RestartPoints(volume)
    points.offer(0, 60, b"sixty")
    points.confirm(0)
    ballast = fill(volume)
    points.offer(0, 120, bytes(10_000))
    assert (points.pending(), points.load(0)) == ({}, b"sixty")
    assert not points.wants(0, 120), "not copied again and again"
    ballast.unlink()
    assert points.wants(0, 180)
    points.offer(0, 180, b"more")
    points.confirm(0)
    assert RestartPoints(volume).load(0) == b"more"
