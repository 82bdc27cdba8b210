"""Makes the bundled model: `make model`. Prints its scores beside the baselines and writes them into the card.

Vehicles, not rows, are split: train, calibration (conformal margin, probability map) and test share no vehicle. The
test vehicles are used only once, for the card.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from models.bundle import BUNDLED, Bundle, Manifest
from models.features import FEATURES
from physics import physics_version
from physics.default_fleet import CELL_SHARES
from training.lives import END_OF_LIFE_SOH, HORIZON_DAYS, Lives, live

VERSION = "2.0.0"
SEED, VEHICLES, YEARS = 20261124, 640, 30
COVERAGE = 0.9
QUANTILES = (0.05, 0.5, 0.95)
_ROUNDS = 250
_PARAMS = {"max_depth": 5, "eta": 0.08, "subsample": 0.7, "min_child_weight": 20, "nthread": 1, "seed": 1}
# More capacity left never means less life left, all else equal.
_MONOTONE_RUL = "(0,1,0,0,0,0,0)"
_MONOTONE_FAILURE = "(0,-1,0,0,0,0,0)"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """Rows of three groups that share no vehicle."""

    train: pd.DataFrame
    calibration: pd.DataFrame
    test: pd.DataFrame


def split_by_vehicle(rows: pd.DataFrame, seed: int = SEED) -> Split:
    """60 / 20 / 20 % of the vehicles."""
    vehicles = np.random.default_rng(seed).permutation(rows["vehicle"].unique())
    first, second = int(0.6 * len(vehicles)), int(0.8 * len(vehicles))
    groups = (vehicles[:first], vehicles[first:second], vehicles[second:])
    return Split(*(rows[rows["vehicle"].isin(group)].reset_index(drop=True) for group in groups))


def inputs(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """The seven inputs, shape (n, 7)."""
    return rows[list(FEATURES)].to_numpy(np.float32)


def fit(split: Split) -> tuple[Manifest, xgb.Booster, xgb.Booster]:
    """Fit the boosters to the training vehicles and calibrate them on the calibration vehicles."""
    data = xgb.QuantileDMatrix(inputs(split.train), split.train["rul_EFC"])
    rul = xgb.train(
        _PARAMS
        | {"objective": "reg:quantileerror", "quantile_alpha": list(QUANTILES), "monotone_constraints": _MONOTONE_RUL},
        data,
        _ROUNDS,
    )
    data = xgb.QuantileDMatrix(inputs(split.train), split.train["fails"])
    failure = xgb.train(
        _PARAMS | {"objective": "binary:logistic", "monotone_constraints": _MONOTONE_FAILURE}, data, _ROUNDS
    )
    held = inputs(split.calibration)
    low, _, high = np.sort(rul.inplace_predict(held), axis=1).T
    truth = split.calibration["rul_EFC"].to_numpy()
    # Conformalised quantile regression (Romano, Patterson and Candes 2019): the margin that would have been enough.
    miss = np.maximum(low - truth, truth - high)
    margin = float(np.quantile(miss, min(1.0, COVERAGE * (1 + 1 / len(miss)))))
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    isotonic.fit(failure.inplace_predict(held), split.calibration["fails"])
    manifest = Manifest(
        name="fleet-lives-seven-inputs",
        version=VERSION,
        features=FEATURES,
        quantiles=QUANTILES,
        rul_margin=margin,
        coverage=COVERAGE,
        probability_map=(
            tuple(map(float, isotonic.X_thresholds_)),
            tuple(map(float, isotonic.y_thresholds_)),
        ),
        horizon_days=HORIZON_DAYS,
        end_of_life_soh=END_OF_LIFE_SOH,
        sha256={},
    )
    return manifest, rul, failure


def baselines(train: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Floats]:
    """RUL [EFC] without a model: the mean life, and the fade extrapolated in EFC, as a line and as a square root."""
    lives = train.groupby("vehicle").apply(lambda life: (life["rul_EFC"] + life["Charge_Cycles"]).iloc[0])
    efc, lost = rows["Charge_Cycles"].to_numpy(), np.maximum(1e-4, 1 - rows["SoH"].to_numpy())
    allowed = 1 - END_OF_LIFE_SOH
    longest = float(lives.max())
    return {
        "mean life of the training vehicles": np.maximum(0, lives.mean() - efc),
        "linear extrapolation of the fade": np.clip(efc * (allowed / lost - 1), 0, longest),
        "square-root extrapolation of the fade": np.clip(efc * ((allowed / lost) ** 2 - 1), 0, longest),
    }


def score(bundle: Bundle, split: Split) -> dict[str, Any]:
    """All that the card reports, on the test vehicles."""
    test = split.test
    truth = test["rul_EFC"].to_numpy()
    answer = bundle.predict(inputs(test))
    inside = (answer.rul_low <= truth) & (truth <= answer.rul_high)
    by_vehicle = pd.Series(inside).groupby(test["vehicle"]).mean()
    fails = test["fails"].to_numpy()
    base_rate = float(split.train["fails"].mean())
    total = ((truth - truth.mean()) ** 2).sum()
    rul = {"this model (median)": answer.rul} | baselines(split.train, test)
    return {
        "rul": {
            name: {
                "mae": float(np.abs(predicted - truth).mean()),
                "rmse": float(np.sqrt(((predicted - truth) ** 2).mean())),
                "r2": float(1 - ((predicted - truth) ** 2).sum() / total),
            }
            for name, predicted in rul.items()
        },
        "coverage": float(inside.mean()),
        "coverage_worst_tenth": float(by_vehicle.quantile(0.1)),
        "width": float((answer.rul_high - answer.rul_low).mean()),
        "failure": {
            "auc": float(roc_auc_score(fails, answer.failure_probability)),
            "average_precision": float(average_precision_score(fails, answer.failure_probability)),
            "brier": float(brier_score_loss(fails, answer.failure_probability)),
            "brier_base_rate": float(brier_score_loss(fails, np.full(len(fails), base_rate))),
            "base_rate": float(fails.mean()),
        },
    }


def card(lives: Lives, split: Split, scores: dict[str, Any], seconds: float) -> str:
    """The model card, with the numbers of this fit."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined)
    environment.keep_trailing_newline = True
    return environment.get_template("card.md.jinja").render(
        scores,
        version=VERSION,
        features=", ".join(FEATURES),
        end_of_life=END_OF_LIFE_SOH,
        asked=COVERAGE,
        horizon=HORIZON_DAYS,
        vehicles=VEHICLES,
        seed=SEED,
        cells=CELL_SHARES,
        lives=lives,
        groups={name: (rows["vehicle"].nunique(), len(rows)) for name, rows in vars(split).items()},
        truth=(split.test["rul_EFC"].min(), split.test["rul_EFC"].max()),
        physics=physics_version(),
        seconds=seconds,
    )


def main() -> None:
    """Simulate, fit, score, write the bundle."""
    begun = time.perf_counter()
    lives = live(VEHICLES, seed=SEED, years=YEARS)
    split = split_by_vehicle(lives.rows)
    manifest, rul, failure = fit(split)
    # Scores come from the bundle as it is loaded, not from what is still in memory.
    Bundle.save(BUNDLED, manifest, rul, failure, "")
    scores = score(Bundle.load(BUNDLED), split)
    text = card(lives, split, scores, time.perf_counter() - begun)
    Bundle.save(BUNDLED, manifest, rul, failure, text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
