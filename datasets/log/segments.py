"""The append-only log of one stream of one shard: the outbox that every sink reads, and the embedded store.

A log is a directory of segments named by the row they begin with::

    telemetry/shard=0003/00000000000000000000.parquet   sealed: any Parquet reader opens it
    telemetry/shard=0003/00000000000000120000.open      growing: framed Arrow IPC, one frame a batch

A batch of `DIRECT_ROWS` or more becomes a sealed segment without having been an open one, so a run at full speed writes
each record only once. Readers see it when it is on the disk, a moment later than a frame.

A frame is a header (`_HEADER`: magic, payload length, CRC-32C, rows, mark, time its records were due) and one complete
Arrow IPC stream. One write(2) appends a frame, so a process killed at any byte leaves a log readable to its last whole
frame. `LogWriter` cuts a torn tail when it opens. A position is a count of rows since the log began. It means the same
before and after sealing, so a cursor never has to know about segments.

Durability: a frame survives the death of the process at once, because it is in the page cache. It survives the death of
the machine after the next `sync`, which every checkpoint does (`fsync="checkpoint"`), or at once (`fsync="always"`, a
disk round trip per batch). A sealed segment gets its name only when its content is on the disk, and the open segment
that it replaces goes after that. So what is called `.parquet` survived, and only an open segment may have lost its end.
A checkpoint is never ahead of the log, so rows lost with a machine are computed again and come out the same.

Damage: opening a log for writing reads its last segment whole (one CRC-32C per frame, one checksum per Parquet page).
An open segment is cut before its first damaged frame, and what does not join on to it is removed: this was not yet
synced, whatever the machine died of. A damaged sealed segment was on the disk and has rotted there. If it is the last
one, it is removed. Further back it stays, and reading it raises LogDamaged: to compute it again, everything after it
would have to go. `cut_bytes` says how much went. A cut begins at the log's end, so that a cut which is itself cut short
never leaves a log that begins too late.

One process writes a log. A lock on `.lock` in its directory makes the next one wait for a dying one; then it raises
LogBusy.

The `mark` is the writer's own progress (the shard's tick, or the row a prediction was made from). It is stored with the
frame, so that data and progress can never disagree.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.log.durable import publish, room_for, sync_file
from datasets.memory import give_back

_MAGIC = b"EVL1"
# magic, payload bytes, CRC-32C of the rest of the header and the payload, rows, mark, time due [ns since the epoch]
_HEADER = struct.Struct("<4sIIIqq")
_CRC_FROM = struct.calcsize("<4sII")
_MARK_KEY = b"ev_log_mark"
OPEN, SEALED, TEMPORARY = ".open", ".parquet", ".tmp"

# A row group ends after so many rows, but not before so many frames: with a pace a frame is one record of each vehicle.
_ROW_GROUP, _GROUP_FRAMES = 1 << 16, 4
_PAGE_BYTES = 1 << 28  # no page ends before its row group
# Vehicles whose last float64 values are within the 512 KB that the compression looks back.
_FEW = 1 << 16
# Columns in which whole values repeat, and not only their first bytes: at rest, and (float64) at rest since the last
# record.
_MOSTLY_ZERO = frozenset({"driving_speed"})
_STILL = frozenset({"soh", "distance_traveled"})
# Every sensor of a current has noise, also at rest. Compression takes a third off it, and a fifth of the time. Off a
# pack's voltage it takes half, for 7 % of the time: worth it only where records are long because vehicles are many.
_NOISY = frozenset({"battery_current", "power_consumption"})
_RATHER_NOISY = frozenset({"battery_voltage"})

DIRECT_ROWS = 1 << 17
SEGMENT_BYTES = 64 << 20


class LogDamaged(RuntimeError):
    """A sealed segment cannot be read, or rows are missing: between two segments, or before the first (retention).

    `readable_from`: the first row after them that can be read; None if there is none yet.
    """

    def __init__(self, message: str, readable_from: int | None = None) -> None:
        super().__init__(message)
        self.readable_from = readable_from

    def __reduce__(self) -> tuple[type[LogDamaged], tuple[str, int | None]]:
        return LogDamaged, (str(self), self.readable_from)


class LogBusy(RuntimeError):
    """Another process writes this log."""


@dataclass(frozen=True)
class Frame:
    """One batch as it was appended. `row` is the position of its first row; `due_ns` is 0 where it is not kept."""

    row: int
    batch: pa.RecordBatch
    mark: int
    due_ns: int


def log_directory(run: Path, stream: str, shard: int) -> Path:
    """Where a run keeps the log of one stream of one shard.

    Spark reads `run / stream` only where its folders are named like this. Older versions wrote `shard-0003`.
    """
    old = run / stream / f"shard-{shard:04d}"
    return old if old.is_dir() else run / stream / f"shard={shard:04d}"


def segment_path(directory: Path, row: int, suffix: str) -> Path:
    return directory / f"{row:020d}{suffix}"


def segments_of(directory: Path) -> list[tuple[int, str]]:
    """(first row, suffix) of every segment, in order; a sealed one comes before its open twin that still exists."""
    with os.scandir(directory) as entries:
        parts = [os.path.splitext(entry.name) for entry in entries]
    found = [(int(stem), suffix) for stem, suffix in parts if suffix in (OPEN, SEALED) and stem.isdigit()]
    return sorted(found, key=lambda item: (item[0], item[1] == OPEN))


def encode_frame(batch: pa.RecordBatch, mark: int, due_ns: int | None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    payload = sink.getvalue()
    rest = struct.pack("<Iqq", batch.num_rows, mark, time.time_ns() if due_ns is None else due_ns)
    crc = crc32c.crc32c(payload, crc32c.crc32c(rest))
    return b"".join((struct.pack("<4sII", _MAGIC, payload.size, crc), rest, payload))


class OpenSegment:
    """Reads the frames of a growing segment. It keeps the file open, so sealing cannot take it away."""

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
        """Skip one frame (if it ends at or before `position`) without reading its payload; returns its mark or None."""
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
        """Skip the frames that end at or before `position`."""
        while self.skip(position) is not None:
            pass

    def close(self) -> None:
        self._file.close()


def write_sealed(directory: Path, row: int, frames: Iterable[Frame]) -> Path:
    """Write a sealed segment under a temporary name, which is returned; `publish_sealed` gives it its own.

    Holds no more than a row group in memory. Raises LogFull, with nothing written, if there is no room.
    """
    temporary = segment_path(directory, row, TEMPORARY)
    frames = iter(frames)
    frame = next(frames)
    try:
        with room_for(temporary), pq.ParquetWriter(temporary, frame.batch.schema, **_encoding(frame.batch)) as writer:
            group = [frame.batch]
            rows = frame.batch.num_rows
            for frame in frames:
                if rows >= _ROW_GROUP and len(group) >= _GROUP_FRAMES:
                    writer.write_table(_table(group))
                    group, rows = [], 0
                group.append(frame.batch)
                rows += frame.batch.num_rows
            writer.write_table(_table(group))
            writer.add_key_value_metadata({_MARK_KEY: str(frame.mark)})
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _encoding(batch: pa.RecordBatch) -> dict[str, Any]:
    """How the columns of a segment are written.

    Most vehicles report what they reported one record before, and rows are in order of time. So what repeats is as far
    back as there are vehicles: pages are as long as a row group, and the compression is one that looks back far enough.
    `docs/decisions/0018-long-pages.md` has the figures.
    """
    schema = batch.schema
    keys = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    few = max((len(batch.column(name).dictionary) for name in keys), default=0) <= _FEW
    noisy = _NOISY | (_RATHER_NOISY if few else frozenset())
    whole = noisy | _MOSTLY_ZERO | (_STILL if few else frozenset())
    # The fast levels remember few places, and have forgotten a record's predecessor when that is far back.
    level = -5 if few else 1
    return {
        "compression": {name: "none" if name in noisy else "zstd" for name in schema.names},
        "compression_level": {name: level for name in schema.names if name not in noisy},
        "use_dictionary": keys,
        "use_byte_stream_split": [f.name for f in schema if pa.types.is_floating(f.type) and f.name not in whole],
        # For what queries filter by: time and sequence. With 5,000 names in every row group, theirs would be useless.
        "write_statistics": [f.name for f in schema if f.name in ("seq", "ts")],
        "write_page_checksum": True,
        "data_page_size": _PAGE_BYTES,
        "dictionary_pagesize_limit": _PAGE_BYTES,
        "max_rows_per_page": _PAGE_BYTES,
        "write_batch_size": _PAGE_BYTES,
    }


def _table(batches: list[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return table.unify_dictionaries() if len(batches) > 1 else table


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Several batches as one."""
    return batches[0] if len(batches) == 1 else _table(batches).combine_chunks().to_batches()[0]


def publish_sealed(temporary: Path) -> None:
    """Bring a written segment to the disk, and only then let it be seen."""
    publish(temporary, temporary.with_suffix(SEALED))


def seal(directory: Path, row: int) -> None:
    """Write the open segment that begins at `row` as Parquet, durably, then remove it. Raises LogFull."""
    source = segment_path(directory, row, OPEN)
    with closing(OpenSegment(source, row)) as segment:
        temporary = write_sealed(directory, row, iter(segment.read, None))
    publish_sealed(temporary)
    source.unlink()
    give_back()


def sync_open(directory: Path) -> None:
    """Make all that readers can see of a log survive the death of the machine, from any process."""
    if not directory.is_dir():
        return
    for row, suffix in segments_of(directory):
        if suffix == OPEN:
            with suppress(FileNotFoundError):  # sealed between two looks, which is as good
                sync_file(segment_path(directory, row, OPEN))
    sync_file(directory)


def sealed_end(path: Path, first: int, *, whole: bool) -> tuple[int, int]:
    """(end row, mark) of a sealed segment. Raises LogDamaged if it cannot be read. `whole` reads every page."""
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
    """What a log holds: rows [first, end), its bytes, and the writer's mark at its end (-1: none known)."""

    first: int
    end: int
    bytes: int
    mark: int


def extent(directory: Path) -> Extent:
    """Look at a log without writing, also while it grows. Raises LogDamaged if its last segment cannot be read.

    Segments are named by their first row, so only the last one is opened, however long the log.
    """
    try:
        segments = [(row, suffix, segment_path(directory, row, suffix)) for row, suffix in segments_of(directory)]
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
    if suffix == SEALED:
        end, mark = sealed_end(path, row, whole=False)
        return Extent(segments[0][0], end, size, mark)
    try:
        segment = OpenSegment(path, row)
    except FileNotFoundError:
        return extent(directory)  # sealed between two looks
    mark = -1
    while (marked := segment.skip()) is not None:
        mark = marked
    segment.close()
    return Extent(segments[0][0], segment.row, size, mark)


def drop_segments(
    directory: Path,
    before_row: int,
    *,
    older_than_s: float,
    excess_bytes: int,
    now: float,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Remove sealed segments that end at or before `before_row`, oldest first. Returns the bytes freed.

    A segment goes if it was written more than `older_than_s` ago, or while `excess_bytes` are not yet freed. The last
    sealed segment always stays: it is what of the log is surely on the disk, and says where it continues. `before` is
    called once if any is to go.
    """
    freed = 0
    segments = segments_of(directory) if directory.is_dir() else []
    last_sealed = max((row for row, suffix in segments if suffix == SEALED), default=0)
    for (row, suffix), (next_row, _) in pairwise(segments):
        path = segment_path(directory, row, suffix)
        if suffix != SEALED or next_row > before_row or next_row == row or row == last_sealed:
            break
        stat = path.stat()
        if now - stat.st_mtime <= older_than_s and freed >= excess_bytes:
            break
        if not freed:
            before()
        path.unlink()
        freed += stat.st_size
    return freed
