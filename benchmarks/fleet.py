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

import numpy as np
import ray

from benchmarks import parser, results_of
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import FleetPhysics, draw_population
from twin import Fleet


@dataclass(frozen=True)
class Size:
    """`memory`: vehicles of the small and of the large fleet."""

    vehicles: int = 10_000
    minutes: int = 60
    repeats: int = 15
    starts: int = 3
    memory: tuple[int, int] = (2_000, 100_000)


QUICK = Size(vehicles=256, minutes=1, repeats=1, starts=1, memory=(100, 1_000))


def kernel_ns(vehicles_count: int, repeats: int, started: Barrier | None = None) -> float:
    """Nanoseconds per vehicle-step of the physics alone, with telemetry sampled, in one thread; the median."""
    vehicles = np.arange(vehicles_count, dtype=np.int64)
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    physics = FleetPhysics(draw_population(1, vehicles, "chen2020"), cycles=cycles, start_s=1_780_297_200)
    physics.advance(60, 2, compact=True)
    if started is not None:
        started.wait()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        physics.advance(60, 2, compact=True)
        times.append((time.perf_counter() - begun) / (60 * vehicles_count) * 1e9)
    return statistics.median(times)


def _kernel_beside_others(arguments: tuple[int, int, Barrier]) -> float:
    return kernel_ns(*arguments)


def kernel_all_cores_ns(size: Size) -> float:
    """The same on every core at once, by the wall clock. One process per core has its share of the vehicles."""
    cores = os.cpu_count() or 1
    with multiprocessing.Manager() as manager, multiprocessing.get_context("spawn").Pool(cores) as pool:
        barrier = manager.Barrier(cores)
        share = (size.vehicles // cores, size.repeats, barrier)
        each = pool.map(_kernel_beside_others, [share] * cores, chunksize=1)
    return statistics.mean(each) / cores


def run_ns(folder: Path, size: Size) -> dict[str, float]:
    """Nanoseconds per vehicle-step of a fleet at full speed: by the wall clock, and by the shards' CPU time."""
    with Fleet(vehicles=size.vehicles, out=folder / "run", predict=False) as fleet:
        fleet.run("2min")
        before = fleet.status()
        begun = time.perf_counter()
        fleet.run(f"{size.minutes}min")
        wall = time.perf_counter() - begun
        after = fleet.status()
    steps = size.vehicles * size.minutes * 60
    compute = sum(s.compute_s for s in after.shards) - sum(s.compute_s for s in before.shards)
    return {
        "wall": wall / steps * 1e9,
        "shard_core": compute / steps * 1e9,
        "records_per_s": steps / 2 / wall,
        "shards": len(after.shards),
    }


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
        kernel, all_cores = kernel_ns(size.vehicles, size.repeats), kernel_all_cores_ns(size)
        run = run_ns(folder, size)
        first_record, ray_init = start_s(folder, size)
        result: dict[str, Any] = {
            "kernel_ns_per_vehicle_step": kernel,
            "kernel_all_cores_ns_per_vehicle_step": all_cores,
            "kernel_over_run_wall": kernel / run["wall"],
            "kernel_all_cores_over_run_wall": all_cores / run["wall"],
            "run": run,
            "run_core_over_kernel": run["shard_core"] / kernel,
            "run_wall_over_kernel": run["wall"] / kernel,
            "first_record_s": first_record,
            "ray_init_s": ray_init,
            "first_record_over_ray_init": first_record / ray_init,
            "bytes_per_vehicle": bytes_a_vehicle(folder, size),
        }
    core, wall = result["run_core_over_kernel"], result["run_wall_over_kernel"]
    start = result["first_record_over_ray_init"]
    print(f"kernel                     {kernel:8.1f} ns a vehicle-step, one core ({size.vehicles:,} vehicles)")
    print(f"kernel on all cores        {all_cores:8.1f} ns a vehicle-step, by the wall")
    print(f"whole run, core time       {run['shard_core']:8.1f} ns a vehicle-step, {core:.2f} x kernel")
    print(f"whole run, by the wall     {run['wall']:8.1f} ns a vehicle-step, {wall:.2f} x kernel")
    one, both = result["kernel_over_run_wall"], result["kernel_all_cores_over_run_wall"]
    print(f"whole run's rate           {one:8.1%} of the kernel's on one core, {both:.1%} of the kernel's on all cores")
    print(f"records to disk            {run['records_per_s']:8,.0f} a second, {run['shards']:.0f} shards")
    print(f"command to first record    {first_record:8.2f} s, {start:.2f} x ray.init ({ray_init:.2f} s)")
    print(f"memory a vehicle           {result['bytes_per_vehicle']:8,.0f} bytes, shards' resident memory")
    results_of("fleet", arguments).write(result)


if __name__ == "__main__":
    main()
