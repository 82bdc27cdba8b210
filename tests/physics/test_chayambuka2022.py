"""The sodium-ion cell: the same tables and numbers as PyBaMM's Chayambuka2022 set, and what its DFN makes of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pybamm
import pytest

from physics import simulate_cell
from physics.cells.chayambuka2022 import CHAYAMBUKA2022
from physics.modal import cell_model
from physics.parameters import FloatArray

MODEL = cell_model(CHAYAMBUKA2022)


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


def dfn(t: FloatArray, current: Any, x_n: float) -> FloatArray:
    """Voltage from rest at this negative stoichiometry, until a cut-off."""
    values = pybamm.ParameterValues("Chayambuka2022")
    x_p = (MODEL.inventory - MODEL.q_n * x_n) / MODEL.q_p
    for name, e, x in (("negative", CHAYAMBUKA2022.negative, x_n), ("positive", CHAYAMBUKA2022.positive, x_p)):
        values[f"Initial concentration in {name} electrode [mol.m-3]"] = x * e.max_concentration_mol_m3
    values["Current function [A]"] = current
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = pybamm.Simulation(
            pybamm.sodium_ion.BasicDFN(),
            parameter_values=values,
            solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
            var_pts={"x_n": 20, "x_s": 10, "x_p": 20, "r_n": 60, "r_p": 60},
        ).solve([0.0, t[-1]])
    return np.asarray(solution["Voltage [V]"](t[t <= solution.t[-1]]))


@pytest.mark.parametrize(
    ("rate", "voltage_mV", "charge"),
    [(1 / 12, 0.6, 0.002), (0.25, 3.2, 0.006), (0.5, 8.0, 0.013), (-0.25, 3.0, 0.002), (-0.5, 6.0, 0.002)],
)
def test_constant_current_as_in_pybamms_dfn(rate: float, voltage_mV: float, charge: float) -> None:
    """Down from full to 2 V, or up from empty to 4.2 V; voltages without the last tenth of the way."""
    x_n = MODEL.x_full - 0.005 if rate > 0.0 else MODEL.x_empty + 0.03
    t = np.arange(3600.0 / abs(rate))
    current = np.full(t.size, 3e-3 * rate)
    theirs = dfn(t, 3e-3 * rate, x_n)
    soc = (x_n - MODEL.x_empty) / (MODEL.x_full - MODEL.x_empty)
    ours = simulate_cell(CHAYAMBUKA2022, current[1:], initial_soc=soc, voltage_limits=False).voltage_V
    upper = np.arange(int(0.9 * theirs.size))
    apart_mV = 1e3 * (ours[upper] - theirs[upper + 1])
    beyond = (ours < 2.0) | (ours > 4.2)
    steps = int(np.argmax(beyond)) if beyond.any() else t.size
    print(
        f"\n{rate:.3f}C: {np.sqrt(np.mean(apart_mV**2)):.2f} mV rms, {np.abs(apart_mV).max():.1f} at most;"
        f" {3.0 * abs(rate) * steps / 3600.0:.3f} mAh, DFN {3.0 * abs(rate) * theirs.size / 3600.0:.3f}"
    )
    assert np.sqrt(np.mean(apart_mV**2)) <= voltage_mV
    assert steps == pytest.approx(theirs.size, rel=charge)


def test_driving_as_in_pybamms_dfn() -> None:
    t = np.arange(1800.0)
    soc = (0.3 - MODEL.x_empty) / (MODEL.x_full - MODEL.x_empty)
    current = 3e-3 * (0.1 + 0.4 * np.sin(t[1:] / 40.0))
    ours = simulate_cell(CHAYAMBUKA2022, current, initial_soc=soc, voltage_limits=False)
    apart_mV = 1e3 * (ours.voltage_V - dfn(t, lambda s: 3e-3 * (0.1 + 0.4 * pybamm.sin(s / 40.0)), 0.3)[1:])
    print(f"\ndriving: {np.sqrt(np.mean(apart_mV**2)):.2f} mV rms, {np.abs(apart_mV).max():.1f} at most")
    assert np.sqrt(np.mean(apart_mV**2)) <= 2.5
    assert ours.sei_thickness_m[-1] == pytest.approx(5e-9)
    assert not ours.flags.any()
