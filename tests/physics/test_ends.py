"""Ends of lives: when the true SoH falls below a limit, whoever else is there and however the span is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from physics import FleetLives, FleetPhysics, Policy, Population, draw_population
from physics.layout import FAILED, LANES
from physics.sensors import PROFILES, Sensors

MIDNIGHT = 1_767_225_600
DAY = 86_400
LIMIT = 0.955
YEAR = 240
Cycles = list[np.ndarray]
Columns = dict[str, np.ndarray]


def drawn(vehicles: Any = range(30), oldest_years: float = 0.5) -> Population:
    """Vehicles whose films grow four times as fast: most end within a year."""
    cells = {"chen2020": 0.6, "prada2013": 0.4}
    who = draw_population(21, np.asarray(vehicles), cells, oldest_years=oldest_years, start_s=MIDNIGHT)
    return replace(who, sei_scale=4.0 * who.sei_scale)


def lives(cycles: Cycles, who: Population, **options: Any) -> FleetLives:
    given = {"drive_step_s": 5.0, "sensors": PROFILES["ideal"], "end_soh": LIMIT, **options}
    return FleetLives(who, cycles=cycles, start_s=MIDNIGHT, **given)


def days(fleet: FleetPhysics, count: int, every: int) -> Columns:
    return fleet.advance(count * DAY, every * DAY)


def assert_same(one: Columns, other: Columns, of: Any = slice(None)) -> None:
    for name, values in other.items():
        mine = one[name][..., of]
        equal = mine == values if values.dtype == object else np.array_equal(mine, values, equal_nan=True)
        assert np.all(equal), name


@pytest.fixture(scope="module")
def a_year(cycles: Cycles) -> tuple[FleetLives, Columns]:
    fleet = lives(cycles, drawn())
    told = days(fleet, YEAR, 10)
    dead = fleet.ends()["reason"] != "alive"
    assert 0.3 < dead.mean() < 0.95  # the tests have both
    return fleet, told


@pytest.mark.parametrize("alone", [[0], [17], [5, 29]])
def test_ends_do_not_depend_on_who_else_is_there(
    cycles: Cycles, a_year: tuple[FleetLives, Columns], alone: list[int]
) -> None:
    fleet = lives(cycles, drawn(alone))
    assert_same(a_year[1], days(fleet, YEAR, 10), alone)
    assert_same(a_year[0].ends(), fleet.ends(), alone)
    assert_same(a_year[0].truth(), fleet.truth(), alone)


def test_many_calls_and_a_restore_between_give_the_ends_of_one(
    cycles: Cycles, a_year: tuple[FleetLives, Columns]
) -> None:
    """At each of them, `ends` tells those up to that day, though vehicles are ahead of it."""
    fleet, final, told, ahead = lives(cycles, drawn()), a_year[0].ends(), [], 0
    for month in range(1, 9):
        told.append(days(fleet, 30, 10))
        other = lives(cycles, drawn())
        other.restore(fleet.snapshot())
        fleet, now = other, other.ends()
        by_now = final["day"] <= 30 * month
        assert np.array_equal(now["reason"], np.where(by_now, final["reason"], "alive"))
        for name in ("day", "efc", "distance_km"):
            assert np.array_equal(now[name], np.where(by_now, final[name], np.nan), equal_nan=True)
        known = np.concatenate([group.row(0, "ends") for group in fleet._groups])
        ahead += int((known > 0).sum() - by_now.sum())
    assert ahead > 0  # some had ended ahead of the tick
    assert_same(a_year[1], {name: np.concatenate([part[name] for part in told]) for name in told[0]})


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-5, "longest_jump": 60}])
def test_an_end_is_where_the_truth_crosses_the_limit(cycles: Cycles, options: dict[str, Any]) -> None:
    """Of the same lives without an end, sampled every day; a jump taken back leaves no end behind."""
    fleet, free = lives(cycles, drawn(), **options), lives(cycles, drawn(), end_soh=None, **options)
    days(fleet, YEAR, YEAR)
    first = free.truth()
    days(free, YEAR, 1)
    truth, ends = free.truth_series(), fleet.ends()
    assert fleet.days_lived < 0.92 * free.days_lived  # the dead cost nothing
    soh = np.vstack([first["soh"], truth["soh"]])
    for k in range(len(fleet)):
        below = np.flatnonzero(soh[:, k] < LIMIT)
        assert (ends["reason"][k] == "capacity") == (below.size > 0)
        if below.size:
            after = below[0]
            share = (soh[after - 1, k] - LIMIT) / (soh[after - 1, k] - soh[after, k])
            assert ends["day"][k] == pytest.approx(after - 1 + share, abs=1e-6)
            for name in ("efc", "distance_km"):
                pair = truth[name][after - 2 : after, k]
                assert ends[name][k] == pytest.approx(pair[0] + share * (pair[1] - pair[0]), rel=1e-9), name
        else:
            assert np.isnan([ends[name][k] for name in ("day", "efc", "distance_km")]).all()


def test_jumps_move_an_end_by_days_only(cycles: Cycles, a_year: tuple[FleetLives, Columns]) -> None:
    full = lives(cycles, drawn(range(12)), longest_jump=0)
    days(full, YEAR, YEAR)
    one, other = full.ends(), a_year[0].ends()
    both = (one["reason"] == "capacity") & (other["reason"][:12] == "capacity")
    assert both.sum() >= 4
    apart = one["day"][both] - other["day"][:12][both]
    assert np.abs(apart).max() < 12.0
    assert np.median(np.abs(apart)) < 4.0


def test_after_its_end_a_vehicle_has_no_values_and_no_days(cycles: Cycles, a_year: tuple[FleetLives, Columns]) -> None:
    fleet, told = a_year[0].fork(), a_year[1]
    gone = 10 * np.arange(1, YEAR // 10 + 1)[:, None] > fleet.ends()["day"]
    assert gone.any()
    for name, values in told.items():
        missing = values == -1 if values.dtype in (np.int8, np.int32) else np.isnan(values)
        assert np.array_equal(missing, gone), name
    dead = np.flatnonzero(fleet.ends()["reason"] != "alive")
    graves = fleet.fork(of=dead)
    assert np.isnan(days(graves, 5 * 365, 365)["soh"]).all()
    assert np.isnan(graves.truth_series()["soh"]).all()
    assert graves.days_lived == 0
    assert np.all(graves.truth()["soh"] < LIMIT)
    compact = graves.advance(DAY, DAY, compact=True)
    assert np.all(compact["mode"] == -1)
    assert np.isnan(compact["battery_voltage"]).all()


def test_an_end_is_true_whatever_is_reported(cycles: Cycles) -> None:
    """Of deliveries that charge until they are full; else what is counted decides where charging ends."""
    who = drawn(range(12))
    cars: dict[str, Any] = {
        "use": np.ones(12, dtype=np.int64),
        "model": np.full(12, 2),
        "soc_limit": np.ones(12),
    }  # none runs low
    who = replace(who, **cars)
    fleets = lives(cycles, who), lives(cycles, who, sensors=Sensors.of({"base": "poor"}))
    ideal, poor = (days(fleet, YEAR, 10)["charge_cycles"] for fleet in fleets)
    assert (fleets[0].ends()["reason"] == "capacity").sum() >= 3
    assert_same(fleets[0].ends(), fleets[1].ends())
    wrong = poor / ideal - 1.0
    assert np.nanmax(np.abs(wrong)) > 0.005  # the gain of the current sensor


def test_a_failed_vehicle_ends_on_the_day_that_shows_it(cycles: Cycles) -> None:
    fleet = lives(cycles, drawn(range(8)), end_soh=0.0)
    days(fleet, 30, 30)
    for group in fleet._groups:
        where = np.flatnonzero(group.of == 3)
        if where.size:
            group.blocks.reshape(len(group.blocks), -1, LANES)[0, FAILED // LANES, where[0]] = 1.0
    days(fleet, 60, 30)
    ends = fleet.ends()
    assert ends["reason"].tolist() == ["alive"] * 3 + ["failed"] + ["alive"] * 4
    assert 30 < ends["day"][3] == round(ends["day"][3])
    assert ends["distance_km"][3] == pytest.approx(fleet.truth()["distance_km"][3])
    lived = fleet.days_lived
    alone = fleet.fork(of=[3], policy=Policy(soc_limit=0.7))
    days(alone, 300, 30)
    assert (alone.days_lived, alone.ends()["day"][0]) == (0, ends["day"][3])
    assert lived > 0


def test_a_fork_of_an_ended_life_stays_ended(cycles: Cycles, a_year: tuple[FleetLives, Columns]) -> None:
    fleet = a_year[0]
    ends = fleet.ends()
    dead = ends["reason"] != "alive"
    for options in ({}, {"day_seed": 9}, {"policy": Policy(soc_limit=0.5)}):
        fork = fleet.fork(**options)
        assert_same(ends, fork.ends())
        days(fork, 200, 50)
        for name in ends:
            assert np.array_equal(fork.ends()[name][dead], ends[name][dead]), name
        assert_same({name: values[dead] for name, values in fleet.truth().items()},
                    {name: values[dead] for name, values in fork.truth().items()})  # fmt: skip
        assert fork.ends()["day"][~dead][fork.ends()["reason"][~dead] != "alive"].min() > YEAR
    assert_same(ends, fleet.ends())  # forks leave the fleet alone


def test_below_the_limit_from_the_beginning_is_day_0(cycles: Cycles) -> None:
    who = drawn(range(6))
    for fleet in (
        lives(cycles, who, end_soh=1.0),
        FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT, step_s=10.0, end_soh=1.0),
    ):
        fleet.advance(fleet.day_ticks if isinstance(fleet, FleetLives) else 1, DAY)
        ends = fleet.ends()
        assert ends["day"].tolist() == [0.0] * 6
        assert ends["efc"] == pytest.approx(who.charge_cycles)
        assert ends["distance_km"] == pytest.approx(who.odometer_km)


# --- in steps ---------------------------------------------------------------------------------------------------------

STEP_S = 10.0
MINUTE = round(60 / STEP_S)


def stepped(cycles: Cycles, vehicles: Any, limit: float | None) -> FleetPhysics:
    who = drawn(vehicles, oldest_years=0.0)  # all begin at 1
    return FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT + 9 * 3600, step_s=STEP_S, end_soh=limit)


def test_a_fleet_in_steps_knows_an_end_to_the_minute(cycles: Cycles) -> None:
    """The first minute at which `truth` is below the limit; the vehicle goes on. Any cut and any shard."""
    free = stepped(cycles, range(20), None)
    soh, efc = [], []
    for _ in range(12 * 60):
        free.advance(MINUTE, MINUTE)
        soh.append(free.truth()["soh"])
        efc.append(free.truth()["efc"])
    limit = float(np.median(soh[-1]))
    fleet = stepped(cycles, range(20), limit)
    told = fleet.advance(12 * 60 * MINUTE, MINUTE)
    ends = fleet.ends()
    first = np.argmax(np.array(soh) < limit, axis=0)
    crossed = first > 0
    assert crossed.sum() > 3
    assert np.array_equal(ends["reason"] == "capacity", np.array(soh[-1]) < limit)
    seen = crossed & (ends["reason"] == "capacity")
    # The limits of the cell follow at the beginning of a minute, and so does the check.
    assert np.abs(ends["day"][seen] * 1440.0 - first[seen]).max() < 1.5
    assert ends["efc"][seen] == pytest.approx([efc[first[k]][k] for k in np.flatnonzero(seen)], abs=2e-3)
    assert np.isnan(ends["day"][ends["reason"] == "alive"]).all()
    assert not np.isnan(told["soh"]).any()
    for alone in ([4], [0, 19]):
        part = stepped(cycles, alone, limit)
        for cut in (1000, 7, 12 * 60 * MINUTE - 1007):
            part.advance(cut, MINUTE)
            saved = part.snapshot()
            part = stepped(cycles, alone, limit)
            part.restore(saved)
        assert_same(ends, part.ends(), alone)
    fork = fleet.fork(of=[4, 7], day_seed=5)
    fork.advance(MINUTE, MINUTE)
    known = ends["reason"][[4, 7]] != "alive"
    assert np.array_equal(fork.ends()["day"][known], ends["day"][[4, 7]][known])


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_limits_out_of_range_are_refused(cycles: Cycles, bad: float) -> None:
    for kind in (FleetLives, FleetPhysics):
        with pytest.raises(ValueError, match="end_soh from 0 to 1"):
            kind(drawn([0]), cycles=cycles, start_s=MIDNIGHT, end_soh=bad)


def test_a_fleet_without_a_limit_knows_no_ends(cycles: Cycles) -> None:
    endless, ending = lives(cycles, drawn([0]), end_soh=None), lives(cycles, drawn([0]))
    with pytest.raises(ValueError, match="end_soh"):
        endless.ends()
    with pytest.raises(ValueError, match="the snapshot has ends"):
        endless.restore(ending.snapshot())
    with pytest.raises(ValueError, match="the snapshot's ends"):
        ending.restore(endless.snapshot())
