"""Predictions for a table of records, by our column names or those of the reference data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from datasets.schema import MODEL_INPUTS
from models.bundle import Bundle
from models.features import FEATURES


class TableError(ValueError):
    """A table that cannot be predicted from: what was expected, what came."""


def inputs_of(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Rows of `FEATURES`, shape (n, len(FEATURES)). TableError where one of the seven inputs is missing or no number.

    The seven inputs have the names of the reference data set (SoC) or of telemetry (soc). Windowed features have their
    own names, or are not there.
    """
    out = np.full((len(table), len(FEATURES)), np.nan, dtype=np.float32)
    if table.empty:
        raise TableError("expected at least one row, got none")
    for k, name in enumerate(FEATURES):
        ours = MODEL_INPUTS.get(name)
        column = name if name in table else ours if ours in table else None
        if column is None:
            if ours is not None:
                missing = [f"{n} (or {o})" for n, o in MODEL_INPUTS.items() if n not in table and o not in table]
                raise TableError(f"expected the columns {', '.join(missing)}; there are {', '.join(map(str, table))}")
            continue
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        wrong = ~np.isfinite(values)
        if ours is None:  # a windowed feature may be unknown, but not infinite or a word
            wrong &= table[column].notna().to_numpy()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise TableError(
                f"expected numbers in {column}, got {table[column].iloc[row]} in row {row + 1}"
                + (f" and {int(wrong.sum()) - 1} more" if wrong.sum() > 1 else "")
            )
        out[:, k] = values
    return out


def predicted(bundle: Bundle, table: pd.DataFrame) -> pd.DataFrame:
    """The table with what the bundle says of each row: remaining life in equivalent full cycles and in days with its
    interval, the probability of a failure within the horizon, and its likeliest kind."""
    inputs = inputs_of(table)
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for target, name in (("efc", "rul"), ("days", "rul_days")):
        life = bundle.life(target, inputs)
        columns |= {name: life.median, f"{name}_low": life.low, f"{name}_high": life.high}
    columns["failure_probability"] = bundle.failure(inputs)
    columns["failure_kind"] = np.array(bundle.manifest.kinds)[bundle.kinds(inputs).argmax(axis=1)]
    told = pd.DataFrame(columns, index=table.index).round({name: 4 if "prob" in name else 1 for name in columns})
    return table.drop(columns=[name for name in told if name in table]).join(
        told.assign(model_version=bundle.manifest.version)
    )
