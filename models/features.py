"""The seven inputs of the reference system, in its order, as a matrix."""

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
