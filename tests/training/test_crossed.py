"""Many splits, cohorts left out, lives cut short, other futures: each says what it says of vehicles not seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command import Twin
from tests.histories import END_SOH
from training import crossed as crossing
from training.crossed import CALIBRATION_FOLDS, crossed, looked_at
from training.fit import boost_here
from training.futures import futures
from training.histories import HistoryError, open_histories
from training.labels import label
from training.samples import assemble
from training.train import Trained


def test_each_vehicle_is_scored_once_and_by_a_fit_without_it(histories_folder: Path) -> None:
    labels = label(open_histories(histories_folder), END_SOH)
    parts = crossing._dealt(labels, 6, 1)
    assert sorted(np.concatenate(parts)) == list(labels.index)
    for k, part in enumerate(parts):
        train, calibration = crossing._without(parts, k)
        together = np.concatenate([part, train, calibration])
        assert np.unique(together).size == together.size == len(labels)
        assert calibration.size == sum(parts[(k + 1 + n) % 6].size for n in range(CALIBRATION_FOLDS))
    for _, cohort in labels.groupby("cohort"):
        counts = [np.isin(part, cohort.index).sum() for part in parts]
        assert max(counts) - min(counts) <= 1


def test_what_was_looked_at_for_some_years_is_censored_there(histories_folder: Path) -> None:
    histories = open_histories(histories_folder)
    samples, limit = assemble(histories, label(histories, END_SOH)), 3.0 * 365.0
    cut = looked_at(samples, histories, limit)
    before = samples.at(samples.day < limit)
    assert cut.vehicle.size == before.vehicle.size < samples.vehicle.size
    assert (cut.day + cut.rul_days <= limit + 1e-6).all()
    soon = before.day + before.rul_days <= limit
    assert (cut.ended == (before.ended & soon)).all()
    assert 0 < cut.ended.sum() < before.ended.sum()
    np.testing.assert_array_equal(cut.rul_efc[soon], before.rul_efc[soon])
    assert (cut.rul_efc[~soon] < before.rul_efc[~soon]).all()


def test_scores_over_many_splits(histories_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.crossed.CUT_YEARS", 3.0)
    said: list[str] = []
    facts = crossed(open_histories(histories_folder), boost_here(), folds=4, end_soh=END_SOH, say=said.append)
    json.dumps(facts, allow_nan=False)
    assert [line.split(":")[0] for line in said[:4]] == [f"split {k} of 4" for k in range(1, 5)]
    assert len(facts["splits"]) == 4
    assert np.mean([split["coverage"] for split in facts["splits"]]) == pytest.approx(
        facts["all"]["interval90"]["coverage"], abs=0.1
    )
    left_out = facts["left_out"]["cell prada2013"]
    assert left_out["mae"] > 0.0
    assert left_out["ratio"] == pytest.approx(left_out["mae"] / left_out["mae_seen"])
    cut = facts["cut"]
    assert cut["dropped"]["bias"] < cut["known"]["bias"], "dropping those that live on makes lives short"


def test_other_futures_of_vehicles(trained: Trained, histories_folder: Path) -> None:
    facts = futures(trained.bundle, open_histories(histories_folder), vehicles=6, say=lambda _: None)
    assert 0 < facts["vehicles"] <= 6
    for target in ("days", "efc"):
        told = facts[target]
        assert 0.0 < told["other_days"] < told["model"] < told["left"]
        assert 0.0 < told["other_owner"] < told["left"]  # of so few vehicles, as likely below other days as above
        assert told["other_charging"] > told["other_days"]
    with pytest.raises(HistoryError, match="expected at least 500 vehicles that the model has not seen and that wore"):
        futures(trained.bundle, open_histories(histories_folder), vehicles=500)


def test_too_few_vehicles_for_so_many_splits(histories_folder: Path) -> None:
    histories = open_histories(histories_folder)
    for folds in (3, 50):
        with pytest.raises(HistoryError, match="expected at least 4 splits and five vehicles for each"):
            crossed(histories, boost_here(), folds=folds, end_soh=END_SOH)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "nowhere"], "holds no histories.json"),
        (
            ["--data", "{data}", "--end-soh", "0.94", "--splits", "2"],
            "expected at least 4 splits and five vehicles for each, got 2",
        ),
        (["--data", "{data}", "--threads", "0"], "expected --forks of at least 0 and --threads of at least 1"),
        (["--data", "{data}", "--model", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_scored_is_said_in_a_line(
    options: list[str], says: str, histories_folder: Path, tmp_path: Path, twin: Twin
) -> None:
    asked = [option.format(data=histories_folder) for option in options]
    answer = twin("validate", "models", *asked, "--out", str(tmp_path / "out"))
    assert answer.code == 2
    assert says in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
