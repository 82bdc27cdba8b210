"""The parts: polynomials of exp and log, electrolyte modes, climate, plans, random numbers, drive cycles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import load_cell
from physics.climate import CITIES, ambient_K
from physics.default_fleet import USES
from physics.duty import find_event, resample, trip, uses_of
from physics.layout import BLOCK_SIZE, LANES, ROWS
from physics.maths import asinh_and_root, exp, log
from physics.modal import (
    GRID_CELLS,
    L2,
    STATIC_WEIGHT,
    WEIGHT,
    cell_model,
    electrolyte_modes,
    fit_electrolyte,
    sphere_response,
    sphere_roots,
    steady_diffusivity,
)
from physics.rng import Keys, normals, uniform, uniforms


def test_exp_and_log() -> None:
    for x in np.linspace(-50.0, 50.0, 301):
        assert exp(float(x)) == pytest.approx(math.exp(x), rel=1e-11)
    for y in np.geomspace(1e-6, 1e9, 301):
        assert log(float(y)) == pytest.approx(math.log(y), abs=1e-14 * max(1.0, abs(math.log(y)) * 20))
    for z in (-1e3, -1.0, -1e-9, 0.0, 1e-9, 0.5, 30.0):
        value, root = asinh_and_root(z)
        assert value == pytest.approx(math.asinh(z), abs=1e-13)
        assert root == pytest.approx(math.hypot(1.0, z), rel=1e-14)


def test_sphere_modes() -> None:
    assert np.tan(sphere_roots(6)) == pytest.approx(sphere_roots(6), rel=1e-9)
    tau = np.geomspace(1e-7, 1.0, 200)
    ours = STATIC_WEIGHT + (np.array(WEIGHT) * (1.0 - np.exp(-np.multiply.outer(tau, np.array(L2))))).sum(axis=1)
    resolved = tau > 1e-5  # 0.01 s in graphite: far below a step
    assert np.abs(ours - sphere_response(tau))[resolved].max() < 2.5e-4
    assert sum(WEIGHT) + STATIC_WEIGHT == pytest.approx(0.2, abs=1e-15)


def test_a_diffusivity_that_depends_on_stoichiometry() -> None:
    """Against the steady profile itself: D(x) dx/dr = r B gives the surface; its volume mean is the row."""
    np.testing.assert_allclose(steady_diffusivity(np.ones_like), 1.0, atol=1e-3)
    table = steady_diffusivity(lambda x: np.exp(-3.0 * x))
    assert np.diag(table) == pytest.approx(np.exp(-3.0 * np.linspace(0.0, 1.0, GRID_CELLS + 1)))
    r = (np.arange(2000) + 0.5) / 2000
    for surface, gradient in ((0.25, -0.1), (0.75, 0.02)):
        integral = (1.0 - np.exp(-3.0 * surface)) / 3.0  # of D from 0 to the surface
        x = -np.log(1.0 - 3.0 * (integral - gradient * (1.0 - r**2))) / 3.0
        mean = 3.0 * (x * r**2).mean()
        row = [np.interp(mean, np.linspace(0.0, 1.0, GRID_CELLS + 1), table[:, round(GRID_CELLS * surface)])]
        assert row == pytest.approx([0.4 * gradient / (surface - mean)], rel=2e-3)


def test_electrolyte_modes() -> None:
    cell = load_cell("chen2020")
    modes = electrolyte_modes(cell)
    assert modes.rates[:3] == pytest.approx([0.0325, 0.1205, 0.2881], rel=2e-3)  # docs/physics.md
    fit = fit_electrolyte(cell, modes)
    assert fit.residual < 5e-3
    assert modes.total_n > 0.0 > modes.total_p


def test_layout_stays_below_1500_bytes_a_vehicle() -> None:
    assert BLOCK_SIZE == ROWS * LANES
    assert BLOCK_SIZE * 8 / LANES <= 1500


def test_capacity_of_the_fresh_cell() -> None:
    model = cell_model(load_cell("chen2020"))
    capacity_Ah = model.area * model.q_n * (model.x_full - model.x_empty) / 3600.0
    assert capacity_Ah == pytest.approx(5.0, rel=0.05)


def test_uniform_numbers() -> None:
    draws = uniforms(1, 2, np.arange(20000))
    assert draws.mean() == pytest.approx(0.5, abs=0.01)
    assert 0.0 < draws.min() < draws.max() < 1.0
    assert np.unique(draws).size == draws.size
    assert uniform(1, 2, 3, 0) == draws[3]
    assert uniform(1, 2, 3, 1) != uniform(1, 2, 3, 0) != uniform(1, 3, 2, 0)
    z = normals(1, 4, np.arange(20000))
    assert z.mean() == pytest.approx(0.0, abs=0.03)
    assert z.std() == pytest.approx(1.0, abs=0.03)


def test_climate_follows_the_normals() -> None:
    day = 86400.0
    for k, city in enumerate(CITIES):
        # 40 Januaries of one seed: hours of the day against the normals of January
        days = [365.2425 * year + 15 for year in range(40)]
        afternoon = [ambient_K(Keys.of(1), k, day * math.floor(d) + 15 * 3600) - 273.15 for d in days]
        before_dawn = [ambient_K(Keys.of(1), k, day * math.floor(d) + 3 * 3600) - 273.15 for d in days]
        assert np.mean(afternoon) == pytest.approx(city.daily_max_C[0], abs=1.8)
        assert np.mean(before_dawn) == pytest.approx(city.daily_min_C[0], abs=1.8)


@pytest.mark.parametrize("use", range(len(USES)))
def test_plans_are_in_order(use: int) -> None:
    """Forty days of fifty vehicles: trips do not overlap, and the search for entries finds each of them."""
    ticks = np.array([1369, 765, 600, 1800], dtype=np.int64)
    uses = int(uses_of(np.array(use)))
    for vehicle in range(50):
        tick, day, event = find_event(Keys.of(3), vehicle, uses, 20_000, 0, 3600.0, 86400.0 * 20_000, 1.0, ticks)
        last, entries = -(10**9), 0
        while day < 20_040:
            begin, end, cycle = trip(Keys.of(3), vehicle, use, day, event // 2, 1.0, ticks)
            assert 0 <= cycle < 4
            assert 0.0 < begin < end < 86400.0
            assert tick > last
            last, entries = tick, entries + 1
            tick, day, event = find_event(
                Keys.of(3), vehicle, uses, day, event + 1, 3600.0, 86400.0 * 20_000, 1.0, ticks
            )
        assert entries % 2 == 0
        assert entries > 40


@pytest.mark.parametrize(("name", "km"), [("udds", 11.99), ("hwfet", 16.51), ("us06", 12.89), ("wltc_3b", 23.27)])
def test_drive_cycles(name: str, km: float) -> None:
    cycle = load_drive_cycle(name)
    assert name in drive_cycle_names()
    assert cycle.distance_km == pytest.approx(km, abs=0.01)
    assert cycle.speed_mps[0] == cycle.speed_mps[-1] == 0.0
    slow = resample(cycle.speed_mps, 2.5)
    assert np.sum(slow) * 2.5 / 1000.0 == pytest.approx(km, rel=0.01)
    with pytest.raises(ValueError, match="known: udds"):
        load_drive_cycle("nurburgring")
