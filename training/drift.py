"""Whether vehicles have become others than those a model learned from, and whether its intervals still hold.

Inputs change with age, with the hour and with the season, and that is no drift. So an input is compared with what the
training vehicles told at the same value of another one: the reported SoH at as many cycles, the voltage at as much
charge. The reference holds deciles of the one along the other; rows fall between them, and the shares are compared by
the population stability index,

    PSI = sum (live - reference) ln(live / reference)

Above 0.25 a population counts as another one (Lewis 1994; Siddiqi 2006, Credit Risk Scorecards). Of few vehicles it is
large by chance: it must also exceed what vehicles of one population reach once in a hundred times, by its
asymptotic chi-square distribution (Yurdakul and Naranjo 2020, J. Risk Model Validation 14, 89). Rows of a vehicle are
alike, so vehicles are counted and not rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from training.samples import Samples

Floats = npt.NDArray[np.float64]

COMPARED: Final[dict[str, str]] = {"SoH": "Charge_Cycles", "Battery_Voltage": "SoC", "Battery_Temperature": ""}
"""Input -> the one along which it is compared; "" for as it is."""
SEASONAL: Final = ("Battery_Temperature",)
YEAR_DAYS: Final = 360.0
"""Seasonal inputs are compared once this much time has passed."""
PSI_ALARM: Final = 0.25
COVERAGE_ALARM: Final = 0.83
FEWEST_VEHICLES: Final = 20
"""That either alarm needs."""
_KNOTS: Final = 21
_LEVELS: Final = np.arange(1, 10) / 10.0
_CHANCE: Final = 0.01


@dataclass(frozen=True)
class Drift:
    """One input. `psi` is None where it cannot be told; `note` says why. `limit`: above it rings."""

    name: str
    psi: float | None
    limit: float
    vehicles: int
    outside: float
    note: str = ""

    @property
    def rings(self) -> bool:
        """Whether the vehicles are others."""
        return self.psi is not None and self.psi > self.limit

    def __str__(self) -> str:
        if self.psi is None:
            return f"{self.name} {self.note}"
        return f"{self.name} PSI {self.psi:.2f} (limit {self.limit:.2f}, {self.vehicles} vehicles)"


@dataclass(frozen=True)
class Coverage:
    """Share of decided predictions whose interval held the end, each vehicle counting the same. None: not yet told."""

    share: float | None
    vehicles: int
    ended: int
    predictions: int

    @property
    def rings(self) -> bool:
        """Whether the intervals hold too seldom."""
        return self.share is not None and self.vehicles >= FEWEST_VEHICLES and self.share < COVERAGE_ALARM

    def __str__(self) -> str:
        if self.share is None:
            return f"coverage cannot be told yet ({self.ended} vehicles at their end of life, no prediction decided)"
        said = f"90 % intervals held {self.share:.1%} of {self.predictions:,} predictions of {self.vehicles} vehicles"
        return said if self.vehicles >= FEWEST_VEHICLES else f"{said} (too few, {FEWEST_VEHICLES} are needed)"


def reference_of(train: Samples, end_soh: float) -> dict[str, Any]:
    """What goes with a bundle: for each input deciles along another, and the shares of the rows between them. Of rows
    that report at least the SoH at which a life ends: so are those that are compared."""
    train = train.at(train.column("SoH") >= end_soh)
    inputs: dict[str, Any] = {}
    for name, along in COMPARED.items():
        values, weight = train.column(name), train.weight
        at = train.column(along) if along else np.zeros(values.size)
        knots = np.unique(np.quantile(at, np.linspace(0.0, 1.0, _KNOTS)))
        deciles = []
        for k, _ in enumerate(knots):
            low, high = knots[max(k - 1, 0)], knots[min(k + 1, knots.size - 1)]
            near = (at >= low) & (at <= high)
            deciles.append([float(value) for value in np.quantile(values[near], _LEVELS)])
        entry = {"along": along, "knots": [float(knot) for knot in knots], "deciles": deciles}
        bins = _bins(values, at, entry)
        shares = np.bincount(bins, weight, minlength=_LEVELS.size + 1) / weight.sum()
        inputs[name] = entry | {"shares": [float(share) for share in shares]}
    return {"vehicles": int(np.unique(train.vehicle).size), "inputs": inputs}


def drift(reference: Mapping[str, Any], rows: pd.DataFrame, days: float) -> list[Drift]:
    """Compare what vehicles told with a bundle's reference.

    rows  `vehicle`, and the inputs by the names of FEATURES: some moments of each vehicle
    days  that they are from
    """
    return [
        _seasonal(name, len(np.unique(rows["vehicle"]))) if name in SEASONAL and days < YEAR_DAYS
        else _compared(name, entry, rows, int(reference["vehicles"]))
        for name, entry in reference.get("inputs", {}).items()
    ]  # fmt: skip


def _seasonal(name: str, vehicles: int) -> Drift:
    return Drift(name, None, PSI_ALARM, vehicles, 0.0, "is compared once a year has passed")


def _compared(name: str, entry: Mapping[str, Any], rows: pd.DataFrame, known: int) -> Drift:
    values = rows[name].to_numpy(np.float64)
    at = rows[entry["along"]].to_numpy(np.float64) if entry["along"] else np.zeros(values.size)
    within = (at >= entry["knots"][0]) & (at <= entry["knots"][-1]) & np.isfinite(values)
    outside = float(1.0 - within.mean()) if within.size else 0.0
    vehicle = rows["vehicle"].to_numpy()[within]
    _, of, count = np.unique(vehicle, return_inverse=True, return_counts=True)
    if count.size < FEWEST_VEHICLES:
        return Drift(name, None, PSI_ALARM, count.size, outside, f"needs {FEWEST_VEHICLES} vehicles, got {count.size}")
    weight = 1.0 / count[of]
    shares = np.bincount(_bins(values[within], at[within], entry), weight, minlength=_LEVELS.size + 1) / count.size
    by_chance = float(chi2.isf(_CHANCE, _LEVELS.size)) * (1.0 / count.size + 1.0 / known)
    psi = stability(shares, np.array(entry["shares"]), count.size, known)
    return Drift(name, psi, max(PSI_ALARM, by_chance), count.size, outside)


def stability(live: Floats, expected: Floats, vehicles: int, known: int) -> float:
    """The population stability index of two sets of shares. An empty bin counts as half a vehicle."""
    a = (live * vehicles + 0.5) / (vehicles + 0.5 * live.size)
    b = (expected * known + 0.5) / (known + 0.5 * expected.size)
    return float(((a - b) * np.log(a / b)).sum())


def _bins(values: Floats, at: Floats, entry: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Between which deciles each value lies, 0 to 9."""
    columns = np.array(entry["deciles"]).T
    edges = np.column_stack([np.interp(at, entry["knots"], column) for column in columns])
    return np.asarray((values[:, None] > edges).sum(axis=1), dtype=np.int64)


def coverage(predictions: pd.DataFrame, ended: int) -> Coverage:
    """Whether intervals held, of the predictions that are decided.

    Looking only at vehicles that have ended would count the short lives among equals, and find too few covered. A
    prediction is decided once the vehicle has been seen, worn or not, for as many cycles as the upper end of its
    interval: this does not depend on when it ended.

    predictions  `vehicle`, `rul_low`, `rul_high`, `left`: cycles to its end of life, NaN where it has not come to it;
                 `seen`: cycles to the last record. Made before the end of life.
    """
    decided = predictions[predictions["seen"] >= predictions["rul_high"]]
    if decided.empty:
        return Coverage(None, 0, ended, 0)
    held = (decided["rul_low"] <= decided["left"]) & (decided["left"] <= decided["rul_high"])  # NaN: outlived it
    by_vehicle = held.groupby(decided["vehicle"]).mean()
    return Coverage(float(by_vehicle.mean()), len(by_vehicle), ended, len(decided))
