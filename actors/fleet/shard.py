"""A shard: many vehicles as arrays in one process, stepped block by block into the log.

It can be restarted at any point. It continues from its checkpoint and its log, and computes the same records again. No
Ray.
"""

from __future__ import annotations

import io
import logging
import math
import os
import time
import zipfile
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.fleet.plan import ShardPlan
from actors.fleet.sender import NOTHING_KEPT, Sender, Sent
from actors.traces import Trace, tracer_of
from datasets.alarms import HOT_C
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.log import DIRECT_ROWS, SEGMENT_BYTES, LogFull, LogWriter, log_directory
from datasets.log.durable import replace_file
from datasets.log.retention import retain, saves
from datasets.memory import give_back
from datasets.months import MonthKeeper, months_directory
from datasets.schema import FIELDS, SCHEMAS, vehicle_id
from datasets.truth import TruthWriter, truth_directory
from physics import Fault, FleetLives, FleetPhysics

_log = logging.getLogger(__name__)

# So much stays free whatever the shards write: for sealing, for what others write on the volume.
MIN_FREE_BYTES = 256 << 20

_RETAIN_EVERY_S = 2.0


@dataclass(frozen=True)
class ShardStatus:
    """What a shard reports after each block. Counters are since the run began, except `compute_s` (this process)."""

    shard: int
    pid: int
    node: str
    tick: int
    records: int
    compute_s: float
    waiting_for: str = ""
    checkpoint_tick: int = 0
    sent: Sent = NOTHING_KEPT
    """What was not sent, or not once and at once."""
    cut_bytes: int = 0
    """Damaged bytes that opening the log cut off its end; their records were computed again."""
    hot: int = 0
    """Vehicles whose battery was above `HOT_C` when they measured last."""


@dataclass(frozen=True)
class _Running:
    """Nothing prevents the next block."""

    waiting_for: str = ""


@dataclass(frozen=True)
class _NoRoom:
    """The volume is full: `block` is computed and waits to be appended, or (None) a checkpoint waits to be written."""

    block: pa.RecordBatch | None
    waiting_for: str


@dataclass(frozen=True)
class _AtLimit:
    """The log has reached its limit, and a reader's cursor still needs all of it."""

    waiting_for: str = "a sink to take what fills the log up to its limit"


def _arrays(checkpoint: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint."""
    with np.load(checkpoint) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _save_arrays(file: BinaryIO, arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
    """A checkpoint, as `np.savez` would write it. Each array is in parts, which are never joined in memory."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, parts in arrays.items():
            first, rows = parts[0], sum(len(part) for part in parts if part.ndim)
            header = {
                "descr": np.lib.format.dtype_to_descr(first.dtype),
                "fortran_order": False,
                "shape": (rows, *first.shape[1:]) if first.ndim else (),
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                for part in parts:
                    entry.write(np.ascontiguousarray(part).data)


def _telemetry(columns: dict[str, Any], samples: dict[str, np.ndarray]) -> pa.RecordBatch:
    """A batch of `columns`, which are identity and time, and of `samples`, in the order of the schema."""
    for field in FIELDS["telemetry"]:
        if field.name not in columns:
            values = samples[field.name].ravel()
            columns[field.name] = (
                pa.DictionaryArray.from_arrays(values, pa.array(field.labels)) if field.labels else pa.array(values)
            )
    return pa.record_batch([columns[field.name] for field in FIELDS["telemetry"]], schema=SCHEMAS["telemetry"])


def physics_of(plan: ShardPlan) -> tuple[FleetPhysics, npt.NDArray[np.float64]]:
    """The vehicles of a shard before their first step, and their ages then [years], shape (vehicles,)."""
    population = plan.population.draw(plan.indices, plan.start_s)
    physics = (FleetLives if plan.fast_forward else FleetPhysics)(
        population,
        cycles=[load_drive_cycle(name).speed_mps for name in drive_cycle_names()],
        start_s=plan.start_s,
        step_s=plan.step_s,
        sensors=plan.sensors,
        daily=plan.predicted,
    )
    # Compiles or loads the kernels, which is not part of the first block.
    physics.advance(0, plan.telemetry_ticks, compact=True)
    return physics, population.age_years


class Shard:
    """Steps its vehicles and logs what they report. After a restart it continues from its checkpoint and its log."""

    def __init__(self, plan: ShardPlan, node: str = "") -> None:
        self._plan = plan
        self._node = node
        self._compute_s = 0.0
        self._restart = _arrays(io.BytesIO(plan.restart)) if plan.restart else None
        tick = int(self._restart["tick"]) if self._restart else -1
        self._log = LogWriter(
            log_directory(plan.run_dir, "telemetry", plan.shard),
            segment_bytes=plan.retention.segment_bytes if plan.retention else SEGMENT_BYTES,
            fsync=plan.fsync,
            first_row=plan.rows(max(tick, 0)),
            first_mark=tick,
        )
        self._retain_at = -math.inf
        self._saves = saves(plan.run_dir, plan.shard, plan.retention) if plan.retention else None
        self._state: _Running | _NoRoom | _AtLimit = _Running()
        self._physics, ages = physics_of(plan)
        give_back()  # what the set-up took, the population above all
        self._months = self._new_months(ages) if plan.predicted else None
        self._sender = None if plan.transmission.plain else self._new_sender()
        self._ids = pa.array([vehicle_id(plan.first_vehicle + i) for i in range(plan.vehicles)])
        self._keys, self._when = self._keys_of(1), np.empty((2, 1, plan.vehicles), dtype=np.int64)
        self._last: dict[str, np.ndarray] = {}
        self._due_ns: int | None = None
        self._tracer = tracer_of(plan.traces, "shard")
        self._trace: Trace | None = None
        self._checkpoint_path = plan.run_dir / "checkpoints" / f"shard-{plan.shard:04d}.npz"
        self._told: list[tuple[int, dict[str, np.ndarray]]] = []
        self._truth = self._restore()
        self._checkpoint_tick, self._checkpoint_due = self._physics.tick, False
        self._checkpoint_bytes = sum(part.nbytes for parts in self._physics.parts().values() for part in parts)
        self._restart = None
        give_back()

    def _new_months(self, ages: npt.NDArray[np.float64]) -> MonthKeeper:
        plan = self._plan
        return MonthKeeper(months_directory(plan.run_dir, plan.shard), plan.indices, ages, plan.start_s)

    def _new_sender(self) -> Sender:
        plan = self._plan
        return Sender(plan.transmission, plan.population.seed, plan.indices, plan.telemetry_ticks * plan.step_s)

    def _parts(self) -> dict[str, list[np.ndarray]]:
        """What a checkpoint holds."""
        beside = [part.parts() for part in (self._sender, self._months) if part]
        return self._physics.parts() | dict(ChainMap(*beside))

    def _restore(self) -> TruthWriter:
        """Bring the physics to the log's end: checkpoint, then the steps whose records the log already holds. Returns
        the truth up to there."""
        plan = self._plan
        logged = max(self._log.mark, 0)
        # A checkpoint ahead of a log that lost its tail is unusable. The records are computed again, at worst from 0.
        known = [self._restart] if self._restart else []
        try:
            with open(self._checkpoint_path, "rb") as file:
                known.append(_arrays(file))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            _log.warning("%s is damaged (%s); going on from an earlier one", self._checkpoint_path, error)
        usable = [arrays for arrays in known if int(arrays["tick"]) <= logged]
        if usable:
            newest = max(usable, key=lambda arrays: int(arrays["tick"]))
            self._physics.restore(newest)
            for part in (self._sender, self._months):
                if part:
                    part.restore(newest)
        if self._months:
            self._months.begin(plan.time_us(self._physics.tick) * 1e-6)
        now_us = plan.time_us(self._physics.tick)
        truth = TruthWriter(truth_directory(plan.run_dir, plan.shard), self._keys_of(1), now_us)
        if self._physics.tick == 0:
            truth.add(now_us, self._physics.truth())
        period = plan.telemetry_ticks
        stride = period * max(1, min(600 // period, DIRECT_ROWS // plan.vehicles))
        while (tick := self._physics.tick) < logged:
            until_tick = min(tick + stride, plan.next_truth(tick), logged)
            samples = self._physics.advance(until_tick - tick, period, compact=True)
            self._keep_last(samples)
            if self._months:
                self._months.add(self._physics.daily())
                self._months.keep(plan.time_us(self._physics.tick) * 1e-6)
            if self._sender:
                self._sender.send(samples, tick // period)
            for row in self._truth_since(tick):
                truth.add(*row)
        return truth

    def advance(self, until_tick: int, due_ns: int | None = None) -> ShardStatus:
        """Step to `until_tick` as one block and append its telemetry. If already past it, nothing is done twice.

        If the disk is full the shard waits: the block is kept, `waiting_for` says so, and the next call tries again. It
        also waits if the log has reached its limit while a cursor still needs all of it. `due_ns`: when the records of
        this block were due [ns since 1970], default now.
        """
        begun, begun_ns, rows = time.perf_counter(), time.time_ns(), self._log.rows
        self._due_ns = due_ns
        self._trace = self._tracer.trace(self._plan.shard, due_ns) if self._tracer else None
        self._state = self._tried_again()
        while isinstance(self._state, _Running) and self._physics.tick < until_tick:
            self._state = self._step(min(until_tick, self._plan.next_truth(self._physics.tick)))
        self._compute_s += time.perf_counter() - begun
        if self._tracer and self._trace and due_ns:
            about = {"shard": self._plan.shard, "rows": self._log.rows - rows, "tick": self._physics.tick}
            trace, start_ns = self._trace, min(begun_ns, due_ns)
            self._tracer.span(trace, "block", start_ns, time.time_ns(), "", trace.root, **about)
        return self.status()

    def _step(self, until_tick: int) -> _Running | _NoRoom:
        """Step to `until_tick`, at most to the next time of truth. Returns the state that follows."""
        period, tick = self._plan.telemetry_ticks, self._physics.tick
        first_seq, begun_ns = tick // period, time.time_ns()
        samples = self._physics.advance(until_tick - self._physics.tick, period, compact=True)
        self._keep_last(samples)
        self._told += self._truth_since(tick)
        if self._months:
            self._months.add(self._physics.daily())
        batch = self._sent(self._sender, samples, first_seq) if self._sender else self._batch(samples)
        made_ns = time.time_ns()
        state = self._appended(batch)
        if self._tracer and self._trace:
            self._tracer.span(self._trace, "compute", begun_ns, made_ns, self._trace.root)
            self._tracer.span(self._trace, "log", made_ns, time.time_ns(), self._trace.root)
        self._checkpoint_due |= until_tick - self._checkpoint_tick >= self._plan.checkpoint_ticks
        return self._saved(state)

    def _keep_last(self, samples: dict[str, np.ndarray]) -> None:
        if len(samples["soc"]):
            self._last = {name: values[-1] for name, values in samples.items()}

    def _keys_of(self, records: int) -> dict[str, pa.DictionaryArray]:
        """The columns that are the same in all blocks of so many records a vehicle."""
        return self._keys_at(np.tile(np.arange(self._plan.vehicles, dtype=np.int32), records))

    def _keys_at(self, lanes: np.ndarray) -> dict[str, pa.DictionaryArray]:
        """Who reports each row: `lanes` are the vehicles' positions, shape (rows,) int32."""
        return {
            "run_id": pa.DictionaryArray.from_arrays(np.zeros_like(lanes), pa.array([self._plan.run_id])),
            "vehicle_id": pa.DictionaryArray.from_arrays(lanes, self._ids),
        }

    def _sent(self, sender: Sender, samples: dict[str, np.ndarray], first_seq: int) -> pa.RecordBatch:
        """The telemetry rows that arrive, of vehicles that do not just send everything."""
        arrived, plan = sender.send(samples, first_seq), self._plan
        keys = self._keys_at(arrived["lane"].astype(np.int32))
        ts = plan.time_us(0) + (arrived["seq"] + 1) * round(plan.telemetry_ticks * plan.step_s * 1e6)
        when = {"seq": arrived["seq"], "ts": pa.array(ts + arrived["clock_us"], pa.timestamp("us", tz="UTC"))}
        return _telemetry(keys | when, arrived)

    def _batch(self, samples: dict[str, np.ndarray]) -> pa.RecordBatch:
        """Telemetry rows in order of time, then vehicle. They last until the next block."""
        plan, count = self._plan, self._plan.vehicles
        shape = samples["soc"].shape
        last_seq = self._physics.tick // plan.telemetry_ticks - 1
        seq = np.arange(last_seq - shape[0] + 1, last_seq + 1, dtype=np.int64)
        period_us = round(plan.telemetry_ticks * plan.step_s * 1e6)
        ts = plan.start_s * 1_000_000 + (seq + 1) * period_us
        if len(self._keys["vehicle_id"]) != shape[0] * count:
            self._keys, self._when = self._keys_of(shape[0]), np.empty((2, *shape), dtype=np.int64)
        self._when[0], self._when[1] = seq[:, None], ts[:, None]
        columns: dict[str, Any] = self._keys | {
            "seq": self._when[0].ravel(),
            "ts": pa.array(self._when[1].ravel(), pa.timestamp("us", tz="UTC")),
        }
        return _telemetry(columns, samples)

    def _no_room(self, block: pa.RecordBatch | None = None) -> _NoRoom:
        return _NoRoom(block, f"room on the volume of {self._plan.run_dir}")

    def _appended(self, block: pa.RecordBatch) -> _Running | _NoRoom:
        """Keep what was known before a block, then append it. Returns the state that follows."""
        volume = os.statvfs(self._plan.run_dir)
        # Every other shard may find the same room at this moment, and write as much as this one before it looks again.
        written = self._plan.shards * (block.nbytes + self._checkpoint_bytes)
        if block.num_rows and volume.f_bavail * volume.f_frsize < MIN_FREE_BYTES + written:
            return self._no_room(block)
        try:
            if self._months:
                self._months.keep(self._plan.time_us(self._physics.tick) * 1e-6)
            if block.num_rows:
                self._log.append(block, self._physics.tick, self._due_ns)
        except LogFull:
            return self._no_room(block)
        return _Running()

    def _saved[State: (_Running | _NoRoom | _AtLimit)](self, state: State) -> State | _NoRoom:
        """The state that follows once truth is told and a checkpoint written, if they are due. While a block waits for
        room, they wait, too."""
        if isinstance(state, _NoRoom):
            return state
        try:
            self._tell_truth()
            if self._checkpoint_due:
                self._checkpoint()
        except LogFull:
            return self._no_room()
        return state

    def _tried_again(self) -> _Running | _NoRoom | _AtLimit:
        """The state before a new block: check the log against its limit, then write what was kept back."""
        state = self._state
        waiting = not isinstance(state, _Running)
        at_limit = isinstance(state, _AtLimit)
        retention = self._plan.retention
        # Also on a full volume: what retention may drop by now makes the room that is missing.
        if retention is not None and (waiting or time.monotonic() >= self._retain_at):
            self._retain_at = time.monotonic() + _RETAIN_EVERY_S
            at_limit = not retain(self._plan.run_dir, self._plan.shard, retention, since=self._saves)
            if at_limit:
                self._log.roll()  # an open segment cannot be dropped, a sealed one can
        if isinstance(state, _NoRoom):
            after = self._saved(_Running() if state.block is None else self._appended(state.block))
            if isinstance(after, _NoRoom):
                return after
        return _AtLimit() if at_limit else _Running()

    def _checkpoint(self) -> None:
        """The log and the truth reach the disk first: a checkpoint must never be ahead of them."""
        self._log.sync()
        self._truth.write()
        replace_file(self._checkpoint_path, lambda file: _save_arrays(file, self._parts()))
        self._checkpoint_tick, self._checkpoint_due = self._physics.tick, False

    def _truth_since(self, tick: int) -> list[tuple[int, dict[str, np.ndarray]]]:
        """(time, truth) of the times of truth after `tick`, up to now."""
        plan, now, physics = self._plan, self._physics.tick, self._physics
        if not isinstance(physics, FleetLives):
            return [(plan.time_us(now), physics.truth())] if now == plan.next_truth(tick) else []
        series, period = physics.truth_series(), plan.telemetry_ticks
        return [
            (plan.time_us(period * seq), {name: values[row] for name, values in series.items()})
            for row, seq in enumerate(range(tick // period + 1, now // period + 1))
        ]

    def _tell_truth(self) -> None:
        """Keep the truth that was told for the next checkpoint. LogFull if a whole span has no room; the rest waits."""
        while self._told:
            self._truth.add(*self._told[0])
            self._told.pop(0)

    def inject(self, vehicle: int, kind: str, onset_s: float, severity: float) -> None:
        """Give a vehicle a fault, from the next block on. An unknown kind raises ValueError.

        A checkpoint follows at once, because a shard that died before it would compute the records without the fault.
        On a full volume it follows when there is room, before the next block.
        """
        self._physics.inject(vehicle - self._plan.first_vehicle, Fault(kind, onset_s, severity))
        self._checkpoint_due = True
        self._state = self._saved(self._state)

    def status(self) -> ShardStatus:
        """The status of this shard."""
        return ShardStatus(
            shard=self._plan.shard,
            pid=os.getpid(),
            node=self._node,
            tick=self._physics.tick,
            records=self._log.rows,
            compute_s=self._compute_s,
            waiting_for=self._state.waiting_for,
            checkpoint_tick=self._checkpoint_tick,
            sent=replace(self._sender.sent, taken=self._plan.rows(self._physics.tick))
            if self._sender
            else NOTHING_KEPT,
            cut_bytes=self._log.cut_bytes,
            hot=int(np.count_nonzero(self._last["battery_temperature"] > HOT_C)) if self._last else 0,
        )

    def checkpoint(self) -> tuple[int, bytes]:
        """(tick, content) of the last checkpoint on disk; (0, b"") before the first."""
        try:
            return self._checkpoint_tick, self._checkpoint_path.read_bytes()
        except FileNotFoundError:
            return 0, b""

    def vehicle_state(self, vehicle: int) -> dict[str, Any]:
        """The last telemetry record of one vehicle, as Python values; {} before the first record."""
        if not self._last:
            return {}
        lane = vehicle - self._plan.first_vehicle
        record: dict[str, Any] = {name: values[lane].item() for name, values in self._last.items()}
        for field in FIELDS["telemetry"]:
            if field.labels:
                record[field.name] = field.labels[record[field.name]]
        return {"vehicle_id": vehicle_id(vehicle), "seq": self._physics.tick // self._plan.telemetry_ticks - 1} | record

    def close(self) -> ShardStatus:
        """Write the truth and a checkpoint, seal the log.

        If there is no room for the first two, it says so in `waiting_for` and has not closed: close it again. A block
        that still waits for room is given up. It is computed again when the run goes on.
        """
        try:
            if isinstance(self._state, _NoRoom) and self._state.block is not None:
                self._state = self._appended(self._state.block)
            if not isinstance(self._state, _NoRoom) or self._state.block is None:
                self._told.append((self._plan.time_us(self._physics.tick), self._physics.truth()))
                self._tell_truth()
                self._checkpoint()
        except LogFull:
            self._state = self._no_room()
            return self.status()
        except BaseException:
            self._log.close()
            raise
        self._log.close()
        if self._tracer:
            self._tracer.close()
        self._state = _Running()
        return self.status()
