"""Life against published cells: the numbers in the cell files must be what the fit says and stay near the targets."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from physics.cell import simulate_cell
from physics.cells import load_cell
from physics.constants import YEAR_S
from physics.modal import cell_model
from training.validation import published
from training.validation.calendar import (
    SeiConstants,
    constants_of,
    film_growth,
    fit_calendar,
    kernel_calendar,
    predict_calendar,
)
from training.validation.cycling import lam_of, lam_of_loss, predict_cycling, rate_constants, run_cycle
from training.validation.life import (
    FIELD,
    GOAL_POINTS,
    TARGETS,
    LifeTables,
    calendar_targets,
    grid,
    life_tables,
    render,
)
from twin.errors import RunFailed
from twin.show import life_study

needs_blast = pytest.mark.skipif(
    importlib.util.find_spec("blast") is None,
    reason="BLAST-Lite is not installed: pip install --no-deps blast-lite==1.1.1",
)
YEARS = np.array([1.0, 3.0, 10.0])


@pytest.fixture(scope="module")
def tables() -> LifeTables:
    return life_tables(quick=True)


def test_constants_of_a_cell_are_those_that_lose_what_they_lose() -> None:
    cell = load_cell("chen2020")
    assert cell.lam_negative is not None
    assert cell.lam_positive is not None
    assert rate_constants(cell, lam_of(cell)) == pytest.approx((cell.lam_negative.rate_1_s, cell.lam_positive.rate_1_s))
    assert rate_constants(load_cell("prada2013"), lam_of(cell))[1] == 0.0
    # Both electrodes lose the same part of themselves in the reference cycle: how they were fitted.
    cycle, lam = run_cycle(cell, 25.0, 0.1, 0.9, 0.5), lam_of(cell)
    assert lam.negative * cycle.exposure_n == pytest.approx(lam.positive * cycle.exposure_p, rel=0.05)


def test_storage_loses_more_when_warmer_fuller_and_older() -> None:
    t, s = grid([15.0, 25.0, 35.0], [0.3, 0.5, 0.9])
    left = predict_calendar(load_cell("chen2020"), t, s, YEARS).reshape(3, 3, 3)
    for axis in range(3):
        assert np.all(np.diff(left, axis=axis) < 0.0)


def test_storage_in_spans_equals_the_closed_form_at_low_loss() -> None:
    """One short span, by hand: dL/dt = v/(1 + s L)."""
    cell = load_cell("chen2020")
    slow = SeiConstants(1e-22, 1e-21, 0.0, 0.0)
    left = predict_calendar(cell, np.array([25.0]), np.array([0.5]), np.array([1.0]), slow)[0, 0]
    twice = predict_calendar(cell, np.array([25.0]), np.array([0.5]), np.array([2.0]), slow)[0, 0]
    assert 1.0 - twice == pytest.approx(2.0 * (1.0 - left), rel=1e-3)


def test_storage_is_what_the_kernel_does_at_rest() -> None:
    hours = 60 * 24
    kernel = simulate_cell("chen2020", np.zeros(hours), 3600.0, initial_soc=0.8, ambient_C=45.0)
    ours = predict_calendar(load_cell("chen2020"), np.array([45.0]), np.array([0.8]), np.array([hours * 3600 / YEAR_S]))
    assert 1.0 - kernel.soh[-1] == pytest.approx(1.0 - ours[0, 0], rel=0.01)


def test_storage_by_the_kernel_is_the_slow_model_less_what_plating_takes() -> None:
    cell = load_cell("chen2020")
    t, s = grid([10.0, 35.0], [0.5, 0.9])
    years = np.array([1.0, 3.0])
    slow = predict_calendar(cell, t, s, years)
    alone = kernel_calendar(replace(cell, plating=None, lam_negative=None, lam_positive=None), t, s, years)
    np.testing.assert_allclose(alone, slow, atol=2e-4)
    shipped = kernel_calendar(cell, t, s, years)
    assert np.all(shipped <= alone + 1e-9)
    np.testing.assert_allclose(shipped, slow, atol=2e-3)
    np.testing.assert_array_equal(kernel_calendar(cell, t[:1], s[:1], years[:1]), shipped[:1, :1])


def test_film_growth_in_cycles_is_what_the_kernel_does() -> None:
    """Ten cycles of a cell kept at 25 degC, ours with one effective reaction."""
    cell = replace(load_cell("chen2020"), heat_transfer_W_m2K=1e4)
    model = cell_model(cell)
    amperes = 0.5 * (model.x_full - model.x_empty) * model.q_n * model.area / 3600.0
    half = np.full(4 * 144, amperes)  # 0.8 of the charge at C/2, steps of 10 s
    current = np.tile(np.concatenate([half, -half]), 10)
    kernel = simulate_cell(cell, current, 10.0, initial_soc=0.9, sei_thickness_m=5e-8)
    cycle = run_cycle(cell, 25.0, 0.1, 0.9, 0.5)
    sei = constants_of(cell)
    film = np.array([5e-8])
    reaction = np.array([cycle.effective_reaction(5e-8 * sei.rate_over_diffusivity(298.15))])
    ours = film_growth(cell, model, sei, film, 10.0 * current.size, np.array([298.15]), reaction)
    assert kernel.sei_thickness_m[-1] - 5e-8 == pytest.approx(ours[0] - 5e-8, rel=0.1)


def test_fit_finds_the_constants_that_made_the_data() -> None:
    cell = load_cell("chen2020")
    true = SeiConstants(9e-17, 2e-21, 45000.0, 45000.0)
    t, s = grid([10.0, 25.0, 40.0], [0.5, 0.9])
    years = np.array([1.0, 5.0])
    fit = fit_calendar(cell, t, s, years, predict_calendar(cell, t, s, years, true))
    assert fit.sei == pytest.approx(true, rel=1e-3)
    assert fit.rms < 1e-3


def test_stress_grows_with_rate_and_falls_with_temperature() -> None:
    cell = load_cell("chen2020")
    slow, fast, warm = (run_cycle(cell, t, 0.1, 0.9, c) for t, c in ((25.0, 0.25), (25.0, 0.5), (45.0, 0.5)))
    # (x - x_s)^2 goes with the square of the current, the time of a cycle with its inverse.
    assert fast.exposure_n == pytest.approx(2.0 * slow.exposure_n, rel=0.05)
    assert warm.exposure_n < fast.exposure_n
    assert warm.exposure_p < fast.exposure_p
    assert fast.effective_reaction(0.0) > slow.effective_reaction(0.0)
    # A thick film averages the rate, a thin one the reaction.
    assert fast.effective_reaction(1e-2) < fast.effective_reaction(0.0)


def test_losing_the_same_part_of_both_electrodes_costs_that_part() -> None:
    cell = load_cell("chen2020")
    lam = lam_of_loss(cell, 1e-5, 1e-5, 0.0)
    efc = np.array([500.0])
    without = predict_cycling(cell, None, 25.0, 0.1, 0.9, 0.5, efc)
    assert predict_cycling(cell, lam, 25.0, 0.1, 0.9, 0.5, efc) - without == pytest.approx(500.0 * 1e-5, rel=0.1)


def test_field_studies_are_about_what_the_fitted_cell_does_in_ten_years() -> None:
    """Storage and cycling in a mild climate: between the best and the average of Geotab's vehicles."""
    cell = load_cell("chen2020")
    years, efc = np.array([10.0]), np.array([434.0])
    rest = predict_calendar(cell, np.array([15.0]), np.array([0.65]), years)[0]
    left = rest - predict_cycling(cell, lam_of(cell), 15.0, 0.45, 0.85, 0.15, efc)
    rates = [finding.loss_per_year for finding in FIELD if finding.loss_per_year]
    assert 1.0 - 10.0 * max(rates) < left[0] < 0.93


@needs_blast
def test_published_models_run_and_leave_numpy_and_modules_alone() -> None:
    import sys

    left = published.calendar_capacity("denso", 25.0, 0.5, YEARS)
    assert np.all(np.diff(left) < 0.0)
    # sqrt(t) by construction
    assert 1.0 - left[2] == pytest.approx(np.sqrt(10.0) * (1.0 - left[0]), rel=2e-3)
    assert "trapz" not in np.__dict__
    assert not [name for name in sys.modules if name.split(".")[0] == "blast"]


@needs_blast
def test_steps_that_grow_give_what_daily_steps_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("b1", "kokam", "sony"):
        coarse = published.calendar_capacity(key, 25.0, 0.7, YEARS[:2])
        with monkeypatch.context() as patch:
            patch.setattr(published, "_GROWTH", 0.0)
            daily = published.calendar_capacity(key, 25.0, 0.7, YEARS[:2])
        assert coarse == pytest.approx(daily, abs=1e-3)


@needs_blast
def test_our_cells_age_like_their_targets(tables: LifeTables) -> None:
    for cell in {row.cell for row in tables.calendar}:
        assert tables.rms_points(tables.calendar, cell) < GOAL_POINTS
        assert tables.rms_points(tables.cycling, cell) < GOAL_POINTS
    for row in tables.sensitivity:
        assert row.met, row
    assert tables.missed() == []


@needs_blast
def test_command_writes_tables_and_figure(tmp_path: Path, tables: LifeTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life_study, "life_tables", lambda quick: tables)
    said: list[str] = []
    folder = life_study.validate_life(quick=True, out=tmp_path / "x", say=said.append)
    assert {file.name for file in folder.iterdir()} == {"life.txt", "life.json", "life.png", "life.svg"}
    facts = json.loads((folder / "life.json").read_text())
    assert facts["missed"] == []
    assert all(row["kernel"] is not None for row in facts["calendar"])
    assert all(row["met"] for row in facts["sensitivity"])
    worse = replace(tables, sensitivity=(replace(tables.sensitivity[0], kernel=99.0),))
    monkeypatch.setattr(life_study, "life_tables", lambda quick: worse)
    with pytest.raises(RunFailed, match="goals missed: chen2020, 35 degC, 70% over 25 degC, 70%: factor"):
        life_study.validate_life(quick=True, out=tmp_path / "y", say=said.append)


@needs_blast
def test_constants_in_the_cell_file_are_those_of_the_fit() -> None:
    target = TARGETS[0]
    cell = load_cell(target.cell)
    t, s = grid([15.0, 25.0, 35.0], [0.3, 0.6, 0.9])
    years = np.array([1.0, 3.0, 10.0])
    capacity = calendar_targets(target.calendar, t, s, years).mean(axis=0)
    fit = fit_calendar(cell, t, s, years, capacity)
    ours = constants_of(cell)
    # A grid of nine conditions instead of 25: near, not equal.
    assert fit.sei.rate_m_s == pytest.approx(ours.rate_m_s, rel=0.3)
    assert fit.sei.ec_diffusivity_m2_s == pytest.approx(ours.ec_diffusivity_m2_s, rel=0.3)
    assert fit.sei.rate_activation_J_mol == pytest.approx(ours.rate_activation_J_mol, abs=5000.0)


@needs_blast
def test_tables_as_text(tables: LifeTables) -> None:
    text = render(tables)
    assert max(map(len, text.splitlines())) <= 120
    assert "chen2020: capacity left after storage" in text
    assert "Geotab" in text


def test_without_blast_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    published._models.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(published.BlastMissingError, match="pip install --no-deps blast-lite") as caught:
        published.calendar_capacity("b1", 25.0, 0.5, YEARS)
    assert "\n" not in str(caught.value)
