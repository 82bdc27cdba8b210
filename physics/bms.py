"""The battery management system (BMS): what a vehicle knows of its battery and reports. `sensors.py` has the figures.

Truth goes in, telemetry comes out. The BMS never acts on the cells here; charging limits are the cell's own.

State of charge is counted from the measured current and believed capacity (`SOC_BMS`, with a standard deviation
`SOC_SD` that grows with charge and time). After an hour at rest the voltage is compared with the BMS's table of
open-circuit voltages, that of the fresh cell: one step of an extended Kalman filter (Plett 2004, J. Power Sources 134,
277, doi 10.1016/j.jpowsour.2004.02.033). Where the table is flat the correction is small, so an LFP pack drifts. At the
end of a full charge the count is set to 1.

Faulty sensors leave these traces (sign: reading less truth):
voltage      the pack's own sensor only. The cell monitor is another one, as are its channels
current      what is left after the BMS has zeroed the sensor at a stop, which it does up to `ZEROED_A`
temperature  one of the probes: the mean by an eighth, and minimum or maximum where that probe is the coldest or warmest
A drift ends at `faults.DRIFT_MAX_*`, and no reading leaves its sensor's range.

The codes are set, and stay set, when (thresholds are set by judgement, not fitted):
voltage_sensor      the pack's reading is `PACK_WRONG_V` away from the sum of the cells
current_sensor      the sensor's zero is beyond `ZEROED_A`
temperature_sensor  one probe is `PROBE_WRONG_K` away from the others after `SOAKED_S` at rest
cell_imbalance      the cell groups are `IMBALANCE_V` apart at rest
over_temperature    the warmest probe reads more than `HOT_C`
isolation           the resistance to the chassis is below `ISOLATION_OHM_V` times the pack's voltage (UN R100)
cell_undervoltage   the BMS has stopped the vehicle, for its weakest cell group
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from physics.columns import DIAGNOSTICS, FLAGS, NAMES, PER_UNIT
from physics.compiled import inner
from physics.constants import DAY_S, FARADAY, GAS_CONSTANT, KELVIN
from physics.faults import NOT_STUCK, hottest_K
from physics.kernel import PORES_MIN, lookup, soc_of, soh_of
from physics.layout import (
    A_GAIN,
    A_WRONG,
    A_ZERO,
    ACTIVE_N,
    ACTIVE_P,
    AIR_ZERO,
    AMBIENT,
    AREA,
    CELL_GAIN,
    CELL_HIGH_ZERO,
    CELL_LOW_ZERO,
    CELL_WRONG,
    CODES,
    CONTACT,
    COUNTED,
    COUNTED_AT,
    CURRENT,
    DEAD,
    FAILED,
    FILM_SCALE,
    FLAG_POWER,
    FLAG_VOLTAGE,
    HOT_SHARE,
    ISOLATION,
    K_GAIN,
    K_HIGH_ZERO,
    K_LOW_ZERO,
    K_STUCK,
    K_WRONG,
    K_ZERO,
    LANES,
    MODE,
    NOISE,
    NOISE_KEY,
    NOW,
    ODOMETER,
    PARALLEL,
    PLATED,
    POWER_LEFT,
    Q_SEI,
    R_GAIN,
    R_PULSE,
    R_PULSE_25,
    RESISTANCE_SCALE,
    RESTED,
    SAMPLE,
    SERIES_OHM,
    SLOPE_N,
    SLOPE_P,
    SOC_BIAS,
    SOC_BMS,
    SOC_SD,
    SOH_BIAS,
    SOH_BMS,
    SPEED,
    TEMPERATURE,
    THROUGHPUT,
    V_GAIN,
    V_HIGHEST,
    V_LOWEST,
    V_WRONG,
    V_ZERO,
    VOLTAGE,
    X_N,
    X_P,
)
from physics.maths import asinh_and_root, clip, exp
from physics.modal import L2, STATIC_WEIGHT, WEIGHT, CellModel
from physics.parameters import FloatArray
from physics.rng import mix, normals, uniforms
from physics.sensors import LIMIT_SD, PROBES, SOH_FIXED, Sensors

PULSE_S: Final = 10.0
PULSES_EVERY: Final = 10
"""Minutes between two estimates of the resistance."""
ZEROED_A: Final = 1.0
A_RANGE: Final = 1000.0
LOWEST_C: Final = -40.0
HIGHEST_C: Final = 125.0
CELL_RANGE_V: Final = 5.0
PACK_RANGE: Final = 1.2
"""Range of the pack's voltage sensor over the pack's highest voltage."""
RESTING_C_RATE: Final = 0.005
FULL_V: Final = 0.012
"""A charge is full when the highest group is this close to its limit and the current below `FULL_C_RATE`."""
FULL_C_RATE: Final = 0.1
FULL_SD: Final = 0.003
DRAINS_A_DAY: Final = 0.002
"""What the BMS allows for per day that no sensor sees, as SoC."""
PACK_WRONG_V: Final = 5.0
PROBE_WRONG_K: Final = 10.0
SOAKED_S: Final = 6.0 * 3600.0
IMBALANCE_V: Final = 0.15
HOT_C: Final = 60.0
ISOLATION_OHM_V: Final = 100.0

_VOLTAGE: Final = float(FLAGS["voltage_limited"])
_POWER: Final = float(FLAGS["power_not_met"])
_RUNAWAY: Final = float(FLAGS["thermal_runaway"])
_REDUCED: Final = float(FLAGS["power_reduced"])
_STOPPED: Final = float(FLAGS["stopped"])
_CODES: Final = tuple(DIAGNOSTICS.values())
_STRIDE: Final = np.uint64(0x632BE59BD9B4E019)  # of the noise's key from one millisecond to the next


def sample_row(name: str) -> int:
    """Offset of a column's row in `work`."""
    return SAMPLE + NAMES.index(name) * LANES


_SOC: Final = sample_row("soc")
_SOH: Final = sample_row("soh")
_PACK_V: Final = sample_row("battery_voltage")
_PACK_A: Final = sample_row("battery_current")
_CELL_C: Final = sample_row("battery_temperature")
_CYCLES: Final = sample_row("charge_cycles")
_POWER_kW: Final = sample_row("power_consumption")
_LOWEST_V: Final = sample_row("cell_voltage_min")
_HIGHEST_V: Final = sample_row("cell_voltage_max")
_COLDEST_C: Final = sample_row("cell_temperature_min")
_HOTTEST_C: Final = sample_row("cell_temperature_max")
_PACK_OHM: Final = sample_row("resistance")
_PACK_OHM_25: Final = sample_row("resistance_25")
_AIR_C: Final = sample_row("ambient_temperature")
_MODE: Final = sample_row("mode")
_SPEED_kmh: Final = sample_row("driving_speed")
_ODOMETER_km: Final = sample_row("distance_traveled")
_FLAGS: Final = sample_row("flags")
_DIAGNOSTICS: Final = sample_row("diagnostics")


class Bms(NamedTuple):
    """The compiled kernel's view of a profile: standard deviations of noise, and what the estimates go by."""

    knows_all: float
    noise_V: float
    noise_A: float
    noise_cell_V: float
    noise_K: float
    gain_A: float
    zero_A: float
    rest_s: float
    ocv_V: float
    soh_s: float
    steps: FloatArray
    """Resolution steps in one unit of each column, shape (columns,)."""


def bms_of(sensors: Sensors) -> Bms:
    """The compiled kernel's view of a profile."""
    s = sensors
    return Bms(
        knows_all=float(s.knows_all),
        noise_V=s.pack_voltage.noise,
        noise_A=s.pack_current.noise,
        noise_cell_V=s.cell_voltage.noise,
        noise_K=s.temperature.noise,
        gain_A=s.pack_current.gain,
        zero_A=s.pack_current.offset,
        rest_s=s.soc.rest_hours * 3600.0,
        ocv_V=s.soc.ocv,
        soh_s=s.soh.days * DAY_S,
        steps=s.steps(),
    )


@dataclass(frozen=True)
class SensorErrors:
    """How the sensors of each vehicle err, in the order of layout's SENSORS rows: every array has shape (n,)."""

    key: FloatArray
    v_gain: FloatArray
    v_zero: FloatArray
    a_gain: FloatArray
    a_zero: FloatArray
    cell_gain: FloatArray
    cell_low_zero: FloatArray
    cell_high_zero: FloatArray
    k_gain: FloatArray
    k_zero: FloatArray
    k_low_zero: FloatArray
    k_high_zero: FloatArray
    air_zero: FloatArray
    soc_bias: FloatArray
    soh_bias: FloatArray
    r_gain: FloatArray


def draw_errors(seed: int, vehicle: npt.NDArray[np.int64], sensors: Sensors) -> SensorErrors:
    """Draw how the sensors of vehicles err, by their indices in the fleet, shape (n,)."""
    s = sensors

    def normal(stream: int, sd: float, mean: float = 0.0) -> FloatArray:
        return mean + sd * normals(seed, stream, vehicle, limit=LIMIT_SD)

    fixed = uniforms(seed, 40, vehicle) < s.soh.fixed
    return SensorErrors(
        key=np.floor(uniforms(seed, 41, vehicle) * 2.0**53),
        v_gain=normal(42, s.pack_voltage.gain),
        v_zero=normal(43, s.pack_voltage.offset),
        a_gain=normal(44, s.pack_current.gain),
        a_zero=normal(45, s.pack_current.offset),
        cell_gain=normal(55, s.cell_voltage.gain),
        cell_low_zero=normal(46, s.cell_voltage.offset),
        cell_high_zero=normal(47, s.cell_voltage.offset),
        k_gain=normal(56, s.temperature.gain),
        # The mean is of several probes, each off by its own.
        k_zero=normal(48, s.temperature.offset / math.sqrt(PROBES)),
        k_low_zero=normal(49, s.temperature.offset),
        k_high_zero=normal(50, s.temperature.offset),
        air_zero=normal(51, s.temperature.offset),
        soc_bias=normal(52, s.soc.spread, s.soc.bias),
        soh_bias=np.where(fixed, SOH_FIXED, normal(53, s.soh.spread)),
        r_gain=normal(54, s.resistance.gain),
    )


@inner
def pulse_resistance(
    block: FloatArray, k: int, t: float, x_n: float, x_p: float, slope_n: float, slope_p: float, c: CellModel
) -> float:
    """Resistance of a cell [Ohm]: voltage lost over a discharge pulse of `PULSE_S` at 1C over its current, at
    temperature t [K] and mean stoichiometries x_n, x_p, from rest. The open-circuit potentials [V] are taken to be
    straight, of slopes slope_n, slope_p."""
    scale = block[RESISTANCE_SCALE + k]
    active_n, active_p = block[ACTIVE_N + k], block[ACTIVE_P + k]
    area = block[AREA + k]
    inverse_t = (1.0 / c.t_ref - 1.0 / t) / GAS_CONSTANT
    faster_n, faster_p = exp(c.e_diffusion_n * inverse_t), exp(c.e_diffusion_p * inverse_t)
    faster_e = exp(c.e_electrolyte * inverse_t)
    tau_n, tau_p = PULSE_S * faster_n / c.tau_n, PULSE_S * faster_p / c.tau_p
    # The response of a sphere's surface to a unit step of g: 3 tau is the mean, the modes are the rest.
    surface_n, surface_p = 3.0 * tau_n + STATIC_WEIGHT, 3.0 * tau_p + STATIC_WEIGHT
    surface_n += WEIGHT[0] * (1.0 - exp(-L2[0] * tau_n)) + WEIGHT[1] * (1.0 - exp(-L2[1] * tau_n))
    surface_n += WEIGHT[2] * (1.0 - exp(-L2[2] * tau_n)) + WEIGHT[3] * (1.0 - exp(-L2[3] * tau_n))
    surface_n += WEIGHT[4] * (1.0 - exp(-L2[4] * tau_n)) + WEIGHT[5] * (1.0 - exp(-L2[5] * tau_n))
    surface_p += WEIGHT[0] * (1.0 - exp(-L2[0] * tau_p)) + WEIGHT[1] * (1.0 - exp(-L2[1] * tau_p))
    surface_p += WEIGHT[2] * (1.0 - exp(-L2[2] * tau_p)) + WEIGHT[3] * (1.0 - exp(-L2[3] * tau_p))
    surface_p += WEIGHT[4] * (1.0 - exp(-L2[4] * tau_p)) + WEIGHT[5] * (1.0 - exp(-L2[5] * tau_p))
    gain_n = c.tau_n / (3.0 * faster_n * c.q_n * active_n)
    gain_p = c.tau_p / (3.0 * faster_p * c.q_p * active_p)
    diffusion = -slope_n * gain_n * surface_n - slope_p * gain_p * surface_p
    salt = c.static_e_n - c.static_e_p
    salt += (c.gain_e_n[0] - c.gain_e_p[0]) * (1.0 - exp(-c.rate_e[0] * faster_e * PULSE_S))
    salt += (c.gain_e_n[1] - c.gain_e_p[1]) * (1.0 - exp(-c.rate_e[1] * faster_e * PULSE_S))
    salt += (c.gain_e_n[2] - c.gain_e_p[2]) * (1.0 - exp(-c.rate_e[2] * faster_e * PULSE_S))
    v_t = 2.0 * GAS_CONSTANT / FARADAY * t
    length = block[Q_SEI + k] * c.sei_length / active_n
    metal = c.plated_volume * (block[PLATED + k] + block[DEAD + k])
    pores = max(1.0 - active_n * (c.area_n * (length - c.sei_initial) + metal) / c.porosity_n, PORES_MIN)
    worse_salt = exp(-c.e_conductivity * inverse_t)
    ohmic = c.r_electrolyte_n * worse_salt / (pores * math.sqrt(pores)) + c.r_electrolyte_sp * worse_salt + c.r_solid
    i = c.nominal_Ah / area
    per_n = scale * c.kinetic_n / (active_n * exp(c.e_kinetic_n * inverse_t) * math.sqrt(x_n * (1.0 - x_n)))
    per_p = scale * c.kinetic_p / (active_p * exp(c.e_kinetic_p * inverse_t) * math.sqrt(x_p * (1.0 - x_p)))
    transfer = v_t * (asinh_and_root(per_n * i)[0] + asinh_and_root(per_p * i)[0]) / i
    film = block[FILM_SCALE + k] * c.sei_resistance * length / active_n
    whole = scale * ohmic + block[CONTACT + k] + film + transfer + diffusion + v_t * c.transport * salt / faster_e
    resistance: float = whole / area
    return resistance


@inner
def capacity_C_of(c: CellModel) -> float:
    """Charge of a fresh nominal cell between its voltage limits at rest [C]."""
    capacity: float = c.area * c.q_n * (c.x_full - c.x_empty)
    return capacity


@inner
def _zero_A(block: FloatArray, k: int) -> float:
    """What the current sensor reads at no current [A, pack], after the BMS has zeroed what it can of a fault."""
    wrong = block[A_WRONG + k]
    zero: float = block[A_ZERO + k] + wrong - clip(wrong, -ZEROED_A, ZEROED_A)
    return zero


@inner
def _probe_K(block: FloatArray, celsius: float, k: int) -> float:
    """What a faulty temperature probe reads too much [K]."""
    stuck = block[K_STUCK + k]
    off: float = block[K_WRONG + k] if stuck == NOT_STUCK else stuck - celsius
    return off


@inner
def _soh_in_the_end(block: FloatArray, k: int, c: CellModel) -> float:
    """The state of health at which a BMS's estimate would settle: off by its bias, or always 1."""
    biased = clip(soh_of(block, k, c) * (1.0 + block[SOH_BIAS + k]), 0.0, 1.0)
    soh: float = 1.0 if block[SOH_BIAS + k] == SOH_FIXED else biased
    return soh


@inner
def begin_bms(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """What the BMS believes at the beginning: right but for its own biases."""
    measure_pulses(block, work, c)
    for k in range(LANES):
        block[SOC_BMS + k] = clip(soc_of(block, k) + block[SOC_BIAS + k], 0.0, 1.0)
        block[SOC_SD + k] = 0.02
        block[SOH_BMS + k] = _soh_in_the_end(block, k, c)


@inner
def measure_pulses(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """The resistances that the BMS reports. Only the first loop gathers from tables, so the others vectorise."""
    for k in range(LANES):
        work[SLOPE_N + k] = lookup(c.tables, 0, block[X_N + k])[1]
        work[SLOPE_P + k] = lookup(c.tables, 1, block[X_P + k])[1]
    for k in range(LANES):
        x_n, x_p, slope_n, slope_p = block[X_N + k], block[X_P + k], work[SLOPE_N + k], work[SLOPE_P + k]
        block[R_PULSE + k] = pulse_resistance(block, k, block[TEMPERATURE + k], x_n, x_p, slope_n, slope_p, c)
    for k in range(LANES):
        x_n, x_p, slope_n, slope_p = block[X_N + k], block[X_P + k], work[SLOPE_N + k], work[SLOPE_P + k]
        block[R_PULSE_25 + k] = pulse_resistance(block, k, c.t_ref, x_n, x_p, slope_n, slope_p, c)


@inner
def learn_soh(block: FloatArray, k: int, elapsed_s: float, s: Bms, c: CellModel) -> None:
    """Let the BMS's state of health follow the capacity, as far off as it is for this vehicle."""
    target = _soh_in_the_end(block, k, c)
    block[SOH_BMS + k] += (1.0 - exp(-elapsed_s / s.soh_s)) * (target - block[SOH_BMS + k])


@inner
def update_vehicle(block: FloatArray, work: FloatArray, k: int, s: Bms, c: CellModel) -> None:
    """Count, correct, check: everything one vehicle's BMS does about every simulated minute, at NOW."""
    capacity_C = capacity_C_of(c)
    span = c.x_full - c.x_empty
    per_soc = c.q_n / c.q_p * span
    resting_A = RESTING_C_RATE * c.nominal_Ah
    full_A = FULL_C_RATE * c.nominal_Ah
    now_s = work[NOW + k]
    elapsed_s = now_s - block[COUNTED_AT + k]
    block[COUNTED_AT + k] = now_s
    zero_A = _zero_A(block, k)
    current, voltage = block[CURRENT + k], block[VOLTAGE + k]
    inv_capacity = 1.0 / (capacity_C * block[SOH_BMS + k])

    # --- count ------------------------------------------------------------------------------------------
    charge = block[COUNTED + k]
    block[COUNTED + k] = 0.0
    soc = block[SOC_BMS + k]
    soc -= (charge * (1.0 + block[A_GAIN + k]) + zero_A / block[PARALLEL + k] * elapsed_s) * inv_capacity
    sd = block[SOC_SD + k]
    sd += (s.gain_A * abs(charge) + s.zero_A / block[PARALLEL + k] * elapsed_s) * inv_capacity
    sd += DRAINS_A_DAY * elapsed_s * (1.0 / DAY_S)

    # --- correct: one step of the filter after each rest ------------------------------------------------
    resting = abs(current) < resting_A
    rested = block[RESTED + k] + elapsed_s if resting else 0.0
    due = (rested >= s.rest_s) & (block[RESTED + k] < s.rest_s)
    block[RESTED + k] = rested
    by_table = clip(soc - block[SOC_BIAS + k], 0.0, 1.0)
    x_n = c.x_empty + by_table * span
    x_p = (c.inventory - c.q_n * x_n) / c.q_p
    ocp_n, slope_n = lookup(c.tables, 0, x_n)
    ocp_p, slope_p = lookup(c.tables, 1, x_p)
    per_V = -slope_p * per_soc - slope_n * span  # dU/dSoC
    missed_V = voltage + 0.5 * (block[CELL_LOW_ZERO + k] + block[CELL_HIGH_ZERO + k]) - (ocp_p - ocp_n)
    variance = sd * sd
    weight = variance * per_V / (per_V * per_V * variance + s.ocv_V * s.ocv_V)
    soc += weight * missed_V if due else 0.0
    sd = sd * math.sqrt(max(1.0 - weight * per_V, 0.0)) if due else sd

    # --- full -------------------------------------------------------------------------------------------
    full = (voltage + block[V_HIGHEST + k] > c.voltage_max - FULL_V) & (current > -full_A) & (current <= 0.0)
    block[SOC_BMS + k] = 1.0 if full else clip(soc, 0.0, 1.0)
    block[SOC_SD + k] = FULL_SD if full else min(sd, 0.3)
    learn_soh(block, k, elapsed_s, s, c)

    # --- check ------------------------------------------------------------------------------------------
    pack_V = block[V_GAIN + k] * voltage * c.series + block[V_ZERO + k] + block[V_WRONG + k]
    pack_V -= block[SERIES_OHM + k] * current * block[PARALLEL + k]
    celsius = block[TEMPERATURE + k] - KELVIN
    probe_K = _probe_K(block, celsius, k)
    hottest = hottest_K(block, k) - KELVIN + block[K_HIGH_ZERO + k]
    spread_V = block[V_HIGHEST + k] - block[V_LOWEST + k] + block[CELL_HIGH_ZERO + k] - block[CELL_LOW_ZERO + k]
    spread_V -= block[CELL_WRONG + k]
    found = _CODES[0] * (1.0 if abs(pack_V) > PACK_WRONG_V else 0.0)
    found += _CODES[1] * (1.0 if abs(block[A_WRONG + k]) > ZEROED_A else 0.0)
    found += _CODES[2] * (1.0 if (abs(probe_K) > PROBE_WRONG_K) & (rested > SOAKED_S) else 0.0)
    found += _CODES[3] * (1.0 if (abs(spread_V) > IMBALANCE_V) & resting else 0.0)
    found += _CODES[4] * (1.0 if hottest > HOT_C else 0.0)
    found += _CODES[5] * (1.0 if block[ISOLATION + k] * ISOLATION_OHM_V * voltage * c.series > 1.0 else 0.0)
    found += _CODES[6] * (1.0 if block[POWER_LEFT + k] == 0.0 else 0.0)
    block[CODES + k] = float(int(block[CODES + k]) | int(found))


@inner
def update_bms(block: FloatArray, work: FloatArray, s: Bms, c: CellModel) -> None:
    """`update_vehicle` for all lanes."""
    for k in range(LANES):
        update_vehicle(block, work, k, s, c)


@inner
def _draw_noise(block: FloatArray, work: FloatArray) -> None:
    """Fill the eight NOISE rows with noises of unit standard deviation. Each is the sum of two bytes of a random word,
    which depends on the vehicle and on NOW."""
    for k in range(LANES):
        word = mix(np.uint64(block[NOISE_KEY + k]) + np.uint64(work[NOW + k] * 1000.0) * _STRIDE)
        for row in range(4):
            work[NOISE + row * LANES + k] = _two_bytes(word >> np.uint64(16 * row))
        word = mix(word)
        for row in range(4):
            work[NOISE + (4 + row) * LANES + k] = _two_bytes(word >> np.uint64(16 * row))


@inner
def _two_bytes(word: np.uint64) -> float:
    low, high = int(word & np.uint64(0xFF)), int((word >> np.uint64(8)) & np.uint64(0xFF))
    return (float(low + high) - 255.0) * (1.0 / 104.511)


@inner
def report(block: FloatArray, work: FloatArray, s: Bms, c: CellModel) -> None:
    """Write what 128 vehicles report at NOW to the SAMPLE rows, as their sensors and their BMS have it."""
    capacity_C = capacity_C_of(c)
    highest_V = PACK_RANGE * c.voltage_max * c.series
    _draw_noise(block, work)
    for k in range(LANES):
        now_s = work[NOW + k]
        voltage, current = block[VOLTAGE + k], block[CURRENT + k]
        celsius = block[TEMPERATURE + k] - KELVIN
        zero_A = _zero_A(block, k)
        off_V = block[V_ZERO + k] + block[V_WRONG + k] + s.noise_V * work[NOISE + 0 * LANES + k]
        off_V -= block[SERIES_OHM + k] * current * block[PARALLEL + k]
        pack_V = clip(voltage * c.series * (1.0 + block[V_GAIN + k]) + off_V, 0.0, highest_V)
        pack_A = (
            current * block[PARALLEL + k] * (1.0 + block[A_GAIN + k]) + zero_A + s.noise_A * work[NOISE + 1 * LANES + k]
        )
        pack_A = clip(pack_A, -A_RANGE, A_RANGE)
        work[_PACK_V + k] = pack_V
        work[_PACK_A + k] = pack_A
        work[_POWER_kW + k] = pack_V * pack_A * (1.0 / 1000.0)
        # Of the faulty probe: what it reads, and how far it pulls the mean.
        off_K = _probe_K(block, celsius, k)
        bad = off_K != 0.0
        warm_K = block[K_GAIN + k] * (celsius - 25.0)
        cooler = block[HOT_SHARE + k] * max(block[TEMPERATURE + k] - block[AMBIENT + k], 0.0)
        probe_C = celsius + off_K
        coldest = celsius - cooler + warm_K + block[K_LOW_ZERO + k] + s.noise_K * work[NOISE + 2 * LANES + k]
        hottest = (
            hottest_K(block, k) - KELVIN + warm_K + block[K_HIGH_ZERO + k] + s.noise_K * work[NOISE + 3 * LANES + k]
        )
        mean = celsius + off_K * (1.0 / PROBES) + warm_K + block[K_ZERO + k] + s.noise_K * work[NOISE + 4 * LANES + k]
        low_C, high_C = min(coldest, hottest), max(coldest, hottest)
        low_C = clip(min(low_C, probe_C) if bad else low_C, LOWEST_C, HIGHEST_C)
        high_C = clip(max(high_C, probe_C) if bad else high_C, LOWEST_C, HIGHEST_C)
        work[_COLDEST_C + k] = low_C
        work[_HOTTEST_C + k] = high_C
        work[_CELL_C + k] = clip(mean, low_C, high_C)  # as any mean of readings
        lowest = (voltage + block[V_LOWEST + k]) * (1.0 + block[CELL_GAIN + k]) + block[CELL_LOW_ZERO + k]
        lowest += block[CELL_WRONG + k]
        highest = (voltage + block[V_HIGHEST + k]) * (1.0 + block[CELL_GAIN + k]) + block[CELL_HIGH_ZERO + k]
        lowest += s.noise_cell_V * work[NOISE + 5 * LANES + k]
        highest += s.noise_cell_V * work[NOISE + 6 * LANES + k]
        work[_LOWEST_V + k] = clip(min(lowest, highest), 0.0, CELL_RANGE_V)
        work[_HIGHEST_V + k] = clip(max(lowest, highest), 0.0, CELL_RANGE_V)
        air = block[AMBIENT + k] - KELVIN
        air += block[K_GAIN + k] * (air - 25.0) + block[AIR_ZERO + k] + s.noise_K * work[NOISE + 7 * LANES + k]
        work[_AIR_C + k] = clip(air, LOWEST_C, HIGHEST_C)
        since_s = now_s - block[COUNTED_AT + k]
        pending = block[COUNTED + k] * (1.0 + block[A_GAIN + k]) + zero_A / block[PARALLEL + k] * since_s
        counted = clip(block[SOC_BMS + k] - pending / (capacity_C * block[SOH_BMS + k]), 0.0, 1.0)
        work[_SOC + k] = soc_of(block, k) if s.knows_all > 0.5 else counted
        work[_SOH + k] = soh_of(block, k, c) if s.knows_all > 0.5 else block[SOH_BMS + k]
        work[_CYCLES + k] = block[THROUGHPUT + k] * (1.0 + block[A_GAIN + k]) / (2.0 * c.nominal_Ah)
        per_pack = (1.0 + block[R_GAIN + k]) * c.series / block[PARALLEL + k]
        work[_PACK_OHM + k] = block[R_PULSE + k] * per_pack
        work[_PACK_OHM_25 + k] = block[R_PULSE_25 + k] * per_pack
        work[_MODE + k] = block[MODE + k]
        work[_SPEED_kmh + k] = block[SPEED + k] * 3.6
        work[_ODOMETER_km + k] = block[ODOMETER + k] / 1000.0
        flags = _VOLTAGE * block[FLAG_VOLTAGE + k] + _POWER * block[FLAG_POWER + k] + _RUNAWAY * block[FAILED + k]
        flags += _REDUCED if block[POWER_LEFT + k] < 1.0 else 0.0
        work[_FLAGS + k] = flags + (_STOPPED if block[POWER_LEFT + k] == 0.0 else 0.0)
        work[_DIAGNOSTICS + k] = block[CODES + k]
    for column in range(PER_UNIT.size):
        # The division gives the float64 closest to the decimal, so its text form is short.
        steps = s.steps[column]
        for k in range(SAMPLE + column * LANES, SAMPLE + (column + 1) * LANES):
            work[k] = np.rint(work[k] * steps) / steps


@inner
def clear_flags(block: FloatArray, k: int) -> None:
    """Clear what a vehicle's flags have collected, after a sample."""
    block[FLAG_VOLTAGE + k] = 0.0
    block[FLAG_POWER + k] = 0.0
