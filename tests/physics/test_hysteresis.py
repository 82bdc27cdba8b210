"""Hysteresis of open-circuit potentials: its balance, its limits, and PyBaMM's one-state model beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from physics import CellParameters, FleetPhysics, draw_population, load_cell, simulate_cell, simulate_protocol
from physics.cell import rested_block
from physics.layout import CAPACITY_REFRESH_S, LANES
from physics.modal import cell_model, stoichiometry_limits
from physics.parameters import HysteresisParameters
from tests.physics.naive import NaiveCell
from training.validation.cells import lfp, silicon_apart, silicon_as_one

CELLS = ("ai2022", "dreyer2010")


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


@pytest.mark.parametrize("name", [*CELLS, "chayambuka2022"])
def test_a_fleet_of_them(name: str, cycles: list[np.ndarray]) -> None:
    fleet = FleetPhysics(draw_population(1, np.arange(20), name), cycles=cycles, start_s=1_767_225_600 + 6 * 3600)
    told = fleet.advance(3600, 60)
    for column, values in told.items():
        if np.asarray(values).dtype.kind == "f":
            assert np.isfinite(values).all(), column


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="initial_hysteresis must be from -1 to 1, got 1\\.5"):
        simulate_cell("ai2022", [1.0], initial_hysteresis=(None, 1.5))
    cell = load_cell("dreyer2010")
    with pytest.raises(ValueError, match="decay must be a positive number"):
        replace(
            cell,
            positive=replace(cell.positive, hysteresis=HysteresisParameters(half_gap_V=np.zeros_like, decay=-1.0)),
        )


def test_as_in_pybamm() -> None:
    """The same branches in PyBaMM's SPMe, and graphite and silicon apart in its DFN."""
    for row in (silicon_as_one(), lfp(), *silicon_apart()):
        assert row.met, row
        assert not row.state > 0.01
