"""How long a run's log is kept: age and size limit it, but what a reader still needs is never dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.log.cursor import CursorFile
from datasets.log.segments import SEGMENT_BYTES, drop_segments, extent, log_directory, sync_open
from datasets.schema import STREAMS, Stream


@dataclass(frozen=True)
class Retention:
    """Sealed segments are dropped when they are older than `max_age_s` [s] or while the log exceeds `max_bytes`.

    `readers`: for each stream, the readers whose cursors count. A stream without readers goes by age and size alone.
    """

    readers: tuple[tuple[Stream, tuple[str, ...]], ...]
    max_age_s: float = math.inf
    max_bytes: float = math.inf

    @property
    def segment_bytes(self) -> int:
        """Size of an open segment, chosen so that even a small log has parts that can be dropped one by one."""
        return int(min(SEGMENT_BYTES, self.max_bytes / 8))


Saves = Mapping[tuple[Stream, str], int]
"""By stream and reader, how often its cursor was saved."""


def saves(run: Path, shard: int, retention: Retention) -> Saves:
    """How often each cursor was saved by now."""
    return {
        (stream, reader): CursorFile(run, reader, stream, shard).saves()
        for stream, readers in retention.readers
        for reader in readers
    }


def _passed(file: CursorFile, since: int) -> int:
    return file.load().position if file.saves() > since else 0


def retain(run: Path, shard: int, retention: Retention, now: float | None = None, since: Saves | None = None) -> bool:
    """Drop what may go of one shard's logs, the larger stream first. Returns whether the shard may continue.

    It must wait where more than `max_bytes` remains because a cursor still needs it. `now` is in seconds since 1970.
    `since`: a cursor counts for nothing until it was saved once more than that. After a restart a peer may be further
    back than its cursor file: a database restored from a backup says so when it is asked, and then needs what is there.
    """
    now = time.time() if now is None else now
    held = {stream: extent(log_directory(run, stream, shard)) for stream in STREAMS}
    readers = dict(retention.readers)
    total = sum(log.bytes for log in held.values())
    needed_by_someone = False

    def keep_safe() -> None:
        """What has been made of the rows that go: cursors, and the other stream. It must not be older than the log."""
        for stream in STREAMS:
            sync_open(log_directory(run, stream, shard))
            for reader in readers.get(stream, ()):
                CursorFile(run, reader, stream, shard).sync()

    for stream in sorted(STREAMS, key=lambda stream: -held[stream].bytes):
        needed = [
            _passed(CursorFile(run, r, stream, shard), (since or {}).get((stream, r), -1))
            for r in readers.get(stream, ())
        ]
        before = min(needed, default=held[stream].end)
        needed_by_someone |= before < held[stream].end
        total -= drop_segments(
            log_directory(run, stream, shard),
            before,
            older_than_s=retention.max_age_s,
            excess_bytes=max(0, total - int(min(retention.max_bytes, 1 << 62))),
            now=now,
            before=keep_safe,
        )
    return total <= retention.max_bytes or not needed_by_someone
