"""Record batches to the bytes a message carries, and back: JSON, one object a record (`schema.json_schema`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from datasets.schema import FIELDS, SCHEMA_VERSION, Stream


@dataclass(frozen=True)
class Messages:
    """The messages of one batch, in the batch's order; `ids` are `run_id/vehicle_id/seq`."""

    vehicle_ids: list[str]
    ids: list[str]
    values: list[bytes]


def text_columns(batch: pa.RecordBatch, stream: Stream) -> dict[str, list[Any]]:
    """Python values of each column at the resolution of its text form; floats have at most `Field.decimals` digits.

    Times are ISO 8601 with a Z. Float32 goes through a rounded float64, so 3.7001 is written 3.7001.
    """
    columns: dict[str, list[Any]] = {}
    for field in FIELDS[stream]:
        column = batch.column(field.name)
        if field.decimals is not None:
            columns[field.name] = np.round(column.to_numpy().astype(np.float64), field.decimals).tolist()
        elif pa.types.is_timestamp(field.type):
            # All vehicles of a shard share their sample times: format each time once.
            times, codes = np.unique(column.cast(pa.int64()).to_numpy(), return_inverse=True)
            texts = pc.strftime(pa.array(times, pa.timestamp("us", tz="UTC")), format="%Y-%m-%dT%H:%M:%SZ")
            names = np.array(texts.to_pylist(), dtype=object)
            columns[field.name] = names[codes].tolist()
        elif pa.types.is_dictionary(field.type):
            names = np.array(column.dictionary.to_pylist(), dtype=object)
            columns[field.name] = names[column.indices.to_numpy()].tolist()
        else:
            columns[field.name] = column.to_numpy().tolist()
    return columns


def encode_json(batch: pa.RecordBatch, stream: Stream) -> Messages:
    """One JSON object a row, UTF-8, keys in schema order."""
    columns = text_columns(batch, stream)
    names = ("schema", *columns)
    dumps = orjson.dumps
    values = [
        dumps(dict(zip(names, (SCHEMA_VERSION, *row), strict=True))) for row in zip(*columns.values(), strict=True)
    ]
    ids = [
        f"{run}/{vehicle}/{seq}"
        for run, vehicle, seq in zip(columns["run_id"], columns["vehicle_id"], columns["seq"], strict=True)
    ]
    return Messages(vehicle_ids=columns["vehicle_id"], ids=ids, values=values)
