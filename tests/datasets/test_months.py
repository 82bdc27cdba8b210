"""Months are folded from days, however the days come."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from datasets.months import MONTH_DAYS, MONTHLY, NAMES, SCHEMA, MonthFold
from physics import DAILY


def days(vehicles: int = 5, count: int = 100, seed: int = 1) -> pd.DataFrame:
    """Made-up days of vehicles that begin on different ones."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(
        [(vehicle, 20_000 + vehicle + day) for vehicle in range(vehicles) for day in range(count)],
        columns=["vehicle", "day"],
    )
    for column in DAILY:
        if column.how != "key":
            rows[column.name] = random.uniform(0.1, 10.0, len(rows)).astype(column.type)
    rows["diagnostics"] = 1 << random.integers(0, 7, len(rows))
    rows.loc[random.random(len(rows)) < 0.8, "window_charge"] = 0.0
    return rows


def folded(rows: pd.DataFrame, cuts: int) -> pd.DataFrame:
    fold = MonthFold(np.unique(rows["vehicle"]))
    parts = np.array_split(np.unique(rows["day"]), cuts)
    cut = [rows[rows["day"].isin(part)] for part in parts]
    closed = [pd.DataFrame(fold.add({str(name): of[name].to_numpy() for name in of})) for of in cut]
    return pd.concat(closed, ignore_index=True).sort_values(["vehicle", "month"], ignore_index=True)


def test_a_month_is_what_pandas_says_of_its_days() -> None:
    rows = days()
    told = folded(rows, 1)
    assert list(told) == SCHEMA.names
    of = rows.assign(month=rows["day"] // MONTH_DAYS).groupby(["vehicle", "month"])
    last = rows["day"].groupby(rows["vehicle"]).transform("max") // MONTH_DAYS
    whole = told.set_index(["vehicle", "month"])
    assert len(told) == of.ngroups - 5  # the last month of each vehicle is still open
    assert (told["month"] < last.max()).all()
    ways = {"sum": "sum", "mean": "mean", "most": "max", "least": "min", "end": "last"}
    for column in MONTHLY:
        if column.how in ways:
            expected = of[column.name].agg(ways[column.how]).reindex(whole.index)
        elif column.how == "seen":
            expected = of[column.name].agg(np.bitwise_or.reduce).reindex(whole.index)
        else:
            positive = rows.assign(month=rows["day"] // MONTH_DAYS)[rows[column.name] > 0.0]
            expected = positive.groupby(["vehicle", "month"])[column.name].last().reindex(whole.index).fillna(0.0)
        assert whole[column.name].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-6), column.name
    assert (whole["days"] == of.size().reindex(whole.index)).all()


@pytest.mark.parametrize("cuts", [2, 7, 104])
def test_it_does_not_matter_how_days_are_cut(cuts: int) -> None:
    rows = days()
    pd.testing.assert_frame_equal(folded(rows, cuts), folded(rows, 1))


def test_a_month_without_days_is_not_there() -> None:
    rows = days(vehicles=1, count=200)
    gap = rows[(rows["day"] < 20_040) | (rows["day"] > 20_120)]
    months = folded(gap, 3)["month"].tolist()
    assert 20_080 // MONTH_DAYS not in months
    assert len(NAMES) == len(set(NAMES))
