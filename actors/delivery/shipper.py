"""Carries the logs of one node to one sink: read after the cursor, deliver, wait for the answer, move the cursor.

Each sink has its own process, so that a stuck broker holds up neither the fleet nor another sink. Each stream has its
own thread and its own connection, so that predictions neither queue behind telemetry nor fail with it. If the peer is
full, slow or dead, the records stay in the log and the backlog shows. A log that cannot be read holds up only itself.
The order of one vehicle's records is the log's: a batch is retried whole before the next one leaves. A record that the
peer rejects individually goes to RUN/dead-letters, durably, before the cursor passes it.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.delivery.position import SUBSCRIBERS_S, Position
from actors.delivery.sinks import Receipt, Sink, SinkError, SinkRefused, SinkUnavailable, Target, reader_of
from actors.latency import Latencies
from actors.supervised import keep_calling
from actors.traces import TracePlan, tracer_of
from datasets.log import Cursor, CursorFile, Frame, LogDamaged, LogReader, joined, log_directory
from datasets.log.watch import Watch
from datasets.schema import STREAMS, Stream

_log = logging.getLogger(__name__)

_IDLE_S = 0.1  # the longest sleep; what is appended to the log ends it
_STOP_S = 5.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_RETRY_REFUSED_S = 5.0
_RETRY_LOG_S = 1.0


@dataclass
class ShipperStatus:
    """Counters of one sink on one node. `cursors`: by log, (stream, shard), counted since the log began."""

    sink: str
    pid: int = 0
    cursors: dict[tuple[Stream, int], Cursor] = field(default_factory=dict)
    oldest_due_ns: dict[tuple[Stream, int], int] = field(default_factory=dict)
    retries: int = 0
    waiting_for: str = ""
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def positions(self) -> dict[tuple[Stream, int], int]:
        """Rows of each log that the sink has dealt with."""
        return {log: cursor.position for log, cursor in self.cursors.items()}

    @property
    def duplicates(self) -> int:
        """Records that the sink already had."""
        return sum(cursor.duplicates for cursor in self.cursors.values())

    @property
    def dead(self) -> int:
        """Records in RUN/dead-letters."""
        return sum(cursor.dead for cursor in self.cursors.values())

    def delivered(self, stream: Stream) -> int:
        """Records of one stream that the sink has acknowledged (or rejected individually)."""
        return sum(cursor.position for (of, _), cursor in self.cursors.items() if of == stream)


@dataclass
class _Log:
    """One log on its way to the sink. `position` is None until delivery has begun. If the log cannot be read, or its
    cursor not be saved, it is left alone until `retry_at`."""

    stream: Stream
    shard: int
    reader: LogReader
    position: Position | None = None
    retry_at: float = 0.0
    failed: bool = False
    """Whether it met a defect of ours, after which nobody knows in which state the connection is."""


class Shipper:
    """Ships until it is told to stop. It can be restarted at any point and continues from its cursors.

    `shards`: by number, the rows of telemetry and of predictions that precede its logs, if these are new.
    `accept_loss`: rows that the log does not hold any more are counted and passed; else the log waits before them.
    """

    def __init__(
        self,
        target: Target,
        run_dir: Path,
        log_id: str,
        shards: Mapping[int, tuple[int, int]],
        accept_loss: bool = False,
        traces: TracePlan | None = None,
    ) -> None:
        self._target = target
        self._reader = reader_of(target)
        self._run_dir = run_dir
        self._log_id = log_id
        self._shards = shards
        self._accept_loss = accept_loss
        self._tracer = tracer_of(traces, target.name)
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # the counters
        self._waiting: dict[tuple[Stream, int | None], str] = {}
        files = {(stream, n): CursorFile(run_dir, self._reader, stream, n) for stream in STREAMS for n in shards}
        # What is already delivered is known before the peer answers.
        cursors = {log: file.load() for log, file in files.items() if file.exists()}
        self._status = ShipperStatus(target.name, os.getpid(), cursors)
        self._sinks: dict[Stream, Sink] = {}
        self._threads = [
            threading.Thread(target=self._ship, args=(stream,), name=f"ship-{stream}", daemon=True)
            for stream in STREAMS
        ]

    def start(self) -> None:
        """Begin to ship, in the background."""
        for thread in self._threads:
            thread.start()

    def status(self) -> ShipperStatus:
        """A copy of the counters."""
        with self._lock:
            return copy.deepcopy(self._status)

    def stop(self) -> ShipperStatus:
        """Finish the batches on their way (or give up on a peer that does not answer) and save the cursors."""
        self._stopping.set()
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        for sink in list(self._sinks.values()):
            sink.close()  # ends a delivery that is still waiting
        for thread in self._threads:
            thread.join(timeout=1)
        if self._tracer:
            self._tracer.close()
        return self.status()

    def _ship(self, stream: Stream) -> None:
        """One stream's loop."""
        failures = 0

        def turn() -> float:
            nonlocal failures
            try:
                self._ship_until_failure(stream, watch)
            except SinkError as error:
                failures = 1 if self._waiting.get((stream, None)) == "" else failures + 1
                self._set_waiting(stream, None, str(error))
                self._look(stream)
                return (
                    _RETRY_REFUSED_S if isinstance(error, SinkRefused) else _RETRY_S[min(failures, len(_RETRY_S)) - 1]
                )
            return 0.0

        watch = Watch(log_directory(self._run_dir, stream, shard) for shard in self._shards)
        keep_calling(turn, self._stopping, lambda why: self._set_waiting(stream, None, why), _RETRY_REFUSED_S)
        watch.close()

    def _look(self, stream: Stream) -> None:
        """Note when the first waiting record was due, also if the peer has never answered."""
        for shard in self._shards:
            if self._status.oldest_due_ns.get((stream, shard)):
                continue
            position = CursorFile(self._run_dir, self._reader, stream, shard).load().position
            with LogReader(log_directory(self._run_dir, stream, shard), position) as reader, suppress(LogDamaged):
                frame = reader.read(1)
                with self._lock:
                    self._status.oldest_due_ns[stream, shard] = frame.due_ns if frame else 0

    def _ship_until_failure(self, stream: Stream, watch: Watch) -> None:
        """One connection: all shards in turn, a batch each. It begins at the cursors. Raises SinkError when it ends."""
        sink = self._sinks[stream] = self._target.sink(self._log_id, stream, min(self._shards, default=0))
        logs = [_Log(stream, n, LogReader(log_directory(self._run_dir, stream, n))) for n in self._shards]
        try:
            sink.open()
            if any(CursorFile(self._run_dir, self._reader, stream, n).load().unsettled for n in self._shards):
                self._stopping.wait(SUBSCRIBERS_S)
            while not self._stopping.is_set():
                busy = [self._ship_batch(sink, log) for log in logs]
                heard = sink.heard()
                for log in logs:
                    self._guarded(log, partial(self._settle, log, heard))
                if any(log.failed for log in logs):
                    raise SinkUnavailable("connecting anew after an internal error")
                self._set_waiting(stream, None, "")
                if not any(busy):
                    watch.wait(_IDLE_S)
        finally:
            for log in logs:
                log.reader.close()
            sink.close()
            self._sinks.pop(stream, None)
            with self._lock:
                self._status.retries += 0 if self._stopping.is_set() else 1

    def _ship_batch(self, sink: Sink, log: _Log) -> bool:
        """Deliver the next batch of one log. Returns whether there was one."""
        busy = self._guarded(log, partial(self._ship_next, sink, log))
        if log.position is not None:
            if busy is None:
                log.reader.seek(log.position.cursor.position)
            with self._lock:
                self._status.cursors[log.stream, log.shard] = log.position.cursor
        return bool(busy)

    def _guarded[T](self, log: _Log, work: Callable[[], T]) -> T | None:
        """Do the work. Whatever is wrong with this log alone is told and tried again later, while the others go on."""
        if time.monotonic() < log.retry_at:
            return None
        try:
            done = work()
        except SinkError:
            raise
        except LogDamaged as error:
            why = str(error)
        except OSError as error:
            why = f"{error.filename or self._run_dir}: {error.strerror or error}"
        except Exception as error:
            _log.exception("shipping %s of shard %d to %s", log.stream, log.shard, self._target.name)
            why, log.failed = f"internal error, see this process's log: {error!r}", True
        else:
            self._set_waiting(log.stream, log.shard, "")
            return done
        self._set_waiting(log.stream, log.shard, f"shard {log.shard}: {why}")
        log.retry_at = time.monotonic() + _RETRY_LOG_S
        return None

    def _ship_next(self, sink: Sink, log: _Log) -> bool:
        position = log.position = log.position or self._begun(sink, log)
        most = self._target.batch_rows
        again = position.known - position.cursor.position
        try:
            frames = log.reader.gather(min(most, again) if again > 0 else most)
        except LogDamaged as error:
            return self._passed(log, position, error)
        with self._lock:
            self._status.oldest_due_ns[log.stream, log.shard] = frames[0].due_ns if frames else 0
        if not frames:
            return False
        read_ns = time.time_ns()  # not before: a block may begin while we read
        receipt = position.deliver(sink, joined([frame.batch for frame in frames]))
        done_ns = time.time_ns()
        self._trace(log, frames, read_ns, done_ns)
        if receipt.dead:
            many, why = len(receipt.dead), receipt.dead[0].reason
            _log.warning("%s refused %d record(s), now in %s: %s", self._target.name, many, position.letters.path, why)
        with self._lock:
            self._count_latency(frames, receipt, done_ns)
        return True

    def _begun(self, sink: Sink, log: _Log) -> Position:
        position = Position(self._run_dir, self._reader, log.stream, log.shard, self._target)
        position.begin(sink.position(log.shard), self._shards[log.shard][STREAMS.index(log.stream)])
        log.reader.seek(position.cursor.position)
        return position

    def _passed(self, log: _Log, position: Position, error: LogDamaged) -> bool:
        """The next rows are not in the log any more: pass and count them, if that was allowed."""
        until = error.readable_from
        if until is None:
            raise error
        if not self._accept_loss:
            rows = until - position.cursor.position
            raise LogDamaged(
                f"{rows:,} records can no longer be delivered ({error}); "
                "`twin resume --accept-loss` goes on without them",
                until,
            )
        rows = position.lose(until)
        _log.warning("%s will not get %d %s of shard %d: %s", self._target.name, rows, log.stream, log.shard, error)
        log.reader.seek(until)
        return True

    def _settle(self, log: _Log, heard: float) -> None:
        if log.position is not None:
            log.position.heard(heard)
            with self._lock:
                self._status.cursors[log.stream, log.shard] = log.position.cursor

    def _trace(self, log: _Log, frames: list[Frame], read_ns: int, done_ns: int) -> None:
        if self._tracer is None:
            return
        for frame in frames:
            if trace := self._tracer.trace(log.shard, frame.due_ns):
                parent = trace.root if log.stream == "telemetry" else trace.predict(frame.mark)
                about = {"stream": log.stream, "shard": log.shard, "rows": frame.batch.num_rows}
                self._tracer.span(trace, f"deliver to {self._target.name}", read_ns, done_ns, parent, **about)

    def _count_latency(self, frames: list[Frame], receipt: Receipt, done_ns: int) -> None:
        """From due to acknowledged: record by record where the sink knows, else the batch as one."""
        due_ns = np.repeat([frame.due_ns for frame in frames], [frame.batch.num_rows for frame in frames])
        keep = np.ones(len(due_ns), bool)
        keep[[letter.row for letter in receipt.dead]] = False
        due_ns = due_ns[keep]
        singly = len(receipt.acked_ns) == len(due_ns)
        acked_ns = np.asarray(receipt.acked_ns if singly else np.full(len(due_ns), done_ns))
        known = due_ns > 0
        self._status.latencies.add(np.maximum(0.0, (acked_ns[known] - due_ns[known]) / 1e9))

    def _set_waiting(self, stream: Stream, shard: int | None, reason: str) -> None:
        """Say what a stream, or one shard's log of it, waits for."""
        with self._lock:
            if reason and reason != self._waiting.get((stream, shard)):
                _log.warning("%s: %s; records wait in the log", self._target.name, reason)
            self._waiting[stream, shard] = reason
            self._status.waiting_for = next(filter(None, self._waiting.values()), "")


class ShipperActor(Shipper):
    """What Ray starts, and restarts by constructing it anew. It is here and not with the supervisor, so that its
    process loads what a shipper needs and not what a fleet needs."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.start()
