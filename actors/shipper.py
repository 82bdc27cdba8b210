"""Carries the logs of one node to one sink: read after the cursor, deliver, wait for the answer, move the cursor.

One process a sink, so that a stuck broker holds up neither the fleet nor another sink; one thread a stream, so that
predictions do not queue behind telemetry. Full peer, slow peer, dead peer: the records stay in the log and the backlog
shows. The order of one vehicle's records is the log's: a batch is retried whole before the next one leaves.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from actors.sinks import Sink, SinkError, SinkRefused, Target
from datasets.cursor import CursorFile
from datasets.log import LogReader, log_directory
from datasets.schema import STREAMS, Stream

_log = logging.getLogger(__name__)

BATCH_ROWS = 5_000
_IDLE_S = 0.01
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_RETRY_REFUSED_S = 5.0
# Upper bounds [s] of the histogram "appended to the log -> acknowledged by the sink".
LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


@dataclass
class ShipperStatus:
    """Counters of one sink on one node. `positions`: rows acknowledged of each log, (stream, shard)."""

    sink: str
    pid: int = 0
    positions: dict[tuple[Stream, int], int] = field(default_factory=dict)
    duplicates: int = 0
    retries: int = 0
    waiting_for: str = ""
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
    latency_sum_s: float = 0.0

    def delivered(self, stream: Stream) -> int:
        """Records of one stream that the sink has acknowledged."""
        return sum(position for (of, _), position in self.positions.items() if of == stream)


class Shipper:
    """Ships until it is told to stop. Restart it anywhere: it goes on from its cursors."""

    def __init__(self, target: Target, run_dir: Path, log_id: str, shards: list[int]) -> None:
        self._target = target
        self._run_dir = run_dir
        self._log_id = log_id
        self._shards = shards
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # the counters
        self._connecting = threading.Lock()
        self._waiting: dict[Stream, str] = {}
        self._status = ShipperStatus(target.name, os.getpid())
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
        """Finish the batches on their way (or give up on a peer that does not answer), save the cursors."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=5)
        self._drop(self._sink)
        return self.status()

    def _ship(self, stream: Stream) -> None:
        """One stream's loop: all shards in turn, a batch each. Any failure goes back to the cursors."""
        sink: Sink | None = None
        readers: dict[int, LogReader] = {}
        failures = 0
        while not self._stopping.is_set():
            try:
                sink = self._opened()
                readers = readers or self._readers(sink, stream)
                busy = [self._ship_batch(sink, stream, shard, reader) for shard, reader in readers.items()]
                self._set_waiting(stream, "")
                failures = 0
                if not any(busy):
                    self._stopping.wait(_IDLE_S)
                continue
            except SinkError as error:
                self._set_waiting(stream, str(error))
                refused = isinstance(error, SinkRefused)
            except Exception as error:
                # A defect of ours must be seen, and must not silently end the delivery of all that follows.
                _log.exception("shipping %s to %s", stream, self._target.name)
                self._set_waiting(stream, f"internal error, see this process's log: {error!r}")
                refused = True
            for reader in readers.values():
                reader.close()
            readers = {}
            self._drop(sink)
            failures += 1
            self._stopping.wait(_RETRY_REFUSED_S if refused else _RETRY_S[min(failures, len(_RETRY_S)) - 1])
        for reader in readers.values():
            reader.close()

    def _opened(self) -> Sink:
        with self._connecting:
            if self._sink is None:
                sink = self._target.sink(self._log_id)
                sink.open()
                self._sink = sink
            return self._sink

    def _drop(self, failed: Sink | None) -> None:
        """Let go of a connection that failed, unless the other stream already has a new one."""
        with self._connecting:
            if failed is None or self._sink is not failed:
                return
            self._sink = None
        failed.close()
        with self._lock:
            self._status.retries += 0 if self._stopping.is_set() else 1

    def _readers(self, sink: Sink, stream: Stream) -> dict[int, LogReader]:
        readers = {}
        for shard in self._shards:
            position = sink.position(stream, shard)
            if position is None:
                position = CursorFile(self._run_dir, self._target.name, stream, shard).load()
            readers[shard] = LogReader(log_directory(self._run_dir, stream, shard), position)
            with self._lock:
                self._status.positions[stream, shard] = position
        return readers

    def _ship_batch(self, sink: Sink, stream: Stream, shard: int, reader: LogReader) -> bool:
        """Deliver the next batch of one log; whether there was one."""
        frame = reader.read(BATCH_ROWS)
        if frame is None:
            return False
        position = frame.row + frame.batch.num_rows
        duplicates = sink.deliver(stream, shard, frame.batch, position)
        CursorFile(self._run_dir, self._target.name, stream, shard).save(position)
        with self._lock:
            self._status.positions[stream, shard] = position
            self._status.duplicates += duplicates
            if frame.written_ns:
                latency_s = max(0.0, (time.time_ns() - frame.written_ns) / 1e9)
                bucket = int(np.searchsorted(LATENCY_BUCKETS_S, latency_s))
                self._status.latency_counts[bucket] += frame.batch.num_rows
                self._status.latency_sum_s += latency_s * frame.batch.num_rows
        return True

    def _set_waiting(self, stream: Stream, reason: str) -> None:
        with self._lock:
            if reason and reason != self._waiting.get(stream):
                _log.warning("%s: %s; records wait in the log", self._target.name, reason)
            self._waiting[stream] = reason
            self._status.waiting_for = next(filter(None, self._waiting.values()), "")
