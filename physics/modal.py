"""From the parameters of a cell to the few numbers that the kernel needs: modes, gains, fits, tables. Runs once, in
numpy.

Everything is per m2 of electrode; i = I/A is the current density [A/m2], + discharges.

Particles (sphere, flux i at the surface): with q = F L eps c_max [C/m2] and g = -+ (R^2/(3 D q)) i,
    x_surf = x + sum_k w_k + (1/5 - sum_k a_k) g,   w_k relaxes to a_k g at the rate b_k D/R^2.
The exact solution has infinitely many modes: b_k = l_k^2 and a_k = 2/l_k^2, with l_k the roots of tan l = l. We use six
fitted ones.

Electrolyte: eps dc/dt = d/dx(D_e eps^b dc/dx) + (1 - t+) a j/F. It is linearised at D_e(c_0), discretised in finite
volumes (40/16/40), made symmetric by the mass matrix and diagonalised. Three slow modes y_k follow the current; the
others are quasi-static. The voltage needs the means of ln c_e and sqrt c_e over each electrode. They are polynomials of
the linear mean deviation, fitted on exact steady states with the concentration-dependent D_e (Kirchhoff transform).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from physics.constants import FARADAY, GAS_CONSTANT
from physics.dryout import drying
from physics.layout import ELECTROLYTE_MODES
from physics.parameters import CellParameters, Curve, ElectrodeParameters, FloatArray, LamParameters

TABLE_CELLS: Final = 1024
GRID_CELLS: Final = 64
PACK_VOLTAGE_V: Final = 352.0
"""At half charge: the 400 V class of compact electric cars."""
PACK_AH: Final = 170.0
"""Of a middle one; `car_models` has others."""
PACK_J_K_WH: Final = 5.6
"""Thermal mass of a pack for its energy: cells of 250 Wh/kg and 0.95 kJ/(kg K), of two thirds of the
pack's mass; frames, coolant and housing are alike for their mass."""
PACK_FOLLOWS_S: Final = 12.0 * 3600.0
"""Time constant of a parked pack against the air: that of NREL's BLAST-V (Neubauer and Wood 2014, J. Power Sources 257,
12)."""
Tuple3 = tuple[float, float, float]
Tuple7 = tuple[float, float, float, float, float, float, float]


def sphere_roots(count: int) -> FloatArray:
    """The first `count` positive roots of tan l = l, shape (count,); l_k lies just below (k + 1/2) pi."""
    l_k = (np.arange(1, count + 1) + 0.5) * np.pi
    for _ in range(50):
        l_k = l_k - (np.sin(l_k) - l_k * np.cos(l_k)) / (l_k * np.sin(l_k))
    return np.asarray(l_k, dtype=np.float64)


# The exact step response of a sphere's surface is 1/5 - sum over all k of (2/l_k^2) exp(-l_k^2 D t/R^2). Its first six
# terms leave 0.029 of the 0.2 to the quasi-static rest. The six below are fitted to the whole response. They leave
# 0.0013 and follow the response to 2e-4 at any time, which a test checks.
L2: Final = (20.190729, 73.974219, 323.49964, 1711.6626, 10391.637, 73663.004)
"""Rates of the modes, in units of D/R^2."""
WEIGHT: Final = (0.1003761, 0.048632156, 0.028064528, 0.013340832, 0.0058546081, 0.0024107861)
STATIC_WEIGHT: Final = 0.2 - sum(WEIGHT)


def sphere_response(tau: FloatArray, roots: int = 4000) -> FloatArray:
    """Surface minus mean stoichiometry of a sphere after a unit step of g, at times tau [R^2/D], shape as tau."""
    l2 = sphere_roots(roots) ** 2
    return np.asarray(0.2 - (2.0 / l2 * np.exp(-np.multiply.outer(tau, l2))).sum(axis=-1), dtype=np.float64)


class CellModel(NamedTuple):
    """The compiled kernel's view of one cell: scalars and short tuples. Per m2 of electrode where it applies."""

    tables: FloatArray
    """U_n, U_p, dU_n/dT, dU_p/dT in linear pieces, flat: (table, piece, value at 0 and slope). Where
    `varying_diffusivity`, `steady_diffusivity` of both electrodes follows."""
    varying_diffusivity: bool
    gaps: FloatArray
    """Half of the gap between the branches of U_n and of U_p, in linear pieces, flat: (electrode, piece, value at 0 and
    slope). Empty where neither electrode has a hysteresis."""
    exchange: FloatArray
    """Factors on both electrodes' exchange rates, in such pieces. Empty where neither depends on stoichiometry."""
    decay_n: float
    """Of the hysteresis' state."""
    decay_p: float
    area: float
    q_n: float
    q_p: float
    t_ref: float
    tau_n: float
    """R^2/D at the reference temperature [s]."""
    tau_p: float
    e_diffusion_n: float
    e_diffusion_p: float
    kinetic_n: float
    """1/(2 L a m c_max sqrt(c_0)) [m2/A]."""
    kinetic_p: float
    e_kinetic_n: float
    e_kinetic_p: float
    rate_e: Tuple3
    """Slow eigenvalues of the electrolyte [1/s]."""
    gain_e_n: Tuple3
    """Steady deviation of the mean c_e/c_0 - 1 in the negative electrode per current density, by mode [m2/A]."""
    gain_e_p: Tuple3
    static_e_n: float
    static_e_p: float
    e_electrolyte: float
    deviation_max_n: float
    """Largest deviation of the fitted range, which is symmetric about 0."""
    deviation_max_p: float
    ln_n: Tuple7
    """Mean ln(c_e/c_0)."""
    ln_p: Tuple7
    sqrt_n: Tuple7
    """Mean sqrt(c_e/c_0)."""
    sqrt_p: Tuple7
    transport: float
    """1 - t+."""
    r_electrolyte_n: float
    """L_n/(3 kappa_0 eps^b), fresh porosity [Ohm m2]."""
    r_electrolyte_sp: float
    r_solid: float
    """Resistance of the solid and of contacts, less that of a film that is counted elsewhere [Ohm m2]."""
    e_conductivity: float
    porosity_n: float
    area_n: float
    """a_n [1/m]."""
    bruggeman: float
    sei_length: float
    """Film thickness of unit charge [m3/C]."""
    sei_initial: float
    sei_resistance: float
    """Film resistance of unit thickness, R_sei/(a_n L_n) [Ohm m]."""
    sei_current: float
    """F a_n L_n c_EC k_sei [A/m2]."""
    sei_rate_over_diffusivity: float
    sei_potential: float
    e_sei: float
    e_sei_diffusion: float
    plating_current: float
    """F k a_n L_n c_0 [A/m2]."""
    stripping: float
    """k a_n [1/s]."""
    dead_rate: float
    plated_volume: float
    """Share of the negative electrode's volume that unit charge of lithium metal fills [m2/C]."""
    spread_salt: float
    """(1 - t+) L_n/(2 F D_e eps^b c_0) at fresh porosity [m2/A]."""
    dry_reserve: float
    """As in `dryout.Drying`, like the four that follow."""
    film_fills: float
    film_dries: float
    lost_n_dries: float
    lost_p_dries: float
    lam_n: float
    """Relative loss of active material at unit (x - x_surf)^2 [1/s]."""
    lam_p: float
    e_lam_n: float
    e_lam_p: float
    heat_capacity: float
    cooling: float
    """h A of one cell [W/K]."""
    voltage_min: float
    voltage_max: float
    t_min: float
    t_max: float
    x_full: float
    """Fresh limits of the negative stoichiometry."""
    x_empty: float
    inventory: float
    """Cyclable lithium of the fresh cell as charge [C/m2]."""
    nominal_Ah: float
    series: float
    """Cells in series in a vehicle's pack."""
    parallel: float


class Electrolyte(NamedTuple):
    """Result of `electrolyte_modes`; deviations are of c/c_0 - 1."""

    rates: FloatArray
    gain_n: FloatArray
    gain_p: FloatArray
    total_n: float
    total_p: float


def electrolyte_modes(cell: CellParameters) -> Electrolyte:
    """All modes of the linear electrolyte, slowest first. Rates [1/s]; gains [m2/A] sum to the steady `total`."""
    e, n, p = cell.electrolyte, cell.negative, cell.positive
    cells = (40, 16, 40)
    thickness = (n.thickness_m, cell.separator_thickness_m, p.thickness_m)
    porosity = (n.porosity, cell.separator_porosity, p.porosity)
    dx = np.concatenate([np.full(k, length / k) for k, length in zip(cells, thickness, strict=True)])
    eps = np.concatenate([np.full(k, value) for k, value in zip(cells, porosity, strict=True)])
    efficiency = np.concatenate([np.full(k, b) for k, b in zip(cells, cell.transport_efficiency, strict=True)])
    diffusivity = float(e.diffusivity_m2_s(np.array([e.concentration_mol_m3]))[0]) * efficiency
    source = (1.0 - e.transference) / (FARADAY * e.concentration_mol_m3)
    flux_in = np.concatenate(
        [
            np.full(cells[0], source * dx[0] / n.thickness_m),
            np.zeros(cells[1]),
            np.full(cells[2], -source * dx[-1] / p.thickness_m),
        ]
    )
    half = 0.5 * dx / diffusivity
    conductance = 1.0 / (half[:-1] + half[1:])
    stiffness = np.zeros((dx.size, dx.size))
    k = np.arange(dx.size - 1)
    stiffness[k, k] += conductance
    stiffness[k + 1, k + 1] += conductance
    stiffness[k, k + 1] -= conductance
    stiffness[k + 1, k] -= conductance
    root_mass = np.sqrt(eps * dx)
    rates, vectors = np.linalg.eigh(stiffness / np.outer(root_mass, root_mass))
    excitation = vectors.T @ (flux_in / root_mass)
    shape = vectors / root_mass[:, None]
    mean_n = shape[: cells[0]].mean(axis=0)
    mean_p = shape[-cells[2] :].mean(axis=0)
    # Mode 0 is the conserved total, which nothing excites.
    gain_n = (mean_n * excitation / np.maximum(rates, 1e-30))[1:]
    gain_p = (mean_p * excitation / np.maximum(rates, 1e-30))[1:]
    return Electrolyte(rates[1:], gain_n, gain_p, float(gain_n.sum()), float(gain_p.sum()))


class ElectrolyteFit(NamedTuple):
    """Polynomials of degree 6 in the linear mean deviation, with the largest deviation they were fitted to."""

    ln_n: Tuple7
    ln_p: Tuple7
    sqrt_n: Tuple7
    sqrt_p: Tuple7
    deviation_max_n: float
    deviation_max_p: float
    residual: float
    """Largest misfit of any of the four."""


def fit_electrolyte(cell: CellParameters, modes: Electrolyte, *, lowest: float = 0.12) -> ElectrolyteFit:
    """Fit on steady states at currents of both signs, up to where c_e falls to `lowest` times c_0 somewhere."""
    e, n, p = cell.electrolyte, cell.negative, cell.positive
    per_layer = 200
    centres = (np.arange(per_layer) + 0.5) / per_layer
    l_n, l_s, l_p = n.thickness_m, cell.separator_thickness_m, p.thickness_m
    tor_n, tor_s, tor_p = cell.transport_efficiency
    # h(x) = integral of (i_e/i)/tortuosity: D(c) dc/dx = -(1 - t+) i_e/(F tortuosity)
    h_n = 0.5 * l_n * centres**2 / tor_n
    h_s = 0.5 * l_n / tor_n + l_s * centres / tor_s
    h_p = 0.5 * l_n / tor_n + l_s / tor_s + l_p * (centres - 0.5 * centres**2) / tor_p
    h = np.concatenate([h_n, h_s, h_p])
    weight = np.repeat(np.array([n.porosity * l_n, cell.separator_porosity * l_s, p.porosity * l_p]), per_layer)
    weight /= weight.sum()
    grid = np.linspace(1.0, 8.0 * e.concentration_mol_m3, 20001)
    potential = np.concatenate([[0.0], np.cumsum(np.diff(grid) * e.diffusivity_m2_s(0.5 * (grid[1:] + grid[:-1])))])

    def steady(i: float) -> FloatArray:
        """c/c_0 along x at current density i."""
        drop = (1.0 - e.transference) * i / FARADAY * h
        low, high = 0.0, float(potential[-1]) + float(np.abs(drop).max())
        for _ in range(100):
            middle = 0.5 * (low + high)
            c = np.interp(middle - drop, potential, grid)
            low, high = (middle, high) if float(weight @ c) < e.concentration_mol_m3 else (low, middle)
        return np.interp(0.5 * (low + high) - drop, potential, grid) / e.concentration_mol_m3

    def largest(sign: float) -> float:
        low, high = 0.0, 2000.0
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if float(steady(sign * middle).min()) > lowest else (low, middle)
        return low

    # Chebyshev-spaced, so that the fit is nearly minimax.
    nodes = np.cos(np.pi * (np.arange(81) + 0.5) / 81)
    i_max = min(largest(1.0), largest(-1.0))
    profiles = [steady(i_max * float(s)) for s in nodes]
    fits: list[Tuple7] = []
    residual = 0.0
    for electrode, total in ((slice(0, per_layer), modes.total_n), (slice(-per_layer, None), modes.total_p)):
        deviation = nodes * i_max * total
        scale = float(np.abs(deviation).max())
        for function in (np.log, np.sqrt):
            values = np.array([float(function(c[electrode]).mean()) for c in profiles])
            power = np.vander(deviation / scale, 7, increasing=True)
            # Exact at rest: ln 1 = 0 and sqrt 1 = 1.
            rest = 0.0 if function is np.log else 1.0
            solution = np.linalg.lstsq(power[:, 1:], values - rest, rcond=None)[0]
            residual = max(residual, float(np.abs(power[:, 1:] @ solution + rest - values).max()))
            coefficients = [rest, *(float(v) / scale ** (k + 1) for k, v in enumerate(solution))]
            fits.append((*coefficients,))  # type: ignore[arg-type]
    return ElectrolyteFit(
        ln_n=fits[0],
        sqrt_n=fits[1],
        ln_p=fits[2],
        sqrt_p=fits[3],
        deviation_max_n=abs(i_max * modes.total_n),
        deviation_max_p=abs(i_max * modes.total_p),
        residual=residual,
    )


def _lines(curve: Curve) -> FloatArray:
    """Linear pieces of a curve on [0, 1], shape (TABLE_CELLS, 2): in piece k, value = a[k] + b[k] x."""
    x = np.linspace(0.0, 1.0, TABLE_CELLS + 1)
    y = np.asarray(curve(x), dtype=np.float64)
    slope = np.diff(y) * TABLE_CELLS
    return np.stack([y[:-1] - slope * x[:-1], slope], axis=1)


def _varying_diffusivity(cell: CellParameters) -> bool:
    return cell.negative.relative_diffusivity is not None or cell.positive.relative_diffusivity is not None


def steady_diffusivity(curve: Curve | None) -> FloatArray:
    """Diffusivity that gives linear diffusion in a sphere the surface of nonlinear diffusion, relative to D_ref. Rows:
    mean stoichiometry, columns: that of the surface; both evenly from 0 to 1, shape (GRID_CELLS + 1, GRID_CELLS + 1).

    In a particle that fills or empties steadily D(x) dx/dr = (r/3) dx/dt. So the integral P of D over x falls from the
    surface inwards as B (1 - r^2/R^2), while x_surf - x_mean = (2/5) B/D for a constant D. The stoichiometry at the
    centre follows from the mean by bisection, and B = P(x_surf) - P(x_centre). `curve`: D/D_ref of x; None: 1.
    """
    x = np.linspace(0.0, 1.0, GRID_CELLS + 1)
    if curve is None:
        return np.ones((x.size, x.size))
    mean, surface = x[:, None, None], x[None, :, None]
    share = (np.arange(64) + 0.5) / 64  # of the way from centre to surface
    low, high = np.where(surface < mean, mean, 0.0), np.where(surface < mean, 1.0, mean)
    rise = np.zeros((x.size, x.size, share.size))
    for _ in range(30):
        centre = 0.5 * (low + high)
        way = surface - centre
        piece = curve(centre + way * share) * way / share.size
        rise = np.cumsum(piece, axis=2)
        inside = np.clip((rise - 0.5 * piece) / np.where(way == 0.0, 1.0, rise[..., -1:]), 0.0, 1.0)  # r^2/R^2
        found = centre + (way * (1.0 - inside**1.5)).mean(axis=2, keepdims=True)
        low, high = np.where(found < mean, centre, low), np.where(found < mean, high, centre)
    apart = surface - mean
    steady = 0.4 * rise[..., -1:] / np.where(apart == 0.0, 1.0, apart)
    between = curve(mean + apart * share).mean(axis=2, keepdims=True)
    reached = np.abs(found - mean) < 1e-6
    return np.asarray(np.where(reached & (apart != 0.0), steady, between)[..., 0], dtype=np.float64)


def cell_tables(cell: CellParameters) -> FloatArray:
    """The curves of a cell as the kernel reads them, flat from shape (2, TABLE_CELLS, 2, 2): negative and positive
    electrode; pieces; open-circuit potential and its change with temperature, side by side in the cache; a and b. What
    follows are tables of a diffusivity that depends on stoichiometry."""
    electrodes = (cell.negative, cell.positive)
    parts = [np.stack([_lines(e.ocp_V), _lines(e.entropic_change_V_K)], axis=1) for e in electrodes]
    if _varying_diffusivity(cell):
        parts += [steady_diffusivity(e.relative_diffusivity) for e in electrodes]
    return np.concatenate([part.reshape(-1) for part in parts])


def _both(negative: Curve | None, positive: Curve | None, without: Curve) -> FloatArray:
    """Linear pieces of a curve of each electrode, flat: (electrode, piece, value at 0 and slope). `without`: stands for
    one that is None; nothing where both are."""
    if negative is None and positive is None:
        return np.empty(0)
    return np.concatenate([_lines(curve or without).reshape(-1) for curve in (negative, positive)])


def half_gap(model: CellModel, electrode: int, x: FloatArray) -> FloatArray:
    """From midway to a branch of U_n (`electrode` 0) or U_p (1) [V], vectorised."""
    if model.gaps.size == 0:
        return np.zeros(np.shape(x))
    pieces = model.gaps.reshape(2, TABLE_CELLS, 2)[electrode]
    k = np.clip((np.asarray(x) * TABLE_CELLS).astype(np.int64), 0, TABLE_CELLS - 1)
    return np.asarray(pieces[k, 0] + pieces[k, 1] * x, dtype=np.float64)


def table_value(model: CellModel, table: int, x: FloatArray) -> FloatArray:
    """What the kernel reads from a table (0: U_n, 1: U_p, 2: dU_n/dT, 3: dU_p/dT), vectorised."""
    pieces = model.tables[: 8 * TABLE_CELLS].reshape(2, TABLE_CELLS, 2, 2)[table % 2, :, table // 2]
    k = np.clip((np.asarray(x) * TABLE_CELLS).astype(np.int64), 0, TABLE_CELLS - 1)
    return np.asarray(pieces[k, 0] + pieces[k, 1] * x, dtype=np.float64)


def stoichiometry_limits(
    model: CellModel, inventory: FloatArray, active_n: FloatArray | float = 1.0, active_p: FloatArray | float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Negative stoichiometries at the upper and lower voltage limit at rest (25 degC), by bisection. With a
    hysteresis: after a charge to the upper and after a discharge to the lower.

    `inventory`: cyclable lithium as charge, shape (n,) [C/m2]; `active_n`, `active_p`: active material left.
    """
    q_n, q_p = model.q_n * np.asarray(active_n), model.q_p * np.asarray(active_p)

    def solve(voltage: float, side: float) -> FloatArray:
        # The cell voltage rises with x_n: the positive electrode empties as the negative fills.
        low = np.maximum(0.0, (inventory - q_p) / q_n)
        high = np.minimum(1.0, inventory / q_n)
        for _ in range(60):
            x = 0.5 * (low + high)
            x_p = (inventory - q_n * x) / q_p
            ocv = table_value(model, 1, x_p) - table_value(model, 0, x)
            if model.gaps.size:
                ocv += side * (half_gap(model, 1, x_p) + half_gap(model, 0, x))
            low, high = np.where(ocv < voltage, x, low), np.where(ocv < voltage, high, x)
        return np.asarray(0.5 * (low + high), dtype=np.float64)

    return solve(model.voltage_max, 1.0), solve(model.voltage_min, -1.0)


def instant_resistance(
    model: CellModel,
    q_sei: FloatArray,
    metal: FloatArray,
    active_n: FloatArray,
    active_p: FloatArray,
    film_scale: FloatArray,
) -> FloatArray:
    """Resistance of a pulse before diffusion responds, at 25 degC and half-filled surfaces, shape (n,) [Ohm m2].

    It is the sum of ohmic resistance (in the pores that film and metal leave), film and charge transfer. `q_sei`,
    `metal`: charge [C/m2]; `active_*`: active material left; `film_scale`: factor on the film's resistivity.
    """
    length = q_sei * model.sei_length / active_n
    filled = active_n * (model.area_n * (length - model.sei_initial) + model.plated_volume * metal)
    pores = np.maximum(1.0 - filled / model.porosity_n, 0.05)
    ohmic = model.r_electrolyte_n * pores**-1.5 + model.r_electrolyte_sp + model.r_solid
    transfer = (
        2.0 * GAS_CONSTANT * model.t_ref / FARADAY * 2.0 * (model.kinetic_n / active_n + model.kinetic_p / active_p)
    )
    return np.asarray(ohmic + film_scale * model.sei_resistance * length / active_n + transfer, dtype=np.float64)


def equilibrium_voltage(model: CellModel, x_n: FloatArray, inventory: FloatArray) -> FloatArray:
    """Voltage at rest and 25 degC at a negative stoichiometry and lithium inventory [C/m2], both of shape (n,). With a
    hysteresis: midway between its branches."""
    x_p = (inventory - model.q_n * x_n) / model.q_p
    return np.asarray(table_value(model, 1, x_p) - table_value(model, 0, x_n), dtype=np.float64)


def _charge(e: ElectrodeParameters) -> float:
    return FARADAY * e.thickness_m * e.active_fraction * e.max_concentration_mol_m3


def _kinetic(e: ElectrodeParameters, c_0: float) -> float:
    surface = e.thickness_m * e.specific_area_1_m
    return 1.0 / (2.0 * surface * e.exchange_rate * e.max_concentration_mol_m3 * math.sqrt(c_0))


@lru_cache(maxsize=32)
def cell_model(cell: CellParameters) -> CellModel:
    """The kernel's numbers of a cell. They take about 0.3 s and are computed once for each cell."""
    return build_model(cell)


def _lam(e: ElectrodeParameters, lam: LamParameters | None) -> float:
    """Relative rate of loss at unit (x - x_surf)^2 [1/s]."""
    if lam is None:
        return 0.0
    stress = 2.0 * lam.partial_molar_volume_m3_mol * lam.youngs_modulus_Pa * e.max_concentration_mol_m3
    relative = stress / (9.0 * (1.0 - lam.poisson_ratio) * lam.critical_stress_Pa)
    return lam.rate_1_s * relative**2 / e.active_fraction


def _salt_only(cell: CellParameters) -> CellParameters:
    """The cell with everything that its electrolyte does not depend on set alike: cells that differ in that only share
    modes and polynomials, which take nearly all the time of a model. A fit asks for hundreds."""
    n, p = (
        replace(e, initial_concentration_mol_m3=1.0, diffusivity_m2_s=1.0, diffusivity_activation_J_mol=0.0)
        for e in (cell.negative, cell.positive)
    )
    return replace(cell, name="", negative=n, positive=p, area_m2=1.0, contact_resistance_Ohm=0.0)


@lru_cache(maxsize=32)
def _electrolyte_of(cell: CellParameters) -> tuple[Electrolyte, ElectrolyteFit]:
    modes = electrolyte_modes(cell)
    return modes, fit_electrolyte(cell, modes)


def build_model(cell: CellParameters) -> CellModel:
    """Compute the kernel's numbers of one cell."""
    n, p, e, sei, plating = cell.negative, cell.positive, cell.electrolyte, cell.sei, cell.plating
    modes, fit = _electrolyte_of(_salt_only(cell))
    slow = slice(0, ELECTROLYTE_MODES)
    kappa = float(e.conductivity_S_m(np.array([e.concentration_mol_m3]))[0])
    diffusivity = float(e.diffusivity_m2_s(np.array([e.concentration_mol_m3]))[0])
    surface_n = n.specific_area_1_m * n.thickness_m
    efficiency_n, efficiency_s, efficiency_p = cell.transport_efficiency
    dry = drying(cell)
    fresh_film = sei.resistivity_Ohm_m * sei.initial_thickness_m / surface_n if cell.fresh_film_included else 0.0
    model = CellModel(
        tables=cell_tables(cell),
        varying_diffusivity=_varying_diffusivity(cell),
        gaps=_both(
            n.hysteresis.half_gap_V if n.hysteresis else None,
            p.hysteresis.half_gap_V if p.hysteresis else None,
            np.zeros_like,
        ),
        exchange=_both(n.relative_exchange, p.relative_exchange, np.ones_like),
        decay_n=n.hysteresis.decay if n.hysteresis else 0.0,
        decay_p=p.hysteresis.decay if p.hysteresis else 0.0,
        area=cell.area_m2,
        q_n=_charge(n),
        q_p=_charge(p),
        t_ref=cell.reference_temperature_K,
        tau_n=n.particle_radius_m**2 / n.diffusivity_m2_s,
        tau_p=p.particle_radius_m**2 / p.diffusivity_m2_s,
        e_diffusion_n=n.diffusivity_activation_J_mol,
        e_diffusion_p=p.diffusivity_activation_J_mol,
        kinetic_n=_kinetic(n, e.concentration_mol_m3),
        kinetic_p=_kinetic(p, e.concentration_mol_m3),
        e_kinetic_n=n.exchange_activation_J_mol,
        e_kinetic_p=p.exchange_activation_J_mol,
        rate_e=_three(modes.rates),
        gain_e_n=_three(modes.gain_n),
        gain_e_p=_three(modes.gain_p),
        static_e_n=modes.total_n - float(modes.gain_n[slow].sum()),
        static_e_p=modes.total_p - float(modes.gain_p[slow].sum()),
        e_electrolyte=e.diffusivity_activation_J_mol,
        deviation_max_n=fit.deviation_max_n,
        deviation_max_p=fit.deviation_max_p,
        ln_n=fit.ln_n,
        ln_p=fit.ln_p,
        sqrt_n=fit.sqrt_n,
        sqrt_p=fit.sqrt_p,
        transport=1.0 - e.transference,
        r_electrolyte_n=n.thickness_m / (3.0 * kappa * efficiency_n),
        r_electrolyte_sp=cell.separator_thickness_m / (kappa * efficiency_s)
        + p.thickness_m / (3.0 * kappa * efficiency_p),
        r_solid=sum(
            d.thickness_m / (3.0 * d.conductivity_S_m * d.active_fraction**cell.electrode_bruggeman) for d in (n, p)
        )
        + cell.contact_resistance_Ohm * cell.area_m2
        - fresh_film,
        e_conductivity=e.conductivity_activation_J_mol,
        porosity_n=n.porosity,
        area_n=n.specific_area_1_m,
        bruggeman=e.bruggeman,
        sei_length=sei.molar_volume_m3_mol / (FARADAY * sei.lithium_per_mole * surface_n),
        sei_initial=sei.initial_thickness_m,
        sei_resistance=sei.resistivity_Ohm_m / surface_n,
        sei_current=FARADAY * surface_n * sei.ec_concentration_mol_m3 * sei.rate_m_s,
        sei_rate_over_diffusivity=sei.rate_m_s / sei.ec_diffusivity_m2_s,
        sei_potential=sei.potential_V,
        e_sei=sei.activation_J_mol,
        e_sei_diffusion=sei.diffusivity_activation_J_mol,
        plating_current=FARADAY * surface_n * e.concentration_mol_m3 * plating.rate_m_s if plating else 0.0,
        stripping=n.specific_area_1_m * plating.rate_m_s if plating else 0.0,
        dead_rate=plating.dead_rate_1_s if plating else 0.0,
        plated_volume=plating.metal_molar_volume_m3_mol / (FARADAY * n.thickness_m) if plating else 0.0,
        spread_salt=(1.0 - e.transference)
        * n.thickness_m
        / (2.0 * FARADAY * diffusivity * efficiency_n * e.concentration_mol_m3),
        dry_reserve=dry.reserve,
        film_fills=dry.film_fills,
        film_dries=dry.film_dries,
        lost_n_dries=dry.lost_n_dries,
        lost_p_dries=dry.lost_p_dries,
        lam_n=_lam(n, cell.lam_negative),
        lam_p=_lam(p, cell.lam_positive),
        e_lam_n=cell.lam_negative.activation_J_mol if cell.lam_negative else 0.0,
        e_lam_p=cell.lam_positive.activation_J_mol if cell.lam_positive else 0.0,
        heat_capacity=cell.heat_capacity_J_K,
        cooling=cell.heat_transfer_W_m2K * cell.cooling_area_m2,
        voltage_min=cell.voltage_min_V,
        voltage_max=cell.voltage_max_V,
        t_min=cell.valid_temperature_C[0] + 273.15,
        t_max=cell.valid_temperature_C[1] + 273.15,
        x_full=0.0,
        x_empty=0.0,
        inventory=_charge(n) * n.initial_concentration_mol_m3 / n.max_concentration_mol_m3
        + _charge(p) * p.initial_concentration_mol_m3 / p.max_concentration_mol_m3,
        nominal_Ah=cell.nominal_capacity_Ah,
        series=1.0,
        parallel=float(max(1, round(PACK_AH / cell.nominal_capacity_Ah))),
    )
    full, empty = stoichiometry_limits(model, np.array([model.inventory]))
    middle = equilibrium_voltage(model, 0.5 * (full + empty), np.array([model.inventory]))[0]
    series = float(max(1, round(PACK_VOLTAGE_V / middle)))
    return model._replace(x_full=float(full[0]), x_empty=float(empty[0]), series=series)


def acting(model: CellModel, *, plating: bool, lam: bool) -> CellModel:
    """The cell without the mechanisms that are switched off."""
    if not plating:
        model = model._replace(plating_current=0.0, stripping=0.0)
    return model if lam else model._replace(lam_n=0.0, lam_p=0.0)


def in_pack(model: CellModel) -> CellModel:
    """A cell that has its share of a pack's thermal mass, and exchanges heat with the air as slowly as a pack does."""
    half = np.array([0.5 * (model.x_full + model.x_empty)])
    energy_Wh = model.nominal_Ah * float(equilibrium_voltage(model, half, np.array([model.inventory]))[0])
    heat_capacity = PACK_J_K_WH * energy_Wh
    return model._replace(heat_capacity=heat_capacity, cooling=heat_capacity / PACK_FOLLOWS_S)


def _three(values: FloatArray) -> Tuple3:
    return float(values[0]), float(values[1]), float(values[2])
