"""What does the past cost that predictions read? Prints a table and writes benchmarks/results/days.json.

    python benchmarks/days.py             10,000 vehicles that report every 2 s, with and without their days
    python benchmarks/days.py --quick     whether it runs

Two fleets of the same vehicles take turns: one only reports, the other also counts the days of its vehicles and folds
them into months, as a shard does whose records are predicted. Once over a minute a call, in which no day ends, and once
over the hours in which days end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import parser, results_of  # noqa: E402
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle  # noqa: E402
from datasets.months import MonthKeeper  # noqa: E402
from physics import FleetPhysics, draw_population  # noqa: E402

START_S = 1_767_225_600 + 20 * 3600  # days end from now on, at the hour, west to east
STEP_S = 2.0


@dataclass(frozen=True)
class Size:
    """`calls` of each fleet, `steps` in each."""

    vehicles: int = 10_000
    repeats: int = 9
    calls: int = 6
    steps: int = 30


QUICK = Size(vehicles=64, repeats=2, calls=2)


def fleets(size: Size, folder: Path, start_s: int) -> tuple[FleetPhysics, FleetPhysics, MonthKeeper]:
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    population = draw_population(1, np.arange(size.vehicles))
    plain, counting = (
        FleetPhysics(population, cycles=cycles, start_s=start_s, step_s=STEP_S, daily=daily) for daily in (False, True)
    )
    keeper = MonthKeeper(folder, population.vehicle, population.age_years, start_s)
    return plain, counting, keeper


def measured(size: Size, steps: int, start_s: int) -> dict[str, float]:
    """ns a vehicle-step: medians of both, and of their difference."""
    with tempfile.TemporaryDirectory() as folder:
        plain, counting, keeper = fleets(size, Path(folder), start_s)
        for fleet in (plain, counting):
            fleet.advance(steps, 1, compact=True)  # compiles
        seconds: dict[str, list[float]] = {"plain": [], "counting": []}
        for _ in range(size.repeats):
            for name, fleet in (("plain", plain), ("counting", counting)):
                begin = time.perf_counter()
                for _ in range(size.calls):
                    fleet.advance(steps, 1, compact=True)
                    if name == "counting":
                        keeper.add(fleet.daily())
                        keeper.keep(start_s + fleet.tick * STEP_S)
                seconds[name].append((time.perf_counter() - begin) / (size.calls * steps * size.vehicles) * 1e9)
        more = np.array(seconds["counting"]) - np.array(seconds["plain"])
    return {name: float(np.median(values)) for name, values in seconds.items()} | {"more": float(np.median(more))}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    size = QUICK if arguments.quick else Size()
    results: dict[str, dict[str, float]] = {}
    print(f"{'ns a vehicle-step':<44} {'reports':>8} {'and counts':>11} {'more':>6}")
    for name, steps, start_s in (
        ("a minute a call, no day ends", size.steps, START_S + 12 * 3600 + 60),
        ("ten minutes a call, over hours when days end", 10 * size.steps, START_S),
    ):
        found = measured(size, steps, start_s)
        print(f"{name:<44} {found['plain']:8.1f} {found['counting']:11.1f} {found['more']:6.1f}")
        results[name] = found
    results_of("days", arguments).write(results)


if __name__ == "__main__":
    main()
