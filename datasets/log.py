"""The append-only log of one stream of one shard: the outbox that every sink reads, and the embedded store.

A log is a directory of segments named by the row they begin with::

    telemetry/shard-0003/00000000000000000000.parquet   sealed: any Parquet reader opens it
    telemetry/shard-0003/00000000000000120000.open      growing: framed Arrow IPC, one frame a batch

A batch of `DIRECT_ROWS` or more becomes a sealed segment at once: as fast as it goes, each record is written only once.

A frame is a header (`_HEADER`: magic, payload length, CRC-32C, rows, mark, time its records were due) and one complete
Arrow IPC stream. One write(2) appends a frame, so a process killed at any byte leaves a log readable to its last whole
frame; `LogWriter` cuts a torn tail when it opens. A position is a count of rows since the log began: it means the same
before and after sealing, so a cursor never has to know about segments.

Durability: a frame survives the death of the process at once (it is in the page cache). It survives the machine's after
the next `sync`, which every checkpoint does (`fsync="checkpoint"`), or at once (`fsync="always"`, a disk's round trip
for each batch). What a dead machine took with it is made again, the same: a checkpoint is never ahead of the log.

Damage: opening a log for writing reads its last segment whole (CRC-32C a frame, a checksum a Parquet page) and cuts it
before the first byte that does not fit; `cut_bytes` says how much. A damaged segment further back stays, and reading it
is LogDamaged: to make it again, everything behind it would have to go.

One process writes a log: a lock on `.lock` in its directory makes the next one wait for a dying one, then LogBusy.

The `mark` is the writer's own progress (the shard's tick; the row a prediction was made from), stored with the frame so
that data and progress can never disagree.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

_MAGIC = b"EVL1"
# magic, payload bytes, CRC-32C of what follows it and the payload, rows, mark, time due [ns since the epoch]
_HEADER = struct.Struct("<4sIIIqq")
_CRC_FROM = struct.calcsize("<4sII")
_MARK_KEY = b"ev_log_mark"
_OPEN, _SEALED = ".open", ".parquet"
_ROW_GROUP = 1 << 16
_LOCK_PATIENCE_S = 15.0

DIRECT_ROWS = 1 << 17
SEGMENT_BYTES = 64 << 20

Fsync = Literal["checkpoint", "always"]


class LogFull(OSError):
    """The volume has no room. Nothing was lost or half-written: wait, then append the same batch again."""


class LogDamaged(RuntimeError):
    """A sealed segment cannot be read, or rows are missing: between two segments, or before the first (retention)."""


class LogBusy(RuntimeError):
    """Another process writes this log."""


@dataclass(frozen=True)
class Frame:
    """One batch as it was appended. `row` is the position of its first row; `due_ns` is 0 where it is forgotten."""

    row: int
    batch: pa.RecordBatch
    mark: int
    due_ns: int


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


def _encode(batch: pa.RecordBatch, mark: int, due_ns: int | None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    payload = sink.getvalue()
    rest = struct.pack("<Iqq", batch.num_rows, mark, time.time_ns() if due_ns is None else due_ns)
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
        magic, size, crc, rows, mark, due_ns = _HEADER.unpack(header)
        if magic != _MAGIC:
            return None
        payload = os.pread(self._file.fileno(), size, self.offset + _HEADER.size)
        if len(payload) < size or crc32c.crc32c(payload, crc32c.crc32c(header[_CRC_FROM:])) != crc:
            return None
        batch = pa.ipc.open_stream(payload).read_next_batch()
        frame = Frame(self.row, batch, mark, due_ns)
        self.row += rows
        self.offset += _HEADER.size + size
        return frame

    def skip(self, position: int | None = None) -> int | None:
        """Pass over one frame (that ends at or before `position`) without reading its payload; its mark, or None."""
        header = os.pread(self._file.fileno(), _HEADER.size, self.offset)
        if len(header) < _HEADER.size:
            return None
        magic, size, _, rows, mark, _ = _HEADER.unpack(header)
        end = self.offset + _HEADER.size + size
        if magic != _MAGIC or (position is not None and self.row + rows > position):
            return None
        if end > os.fstat(self._file.fileno()).st_size:
            return None
        self.row += rows
        self.offset = end
        return int(mark)

    def skip_to(self, position: int) -> None:
        """Pass over the frames that end at or before `position`."""
        while self.skip(position) is not None:
            pass

    def close(self) -> None:
        self._file.close()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_sealed(directory: Path, row: int, frames: Iterable[Frame]) -> Path:
    """Write a sealed segment, whole or not at all; not yet synced. Holds no more than a row group in memory."""
    target = _segment_path(directory, row, _SEALED)
    temporary = target.with_suffix(".tmp")
    frames = iter(frames)
    frame = next(frames)
    schema = frame.batch.schema
    floats = [f.name for f in schema if pa.types.is_floating(f.type)]
    keys = [f.name for f in schema if not pa.types.is_floating(f.type)]
    # Statistics for what queries cut by: time and sequence. Of 5,000 names in every row group they would be no use.
    cuts = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_timestamp(f.type)]
    try:
        with pq.ParquetWriter(
            temporary,
            schema,
            compression="lz4",
            use_dictionary=keys,
            use_byte_stream_split=floats,  # a third less on disk, and faster, than plain floats
            write_statistics=cuts,
            write_page_checksum=True,
        ) as writer:
            group = [frame.batch]
            rows = frame.batch.num_rows
            for frame in frames:
                if rows >= _ROW_GROUP:
                    writer.write_table(_joined(group))
                    group, rows = [], 0
                group.append(frame.batch)
                rows += frame.batch.num_rows
            writer.write_table(_joined(group))
            writer.add_key_value_metadata({_MARK_KEY: str(frame.mark)})
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target


def _joined(batches: list[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return table.unify_dictionaries() if len(batches) > 1 else table


def _seal(directory: Path, row: int) -> None:
    """Write the open segment that begins at `row` as Parquet, then remove it. Atomic: either file is whole."""
    source = _segment_path(directory, row, _OPEN)
    with closing(_OpenSegment(source, row)) as segment:
        _fsync(_write_sealed(directory, row, iter(segment.read, None)))
    source.unlink()
    pa.default_memory_pool().release_unused()


def _sealed_end(path: Path, first: int, *, whole: bool) -> tuple[int, int]:
    """(row behind it, mark) of a sealed segment; LogDamaged where it cannot be read. `whole` reads every page."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if whole:
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
            return first + file.metadata.num_rows, int(file.metadata.metadata[_MARK_KEY])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise LogDamaged(f"{path} is damaged ({' '.join(str(error).split())[:120]})") from error


@dataclass(frozen=True)
class Extent:
    """What a log holds: rows [first, end), its bytes, and the writer's mark behind them (-1: none known)."""

    first: int
    end: int
    bytes: int
    mark: int


def extent(directory: Path) -> Extent:
    """Look at a log without writing, also while it grows. LogDamaged where its last segment cannot be read.

    Segments are named by their first row, so only the last one is opened, however long the log.
    """
    try:
        segments = [(row, suffix, _segment_path(directory, row, suffix)) for row, suffix in _segments(directory)]
    except FileNotFoundError:
        segments = []
    if not segments:
        return Extent(0, 0, 0, -1)
    size = 0
    for number, (row, _, path) in enumerate(segments):
        if number and row == segments[number - 1][0]:
            continue  # the open twin of a segment just sealed
        with suppress(FileNotFoundError):  # dropped, or sealed, between two looks
            size += path.stat().st_size
    # Of the newest row's segments the sealed one comes first, and holds what its open twin held.
    row, suffix, path = next(segment for segment in segments if segment[0] == segments[-1][0])
    if suffix == _SEALED:
        end, mark = _sealed_end(path, row, whole=False)
        return Extent(segments[0][0], end, size, mark)
    try:
        segment = _OpenSegment(path, row)
    except FileNotFoundError:
        return extent(directory)  # sealed between two looks
    mark = -1
    while (marked := segment.skip()) is not None:
        mark = marked
    segment.close()
    return Extent(segments[0][0], segment.row, size, mark)


def drop_segments(directory: Path, before_row: int, *, older_than_s: float, excess_bytes: int, now: float) -> int:
    """Remove sealed segments that end at or before `before_row`, oldest first; the bytes that gave.

    A segment goes if it was written more than `older_than_s` ago, or as long as `excess_bytes` are not yet freed.
    Never the last segment: it says where the log goes on.
    """
    freed = 0
    segments = _segments(directory) if directory.is_dir() else []
    for (row, suffix), (next_row, _) in pairwise(segments):
        path = _segment_path(directory, row, suffix)
        if suffix != _SEALED or next_row > before_row or next_row == row:
            break
        stat = path.stat()
        if now - stat.st_mtime <= older_than_s and freed >= excess_bytes:
            break
        path.unlink()
        freed += stat.st_size
    return freed


class LogWriter:
    """The one writer of a log. Opening it repairs what a crash left and seals it; then `append` adds batches.

    `segment_bytes` bounds an open segment; sealing runs in a thread of its own, at most `_PENDING` behind (then
    `append` waits). `first_row`, `first_mark`: where a log that is not there yet begins (one that was lost with its
    node, and goes on from a restart point). LogBusy where another process writes it.
    """

    _PENDING = 2

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: Fsync = "checkpoint",
        first_row: int = 0,
        first_mark: int = -1,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._always = fsync == "always"
        self._fd: int | None = None
        self._size = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(directory)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._tasks: deque[Future[None]] = deque()
        self._left_open: list[int] = []
        self.cut_bytes = 0
        self.rows, self.mark = self._recover(first_row, first_mark)
        self._first_row = self.rows
        if self.rows and not _segments(directory):
            self._open_segment()  # so that readers see where this log begins

    def _recover(self, rows: int, mark: int) -> tuple[int, int]:
        """Cut what is damaged, seal what was open, drop whatever does not join on; the end row and the last mark."""
        for temporary in self._directory.glob("*.tmp"):
            temporary.unlink()
        segments = _segments(self._directory)
        if segments:
            rows = segments[0][0]
        for number, (first, suffix) in enumerate(segments):
            path = _segment_path(self._directory, first, suffix)
            if suffix == _OPEN and _segment_path(self._directory, first, _SEALED).exists():
                path.unlink()  # killed between rename and unlink: the sealed twin is whole
                continue
            if first != rows:  # behind a cut: the deterministic writer makes these rows again
                self.cut_bytes += path.stat().st_size
                path.unlink()
                continue
            if suffix == _SEALED:
                try:
                    rows, mark = _sealed_end(path, first, whole=number == len(segments) - 1)
                except LogDamaged:
                    if number < len(segments) - 1:
                        raise
                    self.cut_bytes += path.stat().st_size
                    path.unlink()
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

    def append(self, batch: pa.RecordBatch, mark: int, due_ns: int | None = None) -> None:
        """Add a batch, readable when this returns. LogFull (nothing written) where there is no room.

        `due_ns`: when its records were due [ns since the epoch]; default now. Latencies count from then.
        """
        try:
            if batch.num_rows >= DIRECT_ROWS:
                self._append_sealed(batch, mark)
            else:
                self._append_frame(_encode(batch, mark, due_ns))
        except OSError as error:
            raise self._full_or(error) from error
        self.rows += batch.num_rows
        self.mark = mark
        if self._always:
            self.sync()
        if self._size >= self._segment_bytes:
            self.roll()

    def _append_sealed(self, batch: pa.RecordBatch, mark: int) -> None:
        self.roll()
        path = _write_sealed(self._directory, self.rows, [Frame(self.rows, batch, mark, 0)])
        self._later(_fsync, path)

    def _open_segment(self) -> None:
        self._first_row = self.rows
        path = _segment_path(self._directory, self.rows, _OPEN)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0

    def _append_frame(self, frame: bytes) -> None:
        if self._fd is None:
            self._open_segment()
        assert self._fd is not None
        try:
            written = 0
            view = memoryview(frame)
            while written < len(frame):
                written += os.write(self._fd, view[written:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(frame)

    @staticmethod
    def _full_or(error: OSError) -> OSError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return LogFull(errno.ENOSPC, "no room on the log's volume; waiting for space", error.filename)
        return error

    def roll(self) -> None:
        """Seal what is open, in the background; the next batch begins a new segment."""
        if self._fd is None:
            return
        os.fsync(self._fd)
        os.close(self._fd)
        empty = self._size == 0
        self._fd, self._size = None, 0
        if empty:
            _segment_path(self._directory, self._first_row, _OPEN).unlink()
            return
        self._later(self._seal_or_leave, self._first_row)

    def _seal_or_leave(self, row: int) -> None:
        """A segment for whose Parquet form there is no room stays open: readers read it all the same."""
        try:
            _seal(self._directory, row)
        except OSError as error:
            if not isinstance(self._full_or(error), LogFull):
                raise
            self._left_open.append(row)

    def _later(self, task: Callable[..., None], *arguments: Any) -> None:
        """Hand the disk's work to the background thread; wait for it where it is `_PENDING` behind."""
        self._tasks.append(self._background.submit(task, *arguments))
        while len(self._tasks) > self._PENDING or (self._tasks and self._tasks[0].done()):
            self._tasks.popleft().result()

    def sync(self) -> None:
        """Make all that was appended survive the machine."""
        while self._tasks:
            self._tasks.popleft().result()
        if self._fd is not None:
            os.fsync(self._fd)
        _fsync(self._directory)

    def close(self) -> None:
        """Seal what is open and wait until every segment is Parquet."""
        try:
            self.roll()
            self.sync()
            left, self._left_open = self._left_open, []
            for row in left:
                self._seal_or_leave(row)
        finally:
            self._background.shutdown()
            os.close(self._lock)


def _lock(directory: Path) -> int:
    """A lock that ends with this process. POSIX: between processes; the same process may open its log again."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise LogBusy(f"{directory} is being written by another process; end that one first") from None
            time.sleep(0.1)


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
            self._rest = Frame(frame.row + taken, frame.batch.slice(taken), frame.mark, frame.due_ns)
        else:
            self._rest = None
        self.position = frame.row + taken
        return Frame(frame.row, frame.batch.slice(0, taken), frame.mark, frame.due_ns)

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
                return Frame(self.position, frame.batch.slice(skip), frame.mark, frame.due_ns) if skip else frame
            if not self._enter_segment():
                return None

    def _from_open(self) -> Frame | None:
        return None if self._open is None else self._open.read()

    def _from_sealed(self) -> Frame | None:
        assert self._sealed is not None
        try:
            batch = next(self._sealed, None)
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())[:120]
            raise LogDamaged(
                f"{self._directory}: the segment that holds row {self.position:,} is damaged ({said})"
            ) from error
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
            segments = _segments(self._directory)
        except FileNotFoundError:
            return False  # the writer has not made the directory yet
        candidates = [s for s in segments if s[0] <= self.position]
        if not candidates:
            if segments:
                raise LogDamaged(
                    f"{self._directory} begins at row {segments[0][0]:,}, row {self.position:,} was asked for; "
                    "what came before is not kept any more"
                )
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
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise LogDamaged(f"{path} is damaged ({' '.join(str(error).split())[:120]})") from error
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
