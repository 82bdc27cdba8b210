"""A sodium-ion cell: hard carbon against NVPF, Na3V2(PO4)2F3. 3 mAh on one pair of electrodes, at 25 degC.

Cell: Chayambuka et al. 2022, Electrochim. Acta 404, 139764 (doi 10.1016/j.electacta.2021.139764), as collected in
PyBaMM's Chayambuka2022 set. What is called lithium elsewhere is sodium here. Potentials, diffusivities and exchange
rates are tables; all depend on stoichiometry, by factors of up to 80.

Against PyBaMM's DFN (`tests/physics/test_chayambuka2022.py`), discharged from full: 0.5 mV rms and 0.1 % of the charge
at C/12, 2.8 mV and 0.4 % at C/4, 7 mV and 1.1 % at C/2, without the last tenth, where a little charge means a large
change of voltage. 1C is off by 35 mV and 3.6 %: the salt is nearly used up in part of the positive electrode, so that
this no longer works evenly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from physics.cells.chen2020 import CHEN2020
from physics.constants import FARADAY
from physics.parameters import CellParameters, ElectrodeParameters, ElectrolyteParameters, FloatArray

# Of stoichiometry. The first point of each is ours: the potentials go on rising where none was measured.
_HARD_CARBON_V: Final = (
    (0, 2), (0.001437, 1.319), (0.001643, 1.2198), (0.008118, 1.112), (0.010273, 1.0775), (0.03548, 0.9783),
    (0.060758, 0.84457), (0.090186, 0.71944), (0.127982, 0.57704), (0.169901, 0.45617), (0.232689, 0.31797),
    (0.320486, 0.17535), (0.403955, 0.11033), (0.483167, 0.088439), (0.574861, 0.075113), (0.68738, 0.066007),
    (0.799899, 0.056902), (0.891594, 0.043575), (0.960353, 0.038969), (0.987446, 0.034541), (0.995806, 0.021574),
)  # fmt: skip
_NVPF_V: Final = (
    (0, 4.7), (0.21, 4.2881), (0.210045, 4.2109), (0.21927, 4.1753), (0.261497, 4.1725), (0.332355, 4.1727),
    (0.409317, 4.1582), (0.474174, 4.1525), (0.526985, 4.1438), (0.560317, 4.1112), (0.575706, 4.0489),
    (0.582274, 3.942), (0.585976, 3.8054), (0.590902, 3.7252), (0.598589, 3.6955), (0.655863, 3.6987),
    (0.696598, 3.6929), (0.741871, 3.6842), (0.802205, 3.6785), (0.864032, 3.6757), (0.930501, 3.6492),
    (0.95928, 3.6226), (0.979341, 3.5306), (0.980054, 3.4504), (0.983058, 3.391), (0.992283, 3.3554),
    (0.996268, 3.1624), (0.99994, 3.0317),
)  # fmt: skip
# Of concentration [mol/m3].
_HARD_CARBON_M2_S: Final = (
    (74, 2.57e-16), (246, 3.03e-16), (419, 3.54e-16), (714, 3.99e-16), (1108, 4.5e-16), (1478, 4.83e-16),
    (1847, 5.31e-16), (2241, 6.21e-16), (2734, 7.6e-16), (3177, 9.2e-16), (3621, 1.11e-15), (4113, 1.36e-15),
    (4631, 1.57e-15), (5197, 1.79e-15), (5714, 1.93e-15), (6281, 2.02e-15), (6897, 1.97e-15), (7414, 1.84e-15),
    (7833, 1.67e-15), (8325, 1.45e-15), (8670, 1.27e-15), (9039, 1.06e-15), (9384, 8.77e-16), (9729, 7.08e-16),
    (10074, 5.44e-16), (10394, 4.39e-16), (10714, 3.58e-16), (10961, 3.14e-16), (11207, 2.96e-16), (11502, 3.14e-16),
    (11847, 3.8e-16), (12143, 4.72e-16), (12488, 6.13e-16), (12833, 7.78e-16), (13227, 1.01e-15), (13719, 1.21e-15),
    (14015, 1.28e-15), (14261, 1.28e-15), (14433, 1.24e-15),
)  # fmt: skip
_NVPF_M2_S: Final = (
    (132, 2.51e-15), (592, 1.71e-15), (1053, 1.16e-15), (1535, 7.41e-16), (2018, 4.61e-16), (2522, 2.62e-16),
    (2982, 1.56e-16), (3355, 9.92e-17), (3618, 7.92e-17), (3925, 6.61e-17), (4254, 5.65e-17), (4496, 5.53e-17),
    (4890, 6.07e-17), (5263, 6.65e-17), (5680, 7.64e-17), (6096, 8.38e-17), (6579, 8.79e-17), (7039, 8.81e-17),
    (7588, 8.44e-17), (8202, 7.52e-17), (8838, 6.46e-17), (9496, 5.05e-17), (10110, 4.13e-17), (10658, 3.45e-17),
    (11184, 3.16e-17), (11776, 3.17e-17), (12346, 3.4e-17), (12829, 3.57e-17), (13333, 3.66e-17), (13750, 3.58e-17),
    (14254, 3.35e-17), (14649, 2.74e-17), (15000, 2.29e-17), (15197, 1.95e-17),
)  # fmt: skip
_HARD_CARBON_M_S: Final = (
    (121, 3.33e-11), (413, 2.15e-11), (631, 1.39e-11), (801, 9.4e-12), (971, 6.88e-12), (1141, 5.71e-12),
    (1262, 5.26e-12), (1529, 7.03e-12), (1796, 1.04e-11), (2063, 1.58e-11), (2500, 2.65e-11), (3058, 4.18e-11),
    (3714, 5.83e-11), (4660, 7.48e-11), (5413, 7.96e-11), (6068, 7.48e-11), (6869, 6.47e-11), (7718, 4.94e-11),
    (8422, 3.47e-11), (9005, 2.39e-11), (9539, 1.61e-11), (10024, 1.21e-11), (10388, 1.06e-11), (10752, 1.13e-11),
    (11214, 1.51e-11), (11723, 2.25e-11), (12379, 3.54e-11), (12913, 4.94e-11), (13471, 6.34e-11), (14005, 7.48e-11),
    (14417, 7.96e-11),
)  # fmt: skip
_NVPF_M_S: Final = (
    (22, 2.27e-10), (373, 1.74e-10), (833, 1.24e-10), (1294, 8.51e-11), (1908, 4.83e-11), (2456, 2.96e-11),
    (2961, 1.95e-11), (3443, 1.45e-11), (3969, 1.16e-11), (4803, 1.08e-11), (5548, 1.17e-11), (6382, 1.18e-11),
    (7193, 1.1e-11), (8092, 8.79e-12), (8969, 6.65e-12), (9649, 5.03e-12), (10351, 3.87e-12), (11075, 3.34e-12),
    (12171, 3.37e-12), (13224, 3.6e-12), (14189, 3.3e-12), (14934, 2.35e-12), (15329, 1.91e-12),
)  # fmt: skip
_SALT_M2_S: Final = (
    (1, 4.14e-11), (124, 3.87e-11), (249, 3.62e-11), (388, 3.33e-11), (539, 3.11e-11), (742, 2.81e-11),
    (1014, 2.49e-11), (1273, 2.25e-11), (1514, 2.14e-11), (1812, 1.99e-11), (2114, 1.86e-11), (2321, 1.79e-11),
    (2472, 1.76e-11),
)  # fmt: skip
_SALT_S_M: Final = (
    (150, 0.404), (500, 0.72), (1000, 0.883), (1500, 0.861), (2000, 0.76),
)  # fmt: skip
HARD_CARBON_MOL_M3: Final = 14540.0
NVPF_MOL_M3: Final = 15320.0
_SALT_MOL_M3: Final = 1000.0
# The values at some stoichiometry, by which the tables are divided.
_D_N, _D_P = 1e-15, 5e-17
_K_N, _K_P = 3e-11, 1e-11


def hard_carbon_ocp_V(x: FloatArray) -> FloatArray:
    """Hard carbon against Na/Na+ (Chayambuka 2022)."""
    return np.interp(x, *np.array(_HARD_CARBON_V).T)


def nvpf_ocp_V(x: FloatArray) -> FloatArray:
    """NVPF against Na/Na+ (Chayambuka 2022)."""
    return np.interp(x, *np.array(_NVPF_V).T)


def entropic_change_V_K(x: FloatArray) -> FloatArray:
    """dU/dT: not in the paper, zero."""
    return np.zeros_like(x)


def hard_carbon_relative_diffusivity(x: FloatArray) -> FloatArray:
    """Over `_D_N`."""
    return np.interp(HARD_CARBON_MOL_M3 * x, *np.array(_HARD_CARBON_M2_S).T) / _D_N


def nvpf_relative_diffusivity(x: FloatArray) -> FloatArray:
    """Over `_D_P`."""
    return np.interp(NVPF_MOL_M3 * x, *np.array(_NVPF_M2_S).T) / _D_P


def hard_carbon_relative_exchange(x: FloatArray) -> FloatArray:
    """Over `_K_N`."""
    return np.interp(HARD_CARBON_MOL_M3 * x, *np.array(_HARD_CARBON_M_S).T) / _K_N


def nvpf_relative_exchange(x: FloatArray) -> FloatArray:
    """Over `_K_P`."""
    return np.interp(NVPF_MOL_M3 * x, *np.array(_NVPF_M_S).T) / _K_P


def salt_diffusivity_m2_s(c: FloatArray) -> FloatArray:
    """NaPF6 in EC:PC 1:1 at 25 degC (Chayambuka 2022)."""
    return np.interp(c, *np.array(_SALT_M2_S).T)


def salt_conductivity_S_m(c: FloatArray) -> FloatArray:
    """NaPF6 in EC:PC 1:1 at 25 degC (Chayambuka 2022)."""
    return np.interp(c, *np.array(_SALT_S_M).T)


def _exchange_rate(k: float) -> float:
    """From j0 = F k/2 sqrt(c_e/c_0 c_s (c_max - c_s))."""
    return 0.5 * FARADAY * k / _SALT_MOL_M3**0.5


CHAYAMBUKA2022: Final[CellParameters] = replace(
    CHEN2020,
    name="chayambuka2022",
    chemistry="sodium-ion, NVPF-hard carbon",
    sources=("Chayambuka2022",),
    does_not_claim=(
        "aging: none is modelled",
        "any influence of temperature: all was measured at 25 degC; heat capacity and cooling are those of the layers",
        "1C and above (see above)",
        "a cell that is made, or a vehicle's: it is one pair of electrodes from the laboratory",
    ),
    nominal_capacity_Ah=3e-3,
    voltage_min_V=2.0,
    voltage_max_V=4.2,
    area_m2=2.54e-4,
    volume_m3=2.54e-4 * 185e-6,
    cooling_area_m2=2.0 * 2.54e-4,
    separator_thickness_m=2.5e-5,
    separator_porosity=0.55,
    electrode_bruggeman=0.0,
    negative=ElectrodeParameters(
        thickness_m=6.4e-5,
        porosity=0.51,
        active_fraction=0.489,
        particle_radius_m=3.48e-6,
        max_concentration_mol_m3=HARD_CARBON_MOL_M3,
        initial_concentration_mol_m3=13520.0,
        diffusivity_m2_s=_D_N,
        diffusivity_activation_J_mol=0.0,
        exchange_rate=_exchange_rate(_K_N),
        exchange_activation_J_mol=0.0,
        conductivity_S_m=256.0,
        density_kg_m3=CHEN2020.negative.density_kg_m3,
        heat_capacity_J_kgK=CHEN2020.negative.heat_capacity_J_kgK,
        ocp_V=hard_carbon_ocp_V,
        entropic_change_V_K=entropic_change_V_K,
        relative_diffusivity=hard_carbon_relative_diffusivity,
        relative_exchange=hard_carbon_relative_exchange,
    ),
    positive=ElectrodeParameters(
        thickness_m=6.8e-5,
        porosity=0.23,
        active_fraction=0.55,
        particle_radius_m=5.9e-7,
        max_concentration_mol_m3=NVPF_MOL_M3,
        initial_concentration_mol_m3=3320.0,
        diffusivity_m2_s=_D_P,
        diffusivity_activation_J_mol=0.0,
        exchange_rate=_exchange_rate(_K_P),
        exchange_activation_J_mol=0.0,
        conductivity_S_m=50.0,
        density_kg_m3=CHEN2020.positive.density_kg_m3,
        heat_capacity_J_kgK=CHEN2020.positive.heat_capacity_J_kgK,
        ocp_V=nvpf_ocp_V,
        entropic_change_V_K=entropic_change_V_K,
        relative_diffusivity=nvpf_relative_diffusivity,
        relative_exchange=nvpf_relative_exchange,
    ),
    electrolyte=ElectrolyteParameters(
        concentration_mol_m3=_SALT_MOL_M3,
        transference=0.45,
        diffusivity_m2_s=salt_diffusivity_m2_s,
        diffusivity_activation_J_mol=0.0,
        conductivity_S_m=salt_conductivity_S_m,
        conductivity_activation_J_mol=0.0,
        bruggeman=1.5,
    ),
    # As good as none: a ten-billionth of graphite's.
    sei=replace(CHEN2020.sei, rate_m_s=6.6e-27, ec_diffusivity_m2_s=1.3e-31),
    plating=None,
    lam_negative=None,
    lam_positive=None,
    dry_out=None,
    fresh_film_included=True,
    valid_temperature_C=(15.0, 35.0),
    valid_c_rate=(-0.5, 0.5),
)
