"""Remaining cycles of real cells, by the code that learns remaining life of vehicles.

`train_cells` takes a documented table: cell, cycle, capacity_Ah and any further numbers a cycle, such as
resistance_Ohm or temperature_C (docs/models.md). `early_life` predicts cycle life from the first hundred cycles of the
124 cells of Severson et al. 2019 on their published split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from sklearn.linear_model import ElasticNetCV, LinearRegression
from sklearn.model_selection import GroupKFold

from datasets.table_file import DataError, read_table
from models.bundle import quantiles
from training.evaluate import linear, mean_residual_life
from training.fit import COVERAGE, QUANTILE, Boost, Table, completed, survival_of, weighted_quantile
from training.samples import Samples

Floats = npt.NDArray[np.float64]

NEEDED: Final = ("cell", "cycle", "capacity_Ah")
FEWEST_CELLS: Final = 6
FEWEST_CYCLES: Final = 20
ROWS_A_CELL: Final = 40
FIRST_ROW: Final = 10
"""Cycles that a prediction needs."""
_FOLDS: Final = 5
_SPANS: Final = (25, 50, 100)
_ROUNDS: Final = 150
_CELLS: Final = QUANTILE | {"max_depth": 4, "min_child_weight": 5}


@dataclass(frozen=True)
class CellModel:
    """A booster of log(1 + remaining cycles) at three quantiles, what it reads, and how good it is on cells that it did
    not see (`scores`)."""

    booster: xgb.Booster
    features: tuple[str, ...]
    margin: float
    scores: dict[str, Any]


def read_cells(path: Path) -> pd.DataFrame:
    """The table, ordered by cell and cycle. DataError where it is not what it should be."""
    table = read_table(path)
    if missing := [name for name in NEEDED if name not in table]:
        raise DataError(f"{path}: expected the columns {', '.join(NEEDED)}; missing: {', '.join(missing)}")
    numbers = [str(name) for name in table if name != "cell"]
    for name in numbers:
        values = pd.to_numeric(table[name], errors="coerce").replace([np.inf, -np.inf], np.nan)
        wrong = values.isna() & (table[name].notna() | (name in NEEDED))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{path}: expected numbers in {name}, got {table[name].iloc[row]} in row {row + 1}")
        table[name] = values
    if (table["capacity_Ah"] <= 0.0).any():
        raise DataError(f"{path}: expected capacity_Ah above 0")
    if (twice := table.duplicated(["cell", "cycle"])).any():
        again: Any = table[twice].iloc[0]
        raise DataError(
            f"{path}: expected each cycle of a cell once, got cell {again['cell']} cycle {again['cycle']:g} twice"
        )
    return table.sort_values(["cell", "cycle"], kind="stable", ignore_index=True)


def rows_of(table: pd.DataFrame, end_soh: float) -> tuple[Samples, tuple[str, ...]]:
    """Rows at up to `ROWS_A_CELL` moments of each cell's life, with the names of their features.

    A cell's life ends at the first cycle at which the median of three capacities is below `end_soh` of what it had at
    the beginning. One that never does is censored. DataError where there are too few.
    """
    extras = [str(name) for name in table if name not in NEEDED]
    rows: list[tuple[int, float, float, bool]] = []
    inputs: list[list[float]] = []
    for number, (_, of) in enumerate(table.groupby("cell", sort=True)):
        cycle, capacity = of["cycle"].to_numpy(np.float64), of["capacity_Ah"].to_numpy(np.float64)
        if cycle.size < FEWEST_CYCLES:
            continue
        relative = capacity / np.median(capacity[:5])
        smooth = pd.Series(relative).rolling(3, center=True, min_periods=1).median().to_numpy()
        below = np.flatnonzero(smooth < end_soh)
        ended = below.size > 0
        last = int(below[0]) if ended else cycle.size - 1
        if last <= FIRST_ROW:
            continue
        others = {name: of[name].to_numpy(np.float64) for name in extras}
        for at in np.unique(np.linspace(FIRST_ROW, last, ROWS_A_CELL, endpoint=not ended).astype(int)):
            rows.append((number, cycle[at], cycle[last] - cycle[at], ended))
            inputs.append(list(_features(cycle, relative, others, at, end_soh)))
    if len({number for number, *_ in rows}) < FEWEST_CELLS:
        raise DataError(
            f"expected at least {FEWEST_CELLS} cells of {FEWEST_CYCLES} cycles and more, got "
            f"{len({number for number, *_ in rows})}"
        )
    owner, now, left, known = (np.array(column) for column in zip(*rows, strict=True))
    if not known.any():
        raise DataError(
            f"expected cells that fall below {end_soh:g} of their first capacity, got none: choose --end-soh"
        )
    nothing = np.full(owner.size, -1, dtype=np.int8)
    matrix = np.array(inputs, dtype=np.float32)
    samples = Samples(matrix, owner.astype(np.int64), now, now, left, left, known.astype(bool), nothing, nothing)
    return samples, _names(extras)


def _names(extras: list[str]) -> tuple[str, ...]:
    names = ["cycle", "soh", "fade_a_cycle", "straight", *(f"slope_{span}" for span in _SPANS), "bend", "noise"]
    return (*names, *(f"{name}_{what}" for name in extras for what in ("now", "change", "slope")))


def _features(cycle: Floats, soh: Floats, others: dict[str, Floats], at: int, end_soh: float) -> Iterator[float]:
    """Of a cell at its measurement `at`: nothing later is read."""
    now = float(np.median(soh[max(0, at - 4) : at + 1]))
    lost = max(1.0 - now, 1e-4)
    slopes = [_slope(cycle[max(0, at - span) : at + 1], soh[max(0, at - span) : at + 1]) for span in _SPANS]
    yield from (cycle[at], now, lost / max(cycle[at], 1.0), min(cycle[at] * max(now - end_soh, 0.0) / lost, 1e5))
    yield from slopes
    yield slopes[0] - slopes[-1]
    yield float(np.std(np.diff(soh[max(0, at - 25) : at + 1])))
    for values in others.values():
        seen = values[: at + 1]
        first, present = seen[:5], seen[-5:]
        known = np.isfinite(first).any() and np.isfinite(present).any()
        yield float(np.nanmedian(present)) if np.isfinite(present).any() else math.nan
        yield float(np.nanmedian(present) - np.nanmedian(first)) if known else math.nan
        yield _slope(cycle[max(0, at - 100) : at + 1], values[max(0, at - 100) : at + 1])


def _slope(x: Floats, y: Floats) -> float:
    there = np.isfinite(y)
    if there.sum() < 3 or np.ptp(x[there]) == 0.0:
        return math.nan
    return float(np.polyfit(x[there], y[there], 1)[0])


def train_cells(path: Path, boost: Boost, *, end_soh: float, seed: int, say: Callable[[str], None]) -> CellModel:
    """Learn remaining cycles. Every score is of cells that were left out: folds by cell, and the interval of a fold is
    calibrated on the others."""
    samples, names = rows_of(read_cells(path), end_soh)
    cells = np.unique(samples.vehicle)
    ended = np.array([samples.ended[samples.vehicle == cell][0] for cell in cells])
    say(f"{cells.size} cells, {ended.sum()} of them to the end of their life; {samples.vehicle.size:,} rows")
    if ended.sum() < 3:
        raise DataError(
            f"expected at least 3 cells that reached {end_soh:g} of their first capacity, got {ended.sum()}"
        )
    survival = None if samples.ended.all() else survival_of(samples, "efc", boost)
    goal = completed(samples, "efc", survival, seed)
    folds = list(
        GroupKFold(min(_FOLDS, cells.size), shuffle=True, random_state=seed).split(goal, groups=samples.vehicle)
    )
    said = np.zeros((3, goal.size))
    others = {name: np.zeros(goal.size) for name in _BASELINES}
    for k, (train, test) in enumerate(folds):
        say(f"fold {k + 1} of {len(folds)}")
        table = Table(samples.inputs[train], np.log1p(goal[train]), samples.at(train).weight)
        said[:, test] = quantiles(boost(f"fold-{k}", _CELLS, table, _ROUNDS), samples.inputs[test])
        for name, values in _baselines(samples, goal, train, test, names, end_soh).items():
            others[name][test] = values
    low, middle, high = said
    miss = np.maximum(low - goal, goal - high) / np.maximum(high - low, 1.0)
    covered = np.zeros(goal.size, dtype=bool)
    for train, test in folds:
        margin = weighted_quantile(miss[train], samples.at(train).weight, COVERAGE)
        wider = margin * (high[test] - low[test])
        covered[test] = (low[test] - wider <= goal[test]) & (goal[test] <= high[test] + wider)
    real = samples.ended
    error = np.abs(middle - goal)[real]
    enough = goal[real] >= 0.1 * goal[real].mean()
    scores: dict[str, Any] = {
        "cells": int(cells.size),
        "ended": int(ended.sum()),
        "folds": len(folds),
        "end_soh": end_soh,
        "rul": {
            "unit": "cycles",
            "mae": float(error.mean()),
            "mape": float((error[enough] / goal[real][enough]).mean()),
            "interval90": {"coverage": float(covered[real].mean())},
            "baselines": {
                name: {"mae": float(np.abs(values[real] - goal[real]).mean())} for name, values in others.items()
            },
        },
    }
    whole = boost("cells", _CELLS, Table(samples.inputs, np.log1p(goal), samples.weight), _ROUNDS)
    return CellModel(whole, names, weighted_quantile(miss, samples.weight, COVERAGE), scores)


_BASELINES: Final = ("mean_life", "mean_residual_life", "linear_extrapolation", "elastic_net", "ols")


def _baselines(
    samples: Samples,
    goal: Floats,
    train: npt.NDArray[Any],
    test: npt.NDArray[Any],
    names: tuple[str, ...],
    end_soh: float,
) -> dict[str, Floats]:
    first = np.unique(samples.vehicle[train], return_index=True)[1]
    lives = np.sort((samples.efc + goal)[train][first])
    now = samples.efc[test]
    told = {
        "mean_life": np.maximum(lives.mean() - now, 0.0),
        "mean_residual_life": mean_residual_life(lives, now),
        "linear_extrapolation": np.clip(samples.inputs[test, names.index("straight")], 0.0, 2.0 * lives.max()),
    }
    for name, model in (("elastic_net", ElasticNetCV(l1_ratio=0.9, alphas=12, cv=4, tol=1e-3, max_iter=2000)),
                        ("ols", LinearRegression())):  # fmt: skip
        line = linear(model).fit(samples.inputs[train], goal[train])
        told[name] = np.maximum(line.predict(samples.inputs[test]), 0.0)
    return told


# --- Severson et al. 2019 ------------------------------------------------------------------------------------------

CURVES: Final = "severson2019_early_discharge.parquet"
LIVES: Final = "severson2019_cycle_life.csv"
PUBLISHED: Final = {"test1": 13.0, "test2": 8.6}
"""Mean absolute percentage error of their "discharge" model, Nature Energy 4, 383, table 1, from memory."""


@dataclass(frozen=True)
class EarlyRow:
    """How good a learner is on a part of the published split. `coverage` of 90 % intervals, NaN where it has none."""

    learner: str
    part: str
    cells: int
    rmse_cycles: float
    mape_percent: float
    coverage: float


def early_life(folder: Path, boost: Boost) -> list[EarlyRow]:
    """Cycle life from cycles 2 to 100: learned from the training cells only, leave-one-out within them."""
    curves = read_table(folder / CURVES, ("split", "cell", "cycle", "discharge_capacity_Ah"))
    lives = read_table(folder / LIVES, ("split", "cell", "cycle_life"))
    rows = [
        {"split": split, "cell": cell} | _early_features(of) for (split, cell), of in curves.groupby(["split", "cell"])
    ]
    table = pd.DataFrame(rows).merge(lives, on=["split", "cell"], validate="one_to_one")
    names = [name for name in table if name not in ("split", "cell", "cycle_life")]
    train = table[table["split"] == "train"]
    if len(train) < FEWEST_CELLS:
        raise DataError(f"{folder / CURVES}: expected cells of the split train, got {len(train)}")
    goal = np.log(train["cycle_life"].to_numpy(np.float64))
    told: list[EarlyRow] = []
    learners: dict[str, Callable[[pd.DataFrame, Floats, pd.DataFrame], Floats]] = {
        "elastic_net": lambda known, life, new: _elastic(known[names], life, new[names]),
        "variance_only": lambda known, life, new: linear(LinearRegression()).fit(known[["log_var"]], life).predict(
            new[["log_var"]]
        ),
        "xgboost": lambda known, life, new: _trees(known[names], life, new[names], boost),
    }  # fmt: skip
    for learner, predict in learners.items():
        left_out = np.array(
            [predict(train.drop(index=k), np.delete(goal, n), train.loc[[k]])[0] for n, k in enumerate(train.index)]
        )
        # Split-conformal with leave-one-out residuals (jackknife): the quantile that would have been enough.
        level = min(1.0, COVERAGE * (1.0 + 1.0 / len(train)))
        width = float(np.quantile(np.abs(left_out - goal), level))
        for part in ("test1", "test2"):
            test = table[table["split"] == part]
            said, life = predict(train, goal, test), test["cycle_life"].to_numpy(np.float64)
            error = np.exp(said) - life
            told.append(
                EarlyRow(
                    learner, part, len(test), float(np.sqrt(np.mean(error**2))),
                    float(100.0 * np.mean(np.abs(error) / life)), float(np.mean(np.abs(said - np.log(life)) <= width)),
                )
            )  # fmt: skip
    return told


def _early_features(of: pd.DataFrame) -> dict[str, float]:
    """Twelve numbers of a cell's discharge curves, after Severson's "discharge" model."""
    curves = np.array(of["discharge_capacity_Ah"].tolist(), dtype=np.float64)
    cycle = of["cycle"].to_numpy(np.float64)
    change = curves[np.argmin(np.abs(cycle - 100.0))] - curves[np.argmin(np.abs(cycle - 10.0))]
    apart, variance = change - change.mean(), change.var()
    capacity = curves.max(axis=1)
    whole, late = np.polyfit(cycle, capacity, 1), np.polyfit(cycle[-10:], capacity[-10:], 1)
    return {
        "log_var": float(np.log10(variance)),
        "log_min": float(np.log10(abs(change.min()))),
        "log_mean": float(np.log10(abs(change.mean()))),
        "log_skew": float(np.log10(abs((apart**3).mean()) / variance**1.5 + 1e-6)),
        "log_kurtosis": float(np.log10((apart**4).mean() / variance**2)),
        "capacity_2": float(capacity[0]),
        "capacity_gain": float(capacity.max() - capacity[0]),
        "capacity_100": float(capacity[-1]),
        "slope": float(1e3 * whole[0]),
        "intercept": float(whole[1]),
        "slope_late": float(1e3 * late[0]),
        "intercept_late": float(late[1]),
    }


def _elastic(known: pd.DataFrame, life: Floats, new: pd.DataFrame) -> Floats:
    model = ElasticNetCV(l1_ratio=[0.1, 0.5, 0.9, 1.0], alphas=50, cv=len(known), max_iter=100_000)
    return np.asarray(linear(model).fit(known, life).predict(new))


def _trees(known: pd.DataFrame, life: Floats, new: pd.DataFrame, boost: Boost) -> Floats:
    params = {"objective": "reg:squarederror", "max_depth": 3, "eta": 0.05, "subsample": 0.7, "colsample_bynode": 0.7,
              "seed": 1}  # fmt: skip
    table = Table(known.to_numpy(np.float32), life, np.ones(life.size))
    return np.asarray(boost("early", params, table, _ROUNDS).inplace_predict(new.to_numpy(np.float32)), np.float64)
