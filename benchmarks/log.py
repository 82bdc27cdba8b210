"""A record in the sealed log: its bytes and the time to write it, in shards of every size, beside pyarrow's defaults.
And the core time of a shard with its log beside that of its bare kernel.

python benchmarks/log.py [--quick] [--sensors typical]
Prints and writes benchmarks/results/log.json. The blocks are those that the supervisor asks for as fast as it goes. The
peer writes the same blocks with `pyarrow.parquet.write_table` (Snappy, dictionaries). Times are core time, in turn, so
a busy machine matters less; files go to the page cache.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.fleet.plan import FleetPlan, PopulationPlan
from actors.fleet.shard import Shard, physics_of
from benchmarks import parser, results_of
from datasets.log import Frame, LogReader, log_directory
from datasets.log.segments import write_sealed
from physics.sensors import DEFAULT_SENSORS, PROFILES


@dataclass(frozen=True)
class Size:
    vehicles: tuple[int, ...] = (100, 1_000, 10_000, 50_000, 200_000)
    blocks: int = 4
    repeats: int = 7
    shards: tuple[int, ...] = (5_000, 50_000)
    shard_blocks: int = 12


QUICK = Size(vehicles=(100, 1_000), blocks=1, repeats=1, shards=(100,), shard_blocks=1)


@dataclass(frozen=True)
class Measured:
    """Per record. `frame_bytes`: of the same records as Arrow arrays, which is what an open segment holds."""

    vehicles: int
    rows: int
    bytes: float
    peer_bytes: float
    frame_bytes: float
    ns: float
    peer_ns: float

    @property
    def ratios(self) -> dict[str, float]:
        return {
            "bytes_over_peer": self.bytes / self.peer_bytes,
            "bytes_over_frame": self.bytes / self.frame_bytes,
            "time_over_peer": self.ns / self.peer_ns,
        }


def plan_of(run: Path, vehicles: int, sensors: str) -> FleetPlan:
    return FleetPlan(
        run_dir=run, run_id="run-benchmark", log_id="log", vehicles=vehicles, shards=1,
        population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02), start_s=1_780_297_200, step_s=1.0,
        telemetry_ticks=2, predict_ticks=5, checkpoint_ticks=600, pace=math.inf, sensors=PROFILES[sensors],
    )  # fmt: skip


def last_block(run: Path, vehicles: int, blocks: int, sensors: str) -> tuple[float, pa.RecordBatch]:
    """Bytes a record of a log of so many blocks, and the rows of its last block."""
    plan = plan_of(run, vehicles, sensors)
    shard = Shard(plan.shard_plans()[0])
    longest = plan.longest_block(vehicles)
    for block in range(blocks):
        shard.advance((block + 1) * longest)
    rows = shard.status().records
    shard.close()
    directory = log_directory(run, "telemetry", 0)
    sizes = sum(path.stat().st_size for path in directory.glob("*.parquet"))
    batches = []
    with LogReader(directory, rows - rows // blocks) as reader:
        while (frame := reader.read(1 << 22)) is not None:
            batches.append(frame.batch)
    return sizes / rows, pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()[0]


def seconds(work: Callable[[], object]) -> float:
    """Of core time, by this thread."""
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def measure(folder: Path, vehicles: int, size: Size, sensors: str) -> Measured:
    """The last block, written both ways in turn."""
    size_of_one, batch = last_block(folder / "run", vehicles, size.blocks, sensors)
    table, peer = pa.Table.from_batches([batch]), folder / "peer.parquet"
    ours, theirs = [], []
    for _ in range(size.repeats):
        ours.append(seconds(lambda: write_sealed(folder, 0, [Frame(0, batch, 0, 0)])))
        theirs.append(seconds(lambda: pq.write_table(table, peer)))
    rows = batch.num_rows
    return Measured(
        vehicles, rows, size_of_one, peer.stat().st_size / rows, batch.nbytes / rows,
        statistics.median(ours) / rows * 1e9, statistics.median(theirs) / rows * 1e9,
    )  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """Nanoseconds of core time a vehicle-step: the bare kernel, and a shard with all that its process does."""

    vehicles: int
    kernel_ns: float
    shard_ns: float

    @property
    def kernel_over_shard(self) -> float:
        return self.kernel_ns / self.shard_ns


def core_seconds(work: Callable[[], object]) -> float:
    """Of core time, by all threads of this process."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def rate(run: Path, vehicles: int, size: Size, sensors: str) -> Rate:
    """Block by block in turn, after two that are not counted."""
    plan = plan_of(run, vehicles, sensors)
    (of,) = plan.shard_plans()
    shard, longest = Shard(of), plan.longest_block(vehicles)
    physics, _ = physics_of(of)
    kernel_s, shard_s = [], []
    for block in range(size.shard_blocks + 2):
        kernel_s.append(core_seconds(lambda: physics.advance(longest, plan.telemetry_ticks, compact=True)))
        end = (block + 1) * longest
        shard_s.append(core_seconds(partial(shard.advance, end)))
    shard.close()
    steps = longest * vehicles * size.shard_blocks / 1e9
    return Rate(vehicles, sum(kernel_s[2:]) / steps, sum(shard_s[2:]) / steps)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--sensors", choices=list(PROFILES), default=DEFAULT_SENSORS)
    arguments = flags.parse_args()
    size = QUICK if arguments.quick else Size()
    found = []
    for vehicles in size.vehicles:
        with tempfile.TemporaryDirectory() as name:
            found.append(measure(Path(name), vehicles, size, arguments.sensors))
        one = found[-1]
        print(
            f"{vehicles:9,} vehicles a shard: {one.bytes:5.1f} bytes a record ({one.ratios['bytes_over_peer']:.2f} of "
            f"pyarrow's defaults, {one.ratios['bytes_over_frame']:.2f} of Arrow), {one.ns:5.0f} ns of core "
            f"({one.ratios['time_over_peer']:.2f})"
        )
    rates = []
    for vehicles in size.shards:
        with tempfile.TemporaryDirectory() as name:
            rates.append(rate(Path(name), vehicles, size, arguments.sensors))
        of = rates[-1]
        print(
            f"{vehicles:9,} vehicles a shard: {of.shard_ns:5.0f} ns of core a vehicle-step with the log, "
            f"{of.kernel_ns:.0f} by the bare kernel: {of.kernel_over_shard:.0%} of its rate"
        )
    result = {
        "sensors": arguments.sensors,
        "records": [asdict(one) | one.ratios for one in found],
        "shards": [asdict(of) | {"kernel_over_shard": of.kernel_over_shard} for of in rates],
    }
    results_of("log", arguments).write(result)


if __name__ == "__main__":
    main()
