"""What do ends and daily statistics cost? Prints a table and writes benchmarks/results/days.json.

    python benchmarks/days.py            10,000 vehicles in steps, 400 lives over 200 days
    python benchmarks/days.py --quick    whether it runs

The same fleet with and without, in turn, so that all meet the same machine. A ratio is the median of those of the
rounds. Seconds are CPU time of one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import parser, results_of  # noqa: E402
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle  # noqa: E402
from physics import FleetLives, FleetPhysics, draw_population  # noqa: E402

START_S = 1_767_225_600
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ends": {"end_soh": 0.0},  # checked, and no vehicle is spared its days
    "daily": {"daily": True},
}


@dataclass(frozen=True)
class Size:
    vehicles: int = 10_000
    rounds: int = 20
    lives: int = 400
    days: int = 200
    life_rounds: int = 6


QUICK = Size(vehicles=128, rounds=1, lives=2, days=10, life_rounds=1)


def in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each run in each round. Every other round takes them from last to first."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            begun = time.process_time()
            runs[name]()
            seconds[name].append(time.process_time() - begun)
    return seconds


def compared(seconds: dict[str, list[float]], scale: Callable[[float], float]) -> dict[str, dict[str, float]]:
    plain = np.array(seconds["plain"])
    return {
        name: {
            "best": scale(min(taken)),
            "median": scale(float(np.median(taken))),
            "over_plain": float(np.median(np.array(taken) / plain)),
        }
        for name, taken in seconds.items()
    }


def steps_ns(size: Size, cycles: list[Any]) -> dict[str, dict[str, float]]:
    """A minute in steps of 1 s, one sample: ns a vehicle-step."""
    who, start_s = draw_population(1, np.arange(size.vehicles)), START_S + 7 * 3600

    def minute(options: dict[str, Any]) -> Callable[[], object]:
        fleet = FleetPhysics(who, cycles=cycles, start_s=start_s, **options)
        fleet.advance(60, 60, compact=True)
        return lambda: fleet.advance(60, 60, compact=True)

    seconds = in_turn({name: minute(options) for name, options in OPTIONS.items()}, size.rounds)
    return compared(seconds, lambda taken: 1e9 * taken / (60 * size.vehicles))


def lives_per_s(size: Size, cycles: list[Any]) -> dict[str, dict[str, float]]:
    """Complete lives in one call, with their table of days: vehicle-years a second and core."""

    def live(options: dict[str, Any], vehicles: int = size.lives, days: int = size.days) -> None:
        who = draw_population(1, np.arange(vehicles), oldest_years=0.0, start_s=START_S)
        fleet = FleetLives(who, cycles=cycles, start_s=START_S, **options)
        fleet.advance(days * fleet.day_ticks, 5 * fleet.day_ticks)
        if "daily" in options:
            fleet.daily()

    live({}, 2, 5)
    seconds = in_turn({name: partial(live, options) for name, options in OPTIONS.items()}, size.life_rounds)
    return compared(seconds, lambda taken: size.lives * size.days / 365 / taken)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    size = QUICK if arguments.quick else Size()
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    results = {"steps_ns": steps_ns(size, cycles), "lives_vehicle_years_per_s": lives_per_s(size, cycles)}
    for title, rows in results.items():
        print(f"{title:28s}     best   median   over plain")
        for name, row in rows.items():
            print(f"  {name:26s} {row['best']:8.1f} {row['median']:8.1f} {row['over_plain']:12.3f}")
    results_of("days", arguments).write(results)


if __name__ == "__main__":
    main()
