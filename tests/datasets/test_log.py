"""The log: what was appended is what is read, before and after sealing, across crashes at any byte."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.log import (
    Extent,
    LogBusy,
    LogDamaged,
    LogFull,
    LogReader,
    LogWriter,
    drop_segments,
    extent,
    read_all,
)
from datasets.log.segments import publish_sealed
from tests.support import HANG_S, make_batch, wait_until

SCHEMA = pa.schema([("vehicle_id", pa.dictionary(pa.int32(), pa.string())), ("seq", pa.int64())])


def batch(start: int, rows: int) -> pa.RecordBatch:
    names = pa.array([f"EV-{i % 3:06d}" for i in range(start, start + rows)]).dictionary_encode()
    return pa.record_batch([names, pa.array(np.arange(start, start + rows))], schema=SCHEMA)


def drain(log: LogReader | Path, max_rows: int = 7) -> list[int]:
    if isinstance(log, Path):
        with LogReader(log) as reader:
            return drain(reader)
    reader = log
    seqs: list[int] = []
    while (frame := reader.read(max_rows)) is not None:
        assert frame.batch.num_rows <= max_rows
        assert frame.row == (seqs[-1] + 1 if seqs else frame.row)
        seqs += frame.batch.column("seq").to_pylist()
    return seqs


@settings(max_examples=60, derandomize=True)
@given(
    steps=st.lists(st.sampled_from([1, 2, 5, 13, "read", "reopen", "fresh"]), min_size=1, max_size=25),
    segment_bytes=st.sampled_from([1, 3000, 1 << 20]),
)
def test_every_reader_sees_every_row_once_and_in_order(
    steps: list[int | str], segment_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("log")
    writer = LogWriter(directory, segment_bytes=segment_bytes)
    follower = LogReader(directory)
    seen: list[int] = []
    for step in steps:
        if step == "read":
            seen += drain(follower)
        elif step == "reopen":
            writer.close()
            writer = LogWriter(directory, segment_bytes=segment_bytes)
        elif step == "fresh":
            follower.seek(len(seen))
        else:
            assert isinstance(step, int)
            writer.append(batch(writer.rows, step), mark=writer.rows + step)
    assert writer.mark == (writer.rows or -1)
    seen += drain(follower)
    assert seen == list(range(writer.rows))
    writer.close()
    assert not list(directory.glob("*.open"))
    assert drain(directory) == list(range(writer.rows))
    if writer.rows:
        table = pq.read_table(directory)
        assert sorted(table.column("seq").to_pylist()) == list(range(writer.rows))
        follower.seek(writer.rows // 2)
        assert drain(follower) == list(range(writer.rows // 2, writer.rows))
    follower.close()


def test_a_crash_at_any_byte_leaves_the_whole_frames(tmp_path: Path) -> None:
    original = tmp_path / "original"
    writer = LogWriter(original)
    ends = [0]
    for _ in range(3):
        writer.append(batch(writer.rows, 4), mark=writer.rows + 4)
        ends.append(next(original.glob("*.open")).stat().st_size)
    content = next(original.glob("*.open")).read_bytes()
    for size in sorted({*range(0, len(content), 37), *(end + d for end in ends for d in (-1, 0, 1))}):
        if not 0 <= size <= len(content):
            continue
        torn = tmp_path / f"torn-{size}"
        torn.mkdir()
        (torn / f"{0:020d}.open").write_bytes(content[:size])
        whole = sum(end <= size for end in ends[1:])
        assert drain(torn) == list(range(4 * whole))
        again = LogWriter(torn)
        assert (again.rows, again.mark) == (4 * whole, 4 * whole or -1)
        assert again.cut_bytes == size - ends[whole]
        again.append(batch(again.rows, 2), mark=99)
        again.close()
        assert drain(torn) == list(range(4 * whole + 2))


def test_flipped_bytes_end_the_log_before_them(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 4), mark=1)
    good = next(tmp_path.glob("*.open")).stat().st_size
    writer.append(batch(4, 4), mark=2)
    path = next(tmp_path.glob("*.open"))
    with open(path, "r+b") as file:
        file.seek(good + 200)
        byte = file.read(1)
        file.seek(good + 200)
        file.write(bytes([byte[0] ^ 0x10]))
    assert drain(tmp_path) == list(range(4))
    assert LogWriter(tmp_path).rows == 4


def test_killed_between_rename_and_unlink(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 4), mark=1)
    kept = next(tmp_path.glob("*.open")).read_bytes()
    writer.close()
    (tmp_path / f"{0:020d}.open").write_bytes(kept)
    (tmp_path / f"{4:020d}.tmp").write_bytes(b"half")
    assert LogWriter(tmp_path).rows == 4
    assert not list(tmp_path.glob("*.open")) + list(tmp_path.glob("*.tmp"))


def test_a_follower_survives_sealing_under_its_feet(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 10), mark=1)
    follower = LogReader(tmp_path)
    first = follower.read(3)
    assert first is not None
    writer.close()
    assert first.batch.column("seq").to_pylist() + drain(follower) == list(range(10))
    follower.close()


def test_full_volume_is_said_and_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 4), mark=1)
    real_write = os.write
    calls: list[int] = []

    def full(fd: int, data: memoryview) -> int:
        calls.append(1)
        if len(calls) == 1:
            return real_write(fd, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LogFull, match="no room"):
        writer.append(batch(4, 4), mark=2)
    monkeypatch.undo()
    assert drain(tmp_path) == list(range(4))
    writer.append(batch(4, 4), mark=2)
    assert drain(tmp_path) == list(range(8))
    table = read_all(tmp_path)
    assert table is not None
    assert table.num_rows == 8


def test_a_large_batch_is_a_sealed_segment_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In line with the frames before and after it, for readers that follow and for those that come late."""
    monkeypatch.setattr("datasets.log.writer.DIRECT_ROWS", 10)
    writer = LogWriter(tmp_path)
    follower = LogReader(tmp_path)
    seen: list[int] = []

    def all_read() -> bool:
        seen.extend(drain(follower))
        return len(seen) == writer.rows

    for rows in (3, 10, 12, 2, 4, 11):
        writer.append(batch(writer.rows, rows), mark=writer.rows + rows)
        wait_until(all_read)
    assert seen == list(range(42))
    assert extent(tmp_path) == Extent(0, 42, extent(tmp_path).bytes, 42)
    follower.close()
    writer.sync()  # a log has one writer: nothing of this one may be under way
    assert LogWriter(tmp_path).rows == 42
    writer.close()
    assert drain(tmp_path) == list(range(42))
    assert pq.read_table(tmp_path).num_rows == 42


def test_no_segment_is_seen_before_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader would take the rows between them for lost."""
    monkeypatch.setattr("datasets.log.writer.DIRECT_ROWS", 10)
    may_publish = threading.Event()

    def slowly(written: Path) -> None:
        may_publish.wait(HANG_S)
        publish_sealed(written)

    monkeypatch.setattr("datasets.log.writer.publish_sealed", slowly)
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 10), mark=10)
    later = threading.Thread(target=writer.append, args=(batch(10, 3), 13))
    later.start()
    later.join(0.2)
    assert not list(tmp_path.glob("0*.open")), "the next batch waits for it"
    may_publish.set()
    later.join()
    assert drain(tmp_path) == list(range(13))
    writer.close()


def test_a_segment_is_sealed_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never all of it in memory; frames whose dictionaries differ share a group."""
    monkeypatch.setattr("datasets.log.segments._ROW_GROUP", 100)
    writer = LogWriter(tmp_path)
    for number in range(30):
        writer.append(make_batch(1 + number % 3, range(10 * number, 10 * number + 10)), mark=number)
    rows = writer.rows
    writer.close()
    [path] = tmp_path.glob("*.parquet")
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [120] * 5
    table = read_all(tmp_path)
    assert table is not None
    assert (table.num_rows, extent(tmp_path).mark) == (rows, 29)
    assert table.column("vehicle_id").to_pylist() == [
        f"EV-{v:06d}" for n in range(30) for _ in range(10) for v in range(1 + n % 3)
    ]


@pytest.mark.parametrize("form", ["open", "sealed"])
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_end_is_cut_and_told(tmp_path: Path, form: str, damage: str) -> None:
    writer = LogWriter(tmp_path, segment_bytes=1)
    for _ in range(3):
        writer.append(batch(writer.rows, 400), mark=writer.rows + 400)
    writer.close()
    if form == "open":
        writer = LogWriter(tmp_path)
        writer.append(batch(1200, 400), mark=1600)
    victim = max(tmp_path.glob("*.open" if form == "open" else "*.parquet"))
    size = victim.stat().st_size
    if damage == "truncated":
        os.truncate(victim, size - 20)
    else:
        content = bytearray(victim.read_bytes())
        content[size // 2] ^= 0xFF
        victim.write_bytes(content)
    again = LogWriter(tmp_path)
    kept = 1200 if form == "open" else 800
    assert (again.rows, again.mark) == (kept, kept)
    assert again.cut_bytes > 0
    again.append(batch(again.rows, 400), mark=again.rows + 400)
    again.close()
    assert drain(tmp_path) == list(range(kept + 400))


def test_damage_further_back_is_said_and_not_passed_over(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, segment_bytes=1)
    for _ in range(3):
        writer.append(batch(writer.rows, 400), mark=writer.rows + 400)
    writer.close()
    victim = min(tmp_path.glob("*.parquet"))
    content = bytearray(victim.read_bytes())
    content[100] ^= 0xFF
    victim.write_bytes(content)
    assert LogWriter(tmp_path).rows == 1200
    with pytest.raises(LogDamaged, match="row 0 is damaged") as error:
        drain(tmp_path)
    assert "\n" not in str(error.value)


def test_a_footer_damaged_further_back_does_not_stop_the_writer(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, segment_bytes=1)
    for _ in range(3):
        writer.append(batch(writer.rows, 400), mark=writer.rows + 400)
    writer.close()
    victim = sorted(tmp_path.glob("*.parquet"))[1]
    os.truncate(victim, victim.stat().st_size - 20)
    again = LogWriter(tmp_path)
    assert (again.rows, again.mark, again.cut_bytes) == (1200, 1200, 0)
    again.append(batch(1200, 5), mark=1205)
    again.close()
    assert drain(LogReader(tmp_path, 800)) == list(range(800, 1205))
    with LogReader(tmp_path, 300) as reader, pytest.raises(LogDamaged, match=victim.name):
        drain(reader)


def test_a_sealed_twin_is_not_trusted_over_whole_frames(tmp_path: Path) -> None:
    """Older versions renamed it before its content was on the disk."""
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 400), mark=400)
    frames = next(tmp_path.glob("*.open")).read_bytes()
    writer.close()
    sealed = next(tmp_path.glob("*.parquet"))
    content = bytearray(sealed.read_bytes())
    content[len(content) // 3] ^= 0xFF
    sealed.write_bytes(content)
    sealed.with_suffix(".open").write_bytes(frames)
    again = LogWriter(tmp_path)
    assert (again.rows, again.mark, again.cut_bytes) == (400, 400, 0)
    again.close()
    assert drain(tmp_path) == list(range(400))


def test_a_cut_begins_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of it, the log must not begin where its first segment was: nothing would miss those rows."""
    for first in (0, 4, 8):
        other = tmp_path / str(first)
        writer = LogWriter(other, first_row=first)
        writer.append(batch(first, 4), mark=first + 4)
        (other / f"{first:020d}.open").rename(tmp_path / f"{first:020d}.open")
    os.truncate(tmp_path / f"{0:020d}.open", 10)
    removed: list[str] = []
    real = os.unlink

    def one_only(path: Path) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path.name)
        real(path)

    monkeypatch.setattr(os, "unlink", one_only)
    with pytest.raises(KeyboardInterrupt):
        LogWriter(tmp_path)
    monkeypatch.undo()
    assert (LogWriter(tmp_path).rows, drain(tmp_path)) == (0, [])


def test_a_log_that_holds_nothing_begins_where_it_is_told(tmp_path: Path) -> None:
    """An empty segment of an earlier beginning does not decide: its mark is unknown."""
    LogWriter(tmp_path, first_row=100, first_mark=20).close()
    again = LogWriter(tmp_path, first_row=160, first_mark=32)
    assert (again.rows, again.mark) == (160, 32)
    again.close()
    assert extent(tmp_path).first == 160


def test_a_log_can_begin_later(tmp_path: Path) -> None:
    """Where it was lost with its node: from a restart point on, with the same positions."""
    writer = LogWriter(tmp_path, first_row=100, first_mark=20)
    assert (writer.rows, writer.mark) == (100, 20)
    writer.append(batch(100, 5), mark=21)
    writer.close()
    assert LogWriter(tmp_path, first_row=7, first_mark=3).rows == 105, "what is there says more"
    with pytest.raises(LogDamaged, match="begins at row 100"):
        drain(tmp_path)
    assert drain(LogReader(tmp_path, 102)) == [102, 103, 104]
    ahead = LogReader(tmp_path, 110)  # a sink that had more than this log has yet
    assert ahead.read() is None


def test_segments_go_from_the_front_and_never_what_is_needed(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, segment_bytes=1)
    for _ in range(5):
        writer.append(batch(writer.rows, 10), mark=writer.rows + 10)
    writer.sync()
    now = time.time() + 100
    assert drop_segments(tmp_path, 50, older_than_s=1000, excess_bytes=0, now=now) == 0, "too young, and not too large"
    one = min(tmp_path.glob("*.parquet")).stat().st_size
    assert drop_segments(tmp_path, 25, older_than_s=1000, excess_bytes=one + 1, now=now) > one, "two go, by size"
    assert extent(tmp_path).first == 20
    assert drop_segments(tmp_path, 25, older_than_s=10, excess_bytes=0, now=now) == 0, "a cursor stands in the next"
    assert drop_segments(tmp_path, 50, older_than_s=10, excess_bytes=0, now=now) > 0, "by age, but for the last"
    assert extent(tmp_path).first == 40
    writer.append(batch(50, 3), mark=53)
    writer.close()
    assert LogWriter(tmp_path).rows == 53
    assert drain(LogReader(tmp_path, 40)) == list(range(40, 53))


def test_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; from pathlib import Path; from datasets.log import LogWriter; "
            f"LogWriter(Path({str(tmp_path)!r})); print('has it', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "has it\n"
    monkeypatch.setattr("datasets.log.writer._LOCK_PATIENCE_S", 0.2)
    with pytest.raises(LogBusy, match="is being written by another process"):
        LogWriter(tmp_path)
    other.kill()
    other.communicate()
    assert LogWriter(tmp_path).rows == 0
