"""A record in the sealed log: its bytes and the time to write it, in shards of every size, beside pyarrow's defaults.

python benchmarks/log.py [--quick]
Prints and writes benchmarks/results/log.json. The blocks are those that the supervisor asks for as fast as it goes. One
core, in memory's page cache; the peer writes the same blocks with `pyarrow.parquet.write_table` (Snappy, dictionaries).
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.fleet.plan import FleetPlan, PopulationPlan
from actors.fleet.shard import Shard
from benchmarks import parser, results_of
from datasets.log import Frame, LogReader, log_directory
from datasets.log.segments import write_sealed


@dataclass(frozen=True)
class Size:
    vehicles: tuple[int, ...] = (100, 1_000, 10_000, 50_000, 200_000)
    blocks: int = 4
    repeats: int = 7


QUICK = Size(vehicles=(100, 1_000), blocks=1, repeats=1)


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


def plan_of(run: Path, vehicles: int) -> FleetPlan:
    return FleetPlan(
        run_dir=run, run_id="run-benchmark", log_id="log", vehicles=vehicles, shards=1,
        population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02), start_s=1_780_297_200, step_s=1.0,
        telemetry_ticks=2, predict_ticks=5, checkpoint_ticks=600, pace=math.inf,
    )  # fmt: skip


def last_block(run: Path, vehicles: int, blocks: int) -> tuple[float, pa.RecordBatch]:
    """Bytes a record of a log of so many blocks, and the rows of its last block."""
    plan = plan_of(run, vehicles)
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


def measure(folder: Path, vehicles: int, size: Size) -> Measured:
    """The last block, written both ways in turn."""
    size_of_one, batch = last_block(folder / "run", vehicles, size.blocks)
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


def main() -> None:
    arguments = parser(__doc__).parse_args()
    size = QUICK if arguments.quick else Size()
    found = []
    for vehicles in size.vehicles:
        with tempfile.TemporaryDirectory() as name:
            found.append(measure(Path(name), vehicles, size))
        one = found[-1]
        print(
            f"{vehicles:9,} vehicles a shard: {one.bytes:5.1f} bytes a record ({one.ratios['bytes_over_peer']:.2f} of "
            f"pyarrow's defaults, {one.ratios['bytes_over_frame']:.2f} of Arrow), {one.ns:5.0f} ns of core "
            f"({one.ratios['time_over_peer']:.2f})"
        )
    results_of("log", arguments).write({"shards": [asdict(one) | one.ratios for one in found]})


if __name__ == "__main__":
    main()
