"""A vehicle's days: when it drives and which trace. They are a pure function of (keys, vehicle, day), so only the next
entry is stored.

A day has up to three trips, 0, 1 and 2. Each repeats one speed trace. After a trip the vehicle parks, charges fast on
the road, or is plugged in at home (after trip 2). There are four kinds of use:

commuter       out and back on the same route. On workdays 92 % go to work, and 15 % of these run an errand at noon.
               On all other days 65 % go out. Three weeks of the year are holidays. On one day in fifty it makes a
               long trip, as long_distance does. Charges at home by its habit, and always when below half charge.
delivery       six days a week, city rounds in the morning and the afternoon, depot charger every evening
taxi           nearly every day, three shifts of two to three hours in town, fast charge between them when below 60 %
long_distance  most workdays, motorway in two or three legs with fast charges between them

Shares of uses, hours and lengths are set for variety, in the range of national travel surveys. They are not fitted.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.compiled import inner
from physics.default_fleet import USES
from physics.parameters import FloatArray
from physics.rng import Keys, days_key, owner_key, uniform

_TRIP: Final = 200
_HABIT: Final = 201
_WEEK: Final = 203
_OWNER: Final = 202

_USE_COUNT: Final = len(USES)
COMMUTER: Final = 0
LONG_DISTANCE: Final = 3

WORKS: Final = 0.92
ERRAND: Final = 0.15
LEISURE: Final = 0.65
HOLIDAYS: Final = 0.06  # share of weeks
TRAVELS: Final = 0.02  # share of days
TRIPS: Final = 3
EVENTS: Final = 2 * TRIPS  # entries of a day: start and end of three trips

# What follows a trip.
STAYS: Final = 0
HOME: Final = 1
FAST: Final = 2
_AFTER: Final = np.array([[STAYS, STAYS, HOME], [STAYS, STAYS, HOME], [FAST, FAST, HOME], [FAST, FAST, HOME]])

# Professional uses, one row for each of USES. Of the commuter's only the longest trip and the pause are read.
_WORKDAY: Final = np.array([0.0, 0.95, 0.95, 0.80])
_SATURDAY: Final = np.array([0.0, 0.85, 0.95, 0.25])
_SUNDAY: Final = np.array([0.0, 0.0, 0.85, 0.25])
_HOURS: Final = np.array([[0.0, 0.0, 0.0], [7.5, -1.0, 13.0], [6.0, 11.0, 16.5], [7.0, -1.0, 15.5]])  # -1: no such trip
_ROUTES: Final = np.array([[0, 0], [0, 0], [0, 3], [1, 2]])  # indices of traces: UDDS, HWFET, US06, WLTC
_SHORTEST_S: Final = np.array([0.0, 5400.0, 7200.0, 4500.0])
_LONGEST_S: Final = np.array([6000.0, 9000.0, 10800.0, 9000.0])
_PAUSE_S: Final = np.array([600.0, 1800.0, 2700.0, 2400.0])
LONGEST_TRIP_S: Final = float(_LONGEST_S.max())


@inner
def _leg(
    keys: Keys, vehicle: int, use: int, day: int, k: int, after: float, dt: float, cycle_ticks: npt.NDArray[np.int64]
) -> tuple[float, float, int]:
    """(start, end, cycle) of leg `k` of a professional's day, not before `after`; cycle -1 where there is none."""
    if _HOURS[use, k] < 0.0:
        return after, after, -1
    days, owner = days_key(keys, day), owner_key(keys, day)
    hour = _HOURS[use, k] + uniform(owner, _OWNER, vehicle, 8) + 0.5 * uniform(days, _TRIP, vehicle, 16 * day + 3 + k)
    choice = 0 if uniform(days, _TRIP, vehicle, 16 * day + 6 + k) < 0.5 else 1
    cycle = min(_ROUTES[use, choice], cycle_ticks.size - 1)
    once = cycle_ticks[cycle] * dt
    share = uniform(days, _TRIP, vehicle, 16 * day + 9 + k)
    wanted = _SHORTEST_S[use] + share * (_LONGEST_S[use] - _SHORTEST_S[use])
    start = max(hour * 3600.0, after + _PAUSE_S[use]) if k > 0 else hour * 3600.0
    return start, start + min(max(1.0, math.floor(wanted / once)) * once, _LONGEST_S[use]), cycle


@inner
def _professional(
    keys: Keys, vehicle: int, use: int, day: int, which: int, dt: float, cycle_ticks: npt.NDArray[np.int64]
) -> tuple[float, float, int]:
    weekday = (day + 3) % 7
    works = _WORKDAY[use] if weekday < 5 else (_SATURDAY[use] if weekday == 5 else _SUNDAY[use])
    if uniform(days_key(keys, day), _TRIP, vehicle, 16 * day) >= works:
        return 0.0, 0.0, -1
    return _legs(keys, vehicle, use, day, which, dt, cycle_ticks)


@inner
def _legs(
    keys: Keys, vehicle: int, use: int, day: int, which: int, dt: float, cycle_ticks: npt.NDArray[np.int64]
) -> tuple[float, float, int]:
    start, end, cycle = 0.0, 0.0, -1
    for k in range(which + 1):
        start, end, cycle = _leg(keys, vehicle, use, day, k, end, dt, cycle_ticks)
    return start, end, cycle


@inner
def _commute(
    keys: Keys, vehicle: int, day: int, which: int, dt: float, cycle_ticks: npt.NDArray[np.int64]
) -> tuple[float, float, int]:
    days, owner = days_key(keys, day), owner_key(keys, day)
    monday = day - (day + 3) % 7
    workday = (day + 3) % 7 < 5 and uniform(days_key(keys, monday), _WEEK, vehicle, monday) >= HOLIDAYS
    at_work = workday and uniform(days, _TRIP, vehicle, 16 * day) < WORKS
    goes_out = at_work or uniform(days, _TRIP, vehicle, 16 * day + 1) < LEISURE
    errand = at_work and uniform(days, _TRIP, vehicle, 16 * day + 2) < ERRAND
    if not goes_out or (which == 1 and not errand):
        return 0.0, 0.0, -1
    cycles = cycle_ticks.size
    end = 0.0
    start = 0.0
    cycle = 0
    for k in range(which + 1):
        if k == 1 and not errand:
            continue
        jitter = uniform(days, _TRIP, vehicle, 16 * day + 3 + k) - 0.5
        if k == 1:
            hour = 12.5 + 2.0 * jitter
            route, repeats = uniform(days, _TRIP, vehicle, 16 * day + 8), 1
        elif at_work:
            usual = uniform(owner, _OWNER, vehicle, k)
            hour = (6.5 if k == 0 else 16.0) + 2.5 * usual + 0.5 * jitter
            route = uniform(owner, _OWNER, vehicle, 3)
            repeats = 1 + int(3.0 * uniform(owner, _OWNER, vehicle, 4))
        else:
            hour = (10.5 if k == 0 else 17.0) + (3.0 if k == 0 else 6.0) * jitter
            route = uniform(days, _TRIP, vehicle, 16 * day + 6)
            repeats = 1 + int(3.0 * uniform(days, _TRIP, vehicle, 16 * day + 7))
        cycle = min(int(route * cycles), cycles - 1)
        once = cycle_ticks[cycle] * dt
        while repeats > 1 and repeats * once > _LONGEST_S[COMMUTER]:
            repeats -= 1
        start = hour * 3600.0 if k == 0 else max(hour * 3600.0, end + _PAUSE_S[COMMUTER])
        end = start + min(repeats * once, _LONGEST_S[COMMUTER])
    return start, end, cycle


@inner
def travels(keys: Keys, vehicle: int, use: int, day: int) -> bool:
    """Does a commuter make a long trip on this day?"""
    return use == COMMUTER and bool(uniform(days_key(keys, day), _TRIP, vehicle, 16 * day + 15) < TRAVELS)


@inner
def trip(
    keys: Keys, vehicle: int, use: int, day: int, which: int, dt: float, cycle_ticks: npt.NDArray[np.int64]
) -> tuple[float, float, int]:
    """(start, end, cycle) of trip 0, 1 or 2 of a local day, start and end in seconds of that day; cycle -1: no such
    trip.

    `cycle_ticks`: steps of one run through each cycle, shape (cycles,). 1970-01-01 was a Thursday.
    """
    if travels(keys, vehicle, use, day):
        return _legs(keys, vehicle, LONG_DISTANCE, day, which, dt, cycle_ticks)
    if use == COMMUTER:
        return _commute(keys, vehicle, day, which, dt, cycle_ticks)
    return _professional(keys, vehicle, use, day, which, dt, cycle_ticks)


@inner
def what_follows(keys: Keys, vehicle: int, use: int, day: int, which: int) -> int:
    """STAYS, HOME (the charger there) or FAST (a charger on the road) after trip `which`."""
    return int(_AFTER[LONG_DISTANCE if travels(keys, vehicle, use, day) else use, which])


@inner
def plugs_in(keys: Keys, vehicle: int, use: int, day: int, habit: float) -> bool:
    """Does the owner plug in on this evening? Professionals always do."""
    return use != COMMUTER or bool(uniform(days_key(keys, day), _HABIT, vehicle, day) < habit)


def uses_of(after: npt.NDArray[np.int64], before: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Row USE of vehicles with these uses: from the day `keys.turn` on, and before it (default: the same)."""
    return after * _USE_COUNT + (after if before is None else before)


@inner
def use_on(keys: Keys, uses: int, day: int) -> int:
    """The use of a vehicle on a local day, from its row USE."""
    return uses // _USE_COUNT if day >= keys.turn else uses % _USE_COUNT


@inner
def find_event(
    keys: Keys,
    vehicle: int,
    uses: int,
    day: int,
    event: int,
    utc_offset_s: float,
    start_s: float,
    dt: float,
    cycle_ticks: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
    """(tick, day, event) of the first entry of the plan at or after entry `event` of `day`.

    Event 2 k is the start of trip k, 2 k + 1 its end; a tick begins at start_s + tick dt. `uses` is a row USE.
    """
    while True:
        if event >= EVENTS:
            event, day = 0, day + 1
        begin, end, cycle = trip(keys, vehicle, use_on(keys, uses, day), day, event // 2, dt, cycle_ticks)
        if cycle >= 0:
            moment = 86400.0 * day - utc_offset_s - start_s + (begin if event % 2 == 0 else end)
            return math.ceil(moment / dt), day, event
        event = 2 * (event // 2) + 2


def resample(speed_mps: FloatArray, step_s: float) -> FloatArray:
    """A 1 Hz speed trace [m/s] at steps of `step_s`, ending at rest, shape (m,)."""
    duration = speed_mps.size - 1
    steps = max(1, math.ceil(duration / step_s))
    at = np.arange(steps + 1) * step_s
    return np.asarray(np.interp(at, np.arange(speed_mps.size), speed_mps, right=0.0), dtype=np.float64)
