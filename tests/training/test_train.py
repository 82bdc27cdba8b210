"""From histories to a bundle and its scores: on vehicles never seen, with baselines, without a leak."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from tests.histories import END_SOH
from training.evaluate import BASELINES, Split, evaluate, split_for
from training.fit import boost_here
from training.histories import HistoryError, open_histories
from training.labels import label
from training.samples import assemble
from training.train import Trained, split_vehicles


def test_vehicles_are_split_and_not_rows(histories_folder: Path) -> None:
    labels = label(open_histories(histories_folder), END_SOH)
    split = split_vehicles(labels, seed=1)
    together = np.concatenate(list(split.values()))
    assert sorted(together) == list(labels.index)
    assert split["train"].size > split["calibration"].size + split["test"].size - 6
    again, other = split_vehicles(labels, seed=1), split_vehicles(labels, seed=2)
    assert all(np.array_equal(split[name], again[name]) for name in split)
    assert not np.array_equal(split["train"], other["train"])


def test_a_split_that_shares_a_vehicle_is_refused(histories_folder: Path) -> None:
    samples = assemble(open_histories(histories_folder), label(open_histories(histories_folder), END_SOH))
    rows = np.arange(samples.vehicle.size)
    with pytest.raises(HistoryError, match="expected a split by vehicle"):
        Split(samples.at(rows % 2 == 0), samples.at(rows % 2 == 1), "rows")


def test_what_is_trained_is_what_is_loaded(trained: Trained) -> None:
    bundle = Bundle.load(trained.folder)
    assert bundle.manifest.version == "1.2.3"
    assert sorted(bundle.seen) == ["calibration", "test", "train"]
    rows = np.random.default_rng(1).uniform(0.0, 1.0, (20, len(bundle.manifest.features)))
    rows[:, 7:][:, ::3] = np.nan
    told = bundle.predict(rows)
    assert (told.rul_low <= told.rul).all()
    assert (told.rul <= told.rul_high).all()
    assert ((told.failure_probability >= 0.0) & (told.failure_probability <= 1.0)).all()
    np.testing.assert_allclose(bundle.kinds(rows).sum(axis=1), 1.0, rtol=1e-5)
    card = (trained.folder / "card.md").read_text()
    for words in ("Split by vehicle", "a leak, not a result", "hidden constants", "does not claim"):
        assert words in card


def test_scores_name_every_baseline_and_the_leak(trained: Trained) -> None:
    json.dumps(trained.scores, allow_nan=False)
    for key in ("rul", "rul_days"):
        scores = trained.scores[key]
        assert tuple(scores["baselines"]) == BASELINES
        assert scores["mae_range"][0] <= scores["mae"] <= scores["mae_range"][1]
        assert scores["leaky"]["mae"] > 0.0
        assert 0.0 <= scores["interval90"]["coverage"] <= 1.0
        assert scores["mae"] < scores["baselines"]["mean_residual_life"]["mae"]
    assert trained.scores["split"]["how"] == "the test vehicles of the model's own data"


def test_only_vehicles_that_the_model_has_not_seen_are_scored(trained: Trained, histories_folder: Path) -> None:
    histories = open_histories(histories_folder)
    samples = assemble(histories, label(histories, END_SOH))
    own = split_for(trained.bundle, histories, samples)
    assert np.isin(own.test.vehicle, trained.bundle.seen["test"]).all()
    assert own.alike
    elsewhere = replace(histories, plan=replace(histories.plan, seed=histories.plan.seed + 1))
    other = split_for(trained.bundle, elsewhere, samples)
    assert np.unique(other.test.vehicle).size > np.unique(own.test.vehicle).size
    assert not other.alike, "a leak cannot be told: baselines learn from fewer vehicles than the model did"
    assert not np.intersect1d(other.test.vehicle, other.train.vehicle).size
    seen = samples.of(np.concatenate([trained.bundle.seen["train"], trained.bundle.seen["calibration"]]))
    with pytest.raises(HistoryError, match="expected at least two vehicles to score that the model has not seen"):
        split_for(trained.bundle, histories, seen)


def test_too_few_lives_are_refused(histories_folder: Path) -> None:
    labels = label(open_histories(histories_folder), END_SOH)
    for few in (labels.head(1), labels.assign(ended=False)):
        with pytest.raises(HistoryError, match="expected at least 3 vehicles that reached their end of life for train"):
            split_vehicles(few, seed=1)


def test_evaluating_again_gives_the_same(trained: Trained, histories_folder: Path) -> None:
    again = evaluate(trained.bundle, open_histories(histories_folder), boost_here(), say=lambda _: None)
    assert again["rul"]["mae"] == trained.scores["rul"]["mae"]
    assert again["failure"] == trained.scores["failure"]


def test_the_four_files_of_the_reference_load_without_us(trained: Trained, tmp_path: Path) -> None:
    script = """
import sys, joblib, numpy as np
files = {name: joblib.load(f"{sys.argv[1]}/{name}.joblib") for name in
         ("rul_xgb_model", "failure_xgb_model", "scaler", "feature_names")}
row = files["scaler"].transform(np.array([[0.6, 0.92, 355.0, 20.0, 24.0, 300.0, 7.1]]))
assert files["feature_names"][:2] == ["SoC", "SoH"] and len(files["feature_names"]) == 7
rul, failure = files["rul_xgb_model"].predict(row), files["failure_xgb_model"].predict_proba(row)
assert np.isfinite(rul).all() and failure.shape == (1, 2)
assert not {"models", "training", "physics"} & set(sys.modules)
"""
    command = [sys.executable, "-I", "-c", script, str(trained.folder / "reference")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
