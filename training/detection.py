"""How soon a fault can be told from what a vehicle reports, month by month: each kind, on vehicles never seen.

The histories are to have many faults (`twin generate --enrich faults`). Trees learn from the windowed features whether
any fault acts; the vehicles are in folds, and each is judged by trees that have not seen it. An alarm is two months in
a row above a threshold, which is set on the other half of the vehicles so that a sound vehicle gives a false one in
`YEARS_AN_ALARM` years. What that is worth is counted at the rates at which faults come in the field, not in the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from datasets.months import known_month, known_s
from models.features import WINDOWED, windows_of
from physics.constants import DAY_S, YEAR_S
from physics.faults import KINDS
from training.fit import FAILURE, Boost, Table
from training.histories import START_S, Histories, HistoryError

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FOLDS: Final = 5
YEARS_AN_ALARM: Final = 300.0
"""In which a sound vehicle gives one false alarm. Faults come once in 185 years: of 20, 100, 300 and 1,000 years this
was the cheapest on 512 vehicles."""
FEWEST: Final = 5
"""Vehicles with a kind of fault that it needs, to have a figure."""
MISSED_COSTS: Final = 20.0
"""Inspections that a fault costs that is not found within a year. Assumed: it ends on the road."""
_ROUNDS: Final = 150
_MONTHS_A_YEAR: Final = 365.2425 / 30.0
_A_YEAR: Final = 12
"""Months, within which a fault is to be found."""


@dataclass(frozen=True)
class Watched:
    """A row a vehicle and month, ordered by both, shape (n,). `since`: months since the onset of each kind, shape (n,
    kinds), NaN where it does not act. `codes`: whether the BMS has set a trouble code in the last 12 months."""

    vehicle: npt.NDArray[np.int64]
    month: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.float32]
    since: Floats
    codes: Flags

    @property
    def faulty(self) -> Flags:
        """Whether any fault acts."""
        return np.isfinite(self.since).any(axis=1)


def watch(histories: Histories) -> Watched:
    """The months of all vehicles, from the third on."""
    months, lives = histories.read("reported/months"), histories.read("truth/lives").set_index("vehicle")
    first = int(known_month(START_S)) + 1
    rows = months[months["month"] >= first + 2].sort_values(["vehicle", "month"], kind="stable")
    vehicle, month = rows["vehicle"].to_numpy(), rows["month"].to_numpy(np.int64)
    time_s = known_s(month)
    age_years = (time_s - START_S) / YEAR_S
    inputs = windows_of(months, vehicle, time_s, age_years).astype(np.float32)
    since = np.full((len(rows), len(KINDS)), np.nan)
    names = [kind.name for kind in KINDS]
    for of, faults in zip(lives.index.to_numpy(), lives["faults"], strict=True):
        here = slice(*np.searchsorted(vehicle, [of, of + 1]))
        for name, onset_s, _ in json.loads(faults):
            begun = max(float(onset_s), float(START_S))
            passed = (time_s[here] - begun) / (30.0 * DAY_S)
            since[here, names.index(name)] = np.where(passed >= 0.0, passed, np.nan)
    code = [WINDOWED.index(name) for name in WINDOWED if name.startswith("code_")]
    return Watched(vehicle, month, inputs, since, (inputs[:, code] > 0.0).any(axis=1))


def detection(
    histories: Histories, boost: Boost, *, seed: int = 1, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """What is found of each kind of fault, how soon, and what false alarms that costs; beside the BMS's own codes."""
    seen = watch(histories)
    vehicles = np.unique(seen.vehicle)
    ever = {kind.name: _vehicles_with(seen, k) for k, kind in enumerate(KINDS)}
    if not any(of.size >= FEWEST for of in ever.values()) or vehicles.size < 10 * FOLDS:
        raise HistoryError(
            f"expected at least {10 * FOLDS} vehicles, and {FEWEST} with some kind of fault, got {vehicles.size} and "
            f"{max(of.size for of in ever.values())}: twin generate --enrich faults"
        )
    order = np.random.default_rng(seed).permutation(vehicles)
    fold = np.empty(vehicles.size, dtype=np.int64)
    fold[np.searchsorted(vehicles, order)] = np.arange(vehicles.size) % FOLDS
    of_row = fold[np.searchsorted(vehicles, seen.vehicle)]
    score = np.empty(seen.vehicle.size)
    for k in range(FOLDS):
        say(f"fold {k + 1} of {FOLDS}")
        here = of_row != k
        table = Table(seen.inputs[here], seen.faulty[here].astype(np.float64), np.ones(int(here.sum())))
        score[~here] = boost("faults", FAILURE, table, _ROUNDS).inplace_predict(seen.inputs[~here])
    half = (np.argsort(np.argsort(order)) % 2 == 0)[np.searchsorted(vehicles, seen.vehicle)]
    threshold = np.where(half, _threshold(seen, score, ~half), _threshold(seen, score, half))
    facts: dict[str, Any] = {
        "vehicles": int(vehicles.size),
        "sound_vehicle_years": float((~seen.faulty).sum() / _MONTHS_A_YEAR),
        "missed_costs": MISSED_COSTS,
    }
    for name, above, ranked in (("trees", score >= threshold, score), ("codes", seen.codes, seen.codes.astype(float))):
        facts[name] = _judged(seen, above, ranked, ever)
    return facts


def _vehicles_with(seen: Watched, kind: int) -> npt.NDArray[np.int64]:
    return np.unique(seen.vehicle[np.isfinite(seen.since[:, kind])])


def _threshold(seen: Watched, score: Floats, rows: Flags) -> float:
    """The lowest score at which sound vehicles give one false alarm in `YEARS_AN_ALARM` years at most."""
    candidates = np.quantile(score[rows & ~seen.faulty], np.linspace(0.5, 1.0, 400))
    allowed = (rows & ~seen.faulty).sum() / _MONTHS_A_YEAR / YEARS_AN_ALARM
    low, high = 0, candidates.size - 1
    while low < high:
        middle = (low + high) // 2
        if (_alarms(seen, score >= candidates[middle]) & rows & ~seen.faulty).sum() <= allowed:
            high = middle
        else:
            low = middle + 1
    return float(candidates[low])


def _alarms(seen: Watched, above: Flags) -> Flags:
    """Where an alarm begins: the second month above in a row."""
    same = np.append(False, seen.vehicle[1:] == seen.vehicle[:-1])
    twice = above & np.append(False, above[:-1]) & same
    return np.asarray(twice & ~(np.append(False, twice[:-1]) & same))


def _judged(seen: Watched, above: Flags, ranked: Floats, ever: dict[str, npt.NDArray[np.int64]]) -> dict[str, Any]:
    sound, begins = ~seen.faulty, _alarms(seen, above)
    same = np.append(False, seen.vehicle[1:] == seen.vehicle[:-1])
    rings = above & np.append(False, above[:-1]) & same
    false_a_year = float((begins & sound).sum() / (sound.sum() / _MONTHS_A_YEAR))
    kinds: dict[str, Any] = {}
    found_a_year = missed_a_year = 0.0
    for k, kind in enumerate(KINDS):
        acts = np.isfinite(seen.since[:, k])
        if ever[kind.name].size < FEWEST:
            continue
        rows = pd.DataFrame({"vehicle": seen.vehicle, "since": seen.since[:, k], "rings": rings})[acts]
        watched = rows.groupby("vehicle")["since"].max() >= _A_YEAR
        when = rows[rows["rings"]].groupby("vehicle")["since"].min().reindex(watched.index)
        soon = (when <= _A_YEAR)[watched]
        share = float(soon.mean()) if len(soon) else float("nan")
        kinds[kind.name] = {
            "vehicles": int(ever[kind.name].size),
            "auroc": float(roc_auc_score(np.append(np.ones(acts.sum()), np.zeros(sound.sum())),
                                         np.append(ranked[acts], ranked[sound]))),
            "within_a_year": share if len(soon) else None,
            "delay_days": float(when[when.notna()].median() * 30.0) if when.notna().any() else None,
        }  # fmt: skip
        if len(soon):
            found_a_year += kind.rate * share
            missed_a_year += kind.rate * (1.0 - share)
    return {
        "false_alarms_a_year": false_a_year,
        "kinds": kinds,
        "at_field_rates": {
            "faults_a_year": found_a_year + missed_a_year,
            "found_a_year": found_a_year,
            "right_of_alarms": found_a_year / (found_a_year + false_a_year) if found_a_year + false_a_year else None,
            "inspections_a_year": found_a_year + false_a_year + MISSED_COSTS * missed_a_year,
            "inspections_without": MISSED_COSTS * (found_a_year + missed_a_year),
        },
    }
