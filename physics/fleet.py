"""A fleet that drives, parks and charges: the whole simulation of one shard.

Results depend only on (population, cycles, start, step), forks and the tick. They depend neither on how vehicles are
divided into shards nor on how many ticks a call advances. Vehicles with the same kind of cell share blocks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from physics.accumulate import (
    BEGAN,
    FIGURE_COUNT,
    NO_ROW,
    TODAY_SIZE,
    Days,
    begin_days,
    begin_today,
    close_today,
    count_step,
    local_day,
    look,
    next_midnight,
    put_day,
    room_for_days,
    sum_up,
    window_of,
)
from physics.bms import (
    PULSES_EVERY,
    Bms,
    begin_bms,
    bms_of,
    clear_flags,
    draw_errors,
    measure_pulses,
    pulse_resistance,
    report,
    sample_row,
    update_bms,
)
from physics.car_models import CAR_MODELS
from physics.cells import load_cell
from physics.climate import CITIES, CITY_NAMES, ambient_K
from physics.columns import COLUMNS, NAMES, TYPES
from physics.compiled import inner, kernel
from physics.constants import DAY_S, KELVIN
from physics.daily import DAILY, FIGURES
from physics.default_fleet import USES
from physics.dryout import wetted
from physics.duty import find_event, resample, uses_of
from physics.ends import END_AH, END_DAY, END_M, ENDS_SIZE, REASON, REASONS, see_ends
from physics.faults import BAD_ELECTROLYTE, FAULTS, NOT_STUCK, SLOTS, Fault, apply_faults
from physics.kernel import (
    capacity_of,
    lookup,
    refresh_capacity,
    refresh_cells,
    rest_cells,
    soc_of,
    soh_of,
    step_cells,
)
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AUXILIARY,
    BLOCK_SIZE,
    CAPACITY_REFRESH_S,
    CHARGE_FROM,
    CHARGER,
    CITY,
    COOLING_HEALTH,
    COOLING_SCALE,
    COUNTED,
    COUNTED_AT,
    DAY,
    DEAD,
    DT,
    ELAPSED,
    EVENT,
    FAILED,
    FAULT,
    FAULT_ONSET,
    FAULT_SEVERITY,
    FILM_SCALE,
    FLAG_RANGE,
    HABIT,
    HOT_SHARE,
    HYSTERESIS_N,
    HYSTERESIS_P,
    K_STUCK,
    LANES,
    LEAK,
    MASS,
    MODE,
    MODEL,
    NEXT_EVENT,
    NOISE_KEY,
    NOW,
    ODOMETER,
    PACE,
    PACK_SEI,
    PARALLEL,
    PARKED_W,
    PLATED,
    POWER_LEFT,
    Q_LAM,
    Q_SEI,
    REFRESH_S,
    RESERVE,
    RESISTANCE_SCALE,
    SEI_SCALE,
    SOC_LIMIT,
    SPEED_SCALE,
    STANDBY,
    STOPS,
    STRONG_CAPACITY,
    STRONG_RESISTANCE,
    TEMPERATURE,
    THROUGHPUT,
    TRACE_END,
    TRUE,
    TRUE_NAMES,
    USE,
    UTC_OFFSET,
    VEHICLE,
    WARM_TO,
    WEAK_CAPACITY,
    WEAK_RESISTANCE,
    WHOLE_AREA,
    WORK_SIZE,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.modal import CellModel, cell_model, in_pack, instant_resistance
from physics.pack import age_pack, pack_extremes, usable_share
from physics.parameters import FloatArray
from physics.policy import Policy
from physics.population import Population, aged_limits, draw_owners, is_flat, usual_branches
from physics.rng import Keys
from physics.sensors import DEFAULT_SENSORS, PROFILES, Sensors
from physics.vehicle import (
    CHARGING,
    HEAT_BELOW_C,
    ask_cells,
    charge_by_night,
    follow_plans,
    read_traces,
    refresh_charging,
    refresh_climate,
)

Column = npt.NDArray[Any]
Samples = tuple[Column, ...]
"""One array for each type in `ROWS_OF`, of shape (columns of that type, n_samples, n_vehicles)."""


def _rows_of(kind: type[np.generic]) -> npt.NDArray[np.int64]:
    """Offsets of the rows in `work` of all columns of a type."""
    return np.array([sample_row(name) for name in NAMES if TYPES[name] is kind], dtype=np.int64)


_FLOATS: Final = _rows_of(np.float32)
_DOUBLES: Final = _rows_of(np.float64)
_BYTES: Final = _rows_of(np.int8)
_INTEGERS: Final = _rows_of(np.int32)
ROWS_OF: Final = {np.float32: _FLOATS, np.float64: _DOUBLES, np.int8: _BYTES, np.int32: _INTEGERS}


@inner
def _put(work: FloatArray, offsets: npt.NDArray[np.int64], of: npt.NDArray[np.int64], row: int, out: Column) -> None:
    """Put SAMPLE rows, at these offsets in `work`, into `out` at the positions `of`, as the type that `out` has."""
    begin, end = of[0], of[-1] + 1
    for column in range(offsets.size):
        source = work[offsets[column] :]  # slices, so that the compiler sees indices from 0 on: four times as fast
        if end - begin == of.size:  # ascending, so side by side
            target = out[column, row, begin:end]
            for k in range(target.size):
                target[k] = source[k]
        else:
            target = out[column, row]
            for k in range(of.size):
                target[of[k]] = source[k]


@kernel
def advance_fleet(
    blocks: FloatArray,
    tick_0: int,
    ticks: int,
    sample_every: int,
    refresh_ticks: int,
    capacity_ticks: int,
    dt: float,
    start_s: float,
    keys: Keys,
    c: CellModel,
    bms: Bms,
    traces: FloatArray,
    cycle_start: npt.NDArray[np.int64],
    cycle_ticks: npt.NDArray[np.int64],
    of: npt.NDArray[np.int64],
    samples: Samples,
    ends: FloatArray,
    end_soh: float,
    todays: FloatArray,
    days: Days,
) -> None:
    """Advance all blocks, shape (blocks, BLOCK_SIZE), by `ticks` steps of dt [s], one block after the other.

    `samples` takes one sample at every absolute tick divisible by `sample_every`. `of`, shape (vehicles of these
    blocks,), ascending, is each vehicle's index on the last axis of `samples`.

    `ends`, shape (blocks, ENDS_SIZE), takes the ends by `end_soh`. `todays`, shape (blocks, TODAY_SIZE), counts the
    days under way, and `days` takes those that end, of these vehicles only. Either has no block if it is not asked for.
    """
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = dt
    work[ELAPSED : ELAPSED + LANES] = capacity_ticks * dt
    ending, counting = ends.shape[0] > 0, todays.shape[0] > 0
    low_V, high_V = window_of(c)
    figures = np.empty(FIGURE_COUNT)
    for j in range(blocks.shape[0]):
        block = blocks[j]
        here = of[j * LANES : (j + 1) * LANES]
        next_plan = -1.0
        row = 0
        midnight = next_midnight(todays[j], block, start_s, dt) if counting else 1e18
        slots = np.zeros(LANES, dtype=np.int64)
        for tick in range(tick_0, tick_0 + ticks):
            now_s = start_s + tick * dt
            if tick % capacity_ticks == 0:
                work[NOW : NOW + LANES] = now_s
                refresh_climate(block, work, keys)
                apply_faults(block, work, c)
                charge_by_night(block, work, c)
                refresh_capacity(block, c)
                if ending:
                    see_ends(ends[j], block, tick * dt / DAY_S, end_soh, c)
                age_pack(block, work, c)
                update_bms(block, work, bms, c)
                if tick % (PULSES_EVERY * capacity_ticks) == 0:
                    measure_pulses(block, work, c)
            if tick % refresh_ticks == 0:
                refresh_cells(block, work, c)
                pack_extremes(block, c)
                refresh_charging(block, c)
            if tick >= next_plan:
                next_plan = follow_plans(block, tick, keys, start_s, dt, cycle_start, cycle_ticks, c)
            read_traces(block, work, traces)
            ask_cells(block, work, c)
            step_cells(block, work, c)
            sampled = (tick + 1) % sample_every == 0
            minute = counting and (tick + 1) % capacity_ticks == 0
            if counting:
                count_step(todays[j], block, work)
            if sampled or minute or tick + 1 >= midnight:
                work[NOW : NOW + LANES] = now_s + dt
                report(block, work, bms, c)
            if minute:
                for k in range(LANES):
                    look(todays[j], work, k, low_V, high_V)
            if tick + 1 >= midnight:
                for k in range(LANES):
                    day = local_day(block, k, todays[j, BEGAN + k] + 0.5 * dt)
                    if local_day(block, k, now_s + 1.5 * dt) > day:
                        look(todays[j], work, k, low_V, high_V)
                        close_today(todays[j], block, k)
                        if k < here.size:
                            sum_up(todays[j], block, work, k, c, figures)
                            put_day(days, slots[k], j * LANES + k, day, 1, figures)
                        slots[k] += 1
                        begin_today(todays[j], block, k, now_s + dt)
                midnight = next_midnight(todays[j], block, start_s, dt)
            if sampled:
                _put(work, _FLOATS, here, row, samples[0])
                _put(work, _DOUBLES, here, row, samples[1])
                _put(work, _BYTES, here, row, samples[2])
                _put(work, _INTEGERS, here, row, samples[3])
                for k in range(LANES):
                    clear_flags(block, k)
                row += 1


# Blocks whose truth is told at once.
_TOLD_BLOCKS: Final = 512


@inner
def tell_truth(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Write the state of all lanes to the TRUE rows, in the order of TRUE_NAMES."""
    for k in range(LANES):
        q_n, q_p = c.q_n * block[ACTIVE_N + k], c.q_p * block[ACTIVE_P + k]
        x_n = 0.5 * (block[X_EMPTY + k] + block[X_FULL + k])
        x_p = block[X_P + k] + (block[X_N + k] - x_n) * q_n / q_p
        slope_n, slope_p = lookup(c.tables, 0, x_n)[1], lookup(c.tables, 1, x_p)[1]
        work[TRUE + k] = soc_of(block, k)
        work[TRUE + LANES + k] = soh_of(block, k, c)
        work[TRUE + 2 * LANES + k] = pulse_resistance(block, k, c.t_ref, x_n, x_p, slope_n, slope_p, c)
        work[TRUE + 3 * LANES + k] = block[Q_SEI + k]
        work[TRUE + 4 * LANES + k] = block[PLATED + k]
        work[TRUE + 5 * LANES + k] = block[DEAD + k]
        work[TRUE + 6 * LANES + k] = block[Q_LAM + k]
        work[TRUE + 7 * LANES + k] = block[ACTIVE_N + k]
        work[TRUE + 8 * LANES + k] = block[ACTIVE_P + k]
        work[TRUE + 9 * LANES + k] = block[FAILED + k]
        work[TRUE + 10 * LANES + k] = block[FLAG_RANGE + k]
        work[TRUE + 11 * LANES + k] = block[THROUGHPUT + k]
        work[TRUE + 12 * LANES + k] = block[ODOMETER + k]
        work[TRUE + 13 * LANES + k] = block[STOPS + k]
        work[TRUE + 14 * LANES + k] = soh_of(block, k, c) * usable_share(block, k)
        work[TRUE + 15 * LANES + k] = wetted(block, k)


@kernel
def true_state(blocks: FloatArray, c: CellModel, out: FloatArray) -> None:
    """The rows of `tell_truth` for all blocks; `out`, shape (len(TRUE_NAMES), lanes)."""
    work = np.zeros(WORK_SIZE)
    for j in range(blocks.shape[0]):
        tell_truth(blocks[j], work, c)
        for row in range(out.shape[0]):
            for k in range(LANES):
                out[row, j * LANES + k] = work[TRUE + row * LANES + k]


@kernel
def _set_up(
    blocks: FloatArray,
    dt: float,
    start_s: float,
    keys: Keys,
    c: CellModel,
    cycle_ticks: npt.NDArray[np.int64],
    new: bool,
) -> None:
    """Set the first entry of each plan and put the cells at rest at ambient temperature. If they are not `new`, their
    battery management system goes on from what it believes."""
    work = np.zeros(WORK_SIZE)
    for j in range(blocks.shape[0]):
        block = blocks[j]
        for k in range(LANES):
            offset = block[UTC_OFFSET + k]
            today = math.floor((start_s + offset) / DAY_S)
            tick, day, event = find_event(
                keys, int(block[VEHICLE + k]), int(block[USE + k]), today, 0, offset, start_s, dt, cycle_ticks
            )
            block[NEXT_EVENT + k] = tick
            block[DAY + k] = day
            block[EVENT + k] = event
            block[TEMPERATURE + k] = ambient_K(keys, int(block[CITY + k]), start_s + offset)
        rest_cells(block, c)
        block[COUNTED : COUNTED + LANES] = 0.0
        block[COUNTED_AT : COUNTED_AT + LANES] = start_s
        if new:
            begin_bms(block, work, c)


@kernel
def _lose_material(blocks: FloatArray, c: CellModel) -> None:
    """Take the lithium of lost material out of cells that were whole, at the same state of charge."""
    for j in range(blocks.shape[0]):
        block = blocks[j]
        for k in range(LANES):
            soc = soc_of(block, k)
            q_n, q_p = c.q_n * block[ACTIVE_N + k], c.q_p * block[ACTIVE_P + k]
            block[Q_LAM + k] = (c.q_n - q_n) * block[X_N + k] + (c.q_p - q_p) * block[X_P + k]
            inventory = q_n * block[X_N + k] + q_p * block[X_P + k]
            for _ in range(40):  # Newton steps of at most 0.01
                capacity_of(block, k, c)
            block[X_N + k] = block[X_EMPTY + k] + soc * (block[X_FULL + k] - block[X_EMPTY + k])
            block[X_P + k] = (inventory - q_n * block[X_N + k]) / q_p


@kernel
def _plan_anew(blocks: FloatArray, dt: float, start_s: float, keys: Keys, cycle_ticks: npt.NDArray[np.int64]) -> None:
    """Find the next entry of the plans that have come to the day `keys.turn`, from where days are others."""
    for j in range(blocks.shape[0]):
        block = blocks[j]
        for k in range(LANES):
            if block[DAY + k] >= keys.turn:
                tick, day, event = find_event(
                    keys,
                    int(block[VEHICLE + k]),
                    int(block[USE + k]),
                    keys.turn,
                    0,
                    block[UTC_OFFSET + k],
                    start_s,
                    dt,
                    cycle_ticks,
                )
                block[NEXT_EVENT + k] = tick
                block[DAY + k] = day
                block[EVENT + k] = event


@dataclass(eq=False)
class CellGroup:
    """The vehicles of a population with the same kind of cell. `of` holds their positions, shape (n,).

    `beside` holds what else there is of them, by name, each of shape (blocks, rows LANES): `ends`, `daily`, ..
    """

    of: npt.NDArray[np.int64]
    cell: str
    model: CellModel
    blocks: FloatArray
    """Shape (blocks, BLOCK_SIZE)."""
    beside: dict[str, FloatArray] = field(default_factory=dict)

    def row(self, offset: int, of: str | None = None) -> FloatArray:
        """One row for these vehicles, shape (n,): of the layout, or of what is `beside`."""
        rows = self.blocks if of is None else self.beside[of]
        return rows.reshape(len(rows), -1, LANES)[:, offset // LANES].reshape(-1)[: self.of.size]

    def taken(self, lanes: npt.NDArray[np.int64], of: npt.NDArray[np.int64]) -> CellGroup:
        """A copy of the vehicles in these lanes, ascending, at new positions."""
        beside = {name: taken(rows, lanes) for name, rows in self.beside.items()}
        return replace(self, of=of, blocks=taken(self.blocks, lanes), beside=beside)

    def put(self, offset: int, values: FloatArray | npt.NDArray[np.int64] | float) -> None:
        """Set one row, to one value or shape (n,); spare lanes repeat the last vehicle."""
        full = np.broadcast_to(np.asarray(values, dtype=np.float64), (self.of.size,))
        rows = self.blocks.reshape(len(self.blocks), -1, LANES)
        rows[:, offset // LANES] = full[_lanes(self.of.size)].reshape(-1, LANES)

    def sell(self, owner: int) -> None:
        """Let these vehicles have the owners that this key draws, from now on; of what they do each day, the plans."""
        vehicle, model = self.row(VEHICLE).astype(np.int64), self.row(MODEL).astype(np.int64)
        owners = draw_owners(owner, vehicle, np.full(vehicle.size, int(is_flat(self.cell))))
        curb = np.array([kind.curb_mass_kg for kind in CAR_MODELS.values()])[model]
        self.put(MASS, curb + owners.payload_kg)
        for offset, values in (
            (SPEED_SCALE, owners.speed_scale),
            (CHARGER, owners.charger_W),
            (HABIT, owners.plug_habit),
            (CHARGE_FROM, owners.charge_from_s),
            (SOC_LIMIT, owners.soc_limit),
        ):
            self.put(offset, values)

    def use_from_turn(self, use: str | None, *, again: bool) -> None:
        """Another use (None: the same) from the day on at which the keys turn. `again`: that day was set before."""
        uses = self.row(USE).astype(np.int64)
        after = uses // len(USES)
        before = uses % len(USES) if again else after
        self.put(USE, uses_of(after if use is None else np.full(uses.size, USES.index(use)), before))

    def follow(self, policy: Policy) -> None:
        """Let these vehicles be used by a policy from now on; of its use, the plans."""
        for offset, value in (
            (HABIT, policy.plug_habit),
            (CHARGER, policy.charger_W),
            (STANDBY, policy.standby_W),
            (SOC_LIMIT, policy.soc_limit),
            (CITY, None if policy.city is None else CITY_NAMES.index(policy.city)),
        ):
            if value is not None:
                self.put(offset, value)


def _lanes(vehicles: int) -> npt.NDArray[np.int64]:
    """Which vehicle is in each lane of their blocks: spare lanes repeat the last one."""
    return np.minimum(np.arange(-(-vehicles // LANES) * LANES), vehicles - 1)


def taken(blocks: FloatArray, lanes: npt.NDArray[np.int64]) -> FloatArray:
    """Blocks, shape (blocks, rows LANES), of the vehicles in these lanes of other blocks, shape (n,)."""
    rows = blocks.reshape(len(blocks), -1, LANES)
    lanes = lanes[_lanes(lanes.size)]
    out = np.empty((lanes.size // LANES, rows.shape[1], LANES))
    for row in range(rows.shape[1]):
        out[:, row] = rows[:, row].reshape(-1)[lanes].reshape(-1, LANES)
    return out.reshape(len(out), -1)


def first_group(population: Population, of: npt.NDArray[np.int64], cell: str, sensors: Sensors) -> CellGroup:
    """The vehicles at positions `of`, with this cell, at rest, plugged in."""
    p, model = population, in_pack(cell_model(load_cell(cell)))
    group = CellGroup(of, cell, model, np.zeros((_lanes(of.size).size // LANES, BLOCK_SIZE)))
    put = group.put
    inventory, x_full, x_empty = aged_limits(model, p.sei_thickness_m[of])
    x_n = x_empty + p.initial_soc[of] * (x_full - x_empty)
    put(X_N, x_n)
    put(X_P, (inventory - model.q_n * x_n) / model.q_p)
    h_n, h_p = usual_branches(p.initial_soc[of])
    put(HYSTERESIS_N, h_n)
    put(HYSTERESIS_P, h_p)
    put(X_FULL, x_full)
    put(X_EMPTY, x_empty)
    put(Q_SEI, p.sei_thickness_m[of] / model.sei_length)
    put(PACK_SEI, p.sei_thickness_m[of] / model.sei_length)
    put(WHOLE_AREA, model.area * p.capacity_scale[of])
    put(RESERVE, p.electrolyte_reserve[of])
    for offset in (COOLING_SCALE, COOLING_HEALTH, TRACE_END, POWER_LEFT):
        put(offset, 1.0)
    put(MODE, CHARGING)
    put(WARM_TO, KELVIN + HEAT_BELOW_C)
    put(THROUGHPUT, p.charge_cycles[of] * 2.0 * model.nominal_Ah)
    put(ODOMETER, p.odometer_km[of] * 1000.0)
    put(UTC_OFFSET, np.array([city.utc_offset_s for city in CITIES])[p.city[of]])
    for offset, values in (
        (RESISTANCE_SCALE, p.resistance_scale),
        (SEI_SCALE, p.sei_scale),
        (FILM_SCALE, p.film_scale),
        (VEHICLE, p.vehicle),
        (SPEED_SCALE, p.speed_scale),
        (PACE, p.speed_scale),
        (MASS, p.mass_kg),
        (AUXILIARY, p.auxiliary_W),
        (STANDBY, p.standby_W),
        (PARKED_W, p.standby_W),
        (LEAK, p.self_discharge),
        (CHARGER, p.charger_W),
        (HABIT, p.plug_habit),
        (CHARGE_FROM, p.charge_from_s),
        (CITY, p.city),
        (USE, uses_of(p.use)),
        (MODEL, p.model),
        (PARALLEL, p.parallel),
        (SOC_LIMIT, p.soc_limit),
        (WEAK_CAPACITY, p.weak_capacity),
        (WEAK_RESISTANCE, p.weak_resistance),
        (STRONG_CAPACITY, -p.weak_capacity),
        (STRONG_RESISTANCE, -p.weak_resistance),
        (HOT_SHARE, p.hot_share),
    ):
        put(offset, values[of])
    put(ACTIVE_N, p.active_n[of])
    put(ACTIVE_P, p.active_p[of])
    _lose_material(group.blocks, model)
    for slot in range(SLOTS):
        for offset, values in ((FAULT, p.fault), (FAULT_ONSET, p.fault_onset_s), (FAULT_SEVERITY, p.fault_severity)):
            put(offset + slot * LANES, values[of, slot])
    put(K_STUCK, NOT_STUCK)
    errors = draw_errors(p.keys.sensors, p.vehicle[of], sensors)
    for number, part in enumerate(fields(errors)):
        put(NOISE_KEY + number * LANES, getattr(errors, part.name))
    return group


def _slots(group: CellGroup) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Kind, onset and severity in each slot, each of shape (n,)."""
    for slot in range(0, SLOTS * LANES, LANES):
        yield group.row(FAULT + slot), group.row(FAULT_ONSET + slot), group.row(FAULT_SEVERITY + slot)


def _gravest(group: CellGroup, times_s: float | FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """The gravest fault that has begun: index in FAULTS, onset, severity; each of shape (*times_s.shape, n)."""
    times = np.asarray(times_s)[..., None]
    shape = (*np.shape(times_s), group.of.size)
    which, onset, severity = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    for kind, began, bad in _slots(group):
        graver = (kind > 0) & (times >= began) & ((which == 0) | (kind < which))
        which = np.where(graver, kind.astype(np.int64), which)
        onset, severity = np.where(graver, began, onset), np.where(graver, bad, severity)
    return which, onset, severity


def _listed(group: CellGroup) -> Column:
    """All faults of each vehicle as JSON, shape (n,): of `Fault`'s three, by onset."""
    out = np.full(group.of.size, "[]", dtype=object)
    slots = list(_slots(group))
    for k in np.flatnonzero(slots[0][0]):
        there = [(FAULTS[int(kind[k])], float(onset[k]), float(bad[k])) for kind, onset, bad in slots if kind[k]]
        out[k] = json.dumps(there)
    return out


def _reading(values: Column, name: str) -> Column:
    """A column as float64 with the exact decimals of its sensor (whole numbers stay), as an array of its own."""
    column = COLUMNS[NAMES.index(name)]
    if column.decimals is None:
        return values.copy()
    per_unit = 10.0**column.decimals
    return np.asarray(np.rint(values.astype(np.float64) * per_unit) / per_unit)


class FleetPhysics:
    """Vehicles of one shard, from `start_s` on, in steps of `step_s`.

    A vehicle begins at rest at ambient temperature, plugged in. Its plan counts from that day's midnight, so it may be
    on a trip at the first tick. `advance` uses one thread and releases the GIL.

    end_soh  true SoH at whose first shortfall a life ends, 0 to 1; `ends` says when that was. Checked every simulated
             minute. The vehicle drives on and reports on, as its neighbours in the block do.
    daily    statistics of each vehicle's days, as it reports them; `daily` gives those of the last `advance`

    Either takes memory and time only when asked for.
    """

    def __init__(
        self,
        population: Population,
        *,
        cycles: Sequence[npt.NDArray[np.float64]],
        start_s: int,
        step_s: float = 1.0,
        sensors: Sensors = PROFILES[DEFAULT_SENSORS],
        end_soh: float | None = None,
        daily: bool = False,
    ) -> None:
        if end_soh is not None and not 0.0 <= end_soh <= 1.0:
            raise ValueError(f"expected end_soh from 0 to 1, or None for no end, got {end_soh}")
        if not (math.isfinite(step_s) and 0.0 < step_s <= 60.0):
            raise ValueError(f"step_s must be above 0 and at most 60 s, got {step_s}")
        if len(cycles) == 0:
            raise ValueError("cycles must hold at least one speed trace")
        for k, speeds in enumerate(cycles):
            if np.ndim(speeds) != 1 or len(speeds) < 2 or not np.all(np.isfinite(speeds)) or np.min(speeds) < 0.0:
                raise ValueError(f"cycles[{k}] must be a 1-D array of at least two finite speeds >= 0 in m/s")
        self.keys = population.keys  # of a large fleet, the population takes a fifth of what the blocks take
        self.sensors = sensors
        self._bms = bms_of(sensors)
        self.tick = 0
        self.step_s = float(step_s)
        self.start_s = int(start_s)
        tables = [resample(np.asarray(speeds, dtype=np.float64), step_s) for speeds in cycles]
        self._cycle_ticks = np.array([table.size - 1 for table in tables], dtype=np.int64)
        self._cycle_start = 2 + np.concatenate([[0], np.cumsum(self._cycle_ticks + 1)[:-1]]).astype(np.int64)
        self._traces = np.concatenate([[0.0, 0.0], *tables])  # a parked vehicle reads the two zeros
        self._refresh_ticks = max(1, round(REFRESH_S / step_s))
        self._capacity_ticks = max(1, round(CAPACITY_REFRESH_S / step_s))
        self._vehicles = len(population)
        self._samples = self._room_for(0)
        self._end_soh = end_soh
        self._counts_days = daily
        self._days: list[Days] = []
        self._rooms: list[Days] = []
        self._groups = []
        for index, name in enumerate(population.cells):
            of = self._in_order(np.flatnonzero(population.cell == index))
            if of.size:
                group = first_group(population, of, name, sensors)
                self._set_up(group, new=True)
                if end_soh is not None:
                    group.beside["ends"] = np.zeros((len(group.blocks), ENDS_SIZE))
                if daily:
                    group.beside["daily"] = self._no_days(group)
                self._groups.append(group)

    def _no_days(self, group: CellGroup) -> FloatArray:
        """What counts the days of a group, before the first, shape (blocks, rows LANES)."""
        today = np.zeros((len(group.blocks), TODAY_SIZE))
        begin_days(today, group.blocks, float(self.start_s))
        return today

    def take_over(self, groups: Sequence[CellGroup]) -> None:
        """Take over these vehicles of the same population, at rest at the start of this fleet's time."""
        orders = [np.argsort(group.of) for group in groups]  # lives have an order of their own, samples ascend
        bare = [replace(group, beside={}) for group in groups]
        self._groups = [group.taken(order, group.of[order]) for group, order in zip(bare, orders, strict=True)]
        for group in self._groups:
            self._set_up(group, new=False)

    def fork(
        self,
        *,
        of: Sequence[int] | npt.NDArray[np.int64] | None = None,
        day_seed: int | None = None,
        owner_seed: int | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """A fleet of the same vehicles, as they are now, that goes on apart. This one stays as it is.

        of          positions, shape (n,), ascending; default: all
        day_seed    of other days and other weather. They begin with the next day that has begun in no city. Until
                    then all goes on as planned: a fork is the same to the bit.
        owner_seed  of other owners, with a driver, a load, a charger and habits of their own from now on, and with
                    other routes and hours from that day on. City and use stay, unless the policy says otherwise.
        policy      what owners do differently: from now on, and another use from that day on

        With none of them the fork does what this fleet will do, to the bit. Forks with one `day_seed` have the same
        days, with one `owner_seed` the same owners. A vehicle whose life has ended stays ended in the fork, with the
        same end. A snapshot does not hold the seeds: to restore a fork's, make the fork again.
        """
        chosen = np.arange(len(self)) if of is None else np.asarray(of)
        if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
            raise ValueError(f"expected a non-empty 1-D array of positions, got shape {chosen.shape} {chosen.dtype}")
        if chosen[0] < 0 or chosen[-1] >= len(self) or np.any(np.diff(chosen) <= 0):
            raise ValueError(f"expected ascending positions from 0 to {len(self) - 1}")
        keys = self.keys
        for name, seed in (("day", day_seed), ("owner", owner_seed)):
            if seed is not None and not 0 <= seed < 2**63:
                raise ValueError(f"{name}_seed must be from 0 to 2**63 - 1, got {seed}")
        keys = keys._replace(
            days=keys.days if day_seed is None else day_seed, owner=keys.owner if owner_seed is None else owner_seed
        )
        policy = policy or Policy()
        fork = copy(self)
        fork._vehicles = chosen.size
        fork._samples = fork._room_for(0)
        fork._days = []
        fork._keep(chosen)
        if policy.changes or keys.owner != self.keys.owner:
            fork._follow(policy, keys.owner)
        if keys != self.keys or policy.use is not None:
            fork._turn(keys, policy.use)
        return fork

    def _keep(self, chosen: npt.NDArray[np.int64]) -> None:
        """Copy the vehicles at these positions, and only these."""
        groups, self._groups = self._groups, []
        for group in groups:
            lanes = np.flatnonzero(np.isin(group.of, chosen))
            if lanes.size:
                self._groups.append(group.taken(lanes, np.searchsorted(chosen, group.of[lanes])))

    def _follow(self, policy: Policy, owner: int) -> None:
        for group in self._groups:
            if owner != self.keys.owner:
                group.sell(owner)
            group.follow(policy)

    def _turn(self, keys: Keys, use: str | None) -> None:
        """Other days, routes or uses from the next day on."""
        now_s = self.start_s + self.tick * self.step_s
        offsets = [city.utc_offset_s for city in CITIES]
        today, turn = (math.floor((now_s + offset) / DAY_S) for offset in (min(offsets), max(offsets)))
        turn += 1
        if self.keys.turn > today and self.keys.turn != turn:
            raise ValueError("the days of an earlier fork have not begun in every city: fork half a day later")
        again = self.keys.turn == turn
        if not again:
            keys = keys._replace(before=self.keys.days, owner_before=self.keys.owner, turn=turn)
        self.keys = keys
        for group in self._groups:
            group.use_from_turn(use, again=again)
            _plan_anew(group.blocks, self.step_s, float(self.start_s), self.keys, self._cycle_ticks)

    def _set_up(self, group: CellGroup, *, new: bool) -> None:
        args = self.step_s, float(self.start_s), self.keys, group.model, self._cycle_ticks, new
        _set_up(group.blocks, *args)

    def _in_order(self, of: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The order that decides which vehicles share a block. Results do not depend on it."""
        return of

    def __len__(self) -> int:
        return self._vehicles

    @property
    def bytes_a_vehicle(self) -> float:
        """Memory of the blocks divided by the number of vehicles."""
        return sum(group.blocks.nbytes for group in self._groups) / len(self)

    def advance(self, ticks: int, sample_every: int, *, compact: bool = False) -> dict[str, Column]:
        """Step `ticks` times; return telemetry at every absolute tick divisible by `sample_every`.

        Each column has shape (n_samples, n_vehicles). Readings are float64; with `compact` they have their column's
        type, and last until the next call. A sample at tick k is the state at the end of step k, at start_s + k step_s.
        For units and resolution see `COLUMNS` and docs/physics.md. Flags collect what happened since the previous
        sample.
        """
        if ticks < 0 or sample_every < 1:
            raise ValueError(f"expected ticks >= 0 and sample_every >= 1, got {ticks} and {sample_every}")
        count = (self.tick + ticks) // sample_every - self.tick // sample_every
        if self._samples[0].shape[1] < count:
            self._samples = self._room_for(count)
        self._rooms, self._days = self._days, []
        for group in self._groups:
            self._advance(group, ticks, sample_every, self._samples)
        self.tick += ticks
        of = {kind: iter(values) for kind, values in zip(ROWS_OF, self._samples, strict=True)}
        out = {column.name: next(of[column.type])[:count] for column in COLUMNS}
        return out if compact else {name: _reading(values, name) for name, values in out.items()}

    def _room_for(self, count: int) -> Samples:
        """Arrays for so many samples. They are kept: anew for each call, they would cost as much as the physics."""
        return tuple(np.empty((rows.size, count, len(self)), dtype=kind) for kind, rows in ROWS_OF.items())

    def _beside(self, group: CellGroup, name: str) -> FloatArray:
        """What is `beside` a group, of no block if it is not asked for."""
        return group.beside.get(name, np.zeros((0, LANES)))

    def _room_for_days(self, group: CellGroup, slots: int) -> Days:
        """Room for what `daily` gives of a group: that of the last call, if no day ended then and as many may now."""
        before = self._rooms[len(self._days)] if len(self._days) < len(self._rooms) else None
        slots = slots if self._counts_days else 0
        if before and before[2].shape == (2, slots, group.of.size) and not (before[2][1] != NO_ROW).any():
            days = before
        else:
            days = room_for_days(slots, group.of.size)
        self._days.append(days)
        return days

    @property
    def _limit(self) -> float:
        return -1.0 if self._end_soh is None else self._end_soh

    def _advance(self, group: CellGroup, ticks: int, sample_every: int, samples: Samples) -> None:
        advance_fleet(
            group.blocks,
            self.tick,
            ticks,
            sample_every,
            self._refresh_ticks,
            self._capacity_ticks,
            self.step_s,
            float(self.start_s),
            self.keys,
            group.model,
            self._bms,
            self._traces,
            self._cycle_start,
            self._cycle_ticks,
            group.of,
            samples,
            self._beside(group, "ends"),
            self._limit,
            self._beside(group, "daily"),
            self._room_for_days(group, 1 + math.ceil(ticks * self.step_s / DAY_S)),
        )

    def ends(self) -> dict[str, Column]:
        """How each life has ended by now. Each array has shape (n_vehicles,). ValueError without an `end_soh`.

        reason       "capacity": the true SoH fell below `end_soh`; "failed": a thermal runaway took the vehicle out of
                     service; "stopped": the BMS stopped it for an empty cell group; "alive": none yet, the other
                     values are NaN (censored now). The first reason counts, in this order if seen at once.
        day          days since the start, of a `FleetLives` since its vehicle's local midnight before it
        efc          true equivalent full cycles then; what a vehicle reports may carry the gain of its sensor
        distance_km  odometer then

        A vehicle below the limit from the beginning has ended on day 0. Here an end is known to the minute.
        """
        if self._end_soh is None:
            raise ValueError("expected a fleet made with end_soh, such as end_soh=0.8: this one knows no ends")
        now_days = self.tick * self.step_s / DAY_S
        out: dict[str, Column] = {name: np.full(len(self), np.nan) for name in ("day", "efc", "distance_km")}
        reason = np.zeros(len(self), dtype=np.int64)
        for group in self._groups:
            which, day = group.row(REASON, "ends").astype(np.int64), group.row(END_DAY, "ends")
            which = np.where(day <= now_days + 1e-9, which, 0)  # a life may have ended ahead of the tick
            reason[group.of] = which
            for name, values in (
                ("day", day),
                ("efc", group.row(END_AH, "ends") / (2.0 * group.model.nominal_Ah)),
                ("distance_km", group.row(END_M, "ends") / 1000.0),
            ):
                out[name][group.of] = np.where(which > 0, values, np.nan)
        return out | {"reason": np.array(REASONS, dtype=object)[reason]}

    def daily(self) -> dict[str, Column]:
        """A row for each vehicle and each of its local days that ended in the last `advance`, by the names of `DAILY`
        (docs/physics.md). Arrays of shape (rows,); the days of a vehicle ascend. ValueError without `daily`.

        A day that began before the fleet is shorter: its four times say how much of it there is.
        """
        if not self._counts_days:
            raise ValueError("expected a fleet made with daily=True: this one has counted no days")
        # In most blocks of a live fleet no day ends, and nothing else may cost anything then.
        ended = any((key[1] != NO_ROW).any() for _, _, key in self._days)
        slots = self._days[0][2].shape[1] if ended else 0
        if not slots:
            return {column.name: np.empty(0, dtype=column.type) for column in DAILY}
        out = {column.name: np.zeros((slots, len(self)), dtype=column.type) for column in DAILY}
        out["lived"][:] = NO_ROW
        for group, (small, large, key) in zip(self._groups, self._days, strict=False):
            out["vehicle"][:, group.of] = group.row(VEHICLE)
            out["day"][:, group.of], out["lived"][:, group.of] = key
            for figure, values in zip(FIGURES, (*small, *large), strict=True):
                out[figure.name][:, group.of] = values
        there = out["lived"] != NO_ROW
        return {name: values[there] for name, values in out.items()}

    def inject(self, position: int, fault: Fault) -> None:
        """Give the vehicle at `position` a fault, besides those it has; of the same kind, instead of it. One that has
        `faults.SLOTS` already loses the one that begins last.

        A batch of bad electrolyte is bad from the beginning, so it acts from now on, whatever its onset.
        """
        for group in self._groups:
            lane = np.flatnonzero(group.of == position)
            if lane.size:
                where = divmod(int(lane[0]), LANES)
                rows = group.blocks[where[0]].reshape(-1, LANES)[:, where[1]]
                slots = [
                    rows[offset // LANES : offset // LANES + SLOTS] for offset in (FAULT, FAULT_ONSET, FAULT_SEVERITY)
                ]
                kind = FAULTS.index(fault.kind)
                onset_s = 0.0 if kind == BAD_ELECTROLYTE else fault.onset_s
                there = [tuple(one) for one in zip(*slots, strict=True) if one[0] not in (0.0, kind)]
                there = [*sorted(there, key=itemgetter(1))[: SLOTS - 1], (kind, onset_s, fault.severity)]
                there.sort(key=itemgetter(1))
                for values, of in zip(slots, zip(*there, strict=True), strict=True):
                    values[: len(there)] = of
                return
        raise ValueError(f"expected a position from 0 to {len(self) - 1}, got {position}")

    def truth(self) -> dict[str, Column]:
        """What no vehicle reports: its state, aging by mechanism, and faults. Each array has shape (n_vehicles,).

        soc and soh are the cells' own. soh_usable is what the weakest cell group leaves of soh: discharging
        ends where it is empty. resistance [Ohm] is the pack's over a 10 s pulse at 1C, 25 degC and half charge.
        lli is the lithium lost, as a share of the fresh cell's cyclable lithium. It is the sum of sei, dead_lithium,
        plated_lithium and lam_lithium, which say where the lithium went. lam_ne and lam_pe are the shares of active
        material lost. soh_resistance is the fresh over the present resistance of a pulse at 25 degC, before diffusion
        responds and without faults. fault is the gravest fault (the first of `faults.KINDS`) that has begun, faults
        lists all of the vehicle, also those to come, as JSON. stops counts how often the BMS has stopped the vehicle.
        outside_valid_range says whether the model has ever left its valid range. efc are the true equivalent full
        cycles since new, distance_km is the odometer.
        """
        return self._truth_of(self._true_states(), self.start_s + self.tick * self.step_s)

    def _true_states(self) -> Iterator[tuple[int, CellGroup, FloatArray]]:
        """Parts of the groups, with index and TRUE rows: a large fleet has no room for all rows at once."""
        for index, group in enumerate(self._groups):
            for first in range(0, len(group.blocks), _TOLD_BLOCKS):
                blocks = group.blocks[first : first + _TOLD_BLOCKS]
                of = group.of[first * LANES : (first + len(blocks)) * LANES]
                state = np.empty((len(TRUE_NAMES), len(blocks) * LANES))
                true_state(blocks, group.model, state)
                yield index, replace(group, of=of, blocks=blocks), state[:, : of.size]

    def _truth_of(
        self, states: Iterable[tuple[int, CellGroup, FloatArray]], times_s: float | FloatArray
    ) -> dict[str, Column]:
        """What `truth` returns at these times [s since 1970], shape () or (samples,), from groups or parts of them,
        each with its index and its TRUE rows, shape (len(TRUE_NAMES), *samples, vehicles)."""
        shape = (*np.shape(times_s), len(self))
        vehicle = np.zeros(len(self), dtype=np.int64)
        out: dict[str, Column] = {}
        fault, cell = np.zeros(shape, dtype=np.int64), np.zeros(len(self), dtype=np.int64)
        every = np.full(len(self), "[]", dtype=object)
        for index, group, state in states:
            model, of = group.model, group.of
            (
                soc,
                soh,
                cell_Ohm,
                q_sei,
                plated,
                dead,
                q_lam,
                active_n,
                active_p,
                failed,
                outside,
                throughput,
                odometer,
                stops,
                usable,
                wetted_share,
            ) = state
            first, one = model.sei_initial / model.sei_length, np.ones(1)
            film_scale = group.row(FILM_SCALE)
            fresh = instant_resistance(model, first * one, 0.0 * one, one, one, film_scale)
            present = instant_resistance(model, q_sei, plated + dead, active_n, active_p, film_scale)
            sei = (q_sei - first) / model.inventory
            gravest, onset, severity = _gravest(group, times_s)
            values = {
                "soc": soc,
                "soh": soh,
                "soh_usable": usable,
                "resistance": cell_Ohm * model.series / group.row(PARALLEL),
                "soh_resistance": fresh / present * wetted_share,
                "lli": sei + (dead + plated + q_lam) / model.inventory,
                "sei": sei,
                "dead_lithium": dead / model.inventory,
                "plated_lithium": plated / model.inventory,
                "lam_lithium": q_lam / model.inventory,
                "lam_ne": 1.0 - active_n,
                "lam_pe": 1.0 - active_p,
                "wetted": wetted_share,
                "sei_thickness_m": q_sei * model.sei_length / active_n,
                "fault_onset_s": onset,
                "fault_severity": severity,
                "failed": failed,
                "stops": stops,
                "outside_valid_range": outside > 0.0,
                "efc": throughput / (2.0 * model.nominal_Ah),
                "distance_km": odometer / 1000.0,
            }
            for name, value in values.items():
                out.setdefault(name, np.empty(shape, dtype=value.dtype))[..., of] = value
            vehicle[of], cell[of], fault[..., of] = group.row(VEHICLE), index, gravest
            every[of] = _listed(group)
        # As objects: each name is there once, and not once for each vehicle.
        faults, cells = np.array(FAULTS, dtype=object), np.array([group.cell for group in self._groups], dtype=object)
        return out | {
            "vehicle": np.broadcast_to(vehicle, shape),
            "fault": faults[fault],
            "faults": np.broadcast_to(every, shape),
            "cell": np.broadcast_to(cells[cell], shape),
        }

    def parts(self) -> dict[str, list[Column]]:
        """What `snapshot` joins along the first axis, without a copy: a large fleet has no room for two of it."""
        parts: dict[str, list[Column]] = {"tick": [np.array(self.tick, dtype=np.int64)]}
        parts["blocks"] = [group.blocks for group in self._groups]
        return parts | {name: [group.beside[name] for group in self._groups] for name in self._groups[0].beside}

    def snapshot(self) -> dict[str, Column]:
        """Everything needed to continue byte-exactly with the same population, cycles, start, step and options."""
        return {
            name: np.concatenate(parts) if parts[0].ndim else parts[0].copy() for name, parts in self.parts().items()
        }

    def restore(self, snapshot: dict[str, Column]) -> None:
        """Go back (or on) to a snapshot of a FleetPhysics made with the same arguments."""
        arrays = {}
        if others := {"lives", "ends", "daily"} & snapshot.keys() - self.parts().keys():
            raise ValueError(f"the snapshot has {', '.join(sorted(others))}: it was made by another class or options")
        for name, parts in self.parts().items():
            shape = (sum(map(len, parts)), parts[0].shape[1]) if name != "tick" else ()
            arrays[name] = np.asarray(snapshot.get(name, ()))
            if arrays[name].shape != shape or arrays[name].dtype != parts[0].dtype:
                raise ValueError(
                    f"the snapshot's {name} are {arrays[name].shape} {arrays[name].dtype}, this fleet's {shape}"
                    f" {parts[0].dtype}: it was made with other options, other vehicles or another version"
                )
        first = 0
        for group in self._groups:
            last = first + len(group.blocks)
            if not np.array_equal(replace(group, blocks=arrays["blocks"][first:last]).row(VEHICLE), group.row(VEHICLE)):
                raise ValueError("the snapshot is of other vehicles")
            group.blocks[:] = arrays["blocks"][first:last]
            for name, rows in group.beside.items():
                rows[:] = arrays[name][first:last]
            first = last
        self.tick = int(arrays["tick"])
        self._days = []
