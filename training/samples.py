"""Rows to train and to score with: what models read (`models.features`), and what became of the vehicle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from datasets.schema import MODEL_INPUTS
from models.features import FEATURES, INPUTS, WINDOW_MONTHS, windows_of
from physics.constants import DAY_S
from training.histories import START_S, Histories, HistoryError
from training.labels import HORIZON_DAYS, KINDS, label

Floats = npt.NDArray[np.float64]
RECORD_ONLY: Final = 0.1
"""Share of training rows of which nothing but the record is known."""
_LARGEST: Final = 1e9
SHORT: Final = 0.15
"""Share of training rows of vehicles that have begun to report within the last 24 months."""
LATER: Final = 0.15
"""Share of training rows of vehicles that began to report at any time of their lives."""


@dataclass(frozen=True)
class Samples:
    """Rows, ordered by vehicle and day. Arrays of shape (n,) but `inputs`.

    inputs         shape (n, len(FEATURES)), float32
    vehicle        index
    day, efc       true age [d] and true equivalent full cycles of the record
    rul_efc, rul_days   to the end of life; where it is not `ended`, what was seen of it
    ended          whether it is known
    fails          1: fails within HORIZON_DAYS; 0: does not; -1: not known, or it has failed already
    kind           index in KINDS of the first failure, -1 where not known
    """

    inputs: npt.NDArray[np.float32]
    vehicle: npt.NDArray[np.int64]
    day: Floats
    efc: Floats
    rul_efc: Floats
    rul_days: Floats
    ended: npt.NDArray[np.bool_]
    fails: npt.NDArray[np.int8]
    kind: npt.NDArray[np.int8]

    def at(self, rows: npt.NDArray[Any]) -> Self:
        """Some of the rows."""
        return replace(self, **{name: values[rows] for name, values in vars(self).items()})

    def of(self, vehicles: npt.NDArray[np.int64]) -> Self:
        """The rows of these vehicles."""
        return self.at(np.isin(self.vehicle, vehicles))

    @property
    def weight(self) -> Floats:
        """Of each row, so that each vehicle counts the same; 1 on average."""
        _, of, count = np.unique(self.vehicle, return_inverse=True, return_counts=True)
        weight = 1.0 / count[of]
        return np.asarray(weight / weight.mean())

    def column(self, name: str) -> Floats:
        """One of FEATURES."""
        return self.inputs[:, FEATURES.index(name)].astype(np.float64)


def assemble(histories: Histories, labels: pd.DataFrame | None = None, *, shortened: int | None = None) -> Samples:
    """All rows of a folder, until each vehicle's end of life.

    shortened  a seed: the past of some vehicles is cut off, as if they had begun to report later. For training only.
    """
    labels = label(histories) if labels is None else labels
    records = histories.read("reported/records")
    records = records.merge(labels[["end_day"]], left_on="vehicle", right_index=True)
    records = records[records["day"] < records["end_day"]].sort_values(["vehicle", "day"], kind="stable")
    vehicle, day = records["vehicle"].to_numpy(), records["day"].to_numpy()
    months = histories.read("reported/months")
    when = (START_S + records["known_day"].to_numpy() * DAY_S, records["known_day"].to_numpy() / 365.2425)
    windows = windows_of(months, vehicle, *when)
    if shortened is not None:
        generator = np.random.default_rng(shortened)
        drawn = generator.random(len(day))
        for rows, some, known in (
            (drawn < SHORT, months, generator.integers(1, WINDOW_MONTHS, len(day))),
            ((drawn >= SHORT) & (drawn < SHORT + LATER), _begun_later(months, generator), None),
        ):
            time_s, age_years = (of[rows] for of in when)
            windows[rows] = windows_of(some, vehicle[rows], time_s, age_years, None if known is None else known[rows])
        windows[generator.random(len(day)) < RECORD_ONLY] = np.nan
    numbers = records[list(MODEL_INPUTS.values())].to_numpy(np.float64)
    if (wrong := ~(np.abs(numbers) < _LARGEST).all(axis=1)).any():
        raise HistoryError(
            f"{histories.folder}: expected numbers in reported/records, got others in {int(wrong.sum())} rows, the "
            f"first of vehicle {vehicle[np.flatnonzero(wrong)[0]]}: generate that folder anew"
        )
    inputs = np.column_stack([numbers, windows]).astype(np.float32)
    assert inputs.shape[1] == len(FEATURES) == INPUTS + windows.shape[1]
    of = labels.loc[vehicle]
    efc = true_efc(histories, vehicle, day)
    left = of["first_day"].to_numpy() - day
    fails = np.where(left <= HORIZON_DAYS, 1, 0)
    unknown = (left <= 0.0) | (np.isnan(left) & (of["seen_day"].to_numpy() - day < HORIZON_DAYS))
    kind = np.array([KINDS.index(name) if name else -1 for name in of["first_kind"]], dtype=np.int8)
    return Samples(
        inputs,
        vehicle,
        day,
        efc,
        np.maximum(of["end_efc"].to_numpy() - efc, 0.0),
        of["end_day"].to_numpy() - day,
        of["ended"].to_numpy(dtype=bool),
        np.where(unknown, -1, fails).astype(np.int8),
        kind,
    )


def _begun_later(months: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """The months of vehicles that each began to report at some time."""
    reached = months.groupby("vehicle")["month"].agg(["min", "max"])
    begun = reached["min"] + (reached["max"] - reached["min"]) * generator.random(len(reached))
    return months[months["month"] >= months["vehicle"].map(begun)]


def true_efc(histories: Histories, vehicle: npt.NDArray[np.int64], day: Floats) -> Floats:
    """True equivalent full cycles of each record, between the monthly states by a straight line."""
    states = histories.read("truth/states").sort_values(["vehicle", "day"], kind="stable")
    far = 1e6  # days between the time lines of two vehicles, laid end to end
    line = states["vehicle"].to_numpy() * far + states["day"].to_numpy()
    return np.asarray(np.interp(vehicle * far + day, line, states["efc"].to_numpy(np.float64)))
