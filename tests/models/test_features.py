"""Which records the models are asked about, and what they know of the past: the same in training and serving."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from datasets.months import MONTH_DAYS, NAMES, known_month, known_s
from models.features import (
    INPUTS,
    TERMS,
    WINDOW_MONTHS,
    WINDOWED,
    History,
    Past,
    age_at,
    is_predicted,
    padded,
    windowed,
    windows_of,
)
from physics.constants import DAY_S


@pytest.mark.parametrize(("telemetry", "predict"), [(2, 5), (1, 1), (5, 2), (3, 7), (10, 600)])
def test_predicted_is_the_newest_record_at_each_multiple_of_the_period(telemetry: int, predict: int) -> None:
    last_tick = 5000
    seq = np.arange(last_tick // telemetry)
    newest = {t // telemetry - 1 for t in range(predict, last_tick - telemetry, predict) if t >= telemetry}
    marked = set(seq[is_predicted(seq, telemetry, predict)].tolist())
    limit = len(seq) - 2
    assert {s for s in marked if s < limit} == {s for s in newest if s < limit}


def made_up_months(vehicles: int = 4, months: int = 40, seed: int = 3) -> dict[str, np.ndarray]:
    """Closed months as `MonthFold.add` tells them, by vehicle and month; some are missing."""
    random = np.random.default_rng(seed)
    vehicle, month = (part.ravel() for part in np.mgrid[0:vehicles, 600 : 600 + months])
    kept = random.random(vehicle.size) > 0.1
    rows = {name: random.uniform(0.1, 2.0, vehicle.size) for name in NAMES}
    rows["diagnostics"] = random.integers(0, 128, vehicle.size).astype(float)
    rows |= {"vehicle": vehicle, "month": month.astype(np.int32)}
    return {name: values[kept] for name, values in rows.items()}


def at(rows: dict[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[which] for name, values in rows.items()}


def test_serving_sees_the_past_that_training_saw() -> None:
    """The shard's months come one by one, those of histories in a table: the same features to the bit."""
    rows = made_up_months()
    history = History(np.arange(4))
    for month in range(600, 640):
        history.add(at(rows, rows["month"] == month))
        now_s = np.full(4, known_s(month) + 7.0 * DAY_S)
        age = np.full(4, 3.0)
        trained = windows_of(pd.DataFrame(rows), np.arange(4), now_s, age)
        np.testing.assert_array_equal(windowed(history.past(month), age_at(age, now_s)), trained)


def test_the_future_changes_no_feature() -> None:
    rows = made_up_months()
    now_s = DAY_S * MONTH_DAYS * np.array([610.2, 625.9, 630.0, 639.5])
    whole = windows_of(pd.DataFrame(rows), np.arange(4), now_s, np.full(4, 3.0))
    cut = at(rows, rows["month"] <= known_month(now_s)[rows["vehicle"]])
    assert cut["vehicle"].size < rows["vehicle"].size
    np.testing.assert_array_equal(windows_of(pd.DataFrame(cut), np.arange(4), now_s, np.full(4, 3.0)), whole)


def nothing_known(vehicles: int) -> Past:
    months = np.full((vehicles, WINDOW_MONTHS, len(NAMES)), np.nan, dtype=np.float32)
    return Past(months, np.zeros((vehicles, len(TERMS))))


def test_what_is_not_known_is_nan_and_says_so_quietly(recwarn: pytest.WarningsRecorder) -> None:
    told = windowed(nothing_known(2), np.array([1.0, 2.0]))
    assert told.shape == (2, len(WINDOWED))
    known = dict(zip(WINDOWED, told[0], strict=True))
    assert (known.pop("age_years"), known.pop("months"), known.pop("months_all")) == (1.0, 0.0, 0.0)
    assert np.isnan(list(known.values())).all()
    assert not recwarn.list
    row = np.arange(float(INPUTS))[None]
    assert padded(row)[0, :INPUTS].tolist() == row[0].tolist()
    assert np.isnan(padded(row)[0, INPUTS:]).all()


def test_a_month_without_days_is_not_known() -> None:
    """The first that a shard keeps says only how old its vehicles are."""
    empty = {name: np.full(4, np.nan) for name in NAMES} | {"vehicle": np.arange(4), "month": np.full(4, 599)}
    rows, one, other = made_up_months(), History(np.arange(4)), History(np.arange(4))
    one.add(empty)
    for history in (one, other):
        history.add(rows)
    np.testing.assert_array_equal(windowed(one.past(640), np.ones(4)), windowed(other.past(640), np.ones(4)))


def test_trends_are_slopes_a_year() -> None:
    past = nothing_known(1)
    year = np.arange(WINDOW_MONTHS) * MONTH_DAYS / 365.2425
    past.months[0, :, NAMES.index("soh")] = 0.95 - 0.02 * year
    past.months[0, 5, NAMES.index("soh")] = np.nan  # a month is missing
    past.months[0, :, NAMES.index("resistance_25")] = 0.1 * (1.0 + 0.05 * (year - year[-6:].mean()))
    told = dict(zip(WINDOWED, windowed(past, np.array([5.0]))[0], strict=True))
    for last in (6, 12, 24):
        assert told[f"soh_trend_{last}"] == pytest.approx(-0.02, rel=1e-4)
    assert told["resistance_trend_6"] == pytest.approx(0.05, rel=1e-4)
    assert told["trend_years"] == pytest.approx((told["soh_3"] - 0.8) / 0.02, rel=1e-4)
    assert np.isnan(told["efc_a_year_3"])


def test_what_is_of_all_months_is_what_numpy_says_of_them() -> None:
    rows = pd.DataFrame(made_up_months(months=60))
    rows.loc[rows["month"] % 3 == 0, "window_charge"] = 0.0
    rows["charge_cycles"] = (rows["month"] - 590) * 8.0 + rows["distance"]
    told = windows_of(rows, np.arange(4), np.full(4, known_s(659)), np.full(4, 6.0))
    for vehicle in range(4):
        of = rows[rows["vehicle"] == vehicle].astype(np.float64)
        features = dict(zip(WINDOWED, told[vehicle], strict=True))
        year, first = of["month"] * MONTH_DAYS / 365.2425, of[of["month"] < of["month"].min() + 12]
        charged = of[of["window_charge"] > 0.0]
        assert features["months_all"] == len(of)
        assert features["soh_slope"] == pytest.approx(np.polyfit(year, of["soh"], 1)[0], rel=1e-4)
        by_cycles = np.polyfit(of["charge_cycles"], of["soh"], 1)[0]
        assert features["soh_slope_cycles"] == pytest.approx(1000.0 * by_cycles, rel=1e-4)
        grows = np.polyfit(year, of["resistance_25"], 1)[0] / of["resistance_25"].mean()
        assert features["resistance_slope"] == pytest.approx(grows, rel=1e-4)
        window = charged["window_charge"]
        falls = np.polyfit(year[charged.index], window, 1)[0] / window.mean()
        assert features["window_slope"] == pytest.approx(falls, rel=1e-4)
        assert features["soh_first"] == pytest.approx(first["soh"].mean(), rel=1e-5)
        assert features["resistance_first"] == pytest.approx(first["resistance_25"].mean(), rel=1e-5)
        early = first["window_charge"][first["window_charge"] > 0.0]
        assert features["window_first"] == pytest.approx(early.mean(), rel=1e-5)


@pytest.mark.parametrize("known", [1, 5, 12, 23])
def test_a_vehicle_that_began_to_report_later_knows_what_it_has_told(known: int) -> None:
    rows = pd.DataFrame(made_up_months())
    now_s, age = np.full(4, known_s(639)), np.full(4, 6.0)
    short = windows_of(rows, np.arange(4), now_s, age, np.full(4, known))
    cut = windows_of(rows[rows["month"] > 639 - known], np.arange(4), now_s, age)
    np.testing.assert_allclose(short, cut, rtol=1e-9)
