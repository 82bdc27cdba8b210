"""The compiled core: one step of 128 cells. Paper symbols, SI units, + discharges. modal.py derives the equations.

i     current density [A/m2]                x_n, x_p      mean stoichiometry
xs    surface stoichiometry                 g             R j/(F D c_max), the diffusion gain times current
v_T   2RT/F [V]                             eta           charge-transfer overpotential [V]
u     mean electrolyte deviation, c_e/c_0-1 b             potential across the negative surface film, U_n + eta_n [V]

`block` holds what persists from step to step; `work` holds a step's inputs and scratch (layout.py). Every function here
loops over the lanes of one block with constant offsets; helpers are inlined. Nothing branches on a lane: both sides are
computed and one is selected, so that a lane's bits never depend on its neighbours. A step is three loops, because the
middle one gathers from the tables of the open-circuit potentials and so cannot vectorise.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from physics.compiled import inner
from physics.constants import FARADAY, GAS_CONSTANT
from physics.dryout import wet, wetted
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
    AREA,
    ASINH_N,
    ASINH_P,
    ASKED,
    CHARGE_TRANSFER,
    CONTACT,
    COOLING_SCALE,
    COUNTED,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DEAD,
    DECAY_E,
    DECAY_N,
    DECAY_P,
    DECAY_T,
    DRIFT,
    DT,
    DYING,
    ENERGY_OUT,
    ENTHALPY,
    ENTROPY_N,
    ENTROPY_P,
    FILM,
    FILM_SCALE,
    FLAG_POWER,
    FLAG_RANGE,
    FLAG_VOLTAGE,
    FLUX_N,
    GAIN_E,
    GAIN_N,
    GAIN_P,
    HEAT,
    HYSTERESIS_N,
    HYSTERESIS_P,
    INSIDE,
    INV_Q_N,
    INV_Q_P,
    KINETIC_N,
    KINETIC_P,
    LAM_N,
    LAM_P,
    LANES,
    LEAK,
    OCP_N,
    OCP_P,
    OHMIC,
    PARTICLE_MODES,
    PLATE,
    PLATED,
    POWER,
    PUMP,
    Q_LAM,
    Q_SEI,
    Q_SIDE,
    R_DYNAMIC,
    R_LINEAR,
    RESISTANCE_SCALE,
    SALT_N,
    SALT_P,
    SCRATCH_E,
    SCRATCH_N,
    SCRATCH_P,
    SEI_CURRENT,
    SEI_DIFFUSION,
    SEI_EXTRA,
    SEI_SCALE,
    SENSE_E,
    SENSE_N,
    SENSE_P,
    SLOPE_N,
    SLOPE_P,
    SPREAD_OHM,
    SPREAD_SALT,
    STRIP,
    SURFACE_N,
    SURFACE_P,
    TEMPERATURE,
    THERMAL_RESISTANCE,
    THROUGHPUT,
    V_LINEAR,
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
from physics.maths import asinh_and_root, clip, exp, polynomial
from physics.modal import GRID_CELLS, L2, STATIC_WEIGHT, TABLE_CELLS, WEIGHT, CellModel
from physics.parameters import FloatArray

R_F: Final = GAS_CONSTANT / FARADAY
INV_R: Final = 1.0 / GAS_CONSTANT
L2_ARRAY: Final = np.array(L2)
WEIGHT_ARRAY: Final = np.array(WEIGHT)

X_SURFACE_MIN: Final = 1e-4
X_MEAN_MIN: Final = 2e-3  # the current is cut before a mean stoichiometry leaves [this, 1 - this]
ACTIVE_MIN: Final = 0.1  # of the fresh active material: by then the cell has long been dead
PORES_MIN: Final = 0.05  # share of the fresh pores that films never fill
T_HARD_MIN: Final = 200.0  # [K]
T_HARD_MAX: Final = 420.0
POWER_TOLERANCE: Final = 0.02
PLANNED_BELOW_V: Final = 1e-3  # an upper limit this far below the cell's own is a charger's and raises no flag


@inner
def lookup(tables: FloatArray, table: int, x: float) -> tuple[float, float]:
    """Value and slope at x of one of a cell's tables: 0 U_n, 1 U_p, 2 dU_n/dT, 3 dU_p/dT."""
    k = table % 2 * (4 * TABLE_CELLS) + table // 2 * 2 + 4 * int(clip(x, 0.0, 0.9999999) * TABLE_CELLS)
    slope = tables[k + 1]
    return tables[k] + slope * x, slope


@inner
def relax(block: FloatArray, row: int, decay_row: int, lane: int, target: float) -> float:
    """One mode follows its target: w <- target + decay (w - target)."""
    w: float = target + block[decay_row + lane] * (block[row + lane] - target)
    block[row + lane] = w
    return w


@inner
def delivering(power: float, v_0: float, resistance: float, low: float, high: float) -> float:
    """The current in [low, high] that delivers `power` [W] when V = v_0 - R I; the one of most power if none does."""
    current = 2.0 * power / (v_0 + math.sqrt(max(v_0 * v_0 - 4.0 * resistance * power, 0.0)))
    return max(low, min(high, current))


@inner
def within_limits(
    current: float, v_0: float, resistance: float, v_low: float, v_high: float, empty: float, full: float
) -> float:
    """`current` reduced towards zero until V = v_0 - R I stays in [v_low, v_high] and no electrode runs out."""
    conductance = 1.0 / resistance
    most = min(max((v_0 - v_low) * conductance, 0.0), empty)
    least = max(min((v_0 - v_high) * conductance, 0.0), -full)
    return max(min(current, most), least)


@inner
def _currents_and_lithium(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """First third of a step: the current, then lithium in the particles and salt in the electrolyte."""
    ge_n0, ge_n1, ge_n2 = c.gain_e_n
    ge_p0, ge_p1, ge_p2 = c.gain_e_p
    static_e_n, static_e_p = c.static_e_n, c.static_e_p
    u_max_n, u_max_p = c.deviation_max_n, c.deviation_max_p
    for k in range(LANES):
        dt = work[DT + k]
        inv_dt = 1.0 / dt
        area = block[AREA + k]
        v_t = 2.0 * R_F * block[TEMPERATURE + k]
        inv_q_n, inv_q_p = block[INV_Q_N + k], block[INV_Q_P + k]
        x_n, x_p = block[X_N + k], block[X_P + k]
        to_current = area * inv_dt
        q_side = block[Q_SIDE + k]
        empty = min((x_n - X_MEAN_MIN) / inv_q_n - q_side, (1.0 - X_MEAN_MIN - x_p) / inv_q_p) * to_current
        full = min((1.0 - X_MEAN_MIN - x_n) / inv_q_n + q_side, (x_p - X_MEAN_MIN) / inv_q_p) * to_current
        empty, full = max(empty, 0.0), max(full, 0.0)
        power = work[POWER + k]
        low, high = work[CURRENT_LOW + k], work[CURRENT_HIGH + k]
        v_low, v_high = work[VOLTAGE_LOW + k], work[VOLTAGE_HIGH + k]
        # V = v_0 - R I around the last current gives a guess; charge transfer is then linearised anew around it.
        r_linear = block[R_LINEAR + k]
        v_linear = block[VOLTAGE + k] + r_linear * block[CURRENT + k] + block[CHARGE_TRANSFER + k] + block[DRIFT + k]
        resistance = block[R_DYNAMIC + k]
        v_0 = block[VOLTAGE + k] + resistance * block[CURRENT + k] + block[DRIFT + k]
        guess = within_limits(
            delivering(power, v_0, resistance, low, high), v_0, resistance, v_low, v_high, empty, full
        )
        # Besides the terminal current, an internal short draws on both electrodes and side reactions draw on one.
        short = block[LEAK + k] * block[VOLTAGE + k]
        aside = short + q_side * to_current
        asinh_n, root_n = asinh_and_root(block[ASINH_N + k] * (guess + aside))
        asinh_p, root_p = asinh_and_root(block[ASINH_P + k] * (guess + short))
        r_transfer = v_t * (block[ASINH_N + k] / root_n + block[ASINH_P + k] / root_p)
        resistance = r_linear + r_transfer
        v_0 = v_linear - v_t * (asinh_n + asinh_p) + r_transfer * guess
        asked = delivering(power, v_0, resistance, low, high)
        current = within_limits(asked, v_0, resistance, v_low, v_high, empty, full)
        i = (current + short) / area

        # --- lithium: the charge that side reactions took in the last step is deducted now ----------------
        i_n = i + q_side * inv_dt
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
        inside = (xs_n == xs_n_free) & (xs_p == xs_p_free) & (u_n == u_n_free) & (u_p == u_p_free)

        # --- loss of active material: tensile stress, where the surface is emptier than the mean ------------
        tension_n = max(x_n - xs_n, 0.0)
        tension_p = max(x_p - xs_p, 0.0)
        active_n, active_p = block[ACTIVE_N + k], block[ACTIVE_P + k]
        lost_n = min(dt * block[LAM_N + k] * tension_n * tension_n, active_n - ACTIVE_MIN)
        lost_p = min(dt * block[LAM_P + k] * tension_p * tension_p, active_p - ACTIVE_MIN)
        active_n, active_p = active_n - lost_n, active_p - lost_p
        block[ACTIVE_N + k] = active_n
        block[ACTIVE_P + k] = active_p
        block[INV_Q_N + k] = 1.0 / (c.q_n * active_n)  # not left to the refresh, so lithium balances at every step
        block[INV_Q_P + k] = 1.0 / (c.q_p * active_p)
        block[Q_LAM + k] = block[Q_LAM + k] + lost_n * c.q_n * x_n + lost_p * c.q_p * x_p

        block[X_N + k] = x_n
        block[X_P + k] = x_p
        block[CURRENT + k] = current
        work[ASKED + k] = asked
        work[V_LINEAR + k] = v_linear
        work[FLUX_N + k] = i_n
        work[SURFACE_N + k] = xs_n
        work[SURFACE_P + k] = xs_p
        work[SALT_N + k] = u_n
        work[SALT_P + k] = u_p
        work[INSIDE + k] = 1.0 if inside else 0.0


@inner
def _enthalpy(tables: FloatArray, electrode: int, x: float, t_ref: float) -> float:
    """U - T dU/dT of an electrode at x [V], which does not depend on temperature."""
    return lookup(tables, electrode, x)[0] - t_ref * lookup(tables, 2 + electrode, x)[0]


@inner
def _look_up(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Second third: open-circuit potentials, their slopes and entropic changes at the surface stoichiometries. And the
    enthalpy at the mean ones."""
    tables, t_ref = c.tables, c.t_ref
    for k in range(LANES):
        work[ENTROPY_N + k] = lookup(tables, 2, work[SURFACE_N + k])[0]
        work[ENTROPY_P + k] = lookup(tables, 3, work[SURFACE_P + k])[0]
        work[OCP_N + k], work[SLOPE_N + k] = lookup(tables, 0, work[SURFACE_N + k])
        work[OCP_P + k], work[SLOPE_P + k] = lookup(tables, 1, work[SURFACE_P + k])
        work[ENTHALPY + k] = _enthalpy(tables, 1, block[X_P + k], t_ref) - _enthalpy(tables, 0, block[X_N + k], t_ref)


@inner
def along(pieces: FloatArray, electrode: int, x: float) -> tuple[float, float]:
    """Value and slope at x of `CellModel.gaps` or `exchange`. `electrode` 0: negative, 1: positive."""
    k = electrode * (2 * TABLE_CELLS) + 2 * int(clip(x, 0.0, 0.9999999) * TABLE_CELLS)
    slope = pieces[k + 1]
    return pieces[k] + slope * x, slope


@inner
def towards_branch(h: float, given: float, decay: float) -> float:
    """State of a hysteresis after its electrode gave this much lithium, as stoichiometry (took it, where below 0)."""
    branch = 1.0 if given > 0.0 else -1.0
    moved: float = branch + exp(-0.5 * decay * abs(given)) * (h - branch)
    return moved


@inner
def follow_hysteresis(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Correct what `_look_up` found midway; only for cells with a hysteresis. Its states follow the step's charge."""
    for k in range(LANES):
        dt = work[DT + k]
        i = (block[CURRENT + k] + block[LEAK + k] * block[VOLTAGE + k]) / block[AREA + k]
        h_n = towards_branch(block[HYSTERESIS_N + k], dt * work[FLUX_N + k] * block[INV_Q_N + k], c.decay_n)
        h_p = towards_branch(block[HYSTERESIS_P + k], -dt * i * block[INV_Q_P + k], c.decay_p)
        gap_n, slope_n = along(c.gaps, 0, work[SURFACE_N + k])
        gap_p, slope_p = along(c.gaps, 1, work[SURFACE_P + k])
        work[OCP_N + k] += h_n * gap_n
        work[OCP_P + k] += h_p * gap_p
        work[SLOPE_N + k] += h_n * slope_n
        work[SLOPE_P + k] += h_p * slope_p
        block[HYSTERESIS_N + k] = h_n
        block[HYSTERESIS_P + k] = h_p


@inner
def _voltage_heat_and_aging(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Last third: voltage, heat, side reactions, counters, flags."""
    t_ref, transport = c.t_ref, c.transport
    ln_n, ln_p, sqrt_n, sqrt_p = c.ln_n, c.ln_p, c.sqrt_n, c.sqrt_p
    v_planned = c.voltage_max - PLANNED_BELOW_V
    t_min, t_max = c.t_min, c.t_max
    for k in range(LANES):
        dt = work[DT + k]
        inv_area = 1.0 / block[AREA + k]
        temperature, current = block[TEMPERATURE + k], block[CURRENT + k]
        i = (current + block[LEAK + k] * block[VOLTAGE + k]) * inv_area
        i_n = work[FLUX_N + k]
        v_t = 2.0 * R_F * temperature
        xs_n, xs_p = work[SURFACE_N + k], work[SURFACE_P + k]
        u_n, u_p = work[SALT_N + k], work[SALT_P + k]

        # --- voltage --------------------------------------------------------------------------------------
        entropy_n, entropy_p = work[ENTROPY_N + k], work[ENTROPY_P + k]
        ocp_n = work[OCP_N + k] + (temperature - t_ref) * entropy_n
        ocp_p = work[OCP_P + k] + (temperature - t_ref) * entropy_p
        per_current_n = block[KINETIC_N + k] / (polynomial(sqrt_n, u_n) * math.sqrt(xs_n * (1.0 - xs_n)))
        per_current_p = block[KINETIC_P + k] / (polynomial(sqrt_p, u_p) * math.sqrt(xs_p * (1.0 - xs_p)))
        asinh_n, root_n = asinh_and_root(per_current_n * i_n)
        asinh_p, root_p = asinh_and_root(per_current_p * i)
        eta_n = v_t * asinh_n
        eta = eta_n + v_t * asinh_p
        concentration = v_t * transport * (polynomial(ln_p, u_p) - polynomial(ln_n, u_n))
        ohmic, film = block[OHMIC + k], block[FILM + k]
        voltage = ocp_p - ocp_n - eta - i * ohmic - i_n * film + concentration
        r_linear_new = (
            ohmic
            + film
            - work[SLOPE_N + k] * block[SENSE_N + k]
            - work[SLOPE_P + k] * block[SENSE_P + k]
            + temperature * block[SENSE_E + k]
        ) * inv_area
        r_transfer_new = v_t * (per_current_n / root_n + per_current_p / root_p) * inv_area
        # What the forecast missed is mostly relaxation, which continues: expect half of it again.
        missed = voltage + block[R_LINEAR + k] * current + eta - work[V_LINEAR + k]
        block[DRIFT + k] = block[DRIFT + k] + 0.5 * missed

        # --- heat, by the first law: the enthalpy that the reaction gives off, less what leaves at the terminals ----
        heat = (current + block[LEAK + k] * block[VOLTAGE + k]) * work[ENTHALPY + k] - current * voltage
        t_end = block[AMBIENT + k] + (heat + work[PUMP + k]) * block[THERMAL_RESISTANCE + k]
        t_free = t_end + block[DECAY_T + k] * (temperature - t_end)
        t_new = clip(t_free, T_HARD_MIN, T_HARD_MAX)

        # --- side reactions: SEI ~ exp(-10 z), plating ~ exp(-13 z), stripping ~ exp(7 z), z = F b/(20 RT) ---
        b = ocp_n + eta_n
        up = exp(0.1 * b / v_t)
        down = 1.0 / up
        down_2 = down * down
        down_4 = down_2 * down_2
        down_10 = down_4 * down_4 * down_2
        down_13 = down_10 * down_2 * down
        up_2 = up * up
        up_7 = up_2 * up_2 * up_2 * up
        q_sei = dt * block[SEI_CURRENT + k] * down_10 / (1.0 + block[SEI_DIFFUSION + k] * down_10)
        # Plating averages c_e exp(-0.65 F b/RT) over the electrode: b and c_e are parabolas s^2 - 1/3 of depth s.
        salt = block[SPREAD_SALT + k] * block[Y_E + 1 * LANES + k]
        spread = i * block[SPREAD_OHM + k] + v_t * transport * salt / (1.0 + u_n)
        y = clip(1.3 * spread / v_t, -2.0, 2.0)
        uneven = (1.0 + u_n) * (1.0 + y * y * (4.0 / 90.0 - y * (16.0 / 5670.0))) + salt * y * (4.0 / 45.0)
        plated = block[PLATED + k]
        # Plating takes at most what the charging current brings. Stripping returns at most what the particles can take.
        most = max(-i, 0.0) + block[PLATE + k]
        deposit = dt * min(block[PLATE + k] * down_13 * max(uneven, 0.0), most)
        room = 0.5 * max(1.0 - X_MEAN_MIN - block[X_N + k], 0.0) / block[INV_Q_N + k]
        dying = dt * block[DYING + k]
        plated_new = max((plated + deposit) / (1.0 + dt * block[STRIP + k] * up_7 + dying), plated - room)
        died = dying * plated_new
        q_side = q_sei + plated_new - plated + died

        # --- write back -----------------------------------------------------------------------------------
        block[TEMPERATURE + k] = t_new
        block[Q_SIDE + k] = q_side
        block[Q_SEI + k] = block[Q_SEI + k] + q_sei
        block[PLATED + k] = plated_new
        block[DEAD + k] = block[DEAD + k] + died
        block[VOLTAGE + k] = voltage
        block[R_DYNAMIC + k] = r_linear_new + r_transfer_new
        block[R_LINEAR + k] = r_linear_new
        block[CHARGE_TRANSFER + k] = eta
        block[ASINH_N + k] = per_current_n * inv_area
        block[ASINH_P + k] = per_current_p * inv_area
        block[HEAT + k] = heat
        block[COUNTED + k] = block[COUNTED + k] + current * dt
        block[THROUGHPUT + k] = block[THROUGHPUT + k] + abs(current) * dt * (1.0 / 3600.0)
        block[ENERGY_OUT + k] = block[ENERGY_OUT + k] + voltage * current * dt
        inside = (work[INSIDE + k] > 0.5) & (t_new > t_min) & (t_new < t_max)
        block[FLAG_RANGE + k] = block[FLAG_RANGE + k] if inside else 1.0
        # A charger's own constant voltage below the cell's limit raises no flag.
        planned = (current < 0.0) & (work[VOLTAGE_HIGH + k] < v_planned)
        unlimited = (current == work[ASKED + k]) | planned
        block[FLAG_VOLTAGE + k] = block[FLAG_VOLTAGE + k] if unlimited else 1.0
        power = work[POWER + k]
        missing = voltage * current < (1.0 - POWER_TOLERANCE) * power
        block[FLAG_POWER + k] = 1.0 if missing & (power > 0.0) else block[FLAG_POWER + k]


@inner
def step_cells(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Advance 128 cells, each by its DT, under their demand rows.

    The current solves P = V I on a forecast of the voltage at the end of the step. The forecast is linear in I for
    ohmic loss and diffusion; the asinh of charge transfer is linearised around a first guess. The current is then
    clipped to its limits. Voltage limits only ever reduce it towards zero. POWER is ignored where CURRENT_LOW =
    CURRENT_HIGH.
    """
    _currents_and_lithium(block, work, c)
    _look_up(block, work, c)
    if c.gaps.size > 0:
        follow_hysteresis(block, work, c)
    _voltage_heat_and_aging(block, work, c)


@inner
def surface_without_current(block: FloatArray, lane: int, x_row: int, w_row: int) -> float:
    """Surface stoichiometry, less its quasi-static part."""
    surface: float = block[x_row + lane]
    for mode in range(PARTICLE_MODES):
        surface += block[w_row + mode * LANES + lane]
    return surface


@inner
def effective_diffusivity(
    block: FloatArray, tables: FloatArray, lane: int, x_row: int, w_row: int, table: int
) -> float:
    """D/D_ref of a particle whose diffusivity depends on stoichiometry, for its modes: bilinear in x and x_surf, from
    the tables of `modal.steady_diffusivity`. `table` 0: negative, 1: positive."""
    x, surface = block[x_row + lane], surface_without_current(block, lane, x_row, w_row)
    at_x, at_surface = GRID_CELLS * clip(x, 0.0, 0.9999999), GRID_CELLS * clip(surface, 0.0, 0.9999999)
    row, column = int(at_x), int(at_surface)
    k = 8 * TABLE_CELLS + (table * (GRID_CELLS + 1) + row) * (GRID_CELLS + 1) + column
    across = at_surface - column
    near = tables[k] + across * (tables[k + 1] - tables[k])
    k += GRID_CELLS + 1
    far = tables[k] + across * (tables[k + 1] - tables[k])
    relative: float = near + (at_x - row) * (far - near)
    return relative


@inner
def vary_diffusivity(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Correct what `refresh_cells` computed with D_ref; only for cells whose diffusivity depends on stoichiometry."""
    for k in range(LANES):
        relative = effective_diffusivity(block, c.tables, k, X_N, W_N, 0)
        work[SCRATCH_N + k] *= relative
        block[GAIN_N + k] /= relative
        block[SENSE_N + k] = work[DT + k] * block[INV_Q_N + k] + block[GAIN_N + k] * STATIC_WEIGHT
        relative = effective_diffusivity(block, c.tables, k, X_P, W_P, 1)
        work[SCRATCH_P + k] *= relative
        block[GAIN_P + k] /= relative
        block[SENSE_P + k] = work[DT + k] * block[INV_Q_P + k] + block[GAIN_P + k] * STATIC_WEIGHT


@inner
def vary_exchange(block: FloatArray, c: CellModel) -> None:
    """The same for cells whose exchange rates depend on stoichiometry."""
    for k in range(LANES):
        block[KINETIC_N + k] /= along(c.exchange, 0, surface_without_current(block, k, X_N, W_N))[0]
        block[KINETIC_P + k] /= along(c.exchange, 1, surface_without_current(block, k, X_P, W_P))[0]


@inner
def refresh_cells(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Recompute what depends on temperature, on slow states and on the length of a step, for steps of DT."""
    for k in range(LANES):
        dt = work[DT + k]
        t = block[TEMPERATURE + k]
        inverse_t = INV_R * (1.0 / c.t_ref - 1.0 / t)
        scale = block[RESISTANCE_SCALE + k]
        active_n, active_p = block[ACTIVE_N + k], block[ACTIVE_P + k]
        faster_n = exp(c.e_diffusion_n * inverse_t)
        faster_p = exp(c.e_diffusion_p * inverse_t)
        faster_e = exp(c.e_electrolyte * inverse_t)
        work[SCRATCH_N + k] = -dt * faster_n / c.tau_n
        work[SCRATCH_P + k] = -dt * faster_p / c.tau_p
        work[SCRATCH_E + k] = -dt * faster_e
        inv_q_n = 1.0 / (c.q_n * active_n)
        inv_q_p = 1.0 / (c.q_p * active_p)
        block[INV_Q_N + k] = inv_q_n
        block[INV_Q_P + k] = inv_q_p
        block[GAIN_N + k] = c.tau_n * inv_q_n / (3.0 * faster_n)
        block[GAIN_P + k] = c.tau_p * inv_q_p / (3.0 * faster_p)
        block[GAIN_E + k] = 1.0 / faster_e
        block[KINETIC_N + k] = scale * c.kinetic_n / (active_n * exp(c.e_kinetic_n * inverse_t))
        block[KINETIC_P + k] = scale * c.kinetic_p / (active_p * exp(c.e_kinetic_p * inverse_t))
        length = block[Q_SEI + k] * c.sei_length / active_n
        metal = c.plated_volume * (block[PLATED + k] + block[DEAD + k])
        filled = active_n * (c.area_n * (length - c.sei_initial) + metal)
        pores = max(1.0 - filled / c.porosity_n, PORES_MIN)
        slower_pores = 1.0 / (pores * math.sqrt(pores))
        worse_salt = exp(-c.e_conductivity * inverse_t)
        ohmic_n = c.r_electrolyte_n * slower_pores * worse_salt
        block[OHMIC + k] = scale * (ohmic_n + c.r_electrolyte_sp * worse_salt + c.r_solid) + block[CONTACT + k]
        block[FILM + k] = block[FILM_SCALE + k] * c.sei_resistance * length / active_n
        # exp(F 0.4 V/2RT): the rates that follow are those at b = 0.
        at_zero = exp(c.sei_potential / (2.0 * R_F * t))
        reaction = exp(c.e_sei * inverse_t) * at_zero
        block[SEI_CURRENT + k] = (
            block[SEI_SCALE + k] * (1.0 + block[SEI_EXTRA + k]) * c.sei_current * active_n * reaction
        )
        block[SEI_DIFFUSION + k] = c.sei_rate_over_diffusivity * length * reaction * exp(-c.e_sei_diffusion * inverse_t)
        block[PLATE + k] = c.plating_current * active_n
        block[STRIP + k] = c.stripping * active_n
        block[DYING + k] = c.dead_rate * c.sei_initial / length
        block[SPREAD_OHM + k] = 1.5 * ohmic_n
        block[SPREAD_SALT + k] = c.spread_salt * slower_pores
        wet(block, k, c)
        block[LAM_N + k] = c.lam_n * exp(c.e_lam_n * inverse_t)
        block[LAM_P + k] = c.lam_p * exp(c.e_lam_p * inverse_t)
        block[THERMAL_RESISTANCE + k] = 1.0 / (c.cooling * block[COOLING_SCALE + k])
        block[DECAY_T + k] = exp(-dt * c.cooling * block[COOLING_SCALE + k] / c.heat_capacity)
        block[SENSE_N + k] = dt * inv_q_n + block[GAIN_N + k] * STATIC_WEIGHT
        block[SENSE_P + k] = dt * inv_q_p + block[GAIN_P + k] * STATIC_WEIGHT
        block[SENSE_E + k] = c.static_e_n - c.static_e_p
    if c.varying_diffusivity:
        vary_diffusivity(block, work, c)
    if c.exchange.size > 0:
        vary_exchange(block, c)
    for mode in range(PARTICLE_MODES):
        row = mode * LANES
        for k in range(LANES):
            block[DECAY_N + row + k] = exp(L2_ARRAY[mode] * work[SCRATCH_N + k])
        for k in range(LANES):
            block[DECAY_P + row + k] = exp(L2_ARRAY[mode] * work[SCRATCH_P + k])
        for k in range(LANES):
            block[SENSE_N + k] += block[GAIN_N + k] * WEIGHT_ARRAY[mode] * (1.0 - block[DECAY_N + row + k])
        for k in range(LANES):
            block[SENSE_P + k] += block[GAIN_P + k] * WEIGHT_ARRAY[mode] * (1.0 - block[DECAY_P + row + k])
    for k in range(LANES):
        for mode in range(3):
            decay = exp(c.rate_e[mode] * work[SCRATCH_E + k])
            block[DECAY_E + mode * LANES + k] = decay
            block[SENSE_E + k] += (c.gain_e_n[mode] - c.gain_e_p[mode]) * (1.0 - decay)
    for k in range(LANES):
        block[SENSE_E + k] *= 2.0 * R_F * c.transport * block[GAIN_E + k]


@inner
def rest_cells(block: FloatArray, c: CellModel) -> None:
    """Put cells at rest: modes relaxed, no current, voltage at equilibrium at their temperature; as wet as they are and
    as far between the branches of a hysteresis."""
    for row in range(PARTICLE_MODES):
        for k in range(LANES):
            block[W_N + row * LANES + k] = 0.0
            block[W_P + row * LANES + k] = 0.0
    for row in range(3):
        for k in range(LANES):
            block[Y_E + row * LANES + k] = 0.0
    for k in range(LANES):
        wet(block, k, c)
        warmer = block[TEMPERATURE + k] - c.t_ref
        ocp_p = lookup(c.tables, 1, block[X_P + k])[0] + warmer * lookup(c.tables, 3, block[X_P + k])[0]
        ocp_n = lookup(c.tables, 0, block[X_N + k])[0] + warmer * lookup(c.tables, 2, block[X_N + k])[0]
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
    if c.gaps.size > 0:
        for k in range(LANES):
            gap_n, gap_p = along(c.gaps, 0, block[X_N + k])[0], along(c.gaps, 1, block[X_P + k])[0]
            block[VOLTAGE + k] += block[HYSTERESIS_P + k] * gap_p - block[HYSTERESIS_N + k] * gap_n


@inner
def capacity_of(block: FloatArray, k: int, c: CellModel) -> None:
    """Follow one cell's stoichiometries at the voltage limits (as in `modal.stoichiometry_limits`) as it ages: one
    Newton step.

    From one refresh to the next they move by less than 1e-6, so one step from the last value is exact to rounding.
    Plated lithium counts as cyclable, because a discharge strips it.
    """
    q_n = c.q_n * block[ACTIVE_N + k]
    q_p = c.q_p * block[ACTIVE_P + k]
    inventory = q_n * block[X_N + k] + q_p * block[X_P + k] + block[PLATED + k] - block[Q_SIDE + k]
    for upper in range(2):
        x = block[X_FULL + k] if upper == 1 else block[X_EMPTY + k]
        target = c.voltage_max if upper == 1 else c.voltage_min
        ocp_n, slope_n = lookup(c.tables, 0, x)
        ocp_p, slope_p = lookup(c.tables, 1, (inventory - q_n * x) / q_p)
        if c.gaps.size > 0:
            side = 1.0 if upper == 1 else -1.0
            gap_n, gap_slope_n = along(c.gaps, 0, x)
            gap_p, gap_slope_p = along(c.gaps, 1, (inventory - q_n * x) / q_p)
            ocp_n -= side * gap_n
            ocp_p += side * gap_p
            slope_n -= side * gap_slope_n
            slope_p += side * gap_slope_p
        newton = (target - ocp_p + ocp_n) / (-slope_n - slope_p * q_n / q_p)
        x = clip(x + clip(newton, -0.01, 0.01), X_SURFACE_MIN, 1.0 - X_SURFACE_MIN)
        if upper == 1:
            block[X_FULL + k] = x
        else:
            block[X_EMPTY + k] = x


@inner
def refresh_capacity(block: FloatArray, c: CellModel) -> None:
    """`capacity_of` for all lanes; called about every simulated minute."""
    for k in range(LANES):
        capacity_of(block, k, c)


@inner
def soc_of(block: FloatArray, lane: int) -> float:
    """State of charge: between the aged cell's own limits, 0 to 1."""
    x_empty = block[X_EMPTY + lane]
    soc: float = clip((block[X_N + lane] - x_empty) / (block[X_FULL + lane] - x_empty), 0.0, 1.0)
    return soc


@inner
def soh_of(block: FloatArray, lane: int, c: CellModel) -> float:
    """State of health: capacity at rest between the voltage limits, of what is wetted, over that of the fresh cell."""
    soh: float = block[ACTIVE_N + lane] * (block[X_FULL + lane] - block[X_EMPTY + lane]) / (c.x_full - c.x_empty)
    return soh * wetted(block, lane)
