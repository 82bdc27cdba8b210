"""A whole run against its own kernel, its start against `ray.init`, and its memory per vehicle.

python benchmarks/fleet.py [--quick] [--million]
Prints and writes benchmarks/results/fleet.json. There is no prediction and no sink: only the log costs.
--million: 1,000,000 vehicles for 10 simulated minutes to the disk (12 GB) instead; writes million.json.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import ray

from actors.fleet.plan import FleetPlan
from actors.fleet.shard import physics_of
from benchmarks import parser, results_of
from twin import Fleet


@dataclass(frozen=True)
class Size:
    """`memory`: vehicles of the small and of the large fleet."""

    vehicles: int = 10_000
    minutes: int = 60
    repeats: int = 5
    starts: int = 3
    memory: tuple[int, int] = (2_000, 100_000)


SETTLE_MINUTES = 2
QUICK = Size(vehicles=256, minutes=1, repeats=1, starts=1, memory=(100, 1_000))


def kernel_ns(plan: FleetPlan, number: int, minutes: int, started: Barrier | None = None) -> float:
    """Nanoseconds per vehicle-step of a shard's physics alone, in one thread: the vehicles and sensors of the run, the
    same minutes in the same blocks."""
    shard = plan.shard_plans()[number]
    physics, _ = physics_of(shard)
    period, longest = plan.telemetry_ticks, plan.longest_block(shard.vehicles)
    physics.advance(60 * SETTLE_MINUTES, period, compact=True)
    physics.advance(longest, period, compact=True)  # now there is room for a block of samples
    if started is not None:
        started.wait()
    end = physics.tick + 60 * minutes
    begun = time.perf_counter()
    while physics.tick < end:
        physics.advance(min(longest, end - physics.tick), period, compact=True)
    return (time.perf_counter() - begun) / (60 * minutes * shard.vehicles) * 1e9


def _kernel_beside_others(arguments: tuple[FleetPlan, int, int, Barrier]) -> float:
    return kernel_ns(*arguments)


def kernel_all_cores_ns(plan: FleetPlan, minutes: int) -> float:
    """The same of all shards at once, by the wall clock, a process each."""
    shards = range(plan.shards)
    with multiprocessing.Manager() as manager, multiprocessing.get_context("spawn").Pool(plan.shards) as pool:
        barrier = manager.Barrier(plan.shards)
        each = pool.map(_kernel_beside_others, [(plan, number, minutes, barrier) for number in shards], chunksize=1)
    return statistics.mean(each) / plan.shards


@dataclass(frozen=True)
class Round:
    """Nanoseconds per vehicle-step of a fleet at full speed, by the wall clock and by the shards' own, and of its bare
    kernels right after."""

    run: float
    shards: float
    kernel: float
    kernel_all_cores: float
    shard_count: int


def one_round(folder: Path, size: Size) -> Round:
    with Fleet(vehicles=size.vehicles, out=folder, predict=False) as fleet:
        plan = fleet._plan("benchmark")
        fleet.run(f"{SETTLE_MINUTES}min")
        before = fleet.status()
        begun = time.perf_counter()
        fleet.run(f"{size.minutes}min")
        wall = time.perf_counter() - begun
        after = fleet.status()
    steps = size.vehicles * size.minutes * 60 / 1e9
    compute = sum(s.compute_s for s in after.shards) - sum(s.compute_s for s in before.shards)
    alone, together = kernel_ns(plan, 0, size.minutes), kernel_all_cores_ns(plan, size.minutes)
    return Round(wall / steps, compute / steps, alone, together, plan.shards)


def median_round(folder: Path, size: Size) -> Round:
    """The round whose share of its kernels' rate is the median. Run and kernels take turns."""
    rounds = [one_round(folder / f"run-{number}", size) for number in range(size.repeats)]
    return sorted(rounds, key=lambda one: one.kernel_all_cores / one.run)[len(rounds) // 2]


def start_s(folder: Path, size: Size) -> tuple[float, float]:
    """Seconds from the command to the first record on disk, and of `ray.init` alone; medians of interleaved rounds."""
    inits, runs = [], []
    quietly = ("--no-report", "--quiet", "--metrics-port", "0", "--no-predict")
    alone = "import ray; ray.init(include_dashboard=False, log_to_driver=False)"
    for number in range(size.starts):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", alone], check=True, capture_output=True)
        inits.append(time.perf_counter() - begun)
        out = folder / f"start-{number}"
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "twin", "run", "--duration", "10s", "--out", str(out), *quietly],
            stdout=subprocess.DEVNULL,
        )
        while not any(path.stat().st_size for path in out.glob("telemetry/*/*")):
            if process.poll() is not None and process.returncode:
                raise SystemExit(f"twin run ended with {process.returncode}")
            time.sleep(0.005)
        runs.append(time.perf_counter() - begun)
        process.wait()
    return statistics.median(runs), statistics.median(inits)


def bytes_a_vehicle(folder: Path, size: Size) -> float:
    """How much more resident memory the shards of a large fleet have than those of a small one, per extra vehicle."""
    sizes = {}
    for vehicles in size.memory:
        with Fleet(vehicles=vehicles, shards=2, out=folder / f"memory-{vehicles}", predict=False) as fleet:
            fleet.run("10s")
            pages = sum(int(Path(f"/proc/{s.pid}/statm").read_text().split()[1]) for s in fleet.status().shards)
            sizes[vehicles] = pages * os.sysconf("SC_PAGE_SIZE")
    (few, small), (many, large) = sizes.items()
    return (large - small) / (many - few)


def _peak(fleet: Fleet) -> int:
    """The most resident memory that the shards of a fleet have had so far, together [bytes]."""
    texts = [Path(f"/proc/{shard.pid}/status").read_text() for shard in fleet.status().shards]
    return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in texts)


def large(folder: Path, vehicles: int, minutes: int) -> dict[str, float]:
    """A large fleet to the disk: how long, how many bytes a record there, and a vehicle in memory, beyond what as many
    shards of a few vehicles take."""
    with Fleet(vehicles=100, shards=os.cpu_count() or 1, out=folder / "small", predict=False) as fleet:
        fleet.run("1min")
        empty = _peak(fleet)
    began = time.perf_counter()
    with Fleet(vehicles=vehicles, out=folder / "run", predict=False) as fleet:
        started = time.perf_counter()
        fleet.run(f"{minutes}min")
        wall = time.perf_counter() - started
        status = fleet.status()
        peak = _peak(fleet)
    size = sum(path.stat().st_size for path in (folder / "run" / "telemetry").rglob("*.parquet"))
    return {
        "vehicles": vehicles,
        "minutes": minutes,
        "records": status.records,
        "run_s": wall,
        "whole_s": time.perf_counter() - began,
        "records_per_s": status.records / wall,
        "bytes_a_record": size / status.records,
        "bytes_a_vehicle": (peak - empty) / vehicles,
        "bytes_of_empty_shards": empty,
        "peak_bytes_a_vehicle": peak / vehicles,
    }


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--million", action="store_true")
    arguments = flags.parse_args()
    if arguments.million:
        with tempfile.TemporaryDirectory() as name:
            found = large(Path(name), *((1_000, 1) if arguments.quick else (1_000_000, 10)))
        for what, value in found.items():
            print(f"{what:<22} {value:16,.1f}")
        results_of("million", arguments).write(found)
        return
    size = QUICK if arguments.quick else Size()
    if arguments.quick:  # one Ray for all; else every fleet starts its own
        ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of = median_round(folder, size)
        first_record, ray_init = start_s(folder, size)
        result: dict[str, Any] = {
            "kernel_ns_per_vehicle_step": of.kernel,
            "kernel_all_cores_ns_per_vehicle_step": of.kernel_all_cores,
            "kernel_over_run_wall": of.kernel / of.run,
            "kernel_all_cores_over_run_wall": of.kernel_all_cores / of.run,
            "run_ns_per_vehicle_step": of.run,
            "shards_ns_per_vehicle_step": of.shards,
            "records_per_s": 1e9 / of.run / 2,
            "shards": of.shard_count,
            "first_record_s": first_record,
            "ray_init_s": ray_init,
            "first_record_over_ray_init": first_record / ray_init,
            "bytes_per_vehicle": bytes_a_vehicle(folder, size),
        }
    start = result["first_record_over_ray_init"]
    print(f"kernel                     {of.kernel:8.1f} ns a vehicle-step, one core ({size.vehicles:,} vehicles)")
    print(f"kernel on all cores        {of.kernel_all_cores:8.1f} ns a vehicle-step, by the wall")
    print(f"whole run, shards' time    {of.shards:8.1f} ns a vehicle-step")
    print(f"whole run, by the wall     {of.run:8.1f} ns a vehicle-step")
    one, both = result["kernel_over_run_wall"], result["kernel_all_cores_over_run_wall"]
    print(f"whole run's rate           {one:8.1%} of the kernel's on one core, {both:.1%} of the kernel's on all cores")
    print(f"records to disk            {result['records_per_s']:8,.0f} a second, {of.shard_count} shards")
    print(f"command to first record    {first_record:8.2f} s, {start:.2f} x ray.init ({ray_init:.2f} s)")
    print(f"memory a vehicle           {result['bytes_per_vehicle']:8,.0f} bytes, shards' resident memory")
    results_of("fleet", arguments).write(result)


if __name__ == "__main__":
    main()
