"""The cell of `chen2020.py` with aging constants from the literature, not fitted: for comparison with PyBaMM.

Plating and loss of active material: O'Kane et al. 2022, Phys. Chem. Chem. Phys. 24, 7909 (doi 10.1039/d2cp00417h), as
in PyBaMM's OKane2022 set. Its constant for the positive electrode destroys a cathode within hours (the stress is ten
times the critical one), so it is left out. The film's constants as printed with this law (k_sei 1e-12 m/s, D_ec 2e-18
m2/s, Yang 2017) consume this cell within hours. Those below give calendar life of the published order at 25 degC and
keep O'Kane's 38 kJ/mol. For realistic life use `chen2020`, which is fitted to life data.
"""

from __future__ import annotations

from dataclasses import replace

from physics.cells.chen2020 import CHEN2020
from physics.parameters import LamParameters, PlatingParameters

OKANE2022 = replace(
    CHEN2020,
    name="okane2022",
    does_not_claim=("silicon's hysteresis", "life: its constants are fitted to no life data"),
    plating=PlatingParameters(rate_m_s=1e-9, dead_rate_1_s=1e-6, metal_molar_volume_m3_mol=1.3e-5),
    lam_negative=LamParameters(
        rate_1_s=2.7778e-7,
        activation_J_mol=0.0,
        critical_stress_Pa=60e6,
        youngs_modulus_Pa=15e9,
        poisson_ratio=0.3,
        partial_molar_volume_m3_mol=3.1e-6,
    ),
    lam_positive=None,
    dry_out=None,
    sei=replace(
        CHEN2020.sei,
        resistivity_Ohm_m=2e5,
        rate_m_s=4e-17,
        ec_diffusivity_m2_s=8e-22,
        activation_J_mol=38000.0,
        diffusivity_activation_J_mol=38000.0,
    ),
)
