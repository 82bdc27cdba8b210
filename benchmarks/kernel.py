"""How fast is the physics? Prints a table and writes benchmarks/results/kernel.json.

    python benchmarks/kernel.py                 10,000 vehicles, one thread and two, against PyBaMM in the same run
    python benchmarks/kernel.py --no-million    without the million vehicles (1 GB)
    python benchmarks/kernel.py --quick         whether it runs

How exact the physics is: `twin validate physics`.

Every speed is stated as the best and the median of the repeats. On a shared machine the best shows what the machine can
do, and the median what it does that day.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import parser, results_of  # noqa: E402
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle  # noqa: E402
from physics import FleetPhysics, draw_population, load_cell  # noqa: E402
from physics.cell import advance_cells, rested_block  # noqa: E402
from physics.layout import CURRENT_HIGH, CURRENT_LOW, DT, LANES, VOLTAGE_HIGH, VOLTAGE_LOW, WORK_SIZE  # noqa: E402
from physics.modal import cell_model  # noqa: E402
from training.validation import reference  # noqa: E402
from training.validation.aging import MECHANICS, PLATING  # noqa: E402

START_S = 1_767_225_600
ALL_AGING = reference.OPTIONS | PLATING | MECHANICS


@dataclass(frozen=True)
class Size:
    """`least`: repeats of slow parts. `empty_cache`: compile everything again, which takes a minute."""

    vehicles: int = 10_000
    million: int = 1_000_000
    repeats: int = 20
    least: int = 3
    profile_s: int = 1800
    cycles: int = 5
    empty_cache: bool = True

    @property
    def few(self) -> int:
        """Repeats of PyBaMM."""
        return max(self.least, self.repeats // 4)


QUICK = Size(vehicles=256, million=512, repeats=1, least=1, profile_s=60, cycles=1, empty_cache=False)


def repeats(run: Callable[[], object], count: int) -> dict[str, float]:
    """Seconds of `run`: best and median."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return {"best": min(seconds), "median": float(np.median(seconds))}


def per_step(seconds: dict[str, float], steps: float) -> dict[str, float]:
    return {key: 1e9 * value / steps for key, value in seconds.items()}


def cell_kernel_ns(size: Size) -> dict[str, float]:
    """step_cells with its refreshes and all mechanisms, 1C discharge and charge in turn."""
    model = cell_model(load_cell("chen2020"))
    blocks = np.stack([rested_block(model, soc=0.6, temperature_C=25.0)] * -(-size.vehicles // LANES))
    work, state = np.zeros(WORK_SIZE), {"tick": 0}
    for row, value in ((DT, 1.0), (VOLTAGE_LOW, model.voltage_min), (VOLTAGE_HIGH, model.voltage_max)):
        work[row : row + LANES] = value

    def minute() -> None:
        amperes = 5.0 if state["tick"] % 120 == 0 else -5.0
        for row in (CURRENT_LOW, CURRENT_HIGH):
            work[row : row + LANES] = amperes
        advance_cells(blocks, work, state["tick"], 60, 10, 60, model)
        state["tick"] += 60

    minute()
    return per_step(repeats(minute, size.repeats), 60 * size.vehicles)


def fleet_ns(size: Size, hour_utc: int, sample_every: int = 2) -> dict[str, float]:
    """FleetPhysics.advance, one minute per call: plans, vehicles, cells, telemetry."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    population = draw_population(1, np.arange(size.vehicles))
    fleet = FleetPhysics(population, cycles=cycles, start_s=START_S + 3600 * hour_utc)
    fleet.advance(60, sample_every, compact=True)
    return per_step(repeats(lambda: fleet.advance(60, sample_every, compact=True), size.repeats), 60 * size.vehicles)


def threads_ns(size: Size) -> dict[str, dict[str, float]]:
    """Two fleets of 10,000, one after the other in one thread, and at the same time in two. They take turns, so that
    both meet the same machine."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    fleets = [
        FleetPhysics(draw_population(1, k * size.vehicles + np.arange(size.vehicles)), cycles=cycles, start_s=START_S)
        for k in range(2)
    ]

    def one() -> None:
        for fleet in fleets:
            fleet.advance(60, 60, compact=True)

    def two() -> None:
        threads = [threading.Thread(target=fleet.advance, args=(60, 60), kwargs={"compact": True}) for fleet in fleets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    one()
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    for _ in range(size.repeats):
        for name, run in (("one", one), ("two", two)):
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    ratios = [a / b for a, b in zip(seconds["one"], seconds["two"], strict=True)]
    times = {"best": min(seconds["one"]) / min(seconds["two"]), "median": float(np.median(ratios))}
    one_ns, two_ns = (
        per_step({"best": min(v), "median": float(np.median(v))}, 120 * size.vehicles) for v in seconds.values()
    )
    return {"one_thread_ns": one_ns, "two_threads_ns": two_ns, "two_over_one": times}


def million(size: Size) -> dict[str, float]:
    """A million vehicles for a few simulated minutes: growth of resident memory, nanoseconds per vehicle-step."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    population = draw_population(1, np.arange(size.million))
    before = resident_bytes()
    fleet = FleetPhysics(population, cycles=cycles, start_s=START_S + 7 * 3600)
    seconds = repeats(lambda: fleet.advance(10, 10, compact=True), size.least)
    return {
        "ns": 1e9 * seconds["median"] / (10 * size.million),
        "bytes_a_vehicle": fleet.bytes_a_vehicle,
        "resident_bytes_a_vehicle": (resident_bytes() - before) / size.million,
    }


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pybamm_ns(size: Size, options: dict[str, str]) -> dict[str, float]:
    """PyBaMM's SPMe with input and output every second and a warm solver; nanoseconds per step."""
    t, current = reference.drive_like_profile(size.profile_s)
    simulation = reference.simulation(t, current, options=options)
    reference.solve(simulation, t)
    seconds = repeats(lambda: simulation.solve([t[0], t[-1]], t_interp=t, initial_soc=0.7), size.few)
    return per_step(seconds, t.size - 1)


def pybamm_cycling_ns(size: Size, options: dict[str, str]) -> dict[str, float]:
    """PyBaMM at its best: cycles of constant current without output; nanoseconds per simulated second."""
    pybamm = reference.load_pybamm()
    experiment = pybamm.Experiment([("Discharge at 1C until 2.8 V", "Charge at 0.7C until 4.15 V")] * size.cycles)
    simulation = pybamm.Simulation(
        pybamm.lithium_ion.SPMe(options),
        parameter_values=reference.parameter_values(pybamm),
        experiment=experiment,
        solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = float(simulation.solve(initial_soc=0.7)["Time [s]"].entries[-1])
        return per_step(repeats(lambda: simulation.solve(initial_soc=0.7), size.least), seconds)


def compile_seconds(size: Size) -> dict[str, float]:
    """From `import physics` to the first minute of a fleet: with an empty kernel cache, and with a full one."""
    program = (
        "import time; t = time.perf_counter()\n"
        "import numpy as np\n"
        "from physics import FleetPhysics, draw_population\n"
        "FleetPhysics(draw_population(1, np.arange(10)), cycles=[np.zeros(60)], start_s=0).advance(60, 2)\n"
        "print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if size.empty_cache:
            environment["NUMBA_CACHE_DIR"] = folder
        command = [sys.executable, "-c", program]
        runs = [subprocess.run(command, env=environment, capture_output=True, check=True) for _ in range(2)]
    first, later = (float(run.stdout) for run in runs)
    return {"first": first, "later": later}


def speed(size: Size, with_million: bool) -> dict[str, Any]:
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    result: dict[str, Any] = {
        "cell_kernel_ns": cell_kernel_ns(size),
        "fleet_ns_sampled_every_2_s": fleet_ns(size, 7),
        "fleet_ns_sampled_every_60_s": fleet_ns(size, 7, 60),
        **threads_ns(size),
        "pybamm_spme_ns": pybamm_ns(size, reference.OPTIONS),
        "pybamm_spme_all_aging_ns": pybamm_ns(size, ALL_AGING),
        "pybamm_cycling_ns": pybamm_cycling_ns(size, reference.OPTIONS),
        "pybamm_cycling_all_aging_ns": pybamm_cycling_ns(size, ALL_AGING),
        "compile_s": compile_seconds(size),
        "bytes_a_vehicle": FleetPhysics(
            draw_population(1, np.arange(size.vehicles)), cycles=cycles, start_s=START_S
        ).bytes_a_vehicle,
    }
    for name, theirs, ours in (
        ("times_pybamm", "pybamm_spme_ns", "cell_kernel_ns"),
        ("times_pybamm_all_aging", "pybamm_spme_all_aging_ns", "cell_kernel_ns"),
        ("fleet_times_pybamm_all_aging", "pybamm_spme_all_aging_ns", "fleet_ns_sampled_every_60_s"),
        ("times_pybamm_cycling", "pybamm_cycling_ns", "cell_kernel_ns"),
        ("times_pybamm_cycling_all_aging", "pybamm_cycling_all_aging_ns", "cell_kernel_ns"),
    ):
        result[name] = {key: result[theirs][key] / result[ours][key] for key in ("best", "median")}
    if with_million:
        result["million"] = million(size)
    print(f"{size.vehicles:,} vehicles, 1 s steps, one thread, float64, everything on          best   median")
    for key, label in (
        ("cell_kernel_ns", "cell kernel [ns a vehicle-step]"),
        ("fleet_ns_sampled_every_2_s", "whole fleet, telemetry every 2 s [ns]"),
        ("fleet_ns_sampled_every_60_s", "whole fleet, telemetry every 60 s [ns]"),
        ("one_thread_ns", "two fleets in one thread, sampled every 60 s [ns]"),
        ("two_threads_ns", "in two threads [ns]"),
        ("two_over_one", "two threads, times one"),
        ("pybamm_spme_ns", "PyBaMM SPMe, thermal and SEI, 1 s input [ns a step]"),
        ("pybamm_spme_all_aging_ns", "  with plating and loss of active material [ns a step]"),
        ("pybamm_cycling_ns", "PyBaMM SPMe, constant current [ns a simulated second]"),
        ("pybamm_cycling_all_aging_ns", "  with plating and loss of active material [ns]"),
        ("times_pybamm", "cell kernel, times PyBaMM, 1 s input"),
        ("times_pybamm_all_aging", "  with plating and loss of active material"),
        ("fleet_times_pybamm_all_aging", "  whole fleet, sampled every 60 s"),
        ("times_pybamm_cycling", "cell kernel, times PyBaMM, constant current"),
        ("times_pybamm_cycling_all_aging", "  with plating and loss of active material"),
    ):
        print(f"  {label:56s} {result[key]['best']:12,.1f} {result[key]['median']:12,.1f}")
    print(f"  memory: {result['bytes_a_vehicle']:.0f} bytes a vehicle")
    if with_million:
        many = result["million"]
        print(
            f"  {size.million:,} vehicles: {many['ns']:.1f} ns a vehicle-step,",
            f"blocks {many['bytes_a_vehicle']:.0f} and",
            end=" ",
        )
        print(f"all resident growth {many['resident_bytes_a_vehicle']:.0f} bytes a vehicle")
    print(f"  start to first minute: {result['compile_s']['first']:.1f} s with an empty kernel cache,", end=" ")
    print(f"{result['compile_s']['later']:.1f} s afterwards")
    return result


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--repeats", type=int)
    flags.add_argument("--no-million", action="store_true")
    arguments = flags.parse_args()
    size = QUICK if arguments.quick else Size()
    if arguments.repeats:
        size = replace(size, repeats=arguments.repeats)
    file = results_of("kernel", arguments)
    results = file.earlier()
    results["machine"] = {"python": platform.python_version(), "cpus": os.cpu_count(), "arch": platform.machine()}
    results["speed"] = speed(size, not arguments.no_million)
    file.write(results)


if __name__ == "__main__":
    main()
