"""One recorded trip of one car: from its speed, the road's slope and its consumers to current, voltage, temperature.

Force at the wheels and efficiency of the drive are those of a fleet (`vehicle.wheel_W`, `vehicle.motor_W`). The pack is
its mean cell. Nothing of the trip's battery is an input but where it begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from physics.cell import rested_block
from physics.compiled import kernel
from physics.constants import KELVIN
from physics.kernel import refresh_capacity, refresh_cells, soc_of, step_cells
from physics.layout import (
    AMBIENT,
    CAPACITY_REFRESH_S,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DT,
    LANES,
    POWER,
    REFRESH_S,
    TEMPERATURE,
    VOLTAGE,
    VOLTAGE_HIGH,
    VOLTAGE_LOW,
    WORK_SIZE,
)
from physics.modal import CellModel, cell_model, in_pack
from physics.parameters import CellParameters, FloatArray
from physics.vehicle import AIR_KG_K_M3, ROLLING_K, motor_W, wheel_W


@dataclass(frozen=True)
class Car:
    """The numbers of one real car. `sources` says where each comes from."""

    name: str
    mass_kg: float
    """With its driver."""
    drag_area_m2: float
    rolling_25C: float
    """Rolling resistance over weight, at 25 degC."""
    recovers_W: float
    """Most power that braking returns to the pack."""
    auxiliary_W: float
    """Everything but drive, heating and air conditioning."""
    series: int
    capacity_Ah: float
    charge_C_rate: float
    """Largest charging current that the pack takes when it brakes."""
    discharge_C_rate: float
    sources: tuple[str, ...]


@dataclass(frozen=True)
class TripInputs:
    """What a trip asks of the car; arrays of shape (n + 1,), values at instants `step_s` apart."""

    step_s: float
    speed_mps: FloatArray
    slope: FloatArray
    """Rise over distance."""
    consumers_W: FloatArray
    """Heating and air conditioning."""
    ambient_C: FloatArray
    air_density_ratio: float
    """Of the trip's height to sea level's."""
    initial_soc: float
    initial_C: float


@dataclass(frozen=True)
class TripResult:
    """The pack, positive discharges; arrays of shape (n,). Value k is at the end of step k."""

    power_W: FloatArray
    current_A: FloatArray
    voltage_V: FloatArray
    temperature_C: FloatArray
    soc: FloatArray
    wheel_W: FloatArray
    """Power at the wheels, mean over step k; + drives."""


@kernel
def run_trip(
    block: FloatArray,
    demand: FloatArray,
    mass: float,
    rolling_25C: float,
    drag_K: float,
    recovers_W: float,
    auxiliary_W: float,
    current_low: float,
    current_high: float,
    series: float,
    dt: float,
    refresh_ticks: int,
    capacity_ticks: int,
    c: CellModel,
    out: FloatArray,
) -> None:
    """Drive all lanes of a block, which are alike, through a trip; lane 0 goes to `out`, shape (6, n).

    demand    shape (4, n + 1): speed [m/s], slope, consumers [W], air [K]
    drag_K    1/2 CdA times density times temperature of the air [kg K/m]
    """
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = dt
    work[CURRENT_LOW : CURRENT_LOW + LANES] = current_low
    work[CURRENT_HIGH : CURRENT_HIGH + LANES] = current_high
    work[VOLTAGE_LOW : VOLTAGE_LOW + LANES] = c.voltage_min
    work[VOLTAGE_HIGH : VOLTAGE_HIGH + LANES] = c.voltage_max
    for tick in range(out.shape[1]):
        before, after = demand[0, tick], demand[0, tick + 1]
        air = demand[3, tick]
        rolling = rolling_25C * (1.0 + ROLLING_K * max(25.0 + KELVIN - air, 0.0))
        wheel = wheel_W(mass, rolling, drag_K / air, before, after, dt, 0.5 * (demand[1, tick] + demand[1, tick + 1]))
        power = motor_W(wheel, 0.5 * (before + after), recovers_W) + auxiliary_W + demand[2, tick]
        for k in range(LANES):
            work[POWER + k] = power / series
            block[AMBIENT + k] = air
        if tick % refresh_ticks == 0:
            refresh_cells(block, work, c)
        if tick % capacity_ticks == 0:
            refresh_capacity(block, c)
        step_cells(block, work, c)
        out[0, tick] = series * block[VOLTAGE] * block[CURRENT]
        out[1, tick] = block[CURRENT]
        out[2, tick] = series * block[VOLTAGE]
        out[3, tick] = block[TEMPERATURE]
        out[4, tick] = soc_of(block, 0)
        out[5, tick] = wheel


def simulate_trip(car: Car, cell: CellParameters, trip: TripInputs) -> TripResult:
    """The pack of a car on a trip. The pack is `cell`, enlarged to the car's capacity, `series` times, from rest; it
    warms and cools as a fleet's packs do (`modal.in_pack`), without their heater and cooler."""
    model = in_pack(cell_model(cell))
    scale = car.capacity_Ah / cell.nominal_capacity_Ah
    model = model._replace(heat_capacity=scale * model.heat_capacity, cooling=scale * model.cooling)
    block = rested_block(model, soc=trip.initial_soc, temperature_C=trip.initial_C, capacity_scale=scale)
    demand = np.array([trip.speed_mps, trip.slope, trip.consumers_W, trip.ambient_C + KELVIN], dtype=np.float64)
    out = np.empty((6, demand.shape[1] - 1))
    run_trip(
        block,
        demand,
        car.mass_kg,
        car.rolling_25C,
        0.5 * AIR_KG_K_M3 * trip.air_density_ratio * car.drag_area_m2,
        car.recovers_W,
        car.auxiliary_W,
        -car.charge_C_rate * car.capacity_Ah,
        car.discharge_C_rate * car.capacity_Ah,
        float(car.series),
        trip.step_s,
        max(1, round(REFRESH_S / trip.step_s)),
        max(1, round(CAPACITY_REFRESH_S / trip.step_s)),
        model,
        out,
    )
    return TripResult(out[0], out[1], out[2], out[3] - KELVIN, out[4], out[5])
