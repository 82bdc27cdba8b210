"""Beyond 20 % of loss: how a knee is found and told, and the start of the long cases against PyBaMM."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.validation.aging import Ageing, Case, Course, ours, theirs
from training.validation.knee import EVEN_PORES, KNEE, PORES, _rows, _summary, as_text, knee_of


def course(fade: np.ndarray, fade_other: np.ndarray) -> Course:
    """Two sides that lost this much [%], and little else."""

    def side(lost: np.ndarray) -> Ageing:
        nothing = np.zeros_like(lost)
        return Ageing(1.0 - lost / 100.0, *(nothing,) * 6, dead_Ah=lost / 1000.0, max_temperature_C=nothing)

    return Course(KNEE, side(fade), side(fade_other))


def test_knee_is_where_the_loss_quickens() -> None:
    cycle = np.arange(200.0)
    assert np.isnan(knee_of(0.1 * cycle))
    assert np.isnan(knee_of(np.sqrt(cycle)))
    bent = 0.1 * cycle + 0.2 * np.maximum(cycle - 100.0, 0.0)
    assert 101.0 <= knee_of(bent) <= 110.0


def test_tables_say_when_and_that_a_solver_gave_up() -> None:
    one = course(0.2 * np.arange(140.0), 0.25 * np.arange(90.0))
    rows, summary = _rows(one), _summary(one)
    assert [row.cycle for row in rows[:4]] == pytest.approx([26.0, 51.0, 76.0, 101.0])
    assert rows[2].cycle_pybamm == pytest.approx(61.0)
    assert np.isnan(rows[4].cycle_pybamm)
    assert rows[0].dead_mAh == pytest.approx(5.0)
    assert summary.largest_apart_points == pytest.approx(0.05 * 89.0)
    (text,) = as_text(rows, [summary])
    assert "PyBaMM's solver gave up in cycle 91" in text
    assert "ours none, PyBaMM none" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_cases_differ_in_what_they_are_named_after() -> None:
    assert not PORES.mechanics
    assert dataclasses.replace(PORES, name=EVEN_PORES.name, averaged=True) == EVEN_PORES


@pytest.mark.parametrize("case", [KNEE, EVEN_PORES], ids=lambda case: case.name)
def test_first_cycles_against_pybamm(case: Case) -> None:
    short = dataclasses.replace(case, cycles=4)
    mine, other = ours(short), theirs(short)
    np.testing.assert_allclose(mine.fade_percent, other.fade_percent, rtol=0.03)
    np.testing.assert_allclose(mine.dead_Ah, other.dead_Ah, rtol=0.06)
    np.testing.assert_allclose(mine.delivered_Ah, other.delivered_Ah, rtol=0.01)
