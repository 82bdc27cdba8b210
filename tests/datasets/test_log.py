"""The log: what was appended is what is read, before and after sealing, across crashes at any byte."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.log import LogFull, LogReader, LogWriter, read_all

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


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.sampled_from([1, 2, 5, 13, "read", "reopen", "fresh"]), min_size=1, max_size=25),
    segment_bytes=st.sampled_from([1, 3000, 1 << 20]),
)
def test_every_reader_sees_every_row_once_and_in_order(steps, segment_bytes, tmp_path_factory):
    directory = tmp_path_factory.mktemp("log")
    writer = LogWriter(directory, segment_bytes=segment_bytes)
    follower, seen = LogReader(directory), []
    for step in steps:
        if step == "read":
            seen += drain(follower)
        elif step == "reopen":
            writer.close()
            writer = LogWriter(directory, segment_bytes=segment_bytes)
        elif step == "fresh":
            follower.seek(len(seen))
        else:
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


def test_a_crash_at_any_byte_leaves_the_whole_frames(tmp_path: Path):
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


def test_flipped_bytes_end_the_log_before_them(tmp_path: Path):
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


def test_killed_between_rename_and_unlink(tmp_path: Path):
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 4), mark=1)
    kept = next(tmp_path.glob("*.open")).read_bytes()
    writer.close()
    (tmp_path / f"{0:020d}.open").write_bytes(kept)
    (tmp_path / f"{4:020d}.tmp").write_bytes(b"half")
    assert LogWriter(tmp_path).rows == 4
    assert not list(tmp_path.glob("*.open")) + list(tmp_path.glob("*.tmp"))


def test_a_follower_survives_sealing_under_its_feet(tmp_path: Path):
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 10), mark=1)
    follower = LogReader(tmp_path)
    first = follower.read(3)
    assert first is not None
    writer.close()
    assert first.batch.column("seq").to_pylist() + drain(follower) == list(range(10))
    follower.close()


def test_full_volume_is_said_and_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = LogWriter(tmp_path)
    writer.append(batch(0, 4), mark=1)
    real_write, calls = os.write, []

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
    assert table.num_rows == 8
