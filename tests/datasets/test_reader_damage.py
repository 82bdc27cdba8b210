"""A reader in a log that has lost rows: what is damaged, what is missing, and where it can go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.log import LogDamaged, LogReader, LogWriter
from datasets.log.segments import OPEN, SEALED, segment_path, segments_of
from tests.support import make_batch

VEHICLES = 2


def four_segments(directory: Path) -> list[int]:
    """A log of four sealed segments of 10 rows and an open one; the first row of each."""
    writer = LogWriter(directory)
    for first in range(0, 20, 5):
        writer.append(make_batch(VEHICLES, range(first, first + 5)), first)
        writer.roll()
    writer.sync()
    writer.append(make_batch(VEHICLES, range(20, 25)), 20)
    return [row for row, _ in segments_of(directory)]


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, len(content) // 2):
        content[place] ^= 0xFF
    path.write_bytes(content)


def rows_from(directory: Path, position: int) -> list[int]:
    with LogReader(directory, position) as reader:
        return [int(seq) for frame in reader.gather(1000) for seq in frame.batch.column("seq").to_pylist()]


def test_a_damaged_segment_says_where_the_log_goes_on(tmp_path: Path) -> None:
    _, second, third, *_ = four_segments(tmp_path)
    spoil(segment_path(tmp_path, second, SEALED))
    with LogReader(tmp_path) as reader:
        assert sum(frame.batch.num_rows for frame in reader.gather(1000)) == second, "what comes before is whole"
        for _ in range(2):  # and again, when it is asked again
            with pytest.raises(LogDamaged) as error:
                reader.gather(1000)
            assert error.value.readable_from == third
        reader.seek(third)
        assert reader.gather(1000)[0].row == third
    assert rows_from(tmp_path, third) == [seq for seq in range(10, 25) for _ in range(VEHICLES)]


def test_a_missing_segment_is_no_end_of_the_log(tmp_path: Path) -> None:
    _, second, third, *_ = four_segments(tmp_path)
    segment_path(tmp_path, second, SEALED).unlink()
    with LogReader(tmp_path) as reader:
        assert sum(frame.batch.num_rows for frame in reader.gather(1000)) == second
        with pytest.raises(LogDamaged, match=f"rows {second} to {third - 1} are missing") as error:
            reader.gather(1000)
        assert error.value.readable_from == third


def test_an_open_segment_with_a_damaged_frame_is_no_end_of_the_log(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    writer.append(make_batch(VEHICLES, range(5)), 5)
    whole = segment_path(tmp_path, 0, OPEN).stat().st_size
    writer.append(make_batch(VEHICLES, range(5, 10)), 10)
    with open(segment_path(tmp_path, 0, OPEN), "r+b") as file:
        file.seek(whole + 100)
        file.write(b"\xff" * 50)
    reader = LogReader(tmp_path)
    assert sum(frame.batch.num_rows for frame in reader.gather(1000)) == 10
    assert reader.gather(1000) == [], "as if the frame were not whole yet"
    segment_path(tmp_path, 20, OPEN).touch()
    with pytest.raises(LogDamaged, match="rows 10 to 19 are missing or damaged"):
        reader.gather(1000)
    reader.close()
    writer.close()


def test_what_retention_dropped_says_where_the_log_begins(tmp_path: Path) -> None:
    first, second, *_ = four_segments(tmp_path)
    segment_path(tmp_path, first, SEALED).unlink()
    with LogReader(tmp_path) as reader, pytest.raises(LogDamaged, match="not kept any more") as error:
        reader.read()
    assert error.value.readable_from == second


def test_a_batch_gathers_frames_up_to_its_size(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    for seq in range(20):
        writer.append(make_batch(VEHICLES, range(seq, seq + 1)), seq, 1000 + seq)
    with LogReader(tmp_path) as reader:
        first, second = reader.gather(15), reader.gather(1000)
    assert [frame.batch.num_rows for frame in first] == [2] * 7 + [1]
    assert [frame.due_ns for frame in first] == list(range(1000, 1008))
    assert [frame.row for frame in second][:2] == [15, 16], "the rest of the divided frame comes first"
    assert sum(frame.batch.num_rows for frame in second) == 25
    writer.close()
