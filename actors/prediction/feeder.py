"""Feeds the predictor pool: one more reader of the telemetry log.

Because it reads the log, telemetry goes on while the pool is down, and the predictions are computed later from the log.
Each frame of the predictions log carries as its mark the telemetry position that it covers, so a prediction is made
exactly once. The way to ask the pool is an argument, so there is no Ray here.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.latency import Latencies
from actors.prediction.plan import READER, FeederPlan
from datasets.log import Cursor, CursorFile, Frame, LogFull, LogReader, LogWriter, log_directory
from datasets.log.watch import Watch
from datasets.schema import MODEL_OUTPUTS, SCHEMAS
from models.features import input_matrix, is_predicted

_log = logging.getLogger(__name__)

_READ_ROWS = 20_000
_IN_FLIGHT = 4
_IDLE_S = 0.1  # the longest sleep; what is appended to a log ends it
_RETRY_S = 1.0
_ANSWER_TIMEOUT_S = 60.0


class Answer(Protocol):
    """The pool's answer about a batch, which may still be on its way."""

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        """Wait for the answer: an array for each of `MODEL_OUTPUTS`, shape (n,), and `model_version`."""


Ask = Callable[[npt.NDArray[np.float32]], Answer]
"""Asks the pool about rows of the model's inputs, shape (n, 7), without waiting."""


@dataclass
class FeederStatus:
    """`read`: telemetry rows looked at, by shard; `made`: predictions, by shard. `latency_s`: of the last batch, from
    question to answer; `latencies`: of each record, from due to predicted."""

    pid: int
    read: dict[int, int]
    made: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    latency_s: float = 0.0
    latencies: Latencies = field(default_factory=Latencies)
    waiting_for: str = "the predictor pool to start"

    @property
    def predictions(self) -> int:
        """Predictions made, over all shards."""
        return sum(self.made.values())


@dataclass(frozen=True)
class _Asked:
    """A batch that the pool was asked about: `rows` of `shard`. All telemetry before `position` has been looked at."""

    shard: int
    position: int
    rows: pa.RecordBatch
    due_ns: int
    answer: Answer
    asked_s: float


class Feeder:
    """Asks the pool about those records of one node that are to be predicted, and logs the answers.

    `connect` gives the way to ask; it raises while the pool is not up. Queue: at most `_IN_FLIGHT` batches are asked
    about and not answered. When it is full the feeder waits for the oldest answer; the records stay in the log.
    """

    def __init__(self, plan: FeederPlan, connect: Callable[[], Ask]) -> None:
        self._plan = plan
        self._connect = connect
        self._writers = {
            shard: LogWriter(
                log_directory(plan.run_dir, "predictions", shard),
                segment_bytes=plan.segment_bytes,
                first_row=predictions,
                first_mark=telemetry or -1,
            )
            for shard, (telemetry, predictions) in plan.first_rows.items()
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
        """Finish what was asked and seal the predictions log."""
        self._stopping.set()
        self._thread.join(timeout=30)
        for writer in self._writers.values():
            writer.close()
        return self.status()

    def _feed(self) -> None:
        logs = [log_directory(self._plan.run_dir, "telemetry", shard) for shard in self._writers]
        watch = Watch(logs)
        while not self._stopping.is_set():
            try:
                self._feed_until_failure(watch)
            except Exception as error:
                # Whatever the pool's failure is, the reaction is the same: go back to the last logged prediction.
                reason = str(error).strip().splitlines() or [type(error).__name__]
                _log.warning("predictor pool: %s; predictions will be computed later from the log", reason[0])
                self._wait_for(f"the predictor pool ({reason[0][:120]})")
                self._stopping.wait(_RETRY_S)
        watch.close()

    def _wait_for(self, what: str) -> None:
        with self._lock:
            self._status.waiting_for = what

    def _feed_until_failure(self, watch: Watch) -> None:
        ask = self._connect()
        readers = {
            shard: LogReader(log_directory(self._plan.run_dir, "telemetry", shard), max(writer.mark, 0))
            for shard, writer in self._writers.items()
        }
        asked: deque[_Asked] = deque()
        try:
            while not self._stopping.is_set():
                progress = False
                for shard, reader in readers.items():
                    if len(asked) >= _IN_FLIGHT:
                        self._log_answer(asked.popleft())
                    frame = reader.read(_READ_ROWS)
                    if frame is None:
                        continue
                    progress = True
                    rows = self._rows_to_predict(frame)
                    position = frame.row + frame.batch.num_rows
                    if rows.num_rows:
                        answer = ask(input_matrix(rows))
                        asked.append(_Asked(shard, position, rows, frame.due_ns, answer, time.perf_counter()))
                    else:
                        # Nothing in this frame to ask about: it counts as read once all before it is answered.
                        while any(earlier.shard == shard for earlier in asked):
                            self._log_answer(asked.popleft())
                        with self._lock:
                            self._status.read[shard] = position
                if not progress:
                    while asked:
                        self._log_answer(asked.popleft())
                    watch.wait(_IDLE_S)
            while asked:
                self._log_answer(asked.popleft())
        finally:
            for reader in readers.values():
                reader.close()

    def _rows_to_predict(self, frame: Frame) -> pa.RecordBatch:
        seq = frame.batch.column("seq").to_numpy()
        return frame.batch.filter(pa.array(is_predicted(seq, self._plan.telemetry_ticks, self._plan.predict_ticks)))

    def _log_answer(self, asked: _Asked) -> None:
        """Wait for one answer and log it."""
        answer = asked.answer.result(timeout_s=_ANSWER_TIMEOUT_S)
        shard, position, due_ns, count = asked.shard, asked.position, asked.due_ns, len(asked.rows)
        batch = _predictions(asked.rows, answer)
        while True:
            try:
                self._writers[shard].append(batch, position, due_ns or None)
                CursorFile(self._plan.run_dir, READER, "telemetry", shard).save(Cursor(position))
                break
            except LogFull:
                self._wait_for(f"room on the volume of {self._plan.run_dir}")
                if self._stopping.wait(_RETRY_S):
                    raise  # nothing after it is logged either: the next start asks again from here
        with self._lock:
            self._status.read[shard] = position
            self._status.made[shard] += count
            self._status.batches += 1
            self._status.latency_s = time.perf_counter() - asked.asked_s
            if due_ns:
                self._status.latencies.add(np.full(count, max(0.0, (time.time_ns() - due_ns) / 1e9)))
            self._status.waiting_for = ""


def _predictions(rows: pa.RecordBatch, answer: dict[str, Any]) -> pa.RecordBatch:
    """The records of an answer about `rows`."""
    version = answer["model_version"]
    columns: dict[str, Any] = {name: rows.column(name) for name in ("run_id", "vehicle_id", "seq", "ts")}
    columns["model_version"] = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), pa.array([version]))
    columns |= {field.name: pa.array(field.rounded(answer[field.name])) for field in MODEL_OUTPUTS}
    schema = SCHEMAS["predictions"]
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)
