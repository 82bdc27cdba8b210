"""The car around the pack: what it asks of its cells on a speed trace, at the charger and at rest.

It is one of four models (`car_models`). Its pack is of the 400 V class and can use any cell (`modal.PACK_VOLTAGE_V`).
The longitudinal model is
    F = m (1 + 4 %) dv/dt + m g c_rr + 1/2 rho CdA v^2 ,   P = F v / eta + auxiliaries
with regeneration limited by inverter power, by speed and by a cold battery. A fleet's roads are level. Cold air is
denser, and cold tyres roll harder: 0.8 % a kelvin below 25 degC (ISO 28580).

Charging ends where the battery management system has counted to a state of charge: at home the owner's, on the road
80 %. Until there the charger gives its full power, or what the car's curve and a cold battery take, and the cell's own
voltage limits it only near full. A timer may let a charge at home begin at night only.

The BMS protects the weakest cell group. Near that group's end, by its charge or by its voltage under load, less power
is left and the vehicle goes slower (turtle mode). When the group is empty the vehicle is stopped: it stands until it
has been charged. Thresholds are set by judgement, in the range of what drivers report.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from physics.bms import capacity_C_of
from physics.car_models import CABIN_W_K, CURVE_POINTS, DRAG_AREA_M2, FAST_W, HEAT_PUMP
from physics.climate import ambient_K
from physics.compiled import inner
from physics.constants import DAY_S, GRAVITY, KELVIN
from physics.duty import FAST, HOME, find_event, plugs_in, trip, use_on, what_follows
from physics.faults import stand_still
from physics.kernel import soc_of
from physics.layout import (
    A_GAIN,
    AMBIENT,
    AREA,
    AUXILIARY,
    CABIN,
    CHARGE_FROM,
    CHARGER,
    CITY,
    COOLING_HEALTH,
    COUNTED,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DAY,
    DRAG,
    DT,
    EVENT,
    FAILED,
    FAST_POWER,
    HABIT,
    INV_Q_N,
    LANES,
    MASS,
    MODE,
    MODEL,
    NEXT_EVENT,
    NOW,
    ODOMETER,
    PACE,
    PARALLEL,
    PARKED_W,
    PLUGGED,
    POWER,
    POWER_LEFT,
    PUMP,
    ROLLING,
    SOC_BMS,
    SOC_LIMIT,
    SOH_BMS,
    SPEED,
    SPEED_BEFORE,
    SPEED_SCALE,
    STOP_AT,
    STOPS,
    TEMPERATURE,
    TRACE,
    TRACE_END,
    TRACE_START,
    USE,
    UTC_OFFSET,
    V_HIGHEST,
    V_LOWEST,
    VEHICLE,
    VOLTAGE,
    VOLTAGE_HIGH,
    VOLTAGE_LOW,
    WARM_TO,
    X_EMPTY,
    X_FULL,
    X_N,
)
from physics.maths import clip
from physics.modal import CellModel
from physics.pack import weakest_soc
from physics.parameters import FloatArray
from physics.rng import Keys

IntArray = npt.NDArray[np.int64]

# Indices in `columns.MODES`.
PARKED: Final = 0.0
DRIVING: Final = 1.0
CHARGING: Final = 2.0
FAST_CHARGING: Final = 3.0

ROLLING_25C: Final = 0.0095
ROLLING_K: Final = 0.008  # relative, a kelvin below 25 degC
AIR_KG_K_M3: Final = 353.0  # density times temperature, at sea level
ROTATING: Final = 1.04  # wheels and motor as extra inertia
DRIVE_EFFICIENCY: Final = 0.89  # battery to wheel
REGENERATION_EFFICIENCY: Final = 0.80  # wheel to battery
REGENERATION_MAX_W: Final = 60e3
REGENERATION_MIN_MPS: Final = 2.0
CHARGER_EFFICIENCY: Final = 0.91  # wall to battery

DISCHARGE_C_RATE: Final = 3.0
CHARGE_C_RATE: Final = 1.0  # of a warm battery; less in the cold
COLD_ZERO_C: Final = -15.0  # least charging current at and below
COLD_FULL_C: Final = 15.0  # full charging current at and above
COLD_SHARE: Final = 0.05
FAST_C_RATE: Final = 3.5  # no curve asks for more
NIGHT_S: Final = 28800.0  # how long a timer lets a charge begin
FAST_UNTIL: Final = 0.8  # state of charge
RESERVE: Final = 0.08  # state of charge at which a driver looks for a charger
FAST_BELOW: Final = 0.6  # state of charge above which no stop is made
FAST_COLD_ZERO_C: Final = -10.0
FAST_COLD_FULL_C: Final = 25.0
CHARGED_C_RATE: Final = 1.0 / 60.0  # below this current the constant-voltage phase ends
CHARGED_WINDOW_V: Final = 0.003
CHARGER_MARGIN_V: Final = 0.002  # a charger keeps this far below the cell's upper limit
UNTIL_FULL: Final = 2.0  # as STOP_AT: only the voltage ends this charge
PLUG_ALWAYS_BELOW: Final = 0.5  # state of charge
STANDBY_ABOVE: Final = 0.03  # state of charge

# Turtle mode: the weakest cell group's state of charge, and its voltage under load above the cell's limit, below which
# power falls (by voltage to a share that still creeps), and the charge from which on a stopped vehicle may go.
FULL_POWER_SOC: Final = 0.05
FULL_POWER_V: Final = 0.1
CREEP_SHARE: Final = 0.1
TURTLE_PACE: Final = 0.3  # of the trace's speed, as power goes to zero
RESTART_SOC: Final = 0.1

# Cabin, while driving: heat flow per kelvin outside the comfort band, by a heat pump, a resistor or an air conditioner.
COMFORT_LOW_C: Final = 17.0
COMFORT_HIGH_C: Final = 23.0
COOLING_W_K: Final = 70.0
CABIN_MAX_W: Final = 6000.0
# A heat pump's heat over its work: 2 at 0 degC, 1.2 at -15 degC, a resistor's below.
HEAT_PUMP_COP_0C: Final = 2.0
HEAT_PUMP_COP_K: Final = 0.055
HEAT_PUMP_COP_MAX: Final = 2.6

# Thermal management, while driving or plugged in and charging: proportional over a band, limited, drawn from the pack.
HEAT_BELOW_C: Final = 8.0
HEAT_BELOW_FAST_C: Final = 22.0
PRECONDITION_BELOW: Final = 0.75  # state of charge at departure, of a trip that ends at a fast charger
COOL_ABOVE_C: Final = 32.0
BAND_K: Final = 3.0
HEATER_W: Final = 4000.0
COOLER_W: Final = 4500.0
COOLER_COP: Final = 2.5


@inner
def climate_of(block: FloatArray, work: FloatArray, keys: Keys, k: int) -> None:
    """Ambient temperature and cabin power of one vehicle at NOW."""
    ambient = ambient_K(keys, int(block[CITY + k]), work[NOW + k] + block[UTC_OFFSET + k])
    block[AMBIENT + k] = ambient
    outside, model = ambient - KELVIN, int(block[MODEL + k])
    cop = clip(HEAT_PUMP_COP_0C + HEAT_PUMP_COP_K * outside, 1.0, HEAT_PUMP_COP_MAX) if HEAT_PUMP[model] else 1.0
    heating = CABIN_W_K[model] * max(COMFORT_LOW_C - outside, 0.0) / cop
    cooling = COOLING_W_K * max(outside - COMFORT_HIGH_C, 0.0)
    block[CABIN + k] = min(heating + cooling, CABIN_MAX_W)
    block[DRAG + k] = 0.5 * AIR_KG_K_M3 / ambient * DRAG_AREA_M2[model]
    block[ROLLING + k] = ROLLING_25C * (1.0 + ROLLING_K * max(25.0 - outside, 0.0))


@inner
def refresh_climate(block: FloatArray, work: FloatArray, keys: Keys) -> None:
    """`climate_of` for all lanes; called every simulated minute."""
    for k in range(LANES):
        climate_of(block, work, keys, k)


@inner
def count_on(block: FloatArray, k: int, c: CellModel) -> None:
    """What follows from the state of charge that the BMS has counted: where a charge will end, and, of the vehicle at a
    fast charger, what it asks for. Called with the coefficients, so every 10 s."""
    capacity_C = capacity_C_of(c) * block[SOH_BMS + k]
    fast = block[MODE + k] == FAST_CHARGING
    soc = block[SOC_BMS + k] - block[COUNTED + k] * (1.0 + block[A_GAIN + k]) / capacity_C
    until = FAST_UNTIL if fast else block[SOC_LIMIT + k]
    left = (until - soc) * capacity_C * block[INV_Q_N + k] / block[AREA + k]
    block[STOP_AT + k] = block[X_N + k] + left if until < 1.0 else UNTIL_FULL
    if fast:
        celsius = block[TEMPERATURE + k] - KELVIN
        warm = clip((celsius - FAST_COLD_ZERO_C) * (1.0 / (FAST_COLD_FULL_C - FAST_COLD_ZERO_C)), COLD_SHARE, 1.0)
        point = int(clip(soc, 0.0, 0.999) * (CURVE_POINTS - 1))
        block[FAST_POWER + k] = FAST_W[int(block[MODEL + k]), point] * warm


@inner
def hold_back(block: FloatArray, k: int, c: CellModel) -> None:
    """How much power the BMS allows, for the weakest cell group; at the group's end it stops the vehicle."""
    soc, stopped = weakest_soc(block, k), block[POWER_LEFT + k] == 0.0
    above_V = block[VOLTAGE + k] + block[V_LOWEST + k] - c.voltage_min
    left = clip(min(soc / FULL_POWER_SOC, max(above_V / FULL_POWER_V, CREEP_SHARE)), 0.0, 1.0)
    left = 0.0 if (block[FAILED + k] > 0.0) | (stopped & (soc < RESTART_SOC)) else left
    if (left == 0.0) & (not stopped):
        block[STOPS + k] += 1.0
        if block[MODE + k] == DRIVING:
            stand_still(block, k)
    block[POWER_LEFT + k] = left
    block[PACE + k] = block[SPEED_SCALE + k] * (TURTLE_PACE + (1.0 - TURTLE_PACE) * left)


@inner
def refresh_charging(block: FloatArray, c: CellModel) -> None:
    """`count_on` and `hold_back` for all lanes. A vehicle that would run out on the road goes to a fast charger instead
    of on."""
    for k in range(LANES):
        if (block[MODE + k] == DRIVING) and soc_of(block, k) < RESERVE:
            stand_still(block, k)
            block[MODE + k] = FAST_CHARGING
        hold_back(block, k, c)
        count_on(block, k, c)


@inner
def depart(block: FloatArray, k: int, keys: Keys, vehicle: int, use: int, day: int, which: int) -> None:
    """Before a trip: decide how warm the battery is to be. On the way to a fast charger it is warmed for it."""
    fast = (what_follows(keys, vehicle, use, day, which) == FAST) and soc_of(block, k) < PRECONDITION_BELOW
    block[WARM_TO + k] = KELVIN + (HEAT_BELOW_FAST_C if fast else HEAT_BELOW_C)
    block[PLUGGED + k] = 0.0


@inner
def until_night(block: FloatArray, work: FloatArray, k: int) -> float:
    """Time until the timer of a vehicle lets it charge [s]: 0 through its night, at NOW."""
    since = (work[NOW + k] + block[UTC_OFFSET + k] - block[CHARGE_FROM + k]) % DAY_S
    return 0.0 if since < NIGHT_S else DAY_S - since


@inner
def charge_by_night(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Begin the charges that a timer held back. Called whenever NOW is renewed."""
    for k in range(LANES):
        if (block[PLUGGED + k] == 1.0) and until_night(block, work, k) == 0.0:
            block[PLUGGED + k] = 0.0
            if block[FAILED + k] == 0.0:
                block[MODE + k] = CHARGING
                count_on(block, k, c)


@inner
def arrive(block: FloatArray, k: int, keys: Keys, vehicle: int, use: int, day: int, which: int, c: CellModel) -> None:
    """After a trip: plug in the vehicle, which is already parked, if its plan and its state of charge say so. One that
    has been stopped on the way is towed."""
    follows = what_follows(keys, vehicle, use, day, which)
    soc = soc_of(block, k)
    home = (follows == HOME) and (
        plugs_in(keys, vehicle, use, day, block[HABIT + k]) or soc < PLUG_ALWAYS_BELOW or block[POWER_LEFT + k] == 0.0
    )
    fast = (follows == FAST) and soc < FAST_BELOW
    waits = block[CHARGE_FROM + k] >= 0.0 and block[POWER_LEFT + k] > 0.0
    if home and (not fast) and waits:
        block[PLUGGED + k] = 1.0
    elif (home or fast) and block[FAILED + k] == 0.0:
        block[MODE + k] = FAST_CHARGING if fast else CHARGING
        count_on(block, k, c)


@inner
def follow_plans(
    block: FloatArray, tick: int, keys: Keys, start_s: float, dt: float, cycle_start: IntArray, cycle_ticks: IntArray,
    c: CellModel,
) -> float:  # fmt: skip
    """Let every vehicle whose plan says so set off, arrive or plug in; returns the tick of the block's next entry."""
    soonest = 1e18
    for k in range(LANES):
        while block[NEXT_EVENT + k] <= tick:
            vehicle, day, event = int(block[VEHICLE + k]), int(block[DAY + k]), int(block[EVENT + k])
            uses = int(block[USE + k])
            use = use_on(keys, uses, day)
            late = tick - int(block[NEXT_EVENT + k])
            if event % 2 == 0 and block[POWER_LEFT + k] > 0.0:
                cycle = trip(keys, vehicle, use, day, event // 2, dt, cycle_ticks)[2]
                block[MODE + k] = DRIVING
                block[TRACE_START + k] = cycle_start[cycle]
                block[TRACE_END + k] = cycle_start[cycle] + cycle_ticks[cycle] + 1
                block[TRACE + k] = cycle_start[cycle] + late % cycle_ticks[cycle]
                depart(block, k, keys, vehicle, use, day, event // 2)
            elif block[POWER_LEFT + k] > 0.0 or block[MODE + k] < CHARGING:  # else stopped, and on a charger: stay
                block[MODE + k] = PARKED
                block[TRACE_START + k] = 0.0
                block[TRACE_END + k] = 1.0
                block[TRACE + k] = 0.0
                arrive(block, k, keys, vehicle, use, day, event // 2, c)
            block[SPEED + k] = 0.0
            next_tick, next_day, next_event = find_event(
                keys, vehicle, uses, day, event + 1, block[UTC_OFFSET + k], start_s, dt, cycle_ticks
            )
            block[NEXT_EVENT + k] = next_tick
            block[DAY + k] = next_day
            block[EVENT + k] = next_event
        soonest = min(soonest, block[NEXT_EVENT + k])
    return soonest


@inner
def read_traces(block: FloatArray, work: FloatArray, traces: FloatArray) -> None:
    """Speed at the beginning and end of this tick. This loop over lanes gathers, so it cannot vectorise."""
    for k in range(LANES):
        position = int(block[TRACE + k])
        work[SPEED_BEFORE + k] = traces[position] * block[PACE + k]
        block[SPEED + k] = traces[position + 1] * block[PACE + k]
        following = block[TRACE + k] + 1.0
        block[TRACE + k] = following if following + 1.0 < block[TRACE_END + k] else block[TRACE_START + k]


@inner
def wheel_W(mass: float, rolling: float, drag: float, before: float, after: float, dt: float, slope: float) -> float:
    """Power at the wheels [W] of a car that goes from `before` to `after` [m/s] in dt [s]; + drives, - brakes.

    mass [kg]; rolling: coefficient; drag: 1/2 rho CdA [kg/m]; slope: rise over distance, small (a fleet's
    roads are level)
    """
    speed = 0.5 * (before + after)
    force = (
        ROTATING * mass * (after - before) / dt
        + (rolling * GRAVITY * mass if speed > 0.0 else 0.0)
        + drag * speed * speed
        + slope * GRAVITY * mass
    )
    return force * speed


@inner
def motor_W(wheel: float, speed: float, most_recovered: float) -> float:
    """What the drive draws from the pack [W] for a power at the wheels [W] at a speed [m/s]; it recovers at most
    `most_recovered` [W]."""
    recovered = max(wheel * REGENERATION_EFFICIENCY, -most_recovered) if speed > REGENERATION_MIN_MPS else 0.0
    return wheel * (1.0 / DRIVE_EFFICIENCY) if wheel > 0.0 else recovered


@inner
def ask_cells(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Write the demand rows (cell power and limits) from what each vehicle is doing, and count its distance.

    A charger that reached its end in the last step stops here, until the vehicle is unplugged.
    """
    enough = -CHARGED_C_RATE * c.nominal_Ah
    nominal, voltage_min, voltage_max = c.nominal_Ah, c.voltage_min, c.voltage_max
    inv_series = 1.0 / c.series
    for k in range(LANES):
        dt = work[DT + k]
        share = inv_series / block[PARALLEL + k]
        highest, lowest = block[V_HIGHEST + k], block[V_LOWEST + k]
        limit = voltage_max - CHARGER_MARGIN_V - highest
        full = (block[CURRENT + k] > enough) & (block[VOLTAGE + k] > limit - CHARGED_WINDOW_V)
        mode = block[MODE + k]
        mode = PARKED if (full | (block[X_N + k] > block[STOP_AT + k])) & (mode >= CHARGING) else mode
        block[MODE + k] = mode
        driving, charging, fast = mode == DRIVING, mode == CHARGING, mode == FAST_CHARGING
        before, after = work[SPEED_BEFORE + k], block[SPEED + k]
        speed = 0.5 * (before + after)
        block[ODOMETER + k] += speed * dt
        mass = block[MASS + k]
        wheel = wheel_W(mass, block[ROLLING + k], block[DRAG + k], before, after, dt, 0.0)
        at_motor = motor_W(wheel, speed, REGENERATION_MAX_W)
        # Thermal management
        celsius = block[TEMPERATURE + k] - KELVIN
        active = driving | charging | fast
        below = block[WARM_TO + k] if driving else KELVIN + (HEAT_BELOW_FAST_C if fast else HEAT_BELOW_C)
        warming = HEATER_W * clip((below - block[TEMPERATURE + k]) * (1.0 / BAND_K), 0.0, 1.0) if active else 0.0
        cooling = COOLER_W * clip((celsius - COOL_ABOVE_C) * (1.0 / BAND_K), 0.0, 1.0) if active else 0.0
        cooling = cooling * block[COOLING_HEALTH + k]
        work[PUMP + k] = (warming - cooling) * share
        managed = warming + cooling * (1.0 / COOLER_COP)
        on_the_road = at_motor + block[AUXILIARY + k] + block[CABIN + k]
        at_charger = -CHARGER_EFFICIENCY * block[CHARGER + k]
        # A parked vehicle supplies its 12 V side, until the battery is nearly empty.
        floor = block[X_EMPTY + k] + STANDBY_ABOVE * (block[X_FULL + k] - block[X_EMPTY + k])
        standby = block[PARKED_W + k] if (block[X_N + k] > floor) & (block[POWER_LEFT + k] > 0.0) else 0.0
        power = on_the_road if driving else (at_charger if charging else (-block[FAST_POWER + k] if fast else standby))
        work[POWER + k] = (power + managed) * share
        cold = (celsius - COLD_ZERO_C) * (1.0 / (COLD_FULL_C - COLD_ZERO_C))
        gentle = -CHARGE_C_RATE * nominal * clip(cold, COLD_SHARE, 1.0)
        charge_limit = -FAST_C_RATE * nominal if fast else gentle
        work[CURRENT_LOW + k] = charge_limit if active else 0.0
        work[CURRENT_HIGH + k] = 0.0 if charging | fast else DISCHARGE_C_RATE * nominal * block[POWER_LEFT + k]
        work[VOLTAGE_LOW + k] = voltage_min - lowest
        work[VOLTAGE_HIGH + k] = limit if charging | fast else voltage_max - highest
