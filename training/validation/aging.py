"""Hundreds of accelerated cycles against PyBaMM's SPMe: how much capacity is lost, and to which mechanism.

Both sides cycle alike: 1C down to 2.8 V, 0.7C up to 4.15 V, from full. Both are measured alike: capacity at rest
between the voltage limits, from the lithium in the particles and the active material left, solved by the same
bisection. In PyBaMM side reactions act at every x of the negative electrode ("x-average side reactions" false, the
default of its SPMe). Ours are averages over x.

Acceleration: the film's rate and diffusivity are multiplied by 10, and the loss of active material in the negative
electrode is ten times O'Kane's. The positive electrode's published constant destroys it within hours (7 h at 0.7C: its
stress is ten times the critical one). So it is set to a thousandth of that, which costs about 3 % in 300 cycles.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics import CellParameters, load_cell, simulate_protocol
from physics.constants import FARADAY
from physics.modal import CellModel, cell_model, stoichiometry_limits
from physics.parameters import LamParameters
from training.validation.reference import OPTIONS, FloatArray, load_pybamm, parameter_values

PROTOCOL = "CC 1C to 2.8V; CC 0.7C charge to 4.15V"
PYBAMM_PROTOCOL = ("Discharge at 1C until 2.8V", "Charge at 0.7C until 4.15V")

SEI_FACTOR = 10.0
LAM_N_FACTOR = 10.0
LAM_P_FACTOR = 1e-3

OKANE_POSITIVE = LamParameters(
    rate_1_s=2.7778e-7,
    activation_J_mol=0.0,
    critical_stress_Pa=375e6,
    youngs_modulus_Pa=375e9,
    poisson_ratio=0.2,
    partial_molar_volume_m3_mol=1.25e-5,
)

MECHANICS = {
    # Mechanics switch on stress-induced diffusion, which we do not model. It changes the voltage by 58 mV at 0 degC.
    "particle mechanics": "swelling only",
    "stress-induced diffusion": "false",
    "loss of active material": "stress-driven",
}
PLATING = {"lithium plating": "partially reversible", "lithium plating porosity change": "true"}


@dataclass(frozen=True)
class Case:
    """What ages, how warm, how long."""

    name: str
    ambient_C: float
    cycles: int
    plating: bool
    mechanics: bool
    protocol: str = PROTOCOL
    pybamm_protocol: tuple[str, ...] = PYBAMM_PROTOCOL
    sei_factor: float = SEI_FACTOR
    lam_n_factor: float = LAM_N_FACTOR
    lam_p_factor: float = LAM_P_FACTOR
    """0: the positive electrode loses nothing."""
    dead_factor: float = 1.0
    """Factor on the rate at which plated lithium dies."""
    averaged: bool = False
    """Whether PyBaMM's side reactions are averaged over x."""


CASES = (
    Case("film alone", 25.0, 300, plating=False, mechanics=False),
    Case("film, plating, active material", 25.0, 300, plating=True, mechanics=True),
    Case("film, plating, active material", 5.0, 300, plating=True, mechanics=True),
)


@dataclass(frozen=True)
class Ageing:
    """The course of one side; arrays of shape (cycles,), values at the end of each cycle."""

    capacity_Ah: FloatArray
    """At rest between the voltage limits."""
    delivered_Ah: FloatArray
    """By the 1C discharge."""
    lithium_loss: FloatArray
    """Lithium gone from the particles, as a fraction of what was there at the start; plated lithium counts as gone."""
    active_loss_n: FloatArray
    active_loss_p: FloatArray
    film_m: FloatArray
    plated_Ah: FloatArray
    dead_Ah: FloatArray
    max_temperature_C: FloatArray

    @property
    def fade_percent(self) -> FloatArray:
        """Loss of capacity since the end of the first cycle [%]."""
        left: FloatArray = self.capacity_Ah / self.capacity_Ah[0]
        return 100.0 * (1.0 - left)


@dataclass(frozen=True)
class AgingRow:
    """One quantity at the end of a case."""

    case: str
    ambient_C: float
    cycles: int
    quantity: str
    ours: float
    pybamm: float

    @property
    def ratio_percent(self) -> float:
        """Ours over theirs, minus 100 %; NaN where theirs is zero."""
        return 100.0 * (self.ours / self.pybamm - 1.0) if abs(self.pybamm) > 1e-12 else float("nan")


@dataclass(frozen=True)
class Course:
    """Both sides of one case, for the figure."""

    case: Case
    ours: Ageing
    pybamm: Ageing


def aging(*, quick: bool, say: Callable[[str], None]) -> tuple[list[AgingRow], list[Course]]:
    """All cases (quick: 30 cycles each)."""
    rows: list[AgingRow] = []
    courses = []
    for case in CASES:
        if quick:
            case = dataclasses.replace(case, cycles=30)
        say(f"{case.cycles} cycles at {case.ambient_C:g} degC: {case.name}")
        course = Course(case, ours(case), theirs(case))
        courses.append(course)
        rows += _rows(course)
    return rows, courses


def _rows(course: Course) -> list[AgingRow]:
    a, b = course.ours, course.pybamm
    quantities = {
        "capacity lost [%]": (a.fade_percent, b.fade_percent),
        "capacity at rest [Ah]": (a.capacity_Ah, b.capacity_Ah),
        "delivered at 1C [Ah]": (a.delivered_Ah, b.delivered_Ah),
        "lithium lost [%]": (100.0 * a.lithium_loss, 100.0 * b.lithium_loss),
        "active material lost, negative [%]": (100.0 * a.active_loss_n, 100.0 * b.active_loss_n),
        "active material lost, positive [%]": (100.0 * a.active_loss_p, 100.0 * b.active_loss_p),
        "film grown [nm]": (1e9 * a.film_m - 5.0, 1e9 * b.film_m - 5.0),
        "plated, reversible [mAh]": (1e3 * a.plated_Ah, 1e3 * b.plated_Ah),
        "dead lithium [mAh]": (1e3 * a.dead_Ah, 1e3 * b.dead_Ah),
        "hottest [degC]": (a.max_temperature_C, b.max_temperature_C),
    }
    case = course.case
    return [
        AgingRow(case.name, case.ambient_C, case.cycles, name, float(mine[-1]), float(other[-1]))
        for name, (mine, other) in quantities.items()
    ]


def accelerated(case: Case) -> CellParameters:
    """Our cell with the acceleration."""
    cell = load_cell("okane2022")
    sei, plating = cell.sei, cell.plating
    assert plating is not None
    assert cell.lam_negative is not None
    negative = dataclasses.replace(cell.lam_negative, rate_1_s=case.lam_n_factor * cell.lam_negative.rate_1_s)
    positive = dataclasses.replace(OKANE_POSITIVE, rate_1_s=(case.lam_p_factor or 1.0) * OKANE_POSITIVE.rate_1_s)
    return dataclasses.replace(
        cell,
        sei=dataclasses.replace(
            sei,
            rate_m_s=case.sei_factor * sei.rate_m_s,
            ec_diffusivity_m2_s=case.sei_factor * sei.ec_diffusivity_m2_s,
        ),
        plating=dataclasses.replace(plating, dead_rate_1_s=case.dead_factor * plating.dead_rate_1_s)
        if case.plating
        else None,
        lam_negative=negative if case.mechanics else None,
        lam_positive=positive if case.mechanics and case.lam_p_factor else None,
    )


def ours(case: Case) -> Ageing:
    """Our side."""
    cell = accelerated(case)
    cycles = simulate_protocol(cell, case.protocol, case.cycles, case.ambient_C, initial_soc=1.0, keep=()).cycles
    model = cell_model(cell)
    start = model.inventory * model.area / 3600.0
    return Ageing(
        capacity_Ah=_capacity(model, cycles.lithium_Ah, cycles.active_n, cycles.active_p),
        delivered_Ah=cycles.discharge_Ah,
        lithium_loss=1.0 - cycles.lithium_Ah / start,
        active_loss_n=1.0 - cycles.active_n,
        active_loss_p=1.0 - cycles.active_p,
        film_m=cycles.sei_thickness_m,
        plated_Ah=cycles.plated_Ah,
        dead_Ah=cycles.dead_Ah,
        max_temperature_C=cycles.max_temperature_C,
    )


def theirs(case: Case) -> Ageing:
    """PyBaMM's side, at a seventh of a second per cycle. It is shorter than asked for where its solver gives up."""
    pybamm = load_pybamm()
    pybamm.set_logging_level("CRITICAL")  # we report ourselves when its solver gives up
    values = parameter_values(pybamm, case.ambient_C)
    for name, factor in (
        ("SEI kinetic rate constant [m.s-1]", case.sei_factor),
        ("EC diffusivity [m2.s-1]", case.sei_factor),
        ("Negative electrode LAM constant proportional term [s-1]", case.lam_n_factor),
        ("Positive electrode LAM constant proportional term [s-1]", case.lam_p_factor),
        ("Dead lithium decay constant [s-1]", case.dead_factor),
    ):
        values[name] = factor * values[name]
    options = OPTIONS | (PLATING if case.plating else {}) | (MECHANICS if case.mechanics else {})
    model = pybamm.lithium_ion.SPMe(options | {"x-average side reactions": str(case.averaged).lower()})
    wanted = _WANTED | (_WANTED_MECHANICS if case.mechanics else {})
    model.summary_variables = list(wanted.values())
    simulation = pybamm.Simulation(
        model,
        parameter_values=values,
        experiment=pybamm.Experiment([case.pybamm_protocol] * case.cycles),
        solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = simulation.solve(
            initial_soc=1.0, save_at_cycles=[1, case.cycles], calc_esoh=False, showprogress=False
        )
    # A solver that gives up leaves no last cycle, but a summary of its incomplete part.
    whole = slice(None) if solution.cycles[-1] is not None else slice(-1)
    summary = {key: np.asarray(solution.summary_variables[name], dtype=float)[whole] for key, name in wanted.items()}
    return _collected(summary, solution, values)


_WANTED = {
    "throughput": "Throughput capacity [A.h]",
    "net": "Discharge capacity [A.h]",
    "lithium": "Total lithium in particles [mol]",
    "film": "X-averaged negative SEI thickness [m]",
    "plated": "X-averaged negative lithium plating concentration [mol.m-3]",
    "dead": "X-averaged negative dead lithium concentration [mol.m-3]",
}
_WANTED_MECHANICS = {
    "active_n": "X-averaged negative electrode active material volume fraction",
    "active_p": "X-averaged positive electrode active material volume fraction",
}


def _collected(summary: dict[str, FloatArray], solution: Any, values: Any) -> Ageing:
    cell = load_cell("chen2020")
    model = cell_model(cell)
    to_Ah = FARADAY / 3600.0
    metal_Ah = cell.negative.thickness_m * cell.area_m2 * to_Ah
    ones = np.ones_like(summary["lithium"])
    active_n = summary.get("active_n", cell.negative.active_fraction * ones) / cell.negative.active_fraction
    active_p = summary.get("active_p", cell.positive.active_fraction * ones) / cell.positive.active_fraction
    # A cycle's throughput is discharge plus charge; its net capacity is discharge minus charge.
    both, net = (np.diff(summary[name], prepend=0.0) for name in ("throughput", "net"))
    last = solution.cycles[-1]
    hottest = last["Volume-averaged cell temperature [K]"].entries.max() - 273.15 if last is not None else float("nan")
    return Ageing(
        capacity_Ah=_capacity(model, summary["lithium"] * to_Ah, active_n, active_p),
        delivered_Ah=0.5 * (both + net),
        lithium_loss=1.0 - summary["lithium"] * to_Ah / (model.inventory * model.area / 3600.0),
        active_loss_n=1.0 - active_n,
        active_loss_p=1.0 - active_p,
        film_m=summary["film"],
        plated_Ah=metal_Ah * summary["plated"],
        dead_Ah=metal_Ah * summary["dead"],
        max_temperature_C=hottest * ones,
    )


def _capacity(model: CellModel, lithium_Ah: FloatArray, active_n: FloatArray, active_p: FloatArray) -> FloatArray:
    """Capacity at rest between the voltage limits [Ah], shape (cycles,)."""
    inventory = np.asarray(lithium_Ah) * 3600.0 / model.area
    full, empty = stoichiometry_limits(model, inventory, active_n, active_p)
    return np.asarray(model.q_n * active_n * (full - empty) * model.area / 3600.0)
