"""The car around the pack: what it asks of its cells on a speed trace, at the charger and at rest.

A compact electric car, about 60 kWh: 96 cells in series, 34 in parallel, all alike. Longitudinal model
    F = m (1 + 4 %) dv/dt + m g c_rr + 1/2 rho CdA v^2 ,   P = F v / eta + auxiliaries
with regeneration limited by inverter power, by speed and by a cold battery. Road grade is not modelled.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from physics.climate import ambient_K
from physics.constants import GRAVITY, KELVIN
from physics.duty import find_event, plugs_in, trip
from physics.kernel import soc_of
from physics.layout import (
    AMBIENT,
    AUXILIARY,
    CABIN,
    CHARGE_LIMIT,
    CHARGER,
    CITY,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DAY,
    EVENT,
    HABIT,
    LANES,
    MASS,
    MODE,
    NEXT_EVENT,
    ODOMETER,
    PLUGGED,
    POWER,
    SPEED,
    SPEED_BEFORE,
    SPEED_SCALE,
    TEMPERATURE,
    TRACE,
    TRACE_END,
    TRACE_START,
    UTC_OFFSET,
    VEHICLE,
    VOLTAGE,
    VOLTAGE_HIGH,
    VOLTAGE_LOW,
)
from physics.maths import LOOP, clip
from physics.modal import CellModel
from physics.parameters import FloatArray

IntArray = npt.NDArray[np.int64]

MODES: Final = ("parked", "driving", "charging")
PARKED: Final = 0.0
DRIVING: Final = 1.0
CHARGING: Final = 2.0

CELLS_SERIES: Final = 96
CELLS_PARALLEL: Final = 34
CELLS_PACK: Final = CELLS_SERIES * CELLS_PARALLEL

CD_A_M2: Final = 0.62  # drag coefficient 0.27 times 2.3 m2
ROLLING: Final = 0.0095
AIR_DENSITY: Final = 1.2
ROTATING: Final = 1.04  # wheels and motor as extra inertia
DRIVE_EFFICIENCY: Final = 0.89  # battery to wheel
REGENERATION_EFFICIENCY: Final = 0.80  # wheel to battery
REGENERATION_MAX_W: Final = 60e3
REGENERATION_MIN_MPS: Final = 2.0
CHARGER_EFFICIENCY: Final = 0.91  # wall to battery

DISCHARGE_C_RATE: Final = 3.0
CHARGE_C_RATE: Final = 1.0  # of a warm battery; falls with temperature below
COLD_ZERO_C: Final = -15.0  # least charging current at and below
COLD_FULL_C: Final = 15.0  # full charging current at and above
COLD_SHARE: Final = 0.05
CHARGED_C_RATE: Final = 1.0 / 60.0  # constant-voltage phase ends below
CHARGED_WINDOW_V: Final = 0.003
CHARGER_MARGIN_V: Final = 0.002  # a charger keeps this far below the cell's upper limit
PLUG_ALWAYS_BELOW: Final = 0.5  # state of charge

# Cabin, while driving: heat flow per kelvin outside the comfort band, delivered by a heat pump or air conditioner.
COMFORT_LOW_C: Final = 17.0
COMFORT_HIGH_C: Final = 23.0
HEATING_W_K: Final = 75.0
COOLING_W_K: Final = 70.0
CABIN_MAX_W: Final = 3500.0

PACK_COOLING_SCALE: Final = 0.15
"""Heat loss of a cell inside its pack, against a single cell in still air: gives the pack about 1.5 h to follow the
air. Active cooling and heating are not modelled yet."""


@numba.njit(**LOOP)
def refresh_climate(block: FloatArray, seed: int, now_s: float) -> None:
    """Ambient temperature and cabin power; called every simulated minute. `now_s`: seconds since 1970, UTC."""
    for k in range(LANES):
        ambient = ambient_K(seed, int(block[CITY + k]), now_s + block[UTC_OFFSET + k])
        block[AMBIENT + k] = ambient
        outside = ambient - KELVIN
        heating = HEATING_W_K * max(COMFORT_LOW_C - outside, 0.0)
        cooling = COOLING_W_K * max(outside - COMFORT_HIGH_C, 0.0)
        block[CABIN + k] = min(heating + cooling, CABIN_MAX_W)


@numba.njit(**LOOP)
def follow_plans(
    block: FloatArray, tick: int, seed: int, start_s: float, dt: float, cycle_start: IntArray, cycle_ticks: IntArray
) -> float:
    """Let every vehicle whose plan says so set off, arrive or plug in; returns the tick of the block's next entry."""
    soonest = 1e18
    for k in range(LANES):
        while block[NEXT_EVENT + k] <= tick:
            vehicle, day, event = int(block[VEHICLE + k]), int(block[DAY + k]), int(block[EVENT + k])
            late = tick - int(block[NEXT_EVENT + k])
            if event % 2 == 0:
                cycle = trip(seed, vehicle, day, event // 2, dt, cycle_ticks)[2]
                block[MODE + k] = DRIVING
                block[PLUGGED + k] = 0.0
                block[TRACE_START + k] = cycle_start[cycle]
                block[TRACE_END + k] = cycle_start[cycle] + cycle_ticks[cycle] + 1
                block[TRACE + k] = cycle_start[cycle] + late % cycle_ticks[cycle]
            else:
                block[MODE + k] = PARKED
                block[TRACE_START + k] = 0.0
                block[TRACE_END + k] = 1.0
                block[TRACE + k] = 0.0
                if event == 5 and (
                    plugs_in(seed, vehicle, day, block[HABIT + k]) or soc_of(block, k) < PLUG_ALWAYS_BELOW
                ):
                    block[PLUGGED + k] = 1.0
                    block[MODE + k] = CHARGING
            block[SPEED + k] = 0.0
            block[SPEED_BEFORE + k] = 0.0
            next_tick, next_day, next_event = find_event(
                seed, vehicle, day, event + 1, block[UTC_OFFSET + k], start_s, dt, cycle_ticks
            )
            block[NEXT_EVENT + k] = next_tick
            block[DAY + k] = next_day
            block[EVENT + k] = next_event
        soonest = min(soonest, block[NEXT_EVENT + k])
    return soonest


@numba.njit(**LOOP)
def read_traces(block: FloatArray, traces: FloatArray) -> None:
    """Speed at the beginning and end of this tick. The only loop over lanes that cannot vectorise (it gathers)."""
    for k in range(LANES):
        position = int(block[TRACE + k])
        block[SPEED_BEFORE + k] = traces[position] * block[SPEED_SCALE + k]
        block[SPEED + k] = traces[position + 1] * block[SPEED_SCALE + k]
        following = block[TRACE + k] + 1.0
        block[TRACE + k] = following if following + 1.0 < block[TRACE_END + k] else block[TRACE_START + k]


@numba.njit(**LOOP)
def ask_cells(block: FloatArray, work: FloatArray, dt: float, c: CellModel) -> None:
    """Write the demand rows: cell power and limits from what each vehicle is doing; and count the distance.

    A charger that reached its limit in the last step stops here, until the vehicle is unplugged.
    """
    inv_dt = 1.0 / dt
    enough = -CHARGED_C_RATE * c.nominal_Ah
    nominal, voltage_min, voltage_max = c.nominal_Ah, c.voltage_min, c.voltage_max
    for k in range(LANES):
        limit = block[CHARGE_LIMIT + k]
        full = (block[CURRENT + k] > enough) & (block[VOLTAGE + k] > limit - CHARGED_WINDOW_V)
        mode = block[MODE + k]
        mode = PARKED if full & (mode == CHARGING) else mode
        block[MODE + k] = mode
        driving, charging = mode == DRIVING, mode == CHARGING
        before, after = block[SPEED_BEFORE + k], block[SPEED + k]
        speed = 0.5 * (before + after)
        block[ODOMETER + k] += speed * dt
        mass = block[MASS + k]
        force = (
            ROTATING * mass * (after - before) * inv_dt
            + (ROLLING * GRAVITY * mass if speed > 0.0 else 0.0)
            + 0.5 * AIR_DENSITY * CD_A_M2 * speed * speed
        )
        wheel = force * speed
        traction = wheel * (1.0 / DRIVE_EFFICIENCY)
        recovered = max(wheel * REGENERATION_EFFICIENCY, -REGENERATION_MAX_W) if speed > REGENERATION_MIN_MPS else 0.0
        on_the_road = (traction if wheel > 0.0 else recovered) + block[AUXILIARY + k] + block[CABIN + k]
        at_charger = -CHARGER_EFFICIENCY * block[CHARGER + k]
        power = on_the_road if driving else (at_charger if charging else 0.0)
        work[POWER + k] = power * (1.0 / CELLS_PACK)
        cold = (block[TEMPERATURE + k] - KELVIN - COLD_ZERO_C) * (1.0 / (COLD_FULL_C - COLD_ZERO_C))
        charge_limit = -CHARGE_C_RATE * nominal * clip(cold, COLD_SHARE, 1.0)
        work[CURRENT_LOW + k] = charge_limit if driving | charging else 0.0
        work[CURRENT_HIGH + k] = DISCHARGE_C_RATE * nominal if driving else 0.0
        work[VOLTAGE_LOW + k] = voltage_min
        work[VOLTAGE_HIGH + k] = limit if charging else voltage_max
