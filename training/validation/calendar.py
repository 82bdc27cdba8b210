"""Calendar life by our own SEI law, for a cell kept at one temperature and one state of charge.

b   potential across the film at rest, U_n [V]      k   EC reaction rate [m/s]      L   film thickness [m]

dL/dt = V/(z) c_EC k/(1 + L k/D), k = k_sei Arrhenius(E_k) exp(-F (b - 0.4)/(2 R T)), D = D_ec Arrhenius(E_D) (Yang et
al. 2017, doi 10.1016/j.jpowsour.2017.05.110). It is solved in closed form over spans of constant b. They are short,
because b changes as the cell loses lithium. Capacity is that between the voltage limits at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from physics.cell import advance_cells, rested_block
from physics.constants import FARADAY, GAS_CONSTANT, KELVIN, YEAR_S
from physics.kernel import rest_cells
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
    AREA,
    DT,
    LANES,
    TEMPERATURE,
    VOLTAGE_HIGH,
    WHOLE_AREA,
    WORK_SIZE,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.modal import CellModel, cell_model, stoichiometry_limits
from physics.parameters import CellParameters, FloatArray

SPANS: Final = 24
STORAGE_STEP_S: Final = 3600.0
CHECK_UP_TICKS: Final = 24 * 30


class SeiConstants(NamedTuple):
    """The constants that are fitted."""

    rate_m_s: float
    ec_diffusivity_m2_s: float
    rate_activation_J_mol: float
    diffusivity_activation_J_mol: float

    def rate_over_diffusivity(self, temperature_K: float) -> float:
        """k_sei/D_ec at zero overpotential [1/m]."""
        energy = self.rate_activation_J_mol - self.diffusivity_activation_J_mol
        return self.rate_m_s / self.ec_diffusivity_m2_s * float(arrhenius(energy, temperature_K))


def constants_of(cell: CellParameters) -> SeiConstants:
    """The constants of the cell's file; one energy for both where the file has only one."""
    sei = cell.sei
    energy = getattr(sei, "diffusivity_activation_J_mol", sei.activation_J_mol)
    return SeiConstants(sei.rate_m_s, sei.ec_diffusivity_m2_s, sei.activation_J_mol, energy)


def arrhenius(energy_J_mol: float, temperature_K: FloatArray | float, reference_K: float = 298.15) -> FloatArray:
    """exp(E/R (1/T_ref - 1/T))."""
    return np.exp(energy_J_mol / GAS_CONSTANT * (1.0 / reference_K - 1.0 / np.asarray(temperature_K)))


def film_growth(
    cell: CellParameters,
    model: CellModel,
    sei: SeiConstants,
    thickness_m: FloatArray,
    seconds: FloatArray | float,
    temperature_K: FloatArray,
    reaction: FloatArray,
) -> FloatArray:
    """Thickness [m] after `seconds` at constant temperature and `reaction` = exp(-F (b - 0.4)/(2RT)); shape (n,)."""
    k = sei.rate_m_s * arrhenius(sei.rate_activation_J_mol, temperature_K) * reaction
    s = k / (sei.ec_diffusivity_m2_s * arrhenius(sei.diffusivity_activation_J_mol, temperature_K))
    surface = cell.negative.specific_area_1_m * cell.negative.thickness_m
    v = model.sei_length * FARADAY * surface * cell.sei.ec_concentration_mol_m3 * k
    target = thickness_m + 0.5 * s * thickness_m**2 + v * seconds
    return np.asarray((np.sqrt(1.0 + 2.0 * s * target) - 1.0) / s, dtype=np.float64)


def reaction_at(
    cell: CellParameters, x_surface: FloatArray, overpotential_V: FloatArray | float, temperature_K: FloatArray
) -> FloatArray:
    """exp(-F (b - 0.4)/(2RT)), b = U_n(x, T) + overpotential."""
    warmer = temperature_K - cell.reference_temperature_K
    u_n = cell.negative.ocp_V(x_surface) + warmer * cell.negative.entropic_change_V_K(x_surface)
    b = u_n + overpotential_V
    return np.asarray(np.exp(-(b - cell.sei.potential_V) * FARADAY / (2.0 * GAS_CONSTANT * temperature_K)))


def predict_calendar(
    cell: CellParameters,
    temperature_C: FloatArray,
    soc: FloatArray,
    years: FloatArray,
    sei: SeiConstants | None = None,
) -> FloatArray:
    """Capacity over fresh capacity, shape (conditions, years); temperature_C, soc: shape (conditions,)."""
    model = cell_model(cell)
    constants = constants_of(cell) if sei is None else sei
    t = np.asarray(temperature_C, dtype=np.float64) + KELVIN
    soc, years = np.asarray(soc, dtype=np.float64), np.asarray(years, dtype=np.float64)
    thickness = np.full(t.size, cell.sei.initial_thickness_m)
    full, empty = stoichiometry_limits(model, np.full(t.size, model.inventory))
    fresh = full - empty
    ends = np.unique(np.concatenate([np.geomspace(0.02, 1.0, SPANS) * years.max(), years]))
    result = np.empty((t.size, years.size))
    start = 0.0
    for end in ends:
        reaction = reaction_at(cell, empty + soc * (full - empty), 0.0, t)
        thickness = film_growth(cell, model, constants, thickness, (end - start) * YEAR_S, t, reaction)
        lost = (thickness - cell.sei.initial_thickness_m) / model.sei_length
        full, empty = stoichiometry_limits(model, model.inventory - lost)
        result[:, years == end] = ((full - empty) / fresh)[:, None]
        start = float(end)
    return result


def kernel_calendar(cell: CellParameters, temperature_C: FloatArray, soc: FloatArray, years: FloatArray) -> FloatArray:
    """As `predict_calendar`, by the kernel that ships, with all side reactions on; shape (conditions, years).

    Steps are an hour long, at rest. Every 30 days the charge is brought back to `soc`, as a check-up does. 128
    conditions run at a time, one per lane.
    """
    t = np.asarray(temperature_C, dtype=np.float64) + KELVIN
    soc, years = np.broadcast_to(np.asarray(soc, dtype=np.float64), t.shape), np.asarray(years, dtype=np.float64)
    parts = [_stored(cell, t[k : k + LANES], soc[k : k + LANES], years) for k in range(0, t.size, LANES)]
    return np.concatenate(parts)


def _stored(cell: CellParameters, t: FloatArray, soc: FloatArray, years: FloatArray) -> FloatArray:
    model = cell_model(cell)
    blocks = rested_block(model, soc=0.5, temperature_C=25.0)[None, :]
    rows = blocks.reshape(-1, LANES)
    used, warm = np.resize(soc, LANES), np.resize(t, LANES)  # spare lanes repeat
    rows[TEMPERATURE // LANES] = rows[AMBIENT // LANES] = warm
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = STORAGE_STEP_S
    work[VOLTAGE_HIGH : VOLTAGE_HIGH + LANES] = 1e3

    def top_up() -> None:
        """Bring the charge back to `used` by moving lithium between the electrodes; none is created or lost."""
        x_n, x_p, full, empty, left_n, left_p = (
            rows[row // LANES] for row in (X_N, X_P, X_FULL, X_EMPTY, ACTIVE_N, ACTIVE_P)
        )
        moved = empty + used * (full - empty) - x_n
        x_n += moved
        x_p -= moved * (model.q_n * left_n) / (model.q_p * left_p)

    top_up()
    rest_cells(blocks[0], model)
    ends = np.round(years * YEAR_S / STORAGE_STEP_S).astype(int)
    result, tick = np.empty((t.size, years.size)), 0
    for end in np.unique(ends):
        while tick < end:
            ticks = min(CHECK_UP_TICKS - tick % CHECK_UP_TICKS, int(end) - tick)
            advance_cells(blocks, work, tick, ticks, 1, 1, model)
            tick += ticks
            top_up()
        span = rows[X_FULL // LANES] - rows[X_EMPTY // LANES]
        wetted = rows[AREA // LANES] / rows[WHOLE_AREA // LANES]
        soh = wetted * rows[ACTIVE_N // LANES] * span / (model.x_full - model.x_empty)
        result[:, ends == end] = soh[: t.size, None]
    return result


@dataclass(frozen=True)
class CalendarFit:
    """Constants, their standard errors (of the logarithm for k_sei and D_ec) and the residuals in points."""

    sei: SeiConstants
    error: tuple[float, ...]
    residual: FloatArray
    """Ours minus theirs [points of fresh capacity], shape (conditions, years)."""

    @property
    def rms(self) -> float:
        """[points]"""
        return float(np.sqrt(np.mean(self.residual**2)))


def fit_calendar(
    cell: CellParameters,
    temperature_C: FloatArray,
    soc: FloatArray,
    years: FloatArray,
    capacity: FloatArray,
    *,
    one_energy: bool = True,
) -> CalendarFit:
    """Fit the law's constants to `capacity`, shape (conditions, years).

    A residual weighs 1/(1 + 10 fade). Otherwise a cell at 45 degC for ten years would decide, where the published
    models themselves extrapolate. By default both processes share one energy, because two cannot be told apart (see
    docs/aging-calibration.md).
    """
    weight = 1.0 / (1.0 + 10.0 * (1.0 - capacity))

    def unpack(p: FloatArray) -> SeiConstants:
        energies = (p[2], p[2]) if one_energy else (p[2], p[3])
        return SeiConstants(float(np.exp(p[0])), float(np.exp(p[1])), 1e3 * energies[0], 1e3 * energies[1])

    def residuals(p: FloatArray) -> FloatArray:
        predicted = predict_calendar(cell, temperature_C, soc, years, unpack(p))
        return np.asarray(100.0 * (predicted - capacity) * weight).ravel()

    parameters = 3 if one_energy else 4
    first = np.array([-37.0, -48.0, 50.0, 50.0])[:parameters]
    scale = np.array([1.0, 1.0, 10.0, 10.0])[:parameters]
    bounds = (np.array([-60.0, -60.0, 0.0, 0.0])[:parameters], np.array([-25.0, -35.0, 150.0, 150.0])[:parameters])
    found = least_squares(residuals, first, x_scale=scale, bounds=bounds)
    variance = float(found.fun @ found.fun) / (found.fun.size - parameters)
    error = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)) * variance)
    plain = found.fun.reshape(capacity.shape) / weight
    return CalendarFit(unpack(found.x), tuple(float(e) for e in error), plain)
