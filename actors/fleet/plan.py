"""What a fleet is: everything that decides its records, and where they go. Ticks count simulation steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from actors.delivery.sinks.base import Target, reader_of
from actors.prediction.plan import READER, FeederPlan, PoolPlan, pool_name
from actors.traces import TracePlan
from datasets.log import DIRECT_ROWS, SEGMENT_BYTES
from datasets.log.retention import Retention
from datasets.names import Fsync
from datasets.transmission import PLAIN, Transmission
from datasets.truth import truth_ticks
from models.features import is_predicted
from physics.sensors import DEFAULT_SENSORS, PROFILES, Sensors

if TYPE_CHECKING:
    from physics import Population

# A block of so many records is written as one sealed segment: fast, and memory is bounded whatever the fleet's size.
_BLOCK_ROWS = 2 * DIRECT_ROWS
# And of a vehicle at least two: the second one is mostly like the first, and takes little room on the disk.
_BLOCK_RECORDS = 2
# A block has at most so many vehicle-steps of about 40 ns, so that Ctrl-C and a restarted shard do not wait for long.
_BLOCK_STEPS = 20_000_000
_FAST_FORWARD_DAYS = 365


def vehicle_ranges(vehicles: int, shards: int) -> list[tuple[int, int]]:
    """(first vehicle, how many) of each shard: contiguous, of sizes as equal as possible."""
    bounds = np.linspace(0, vehicles, shards + 1).astype(int).tolist()
    return [(first, end - first) for first, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class PopulationPlan:
    """The composition of the fleet: the arguments of `physics.draw_population`. `cells`, `models`: (name, share)
    pairs."""

    seed: int
    cells: tuple[tuple[str, float], ...]
    use: str | None
    oldest_years: float
    fault_share: float | None
    drains: bool = True
    models: tuple[tuple[str, float], ...] | None = None

    def draw(self, indices: npt.NDArray[np.int64], start_s: int) -> Population:
        """These vehicles of the fleet, shape (n,)."""
        from physics import draw_population  # loads a compiler, so imported late

        return draw_population(
            self.seed,
            indices,
            dict(self.cells),
            use=self.use,
            models=dict(self.models) if self.models else None,
            oldest_years=self.oldest_years,
            fault_share=self.fault_share,
            start_s=start_s,
            drains=self.drains,
        )


@dataclass(frozen=True)
class ShardPlan:
    """Everything that decides a shard's records: the same plan gives the same records, anywhere and every time."""

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
    """Simulate only some days in full; telemetry is at multiples of a day."""
    sensors: Sensors = PROFILES[DEFAULT_SENSORS]
    transmission: Transmission = PLAIN
    predicted: bool = False
    """Its records are predicted, so what its vehicles were like each month is kept."""
    fsync: Fsync = "checkpoint"
    retention: Retention | None = None
    shards: int = 1
    """How many shards the run has, all of which may write to one volume."""
    traces: TracePlan | None = None
    restart: bytes = b""
    """A checkpoint from the driver, for a shard whose log was lost with its node. The new log begins there."""

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Of its vehicles in the fleet, shape (vehicles,)."""
        return np.arange(self.first_vehicle, self.first_vehicle + self.vehicles, dtype=np.int64)

    def rows(self, tick: int) -> int:
        """Telemetry rows made up to `tick`."""
        return self.vehicles * (tick // self.telemetry_ticks)

    def time_us(self, tick: int) -> int:
        """Simulated time of a tick [us since 1970]."""
        return self.start_s * 1_000_000 + round(tick * self.step_s * 1e6)

    def next_truth(self, tick: int) -> int:
        """The next tick after this one at which a block ends to tell the truth: every simulated day from the start on.
        In fast-forward each sample tells it, and no block ends for it."""
        if self.fast_forward:
            return 1 << 62
        day = truth_ticks(self.step_s)
        return (tick // day + 1) * day

    def holds(self, vehicle: int) -> bool:
        """Whether this shard has that vehicle."""
        return self.first_vehicle <= vehicle < self.first_vehicle + self.vehicles


@dataclass(frozen=True)
class FleetPlan:
    """Everything that makes a fleet. `pace` is simulated over real time, inf for no limit."""

    run_dir: Path
    run_id: str
    log_id: str
    vehicles: int
    shards: int
    population: PopulationPlan
    start_s: int
    step_s: float
    telemetry_ticks: int
    predict_ticks: int
    checkpoint_ticks: int
    pace: float
    fast_forward: bool = False
    sensors: Sensors = PROFILES[DEFAULT_SENSORS]
    transmission: Transmission = PLAIN
    targets: tuple[Target, ...] = ()
    pool: PoolPlan | None = None
    fsync: Fsync = "checkpoint"
    log_max_age_s: float = math.inf
    log_max_bytes: float = math.inf
    accept_loss: bool = False
    """Go on without records that the logs do not hold any more."""
    traces: TracePlan | None = None

    @property
    def paced(self) -> bool:
        """Whether the wall clock limits the simulation."""
        return math.isfinite(self.pace)

    def retention(self) -> Retention | None:
        """The retention of one shard; None if all is kept."""
        if math.isinf(self.log_max_age_s) and math.isinf(self.log_max_bytes):
            return None
        sinks = tuple(reader_of(target) for target in self.targets)
        readers = (*sinks, READER) if self.pool is not None else sinks
        return Retention(
            (("telemetry", readers), ("predictions", sinks)), self.log_max_age_s, self.log_max_bytes / self.shards
        )

    def shard_plans(self) -> list[ShardPlan]:
        """One plan for each of `vehicle_ranges`."""
        return [
            ShardPlan(
                run_dir=self.run_dir,
                run_id=self.run_id,
                shard=shard,
                first_vehicle=first,
                vehicles=count,
                population=self.population,
                start_s=self.start_s,
                step_s=self.step_s,
                telemetry_ticks=self.telemetry_ticks,
                checkpoint_ticks=self.checkpoint_ticks,
                fast_forward=self.fast_forward,
                sensors=self.sensors,
                transmission=self.transmission,
                predicted=self.pool is not None,
                fsync=self.fsync,
                retention=self.retention(),
                shards=self.shards,
                traces=self.traces,
            )
            for shard, (first, count) in enumerate(vehicle_ranges(self.vehicles, self.shards))
        ]

    def feeder_plan(self, first_rows: dict[int, tuple[int, int]]) -> FeederPlan:
        """The feeder's plan for the shards of one node. `first_rows`: the rows that precede their logs."""
        retention = self.retention()
        return FeederPlan(
            run_dir=self.run_dir,
            first_rows=first_rows,
            telemetry_ticks=self.telemetry_ticks,
            predict_ticks=self.predict_ticks,
            start_s=self.start_s,
            step_s=self.step_s,
            segment_bytes=retention.segment_bytes if retention else SEGMENT_BYTES,
            accept_loss=self.accept_loss,
            pool=pool_name(self.log_id),
            traces=self.traces,
        )

    def rows_before(self, shard: ShardPlan, tick: int) -> tuple[int, int]:
        """Rows of telemetry and of predictions that precede a checkpoint at `tick`."""
        seq = np.arange(tick // shard.telemetry_ticks)
        predicted = is_predicted(seq, shard.telemetry_ticks, self.predict_ticks).sum() if self.pool else 0
        return shard.rows(tick), shard.vehicles * int(predicted)

    def longest_block(self, vehicles: int) -> int:
        """Steps of the longest block of a shard of so many vehicles."""
        period = self.telemetry_ticks
        # In fast-forward each vehicle jumps by itself and waits at a block's end for the slowest. So blocks are long.
        if self.fast_forward:
            return period * max(_FAST_FORWARD_DAYS, _BLOCK_ROWS // vehicles)
        return period * max(_BLOCK_RECORDS, min(_BLOCK_ROWS, _BLOCK_STEPS // period) // vehicles)
