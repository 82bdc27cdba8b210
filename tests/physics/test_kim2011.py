"""The NCA cell: the same functions and numbers as PyBaMM's NCA_Kim2011 set."""

from __future__ import annotations

import numpy as np
import pybamm
import pytest

from physics import simulate_protocol
from physics.cells.kim2011 import KIM2011

X = np.linspace(0.3, 0.95, 25)


def test_curves_and_numbers_are_those_of_pybamm() -> None:
    reference = pybamm.ParameterValues("NCA_Kim2011")
    c_e, t = 1100.0, 298.15
    for electrode, name in ((KIM2011.negative, "Negative"), (KIM2011.positive, "Positive")):
        theirs = reference[f"{name} electrode OCP [V]"](pybamm.Vector(X)).evaluate().ravel()
        assert electrode.ocp_V(X) == pytest.approx(theirs, abs=1e-9)
        assert electrode.diffusivity_m2_s == pytest.approx(
            float(reference[f"{name} particle diffusivity [m2.s-1]"](pybamm.Scalar(0.5), pybamm.Scalar(t)).evaluate())
        )
        c_max = electrode.max_concentration_mol_m3
        exchange = reference[f"{name} electrode exchange-current density [A.m-2]"](
            c_e, pybamm.Vector(X * c_max), c_max, t
        )
        theirs = reference.process_symbol(exchange).evaluate().ravel()
        assert electrode.exchange_rate * c_max * np.sqrt(c_e * X * (1.0 - X)) == pytest.approx(theirs, rel=1e-4)
        for key, ours in {
            f"{name} electrode thickness [m]": electrode.thickness_m,
            f"{name} electrode porosity": electrode.porosity,
            f"{name} electrode active material volume fraction": electrode.active_fraction,
            f"{name} particle radius [m]": electrode.particle_radius_m,
            f"Maximum concentration in {name.lower()} electrode [mol.m-3]": c_max,
            f"Initial concentration in {name.lower()} electrode [mol.m-3]": electrode.initial_concentration_mol_m3,
            f"{name} electrode conductivity [S.m-1]": electrode.conductivity_S_m,
        }.items():
            assert ours == pytest.approx(reference[key]), key
    c = np.array([800.0, 1200.0, 1600.0])
    salt = KIM2011.electrolyte
    for what, curve, energy in (
        ("diffusivity [m2.s-1]", salt.diffusivity_m2_s, salt.diffusivity_activation_J_mol),
        ("conductivity [S.m-1]", salt.conductivity_S_m, salt.conductivity_activation_J_mol),
    ):
        theirs = [
            pybamm.Vector(c)
            if at is None
            else reference[f"Electrolyte {what}"](pybamm.Vector(c), at).evaluate().ravel()
            for at in (298.15, 308.15)
        ]
        assert curve(c) == pytest.approx(theirs[0])
        warmer = np.exp(energy / 8.314462 * (1.0 / 298.15 - 1.0 / 308.15))
        assert curve(c) * warmer == pytest.approx(theirs[1], rel=0.03)


def test_half_an_ampere_hour() -> None:
    cycles = simulate_protocol("kim2011", "CC 1C to 2.7V").cycles
    assert cycles.discharge_Ah[0] == pytest.approx(0.476, abs=0.005)
