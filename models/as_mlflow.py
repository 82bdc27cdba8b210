"""A bundle as a model of MLflow's pyfunc flavour. MLflow runs this file when it loads one; nothing here imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from models.bundle import Bundle


class BundleModel(PythonModel):
    """Takes a table with the bundle's features by name; a windowed one may be missing. Gives a table of predictions."""

    def load_context(self, context: Any) -> None:
        self._bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        table = model_input.reindex(columns=list(self._bundle.manifest.features))
        return pd.DataFrame(vars(self._bundle.predict(table.to_numpy(np.float32))))


set_model(BundleModel())
