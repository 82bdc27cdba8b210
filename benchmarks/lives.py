"""How fast are complete lifetimes, and how large is their error? Prints a table, writes benchmarks/results/lives.json.

    python benchmarks/lives.py               1,000 vehicles for ten years on one and two processes; errors over 4 years
    python benchmarks/lives.py --long        errors over 10 years, of 256 vehicles
    python benchmarks/lives.py --no-trade    without other tolerances and lengths of jumps
    python benchmarks/lives.py --only errors --error-years 1    only a part, and shorter
    python benchmarks/lives.py --quick       whether it runs

A core's seconds are its CPU time (`time.process_time`), which does not depend on other load; wall time does.

Errors are in points of SoH, against the same vehicles with every day simulated in full, in steps of 1 s on the road.
The fleet of the errors is drawn with a seed that nothing was tuned on. Every day differs for every vehicle.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import parser, results_of  # noqa: E402
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle  # noqa: E402
from physics import PROFILES, FleetLives, Population, draw_population  # noqa: E402
from physics.life import LONGEST_JUMP, TOLERANCE  # noqa: E402

BOTH = {"chen2020": 0.5, "prada2013": 0.5}
START_S = 1_767_225_600
SPEED_SEED, ERROR_SEED = 1, 4242
YEAR = 365


@dataclass(frozen=True)
class Size:
    """For the speed: vehicles and days. For the errors: vehicles, days, and how often they are sampled."""

    vehicles: int = 1000
    days: int = 10 * YEAR
    error_vehicles: int = 128
    error_days: int = 4 * YEAR
    check_days: int = 73


QUICK = Size(vehicles=4, days=30, error_vehicles=2, error_days=4, check_days=2)


def drawn(seed: int, vehicles: np.ndarray) -> Population:
    return draw_population(seed, vehicles, BOTH, oldest_years=0.0, start_s=START_S)


def lived(population: Population, days: int, every: int, **options: Any) -> tuple[np.ndarray, float, int]:
    """(SoH of shape (samples, vehicles), seconds of a core, vehicle-days simulated in full)."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    begun = time.process_time()
    fleet = FleetLives(population, cycles=cycles, start_s=START_S, sensors=PROFILES["ideal"], **options)
    soh = fleet.advance(days * fleet.day_ticks, every * fleet.day_ticks)["soh"]
    return soh, time.process_time() - begun, fleet.days_lived


def part(number: int, of: int, vehicles: int, days: int) -> float:
    """Seconds for every `of`-th vehicle, in this process."""
    return lived(drawn(SPEED_SEED, np.arange(number, vehicles, of)), days, 30)[1]


def speed(size: Size) -> dict[str, float]:
    """The speed of one process and of two, with compiled kernels."""
    vehicles, days = size.vehicles, size.days
    lived(drawn(SPEED_SEED, np.arange(2)), 3, 1)
    begun = time.perf_counter()
    _, core, lived_in_full = lived(drawn(SPEED_SEED, np.arange(vehicles)), days, 30)
    alone = time.perf_counter() - begun
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(part, (0, 1), (2, 2), (4, 4), (min(days, YEAR),) * 2))  # both have loaded their kernels
        begun = time.perf_counter()
        list(pool.map(part, (0, 1), (2, 2), (vehicles, vehicles), (days, days)))
        two = time.perf_counter() - begun
    return {
        "vehicles": vehicles,
        "years": days / YEAR,
        "one_process_s": alone,
        "two_processes_s": two,
        "one_process_core_s": core,
        "vehicle_years_per_s_per_core": vehicles * days / YEAR / core,
        "share_of_days_lived": lived_in_full / (vehicles * days),
        "two_over_one": alone / two,
    }


def summary(soh: np.ndarray, full: np.ndarray) -> dict[str, float]:
    """Errors in points over all vehicles: at the end, and the worst at any time."""
    error = 100.0 * np.abs(soh - full)
    end = error[-1]
    return {
        "mean": float(end.mean()),
        "p95": float(np.percentile(end, 95)),
        "max": float(end.max()),
        "bias": float(100.0 * (soh[-1] - full[-1]).mean()),
        "max_ever": float(error.max()),
    }


def errors(size: Size, trade: bool) -> dict[str, Any]:
    vehicles, span = size.error_vehicles, size.error_days
    who = drawn(ERROR_SEED, np.arange(vehicles))
    full, seconds, _ = lived(who, span, size.check_days, longest_jump=0, drive_step_s=1.0)
    rules: dict[str, dict[str, Any]] = {"default": {}}
    if trade:
        rules |= {
            "tolerance x 0.2": {"tolerance": 0.2 * TOLERANCE},
            "tolerance x 5": {"tolerance": 5.0 * TOLERANCE},
            "jumps to 15 days": {"longest_jump": 15},
            "jumps to 60 days": {"longest_jump": 60},
        }
    result: dict[str, Any] = {
        "vehicles": vehicles,
        "years": span / YEAR,
        "fade_mean": float(100.0 * (1.0 - full[-1]).mean()),
        "fade_max": float(100.0 * (1.0 - full[-1]).max()),
        "every day": {"vehicle_years_per_s": vehicles * span / YEAR / seconds, "share_of_days_lived": 1.0},
    }
    for name, options in rules.items():
        soh, took, days = lived(who, span, size.check_days, **options)
        error = 100.0 * np.abs(soh[-1] - full[-1])
        result[name] = summary(soh, full) | {
            "vehicle_years_per_s": vehicles * span / YEAR / took,
            "times_every_day": seconds / took,
            "share_of_days_lived": days / (vehicles * span),
            "worst_vehicles": [[int(k), float(error[k])] for k in np.argsort(-error)[:5]],
        }
    return result


def show_speed(s: dict[str, float]) -> None:
    print(f"{s['vehicles']:,} vehicles of two chemistries, {s['years']:g} years, jumps to {LONGEST_JUMP} days")
    print(
        f"  one process      {s['one_process_s']:7.1f} s, of them {s['one_process_core_s']:.1f} s of a core:", end=" "
    )
    print(f"{s['vehicle_years_per_s_per_core']:.0f} vehicle-years a second and core")
    print(f"  two processes    {s['two_processes_s']:7.1f} s, {s['two_over_one']:.2f} times one")
    print(f"  days lived in full  {100 * s['share_of_days_lived']:.2f} %")


def show_errors(e: dict[str, Any]) -> None:
    print(
        f"{e['vehicles']} vehicles after {e['years']:g} years (fade {e['fade_mean']:.2f} points,"
        f" at most {e['fade_max']:.2f}), error in points"
    )
    print("                        mean     p95     max    bias  max ever   days   speed")
    for name, row in e.items():
        if isinstance(row, dict) and "mean" in row:
            numbers = "".join(f"{row[key]:8.3f}" for key in ("mean", "p95", "max", "bias", "max_ever"))
            print(f"  {name:18s}{numbers}  {100 * row['share_of_days_lived']:5.2f} %  x {row['times_every_day']:.1f}")


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--vehicles", type=int, help="of the speed")
    flags.add_argument("--years", type=int, help="of the speed")
    flags.add_argument("--error-years", type=int)
    flags.add_argument("--only", choices=("speed", "errors"))
    flags.add_argument("--long", action="store_true")
    flags.add_argument("--no-trade", action="store_true")
    arguments = flags.parse_args()
    size = QUICK if arguments.quick else Size()
    if arguments.long:
        size = replace(size, error_vehicles=256, error_days=10 * YEAR)
    if arguments.vehicles:
        size = replace(size, vehicles=arguments.vehicles)
    if arguments.years:
        size = replace(size, days=arguments.years * YEAR)
    if arguments.error_years and not arguments.long:
        size = replace(size, error_days=arguments.error_years * YEAR)
    file = results_of("lives", arguments)
    results = file.earlier()
    results["machine"] = {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "arch": platform.machine(),
        "load_before": os.getloadavg()[0],
    }
    print(f"machine: {results['machine']}")
    if arguments.only != "errors":
        results["speed"] = speed(size)
        show_speed(results["speed"])
    if arguments.only != "speed":
        results["errors"] = errors(size, trade=not arguments.no_trade)
        show_errors(results["errors"])
    file.write(results)


if __name__ == "__main__":
    main()
