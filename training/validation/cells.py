"""Cells with a hysteresis, and the sodium-ion cell, against PyBaMM: isothermal, without aging.

Nine hours of discharges, charges, driving and rests for `ai2022` and `dreyer2010`, against PyBaMM's SPMe with the same
branches and its one-state hysteresis. `ai2022` is also compared with PyBaMM's DFN of graphite and silicon apart, which
tells what one electrode for both costs. `chayambuka2022` is discharged from full, charged from empty and driven,
against PyBaMM's DFN, the only model that it has for sodium.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from physics import CellParameters, CellResult, load_cell, simulate_cell
from physics.cells import ai2022
from physics.modal import cell_model
from physics.parameters import ElectrodeParameters
from training.validation.electrical import rms
from training.validation.reference import FloatArray, load_pybamm

SILICON_DECAY: Final = 10.0
"""Of silicon alone, where it is told apart: assumed."""
COUNTED: Final = 0.9
"""Share of a discharge or charge at constant current whose voltages are compared; where it ends, a little charge is a
large change of voltage."""
SODIUM: Final = ((1 / 12, 0.6), (0.25, 3.2), (0.5, 8.0), (-0.25, 3.0), (-0.5, 6.0))
"""C-rate (below 0: charge) and goal [mV]."""
_NINE_HOURS: Final = "nine hours"


@dataclass(frozen=True)
class CellRow:
    """Ours against PyBaMM's."""

    cell: str
    reference: str
    load: str
    rmse_mV: float
    largest_mV: float
    goal_mV: float
    state: float = math.nan
    """Largest difference of the hysteresis' state; NaN where the reference has no such state."""
    charge_percent: float = math.nan
    """Charge until the voltage limit, ours over theirs, minus 100 %; NaN where none ends the load."""

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.rmse_mV <= self.goal_mV


def cells(*, quick: bool, say: Callable[[str], None]) -> list[CellRow]:
    """All rows (quick: without the DFN of graphite and silicon and the slowest discharge)."""
    say("ai2022 and dreyer2010, nine hours")
    rows = [silicon_as_one(), lfp()]
    if not quick:
        say("ai2022, graphite and silicon apart")
        rows += silicon_apart()
    say("chayambuka2022")
    rows += [sodium(*case) for case in SODIUM[1 if quick else 0 :]]
    return [*rows, sodium_driven()]


def as_text(rows: list[CellRow]) -> list[str]:
    """The rows as a table."""
    if not rows:
        return []
    lines = [
        "Cells with a hysteresis, and sodium: voltage against PyBaMM, isothermal [mV]",
        "",
        f"{'cell':<15} {'load':<24} {'PyBaMM':<31} {'RMSE':>6} {'max':>6} {'goal':>6} {'state':>6} {'charge %':>8}",
    ]
    for row in rows:
        state, charge = (
            "-" if math.isnan(value) else f"{value:{form}}"
            for value, form in ((row.state, ".3f"), (row.charge_percent, "+.2f"))
        )
        lines.append(
            f"{row.cell:<15} {row.load:<24} {row.reference:<31} {row.rmse_mV:6.2f} {row.largest_mV:6.1f}"
            f" {row.goal_mV:6.1f} {state:>6} {charge:>8}  {'met' if row.met else 'MISSED'}"
        )
    return ["\n".join(lines)]


def nine_hours(nominal_Ah: float) -> tuple[FloatArray, FloatArray]:
    """(t, I), shape (32401,): C/4 to 1C in both directions, driving with 1C peaks, rests; down to a tenth of the
    charge."""
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


def silicon_as_one() -> CellRow:
    """`ai2022` in PyBaMM's SPMe, as the one electrode that it is here."""
    cell = load_cell("ai2022")
    n = cell.negative
    t, current = nine_hours(5.0)
    values = load_pybamm().ParameterValues("Chen2020")
    _give_branches(values, "Negative", n, -1.0)
    values.update(
        {
            "Maximum concentration in negative electrode [mol.m-3]": n.max_concentration_mol_m3,
            "Negative particle diffusivity [m2.s-1]": n.diffusivity_m2_s,
            "Negative electrode exchange-current density [A.m-2]": lambda c_e, c_s, c_max, _T: (
                n.exchange_rate * c_e**0.5 * c_s**0.5 * (c_max - c_s) ** 0.5
            ),
        }
    )
    soc = _almost_full(values, cell)
    theirs = _solved(values, "SPMe", {"open-circuit potential": ("one-state hysteresis", "single")}, t, current)
    ours = _ours(cell, soc, current)
    state = theirs["X-averaged negative electrode hysteresis state"](t)[1:]
    return _row(cell, "SPMe, the same branches", 3.0, ours, theirs["Voltage [V]"](t), ours.hysteresis_n - state)


def lfp() -> CellRow:
    """`dreyer2010` in PyBaMM's SPMe."""
    cell = load_cell("dreyer2010")
    t, current = nine_hours(0.85 * cell.nominal_capacity_Ah)
    values = load_pybamm().ParameterValues("Prada2013")
    _give_branches(values, "Positive", cell.positive, 1.0)
    soc = _almost_full(values, cell)
    theirs = _solved(values, "SPMe", {"open-circuit potential": ("single", "one-state hysteresis")}, t, current)
    ours = _ours(cell, soc, current)
    state = theirs["X-averaged positive electrode hysteresis state"](t)[1:]
    return _row(cell, "SPMe, the same branches", 1.0, ours, theirs["Voltage [V]"](t), ours.hysteresis_p - state)


def silicon_apart() -> list[CellRow]:
    """`ai2022` against PyBaMM's DFN of a composite electrode: all of the time, and above a fifth of the charge."""
    cell = load_cell("ai2022")
    t, current = nine_hours(5.0)
    values = load_pybamm().ParameterValues("Chen2020_composite")
    soc = _almost_full(values, cell, negative=False)
    u = ai2022.lithiation_V(np.array([_x_almost_full(cell)]))[0]
    x = np.linspace(0.0, 1.0, 20001)
    graphite = float(np.interp(-u, -ai2022.graphite_V(x), x))
    silicon = float(np.interp(-u, -ai2022.silicon_V(x, ai2022.LITHIATION), x))
    values.update(
        {
            "Primary: Initial concentration in negative electrode [mol.m-3]": 28700.0 * graphite,
            "Secondary: Initial concentration in negative electrode [mol.m-3]": 278000.0 * silicon,
            "Secondary: Negative particle lithiation hysteresis decay rate": SILICON_DECAY,
            "Secondary: Negative particle delithiation hysteresis decay rate": SILICON_DECAY,
            "Secondary: Initial hysteresis state in negative electrode": -1.0,
        },
        check_already_exists=False,
    )
    options = {
        "particle phases": ("2", "1"),
        "open-circuit potential": (("single", "one-state hysteresis"), "single"),
    }
    theirs = _solved(values, "DFN", options, t, current)["Voltage [V]"](t)
    ours = _ours(cell, soc, current)
    apart_mV = 1e3 * (ours.voltage_V - theirs[1:])[ours.soc > 0.2]
    upper = CellRow(
        cell.name, "DFN, graphite and silicon", f"{_NINE_HOURS}, above 20 %", rms(apart_mV), _largest(apart_mV), 6.5
    )
    return [_row(cell, "DFN, graphite and silicon", 10.0, ours, theirs), upper]


def sodium(c_rate: float, goal_mV: float) -> CellRow:
    """`chayambuka2022` at constant current: from full to 2 V, or from empty to 4.2 V."""
    cell = load_cell("chayambuka2022")
    model = cell_model(cell)
    x_n = model.x_full - 0.005 if c_rate > 0.0 else model.x_empty + 0.03
    amps = cell.nominal_capacity_Ah * c_rate
    t = np.arange(3600.0 / abs(c_rate))
    theirs = _sodium(cell, t, amps, x_n)
    soc = (x_n - model.x_empty) / (model.x_full - model.x_empty)
    ours = simulate_cell(cell, np.full(t.size - 1, amps), initial_soc=soc, voltage_limits=False).voltage_V
    upper = np.arange(int(COUNTED * theirs.size))
    apart_mV = 1e3 * (ours[upper] - theirs[upper + 1])
    beyond = (ours < cell.voltage_min_V) | (ours > cell.voltage_max_V)
    steps = int(np.argmax(beyond)) if beyond.any() else ours.size
    return CellRow(
        cell.name,
        "DFN",
        f"{'discharge' if c_rate > 0.0 else 'charge'} at C/{1.0 / abs(c_rate):.0f}",
        rms(apart_mV),
        _largest(apart_mV),
        goal_mV,
        charge_percent=100.0 * (steps / theirs.size - 1.0),
    )


def sodium_driven() -> CellRow:
    """Half an hour of `chayambuka2022` with peaks of C/2."""
    cell = load_cell("chayambuka2022")
    model = cell_model(cell)
    t, amps = np.arange(1800.0), cell.nominal_capacity_Ah
    pybamm = load_pybamm()
    theirs = _sodium(cell, t, lambda s: amps * (0.1 + 0.4 * pybamm.sin(s / 40.0)), 0.3)
    soc = (0.3 - model.x_empty) / (model.x_full - model.x_empty)
    current = amps * (0.1 + 0.4 * np.sin(t[1:] / 40.0))
    ours = simulate_cell(cell, current, initial_soc=soc, voltage_limits=False)
    apart_mV = 1e3 * (ours.voltage_V - theirs[1:])
    return CellRow(cell.name, "DFN", "driving, peaks of C/2", rms(apart_mV), _largest(apart_mV), 2.5)


# --- both sides ------------------------------------------------------------------------------------------------------


def _ours(cell: CellParameters, soc: float, current: FloatArray) -> CellResult:
    """After a charge; isothermal, and without the film's resistance."""
    held = replace(cell, heat_transfer_W_m2K=1e7, sei=replace(cell.sei, resistivity_Ohm_m=1e-6))
    return simulate_cell(
        held,
        current[1:],
        initial_soc=soc,
        initial_hysteresis=(-1.0, 1.0),
        sei=False,
        plating=False,
        lam=False,
        voltage_limits=False,
    )


def _x_almost_full(cell: CellParameters) -> float:
    return cell_model(cell).x_full - 0.02


def _almost_full(values: Any, cell: CellParameters, *, negative: bool = True) -> float:
    """Start PyBaMM's cell (`negative` False: its positive electrode) almost full; the state of charge of ours."""
    model, x_n = cell_model(cell), _x_almost_full(cell)
    _start(values, cell, x_n, negative=negative)
    return (x_n - model.x_empty) / (model.x_full - model.x_empty)


def _start(values: Any, cell: CellParameters, x_n: float, *, negative: bool = True) -> None:
    model = cell_model(cell)
    x_p = (model.inventory - model.q_n * x_n) / model.q_p
    values["Initial concentration in positive electrode [mol.m-3]"] = x_p * cell.positive.max_concentration_mol_m3
    if negative:
        values["Initial concentration in negative electrode [mol.m-3]"] = x_n * cell.negative.max_concentration_mol_m3


def _give_branches(values: Any, name: str, e: ElectrodeParameters, state: float) -> None:
    hysteresis = e.hysteresis
    assert hysteresis is not None
    values.update(
        {
            f"{name} electrode OCP [V]": _interpolated(e.ocp_V),
            f"{name} electrode lithiation OCP [V]": _interpolated(lambda x: e.ocp_V(x) - hysteresis.half_gap_V(x)),
            f"{name} electrode delithiation OCP [V]": _interpolated(lambda x: e.ocp_V(x) + hysteresis.half_gap_V(x)),
            f"{name} particle lithiation hysteresis decay rate": hysteresis.decay,
            f"{name} particle delithiation hysteresis decay rate": hysteresis.decay,
            f"Initial hysteresis state in {name.lower()} electrode": state,
        },
        check_already_exists=False,
    )


def _interpolated(curve: Callable[[FloatArray], FloatArray]) -> Callable[[Any], Any]:
    pybamm = load_pybamm()
    x = np.concatenate([np.linspace(0.0, 0.08, 1600, endpoint=False), np.linspace(0.08, 1.0, 3000)])
    return lambda sto: pybamm.Interpolant(x, curve(x), sto, interpolator="linear")


def _solved(values: Any, model: str, options: dict[str, Any], t: FloatArray, current: FloatArray) -> Any:
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


def _sodium(cell: CellParameters, t: FloatArray, current: Any, x_n: float) -> FloatArray:
    """Voltage of PyBaMM's DFN from rest at this negative stoichiometry, until a cut-off."""
    pybamm = load_pybamm()
    values = pybamm.ParameterValues("Chayambuka2022")
    _start(values, cell, x_n)
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


def _row(
    cell: CellParameters,
    reference: str,
    goal_mV: float,
    ours: CellResult,
    theirs_V: FloatArray,
    state_apart: FloatArray | None = None,
) -> CellRow:
    apart_mV = 1e3 * (ours.voltage_V - theirs_V[1:])
    state = math.nan if state_apart is None else float(np.abs(state_apart).max())
    return CellRow(cell.name, reference, _NINE_HOURS, rms(apart_mV), _largest(apart_mV), goal_mV, state)


def _largest(apart_mV: FloatArray) -> float:
    return float(np.abs(apart_mV).max())
