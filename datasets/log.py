"""The append-only log of one stream of one shard: the outbox that every sink reads, and the embedded store.

A log is a directory of segments named by the row they begin with::

    telemetry/shard-0003/00000000000000000000.parquet   sealed: any Parquet reader opens it
    telemetry/shard-0003/00000000000000120000.open      growing: framed Arrow IPC, one frame a batch

A frame is a header (`_HEADER`: magic, payload length, CRC-32C, rows, mark, time of writing) and one complete Arrow IPC
stream. One write(2) appends a frame, so a process killed at any byte leaves a log readable to its last whole frame;
`LogWriter` cuts a torn tail when it opens. A position is a count of rows since the log began: it means the same before
and after sealing, so a cursor never has to know about segments.

Durability: a frame survives the death of the process at once (it is in the page cache) and of the machine after the
next `sync`, which sealing and every checkpoint do.

The `mark` is the writer's own progress (the shard's tick; the row a prediction was made from), stored with the frame so
that data and progress can never disagree.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

_MAGIC = b"EVL1"
# magic, payload bytes, CRC-32C of what follows it and the payload, rows, mark, time written [ns since the epoch]
_HEADER = struct.Struct("<4sIIIqq")
_CRC_FROM = struct.calcsize("<4sII")
_MARK_KEY = b"ev_log_mark"
_OPEN, _SEALED = ".open", ".parquet"
_ROW_GROUP = 1 << 18


class LogFull(OSError):
    """The volume has no room. Nothing was lost or half-written: wait, then append the same batch again."""


class LogDamaged(RuntimeError):
    """A sealed segment cannot be read, or rows are missing between two segments."""


@dataclass(frozen=True)
class Frame:
    """One batch as it was appended. `row` is the position of its first row."""

    row: int
    batch: pa.RecordBatch
    mark: int
    written_ns: int


def _segment_path(directory: Path, row: int, suffix: str) -> Path:
    return directory / f"{row:020d}{suffix}"


def _segments(directory: Path) -> list[tuple[int, str]]:
    """(first row, suffix) of every segment, in order; a sealed one before its not yet removed open twin."""
    found = []
    for entry in os.scandir(directory):
        stem, suffix = os.path.splitext(entry.name)
        if suffix in (_OPEN, _SEALED) and stem.isdigit():
            found.append((int(stem), suffix))
    return sorted(found, key=lambda item: (item[0], item[1] == _OPEN))


def _encode(batch: pa.RecordBatch, mark: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    payload = sink.getvalue()
    rest = struct.pack("<Iqq", batch.num_rows, mark, time.time_ns())
    crc = crc32c.crc32c(payload, crc32c.crc32c(rest))
    return b"".join((struct.pack("<4sII", _MAGIC, payload.size, crc), rest, payload))


class _OpenSegment:
    """Reads the frames of a growing segment from a file descriptor it keeps, so sealing cannot pull it away."""

    def __init__(self, path: Path, row: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (lives as long as this object)
        self.first = row
        self.row = row
        self.offset = 0

    def read(self) -> Frame | None:
        """The next whole, undamaged frame, or None where there is none (yet)."""
        header = os.pread(self._file.fileno(), _HEADER.size, self.offset)
        if len(header) < _HEADER.size:
            return None
        magic, size, crc, rows, mark, written_ns = _HEADER.unpack(header)
        if magic != _MAGIC:
            return None
        payload = os.pread(self._file.fileno(), size, self.offset + _HEADER.size)
        if len(payload) < size or crc32c.crc32c(payload, crc32c.crc32c(header[_CRC_FROM:])) != crc:
            return None
        batch = pa.ipc.open_stream(payload).read_next_batch()
        frame = Frame(self.row, batch, mark, written_ns)
        self.row += rows
        self.offset += _HEADER.size + size
        return frame

    def skip_to(self, position: int) -> None:
        """Pass over the frames that end at or before `position` without reading their payload."""
        size_on_disk = os.fstat(self._file.fileno()).st_size
        while True:
            header = os.pread(self._file.fileno(), _HEADER.size, self.offset)
            if len(header) < _HEADER.size:
                return
            magic, size, _, rows, _, _ = _HEADER.unpack(header)
            end = self.offset + _HEADER.size + size
            if magic != _MAGIC or self.row + rows > position or end > size_on_disk:
                return
            self.row += rows
            self.offset = end

    def close(self) -> None:
        self._file.close()


def _seal(directory: Path, row: int) -> None:
    """Write the open segment that begins at `row` as Parquet, then remove it. Atomic: either file is whole."""
    source = _segment_path(directory, row, _OPEN)
    target = _segment_path(directory, row, _SEALED)
    segment = _OpenSegment(source, row)
    frames: list[Frame] = []
    while (frame := segment.read()) is not None:
        frames.append(frame)
    segment.close()
    table = pa.Table.from_batches([f.batch for f in frames]).unify_dictionaries()
    keys = [f.name for f in table.schema if not pa.types.is_floating(f.type)]
    temporary = target.with_suffix(".tmp")
    schema = table.schema.with_metadata({_MARK_KEY: str(frames[-1].mark).encode()})
    with pq.ParquetWriter(temporary, schema, compression="lz4", use_dictionary=keys) as writer:
        writer.write_table(table.cast(schema), row_group_size=_ROW_GROUP)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    source.unlink()


class LogWriter:
    """The one writer of a log. Opening it repairs what a crash left and seals it; then `append` adds batches.

    `segment_bytes` bounds an open segment; sealing runs in a thread of its own, at most `_PENDING_SEALS` behind (then
    `append` waits).
    """

    _PENDING_SEALS = 2

    def __init__(self, directory: Path, *, segment_bytes: int = 64 << 20) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._seals: deque[Future[None]] = deque()
        self._fd: int | None = None
        self._size = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.cut_bytes = 0
        self.rows, self.mark = self._recover()
        self._first_row = self.rows

    def _recover(self) -> tuple[int, int]:
        """Cut torn frames, seal what was open, drop whatever does not join on; the end row and the last mark."""
        rows, mark = 0, -1
        for temporary in self._directory.glob("*.tmp"):
            temporary.unlink()
        for first, suffix in _segments(self._directory):
            path = _segment_path(self._directory, first, suffix)
            if suffix == _OPEN and _segment_path(self._directory, first, _SEALED).exists():
                path.unlink()  # killed between rename and unlink: the sealed twin is whole
                continue
            if first != rows:  # behind a cut: the deterministic writer makes these rows again
                self.cut_bytes += path.stat().st_size
                path.unlink()
                continue
            if suffix == _SEALED:
                metadata = pq.read_metadata(path)
                rows += metadata.num_rows
                mark = int(metadata.metadata[_MARK_KEY])
                continue
            segment = _OpenSegment(path, first)
            while (frame := segment.read()) is not None:
                mark = frame.mark
            segment.close()
            self.cut_bytes += path.stat().st_size - segment.offset
            os.truncate(path, segment.offset)
            if segment.row == first:
                path.unlink()
            else:
                _seal(self._directory, first)
            rows = segment.row
        return rows, mark

    def append(self, batch: pa.RecordBatch, mark: int) -> None:
        """Add a batch as one frame, readable when this returns. LogFull (nothing written) where there is no room."""
        frame = _encode(batch, mark)
        if self._fd is None:
            self._first_row = self.rows
            path = _segment_path(self._directory, self.rows, _OPEN)
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise self._full_or(error) from error
            self._size = 0
        try:
            written = 0
            view = memoryview(frame)
            while written < len(frame):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            raise self._full_or(error) from error
        self._size += len(frame)
        self.rows += batch.num_rows
        self.mark = mark
        if self._size >= self._segment_bytes:
            self._roll()

    @staticmethod
    def _full_or(error: OSError) -> OSError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return LogFull(error.errno, "no room on the log's volume; waiting for space", error.filename)
        return error

    def _roll(self) -> None:
        if self._fd is None:
            return
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = None
        self._seals.append(self._sealer.submit(_seal, self._directory, self._first_row))
        while len(self._seals) > self._PENDING_SEALS or (self._seals and self._seals[0].done()):
            self._seals.popleft().result()

    def sync(self) -> None:
        """Make all that was appended survive the machine."""
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Seal what is open and wait until every segment is Parquet."""
        self._roll()
        while self._seals:
            self._seals.popleft().result()
        self._sealer.shutdown()


class LogReader:
    """Reads a log from a position on, while it grows. Many readers may follow one writer, from any process."""

    def __init__(self, directory: Path, position: int = 0) -> None:
        self._directory = directory
        self.position = position
        self._open: _OpenSegment | None = None
        self._sealed: Iterator[pa.RecordBatch] | None = None
        self._sealed_end = 0
        self._rest: Frame | None = None

    def read(self, max_rows: int = 1 << 16) -> Frame | None:
        """The next rows, at most `max_rows`, never across a frame's end; None where the log ends for now."""
        frame = self._rest or self._next_frame()
        if frame is None:
            return None
        taken = min(max_rows, frame.batch.num_rows)
        if taken < frame.batch.num_rows:
            self._rest = Frame(frame.row + taken, frame.batch.slice(taken), frame.mark, frame.written_ns)
        else:
            self._rest = None
        self.position = frame.row + taken
        return Frame(frame.row, frame.batch.slice(0, taken), frame.mark, frame.written_ns)

    def seek(self, position: int) -> None:
        """Go on from `position`."""
        self.close()
        self.position = position

    def _next_frame(self) -> Frame | None:
        while True:
            frame = self._from_sealed() if self._sealed is not None else self._from_open()
            if frame is not None:
                skip = self.position - frame.row
                if skip >= frame.batch.num_rows:
                    continue
                return Frame(self.position, frame.batch.slice(skip), frame.mark, frame.written_ns) if skip else frame
            if not self._enter_segment():
                return None

    def _from_open(self) -> Frame | None:
        return None if self._open is None else self._open.read()

    def _from_sealed(self) -> Frame | None:
        assert self._sealed is not None
        batch = next(self._sealed, None)
        if batch is None:
            self._sealed = None
            return None
        # Only the last frame's mark and time outlive sealing; a reader of old rows needs neither.
        frame = Frame(self._sealed_end, batch, -1, 0)
        self._sealed_end += batch.num_rows
        return frame

    def _enter_segment(self) -> bool:
        """Open the segment that holds `position`; False where there is none beyond the one being read."""
        try:
            candidates = [s for s in _segments(self._directory) if s[0] <= self.position]
        except FileNotFoundError:
            return False  # the writer has not made the directory yet
        if not candidates:
            return False
        first = candidates[-1][0]
        if self._open is not None and self._open.first == first:
            return False  # still the newest segment: nothing more for now
        try:
            segment = _OpenSegment(_segment_path(self._directory, first, _OPEN), first)
        except FileNotFoundError:
            return self._enter_sealed(first)
        if self._open is not None:
            self._open.close()
        segment.skip_to(self.position)
        self._open = segment
        return True

    def _enter_sealed(self, first: int) -> bool:
        path = _segment_path(self._directory, first, _SEALED)
        if not path.exists():
            return False  # sealed and replaced between two looks: the next call finds it
        file = pq.ParquetFile(path)
        if first + file.metadata.num_rows <= self.position:
            return False
        if self._open is not None:
            self._open.close()
            self._open = None
        groups, row = [], first
        start = None
        for index in range(file.num_row_groups):
            end = row + file.metadata.row_group(index).num_rows
            if end > self.position:
                start = row if start is None else start
                groups.append(index)
            row = end
        assert start is not None
        self._sealed = file.iter_batches(batch_size=1 << 16, row_groups=groups)
        self._sealed_end = start
        return True

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; `read` opens them again."""
        if self._open is not None:
            self._open.close()
        self._open, self._sealed, self._rest = None, None, None


def log_directory(run: Path, stream: str, shard: int) -> Path:
    """Where a run keeps the log of one stream of one shard."""
    return run / stream / f"shard-{shard:04d}"


def read_all(directory: Path) -> Any:
    """Every row of a log as one pyarrow Table, sealed or not, for tests and reports; None where it is empty."""
    batches = []
    with LogReader(directory) as reader:
        while (frame := reader.read(1 << 20)) is not None:
            batches.append(frame.batch)
    return pa.Table.from_batches(batches).unify_dictionaries() if batches else None
