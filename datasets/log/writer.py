"""Appends to a log, in the one process that writes it. `segments.py` has the format and what survives which death."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.log.durable import sync_file
from datasets.log.segments import (
    DIRECT_ROWS,
    OPEN,
    SEALED,
    SEGMENT_BYTES,
    Frame,
    LogBusy,
    LogDamaged,
    LogFull,
    OpenSegment,
    encode_frame,
    seal,
    sealed_end,
    segment_path,
    segments_of,
    write_sealed,
)
from datasets.names import Fsync

_LOCK_PATIENCE_S = 15.0


class LogWriter:
    """The one writer of a log. Opening it repairs what a crash left and seals it; then `append` adds batches.

    `segment_bytes` bounds an open segment. Sealing runs in its own thread. If more than `_PENDING` tasks wait,
    `append` waits. `first_row`, `first_mark`: where a new log begins, such as one that was lost with its node and
    continues from a restart point. Raises LogBusy if another process writes the log.
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
        if self.rows and not segments_of(directory):
            self._open_segment()  # so that readers see where this log begins

    def _recover(self, rows: int, mark: int) -> tuple[int, int]:
        """Cut what is damaged, seal what was open, drop what does not join on. Returns end row and last mark."""
        for temporary in self._directory.glob("*.tmp"):
            temporary.unlink()
        segments = segments_of(self._directory)
        if segments:
            rows = segments[0][0]
        for number, (first, suffix) in enumerate(segments):
            path = segment_path(self._directory, first, suffix)
            if suffix == OPEN and segment_path(self._directory, first, SEALED).exists():
                path.unlink()  # killed between rename and unlink: the sealed twin is whole
                continue
            if first != rows:  # after a cut: the deterministic simulation makes these rows again
                self.cut_bytes += path.stat().st_size
                path.unlink()
                continue
            if suffix == SEALED:
                try:
                    rows, mark = sealed_end(path, first, whole=number == len(segments) - 1)
                except LogDamaged:
                    if number < len(segments) - 1:
                        raise
                    self.cut_bytes += path.stat().st_size
                    path.unlink()
                continue
            segment = OpenSegment(path, first)
            while (frame := segment.read()) is not None:
                mark = frame.mark
            segment.close()
            self.cut_bytes += path.stat().st_size - segment.offset
            os.truncate(path, segment.offset)
            if segment.row == first:
                path.unlink()
            else:
                seal(self._directory, first)
            rows = segment.row
        return rows, mark

    def append(self, batch: pa.RecordBatch, mark: int, due_ns: int | None = None) -> None:
        """Add a batch; it is readable when this returns. Raises LogFull, with nothing written, if there is no room.

        `due_ns`: when its records were due [ns since the epoch]; default now. Latencies count from then.
        """
        try:
            if batch.num_rows >= DIRECT_ROWS:
                self._append_sealed(batch, mark)
            else:
                self._append_frame(encode_frame(batch, mark, due_ns))
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
        path = write_sealed(self._directory, self.rows, [Frame(self.rows, batch, mark, 0)])
        self._later(sync_file, path)

    def _open_segment(self) -> None:
        self._first_row = self.rows
        path = segment_path(self._directory, self.rows, OPEN)
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
            segment_path(self._directory, self._first_row, OPEN).unlink()
            return
        self._later(self._seal_or_leave, self._first_row)

    def _seal_or_leave(self, row: int) -> None:
        """Seal a segment. If there is no room for its Parquet form it stays open, and readers can still read it."""
        try:
            seal(self._directory, row)
        except OSError as error:
            if not isinstance(self._full_or(error), LogFull):
                raise
            self._left_open.append(row)

    def _later(self, task: Callable[..., None], *arguments: Any) -> None:
        """Hand disk work to the background thread; wait if it is more than `_PENDING` tasks behind."""
        self._tasks.append(self._background.submit(task, *arguments))
        while len(self._tasks) > self._PENDING or (self._tasks and self._tasks[0].done()):
            self._tasks.popleft().result()

    def sync(self) -> None:
        """Make all that was appended survive the death of the machine."""
        while self._tasks:
            self._tasks.popleft().result()
        if self._fd is not None:
            os.fsync(self._fd)
        sync_file(self._directory)

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
