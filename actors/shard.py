"""A shard: many vehicles as arrays in one process, stepped block by block into the log (DESIGN D1, D2, D4)."""

from __future__ import annotations

import io
import itertools
import logging
import math
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.log import SEGMENT_BYTES, Fsync, LogFull, LogWriter, log_directory
from datasets.retention import Retention, retain
from datasets.schema import MODES, SCHEMAS, TELEMETRY_FIELDS, vehicle_id
from physics import Fault, FleetLives, FleetPhysics, draw_population

_log = logging.getLogger(__name__)

# Below this much free space a shard waits before it appends: room for the seals and cursors of what is already made.
MIN_FREE_BYTES = 256 << 20


_RETAIN_EVERY_S = 2.0
_TYPES = {field.name: field.type.to_pandas_dtype() for field in TELEMETRY_FIELDS if field.decimals is not None}
_TYPES |= {"mode": np.int8, "flags": np.int32}


def vehicle_ranges(vehicles: int, shards: int) -> list[tuple[int, int]]:
    """(first vehicle, how many) of each shard: contiguous, their sizes as equal as can be."""
    bounds = np.linspace(0, vehicles, shards + 1).astype(int).tolist()
    return [(first, end - first) for first, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class PopulationPlan:
    """Who is in the fleet: the arguments of `physics.draw_population`. `cells`: (name, share) pairs."""

    seed: int
    cells: tuple[tuple[str, float], ...]
    use: str | None
    oldest_years: float
    fault_share: float


@dataclass(frozen=True)
class ShardPlan:
    """All that decides a shard's records: the same plan makes the same records, anywhere, any number of times."""

    run_dir: Path
    run_id: str
    shard: int
    first_vehicle: int
    vehicles: int
    population: PopulationPlan
    start_s: int
    step_s: float
    telemetry_ticks: int
    checkpoint_ticks: int
    fast_forward: bool = False
    """Live days in full only now and then; telemetry at multiples of a day."""
    fsync: Fsync = "checkpoint"
    retention: Retention | None = None
    restart: bytes = b""
    """A checkpoint from elsewhere, for a shard whose log was lost with its node: where its log begins anew."""

    def rows(self, tick: int) -> int:
        """Telemetry rows made up to `tick`."""
        return self.vehicles * (tick // self.telemetry_ticks)


@dataclass(frozen=True)
class ShardStatus:
    """What a shard tells of itself after each block; counters since the run began, but for `compute_s`."""

    shard: int
    pid: int
    node: str
    tick: int
    records: int
    compute_s: float
    waiting_for: str = ""
    checkpoint_tick: int = 0
    cut_bytes: int = 0
    """Damaged bytes that opening the log cut off its end; their records were made again."""


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """What a checkpoint holds."""
    with np.load(io.BytesIO(content)) as arrays:
        return {name: arrays[name] for name in arrays.files}


class Shard:
    """Steps its vehicles and logs what they report. Restart it anywhere: it goes on from its checkpoint and its log."""

    def __init__(self, plan: ShardPlan, node: str = "") -> None:
        self._plan = plan
        self._node = node
        self._compute_s = 0.0
        self._restart = _arrays(plan.restart) if plan.restart else None
        tick = int(self._restart["tick"]) if self._restart else -1
        self._log = LogWriter(
            log_directory(plan.run_dir, "telemetry", plan.shard),
            segment_bytes=plan.retention.segment_bytes if plan.retention else SEGMENT_BYTES,
            fsync=plan.fsync,
            first_row=plan.rows(max(tick, 0)),
            first_mark=tick,
        )
        self._retain_at = -math.inf
        self._over_limit = False
        self._physics = self._fresh()
        self._ids = pa.array([vehicle_id(plan.first_vehicle + i) for i in range(plan.vehicles)])
        self._last: dict[str, np.ndarray] = {}
        self._due_ns: int | None = None
        self._pending: pa.RecordBatch | None = None
        self._checkpoint_path = plan.run_dir / "checkpoints" / f"shard-{plan.shard:04d}.npz"
        self._restore()
        self._checkpoint_tick = self._physics.tick

    def _fresh(self) -> FleetPhysics:
        plan = self._plan
        vehicles = np.arange(plan.first_vehicle, plan.first_vehicle + plan.vehicles, dtype=np.int64)
        who = plan.population
        population = draw_population(
            who.seed,
            vehicles,
            dict(who.cells),
            use=who.use,
            oldest_years=who.oldest_years,
            fault_share=who.fault_share,
            start_s=plan.start_s,
        )
        physics = (FleetLives if plan.fast_forward else FleetPhysics)(
            population,
            cycles=[load_drive_cycle(name).speed_mps for name in drive_cycle_names()],
            start_s=plan.start_s,
            step_s=plan.step_s,
        )
        physics.advance(0, plan.telemetry_ticks)  # compiles or loads the kernels: not part of the first block
        return physics

    def _restore(self) -> None:
        """Bring the physics to the log's end: checkpoint, then the steps whose records the log already holds."""
        logged = max(self._log.mark, 0)
        # A checkpoint ahead of a log that lost its tail is of no use: the same records are made again, from 0 at worst.
        known = [self._restart] if self._restart else []
        try:
            known.append(_arrays(self._checkpoint_path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            _log.warning("%s is damaged (%s); going on from an earlier one", self._checkpoint_path, error)
        usable = [arrays for arrays in known if int(arrays["tick"]) <= logged]
        if usable:
            self._physics.restore(max(usable, key=lambda arrays: int(arrays["tick"])))
        stride = self._plan.telemetry_ticks * max(1, 600 // self._plan.telemetry_ticks)
        while self._physics.tick < logged:
            self._keep_last(self._physics.advance(min(stride, logged - self._physics.tick), self._plan.telemetry_ticks))

    def advance(self, until_tick: int, due_ns: int | None = None) -> ShardStatus:
        """Step to `until_tick` as one block and append its telemetry. Already past it: nothing is done twice.

        A full disk makes the shard wait: the block is kept, `waiting_for` says so, and the next call tries again. So
        does a log that has reached its limit while a cursor still needs all of it. `due_ns`: when the records of this
        block were due [ns since 1970], default now.
        """
        begun = time.perf_counter()
        self._due_ns = due_ns
        room = self._append_pending() and self._within_limit()
        if room and (ticks := until_tick - self._physics.tick) > 0:
            samples = self._physics.advance(ticks, self._plan.telemetry_ticks, _TYPES)
            self._keep_last(samples)
            if len(samples["soc"]):
                self._pending = self._batch(samples)
            if self._append_pending() and self._physics.tick - self._checkpoint_tick >= self._plan.checkpoint_ticks:
                self._checkpoint()
        self._compute_s += time.perf_counter() - begun
        return self.status()

    def _keep_last(self, samples: dict[str, np.ndarray]) -> None:
        if len(samples["soc"]):
            self._last = {name: values[-1].copy() for name, values in samples.items()}

    def _batch(self, samples: dict[str, np.ndarray]) -> pa.RecordBatch:
        """Rows in order of time, then vehicle."""
        plan, count = self._plan, self._plan.vehicles
        shape = samples["soc"].shape
        last_seq = self._physics.tick // plan.telemetry_ticks - 1
        seq = np.arange(last_seq - shape[0] + 1, last_seq + 1, dtype=np.int64)
        period_us = round(plan.telemetry_ticks * plan.step_s * 1e6)
        ts = plan.start_s * 1_000_000 + (seq + 1) * period_us
        codes = pa.array(np.tile(np.arange(count, dtype=np.int32), shape[0]))
        columns: dict[str, Any] = {
            "run_id": pa.DictionaryArray.from_arrays(np.zeros(shape[0] * count, np.int32), pa.array([plan.run_id])),
            "vehicle_id": pa.DictionaryArray.from_arrays(codes, self._ids),
            "seq": np.repeat(seq, count),
            "ts": pa.array(np.repeat(ts, count), pa.timestamp("us", tz="UTC")),
            "mode": pa.DictionaryArray.from_arrays(samples["mode"].ravel(), pa.array(MODES)),
        }
        for field in TELEMETRY_FIELDS:
            if field.name not in columns:
                columns[field.name] = pa.array(samples[field.name].ravel())
        return pa.record_batch([columns[field.name] for field in TELEMETRY_FIELDS], schema=SCHEMAS["telemetry"])

    def _append_pending(self) -> bool:
        """Whether nothing is left to append."""
        if self._pending is not None:
            stats = os.statvfs(self._plan.run_dir)
            if stats.f_bavail * stats.f_frsize < MIN_FREE_BYTES:
                return False
            try:
                self._log.append(self._pending, self._physics.tick, self._due_ns)
            except LogFull:
                return False
            self._pending = None
        return True

    def _within_limit(self) -> bool:
        """Drop what the log need not keep any more; whether what remains leaves room under its limit."""
        retention = self._plan.retention
        if retention is not None and (self._over_limit or time.monotonic() >= self._retain_at):
            self._retain_at = time.monotonic() + _RETAIN_EVERY_S
            self._over_limit = not retain(self._plan.run_dir, self._plan.shard, retention)
            if self._over_limit:
                self._log.roll()  # an open segment cannot go: sealed, it can
        return not self._over_limit

    def _checkpoint(self) -> None:
        """The log reaches the disk first: a checkpoint must never be ahead of it."""
        self._log.sync()
        self._checkpoint_path.parent.mkdir(exist_ok=True)
        temporary = self._checkpoint_path.with_suffix(".tmp.npz")
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **self._physics.snapshot())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._checkpoint_path)
        self._checkpoint_tick = self._physics.tick

    def _write_truth(self) -> None:
        """What no vehicle reports, at this moment: aging by mechanism, faults; one row a vehicle."""
        truth = self._physics.truth()
        truth["vehicle_id"] = np.array([vehicle_id(int(v)) for v in truth.pop("vehicle")])
        truth["tick"] = np.full(self._plan.vehicles, self._physics.tick)
        path = self._plan.run_dir / "truth" / f"shard-{self._plan.shard:04d}.parquet"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        pq.write_table(pa.table(truth), temporary)
        os.replace(temporary, path)

    def inject(self, vehicle: int, kind: str, onset_s: float, severity: float) -> None:
        """Give a vehicle a fault, from the next block on; ValueError for an unknown kind. Part of the next checkpoint:
        a shard that dies before it makes the records without it again, so a checkpoint follows at once."""
        self._physics.inject(vehicle - self._plan.first_vehicle, Fault(kind, onset_s, severity))
        if self._append_pending():
            self._checkpoint()

    def status(self) -> ShardStatus:
        """Where this shard stands."""
        return ShardStatus(
            shard=self._plan.shard,
            pid=os.getpid(),
            node=self._node,
            tick=self._physics.tick,
            records=self._log.rows,
            compute_s=self._compute_s,
            waiting_for=self._waiting_for(),
            checkpoint_tick=self._checkpoint_tick,
            cut_bytes=self._log.cut_bytes,
        )

    def _waiting_for(self) -> str:
        if self._pending is not None:
            return f"room on the volume of {self._plan.run_dir}"
        return "a sink to take what fills the log up to its limit" if self._over_limit else ""

    def checkpoint(self) -> tuple[int, bytes]:
        """(tick, content) of the last checkpoint on disk; (0, b"") before the first."""
        try:
            return self._checkpoint_tick, self._checkpoint_path.read_bytes()
        except FileNotFoundError:
            return 0, b""

    def vehicle_state(self, vehicle: int) -> dict[str, Any]:
        """The last telemetry record of one vehicle, as Python values; the initial state has none and gives {}."""
        if not self._last:
            return {}
        lane = vehicle - self._plan.first_vehicle
        record: dict[str, Any] = {name: values[lane].item() for name, values in self._last.items()}
        record["mode"] = MODES[record["mode"]]
        return {"vehicle_id": vehicle_id(vehicle), "seq": self._physics.tick // self._plan.telemetry_ticks - 1} | record

    def close(self) -> ShardStatus:
        """Checkpoint, write the ground truth, seal the log."""
        try:
            if self._append_pending():
                self._checkpoint()
                self._write_truth()
        finally:
            self._log.close()
        return self.status()


class ShardActor(Shard):
    """What Ray starts. It stands here, so that its process loads no more than a shard needs."""

    def __init__(self, plan: ShardPlan) -> None:
        import ray  # the one place that knows of it: a shard runs anywhere

        super().__init__(plan, node=ray.get_runtime_context().get_node_id())
