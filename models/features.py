"""What models read, one way for training and serving: a vehicle's newest record, its age, and its last 24 months.

`FEATURES` are the seven inputs of the reference system, in its order, and then the `WINDOWED` ones. What is not known,
such as the past of a vehicle that has just begun to report, is NaN; the models were trained with such vehicles.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from datasets.months import MONTH_DAYS, NAMES, known_month, known_s
from datasets.schema import MODEL_INPUTS
from physics.columns import DIAGNOSTICS
from physics.constants import DAY_S

Floats = npt.NDArray[np.float64]

WINDOW_MONTHS: Final = 24
_A_YEAR: Final = 365.2425 / MONTH_DAYS
_AT: Final = {name: k for k, name in enumerate(NAMES)}
_TRENDS: Final = (6, 12, 24)
_FEWEST: Final = 3
"""Months that a trend needs."""
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


class History:
    """The last 24 months of each vehicle. `vehicles`: their indices, shape (n,), ascending."""

    def __init__(self, vehicles: npt.NDArray[np.int64]) -> None:
        self._vehicles = np.asarray(vehicles)
        self.latest = np.full(self._vehicles.size, -1, dtype=np.int32)
        """The last month that is known, shape (n,); -1 if none is."""
        self.months = np.full((self._vehicles.size, WINDOW_MONTHS, len(NAMES)), np.nan, dtype=np.float32)
        """Values by the names of `months.NAMES`, the newest month last. NaN: not known."""

    def add(self, closed: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        """Take months that `MonthFold.add` has returned. Returns the positions of their vehicles, ascending."""
        where = np.searchsorted(self._vehicles, closed["vehicle"])
        values = np.column_stack([closed[name] for name in NAMES])
        for month in np.unique(closed["month"]):
            rows = np.flatnonzero(closed["month"] == month)
            of = where[rows]
            past = np.where(self.latest[of] < 0, WINDOW_MONTHS, month - self.latest[of])
            for gap in np.unique(past):
                late = of[past == gap]
                if gap < WINDOW_MONTHS:
                    self.months[late, :-gap] = self.months[late, gap:]
                self.months[late, -min(gap, WINDOW_MONTHS) :] = np.nan
            self.months[of, -1] = values[rows]
            self.latest[of] = month
        return np.unique(where)

    def past(self, month: int) -> npt.NDArray[np.float32]:
        """The 24 months up to this one, shape (n, 24, len(NAMES)). It may be later than a vehicle's last, where that
        has been silent."""
        gap = np.where(self.latest < 0, WINDOW_MONTHS, np.minimum(month - self.latest, WINDOW_MONTHS))
        out = self.months.copy()
        for late in np.unique(gap[gap > 0]):
            of = gap == late
            if late < WINDOW_MONTHS:
                out[of, :-late] = self.months[of, late:]
            out[of, -late:] = np.nan
        return out


def age_at(age_years: Floats, time_s: Floats) -> Floats:
    """The `age_years` of features at these times [s since 1970]: that of the vehicle, `age_years`, when the last month
    became known. So what is known of a vehicle's past changes once a month."""
    since_s = time_s - (known_s(0) + MONTH_DAYS * DAY_S * known_month(time_s))
    return np.maximum(age_years - since_s / (365.2425 * DAY_S), 0.0)


def past_months(months: pd.DataFrame, vehicle: npt.NDArray[np.int64], time_s: Floats) -> npt.NDArray[np.float32]:
    """`History.past` from a table of months: of each of these vehicles at its time [s since 1970], shape (n,)."""
    months = months.sort_values(["vehicle", "month"], kind="stable")
    values = months[list(NAMES)].to_numpy(np.float64)
    owner, number = months["vehicle"].to_numpy(), months["month"].to_numpy(np.int64)
    key = owner * 100_000 + number
    last = known_month(time_s)
    out = np.full((len(vehicle), WINDOW_MONTHS, len(NAMES)), np.nan, dtype=np.float32)
    for back in range(WINDOW_MONTHS):
        wanted = vehicle * 100_000 + last - back
        where = np.minimum(np.searchsorted(key, wanted), key.size - 1)
        there = key[where] == wanted
        out[there, WINDOW_MONTHS - 1 - back] = values[where[there]]
    return out


def windowed(months: npt.NDArray[np.floating], age_years: Floats) -> Floats:
    """The `WINDOWED` features, shape (n, len(WINDOWED)).

    months     shape (n, 24, len(months.NAMES)), the newest last, NaN where it is not known
    age_years  since the vehicle's first use (`age_at`), shape (n,)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of windows without a month: their mean is NaN
        return _windowed(months.astype(np.float64), age_years)


def _windowed(months: Floats, age_years: Floats) -> Floats:
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
    for last in _TRENDS:
        columns[f"soh_trend_{last}"] = trend[last]
        resistance = of("resistance_25", last)
        columns[f"resistance_trend_{last}"] = _trend(resistance) / np.nanmean(resistance, axis=1)
    columns |= {f"efc_a_year_{last}": values for last, values in efc_a_year.items()}
    for name, bit in DIAGNOSTICS.items():
        columns[f"code_{name}"] = np.where(nothing, np.nan, (seen & bit > 0).astype(np.float64))
    return np.column_stack([columns[name] for name in WINDOWED])


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
