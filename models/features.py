"""What the models are given: the seven inputs of the reference system, in its order, and from which records."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasets.schema import MODEL_INPUTS

FEATURES: tuple[str, ...] = tuple(MODEL_INPUTS)


def input_matrix(batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
    """Model inputs of each telemetry row, shape (n, 7), columns as `FEATURES`; units as in the telemetry schema."""
    columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in MODEL_INPUTS.values()]
    return np.column_stack([column.astype(np.float32) for column in columns])


def is_predicted(seq: npt.NDArray[np.int64], telemetry_ticks: int, predict_ticks: int) -> npt.NDArray[np.bool_]:
    """Whether record `seq` is the newest one at some multiple of the prediction period, shape (n,) bool.

    Record k is the newest from tick (k + 1) * telemetry_ticks until just before (k + 2) * telemetry_ticks.
    """
    since = (seq + 1) * telemetry_ticks
    next_prediction = -(-since // predict_ticks) * predict_ticks
    return np.asarray(next_prediction < since + telemetry_ticks)
