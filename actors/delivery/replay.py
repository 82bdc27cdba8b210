"""An old run into a new sink: the log is read again in the order of time, at full speed or at a pace.

Order: each log keeps its own. Across logs the order is that of simulated time: exactly so at a pace; at full speed no
batch for Kafka or MQTT is more than `_AHEAD_US` ahead of another log. Tables and folders have no order across logs.

Idempotent: what the same command delivered before, completed or killed, is not delivered again. The database and a
folder themselves say how far they are. For Kafka and MQTT a cursor in the run's directory does.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from actors.delivery.position import SUBSCRIBERS_S, Position
from actors.delivery.sinks import SINKS, Sink, SinkUnavailable, Target
from datasets.log import LogReader, extent
from datasets.schema import STREAMS, Stream, upgraded

_RETRY_S = 1.0
_HEAR_S = 0.2
_AHEAD_US = 10_000_000


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
    position: Position
    reader: LogReader
    batch: pa.RecordBatch
    end: int


class Replay:
    """Delivers the rows of the run in `directory` with begin <= ts < end to `target`."""

    def __init__(
        self,
        directory: Path,
        log_id: str,
        shards: int,
        target: Target,
        *,
        where: str,
        begin: datetime | None = None,
        end: datetime | None = None,
        pace: float = math.inf,
        patience_s: float = 60.0,
    ) -> None:
        # The log is part of the name, because a database keeps the cursors of many runs.
        key = hashlib.sha256(f"{log_id} {target.name} {where} {begin} {end}".encode()).hexdigest()[:12]
        self.id = f"replay-{key}"
        self._run, self._shards, self._target = directory, shards, target
        self._begin_us = -(1 << 62) if begin is None else round(begin.timestamp() * 1e6)
        self._end_us = 1 << 62 if end is None else round(end.timestamp() * 1e6)
        self._pace, self._patience_s = pace, patience_s
        self._ordered = SINKS[target.name].ordered
        self._logs: list[_Log] = []
        self._sinks: dict[Stream, Sink] = {}
        self.counts = Replayed()

    def run(self, tell: Callable[[Replayed], None], stop: threading.Event) -> Replayed:
        """Replay to the end of the log, or until `stop`. Raises SinkRefused and LogDamaged, and SinkUnavailable if the
        sink makes no progress for `patience_s`."""
        last_progress = time.monotonic()
        while not stop.is_set():
            before = self.counts.records + self.counts.predictions
            self._sinks = {stream: self._target.sink(self.id, stream) for stream in STREAMS}
            try:
                for sink in self._sinks.values():
                    sink.open()
                self._through(tell, stop)
                return self.counts
            except SinkUnavailable as error:
                self.counts.waiting_for = str(error)
                tell(self.counts)
                if self.counts.records + self.counts.predictions > before:
                    last_progress = time.monotonic()
                if any(log.position.cursor.unsettled for log in self._logs):
                    stop.wait(SUBSCRIBERS_S)
                if time.monotonic() - last_progress > self._patience_s:
                    raise
                stop.wait(_RETRY_S)
            finally:
                for sink in self._sinks.values():
                    sink.close()
        return self.counts

    def _through(self, tell: Callable[[Replayed], None], stop: threading.Event) -> None:
        """One pass on one connection a stream. Always takes the log whose next record is the oldest."""
        self._logs = [self._log(stream, shard) for stream in STREAMS for shard in range(self._shards)]
        try:
            queue: list[tuple[int, int, _Log]] = []
            for log in self._logs:
                self._push(queue, log)
            began, first_us = time.monotonic(), queue[0][0] if queue else 0
            while queue and not stop.is_set():
                due_us, _, log = heapq.heappop(queue)
                if math.isfinite(self._pace):
                    self._hear_until(began + (due_us - first_us) / 1e6 / self._pace, stop)
                    if stop.is_set():
                        break
                    until_us = due_us
                elif self._ordered and queue:
                    until_us = queue[0][0] + _AHEAD_US
                else:
                    until_us = self._end_us
                self._deliver(log, until_us)
                self._hear_until(0.0, stop)
                tell(self.counts)
                self._push(queue, log)
            # What the peer acknowledged last must be safe with it, because nobody looks after it later.
            while any(log.position.cursor.unsettled for log in self._logs) and not stop.is_set():
                self._hear_until(time.monotonic() + _HEAR_S, stop)
        finally:
            for log in self._logs:
                log.reader.close()

    def _hear_until(self, when: float, stop: threading.Event) -> None:
        """Wait until `when`, in touch with the peers."""
        while True:
            heard = {stream: sink.heard() for stream, sink in self._sinks.items()}
            for log in self._logs:
                log.position.heard(heard[log.position.stream])
            left = when - time.monotonic()
            if left <= 0 or stop.wait(min(left, _HEAR_S)):
                return

    def _log(self, stream: Stream, shard: int) -> _Log:
        position = Position(self._run, self.id, stream, shard, self._target)
        position.begin(self._sinks[stream].position(shard))
        held = extent(position.directory)
        position.move(max(held.first, position.cursor.position))
        reader = LogReader(position.directory, position.cursor.position)
        return _Log(position, reader, pa.record_batch({}), held.end)

    def _push(self, queue: list[tuple[int, int, _Log]], log: _Log) -> None:
        """Queue the log by the time of its next wanted record; not at all if it has none."""
        while not log.batch.num_rows:
            frame = log.reader.read(min(self._target.batch_rows, max(1, log.end - log.reader.position)))
            if frame is None or frame.row >= log.end:
                return
            times = _times(frame.batch)
            if times[0] >= self._end_us:
                return
            first, last = np.searchsorted(times, [self._begin_us, self._end_us])
            # Unwanted rows count as passed: those in front now, those at the end when the batch is done.
            log.position.move(frame.row + int(first))
            log.batch = upgraded(frame.batch.slice(int(first), int(last - first)), log.position.stream)
        heapq.heappush(queue, (int(_times(log.batch.slice(0, 1))[0]), id(log), log))

    def _deliver(self, log: _Log, until_us: int) -> None:
        """Deliver the rows of the log's batch up to `until_us`."""
        rows = int(np.searchsorted(_times(log.batch), until_us, side="right"))
        before = log.position.cursor.duplicates
        receipt = log.position.deliver(self._sinks[log.position.stream], log.batch.slice(0, rows))
        log.batch = log.batch.slice(rows)
        if log.position.stream == "telemetry":
            self.counts.records += rows
        else:
            self.counts.predictions += rows
        self.counts.duplicates += log.position.cursor.duplicates - before
        self.counts.dead += len(receipt.dead)
        self.counts.waiting_for = ""


def _times(batch: pa.RecordBatch) -> np.ndarray:
    """When each row had come [us since 1970], ascending: a late record counts by those that overtook it."""
    return np.maximum.accumulate(batch.column("ts").cast(pa.int64()).to_numpy())
