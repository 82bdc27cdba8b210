"""Appends to a log, in the one process that writes it. `segments.py` has the format and what survives which death."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.log.durable import LogFull, make_directory, room_for, sync_file
from datasets.log.segments import (
    DIRECT_ROWS,
    OPEN,
    SEALED,
    SEGMENT_BYTES,
    TEMPORARY,
    Frame,
    LogBusy,
    LogDamaged,
    OpenSegment,
    encode_frame,
    publish_sealed,
    seal,
    sealed_end,
    segment_path,
    segments_of,
    write_sealed,
)
from datasets.names import Fsync

_LOCK_PATIENCE_S = 15.0
_RESEAL_S = 1.0


@dataclass(frozen=True)
class _Held:
    """A segment that a log keeps when it is opened: rows [first, end). `bytes`: how much of an open one is whole."""

    first: int
    end: int
    mark: int
    bytes: int | None = None


class LogWriter:
    """The one writer of a log. Opening it repairs what a crash left and seals it; then `append` adds batches.

    `segment_bytes` bounds an open segment. Sealing runs in its own thread. If more than `_PENDING` tasks wait,
    `append` waits. `first_row`, `first_mark`: where a log begins that holds nothing, such as one that was lost with
    its node and continues from a restart point. Raises LogBusy if another process writes the log.
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
        make_directory(directory)
        self._lock = _lock(directory)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._tasks: deque[Future[None]] = deque()
        self._unseen: Future[None] | None = None
        self._left_open: set[int] = set()
        self._closing = False
        self.cut_bytes = 0
        self.rows, self.mark = self._recover() or (first_row, first_mark)
        self._first_row = self.rows
        if self.rows and not segments_of(directory):
            self._open_segment()  # so that readers see where this log begins

    # ---- opening

    def _recover(self) -> tuple[int, int] | None:
        """Cut what is damaged, drop what does not join on, seal what was open.

        Returns end row and last mark; None if nothing is left.
        """
        for temporary in self._directory.glob(f"*{TEMPORARY}"):
            temporary.unlink()
        self._drop_twins()
        segments = segments_of(self._directory)
        held: list[_Held] = []
        for number, (first, suffix) in enumerate(segments):
            if held and first != held[-1].end:
                break  # after a cut: the deterministic simulation makes these rows again
            next_row = segments[number + 1][0] if number + 1 < len(segments) else None
            segment = self._look_open(first) if suffix == OPEN else self._look_sealed(first, next_row)
            if segment is None:
                break
            held.append(segment)
        # Backwards: if this is cut short itself, the log must still begin where it did.
        for first, suffix in reversed(segments[len(held) :]):
            path = segment_path(self._directory, first, suffix)
            self.cut_bytes += path.stat().st_size
            path.unlink()
        for segment in held:
            if segment.bytes is not None:
                self._cut(segment_path(self._directory, segment.first, OPEN), segment.bytes)
                self._seal_or_leave(segment.first)
        return (held[-1].end, held[-1].mark) if held else None

    def _drop_twins(self) -> None:
        """If a crash came between a sealed segment's name and the end of the open one, keep the sealed one if whole."""
        for first, suffix in segments_of(self._directory):
            sealed = segment_path(self._directory, first, SEALED)
            if suffix == OPEN and sealed.exists():
                try:
                    sealed_end(sealed, first, whole=True)
                except LogDamaged:
                    sealed.unlink()
                else:
                    segment_path(self._directory, first, OPEN).unlink()

    def _look_sealed(self, first: int, next_row: int | None) -> _Held | None:
        """A sealed segment; `next_row` is where the next segment begins. None if it is the last one and damaged."""
        try:
            return _Held(
                first, *sealed_end(segment_path(self._directory, first, SEALED), first, whole=next_row is None)
            )
        except LogDamaged:
            # Further back it stays, whoever reads it is told; the mark comes from what follows.
            return None if next_row is None else _Held(first, next_row, -1)

    def _look_open(self, first: int) -> _Held | None:
        """An open segment up to its first damaged frame; None if it holds no whole one."""
        with closing(OpenSegment(segment_path(self._directory, first, OPEN), first)) as segment:
            mark = -1
            while (frame := segment.read()) is not None:
                mark = frame.mark
            return _Held(first, segment.row, mark, segment.offset) if segment.row > first else None

    def _cut(self, path: Path, size: int) -> None:
        if surplus := path.stat().st_size - size:
            self.cut_bytes += surplus
            os.truncate(path, size)

    # ---- appending

    def append(self, batch: pa.RecordBatch, mark: int, due_ns: int | None = None) -> None:
        """Add a batch. Raises LogFull, with nothing written, if there is no room.

        It is readable when this returns; a batch of `DIRECT_ROWS` and more, when it is on the disk. `due_ns`: when its
        records were due [ns since the epoch]; default now. Latencies count from then.
        """
        if batch.num_rows >= DIRECT_ROWS:
            self._append_sealed(batch, mark)
        else:
            self._append_frame(encode_frame(batch, mark, due_ns))
        self.rows += batch.num_rows
        self.mark = mark
        if self._always:
            self.sync()
        if self._size >= self._segment_bytes:
            self.roll()

    def _append_sealed(self, batch: pa.RecordBatch, mark: int) -> None:
        self.roll()
        written = write_sealed(self._directory, self.rows, [Frame(self.rows, batch, mark, 0)])
        self._close_segment()
        self._unseen = self._later(self._publish, written)

    def _publish(self, written: Path) -> None:
        publish_sealed(written)
        written.with_suffix(OPEN).unlink(missing_ok=True)  # an empty one that said where the log begins

    def _open_segment(self) -> None:
        if self._unseen is not None:
            self._unseen.result()  # else readers would see a gap before this segment
        self._unseen = None
        self._first_row = self.rows
        path = segment_path(self._directory, self.rows, OPEN)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0

    def _append_frame(self, frame: bytes) -> None:
        with room_for(self._directory):
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

    # ---- sealing

    def roll(self) -> None:
        """Seal what is open, in the background; the next batch begins a new segment."""
        if self._size:
            self._close_segment()
            self._later(self._seal_or_leave, self._first_row)

    def _close_segment(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._size = None, 0

    def _seal_or_leave(self, row: int) -> None:
        """Seal a segment. If there is no room for its Parquet form it stays open, and readers can still read it.

        Then it is tried again until there is room, whatever the writer does meanwhile: retention drops only sealed
        segments, and a shard that waits for retention appends nothing.
        """
        path = segment_path(self._directory, row, OPEN)
        self._left_open.discard(row)
        try:
            _expect_room(path)
            seal(self._directory, row)
        except LogFull:
            sync_file(path)  # `sync` itself syncs only the newest segment
            self._left_open.add(row)
            if not self._closing:
                again = threading.Timer(_RESEAL_S, self._seal_again, (row,))
                again.daemon = True
                again.start()

    def _seal_again(self, row: int) -> None:
        with suppress(RuntimeError):  # closed meanwhile
            self._background.submit(self._seal_left, row)

    def _seal_left(self, row: int) -> None:
        if row in self._left_open:
            self._seal_or_leave(row)

    def _later(self, task: Callable[..., None], *arguments: Any) -> Future[None]:
        """Hand disk work to the background thread; wait if it is more than `_PENDING` tasks behind."""
        future = self._background.submit(task, *arguments)
        self._tasks.append(future)
        while len(self._tasks) > self._PENDING or (self._tasks and self._tasks[0].done()):
            self._tasks.popleft().result()
        return future

    def sync(self) -> None:
        """Make all that was appended survive the death of the machine."""
        while self._tasks:
            self._tasks.popleft().result()
        if self._fd is not None:
            os.fsync(self._fd)
        sync_file(self._directory)

    def close(self) -> None:
        """Seal what is open and wait until every segment is Parquet, or there is no room for it."""
        self._closing = True
        try:
            self.roll()
            self.sync()
            for row in sorted(self._left_open):
                self._background.submit(self._seal_left, row).result()
        finally:
            self._close_segment()
            self._background.shutdown()
            os.close(self._lock)


def _expect_room(path: Path) -> None:
    """Raise LogFull if the Parquet form of an open segment, about half its size, would fill the volume."""
    volume = os.statvfs(path)
    if volume.f_bavail * volume.f_frsize < path.stat().st_size // 2:
        raise LogFull(errno.ENOSPC, "no room to seal a segment", str(path))


def _lock(directory: Path) -> int:
    """A lock that ends with this process. It acts between processes (POSIX), so one process may open its log again."""
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
