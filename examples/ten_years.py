"""Scenario: you plan a warranty, and want to see how the batteries of a small fleet spread in ten years.

Sixty vehicles of the default fleet live ten years, in this process, without Ray. Every simulated day gives one sample.

    .venv/bin/python examples/ten_years.py
"""

from __future__ import annotations

import sys

import numpy as np

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import PROFILES, FleetLives, draw_population
from physics.default_fleet import CELL_SHARES

START_S = 1_767_225_600  # 2026-01-01, UTC


def main(years: int = 10) -> None:
    """Print a line per year: SoH of the worst tenth, the median and the best tenth, and equivalent full cycles."""
    vehicles = np.arange(60)
    population = draw_population(1, vehicles, CELL_SHARES, oldest_years=0.0, start_s=START_S)
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    # What the batteries are, not what their vehicles report.
    lives = FleetLives(population, cycles=cycles, start_s=START_S, sensors=PROFILES["ideal"])
    for year in range(1, years + 1):
        days = lives.advance(365 * lives.day_ticks, lives.day_ticks)
        worst, median, best = np.quantile(days["soh"][-1], (0.1, 0.5, 0.9))
        efc = np.median(days["charge_cycles"][-1])
        print(f"year {year:2d}: SoH {worst:.3f} {median:.3f} {best:.3f}, median {efc:.0f} equivalent full cycles")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
