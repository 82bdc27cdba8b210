"""The LG M50 of `chen2020.py` with its graphite and silicon told apart, and with silicon's hysteresis.

Composite electrode: Ai et al. 2022, J. Power Sources 527, 231142 (doi 10.1016/j.jpowsour.2022.231142), as collected in
PyBaMM's Chen2020_composite set: 73.5 % of the volume graphite, 1.5 % silicon. Open-circuit potential of graphite: Ai et
al. 2020, J. Electrochem. Soc. 167, 013512 (doi 10.1149/2.0122001JES), thinned to 52 points within 0.4 mV (3 mV below a
stoichiometry of 0.02). Branches of silicon: Verbrugge, Baker and Xiao 2016, J. Electrochem. Soc. 163, A262 (doi
10.1149/2.0581602jes). Hysteresis with one state: Axen et al. 2022, J. Energy Storage 48, 103985.

Our electrode has one kind of particle. Both materials are taken to be at one potential, so that a branch of the whole
electrode is the sum of their charges at each potential; its particles are graphite's. How fast silicon moves from one
branch to the other was not measured for this cell. `decay` is the one whose voltage is nearest to a composite electrode
whose silicon has a decay of 10, with which PyBaMM shows its model (`tests/physics/test_hysteresis.py`: 9 mV rms over
nine hours, most of it in the last fifth of the charge, which is silicon's).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from physics.cells.chen2020 import CHEN2020
from physics.parameters import FloatArray, HysteresisParameters

_GRAPHITE: Final = (
    (0.0, 3.5), (0.0005, 3.0), (0.0013, 1.04), (0.0015, 1.01), (0.0022, 0.9425), (0.0041, 0.8162), (0.0048, 0.7803),
    (0.0065, 0.719), (0.0091, 0.65), (0.0127, 0.5833), (0.0178, 0.5124), (0.024, 0.4485), (0.0305, 0.396),
    (0.036, 0.3595), (0.0396, 0.3385), (0.0591, 0.2563), (0.0613, 0.2512), (0.0713, 0.2361), (0.0803, 0.231),
    (0.1192, 0.2233), (0.1281, 0.2183), (0.1343, 0.2133), (0.1416, 0.2082), (0.1897, 0.1842), (0.2092, 0.1768),
    (0.2678, 0.1586), (0.307, 0.1489), (0.3363, 0.144), (0.3754, 0.1408), (0.5023, 0.1364), (0.5316, 0.1339),
    (0.5609, 0.129), (0.6097, 0.1154), (0.639, 0.1099), (0.6781, 0.1059), (0.7563, 0.1026), (0.9124, 0.099),
    (0.9418, 0.0965), (0.9516, 0.0945), (0.9614, 0.0911), (0.9702, 0.0861), (0.9761, 0.0811), (0.9804, 0.076),
    (0.9839, 0.071), (0.9893, 0.0608), (0.9934, 0.0507), (0.9968, 0.0404), (0.9982, 0.0353), (0.9992, 0.0302),
    (0.9997, 0.0249), (0.9999, 0.0193), (1.0, 0.005),
)  # fmt: skip
LITHIATION: Final = (-96.63, 372.6, -587.6, 489.9, -232.8, 62.99, -9.286, 0.8633)
DELITHIATION: Final = (-51.02, 161.3, -205.7, 140.2, -58.76, 16.87, -3.792, 0.9937)

# Of the electrode's volume, times the maximum concentration [mol/m3]: what each material holds.
GRAPHITE_HOLDS: Final = 0.735 * 28700.0
SILICON_HOLDS: Final = 0.015 * 278000.0
_HOLDS: Final = GRAPHITE_HOLDS + SILICON_HOLDS
_ACTIVE: Final = 0.75
_RADIUS_M: Final = 5.86e-6
_SURFACE_1_M: Final = 3.0 * (0.735 / _RADIUS_M + 0.015 / 1.52e-6)


def graphite_V(x: FloatArray) -> FloatArray:
    """Graphite against Li/Li+ (Ai 2020)."""
    return np.interp(x, *np.array(_GRAPHITE).T)


def silicon_V(x: FloatArray, powers: tuple[float, ...]) -> FloatArray:
    """A branch of silicon against Li/Li+ (Verbrugge 2016). PyBaMM's lithiation branch has poles at 0 and 1 besides."""
    return np.asarray(np.polyval(powers, x), dtype=np.float64)


def _branch(powers: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """(stoichiometry of the whole electrode, potential) where silicon is on this branch, by falling potential."""
    x_graphite, u_graphite = np.array(_GRAPHITE).T
    x_silicon = np.linspace(0.0, 1.0, 1001)
    u_silicon = silicon_V(x_silicon, powers)
    u = np.unique(np.concatenate([u_graphite, u_silicon, np.linspace(0.005, 1.2, 2000)]))
    holds = GRAPHITE_HOLDS * np.interp(u, u_graphite[::-1], x_graphite[::-1])
    holds += SILICON_HOLDS * np.interp(u, u_silicon[::-1], x_silicon[::-1])
    return holds[::-1] / _HOLDS, u[::-1]


_LITHIATED: Final = _branch(LITHIATION)
_DELITHIATED: Final = _branch(DELITHIATION)


def lithiation_V(x: FloatArray) -> FloatArray:
    """Of the whole electrode against Li/Li+, while it takes lithium."""
    return np.interp(x, *_LITHIATED)


def delithiation_V(x: FloatArray) -> FloatArray:
    """The same while it gives lithium."""
    return np.interp(x, *_DELITHIATED)


def midway_V(x: FloatArray) -> FloatArray:
    """Mean of both branches."""
    return 0.5 * (lithiation_V(x) + delithiation_V(x))


def half_gap_V(x: FloatArray) -> FloatArray:
    """Half of what the branches are apart."""
    return 0.5 * (delithiation_V(x) - lithiation_V(x))


AI2022 = replace(
    CHEN2020,
    name="ai2022",
    chemistry="NMC811-graphite-silicon",
    sources=("Ai2022", "Chen2020", "Ai2020", "Verbrugge2016", "Axen2022", *CHEN2020.sources[1:]),
    does_not_claim=(
        "currents between graphite and silicon (both are one kind of particle)",
        "how fast silicon moves from one branch to the other (assumed)",
        "the capacity that is printed on the cell: the set holds 5.7 Ah between 2.5 and 4.2 V",
        "aging of silicon: aging constants are those of chen2020",
        *CHEN2020.does_not_claim[1:],
    ),
    negative=replace(
        CHEN2020.negative,
        active_fraction=_ACTIVE,
        particle_radius_m=_RADIUS_M,
        max_concentration_mol_m3=_HOLDS / _ACTIVE,
        initial_concentration_mol_m3=(0.735 * 27700.0 + 0.015 * 276610.0) / _ACTIVE,
        diffusivity_m2_s=5.5e-14,
        # Of both surfaces together, at one stoichiometry.
        exchange_rate=6.48e-7 * 28700.0 / (_HOLDS / _ACTIVE) * _SURFACE_1_M / (3.0 * _ACTIVE / _RADIUS_M),
        ocp_V=midway_V,
        hysteresis=HysteresisParameters(half_gap_V=half_gap_V, decay=60.0),
    ),
)
