"""How good a model is on vehicles that it has never seen, beside simpler ways and beside ways that cheat.

Baselines are fitted to training vehicles, as the model was. Everything is scored on rows of test vehicles until their
end of life; errors of remaining life on lives whose end was seen. Ranges are 95 % bootstrap intervals over vehicles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNetCV, LinearRegression, LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.bundle import Bundle, Life, quantiles
from models.features import FEATURES
from training.fit import QUANTILE, ROUNDS, TARGETS, Boost, Table, completed, survival_of
from training.histories import Histories, HistoryError
from training.labels import label
from training.samples import Samples, assemble

Floats = npt.NDArray[np.float64]

BASELINES: Final = (
    "mean_life", "mean_residual_life", "linear_extrapolation", "elastic_net", "ols", "age_soh", "hidden_constants",
)  # fmt: skip
ALPHA: Final = 0.2
FEWEST: Final = 5
"""Vehicles that a group needs, to have a figure of its own."""
_UNSEEN_SHARE: Final = 0.6
_BINS: Final = 10


@dataclass(frozen=True)
class Split:
    """Rows to fit baselines to, and rows to score: they share no vehicle. `how` says in words where they are from.
    `alike`: baselines are fitted to the vehicles that the model was trained on."""

    train: Samples
    test: Samples
    how: str
    alike: bool = False

    def __post_init__(self) -> None:
        if np.intersect1d(self.train.vehicle, self.test.vehicle).size:
            raise HistoryError("a vehicle is in training and in test: expected a split by vehicle")


def split_for(bundle: Bundle, histories: Histories, samples: Samples, *, seed: int = 1) -> Split:
    """Test vehicles that the model has not seen. HistoryError if there are none."""
    vehicles, test = np.unique(samples.vehicle), unseen_vehicles([bundle], histories, samples)
    if histories.plan.seed == bundle.manifest.population:
        train = np.intersect1d(vehicles, bundle.seen["train"])
        how = "the test vehicles of the model's own data"
        if test.size and not train.size:
            test, train, how = *_dealt(test, seed), "vehicles of the model's population that it has not seen"
    else:
        test, train = _dealt(vehicles, seed)
        how = "vehicles of another population than the model's"
    alike = bool(np.isin(train, bundle.seen["train"]).all()) and histories.plan.seed == bundle.manifest.population
    if test.size < 2 or train.size < 2:
        raise HistoryError(
            f"expected at least two vehicles to score that the model has not seen, and two to fit baselines to, got "
            f"{test.size} and {train.size}: make histories with another seed"
        )
    return Split(samples.of(train), samples.of(test), how, alike)


def unseen_vehicles(models: Sequence[Bundle], histories: Histories, samples: Samples) -> npt.NDArray[np.int64]:
    """Vehicles of these histories to which none of the models was fitted or calibrated."""
    vehicles = np.unique(samples.vehicle)
    for model in models:
        if model.manifest.population == histories.plan.seed:
            vehicles = np.setdiff1d(vehicles, np.concatenate([model.seen["train"], model.seen["calibration"]]))
    return vehicles


def _dealt(vehicles: npt.NDArray[np.int64], seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(test, train)"""
    order = np.random.default_rng(seed).permutation(vehicles)
    train = int(_UNSEEN_SHARE * order.size)
    return np.sort(order[train:]), np.sort(order[:train])


def evaluate(
    bundle: Bundle, histories: Histories, boost: Boost, *, seed: int = 1, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Everything that `evaluation.json` holds."""
    labels = label(histories, bundle.manifest.end_of_life_soh)
    samples = assemble(histories, labels)
    split = split_for(bundle, histories, samples, seed=seed)
    ended = np.unique(split.test.vehicle[split.test.ended])
    if ended.size < 2:
        raise HistoryError(
            f"expected at least two test vehicles that reached end of life, got {ended.size}: simulate for longer"
        )
    facts: dict[str, Any] = {
        "model": {"name": bundle.manifest.name, "version": bundle.manifest.version, "data": bundle.manifest.data},
        "data": {"hash": histories.hash(), "physics": histories.physics, "vehicles": len(labels)},
        "split": {
            "how": split.how,
            "alike": split.alike,
            "train": int(np.unique(split.train.vehicle).size),
            "test": int(np.unique(split.test.vehicle).size),
            "test_ended": int(ended.size),
            "test_rows": int(split.test.vehicle.size),
        },
    }
    for target in TARGETS:
        say(f"remaining life in {target}: the model, {len(BASELINES)} baselines, and a leak")
        facts["rul" if target == "efc" else "rul_days"] = remaining_life(
            bundle, split, labels, histories, target, boost, seed
        )
    say("failure within a year")
    facts["failure"] = failures(bundle, split)
    return facts


def remaining_life(
    bundle: Bundle, split: Split, labels: pd.DataFrame, histories: Histories, target: str, boost: Boost, seed: int
) -> dict[str, Any]:
    """Scores of remaining life in "efc" or "days"."""
    test = split.test.at(split.test.ended)
    life = bundle.life(target, test.inputs)
    facts = life_scores(life, test, target, labels)
    truth = np.asarray(getattr(test, f"rul_{target}"))
    error = np.abs(life.median - truth)
    others = _others(split, test, labels, histories, target, boost, seed)
    facts["baselines"] = {
        name: {
            "mae": float(np.abs(said - truth).mean()),
            "ratio": float(error.mean() / np.abs(said - truth).mean()),
            "ratio_range": bootstrapped(error, test.vehicle, np.abs(said - truth)),
        }
        for name, said in others.items()
    }
    facts["leaky"] = {"mae": _leaky(split, target, boost, seed)}
    return facts


def life_scores(life: Life, test: Samples, target: str, labels: pd.DataFrame) -> dict[str, Any]:
    """How good `life` is, which was said of rows of lives whose end was seen."""
    truth, vehicle = np.asarray(getattr(test, f"rul_{target}")), test.vehicle
    passed = test.efc if target == "efc" else test.day
    whole = passed + truth
    covered = (life.low <= truth) & (truth <= life.high)
    fifth = np.minimum((5.0 * passed / whole).astype(int), 4)
    width = (life.high - life.low) / whole
    error = np.abs(life.median - truth)
    of = labels.loc[vehicle]
    by_vehicle = pd.Series(covered).groupby(vehicle).mean()
    return {
        "mae": float(error.mean()),
        "mae_range": bootstrapped(error, vehicle),
        "mape": _mape(error, truth),
        "bias": float((life.median - truth).mean()),
        "mean": float(truth.mean()),
        "alpha_lambda": _alpha_lambda(life.median, truth, passed / whole, vehicle, 0.5),
        "alpha_lambda_three_quarters": _alpha_lambda(life.median, truth, passed / whole, vehicle, 0.75),
        "interval90": {
            "coverage": float(covered.mean()),
            "coverage_range": bootstrapped(covered.astype(float), vehicle),
            "vehicles_mostly_covered": float((by_vehicle >= 0.8).mean()),
            "cohorts": _by(of["cohort"].to_numpy(), covered, vehicle),
            "cells": _by(of["cell"].to_numpy(), covered, vehicle),
            "uses": _by(of["use"].to_numpy(), covered, vehicle),
            "fifths": {str(k + 1): float(covered[fifth == k].mean()) for k in range(5) if (fifth == k).any()},
            "width": float(width.mean()),
            "width_last_fifth": float(width[fifth == 4].mean()) if (fifth == 4).any() else None,
        },
    }


def _others(
    split: Split, test: Samples, labels: pd.DataFrame, histories: Histories, target: str, boost: Boost, seed: int
) -> dict[str, Floats]:
    """What each of BASELINES says of the test rows."""
    train = split.train
    goal, lives = whole_lives(train, target, boost, seed)
    now = test.efc if target == "efc" else test.day
    said = {
        "mean_life": np.maximum(lives.mean() - now, 0.0),
        "mean_residual_life": mean_residual_life(lives, now),
        "linear_extrapolation": _extrapolated(test, target, float(lives[-1])),
    }
    for name, model in (
        ("elastic_net", ElasticNetCV(l1_ratio=0.9, alphas=12, cv=4, tol=1e-3, max_iter=2000)),
        ("ols", LinearRegression()),
    ):
        said[name] = np.maximum(linear(model).fit(train.inputs, goal).predict(test.inputs), 0.0)
    few = [FEATURES.index(name) for name in ("age_years", "SoH")]
    said["age_soh"] = _boosted(train.inputs[:, few], goal, train.weight, test.inputs[:, few], "age_soh", boost)
    hidden = _hidden(histories, labels)
    said["hidden_constants"] = _boosted(
        np.hstack([train.inputs, hidden.loc[train.vehicle].to_numpy(np.float32)]), goal, train.weight,
        np.hstack([test.inputs, hidden.loc[test.vehicle].to_numpy(np.float32)]), "hidden_constants", boost,
    )  # fmt: skip
    return {name: said[name] for name in BASELINES}


def linear(model: Any) -> Pipeline:
    """A linear model of inputs of any scale, some of which are missing."""
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), model)


def whole_lives(train: Samples, target: str, boost: Boost, seed: int) -> tuple[Floats, Floats]:
    """Remaining life of each row, and the life of each vehicle, ascending. Ends that were not seen are drawn."""
    survival = None if train.ended.all() else survival_of(train, target, boost)
    goal = completed(train, target, survival, seed)
    first = np.unique(train.vehicle, return_index=True)[1]
    passed = {"efc": train.efc, "days": train.day}[target]
    return goal, np.sort((passed + goal)[first])


def mean_residual_life(lives: Floats, now: Floats) -> Floats:
    """What those of these lives (ascending) that came so far had left, on average."""
    left = np.append(np.cumsum(lives[::-1])[::-1], 0.0)  # sum of the lives from each on
    beyond = np.searchsorted(lives, now, side="right")
    count = np.maximum(lives.size - beyond, 1)
    return np.where(beyond < lives.size, left[beyond] / count - now, 0.0)


def _extrapolated(test: Samples, target: str, longest: float) -> Floats:
    """The reported fade goes on as a straight line."""
    lost = np.maximum(1.0 - test.column("SoH"), 1e-3)
    so_far = test.column("Charge_Cycles") if target == "efc" else test.day
    return np.clip(so_far * (0.2 / lost - 1.0), 0.0, longest)


def _hidden(histories: Histories, labels: pd.DataFrame) -> pd.DataFrame:
    """What no vehicle knows of itself, by vehicle: all that was drawn for it."""
    lives = histories.read("truth/lives").set_index("vehicle")
    names = [str(name) for name in lives if str(name).startswith("hidden_")]
    codes = {name: labels[name].astype("category").cat.codes for name in ("cell", "use", "city")}
    return lives[names].assign(**codes)


def _boosted(
    inputs: npt.NDArray[np.float32],
    goal: Floats,
    weight: Floats,
    rows: npt.NDArray[np.float32],
    name: str,
    boost: Boost,
) -> Floats:
    """The median of the same learner with other inputs."""
    booster = boost(name, QUANTILE, Table(inputs, np.log1p(goal), weight), ROUNDS["rul"])
    return np.asarray(quantiles(booster, rows)[1])


def _leaky(split: Split, target: str, boost: Boost, seed: int) -> float:
    """Mean absolute error of the same learner where rows are split, not vehicles: half of the test vehicles' rows are
    in training. Not a result."""
    test = split.test.at(split.test.ended)
    half = np.random.default_rng(seed).random(test.vehicle.size) < 0.5
    known = split.train.at(split.train.ended)
    inputs = np.concatenate([known.inputs, test.inputs[half]])
    goal = np.concatenate([getattr(known, f"rul_{target}"), getattr(test, f"rul_{target}")[half]])
    said = _boosted(inputs, goal, np.ones(goal.size), test.inputs[~half], "leaky", boost)
    return float(np.abs(said - getattr(test, f"rul_{target}")[~half]).mean())


def failures(bundle: Bundle, split: Split) -> dict[str, Any]:
    """Scores of failure within the horizon."""
    test, train = split.test.at(split.test.fails >= 0), split.train.at(split.train.fails >= 0)
    fails = test.fails.astype(float)
    if not 0 < fails.sum() < fails.size or not 0 < train.fails.sum() < train.fails.size:
        return {"base_rate": float(fails.mean()), "note": "all rows or none fail within the horizon: nothing to score"}
    said = bundle.failure(test.inputs)
    base = float(train.fails.mean())
    few = [FEATURES.index(name) for name in ("SoH", "age_years")]
    logistic = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=1000))
    logistic.fit(train.inputs[:, few], train.fails)
    plain = logistic.predict_proba(test.inputs[:, few])[:, 1]
    precision, rival = (float(average_precision_score(fails, scores)) for scores in (said, plain))
    error = _calibration_error(fails, said)
    brier, brier_base = brier_score_loss(fails, said), brier_score_loss(fails, np.full(fails.size, base))
    kinds = bundle.kinds(test.inputs)
    failing = (test.fails == 1) & (test.kind >= 0)
    names = bundle.manifest.kinds
    return {
        "base_rate": float(fails.mean()),
        "average_precision": precision,
        "average_precision_range": _precision_range(fails, said, test.vehicle),
        "brier_skill": float(1.0 - brier / brier_base),
        "ece": error,
        "ece_relative": error / float(fails.mean()),
        "kinds": {name: int((test.kind[failing] == k).sum()) for k, name in enumerate(names)},
        "kind_right": float((kinds.argmax(axis=1)[failing] == test.kind[failing]).mean()) if failing.any() else None,
        "baselines": {"logistic_soh_age": {"average_precision": rival, "ratio": precision / rival}},
    }


def _calibration_error(fails: Floats, said: Floats) -> float:
    """Expected calibration error over ten bins of as many rows each."""
    order = np.argsort(said, kind="stable")
    parts = np.array_split(order, _BINS)
    return float(
        sum(len(part) * abs(said[part].mean() - fails[part].mean()) for part in parts if len(part)) / len(said)
    )


def _mape(error: Floats, truth: Floats) -> float:
    """Mean absolute percentage error, over rows with at least a tenth of the mean remaining life left."""
    enough = truth >= 0.1 * truth.mean()
    return float((error[enough] / truth[enough]).mean())


def _alpha_lambda(said: Floats, truth: Floats, share: Floats, vehicle: npt.NDArray[np.int64], when: float) -> float:
    """Share of vehicles whose prediction at a share of life is within ALPHA of the truth (Saxena et al. 2010)."""
    near = np.abs(share - when) < 0.05
    right = pd.Series((np.abs(said - truth) <= ALPHA * truth)[near]).groupby(vehicle[near]).mean()
    return float(right.mean()) if len(right) else float("nan")


def _by(group: npt.NDArray[Any], covered: npt.NDArray[np.bool_], vehicle: npt.NDArray[np.int64]) -> dict[str, float]:
    """Coverage of each group of at least FEWEST vehicles."""
    names = np.unique(group.astype(str))
    parts = {str(name): group.astype(str) == name for name in names}
    return {
        name: float(covered[part].mean()) for name, part in parts.items() if np.unique(vehicle[part]).size >= FEWEST
    }


def bootstrapped(
    values: Floats, vehicle: npt.NDArray[np.int64], over: Floats | None = None, times: int = 400
) -> tuple[float, float]:
    """95 % bootstrap interval over vehicles of the mean of `values`, or of its ratio to that of `over`."""
    _, of = np.unique(vehicle, return_inverse=True)
    top = np.bincount(of, values)
    bottom = np.bincount(of, np.ones(values.size) if over is None else over)
    drawn = np.random.default_rng(0).integers(0, top.size, (times, top.size))
    low, high = np.quantile(top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _precision_range(fails: Floats, said: Floats, vehicle: npt.NDArray[np.int64]) -> tuple[float, float]:
    names, of = np.unique(vehicle, return_inverse=True)
    rows = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
    generator, found = np.random.default_rng(0), []
    for _ in range(100):
        chosen = np.concatenate([rows[k] for k in generator.integers(0, names.size, names.size)])
        if fails[chosen].any():
            found.append(average_precision_score(fails[chosen], said[chosen]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
