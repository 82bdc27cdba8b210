"""Cycling by our own laws: SEI growth and stress-driven loss of active material in an isothermal single particle.

This is slow and readable; the kernel computes the same second by second. A cycle goes down and up at one C-rate between
two states of charge. It yields two quantities, which are scaled with age:

exposure   integral of (x - x_s)+^2 over one equivalent full cycle [s]; x mean, x_s surface stoichiometry. Tension, and
           so the loss of active material, appears where the surface holds less lithium than the mean: at the negative
           electrode on discharge, at the positive on charge.
reaction   exp(-F (U_n + eta_n - 0.4)/(2RT)) along the cycle, the factor of SEI growth

LAM: `physics.parameters.LamParameters`, with the cell's own constants. Active material takes its lithium with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from physics.constants import FARADAY, GAS_CONSTANT, KELVIN
from physics.modal import L2, STATIC_WEIGHT, WEIGHT, CellModel, cell_model, stoichiometry_limits
from physics.parameters import CellParameters, FloatArray
from training.validation.calendar import (
    SeiConstants,
    arrhenius,
    constants_of,
    film_growth,
    predict_calendar,
    reaction_at,
)

STEPS_A_HALF: Final = 240
EFC_STEP: Final = 25.0


class LamRates(NamedTuple):
    """Loss of the fresh electrodes' active material at unit (x - x_s)^2 [1/s], as in the kernel."""

    negative: float
    positive: float
    negative_activation_J_mol: float
    positive_activation_J_mol: float


def lam_of(cell: CellParameters) -> LamRates:
    """The rates from the cell's own constants; 0 where an electrode loses nothing."""
    model = cell_model(cell)
    return LamRates(model.lam_n, model.lam_p, model.e_lam_n, model.e_lam_p)


class Cycle(NamedTuple):
    """What one cycle does to a fresh cell."""

    exposure_n: float
    """[s per equivalent full cycle]"""
    exposure_p: float
    reaction: FloatArray
    """Shape (steps of a cycle,)."""

    def effective_reaction(self, limit: float) -> float:
        """The constant reaction that grows a film as fast as this cycle does on average.

        `limit` = L k_sei/D_ec. Growth is proportional to r/(1 + limit r), which a mean of r would overestimate.
        """
        mean = float(np.mean(self.reaction / (1.0 + limit * self.reaction)))
        return mean / (1.0 - limit * mean)


@cache
def run_cycle(cell: CellParameters, temperature_C: float, soc_low: float, soc_high: float, c_rate: float) -> Cycle:
    """Repeat the cycle until diffusion is periodic; return the last one. The C-rate refers to the capacity at rest."""
    model = cell_model(cell)
    t = temperature_C + KELVIN
    n, p = cell.negative, cell.positive
    i = c_rate * (model.x_full - model.x_empty) * model.q_n / 3600.0
    half_s = 3600.0 * (soc_high - soc_low) / c_rate
    dt = half_s / STEPS_A_HALF
    q = np.array([model.q_n, model.q_p])
    tau = np.array(
        [
            model.tau_n / arrhenius(n.diffusivity_activation_J_mol, t),
            model.tau_p / arrhenius(p.diffusivity_activation_J_mol, t),
        ]
    )
    kinetic = model.kinetic_n / float(arrhenius(n.exchange_activation_J_mol, t))
    decay = np.exp(-np.array(L2) * dt / tau[:, None])
    modes = np.zeros_like(decay)
    cycles = 2 + int(np.ceil(0.25 * tau.max() / (2.0 * half_s)))  # the slowest mode decays in tau/20
    deficit = np.empty((2 * STEPS_A_HALF, 2))
    for _ in range(cycles):
        for k in range(2 * STEPS_A_HALF):
            g = np.array([-1.0, 1.0]) * tau / (3.0 * q) * (i if k < STEPS_A_HALF else -i)
            target = np.array(WEIGHT) * g[:, None]
            modes = target + decay * (modes - target)
            deficit[k] = -modes.sum(axis=1) - STATIC_WEIGHT * g
    current = np.where(np.arange(2 * STEPS_A_HALF) < STEPS_A_HALF, i, -i)
    x_high = model.x_empty + soc_high * (model.x_full - model.x_empty)
    x_n = x_high - np.cumsum(current) * dt / model.q_n
    x_s = np.clip(x_n - deficit[:, 0], 1e-3, 1.0 - 1e-3)
    eta = 2.0 * GAS_CONSTANT * t / FARADAY * np.arcsinh(current * kinetic / np.sqrt(x_s * (1.0 - x_s)))
    reaction = reaction_at(cell, x_s, eta, np.full(x_s.size, t))
    exposure = (np.maximum(deficit, 0.0) ** 2).sum(axis=0) * dt / (soc_high - soc_low)
    return Cycle(float(exposure[0]), float(exposure[1]), reaction)


def predict_cycling(
    cell: CellParameters,
    lam: LamRates | None,
    temperature_C: float,
    soc_low: float,
    soc_high: float,
    c_rate: float,
    efc: FloatArray,
    sei: SeiConstants | None = None,
) -> FloatArray:
    """What cycling without pause costs beyond equally long rest at the mean charge, as part of fresh capacity, (n,)."""
    model = cell_model(cell)
    constants = constants_of(cell) if sei is None else sei
    cycle = run_cycle(cell, temperature_C, soc_low, soc_high, c_rate)
    t = np.array([temperature_C + KELVIN])
    loss_n = loss_p = 0.0
    if lam is not None:
        loss_n = float(arrhenius(lam.negative_activation_J_mol, t[0])) * lam.negative * cycle.exposure_n
        loss_p = float(arrhenius(lam.positive_activation_J_mol, t[0])) * lam.positive * cycle.exposure_p
    film = np.array([cell.sei.initial_thickness_m])
    rate_over_diffusivity = constants.rate_over_diffusivity(float(t[0]))
    active_n = active_p = 1.0
    taken = 0.0
    middle = 0.5 * (soc_low + soc_high)
    full, empty = stoichiometry_limits(model, np.array([model.inventory]))
    fresh = float(full[0] - empty[0])
    efc = np.asarray(efc, dtype=np.float64)
    ends = np.unique(np.concatenate([np.arange(EFC_STEP, efc.max() + EFC_STEP, EFC_STEP), efc]))
    result, start = np.empty(efc.size), 0.0
    for end in ends[ends <= efc.max()]:
        d = end - start
        reaction = np.array([cycle.effective_reaction(float(film[0]) * rate_over_diffusivity)])
        film = film_growth(cell, model, constants, film, d * 7200.0 / c_rate, t, reaction)
        # The same current flows through less material: the deficit grows as 1/eps, its square as 1/eps^2.
        d_n, d_p = d * loss_n / active_n**2, d * loss_p / active_p**2
        inventory = model.inventory - taken - float(film[0] - cell.sei.initial_thickness_m) / model.sei_length
        x_n, x_p = _at(model, inventory, active_n, active_p, middle, float(full[0]), float(empty[0]))
        taken += model.q_n * x_n * d_n + model.q_p * x_p * d_p
        active_n, active_p = max(active_n - d_n, 0.05), max(active_p - d_p, 0.05)
        inventory = model.inventory - taken - float(film[0] - cell.sei.initial_thickness_m) / model.sei_length
        full, empty = stoichiometry_limits(model, np.array([inventory]), active_n, active_p)
        result[efc == end] = active_n * (full[0] - empty[0]) / fresh
        start = float(end)
    years = efc * 7200.0 / c_rate / 31556952.0
    rest = predict_calendar(cell, np.array([temperature_C]), np.array([middle]), years, constants)[0]
    return np.asarray(rest - result, dtype=np.float64)


class LamFit(NamedTuple):
    """`residual`: ours minus theirs [points], shape (conditions, cycles)."""

    lam: LamRates
    residual: FloatArray


REFERENCE_CYCLE: Final = (25.0, 0.1, 0.9, 0.5)
"""Temperature [degC], lower and upper charge, C-rate at which a loss per cycle is quoted."""


def lam_of_loss(
    cell: CellParameters, negative_per_efc: float, positive_per_efc: float, activation_J_mol: float
) -> LamRates:
    """The rates that lose these parts of the fresh electrodes per equivalent full `REFERENCE_CYCLE`."""
    cycle = run_cycle(cell, *REFERENCE_CYCLE)
    negative, positive = negative_per_efc / cycle.exposure_n, positive_per_efc / cycle.exposure_p
    return LamRates(negative, positive, activation_J_mol, activation_J_mol)


def rate_constants(cell: CellParameters, lam: LamRates) -> tuple[float, float]:
    """The betas [1/s] of both electrodes with which a cell's file gives these rates; 0 where it has no law."""
    have = lam_of(cell)
    pairs = ((lam.negative, have.negative, cell.lam_negative), (lam.positive, have.positive, cell.lam_positive))
    n, p = (law.rate_1_s * wanted / rate if law is not None else 0.0 for wanted, rate, law in pairs)
    return n, p


def fit_lam(
    cell: CellParameters,
    conditions: Sequence[tuple[float, float, float, float]],
    efc: FloatArray,
    loss: FloatArray,
    *,
    positive: bool,
) -> LamFit:
    """Fit one loss per cycle and its energy. Both electrodes share it, or (not `positive`) only the negative loses.

    `conditions`: (temperature [degC], lower and upper charge, C-rate); `loss`: shape (conditions, cycles).
    """

    def lam(p: FloatArray) -> LamRates:
        per_efc = float(np.exp(p[0]))
        return lam_of_loss(cell, per_efc, per_efc if positive else 0.0, 1e3 * float(p[1]))

    def residuals(p: FloatArray) -> FloatArray:
        return 100.0 * (np.array([predict_cycling(cell, lam(p), *c, efc) for c in conditions]) - loss)

    found = least_squares(lambda p: residuals(p).ravel(), [-10.0, 55.0], x_scale=[1.0, 10.0], max_nfev=8)
    return LamFit(lam(found.x), residuals(found.x))


def _at(
    model: CellModel, inventory: float, active_n: float, active_p: float, soc: float, full: float, empty: float
) -> tuple[float, float]:
    """Stoichiometries (n, p) at a state of charge between the cell's own limits."""
    x_n = empty + soc * (full - empty)
    return x_n, (inventory - model.q_n * active_n * x_n) / (model.q_p * active_p)
