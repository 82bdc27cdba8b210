"""What models read, one way for training and serving: a vehicle's newest record, its age, its last 24 months, and what
it has told since it began to report.

`FEATURES` are the seven inputs of the reference system, in its order, and then the `WINDOWED` ones. What is not known,
such as the past of a vehicle that has just begun to report, is NaN; the models were trained with such vehicles.

A BMS is off by a constant and wanders (docs/reports.md). Two years say little of a battery that fades by one percent a
year; the slope over all that was reported says three times more, and the first year tells the constant. So a `History`
keeps 24 months and, of all months, sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from datasets.months import MONTH_DAYS, NAMES, known_month, known_s
from datasets.schema import MODEL_INPUTS
from physics.columns import DIAGNOSTICS
from physics.constants import YEAR_S

Floats = npt.NDArray[np.float64]

WINDOW_MONTHS: Final = 24
_A_YEAR: Final = 365.2425 / MONTH_DAYS
_AT: Final = {name: k for k, name in enumerate(NAMES)}
_TRENDS: Final = (6, 12, 24)
_FEWEST: Final = 3
"""Months that a trend needs."""
_FEWEST_ALL: Final = 6
"""The same of a slope over all months."""
_FIRST_MONTHS: Final = 12
END_SOH: Final = 0.8
_LONGEST_EFC: Final = 20_000.0
_LONGEST_YEARS: Final = 100.0

WINDOWED: Final = (
    "age_years",
    "months",  # how many of the last 24 are known
    "soh_3",  # mean of the last 3 months
    *(f"soh_trend_{months}" for months in _TRENDS),  # a year
    "resistance_3",  # Ohm
    *(f"resistance_trend_{months}" for months in _TRENDS),  # relative, a year
    "efc_a_year_3",
    "efc_a_year_12",
    "efc_a_year_24",
    "km_a_year_12",
    "fade_an_efc",  # SoH lost since new over equivalent full cycles since new
    "fade_a_year",  # the same over age
    "straight_efc",  # left to SoH 0.8 if it goes on as since new
    "straight_years",
    "trend_efc",  # left to SoH 0.8 if it goes on as in the last 24 months
    "trend_years",
    "kWh_a_cycle",
    "kWh_a_km",
    "recuperated_share",
    "depth_12",  # mean of a day's highest less its lowest charge
    "soc_mean_12",
    "soc_max_12",
    "soc_min_12",
    "soc_high_share_12",  # of time
    "hot_share_12",
    "temperature_mean_12",
    "temperature_max_12",
    "temperature_min_12",
    "fast_share_12",  # of the time at a charger
    "driving_share_12",
    "current_out_max_12",  # A
    "current_in_max_12",
    "window_charge_3",  # Ah between two voltages of a slow charge, which falls with capacity
    "window_charge_12",
    "window_trend_24",  # relative, a year
    "window_a_cycle",  # over kWh_a_cycle: of batteries of any size
    "spread_3",  # V
    "spread_trend_12",  # V a year
    "months_all",  # how many are known since it began to report; what follows is of all of them
    "soh_slope",  # a year
    "soh_slope_cycles",  # per 1,000 equivalent full cycles
    "resistance_slope",  # relative, a year
    "window_slope",  # relative, a year
    "window_slope_cycles",  # relative, per 1,000 equivalent full cycles
    "soh_first",  # mean of the first 12
    "resistance_first",  # Ohm
    "window_first",  # Ah
    "soh_since_first",  # of the last 3 less that of the first 12
    "resistance_since_first",  # over that of the first 12
    "window_since_first",
    "slope_efc",  # left to SoH 0.8 if it goes on as in all months, by cycles
    "slope_years",  # by time
    "window_slope_efc",  # the same by the charge between two voltages
    "window_slope_years",
    *(f"code_{name}" for name in DIAGNOSTICS),  # seen in the last 12 months
)
FEATURES: Final[tuple[str, ...]] = (*MODEL_INPUTS, *WINDOWED)
INPUTS: Final = len(MODEL_INPUTS)
_SOH, _EFC = list(MODEL_INPUTS).index("SoH"), list(MODEL_INPUTS).index("Charge_Cycles")


def input_matrix(batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
    """The seven inputs of each telemetry row, shape (n, 7); units as in the telemetry schema."""
    columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in MODEL_INPUTS.values()]
    return np.column_stack([column.astype(np.float32) for column in columns])


def is_predicted(seq: npt.NDArray[np.int64], telemetry_ticks: int, predict_ticks: int) -> npt.NDArray[np.bool_]:
    """Whether record `seq` is the newest one at some multiple of the prediction period, shape (n,) bool.

    Record k is the newest from tick (k + 1) * telemetry_ticks until just before (k + 2) * telemetry_ticks.
    """
    since = (seq + 1) * telemetry_ticks
    next_prediction = -(-since // predict_ticks) * predict_ticks
    return np.asarray(next_prediction < since + telemetry_ticks)


def padded(matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Rows of all `FEATURES`, shape (n, len(FEATURES)), from rows of the first of them: the others are not known."""
    out = np.full((len(matrix), len(FEATURES)), np.nan, dtype=np.float32)
    out[:, : matrix.shape[1]] = matrix
    return out


TERMS: Final = (
    "n", "t", "tt", "soh", "t_soh", "e", "ee", "e_soh", "ohm", "t_ohm",
    "w_n", "w_t", "w_tt", "w", "t_w", "w_e", "w_ee", "e_w",
    "first_n", "first_soh", "first_ohm", "first_w_n", "first_w",
)  # fmt: skip
"""Sums over the months of a vehicle, for straight lines: t are months since the first, e equivalent full cycles, w the
charge between two voltages where a month has one (`w_`: of these months only), `first_` those of the first year."""
_TERM: Final = {name: k for k, name in enumerate(TERMS)}


def _terms(values: Floats, t: Floats) -> Floats:
    """What months add to the sums: values (..., len(NAMES)) and t (...) give (..., len(TERMS)). Zero where NaN."""
    soh, e, ohm, w = (values[..., _AT[name]] for name in ("soh", "charge_cycles", "resistance_25", "window_charge"))
    one, has_w, first = np.ones_like(soh), w > 0.0, t < _FIRST_MONTHS
    part = {
        "n": one, "t": t, "tt": t * t, "soh": soh, "t_soh": t * soh, "e": e, "ee": e * e, "e_soh": e * soh, "ohm": ohm,
        "t_ohm": t * ohm, "w_n": has_w * one, "w_t": has_w * t, "w_tt": has_w * t * t, "w": has_w * w,
        "t_w": has_w * t * w, "w_e": has_w * e, "w_ee": has_w * e * e, "e_w": has_w * e * w, "first_n": first * one,
        "first_soh": first * soh, "first_ohm": first * ohm, "first_w_n": first * has_w, "first_w": first * has_w * w,
    }  # fmt: skip
    terms = np.stack([part[name] for name in TERMS], axis=-1)
    return np.where(np.isnan(soh)[..., None], 0.0, terms)


@dataclass(frozen=True)
class Past:
    """What is known of the past of vehicles. months: the last 24, shape (n, 24, len(NAMES)), the newest last, NaN where
    it is not known. sums: over all months since each began to report, by TERMS, shape (n, len(TERMS))."""

    months: npt.NDArray[np.float32]
    sums: Floats

    def since(self, known: npt.NDArray[np.int64]) -> Self:
        """As if vehicles had begun to report so many months ago, shape (n,), of those where that is less than 24."""
        begun = np.arange(WINDOW_MONTHS) - (WINDOW_MONTHS - known)[:, None]
        months = np.where((begun < 0)[:, :, None], np.float32(np.nan), self.months)
        short = known < WINDOW_MONTHS
        there = ~np.isnan(months[short, :, _AT["soh"]])
        t = np.arange(WINDOW_MONTHS) - there.argmax(axis=1)[:, None]
        sums = self.sums.copy()
        sums[short] = _terms(months[short].astype(np.float64), np.maximum(t, 0).astype(np.float64)).sum(axis=1)
        return type(self)(months, sums)


class History:
    """What is known of vehicles, month by month. `vehicles`: their indices, shape (n,), ascending."""

    def __init__(self, vehicles: npt.NDArray[np.int64]) -> None:
        self.vehicles = np.asarray(vehicles)
        self._latest = np.full(self.vehicles.size, -1, dtype=np.int64)
        self._first = np.full(self.vehicles.size, -1, dtype=np.int64)
        self._months = np.full((self.vehicles.size, WINDOW_MONTHS, len(NAMES)), np.nan, dtype=np.float32)
        self._sums = np.zeros((self.vehicles.size, len(TERMS)))

    def add(self, closed: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        """Take months that `MonthFold.add` has returned, those of a vehicle ascending over all calls. Returns the
        positions of their vehicles, ascending."""
        where = np.searchsorted(self.vehicles, closed["vehicle"])
        values = np.column_stack([closed[name] for name in NAMES]).astype(np.float32)
        for month in np.unique(closed["month"]):
            rows = np.flatnonzero(closed["month"] == month)
            of = where[rows]
            past = np.where(self._latest[of] < 0, WINDOW_MONTHS, month - self._latest[of])
            for gap in np.unique(past):
                late = of[past == gap]
                if gap < WINDOW_MONTHS:
                    self._months[late, :-gap] = self._months[late, gap:]
                self._months[late, -min(gap, WINDOW_MONTHS) :] = np.nan
            self._months[of, -1] = values[rows]
            self._latest[of] = month
            told = ~np.isnan(values[rows, _AT["soh"]])
            self._first[of] = np.where((self._first[of] < 0) & told, month, self._first[of])
            t = (month - self._first[of]).astype(np.float64)
            self._sums[of] += _terms(values[rows].astype(np.float64), t)
        return np.unique(where)

    def past(self, month: int, of: npt.NDArray[np.int64] | None = None) -> Past:
        """The past up to this month of all vehicles, or of those at the positions `of`. It may be later than a
        vehicle's last month, where that has been silent."""
        latest = self._latest if of is None else self._latest[of]
        months, sums = (self._months.copy(), self._sums.copy()) if of is None else (self._months[of], self._sums[of])
        gap = np.where(latest < 0, WINDOW_MONTHS, np.minimum(month - latest, WINDOW_MONTHS))
        for late in np.unique(gap[gap > 0]):
            silent = gap == late
            if late < WINDOW_MONTHS:
                months[silent, :-late] = months[silent, late:]
            months[silent, -late:] = np.nan
        return Past(months, sums)


def age_at(age_years: Floats, time_s: Floats) -> Floats:
    """The `age_years` of features at these times [s since 1970]: that of the vehicle, `age_years`, when the last month
    became known. So what is known of a vehicle's past changes once a month."""
    return np.asarray(np.maximum(age_years - (time_s - known_s(known_month(time_s))) / YEAR_S, 0.0))


def windows_of(
    months: pd.DataFrame,
    vehicle: npt.NDArray[np.int64],
    time_s: Floats,
    age_years: Floats,
    known: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """The `WINDOWED` features from a table of months, such as those of a folder of histories: of each of these vehicles
    at its time [s since 1970], with its age then, arrays of shape (n,). Months pass by as they do for a shard.

    known  before each time so many months only, where that is less than 24
    """
    history, last = History(np.unique(vehicle)), known_month(time_s)
    months = months[months["vehicle"].isin(vehicle)].sort_values("month", kind="stable")
    columns = {str(name): months[name].to_numpy() for name in months}
    age = age_at(age_years, time_s)
    out, begun = np.full((len(vehicle), len(WINDOWED)), np.nan), 0
    for month in np.unique(last).tolist():
        ended = int(np.searchsorted(columns["month"], month, side="right"))
        if ended > begun:
            history.add({name: values[begun:ended] for name, values in columns.items()})
            begun = ended
        rows = np.flatnonzero(last == month)
        past = history.past(month, np.searchsorted(history.vehicles, vehicle[rows]))
        out[rows] = windowed(past if known is None else past.since(known[rows]), age[rows])
    return out


def windowed(past: Past, age_years: Floats) -> Floats:
    """The `WINDOWED` features, shape (n, len(WINDOWED)). `age_years`: since first use (`age_at`), shape (n,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of windows without a month: their mean is NaN
        return _windowed(past.months.astype(np.float64), past.sums, age_years)


def _windowed(months: Floats, sums: Floats, age_years: Floats) -> Floats:
    def of(name: str, last: int) -> Floats:
        return months[:, -last:, _AT[name]]

    def total(name: str, last: int) -> Floats:
        values = of(name, last)
        return np.where(np.isnan(values).all(axis=1), np.nan, np.nansum(values, axis=1))

    def mean(name: str, last: int) -> Floats:
        return np.nanmean(of(name, last), axis=1)

    known = ~np.isnan(of("soh", WINDOW_MONTHS))
    hours = {last: sum(total(f"time_{mode}", last) for mode in ("parked", "driving", "charging", "fast_charging"))
             for last in (3, 12, 24)}  # fmt: skip
    year_h = 365.2425 * 24.0
    soh, efc = mean("soh", 3), of("charge_cycles", 1)[:, 0]
    lost = np.maximum(1.0 - soh, 1e-3)
    left = np.maximum(soh - END_SOH, 0.0)
    trend = {last: _trend(of("soh", last)) for last in _TRENDS}
    efc_a_year = {last: total("cycles", last) / hours[last] * year_h for last in hours}
    falling = np.maximum(-trend[24], 1e-5)
    charger_h = total("time_charging", 12) + total("time_fast_charging", 12)
    kWh_a_cycle = total("energy_out", 12) / np.maximum(total("cycles", 12), 0.1)
    window = of("window_charge", WINDOW_MONTHS)
    window = np.where(window > 0.0, window, np.nan)
    window_12 = np.nanmean(window[:, -12:], axis=1)
    codes = of("diagnostics", 12)
    seen = np.bitwise_or.reduce(np.nan_to_num(codes).astype(np.int64), axis=1)
    nothing = np.isnan(codes).all(axis=1)
    columns = {
        "age_years": age_years,
        "months": known.sum(axis=1).astype(np.float64),
        "soh_3": soh,
        "resistance_3": mean("resistance_25", 3),
        "km_a_year_12": total("distance", 12) / hours[12] * year_h,
        "fade_an_efc": lost / np.maximum(efc, 1.0),
        "fade_a_year": lost / np.maximum(age_years, 0.1),
        "straight_efc": np.minimum(efc * left / lost, _LONGEST_EFC),
        "straight_years": np.minimum(age_years * left / lost, _LONGEST_YEARS),
        "trend_efc": np.minimum(left / falling * efc_a_year[24], _LONGEST_EFC),
        "trend_years": np.minimum(left / falling, _LONGEST_YEARS),
        "kWh_a_cycle": kWh_a_cycle,
        "kWh_a_km": (total("energy_out", 12) - total("energy_recuperated", 12))
        / np.maximum(total("distance", 12), 10.0),
        "recuperated_share": total("energy_recuperated", 12) / np.maximum(total("energy_out", 12), 1.0),
        "depth_12": mean("soc_max", 12) - mean("soc_min", 12),
        "soc_mean_12": mean("soc_mean", 12),
        "soc_max_12": mean("soc_max", 12),
        "soc_min_12": mean("soc_min", 12),
        "soc_high_share_12": total("time_soc_high", 12) / hours[12],
        "hot_share_12": total("time_hot", 12) / hours[12],
        "temperature_mean_12": mean("temperature_mean", 12),
        "temperature_max_12": np.nanmax(of("temperature_max", 12), axis=1),
        "temperature_min_12": np.nanmin(of("temperature_min", 12), axis=1),
        "fast_share_12": total("time_fast_charging", 12) / np.maximum(charger_h, 1.0),
        "driving_share_12": total("time_driving", 12) / hours[12],
        "current_out_max_12": np.nanmax(of("current_out_max", 12), axis=1),
        "current_in_max_12": np.nanmax(of("current_in_max", 12), axis=1),
        "window_charge_3": np.nanmean(window[:, -3:], axis=1),
        "window_charge_12": window_12,
        "window_trend_24": _trend(window) / np.nanmean(window, axis=1),
        "window_a_cycle": window_12 / kWh_a_cycle,
        "spread_3": mean("cell_voltage_spread", 3),
        "spread_trend_12": _trend(of("cell_voltage_spread", 12)),
    }
    columns |= _lifelong(sums, soh, columns["resistance_3"], columns["window_charge_3"])
    for last in _TRENDS:
        columns[f"soh_trend_{last}"] = trend[last]
        resistance = of("resistance_25", last)
        columns[f"resistance_trend_{last}"] = _trend(resistance) / np.nanmean(resistance, axis=1)
    columns |= {f"efc_a_year_{last}": values for last, values in efc_a_year.items()}
    for name, bit in DIAGNOSTICS.items():
        columns[f"code_{name}"] = np.where(nothing, np.nan, (seen & bit > 0).astype(np.float64))
    return np.column_stack([columns[name] for name in WINDOWED])


def _lifelong(sums: Floats, soh: Floats, ohm: Floats, window: Floats) -> dict[str, Floats]:
    """The features of all months, from their sums and from the last three months. NaN where nothing is known."""
    of = {name: sums[:, k] for name, k in _TERM.items()}
    mean_window, mean_ohm = of["w"] / of["w_n"], of["ohm"] / of["n"]
    slope = _slope(of["n"], of["t"], of["tt"], of["soh"], of["t_soh"]) * _A_YEAR
    slope_cycles = _slope(of["n"], of["e"], of["ee"], of["soh"], of["e_soh"])
    by_window = _slope(of["w_n"], of["w_t"], of["w_tt"], of["w"], of["t_w"]) * _A_YEAR / mean_window
    by_window_cycles = _slope(of["w_n"], of["w_e"], of["w_ee"], of["w"], of["e_w"]) / mean_window
    first = {name: of[f"first_{name}"] / of["first_n"] for name in ("soh", "ohm")}
    first_window = of["first_w"] / of["first_w_n"]
    left = np.maximum(soh - END_SOH, 0.0)

    def ahead(falls: Floats, least: float, longest: float) -> Floats:
        return np.minimum(left / np.maximum(-falls, least), longest)

    return {
        "months_all": of["n"],
        "soh_slope": slope,
        "soh_slope_cycles": 1000.0 * slope_cycles,
        "resistance_slope": _slope(of["n"], of["t"], of["tt"], of["ohm"], of["t_ohm"]) * _A_YEAR / mean_ohm,
        "window_slope": by_window,
        "window_slope_cycles": 1000.0 * by_window_cycles,
        "soh_first": first["soh"],
        "resistance_first": first["ohm"],
        "window_first": first_window,
        "soh_since_first": soh - first["soh"],
        "resistance_since_first": ohm / first["ohm"],
        "window_since_first": window / first_window,
        "slope_efc": ahead(slope_cycles, 1e-6, _LONGEST_EFC),
        "slope_years": ahead(slope, 1e-4, _LONGEST_YEARS),
        "window_slope_efc": ahead(by_window_cycles, 1e-6, _LONGEST_EFC),
        "window_slope_years": ahead(by_window, 1e-4, _LONGEST_YEARS),
    }


def _slope(n: Floats, x: Floats, xx: Floats, y: Floats, xy: Floats) -> Floats:
    """Slope of the least-squares line of n points with these sums, shape (n,); NaN with fewer than `_FEWEST_ALL`."""
    apart = n * xx - x * x
    return np.where((n >= _FEWEST_ALL) & (apart > 1e-9 * n * xx), (n * xy - x * y) / apart, np.nan)


def _trend(values: Floats) -> Floats:
    """Slope of a least-squares line through months, shape (n, months), a year; NaN with fewer than three."""
    there = ~np.isnan(values)
    count = there.sum(axis=1)
    month = np.where(there, np.arange(values.shape[1], dtype=np.float64), 0.0)
    known = np.where(there, values, 0.0)
    mean_month, mean = month.sum(axis=1) / count, known.sum(axis=1) / count
    apart = np.where(there, month - mean_month[:, None], 0.0)
    slope = (apart * np.where(there, known - mean[:, None], 0.0)).sum(axis=1) / (apart**2).sum(axis=1)
    return np.where(count >= _FEWEST, slope * _A_YEAR, np.nan)
