"""Simulated time against a clock that the test moves."""

from __future__ import annotations

import math

import pytest

from actors.fleet.pacer import POLL_S, Pacer
from tests.actors.test_supervisor import Clock, fleet_plan


def pacer(pace: float, clock: Clock, tick: int = 0) -> Pacer:
    return Pacer(fleet_plan(pace=pace), tick, clock, wall_ns=lambda: round(1e18 + clock.now * 1e9))


def test_as_fast_as_it_goes_everything_is_allowed_and_nothing_is_due() -> None:
    clock = Clock()
    free = pacer(math.inf, clock)
    assert free.allowed_tick() > 1 << 60
    assert free.due_ns(10) is None
    assert free.sleep_s(10) == POLL_S


@pytest.mark.parametrize(("pace", "after_s", "allowed"), [(1, 0.0, 5), (1, 9.99, 14), (1, 10.0, 15), (60, 10.0, 605)])
def test_steps_are_allowed_as_the_clock_goes(pace: float, after_s: float, allowed: int) -> None:
    clock = Clock()
    paced = pacer(pace, clock, tick=5)
    clock.now += after_s
    assert paced.allowed_tick() == allowed


def test_a_record_is_due_on_the_wall_clock_when_its_step_is() -> None:
    clock = Clock()
    paced = pacer(2.0, clock, tick=100)
    due = paced.due_ns(120)
    assert due is not None
    assert due - 1e18 == pytest.approx(10e9 + clock.now * 1e9)
    clock.now += 4.0
    assert paced.due_ns(120) == pytest.approx(due, abs=2), "it stays the same moment while time passes"


def test_it_sleeps_until_the_next_record_is_due_but_not_for_long() -> None:
    clock = Clock()
    paced = pacer(10.0, clock)
    assert paced.sleep_s(0) == pytest.approx(0.2)  # the record of step 2
    clock.now += 0.15
    assert paced.sleep_s(0) == pytest.approx(0.05)
    clock.now += 1.0
    assert paced.sleep_s(0) == 0.001, "late: nearly not at all"
    assert pacer(0.1, clock).sleep_s(0) == POLL_S
