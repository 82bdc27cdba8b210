"""What the records of a batch add to the sums by the minute (`cluster/sql/0007.minutes.sql`).

Each sum is named once, here: of a batch that is new as a whole it is computed in Arrow, of rows that the database picks
(those that were not there yet) in SQL.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from datasets.schema import Stream

# By stream: what a minute is divided by, and what is summed up in each part. `nonzero` counts.
_PARTS: Final[dict[Stream, str]] = {"telemetry": "mode", "predictions": "model_version"}
_ALL: Final = ("sum", "min", "max")
_FIGURES: Final[dict[Stream, dict[str, tuple[str, ...]]]] = {
    "telemetry": {
        "soc": _ALL,
        "soh": _ALL,
        "battery_voltage": _ALL,
        "battery_current": _ALL,
        "battery_temperature": _ALL,
        "power_consumption": _ALL,
        "flags": ("nonzero",),
        "diagnostics": ("nonzero",),
    },
    "predictions": {
        "rul": _ALL,
        "rul_low": ("sum",),
        "rul_high": ("sum",),
        "failure_probability": ("sum", "max"),
    },
}
_COUNTS: Final = {"flags": "flagged", "diagnostics": "diagnosed"}
_MINUTE_US: Final = 60_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS: Final = 3
RECORDS: Final = _KEYS
"""Where in a row the number of records is."""
_MERGE: Final = {"sum": "old.{0} + excluded.{0}", "min": "least(old.{0}, excluded.{0})",
                 "max": "greatest(old.{0}, excluded.{0})"}  # fmt: skip

type Row = tuple[Any, ...]
"""run_id, minute, part, records, figures in the order of the table."""


def _figures(stream: Stream) -> list[tuple[str, str, str]]:
    """(column, function, name in the table of minutes)."""
    return [
        (column, function, _COUNTS.get(column) or f"{column}_{function}")
        for column, functions in _FIGURES[stream].items()
        for function in functions
    ]


def sums_of(batch: pa.RecordBatch, stream: Stream) -> list[Row]:
    """The sums of all rows of a batch."""
    figures, part = _figures(stream), _PARTS[stream]
    runs, parts = batch["run_id"], batch[part]
    # Numbers as keys, and one thread: a batch is small, and text and threads would cost it two thirds more.
    columns = {"run": runs.indices, "minute": pa.array(batch["ts"].cast(pa.int64()).to_numpy() // _MINUTE_US),
               "part": parts.indices}  # fmt: skip
    for column in _FIGURES[stream]:
        # Sums in double precision, as the database adds them.
        values = pc.not_equal(batch[column], 0) if column in _COUNTS else batch[column]
        columns[column] = values.cast(pa.float64())
    keys = ["run", "minute", "part"]
    functions = [(column, "sum" if function == "nonzero" else function) for column, function, _ in figures]
    summed = pa.table(columns).group_by(keys, use_threads=False).aggregate([([], "count_all"), *functions])
    found = summed.select([*keys, "count_all", *(f"{column}_{function}" for column, function in functions)])
    return [
        (runs.dictionary[run].as_py(), _EPOCH + timedelta(minutes=minute), parts.dictionary[of].as_py(), *sums)
        for run, minute, of, *sums in zip(*(column.to_pylist() for column in found.columns), strict=True)
    ]


def sums_in_sql(stream: Stream, rows: str) -> str:
    """The query for the same sums of the rows of a relation."""
    figures = [
        f"count(*) FILTER (WHERE {column} <> 0)" if function == "nonzero" else f"{function}({column})"
        for column, function, _ in _figures(stream)
    ]
    return (
        f"SELECT run_id, date_trunc('minute', ts), {_PARTS[stream]}, count(*), {', '.join(figures)}"
        f" FROM {rows} GROUP BY 1, 2, 3"
    )


def adding(stream: Stream, rows: list[Row]) -> tuple[str, list[Any]]:
    """The statement that adds sums with distinct keys to the table, and its parameters.

    Rows are taken in the order of their keys, so two transactions that add to the same rows wait for each other, and
    never in a circle.
    """
    figures = _figures(stream)
    merged = ["records = old.records + excluded.records"]
    for _, function, name in figures:
        merged.append(f"{name} = {_MERGE.get(function, _MERGE['sum']).format(name)}")
    names = ["run_id", "minute", _PARTS[stream], "records", *(name for _, _, name in figures)]
    row = f"({', '.join(['%s'] * len(names))})"
    statement = (
        f"INSERT INTO {stream}_minute AS old ({', '.join(names)}) VALUES {', '.join([row] * len(rows))}"
        f" ON CONFLICT ({', '.join(names[:_KEYS])}) DO UPDATE SET {', '.join(merged)}"
    )
    return statement, list(chain.from_iterable(sorted(rows)))
