"""A pouch cell of a nominal design, 0.43 Ah: NCA against graphite, of the kind that electric cars of high power use.

Cell: Kim et al. 2011, J. Electrochem. Soc. 158, A955 (doi 10.1149/1.3597614), as collected in PyBaMM's NCA_Kim2011 set.
Densities are scaled there, so that the cell has the volumetric heat capacity of the paper. Its electrolyte's
coefficients are formulas of temperature; here are their values at 25 degC and activation energies from 10 to 40 degC.
The paper gives no entropic changes: graphite's are from O'Regan et al. 2022 (doi 10.1016/j.electacta.2022.140700),
NCA's are taken as zero. Film, plating and stress are those of `chen2020.py`, fitted to other cells.
"""

from __future__ import annotations

import numpy as np

from physics.cells.chen2020 import CHEN2020, graphite_entropic_change_V_K
from physics.parameters import CellParameters, ElectrodeParameters, ElectrolyteParameters, FloatArray


def graphite_ocp_V(x: FloatArray) -> FloatArray:
    """Graphite against Li/Li+ (Kim 2011)."""
    return (
        0.124
        + 1.5 * np.exp(-70.0 * x)
        - 0.0351 * np.tanh((x - 0.286) / 0.083)
        - 0.0045 * np.tanh((x - 0.9) / 0.119)
        - 0.035 * np.tanh((x - 0.99) / 0.05)
        - 0.0147 * np.tanh((x - 0.5) / 0.034)
        - 0.102 * np.tanh((x - 0.194) / 0.142)
        - 0.022 * np.tanh((x - 0.98) / 0.0164)
        - 0.011 * np.tanh((x - 0.124) / 0.0226)
        + 0.0155 * np.tanh((x - 0.105) / 0.029)
    )


def nca_ocp_V(x: FloatArray) -> FloatArray:
    """NCA against Li/Li+ (Kim 2011). The polynomial holds above 0.3; a charged cell stays above."""
    return np.polyval(
        (1.638, -2.222, 15.056, -23.488, 81.246, -344.566, 621.3475, -554.774, 264.427, -66.3691, 11.8058), x
    ) - 0.61386 * np.exp(5.8201 * x**136.4)


def nca_entropic_change_V_K(x: FloatArray) -> FloatArray:
    """dU/dT of NCA: not in the paper, zero."""
    return np.zeros_like(x)


def kim_diffusivity_m2_s(c: FloatArray) -> FloatArray:
    """LiPF6 at 25 degC (Kim 2011)."""
    m, t = c / 1000.0, 298.15
    return 5.84e-7 * np.exp(-2870.0 / t) * m**2 - 33.9e-7 * np.exp(-2920.0 / t) * m + 129e-7 * np.exp(-3200.0 / t)


def kim_conductivity_S_m(c: FloatArray) -> FloatArray:
    """LiPF6 at 25 degC (Kim 2011)."""
    m, t = c / 1000.0, 298.15
    return 3.45 * np.exp(-798.0 / t) * m**3 - 48.5 * np.exp(-1080.0 / t) * m**2 + 244.0 * np.exp(-1440.0 / t) * m


KIM2011 = CellParameters(
    name="kim2011",
    chemistry="NCA-graphite",
    sources=("Kim2011", "ORegan2022", "Yang2017"),
    does_not_claim=(
        "a cell that was made: it is a nominal design",
        "entropic change of NCA (taken as zero)",
        "life: its aging constants are those of chen2020",
        "cooling of a particular pack",
    ),
    nominal_capacity_Ah=0.43,
    voltage_min_V=2.7,
    voltage_max_V=4.2,
    area_m2=0.2 * 0.14,
    volume_m3=4.62e-6,
    cooling_area_m2=0.0561,
    heat_transfer_W_m2K=25.0,
    reference_temperature_K=298.15,
    separator_thickness_m=2.5e-5,
    separator_porosity=0.4,
    separator_density_kg_m3=511.86798,
    separator_heat_capacity_J_kgK=700.0,
    collector_thickness_m=(1e-5, 1e-5),
    collector_density_kg_m3=(11544.75, 3490.24338),
    collector_heat_capacity_J_kgK=(385.0, 897.0),
    electrode_bruggeman=2.0,
    negative=ElectrodeParameters(
        thickness_m=7e-5,
        porosity=0.4,
        active_fraction=0.51,
        particle_radius_m=5.083e-7,
        max_concentration_mol_m3=28700.0,
        initial_concentration_mol_m3=18081.0,
        diffusivity_m2_s=9e-14,
        diffusivity_activation_J_mol=4e3,
        exchange_rate=7.5438e-5,  # 36 A/m2 at stoichiometry 0.36
        exchange_activation_J_mol=3e4,
        conductivity_S_m=100.0,
        density_kg_m3=2136.43638,
        heat_capacity_J_kgK=700.0,
        ocp_V=graphite_ocp_V,
        entropic_change_V_K=graphite_entropic_change_V_K,
    ),
    positive=ElectrodeParameters(
        thickness_m=5e-5,
        porosity=0.4,
        active_fraction=0.41,
        particle_radius_m=1.633e-6,
        max_concentration_mol_m3=49000.0,
        initial_concentration_mol_m3=20090.0,
        diffusivity_m2_s=3e-15,
        diffusivity_activation_J_mol=2e4,
        exchange_rate=4.7913e-6,  # 4 A/m2 at stoichiometry 0.41
        exchange_activation_J_mol=3e4,
        conductivity_S_m=10.0,
        density_kg_m3=4205.82708,
        heat_capacity_J_kgK=700.0,
        ocp_V=nca_ocp_V,
        entropic_change_V_K=nca_entropic_change_V_K,
    ),
    electrolyte=ElectrolyteParameters(
        concentration_mol_m3=1200.0,
        transference=0.4,
        diffusivity_m2_s=kim_diffusivity_m2_s,
        diffusivity_activation_J_mol=30060.0,
        conductivity_S_m=kim_conductivity_S_m,
        conductivity_activation_J_mol=15850.0,
        bruggeman=2.0,
    ),
    sei=CHEN2020.sei,
    plating=CHEN2020.plating,
    lam_negative=CHEN2020.lam_negative,
    lam_positive=CHEN2020.lam_positive,
    dry_out=CHEN2020.dry_out,
    valid_temperature_C=(-10.0, 50.0),
    valid_c_rate=(-2.0, 6.0),
)
