"""A vehicle whose weakest cell group is empty does not drive on: it goes slower, stops, and goes again when charged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from physics import FLAGS, MODES, FleetLives, FleetPhysics, Population, draw_population
from physics.layout import STOPS, V_LOWEST, VOLTAGE, WEAK_SHIFT
from physics.sensors import PROFILES

MIDNIGHT = 1_767_225_600
DAY = 86_400
BOTH = {"chen2020": 0.6, "prada2013": 0.4}
REDUCED, STOPPED = FLAGS["power_reduced"], FLAGS["stopped"]
DRIVING = MODES.index("driving")
Cycles = list[np.ndarray]
Telemetry = dict[str, np.ndarray]


def sound(vehicles: Any = range(60)) -> Population:
    return draw_population(33, np.asarray(vehicles), BOTH, oldest_years=0.0, fault_share=0.0, start_s=MIDNIGHT)


def behind(fleet: FleetPhysics, shift: float) -> FleetPhysics:
    """The fleet with a cell group of each vehicle so far behind, as stoichiometry."""
    for group in fleet._groups:
        group.put(WEAK_SHIFT, -shift)
    return fleet


def in_steps(cycles: Cycles, who: Population, shift: float) -> FleetPhysics:
    return behind(FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT, step_s=2.0, sensors=PROFILES["ideal"]), shift)


def in_jumps(cycles: Cycles, who: Population, shift: float, **options: Any) -> FleetLives:
    given = {"drive_step_s": 5.0, "sensors": PROFILES["ideal"], **options}
    return behind(FleetLives(who, cycles=cycles, start_s=MIDNIGHT, **given), shift)  # type: ignore[return-value]


def row(fleet: FleetPhysics, offset: int) -> np.ndarray:
    out = np.empty(len(fleet))
    for group in fleet._groups:
        out[group.of] = group.row(offset)
    return out


@pytest.fixture(scope="module")
def four_days(cycles: Cycles) -> dict[float, tuple[Telemetry, Telemetry]]:
    told = {}
    for shift in (0.0, 0.5, 0.75):
        fleet = in_steps(cycles, sound(), shift)
        told[shift] = fleet.advance(2 * DAY, 15), fleet.truth()
    return told


def distance(told: Telemetry) -> np.ndarray:
    return np.asarray(told["distance_traveled"][-1] - told["distance_traveled"][0])


def test_a_sound_vehicle_keeps_its_power(four_days: dict[float, tuple[Telemetry, Telemetry]]) -> None:
    told, truth = four_days[0.0]
    assert not (told["flags"] & STOPPED).any()
    assert (told["flags"] & REDUCED != 0).mean() < 1e-4
    assert not truth["stops"].any()


def test_an_empty_group_costs_kilometres(four_days: dict[float, tuple[Telemetry, Telemetry]]) -> None:
    """Before, a vehicle drove as far with its weakest group far below the limit."""
    well, ill, worse = (distance(four_days[shift][0]) for shift in (0.0, 0.5, 0.75))
    assert np.all(ill <= well + 1e-9)
    assert np.all(worse <= well + 1e-9)
    assert ill.sum() < 0.9 * well.sum()
    assert worse.sum() < 0.3 * well.sum()


def test_a_stopped_vehicle_stands_until_it_is_charged(four_days: dict[float, tuple[Telemetry, Telemetry]]) -> None:
    told, truth = four_days[0.5]
    stopped = told["flags"] & STOPPED != 0
    assert stopped.any()
    assert (truth["stops"] > 0).mean() > 0.2
    assert np.all(told["driving_speed"][stopped] == 0.0)
    assert np.all(told["battery_current"][stopped] <= 0.0), "nothing is drawn, it may be charged"
    assert np.all(told["flags"][stopped] & REDUCED)
    begins = (np.diff(stopped.astype(int), axis=0) == 1).sum(axis=0) + stopped[0]
    assert np.array_equal(truth["stops"], begins), "each is counted once"
    again = np.argwhere(np.diff(stopped.astype(int), axis=0) == -1)
    assert len(again) > 5
    for when, k in again:
        assert told["mode"][when, k] not in (DRIVING, MODES.index("parked")), "it was being charged"
        assert told["distance_traveled"][when + 1, k] == told["distance_traveled"][when, k]


def test_it_goes_slower_before_it_stops(four_days: dict[float, tuple[Telemetry, Telemetry]]) -> None:
    (well, _), (told, _) = four_days[0.0], four_days[0.5]
    turtle = (told["mode"] == DRIVING) & (well["mode"] == DRIVING) & (told["flags"] & REDUCED != 0)
    assert turtle.sum() > 20
    assert np.all(told["driving_speed"][turtle] <= well["driving_speed"][turtle] + 1e-9)
    assert told["driving_speed"][turtle].mean() < 0.9 * well["driving_speed"][turtle].mean()


def test_the_weakest_group_stays_near_its_limit_while_it_drives(cycles: Cycles) -> None:
    """At rest after the stops, no group is far below the lower limit: the power was held back in time."""
    fleet = in_steps(cycles, sound(range(20)), 0.5)
    fleet.advance(2 * DAY, 2 * DAY)
    lowest = row(fleet, VOLTAGE) + row(fleet, V_LOWEST)
    floor = np.where(np.array(fleet.truth()["cell"]) == "chen2020", 2.5, 2.0)
    assert row(fleet, STOPS).any()
    assert np.all(lowest > floor - 0.3)


def test_lives_stop_the_same_vehicles(cycles: Cycles) -> None:
    """In jumps as in steps; which trip it is that fails hangs on the day."""
    who = sound()
    told: list[np.ndarray] = []
    for fleet in (in_steps(cycles, who, 0.5), in_jumps(cycles, who, 0.5, longest_jump=0)):
        fleet.advance(round(4 * DAY / fleet.step_s), DAY)
        told.append(fleet.truth()["stops"] > 0)
    assert np.mean(told[0] == told[1]) > 0.85
    assert told[0].any()
    sound_life = in_jumps(cycles, who, 0.0)
    sound_life.advance(400 * DAY, 400 * DAY)
    assert not sound_life.truth()["stops"].any()


def test_a_life_may_end_by_a_stop(cycles: Cycles) -> None:
    fleet = in_jumps(cycles, replace(sound(), soc_limit=np.full(60, 0.8)), 0.35, end_soh=0.2)
    fleet.advance(60 * DAY, 60 * DAY)
    ends, truth = fleet.ends(), fleet.truth()
    assert set(ends["reason"]) == {"alive", "stopped"}
    over = ends["reason"] == "stopped"
    assert np.all(truth["stops"][over] > 0)
    assert np.all(ends["day"][over] == np.round(ends["day"][over]))
    assert np.all((ends["day"][over] >= 1) & (ends["day"][over] <= 60))


def test_shards_and_calls_do_not_matter(cycles: Cycles) -> None:
    whole = in_steps(cycles, sound(), 0.5)
    expected = whole.advance(DAY, 600)
    part = in_steps(cycles, sound([7, 41]), 0.5)
    pieces = [part.advance(ticks, 600) for ticks in (50_000, DAY - 50_000)]
    for name, values in expected.items():
        assert np.array_equal(values[:, [7, 41]], np.concatenate([piece[name] for piece in pieces])), name
