"""How a model's figures hold when other vehicles are the ones it never saw: many splits, cohorts left out, lives cut.

Each vehicle is scored once, by a fit that knows nothing of it (cross-validation by vehicle, each cohort dealt over all
parts). So a use of one vehicle in twenty has all its vehicles in the figure, and not the few of one test part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.bundle import Life, life_of
from physics.climate import CITIES
from training.evaluate import FEWEST, bootstrapped, life_scores, mean_residual_life, whole_lives
from training.fit import Boost, fit_life
from training.histories import Histories, HistoryError
from training.labels import END_SOH, label
from training.samples import Samples, assemble, true_efc

Floats = npt.NDArray[np.float64]
Vehicles = npt.NDArray[np.int64]

FOLDS: Final = 10
CALIBRATION_FOLDS: Final = 2
CUT_YEARS: Final = 30.0
"""What is left of lives that were looked at for so long only."""
LFP: Final = "prada2013"


def crossed(
    histories: Histories,
    boost: Boost,
    *,
    target: str = "efc",
    folds: int = FOLDS,
    end_soh: float = END_SOH,
    seed: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Scores by split and of all vehicles together; of cohorts left out; of data that ends after `CUT_YEARS`."""
    labels = label(histories, end_soh)
    parts = _dealt(labels, folds, seed)
    world = _World(
        assemble(histories, labels, shortened=seed), assemble(histories, labels), labels, target, boost, seed
    )
    asked = world.asked
    life = Life(*(np.full(asked.vehicle.size, np.nan) for _ in range(3)))
    splits = []
    for k, part in enumerate(parts):
        say(f"split {k + 1} of {folds}: {part.size} vehicles not seen")
        test, said, train = world.tried(_without(parts, k), part)
        for name, values in vars(said).items():
            getattr(life, name)[np.isin(asked.vehicle, part)] = values
        truth = world.truth(test)
        lives = whole_lives(train, target, boost, seed)[1]
        error = np.abs(said.median - truth)
        splits.append(
            {
                "coverage": float(((said.low <= truth) & (truth <= said.high)).mean()),
                "mae": float(error.mean()),
                "mean_residual_life": float(np.abs(mean_residual_life(lives, world.passed(test)) - truth).mean()),
            }
        )
    return {
        "target": target,
        "data": {"hash": histories.hash(), "physics": histories.physics, "vehicles": len(labels)},
        "splits": splits,
        "all": life_scores(life, asked, target, labels),
        "tested": {
            name: labels.loc[np.unique(asked.vehicle), name].value_counts().sort_index().to_dict()
            for name in ("cell", "use")
        },
        "left_out": _left_out(world, life, say),
        "cut": _cut(world, histories, parts, say),
    }


@dataclass(frozen=True)
class _World:
    """Rows to learn from, some with a shortened past, the same rows whole, and what is fitted to them."""

    learned: Samples
    whole: Samples
    labels: pd.DataFrame
    target: str
    boost: Boost
    seed: int

    @cached_property
    def asked(self) -> Samples:
        """The rows that are scored: of lives whose end was seen."""
        return self.whole.at(self.whole.ended)

    def truth(self, samples: Samples) -> Floats:
        """Remaining life."""
        return np.asarray(getattr(samples, f"rul_{self.target}"))

    def passed(self, samples: Samples) -> Floats:
        """Life that has passed."""
        return samples.efc if self.target == "efc" else samples.day

    def tried(self, others: tuple[Vehicles, Vehicles], part: Vehicles) -> tuple[Samples, Life, Samples]:
        """Fit to the first of `others`, calibrate on the second: the rows of `part`, what is said of them, and the rows
        that were fitted to."""
        train, calibration = self.learned.of(others[0]), self.whole.of(others[1])
        test = self.asked.of(part)
        return test, self.said(train, calibration, test), train

    def said(self, train: Samples, calibration: Samples, test: Samples) -> Life:
        """What a fit says of the rows of `test`."""
        return life_of(*fit_life(train, calibration, self.target, self.boost, seed=self.seed), test.inputs)


def _dealt(labels: pd.DataFrame, folds: int, seed: int) -> list[Vehicles]:
    """The vehicles in so many parts, each cohort dealt over all of them."""
    if folds < CALIBRATION_FOLDS + 2 or len(labels) < 5 * folds:
        raise HistoryError(
            f"expected at least {CALIBRATION_FOLDS + 2} splits and five vehicles for each, got {folds} splits of "
            f"{len(labels)} vehicles"
        )
    generator = np.random.default_rng(seed)
    order = np.concatenate(
        [generator.permutation(of.index.to_numpy()) for _, of in labels.groupby("cohort", sort=True)]
    )
    return [np.sort(order[k::folds]) for k in range(folds)]


def _without(parts: list[Vehicles], k: int) -> tuple[Vehicles, Vehicles]:
    """(train, calibration) of the other parts: calibration has the next ones."""
    others = [parts[(k + 1 + n) % len(parts)] for n in range(len(parts) - 1)]
    return np.concatenate(others[CALIBRATION_FOLDS:]), np.concatenate(others[:CALIBRATION_FOLDS])


def _left_out(world: _World, life: Life, say: Callable[[str], None]) -> dict[str, Any]:
    """Cohorts that no fit has seen, beside the same vehicles where others of their cohort were seen."""
    labels, asked = world.labels, world.asked
    hottest = max(CITIES, key=lambda city: sum(city.daily_max_C)).name
    cohorts = {
        f"cell {LFP}": labels["cell"] == LFP, "taxis": labels["use"] == "taxi", hottest: labels["city"] == hottest,
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, inside in cohorts.items():
        part, rest = (labels.index[which].to_numpy() for which in (inside, ~inside))
        rows = np.isin(asked.vehicle, part)
        if np.unique(asked.vehicle[rows]).size < FEWEST:
            found[name] = {"vehicles": int(part.size), "note": "too few reached their end to be scored"}
            continue
        say(f"{name}: {part.size} vehicles left out")
        calibration = np.random.default_rng(world.seed).permutation(rest)[: rest.size // 5]
        test, said, _ = world.tried((np.setdiff1d(rest, calibration), calibration), part)
        truth = world.truth(test)
        error, seen = np.abs(said.median - truth), np.abs(life.median[rows] - truth)
        found[name] = {
            "vehicles": int(part.size),
            "mae": float(error.mean()),
            "mae_seen": float(seen.mean()),
            "ratio": float(error.mean() / seen.mean()),
            "ratio_range": bootstrapped(error, test.vehicle, seen),
            "coverage": float(((said.low <= truth) & (truth <= said.high)).mean()),
        }
    return found


def _cut(world: _World, histories: Histories, parts: list[Vehicles], say: Callable[[str], None]) -> dict[str, Any]:
    """Bias of the median where vehicles were only looked at for `CUT_YEARS`: their lives kept as censored, those that
    had not ended dropped, and as it is with all that is known. Scored on rows of those years, of lives that ended."""
    limit = CUT_YEARS * 365.2425
    (train_of, calibration_of), test = _without(parts, 0), world.asked.of(parts[0])
    test = test.at(test.day < limit)
    truth = world.truth(test)
    found: dict[str, Any] = {"years": CUT_YEARS, "mean": float(truth.mean())}
    learned, whole = (looked_at(samples, histories, limit) for samples in (world.learned, world.whole))
    found["censored"] = float(1.0 - learned.ended[np.unique(learned.vehicle, return_index=True)[1]].mean())
    for name, train, calibration in (
        ("kept", learned, whole),
        ("dropped", learned.at(learned.ended), whole.at(whole.ended)),
        ("known", world.learned, world.whole),
    ):
        say(f"data of {CUT_YEARS:g} years: {name}")
        error = world.said(train.of(train_of), calibration.of(calibration_of), test).median - truth
        found[name] = {
            "bias": float(error.mean() / truth.mean()),
            "bias_range": [side / float(truth.mean()) for side in bootstrapped(error, test.vehicle)],
        }
    return found


def looked_at(samples: Samples, histories: Histories, limit: float) -> Samples:
    """What is known of these rows on day `limit` of each life: later rows are not there, later ends not seen."""
    samples = samples.at(samples.day < limit)
    later = samples.day + samples.rul_days > limit
    at_limit = true_efc(histories, samples.vehicle, np.full(samples.vehicle.size, limit))
    return replace(
        samples,
        ended=samples.ended & ~later,
        rul_days=np.where(later, limit - samples.day, samples.rul_days),
        rul_efc=np.where(later, np.maximum(at_limit - samples.efc, 0.0), samples.rul_efc),
    )
