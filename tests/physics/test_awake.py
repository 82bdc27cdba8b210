"""A closer look at vehicles of lives: each shows itself, whoever shares its block."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from physics import FleetLives, draw_population

MIDNIGHT = 1_767_225_600
Cycles = list[np.ndarray]


@pytest.mark.parametrize("chosen", [range(40), [0, 3, 4, 9, 12, 30, 31, 39], [5, 1 + 5, 20, 22]])
def test_each_vehicle_shows_what_it_shows_alone(cycles: Cycles, chosen: list[int]) -> None:
    """Lives order their vehicles by how much they drive, so positions do not ascend in their blocks."""
    population = draw_population(5, np.arange(40), {"chen2020": 0.6, "prada2013": 0.4}, oldest_years=0.0)
    lives = FleetLives(population, cycles=cycles, start_s=MIDNIGHT, drive_step_s=5.0)
    lives.advance(30 * lives.day_ticks, 30 * lives.day_ticks)
    positions = np.asarray(chosen)
    together = lives.fork(of=positions).awake(20.0).advance(2160, 180)
    for k, position in enumerate(positions):
        alone = lives.fork(of=[int(position)]).awake(20.0).advance(2160, 180)
        for name, values in alone.items():
            np.testing.assert_array_equal(together[name][:, k], values[:, 0], err_msg=f"{name} of {position}")


def test_a_block_of_another_order_is_told_vehicle_by_vehicle(cycles: Cycles) -> None:
    """Of four whose first and last are in their places: written side by side, the middle two would be swapped."""
    population = draw_population(9, np.arange(14), "chen2020", oldest_years=0.0)
    lives = FleetLives(population, cycles=cycles, start_s=MIDNIGHT, drive_step_s=5.0)
    whole = lives.awake(60.0).advance(1440, 360)
    swapped = 0
    for chosen in combinations(range(14), 4):
        fork = lives.fork(of=chosen)
        [group] = fork._groups
        if group.of.tolist() == [0, 2, 1, 3] and swapped < 3:
            swapped += 1
            some = fork.awake(60.0).advance(1440, 360)
            for name, values in some.items():
                np.testing.assert_array_equal(values, whole[name][:, chosen], err_msg=name)
    assert swapped > 0
