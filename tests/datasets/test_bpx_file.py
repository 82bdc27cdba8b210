"""A BPX file becomes a cell of ours, and that cell does what PyBaMM makes of the same file."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.bpx_file import BpxError, Expression, Table, load_bpx
from physics import load_cell, simulate_cell, simulate_protocol
from physics.constants import FARADAY
from physics.modal import cell_model
from training.validation.reference import FloatArray, drive_like_profile, load_pybamm

FILE = Path(__file__).parents[1] / "data" / "lgm50.bpx.json"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Change], Path]:
    def write(change: Change) -> Path:
        values = copy.deepcopy(json.loads(FILE.read_text()))
        change(values)
        path = tmp_path / "cell.json"
        path.write_text(json.dumps(values))
        return path

    return write


def smooth(table: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A polynomial through PyBaMM's table over 0 to 1, which it can differentiate, as its heat of mixing needs."""
    pybamm = load_pybamm()
    x = np.linspace(0.0, 1.0, 201)
    y = [np.asarray(table(pybamm.Scalar(value)).evaluate()).item() for value in x]
    powers = np.polynomial.Polynomial.fit(x, y, 16).convert().coef
    return lambda sto: sum(float(c) * sto**n for n, c in enumerate(powers))


def spme_of_file(path: Path, t: FloatArray, current: FloatArray, ambient_C: float, soc: float) -> dict[str, FloatArray]:
    """PyBaMM's own import of the file, without aging; with heat of mixing, unless an OCP is a table."""
    pybamm = load_pybamm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pybamm.ParameterValues.create_from_bpx(path)
        values["Current function [A]"] = pybamm.Interpolant(t, current, pybamm.t)
        values["Ambient temperature [K]"] = values["Initial temperature [K]"] = ambient_C + 273.15
        options = {"thermal": "lumped"}
        change = "Positive electrode OCP entropic change [V.K-1]"
        if not isinstance(values["Positive electrode OCP [V]"], functools.partial):
            values[change] = smooth(values[change])
            options["heat of mixing"] = "true"
        if "Contact resistance [Ohm]" in values:
            options["contact resistance"] = "true"
        solution = pybamm.Simulation(
            pybamm.lithium_ion.SPMe(options),
            parameter_values=values,
            solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
        ).solve([t[0], t[-1]], t_interp=t, initial_soc=soc)
    return {
        "voltage_V": solution["Voltage [V]"](t),
        "temperature_C": solution["Volume-averaged cell temperature [K]"](t) - 273.15,
    }


def rms(x: FloatArray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def as_published(_values: dict[str, Any]) -> None:
    return


def another_cell(values: dict[str, Any]) -> None:
    """Everything that can differ: pairs, efficiencies, rates, tables, salt, contact, diffusivity of charge."""
    sections = values["Parameterisation"]
    sections["Cell"]["Number of electrode pairs connected in parallel to make a cell"] = 3
    sections["Cell"]["Electrode area [m2]"] = 0.03
    sections["Separator"]["Transport efficiency"] = 0.15
    sections["Negative electrode"]["Transport efficiency"] = 0.09
    sections["Negative electrode"]["Reaction rate constant [mol.m-2.s-1]"] = 2.2e-5
    sections["Positive electrode"]["Reaction rate constant [mol.m-2.s-1]"] = 2.5e-5
    sections["Negative electrode"]["Diffusivity [m2.s-1]"] = "3.3e-14 * (1.2 - 0.4 * x)"
    x = np.linspace(0.0, 1.0, 201)
    ocp = load_cell("chen2020").positive.ocp_V(x)
    sections["Positive electrode"]["OCP [V]"] = {"x": x[::-1].tolist(), "y": ocp[::-1].tolist()}
    sections["User-defined"] = {"Contact resistance [Ohm]": 0.008}
    values["State"]["Initial conditions"]["Initial electrolyte concentration [mol.m-3]"] = 1200.0


@pytest.mark.parametrize(
    ("change", "ambient_C", "voltage_mV"),
    [(as_published, 25.0, 4.0), (another_cell, 25.0, 5.0), (as_published, 5.0, 10.0)],
)
def test_drive_against_pybamms_own_import(
    written: Callable[[Change], Path], change: Change, ambient_C: float, voltage_mV: float
) -> None:
    path = written(change)
    cell = load_bpx(path).parameters
    t, current = drive_like_profile(peak_A=5.0)
    theirs = spme_of_file(path, t, current, ambient_C, 0.7)
    ours = simulate_cell(cell, current[1:], initial_soc=0.7, ambient_C=ambient_C, sei=False, plating=False, lam=False)
    apart_mV = rms(1000.0 * (ours.voltage_V - theirs["voltage_V"][1:]))
    apart_K = rms(ours.temperature_C - theirs["temperature_C"][1:])
    print(f"\n{change.__name__}, {ambient_C:g} degC: {apart_mV:.2f} mV, {apart_K:.3f} K RMSE against PyBaMM's import")
    assert apart_mV <= voltage_mV
    assert apart_K <= (0.2 if change is as_published else 1.0), (
        "PyBaMM leaves the heat of mixing out where OCPs are tables"
    )


def test_published_numbers_give_the_cell_we_have() -> None:
    """Rate constants, inventory and areas come out as in chen2020.py, which has them in our units."""
    ours, known = load_bpx(FILE).parameters, load_cell("chen2020")
    for name in ("negative", "positive"):
        mine, other = getattr(ours, name), getattr(known, name)
        assert mine.exchange_rate == pytest.approx(other.exchange_rate, rel=1e-5)
        assert mine.active_fraction == pytest.approx(other.active_fraction, rel=1e-6)
    assert ours.area_m2 == pytest.approx(known.area_m2)
    model, reference = cell_model(ours), cell_model(known)
    assert model.inventory == pytest.approx(reference.inventory, rel=1e-5)
    assert (model.x_full, model.x_empty) == pytest.approx((reference.x_full, reference.x_empty), abs=1e-5)


def test_exchange_current_is_the_one_bpx_defines() -> None:
    """F K sqrt(c_e/c_0 x (1 - x)) [A/m2] against m sqrt(c_e c_s (c_max - c_s)), away from c_0."""
    electrode, c_0, c_e, x = load_bpx(FILE).parameters.negative, 1000.0, 700.0, 0.3
    c_max = electrode.max_concentration_mol_m3
    ours = electrode.exchange_rate * np.sqrt(c_e * x * c_max * (c_max - x * c_max))
    assert ours == pytest.approx(FARADAY * 7.03679e-6 * np.sqrt(c_e / c_0 * x * (1.0 - x)), rel=1e-12)


def test_fresh_film_is_not_counted_twice() -> None:
    cell = load_bpx(FILE).parameters
    with_film, without = cell_model(replace(cell, fresh_film_included=False)), cell_model(cell)
    assert with_film.r_solid - without.r_solid == pytest.approx(without.sei_resistance * without.sei_initial)


def test_cycles_and_ages() -> None:
    result = simulate_protocol(load_bpx(FILE).parameters, "CC 1C to 2.5V; CCCV 0.5C 4.2V C/20", 2)
    assert result.cycles.discharge_Ah[0] == pytest.approx(4.9, abs=0.2)
    assert result.cycles.sei_thickness_m[1] > result.cycles.sei_thickness_m[0]


def test_notes_say_what_is_assumed(written: Callable[[Change], Path]) -> None:
    def poor(values: dict[str, Any]) -> None:
        del values["State"]
        sections = values["Parameterisation"]
        del sections["Cell"]["Volume [m3]"]
        del sections["Negative electrode"]["Entropic change coefficient [V.K-1]"]
        del sections["Electrolyte"]["Conductivity activation energy [J.mol-1]"]
        sections["Positive electrode"]["Diffusivity [m2.s-1]"] = "4e-15 * (1 - 0.2 * x)"
        sections["Positive electrode"]["Maximum stoichiometry"] = 0.8
        sections["User-defined"] = {"Tab": {"Width [m]": 0.01}, "Contact resistance [Ohm]": 0.001}

    made = load_bpx(written(poor))
    text = "\n".join(made.notes)
    for says in (
        "taken as 1000 mol/m3",
        "stays at ambient",
        "no entropic change",
        "no activation energy of conductivity",
        "at its empty stoichiometries the cell rests at",
        "as in okane2022",
        "User-defined parameters are left out: Width [m]",
    ):
        assert says in text
    assert all("\n" not in note for note in made.notes)
    run = simulate_cell(made.parameters, [10.0] * 60, ambient_C=30.0)
    np.testing.assert_allclose(run.temperature_C, 30.0, atol=1e-3)
    assert len(load_bpx(FILE).notes) == 1


NEGATIVE_OCP = json.loads(FILE.read_text())["Parameterisation"]["Negative electrode"]["OCP [V]"]


def branches_user_defined(values: dict[str, Any]) -> None:
    """As some publish it: BPX 0.x had no fields for a hysteresis."""
    values["Parameterisation"]["Negative electrode"]["OCP [V]"] = 0
    x = np.linspace(0.0, 1.0, 2001)
    above = load_bpx(FILE).parameters.negative.ocp_V(x) + 0.03
    values["Parameterisation"]["User-defined"] = {
        "Negative electrode lithiation OCP [V]": f"{NEGATIVE_OCP} - 0.03",
        "Negative electrode delithiation OCP [V]": {"x": x.tolist(), "y": above.tolist()},
    }


def branches_in_fields(values: dict[str, Any]) -> None:
    electrode = values["Parameterisation"]["Negative electrode"]
    electrode["OCP [V]"] = 0.0
    electrode["OCP (lithiation) [V]"] = f"{NEGATIVE_OCP} - 0.03"
    electrode["OCP (delithiation) [V]"] = f"{NEGATIVE_OCP} + 0.03"
    electrode["OCP hysteresis decay constant"] = 30.0
    values["State"]["Initial conditions"]["Initial hysteresis state: Negative electrode"] = -0.5


@pytest.mark.parametrize(
    ("change", "option", "voltage_mV"),
    [(branches_user_defined, "current sigmoid", 2.5), (branches_in_fields, "one-state hysteresis", 2.5)],
)
def test_branches_of_a_hysteresis(
    written: Callable[[Change], Path], change: Change, option: str, voltage_mV: float
) -> None:
    """Discharged, charged and driven, beside PyBaMM's import of the same file. Without a decay constant in the file,
    beside its model that switches at once, where ours has arrived."""
    path = written(change)
    made = load_bpx(path)
    assert any("no decay constant" in note for note in made.notes) == (change is branches_user_defined)
    assert made.initial_hysteresis == ((None, None) if change is branches_user_defined else (-0.5, None))
    cell = replace(made.parameters, heat_transfer_W_m2K=1e7)
    model, x_n = cell_model(cell), 0.85
    x_p = (model.inventory - model.q_n * x_n) / model.q_p
    t = np.arange(5401.0)
    current = np.where(t <= 1800, 5.0, np.where(t <= 3600, -2.5, 1.0 + 4.0 * np.sin(t / 50.0)))
    pybamm = load_pybamm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pybamm.ParameterValues.create_from_bpx(path)
        values["Current function [A]"] = pybamm.Interpolant(t, current, pybamm.t)
        for name, e, x in (("negative", cell.negative, x_n), ("positive", cell.positive, x_p)):
            values[f"Initial concentration in {name} electrode [mol.m-3]"] = x * e.max_concentration_mol_m3
        solution = pybamm.Simulation(
            pybamm.lithium_ion.SPMe({"thermal": "isothermal", "open-circuit potential": (option, "single")}),
            parameter_values=values,
            solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
            var_pts={"r_n": 60, "r_p": 60, "x_n": 20, "x_s": 10, "x_p": 20},
        ).solve([t[0], t[-1]], t_interp=t)
    ours = simulate_cell(
        cell,
        current[1:],
        initial_soc=(x_n - model.x_empty) / (model.x_full - model.x_empty),
        initial_hysteresis=made.initial_hysteresis,
        sei=False,
        plating=False,
        lam=False,
        voltage_limits=False,
    )
    apart_mV = 1000.0 * (ours.voltage_V - solution["Voltage [V]"](t)[1:])
    if option == "current sigmoid":
        apart_mV = apart_mV[ours.hysteresis_n * np.sign(current[1:]) > 0.99]
        assert apart_mV.size > 3200
    print(f"\n{change.__name__}: {rms(apart_mV):.2f} mV RMSE, {np.abs(apart_mV).max():.1f} at most")
    assert rms(apart_mV) <= voltage_mV


def test_a_branch_alone_and_branches_that_are_the_same(written: Callable[[Change], Path]) -> None:
    def alone(values: dict[str, Any]) -> None:
        branches_in_fields(values)
        del values["Parameterisation"]["Negative electrode"]["OCP (delithiation) [V]"]

    made = load_bpx(written(alone))
    assert made.parameters.negative.hysteresis is None
    assert any("constant 0; taken as its lithiation branch, the only one" in note for note in made.notes)

    def same(values: dict[str, Any]) -> None:
        branches_in_fields(values)
        for name in ("lithiation", "delithiation"):
            values["Parameterisation"]["Negative electrode"][f"OCP ({name}) [V]"] = NEGATIVE_OCP

    made, plain = load_bpx(written(same)), load_bpx(FILE)
    assert made.parameters.negative.hysteresis is None
    x = np.linspace(0.05, 0.95, 31)
    np.testing.assert_allclose(made.parameters.negative.ocp_V(x), plain.parameters.negative.ocp_V(x), atol=1e-12)


def test_a_potential_off_the_middle_of_its_branches_is_a_note(written: Callable[[Change], Path]) -> None:
    def change(values: dict[str, Any]) -> None:
        branches_in_fields(values)
        values["Parameterisation"]["Negative electrode"]["OCP [V]"] = f"{NEGATIVE_OCP} + 0.02"

    assert any("up to 20 mV off the middle of its branches" in note for note in load_bpx(written(change)).notes)


def starts_cold_and_half_full(values: dict[str, Any]) -> None:
    values["State"]["Initial conditions"] |= {"Initial state-of-charge": 0.5, "Initial temperature [K]": 273.15}
    values["State"]["Thermal environment"]["Ambient temperature [K]"] = 268.15


def test_state_is_read(written: Callable[[Change], Path]) -> None:
    made = load_bpx(written(starts_cold_and_half_full))
    assert made.initial_soc == pytest.approx(0.5, abs=1e-4)
    assert (made.initial_C, made.ambient_C) == (0.0, -5.0)

    def old(values: dict[str, Any]) -> None:
        """Version 0.x had temperatures in Cell, and no state of charge."""
        values["Header"]["BPX"] = 0.1
        del values["State"]
        values["Parameterisation"]["Cell"]["Initial temperature [K]"] = 283.15

    made = load_bpx(written(old))
    assert made.notes[0] == "BPX 0.1: an old version, converted"
    assert (made.initial_soc, made.initial_C, made.ambient_C) == (None, 10.0, None)


def test_a_state_of_charge_counts_between_the_files_own_limits(written: Callable[[Change], Path]) -> None:
    def narrow(values: dict[str, Any]) -> None:
        values["Parameterisation"]["Negative electrode"]["Minimum stoichiometry"] = 0.2
        values["State"]["Initial conditions"]["Initial state-of-charge"] = 0.0

    made = load_bpx(written(narrow))
    assert made.initial_soc is not None
    run = simulate_cell(made.parameters, [0.0], initial_soc=made.initial_soc)
    assert run.stoichiometry_n[0] == pytest.approx(0.2, abs=1e-3)


def discharged(path: Path, c_rate: float, ambient_C: float) -> tuple[float, float]:
    """Charge [Ah] by us and by PyBaMM's SPMe, of the file's cell from full to its lower cut-off."""
    pybamm = load_pybamm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pybamm.ParameterValues.create_from_bpx(path)
        values["Current function [A]"] = 5.0 * c_rate
        values["Ambient temperature [K]"] = values["Initial temperature [K]"] = ambient_C + 273.15
        solution = pybamm.Simulation(
            pybamm.lithium_ion.SPMe({"thermal": "lumped"}),
            parameter_values=values,
            solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
            var_pts={"r_n": 60, "r_p": 60, "x_n": 20, "x_s": 10, "x_p": 20},
        ).solve([0.0, 4500.0 / c_rate], initial_soc=1.0)
    theirs = float(solution["Discharge capacity [A.h]"](solution.t[-1]))
    ours = simulate_protocol(load_bpx(path).parameters, f"CC {c_rate}C to 2.5V", 1, ambient_C, 1.0)
    return float(ours.cycles.discharge_Ah[0]), theirs


GRAPHITE = "8.6e-13 * exp(-13.5 * x) + 9.5e-15"


@pytest.mark.parametrize(
    ("negative", "energy", "positive", "c_rate", "ambient_C", "apart"),
    [
        (GRAPHITE, 108_000.0, None, 0.2, 0.0, 0.02),  # with one diffusivity for all charges: a third is missing
        (GRAPHITE, 30_000.0, "1.2e-14 * exp(-4 * x) + 1e-15", 1.0, 10.0, 0.02),
        (None, 30_000.0, 1.5e-15, 1.0, 0.0, 0.005),  # the positive particles are full at their surface
    ],
)
def test_capacity_where_diffusion_limits(
    written: Callable[[Change], Path],
    negative: str | None,
    energy: float,
    positive: str | float | None,
    c_rate: float,
    ambient_C: float,
    apart: float,
) -> None:
    def change(values: dict[str, Any]) -> None:
        sections = values["Parameterisation"]
        # PyBaMM leaves the heat of mixing out where OCPs are tables: as good as no heat for both.
        sections["Cell"]["Specific heat capacity [J.K-1.kg-1]"] = 9999.0
        sections["Cell"]["Density [kg.m-3]"] = 1e5
        for name, diffusivity in (("Negative electrode", negative), ("Positive electrode", positive)):
            if diffusivity is not None:
                sections[name]["Diffusivity [m2.s-1]"] = diffusivity
        sections["Negative electrode"]["Diffusivity activation energy [J.mol-1]"] = energy

    ours, theirs = discharged(written(change), c_rate, ambient_C)
    print(f"\n{negative}, {positive}, {c_rate}C at {ambient_C:g} degC: {ours:.3f} Ah, PyBaMM's SPMe {theirs:.3f} Ah")
    assert ours == pytest.approx(theirs, rel=apart)


def test_a_little_too_full_is_a_note(written: Callable[[Change], Path]) -> None:
    made = load_bpx(written(set_("Negative electrode", "Porosity", 0.255)))  # 0.75 of active material
    assert any("fill 1.005, more than there is" in note for note in made.notes)
    result = simulate_protocol(made.parameters, "CC 1C to 2.5V")
    assert result.cycles.discharge_Ah[0] == pytest.approx(5.06, abs=0.05)


def test_curves() -> None:
    x = np.array([-0.5, 0.0, 0.25, 1.0, 2.0])
    table = Table((0.0, 0.5, 1.0), (1.0, 2.0, 4.0))
    np.testing.assert_allclose(table(x), [0.0, 1.0, 1.5, 4.0, 8.0])
    formula = Expression("1 / x + 0 * tanh(x)", 0.5, 1.0)
    np.testing.assert_allclose(formula(x), [2.0, 2.0, 2.0, 1.0, 1.0])
    assert pickle.loads(pickle.dumps(formula)) == formula
    assert Expression("2")(x).shape == x.shape


def set_(section: str, key: str, value: Any) -> Change:
    return lambda values: values["Parameterisation"][section].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_("Negative electrode", "Thickness [m]", -1e-4), "Negative electrode, Thickness [m]: expected a positive"),
        (set_("Separator", "Thickness [m]", 12.0), "Thickness [m]: expected 1e-07 to 0.01, got 12; check the unit"),
        (set_("Positive electrode", "OCP [V]", "exp(9999 * x)"), "math range error"),
        (set_("Separator", "Porosity", 1.5), "Separator, Porosity: expected 0.001 to 1, got 1.5"),
        (set_("Cell", "Upper voltage cut-off [V]", 2.0), "must be below voltage_max_V"),
        (set_("Cell", "Nominal cell capacity [A.h]", float("nan")), "Nominal cell capacity [A.h]: expected a positive"),
        (set_("Positive electrode", "OCP [V]", "exit(1)"), "OCP [V]: expected a formula of numbers, x"),
        (set_("Positive electrode", "OCP [V]", "4 -"), "expected a formula in x, got '4 -'"),
        (set_("Positive electrode", "OCP [V]", {"x": [0, 1], "y": [4]}), "x & y should be same length"),
        (set_("Positive electrode", "OCP [V]", {"x": [0, 0], "y": [4, 3]}), "at least two points with different"),
        (
            set_("Negative electrode", "Particle", {"graphite": {}, "silicon": {}}),
            "blended electrodes are not modelled",
        ),
        (set_("Negative electrode", "Minimum stoichiometry", 0.95), "expected a minimum stoichiometry below"),
        (set_("Negative electrode", "Porosity", 0.4), "to fill no more than 1"),
        (set_("Negative electrode", "Porosity", 0.271), "to fill no more than 1"),
        (
            set_("Negative electrode", "Entropic change coefficient [V.K-1]", "0.02914 - 0.1112 * x"),
            "expected at most 0.01 from 0.026346 to 0.910617, got 0.0721; check the unit",
        ),
        (set_("Negative electrode", "OCP [V]", 0), "branches of a hysteresis; got the constant 0"),
        (
            lambda v: v["Parameterisation"]["Negative electrode"].update(
                {"OCP (lithiation) [V]": "0.2 - 0.1 * x", "OCP (delithiation) [V]": "0.18 - 0.1 * x"}
            ),
            "delithiation branch of its OCP above the lithiation branch, got it 20.0 mV below on average",
        ),
        (
            lambda v: v["Parameterisation"]["Negative electrode"].update(
                {
                    "OCP (lithiation) [V]": "0.2 - 0.1 * x",
                    "OCP (delithiation) [V]": "0.22 - 0.1 * x",
                    "OCP hysteresis decay constant": 0.0,
                }
            ),
            "OCP hysteresis decay constant: expected a positive number, got 0.0",
        ),
        (
            lambda v: v["State"]["Initial conditions"].update({"Initial hysteresis state: Positive electrode": 2.0}),
            "Initial hysteresis state: Positive electrode: expected -1 to 1, got 2.0",
        ),
        (lambda v: v["State"]["Initial conditions"].update({"Initial state-of-charge": 50}), "expected 0 to 1, got 50"),
        (
            lambda v: v["State"]["Thermal environment"].update({"Ambient temperature [K]": 25.0}),
            "Ambient temperature [K]: expected 213.15 to 373.15, got 25; check the unit",
        ),
        (
            lambda v: v["Parameterisation"].update(
                {"User-defined": {"Negative electrode lithiation OCP [V]": "exit(1)"}}
            ),
            "User-defined, Negative electrode lithiation OCP [V]: expected a formula",
        ),
        (lambda v: v["Parameterisation"].pop("Separator"), "expected the section 'Separator' in Parameterisation"),
        (
            lambda v: v["Parameterisation"]["Electrolyte"].pop("Conductivity [S.m-1]"),
            "Conductivity [S.m-1]: Field requ",
        ),
        (lambda v: v["Header"].update(Model="SPM"), "expected a file for the model SPMe or DFN"),
        (lambda v: v["Header"].pop("BPX"), "missing 'Header' -> 'BPX'"),
        (lambda v: v.pop("Header"), "expected a BPX file with the sections Header and Parameterisation"),
        (lambda v: v.update(Cells=3), "Cells: Extra inputs are not permitted"),
    ],
)
def test_bad_files(written: Callable[[Change], Path], change: Change, says: str) -> None:
    with pytest.raises(BpxError) as caught:
        load_bpx(written(change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "cell.json" in str(caught.value)


@pytest.mark.parametrize("where", [("Negative electrode", "OCP [V]"), ("Electrolyte", "Conductivity [S.m-1]")])
@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('touch {}')",
        "exp(open('{}', 'w'))",
        "(lambda: open('{}', 'w'))()",
        "[open('{}', 'w') for y in [1]]",
        "exp(x); open('{}', 'w')",
        "x.__class__",
    ],
)
def test_no_formula_is_run_as_code(
    written: Callable[[Change], Path], formula: str, where: tuple[str, str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"

    def change(values: Any) -> None:
        values["Parameterisation"][where[0]][where[1]] = formula.format(trace)

    with pytest.raises(BpxError, match="expected a formula"):
        load_bpx(written(change))
    assert not trace.exists()


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(BpxError, match="cannot read it: No such file"):
        load_bpx(tmp_path / "none.json")
    (tmp_path / "x.json").write_bytes(b"\xff\x00cell")
    with pytest.raises(BpxError, match="expected JSON"):
        load_bpx(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(BpxError, match="expected a BPX file"):
        load_bpx(tmp_path / "x.json")
