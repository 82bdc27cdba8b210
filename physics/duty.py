"""A vehicle's days: when it drives what. A pure function of (seed, vehicle, day): nothing is stored but the next entry.

Three trips are possible a day: 0 out (to work, or for leisure), 1 an errand around noon, 2 back home. Workdays: 92 % go
to work, 15 % of them run the errand; other days: 65 % go out. Out and back take the same route: one of the speed
traces, repeated up to three times. At home the vehicle is plugged in as its owner's habit says, always below half
charge.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from physics.maths import LOOP
from physics.parameters import FloatArray
from physics.rng import uniform

_TRIP: Final = 200
_HABIT: Final = 201
_OWNER: Final = 202

WORKS: Final = 0.92
ERRAND: Final = 0.15
LEISURE: Final = 0.65
LONGEST_TRIP_S: Final = 6000.0
PAUSE_S: Final = 600.0
EVENTS: Final = 6  # entries of a day: start and end of three trips


@numba.njit(**LOOP)
def trip(
    seed: int, vehicle: int, day: int, which: int, dt: float, cycle_ticks: npt.NDArray[np.int64]
) -> tuple[float, float, int]:
    """(start, end, cycle) of trip 0, 1 or 2 of a local day, start and end in seconds of that day; cycle -1: no such
    trip.

    `cycle_ticks`: steps of one run through each cycle, shape (cycles,). 1970-01-01 was a Thursday.
    """
    workday = (day + 3) % 7 < 5
    at_work = workday and uniform(seed, _TRIP, vehicle, 16 * day) < WORKS
    goes_out = at_work or uniform(seed, _TRIP, vehicle, 16 * day + 1) < LEISURE
    errand = at_work and uniform(seed, _TRIP, vehicle, 16 * day + 2) < ERRAND
    if not goes_out or (which == 1 and not errand):
        return 0.0, 0.0, -1
    cycles = cycle_ticks.size
    end = 0.0
    start = 0.0
    cycle = 0
    for k in range(which + 1):
        if k == 1 and not errand:
            continue
        jitter = uniform(seed, _TRIP, vehicle, 16 * day + 3 + k) - 0.5
        if k == 1:
            hour = 12.5 + 2.0 * jitter
            route, repeats = uniform(seed, _TRIP, vehicle, 16 * day + 8), 1
        elif at_work:
            usual = uniform(seed, _OWNER, vehicle, k)
            hour = (6.5 if k == 0 else 16.0) + 2.5 * usual + 0.5 * jitter
            route = uniform(seed, _OWNER, vehicle, 3)
            repeats = 1 + int(3.0 * uniform(seed, _OWNER, vehicle, 4))
        else:
            hour = (10.5 if k == 0 else 17.0) + (3.0 if k == 0 else 6.0) * jitter
            route = uniform(seed, _TRIP, vehicle, 16 * day + 6)
            repeats = 1 + int(3.0 * uniform(seed, _TRIP, vehicle, 16 * day + 7))
        cycle = min(int(route * cycles), cycles - 1)
        once = cycle_ticks[cycle] * dt
        while repeats > 1 and repeats * once > LONGEST_TRIP_S:
            repeats -= 1
        start = hour * 3600.0 if k == 0 else max(hour * 3600.0, end + PAUSE_S)
        end = start + min(repeats * once, LONGEST_TRIP_S)
    return start, end, cycle


@numba.njit(**LOOP)
def plugs_in(seed: int, vehicle: int, day: int, habit: float) -> bool:
    """Does the owner plug in on this evening?"""
    return bool(uniform(seed, _HABIT, vehicle, day) < habit)


@numba.njit(**LOOP)
def find_event(
    seed: int,
    vehicle: int,
    day: int,
    event: int,
    utc_offset_s: float,
    start_s: float,
    dt: float,
    cycle_ticks: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
    """(tick, day, event) of the first entry of the plan at or after entry `event` of `day`.

    Event 2 k is the start of trip k, 2 k + 1 its end; a tick begins at start_s + tick dt.
    """
    while True:
        if event >= EVENTS:
            event, day = 0, day + 1
        begin, end, cycle = trip(seed, vehicle, day, event // 2, dt, cycle_ticks)
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
