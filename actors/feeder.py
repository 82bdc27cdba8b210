"""Feeds the predictor pool: one more reader of the telemetry log (DESIGN D7).

Because it reads the log, telemetry goes on while the pool is down and predictions are made up afterwards; because each
frame of the predictions log carries the telemetry position behind it as its mark, a prediction is made exactly once.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ray import serve
from ray.serve.handle import DeploymentResponse

from actors.shipper import LATENCY_BUCKETS_S, with_latencies
from datasets.cursor import Cursor, CursorFile
from datasets.log import SEGMENT_BYTES, Frame, LogFull, LogReader, LogWriter, log_directory
from datasets.schema import SCHEMAS
from models.features import due, input_matrix

_log = logging.getLogger(__name__)

APP_NAME = "predictor"  # the pool's name with Serve; here, so that a feeder need not load what the pool loads
_READ_ROWS = 20_000
_IN_FLIGHT = 4
_IDLE_S = 0.01
_RETRY_S = 1.0
_ANSWER_TIMEOUT_S = 60.0


@dataclass
class FeederStatus:
    """`read`: telemetry rows looked at of each shard; `made`: predictions. `latency_s`: of the last batch, asked to
    answered; `latency_counts`: due to predicted, a record each."""

    pid: int
    read: dict[int, int]
    made: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    latency_s: float = 0.0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
    latency_sum_s: float = 0.0
    waiting_for: str = "the predictor pool to start"

    @property
    def predictions(self) -> int:
        """Predictions made of all shards."""
        return sum(self.made.values())


class Feeder:
    """Asks the pool about every due record of the shards of one node and logs what it answers."""

    def __init__(
        self,
        run_dir: Path,
        first_rows: dict[int, tuple[int, int]],
        telemetry_ticks: int,
        predict_ticks: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """`first_rows`: by shard, the rows of telemetry and predictions before its logs begin, where they are new."""
        self._run_dir = run_dir
        self._telemetry_ticks = telemetry_ticks
        self._predict_ticks = predict_ticks
        self._writers = {
            shard: LogWriter(
                log_directory(run_dir, "predictions", shard),
                segment_bytes=segment_bytes,
                first_row=predictions,
                first_mark=telemetry or -1,
            )
            for shard, (telemetry, predictions) in first_rows.items()
        }
        self._lock = threading.Lock()
        self._status = FeederStatus(os.getpid(), {shard: max(w.mark, 0) for shard, w in self._writers.items()})
        self._status.made = {shard: writer.rows for shard, writer in self._writers.items()}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to feed, in the background."""
        self._thread.start()

    def status(self) -> FeederStatus:
        """A copy of the counters."""
        with self._lock:
            return copy.deepcopy(self._status)

    def stop(self) -> FeederStatus:
        """Finish what was asked, seal the predictions log."""
        self._stopping.set()
        self._thread.join(timeout=30)
        for writer in self._writers.values():
            writer.close()
        return self.status()

    def _feed(self) -> None:
        while not self._stopping.is_set():
            try:
                self._feed_until_failure()
            except Exception as error:
                # Whatever the pool's failure is called, the answer is the same: go back to the last logged prediction.
                reason = str(error).strip().splitlines() or [type(error).__name__]
                _log.warning("predictor pool: %s; predictions are made up later", reason[0])
                with self._lock:
                    self._status.waiting_for = f"the predictor pool ({reason[0][:120]})"
                self._stopping.wait(_RETRY_S)

    def _feed_until_failure(self) -> None:
        handle = serve.get_app_handle(APP_NAME)
        readers = {
            shard: LogReader(log_directory(self._run_dir, "telemetry", shard), max(writer.mark, 0))
            for shard, writer in self._writers.items()
        }
        asked: deque[tuple[int, int, pa.RecordBatch, int, DeploymentResponse, float]] = deque()
        try:
            while not self._stopping.is_set():
                progress = False
                for shard, reader in readers.items():
                    if len(asked) >= _IN_FLIGHT:
                        self._answer(*asked.popleft())
                    frame = reader.read(_READ_ROWS)
                    if frame is None:
                        continue
                    progress = True
                    rows = self._due_rows(frame)
                    position = frame.row + frame.batch.num_rows
                    if rows.num_rows:
                        response = handle.predict_batch.remote(input_matrix(rows))
                        asked.append((shard, position, rows, frame.due_ns, response, time.perf_counter()))
                    else:
                        # Nothing in it to ask about: it counts as read once all that precedes it is answered.
                        while any(waiting[0] == shard for waiting in asked):
                            self._answer(*asked.popleft())
                        with self._lock:
                            self._status.read[shard] = position
                if not progress:
                    while asked:
                        self._answer(*asked.popleft())
                    self._stopping.wait(_IDLE_S)
            while asked:
                self._answer(*asked.popleft())
        finally:
            for reader in readers.values():
                reader.close()

    def _due_rows(self, frame: Frame) -> pa.RecordBatch:
        seq = frame.batch.column("seq").to_numpy()
        return frame.batch.filter(pa.array(due(seq, self._telemetry_ticks, self._predict_ticks)))

    def _answer(
        self,
        shard: int,
        position: int,
        rows: pa.RecordBatch,
        due_ns: int,
        response: DeploymentResponse,
        asked_at: float,
    ) -> None:
        """Wait for one answer and log it."""
        answer: dict[str, Any] = response.result(timeout_s=_ANSWER_TIMEOUT_S)
        version = answer.pop("model_version")
        columns: dict[str, Any] = {name: rows.column(name) for name in ("run_id", "vehicle_id", "seq", "ts")}
        columns["model_version"] = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), pa.array([version]))
        columns |= {name: pa.array(values) for name, values in answer.items()}
        schema = SCHEMAS["predictions"]
        batch = pa.record_batch([columns[name] for name in schema.names], schema=schema)
        while True:
            try:
                self._writers[shard].append(batch, position, due_ns or None)
                CursorFile(self._run_dir, "predictor", "telemetry", shard).save(Cursor(position))
                break
            except LogFull:
                with self._lock:
                    self._status.waiting_for = f"room on the volume of {self._run_dir}"
                if self._stopping.wait(_RETRY_S):
                    raise  # and log nothing that comes after it: the next start asks again from here
        with self._lock:
            self._status.read[shard] = position
            self._status.made[shard] += len(rows)
            self._status.batches += 1
            self._status.latency_s = time.perf_counter() - asked_at
            if due_ns:
                since_due_s = max(0.0, (time.time_ns() - due_ns) / 1e9)
                latencies_s = np.full(len(rows), since_due_s)
                self._status.latency_counts = with_latencies(self._status.latency_counts, latencies_s)
                self._status.latency_sum_s += float(latencies_s.sum())
            self._status.waiting_for = ""


class FeederActor(Feeder):
    """What Ray starts, and restarts by calling this again."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.start()
