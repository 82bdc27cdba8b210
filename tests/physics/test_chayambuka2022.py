"""The sodium-ion cell: the same tables and numbers as PyBaMM's Chayambuka2022 set, and what its DFN makes of them."""

from __future__ import annotations

import numpy as np
import pybamm
import pytest

from physics import simulate_cell
from physics.cells.chayambuka2022 import CHAYAMBUKA2022
from training.validation.cells import SODIUM, sodium, sodium_driven


def test_curves_and_numbers_are_those_of_pybamm() -> None:
    reference = pybamm.ParameterValues("Chayambuka2022")
    t, c_e = 298.15, 1000.0
    for e, name, x in (
        (CHAYAMBUKA2022.negative, "Negative", np.linspace(0.01, 0.98, 25)),
        (CHAYAMBUKA2022.positive, "Positive", np.linspace(0.22, 0.98, 25)),
    ):
        c_max = e.max_concentration_mol_m3
        at = pybamm.Vector(x)
        ocp = reference[f"{name} electrode OCP [V]"](at).evaluate().ravel()
        assert e.ocp_V(x) == pytest.approx(ocp, abs=2e-4)
        diffusivity = reference.process_symbol(reference[f"{name} particle diffusivity [m2.s-1]"](at, t))
        assert e.relative_diffusivity is not None
        assert e.diffusivity_m2_s * e.relative_diffusivity(x) == pytest.approx(diffusivity.evaluate().ravel(), rel=1e-3)
        exchange = reference[f"{name} electrode exchange-current density [A.m-2]"](c_e, c_max * at, c_max, t)
        theirs = reference.process_symbol(exchange).evaluate().ravel()
        assert e.relative_exchange is not None
        ours = e.exchange_rate * e.relative_exchange(x) * c_max * np.sqrt(c_e * x * (1.0 - x))
        assert ours == pytest.approx(theirs, rel=1e-3)
        for key, value in {
            f"{name} electrode thickness [m]": e.thickness_m,
            f"{name} electrode porosity": e.porosity,
            f"{name} electrode active material volume fraction": e.active_fraction,
            f"{name} particle radius [m]": e.particle_radius_m,
            f"Maximum concentration in {name.lower()} electrode [mol.m-3]": c_max,
            f"Initial concentration in {name.lower()} electrode [mol.m-3]": e.initial_concentration_mol_m3,
            f"{name} electrode conductivity [S.m-1]": e.conductivity_S_m,
        }.items():
            assert value == pytest.approx(reference[key]), key


@pytest.mark.parametrize("case", SODIUM)
def test_constant_current_as_in_pybamms_dfn(case: tuple[float, float]) -> None:
    row = sodium(*case)
    assert row.met, row
    assert abs(row.charge_percent) <= 1.3


def test_driving_as_in_pybamms_dfn() -> None:
    row = sodium_driven()
    assert row.met, row


def test_neither_film_nor_flags() -> None:
    run = simulate_cell("chayambuka2022", np.full(3600, 1e-3), initial_soc=0.8)
    assert run.sei_thickness_m[-1] == pytest.approx(5e-9)
    assert not run.flags.any()
