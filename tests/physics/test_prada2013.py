"""The LFP cell: the same functions as PyBaMM's Prada2013 set, and what a 2.3 Ah 26650 is known to be."""

from __future__ import annotations

import numpy as np
import pybamm
import pytest

from physics.cells.prada2013 import PRADA2013
from physics.constants import FARADAY
from physics.parameters import ElectrodeParameters

X = np.linspace(0.01, 0.99, 25)


@pytest.fixture(scope="module")
def reference() -> pybamm.ParameterValues:
    return pybamm.ParameterValues("Prada2013")


def charge_C(electrode: ElectrodeParameters) -> float:
    """Of an electrode from empty to full."""
    volume = PRADA2013.area_m2 * electrode.thickness_m * electrode.active_fraction
    return FARADAY * volume * electrode.max_concentration_mol_m3


def test_curves_are_those_of_pybamm(reference: pybamm.ParameterValues) -> None:
    for electrode, name in ((PRADA2013.negative, "Negative"), (PRADA2013.positive, "Positive")):
        theirs = reference[f"{name} electrode OCP [V]"](pybamm.Vector(X)).evaluate().ravel()
        assert electrode.ocp_V(X) == pytest.approx(theirs, abs=1e-9)
    c = np.array([800.0, 1200.0, 1600.0])
    theirs = reference["Electrolyte conductivity [S.m-1]"](pybamm.Vector(c), 298.15).evaluate().ravel()
    assert PRADA2013.electrolyte.conductivity_S_m(c) == pytest.approx(theirs)


def test_numbers_are_those_of_pybamm(reference: pybamm.ParameterValues) -> None:
    for electrode, name in ((PRADA2013.negative, "Negative"), (PRADA2013.positive, "Positive")):
        pairs = {
            f"{name} electrode thickness [m]": electrode.thickness_m,
            f"{name} electrode porosity": electrode.porosity,
            f"{name} electrode active material volume fraction": electrode.active_fraction,
            f"{name} particle radius [m]": electrode.particle_radius_m,
            f"{name} particle diffusivity [m2.s-1]": electrode.diffusivity_m2_s,
            f"Maximum concentration in {name.lower()} electrode [mol.m-3]": electrode.max_concentration_mol_m3,
            f"Initial concentration in {name.lower()} electrode [mol.m-3]": electrode.initial_concentration_mol_m3,
            f"{name} electrode conductivity [S.m-1]": electrode.conductivity_S_m,
        }
        for key, ours in pairs.items():
            assert ours == pytest.approx(reference[key]), key


def test_a_2_3_Ah_cell_of_67_J_K() -> None:
    n, p = PRADA2013.negative, PRADA2013.positive
    lithium = charge_C(n) * n.initial_concentration_mol_m3 / n.max_concentration_mol_m3
    lithium += charge_C(p) * p.initial_concentration_mol_m3 / p.max_concentration_mol_m3
    x = np.linspace(0.005, 0.9, 20001)
    ocv = p.ocp_V((lithium - charge_C(n) * x) / charge_C(p)) - n.ocp_V(x)
    full, empty = (np.interp(v, ocv, x) for v in (PRADA2013.voltage_max_V, PRADA2013.voltage_min_V))
    assert charge_C(n) * (full - empty) / 3600.0 == pytest.approx(2.3, abs=0.02)
    assert PRADA2013.heat_capacity_J_K == pytest.approx(66.9, abs=0.5)
