"""The parameters of one cell: a frozen record with units. There is one file per cell in `physics/cells/`.

Symbols: n negative electrode, s separator, p positive electrode, e electrolyte. Arrhenius factors are
exp(E/R (1/T_ref - 1/T)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Curve = Callable[[FloatArray], FloatArray]
BetweenBranches = tuple[float | None, float | None]
"""State of the hysteresis of the negative and of the positive electrode, -1 (lithiation) to 1 (delithiation). None: as
`population.usual_branches`."""


@dataclass(frozen=True)
class HysteresisParameters:
    """Hysteresis of an open-circuit potential with one state h (Axen et al. 2022, J. Energy Storage 48, 103985, as in
    PyBaMM's "one-state hysteresis"): U = midway + h `half_gap_V`, from the lithiation branch, h = -1, to the
    delithiation branch, h = 1. While the stoichiometry rises by dx, dh = -`decay` (1 + h)/2 dx; while it falls by dx,
    dh = `decay` (1 - h)/2 dx."""

    half_gap_V: Curve
    """Half of delithiation less lithiation branch, of stoichiometry."""
    decay: float


@dataclass(frozen=True)
class ElectrodeParameters:
    """One porous electrode with spherical particles."""

    thickness_m: float
    porosity: float
    active_fraction: float
    """Volume fraction of active material."""
    particle_radius_m: float
    max_concentration_mol_m3: float
    initial_concentration_mol_m3: float
    """Lithium in the fully charged, fresh cell; only the inventory of both electrodes together is used."""
    diffusivity_m2_s: float
    """Where it depends on stoichiometry: at one of them."""
    diffusivity_activation_J_mol: float
    exchange_rate: float
    """m in j0 = m sqrt(c_e c_s (c_max - c_s)) [A m-2 (m3/mol)^1.5]."""
    exchange_activation_J_mol: float
    conductivity_S_m: float
    """Of the solid, before the Bruggeman correction."""
    density_kg_m3: float
    heat_capacity_J_kgK: float
    ocp_V: Curve
    """Open-circuit potential against Li/Li+ at the reference temperature, of stoichiometry. With a hysteresis: midway
    between its branches."""
    entropic_change_V_K: Curve
    """dU/dT, of stoichiometry."""
    relative_diffusivity: Curve | None = None
    """D(x)/`diffusivity_m2_s`, of stoichiometry. None: 1."""
    relative_exchange: Curve | None = None
    """Factor on `exchange_rate`, of the surface's stoichiometry. None: 1."""
    hysteresis: HysteresisParameters | None = None
    """None: not modelled."""

    @property
    def specific_area_1_m(self) -> float:
        """Particle surface per electrode volume, 3 eps/R [1/m]."""
        return 3.0 * self.active_fraction / self.particle_radius_m


@dataclass(frozen=True)
class ElectrolyteParameters:
    """Electrolyte: transport properties of the concentration c_e [mol/m3]."""

    concentration_mol_m3: float
    transference: float
    diffusivity_m2_s: Curve
    diffusivity_activation_J_mol: float
    conductivity_S_m: Curve
    conductivity_activation_J_mol: float
    bruggeman: float
    transport_efficiency: tuple[float, float, float] | None = None
    """Effective over bulk transport in negative electrode, separator, positive electrode, where it was measured. None:
    porosity to the power `bruggeman`."""


@dataclass(frozen=True)
class SeiParameters:
    """Growth of the solid-electrolyte interphase, limited by reaction and by diffusion of EC (Yang 2017)."""

    rate_m_s: float
    """k_sei."""
    ec_diffusivity_m2_s: float
    """D_ec through the film."""
    ec_concentration_mol_m3: float
    potential_V: float
    activation_J_mol: float
    """Of the reaction."""
    diffusivity_activation_J_mol: float
    """Of EC's diffusion through the film."""
    molar_volume_m3_mol: float
    lithium_per_mole: float
    """z: moles of lithium in a mole of film."""
    resistivity_Ohm_m: float
    initial_thickness_m: float


@dataclass(frozen=True)
class PlatingParameters:
    """Partly reversible lithium plating (O'Kane et al. 2022, eq. 30-33). Lithium deposits where the negative surface
    falls towards the potential of Li/Li+, strips again, and dies at a rate that falls as the film grows. Transfer
    coefficients are 0.65 and 0.35."""

    rate_m_s: float
    """k in j = F k (c_Li exp(0.35 F b/RT) - c_e exp(-0.65 F b/RT))."""
    dead_rate_1_s: float
    """gamma_0: rate of dying at the fresh film's thickness."""
    metal_molar_volume_m3_mol: float


@dataclass(frozen=True)
class LamParameters:
    """Loss of active material by stress (Laresgoiti et al. 2015; O'Kane et al. 2022, eq. 40):
    d eps/dt = -rate (sigma_h/sigma_crit)^2, sigma_h = 2/9 Omega E c_max (x - x_surf)/(1 - nu), tensile only."""

    rate_1_s: float
    """beta: loss rate of the volume fraction at the critical stress."""
    activation_J_mol: float
    critical_stress_Pa: float
    youngs_modulus_Pa: float
    poisson_ratio: float
    partial_molar_volume_m3_mol: float


@dataclass(frozen=True)
class DryOutParameters:
    """Electrolyte that film and lost material use up (dryout.py)."""

    reserve: float
    """Electrolyte beyond what fills the fresh pores, as a share of it: the median cell's."""
    reserve_spread: float
    """Of its logarithm, from cell to cell."""
    volume_m3_mol: float
    """v F: liquid used up by each mole of lithium in the film, beyond the pores that the film itself fills."""
    per_lost_material: float
    """f: liquid that lost active material takes up, in volumes of its own."""


@dataclass(frozen=True)
class CellParameters:
    """All numbers of one cell. `name` is what `load_cell` takes."""

    name: str
    chemistry: str
    sources: tuple[str, ...]
    does_not_claim: tuple[str, ...]
    nominal_capacity_Ah: float
    voltage_min_V: float
    voltage_max_V: float
    area_m2: float
    """Coated electrode area."""
    volume_m3: float
    cooling_area_m2: float
    heat_transfer_W_m2K: float
    reference_temperature_K: float
    separator_thickness_m: float
    separator_porosity: float
    separator_density_kg_m3: float
    separator_heat_capacity_J_kgK: float
    collector_thickness_m: tuple[float, float]
    """Negative (copper), positive (aluminium)."""
    collector_density_kg_m3: tuple[float, float]
    collector_heat_capacity_J_kgK: tuple[float, float]
    electrode_bruggeman: float
    """Exponent of the solid's effective conductivity."""
    negative: ElectrodeParameters
    positive: ElectrodeParameters
    electrolyte: ElectrolyteParameters
    sei: SeiParameters
    plating: PlatingParameters | None
    """None: not modelled."""
    lam_negative: LamParameters | None
    lam_positive: LamParameters | None
    valid_temperature_C: tuple[float, float]
    valid_c_rate: tuple[float, float]
    """Largest charging (negative) and discharging C-rate."""
    contact_resistance_Ohm: float = 0.0
    """Of tabs and collectors, in series with the cell."""
    dry_out: DryOutParameters | None = None
    """None: not modelled."""
    fresh_film_included: bool = False
    """True: the other resistances were measured on a cell with its first film, so that film is not counted twice."""

    def __post_init__(self) -> None:
        _require_positive(self, self.name)
        parts = (self.negative, self.positive, self.electrolyte, self.sei)
        for part in (*parts, self.plating, self.lam_negative, self.lam_positive, self.dry_out):
            if part is not None:
                _require_positive(part, f"{self.name}, {type(part).__name__}")
        for electrode in (self.negative, self.positive):
            if electrode.hysteresis is not None:
                _require_positive(electrode.hysteresis, f"{self.name}, HysteresisParameters")
        if self.voltage_min_V >= self.voltage_max_V:
            raise ValueError(
                f"{self.name}: voltage_min_V {self.voltage_min_V} must be below voltage_max_V {self.voltage_max_V}"
            )

    @property
    def transport_efficiency(self) -> tuple[float, float, float]:
        """Effective over bulk transport of the electrolyte in negative electrode, separator, positive electrode."""
        if self.electrolyte.transport_efficiency is not None:
            return self.electrolyte.transport_efficiency
        n, s, p = self.negative.porosity, self.separator_porosity, self.positive.porosity
        b = self.electrolyte.bruggeman
        return n**b, s**b, p**b

    @property
    def heat_capacity_J_K(self) -> float:
        """Heat capacity of the cell: volume times the layer average of density times specific heat."""
        layers = (
            (self.collector_thickness_m[0], self.collector_density_kg_m3[0], self.collector_heat_capacity_J_kgK[0]),
            (self.negative.thickness_m, self.negative.density_kg_m3, self.negative.heat_capacity_J_kgK),
            (self.separator_thickness_m, self.separator_density_kg_m3, self.separator_heat_capacity_J_kgK),
            (self.positive.thickness_m, self.positive.density_kg_m3, self.positive.heat_capacity_J_kgK),
            (self.collector_thickness_m[1], self.collector_density_kg_m3[1], self.collector_heat_capacity_J_kgK[1]),
        )
        thickness = sum(layer[0] for layer in layers)
        return self.volume_m3 * sum(l_m * rho * c for l_m, rho, c in layers) / thickness


_MAY_BE_ZERO = ("activation", "bruggeman", "potential_V", "contact_resistance")


def _require_positive(record: object, where: str) -> None:
    """Every number of a parameter record must be finite and, but for a few, positive."""
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if isinstance(value, float):
            zero_is_fine = any(part in field.name for part in _MAY_BE_ZERO)
            if not math.isfinite(value) or value < 0.0 or (value == 0.0 and not zero_is_fine):
                raise ValueError(f"{where}: {field.name} must be a positive number, got {value!r}")
