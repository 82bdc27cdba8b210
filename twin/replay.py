"""An old run into a new sink: the log read again, in the order of time, as fast as it goes or at a pace.

Order: that of each log, and over the logs that of simulated time: exactly at a pace, else no batch for Kafka or MQTT is
more than `_AHEAD_US` ahead of another log. Tables and folders have no order over the logs.

Idempotent: what was delivered by the same command before is not delivered again, whether that ended or was killed. The
database and a folder say themselves how far they are; for Kafka and MQTT a cursor in the run's directory does.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.delivery import SUBSCRIBERS_S, Delivery
from actors.sinks import ParquetTarget, Sink, SinkRefused, SinkUnavailable, Target
from actors.sinks.base import mask
from datasets.log import LogDamaged, LogReader, extent
from datasets.schema import STREAMS, Stream
from twin.errors import BadInput, NotDelivered, RunFailed
from twin.runs import load_run, shard_count
from twin.servers import targets_of
from twin.settings import RunSettings

_BATCH_ROWS = 5_000
_FILE_ROWS = 1 << 18
_RETRY_S = 1.0
_AHEAD_US = 10_000_000
_MARKER = "replay.json"
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
    delivery: Delivery
    reader: LogReader
    batch: pa.RecordBatch
    end: int


class Replay:
    """Delivers the rows of the run in `directory` with begin <= ts < end to `target`."""

    def __init__(
        self,
        directory: Path,
        run: Mapping[str, Any],
        target: Target,
        *,
        where: str,
        begin: datetime | None = None,
        end: datetime | None = None,
        pace: float = math.inf,
        patience_s: float = 60.0,
    ) -> None:
        # Of the log as well: a database keeps the cursors of many runs.
        log_id = run.get("log_id", run["run_id"])
        key = hashlib.sha256(f"{log_id} {target.name} {where} {begin} {end}".encode()).hexdigest()[:12]
        self.id = f"replay-{key}"
        self._run, self._shards, self._target = directory, shard_count(run), target
        self._begin_us = -(1 << 62) if begin is None else round(begin.timestamp() * 1e6)
        self._end_us = 1 << 62 if end is None else round(end.timestamp() * 1e6)
        self._pace, self._patience_s = pace, patience_s
        self._folder = isinstance(target, ParquetTarget)
        self._rows = _FILE_ROWS if self._folder else _BATCH_ROWS
        self._ordered = target.name in ("kafka", "mqtt")
        self._logs: list[_Log] = []
        self.counts = Replayed()

    def run(self, tell: Callable[[Replayed], None], stop: threading.Event) -> Replayed:
        """To the end of the log, or until `stop`. BadInput where the sink refuses, NotDelivered where it is silent,
        RunFailed where the log is damaged."""
        last_progress = time.monotonic()
        while not stop.is_set():
            before = self.counts.records + self.counts.predictions
            sink = self._target.sink(self.id)
            try:
                sink.open()
                self._through(sink, tell, stop)
                return self.counts
            except LogDamaged as error:
                raise RunFailed(str(error)) from error
            except SinkRefused as error:
                raise BadInput(f"--{'out' if self._folder else self._target.name}: {error}") from error
            except SinkUnavailable as error:
                self.counts.waiting_for = str(error)
                tell(self.counts)
                if self.counts.records + self.counts.predictions > before:
                    last_progress = time.monotonic()
                self._rewind(stop)
                if time.monotonic() - last_progress > self._patience_s:
                    raise NotDelivered(f"{error}; run the same command again to go on from here") from error
                stop.wait(_RETRY_S)
            finally:
                sink.close()
        return self.counts

    def _rewind(self, stop: threading.Event) -> None:
        if [log for log in self._logs if log.delivery.rewind()]:
            stop.wait(SUBSCRIBERS_S)

    def _through(self, sink: Sink, tell: Callable[[Replayed], None], stop: threading.Event) -> None:
        """One pass on one connection: of all logs, always the one whose next record is the oldest."""
        self._logs = [self._log(sink, stream, shard) for stream in STREAMS for shard in range(self._shards)]
        try:
            queue: list[tuple[int, int, _Log]] = []
            for log in self._logs:
                self._push(queue, log)
            began, first_us = time.monotonic(), queue[0][0] if queue else 0
            while queue and not stop.is_set():
                due_us, _, log = heapq.heappop(queue)
                if math.isfinite(self._pace):
                    wait_s = began + (due_us - first_us) / 1e6 / self._pace - time.monotonic()
                    if wait_s > 0 and stop.wait(wait_s):
                        break
                    until_us = due_us
                elif self._ordered and queue:
                    until_us = queue[0][0] + _AHEAD_US
                else:
                    until_us = self._end_us
                self._deliver(sink, log, until_us)
                tell(self.counts)
                self._push(queue, log)
        finally:
            for log in self._logs:
                log.reader.close()

    def _log(self, sink: Sink, stream: Stream, shard: int) -> _Log:
        delivery = Delivery(self._run, self.id, stream, shard, self._target)
        delivery.begin(sink.position(stream, shard), peer_decides=self._folder)
        held = extent(delivery.directory)
        delivery.move(max(held.first, delivery.cursor.position))
        reader = LogReader(delivery.directory, delivery.cursor.position)
        return _Log(delivery, reader, pa.record_batch({}), held.end)

    def _push(self, queue: list[tuple[int, int, _Log]], log: _Log) -> None:
        """Queue the log by the time of its next record that is wanted; not at all where there is none."""
        while not log.batch.num_rows:
            frame = log.reader.read(min(self._rows, max(1, log.end - log.reader.position)))
            if frame is None or frame.row >= log.end:
                return
            times = _times(frame.batch)
            if times[0] >= self._end_us:
                return
            first, last = np.searchsorted(times, [self._begin_us, self._end_us])
            # What is not wanted counts as passed: in front now, behind when its batch is done.
            log.delivery.move(frame.row + int(first))
            log.batch = frame.batch.slice(int(first), int(last - first))
        heapq.heappush(queue, (int(_times(log.batch.slice(0, 1))[0]), id(log), log))

    def _deliver(self, sink: Sink, log: _Log, until_us: int) -> None:
        """The rows of the batch up to that time."""
        rows = int(np.searchsorted(_times(log.batch), until_us, side="right"))
        before = log.delivery.cursor.duplicates
        receipt = log.delivery.deliver(sink, log.batch.slice(0, rows))
        log.batch = log.batch.slice(rows)
        if log.delivery.stream == "telemetry":
            self.counts.records += rows
        else:
            self.counts.predictions += rows
        self.counts.duplicates += log.delivery.cursor.duplicates - before
        self.counts.dead += len(receipt.dead)
        self.counts.waiting_for = ""


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
    first, last = _time("--from", begin), _time("--to-time", end)
    if first and last and first >= last:
        raise BadInput(f"--to-time: expected a time after --from ({begin}), got {end}")
    replay = Replay(
        directory,
        run,
        target,
        where=where,
        begin=first,
        end=last,
        pace=settings.pace,
        patience_s=settings.drain_timeout,
    )
    if isinstance(target, ParquetTarget):
        _claim(target.folder, replay.id)
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


def _claim(folder: Path, replay_id: str) -> None:
    """Files are named by rows: a folder holds one replay, of one run, one interval. BadInput where it holds another."""
    marker = folder / _MARKER
    try:
        if marker.exists():
            if json.loads(marker.read_text()).get("id") == replay_id:
                return
        elif not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            folder.mkdir(parents=True, exist_ok=True)
            marker.write_text(json.dumps({"id": replay_id}) + "\n")
            return
    except (OSError, ValueError) as error:
        raise BadInput(f"--out: cannot use {folder}: {' '.join(str(error).split())}") from error
    raise BadInput(f"--out: expected a new folder or that of the same replay, {folder} holds something else")


def _time(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{flag}: expected a time like 2026-06-01T08:00Z, got {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
