"""Knees of lives: how one is found, that lives have them by drying out, and the rows of the validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from physics import draw_population, load_cell
from physics.dryout import ENDLESS
from physics.modal import cell_model
from training.validation import knees
from training.validation.knees import (
    CAUSES,
    LEVELS,
    as_text,
    bend_of,
    crossings,
    distances_text,
    ends_text,
    knee_of_life,
    lived,
)

MODEL = cell_model(load_cell("chen2020"))
PER_LITHIUM = MODEL.inventory / (MODEL.q_n * (MODEL.x_full - MODEL.x_empty))
EFC = np.linspace(0.0, 4000.0, 400)


def bent(at: float, steeper: float) -> np.ndarray:
    """SoH that falls evenly, and `steeper` times as fast from `at` EFC on."""
    return 1.0 - 1e-4 * EFC - (steeper - 1.0) * 1e-4 * np.maximum(EFC - at, 0.0)


def test_a_bend_is_found_where_it_is_and_only_if_it_lasts() -> None:
    for soh in (bent(0.0, 1.0), 1.0 - 0.006 * np.sqrt(EFC), bent(1000.0, 1.3), bent(2800.0, 3.0)):
        assert bend_of(crossings(soh, EFC)) is None
    found = bend_of(crossings(bent(1500.0, 3.0), EFC))
    assert found is not None
    assert LEVELS[found[1]] == pytest.approx(0.85, abs=0.021)
    assert bend_of(crossings(bent(1500.0, 3.0)[:150], EFC[:150])) is None  # not lived to 0.7
    hump = 1.0 - np.interp(EFC, [0.0, 1000.0, 1200.0, 4000.0], [0.0, 0.1, 0.16, 0.4])
    assert bend_of(crossings(hump, EFC)) is None


def test_its_cause_is_the_loss_that_grew_most() -> None:
    soh = bent(1500.0, 3.0)
    nothing = np.zeros_like(EFC)
    more = np.maximum(EFC - 1500.0, 0.0) * 2e-4
    truth = {"soh": soh, "efc": EFC, "wetted": 1.0 + nothing, "sei": 1e-4 * EFC / PER_LITHIUM}
    truth |= dict.fromkeys(("dead_lithium", "lam_ne", "lam_pe"), nothing)
    for name, values, cause in (
        ("wetted", np.exp(-more), CAUSES[0]),
        ("sei", truth["sei"] + more / PER_LITHIUM, CAUSES[1]),
        ("dead_lithium", more / PER_LITHIUM, CAUSES[2]),
        ("lam_pe", more, CAUSES[3]),
    ):
        knee = knee_of_life(truth | {name: values}, PER_LITHIUM)
        assert knee is not None
        assert knee.cause == cause
        assert knee.steeper == pytest.approx(3.0, rel=0.1)
        assert knee.efc == pytest.approx(1500.0, abs=150.0)


def test_lives_have_knees_and_without_drying_hardly_any() -> None:
    """Taxis, which are driven most and so soon old; they begin at an SoH of about 0.9."""
    taxis = draw_population(5, np.arange(16), "chen2020", use="taxi", oldest_years=0.0, fault_share=0.0)
    taxis = replace(taxis, sei_thickness_m=np.full(16, 2e-7), active_n=np.full(16, 0.98), active_p=np.full(16, 0.95))
    endless = replace(taxis, electrolyte_reserve=np.full(16, ENDLESS))
    found = []
    for who in (taxis, endless):
        truth = lived(who, 15, drive_step_s=10.0, tolerance=1e-3)
        own = [{name: values[:, v] for name, values in truth.items()} for v in range(16)]
        assert np.sum(np.nanmin(truth["soh"], axis=0) < 0.7) >= 12
        found.append([knee for knee in (knee_of_life(life, PER_LITHIUM) for life in own) if knee is not None])
        assert (np.nanmin(truth["wetted"]) == 1.0) == (who is endless)
    assert len(found[0]) >= 8
    assert {knee.cause for knee in found[0]} == {"dry"}
    assert all(0.7 < knee.soh < 0.95 and knee.steeper > 1.5 for knee in found[0])
    # Without it, loss of active material that feeds on itself may bend a taxi's life a little.
    assert len(found[1]) <= 2
    assert all(knee.cause == "active" and knee.steeper < 2.0 for knee in found[1])


def test_the_rows_of_the_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knees, "lived", lambda who, years: lived(who, years, drive_step_s=10.0, longest_jump=90))
    rows, far = knees.whole_lives(vehicles=6, years=2)
    assert {row.use for row in rows} == {"all", "commuter", "delivery", "taxi", "long_distance"}
    assert sum(row.lives for row in rows if row.use == "all") == 6
    assert all(row.lived <= row.lives and row.knees <= row.lived for row in rows)
    text = [*as_text(rows), *ends_text(rows)]
    assert max(map(len, text)) <= 120
    assert len(text) == 2 * (len(rows) + 1)
    assert {row.model for row in far} == {"large", "medium"}
    assert len(distances_text(far)) == 3
