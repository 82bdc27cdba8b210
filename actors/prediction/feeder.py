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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.latency import Latencies
from actors.prediction.past import ShardPast
from actors.prediction.plan import READER, FeederPlan, Known
from actors.supervised import keep_calling
from actors.traces import tracer_of
from datasets.alarms import RISKY
from datasets.log import (
    Cursor,
    CursorFile,
    Frame,
    LogBusy,
    LogDamaged,
    LogFull,
    LogReader,
    LogWriter,
    log_directory,
)
from datasets.log.watch import Watch
from datasets.months import months_directory
from datasets.schema import MODEL_OUTPUTS, SCHEMAS, vehicle_indices
from models.features import FEATURES, input_matrix, is_predicted

_log = logging.getLogger(__name__)

_READ_ROWS = 20_000
_IN_FLIGHT = 4
_IDLE_S = 0.1  # the longest sleep; what is appended to a log ends it
_RETRY_S = 1.0
_SAVE_S = 2.0
_ANSWER_TIMEOUT_S = 60.0


class PoolSilent(Exception):
    """The pool does not answer, or not as it should; the message says for what the feeder waits."""

    @classmethod
    def because(cls, error: Exception) -> PoolSilent:
        """With the first line of the reason."""
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return cls(f"the predictor pool ({reason[0][:120]})")


class Answer(Protocol):
    """The pool's answer about a batch, which may still be on its way."""

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        """Wait: an array for each of `MODEL_OUTPUTS`, shape (n,), `model_version`, and maybe a `notice`."""


Ask = Callable[[npt.NDArray[np.float32]], Answer]
"""Asks the pool about rows of `FEATURES`, shape (n, len(FEATURES)), without waiting."""


@dataclass
class FeederStatus:
    """`read`: telemetry rows looked at, by shard; `made`: predictions, by shard. `latency_s`: of the last batch, from
    question to answer; `latencies`: of each record, from due to predicted. `notice`: what the pool said last of where
    its model comes from; "" where nothing is wrong. `model_version`: of the last batch. `at_risk`: vehicles whose last
    prediction, by this process, was a failure risk above `RISKY`."""

    pid: int
    read: dict[int, int]
    made: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    latency_s: float = 0.0
    latencies: Latencies = field(default_factory=Latencies)
    waiting_for: str = "the predictor pool to start"
    notice: str = ""
    model_version: str = ""
    at_risk: int = 0

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
    read_ns: int
    asked_ns: int


class _Newest:
    """The newest record of each vehicle of a shard that was to be predicted."""

    def __init__(self) -> None:
        self._vehicles = np.empty(0, dtype=np.int64)
        self._seq = self._ts_us = np.empty(0, dtype=np.int64)
        self._inputs = np.empty((0, len(FEATURES)), dtype=np.float32)

    def take(self, vehicle: npt.NDArray[np.int64], rows: pa.RecordBatch, inputs: npt.NDArray[np.float32]) -> None:
        new = np.setdiff1d(vehicle, self._vehicles)
        if new.size:
            vehicles = np.union1d(self._vehicles, new)
            seq, ts_us = np.full(vehicles.size, -1), np.zeros(vehicles.size, dtype=np.int64)
            known = np.full((vehicles.size, len(FEATURES)), np.nan, dtype=np.float32)
            of = np.searchsorted(vehicles, self._vehicles)
            seq[of], ts_us[of], known[of] = self._seq, self._ts_us, self._inputs
            self._vehicles, self._seq, self._ts_us, self._inputs = vehicles, seq, ts_us, known
        of, seq = np.searchsorted(self._vehicles, vehicle), rows.column("seq").to_numpy()
        order = np.argsort(seq, kind="stable")  # of several records of a vehicle the last is kept
        order = order[seq[order] >= self._seq[of[order]]]
        self._seq[of[order]] = seq[order]
        self._ts_us[of[order]] = rows.column("ts").cast(pa.int64()).to_numpy()[order]
        self._inputs[of[order]] = inputs[order]

    def of(self, vehicle: int) -> Known | None:
        where = int(np.searchsorted(self._vehicles, vehicle))
        if where == self._vehicles.size or self._vehicles[where] != vehicle or self._seq[where] < 0:
            return None
        return Known(int(self._seq[where]), int(self._ts_us[where]), self._inputs[where].copy())


class _Feed:
    """One shard's telemetry on its way to its predictions. If something is wrong with its logs alone, it is left alone
    until `retry_at`."""

    def __init__(self, plan: FeederPlan, shard: int) -> None:
        self.shard = shard
        self.retry_at = 0.0
        self._plan = plan
        self._file = CursorFile(plan.run_dir, READER, "telemetry", shard)
        self.reader = LogReader(log_directory(plan.run_dir, "telemetry", shard))
        self._past = ShardPast(months_directory(plan.run_dir, shard))
        self._newest = _Newest()
        self.writer: LogWriter | None = None
        self._saved = self.looked = self._file.load().position
        """All telemetry before `looked` is looked at, and its predictions are logged."""
        self._save_at = 0.0

    def opened(self) -> LogWriter:
        """The predictions log, and telemetry from where it goes on."""
        if self.writer is None:
            telemetry, predictions = self._plan.first_rows[self.shard]
            self.writer = LogWriter(
                log_directory(self._plan.run_dir, "predictions", self.shard),
                segment_bytes=self._plan.segment_bytes,
                first_row=predictions,
                first_mark=telemetry or -1,
            )
            # The file is never ahead of predictions on the disk. It may be ahead of the log's mark, where nothing was
            # to be predicted for long.
            self.looked = max(self.writer.mark, self._file.load().position, 0)
            self.reader.seek(self.looked)
        return self.writer

    def inputs(self, rows: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """The `FEATURES` of each telemetry row."""
        vehicle, plan = _vehicles(rows), self._plan
        time_s = plan.start_s + (rows.column("seq").to_numpy() + 1) * (plan.telemetry_ticks * plan.step_s)
        inputs = np.hstack([input_matrix(rows), self._past.at(vehicle, time_s)])
        self._newest.take(vehicle, rows, inputs)
        return inputs

    def known(self, vehicle: int) -> Known | None:
        """The newest record of a vehicle that was to be predicted."""
        return self._newest.of(vehicle)

    def passed(self, position: int) -> None:
        """All before `position` is dealt with. Retention may drop it once its predictions are on the disk."""
        self.looked = position
        self.save()

    def save(self, *, at_once: bool = False) -> None:
        """Save the cursor, unless that was done a moment ago."""
        if self.writer is not None and self.looked != self._saved and (at_once or time.monotonic() >= self._save_at):
            self._save_at = time.monotonic() + _SAVE_S
            self.writer.sync()
            self._file.save(Cursor(self.looked))
            self._saved = self.looked

    def go_back(self) -> None:
        """Read again from after what was logged last."""
        self.reader.seek(self.looked)

    def reopen(self) -> None:
        """Begin again with both logs, after a failure."""
        writer, self.writer = self.writer, None
        self.reader.close()
        if writer is not None:
            with suppress(Exception):  # it has failed already
                writer.close()

    def close(self) -> None:
        """Seal the predictions log."""
        self.reader.close()
        if self.writer is not None:
            self.save(at_once=True)
            self.writer.close()


class Feeder:
    """Asks the pool about those records of one node that are to be predicted, and logs the answers.

    `connect` gives the way to ask; it raises while the pool is not up. Queue: at most `_IN_FLIGHT` batches are asked
    about and not answered. When it is full the feeder waits for the oldest answer; the records stay in the log.
    """

    def __init__(self, plan: FeederPlan, connect: Callable[[], Ask]) -> None:
        self._plan = plan
        self._connect = connect
        self._feeds = {shard: _Feed(plan, shard) for shard in plan.first_rows}
        self._asked: deque[_Asked] = deque()
        self._risk = np.zeros(0, dtype=np.float32)  # of each vehicle, by its last prediction
        self._lock = threading.Lock()
        self._waits: dict[int | None, str] = {None: "the predictor pool to start"}
        self._status = FeederStatus(os.getpid(), {shard: feed.looked for shard, feed in self._feeds.items()})
        self._status.made = {shard: rows for shard, (_, rows) in plan.first_rows.items()}
        for feed in self._feeds.values():
            self._guarded(feed, partial(self._open, feed))
        self._tracer = tracer_of(plan.traces, READER)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to feed, in the background."""
        self._thread.start()

    def status(self) -> FeederStatus:
        """A copy of the counters."""
        with self._lock:
            return copy.deepcopy(self._status)

    def vehicle(self, vehicle: int) -> Known | None:
        """What is known of a vehicle; None of one that has reported nothing here since this process began."""
        return next((known for feed in self._feeds.values() if (known := feed.known(vehicle))), None)

    def stop(self) -> FeederStatus:
        """Finish what was asked and seal the predictions logs."""
        self._stopping.set()
        self._thread.join(timeout=30)
        for feed in self._feeds.values():
            self._guarded(feed, feed.close)
        if self._tracer:
            self._tracer.close()
        return self.status()

    def _feed(self) -> None:
        watch = Watch(log_directory(self._plan.run_dir, "telemetry", shard) for shard in self._feeds)

        def turn() -> float:
            try:
                self._feed_until_failure(watch)
            except PoolSilent as error:
                _log.warning("%s; predictions will be computed later from the log", error)
                self._wait_for(str(error))
                return _RETRY_S
            return 0.0

        keep_calling(turn, self._stopping, self._wait_for, _RETRY_S)
        watch.close()

    def _wait_for(self, what: str, shard: int | None = None) -> None:
        """Say what the feeder, or one shard's predictions, wait for."""
        with self._lock:
            self._waits[shard] = what
            self._status.waiting_for = next(filter(None, self._waits.values()), "")

    def _feed_until_failure(self, watch: Watch) -> None:
        """Feed as long as the pool answers. Raises PoolSilent when it does not."""
        self._asked.clear()
        for feed in self._feeds.values():
            feed.go_back()
        try:
            ask = self._connect()
        except Exception as error:
            raise PoolSilent.because(error) from error
        while not self._stopping.is_set():
            busy = [self._guarded(feed, partial(self._ask_next, feed, ask)) for feed in self._feeds.values()]
            if not any(busy):
                self._log_answers()
                for feed in self._feeds.values():
                    self._guarded(feed, feed.save)
                watch.wait(_IDLE_S)
        self._log_answers()

    def _guarded[T](self, feed: _Feed, work: Callable[[], T]) -> T | None:
        """Do the work. Whatever is wrong with this shard's logs alone is told and tried again, while others go on."""
        if time.monotonic() < feed.retry_at:
            return None
        try:
            return work()
        except PoolSilent:
            raise
        except (LogDamaged, LogBusy, OSError) as error:
            why = str(error)
        except Exception as error:
            _log.exception("predictions of shard %d", feed.shard)
            why = f"internal error, see this process's log: {error!r}"
        _log.warning("predictions of shard %d wait: %s", feed.shard, why)
        self._wait_for(f"shard {feed.shard}: {why}", feed.shard)
        self._asked = deque(asked for asked in self._asked if asked.shard != feed.shard)
        feed.reopen()
        feed.retry_at = time.monotonic() + _RETRY_S
        return None

    def _open(self, feed: _Feed) -> LogWriter:
        fresh = feed.writer is None
        writer = feed.opened()
        if fresh:
            with self._lock:
                self._status.read[feed.shard], self._status.made[feed.shard] = feed.looked, writer.rows
            self._wait_for("", feed.shard)
        return writer

    def _ask_next(self, feed: _Feed, ask: Ask) -> bool:
        """Ask about the next frame of one shard. Returns whether there was one."""
        self._open(feed)
        if len(self._asked) >= _IN_FLIGHT:
            self._log_answer(self._asked.popleft())
        try:
            frame = feed.reader.read(_READ_ROWS)
        except LogDamaged as error:
            return self._passed(feed, error)
        read_ns = time.time_ns()  # not before: a block may begin while we read
        if frame is None:
            return False
        rows = self._rows_to_predict(frame)
        position = frame.row + frame.batch.num_rows
        if rows.num_rows:
            try:
                answer = ask(feed.inputs(rows))
            except Exception as error:
                raise PoolSilent.because(error) from error
            moments = time.perf_counter(), read_ns, time.time_ns()
            self._asked.append(_Asked(feed.shard, position, rows, frame.due_ns, answer, *moments))
        else:
            # Nothing in this frame to ask about: it counts as read once all before it is answered.
            self._read_up_to(feed, position)
        return True

    def _read_up_to(self, feed: _Feed, position: int) -> None:
        while any(earlier.shard == feed.shard for earlier in self._asked):
            self._log_answer(self._asked.popleft())
        feed.passed(position)
        with self._lock:
            self._status.read[feed.shard] = position

    def _passed(self, feed: _Feed, error: LogDamaged) -> bool:
        """The next telemetry is not in the log any more: pass it, if that was allowed."""
        if not self._plan.accept_loss or error.readable_from is None:
            raise error
        _log.warning("shard %d: no predictions up to row %d: %s", feed.shard, error.readable_from, error)
        feed.reader.seek(error.readable_from)
        self._read_up_to(feed, error.readable_from)
        return True

    def _rows_to_predict(self, frame: Frame) -> pa.RecordBatch:
        seq = frame.batch.column("seq").to_numpy()
        return frame.batch.filter(pa.array(is_predicted(seq, self._plan.telemetry_ticks, self._plan.predict_ticks)))

    def _log_answers(self) -> None:
        while self._asked:
            self._log_answer(self._asked.popleft())

    def _log_answer(self, asked: _Asked) -> None:
        """Wait for one answer and log it."""
        try:
            answer = asked.answer.result(timeout_s=_ANSWER_TIMEOUT_S)
            batch = _predictions(asked.rows, answer)
        except Exception as error:
            # Whatever the pool's failure is, the reaction is the same: go back to the last logged prediction.
            raise PoolSilent.because(error) from error
        answered_ns, feed = time.time_ns(), self._feeds[asked.shard]
        if self._guarded(feed, partial(self._append, feed, asked, batch)) is None:
            return
        self._trace(asked, answered_ns)
        self._keep_risk(batch)
        with self._lock:
            self._status.read[asked.shard] = asked.position
            self._status.made[asked.shard] += len(asked.rows)
            self._status.batches += 1
            self._status.at_risk = int(np.count_nonzero(self._risk > RISKY))
            self._status.notice, self._status.model_version = answer.get("notice", ""), answer["model_version"]
            self._status.latency_s = time.perf_counter() - asked.asked_s
            if asked.due_ns:
                late_s = max(0.0, (time.time_ns() - asked.due_ns) / 1e9)
                self._status.latencies.add(np.full(len(asked.rows), late_s))
        self._wait_for("")
        self._wait_for("", asked.shard)

    def _trace(self, asked: _Asked, answered_ns: int) -> None:
        if self._tracer is None or (trace := self._tracer.trace(asked.shard, asked.due_ns)) is None:
            return
        logged_ns, predict = time.time_ns(), trace.predict(asked.position)
        self._tracer.span(
            trace, "predict", asked.read_ns, logged_ns, trace.root, predict, shard=asked.shard, rows=len(asked.rows)
        )
        self._tracer.span(trace, "ask", asked.asked_ns, answered_ns, predict)
        self._tracer.span(trace, "log", answered_ns, logged_ns, predict)

    def _keep_risk(self, batch: pa.RecordBatch) -> None:
        vehicle = _vehicles(batch)
        most = int(vehicle.max()) + 1
        if most > self._risk.size:
            self._risk = np.pad(self._risk, (0, max(most, 2 * self._risk.size) - self._risk.size))
        self._risk[vehicle] = batch.column("failure_probability").to_numpy()  # of several the last one stays

    def _append(self, feed: _Feed, asked: _Asked, batch: pa.RecordBatch) -> bool:
        """Log predictions; while the volume is full, wait. Returns True."""
        while True:
            try:
                self._open(feed).append(batch, asked.position, asked.due_ns or None)
                break
            except LogFull:
                self._wait_for(f"room on the volume of {self._plan.run_dir}")
                if self._stopping.wait(_RETRY_S):
                    raise  # nothing after it is logged either: the next start asks again from here
        feed.passed(asked.position)
        return True


def _vehicles(rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Which vehicle each row is of."""
    ids = rows.column("vehicle_id")
    found: npt.NDArray[np.int64] = vehicle_indices(ids.dictionary)[ids.indices.to_numpy()]
    return found


def _predictions(rows: pa.RecordBatch, answer: dict[str, Any]) -> pa.RecordBatch:
    """The records of an answer about `rows`."""
    version = answer["model_version"]
    columns: dict[str, Any] = {name: rows.column(name) for name in ("run_id", "vehicle_id", "seq", "ts")}
    columns["model_version"] = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), pa.array([version]))
    columns |= {field.name: pa.array(field.rounded(answer[field.name])) for field in MODEL_OUTPUTS}
    schema = SCHEMAS["predictions"]
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)
