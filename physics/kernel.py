"""The compiled heart: one step of 128 cells. Paper symbols, SI units, + discharges; modal.py derives the equations.

i     current density [A/m2]                x_n, x_p      mean stoichiometry
xs    surface stoichiometry                 g             R j/(F D c_max), the diffusion gain times current
v_T   2RT/F [V]                             eta           charge-transfer overpotential [V]
u     mean electrolyte deviation, c_e/c_0-1 b             potential across the negative surface film, U_n + eta_n [V]

Every function here loops over the lanes of one block with constant offsets; helpers are inlined. Nothing branches on a
lane: both sides are computed and one is selected, so that a lane's bits never depend on its neighbours.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np

from physics.constants import FARADAY, GAS_CONSTANT
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
    AREA,
    ASINH_N,
    ASINH_P,
    CHARGE_TRANSFER,
    CONTACT,
    COOLING_SCALE,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DECAY_E,
    DECAY_N,
    DECAY_P,
    DECAY_T,
    DRIFT,
    ENERGY_OUT,
    ENTROPY_N,
    ENTROPY_P,
    FILM,
    FLAG_POWER,
    FLAG_RANGE,
    FLAG_VOLTAGE,
    GAIN_E,
    GAIN_N,
    GAIN_P,
    HEAT,
    INV_Q_N,
    INV_Q_P,
    KINETIC_N,
    KINETIC_P,
    LANES,
    OHMIC,
    PARTICLE_MODES,
    POWER,
    Q_SEI,
    Q_SIDE,
    R_DYNAMIC,
    R_LINEAR,
    RESISTANCE_SCALE,
    SCRATCH_E,
    SCRATCH_N,
    SCRATCH_P,
    SEI_CURRENT,
    SEI_DIFFUSION,
    SEI_SCALE,
    SENSE_E,
    SENSE_N,
    SENSE_P,
    TEMPERATURE,
    THERMAL_RESISTANCE,
    THROUGHPUT,
    VOLTAGE,
    VOLTAGE_HIGH,
    VOLTAGE_LOW,
    W_N,
    W_P,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
    Y_E,
)
from physics.maths import LOOP, asinh_and_root, clip, exp, polynomial
from physics.modal import L2, STATIC_WEIGHT, TABLE_CELLS, TABLES, WEIGHT, CellModel
from physics.parameters import FloatArray

R_F: Final = GAS_CONSTANT / FARADAY
INV_R: Final = 1.0 / GAS_CONSTANT
L2_ARRAY: Final = np.array(L2)
WEIGHT_ARRAY: Final = np.array(WEIGHT)
_FLAT_TABLES: Final = np.ascontiguousarray(TABLES.reshape(-1))
_TABLE_SIZE: Final = 2 * TABLE_CELLS

X_SURFACE_MIN: Final = 1e-4
X_MEAN_MIN: Final = 2e-3  # the current is cut before a mean stoichiometry leaves [this, 1 - this]
T_HARD_MIN: Final = 200.0  # [K]
T_HARD_MAX: Final = 420.0
POWER_TOLERANCE: Final = 0.02
PLANNED_BELOW_V: Final = 1e-3  # an upper voltage limit this far below the cell's own is a charger's, not an incident


@numba.njit(**LOOP)
def piece(table: int, x: float) -> int:
    """Where the linear piece at stoichiometry x is in the flat tables."""
    return table * _TABLE_SIZE + 2 * int(clip(x, 0.0, 0.9999999) * TABLE_CELLS)


@numba.njit(**LOOP)
def lookup(table: int, x: float) -> tuple[float, float]:
    """Value and slope of a table at x."""
    k = piece(table, x)
    slope = _FLAT_TABLES[k + 1]
    return _FLAT_TABLES[k] + slope * x, slope


@numba.njit(**LOOP)
def relax(block: FloatArray, row: int, decay_row: int, lane: int, target: float) -> float:
    """One mode follows its target: w <- target + decay (w - target)."""
    w: float = target + block[decay_row + lane] * (block[row + lane] - target)
    block[row + lane] = w
    return w


@numba.njit(**LOOP)
def delivering(power: float, v_0: float, resistance: float, low: float, high: float) -> float:
    """The current in [low, high] that delivers `power` [W] when V = v_0 - R I; the one of most power if none does."""
    current = 2.0 * power / (v_0 + math.sqrt(max(v_0 * v_0 - 4.0 * resistance * power, 0.0)))
    return max(low, min(high, current))


@numba.njit(**LOOP)
def within_limits(
    current: float, v_0: float, resistance: float, v_low: float, v_high: float, empty: float, full: float
) -> float:
    """`current` reduced towards zero until V = v_0 - R I stays in [v_low, v_high] and no electrode runs out."""
    conductance = 1.0 / resistance
    most = min(max((v_0 - v_low) * conductance, 0.0), empty)
    least = max(min((v_0 - v_high) * conductance, 0.0), -full)
    return max(min(current, most), least)


@numba.njit(**LOOP)
def step_cells(block: FloatArray, dt: float, c: CellModel) -> None:
    """Advance 128 cells by dt [s] under their demand rows.

    The current solves P = V I on a forecast of the voltage at the end of the step: linear in I (ohmic, diffusion) but
    for charge transfer, whose asinh is linearised around a first guess. Then it is clipped to its limits; voltage
    limits only ever reduce it towards zero. POWER is ignored where CURRENT_LOW = CURRENT_HIGH.
    """
    table_n, table_p = c.table, c.table + 1
    t_ref, transport = c.t_ref, c.transport
    ge_n0, ge_n1, ge_n2 = c.gain_e_n
    ge_p0, ge_p1, ge_p2 = c.gain_e_p
    static_e_n, static_e_p = c.static_e_n, c.static_e_p
    u_max_n, u_max_p = c.deviation_max_n, c.deviation_max_p
    ln_n, ln_p, sqrt_n, sqrt_p = c.ln_n, c.ln_p, c.sqrt_n, c.sqrt_p
    sei_potential = c.sei_potential
    v_planned = c.voltage_max - PLANNED_BELOW_V
    t_min, t_max = c.t_min, c.t_max
    inv_dt = 1.0 / dt
    hours = dt / 3600.0
    for k in range(LANES):
        # --- the current ---------------------------------------------------------------------------------
        area = block[AREA + k]
        temperature = block[TEMPERATURE + k]
        v_t = 2.0 * R_F * temperature
        inv_q_n, inv_q_p = block[INV_Q_N + k], block[INV_Q_P + k]
        x_n, x_p = block[X_N + k], block[X_P + k]
        to_current = area * inv_dt
        empty = min((x_n - X_MEAN_MIN) / inv_q_n, (1.0 - X_MEAN_MIN - x_p) / inv_q_p) * to_current
        full = min((1.0 - X_MEAN_MIN - x_n) / inv_q_n, (x_p - X_MEAN_MIN) / inv_q_p) * to_current
        empty, full = max(empty, 0.0), max(full, 0.0)
        power = block[POWER + k]
        low, high = block[CURRENT_LOW + k], block[CURRENT_HIGH + k]
        v_low, v_high = block[VOLTAGE_LOW + k], block[VOLTAGE_HIGH + k]
        # V = v_0 - R I around the last current gives a guess; charge transfer is then linearised anew around it.
        r_linear = block[R_LINEAR + k]
        v_linear = block[VOLTAGE + k] + r_linear * block[CURRENT + k] + block[CHARGE_TRANSFER + k] + block[DRIFT + k]
        resistance = block[R_DYNAMIC + k]
        v_0 = block[VOLTAGE + k] + resistance * block[CURRENT + k] + block[DRIFT + k]
        guess = within_limits(
            delivering(power, v_0, resistance, low, high), v_0, resistance, v_low, v_high, empty, full
        )
        asinh_n, root_n = asinh_and_root(block[ASINH_N + k] * guess)
        asinh_p, root_p = asinh_and_root(block[ASINH_P + k] * guess)
        r_transfer = v_t * (block[ASINH_N + k] / root_n + block[ASINH_P + k] / root_p)
        resistance = r_linear + r_transfer
        v_0 = v_linear - v_t * (asinh_n + asinh_p) + r_transfer * guess
        current_asked = delivering(power, v_0, resistance, low, high)
        current = within_limits(current_asked, v_0, resistance, v_low, v_high, empty, full)
        i = current / area

        # --- lithium: the side reactions of the last step are paid as the charge they took ----------------
        i_n = i + block[Q_SIDE + k] * inv_dt
        x_n = x_n - dt * i_n * inv_q_n
        x_p = x_p + dt * i * inv_q_p
        g_n = -block[GAIN_N + k] * i_n
        g_p = block[GAIN_P + k] * i
        modes_n = (
            relax(block, W_N + 0 * LANES, DECAY_N + 0 * LANES, k, WEIGHT[0] * g_n)
            + relax(block, W_N + 1 * LANES, DECAY_N + 1 * LANES, k, WEIGHT[1] * g_n)
            + relax(block, W_N + 2 * LANES, DECAY_N + 2 * LANES, k, WEIGHT[2] * g_n)
            + relax(block, W_N + 3 * LANES, DECAY_N + 3 * LANES, k, WEIGHT[3] * g_n)
            + relax(block, W_N + 4 * LANES, DECAY_N + 4 * LANES, k, WEIGHT[4] * g_n)
            + relax(block, W_N + 5 * LANES, DECAY_N + 5 * LANES, k, WEIGHT[5] * g_n)
        )
        modes_p = (
            relax(block, W_P + 0 * LANES, DECAY_P + 0 * LANES, k, WEIGHT[0] * g_p)
            + relax(block, W_P + 1 * LANES, DECAY_P + 1 * LANES, k, WEIGHT[1] * g_p)
            + relax(block, W_P + 2 * LANES, DECAY_P + 2 * LANES, k, WEIGHT[2] * g_p)
            + relax(block, W_P + 3 * LANES, DECAY_P + 3 * LANES, k, WEIGHT[3] * g_p)
            + relax(block, W_P + 4 * LANES, DECAY_P + 4 * LANES, k, WEIGHT[4] * g_p)
            + relax(block, W_P + 5 * LANES, DECAY_P + 5 * LANES, k, WEIGHT[5] * g_p)
        )
        xs_n_free = x_n + modes_n + STATIC_WEIGHT * g_n
        xs_p_free = x_p + modes_p + STATIC_WEIGHT * g_p
        xs_n = clip(xs_n_free, X_SURFACE_MIN, 1.0 - X_SURFACE_MIN)
        xs_p = clip(xs_p_free, X_SURFACE_MIN, 1.0 - X_SURFACE_MIN)

        # --- electrolyte ----------------------------------------------------------------------------------
        i_e = i * block[GAIN_E + k]
        y_0 = relax(block, Y_E + 0 * LANES, DECAY_E + 0 * LANES, k, i_e)
        y_1 = relax(block, Y_E + 1 * LANES, DECAY_E + 1 * LANES, k, i_e)
        y_2 = relax(block, Y_E + 2 * LANES, DECAY_E + 2 * LANES, k, i_e)
        u_n_free = ge_n0 * y_0 + ge_n1 * y_1 + ge_n2 * y_2 + static_e_n * i_e
        u_p_free = ge_p0 * y_0 + ge_p1 * y_1 + ge_p2 * y_2 + static_e_p * i_e
        u_n = clip(u_n_free, -u_max_n, u_max_n)
        u_p = clip(u_p_free, -u_max_p, u_max_p)

        # --- voltage --------------------------------------------------------------------------------------
        entropy_n, entropy_p = block[ENTROPY_N + k], block[ENTROPY_P + k]
        ocp_n, slope_n = lookup(table_n, xs_n)
        ocp_p, slope_p = lookup(table_p, xs_p)
        ocp_n = ocp_n + (temperature - t_ref) * entropy_n
        ocp_p = ocp_p + (temperature - t_ref) * entropy_p
        per_current_n = block[KINETIC_N + k] / (polynomial(sqrt_n, u_n) * math.sqrt(xs_n * (1.0 - xs_n)))
        per_current_p = block[KINETIC_P + k] / (polynomial(sqrt_p, u_p) * math.sqrt(xs_p * (1.0 - xs_p)))
        asinh_n, root_n = asinh_and_root(per_current_n * i_n)
        asinh_p, root_p = asinh_and_root(per_current_p * i)
        eta_n = v_t * asinh_n
        eta = eta_n + v_t * asinh_p
        concentration = v_t * transport * (polynomial(ln_p, u_p) - polynomial(ln_n, u_n))
        ohmic, film = block[OHMIC + k], block[FILM + k]
        voltage = ocp_p - ocp_n - eta - i * ohmic - i_n * film + concentration
        inv_area = 1.0 / area
        r_linear_new = (
            ohmic
            + film
            - slope_n * block[SENSE_N + k]
            - slope_p * block[SENSE_P + k]
            + temperature * block[SENSE_E + k]
        ) * inv_area
        r_transfer_new = v_t * (per_current_n / root_n + per_current_p / root_p) * inv_area
        # What the forecast missed is mostly relaxation, which goes on: expect half of it again.
        missed = voltage + r_linear * current + eta - v_linear
        block[DRIFT + k] = block[DRIFT + k] + 0.5 * missed

        # --- heat -----------------------------------------------------------------------------------------
        heat = current * (ocp_p - ocp_n - voltage) + current * temperature * (entropy_n - entropy_p)
        t_end = block[AMBIENT + k] + heat * block[THERMAL_RESISTANCE + k]
        t_free = t_end + block[DECAY_T + k] * (temperature - t_end)
        t_new = clip(t_free, T_HARD_MIN, T_HARD_MAX)

        # --- SEI ------------------------------------------------------------------------------------------
        b = ocp_n + eta_n
        reaction = exp((sei_potential - b) / v_t)
        q_side = dt * block[SEI_CURRENT + k] * reaction / (1.0 + block[SEI_DIFFUSION + k] * reaction)

        # --- write back -----------------------------------------------------------------------------------
        block[X_N + k] = x_n
        block[X_P + k] = x_p
        block[TEMPERATURE + k] = t_new
        block[Q_SIDE + k] = q_side
        block[Q_SEI + k] = block[Q_SEI + k] + q_side
        block[CURRENT + k] = current
        block[VOLTAGE + k] = voltage
        block[R_DYNAMIC + k] = r_linear_new + r_transfer_new
        block[R_LINEAR + k] = r_linear_new
        block[CHARGE_TRANSFER + k] = eta
        block[ASINH_N + k] = per_current_n * inv_area
        block[ASINH_P + k] = per_current_p * inv_area
        block[HEAT + k] = heat
        block[THROUGHPUT + k] = block[THROUGHPUT + k] + abs(current) * hours
        block[ENERGY_OUT + k] = block[ENERGY_OUT + k] + voltage * current * dt
        inside = (
            (xs_n == xs_n_free)
            & (xs_p == xs_p_free)
            & (u_n == u_n_free)
            & (u_p == u_p_free)
            & (t_new > t_min)
            & (t_new < t_max)
        )
        block[FLAG_RANGE + k] = block[FLAG_RANGE + k] if inside else 1.0
        # A charger's own constant voltage below the cell's limit is no incident.
        planned = (current < 0.0) & (v_high < v_planned)
        block[FLAG_VOLTAGE + k] = block[FLAG_VOLTAGE + k] if (current == current_asked) | planned else 1.0
        short = voltage * current < (1.0 - POWER_TOLERANCE) * power
        block[FLAG_POWER + k] = 1.0 if short & (power > 0.0) else block[FLAG_POWER + k]


@numba.njit(**LOOP)
def refresh_cells(block: FloatArray, dt: float, c: CellModel) -> None:
    """Recompute what depends on temperature and on slow states. Called on ticks divisible by `refresh_ticks`."""
    for k in range(LANES):
        t = block[TEMPERATURE + k]
        inverse_t = INV_R * (1.0 / c.t_ref - 1.0 / t)
        scale = block[RESISTANCE_SCALE + k]
        active_n, active_p = block[ACTIVE_N + k], block[ACTIVE_P + k]
        faster_n = exp(c.e_diffusion_n * inverse_t)
        faster_p = exp(c.e_diffusion_p * inverse_t)
        faster_e = exp(c.e_electrolyte * inverse_t)
        block[SCRATCH_N + k] = -dt * faster_n / c.tau_n
        block[SCRATCH_P + k] = -dt * faster_p / c.tau_p
        block[SCRATCH_E + k] = -dt * faster_e
        inv_q_n = 1.0 / (c.q_n * active_n)
        inv_q_p = 1.0 / (c.q_p * active_p)
        block[INV_Q_N + k] = inv_q_n
        block[INV_Q_P + k] = inv_q_p
        block[GAIN_N + k] = c.tau_n * inv_q_n / (3.0 * faster_n)
        block[GAIN_P + k] = c.tau_p * inv_q_p / (3.0 * faster_p)
        block[GAIN_E + k] = 1.0 / faster_e
        block[KINETIC_N + k] = scale * c.kinetic_n / (active_n * exp(c.e_kinetic_n * inverse_t))
        block[KINETIC_P + k] = scale * c.kinetic_p / (active_p * exp(c.e_kinetic_p * inverse_t))
        length = block[Q_SEI + k] * c.sei_length
        pores = max(1.0 - c.area_n * (length - c.sei_initial) / c.porosity_n, 0.05)
        slower_pores = 1.0 / (pores * math.sqrt(pores))
        block[OHMIC + k] = (
            scale
            * ((c.r_electrolyte_n * slower_pores + c.r_electrolyte_sp) * exp(-c.e_conductivity * inverse_t) + c.r_solid)
            + block[CONTACT + k]
        )
        block[FILM + k] = c.sei_resistance * length
        block[SEI_CURRENT + k] = block[SEI_SCALE + k] * c.sei_current * exp(c.e_sei * inverse_t)
        block[SEI_DIFFUSION + k] = c.sei_rate_over_diffusivity * length
        block[THERMAL_RESISTANCE + k] = 1.0 / (c.cooling * block[COOLING_SCALE + k])
        block[DECAY_T + k] = exp(-dt * c.cooling * block[COOLING_SCALE + k] / c.heat_capacity)
        block[SENSE_N + k] = dt * inv_q_n + block[GAIN_N + k] * STATIC_WEIGHT
        block[SENSE_P + k] = dt * inv_q_p + block[GAIN_P + k] * STATIC_WEIGHT
        block[SENSE_E + k] = c.static_e_n - c.static_e_p
    for mode in range(PARTICLE_MODES):
        row = mode * LANES
        for k in range(LANES):
            block[DECAY_N + row + k] = exp(L2_ARRAY[mode] * block[SCRATCH_N + k])
        for k in range(LANES):
            block[DECAY_P + row + k] = exp(L2_ARRAY[mode] * block[SCRATCH_P + k])
        for k in range(LANES):
            block[SENSE_N + k] += block[GAIN_N + k] * WEIGHT_ARRAY[mode] * (1.0 - block[DECAY_N + row + k])
        for k in range(LANES):
            block[SENSE_P + k] += block[GAIN_P + k] * WEIGHT_ARRAY[mode] * (1.0 - block[DECAY_P + row + k])
    for k in range(LANES):
        for mode in range(3):
            decay = exp(c.rate_e[mode] * block[SCRATCH_E + k])
            block[DECAY_E + mode * LANES + k] = decay
            block[SENSE_E + k] += (c.gain_e_n[mode] - c.gain_e_p[mode]) * (1.0 - decay)
    for k in range(LANES):
        block[SENSE_E + k] *= 2.0 * R_F * c.transport * block[GAIN_E + k]
        block[ENTROPY_N + k] = lookup(c.table + 2, clip(block[X_N + k], 0.0, 1.0))[0]
        block[ENTROPY_P + k] = lookup(c.table + 3, clip(block[X_P + k], 0.0, 1.0))[0]


@numba.njit(**LOOP)
def rest_cells(block: FloatArray, c: CellModel) -> None:
    """Put cells at rest: modes relaxed, no current, voltage at equilibrium at their temperature."""
    for row in range(PARTICLE_MODES):
        for k in range(LANES):
            block[W_N + row * LANES + k] = 0.0
            block[W_P + row * LANES + k] = 0.0
    for row in range(3):
        for k in range(LANES):
            block[Y_E + row * LANES + k] = 0.0
    for k in range(LANES):
        warmer = block[TEMPERATURE + k] - c.t_ref
        ocp_p = lookup(c.table + 1, block[X_P + k])[0] + warmer * lookup(c.table + 3, block[X_P + k])[0]
        ocp_n = lookup(c.table, block[X_N + k])[0] + warmer * lookup(c.table + 2, block[X_N + k])[0]
        block[VOLTAGE + k] = ocp_p - ocp_n
        # First guesses, until the first step computes them.
        block[R_DYNAMIC + k] = 0.025 * c.area / block[AREA + k]
        block[R_LINEAR + k] = 0.015 * c.area / block[AREA + k]
        block[CHARGE_TRANSFER + k] = 0.0
        block[ASINH_N + k] = c.kinetic_n / block[AREA + k]
        block[ASINH_P + k] = c.kinetic_p / block[AREA + k]
        block[CURRENT + k] = 0.0
        block[DRIFT + k] = 0.0
        block[Q_SIDE + k] = 0.0


@numba.njit(**LOOP)
def refresh_capacity(block: FloatArray, c: CellModel) -> None:
    """Follow the stoichiometries at the voltage limits (at rest, 25 degC) as lithium is lost: one Newton step.

    From one refresh to the next they move by less than 1e-6, so one step from the last value is exact to rounding.
    """
    for k in range(LANES):
        q_n = c.q_n * block[ACTIVE_N + k]
        q_p = c.q_p * block[ACTIVE_P + k]
        inventory = q_n * block[X_N + k] + q_p * block[X_P + k] - block[Q_SIDE + k]
        for upper in range(2):
            x = block[X_FULL + k] if upper == 1 else block[X_EMPTY + k]
            target = c.voltage_max if upper == 1 else c.voltage_min
            ocp_n, slope_n = lookup(c.table, x)
            ocp_p, slope_p = lookup(c.table + 1, (inventory - q_n * x) / q_p)
            newton = (target - ocp_p + ocp_n) / (-slope_n - slope_p * q_n / q_p)
            x = clip(x + clip(newton, -0.01, 0.01), X_SURFACE_MIN, 1.0 - X_SURFACE_MIN)
            if upper == 1:
                block[X_FULL + k] = x
            else:
                block[X_EMPTY + k] = x


@numba.njit(**LOOP)
def soc_of(block: FloatArray, lane: int) -> float:
    """State of charge: between the aged cell's own limits, 0 to 1."""
    x_empty = block[X_EMPTY + lane]
    soc: float = clip((block[X_N + lane] - x_empty) / (block[X_FULL + lane] - x_empty), 0.0, 1.0)
    return soc


@numba.njit(**LOOP)
def soh_of(block: FloatArray, lane: int, c: CellModel) -> float:
    """State of health: capacity at rest between the voltage limits over that of the fresh cell."""
    soh: float = block[ACTIVE_N + lane] * (block[X_FULL + lane] - block[X_EMPTY + lane]) / (c.x_full - c.x_empty)
    return soh
