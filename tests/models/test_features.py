"""Which records the models are asked about, and what they know of the past: the same in training and serving."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from datasets.months import MONTH_DAYS, NAMES, known_month, known_s
from models.features import INPUTS, WINDOW_MONTHS, WINDOWED, History, is_predicted, padded, past_months, windowed
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
    """The shard adds months as they close, training looks them up in a table: the same features to the bit."""
    rows = made_up_months()
    history = History(np.arange(4))
    for month in range(600, 640):
        history.add(at(rows, rows["month"] == month))
        now_s = np.full(4, known_s(month) + 7.0 * DAY_S)
        trained = past_months(pd.DataFrame(rows), np.arange(4), now_s)
        served = history.past(month)
        np.testing.assert_array_equal(served, trained)
        age = np.full(4, 3.0)
        np.testing.assert_array_equal(windowed(served, age), windowed(trained, age))


def test_the_future_changes_no_feature() -> None:
    rows = made_up_months()
    now_s = DAY_S * MONTH_DAYS * np.array([610.2, 625.9, 630.0, 639.5])
    whole = past_months(pd.DataFrame(rows), np.arange(4), now_s)
    cut = at(rows, rows["month"] <= known_month(now_s)[rows["vehicle"]])
    assert cut["vehicle"].size < rows["vehicle"].size
    np.testing.assert_array_equal(past_months(pd.DataFrame(cut), np.arange(4), now_s), whole)


def test_what_is_not_known_is_nan_and_says_so_quietly(recwarn: pytest.WarningsRecorder) -> None:
    months = np.full((2, WINDOW_MONTHS, len(NAMES)), np.nan)
    told = windowed(months, np.array([1.0, 2.0]))
    assert told.shape == (2, len(WINDOWED))
    known = dict(zip(WINDOWED, told[0], strict=True))
    assert (known.pop("age_years"), known.pop("months")) == (1.0, 0.0)
    assert np.isnan(list(known.values())).all()
    assert not recwarn.list
    row = np.arange(float(INPUTS))[None]
    assert padded(row)[0, :INPUTS].tolist() == row[0].tolist()
    assert np.isnan(padded(row)[0, INPUTS:]).all()


def test_trends_are_slopes_a_year() -> None:
    months = np.full((1, WINDOW_MONTHS, len(NAMES)), np.nan)
    year = np.arange(WINDOW_MONTHS) * MONTH_DAYS / 365.2425
    months[0, :, NAMES.index("soh")] = 0.95 - 0.02 * year
    months[0, 5, NAMES.index("soh")] = np.nan  # a month is missing
    months[0, :, NAMES.index("resistance_25")] = 0.1 * (1.0 + 0.05 * (year - year[-6:].mean()))
    told = dict(zip(WINDOWED, windowed(months, np.array([5.0]))[0], strict=True))
    for last in (6, 12, 24):
        assert told[f"soh_trend_{last}"] == pytest.approx(-0.02)
    assert told["resistance_trend_6"] == pytest.approx(0.05)
    assert told["trend_years"] == pytest.approx((told["soh_3"] - 0.8) / 0.02)
    assert np.isnan(told["efc_a_year_3"])
