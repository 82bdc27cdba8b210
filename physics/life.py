"""Complete lifetimes, computed in seconds. Some days are simulated in full. Over the days between, slow quantities are
extrapolated with controlled error.

Each vehicle has its own clock. The 128 vehicles of a block take twenty steps together, but of different lengths: 2 s
when driving, 3 to 6 s when charging, 3 minutes when parked. So no vehicle waits for another. Each simulates its own
day, and one that has come to the end of a call makes room for the next in the queue.

After a day a vehicle jumps over some days. Its slow quantities are carried over them by their rates *per exposure*:
the film (in the form in which it grows most evenly), dead lithium, active material, the lithium lost with it,
throughput, distance, and the weakest group's capacity. For the film the exposure is time weighted by the film's
Arrhenius factor. For most others it is kilometres, weighted for cold where stress is concerned. Exposures of the
skipped days follow from climate and plan, which cost almost nothing to compute. So a hot week or a long weekend counts
even when it is skipped.

The error is controlled. After the first day behind a jump there are two estimates of every rate: from before and from
after the jump. Where half their difference, over the jump, is worth more than `tolerance` of SoH, the jump is taken
back and half of it is tried. Otherwise the mean of both rates is applied, and the next jump is as long as its expected
error allows.

A sample shows a vehicle at the end of its local day. Results do not depend on sharding or on the length of a call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from physics.accumulate import (
    FIGURE_COUNT,
    TODAY_SIZE,
    Days,
    begin_today,
    close_today,
    count_step,
    look,
    put_day,
    sum_up,
    window_of,
)
from physics.bms import Bms, clear_flags, learn_soh, measure_pulses, report, update_bms, update_vehicle
from physics.climate import CITY_NAMES, ambient_K
from physics.columns import COLUMNS, NAMES
from physics.compiled import inner, kernel
from physics.constants import DAY_S, GAS_CONSTANT
from physics.daily import FIGURES
from physics.dryout import wet, wetted_share
from physics.duty import TRIPS, trip, use_on
from physics.ends import END_DAY, REASON, put_end, see_ends
from physics.faults import act_faults, calm_until, see_faults
from physics.fleet import ROWS_OF, CellGroup, FleetPhysics, Samples, tell_truth
from physics.kernel import capacity_of, refresh_capacity, refresh_cells, step_cells
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    BLED,
    BLOCK_SIZE,
    CITY,
    COUNTED_AT,
    DEAD,
    DT,
    ELAPSED,
    FAILED,
    LANES,
    MODE,
    NOW,
    ODOMETER,
    PACK_SEI,
    PLUGGED,
    POWER_LEFT,
    Q_LAM,
    Q_SEI,
    RESERVE,
    ROWS,
    SAMPLE,
    SPEED,
    STOPS,
    THROUGHPUT,
    TRACE,
    TRACE_END,
    TRACE_START,
    TRUE_NAMES,
    USE,
    UTC_OFFSET,
    VEHICLE,
    WEAK_CAPACITY,
    WORK_SIZE,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.maths import clip
from physics.modal import CellModel
from physics.pack import age_pack, balance, pack_extremes
from physics.parameters import FloatArray
from physics.policy import Policy
from physics.population import Population, draw_population
from physics.rng import Keys
from physics.sensors import DEFAULT_SENSORS, PROFILES, Sensors
from physics.vehicle import (
    CHARGING,
    DRIVING,
    FAST_CHARGING,
    PARKED,
    arrive,
    ask_cells,
    charge_by_night,
    climate_of,
    depart,
    read_traces,
    refresh_charging,
    refresh_climate,
    until_night,
)

IntArray = npt.NDArray[np.int64]

DRIVE_STEP_S: Final = 2.0
WINDOW: Final = 20  # steps between two updates of plans and coefficients
CHARGE_STEP_S: Final = 6.0
FAST_STEP_S: Final = 3.0
CLIMATE_S: Final = 120.0  # between two updates of the air temperature while driving or fast charging
PARK_STEP_S: Final = 180.0
LONGEST_JUMP: Final = 30
TOLERANCE: Final = 1e-4
"""Error of SoH that one jump may make."""
LARGEST_FADE: Final = 4e-3
"""Loss of SoH that one jump may cover. It makes jumps short near the end of life and past the knee."""
MEMORY: Final = 0.6
"""Weight that a rate's past keeps when a new day is added. It averages out the randomness of single days."""

WARMED_K: Final = 281.0
"""On the road the thermal management keeps the cells at least about this warm."""

# Slow quantities that jump, and the exposure that drives each: 0 the film's exposure, 1 distance, 2 distance weighted
# for cold (stress grows as diffusion slows), 3 time over film thickness (plated lithium dies slower under a thick one).
_FILM, _DEAD, _ACTIVE_N, _ACTIVE_P, _LAM, _THROUGHPUT, _ODOMETER, _WEAK = range(8)
SLOW: Final = 8
_COUNTED_BY: Final = np.array([0, 3, 2, 2, 2, 1, 1, 0])
EXPOSURES: Final = 4

_counts = {"life": 0}


def _rows(count: int = 1) -> int:
    offset = _counts["life"] * LANES
    _counts["life"] += count
    return offset


CLOCK: Final = _rows()  # time of the day being simulated [s]
UNTIL: Final = _rows()  # end of the present phase [s]
PHASE: Final = _rows()  # 2 w: standing before trip w, 2 w + 1: on trip w, 6: until midnight
STARTED: Final = _rows(SLOW)  # slow quantities at the beginning of the day
NEXT_DAY: Final = _rows()  # local day to simulate next, days since 1970
FIRST_DAY: Final = _rows()  # local day of the start
JUMPED: Final = _rows()  # days skipped before it
NEXT_JUMP: Final = _rows()  # days to skip after it, as planned so far
BEFORE: Final = _rows(SLOW)  # slow quantities before the jump
STOPS_BEFORE: Final = _rows()
RATE: Final = _rows(SLOW)  # their rates before it
SUM: Final = _rows(SLOW)  # weighted sums of their changes on simulated days
EXPOSED: Final = _rows(EXPOSURES)  # weighted sums of the exposures on these days
SKIPPED: Final = _rows(EXPOSURES)  # exposures of the days skipped
SAMPLED_DAY: Final = _rows()  # days since the start at SAMPLE_0; between the two samples one interpolates
LIVED_DAY: Final = _rows()  # days since the start at SAMPLE_1
KEPT: Final = len(COLUMNS) + len(TRUE_NAMES)  # what is reported, then what is true
SAMPLE_0: Final = _rows(KEPT)
SAMPLE_1: Final = _rows(KEPT)
LIFE_SIZE: Final = _counts["life"] * LANES

_GROWS: Final = np.array(
    [*(column.grows for column in COLUMNS), *(name not in ("soc", "failed", "outside", "stops") for name in TRUE_NAMES)]
)
_MISSING: Final = np.array(
    [*(-1.0 if column.decimals is None else np.nan for column in COLUMNS)] + [np.nan] * len(TRUE_NAMES)
)
"""What samples of a vehicle hold after its end, column by column."""
_SOH, _FAILED, _STOPS, _AH, _M = (
    (len(COLUMNS) + TRUE_NAMES.index(name)) * LANES for name in ("soh", "failed", "stops", "throughput", "odometer")
)
_AT_END: Final = np.array([NAMES.index(column.name) if column.how == "end" else -1 for column in FIGURES])
_BEFORE: Final = 0  # rows of `daily`: the figures of the last day lived but one, and of the last
_LAST: Final = FIGURE_COUNT * LANES
_DAILY_SIZE: Final = 2 * FIGURE_COUNT * LANES


@kernel
def _next_phase(
    block: FloatArray,
    life: FloatArray,
    k: int,
    keys: Keys,
    dt: float,
    cycle_start: IntArray,
    cycle_ticks: IntArray,
    c: CellModel,
) -> None:
    """Set off or arrive. Phase 2 w is the time before trip w, 2 w + 1 the trip. After the last trip comes midnight."""
    vehicle, day = int(block[VEHICLE + k]), int(life[NEXT_DAY + k])
    use = use_on(keys, int(block[USE + k]), day)
    clock = life[CLOCK + k]
    while life[UNTIL + k] - clock < 1e-6 and life[PHASE + k] < 2 * TRIPS:
        phase = int(life[PHASE + k])
        which = phase // 2
        if phase % 2 == 0:
            begin, end, cycle = trip(keys, vehicle, use, day, which, dt, cycle_ticks)
            ticks = WINDOW * round((end - begin) / (dt * WINDOW)) if cycle >= 0 else 0
            if ticks > 0 and block[POWER_LEFT + k] > 0.0:
                block[MODE + k] = DRIVING
                block[TRACE_START + k] = cycle_start[cycle]
                block[TRACE_END + k] = cycle_start[cycle] + cycle_ticks[cycle] + 1
                block[TRACE + k] = cycle_start[cycle]
                life[UNTIL + k] = clock + ticks * dt
                depart(block, k, keys, vehicle, use, day, which)
        else:
            if block[MODE + k] == DRIVING or (block[MODE + k] == PARKED and block[POWER_LEFT + k] == 0.0):
                block[MODE + k] = PARKED
                block[SPEED + k] = 0.0
                block[TRACE_START + k], block[TRACE_END + k], block[TRACE + k] = 0.0, 1.0, 0.0
                arrive(block, k, keys, vehicle, use, day, which, c)
            life[UNTIL + k] = _standing_until(block, k, day, which + 1, clock, keys, dt, cycle_ticks)
        life[PHASE + k] = phase + 1.0


@kernel
def _standing_until(
    block: FloatArray, k: int, day: int, which: int, clock: float, keys: Keys, dt: float, cycle_ticks: IntArray
) -> float:
    """Time of day at which trip `which` starts; now, if there is no such trip today; midnight, after the last one."""
    if which >= TRIPS:
        return max(DAY_S, clock)
    use = use_on(keys, int(block[USE + k]), day)
    begin, _, cycle = trip(keys, int(block[VEHICLE + k]), use, day, which, dt, cycle_ticks)
    return max(begin, clock) if cycle >= 0 else clock


@inner
def _turning(c: CellModel) -> float:
    """Film, as charge, at which diffusion begins to limit its growth at rest near full charge [C/m2]."""
    return 1.0 / (c.sei_rate_over_diffusivity * math.exp((c.sei_potential - 0.1) / 0.0514) * c.sei_length)


@inner
def _evenly(film: float, c: CellModel) -> float:
    """The film in the form in which it grows most evenly, q0 Q + Q^2/2: Q grows linearly at first, then as a root."""
    return film * (_turning(c) + 0.5 * film)


@inner
def _film(even: float, c: CellModel) -> float:
    """The inverse of `_evenly`."""
    q0 = _turning(c)
    return math.sqrt(q0 * q0 + 2.0 * max(even, 0.0)) - q0


@inner
def _slow(block: FloatArray, k: int, which: int, c: CellModel) -> float:
    """A slow quantity in the form in which it grows most evenly."""
    if which == _FILM:
        return _evenly(block[Q_SEI + k], c)
    if which == _DEAD:
        return block[DEAD + k]
    if which == _ACTIVE_N:
        return block[ACTIVE_N + k]
    if which == _ACTIVE_P:
        return block[ACTIVE_P + k]
    if which == _LAM:
        return block[Q_LAM + k]
    if which == _THROUGHPUT:
        return block[THROUGHPUT + k]
    if which == _ODOMETER:
        return block[ODOMETER + k]
    return block[WEAK_CAPACITY + k]


@kernel
def _expose(
    exposures: FloatArray, block: FloatArray, k: int, day: int, film: float, keys: Keys, dt: float, c: CellModel,
    cycle_ticks: IntArray, cycle_m: FloatArray,
) -> None:  # fmt: skip
    """Add one day's exposures of a vehicle with a film of charge `film` to `exposures`, shape (EXPOSURES,)."""
    mean = 0.0
    for quarter in range(4):
        t = ambient_K(keys, int(block[CITY + k]), DAY_S * day + DAY_S * (0.125 + 0.25 * quarter))
        mean += 0.25 * t
        exposures[3] += 0.25 / film
        exposures[0] += 0.25 * math.exp(c.e_sei / GAS_CONSTANT * (1.0 / c.t_ref - 1.0 / t))
    if block[FAILED + k] == 0.0:
        cold = math.exp(
            (2.0 * c.e_diffusion_n - c.e_lam_n) / GAS_CONSTANT * (1.0 / max(mean, WARMED_K) - 1.0 / c.t_ref)
        )
        for which in range(TRIPS):
            use = use_on(keys, int(block[USE + k]), day)
            begin, end, cycle = trip(keys, int(block[VEHICLE + k]), use, day, which, dt, cycle_ticks)
            if cycle >= 0:
                metres = cycle_m[cycle] * (end - begin) / (cycle_ticks[cycle] * dt)
                exposures[1] += metres
                exposures[2] += metres * cold


@kernel
def _set_slow(block: FloatArray, k: int, slow: FloatArray, c: CellModel) -> None:
    """Write slow quantities, shape (SLOW,), to a vehicle. State of charge is kept, lithium balanced, limits updated."""
    a_n, a_p = block[ACTIVE_N + k], block[ACTIVE_P + k]
    span = block[X_FULL + k] - block[X_EMPTY + k]
    soc = (block[X_N + k] - block[X_EMPTY + k]) / span
    inventory = c.q_n * a_n * block[X_N + k] + c.q_p * a_p * block[X_P + k]
    film = _film(slow[_FILM], c)
    inventory -= film - block[Q_SEI + k] + slow[_DEAD] - block[DEAD + k] + slow[_LAM] - block[Q_LAM + k]
    block[PACK_SEI + k] += film - block[Q_SEI + k]  # the weakest group's share jumps by its own rate
    block[Q_SEI + k] = film
    block[DEAD + k] = slow[_DEAD]
    block[Q_LAM + k] = slow[_LAM]
    a_n = clip(slow[_ACTIVE_N], 0.1, 1.0)
    a_p = clip(slow[_ACTIVE_P], 0.1, 1.0)
    block[ACTIVE_N + k], block[ACTIVE_P + k] = a_n, a_p
    wet(block, k, c)
    block[THROUGHPUT + k] = slow[_THROUGHPUT]
    block[ODOMETER + k] = slow[_ODOMETER]
    block[WEAK_CAPACITY + k] = max(slow[_WEAK], -0.5)
    q_n, q_p = c.q_n * a_n, c.q_p * a_p
    block[X_P + k] = (inventory - q_n * block[X_N + k]) / q_p
    for _ in range(12):  # Newton steps, each of at most 0.01: enough for any jump
        capacity_of(block, k, c)
    x_n = clip(block[X_EMPTY + k] + soc * (block[X_FULL + k] - block[X_EMPTY + k]), 2e-3, 1.0 - 2e-3)
    x_p = clip((inventory - q_n * x_n) / q_p, 2e-3, 1.0 - 2e-3)
    block[X_P + k] = x_p
    x_n = (inventory - q_p * x_p) / q_n  # takes what a positive electrode that has run out has no room for
    block[X_N + k] = clip(x_n, 2e-3, 1.0 - 2e-3)


@kernel
def _capacity_of(block: FloatArray, k: int, before: FloatArray, after: FloatArray, c: CellModel) -> float:
    """Approximate SoH between two sets of slow quantities: lithium, plus the electrode that loses more material, plus
    what dries out."""
    usable = c.q_n * (c.x_full - c.x_empty)
    film_after, film_before, reserve = _film(after[_FILM], c), _film(before[_FILM], c), block[RESERVE + k]
    wet_after = wetted_share(film_after, after[_ACTIVE_N], after[_ACTIVE_P], reserve, c)
    dries = abs(wet_after - wetted_share(film_before, before[_ACTIVE_N], before[_ACTIVE_P], reserve, c))
    lithium = abs(film_after - film_before) + abs(after[_DEAD] - before[_DEAD]) + abs(after[_LAM] - before[_LAM])
    material = max(abs(after[_ACTIVE_N] - before[_ACTIVE_N]), abs(after[_ACTIVE_P] - before[_ACTIVE_P]))
    return lithium / usable + material + dries


@kernel
def _after_day(
    block: FloatArray,
    life: FloatArray,
    k: int,
    tolerance: float,
    keys: Keys,
    dt: float,
    c: CellModel,
    cycle_ticks: IntArray,
    cycle_m: FloatArray,
) -> bool:
    """Check the jump before the day just simulated. True: it stands.

    Otherwise the vehicle is put at the end of a jump of half its length.
    """
    day = int(life[NEXT_DAY + k])
    sums, exposed, rates = np.empty(SLOW), np.zeros(EXPOSURES), np.empty(SLOW)
    keeps = np.empty(EXPOSURES)
    _expose(exposed, block, k, day, block[Q_SEI + k], keys, dt, c, cycle_ticks, cycle_m)
    for e in range(EXPOSURES):
        # A day without trips may still charge what days before it used. It tells nothing new by distance, so nothing
        # fades: else the sums would be such charges over hardly any distance after some of these days.
        keeps[e] = MEMORY if exposed[e] > 0.0 else 1.0
        exposed[e] += keeps[e] * life[EXPOSED + e * LANES + k]
    for s in range(SLOW):
        kept = keeps[_COUNTED_BY[s]] * life[SUM + s * LANES + k]
        sums[s] = kept + _slow(block, k, s, c) - life[STARTED + s * LANES + k]
        by = exposed[_COUNTED_BY[s]]
        rates[s] = sums[s] / by if by > 0.0 else 0.0
    jumped = int(life[JUMPED + k])
    if jumped > 0:
        one, other, now, mended = np.empty(SLOW), np.empty(SLOW), np.empty(SLOW), np.empty(SLOW)
        for s in range(SLOW):
            skipped = life[SKIPPED + _COUNTED_BY[s] * LANES + k]
            before, rate = life[BEFORE + s * LANES + k], life[RATE + s * LANES + k]
            one[s] = before + rate * skipped
            other[s] = before + rates[s] * skipped
            now[s] = _slow(block, k, s, c)
            mended[s] = now[s] + 0.5 * (rates[s] - rate) * skipped
        error = 0.5 * _capacity_of(block, k, one, other, c)
        allowed = math.sqrt(tolerance / max(error, 1e-9))
        if error > tolerance and jumped > 1:
            half = jumped // 2
            block[STOPS + k] = life[STOPS_BEFORE + k]
            _jump(block, life, k, day - jumped, half, keys, dt, c, cycle_ticks, cycle_m)
            life[NEXT_JUMP + k] = half
            return False
        _set_slow(block, k, mended, c)
        life[NEXT_JUMP + k] = max(1.0, math.floor(jumped * min(2.0, max(0.5, 0.8 * allowed))))
    for s in range(SLOW):
        life[SUM + s * LANES + k] = sums[s]
        life[RATE + s * LANES + k] = rates[s]
    for e in range(EXPOSURES):
        life[EXPOSED + e * LANES + k] = exposed[e]
    return True


@kernel
def _jump(
    block: FloatArray,
    life: FloatArray,
    k: int,
    first: int,
    days: int,
    keys: Keys,
    dt: float,
    c: CellModel,
    cycle_ticks: IntArray,
    cycle_m: FloatArray,
) -> None:
    """Carry a vehicle from BEFORE, at the beginning of day `first`, over `days` days by its rates."""
    skipped = np.zeros(EXPOSURES)
    film = _film(life[BEFORE + _FILM * LANES + k], c)
    for day in range(first, first + days):
        _expose(skipped, block, k, day, film, keys, dt, c, cycle_ticks, cycle_m)
    # The film grows during the jump, so the exposure over its thickness uses the mean thickness.
    after = _film(life[BEFORE + _FILM * LANES + k] + life[RATE + _FILM * LANES + k] * skipped[0], c)
    skipped[3] *= 2.0 * film / (film + after)
    slow = np.empty(SLOW)
    for s in range(SLOW):
        slow[s] = life[BEFORE + s * LANES + k] + life[RATE + s * LANES + k] * skipped[_COUNTED_BY[s]]
    _set_slow(block, k, slow, c)
    for e in range(EXPOSURES):
        life[SKIPPED + e * LANES + k] = skipped[e]
    life[JUMPED + k] = days
    life[NEXT_DAY + k] = first + days


@kernel
def _set_off(
    block: FloatArray,
    life: FloatArray,
    k: int,
    longest: int,
    keys: Keys,
    dt: float,
    c: CellModel,
    cycle_ticks: IntArray,
    cycle_m: FloatArray,
) -> None:
    """Choose the next jump of a vehicle whose last jump stands, and make it."""
    now, then = np.empty(SLOW), np.empty(SLOW)
    for s in range(SLOW):
        now[s] = _slow(block, k, s, c)
        typical = life[EXPOSED + _COUNTED_BY[s] * LANES + k] * (1.0 - MEMORY)
        then[s] = now[s] + life[RATE + s * LANES + k] * typical
        life[BEFORE + s * LANES + k] = now[s]
    life[STOPS_BEFORE + k] = block[STOPS + k]
    fade_a_day = max(_capacity_of(block, k, now, then, c), 1e-9)
    now_s = DAY_S * (life[NEXT_DAY + k] + 1.0) - block[UTC_OFFSET + k]
    calm = (calm_until(block, now_s, k) - now_s) / DAY_S  # the hours of a short that may run away are lived
    days = int(min(life[NEXT_JUMP + k], float(longest), LARGEST_FADE / fade_a_day, calm))
    _jump(block, life, k, int(life[NEXT_DAY + k]) + 1, max(days, 0), keys, dt, c, cycle_ticks, cycle_m)


@kernel
def _emit(
    life: FloatArray,
    k: int,
    day_0: int,
    day_1: int,
    every: int,
    until: float,
    steps: FloatArray,
    samples: FloatArray,
    column: int,
) -> None:
    """Write vehicle `k` to `samples` at multiples of `every` days in (day_0, day_1] between its last two samples, and
    that there is nothing after day `until`."""
    begin, end = life[SAMPLED_DAY + k], life[LIVED_DAY + k]
    for day in range((day_0 // every + 1) * every, day_1 + 1, every):
        row = day // every - day_0 // every - 1
        if day > until:
            for s in range(samples.shape[0]):
                samples[s, row, column] = _MISSING[s]
        elif begin < day <= end:
            share = (day - begin) / (end - begin)
            for s in range(samples.shape[0]):
                value = life[SAMPLE_1 + s * LANES + k]
                if _GROWS[s]:
                    value = _between(life[SAMPLE_0 + s * LANES + k], value, share, s, steps)
                samples[s, row, column] = value


@inner
def _between(before: float, after: float, share: float, column: int, steps: FloatArray) -> float:
    """A growing value between two days. A report has its resolution, the truth has none."""
    value = before + share * (after - before)
    return np.rint(value * steps[column]) / steps[column] if column < steps.size else value


@kernel
def _emit_days(
    life: FloatArray, k: int, daily: FloatArray, lane: int, day_0: int, day_1: int, until: float, steps: FloatArray,
    days: Days, column: int,
) -> None:  # fmt: skip
    """Write the days in (day_0, day_1] between the last two samples of vehicle `k` to `days`, up to day `until`. A day
    not lived is like the nearer of the two that were; what is told at its end is interpolated."""
    begin, end = int(life[SAMPLED_DAY + k]), int(life[LIVED_DAY + k])
    figures = np.empty(FIGURE_COUNT)
    for day in range(max(day_0, begin) + 1, int(min(day_1, end, until)) + 1):
        nearer = _BEFORE if day - begin < end - day else _LAST
        for f in range(figures.size):
            figures[f] = daily[nearer + f * LANES + lane]
            if _AT_END[f] >= 0:
                before, after = daily[_BEFORE + f * LANES + lane], daily[_LAST + f * LANES + lane]
                share = (day - begin) / (end - begin)
                figures[f] = _between(before, after, share, _AT_END[f], steps) if day < end else after
        put_day(days, day - day_0 - 1, column, int(life[FIRST_DAY + k]) + day - 1, 1 if day == end else 0, figures)


@inner
def _end(life: FloatArray, k: int, ends: FloatArray, lane: int, limit: float) -> None:
    """Let a life end if the last day lived has shown its end: on the day when its SoH fell to `limit` between the last
    two samples, or on that day if the vehicle had failed or been stopped by its end."""
    one, other = SAMPLE_0 + k, SAMPLE_1 + k
    soh = life[other + _SOH]
    share = (life[one + _SOH] - limit) / (life[one + _SOH] - soh) if soh < limit else 1.0
    day = life[SAMPLED_DAY + k] + share * (life[LIVED_DAY + k] - life[SAMPLED_DAY + k])
    throughput = life[one + _AH] + share * (life[other + _AH] - life[one + _AH])
    odometer = life[one + _M] + share * (life[other + _M] - life[one + _M])
    put_end(ends, lane, soh, life[other + _FAILED], life[other + _STOPS], limit, day, throughput, odometer)


@inner
def _until(ends: FloatArray, j: int, lane: int) -> float:
    """The day on which a life ended; infinity while it lasts."""
    if ends.shape[0] == 0 or ends[j, REASON + lane] == 0.0:
        return math.inf
    day: float = ends[j, END_DAY + lane]
    return day


@kernel
def _begin_day(
    block: FloatArray, life: FloatArray, k: int, keys: Keys, dt: float, c: CellModel, cycle_ticks: IntArray
) -> None:
    life[CLOCK + k] = 0.0
    life[PHASE + k] = 0.0
    block[BLED + k] = 0.0
    block[COUNTED_AT + k] = DAY_S * life[NEXT_DAY + k] - block[UTC_OFFSET + k]
    life[UNTIL + k] = _standing_until(block, k, int(life[NEXT_DAY + k]), 0, 0.0, keys, dt, cycle_ticks)
    for s in range(SLOW):
        life[STARTED + s * LANES + k] = _slow(block, k, s, c)


@kernel
def _window(
    block: FloatArray, work: FloatArray, life: FloatArray, keys: Keys, dt: float, c: CellModel, bms: Bms
) -> None:
    """Choose each vehicle's step, and update what is held over a window."""
    charge_by_night(block, work, c)
    for k in range(LANES):
        mode, left = block[MODE + k], (life[UNTIL + k] - life[CLOCK + k]) / WINDOW
        if block[PLUGGED + k] == 1.0:
            left = min(left, until_night(block, work, k) / WINDOW)
        longest = CHARGE_STEP_S if mode == CHARGING else (FAST_STEP_S if mode == FAST_CHARGING else PARK_STEP_S)
        step = dt if mode == DRIVING else max(min(longest, left), 1e-3)
        work[DT + k] = step
        work[ELAPSED + k] = WINDOW * step
        if life[CLOCK + k] % CLIMATE_S < WINDOW * step:
            climate_of(block, work, keys, k)
        see_faults(block, work[NOW + k], k, c)
        if life[JUMPED + k] == 0.0:  # a day after a jump may be taken back, and must leave nothing behind
            act_faults(block, work, k, c)
    refresh_capacity(block, c)
    age_pack(block, work, c)
    update_bms(block, work, bms, c)
    refresh_cells(block, work, c)
    pack_extremes(block, c)
    refresh_charging(block, c)


@inner
def _move(source: FloatArray, from_lane: int, target: FloatArray, to_lane: int, rows: int) -> None:
    """Copy one vehicle from a lane of one block to a lane of another."""
    for row in range(rows):
        target[row * LANES + to_lane] = source[row * LANES + from_lane]


@kernel
def live(
    blocks: FloatArray,
    lives: FloatArray,
    day_0: int,
    day_1: int,
    every: int,
    dt: float,
    keys: Keys,
    longest: int,
    tolerance: float,
    c: CellModel,
    bms: Bms,
    traces: FloatArray,
    cycle_start: IntArray,
    cycle_ticks: IntArray,
    cycle_m: FloatArray,
    samples: FloatArray,
    ends: FloatArray,
    end_soh: float,
    daily: FloatArray,
    days: Days,
) -> int:
    """Simulate until day `day_1` (days since the start). Returns how many vehicle-days were simulated in full.

    `samples`, shape (columns, n, vehicles), gets one sample every `every` days after `day_0`. Vehicles are taken from
    the last to the first, so those that take longest should be at the end. `ends`, shape (blocks, ENDS_SIZE), takes the
    ends by `end_soh`: such a vehicle is not simulated further. `daily`, shape (blocks, _DAILY_SIZE), keeps the figures
    of two days, and `days` takes those of all days. Either has no block if it is not asked for.
    """
    block, life, work = np.zeros(BLOCK_SIZE), np.zeros(LIFE_SIZE), np.zeros(WORK_SIZE)
    today, figures = np.zeros(TODAY_SIZE), np.empty(FIGURE_COUNT)
    ending, counting = ends.shape[0] > 0, daily.shape[0] > 0
    low_V, high_V = window_of(c)
    who = np.full(LANES, -1, dtype=np.int64)
    over = np.zeros(LANES, dtype=np.bool_)
    queue = samples.shape[2]
    lived, busy = 0, 0
    for k in range(LANES):  # a lane without a vehicle runs idle, and needs a valid state
        _move(blocks[0], 0, block, k, ROWS)
        _move(lives[0], 0, life, k, LIFE_SIZE // LANES)
    while True:
        for k in range(LANES):
            while who[k] < 0 and queue > 0:
                queue -= 1
                j, lane = queue // LANES, queue % LANES
                until = _until(ends, j, lane)
                _emit(lives[j], lane, day_0, day_1, every, until, bms.steps, samples, queue)
                if counting:
                    _emit_days(lives[j], lane, daily[j], lane, day_0, day_1, until, bms.steps, days, queue)
                if lives[j, LIVED_DAY + lane] < day_1 and until == math.inf:
                    _move(blocks[j], lane, block, k, ROWS)
                    _move(lives[j], lane, life, k, LIFE_SIZE // LANES)
                    who[k] = queue
                    busy += 1
        if busy == 0:
            return lived
        ended = 0
        for k in range(LANES):
            if who[k] >= 0 and life[UNTIL + k] - life[CLOCK + k] < 1e-6:
                _next_phase(block, life, k, keys, dt, cycle_start, cycle_ticks, c)
            over[k] = who[k] >= 0 and life[CLOCK + k] > DAY_S - 1e-6
            ended += over[k]
            work[NOW + k] = DAY_S * life[NEXT_DAY + k] + life[CLOCK + k] - block[UTC_OFFSET + k]
            after_jump = over[k] and life[JUMPED + k] > 0.0
            work[ELAPSED + k] = DAY_S * (1.0 + life[JUMPED + k]) if after_jump else 0.0
        if ended > 0:
            lived += ended
            for k in range(LANES):
                if over[k]:
                    close_today(today, block, k)
                    capacity_of(block, k, c)
                    update_vehicle(block, work, k, bms, c)
                    over[k] = _after_day(block, life, k, tolerance, keys, dt, c, cycle_ticks, cycle_m)
                    if over[k]:  # only now, because a jump taken back must leave no fault behind
                        see_faults(block, work[NOW + k], k, c)
                        act_faults(block, work, k, c)
                        balance(block, k, life[JUMPED + k] * block[BLED + k])
                        learn_soh(block, k, DAY_S * life[JUMPED + k], bms, c)
                    else:
                        _begin_day(block, life, k, keys, dt, c, cycle_ticks)
            measure_pulses(block, work, c)
            report(block, work, bms, c)
            tell_truth(block, work, c)
            for k in range(LANES):
                if over[k]:
                    clear_flags(block, k)
                    life[SAMPLED_DAY + k] = life[LIVED_DAY + k]
                    life[LIVED_DAY + k] = life[NEXT_DAY + k] + 1.0 - life[FIRST_DAY + k]
                    for s in range(samples.shape[0]):
                        life[SAMPLE_0 + s * LANES + k] = life[SAMPLE_1 + s * LANES + k]
                        life[SAMPLE_1 + s * LANES + k] = work[SAMPLE + s * LANES + k]
                    j, lane = who[k] // LANES, who[k] % LANES
                    if ending:
                        _end(life, k, ends[j], lane, end_soh)
                    until = _until(ends, j, lane)
                    _emit(life, k, day_0, day_1, every, until, bms.steps, samples, who[k])
                    if counting:
                        look(today, work, k, low_V, high_V)
                        sum_up(today, block, work, k, c, figures)
                        for f in range(figures.size):
                            daily[j, _BEFORE + f * LANES + lane] = daily[j, _LAST + f * LANES + lane]
                            daily[j, _LAST + f * LANES + lane] = figures[f]
                        _emit_days(life, k, daily[j], lane, day_0, day_1, until, bms.steps, days, who[k])
                    if until == math.inf:
                        _set_off(block, life, k, longest, keys, dt, c, cycle_ticks, cycle_m)
                        _begin_day(block, life, k, keys, dt, c, cycle_ticks)
                    if life[LIVED_DAY + k] >= day_1 or until < math.inf:
                        _move(block, k, blocks[j], lane, ROWS)
                        _move(life, k, lives[j], lane, LIFE_SIZE // LANES)
                        who[k] = -1
                        busy -= 1
            continue
        if counting:
            report(block, work, bms, c)
            for k in range(LANES):
                if life[CLOCK + k] > 0.0:
                    look(today, work, k, low_V, high_V)
                else:
                    begin_today(today, block, k, work[NOW + k])
        _window(block, work, life, keys, dt, c, bms)
        for _ in range(WINDOW):
            read_traces(block, work, traces)
            ask_cells(block, work, c)
            step_cells(block, work, c)
            if counting:
                count_step(today, block, work)
        for k in range(LANES):
            life[CLOCK + k] += work[ELAPSED + k] if who[k] >= 0 else 0.0


@kernel
def _begin(
    blocks: FloatArray,
    lives: FloatArray,
    start_s: float,
    keys: Keys,
    dt: float,
    c: CellModel,
    bms: Bms,
    cycle_ticks: IntArray,
    ends: FloatArray,
    end_soh: float,
) -> None:
    """Set the local day of the start and the first sample, and end the lives that are below `end_soh` already."""
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = 1.0
    for j in range(blocks.shape[0]):
        block, life = blocks[j], lives[j]
        for k in range(LANES):
            work[NOW + k] = start_s
            life[FIRST_DAY + k] = math.floor((start_s + block[UTC_OFFSET + k]) / DAY_S)
            life[NEXT_DAY + k] = life[FIRST_DAY + k]
            life[NEXT_JUMP + k] = 1.0
            block[MODE + k] = PARKED
            see_faults(block, start_s, k, c)
            _begin_day(block, life, k, keys, dt, c, cycle_ticks)
        refresh_climate(block, work, keys)
        refresh_cells(block, work, c)
        pack_extremes(block, c)
        report(block, work, bms, c)
        tell_truth(block, work, c)
        if ends.shape[0] > 0:
            see_ends(ends[j], block, 0.0, end_soh, c)
        for s in range(len(_GROWS)):
            for k in range(LANES):
                life[SAMPLE_1 + s * LANES + k] = work[SAMPLE + s * LANES + k]


@kernel
def _fork(
    blocks: FloatArray, lives: FloatArray, ends: FloatArray, forget: bool, keys: Keys, dt: float, c: CellModel,
    cycle_ticks: IntArray, cycle_m: FloatArray,
) -> None:  # fmt: skip
    """Make the jump that each vehicle has made after its last day again, over other days. With `forget` take it back,
    and begin anew with the rates. A life that has ended stays as it is."""
    for j in range(blocks.shape[0]):
        block, life = blocks[j], lives[j]
        for k in range(LANES):
            if _until(ends, j, k) < math.inf:
                continue
            jumped = int(life[JUMPED + k])
            if jumped > 0:
                days = 0 if forget else jumped
                _jump(block, life, k, int(life[NEXT_DAY + k]) - jumped, days, keys, dt, c, cycle_ticks, cycle_m)
            if forget:
                life[NEXT_JUMP + k] = 1.0
                for s in range(SLOW):
                    life[SUM + s * LANES + k] = 0.0
                for e in range(EXPOSURES):
                    life[EXPOSED + e * LANES + k] = 0.0
            _begin_day(block, life, k, keys, dt, c, cycle_ticks)


@kernel
def _hours(keys: Keys, vehicle: IntArray, use: IntArray, day: int, dt: float, cycle_ticks: IntArray) -> FloatArray:
    """Time on the road in the four weeks from `day` [s], shape (n,)."""
    out = np.zeros(vehicle.size)
    for k in range(vehicle.size):
        for d in range(day, day + 28):
            for which in range(TRIPS):
                begin, end, cycle = trip(keys, vehicle[k], use[k], d, which, dt, cycle_ticks)
                out[k] += end - begin if cycle >= 0 else 0.0
    return out


class FleetLives(FleetPhysics):
    """The vehicles of `FleetPhysics`, at years per second. `advance` takes whole days, samples are at whole days.

    step_s         length of a tick [s]
    drive_step_s   step while driving [s]; 2 s instead of 1 s costs 0.1 % of the fade
    longest_jump   days; 0 simulates every day in full
    tolerance      error of SoH that one jump may make, estimated from the rates before and after it
    end_soh        true SoH at which a life ends. A vehicle below it at the end of a day it has lived, or failed or
                   stopped by then, is not simulated further and costs nothing from then on. In samples after its end,
                   floats are NaN and whole numbers -1. `truth` shows it as it was at the end of that day.
    daily          statistics of each local day, also of skipped ones

    A life whose SoH is below the limit ended where SoH, interpolated between its last two days lived, fell to it. A
    failed or stopped one ended on the day at whose end that was seen.
    """

    def __init__(
        self,
        population: Population,
        *,
        cycles: Sequence[npt.NDArray[np.float64]],
        start_s: int,
        step_s: float = 1.0,
        drive_step_s: float = DRIVE_STEP_S,
        longest_jump: int = LONGEST_JUMP,
        tolerance: float = TOLERANCE,
        sensors: Sensors = PROFILES[DEFAULT_SENSORS],
        end_soh: float | None = None,
        daily: bool = False,
    ) -> None:
        self.population = population
        super().__init__(
            population,
            cycles=cycles,
            start_s=start_s,
            step_s=drive_step_s,
            sensors=sensors,
            end_soh=end_soh,
            daily=daily,
        )
        if not (math.isfinite(step_s) and step_s > 0.0):
            raise ValueError(f"step_s must be positive, got {step_s}")
        self.step_s = float(step_s)
        self._drive_step_s = float(drive_step_s)
        day_ticks = DAY_S / step_s
        if abs(day_ticks - round(day_ticks)) > 1e-9:
            raise ValueError(f"step_s must divide a day of {DAY_S:g} s, got {step_s}")
        if longest_jump < 0 or not (math.isfinite(tolerance) and tolerance > 0.0):
            raise ValueError(f"expected longest_jump >= 0 and tolerance > 0, got {longest_jump} and {tolerance}")
        self.day_ticks = round(day_ticks)
        self.days_lived = 0
        self._cycles = cycles
        self._longest_jump, self._tolerance = longest_jump, tolerance
        self._cycle_m = np.array([float(np.sum(0.5 * (v[1:] + v[:-1]))) for v in cycles])
        self._true: list[FloatArray] = []
        self._true_s: FloatArray = np.zeros(0)
        for group in self._groups:
            life = np.zeros((len(group.blocks), LIFE_SIZE))
            _begin(
                group.blocks, life, float(start_s), population.keys, drive_step_s, group.model, self._bms,
                self._cycle_ticks, self._beside(group, "ends"), self._limit,
            )  # fmt: skip
            group.beside["lives"] = life

    def _no_days(self, group: CellGroup) -> FloatArray:
        return np.zeros((len(group.blocks), _DAILY_SIZE))

    def awake(self, step_s: float) -> FleetPhysics:
        """The same vehicles as they are now, at rest, for a closer look at their days in steps of `step_s`.

        A vehicle may be some days ahead of the tick, because it has jumped. One whose life has ended is there, too, as
        it was at its end."""
        start_s = self.start_s + round(self.tick * self.step_s)
        fleet = FleetPhysics(self.population, cycles=self._cycles, start_s=start_s, step_s=step_s, sensors=self.sensors)
        fleet.take_over(self._groups)
        return fleet

    def present_days(self) -> FloatArray:
        """How many days after the start each vehicle is, as `awake` shows it, shape (n_vehicles,): at the tick, or some
        days ahead of it, because it has jumped."""
        days = np.empty(len(self))
        for group in self._groups:
            days[group.of] = group.row(NEXT_DAY, "lives") - group.row(FIRST_DAY, "lives")
        return days

    def fork(
        self,
        *,
        of: Sequence[int] | IntArray | None = None,
        day_seed: int | None = None,
        owner_seed: int | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """As `FleetPhysics.fork`, but each vehicle's other days, owner and policy begin right after the last day it has
        lived, which may be some days ahead of the tick. With an owner or a policy its rates of aging are learned anew.
        A life that has ended by that day stays ended."""
        return super().fork(of=of, day_seed=day_seed, owner_seed=owner_seed, policy=policy)

    def _keep(self, chosen: IntArray) -> None:
        super()._keep(chosen)
        self.population = self.population.at(chosen)
        self.days_lived = 0

    def _follow(self, policy: Policy, owner: int) -> None:
        super()._follow(policy, owner)
        self._begin_fork(forget=True)

    def _turn(self, keys: Keys, use: str | None) -> None:
        # Each life has a day of its own that comes next, and only from there on are its plans read.
        self.keys = keys
        self.population = replace(self.population, keys=keys)
        for group in self._groups:
            group.use_from_turn(use, again=False)
        self._begin_fork(forget=False)

    def _begin_fork(self, *, forget: bool) -> None:
        for group in self._groups:
            _fork(
                group.blocks, group.beside["lives"], self._beside(group, "ends"), forget, self.keys,
                self._drive_step_s, group.model, self._cycle_ticks, self._cycle_m,
            )  # fmt: skip

    def _in_order(self, of: IntArray) -> IntArray:
        # Vehicles that drive most come last, because the queue is emptied from its end.
        p = self.population
        today = int(self.start_s // DAY_S)
        return of[np.argsort(_hours(p.keys, p.vehicle[of], p.use[of], today, self.step_s, self._cycle_ticks))]

    def advance(self, ticks: int, sample_every: int, *, compact: bool = False) -> dict[str, Any]:
        """As `FleetPhysics.advance`. Both arguments count steps and must be whole days."""
        if ticks % self.day_ticks or sample_every % self.day_ticks:
            raise ValueError(
                f"expected whole days ({self.day_ticks} steps each), got {ticks} steps, sampled every {sample_every}"
            )
        self._true = []
        first = self.tick
        told = super().advance(ticks, sample_every, compact=compact)
        samples = np.arange(first // sample_every + 1, self.tick // sample_every + 1, dtype=np.float64)
        self._true_s = self.start_s + self.step_s * sample_every * samples
        return told

    def _advance(self, group: CellGroup, ticks: int, sample_every: int, samples: Samples) -> None:
        day = self.tick // self.day_ticks
        count = (self.tick + ticks) // sample_every - self.tick // sample_every
        part = np.empty((KEPT, count, group.of.size))
        self.days_lived += live(
            group.blocks,
            group.beside["lives"],
            day,
            day + ticks // self.day_ticks,
            max(1, sample_every // self.day_ticks),
            self._drive_step_s,
            self.keys,
            self._longest_jump,
            self._tolerance,
            group.model,
            self._bms,
            self._traces,
            self._cycle_start,
            self._cycle_ticks,
            self._cycle_m,
            part,
            self._beside(group, "ends"),
            self._limit,
            self._beside(group, "daily"),
            self._room_for_days(group, ticks // self.day_ticks),
        )
        for out, rows in zip(samples, ROWS_OF.values(), strict=True):
            out[:, :count, group.of] = part[(rows - SAMPLE) // LANES]
        self._true.append(part[len(COLUMNS) :])

    def truth_series(self) -> dict[str, Any]:
        """`truth` at the samples of the last `advance`, by the same interpolation: arrays of shape (samples, vehicles).
        `truth` itself may be some days ahead, because vehicles jump. After a life's end floats are NaN."""
        states = zip(range(len(self._groups)), self._groups, self._true, strict=True)
        return self._truth_of(states, self._true_s)


@dataclass(frozen=True)
class Duty:
    """How one vehicle is used. None: as drawn for it."""

    use: str | None = None
    """One of `default_fleet.USES`."""
    city: str | None = None
    """A home of `climate.CITIES`, by name."""
    soc_limit: float | None = None
    """State of charge to which it is charged at home."""
    plug_habit: float | None = None
    """Probability of plugging in on an evening above half charge."""

    def of(self, population: Population) -> Population:
        """The population with this duty."""
        changes: dict[str, Any] = {}
        n = len(population)
        if self.city is not None:
            if self.city not in CITY_NAMES:
                raise ValueError(f"expected a city of {', '.join(CITY_NAMES)}, got {self.city!r}")
            changes["city"] = np.full(n, CITY_NAMES.index(self.city))
        for name, low in (("soc_limit", 0.3), ("plug_habit", 0.0)):
            value = getattr(self, name)
            if value is not None:
                if not low <= value <= 1.0:
                    raise ValueError(f"expected {name} from {low:g} to 1, got {value}")
                changes[name] = np.full(n, float(value))
        return replace(population, **changes)


@dataclass(frozen=True)
class Life:
    """What `simulate_life` returns: times and telemetry of shape (samples, vehicles), truth at the end."""

    time_days: FloatArray
    """Shape (samples,): since the start."""
    telemetry: dict[str, Any]
    """By the names of `COLUMNS`, each of shape (samples, vehicles)."""
    truth: dict[str, Any]
    """`FleetPhysics.truth` at the end."""
    days_lived: int
    """Vehicle-days simulated in full; the rest was extrapolated."""

    @property
    def soh(self) -> FloatArray:
        """State of health, shape (samples, vehicles)."""
        return np.asarray(self.telemetry["soh"])


def simulate_life(
    cells: str | Mapping[str, float] = "chen2020",
    years: float = 10.0,
    duty: Duty | None = None,
    *,
    cycles: Sequence[npt.NDArray[np.float64]],
    vehicles: int = 1,
    seed: int = 1,
    sample_days: int = 30,
    start_s: int = 1_767_225_600,
    fault_share: float = 0.0,
    drive_step_s: float = DRIVE_STEP_S,
    longest_jump: int = LONGEST_JUMP,
    tolerance: float = TOLERANCE,
) -> Life:
    """Simulate complete lifetimes of new vehicles, from `start_s` on (default 2026-01-01). Sensors are ideal.

    cells      name of a cell, or names with shares
    years      of 365 days
    duty       what is the same for all vehicles; the rest is drawn
    cycles     speed traces [m/s] at 1 Hz (`datasets.drive_cycles`), in the order UDDS, HWFET, US06, WLTC
    """
    if not (math.isfinite(years) and 0.0 < years <= 50.0):
        raise ValueError(f"expected years above 0 and up to 50, got {years}")
    if vehicles < 1 or sample_days < 1:
        raise ValueError(f"expected vehicles >= 1 and sample_days >= 1, got {vehicles} and {sample_days}")
    duty = duty or Duty()
    population = draw_population(
        seed, np.arange(vehicles), cells, use=duty.use, oldest_years=0.0, fault_share=fault_share, start_s=start_s
    )
    fleet = FleetLives(
        duty.of(population),
        cycles=cycles,
        start_s=start_s,
        drive_step_s=drive_step_s,
        longest_jump=longest_jump,
        tolerance=tolerance,
        sensors=PROFILES["ideal"],
    )
    samples = max(1, round(years * 365.0 / sample_days))
    telemetry = fleet.advance(samples * sample_days * fleet.day_ticks, sample_days * fleet.day_ticks)
    return Life(
        time_days=sample_days * np.arange(1.0, samples + 1.0),
        telemetry=telemetry,
        truth=fleet.truth(),
        days_lived=fleet.days_lived,
    )
