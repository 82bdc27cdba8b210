"""How fast is the physics? Prints a table and writes benchmarks/results/kernel.json.

    python benchmarks/kernel.py    speed: 10,000 vehicles, one thread, against PyBaMM in the same run (1 min)

How exact it is: `twin validate physics`.

Every speed is stated as the best and the median of the repeats: on a shared machine the best is the machine's, the
median the day's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle  # noqa: E402
from physics import FleetPhysics, draw_population, load_cell  # noqa: E402
from physics.cell import advance_cells, rested_block  # noqa: E402
from physics.layout import CURRENT_HIGH, CURRENT_LOW, LANES  # noqa: E402
from physics.modal import cell_model  # noqa: E402
from twin.validation import reference  # noqa: E402

VEHICLES = 10_000
START_S = 1_767_225_600


def repeats(run: Callable[[], None], count: int) -> dict[str, float]:
    """Seconds of `run`: best and median."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return {"best": min(seconds), "median": float(np.median(seconds))}


def per_step(seconds: dict[str, float], steps: float) -> dict[str, float]:
    return {key: 1e9 * value / steps for key, value in seconds.items()}


def cell_kernel_ns(count: int) -> dict[str, float]:
    """step_cells with its refreshes, 1C discharge and charge by turns, thermal and SEI on."""
    model = cell_model(load_cell("chen2020"))
    blocks = np.stack([rested_block(model, soc=0.6, temperature_C=25.0)] * -(-VEHICLES // LANES))
    state = {"tick": 0}

    def minute() -> None:
        amperes = 5.0 if state["tick"] % 120 == 0 else -5.0
        for row in (CURRENT_LOW, CURRENT_HIGH):
            blocks[:, row : row + LANES] = amperes
        advance_cells(blocks, state["tick"], 60, 10, 60, 1.0, model)
        state["tick"] += 60

    minute()
    return per_step(repeats(minute, count), 60 * VEHICLES)


def fleet_ns(count: int, hour_utc: int, sample_every: int = 2) -> dict[str, float]:
    """FleetPhysics.advance a minute at a time: plans, vehicles, cells, telemetry."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    population = draw_population(1, np.arange(VEHICLES))
    fleet = FleetPhysics(population, cycles=cycles, start_s=START_S + 3600 * hour_utc)
    fleet.advance(60, sample_every)
    return per_step(repeats(lambda: fleet.advance(60, sample_every) and None, count), 60 * VEHICLES)


def pybamm_ns(count: int) -> dict[str, float]:
    """PyBaMM's SPMe, same submodels, input and output every second, solver warm; nanoseconds a step."""
    t, current = reference.drive_like_profile()
    simulation = reference.simulation(t, current)
    reference.solve(simulation, t)
    begin = [time.perf_counter()]
    seconds = []
    for _ in range(count):
        begin[0] = time.perf_counter()
        simulation.solve([t[0], t[-1]], t_interp=t, initial_soc=0.7)
        seconds.append(time.perf_counter() - begin[0])
    return per_step({"best": min(seconds), "median": float(np.median(seconds))}, t.size - 1)


def compile_seconds() -> dict[str, float]:
    """From `import physics` to the first minute of a fleet: with an empty kernel cache, and with a full one."""
    program = (
        "import time; t = time.perf_counter()\n"
        "import numpy as np\n"
        "from physics import FleetPhysics, draw_population\n"
        "FleetPhysics(draw_population(1, np.arange(10)), cycles=[np.zeros(60)], start_s=0).advance(60, 2)\n"
        "print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program]
        runs = [subprocess.run(command, env=environment, capture_output=True, check=True) for _ in range(2)]
    first, later = (float(run.stdout) for run in runs)
    return {"first": first, "later": later}


def speed(count: int) -> dict[str, Any]:
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    result: dict[str, Any] = {
        "cell_kernel_ns": cell_kernel_ns(count),
        "fleet_ns_sampled_every_2_s": fleet_ns(count, 7),
        "fleet_ns_sampled_every_60_s": fleet_ns(count, 7, 60),
        "pybamm_spme_ns": pybamm_ns(max(3, count // 4)),
        "compile_s": compile_seconds(),
        "bytes_a_vehicle": FleetPhysics(
            draw_population(1, np.arange(VEHICLES)), cycles=cycles, start_s=START_S
        ).bytes_a_vehicle,
    }
    result["times_pybamm"] = {
        key: result["pybamm_spme_ns"][key] / result["cell_kernel_ns"][key] for key in ("best", "median")
    }
    print(f"{VEHICLES:,} vehicles, 1 s steps, one thread, float64, thermal and SEI on     best   median")
    for key, label in (
        ("cell_kernel_ns", "cell kernel [ns a vehicle-step]"),
        ("fleet_ns_sampled_every_2_s", "whole fleet, telemetry every 2 s [ns]"),
        ("fleet_ns_sampled_every_60_s", "whole fleet, telemetry every 60 s [ns]"),
        ("pybamm_spme_ns", "PyBaMM SPMe, 1 s input [ns a step]"),
        ("times_pybamm", "cell kernel, times PyBaMM"),
    ):
        print(f"  {label:56s} {result[key]['best']:12,.1f} {result[key]['median']:12,.1f}")
    print(f"  memory: {result['bytes_a_vehicle']:.0f} bytes a vehicle")
    print(f"  start to first minute: {result['compile_s']['first']:.1f} s with an empty kernel cache,", end=" ")
    print(f"{result['compile_s']['later']:.1f} s afterwards")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    file = ROOT / "benchmarks" / "results" / "kernel.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results["machine"] = {"python": platform.python_version(), "cpus": os.cpu_count(), "arch": platform.machine()}
    results["speed"] = speed(arguments.repeats)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
