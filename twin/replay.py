"""An old run into a new sink: the log read again, in the order of time, as fast as it goes or at a pace.

Idempotent: what was delivered by the same command before is not delivered again, whether that ended or was killed. The
database and a folder say themselves how far they are; for Kafka and MQTT a cursor in the run's directory does.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from actors.sinks import ParquetTarget, Sink, SinkRefused, SinkUnavailable, Target
from actors.sinks.base import mask
from datasets.cursor import Cursor, CursorFile, DeadLetterFile
from datasets.log import LogReader, extent, log_directory
from datasets.schema import STREAMS, Stream
from twin.errors import BadInput, NotDelivered
from twin.fleet import targets_of
from twin.runs import load_run, shard_count
from twin.settings import RunSettings

_BATCH_ROWS = 5_000
_FILE_ROWS = 1 << 18
_RETRY_S = 1.0
_TELL_S = 5.0


@dataclass
class Replayed:
    """Counters of a replay."""

    records: int = 0
    predictions: int = 0
    duplicates: int = 0
    dead: int = 0
    waiting_for: str = ""


@dataclass
class _Log:
    stream: Stream
    shard: int
    reader: LogReader
    cursor: Cursor
    batch: pa.RecordBatch
    end: int


class Replay:
    """Delivers the rows of `run` with begin <= ts < end to `target`."""

    def __init__(
        self,
        run: Path,
        shards: int,
        target: Target,
        *,
        where: str,
        begin: datetime | None = None,
        end: datetime | None = None,
        pace: float = math.inf,
        patience_s: float = 60.0,
    ) -> None:
        key = hashlib.sha256(f"{target.name} {where} {begin} {end}".encode()).hexdigest()[:12]
        self._id = f"replay-{key}"
        self._run, self._shards, self._target = run, shards, target
        self._begin_us = -(1 << 62) if begin is None else round(begin.timestamp() * 1e6)
        self._end_us = 1 << 62 if end is None else round(end.timestamp() * 1e6)
        self._pace, self._patience_s = pace, patience_s
        self._rows = _FILE_ROWS if isinstance(target, ParquetTarget) else _BATCH_ROWS
        self.counts = Replayed()

    def run(self, tell: Callable[[Replayed], None], stop: threading.Event) -> Replayed:
        """To the end of the log, or until `stop`. BadInput where the sink refuses, NotDelivered where it is silent."""
        last_progress = time.monotonic()
        while not stop.is_set():
            before = self.counts.records + self.counts.predictions
            sink = self._target.sink(self._id)
            try:
                sink.open()
                self._through(sink, tell, stop)
                self.counts.waiting_for = ""
                return self.counts
            except SinkRefused as error:
                raise BadInput(f"--{self._target.name}: {error}") from error
            except SinkUnavailable as error:
                self.counts.waiting_for = str(error)
                tell(self.counts)
                if self.counts.records + self.counts.predictions > before:
                    last_progress = time.monotonic()
                if time.monotonic() - last_progress > self._patience_s:
                    raise NotDelivered(f"{error}; run the same command again to go on from here") from error
                stop.wait(_RETRY_S)
            finally:
                sink.close()
        return self.counts

    def _through(self, sink: Sink, tell: Callable[[Replayed], None], stop: threading.Event) -> None:
        """One pass on one connection: of all logs, always the one whose next record is the oldest."""
        queue: list[tuple[int, int, _Log]] = []
        for stream in STREAMS:
            for shard in range(self._shards):
                if log := self._log(sink, stream, shard):
                    self._push(queue, log)
        began, first_us = time.monotonic(), queue[0][0] if queue else 0
        while queue and not stop.is_set():
            due_us, _, log = heapq.heappop(queue)
            if math.isfinite(self._pace):
                wait_s = began + (due_us - first_us) / 1e6 / self._pace - time.monotonic()
                if wait_s > 0 and stop.wait(wait_s):
                    break
            self._deliver(sink, log, due_us)
            tell(self.counts)
            self._push(queue, log)
        for _, _, log in queue:
            log.reader.close()

    def _log(self, sink: Sink, stream: Stream, shard: int) -> _Log | None:
        directory = log_directory(self._run, stream, shard)
        held = extent(directory)
        if not held.end:
            return None
        cursor = CursorFile(self._run, self._id, stream, shard).load()
        position = sink.position(stream, shard)
        at = max(held.first, cursor.position if position is None else position)
        cursor = Cursor(at, cursor.duplicates, cursor.dead)
        return _Log(stream, shard, LogReader(directory, at), cursor, pa.record_batch({}), held.end)

    def _push(self, queue: list[tuple[int, int, _Log]], log: _Log) -> None:
        """Queue the log by the time of its next record that is wanted; close it where there is none."""
        while not log.batch.num_rows:
            frame = log.reader.read(min(self._rows, max(1, log.end - log.reader.position)))
            if frame is None or frame.row >= log.end:
                log.reader.close()
                return
            log.batch = frame.batch
            times = _times(log.batch)
            first, last = np.searchsorted(times, [self._begin_us, self._end_us])
            # What is not wanted counts as passed: in front now, behind when its batch is done.
            log.cursor = Cursor(frame.row + int(first), log.cursor.duplicates, log.cursor.dead)
            log.batch = log.batch.slice(int(first), int(last - first))
        heapq.heappush(queue, (int(_times(log.batch.slice(0, 1))[0]), id(log), log))

    def _deliver(self, sink: Sink, log: _Log, due_us: int) -> None:
        rows = log.batch.num_rows
        if math.isfinite(self._pace):
            rows = int(np.searchsorted(_times(log.batch), due_us, side="right"))
        position = log.cursor.position + rows
        receipt = sink.deliver(log.stream, log.shard, log.batch.slice(0, rows), position)
        if receipt.dead:
            letters = DeadLetterFile(self._run, self._id, log.stream, log.shard)
            for letter in receipt.dead:
                letters.add(log.cursor.position + letter.row, log.batch.slice(letter.row, 1), letter.reason)
        log.cursor = Cursor(position, log.cursor.duplicates + receipt.duplicates, log.cursor.dead + len(receipt.dead))
        CursorFile(self._run, self._id, log.stream, log.shard).save(log.cursor)
        log.batch = log.batch.slice(rows)
        if log.stream == "telemetry":
            self.counts.records += rows
        else:
            self.counts.predictions += rows
        self.counts.duplicates += receipt.duplicates
        self.counts.dead += len(receipt.dead)


def _times(batch: pa.RecordBatch) -> np.ndarray:
    """ts of each row [us since 1970], ascending."""
    return batch.column("ts").cast(pa.int64()).to_numpy()


def replay_run(
    directory: Path,
    to: str,
    settings: RunSettings,
    *,
    begin: str | None,
    end: str | None,
    out: Path | None,
    stop: threading.Event,
    say: Callable[[str], None],
) -> Replayed:
    """`twin replay`: one line a few seconds while it goes on, one at the end. BadInput, NotDelivered."""
    run = load_run(directory)
    target, where = _target(to, settings, out)
    replay = Replay(
        directory,
        shard_count(run),
        target,
        where=where,
        begin=_time("--from", begin),
        end=_time("--to-time", end),
        pace=settings.pace,
        patience_s=settings.drain_timeout,
    )
    told = [time.monotonic(), ""]

    def tell(counts: Replayed) -> None:
        if counts.waiting_for != told[1] or time.monotonic() - float(told[0]) > _TELL_S:
            told[:] = [time.monotonic(), counts.waiting_for]
            say(counts.waiting_for or f"{counts.records:,} records, {counts.predictions:,} predictions")

    counts = replay.run(tell, stop)
    refused = f", {counts.duplicates:,} were there already" if counts.duplicates else ""
    dead = f", {counts.dead:,} refused for good" if counts.dead else ""
    ended = "stopped after" if stop.is_set() else "replayed"
    say(f"{ended} {counts.records:,} records, {counts.predictions:,} predictions to {target.name}{refused}{dead}")
    return counts


def _target(to: str, settings: RunSettings, out: Path | None) -> tuple[Target, str]:
    if to == "parquet":
        if out is None:
            raise BadInput("--out: expected a folder for the Parquet files")
        return ParquetTarget(out.expanduser().absolute()), str(out.expanduser().absolute())
    targets = {target.name: target for target in targets_of(settings)}
    if to not in ("kafka", "mqtt", "timescale"):
        raise BadInput(f"--to: expected kafka, mqtt, timescale or parquet, got {to}")
    if to not in targets:
        raise BadInput(f"--{to}: expected where to deliver to, got nothing")
    return targets[to], mask(getattr(settings, to))


def _time(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{flag}: expected a time like 2026-06-01T08:00Z, got {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
