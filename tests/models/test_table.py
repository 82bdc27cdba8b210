"""`twin predict`: tables by our names or the reference's, and what is wrong with them in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from datasets.schema import MODEL_INPUTS
from models.bundle import Bundle
from models.features import FEATURES
from models.table import TableError, inputs_of, predicted

ROW = (0.6, 0.92, 355.0, 20.0, 24.0, 300.0, 7.1)


def table(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame([ROW, ROW], columns=names)


def test_both_names_give_the_same_and_other_columns_stay() -> None:
    bundle = Bundle.load()
    theirs = predicted(bundle, table(list(MODEL_INPUTS)).assign(Motor_RPM=3000))
    ours = predicted(bundle, table(list(MODEL_INPUTS.values())).assign(vehicle_id="EV-000001"))
    for name in ("rul", "rul_low", "rul_high", "rul_days", "failure_probability", "failure_kind"):
        assert theirs[name].tolist() == ours[name].tolist()
    assert (theirs["rul_low"] <= theirs["rul"]).all()
    assert set(theirs["failure_kind"]) <= set(bundle.manifest.kinds)
    assert theirs["Motor_RPM"].tolist() == [3000, 3000]
    assert ours["model_version"].tolist() == [bundle.manifest.version] * 2


def test_windowed_features_are_taken_by_name_and_may_be_unknown() -> None:
    given = table(list(MODEL_INPUTS)).assign(age_years=[5.0, np.nan])
    inputs = inputs_of(given)
    assert inputs[0, FEATURES.index("age_years")] == 5.0
    assert np.isnan(inputs[1, FEATURES.index("age_years")])
    assert np.isnan(inputs[:, FEATURES.index("months")]).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"SoH": None}, r"expected the columns SoH \(or soh\); there are SoC"),
        ({"SoH": ["high", 0.9]}, "expected numbers in SoH, got high in row 1"),
        ({"SoC": [0.5, np.nan]}, "expected numbers in SoC, got nan in row 2"),
        ({"SoC": [np.inf, np.inf]}, "expected numbers in SoC, got inf in row 1 and 1 more"),
        ({"age_years": ["old", 3.0]}, "expected numbers in age_years, got old in row 1"),
    ],
)
def test_a_bad_table_is_one_line(change: dict[str, Any], says: str) -> None:
    given = table(list(MODEL_INPUTS))
    for name, values in change.items():
        given = given.drop(columns=name) if values is None else given.assign(**{name: values})
    with pytest.raises(TableError, match=says) as error:
        inputs_of(given)
    assert "\n" not in str(error.value)
    with pytest.raises(TableError, match="expected at least one row"):
        inputs_of(table(list(MODEL_INPUTS)).head(0))
