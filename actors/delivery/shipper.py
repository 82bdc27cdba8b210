"""Carries the logs of one node to one sink: read after the cursor, deliver, wait for the answer, move the cursor.

Each sink has its own process, so that a stuck broker holds up neither the fleet nor another sink. Each stream has its
own thread, so that predictions do not queue behind telemetry. If the peer is full, slow or dead, the records stay in
the log and the backlog shows. The order of one vehicle's records is the log's: a batch is retried whole before the next
one leaves. A record that the peer rejects individually goes to RUN/dead-letters, durably, before the cursor passes it.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors.delivery.position import SUBSCRIBERS_S, Position
from actors.delivery.sinks import Receipt, Sink, SinkError, SinkRefused, Target
from actors.latency import Latencies
from datasets.log import Cursor, CursorFile, Frame, LogDamaged, LogReader, log_directory
from datasets.log.watch import Watch
from datasets.schema import STREAMS, Stream

_log = logging.getLogger(__name__)

_IDLE_S = 0.1  # the longest sleep; what is appended to the log ends it
_STOP_S = 5.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_RETRY_REFUSED_S = 5.0


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
    """One log on its way to the sink."""

    reader: LogReader
    position: Position


class Shipper:
    """Ships until it is told to stop. It can be restarted at any point and continues from its cursors."""

    def __init__(self, target: Target, run_dir: Path, log_id: str, shards: list[int]) -> None:
        self._target = target
        self._run_dir = run_dir
        self._log_id = log_id
        self._shards = shards
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # the counters
        self._connecting = threading.Lock()
        self._waiting: dict[Stream, str] = {}
        files = {(stream, n): CursorFile(run_dir, target.name, stream, n) for stream in STREAMS for n in shards}
        # What is already delivered is known before the peer answers.
        cursors = {log: file.load() for log, file in files.items() if file.exists()}
        self._status = ShipperStatus(target.name, os.getpid(), cursors)
        self._sink: Sink | None = None
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
        self._drop(self._sink)  # ends a delivery that is still waiting
        for thread in self._threads:
            thread.join(timeout=1)
        return self.status()

    def _ship(self, stream: Stream) -> None:
        """One stream's loop: all shards in turn, a batch each. After any failure it goes back to the cursors."""
        sink: Sink | None = None
        logs: list[_Log] = []
        failures = 0
        watch = Watch(log_directory(self._run_dir, stream, shard) for shard in self._shards)
        while not self._stopping.is_set():
            try:
                sink = self._opened()
                logs = logs or self._logs(sink, stream)
                busy = [self._ship_batch(sink, log) for log in logs]
                self._set_waiting(stream, "")
                failures = 0
                if not any(busy):
                    watch.wait(_IDLE_S)
                continue
            except SinkError as error:
                self._set_waiting(stream, str(error))
                refused = isinstance(error, SinkRefused)
            except Exception as error:
                # A defect of ours must be visible, and must not silently end the delivery of all that follows.
                _log.exception("shipping %s to %s", stream, self._target.name)
                self._set_waiting(stream, f"internal error, see this process's log: {error!r}")
                refused = True
            for log in logs:
                log.reader.close()
            self._look(stream)
            if logs and self._target.rewind_s:
                for log in logs:
                    log.position.rewind()
                self._stopping.wait(SUBSCRIBERS_S)
            logs = []
            self._drop(sink)
            failures += 1
            self._stopping.wait(_RETRY_REFUSED_S if refused else _RETRY_S[min(failures, len(_RETRY_S)) - 1])
        for log in logs:
            log.reader.close()
        watch.close()

    def _look(self, stream: Stream) -> None:
        """Note when the first waiting record was due, also if the peer has never answered."""
        for shard in self._shards:
            if self._status.oldest_due_ns.get((stream, shard)):
                continue
            position = CursorFile(self._run_dir, self._target.name, stream, shard).load().position
            with LogReader(log_directory(self._run_dir, stream, shard), position) as reader, suppress(LogDamaged):
                frame = reader.read(1)
                with self._lock:
                    self._status.oldest_due_ns[stream, shard] = frame.due_ns if frame else 0

    def _opened(self) -> Sink:
        with self._connecting:
            if self._sink is None:
                sink = self._target.sink(self._log_id, min(self._shards, default=0))
                sink.open()
                self._sink = sink
            return self._sink

    def _drop(self, failed: Sink | None) -> None:
        """Close a connection that failed, unless the other stream already has a new one."""
        with self._connecting:
            if failed is None or self._sink is not failed:
                return
            self._sink = None
        failed.close()
        with self._lock:
            self._status.retries += 0 if self._stopping.is_set() else 1

    def _logs(self, sink: Sink, stream: Stream) -> list[_Log]:
        logs = []
        for shard in self._shards:
            position = Position(self._run_dir, self._target.name, stream, shard, self._target)
            position.begin(sink.position(stream, shard))
            logs.append(_Log(LogReader(position.directory, position.cursor.position), position))
            with self._lock:
                self._status.cursors[stream, shard] = position.cursor
        return logs

    def _ship_batch(self, sink: Sink, log: _Log) -> bool:
        """Deliver the next batch of one log. Returns whether there was one."""
        position = log.position
        most = self._target.batch_rows
        name, again = (position.stream, position.shard), position.known - position.cursor.position
        frame = log.reader.read(min(most, again) if again > 0 else most)
        with self._lock:
            self._status.oldest_due_ns[name] = frame.due_ns if frame else 0
        if frame is None:
            return False
        receipt = position.deliver(sink, frame.batch)
        done_ns = time.time_ns()
        if receipt.dead:
            many, why = len(receipt.dead), receipt.dead[0].reason
            _log.warning("%s refused %d record(s), now in %s: %s", self._target.name, many, position.letters.path, why)
        with self._lock:
            self._status.cursors[name] = position.cursor
            if frame.due_ns:
                self._count_latency(frame, receipt, done_ns)
        return True

    def _count_latency(self, frame: Frame, receipt: Receipt, done_ns: int) -> None:
        """From due to acknowledged: record by record where the sink knows, else the batch as one."""
        times = np.asarray(receipt.acked_ns if len(receipt.acked_ns) else [done_ns] * frame.batch.num_rows)
        latencies_s = np.maximum(0.0, (times - frame.due_ns) / 1e9)
        self._status.latencies.add(latencies_s)

    def _set_waiting(self, stream: Stream, reason: str) -> None:
        with self._lock:
            if reason and reason != self._waiting.get(stream):
                _log.warning("%s: %s; records wait in the log", self._target.name, reason)
            self._waiting[stream] = reason
            self._status.waiting_for = next(filter(None, self._waiting.values()), "")


class ShipperActor(Shipper):
    """What Ray starts, and restarts by constructing it anew. It is here and not with the supervisor, so that its
    process loads what a shipper needs and not what a fleet needs."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.start()
