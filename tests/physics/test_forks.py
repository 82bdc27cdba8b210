"""Forks: the same future with the same keys, another one with others, and days that forks share."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from physics import FleetLives, FleetPhysics, Keys, Policy, draw_population
from physics.default_fleet import USES
from physics.layout import (
    CHARGE_FROM,
    CHARGER,
    CITY,
    DAY,
    HABIT,
    MASS,
    NEXT_EVENT,
    SEI_SCALE,
    SOC_LIMIT,
    SPEED_SCALE,
    USE,
    VEHICLE,
    WHOLE_AREA,
)

MIDNIGHT = 1_767_225_600  # 2026-01-01 00:00 UTC
DAY_S = 86_400
BOTH = {"chen2020": 0.6, "prada2013": 0.4}
STEP_S = 10.0
DAY_TICKS = round(DAY_S / STEP_S)
Cycles = list[np.ndarray]
Telemetry = dict[str, np.ndarray]


def stepped(cycles: Cycles, vehicles: int = 150, hour: int = 13) -> FleetPhysics:
    who = draw_population(5, np.arange(vehicles), BOTH, fault_share=0.3, start_s=MIDNIGHT)
    return FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT + 3600 * hour, step_s=STEP_S)


def lives(cycles: Cycles, vehicles: int = 150) -> FleetLives:
    who = draw_population(5, np.arange(vehicles), BOTH, fault_share=0.3, start_s=MIDNIGHT)
    return FleetLives(who, cycles=cycles, start_s=MIDNIGHT, step_s=STEP_S, drive_step_s=5.0)


def ahead(fleet: FleetPhysics, days: int) -> Telemetry:
    every = DAY_TICKS if isinstance(fleet, FleetLives) else 60
    return fleet.advance(days * DAY_TICKS, every)


def same(one: Telemetry, other: Telemetry, of: Any = slice(None)) -> bool:
    return all(np.array_equal(one[name][..., of], other[name]) for name in one)


@pytest.fixture(params=[stepped, lives])
def grown(request: pytest.FixtureRequest, cycles: Cycles) -> FleetPhysics:
    """A fleet that has been under way for some time."""
    fleet: FleetPhysics = request.param(cycles)
    ahead(fleet, 20 if isinstance(fleet, FleetLives) else 1)
    return fleet


def horizon(fleet: FleetPhysics) -> int:
    return 25 if isinstance(fleet, FleetLives) else 3


# --- roles of chance --------------------------------------------------------------------------------------------------


def test_each_role_draws_its_own() -> None:
    """Other manufacture, owners or faults change what they say, and nothing else."""
    who = np.arange(60)
    one = draw_population(4, who, BOTH, fault_share=0.5)
    assert draw_population(Keys.of(4), who, BOTH, fault_share=0.5).keys == one.keys
    changed = {}
    for role in ("manufacture", "owner", "days", "sensors", "faults"):
        other = draw_population(Keys.of(4)._replace(**{role: 9}), who, BOTH, fault_share=0.5)
        changed[role] = {
            part.name
            for part in fields(one)
            if part.name not in ("keys", "cells")
            and not np.array_equal(getattr(one, part.name), getattr(other, part.name))
        }
    assert changed["days"] == changed["sensors"] == set()
    assert {"capacity_scale", "resistance_scale", "weak_capacity", "hot_share"} <= changed["manufacture"]
    assert {"use", "city", "soc_limit", "plug_habit", "speed_scale", "charger_W"} <= changed["owner"]
    assert {"fault", "fault_severity"} <= changed["faults"]
    # But for the limit: owners of LFP charge to full more often.
    assert not changed["manufacture"] & {"use", "city", "fault", "age_years", "odometer_km"}
    assert not changed["owner"] & {"capacity_scale", "resistance_scale", "cell", "fault"}
    assert not changed["faults"] & {"capacity_scale", "use", "city", "soc_limit"}


def test_other_sensors_leave_the_cells_alone(cycles: Cycles) -> None:
    """Of those that charge until they are full; else what the BMS counts decides where charging ends."""
    keys = Keys.of(4)
    one, other = (
        FleetPhysics(
            replace(
                draw_population(k, np.arange(20), use="delivery"), soc_limit=np.ones(20), initial_soc=np.full(20, 0.9)
            ),
            cycles=cycles,
            start_s=MIDNIGHT,
            step_s=STEP_S,
        )
        for k in (keys, keys._replace(sensors=9))
    )
    assert not same(ahead(one, 1), ahead(other, 1))
    assert all(np.array_equal(one.truth()[name], other.truth()[name]) for name in ("soc", "soh", "resistance"))


# --- forks ------------------------------------------------------------------------------------------------------------


def test_a_fork_with_nothing_else_is_the_same_future(grown: FleetPhysics) -> None:
    forks = grown.fork(), grown.fork(day_seed=grown.keys.days, policy=Policy())
    other = grown.fork(day_seed=77, policy=Policy(soc_limit=0.6))
    ahead(other, 2)  # and does not disturb the others
    told = ahead(grown, horizon(grown))
    for fork in forks:
        assert same(told, ahead(fork, horizon(grown)))
        assert same(grown.truth(), fork.truth())


def test_another_day_seed_is_another_future_of_the_same_vehicles(grown: FleetPhysics) -> None:
    fork = grown.fork(day_seed=77)
    assert same(grown.truth(), fork.truth()) or isinstance(grown, FleetLives)  # lives have jumped over other days
    other, told = ahead(fork, horizon(grown)), ahead(grown, horizon(grown))
    driven = other["distance_traveled"][-1], told["distance_traveled"][-1]
    assert np.mean(driven[0] != driven[1]) > 0.9
    assert np.array_equal(fork.truth()["vehicle"], grown.truth()["vehicle"])


def test_today_stays_as_planned(cycles: Cycles) -> None:
    """From 13:00 UTC until the midnight after which no city has that day any more, bit for bit; then not."""
    grown = stepped(cycles)
    ahead(grown, 1)
    fork = grown.fork(day_seed=77)
    turn_s = fork.keys.turn * DAY_S - (MIDNIGHT + 13 * 3600 + DAY_S)  # of UTC; the first city is 8 h earlier
    until = round((turn_s - 8 * 3600) / STEP_S)
    assert until > 0
    assert same(grown.advance(until, 6), fork.advance(until, 6))
    assert not same(ahead(grown, 1), ahead(fork, 1))


def test_no_trip_of_a_fork_is_late(cycles: Cycles) -> None:
    """Plans of the days that are replaced are made anew: none of their entries is in the past."""
    grown = stepped(cycles, hour=22)
    ahead(grown, 1)
    fork = grown.fork(day_seed=77)
    for _ in range(2 * 24 * 60):
        fork.advance(6, 6)
        assert all(np.all(group.row(NEXT_EVENT) >= fork.tick - 1) for group in fork._groups)
    assert all(np.all(group.row(DAY) >= fork.keys.turn) for group in fork._groups)


def test_forks_with_one_day_seed_share_their_days(cycles: Cycles) -> None:
    """The same trips in the same weather, whatever the policy, but for who has to look for a charger on the road."""
    grown = stepped(cycles)
    ahead(grown, 1)
    careful, eager = (
        ahead(grown.fork(day_seed=8, policy=policy), 3)
        for policy in (Policy(soc_limit=0.7, plug_habit=0.3), Policy(soc_limit=1.0, plug_habit=1.0))
    )
    enough = (careful["soc"].min(axis=0) > 0.12) & (eager["soc"].min(axis=0) > 0.12)
    assert enough.mean() > 0.8
    for name in ("distance_traveled", "driving_speed", "ambient_temperature"):
        assert np.array_equal(careful[name][:, enough], eager[name][:, enough]), name
    assert np.mean(careful["soc"]) < np.mean(eager["soc"]) - 0.05


def test_policies_do_what_they_say(cycles: Cycles) -> None:
    grown = stepped(cycles)
    fork = grown.fork(policy=Policy(soc_limit=0.6, charger_W=3000.0, plug_habit=1.0, standby_W=0.0))
    ahead(fork, 1)  # those that were fuller have driven
    told = ahead(fork, 3)
    charging = told["mode"] == 2
    assert -told["power_consumption"][charging].min() < 3.1
    full = np.quantile(told["soc"][charging], 0.99)
    assert 0.55 < full < 0.66


def test_charged_less_a_life_fades_less(cycles: Cycles) -> None:
    grown = lives(cycles, 60)
    ahead(grown, 20)
    low, high = (grown.fork(day_seed=3, policy=Policy(soc_limit=limit)) for limit in (0.5, 1.0))
    for fork in (low, high):
        ahead(fork, 400)
    lost = low.truth()["sei"] - grown.truth()["sei"], high.truth()["sei"] - grown.truth()["sei"]
    # Of those who charge at home. The others go to a fast charger more often instead, and are warmer.
    home = draw_population(5, np.arange(60), BOTH, fault_share=0.3, start_s=MIDNIGHT).use < USES.index("taxi")
    assert np.mean((lost[0] < lost[1])[home]) > 0.9


def test_other_owners_drive_other_ways_and_keep_city_use_and_cells(grown: FleetPhysics) -> None:
    """From the next day on; until then only habits, load and driver are theirs. Two forks agree on who they are."""
    fork, again = grown.fork(owner_seed=77), grown.fork(owner_seed=77, policy=Policy())
    told, other, third = (ahead(fleet, horizon(grown)) for fleet in (grown, fork, again))
    assert same(other, third)
    km = other["distance_traveled"][-1], told["distance_traveled"][-1]
    assert np.mean(km[0] != km[1]) > 0.9
    for offset in (CITY, USE):
        assert all(
            np.array_equal(a.row(offset), b.row(offset)) for a, b in zip(fork._groups, grown._groups, strict=True)
        )
    for offset in (MASS, SOC_LIMIT, CHARGER):
        assert any(
            not np.array_equal(a.row(offset), b.row(offset)) for a, b in zip(fork._groups, grown._groups, strict=True)
        )
    for offset in (VEHICLE, WHOLE_AREA, SEI_SCALE):  # what the car is
        assert all(
            np.array_equal(a.row(offset), b.row(offset)) for a, b in zip(fork._groups, grown._groups, strict=True)
        )


def test_what_other_owners_are_is_what_a_fleet_of_them_is(cycles: Cycles) -> None:
    """A fork's owners are those that a new fleet with that key has, mass and limit of LFP included."""
    fork = stepped(cycles).fork(owner_seed=77)
    who = draw_population(Keys.of(5)._replace(owner=77), np.arange(150), BOTH, fault_share=0.3, start_s=MIDNIGHT)
    for group in fork._groups:
        assert np.array_equal(group.row(SOC_LIMIT), who.soc_limit[group.of])
        assert np.array_equal(group.row(HABIT), who.plug_habit[group.of])
        assert np.array_equal(group.row(CHARGE_FROM), who.charge_from_s[group.of])
        assert np.array_equal(group.row(SPEED_SCALE), who.speed_scale[group.of])


def test_another_use_begins_with_the_next_day(cycles: Cycles) -> None:
    """Today's trips are as planned, to the bit; from the turn on all are taxis, and a fork of that fork stays one."""
    grown = stepped(cycles)
    ahead(grown, 1)
    fork = grown.fork(policy=Policy(use="taxi"))
    until = round((fork.keys.turn * DAY_S - (MIDNIGHT + 13 * 3600 + DAY_S) - 8 * 3600) / STEP_S)
    assert until > 0
    twin = grown.fork()
    assert same(twin.advance(until, 6), fork.advance(until, 6))
    ahead(fork, 1)
    before = fork.advance(1, 1)["distance_traveled"][-1]
    later = fork.fork(day_seed=8)
    for fleet in (fork, later):
        week = ahead(fleet, 7)["distance_traveled"][-1] - before
        assert np.median(week) > 7 * 150.0, "km; a commuter has some 50 a day"


def test_a_life_that_becomes_a_taxi_in_phoenix(grown: FleetPhysics) -> None:
    fork = grown.fork(policy=Policy(use="taxi", city="Phoenix"))
    told, other = ahead(grown, horizon(grown)), ahead(fork, horizon(grown))
    km = [np.median(of["distance_traveled"][-1] - of["distance_traveled"][0]) for of in (other, told)]
    assert km[0] > 1.5 * km[1]
    assert np.ptp(other["ambient_temperature"][-1]) < 15.0 < np.ptp(told["ambient_temperature"][-1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"day_seed": 6},
        {"day_seed": 6, "policy": Policy(soc_limit=0.7)},
        {"owner_seed": 4},
        {"owner_seed": 4, "day_seed": 6, "policy": Policy(use="delivery", city="Oslo")},
    ],
)
def test_a_fork_of_some_equals_the_fork_of_all(grown: FleetPhysics, options: dict[str, Any]) -> None:
    some = [3, 7, 8, 130, 149]
    whole, part = grown.fork(**options), grown.fork(of=some, **options)
    assert len(part) == 5
    told = ahead(whole, horizon(grown))
    assert same(told, ahead(part, horizon(grown)), some)
    assert same(whole.truth(), part.truth(), some)


def test_forks_of_a_restored_fleet_and_restored_forks(grown: FleetPhysics, cycles: Cycles) -> None:
    make: Any = lives if isinstance(grown, FleetLives) else stepped
    restored = make(cycles)
    restored.restore(grown.snapshot())
    policy = Policy(soc_limit=0.7)
    one, other = (fleet.fork(day_seed=6, policy=policy) for fleet in (grown, restored))
    ahead(one, 1)
    ahead(other, 1)
    again = restored.fork(day_seed=6)
    again.restore(one.snapshot())
    told = ahead(one, horizon(grown))
    assert same(told, ahead(other, horizon(grown)))
    assert same(told, ahead(again, horizon(grown)))


def test_a_fork_of_a_fork(cycles: Cycles) -> None:
    grown = stepped(cycles, 20, hour=12)
    first = grown.fork(day_seed=6)
    at_once = first.fork(day_seed=7)
    assert same(ahead(at_once, 3), ahead(grown.fork(day_seed=7), 3))
    ahead(first, 1)  # in Los Angeles the first fork's days have not begun
    first.advance(DAY_TICKS // 2 - 1, 60)
    if first.keys.turn * DAY_S + 8 * 3600 > first.start_s + first.tick * STEP_S:
        with pytest.raises(ValueError, match="half a day later"):
            first.fork(day_seed=8)
    ahead(first, 1)
    assert not same(ahead(first.fork(day_seed=8), 3), ahead(first, 3))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"of": []}, "non-empty"),
        ({"of": [2, 1]}, "ascending"),
        ({"of": [1, 1]}, "ascending"),
        ({"of": [20]}, "from 0 to 19"),
        ({"of": [0.5]}, "positions"),
        ({"day_seed": -1}, "day_seed"),
        ({"owner_seed": 2**63}, "owner_seed"),
    ],
)
def test_nonsense_is_refused(cycles: Cycles, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stepped(cycles, 20).fork(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"soc_limit": 0.2},
        {"soc_limit": float("nan")},
        {"plug_habit": 1.1},
        {"charger_W": 0.0},
        {"city": "Atlantis"},
        {"use": "racing"},
    ],
)
def test_policies_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Policy(**bad)
