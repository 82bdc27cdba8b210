"""ANR26650M1, 2.3 Ah: LFP against graphite, a power cell.

Cell: Prada et al. 2013, J. Electrochem. Soc. 160, A616 (doi 10.1149/2.053304jes), as collected in PyBaMM's Prada2013
set. That set borrows what the paper lacks, and so do we: open-circuit potential of LFP from Afshar, Morris and
Khajepour 2017 (arXiv 1709.03970); of graphite, and its exchange current, from Chen et al. 2020 (doi
10.1149/1945-7111/ab9050); exchange current of LFP from Kashkooli et al. 2017, J. Appl. Electrochem. 47, 281.

The set has no thermal parameters. Activation energies of the solid diffusivities and the electrolyte, heat capacity and
density of the cell: About:Energy's open parameters of a 2 Ah LFP-graphite 18650 (BPX example `lfp_18650_cell`,
December 2022). Entropic change of LFP: Gerver and Meyers 2011 (doi 10.1149/1.3591799), from the same file; of
graphite: O'Regan et al. 2022 (doi 10.1016/j.electacta.2022.140700). SEI law: Yang et al. 2017
(doi 10.1016/j.jpowsour.2017.05.110); its constants are ours, fitted to calendar life data (docs/aging-calibration.md).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from physics.cells.chen2020 import graphite_entropic_change_V_K, graphite_ocp_V
from physics.parameters import (
    CellParameters,
    DryOutParameters,
    ElectrodeParameters,
    ElectrolyteParameters,
    FloatArray,
    LamParameters,
    PlatingParameters,
    SeiParameters,
)


def lfp_ocp_V(x: FloatArray) -> FloatArray:
    """LFP against Li/Li+ (Afshar 2017), one curve for charge and discharge."""
    return 3.4077 - 0.020269 * x + 0.5 * np.exp(-150.0 * x) - 0.9 * np.exp(-30.0 * (1.0 - x))


# At stoichiometries 0, 0.1, ... 1.
_LFP_ENTROPIC_UV_K: Final = (100.0, 37.7, 6.0, -14.0, -33.6, -52.3, -68.0, -87.6, -108.6, -112.4, -225.4)


def lfp_entropic_change_V_K(x: FloatArray) -> FloatArray:
    """dU/dT of LFP at 25 degC (Gerver and Meyers 2011), linear between eleven points."""
    return 1e-6 * np.interp(x, np.linspace(0.0, 1.0, len(_LFP_ENTROPIC_UV_K)), _LFP_ENTROPIC_UV_K)


def prada_diffusivity_m2_s(c: FloatArray) -> FloatArray:
    """LiPF6 in EC:EMC, constant (Prada 2013)."""
    return np.full_like(c, 2e-10)


def prada_conductivity_S_m(c: FloatArray) -> FloatArray:
    """LiPF6 in EC:EMC 3:7 at 25 degC (Prada 2013, as PyBaMM scales it).

    At 1,200 mol/m3 it gives 1.9 S/m, twice what Nyman et al. measured; kept, to be the same cell as PyBaMM's.
    """
    m = c / 1e6
    return 1e3 * (4.1253e-4 + 5.007 * m - 4721.2 * m**2 + 1.5094e6 * m**3 - 1.6018e8 * m**4)


PRADA2013 = CellParameters(
    name="prada2013",
    chemistry="LFP-graphite",
    sources=("Prada2013", "Afshar2017", "Chen2020", "Kashkooli2017", "AboutEnergy2022", "Gerver2011", "ORegan2022"),
    does_not_claim=(
        "the hysteresis and path dependence of LFP",
        "two-phase diffusion in LFP (a constant diffusivity stands for it)",
        "the electrolyte's conductivity (twice the measured one, see `prada_conductivity_S_m`)",
        "activation energies, heat capacity and entropic changes of this very cell (another LFP-graphite cell's)",
        "life of this very cell: the SEI constants are fitted to another LFP-graphite cell",
        "cooling of a particular pack (10 W/m2K is still air around a single cell)",
    ),
    nominal_capacity_Ah=2.3,
    voltage_min_V=2.0,
    voltage_max_V=3.6,
    area_m2=0.6 * 0.3,
    # A 26650: 26 mm across, 65 mm long.
    volume_m3=math.pi / 4.0 * 0.026**2 * 0.065,
    cooling_area_m2=math.pi * 0.026 * 0.065 + 2.0 * math.pi / 4.0 * 0.026**2,
    heat_transfer_W_m2K=10.0,
    reference_temperature_K=298.15,
    # 1,940 kg/m3 and 999 J/kgK in every layer: only the average of the cell was published. It gives 67 J/K.
    separator_thickness_m=2.5e-5,
    separator_porosity=0.45,
    separator_density_kg_m3=1940.0,
    separator_heat_capacity_J_kgK=999.0,
    collector_thickness_m=(1e-5, 1.5e-5),
    collector_density_kg_m3=(1940.0, 1940.0),
    collector_heat_capacity_J_kgK=(999.0, 999.0),
    electrode_bruggeman=1.5,
    negative=ElectrodeParameters(
        thickness_m=3.4e-5,
        porosity=0.36,
        active_fraction=0.58,
        particle_radius_m=5e-6,
        max_concentration_mol_m3=30555.0,
        initial_concentration_mol_m3=0.81 * 30555.0,
        diffusivity_m2_s=3e-15,
        diffusivity_activation_J_mol=30000.0,
        exchange_rate=6.48e-7,
        exchange_activation_J_mol=35000.0,
        conductivity_S_m=215.0,
        density_kg_m3=1940.0,
        heat_capacity_J_kgK=999.0,
        ocp_V=graphite_ocp_V,
        entropic_change_V_K=graphite_entropic_change_V_K,
    ),
    positive=ElectrodeParameters(
        thickness_m=8e-5,
        porosity=0.426,
        active_fraction=0.374,
        particle_radius_m=5e-8,
        max_concentration_mol_m3=22806.0,
        initial_concentration_mol_m3=0.0038 * 22806.0,
        diffusivity_m2_s=5.9e-18,
        diffusivity_activation_J_mol=80000.0,
        exchange_rate=6e-7,
        exchange_activation_J_mol=39570.0,
        conductivity_S_m=0.33795074,
        density_kg_m3=1940.0,
        heat_capacity_J_kgK=999.0,
        ocp_V=lfp_ocp_V,
        entropic_change_V_K=lfp_entropic_change_V_K,
    ),
    electrolyte=ElectrolyteParameters(
        concentration_mol_m3=1200.0,
        transference=0.36,
        diffusivity_m2_s=prada_diffusivity_m2_s,
        diffusivity_activation_J_mol=17100.0,
        conductivity_S_m=prada_conductivity_S_m,
        conductivity_activation_J_mol=17100.0,
        bruggeman=1.5,
    ),
    sei=SeiParameters(
        # Fitted to calendar life of Sony-Murata's 3 Ah LFP-graphite cell, 10-45 degC, 30-100 % charge, ten years; 1.1
        # points rms (docs/aging-calibration.md). A large prismatic cell ages 2.5 times slower; its fit is 1.9e-17,
        # 1.3e-22 and 77,000 J/mol.
        rate_m_s=1.36e-16,
        ec_diffusivity_m2_s=6.2e-22,
        ec_concentration_mol_m3=4541.0,
        potential_V=0.4,
        activation_J_mol=50700.0,
        diffusivity_activation_J_mol=50700.0,
        molar_volume_m3_mol=9.585e-5,
        lithium_per_mole=2.0,
        resistivity_Ohm_m=2e4,  # resistance by capacity lost as in Naumann et al. 2018; Chen's set has 2e5
        initial_thickness_m=5e-9,
    ),
    # O'Kane's law has no threshold, so some metal is present at rest, too. At the published 1e-6 1/s its dying would
    # cost 1 to 2 points in ten years of rest. The calendar fit, made without it, leaves no room for that. A tenth fits.
    plating=PlatingParameters(rate_m_s=1e-9, dead_rate_1_s=1e-7, metal_molar_volume_m3_mol=1.3e-5),
    # Fitted to the same cell's cycling, 0.2 points rms. LFP's 50 nm particles are never under notable stress.
    lam_negative=LamParameters(
        rate_1_s=1.1e-8,
        activation_J_mol=65400.0,
        critical_stress_Pa=60e6,
        youngs_modulus_Pa=15e9,
        poisson_ratio=0.3,
        partial_molar_volume_m3_mol=3.1e-6,
    ),
    lam_positive=None,
    # Those of chen2020. This power cell has four times the pores for its capacity, so they hardly ever dry.
    dry_out=DryOutParameters(reserve=0.25, reserve_spread=0.25, volume_m3_mol=1.9e-5, per_lost_material=1.0),
    valid_temperature_C=(-10.0, 55.0),
    valid_c_rate=(-2.0, 5.0),
)
