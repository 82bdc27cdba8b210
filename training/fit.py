"""Fits the models of a bundle to samples and calibrates them on vehicles that they have not seen.

Remaining life: quantiles by gradient boosting, widened or narrowed by conformal calibration (Romano, Patterson and
Candes 2019), by more for kinds of vehicles that are missed more. Censored lives are not dropped: an accelerated failure
time model of the same inputs says how they may go on, given that they have come so far, and their ends are drawn from
it once.

Failure: a boosted classifier, calibrated by isotonic regression. A second one says which kind comes first.

How a booster is trained is an argument: here, or by Ray Train (`distributed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from models.bundle import quantiles
from training.labels import KINDS
from training.samples import Samples

Floats = npt.NDArray[np.float64]
Params = Mapping[str, Any]

COVERAGE: Final = 0.9
QUANTILES: Final = (0.05, 0.5, 0.95)
TARGETS: Final = ("efc", "days")
_TREES: Final = {"tree_method": "hist", "max_bin": 256, "eta": 0.06, "max_depth": 6, "subsample": 0.6,
                 "colsample_bynode": 0.5, "min_child_weight": 30, "seed": 1}  # fmt: skip
QUANTILE: Final = _TREES | {
    "objective": "reg:quantileerror", "quantile_alpha": list(QUANTILES), "eta": 0.08, "colsample_bynode": 0.8,
}  # fmt: skip
MARGIN: Final = _TREES | {"objective": "reg:quantileerror", "quantile_alpha": COVERAGE, "eta": 0.1, "max_depth": 3}
LEAF_VEHICLES: Final = 15
"""Vehicles that a leaf of the margin's trees has at least."""
SURVIVAL: Final = _TREES | {
    "objective": "survival:aft", "aft_loss_distribution": "normal", "aft_loss_distribution_scale": 1.0, "max_depth": 5,
}  # fmt: skip
FAILURE: Final = _TREES | {"objective": "binary:logistic", "max_depth": 4}
KIND: Final = _TREES | {"objective": "multi:softprob", "num_class": len(KINDS), "max_depth": 3, "min_child_weight": 5}
ROUNDS: Final = {"rul": 300, "margin": 60, "survival": 150, "failure": 200, "kind": 60}
_LONGEST: Final = 3.0
"""A life whose end was not seen is drawn at most so many times as long as it was seen."""
_SHORTEST: Final = 1.0
"""Remaining life below this counts as this, in cycles and days: its logarithm is taken."""


@dataclass(frozen=True)
class Table:
    """What a booster is trained on: inputs (n, features), label (n,), weight (n,); upper bounds for survival."""

    inputs: npt.NDArray[np.float32]
    label: npt.NDArray[Any]
    weight: Floats
    upper: Floats | None = None

    def matrix(self) -> xgb.DMatrix:
        """As XGBoost takes it."""
        if self.upper is None:
            return xgb.QuantileDMatrix(self.inputs, self.label, weight=self.weight)
        bounds = {"label_lower_bound": self.label, "label_upper_bound": self.upper}
        return xgb.DMatrix(self.inputs, weight=self.weight, **bounds)


class Boost(Protocol):
    """Trains a booster."""

    def __call__(self, name: str, params: Params, table: Table, rounds: int) -> xgb.Booster:
        """`name` says which one it is."""


def boost_here(threads: int = 1) -> Boost:
    """Train in this process."""

    def boost(name: str, params: Params, table: Table, rounds: int) -> xgb.Booster:
        return xgb.train(dict(params) | {"nthread": threads}, table.matrix(), rounds)

    return boost


@dataclass(frozen=True)
class Fitted:
    """Boosters by name, and what calibration found.

    margins  by target: what is added to the margins of intervals (`models.bundle.Manifest`)
    probability_map  raw score -> calibrated probability, piecewise linear, (x, y)
    censored  share of the training vehicles whose end was drawn
    """

    boosters: dict[str, xgb.Booster]
    margins: dict[str, float]
    probability_map: tuple[tuple[float, ...], tuple[float, ...]]
    censored: float


def fit(train: Samples, calibration: Samples, boost: Boost, *, seed: int = 1, say: Callable[[str], None]) -> Fitted:
    """Fit to the training vehicles, calibrate on the others."""
    boosters: dict[str, xgb.Booster] = {}
    margins: dict[str, float] = {}
    for target in TARGETS:
        say(f"remaining life in {target}: survival, then quantiles of {len(train.vehicle):,} rows")
        rul, margin, margins[target] = fit_life(train, calibration, target, boost, seed=seed)
        boosters |= {f"rul_{target}": rul, f"margin_{target}": margin}
    say("failure within a year, and its kind")
    known = train.at(train.fails >= 0)
    boosters["failure"] = boost("failure", FAILURE, Table(known.inputs, known.fails, known.weight), ROUNDS["failure"])
    failing = train.at((train.fails == 1) & (train.kind >= 0))
    boosters["kind"] = boost("kind", KIND, Table(failing.inputs, failing.kind, failing.weight), ROUNDS["kind"])
    held_known = calibration.at(calibration.fails >= 0)
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    score = boosters["failure"].inplace_predict(held_known.inputs)
    isotonic.fit(score, held_known.fails, sample_weight=held_known.weight)
    ends = train.ended[np.unique(train.vehicle, return_index=True)[1]]
    return Fitted(
        boosters,
        margins,
        (tuple(map(float, isotonic.X_thresholds_)), tuple(map(float, isotonic.y_thresholds_))),
        float(1.0 - ends.mean()),
    )


def fit_life(
    train: Samples, calibration: Samples, target: str, boost: Boost, *, seed: int = 1
) -> tuple[xgb.Booster, xgb.Booster, float]:
    """Quantiles of remaining life; the margin by which their interval is to be widened, relative to its width; and what
    is added to it, so that `COVERAGE` of the rows of vehicles not fitted to are covered, each vehicle counting the
    same (`models.bundle.life_of`)."""
    survival = None
    if not (train.ended.all() and calibration.ended.all()):
        survival = survival_of(train, target, boost)
    whole = completed(train, target, survival, seed)
    booster = boost(f"rul_{target}", QUANTILE, Table(train.inputs, np.log1p(whole), train.weight), ROUNDS["rul"])
    held = completed(calibration, target, survival, seed)
    low, _, high = quantiles(booster, calibration.inputs)
    miss = np.maximum(low - held, held - high) / (high - low)
    return booster, *_margin(calibration, miss, seed)


def _margin(calibration: Samples, miss: Floats, seed: int) -> tuple[xgb.Booster, float]:
    """How much is missed, by what kind of vehicle: few shallow trees, as calibration vehicles are few, and each leaf
    has several. What is added to them comes from halves of the vehicles that are each asked of the other's trees."""
    vehicles, of, rows = np.unique(calibration.vehicle, return_inverse=True, return_counts=True)
    params = MARGIN | {"min_child_weight": LEAF_VEHICLES * rows.mean(), "nthread": 1}

    def trees(which: npt.NDArray[np.bool_]) -> xgb.Booster:
        matrix = xgb.QuantileDMatrix(calibration.inputs[which], miss[which], weight=calibration.weight[which])
        return xgb.train(params, matrix, ROUNDS["margin"])

    half = (np.random.default_rng([seed, 11]).permutation(vehicles.size) % 2 == 0)[of]
    expected = np.empty(miss.size)
    for one in (half, ~half):
        expected[~one] = trees(one).inplace_predict(calibration.inputs[~one])
    offset = weighted_quantile(miss - expected, calibration.weight, COVERAGE)
    return trees(np.ones(miss.size, dtype=np.bool_)), offset


@dataclass(frozen=True)
class Survival:
    """How long lives last: log life is normal about the booster's answer plus `shift`, with deviation `spread`."""

    booster: xgb.Booster
    shift: float
    spread: float

    def centre(self, inputs: npt.NDArray[np.float32]) -> Floats:
        """The mean of log life, shape (n,)."""
        said = np.asarray(self.booster.inplace_predict(inputs), dtype=np.float64)
        return np.asarray(np.log(np.maximum(said, 1e-3)) + self.shift)


def survival_of(samples: Samples, target: str, boost: Boost) -> Survival:
    """Fit remaining life to samples of which some are censored."""
    seen = np.maximum(getattr(samples, f"rul_{target}"), _SHORTEST)
    upper = np.where(samples.ended, seen, np.inf)
    name = f"survival_{target}"
    start = {"base_score": float(np.median(seen))}  # or it takes hundreds of rounds to come near
    booster = boost(name, SURVIVAL | start, Table(samples.inputs, seen, samples.weight, upper), ROUNDS["survival"])
    centre = Survival(booster, 0.0, 1.0).centre(samples.inputs)
    # The logarithm of a life that is nearly over scatters more: the spread is that of rows like those to be completed.
    alike = centre >= np.quantile(centre[_last(samples)], 0.2) if not samples.ended.all() else centre > -np.inf
    apart, ended, weight = (np.log(seen) - centre)[alike], samples.ended[alike], samples.weight[alike]

    def unlikely(shift_and_log_spread: Floats) -> float:
        shift, spread = shift_and_log_spread[0], np.exp(shift_and_log_spread[1])
        z = (apart - shift) / spread
        likely = np.where(ended, norm.logpdf(z) - np.log(spread), norm.logsf(z))
        return -float(np.average(likely, weights=weight))

    found = minimize(unlikely, np.array([0.0, np.log(0.3)]), method="Nelder-Mead")
    return Survival(booster, float(found.x[0]), float(np.exp(found.x[1])))


def _last(samples: Samples) -> npt.NDArray[np.int64]:
    """The last row of each vehicle whose end was not seen."""
    last = np.append(np.flatnonzero(np.diff(samples.vehicle)), samples.vehicle.size - 1)
    return np.asarray(last[~samples.ended[last]])


def completed(samples: Samples, target: str, survival: Survival | None, seed: int) -> Floats:
    """Remaining life of each row; where the end was not seen it is drawn, once a vehicle, beyond what was seen."""
    seen = np.asarray(getattr(samples, f"rul_{target}"))
    if samples.ended.all() or survival is None:
        return seen
    last = _last(samples)
    centre = survival.centre(samples.inputs[last])
    passed = (np.log(np.maximum(seen[last], _SHORTEST)) - centre) / survival.spread
    chance = np.random.default_rng([seed, 7]).random(last.size)
    further = norm.isf(chance * np.maximum(norm.sf(passed), 1e-12))  # of a normal, given that it is beyond `passed`
    lived = (samples.efc if target == "efc" else samples.day)[last] + seen[last]
    drawn = np.minimum(np.exp(centre + survival.spread * further), seen[last] + (_LONGEST - 1.0) * lived)
    more = dict(zip(samples.vehicle[last], drawn - seen[last], strict=True))
    return seen + np.asarray([max(more.get(vehicle, 0.0), 0.0) for vehicle in samples.vehicle])


def weighted_quantile(values: Floats, weight: Floats, level: float) -> float:
    """The smallest value below which `level` of the weight lies."""
    order = np.argsort(values)
    below = np.cumsum(weight[order])
    return float(values[order][min(np.searchsorted(below, level * below[-1]), values.size - 1)])
