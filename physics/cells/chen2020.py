"""LG M50 21700, 5 Ah: NMC811 against graphite with silicon (taken as graphite).

Cell: Chen et al. 2020, J. Electrochem. Soc. 167, 080534 (doi 10.1149/1945-7111/ab9050). Electrolyte: Nyman, Behm and
Lindbergh 2008, Electrochim. Acta 53, 6356 (doi 10.1016/j.electacta.2008.04.023). Activation energies as collected by
O'Kane et al. 2022, Phys. Chem. Chem. Phys. 24, 7909 (doi 10.1039/d2cp00417h), who took them from Ecker et al. 2015 and
Cabanero et al. 2018. Entropic changes: O'Regan et al. 2022, Electrochim. Acta 425, 140700
(doi 10.1016/j.electacta.2022.140700). SEI law: Yang et al. 2017, J. Power Sources 360, 28
(doi 10.1016/j.jpowsour.2017.05.110); its constants are ours, fitted to calendar life data (docs/aging-calibration.md).
"""

from __future__ import annotations

import numpy as np

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


def graphite_ocp_V(x: FloatArray) -> FloatArray:
    """Graphite against Li/Li+ (Chen 2020, eq. 9)."""
    return (
        1.9793 * np.exp(-39.3631 * x)
        + 0.2482
        - 0.0909 * np.tanh(29.8538 * (x - 0.1234))
        - 0.04478 * np.tanh(14.9159 * (x - 0.2769))
        - 0.0205 * np.tanh(30.4444 * (x - 0.6103))
    )


def nmc_ocp_V(x: FloatArray) -> FloatArray:
    """NMC811 against Li/Li+ (Chen 2020, eq. 8)."""
    return (
        -0.8090 * x
        + 4.4875
        - 0.0428 * np.tanh(18.5138 * (x - 0.5542))
        - 17.7326 * np.tanh(15.7890 * (x - 0.3117))
        + 17.5842 * np.tanh(15.9308 * (x - 0.3120))
    )


def graphite_entropic_change_V_K(x: FloatArray) -> FloatArray:
    """dU/dT of graphite at 25 degC (O'Regan 2022; the term they set to zero is left out)."""
    return (-0.1112 * x + 0.02914 + 0.3561 * np.exp(-((x - 0.08309) ** 2) / 0.004616)) / 1000.0


def nmc_entropic_change_V_K(x: FloatArray) -> FloatArray:
    """dU/dT of NMC811 at 25 degC (O'Regan 2022)."""
    return (
        0.04006 * np.exp(-((x - 0.2828) ** 2) / 0.0009855) - 0.06656 * np.exp(-((x - 0.8032) ** 2) / 0.02179)
    ) / 1000.0


def nyman_diffusivity_m2_s(c: FloatArray) -> FloatArray:
    """LiPF6 in EC:EMC 3:7 at 25 degC (Nyman 2008)."""
    return 8.794e-11 * (c / 1000.0) ** 2 - 3.972e-10 * (c / 1000.0) + 4.862e-10


def nyman_conductivity_S_m(c: FloatArray) -> FloatArray:
    """LiPF6 in EC:EMC 3:7 at 25 degC (Nyman 2008)."""
    return 0.1297 * (c / 1000.0) ** 3 - 2.51 * (c / 1000.0) ** 1.5 + 3.329 * (c / 1000.0)


CHEN2020 = CellParameters(
    name="chen2020",
    chemistry="NMC811-graphite",
    sources=("Chen2020", "Nyman2008", "OKane2022", "ORegan2022", "Yang2017"),
    does_not_claim=(
        "silicon's hysteresis",
        "cycling at 1C and above, or shallow and fast: the stress law overrates the C-rate and underrates the depth",
        "damage by cold charging: nothing was fitted to it",
        "the life of this very cell: the SEI constants are fitted to cells of electric vehicles (see `sei` below)",
        "cooling of a particular pack (10 W/m2K is still air around a single cell)",
    ),
    nominal_capacity_Ah=5.0,
    voltage_min_V=2.5,
    voltage_max_V=4.2,
    area_m2=0.065 * 1.58,
    volume_m3=2.42e-5,
    cooling_area_m2=5.31e-3,
    heat_transfer_W_m2K=10.0,
    reference_temperature_K=298.15,
    separator_thickness_m=1.2e-5,
    separator_porosity=0.47,
    separator_density_kg_m3=397.0,
    separator_heat_capacity_J_kgK=700.0,
    collector_thickness_m=(1.2e-5, 1.6e-5),
    collector_density_kg_m3=(8960.0, 2700.0),
    collector_heat_capacity_J_kgK=(385.0, 897.0),
    electrode_bruggeman=1.5,
    negative=ElectrodeParameters(
        thickness_m=8.52e-5,
        porosity=0.25,
        active_fraction=0.75,
        particle_radius_m=5.86e-6,
        max_concentration_mol_m3=33133.0,
        initial_concentration_mol_m3=29866.0,
        diffusivity_m2_s=3.3e-14,
        diffusivity_activation_J_mol=3.03e4,
        exchange_rate=6.48e-7,
        exchange_activation_J_mol=35000.0,
        conductivity_S_m=215.0,
        density_kg_m3=1657.0,
        heat_capacity_J_kgK=700.0,
        ocp_V=graphite_ocp_V,
        entropic_change_V_K=graphite_entropic_change_V_K,
    ),
    positive=ElectrodeParameters(
        thickness_m=7.56e-5,
        porosity=0.335,
        active_fraction=0.665,
        particle_radius_m=5.22e-6,
        max_concentration_mol_m3=63104.0,
        initial_concentration_mol_m3=17038.0,
        diffusivity_m2_s=4e-15,
        diffusivity_activation_J_mol=25000.0,
        exchange_rate=3.42e-6,
        exchange_activation_J_mol=17800.0,
        conductivity_S_m=0.18,
        density_kg_m3=3262.0,
        heat_capacity_J_kgK=700.0,
        ocp_V=nmc_ocp_V,
        entropic_change_V_K=nmc_entropic_change_V_K,
    ),
    electrolyte=ElectrolyteParameters(
        concentration_mol_m3=1000.0,
        transference=0.2594,
        diffusivity_m2_s=nyman_diffusivity_m2_s,
        diffusivity_activation_J_mol=17000.0,
        conductivity_S_m=nyman_conductivity_S_m,
        conductivity_activation_J_mol=17000.0,
        bruggeman=1.5,
    ),
    sei=SeiParameters(
        # Fitted to calendar life: the mean of three NMC-graphite cells of electric vehicles, 10-45 degC, 30-100 %
        # charge, ten years; 0.9 points rms (docs/aging-calibration.md). The constants printed with this law (k_sei
        # 1e-12, D_ec 2e-18, from Yang 2017) belong to another parameter set: here they consume the cell within hours.
        # The LG M50 itself ages twice as fast in the laboratory; its own fit is 1.6e-16, 3.1e-21 and 41,000 J/mol.
        rate_m_s=6.6e-17,
        ec_diffusivity_m2_s=1.3e-21,
        ec_concentration_mol_m3=4541.0,
        potential_V=0.4,
        activation_J_mol=57500.0,
        diffusivity_activation_J_mol=57500.0,
        molar_volume_m3_mol=9.585e-5,
        lithium_per_mole=2.0,  # (CH2OCO2Li)2, as in Chen2020's set; O'Kane 2022 counts 1 "true to paper"
        resistivity_Ohm_m=6.6e4,  # resistance by capacity lost as in Schmalstieg et al. 2014; Chen's set has 2e5
        initial_thickness_m=5e-9,
    ),
    # O'Kane's law has no threshold, so some metal is present at rest, too. At the published 1e-6 1/s its dying would
    # cost 1 to 2 points in ten years of rest. The calendar fit, made without it, leaves no room for that. A tenth fits.
    plating=PlatingParameters(rate_m_s=1e-9, dead_rate_1_s=1e-7, metal_molar_volume_m3_mol=1.3e-5),
    # Fitted to cycling of the same cells at C/3 and C/2, 10-90 % charge, 10-45 degC, up to 1,000 equivalent full
    # cycles: 0.8 points rms. Capacity data cannot tell the electrodes apart, so both lose the same share at C/2 and 25
    # degC.
    lam_negative=LamParameters(
        rate_1_s=1.335e-6,
        activation_J_mol=53600.0,
        critical_stress_Pa=60e6,
        youngs_modulus_Pa=15e9,
        poisson_ratio=0.3,
        partial_molar_volume_m3_mol=3.1e-6,
    ),
    lam_positive=LamParameters(
        rate_1_s=9.3e-11,
        activation_J_mol=53600.0,
        critical_stress_Pa=375e6,
        youngs_modulus_Pa=375e9,
        poisson_ratio=0.2,
        partial_molar_volume_m3_mol=1.25e-5,
    ),
    # The volume is that of a mole of ethylene carbonate (6.7e-5 m3) less the film's own. What lost material takes up is
    # set by how much steeper published capacities fall behind a knee, the reserve by where the knees are
    # (docs/aging-calibration.md).
    dry_out=DryOutParameters(reserve=0.25, reserve_spread=0.25, volume_m3_mol=1.9e-5, per_lost_material=1.0),
    valid_temperature_C=(-20.0, 60.0),
    valid_c_rate=(-1.5, 3.0),
)
