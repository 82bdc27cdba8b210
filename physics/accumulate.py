"""What a vehicle's day was like, summed up while it is simulated (`daily.py` has the columns).

`today` is beside a block as `work` is: `today[ROW + lane]`, flat. Charge, energy and time are counted at every step and
are exact. A current is constant over a step, a voltage is that at its end. Energy, charge and current carry the gains
of the vehicle's sensors, but neither their zeros nor their noise, as `charge_cycles` does. All else is what the vehicle
reports at its looks.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.bms import sample_row
from physics.compiled import inner, kernel
from physics.constants import DAY_S
from physics.daily import FIGURES, HIGH_SOC, HOT_C, WINDOW_SOC
from physics.kernel import lookup
from physics.layout import (
    A_GAIN,
    CURRENT,
    DT,
    LANES,
    MODE,
    NOW,
    ODOMETER,
    PARALLEL,
    THROUGHPUT,
    UTC_OFFSET,
    V_GAIN,
    VOLTAGE,
)
from physics.modal import CellModel
from physics.parameters import FloatArray
from physics.vehicle import CHARGING, DRIVING, FAST_CHARGING

(
    BEGAN,  # when the day began [s since 1970]
    LOOKED_AT,  # the last look
    CYCLED,  # THROUGHPUT when the day began, and after `close_today` that of the day [Ah]
    DRIVEN,  # the same of ODOMETER [m]
    OUT,  # energy of a cell [J]
    CHARGED,
    RECUPERATED,
    DRIVING_S,
    CHARGING_S,
    FAST_S,
    MOST_OUT,  # current of a cell [A]
    MOST_IN,
    SOC_LOW,
    SOC_SUM,  # SoC times seconds
    SOC_HIGH,
    COLDEST,
    WARMTH,  # degC times seconds
    WARMEST,
    SPREAD,
    SEEN,
    FULL_S,
    HOT_S,
    PLUG_AS,  # charge of a cell in this charge so far [As]
    PLUG_V,  # at the last look, in a charge; 0 outside one
    PLUG_LOOKED_AS,
    ENTERED_AS,  # PLUG_AS where the voltage entered the window; below 0: it has not
    WINDOW_AS,
) = (row * LANES for row in range(27))
TODAY_SIZE: Final = 27 * LANES
FIGURE_COUNT: Final = len(FIGURES)
_LARGE: Final = min(k for k, column in enumerate(FIGURES) if column.type is np.float64)
assert all(column.type is np.float64 for column in FIGURES[_LARGE:])
Days = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.int32]]
"""Of the days that ended in a call: the figures that a float32 holds, the others, and the local day, with `lived`
before the first ones. Shapes (figures, slots, n_vehicles) and (2, slots, n_vehicles)."""
NO_ROW: Final = -1
"""`lived` where a vehicle has no day for a slot."""

_SOC: Final = sample_row("soc")
_COLDEST_C: Final = sample_row("cell_temperature_min")
_MEAN_C: Final = sample_row("battery_temperature")
_WARMEST_C: Final = sample_row("cell_temperature_max")
_LOWEST_V: Final = sample_row("cell_voltage_min")
_HIGHEST_V: Final = sample_row("cell_voltage_max")
_MODE: Final = sample_row("mode")
_DIAGNOSTICS: Final = sample_row("diagnostics")
_NAMES: Final = [column.name for column in FIGURES]
_ENDS_OF: Final = np.array([sample_row(column.name) if column.how == "end" else -1 for column in FIGURES])


def _figure(name: str) -> int:
    return _NAMES.index(name)


_CYCLES: Final = _figure("cycles")
_DISTANCE: Final = _figure("distance")
_OUT: Final = _figure("energy_out")
_CHARGED: Final = _figure("energy_charged")
_RECUPERATED: Final = _figure("energy_recuperated")
_PARKED_H: Final = _figure("time_parked")
_DRIVING_H: Final = _figure("time_driving")
_CHARGING_H: Final = _figure("time_charging")
_FAST_H: Final = _figure("time_fast_charging")
_OUT_A: Final = _figure("current_out_max")
_IN_A: Final = _figure("current_in_max")
_LOW_SOC: Final = _figure("soc_min")
_MEAN_SOC: Final = _figure("soc_mean")
_HIGH_SOC: Final = _figure("soc_max")
_WINDOW_AH: Final = _figure("window_charge")
_FULL_H: Final = _figure("time_soc_high")
_HOT_H: Final = _figure("time_hot")
_LOW_C: Final = _figure("temperature_min")
_MEAN_OF_C: Final = _figure("temperature_mean")
_HIGH_C: Final = _figure("temperature_max")
_SPREAD_V: Final = _figure("cell_voltage_spread")
_SEEN: Final = _figure("diagnostics")


@inner
def begin_today(today: FloatArray, block: FloatArray, k: int, now_s: float) -> None:
    """Begin the day of one vehicle anew."""
    for row in range(TODAY_SIZE // LANES):
        today[row * LANES + k] = 0.0
    today[BEGAN + k] = today[LOOKED_AT + k] = now_s
    today[CYCLED + k], today[DRIVEN + k] = block[THROUGHPUT + k], block[ODOMETER + k]
    today[SOC_LOW + k] = today[COLDEST + k] = np.inf
    today[SOC_HIGH + k] = today[WARMEST + k] = -np.inf
    today[ENTERED_AS + k] = -1.0


@kernel
def begin_days(today: FloatArray, blocks: FloatArray, now_s: float) -> None:
    """`begin_today` for all vehicles; `today` has shape (blocks, TODAY_SIZE)."""
    for j in range(blocks.shape[0]):
        for k in range(LANES):
            begin_today(today[j], blocks[j], k, now_s)


@inner
def count_step(today: FloatArray, block: FloatArray, work: FloatArray) -> None:
    """Count the step that all lanes have just made."""
    for k in range(LANES):
        dt, mode, current = work[DT + k], block[MODE + k], block[CURRENT + k]
        energy = block[VOLTAGE + k] * current * dt
        back = max(-energy, 0.0)
        driving = mode == DRIVING
        today[OUT + k] += max(energy, 0.0)
        today[CHARGED + k] += 0.0 if driving else back
        today[RECUPERATED + k] += back if driving else 0.0
        today[DRIVING_S + k] += dt if driving else 0.0
        today[CHARGING_S + k] += dt if mode == CHARGING else 0.0
        today[FAST_S + k] += dt if mode == FAST_CHARGING else 0.0
        today[PLUG_AS + k] -= current * dt if mode == CHARGING else 0.0
        today[MOST_OUT + k] = max(today[MOST_OUT + k], current)
        today[MOST_IN + k] = max(today[MOST_IN + k], -current)


@inner
def _rest_V(soc: float, c: CellModel) -> float:
    x_n = c.x_empty + soc * (c.x_full - c.x_empty)
    x_p = (c.inventory - c.q_n * x_n) / c.q_p
    voltage: float = lookup(c.tables, 1, x_p)[0] - lookup(c.tables, 0, x_n)[0]
    return voltage


@inner
def window_of(c: CellModel) -> tuple[float, float]:
    """Voltages at which `window_charge` begins and ends [V]."""
    return _rest_V(WINDOW_SOC[0], c), _rest_V(WINDOW_SOC[1], c)


@inner
def _pass_window(today: FloatArray, k: int, volt: float, low_V: float, high_V: float) -> None:
    """See where the voltage of a charge, on a straight line since the last look, entered and left the window."""
    before, charge_before, charge = today[PLUG_V + k], today[PLUG_LOOKED_AS + k], today[PLUG_AS + k]
    if 0.0 < before < volt:
        a_volt = (charge - charge_before) / (volt - before)
        if before < low_V <= volt:
            today[ENTERED_AS + k] = charge_before + (low_V - before) * a_volt
        if before < high_V <= volt and today[ENTERED_AS + k] >= 0.0:
            today[WINDOW_AS + k] = charge_before + (high_V - before) * a_volt - today[ENTERED_AS + k]
            today[ENTERED_AS + k] = -1.0
    today[PLUG_V + k], today[PLUG_LOOKED_AS + k] = volt, charge


@inner
def look(today: FloatArray, work: FloatArray, k: int, low_V: float, high_V: float) -> None:
    """Take in what one vehicle reports at NOW; nothing if no time has passed since the last look. The window of
    `window_charge` is from `low_V` to `high_V`."""
    elapsed_s = work[NOW + k] - today[LOOKED_AT + k]
    if elapsed_s > 0.0:
        today[LOOKED_AT + k] = work[NOW + k]
        soc = work[_SOC + k]
        today[SOC_LOW + k] = min(today[SOC_LOW + k], soc)
        today[SOC_SUM + k] += soc * elapsed_s
        today[SOC_HIGH + k] = max(today[SOC_HIGH + k], soc)
        today[FULL_S + k] += elapsed_s if soc >= HIGH_SOC else 0.0
        today[COLDEST + k] = min(today[COLDEST + k], work[_COLDEST_C + k])
        today[WARMTH + k] += work[_MEAN_C + k] * elapsed_s
        today[HOT_S + k] += elapsed_s if work[_MEAN_C + k] >= HOT_C else 0.0
        today[WARMEST + k] = max(today[WARMEST + k], work[_WARMEST_C + k])
        today[SPREAD + k] = max(today[SPREAD + k], work[_HIGHEST_V + k] - work[_LOWEST_V + k])
        today[SEEN + k] = float(int(today[SEEN + k]) | int(work[_DIAGNOSTICS + k]))
        if work[_MODE + k] == CHARGING:
            _pass_window(today, k, 0.5 * (work[_LOWEST_V + k] + work[_HIGHEST_V + k]), low_V, high_V)
        elif today[PLUG_AS + k] > 0.0:
            today[PLUG_AS + k] = today[PLUG_V + k] = today[PLUG_LOOKED_AS + k] = 0.0
            today[ENTERED_AS + k] = -1.0


@inner
def close_today(today: FloatArray, block: FloatArray, k: int) -> None:
    """Take the day's share of the counters that run on, once, before anything else changes them."""
    today[CYCLED + k] = block[THROUGHPUT + k] - today[CYCLED + k]
    today[DRIVEN + k] = block[ODOMETER + k] - today[DRIVEN + k]


@inner
def sum_up(today: FloatArray, block: FloatArray, work: FloatArray, k: int, c: CellModel, out: FloatArray) -> None:
    """The figures of one vehicle's day, closed and looked at, to `out`, shape (FIGURE_COUNT,)."""
    seconds = today[LOOKED_AT + k] - today[BEGAN + k]
    cells, gain_A = c.series * block[PARALLEL + k], 1.0 + block[A_GAIN + k]
    per_J = cells * gain_A * (1.0 + block[V_GAIN + k]) / 3.6e6
    out[_CYCLES] = today[CYCLED + k] * gain_A / (2.0 * c.nominal_Ah)
    out[_DISTANCE] = today[DRIVEN + k] / 1000.0
    out[_OUT] = today[OUT + k] * per_J
    out[_CHARGED] = today[CHARGED + k] * per_J
    out[_RECUPERATED] = today[RECUPERATED + k] * per_J
    active_s = today[DRIVING_S + k] + today[CHARGING_S + k] + today[FAST_S + k]
    out[_PARKED_H] = max(seconds - active_s, 0.0) / 3600.0
    out[_DRIVING_H] = today[DRIVING_S + k] / 3600.0
    out[_CHARGING_H] = today[CHARGING_S + k] / 3600.0
    out[_FAST_H] = today[FAST_S + k] / 3600.0
    out[_OUT_A] = today[MOST_OUT + k] * block[PARALLEL + k] * gain_A
    out[_IN_A] = today[MOST_IN + k] * block[PARALLEL + k] * gain_A
    out[_WINDOW_AH] = today[WINDOW_AS + k] / 3600.0 * block[PARALLEL + k] * gain_A
    out[_LOW_SOC] = today[SOC_LOW + k]
    out[_MEAN_SOC] = today[SOC_SUM + k] / seconds
    out[_HIGH_SOC] = today[SOC_HIGH + k]
    out[_FULL_H] = today[FULL_S + k] / 3600.0
    out[_HOT_H] = today[HOT_S + k] / 3600.0
    out[_LOW_C] = today[COLDEST + k]
    out[_MEAN_OF_C] = today[WARMTH + k] / seconds
    out[_HIGH_C] = today[WARMEST + k]
    out[_SPREAD_V] = today[SPREAD + k]
    out[_SEEN] = today[SEEN + k]
    for figure in range(_ENDS_OF.size):
        if _ENDS_OF[figure] >= 0:
            out[figure] = work[_ENDS_OF[figure] + k]


@inner
def put_day(days: Days, slot: int, column: int, day: int, lived: int, figures: FloatArray) -> None:
    """Write one vehicle's local day with its figures, shape (FIGURE_COUNT,)."""
    for figure in range(_LARGE):
        days[0][figure, slot, column] = figures[figure]
    for figure in range(_LARGE, figures.size):
        days[1][figure - _LARGE, slot, column] = figures[figure]
    days[2][0, slot, column] = day
    days[2][1, slot, column] = lived


def room_for_days(slots: int, vehicles: int) -> Days:
    """Empty `Days`."""
    return (
        np.zeros((_LARGE, slots, vehicles), dtype=np.float32),
        np.zeros((FIGURE_COUNT - _LARGE, slots, vehicles)),
        np.full((2, slots, vehicles), NO_ROW, dtype=np.int32),
    )


@inner
def local_day(block: FloatArray, k: int, now_s: float) -> int:
    """The local day of a vehicle, days since 1970."""
    return math.floor((now_s + block[UTC_OFFSET + k]) / DAY_S)


@inner
def next_midnight(today: FloatArray, block: FloatArray, start_s: float, dt: float) -> float:
    """The number of completed steps at which the next day of one of these vehicles ends."""
    soonest = 1e18
    for k in range(LANES):
        day = local_day(block, k, today[BEGAN + k] + 0.5 * dt)
        midnight = DAY_S * (day + 1) - block[UTC_OFFSET + k]
        soonest = min(soonest, math.ceil((midnight - start_s) / dt - 1e-6))
    return soonest
