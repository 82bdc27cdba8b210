"""Hysteresis of open-circuit potentials: its balance, its limits, and PyBaMM's one-state model beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from physics import CellParameters, load_cell, simulate_cell, simulate_protocol
from physics.cell import rested_block
from physics.cells import ai2022
from physics.layout import CAPACITY_REFRESH_S, LANES
from physics.modal import cell_model, stoichiometry_limits
from physics.parameters import ElectrodeParameters, FloatArray, HysteresisParameters
from tests.physics.naive import NaiveCell
from training.validation.reference import load_pybamm

CELLS = ("ai2022", "dreyer2010")


def rms_mV(apart: FloatArray) -> float:
    return float(1e3 * np.sqrt(np.mean(apart**2)))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("ambient_C", [-5.0, 25.0])
def test_kernel_equals_the_slow_reference(name: str, ambient_C: float) -> None:
    model, nominal = cell_model(load_cell(name)), load_cell(name).nominal_capacity_Ah
    rng = np.random.default_rng(7)
    current = nominal * np.repeat(rng.uniform(-0.8, 1.6, 120), 10)
    run = simulate_cell(name, current, initial_soc=0.6, ambient_C=ambient_C)
    block = rested_block(model, soc=0.6, temperature_C=ambient_C).reshape(-1, LANES)
    kelvin = ambient_C + 273.15
    slow = NaiveCell(
        model, 1.0, block[0, 0], block[1, 0], kelvin, kelvin, model.sei_initial / model.sei_length, h_n=-0.2, h_p=0.2
    )
    assert run.voltage_V == pytest.approx(np.array([slow.step(float(a)) for a in run.current_A]), abs=1e-9)
    assert (run.hysteresis_n[-1], run.hysteresis_p[-1]) == pytest.approx((slow.h_n, slow.h_p), abs=1e-9)
    assert np.ptp(run.hysteresis_n if name == "ai2022" else run.hysteresis_p) > 0.5


@pytest.mark.parametrize("name", CELLS)
def test_limits_are_met_on_the_branches_that_lead_there(name: str) -> None:
    cell = load_cell(name)
    full, empty = (simulate_cell(cell, [0.0], initial_soc=soc).voltage_V[0] for soc in (1.0, 0.0))
    assert (full, empty) == pytest.approx((cell.voltage_max_V, cell.voltage_min_V), abs=1e-5)
    charged, discharged = (
        simulate_cell(cell, [0.0], initial_soc=0.1, initial_hysteresis=between).voltage_V[0]
        for between in ((-1.0, 1.0), (1.0, -1.0))
    )
    gap = 2.0 * sum(
        e.hysteresis.half_gap_V(np.array([x]))[0]
        for e, x in zip((cell.negative, cell.positive), at_a_tenth(cell), strict=True)
        if e.hysteresis
    )
    assert charged - discharged == pytest.approx(gap, abs=2e-4)
    assert gap > 0.015


def at_a_tenth(cell: CellParameters) -> tuple[float, float]:
    """Stoichiometries at a tenth of the charge."""
    model = cell_model(cell)
    x_n = 0.1 * model.x_full + 0.9 * model.x_empty
    return x_n, (model.inventory - model.q_n * x_n) / model.q_p


def test_limits_follow_the_aging_cell() -> None:
    cell = load_cell("ai2022")
    model = cell_model(cell)
    seconds = 40 * int(CAPACITY_REFRESH_S)
    run = simulate_cell(cell, np.full(seconds, 2.0), initial_soc=0.9, sei_thickness_m=50e-9)
    inventory = np.array([model.inventory - (50e-9 - model.sei_initial) / model.sei_length])
    full, empty = (x[0] for x in stoichiometry_limits(model, inventory))
    assert run.soc[-1] == pytest.approx((run.stoichiometry_n[-1] - empty) / (full - empty), abs=1e-5)
    assert run.soh[-1] == pytest.approx((full - empty) / (model.x_full - model.x_empty), abs=1e-5)


def test_lfp_loses_what_lies_between_its_branches() -> None:
    """20 mV, except for the charge that leads from one branch to the other: a state that decays from 2 to 0, twice."""
    with_, without = (
        simulate_protocol(name, "CC C/20 to 2V; CC C/20 charge to 3.6V", 2).cycles
        for name in ("dreyer2010", "prada2013")
    )
    lost = [cycles.charge_Wh[1] - cycles.discharge_Wh[1] for cycles in (with_, without)]
    model = cell_model(load_cell("dreyer2010"))
    between_Ah = 4.0 / model.decay_p * model.area * model.q_p / 3600.0
    assert lost[0] - lost[1] == pytest.approx(0.02 * (with_.discharge_Ah[1] - between_Ah), rel=0.01)


def test_a_gap_of_nothing_changes_nothing() -> None:
    cell = load_cell("chen2020")
    flat = HysteresisParameters(half_gap_V=np.zeros_like, decay=50.0)
    also = replace(cell, negative=replace(cell.negative, hysteresis=flat))
    current = np.concatenate([np.full(600, 5.0), np.full(600, -5.0)])
    one, other = (simulate_cell(c, current, initial_soc=0.6) for c in (cell, also))
    np.testing.assert_array_equal(one.voltage_V, other.voltage_V)
    np.testing.assert_array_equal(one.temperature_C, other.temperature_C)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="initial_hysteresis must be from -1 to 1, got 1\\.5"):
        simulate_cell("ai2022", [1.0], initial_hysteresis=(None, 1.5))
    cell = load_cell("dreyer2010")
    with pytest.raises(ValueError, match="decay must be a positive number"):
        replace(
            cell,
            positive=replace(cell.positive, hysteresis=HysteresisParameters(half_gap_V=np.zeros_like, decay=-1.0)),
        )


# --- beside PyBaMM: isothermal, without aging ------------------------------------------------------------------------


def nine_hours(nominal_Ah: float) -> tuple[FloatArray, FloatArray]:
    """(t, I), shape (32401,): discharges and charges between C/4 and 1C, driving, rests; down to 10 % of the charge."""
    t = np.arange(32401.0)
    current = np.zeros(t.size)
    for begin, end, rate in (
        (0, 2400, 1.0),
        (3000, 6600, -0.5),
        (9600, 15000, 0.25),
        (15600, 22200, -0.25),
        (23000, 29100, 0.5),
        (30200, 32000, -0.5),
    ):
        current[(t > begin) & (t <= end)] = rate
    drive = (t > 7200) & (t <= 9000)
    current[drive] = 0.8 * np.sin(2.0 * np.pi * (t[drive] - 7200.0) / 311.0) + 0.2
    return t, nominal_Ah * current


def isothermal(cell: CellParameters) -> CellParameters:
    """Without the film's resistance."""
    return replace(cell, heat_transfer_W_m2K=1e7, sei=replace(cell.sei, resistivity_Ohm_m=1e-6))


def almost_full(cell: CellParameters) -> tuple[float, float, float]:
    """State of charge and stoichiometries."""
    model = cell_model(cell)
    x_n = model.x_full - 0.02
    soc = (x_n - model.x_empty) / (model.x_full - model.x_empty)
    return soc, x_n, (model.inventory - model.q_n * x_n) / model.q_p


def pybamms(values: Any, model: str, options: dict[str, Any], t: FloatArray, current: FloatArray) -> Any:
    pybamm = load_pybamm()
    values["Current function [A]"] = pybamm.Interpolant(t, current, pybamm.t)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pybamm.Simulation(
            getattr(pybamm.lithium_ion, model)(options),
            parameter_values=values,
            solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
            var_pts={"r_n": 60, "r_p": 60, "x_n": 20, "x_s": 20, "x_p": 20} if model == "SPMe" else None,
        ).solve([t[0], t[-1]], t_interp=t)


def interpolated(curve: Callable[[FloatArray], FloatArray]) -> Callable[[Any], Any]:
    pybamm = load_pybamm()
    x = np.concatenate([np.linspace(0.0, 0.08, 1600, endpoint=False), np.linspace(0.08, 1.0, 3000)])
    return lambda sto: pybamm.Interpolant(x, curve(x), sto, interpolator="linear")


def give_branches(values: Any, name: str, e: ElectrodeParameters, state: float) -> None:
    hysteresis = e.hysteresis
    assert hysteresis is not None
    values.update(
        {
            f"{name} electrode OCP [V]": interpolated(e.ocp_V),
            f"{name} electrode lithiation OCP [V]": interpolated(lambda x: e.ocp_V(x) - hysteresis.half_gap_V(x)),
            f"{name} electrode delithiation OCP [V]": interpolated(lambda x: e.ocp_V(x) + hysteresis.half_gap_V(x)),
            f"{name} particle lithiation hysteresis decay rate": hysteresis.decay,
            f"{name} particle delithiation hysteresis decay rate": hysteresis.decay,
            f"Initial hysteresis state in {name.lower()} electrode": state,
        },
        check_already_exists=False,
    )


def start(values: Any, cell: CellParameters, x_n: float | None, x_p: float) -> None:
    if x_n is not None:
        values["Initial concentration in negative electrode [mol.m-3]"] = x_n * cell.negative.max_concentration_mol_m3
    values["Initial concentration in positive electrode [mol.m-3]"] = x_p * cell.positive.max_concentration_mol_m3


def ours(cell: CellParameters, soc: float, current: FloatArray) -> Any:
    return simulate_cell(
        isothermal(cell),
        current[1:],
        initial_soc=soc,
        initial_hysteresis=(-1.0, 1.0),
        sei=False,
        plating=False,
        lam=False,
        voltage_limits=False,
    )


def test_one_electrode_with_two_branches_as_in_pybamm() -> None:
    """The same lumped electrode in PyBaMM's SPMe: 2.6 mV, most of it PyBaMM's mesh and D_e(c)."""
    cell = load_cell("ai2022")
    n = cell.negative
    t, current = nine_hours(5.0)
    soc, x_n, x_p = almost_full(cell)
    values = load_pybamm().ParameterValues("Chen2020")
    give_branches(values, "Negative", n, -1.0)
    values.update(
        {
            "Maximum concentration in negative electrode [mol.m-3]": n.max_concentration_mol_m3,
            "Negative particle diffusivity [m2.s-1]": n.diffusivity_m2_s,
            "Negative electrode exchange-current density [A.m-2]": lambda c_e, c_s, c_max, _T: (
                n.exchange_rate * c_e**0.5 * c_s**0.5 * (c_max - c_s) ** 0.5
            ),
        }
    )
    start(values, cell, x_n, x_p)
    theirs = pybamms(values, "SPMe", {"open-circuit potential": ("one-state hysteresis", "single")}, t, current)
    run = ours(cell, soc, current)
    apart = run.voltage_V - theirs["Voltage [V]"](t)[1:]
    print(f"\nlumped, PyBaMM's SPMe: {rms_mV(apart):.2f} mV rms, {1e3 * np.abs(apart).max():.1f} at most")
    assert rms_mV(apart) <= 3.0
    state = theirs["X-averaged negative electrode hysteresis state"](t)[1:]
    assert run.hysteresis_n == pytest.approx(state, abs=0.01)


def test_graphite_and_silicon_apart_as_in_pybamm() -> None:
    """The composite electrode in PyBaMM's DFN: what taking it as one costs."""
    cell = load_cell("ai2022")
    t, current = nine_hours(5.0)
    soc, x_n, x_p = almost_full(cell)
    u = ai2022.lithiation_V(np.array([x_n]))[0]
    graphite = ai2022.graphite_V(fine := np.linspace(0.0, 1.0, 20001))
    silicon = ai2022.silicon_V(fine, ai2022.LITHIATION)
    values = load_pybamm().ParameterValues("Chen2020_composite")
    values.update(
        {
            "Primary: Initial concentration in negative electrode [mol.m-3]": 28700.0 * np.interp(-u, -graphite, fine),
            "Secondary: Initial concentration in negative electrode [mol.m-3]": 278000.0
            * np.interp(-u, -silicon, fine),
            "Secondary: Negative particle lithiation hysteresis decay rate": 10.0,
            "Secondary: Negative particle delithiation hysteresis decay rate": 10.0,
            "Secondary: Initial hysteresis state in negative electrode": -1.0,
        },
        check_already_exists=False,
    )
    start(values, cell, None, x_p)
    options = {
        "particle phases": ("2", "1"),
        "open-circuit potential": (("single", "one-state hysteresis"), "single"),
    }
    theirs = pybamms(values, "DFN", options, t, current)
    run = ours(cell, soc, current)
    apart = run.voltage_V - theirs["Voltage [V]"](t)[1:]
    upper = run.soc > 0.2
    print(
        f"\ncomposite, PyBaMM's DFN: {rms_mV(apart):.2f} mV rms, {1e3 * np.abs(apart).max():.1f} at most;"
        f" above 20 % of charge {rms_mV(apart[upper]):.2f} rms, {1e3 * np.abs(apart[upper]).max():.1f} at most"
    )
    assert rms_mV(apart) <= 10.0
    assert rms_mV(apart[upper]) <= 7.0


def test_lfp_as_in_pybamm() -> None:
    cell = load_cell("dreyer2010")
    t, current = nine_hours(0.85 * 2.3)
    soc, x_n, x_p = almost_full(cell)
    values = load_pybamm().ParameterValues("Prada2013")
    give_branches(values, "Positive", cell.positive, 1.0)
    start(values, cell, x_n, x_p)
    theirs = pybamms(values, "SPMe", {"open-circuit potential": ("single", "one-state hysteresis")}, t, current)
    run = ours(cell, soc, current)
    apart = run.voltage_V - theirs["Voltage [V]"](t)[1:]
    print(f"\nLFP, PyBaMM's SPMe: {rms_mV(apart):.2f} mV rms, {1e3 * np.abs(apart).max():.1f} at most")
    assert rms_mV(apart) <= 3.0
    assert run.hysteresis_p == pytest.approx(theirs["X-averaged positive electrode hysteresis state"](t)[1:], abs=0.01)
