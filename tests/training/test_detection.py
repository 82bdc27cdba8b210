"""Alarms about faults: when they begin, what they cost, and who is judged by whom."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.features import WINDOWED
from physics.faults import KINDS
from tests.command import Twin
from training.detection import FEWEST, Watched, _alarms, _judged, _threshold, detection, watch
from training.fit import boost_here
from training.histories import HistoryError, open_histories

VEHICLES, MONTHS = 40, 60
KIND = 1


def watched(seed: int = 0, faulty: int = 10, onset: int = 20) -> tuple[Watched, np.ndarray]:
    """Vehicles of which the first ones get a fault in month `onset`; a score that is high from three months after."""
    random = np.random.default_rng(seed)
    vehicle, month = (part.ravel() for part in np.mgrid[0:VEHICLES, 0:MONTHS])
    since = np.full((vehicle.size, len(KINDS)), np.nan)
    acts = (vehicle < faulty) & (month >= onset)
    since[acts, KIND] = (month - onset)[acts]
    score = random.uniform(0.0, 0.5, vehicle.size) + 0.5 * (since[:, KIND] >= 3)
    codes = np.zeros(vehicle.size, dtype=np.bool_)
    return Watched(vehicle, month, np.zeros((vehicle.size, 1), np.float32), since, codes), score


def test_an_alarm_is_two_months_in_a_row_and_counts_once() -> None:
    seen, _ = watched()
    above = np.zeros(seen.vehicle.size, dtype=np.bool_)
    above[[3, 7, 8, 9, 20, 21]] = True
    above[[MONTHS - 1, MONTHS]] = True  # of two vehicles
    assert np.flatnonzero(_alarms(seen, above)).tolist() == [8, 21]


def test_what_is_found_and_what_it_costs() -> None:
    seen, score = watched()
    told = _judged(
        seen, score >= 0.5, score, {kind.name: np.arange(10 if k == KIND else 0) for k, kind in enumerate(KINDS)}
    )
    assert told["false_alarms_a_year"] == 0.0
    found = told["kinds"][KINDS[KIND].name]
    assert set(told["kinds"]) == {KINDS[KIND].name}
    assert (found["within_a_year"], found["delay_days"]) == (1.0, 120.0)
    assert found["auroc"] == pytest.approx((37 + 3 * 0.5) / 40, abs=0.02)
    field = told["at_field_rates"]
    assert field["faults_a_year"] == field["found_a_year"] == KINDS[KIND].rate
    assert field["right_of_alarms"] == 1.0
    assert field["inspections_a_year"] == KINDS[KIND].rate < field["inspections_without"]


def test_the_threshold_allows_as_many_false_alarms_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.detection.YEARS_AN_ALARM", 5.0)
    seen, score = watched()
    rows = np.ones(score.size, dtype=np.bool_)
    years = (~seen.faulty).sum() / 12.17
    alarms = [(_alarms(seen, score >= level) & ~seen.faulty).sum() for level in (_threshold(seen, score, rows),)]
    assert 0.5 * years / 5.0 < alarms[0] <= years / 5.0


def test_the_months_of_histories_are_watched(histories_folder: Path) -> None:
    histories = open_histories(histories_folder)
    seen = watch(histories)
    assert seen.inputs.shape == (seen.vehicle.size, len(WINDOWED))
    lives = histories.read("truth/lives").set_index("vehicle")
    some = 0
    for vehicle, faults in lives["faults"].items():
        here = seen.since[seen.vehicle == vehicle]
        if not json.loads(faults):
            assert np.isnan(here).all()
        elif np.isfinite(here).any():
            some += 1
            assert np.nanmin(here) < 1.5 or "bad_electrolyte" in faults
    assert some > 0
    with pytest.raises(HistoryError, match=f"expected at least 50 vehicles, and {FEWEST} with some kind of fault, got"):
        detection(histories, boost_here())


def test_scores_over_folds(histories_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.detection.FEWEST", 1)
    said: list[str] = []
    facts = detection(open_histories(histories_folder), boost_here(), say=said.append)
    json.dumps(facts)
    assert said == [f"fold {k} of 5" for k in range(1, 6)]
    assert set(facts["trees"]["kinds"]) == set(facts["codes"]["kinds"])
    assert facts["sound_vehicle_years"] > 0.0


def test_histories_without_faults_are_refused_in_a_line(histories_folder: Path, tmp_path: Path, twin: Twin) -> None:
    answer = twin("validate", "faults", "--data", histories_folder, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "twin generate --enrich faults" in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
