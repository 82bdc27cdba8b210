"""Fits: censored lives are kept, intervals cover what they promise, the distributed path learns the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from models.bundle import life_of, quantiles
from models.features import FEATURES
from training import distributed
from training.fit import (
    COVERAGE,
    KIND,
    QUANTILE,
    SURVIVAL,
    Table,
    boost_here,
    completed,
    fit,
    survival_of,
    weighted_quantile,
)
from training.samples import Samples

ROWS = 12


def lives(vehicles: int, observed: float, seed: int = 1) -> tuple[Samples, np.ndarray]:
    """Made-up vehicles that wear at a pace that SoH shows, and what was seen of them until they were `observed` days
    old. Returns the samples and the true remaining life of each row [days]."""
    random = np.random.default_rng(seed)
    pace = np.exp(random.normal(0.0, 0.4, vehicles))
    life = 4000.0 / pace * np.exp(random.normal(0.0, 0.15, vehicles))
    last = np.minimum(life, observed)
    day = (last[:, None] * (np.arange(ROWS) + 0.5) / ROWS).ravel()
    of = np.repeat(np.arange(vehicles), ROWS)
    inputs = np.full((of.size, len(FEATURES)), np.nan, dtype=np.float32)
    inputs[:, FEATURES.index("SoH")] = 1.0 - 0.2 * day / 4000.0 * pace[of] + random.normal(0.0, 0.002, of.size)
    inputs[:, FEATURES.index("age_years")] = day / 365.2425
    ended, seen = life[of] <= observed, last[of] - day
    fails = np.where(ended & (seen <= 365.0), 1, 0)
    fails = np.where(~ended & (seen < 365.0), -1, fails)
    samples = Samples(
        inputs, of, day, day / 4.0, seen / 4.0, seen, ended, fails.astype(np.int8), np.zeros(of.size, dtype=np.int8)
    )
    return samples, life[of] - day


def test_censored_lives_are_kept_where_dropping_them_would_bias() -> None:
    """Observed until most are still alive: drawn ends have the right mean, the ended ones alone are far too short."""
    samples, truth = lives(600, observed=4000.0)
    assert 0.3 < samples.ended.mean() < 0.7
    whole = completed(samples, "days", survival_of(samples, "days", boost_here()), seed=1)
    assert (whole >= samples.rul_days).all()
    np.testing.assert_array_equal(whole[samples.ended], samples.rul_days[samples.ended])
    assert abs(whole.mean() / truth.mean() - 1.0) < 0.1
    assert samples.rul_days[samples.ended].mean() < 0.7 * truth.mean()
    assert samples.rul_days.mean() < 0.8 * truth.mean()
    seen_whole, _ = lives(50, observed=1e9)
    assert completed(seen_whole, "days", None, seed=1) is seen_whole.rul_days


def test_intervals_cover_vehicles_that_neither_fit_nor_calibration_saw() -> None:
    train, _ = lives(300, 6000.0, seed=1)
    held, _ = lives(150, 6000.0, seed=2)
    fitted = fit(train, held, boost_here(), say=lambda _: None)
    test, truth = lives(300, 1e9, seed=3)
    rul, margin = (fitted.boosters[f"{name}_days"] for name in ("rul", "margin"))
    life = life_of(rul, margin, fitted.margins["days"], test.inputs)
    covered = (life.low <= truth) & (truth <= life.high)
    assert abs(covered.mean() - COVERAGE) < 0.06
    assert np.abs(life.median - truth).mean() < 0.5 * np.abs(truth.mean() - truth).mean()
    assert 0.0 < fitted.censored < 0.4
    x, y = fitted.probability_map
    assert np.all(np.diff(x) >= 0.0)
    assert np.all(np.diff(y) >= 0.0)


def test_a_weighted_quantile_counts_weight() -> None:
    values, weight = np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 1.0])
    assert weighted_quantile(values, weight, 0.5) == 1.0
    assert weighted_quantile(values, weight, 0.85) == 2.0
    assert weighted_quantile(values, weight, 1.0) == 3.0


class _Dies(xgb.callback.TrainingCallback):
    """Ends the second worker once, after the first checkpoint."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        import ray.train

        if (
            ray.train.get_context().get_world_rank() == 1
            and model.num_boosted_rounds() == 15
            and not self._flag.exists()
        ):
            self._flag.touch()
            os._exit(1)
        return False


@pytest.mark.cluster
def test_two_workers_learn_what_one_process_learns_and_a_killed_one_is_replaced(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, truth = lives(200, 1e9)
    quantile = QUANTILE | {"subsample": 1.0, "colsample_bynode": 1.0}
    table = Table(samples.inputs, np.log1p(truth), samples.weight)
    monkeypatch.setattr(distributed, "REPORT_ROUNDS", 10)
    flag = tmp_path / "died"
    monkeypatch.setattr(distributed, "CALLBACKS", (_Dies(flag),))
    with distributed.boost_on_ray(2) as boost:
        together = boost("quantile", quantile, table, 30)
        assert flag.exists()
        assert together.num_boosted_rounds() == 30
        upper = np.where(samples.ended, truth, np.inf)
        survival = boost("survival", SURVIVAL, Table(samples.inputs, truth, samples.weight, upper), 10)
    alone = boost_here()("quantile", quantile, table, 30)
    said = [quantiles(booster, samples.inputs)[1] for booster in (together, alone)]
    errors = [np.abs(values - truth).mean() for values in said]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    assert np.isfinite(survival.inplace_predict(samples.inputs)).all()
    assert KIND["num_class"] == 6
