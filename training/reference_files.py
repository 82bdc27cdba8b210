"""The four files of the reference system, for programs that load those: scikit-learn models of the seven inputs.

They load with joblib, scikit-learn and XGBoost alone. They know one record and no interval: what ships is the bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import joblib
import numpy as np
import xgboost as xgb
from sklearn.preprocessing import StandardScaler

from datasets.log.durable import make_directory, replace_file
from models.features import FEATURES, INPUTS
from training.samples import Samples

FILES: Final = ("rul_xgb_model", "failure_xgb_model", "scaler", "feature_names")
_TREES: Final = {"n_estimators": 200, "max_depth": 5, "learning_rate": 0.08, "subsample": 0.7, "n_jobs": 1,
                 "random_state": 1}  # fmt: skip


def write_reference_files(folder: Path, train: Samples) -> None:
    """Fit to training vehicles whose end was seen, and write `FILES` as .joblib."""
    known, seen = train.at(train.ended), train.at(train.fails >= 0)
    scaler = StandardScaler().fit(train.inputs[:, :INPUTS])
    rul = xgb.XGBRegressor(objective="reg:absoluteerror", **_TREES)
    rul.fit(scaler.transform(known.inputs[:, :INPUTS]), known.rul_efc, sample_weight=known.weight)
    failure = xgb.XGBClassifier(**_TREES)
    failure.fit(scaler.transform(seen.inputs[:, :INPUTS]), seen.fails.astype(np.int64), sample_weight=seen.weight)
    make_directory(folder)
    for name, content in zip(FILES, (rul, failure, scaler, list(FEATURES[:INPUTS])), strict=True):
        replace_file(folder / f"{name}.joblib", lambda file, content=content: joblib.dump(content, file, compress=3))  # type: ignore[misc]
