"""Balances, exactness, limits and input checks of one cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physics import FLAGS, UnknownCellError, load_cell, simulate_cell
from physics.cell import PROFILE_ROWS, rested_block, run_profile
from physics.layout import LANES
from physics.modal import acting, cell_model
from tests.physics.naive import NaiveCell

MODEL = cell_model(load_cell("chen2020"))
FEW = settings(max_examples=15, derandomize=True)

profiles = st.lists(st.floats(-7.0, 15.0), min_size=5, max_size=40).map(lambda steps: np.repeat(steps, 10))


@FEW
@given(current=profiles, soc=st.floats(0.3, 0.7), ambient_C=st.floats(-20.0, 45.0))
def test_charge_and_lithium_balance(current: np.ndarray, soc: float, ambient_C: float) -> None:
    run = simulate_cell("chen2020", current, initial_soc=soc, ambient_C=ambient_C)
    total = run.lithium_C
    assert np.ptp(total) <= 1e-9 * total[0]
    charge = np.cumsum(run.current_A)
    into_positive = MODEL.area * MODEL.q_p * (run.stoichiometry_p - run.stoichiometry_p[0])
    assert into_positive == pytest.approx(charge - charge[0], abs=1e-9 * MODEL.area * MODEL.q_p)


@FEW
@given(current=profiles, soc=st.floats(0.2, 0.8))
def test_heat_warms(current: np.ndarray, soc: float) -> None:
    run = simulate_cell("chen2020", current, initial_soc=soc, sei=False)
    model_heat = run.heat_W
    rise = np.diff(np.concatenate([[25.0], run.temperature_C]))
    loss = np.exp(-MODEL.cooling / MODEL.heat_capacity)
    before = np.concatenate([[25.0], run.temperature_C[:-1]]) - 25.0
    assert rise == pytest.approx((1 - loss) * (model_heat / MODEL.cooling - before), abs=1e-9)


@pytest.mark.parametrize("film_m", [None, 300e-9])
@pytest.mark.parametrize("cell", ["chen2020", "prada2013", "ai2022", "dreyer2010"])
@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_first_law(cell: str, film_m: float | None, rate: float) -> None:
    """From a state back to the same one, all net electrical energy has become heat. Out fast, back slowly."""
    amps = rate * load_cell(cell).nominal_capacity_Ah
    out, back = np.full(1200, amps), np.full(3600, -amps / 3.0)
    current = np.concatenate([out, np.zeros(7200), back, np.zeros(14400)])
    run = simulate_cell(
        cell,
        current,
        initial_soc=0.8,
        sei=False,
        plating=False,
        lam=False,
        voltage_limits=False,
        sei_thickness_m=film_m,
    )
    assert run.temperature_C[-1] == pytest.approx(25.0, abs=0.02)
    assert run.heat_W.sum() == pytest.approx(-np.sum(run.voltage_V * run.current_A), rel=0.004)


def test_one_long_step_equals_many_short_at_constant_current() -> None:
    """Particle modes and mean stoichiometry are exact in the step; isothermal, so temperature is held at 25 degC."""
    hold = 1e12  # cooling so strong that the cell keeps its temperature

    def run(steps: int, dt: float) -> np.ndarray:
        block = rested_block(MODEL, soc=0.6, temperature_C=25.0, sei=False)
        model = acting(MODEL, plating=False, lam=False)._replace(cooling=MODEL.cooling * hold)
        current = np.full(steps, 2.0)
        out = np.empty((PROFILE_ROWS, steps))
        run_profile(block, current, current, 0.0 * current, 0.0, 1e3, 1, 1, dt, model, out)
        return block.reshape(-1, LANES)[:17, 0]  # X_N, X_P, W_N, W_P, Y_E

    assert run(1, 600.0) == pytest.approx(run(600, 1.0), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("ambient_C", [-10.0, 25.0, 45.0])
def test_kernel_equals_the_slow_reference(ambient_C: float) -> None:
    rng = np.random.default_rng(7)
    current = np.repeat(rng.uniform(-4.0, 9.0, 120), 10)
    film = 2e-7
    run = simulate_cell("chen2020", current, initial_soc=0.7, ambient_C=ambient_C, sei_thickness_m=film)
    block = rested_block(MODEL, soc=0.7, temperature_C=ambient_C, sei_thickness_m=film).reshape(-1, LANES)
    kelvin = ambient_C + 273.15
    slow = NaiveCell(MODEL, 1.0, block[0, 0], block[1, 0], kelvin, kelvin, film / MODEL.sei_length)
    voltage = np.empty_like(current)
    temperature = np.empty_like(current)
    for k, amperes in enumerate(run.current_A):
        voltage[k] = slow.step(float(amperes))
        temperature[k] = slow.T - 273.15
    assert run.voltage_V == pytest.approx(voltage, abs=1e-9)
    assert run.temperature_C == pytest.approx(temperature, abs=1e-9)
    assert run.stoichiometry_n[-1] == pytest.approx(slow.x_n, abs=1e-12)
    grown = slow.q_sei * MODEL.sei_length / slow.active_n - film
    assert run.sei_thickness_m[-1] - film == pytest.approx(grown, rel=1e-6)
    assert run.plated_C[-1] == pytest.approx(MODEL.area * slow.plated, rel=1e-6)
    assert run.dead_C[-1] == pytest.approx(MODEL.area * slow.dead, rel=1e-6)
    assert 1.0 - run.active_n[-1] == pytest.approx(1.0 - slow.active_n, rel=1e-6)


@FEW
@given(
    current=st.lists(st.floats(-250.0, 250.0), min_size=5, max_size=60).map(np.array),
    soc=st.floats(0.0, 1.0),
    ambient_C=st.floats(-60.0, 100.0),
    step_s=st.sampled_from([0.1, 1.0, 15.0, 600.0]),
    limits=st.booleans(),
)
def test_never_nan_under_wild_currents(
    current: np.ndarray, soc: float, ambient_C: float, step_s: float, limits: bool
) -> None:
    run = simulate_cell("chen2020", current, step_s=step_s, initial_soc=soc, ambient_C=ambient_C, voltage_limits=limits)
    for name, values in run.items():
        assert np.all(np.isfinite(values)), name
    assert np.all((run.soc >= 0.0) & (run.soc <= 1.0))
    for x in (run.stoichiometry_n, run.stoichiometry_p):
        assert np.all((x > 0.0) & (x < 1.0))


def test_a_cut_current_is_flagged() -> None:
    run = simulate_cell("chen2020", np.full(7200, 5.0), initial_soc=0.5)
    assert run.flags[0] == 0
    assert run.flags[-1] & FLAGS["voltage_limited"]
    assert run.voltage_V.min() > 2.5 - 2e-3
    assert run.current_A[-1] < 1.0


def demand(
    power_W: np.ndarray, low_A: float, high_A: float, *, soc: float, temperature_C: float, v_high: float
) -> np.ndarray:
    """Run a power demand between limits; the rows of `run_profile`."""
    block = rested_block(MODEL, soc=soc, temperature_C=temperature_C)
    out = np.empty((PROFILE_ROWS, power_W.size))
    low, high = np.full_like(power_W, low_A), np.full_like(power_W, high_A)
    run_profile(block, low, high, power_W, 2.5, v_high, 10, 60, 1.0, MODEL, out)
    return out


@pytest.mark.parametrize("temperature_C", [0.0, 25.0])
def test_constant_voltage_is_held(temperature_C: float) -> None:
    out = demand(np.full(3 * 3600, -10.0), -5.0, 0.0, soc=0.7, temperature_C=temperature_C, v_high=4.15)
    voltage, current = out[0], out[1]
    assert voltage.max() <= 4.15 + 1.5e-3
    held = voltage > 4.145
    assert held.sum() > 1000
    assert voltage[held][100:].min() >= 4.15 - 1e-3
    assert np.all(np.diff(current[held][200:]) > -2e-3)  # tapers without oscillation


@FEW
@given(
    power=st.lists(st.floats(-3000.0, 3000.0), min_size=5, max_size=60).map(np.array),
    soc=st.floats(0.0, 1.0),
    temperature_C=st.floats(-40.0, 60.0),
    largest_A=st.floats(0.0, 300.0),
    v_high=st.floats(2.6, 4.2),
)
def test_never_nan_under_wild_power(
    power: np.ndarray, soc: float, temperature_C: float, largest_A: float, v_high: float
) -> None:
    out = demand(np.repeat(power, 5), -largest_A, largest_A, soc=soc, temperature_C=temperature_C, v_high=v_high)
    assert np.all(np.isfinite(out))
    assert np.abs(out[1]).max() <= largest_A
    assert np.all((out[3] >= 0.0) & (out[3] <= 1.0))


@pytest.mark.parametrize("temperature_C", [-10.0, 25.0])
def test_power_is_delivered(temperature_C: float) -> None:
    rng = np.random.default_rng(3)
    power = np.repeat(rng.uniform(-5.0, 20.0, 300), 3)
    out = demand(power, -50.0, 50.0, soc=0.6, temperature_C=temperature_C, v_high=5.0)
    error = out[0] * out[1] - power
    assert np.sqrt(np.mean(error**2)) < 0.01 * np.sqrt(np.mean(power**2))


def test_more_heat_more_aging() -> None:
    rest = np.zeros(600)
    films = [
        simulate_cell("chen2020", rest, step_s=600.0, initial_soc=0.5, ambient_C=t).sei_thickness_m[-1]
        for t in (0, 25, 45)
    ]
    assert films[0] < films[1] < films[2]
    assert simulate_cell("chen2020", rest, step_s=600.0, sei=False).sei_thickness_m[-1] == pytest.approx(5e-9)


def test_result_reads_both_ways() -> None:
    run = simulate_cell(parameters="chen2020", current_A=np.ones(5), step_s=1.0, initial_soc=0.9, ambient_C=25.0)
    assert run["voltage_V"] is run.voltage_V
    assert run.voltage_V.shape == (5,)
    assert set(run) >= {"voltage_V", "temperature_C", "soc", "current_A", "soh", "sei_thickness_m"}
    with pytest.raises(KeyError, match="there are"):
        run["volts"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"current_A": [1.0, float("nan")]}, r"current_A\[1\] is nan"),
        ({"current_A": []}, "non-empty"),
        ({"current_A": [[1.0]]}, "1-D"),
        ({"current_A": [1e6]}, "beyond 50C"),
        ({"ambient_C": -300.0}, "ambient_C"),
        ({"ambient_C": float("nan")}, "ambient_C"),
        ({"initial_soc": 1.1}, "initial_soc"),
        ({"initial_soc": float("nan")}, "initial_soc"),
        ({"step_s": 0.0}, "step_s"),
        ({"step_s": float("inf")}, "step_s"),
        ({"sei_thickness_m": 1e-5}, "fill the pores"),
        ({"capacity_scale": 0.0}, "capacity_scale"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_cell(**({"parameters": "chen2020", "current_A": [1.0]} | changes))  # type: ignore[arg-type]


def test_a_cell_of_ones_own() -> None:
    cell = load_cell("chen2020")
    better_cooled = replace(cell, heat_transfer_W_m2K=100.0)
    current = np.full(600, 5.0)
    warm, cool = simulate_cell(cell, current), simulate_cell(better_cooled, current)
    assert cool.temperature_C[-1] < warm.temperature_C[-1] - 1.0
    flatter = replace(cell, name="mine", positive=replace(cell.positive, ocp_V=lambda x: 4.2 - 0.9 * x))
    mine = simulate_cell(flatter, current)
    assert np.abs(mine.voltage_V - warm.voltage_V).max() > 0.05
    with pytest.raises(ValueError, match="separator_thickness_m must be a positive number"):
        replace(cell, separator_thickness_m=-1e-5)


def test_unknown_cell() -> None:
    with pytest.raises(UnknownCellError, match="known cells: chen2020"):
        load_cell("nokia3310")
