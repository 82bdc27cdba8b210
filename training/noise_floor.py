"""Why a famous R2 is the noise: a label that is a formula plus noise, and rows of one vehicle on both sides of a split.

The data set behind the reference system has 175,393 rows of one vehicle. Its label is a formula of the inputs plus
N(0, 15). So no model can have a mean absolute error below 15 sqrt(2/pi) = 11.97, and the formula itself, which is not a
prediction of anything, has it. The rows here are made up in the same way; the data set itself is not ours to ship.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from datasets.schema import MODEL_INPUTS
from training.fit import Boost, Table

ROWS: Final = 175_393
NOISE: Final = 15.0
FLOOR: Final = NOISE * math.sqrt(2.0 / math.pi)
_SPREAD: Final = 52.7
"""Standard deviation of the formula that, with `NOISE`, gives an R2 of 0.925."""
_TREES: Final = {"objective": "reg:squarederror", "max_depth": 6, "eta": 0.1, "subsample": 0.8, "seed": 1}
_ROUNDS: Final = 150


@dataclass(frozen=True)
class Learned:
    """How well a learner does on the rows that were held out."""

    learner: str
    mae: float
    r2: float


def made_up(rows: int = ROWS, seed: int = 1) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """Rows of one vehicle every 15 minutes, with the reference's names and its kind of label, and the formula."""
    random = np.random.default_rng(seed)
    worn = np.linspace(0.0, 1.0, rows)
    table = pd.DataFrame(
        {
            "SoC": random.uniform(0.2, 1.0, rows),
            "SoH": 1.0 - 0.2 * worn + random.normal(0.0, 0.01, rows),
            "Battery_Voltage": random.normal(360.0, 15.0, rows),
            "Battery_Current": random.normal(0.0, 40.0, rows),
            "Battery_Temperature": random.normal(28.0, 6.0, rows),
            "Charge_Cycles": 1500.0 * worn + random.normal(0.0, 20.0, rows),
            "Power_Consumption": random.normal(8.0, 6.0, rows).clip(0.0),
        }
    )
    assert list(table) == list(MODEL_INPUTS)
    formula = 300.0 * table["SoH"] - 0.05 * table["Charge_Cycles"] - 0.8 * table["Battery_Temperature"]
    formula = 150.0 + (formula - formula.mean()) * (_SPREAD / formula.std())
    return table.assign(RUL=formula + random.normal(0.0, NOISE, rows)), formula.to_numpy()


def noise_floor(boost: Boost, rows: int = ROWS, seed: int = 1) -> list[Learned]:
    """The popular recipe (rows split at random, 80 to 20), a straight line, and the formula that made the label."""
    table, formula = made_up(rows, seed)
    test = np.random.default_rng(seed).random(rows) < 0.2
    inputs, label = table[list(MODEL_INPUTS)].to_numpy(np.float32), table["RUL"].to_numpy()
    trees = boost("noise", _TREES, Table(inputs[~test], label[~test], np.ones(int((~test).sum()))), _ROUNDS)
    line = LinearRegression().fit(inputs[~test], label[~test])
    said = {
        "XGBoost": trees.inplace_predict(inputs[test]),
        "straight line": line.predict(inputs[test]),
        "the formula": formula[test],
    }
    return [
        Learned(name, float(np.abs(values - label[test]).mean()), float(r2_score(label[test], values)))
        for name, values in said.items()
    ]
