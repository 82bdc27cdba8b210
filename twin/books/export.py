"""A run's records as one file, by DuckDB: larger than memory, in order of time, whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import duckdb

from datasets.names import Stream
from datasets.schema import MODEL_INPUTS
from twin.books.sealed import opened, quoted, read_parquet, sealed, some_sealed
from twin.errors import BadInput

REFERENCE: Final = {
    **MODEL_INPUTS,
    "Ambient_Temperature": "ambient_temperature",
    "Driving_Speed": "driving_speed",
    "Distance_Traveled": "distance_traveled",
}
"""Columns of the reference data set that a vehicle computes, and ours; its time, RUL and failure probability come to
them. Brakes, tyres, motor and suspension are not simulated, so they are left out and not made up."""


def export_run(
    run: Path, target: Path, to: Literal["csv", "parquet", "reference"], stream: Stream, vehicle: str
) -> tuple[int, int]:
    """Write the sealed records of a run to a new file. Returns (rows, segments that still grow and are left out).

    BadInput, and no file, where there are no such records, one cannot be read, or the file cannot be written.
    """
    files = some_sealed(run, stream)
    growing = len(list((run / stream).glob("**/*.open")))
    where = f"WHERE vehicle_id = {quoted(vehicle)}" if vehicle else ""
    source = f"(SELECT * FROM {read_parquet(files)} {where})"
    query = f"FROM {source} ORDER BY ts, vehicle_id, seq"
    if to == "reference":
        query = _reference(run, source, one=bool(vehicle))
    form = "FORMAT parquet, COMPRESSION zstd" if to == "parquet" else "FORMAT csv, HEADER"
    if not target.parent.is_dir():
        raise BadInput(f"cannot write {target}: there is no folder {target.parent}")
    temporary = target.with_name(f".{target.name}.part")
    try:
        with opened(run) as database:
            (rows,) = _copied(database, f"COPY ({query}) TO {quoted(str(temporary))} ({form})", temporary)
        if not rows:
            raise BadInput(f"{run} holds no sealed {stream} of {vehicle}")
        temporary.rename(target)
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror or ' '.join(str(error).split())[:200]}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return int(rows), growing


def _copied(database: duckdb.DuckDBPyConnection, statement: str, target: Path) -> tuple[int]:
    """(rows,). OSError where it is the target that fails, and not what is read."""
    try:
        return database.execute(statement).fetchall()[0]
    except duckdb.IOException as error:
        if target.name in str(error):
            raise OSError(str(error)) from error
        raise


def _reference(run: Path, source: str, *, one: bool) -> str:
    """SQL: records under the reference's names, with the prediction of the same record where there is one."""
    predictions = sealed(run, "predictions")
    none = f"(SELECT *, NULL rul, NULL failure_probability FROM {source} LIMIT 0)"
    told = read_parquet(predictions) if predictions else none
    named = ", ".join(f't.{ours} AS "{theirs}"' for theirs, ours in REFERENCE.items())
    return (
        f"SELECT strftime(t.ts AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S') AS \"Timestamp\", "
        f'{"" if one else 't.vehicle_id AS "Vehicle_ID", '}{named}, p.rul AS "RUL", '
        f'p.failure_probability AS "Failure_Probability" FROM {source} t '
        f"LEFT JOIN {told} p ON p.vehicle_id = t.vehicle_id AND p.seq = t.seq ORDER BY t.ts, t.vehicle_id, t.seq"
    )
